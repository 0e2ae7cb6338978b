//! The engine from outside: what is written is read, foreign bytes never harm, and the journal keeps its promises
//! on a disk that forgets, fails and rots.
#![allow(clippy::disallowed_methods, reason = "tests keep their own files")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers of the tests own")]

mod cache;
mod classify;
mod crash;
mod errors;
mod flips;
mod golden;
mod group_commit;
mod meanwhile;
mod mend;
mod misplaced;
mod model;
mod recovery;
mod replay;
mod scope;
mod sealed;
mod stale;
mod tables;
mod unreadable;
mod world;

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use thinwire_engine::{
    codec::{Records, RecordsBuf, decode, encode},
    model::{
        Column, Copy, CopyTable, Lsn, Offset, OldRow, Origin, Record, Relation, RelationId,
        ReplicaIdentity, Row, Running, Schema, Timestamp, Value,
    },
};

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(Value::Unchanged),
        vec(any::<u8>(), 0..200).prop_map(|bytes| Value::Bytes(Bytes::from(bytes))),
    ]
}

fn row() -> impl Strategy<Value = Row> {
    vec(value(), 0..8).prop_map(Row)
}

fn old() -> impl Strategy<Value = OldRow> {
    prop_oneof![row().prop_map(OldRow::Key), row().prop_map(OldRow::Full)]
}

fn relation_id() -> impl Strategy<Value = RelationId> {
    any::<u32>().prop_map(RelationId)
}

fn relation() -> impl Strategy<Value = Relation> {
    let identity = prop_oneof![
        Just(ReplicaIdentity::Default),
        Just(ReplicaIdentity::Nothing),
        Just(ReplicaIdentity::Full),
        Just(ReplicaIdentity::Index),
    ];
    let column = ("\\PC{0,20}", any::<bool>(), any::<u32>(), any::<i32>()).prop_map(
        |(name, key, type_oid, type_modifier)| Column { name, key, type_oid, type_modifier },
    );
    (relation_id(), "\\PC{0,20}", "\\PC{0,20}", identity, vec(column, 0..6)).prop_map(
        |(id, schema, name, identity, columns)| Relation { id, schema, name, identity, columns },
    )
}

fn copy() -> impl Strategy<Value = Copy> {
    let origins = || vec(any::<[u8; 16]>().prop_map(Origin::from_bytes), 0..3);
    let table = (relation_id(), any::<u64>())
        .prop_map(|(relation, rows_estimate)| CopyTable { relation, rows_estimate });
    (any::<u64>(), origins(), origins(), vec(table, 0..4)).prop_map(
        |(lsn, audience, carriers, tables)| Copy { lsn: Lsn::new(lsn), audience, carriers, tables },
    )
}

fn record() -> impl Strategy<Value = Record> {
    let lsn = || any::<u64>().prop_map(Lsn::new);
    prop_oneof![
        (any::<u32>(), lsn(), any::<i64>()).prop_map(|(xid, lsn, time)| Record::Begin {
            xid,
            lsn,
            time: Timestamp::from_micros(time),
        }),
        lsn().prop_map(|end| Record::Commit { end }),
        Just(Record::Abort),
        relation().prop_map(Record::Relation),
        (relation_id(), row()).prop_map(|(relation, new)| Record::Insert { relation, new }),
        (relation_id(), option::of(old()), row()).prop_map(|(relation, old, new)| Record::Update {
            relation,
            old,
            new
        }),
        (relation_id(), old()).prop_map(|(relation, old)| Record::Delete { relation, old }),
        (vec(relation_id(), 0..5), any::<bool>(), any::<bool>()).prop_map(
            |(relations, cascade, restart_identity)| Record::Truncate {
                relations,
                cascade,
                restart_identity,
            }
        ),
        (any::<bool>(), lsn(), "\\PC{0,20}", vec(any::<u8>(), 0..50)).prop_map(
            |(transactional, lsn, prefix, content)| Record::Message {
                transactional,
                lsn,
                prefix,
                content: Bytes::from(content),
            }
        ),
        (vec(relation_id(), 0..4), vec(relation_id(), 0..4), vec(any::<u8>(), 0..50)).prop_map(
            |(born, stale, definitions)| Record::Schema(Schema {
                born,
                stale,
                definitions: Bytes::from(definitions),
            })
        ),
        copy().prop_map(Record::CopyBegin),
        any::<u64>().prop_map(|rows| Record::CopyEnd { rows }),
        Just(Record::CopyAbort),
        (1..1_000_u64, any::<u32>())
            .prop_map(|(count, crc)| Record::Skip { count, running: Running::new(crc) }),
    ]
}

proptest! {
    #[test]
    fn a_record_decodes_to_itself_and_has_one_encoding(record in record()) {
        let mut bytes = Vec::new();
        encode(&record, &mut bytes);
        let bytes = Bytes::from(bytes);
        let decoded = decode(&bytes).unwrap();
        let mut again = Vec::new();
        encode(&decoded, &mut again);
        prop_assert_eq!(&decoded, &record);
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn a_record_that_is_cut_short_is_refused(record in record(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        encode(&record, &mut bytes);
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(decode(&Bytes::from(bytes)).is_err());
    }

    #[test]
    fn what_decodes_at_all_encodes_to_the_same_bytes(bytes in vec(any::<u8>(), 0..60), tag in 1..15_u8) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() { *first = tag; }
        let bytes = Bytes::from(bytes);
        if let Ok(record) = decode(&bytes) {
            let mut again = Vec::new();
            encode(&record, &mut again);
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn a_run_of_records_is_cut_anywhere_without_loss(
        records in vec(record(), 1..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut buf = RecordsBuf::new();
        records.iter().for_each(|record| buf.push(record));
        let all = buf.take();
        let parsed = Records::parse(all.bytes().clone(), all.count()).unwrap();
        prop_assert_eq!(&parsed, &all);
        let span = cut.index(records.len()) as u64;
        let (head, tail) = (all.until(span), all.after(span));
        let straddled = span - head.span();
        prop_assert_eq!(head.span() + tail.span() + straddled, all.span());
        let first = Offset::FIRST;
        let decoded: Vec<_> = all.decode(first).map(|item| item.unwrap().1).collect();
        prop_assert_eq!(decoded, records);
        if straddled == 0 {
            let running = tail.running(head.running(Running::START));
            prop_assert_eq!(running, all.running(Running::START));
        }
    }
}

#[test]
fn an_integer_has_one_form_only() {
    // A commit at position 1, its integer with a needless byte.
    assert!(decode(&Bytes::from_static(&[2, 0x81, 0x00])).is_err());
    assert!(decode(&Bytes::from_static(&[2, 0x01])).is_ok());
    let too_wide = [&[2][..], &[0xFF; 9], &[0x02]].concat();
    assert!(decode(&Bytes::from(too_wide)).is_err());
}

#[test]
fn a_length_that_lies_takes_no_memory() {
    // An insert of 1,600 columns, the first of one gibibyte, in a few bytes.
    let lie = [&[4, 1, 0xC0, 0x0C][..], &[0x82, 0x80, 0x80, 0x80, 0x04]].concat();
    assert!(decode(&Bytes::from(lie)).is_err());
}
