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
    inserts: bool,
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
        let inserts = matches!(record, Record::Insert { .. });
        Self { inserts, ..Self::row(offset, table, row) }
    }

    /// Added rows, the first of which is at `offset`; `only` is that row if there are no others.
    pub(super) fn added(offset: Offset, table: &Arc<Table>, only: Option<&Row>) -> Self {
        Self { inserts: true, ..Self::row(offset, table, only) }
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
            inserts: false,
        }
    }

    /// The same, but a later record.
    pub(super) fn at(self, offset: Offset) -> Self {
        Self { offset: Some(offset), key: Vec::new(), ..self }
    }

    /// What a failure of the statement means.
    pub(super) fn failed(&self, error: &tokio_postgres::Error) -> SinkError {
        let SinkError::Refused(mut halt) = classify(error) else { return classify(error) };
        if self.is_conflict(error) {
            halt.code = Conflict::InsertExists.code().to_owned();
        }
        self.fill_in(*halt)
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

    /// Whether it says that a row with this identity is there already, and not that it collides in some other column.
    fn is_conflict(&self, error: &tokio_postgres::Error) -> bool {
        let Some(answer) = error.as_db_error() else { return false };
        let (true, Some(table)) = (self.inserts, &self.table) else { return false };
        if *answer.code() != SqlState::UNIQUE_VIOLATION {
            return false;
        }
        let identity = table.identity();
        let named = table.unique.iter().find(|unique| Some(&*unique.name) == answer.constraint());
        match (named, identity) {
            (Some(unique), Some(identity)) => {
                unique.columns.len() == identity.len()
                    && identity
                        .iter()
                        .all(|at| unique.columns.contains(&table.relation.columns[*at].name))
            }
            // A partition's indexes have names of their own.
            (None, _) => table.partitioned,
            (Some(_), None) => false,
        }
    }
}

/// A key's value, of reasonable length.
fn shortened(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(KEY_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

const KEY_CHARS_MAX: usize = 100;
