//! Which rows are in the way of one that a unique index refuses. PostgreSQL names the first index that does; what the others
//! would say is looked up when that has happened, and not before.

use futures_util::TryStreamExt;
use thinwire_engine::model::{Halt, Offset, Record};
use tokio_postgres::{Client, Row};

use super::{
    Postgres,
    about::shortened,
    disconnected,
    lookup::{failed, query, text},
    param::Param,
};
use crate::{
    Change, SinkError,
    conflict::Conflict,
    plan::{self, OnExisting, Planned, Shape, Table},
    sql::rivals::{self as sql, Column, Index, Part},
};

/// A record that a unique index has refused, so that the others are asked too when it comes again.
pub(super) struct Suspect {
    offset: Offset,
    /// The table that the index belongs to, as PostgreSQL said it.
    table: String,
}

/// A row in the way.
pub(super) struct Rival {
    index: String,
    /// The columns and expressions of the index.
    columns: String,
    /// The row's own key; empty if it has none.
    key: String,
}

impl Postgres {
    /// The rows in the way of a change that was refused for one before; none if it was not.
    pub(super) async fn rivals(
        &mut self,
        change: &Change<'_>,
    ) -> Result<Option<Vec<Rival>>, SinkError> {
        let Some(suspect) = &self.suspect else { return Ok(None) };
        if suspect.offset != change.offset {
            return Ok(None);
        }
        let at = suspect.table.clone();
        let (Record::Insert { relation, .. } | Record::Update { relation, .. }) = &change.record
        else {
            return Ok(Some(Vec::new()));
        };
        let table = self.table(*relation, change.relations, change.offset).await?;
        let planned = match &change.record {
            Record::Insert { new, .. } => {
                plan::insert(vec![new.clone()], OnExisting::Fail).map(Some)
            }
            Record::Update { old, new, .. } => plan::update(&table, old.as_ref(), new),
            _ => Ok(None),
        };
        let Ok(Some(planned)) = planned else { return Ok(Some(Vec::new())) };
        let relation = table.relation.clone();
        let session = self.session.as_mut().ok_or_else(disconnected)?;
        let oid = session.table(&relation, change.offset, &self.counts).await?.oid;
        session.command(sql::MARK).await?;
        let found = look(&session.client, &table, oid, at, planned).await;
        session.command(sql::BACK).await?;
        match found {
            // What cannot be found out is left out; the first index is named all the same.
            Err(SinkError::Refused(_)) => Ok(Some(Vec::new())),
            found => found.map(Some),
        }
    }

    /// What becomes of a failure, with the rows in the way if they were looked for: else the record is given again, and
    /// they are.
    pub(super) fn blame(
        &mut self,
        offset: Offset,
        error: SinkError,
        rivals: Option<Vec<Rival>>,
    ) -> SinkError {
        let SinkError::Refused(halt) = error else { return error };
        let is_unique = matches!(
            Conflict::of(&halt.code),
            Some(Conflict::InsertExists | Conflict::UpdateExists)
        );
        match (is_unique, rivals, &halt.table) {
            (true, None, Some(table)) => {
                self.suspect = Some(Suspect { offset, table: table.clone() });
                SinkError::Again
            }
            (true, Some(rivals), _) => SinkError::Refused(Box::new(named(*halt, &rivals))),
            _ => SinkError::Refused(halt),
        }
    }
}

/// The halt, with every row in the way.
fn named(halt: Halt, rivals: &[Rival]) -> Halt {
    let one = |Rival { index, columns, key }: &Rival| match &key[..] {
        "" => format!("{index} ({columns})"),
        key => format!("{index} ({columns}) has the row {key}"),
    };
    let mut all: Vec<_> = rivals.iter().take(NAMED_MAX).map(one).collect();
    if let Some(more) = rivals.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        all.push(format!("and {more} more"));
    }
    let all = all.join("; ");
    match rivals.len() {
        0 => halt,
        1 => Halt { detail: format!("{}: {all}", halt.detail), ..halt },
        count => {
            let detail = format!("{count} unique indexes refuse the row: {all}");
            Halt { code: Conflict::MultipleUnique.code().to_owned(), detail, ..halt }
        }
    }
}

async fn look(
    client: &Client,
    table: &Table,
    oid: String,
    at: String,
    planned: Planned,
) -> Result<Vec<Rival>, SinkError> {
    client.batch_execute(crate::sql::catalog::EMPTY_PATH).await.map_err(failed)?;
    let rows = query(client, sql::TABLE, vec![oid, at]).await?;
    let Some(row) = rows.first() else { return Ok(Vec::new()) };
    let (oid, schema, name) = (text(row, 0)?, text(row, 1)?, text(row, 2)?);
    let columns = columns(client, &oid).await?;
    let changed = match &planned.shape {
        Shape::Update { set, find } | Shape::Replace { set, find } => Some((&set[..], find)),
        _ => None,
    };
    let new = sql::new_row(table, &columns, changed);
    let named_by: Vec<_> =
        table.named_by().into_iter().map(|at| table.relation.columns[at].name.clone()).collect();
    let mut rivals = Vec::new();
    for index in indexes(client, &oid).await? {
        let text = sql::rival(&schema, &name, &index, &new, &named_by);
        let params: Vec<_> = planned.params.iter().cloned().map(Param).collect();
        let rows = client.query_raw(&text, params).await.map_err(failed)?;
        let rows: Vec<_> = rows.try_collect().await.map_err(failed)?;
        let Some(row) = rows.first() else { continue };
        let of = |column| row.try_get::<_, Vec<String>>(column).map_err(failed);
        let columns: Vec<_> = index.parts.iter().map(|part| &part.text[..]).collect();
        rivals.push(Rival {
            columns: columns.join(", "),
            key: pairs(named_by.iter().cloned(), of(0)?),
            index: index.name,
        });
    }
    Ok(rivals)
}

fn pairs(names: impl Iterator<Item = String>, values: Vec<String>) -> String {
    let pairs =
        names.zip(values).map(|(name, value)| format!("{name}={}", shortened(value.as_bytes())));
    pairs.collect::<Vec<_>>().join(", ")
}

async fn columns(client: &Client, oid: &str) -> Result<Vec<Column>, SinkError> {
    let rows = query(client, sql::COLUMNS, vec![oid.to_owned()]).await?;
    let column = |row: &Row| {
        let generated = row.try_get(2).map_err(failed)?;
        Ok(Column { name: text(row, 0)?, of: text(row, 1)?, generated })
    };
    rows.iter().map(column).collect()
}

async fn indexes(client: &Client, oid: &str) -> Result<Vec<Index>, SinkError> {
    let mut found: Vec<Index> = Vec::new();
    for row in query(client, sql::INDEXES, vec![oid.to_owned()]).await? {
        let maybe = |column| row.try_get::<_, Option<String>>(column).map_err(failed);
        let part = Part {
            text: text(&row, 3)?,
            equality: text(&row, 4)?,
            collation: maybe(5)?.zip(maybe(6)?),
        };
        let name = text(&row, 0)?;
        match found.last_mut().filter(|last| last.name == name) {
            Some(last) => last.parts.push(part),
            None => found.push(Index {
                name,
                condition: maybe(1)?,
                nulls_equal: row.try_get(2).map_err(failed)?,
                parts: vec![part],
            }),
        }
    }
    Ok(found)
}

/// Indexes that a halt names: enough for a person.
const NAMED_MAX: usize = 10;
