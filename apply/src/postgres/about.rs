//! What a statement is about, so that its failure can name the record, the table and the key.

use std::sync::Arc;

use thinwire_engine::model::{Halt, Offset, OldRow, Record, Row, Value};
use tokio_postgres::error::SqlState;

use crate::{
    SinkError,
    conflict::{Conflict, classify},
    plan::Table,
};

/// What a statement is about. What it knows may be less than all.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    offset: Option<Offset>,
    table: Option<Arc<Table>>,
    /// The key's columns by position, with their values.
    key: Vec<(usize, Value)>,
    /// What it means if a unique index refuses a row of it.
    refused_row: Option<Conflict>,
}

impl About {
    /// One record.
    pub(super) fn record(offset: Offset, table: &Arc<Table>, record: &Record) -> Self {
        let row = match record {
            Record::Insert { new, .. } => Some(new),
            Record::Update { old, new, .. } => Some(old.as_ref().map_or(new, OldRow::row)),
            Record::Delete { old, .. } => Some(old.row()),
            _ => None,
        };
        let refused_row = match record {
            Record::Insert { .. } => Some(Conflict::InsertExists),
            Record::Update { .. } => Some(Conflict::UpdateExists),
            _ => None,
        };
        Self { refused_row, ..Self::row(offset, table, row) }
    }

    /// Added rows, the first of which is at `offset`; `only` is that row if there are no others.
    pub(super) fn added(offset: Offset, table: &Arc<Table>, only: Option<&Row>) -> Self {
        Self { refused_row: Some(Conflict::InsertExists), ..Self::row(offset, table, only) }
    }

    /// A record that is about the whole of a table.
    pub(super) fn table(offset: Offset, table: &Arc<Table>) -> Self {
        Self::row(offset, table, None)
    }

    /// Changed rows, the first of which is at `offset`; `only` is that row if there are no others.
    pub(super) fn changed(offset: Offset, table: &Arc<Table>, only: Option<&Row>) -> Self {
        Self::row(offset, table, only)
    }

    fn row(offset: Offset, table: &Arc<Table>, row: Option<&Row>) -> Self {
        let key = row.map(|row| {
            let columns = table.named_by().into_iter();
            columns.filter_map(|at| Some((at, row.0.get(at)?.clone()))).collect()
        });
        Self {
            offset: Some(offset),
            table: Some(table.clone()),
            key: key.unwrap_or_default(),
            refused_row: None,
        }
    }

    /// The same, but a later record.
    pub(super) fn at(self, offset: Offset) -> Self {
        Self { offset: Some(offset), key: Vec::new(), ..self }
    }

    /// What a failure of the statement means. Where a unique index refuses a row, the table is the very one that the index
    /// belongs to, which may be a partition.
    pub(super) fn failed(&self, error: &tokio_postgres::Error) -> SinkError {
        let SinkError::Refused(mut halt) = classify(error) else { return classify(error) };
        let Some(conflict) = self.conflict(error) else { return self.fill_in(*halt) };
        halt.code = conflict.code().to_owned();
        let table = halt.table.take();
        match self.fill_in(*halt) {
            SinkError::Refused(halt) => SinkError::Refused(Box::new(Halt { table, ..*halt })),
            other => other,
        }
    }

    /// A refusal for a reason of ours.
    pub(super) fn refused(&self, code: &str, detail: impl Into<String>) -> SinkError {
        self.fill_in(Halt::new(code, detail))
    }

    /// The key, for people.
    pub(super) fn key(&self) -> Option<String> {
        let table = self.table.as_ref().filter(|_| !self.key.is_empty())?;
        let columns = self.key.iter().map(|(at, value)| {
            let name = &table.relation.columns[*at].name;
            match value {
                Value::Bytes(bytes) => format!("{name}={}", shortened(bytes)),
                Value::Null | Value::Unchanged => format!("{name}=null"),
            }
        });
        Some(columns.collect::<Vec<_>>().join(", "))
    }

    /// The names of the columns that the key has.
    pub(super) fn key_columns(&self) -> Vec<&str> {
        let Some(table) = &self.table else { return Vec::new() };
        table.named_by().into_iter().map(|at| &*table.relation.columns[at].name).collect()
    }

    /// The table, for people.
    pub(super) fn table_name(&self) -> Option<String> {
        self.table.as_ref().map(|table| table.name())
    }

    pub(super) fn offset(&self) -> Option<Offset> {
        self.offset
    }

    fn fill_in(&self, halt: Halt) -> SinkError {
        SinkError::Refused(Box::new(Halt {
            offset: self.offset,
            table: self.table_name().or(halt.table),
            key: self.key(),
            ..halt
        }))
    }

    /// The conflict that an error tells of: a row is in the way in the table itself, not in one that a trigger writes to.
    fn conflict(&self, error: &tokio_postgres::Error) -> Option<Conflict> {
        let (answer, table) = (error.as_db_error()?, self.table.as_ref()?);
        let is_here = answer.schema() == Some(&table.relation.schema)
            && answer.table() == Some(&table.relation.name);
        let is_unique = *answer.code() == SqlState::UNIQUE_VIOLATION;
        self.refused_row.filter(|_| is_unique && (is_here || table.partitioned))
    }
}

/// A key's value, of reasonable length.
pub(super) fn shortened(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(KEY_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

const KEY_CHARS_MAX: usize = 100;
