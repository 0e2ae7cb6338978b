//! What must be known at the end of a stream to continue it: kept up record by record, and written at
//! the head of each segment so that opening costs the last segment only.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use serde::{Deserialize, Serialize};

use crate::{
    codec::{DecodeError, Framed, Records, Tag, decode},
    error::Error,
    model::{Copy, Lsn, Offset, Record, Relation, RelationId, Running},
    mutant::{self, Mutant},
};

/// What the source said of itself, journaled before it is confirmed to it. An idle database advances by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// All that was committed before this position is in the journal or not captured.
    pub lsn: Lsn,
    /// The source's timeline.
    pub timeline: u32,
    /// The source's system identifier.
    pub system: u64,
    /// Whether the source's log was let go of here: what comes next has a gap, until every table was copied again.
    pub released: bool,
}

/// A mark as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredMark {
    lsn: Lsn,
    timeline: u32,
    system: u64,
    released: bool,
    /// How often the source's log was let go of so far. Marks are nowhere else: one that says so and is lost with damage is
    /// missed by the next. Not stored before the first time.
    #[serde(default, skip_serializing_if = "is_zero")]
    releases: u64,
}

impl StoredMark {
    pub(super) fn mark(self) -> Mark {
        let Self { lsn, timeline, system, released, .. } = self;
        Mark { lsn, timeline, system, released }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A transaction or copy that has begun and not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Where it begins.
    pub begin: Offset,
    /// The transaction's id; none for a copy.
    pub xid: Option<u32>,
    /// The transaction's commit position, or the position that the copy is as of.
    pub lsn: Lsn,
    /// How many of its records are held, relations not counted.
    pub records: u64,
    /// The running checksum of those alone, beginning with the `Begin`.
    pub hash: Running,
}

/// The state at the end of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// The offset of the next record.
    pub next: Offset,
    /// The running checksum up to there.
    pub running: Running,
    /// The last record that leaves nothing open: apply may go as far.
    pub complete: Offset,
    /// What has begun and not ended.
    pub open: Option<Open>,
    /// The last complete transaction: where its commit record begins and ends.
    pub last_commit: Option<(Lsn, Lsn)>,
    /// The last mark.
    pub mark: Option<Mark>,
    /// The tables as last described.
    pub relations: BTreeMap<RelationId, Relation>,
    /// The tables whose rows a complete copy has brought into the stream.
    pub copied: BTreeSet<RelationId>,
    copying: Vec<RelationId>,
    /// See [`StoredMark`].
    #[serde(default, skip_serializing_if = "is_zero")]
    releases: u64,
    /// What the relations take when they are stored, at most. Follows from them.
    #[serde(skip)]
    described: usize,
}

impl Default for Tail {
    fn default() -> Self {
        Self {
            next: Offset::FIRST,
            running: Running::START,
            complete: Offset::ZERO,
            open: None,
            last_commit: None,
            mark: None,
            relations: BTreeMap::new(),
            copied: BTreeSet::new(),
            copying: Vec::new(),
            releases: 0,
            described: 0,
        }
    }
}

impl Tail {
    /// The state after more records.
    pub fn observe(&mut self, records: &Records) -> Result<(), Error> {
        // First, because it brings the bytes near in the quickest way.
        let running = records.running(self.running);
        // Rows are not looked into, and hashed together with those beside them.
        let mut rows = Rows::default();
        for framed in records.framed() {
            self.observe_one(records, framed, &mut rows)
                .map_err(|source| Error::Record { offset: self.next, source })?;
        }
        self.count(records, rows);
        self.running = running;
        Ok(())
    }

    /// What the state would take at the head of a segment after more records, at most.
    pub(super) fn bytes_with(&self, records: &Records) -> Result<usize, DecodeError> {
        let ids = self.copied.len() + self.copying.len();
        let mut bytes = STATE_BYTES + self.described + ids * INTEGER_BYTES;
        if !records.describe() {
            return Ok(bytes);
        }
        for Framed { record, .. } in records.framed() {
            if !matches!(Tag::of(record)?, Tag::Relation | Tag::CopyBegin | Tag::Schema) {
                continue;
            }
            bytes += match decode(&records.bytes().slice_ref(record))? {
                Record::Relation(new) => {
                    let held = self.relations.get(&new.id).map_or(0, described);
                    described(&new).saturating_sub(held)
                }
                Record::CopyBegin(copy) => copy.tables.len() * INTEGER_BYTES,
                Record::Schema(schema) => schema.born.len() * INTEGER_BYTES,
                _ => 0,
            };
        }
        Ok(bytes)
    }

    /// A state that was read, with what is not stored of it.
    pub(super) fn restored(mut self) -> Self {
        self.described = self.relations.values().map(described).sum();
        self
    }

    /// The state after a new mark, which is returned as it is stored.
    pub(super) fn observe_mark(&mut self, mark: Mark) -> StoredMark {
        let Mark { lsn, timeline, system, released } = mark;
        let releases = self.releases.saturating_add(u64::from(released));
        let stored = StoredMark { lsn, timeline, system, released, releases };
        self.observe_stored(stored);
        stored
    }

    /// The last mark, to be stored once more, which changes nothing. One that says that the source's log was let go of
    /// would do so again.
    pub(super) fn mark_again(&self) -> Option<StoredMark> {
        let mark = self.mark.filter(|mark| !mark.released)?;
        let Mark { lsn, timeline, system, released } = mark;
        Some(StoredMark { lsn, timeline, system, released, releases: self.releases })
    }

    /// The state after a mark that was read. Whether it says so itself or a mark before it that is missing: what the
    /// source's log was let go of for has a gap, and no table counts as copied.
    pub(super) fn observe_stored(&mut self, stored: StoredMark) {
        let is_missed =
            stored.releases > self.releases && !mutant::on(Mutant::LostReleaseUnnoticed);
        self.mark = Some(stored.mark());
        if stored.released || is_missed {
            self.copied.clear();
            self.copying.clear();
        }
        self.releases = self.releases.max(stored.releases);
    }

    /// Whether both follow from the same records. Marks are not part of it: those of a damaged segment, which nobody
    /// else has, are lost when it is mended.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        let records =
            |tail: &Self| (tail.next, tail.running, tail.complete, tail.open, tail.last_commit);
        records(self) == records(other) && self.relations == other.relations
    }

    fn observe_one(
        &mut self,
        records: &Records,
        framed: Framed<'_>,
        rows: &mut Rows,
    ) -> Result<(), DecodeError> {
        let span = match Tag::of(framed.record)? {
            Tag::Insert | Tag::Update | Tag::Delete | Tag::Truncate | Tag::Message => {
                rows.push(framed);
                1
            }
            tag => {
                let rows_before = mem::take(rows);
                // What ends here is counted no more. Most transactions are appended whole, and so never hashed.
                if !matches!(tag, Tag::Commit | Tag::Abort | Tag::CopyEnd | Tag::CopyAbort) {
                    self.count(records, rows_before);
                }
                let span = self.structure(decode(&records.bytes().slice_ref(framed.record))?);
                if matches!(tag, Tag::Begin | Tag::Schema) {
                    rows.push(framed);
                }
                span
            }
        };
        self.next = self.next.forward(span);
        if self.open.is_none() {
            self.complete = self.next.prev();
        }
        Ok(())
    }

    /// Follows a record that begins, ends or describes; returns how many offsets it takes.
    fn structure(&mut self, record: Record) -> u64 {
        match record {
            Record::Begin { xid, lsn, .. } => self.open = Some(self.opened(Some(xid), lsn)),
            Record::CopyBegin(copy) => {
                self.open = Some(self.opened(None, copy.lsn));
                self.copying = tables(&copy);
            }
            Record::Commit { end } => {
                if let Some(open) = self.open.take() {
                    self.last_commit = Some((open.lsn, end));
                }
                self.copied.extend(self.copying.drain(..));
            }
            Record::CopyEnd { .. } => {
                self.open = None;
                self.copied.extend(self.copying.drain(..));
            }
            Record::Abort | Record::CopyAbort => {
                self.open = None;
                self.copying.clear();
            }
            Record::Schema(schema) => {
                // If the transaction is aborted, what became stale in it is copied once too often.
                self.copied.retain(|id| !schema.stale.contains(id));
                self.copying.retain(|id| !schema.stale.contains(id));
                self.copying.extend(schema.born);
            }
            Record::Relation(relation) => {
                self.described += described(&relation);
                if let Some(old) = self.relations.insert(relation.id, relation) {
                    self.described -= described(&old);
                }
            }
            Record::Skip { count, .. } => {
                // What was withheld or trimmed behind the beginning of a transaction took its end with it.
                if self.open.is_some_and(|open| open.xid.is_some()) {
                    self.open = None;
                    self.copying.clear();
                }
                return count;
            }
            _ => {}
        }
        1
    }

    fn opened(&self, xid: Option<u32>, lsn: Lsn) -> Open {
        Open { begin: self.next, xid, lsn, records: 0, hash: Running::START }
    }

    /// Counts records into what is open.
    fn count(&mut self, records: &Records, rows: Rows) {
        if let Some(open) = &mut self.open
            && rows.count > 0
        {
            open.records += rows.count;
            open.hash = open.hash.extend(&records.bytes()[rows.begin..rows.end]);
        }
    }
}

/// The most that a stored integer of 32 bits, or the length of a string or list, takes.
const INTEGER_BYTES: usize = 5;

/// The most that all of a state takes but its relations and copied tables: fewer than forty integers, of nine bytes
/// at most.
const STATE_BYTES: usize = 40 * 9;

/// The most that a relation takes in a stored state: a list of its fields, and one for each column.
fn described(relation: &Relation) -> usize {
    let column = |name: &str| 5 * INTEGER_BYTES + name.len();
    let columns: usize = relation.columns.iter().map(|it| column(&it.name)).sum();
    // The identity is stored by its name, which is shorter than two integers.
    8 * INTEGER_BYTES + relation.schema.len() + relation.name.len() + columns
}

/// Records of a transaction or copy that lie side by side.
#[derive(Debug, Default)]
struct Rows {
    count: u64,
    begin: usize,
    end: usize,
}

impl Rows {
    fn push(&mut self, framed: Framed<'_>) {
        if self.count == 0 {
            self.begin = framed.begin;
        }
        self.end = framed.end;
        self.count += 1;
    }
}

fn tables(copy: &Copy) -> Vec<RelationId> {
    copy.tables.iter().map(|table| table.relation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        codec::RecordsBuf,
        journal::segment::{decode_state, encode_state},
        model::{Column, CopyTable, Origin, ReplicaIdentity, Schema, Timestamp},
    };
    use bytes::Bytes;

    fn relation(id: u32, columns: u32) -> Relation {
        let column = |number| Column {
            name: format!("column {number}"),
            key: true,
            type_oid: u32::MAX,
            type_modifier: i32::MIN,
        };
        Relation {
            id: RelationId(id),
            schema: "schema".to_owned(),
            name: "n".repeat(id as usize % 200),
            identity: ReplicaIdentity::Nothing,
            columns: (0..columns).map(column).collect(),
        }
    }

    #[test]
    fn what_a_state_will_take_is_never_foretold_too_small() {
        let mut tail = Tail::default();
        for round in 1..200_u32 {
            let mut buf = RecordsBuf::new();
            let table = |id| CopyTable { relation: RelationId(u32::MAX - id), rows_estimate: 0 };
            buf.push(&Record::CopyBegin(Copy {
                lsn: Lsn::new(u64::MAX),
                audience: vec![Origin::from_bytes([1; 16])],
                carriers: vec![],
                tables: (round..round + 300).map(table).collect(),
            }));
            // Some are described again, with more columns or with fewer.
            buf.push(&Record::Relation(relation(round * 7 % 50, round * 31 % 17)));
            buf.push(&Record::Relation(relation(round * 7 % 50, round * 13 % 11)));
            if round % 3 > 0 {
                buf.push(&Record::CopyEnd { rows: 0 });
            }
            let records = buf.take();
            let foretold = tail.bytes_with(&records).unwrap();
            tail.observe(&records).unwrap();
            let stored = encode_state(&tail);
            assert!(stored.len() <= foretold, "round {round}: {} > {foretold}", stored.len());
            let read: Tail = decode_state::<Tail>(&stored).unwrap().restored();
            assert_eq!(read, tail);
        }
    }

    #[test]
    fn a_table_that_is_born_counts_as_copied_once_its_transaction_is_complete() {
        let mut tail = Tail::default();
        let mut take = |records: &[Record]| {
            let mut buf = RecordsBuf::new();
            records.iter().for_each(|record| buf.push(record));
            tail.observe(&buf.take()).unwrap();
            tail.copied.iter().map(|id| id.0).collect::<Vec<_>>()
        };
        let begin = Record::Begin { xid: 1, lsn: Lsn::new(1), time: Timestamp::default() };
        let commit = Record::Commit { end: Lsn::new(2) };
        let schema = |born: &[u32], stale: &[u32]| {
            let ids = |ids: &[u32]| ids.iter().copied().map(RelationId).collect();
            Record::Schema(Schema { born: ids(born), stale: ids(stale), definitions: Bytes::new() })
        };
        assert_eq!(take(&[begin.clone(), schema(&[7, 8], &[])]), [] as [u32; 0]);
        assert_eq!(take(std::slice::from_ref(&commit)), [7, 8]);
        assert_eq!(take(&[begin.clone(), schema(&[9], &[]), Record::Abort]), [7, 8]);
        assert_eq!(take(&[begin.clone(), schema(&[], &[7]), commit.clone()]), [8]);
        assert_eq!(take(&[begin, schema(&[9], &[]), schema(&[], &[9]), commit]), [8]);
    }
}
