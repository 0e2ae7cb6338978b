//! Schema changes: what a stream tells of objects is compared with what it told before and with what they are here, and the
//! steps that follow are run in the open target transaction, where the record stands.
//!
//! What was told is kept in `thinwire.definitions`, in the same transaction. If another login changes the schema than
//! applies rows, the transaction is begun again by that one as soon as there is something to change.

mod accepted;
mod turns;

use std::sync::Arc;

use thinwire_engine::model::{
    Body, Definitions, Halt, Kind, Object, Offset, RelationId, Schema, StreamId,
};
use tokio_postgres::{Client, error::SqlState};
use tracing::{info, warn};
use turns::Made;

use super::{
    Postgres, disconnected,
    lookup::{ask, failed, query},
    objects::here,
};
use crate::{
    SinkError, Tables,
    conflict::classify,
    schema::{self, Here, Known, Misfit, Named, Occasion, Step},
    sql::{
        catalog::EMPTY_PATH,
        objects as sql,
        schema::{Attempt, attempts, bare},
        session::{NOTE_LOADED, WAS_LOADED},
    },
};

impl Postgres {
    /// Does what a record tells of the source's objects.
    pub(super) async fn alter(&mut self, schema: Schema, offset: Offset) -> Result<(), SinkError> {
        self.flush().await?;
        let definitions = Definitions::decode(&schema.definitions).map_err(|error| {
            let halt = Halt::new("journal_corrupt", error.to_string());
            SinkError::Refused(Box::new(Halt { offset: Some(offset), ..halt }))
        })?;
        // That tables are copied again is no affair of a target that never asked for changes of the schema.
        if definitions.objects.is_empty() && definitions.dropped.is_empty() {
            return Ok(());
        }
        let session = self.session.as_mut().ok_or_else(disconnected)?;
        let grants_to = match session.is_owner {
            true => self.target.config.get_user().map(str::to_owned),
            false => None,
        };
        let work = Work {
            client: session.client.clone(),
            accepted: self.accepted.clone(),
            stream: self.stream,
            offset,
            occasion: if self.load.is_some() { Occasion::Copy } else { Occasion::Change },
            may_alter: session.is_owner || self.owner.is_none(),
            grants_to,
            stale: match &self.load {
                _ if self.is_shared => Vec::new(),
                Some(load) => load.tables().to_vec(),
                None => schema.stale,
            },
        };
        let done = work.run(&definitions).await;
        session.forget_tables();
        if done == Err(SinkError::Again) {
            self.owner_from = Some(self.began.unwrap_or(offset));
        }
        done
    }
}

/// One record's work.
struct Work {
    client: Arc<Client>,
    accepted: Tables,
    stream: StreamId,
    offset: Offset,
    occasion: Occasion,
    /// Whether this login is the one that changes the schema.
    may_alter: bool,
    /// The login that applies rows, if it is another.
    grants_to: Option<String>,
    /// Tables whose rows are copied again, by their ids at the source.
    stale: Vec<RelationId>,
}

/// What a statement is about.
#[derive(Clone)]
struct Subject {
    name: String,
    /// If it is a table: its id at the source, its schema and its name.
    table: Option<(RelationId, [String; 2])>,
}

/// Why something could not be done, and the server's word for it.
struct Failure {
    state: Option<SqlState>,
    error: SinkError,
}

impl From<SinkError> for Failure {
    fn from(error: SinkError) -> Self {
        Self { state: None, error }
    }
}

impl From<Failure> for SinkError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl Failure {
    /// Whether the server's word for it begins like one of these.
    fn is_one_of(&self, states: &[&str]) -> bool {
        let state = self.state.as_ref().map_or("", SqlState::code);
        states.iter().any(|it| state.starts_with(it))
    }
}

impl Work {
    async fn run(&self, definitions: &Definitions) -> Result<(), SinkError> {
        for text in [EMPTY_PATH, sql::WAIT_BRIEFLY] {
            self.client.batch_execute(text).await.map_err(failed)?;
        }
        if let Some(object) = definitions.objects.iter().find(|it| schema::is_reserved(it)) {
            let why = "no stream may change what PostgreSQL and Thinwire keep there".to_owned();
            return Err(self.refused(&Subject::of(object).name, why));
        }
        let mut known = self.told(definitions).await?;
        self.accept(definitions, &known).await?;
        for told in &definitions.objects {
            if let Some(known) = known.get(told.body.kind(), told.id) {
                self.steps(told, &schema::freed(known, told)).await?;
            }
        }
        let all = self.make(&mut known, definitions).await?;
        self.drop(&mut known, definitions).await?;
        for (at, made) in &all {
            for attempts in &made.references {
                self.attempt(&Subject::of(&definitions.objects[*at]), attempts).await?;
            }
        }
        for (at, made) in &all {
            self.late(made, &definitions.objects[*at], &known).await?;
        }
        self.client.batch_execute(sql::WAIT).await.map_err(failed)
    }

    /// What this stream told before of the objects that a record is about.
    async fn told(&self, definitions: &Definitions) -> Result<Known, SinkError> {
        let ids: Vec<_> = schema::ids(definitions).iter().map(u32::to_string).collect();
        let params = vec![self.stream.origin.to_string(), format!("{{{}}}", ids.join(","))];
        let rows = query(&self.client, sql::TOLD, params).await.map_err(|error| match error {
            SinkError::Refused(halt) if halt.code == "missing_table" => self.refused(
                "thinwire.definitions",
                "the database is not prepared for schema changes; run `thinwire init`".to_owned(),
            ),
            other => other,
        })?;
        let mut known = Known::default();
        for row in &rows {
            let bytes: &[u8] = row.try_get(0).map_err(failed)?;
            let told = Definitions::decode(bytes).map_err(|_| {
                let why = "what it holds is no definition; remove it".to_owned();
                self.refused("thinwire.definitions", why)
            })?;
            told.objects.into_iter().for_each(|object| known.insert(object));
        }
        Ok(known)
    }

    /// Makes an object what it is told to be, but for what a table lacks when its columns are there.
    async fn object(
        &self,
        was: Option<Object>,
        told: &Object,
        known: &Known,
        definitions: &Definitions,
    ) -> Result<Made, Failure> {
        let named = Named::of(told);
        let mut found = here(&self.client, &named).await?;
        if let Some(was) = &was
            && found == Here::Nothing
            && (&was.schema, &was.name) != (&told.schema, &told.name)
            && here(&self.client, &Named::of(was)).await? != Here::Nothing
        {
            self.steps(told, &schema::renamed(was, told)).await?;
            found = here(&self.client, &named).await?;
        }
        let is_new = found == Here::Nothing;
        let mut made = Made { is_new, ..Made::default() };
        if !is_new && was.as_ref() == Some(&remembered(told)) {
            return Ok(Made { was, ..made });
        }
        let mut identities = known.identities(told.id);
        identities.extend(definitions.objects.iter().filter_map(|object| {
            let (table, number) = schema::identity_of(object)?;
            (table == told.id).then_some((number, object))
        }));
        // What is told now counts.
        identities.reverse();
        let steps = schema::shaped(self.occasion, was.as_ref(), told, &found, &identities);
        let steps = steps.map_err(|Misfit(why)| self.refused(&Subject::of(told).name, why))?;
        self.steps(told, &steps).await?;
        self.note_rows(was.as_ref(), told, is_new).await?;
        let is_table = matches!(told.body, Body::Table(_));
        if is_table
            && (is_new || was.is_some())
            && let Here::Table(table) = here(&self.client, &named).await?
        {
            let before = was.as_ref().filter(|_| !is_new);
            for step in schema::completed(before, told, &table) {
                let attempts = attempts(&step, None);
                match step.is_reference() {
                    true => made.references.push(attempts),
                    false => made.rest.push_back(attempts),
                }
            }
        }
        if !made.rest.is_empty() || !made.references.is_empty() {
            self.needs_owner()?;
        }
        Ok(Made { was, ..made })
    }

    /// Remembers that the rows of a table come from this stream alone: it made the table, or loaded it under another name.
    async fn note_rows(
        &self,
        was: Option<&Object>,
        told: &Object,
        made: bool,
    ) -> Result<(), SinkError> {
        if !matches!(told.body, Body::Table(_)) {
            return Ok(());
        }
        let origin = self.stream.origin.to_string();
        let name = |object: &Object| [object.schema.clone(), object.name.clone()];
        if made {
            let place = [self.stream.epoch.to_string(), self.offset.to_string(), "0".to_owned()];
            let params = [vec![origin], name(told).into(), place.into()].concat();
            query(&self.client, NOTE_LOADED, params).await?;
        } else if let Some(was) = was.filter(|was| name(was) != name(told)) {
            let params = [vec![origin], name(was).into(), name(told).into()].concat();
            query(&self.client, sql::MOVE_LOADED, params).await?;
        }
        Ok(())
    }

    async fn late(&self, made: &Made, told: &Object, known: &Known) -> Result<(), SinkError> {
        let was = made.was.as_ref();
        let Body::Sequence(sequence) = &told.body else { return Ok(()) };
        let owner = sequence.owned_by.and_then(|(table, _)| known.get(Kind::Table, table));
        let mut steps = schema::late(was, told, owner);
        // One that was here before it was told of belongs to whom it belongs.
        steps.retain(|step| made.is_new || was.is_some() || matches!(step, Step::Value { .. }));
        if steps.is_empty() || here(&self.client, &Named::of(told)).await? == Here::Nothing {
            return Ok(());
        }
        Ok(self.steps(told, &steps).await?)
    }

    async fn drop(&self, known: &mut Known, definitions: &Definitions) -> Result<(), SinkError> {
        let dropped = self.droppable(known, definitions).await?;
        for step in schema::drops(known, &dropped) {
            let Step::Drop(objects) = &step else { continue };
            let names: Vec<_> = objects.iter().map(bare).collect();
            self.needs_owner()?;
            let about = Subject { name: names.join(", "), table: None };
            self.attempt(&about, &attempts(&step, None)).await?;
        }
        for gone in &definitions.dropped {
            let Some(kind) = known.kind_of(gone) else {
                let kind = kind_name(gone.kind);
                warn!(
                    stream = %self.stream, kind, schema = gone.schema, name = gone.name,
                    "an object is gone at the source that this stream never told of; it is left alone here"
                );
                continue;
            };
            known.remove(kind, gone.id);
            let kind = kind_name(kind).to_owned();
            let params = vec![self.stream.origin.to_string(), kind, gone.id.to_string()];
            query(&self.client, sql::FORGET, params).await?;
        }
        Ok(())
    }

    async fn remember(&self, was: Option<&Object>, told: &Object) -> Result<(), SinkError> {
        let told = remembered(told);
        if was == Some(&told) {
            return Ok(());
        }
        let (kind, id) = (kind_name(told.body.kind()).to_owned(), told.id.to_string());
        let (schema, name) = (told.schema.clone(), told.name.clone());
        let bytes = Definitions { objects: vec![told], dropped: Vec::new() }.encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let params =
            vec![self.stream.origin.to_string(), kind, id, schema, name, format!("\\x{hex}")];
        query(&self.client, sql::REMEMBER, params).await.map(drop)
    }

    async fn steps(&self, told: &Object, steps: &[Step<'_>]) -> Result<(), Failure> {
        for step in steps {
            if step.needs_owner() {
                self.needs_owner()?;
            }
            let step = match step {
                Step::Own(object) if !self.may_give(object).await? => continue,
                Step::Disarm(object) if !self.is_armed(object).await? => continue,
                Step::Disarm(object) if self.may_give(object).await? => &Step::Own(object),
                step => step,
            };
            if let Step::Disarm(object) = step {
                warn!(
                    stream = %self.stream, schema = object.schema, name = object.name, owner = object.owner,
                    "its owner cannot be had here, so this routine runs with the rights of whoever calls it"
                );
            }
            let attempts = attempts(step, self.grants_to.as_deref());
            self.attempt(&Subject::of(told), &attempts).await?;
        }
        Ok(())
    }

    /// Whether an object may be given to the owner that it is told to have.
    async fn may_give(&self, object: &Object) -> Result<bool, SinkError> {
        let params = vec![object.owner.clone(), object.schema.clone()];
        ask(&self.client, sql::MAY_GIVE, params).await
    }

    /// Whether a routine runs with the rights of somebody whom its source did not mean.
    async fn is_armed(&self, object: &Object) -> Result<bool, SinkError> {
        let Named { schema, name, arguments, .. } = Named::of(object);
        let params = [schema, name, arguments.unwrap_or_default(), &object.owner];
        ask(&self.client, sql::IS_ARMED, params.map(str::to_owned).to_vec()).await
    }

    /// If another login changes the schema, it is that one's turn.
    fn needs_owner(&self) -> Result<(), SinkError> {
        match self.may_alter {
            true => Ok(()),
            false => Err(SinkError::Again),
        }
    }

    /// Tries one way after the other.
    async fn attempt(&self, about: &Subject, attempts: &[Attempt]) -> Result<(), Failure> {
        if let [only] = attempts {
            return self.execute(about, only).await;
        }
        let mut failure: Option<Failure> = None;
        for attempt in attempts {
            match &failure {
                None => self.client.batch_execute(sql::SAVE).await.map_err(failed)?,
                Some(failure) if !failure.is_one_of(attempt.behind) => continue,
                Some(Failure { error: why, .. }) => {
                    self.client.batch_execute(sql::UNDO).await.map_err(failed)?;
                    if attempt.empties && !self.may_empty(about).await? {
                        continue;
                    }
                    info!(stream = %self.stream, object = about.name, %why, "trying it another way");
                }
            }
            match self.execute(about, attempt).await {
                Ok(()) => return Ok(self.client.batch_execute(sql::KEEP).await.map_err(failed)?),
                Err(refused) if matches!(refused.error, SinkError::Refused(_)) => {
                    failure.get_or_insert(refused);
                }
                Err(other) => return Err(other),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Whether the rows of a table are this stream's alone, and are copied again.
    async fn may_empty(&self, about: &Subject) -> Result<bool, SinkError> {
        let Some((id, [schema, name])) = &about.table else { return Ok(false) };
        let params = vec![self.stream.origin.to_string(), schema.clone(), name.clone()];
        Ok(self.stale.contains(id) && ask(&self.client, WAS_LOADED, params).await?)
    }

    async fn execute(&self, about: &Subject, attempt: &Attempt) -> Result<(), Failure> {
        for text in &attempt.texts {
            let shown = shown(text, attempt.value.as_deref());
            if text.contains('\0') {
                return Err(self
                    .refused(&about.name, format!("{shown}: it holds a zero byte"))
                    .into());
            }
            // As one that is prepared, it is a single statement or none.
            if let Err(error) = self.client.execute(text, &[]).await {
                let state = error.code().cloned();
                return Err(Failure { state, error: self.failure(about, &shown, &error) });
            }
        }
        Ok(())
    }

    fn failure(&self, about: &Subject, shown: &str, error: &tokio_postgres::Error) -> SinkError {
        match classify(error) {
            SinkError::Weather(why) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                let name = &about.name;
                SinkError::Weather(format!(
                    "the schema of {name} is to be changed, and somebody at the target is using it: {why}"
                ))
            }
            SinkError::Refused(halt) => {
                let cure = match error.code() {
                    Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                        "; set [apply] ddl_url to a login that may, or do it by hand"
                    }
                    _ => "",
                };
                self.refused(&about.name, format!("{shown}: {}{cure}", halt.detail))
            }
            other => other,
        }
    }

    fn refused(&self, about: &str, detail: String) -> SinkError {
        let (offset, table) = (Some(self.offset), Some(about.to_owned()));
        SinkError::Refused(Box::new(Halt { offset, table, ..Halt::new("schema_refused", detail) }))
    }
}

impl Subject {
    fn of(object: &Object) -> Self {
        let name = match &*object.schema {
            "" => object.name.clone(),
            schema => format!("{schema}.{}", object.name),
        };
        let is_table = matches!(object.body, Body::Table(_));
        let table = (RelationId(object.id), [object.schema.clone(), object.name.clone()]);
        Self { name, table: is_table.then_some(table) }
    }
}

/// What is kept of what was told: how far a sequence has come is not.
fn remembered(told: &Object) -> Object {
    let mut told = told.clone();
    if let Body::Sequence(sequence) = &mut told.body {
        sequence.value = None;
    }
    told
}

/// A statement for people: of reasonable length, and without what rows may hold.
fn shown(text: &str, value: Option<&str>) -> String {
    let text = value.map_or(text.to_owned(), |value| text.replace(value, "…"));
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Schema => "schema",
        Kind::Enum => "enum",
        Kind::Composite => "composite",
        Kind::Domain => "domain",
        Kind::Range => "range",
        Kind::Sequence => "sequence",
        Kind::Table => "table",
        Kind::View => "view",
        Kind::Routine => "routine",
    }
}

const SHOWN_CHARS_MAX: usize = 300;
