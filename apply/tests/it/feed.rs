//! A received stream, written by hand.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use bytes::Bytes;
use tempfile::TempDir;
use thinwire_engine::{
    codec::RecordsBuf,
    journal::{Journal, Options, Stream},
    model::{
        Column, Copy, CopyTable, Epoch, Lsn, Offset, OldRow, Origin, Record, Relation, RelationId,
        ReplicaIdentity, Row, StreamId, Timestamp, Value,
    },
    storage::disk::RealDisk,
};

/// We, who apply.
pub const NODE: Origin = Origin::from_bytes([0xEE; 16]);

/// A journal with one received stream.
pub struct Feed {
    pub stream: Arc<Stream>,
    pub id: StreamId,
    _journal: Journal,
    _dir: TempDir,
    transactions: std::cell::Cell<u32>,
}

impl Feed {
    /// An empty stream of an origin that no other test has.
    pub fn new() -> Self {
        static ORIGINS: AtomicU8 = AtomicU8::new(1);
        let number = ORIGINS.fetch_add(1, Ordering::Relaxed);
        assert!(number < 0xEE);
        let origin = Origin::from_bytes([number; 16]);
        Self::of(StreamId { origin, epoch: Epoch::from_bytes([1; 16]) })
    }

    /// An empty stream.
    pub fn of(id: StreamId) -> Self {
        let dir = TempDir::new().unwrap();
        let options = Options { own: NODE, segment: 64 << 10, budget: 1 << 30 };
        let (journal, _) = Journal::open(Arc::new(RealDisk), dir.path(), options).unwrap();
        let stream = journal.open_stream(id).unwrap();
        Self { stream, id, _journal: journal, _dir: dir, transactions: 0.into() }
    }

    /// An empty stream of the same origin that follows this one.
    pub fn next_epoch(&self) -> Self {
        let epoch = self.id.epoch.as_bytes()[0] + 1;
        Self::of(StreamId { origin: self.id.origin, epoch: Epoch::from_bytes([epoch; 16]) })
    }

    /// Appends records, durably.
    pub fn append(&self, records: &[Record]) -> Offset {
        self.append_unsynced(records);
        self.stream.sync().unwrap()
    }

    pub fn append_unsynced(&self, records: &[Record]) {
        let mut buf = RecordsBuf::new();
        for record in records {
            buf.push(record);
            if buf.bytes_len() > 128 << 10 {
                self.stream.append(buf.take()).unwrap();
                self.stream.sync().unwrap();
            }
        }
        self.stream.append(buf.take()).unwrap();
    }

    /// Appends a whole transaction.
    pub fn transaction(&self, rows: &[Record]) -> Offset {
        self.append(&self.wrapped(rows))
    }

    /// A whole transaction, not appended.
    pub fn wrapped(&self, rows: &[Record]) -> Vec<Record> {
        let mut records = vec![self.begin()];
        records.extend_from_slice(rows);
        records.push(Record::Commit { end: self.lsn() });
        records
    }

    pub fn begin(&self) -> Record {
        self.transactions.set(self.transactions.get() + 1);
        let xid = self.transactions.get();
        Record::Begin { xid, lsn: self.lsn(), time: Timestamp::from_micros(i64::from(xid) * 1000) }
    }

    fn lsn(&self) -> Lsn {
        Lsn::new(u64::from(self.transactions.get()) * 100)
    }

    /// Appends a whole copy of one table.
    pub fn copy(&self, table: &Table, rows: &[&str]) -> Offset {
        self.append(&copy_records(table, rows, Vec::new()))
    }

    pub fn last(&self) -> Offset {
        self.stream.watermarks().appended
    }
}

/// The records of a copy of one table.
pub fn copy_records(table: &Table, rows: &[&str], audience: Vec<Origin>) -> Vec<Record> {
    let tables = vec![CopyTable { relation: table.id(), rows_estimate: 0 }];
    let copy = Copy { lsn: Lsn::new(1), audience, carriers: Vec::new(), tables };
    let mut records = vec![Record::CopyBegin(copy), table.relation()];
    records.extend(rows.iter().map(|row| table.insert(row)));
    records.push(Record::CopyEnd { rows: rows.len() as u64 });
    records
}

/// A table of the source.
#[derive(Clone)]
pub struct Table(Relation);

impl Table {
    /// A table such as `public.t` with columns such as `id*`, where a star marks a key column.
    pub fn new(id: u32, name: &str, columns: &[&str]) -> Self {
        let (schema, name) = name.split_once('.').unwrap();
        let columns = columns.iter().map(|column| Column {
            name: column.trim_end_matches('*').to_owned(),
            key: column.ends_with('*'),
            type_oid: 25,
            type_modifier: -1,
        });
        Self(Relation {
            id: RelationId(id),
            schema: schema.to_owned(),
            name: name.to_owned(),
            identity: ReplicaIdentity::Default,
            columns: columns.collect(),
        })
    }

    /// The same with REPLICA IDENTITY FULL.
    pub fn full(mut self) -> Self {
        self.0.identity = ReplicaIdentity::Full;
        self.0.columns.iter_mut().for_each(|column| column.key = true);
        self
    }

    pub fn id(&self) -> RelationId {
        self.0.id
    }

    pub fn relation(&self) -> Record {
        Record::Relation(self.0.clone())
    }

    pub fn insert(&self, new: &str) -> Record {
        Record::Insert { relation: self.id(), new: row(new) }
    }

    pub fn update(&self, new: &str) -> Record {
        Record::Update { relation: self.id(), old: None, new: row(new) }
    }

    pub fn update_key(&self, old: &str, new: &str) -> Record {
        let old = Some(OldRow::Key(row(old)));
        Record::Update { relation: self.id(), old, new: row(new) }
    }

    pub fn update_full(&self, old: &str, new: &str) -> Record {
        let old = Some(OldRow::Full(row(old)));
        Record::Update { relation: self.id(), old, new: row(new) }
    }

    pub fn delete(&self, old: &str) -> Record {
        Record::Delete { relation: self.id(), old: OldRow::Key(row(old)) }
    }

    pub fn delete_full(&self, old: &str) -> Record {
        Record::Delete { relation: self.id(), old: OldRow::Full(row(old)) }
    }

    pub fn truncate(&self) -> Record {
        Record::Truncate { relations: vec![self.id()], cascade: false, restart_identity: false }
    }
}

/// A row from values between bars; `~` is null and `?` is unchanged.
pub fn row(text: &str) -> Row {
    let value = |text: &str| match text {
        "~" => Value::Null,
        "?" => Value::Unchanged,
        text => Value::Bytes(Bytes::copy_from_slice(text.as_bytes())),
    };
    Row(text.split('|').map(value).collect())
}
