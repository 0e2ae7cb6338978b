//! More tables than a segment can begin with are refused by name, and harm nothing.

use std::sync::Arc;

use thinwire_engine::{
    Error,
    codec::Records,
    journal::{Journal, Options},
    limits::{COLUMNS_MAX, NAME_BYTES_MAX, STATE_BYTES_MAX},
    model::{
        Column, Epoch, Lsn, Offset, Origin, Record, Relation, RelationId, ReplicaIdentity, StreamId,
    },
    storage::memory::MemoryDisk,
};

/// The largest description that there may be, or one without columns.
fn relation(id: u32, columns: usize) -> Records {
    let column = |number: usize| Column {
        name: format!("{number:0NAME_BYTES_MAX$}"),
        key: false,
        type_oid: 25,
        type_modifier: -1,
    };
    Records::one(&Record::Relation(Relation {
        id: RelationId(id),
        schema: "public".to_owned(),
        name: format!("table {id}"),
        identity: ReplicaIdentity::Default,
        columns: (0..columns).map(column).collect(),
    }))
}

#[test]
fn a_table_too_many_is_refused_by_name_and_the_stream_goes_on() {
    let options = Options { own: Origin::from_bytes([1; 16]), segment: 1 << 30, budget: 1 << 40 };
    let id = StreamId { origin: options.own, epoch: Epoch::from_bytes([2; 16]) };
    let disk = Arc::new(MemoryDisk::new());
    let (journal, _) = Journal::open(disk.clone(), "/journal".as_ref(), options).unwrap();
    let stream = journal.open_stream(id).unwrap();
    let mut held = 0;
    let refused = loop {
        match stream.append(relation(held, COLUMNS_MAX)) {
            Ok(_) => held += 1,
            Err(error) => break error,
        }
        stream.sync().unwrap();
    };
    let Error::TooManyTables { max: STATE_BYTES_MAX, .. } = refused else { panic!("{refused}") };
    assert!(held as usize > STATE_BYTES_MAX / COLUMNS_MAX / NAME_BYTES_MAX / 2, "only {held}");
    assert_eq!(stream.watermarks().appended, Offset::new(u64::from(held)));

    stream.append(relation(0, COLUMNS_MAX)).expect("what is held already may be described again");
    stream.append(Records::one(&Record::Commit { end: Lsn::new(1) })).unwrap();
    stream.append(relation(0, 0)).expect("and anew with less");
    stream.append(relation(held, COLUMNS_MAX)).expect("which makes room for another");
    let last = stream.sync().unwrap();
    assert_eq!(last, Offset::new(u64::from(held) + 4));
    drop((stream, journal));
    let (journal, unopened) = Journal::open(disk, "/journal".as_ref(), options).unwrap();
    assert!(unopened.is_empty(), "{unopened:?}");
    assert_eq!(journal.stream(id).unwrap().tail().relations.len(), held as usize + 1);
}
