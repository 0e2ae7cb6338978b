//! Loading a copy: every table in one target transaction, so that a broken copy leaves no trace.
//!
//! A table whose rows came from this stream before, and from nowhere else, is emptied first, whatever is configured about
//! rows that are there. Where several streams or the node's own users write to it, the configuration decides.
//! Rows are removed by DELETE, not TRUNCATE: readers go on and see the old rows until the copy is committed, and under the
//! replica role nothing refers to a row in a way that could forbid it.

use std::{collections::BTreeSet, sync::Arc};

use thinwire_engine::model::{Copy, Offset, Relation, RelationId, StreamId};
use tracing::info;

use super::{
    about::About,
    inserts::Inserts,
    lookup::{ask, query},
    session::Session,
};
use crate::{
    SinkError,
    conflict::{ConflictCounts, Existing},
    plan::{OnExisting, Table},
    sink::Relations,
    sql::{self, session as session_sql},
};

/// A copy being loaded.
pub(super) struct Load {
    stream: StreamId,
    existing: Existing,
    /// Whether rows of others may be in the tables that no stream has brought.
    is_shared: bool,
    begin: Offset,
    tables: Vec<RelationId>,
    entered: BTreeSet<RelationId>,
    current: Option<Current>,
}

/// The table whose rows are coming.
struct Current {
    table: Arc<Table>,
    staged: bool,
    rows: u64,
}

impl Load {
    pub(super) fn new(
        stream: StreamId,
        existing: Existing,
        is_shared: bool,
        begin: Offset,
        copy: &Copy,
    ) -> Self {
        Self {
            stream,
            existing,
            is_shared,
            begin,
            tables: copy.tables.iter().map(|table| table.relation).collect(),
            entered: BTreeSet::new(),
            current: None,
        }
    }

    /// The tables that are copied.
    pub(super) fn tables(&self) -> &[RelationId] {
        &self.tables
    }

    /// Whether rows of a table are about to come that has not had its turn.
    pub(super) fn awaits(&self, relation: RelationId) -> bool {
        self.tables.contains(&relation) && !self.entered.contains(&relation)
    }

    /// Whether the rows that are coming are this table's.
    pub(super) fn is_at(&self, relation: RelationId) -> bool {
        self.current.as_ref().is_some_and(|current| current.table.relation.id == relation)
    }

    /// The table whose rows are coming and whether they are staged; counts one.
    pub(super) fn row(&mut self) -> Option<(Arc<Table>, bool)> {
        let current = self.current.as_mut()?;
        current.rows += 1;
        Some((current.table.clone(), current.staged))
    }

    /// Makes a table ready to take its rows. The one before it has been left.
    pub(super) async fn enter(
        &mut self,
        session: &mut Session,
        relation: &Arc<Relation>,
        offset: Offset,
        counts: &ConflictCounts,
    ) -> Result<(), SinkError> {
        let table = session.table(relation, offset, counts).await?.table;
        session.pipeline.drain(counts).await?;
        self.entered.insert(relation.id);
        let about = About::table(offset, &table);
        let client = session.client.clone();
        let is_loaded =
            !self.is_shared && ask(&client, session_sql::WAS_LOADED, self.names(&table)).await?;
        let holds = ask(&client, &sql::has_rows(&table), Vec::new()).await;
        let mut staged = false;
        match (holds.map_err(|error| named(error, &about))?, is_loaded, self.existing) {
            (false, ..) => {}
            (true, true, _) | (true, false, Existing::Replace) => {
                let deleted = client.batch_execute(&sql::delete_all(&table)).await;
                deleted.map_err(|error| about.failed(&error))?;
            }
            (true, false, Existing::Stop) => return Err(about.refused(NOT_EMPTY, STOPPED)),
            (true, false, Existing::Merge) => {
                check_merge(&table, &about)?;
                let created = client.batch_execute(&sql::create_stage(&table)).await;
                created.map_err(|error| about.failed(&error))?;
                staged = true;
            }
        }
        info!(stream = %self.stream, table = table.name(), staged, "loading a copied table");
        self.current = Some(Current { table, staged, rows: 0 });
        Ok(())
    }

    /// Ends the table whose rows were coming.
    pub(super) async fn leave(
        &mut self,
        session: &mut Session,
        inserts: &mut Inserts,
        offset: Offset,
        counts: &ConflictCounts,
    ) -> Result<(), SinkError> {
        let Some(Current { table, staged, rows }) = self.current.take() else { return Ok(()) };
        inserts.send(session, OnExisting::Fail, counts).await?;
        session.pipeline.drain(counts).await?;
        if staged {
            let about = About::table(offset, &table);
            for text in [&*sql::merge_stage(&table), sql::DROP_STAGE] {
                let done = session.client.batch_execute(text).await;
                done.map_err(|error| about.failed(&error))?;
            }
        }
        let mut noted = self.names(&table);
        noted.extend([self.stream.epoch.to_string(), self.begin.to_string(), rows.to_string()]);
        query(&session.client, session_sql::NOTE_LOADED, noted).await.map(drop)
    }

    /// Tables without rows that had no turn yet.
    pub(super) fn unentered(&self, relations: &Relations) -> Vec<Arc<Relation>> {
        let waiting = self.tables.iter().filter(|id| !self.entered.contains(id));
        waiting.filter_map(|id| relations.get(id).cloned()).collect()
    }

    fn names(&self, table: &Table) -> Vec<String> {
        let relation = &table.relation;
        vec![self.stream.origin.to_string(), relation.schema.clone(), relation.name.clone()]
    }
}

fn check_merge(table: &Table, about: &About) -> Result<(), SinkError> {
    let Some(identity) = table.identity() else {
        let detail = "the table has rows, and without a primary key or unique index on copied columns they cannot be \
                      merged; empty it, or set existing = \"replace\"";
        return Err(about.refused(NOT_EMPTY, detail));
    };
    let unmergeable = (0..table.columns.len())
        .any(|at| table.columns[at].identity_always && !identity.contains(&at));
    if unmergeable {
        let detail = "the table has rows, and an identity column outside of its key that is GENERATED ALWAYS, so they \
                      cannot be merged; empty it, or set existing = \"replace\"";
        return Err(about.refused(NOT_EMPTY, detail));
    }
    Ok(())
}

/// Names the table in an error of a statement that says nothing of it.
fn named(error: SinkError, about: &About) -> SinkError {
    match error {
        SinkError::Refused(mut halt) => {
            halt.table = about.table_name();
            halt.offset = about.offset();
            SinkError::Refused(halt)
        }
        other => other,
    }
}

const NOT_EMPTY: &str = "target_not_empty";
const STOPPED: &str = "the table to be copied has rows already; empty it, or set existing = \"merge\" or \"replace\" \
                       under [apply]";
