//! Changes of a target transaction that were not sent yet, gathered so that many rows take one statement.
//!
//! Within a target transaction nobody sees what comes first. So changes of a table may overtake those of another if
//! nothing but the change happens when a row changes, and changes of rows with different keys may overtake each other if
//! only the key can bring rows into conflict; see [`Table::is_keyed`]. Several updates of one row become one, and so do an
//! insert and the updates of the inserted row. A change that does not join what is gathered of its table makes that be sent
//! first. A statement that fails or misses a row says at which record it began; from there on each is then given alone.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use bytes::Bytes;
use thinwire_engine::model::{Offset, OldRow, Record, Row, Value};

use super::{about::About, inserts, pipeline::Expect, session::Session, text::put_array_element};
use crate::{
    SinkError,
    conflict::{Conflict, ConflictCounts},
    plan::{self, Columns, OnExisting, Planned, Shape, Table},
};

/// What was gathered, by table.
#[derive(Default)]
pub(super) struct Gathered {
    groups: Vec<Group>,
    rows: usize,
    bytes: usize,
}

/// What was gathered of a table. All its rows have different keys, if it is keyed.
struct Group {
    table: Arc<Table>,
    is_keyed: bool,
    deletes: Vec<(Offset, Row)>,
    updates: Vec<(Offset, Row)>,
    /// The columns that all updates set.
    set: Columns,
    inserts: Vec<(Offset, Row)>,
    places: HashMap<Box<[Bytes]>, Place>,
}

/// What is gathered of a row.
#[derive(Clone, Copy, Debug)]
enum Place {
    Deleted,
    Updated(usize),
    Inserted(usize),
}

/// What became of a change that was offered.
pub(super) enum Offered {
    Taken,
    /// What is gathered of the table has to be sent before it.
    NotYet(Record),
}

impl Gathered {
    /// Whether a change of a table can be gathered at all. `merges` says that a row that was inserted may be updated before
    /// it is sent.
    pub(super) fn may_take(table: &Table, record: &Record) -> bool {
        let fits = bytes_of(record) <= ROW_BYTES_MAX;
        fits && match record {
            Record::Insert { new, .. } => {
                table.is_independent && !new.0.is_empty() && !new.0.contains(&Value::Unchanged)
            }
            Record::Update { old: None, new, .. } => {
                table.is_keyed()
                    && key(table, new).is_some()
                    && plan::set_by_key(table, new).is_some()
            }
            Record::Delete { old: OldRow::Key(old), .. } => {
                table.is_keyed() && key(table, old).is_some()
            }
            _ => false,
        }
    }

    /// Takes a change that [may be taken](Self::may_take) in, if it joins what is there. With `merges`, an update of an
    /// inserted row does.
    pub(super) fn offer(
        &mut self,
        table: &Arc<Table>,
        offset: Offset,
        record: Record,
        merges: bool,
    ) -> Offered {
        let bytes = bytes_of(&record);
        let offered = self.group(table).offer(offset, record, merges);
        if let Offered::Taken = offered {
            self.rows += 1;
            self.bytes += bytes;
        }
        offered
    }

    /// Whether it is time to send all.
    pub(super) fn is_full(&self) -> bool {
        self.rows >= ROWS_MAX || self.bytes >= BYTES_MAX
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Sends what is gathered of a table.
    pub(super) async fn send_table(
        &mut self,
        table: &Arc<Table>,
        session: &mut Session,
        existing: OnExisting,
        counts: &ConflictCounts,
    ) -> Result<(), SinkError> {
        let at = self.groups.iter().position(|group| Arc::ptr_eq(&group.table, table));
        let Some(at) = at else { return Ok(()) };
        self.groups.remove(at).send(session, existing, counts).await
    }

    /// Sends all.
    pub(super) async fn send(
        &mut self,
        session: &mut Session,
        existing: OnExisting,
        counts: &ConflictCounts,
    ) -> Result<(), SinkError> {
        for group in std::mem::take(self).groups {
            group.send(session, existing, counts).await?;
        }
        Ok(())
    }

    fn group(&mut self, table: &Arc<Table>) -> &mut Group {
        let at = self.groups.iter().position(|group| Arc::ptr_eq(&group.table, table));
        let at = at.unwrap_or_else(|| {
            self.groups.push(Group::new(table));
            self.groups.len() - 1
        });
        &mut self.groups[at]
    }
}

impl Group {
    fn new(table: &Arc<Table>) -> Self {
        Self {
            table: table.clone(),
            is_keyed: table.is_keyed(),
            deletes: Vec::new(),
            updates: Vec::new(),
            set: Columns::default(),
            inserts: Vec::new(),
            places: HashMap::new(),
        }
    }

    fn offer(&mut self, offset: Offset, record: Record, merges: bool) -> Offered {
        match record {
            Record::Insert { new, relation } => match self.place(&new) {
                Some(_) => Offered::NotYet(Record::Insert { new, relation }),
                None => {
                    self.settle(&new, Place::Inserted(self.inserts.len()));
                    self.inserts.push((offset, new));
                    Offered::Taken
                }
            },
            Record::Update { new, relation, old } => match self.update(offset, new, merges) {
                Ok(()) => Offered::Taken,
                Err(new) => Offered::NotYet(Record::Update { new, relation, old }),
            },
            Record::Delete { old, relation } if self.place(old.row()).is_some() => {
                Offered::NotYet(Record::Delete { old, relation })
            }
            Record::Delete { old: OldRow::Key(old) | OldRow::Full(old), .. } => {
                self.settle(&old, Place::Deleted);
                self.deletes.push((offset, old));
                Offered::Taken
            }
            other => Offered::NotYet(other),
        }
    }

    /// Gives the row back if it does not join.
    fn update(&mut self, offset: Offset, new: Row, merges: bool) -> Result<(), Row> {
        let Some(set) = plan::set_by_key(&self.table, &new) else { return Err(new) };
        let is_alike = self.updates.is_empty() || self.set == set;
        match self.place(&new) {
            Some(Place::Inserted(at)) if merges => {
                let values = self.inserts[at].1.0.iter_mut().zip(new.0).zip(&set);
                values.filter(|(_, set)| **set).for_each(|((old, new), _)| *old = new);
            }
            Some(Place::Updated(at)) if is_alike => self.updates[at].1 = new,
            None if is_alike => {
                self.set = set;
                self.settle(&new, Place::Updated(self.updates.len()));
                self.updates.push((offset, new));
            }
            _ => return Err(new),
        }
        Ok(())
    }

    fn place(&self, row: &Row) -> Option<Place> {
        let key = key(&self.table, row).filter(|_| self.is_keyed)?;
        self.places.get(&key).copied()
    }

    fn settle(&mut self, row: &Row, place: Place) {
        if let Some(key) = key(&self.table, row).filter(|_| self.is_keyed)
            && let Entry::Vacant(entry) = self.places.entry(key)
        {
            entry.insert(place);
        }
    }

    /// Rows that go first: one that comes may have the key of one that goes, written in another way.
    async fn send(
        self,
        session: &mut Session,
        existing: OnExisting,
        counts: &ConflictCounts,
    ) -> Result<(), SinkError> {
        let Self { table, deletes, updates, set, inserts, .. } = self;
        let key = table.key();
        many(session, &table, Shape::DeleteMany, &key, deletes, Conflict::DeleteMissing, counts)
            .await?;
        let columns = plan::set_or_key(&table, &set);
        let shape = Shape::UpdateMany { set };
        many(session, &table, shape, &columns, updates, Conflict::UpdateMissing, counts).await?;
        inserts::send(session, &table, false, inserts, existing, counts).await
    }
}

/// Sends a statement that takes arrays of these columns.
async fn many(
    session: &mut Session,
    table: &Arc<Table>,
    shape: Shape,
    columns: &[usize],
    rows: Vec<(Offset, Row)>,
    conflict: Conflict,
    counts: &ConflictCounts,
) -> Result<(), SinkError> {
    let [(first, row), ..] = &rows[..] else { return Ok(()) };
    let about = About::changed(*first, table, (rows.len() == 1).then_some(row));
    let expect = Expect::All(rows.len() as u64, conflict);
    let array = |at: &usize| {
        let mut text = vec![b'{'];
        for (number, (_, row)) in rows.iter().enumerate() {
            if number > 0 {
                text.push(b',');
            }
            put_array_element(&row.0[*at], &mut text);
        }
        text.push(b'}');
        Value::Bytes(text.into())
    };
    let question = |lock| {
        let shape = Shape::WhoseMany { lock };
        Some(Planned { params: table.key().iter().map(array).collect(), shape })
    };
    session.ask_whose(table, question, conflict, &about, counts).await?;
    let planned = Planned { params: columns.iter().map(array).collect(), shape };
    let statement = session.statement(table, &planned.shape, &about, counts).await?;
    let Session { client, pipeline, .. } = session;
    pipeline.send(client, statement, planned, expect, about, counts).await
}

/// The values of a row's key; none if it is not whole.
fn key(table: &Table, row: &Row) -> Option<Box<[Bytes]>> {
    let values = table.key().into_iter().map(|at| match row.0.get(at) {
        Some(Value::Bytes(bytes)) => Some(bytes.clone()),
        _ => None,
    });
    values.collect()
}

fn bytes_of(record: &Record) -> usize {
    match record {
        Record::Insert { new: row, .. }
        | Record::Update { new: row, .. }
        | Record::Delete { old: OldRow::Key(row) | OldRow::Full(row), .. } => {
            row.0.iter().map(inserts::bytes_of).sum()
        }
        _ => 0,
    }
}

/// Changes that are gathered before all are sent,
const ROWS_MAX: usize = 2_000;
/// and bytes of them.
const BYTES_MAX: usize = 512 << 10;
/// A larger row goes by itself: gathering copies it.
const ROW_BYTES_MAX: usize = 64 << 10;
