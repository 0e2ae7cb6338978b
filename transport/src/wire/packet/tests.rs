//! Whatever goes in comes out, byte for byte; whatever else comes is refused, and bounded.

use proptest::{collection::vec, option, prelude::*};
use thinwire_engine::{
    codec::RecordsBuf,
    model::{
        Column, Lsn, OldRow, Record, Relation, RelationId, ReplicaIdentity, Row, Timestamp, Value,
    },
};

use super::*;

fn text(value: impl ToString) -> Value {
    Value::Bytes(value.to_string().into_bytes().into())
}

/// Values of every shape, and values that nearly have one.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(Value::Unchanged),
        any::<i64>().prop_map(text),
        (0..5_i64).prop_map(text),
        (any::<i32>(), 0..25_usize).prop_map(|(n, digits)| text(format!("{n}.{:0digits$}", 7))),
        "-?[0-9]{0,20}\\.?[0-9]{0,20}".prop_map(text),
        "20[0-9]{2}-[01][0-9]-[0-3][0-9]( [0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,7})?(\\+0[01])?)?"
            .prop_map(text),
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-fA]{12}".prop_map(text),
        "\\\\x[0-9a-fA]{0,9}".prop_map(text),
        "(red|green|a longer text than the others, and then some more of it){0,9}".prop_map(text),
        vec(any::<u8>(), 0..300).prop_map(|bytes| Value::Bytes(bytes.into())),
    ]
}

fn row() -> impl Strategy<Value = Row> {
    prop_oneof![9 => vec(value(), 3), 1 => vec(value(), 0..9)].prop_map(Row)
}

fn old() -> impl Strategy<Value = OldRow> {
    prop_oneof![row().prop_map(OldRow::Key), row().prop_map(OldRow::Full)]
}

fn relation() -> impl Strategy<Value = RelationId> {
    prop_oneof![9 => 1..4_u32, 1 => any::<u32>()].prop_map(RelationId)
}

fn described() -> impl Strategy<Value = Record> {
    let identity = prop_oneof![
        Just(ReplicaIdentity::Default),
        Just(ReplicaIdentity::Nothing),
        Just(ReplicaIdentity::Full),
        Just(ReplicaIdentity::Index),
    ];
    (relation(), identity, vec(any::<(bool, u32, i32)>(), 0..5)).prop_map(
        |(id, identity, columns)| {
            let columns = columns.into_iter().map(|(key, type_oid, type_modifier)| Column {
                name: format!("column{type_oid}"),
                key,
                type_oid,
                type_modifier,
            });
            let (schema, name) = ("public".into(), format!("table{}", id.0));
            let columns = columns.collect();
            Record::Relation(Relation { id, schema, name, identity, columns })
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        any::<(u32, u64, i64)>().prop_map(|(xid, lsn, time)| Record::Begin {
            xid,
            lsn: Lsn::new(lsn),
            time: Timestamp::from_micros(time),
        }),
        any::<u64>().prop_map(|end| Record::Commit { end: Lsn::new(end) }),
        Just(Record::Abort),
        described(),
        (relation(), row()).prop_map(|(relation, new)| Record::Insert { relation, new }),
        (relation(), option::of(old()), row()).prop_map(|(relation, old, new)| Record::Update {
            relation,
            old,
            new
        }),
        (relation(), old()).prop_map(|(relation, old)| Record::Delete { relation, old }),
        any::<u64>().prop_map(|rows| Record::CopyEnd { rows }),
    ]
}

fn runs() -> impl Strategy<Value = Vec<(u32, Records)>> {
    // Bytes behind a good first byte, which are records for a journal and nothing to anybody else.
    let strange = (1..=12_u8, vec(any::<u8>(), 0..40)).prop_map(|(tag, mut bytes)| {
        bytes.insert(0, tag);
        bytes
    });
    let encoded = prop_oneof![
        9 => record().prop_map(|record| {
            let mut bytes = Vec::new();
            thinwire_engine::codec::encode(&record, &mut bytes);
            bytes
        }),
        1 => strange,
    ];
    let run = vec(encoded, 1..12).prop_map(|encoded| {
        let mut buf = RecordsBuf::new();
        encoded.iter().for_each(|record| buf.push_encoded(record, 1));
        buf.take()
    });
    vec((0..3_u32, run), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_records_come_back_byte_for_byte(runs in runs(), first in 1..1_u64 << 60) {
        let (mut packer, mut unpacker) = (Packer::default(), Unpacker::default());
        for (at, (stream, records)) in runs.into_iter().enumerate() {
            let first = Offset::new(first + at as u64);
            let mut packet = Vec::new();
            packer.pack(stream, first, &records, &mut packet);
            let unpacked = unpacker.unpack(&packet).unwrap();
            prop_assert_eq!(unpacked, Unpacked { stream, first, records });
        }
    }

    #[test]
    fn garbage_is_refused(bytes in vec(any::<u8>(), 0..600)) {
        prop_assert!(Unpacker::default().unpack(&bytes).is_err());
    }

    #[test]
    fn a_flipped_bit_is_refused(runs in runs(), at: usize, bit in 0..8) {
        let (mut packer, mut packet) = (Packer::default(), Vec::new());
        let (stream, records) = &runs[0];
        packer.pack(*stream, Offset::FIRST, records, &mut packet);
        let place = at % packet.len();
        packet[place] ^= 1_u8 << bit;
        if let Ok(unpacked) = Unpacker::default().unpack(&packet) {
            // The checksum covers the records. Where they belong, the receiving session checks.
            prop_assert_eq!(&unpacked.records, records);
        }
    }
}

#[test]
fn a_packet_that_was_missed_is_noticed() {
    let (mut packer, mut packets) = (Packer::default(), Vec::new());
    for n in 0..3_u32 {
        let row = Row(vec![text(n * 1_000), text("the same text each time")]);
        let record = Record::Insert { relation: RelationId(7), new: row };
        let mut packet = Vec::new();
        packer.pack(0, Offset::new(n.into()), &Records::one(&record), &mut packet);
        packets.push(packet);
    }
    let mut unpacker = Unpacker::default();
    assert!(unpacker.unpack(&packets[0]).is_ok());
    assert!(unpacker.unpack(&packets[2]).is_err());
}

#[test]
fn a_bomb_ends_at_the_bound() {
    // As many records as a number can say, of the same row: they cost next to no bits.
    let (mut packer, mut buf) = (Packer::default(), RecordsBuf::new());
    let row = Row(vec![text("x".repeat(90)); 3]);
    (0..20_000).for_each(|_| {
        buf.push(&Record::Insert { relation: RelationId(1), new: row.clone() });
    });
    let (records, mut packet) = (buf.take(), Vec::new());
    packer.pack(0, Offset::FIRST, &records, &mut packet);
    assert!(records.bytes().len() > 50 * RECORDS_BYTES_MAX && packet.len() < 8 << 10);
    assert_eq!(Unpacker::default().unpack(&packet), Err(PacketError::Long));
}

#[test]
fn what_was_seen_before_is_not_sent_again() {
    let (mut packer, mut sizes) = (Packer::default(), Vec::new());
    for n in 0..200_u32 {
        let row = Row(vec![text(n), text(n % 3), text(format!("name {}", n % 5)), Value::Null]);
        let update = Record::Update { relation: RelationId(7), old: None, new: row };
        let mut packet = Vec::new();
        packer.pack(0, Offset::new(n.into()), &Records::one(&update), &mut packet);
        sizes.push(packet.len());
    }
    let (early, late) = (sizes[0], sizes[150..].iter().sum::<usize>() / 50);
    assert!(late <= 7 && early > 2 * late, "{early}, then {late}");
}

#[test]
fn noise_is_hardly_longer_than_itself() {
    let (mut packer, mut unpacker, mut state) = (Packer::default(), Unpacker::default(), 9_u64);
    for n in 0..20 {
        let noise: Vec<u8> = (0..1_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_be_bytes()[0]
            })
            .collect();
        let row = Row(vec![Value::Bytes(noise.into())]);
        let records = Records::one(&Record::Insert { relation: RelationId(7), new: row });
        let mut packet = Vec::new();
        packer.pack(0, Offset::new(n), &records, &mut packet);
        assert!(packet.len() < 1_020, "{}", packet.len());
        assert_eq!(unpacker.unpack(&packet).unwrap().records, records);
    }
}

#[test]
fn what_is_known_of_wide_tables_is_forgotten_at_both_ends_alike() {
    let (mut packer, mut unpacker) = (Packer::default(), Unpacker::default());
    for n in 0..24_u32 {
        // Texts that all differ, in ever new tables, until no more are remembered.
        let values =
            (0..1_000).map(|at| text(format!("the value of {at} in table {n}, once only")));
        let new = Row(values.collect());
        let relation = RelationId(n % 12);
        let records = Records::one(&Record::Insert { relation, new });
        let mut packet = Vec::new();
        packer.pack(0, Offset::new(n.into()), &records, &mut packet);
        assert_eq!(unpacker.unpack(&packet).unwrap().records, records);
    }
}

#[test]
fn packets_of_a_version_are_the_same_for_ever() {
    let mut packer = Packer::default();
    let mut packets = Vec::new();
    for n in 0..50_u32 {
        let time = Timestamp::from_micros(i64::from(n) * 1_234_567);
        let values = [
            text(n % 9),
            text(format!("2025-01-06 08:00:{:02}.5+00", n % 60)),
            text(format!("{}.{:02}", n / 3, n * 7 % 100)),
            text(format!("{{\"a\": {n}, \"city\": \"{}\"}}", ["Bodø", "Horta"][n as usize % 2])),
            text(format!("\\x{:08x}", n.wrapping_mul(2_654_435_761))),
            Value::Null,
        ];
        let (relation, new) = (RelationId(n % 2), Row(values.into()));
        let mut buf = RecordsBuf::new();
        buf.push(&Record::Begin { xid: n, lsn: Lsn::new((n * 100).into()), time });
        buf.push(&Record::Insert { relation, new: new.clone() });
        buf.push(&Record::Update { relation, old: None, new: new.clone() });
        buf.push(&Record::Delete { relation, old: OldRow::Full(new) });
        buf.push(&Record::Commit { end: Lsn::new((n * 100 + 50).into()) });
        packer.pack(0, Offset::new(u64::from(n) * 5 + 1), &buf.take(), &mut packets);
    }
    // Whoever has to change this line has to change the version in `lanes.rs` as well.
    assert_eq!((packets.len(), checksum(&packets)), (816, 3_083_466_108));
}
