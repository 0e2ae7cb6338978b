//! Version 1 of the journal's format, byte for byte: a journal that was written once is read for ever.

use std::{fs, path::Path, sync::Arc};

use bytes::Bytes;
use thinwire_engine::{
    codec::RecordsBuf,
    journal::{Journal, Mark, Options, inspect},
    model::{
        Column, Copy, CopyTable, Epoch, Lsn, Offset, OldRow, Origin, Record, Relation, RelationId,
        ReplicaIdentity, Row, StreamId, Timestamp, Value,
    },
    storage::disk::RealDisk,
};

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
