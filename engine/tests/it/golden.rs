//! Version 1 of the journal's format, byte for byte: journals that were written once are read for ever.
//!
//! One is a single segment with every record of a plain life. The next one was sealed, with a mark and without. The last has two, the second begun inside a transaction, with
//! all that the state at a segment's head can hold.

use std::{fs, path::Path, sync::Arc};

use bytes::Bytes;
use thinwire_engine::{
    codec::{Records, RecordsBuf},
    journal::{Journal, Mark, Open, Options, Stream, inspect},
    model::{
        Column, Copy, CopyTable, Epoch, Lsn, Offset, OldRow, Origin, Record, Relation, RelationId,
        ReplicaIdentity, Row, Running, Schema, StreamId, Timestamp, Value,
    },
    storage::disk::RealDisk,
};

use crate::classify::batches;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1");
const SEGMENT: &str = "00000000000000000001.seg";

fn id() -> StreamId {
    StreamId {
        origin: Origin::from_bytes(*b"golden origin 16"),
        epoch: Epoch::from_bytes(*b"golden epoch 016"),
    }
}

fn records() -> Vec<Record> {
    let relation = RelationId(16_384);
    let text = |text: &'static str| Value::Bytes(Bytes::from_static(text.as_bytes()));
    let column = |name: &str, key, type_oid| Column {
        name: name.to_owned(),
        key,
        type_oid,
        type_modifier: -1,
    };
    let begin = |xid, lsn| Record::Begin {
        xid,
        lsn: Lsn::new(lsn),
        time: Timestamp::from_micros(-86_400_000_000),
    };
    vec![
        Record::CopyBegin(Copy {
            lsn: Lsn::new(0x0100_0000),
            audience: vec![Origin::from_bytes(*b"golden audience!")],
            carriers: vec![],
            tables: vec![CopyTable { relation, rows_estimate: 1 }],
        }),
        Record::Relation(Relation {
            id: relation,
            schema: "public".to_owned(),
            name: "täble".to_owned(),
            identity: ReplicaIdentity::Full,
            columns: vec![column("id", true, 23), column("body", true, 25)],
        }),
        Record::Insert { relation, new: Row(vec![text("1"), Value::Null]) },
        Record::CopyEnd { rows: 1 },
        begin(700, 0x0100_0100),
        Record::Update {
            relation,
            old: Some(OldRow::Full(Row(vec![text("1"), Value::Null]))),
            new: Row(vec![text("2"), Value::Unchanged]),
        },
        Record::Delete { relation, old: OldRow::Key(Row(vec![text("2"), Value::Null])) },
        Record::Truncate { relations: vec![relation], cascade: true, restart_identity: false },
        Record::Message {
            transactional: true,
            lsn: Lsn::new(0x0100_0080),
            prefix: "app".to_owned(),
            content: Bytes::from_static(b"\0\xFF"),
        },
        Record::Commit { end: Lsn::new(0x0100_0140) },
        begin(u32::MAX, u64::MAX - 1),
        Record::Abort,
        Record::CopyBegin(Copy {
            lsn: Lsn::ZERO,
            audience: vec![],
            carriers: vec![],
            tables: vec![],
        }),
        Record::CopyAbort,
    ]
}

fn write_journal(dir: &Path) -> Vec<u8> {
    let options = Options { own: id().origin, segment: 1 << 20, budget: 1 << 30 };
    let (journal, _) = Journal::open(Arc::new(RealDisk), dir, options).unwrap();
    let stream = journal.open_stream(id()).unwrap();
    stream.mark(Mark { lsn: Lsn::new(1), timeline: 2, system: 3, released: false }).unwrap();
    let mut buf = RecordsBuf::new();
    let all = records();
    let (head, tail) = all.split_at(9);
    for part in [head, tail] {
        part.iter().for_each(|record| buf.push(record));
        stream.append(buf.take()).unwrap();
        stream.sync().unwrap();
    }
    fs::read(dir.join(id().to_string()).join(SEGMENT)).unwrap()
}

#[test]
fn version_1_is_written_as_it_always_was() {
    let dir = tempfile::tempdir().unwrap();
    let written = write_journal(dir.path());
    let golden = Path::new(GOLDEN).join(SEGMENT);
    if std::env::var_os("THINWIRE_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(GOLDEN).unwrap();
        fs::write(&golden, &written).unwrap();
    }
    assert_eq!(written, fs::read(golden).unwrap(), "the format changed without a new version");
}

#[test]
fn version_1_is_read_as_it_always_was() {
    let mut read = Vec::new();
    inspect::dump(&RealDisk, Path::new(GOLDEN), Offset::FIRST, |offset, record| {
        read.push((offset.get(), record.unwrap()));
        true
    })
    .unwrap();
    let expected: Vec<_> = (1..).zip(records()).collect();
    assert_eq!(read, expected);
    let reports = inspect::verify(&RealDisk, Path::new(GOLDEN)).unwrap();
    assert!(reports.iter().all(|report| report.damage.is_none()), "{reports:?}");
}

const GOLDEN_SEALED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1-sealed");

#[test]
fn what_was_sealed_is_written_and_read_as_it_always_was() {
    let dir = tempfile::tempdir().unwrap();
    {
        let options = Options { own: id().origin, segment: 1 << 20, budget: 1 << 30 };
        let (journal, _) = Journal::open(Arc::new(RealDisk), dir.path(), options).unwrap();
        let stream = journal.open_stream(id()).unwrap();
        let append = |record| stream.append(Records::one(&record)).unwrap();
        append(begin(1, 2));
        stream.sync().unwrap();
        stream.seal().unwrap();
        stream.mark(Mark { lsn: Lsn::new(1), timeline: 2, system: 3, released: false }).unwrap();
        append(Record::Commit { end: Lsn::new(3) });
        stream.sync().unwrap();
        stream.seal().unwrap();
    }
    let stream_dir = dir.path().join(id().to_string());
    let written = files(&stream_dir);
    if std::env::var_os("THINWIRE_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(GOLDEN_SEALED).unwrap();
        fs::write(Path::new(GOLDEN_SEALED).join(SEGMENT), &written[0].1).unwrap();
    }
    let kinds: Vec<_> = batches(&written[0].1).iter().map(|it| (it.is_mark, it.is_seal)).collect();
    let [records, mark, seal] = [(false, false), (true, false), (false, true)];
    assert_eq!(kinds, [records, seal, mark, records, seal, mark]);
    let golden = files(Path::new(GOLDEN_SEALED));
    assert!(written == golden, "the format changed without a new version");
    let mut read = Vec::new();
    inspect::dump(&RealDisk, Path::new(GOLDEN_SEALED), Offset::FIRST, |offset, record| {
        read.push((offset.get(), record.unwrap()));
        true
    })
    .unwrap();
    assert_eq!(read, [(1, begin(1, 2)), (2, Record::Commit { end: Lsn::new(3) })]);
    let reports = inspect::verify(&RealDisk, Path::new(GOLDEN_SEALED)).unwrap();
    assert!(reports.iter().all(|report| report.damage.is_none()), "{reports:?}");
}

const GOLDEN_STATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1-state");
const COPIED: RelationId = RelationId(16_384);
const BORN: RelationId = RelationId(16_390);

fn table(id: RelationId, name: &str) -> Record {
    Record::Relation(Relation {
        id,
        schema: "public".to_owned(),
        name: name.to_owned(),
        identity: ReplicaIdentity::Default,
        columns: vec![Column { name: "id".to_owned(), key: true, type_oid: 20, type_modifier: -1 }],
    })
}

fn row(relation: RelationId, bytes: Vec<u8>) -> Record {
    Record::Insert { relation, new: Row(vec![Value::Bytes(Bytes::from(bytes))]) }
}

fn begin(xid: u32, lsn: u64) -> Record {
    Record::Begin { xid, lsn: Lsn::new(lsn), time: Timestamp::from_micros(1) }
}

/// Bytes that do not compress, the same each time.
fn noise(len: usize) -> Vec<u8> {
    let next = |state: &u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    std::iter::successors(Some(1), next).map(|state| state.to_be_bytes()[0]).take(len).collect()
}

/// A group of records, made durable together, and the mark behind them.
type Group = (Vec<Record>, Option<Mark>);

/// The groups of a life in which the last but one ends a segment of 4 KiB.
fn groups() -> Vec<Group> {
    let mark = |lsn, released| Mark { lsn: Lsn::new(lsn), timeline: 2, system: 3, released };
    let copy = Record::CopyBegin(Copy {
        lsn: Lsn::new(0x0100_0000),
        audience: vec![],
        carriers: vec![Origin::from_bytes(*b"golden carrier !")],
        tables: vec![CopyTable { relation: COPIED, rows_estimate: 1 }],
    });
    let schema = Record::Schema(Schema {
        born: vec![BORN],
        stale: vec![],
        definitions: Bytes::from_static(b"create table born (id bigint primary key)"),
    });
    let end = |lsn| Record::Commit { end: Lsn::new(lsn) };
    vec![
        (vec![Record::Skip { count: 3, running: Running::new(7) }], Some(mark(1, true))),
        (
            vec![
                copy,
                table(COPIED, "copied"),
                row(COPIED, b"1".to_vec()),
                Record::CopyEnd { rows: 1 },
            ],
            None,
        ),
        (vec![begin(7, 0x0100_0100), row(COPIED, b"2".to_vec()), end(0x0100_0140)], None),
        (vec![begin(8, 0x0100_0200), schema, table(BORN, "born")], Some(mark(0x0100_0140, false))),
        (vec![row(BORN, b"thinwire ".repeat(1_000))], None),
        (vec![row(BORN, noise(4_000))], None),
        (vec![row(BORN, b"3".to_vec()), end(0x0100_0240)], Some(mark(0x0100_0240, false))),
    ]
}

fn open_small(dir: &Path) -> (Journal, Arc<Stream>) {
    let options = Options { own: id().origin, segment: 4 << 10, budget: 1 << 30 };
    let (journal, unopened) = Journal::open(Arc::new(RealDisk), dir, options).unwrap();
    assert!(unopened.is_empty(), "{unopened:?}");
    let stream = journal.open_stream(id()).unwrap();
    (journal, stream)
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let read = |name: &std::ffi::OsString| fs::read(dir.join(name)).unwrap();
    names.iter().map(|name| (name.to_string_lossy().into_owned(), read(name))).collect()
}

#[test]
fn a_head_with_all_that_a_state_can_hold_is_written_as_it_always_was() {
    let dir = tempfile::tempdir().unwrap();
    let (_journal, stream) = open_small(dir.path());
    for (records, mark) in groups() {
        let mut buf = RecordsBuf::new();
        records.iter().for_each(|record| buf.push(record));
        stream.append(buf.take()).unwrap();
        mark.iter().for_each(|mark| stream.mark(*mark).unwrap());
        stream.sync().unwrap();
    }
    let written = files(&dir.path().join(id().to_string()));
    if std::env::var_os("THINWIRE_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(GOLDEN_STATE).unwrap();
        for (name, bytes) in &written {
            fs::write(Path::new(GOLDEN_STATE).join(name), bytes).unwrap();
        }
    }
    assert_eq!(written.len(), 2);
    let codecs: Vec<_> = written.iter().flat_map(|(_, bytes)| codecs(bytes)).collect();
    assert!(codecs.contains(&0) && codecs.contains(&1), "plain batches and packed ones");
    assert!(written == files(Path::new(GOLDEN_STATE)), "the format changed without a new version");
}

/// How each batch of a segment is stored.
fn codecs(bytes: &[u8]) -> Vec<u8> {
    batches(bytes).iter().map(|batch| bytes[batch.at + 45]).collect()
}

#[test]
fn a_head_with_all_that_a_state_can_hold_is_read_as_it_always_was() {
    let dir = tempfile::tempdir().unwrap();
    let stream_dir = dir.path().join(id().to_string());
    fs::create_dir(&stream_dir).unwrap();
    let golden = files(Path::new(GOLDEN_STATE));
    golden.iter().for_each(|(name, bytes)| fs::write(stream_dir.join(name), bytes).unwrap());
    let expected: Vec<_> = groups().into_iter().flat_map(|(records, _)| records).collect();
    let mut read = Vec::new();
    inspect::dump(&RealDisk, &stream_dir, Offset::FIRST, |_, record| {
        read.push(record.unwrap());
        true
    })
    .unwrap();
    assert_eq!(read, expected);
    let reports = inspect::verify(&RealDisk, &stream_dir).unwrap();
    assert!(reports.iter().all(|report| report.damage.is_none()), "{reports:?}");

    let (_journal, stream) = open_small(dir.path());
    let tail = stream.tail();
    // Three are skipped in one record.
    assert_eq!(tail.next, Offset::new(expected.len() as u64 + 3));
    assert_eq!((tail.complete, tail.open), (tail.next.prev(), None));
    assert_eq!(tail.last_commit, Some((Lsn::new(0x0100_0200), Lsn::new(0x0100_0240))));
    assert_eq!(Some(tail.mark.unwrap().lsn), Some(Lsn::new(0x0100_0240)));
    assert_eq!(tail.relations.keys().collect::<Vec<_>>(), [&COPIED, &BORN]);
    // What was being brought in where the segment begins is copied once its transaction is complete.
    assert_eq!(tail.copied.iter().collect::<Vec<_>>(), [&COPIED, &BORN]);
    // A reader that begins with the second segment has nothing but its head.
    let second = *stream.segments().last().unwrap();
    let mut reader = stream.read(second).unwrap();
    let Open { begin, xid, lsn, records, .. } = reader.opened_inside().unwrap();
    assert_eq!((begin, xid, lsn), (Offset::new(11), Some(8), Lsn::new(0x0100_0200)));
    assert_eq!(records, 4);
    assert_eq!(reader.relations().len(), 2);
    assert!(reader.running_before().is_some());
    assert_eq!(reader.next_block().unwrap().unwrap().records.count(), 2);
    assert!(stream.running_at(second.prev()).unwrap().is_some());
    assert_eq!(files(&stream_dir), golden, "opening changed it");
}
