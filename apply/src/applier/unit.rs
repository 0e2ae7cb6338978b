//! What must become durable as one: whole source transactions and copies, recognised in the run of records.

use thinwire_engine::model::{Halt, Offset, Origin, Record, Relation, Row};

use super::source::{Item, Source};
use crate::{SinkError, sink::Relations};

/// The next thing to do.
#[derive(Debug)]
pub(super) enum Unit {
    /// A whole source transaction, or a single record outside of any.
    Whole(Vec<Item>),
    /// A source transaction that was aborted, or a record without effect. What it described stays described.
    Void {
        /// Its records that describe tables.
        relations: Vec<Relation>,
        /// Its last offset.
        last: Offset,
    },
    /// The beginning of a transaction or copy that is too large to be held; its end is in the journal.
    Long(Vec<Item>),
    /// The beginning of a copy for somebody else.
    Foreign,
}

impl Unit {
    /// The first record of what takes effect here.
    pub(super) fn first(&self) -> Option<Offset> {
        match self {
            Self::Whole(items) | Self::Long(items) => items.first().map(|item| item.offset),
            Self::Void { .. } | Self::Foreign => None,
        }
    }

    /// Whether it is a copy for us.
    pub(super) fn is_copy(&self) -> bool {
        let Self::Long(items) = self else { return false };
        items.first().is_some_and(|item| matches!(item.record, Record::CopyBegin(_)))
    }
}

/// Whether a record ends what was begun, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It takes effect.
    Complete,
    /// It is void.
    Aborted,
}

/// The next unit; none if nothing complete is there.
pub(super) async fn next(source: &mut Source, node: Origin) -> Result<Option<Unit>, SinkError> {
    let Some(item) = source.next().await? else { return Ok(None) };
    let unit = match item.record {
        Record::Begin { .. } => gather(source, item).await?,
        Record::CopyBegin(ref copy) if copy.is_for(node) => Unit::Long(vec![item]),
        Record::CopyBegin(_) => Unit::Foreign,
        Record::Relation(relation) => Unit::Void { relations: vec![relation], last: item.last },
        Record::Skip { .. } => Unit::Void { relations: Vec::new(), last: item.last },
        Record::Message { .. } | Record::Schema(_) => Unit::Whole(vec![item]),
        _ => return Err(malformed(item.offset, "a row outside of any transaction")),
    };
    Ok(Some(unit))
}

/// Whether the schema is changed by it.
pub(super) fn alters(items: &[Item]) -> bool {
    items.iter().any(|item| matches!(item.record, Record::Schema(_)))
}

/// Reads a transaction to its end, or until there is too much of it.
async fn gather(source: &mut Source, begin: Item) -> Result<Unit, SinkError> {
    let (mut bytes, mut items) = (begin.bytes, vec![begin]);
    loop {
        let item = following(source).await?;
        match end_of(&item)? {
            Some(End::Complete) => {
                items.push(item);
                return Ok(Unit::Whole(items));
            }
            Some(End::Aborted) => {
                let relations = items.into_iter().filter_map(|item| match item.record {
                    Record::Relation(relation) => Some(relation),
                    _ => None,
                });
                return Ok(Unit::Void { relations: relations.collect(), last: item.last });
            }
            None => {
                bytes += item.bytes;
                items.push(item);
            }
        }
        if items.len() >= HELD_RECORDS_MAX || bytes >= HELD_BYTES_MAX {
            return Ok(Unit::Long(items));
        }
    }
}

/// The next record of something whose end is in the journal.
pub(super) async fn following(source: &mut Source) -> Result<Item, SinkError> {
    let expected = source.next_offset();
    source
        .next()
        .await?
        .ok_or_else(|| malformed(expected, "a transaction that should be complete has no end"))
}

/// Whether the record ends a transaction or copy. One that begins another inside is refused.
pub(super) fn end_of(item: &Item) -> Result<Option<End>, SinkError> {
    match item.record {
        Record::Commit { .. } | Record::CopyEnd { .. } => Ok(Some(End::Complete)),
        // A skipped run inside takes the end with it.
        Record::Abort | Record::CopyAbort | Record::Skip { .. } => Ok(Some(End::Aborted)),
        Record::Begin { .. } | Record::CopyBegin(_) => {
            Err(malformed(item.offset, "a transaction begins inside another"))
        }
        _ => Ok(None),
    }
}

/// Checks what no sink should have to: that a row's table is known and has as many columns.
pub(super) fn check(item: &Item, relations: &Relations) -> Result<(), SinkError> {
    let fits = |id, row: &Row| {
        let relation = relations
            .get(&id)
            .ok_or_else(|| malformed(item.offset, "a row of a table that was never described"))?;
        match row.0.len() == relation.columns.len() {
            true => Ok(()),
            false => Err(malformed(item.offset, "a row with a wrong number of columns")),
        }
    };
    match &item.record {
        Record::Insert { relation, new } => fits(*relation, new),
        Record::Update { relation, old, new } => {
            if let Some(old) = old {
                fits(*relation, old.row())?;
            }
            fits(*relation, new)
        }
        Record::Delete { relation, old } => fits(*relation, old.row()),
        Record::Truncate { relations: named, .. } => {
            match named.iter().all(|id| relations.contains_key(id)) {
                true => Ok(()),
                false => Err(malformed(item.offset, "a table that was never described")),
            }
        }
        _ => Ok(()),
    }
}

fn malformed(offset: Offset, what: &str) -> SinkError {
    let detail = format!("record {offset} makes no sense: {what}");
    SinkError::Refused(Box::new(Halt {
        offset: Some(offset),
        ..Halt::new("journal_corrupt", detail)
    }))
}

/// A transaction is held back in memory up to here, so that it can share a target transaction with others and need
/// not be undone if it was aborted.
pub(super) const HELD_RECORDS_MAX: usize = 1_000;
/// See [`HELD_RECORDS_MAX`].
pub(super) const HELD_BYTES_MAX: usize = 512 << 10;
