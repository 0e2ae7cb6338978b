//! Hand-made messages: each rule of the translator.

mod bytes;
mod told;

use ::bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    codec::RecordsBuf,
    journal::{Mark, Tail},
    model::{
        Column, Copy, CopyTable, Definitions, Lsn, OldRow, Record, Relation, RelationId,
        ReplicaIdentity, Row, Schema, Timestamp, Value,
    },
};

fn relation(id: u32, columns: &[&str]) -> Relation {
    let column = |(at, name): (usize, &&str)| Column {
        name: (*name).to_owned(),
        key: at == 0,
        type_oid: 25,
        type_modifier: -1,
    };
    Relation {
        id: RelationId(id),
        schema: "public".to_owned(),
        name: format!("t{id}"),
        identity: ReplicaIdentity::Default,
        columns: columns.iter().enumerate().map(column).collect(),
    }
}

fn row(values: &[&str]) -> Row {
    let value = |text: &&str| match *text {
        "\\N" => Value::Null,
        "\\U" => Value::Unchanged,
        text => Value::Bytes(Bytes::copy_from_slice(text.as_bytes())),
    };
    Row(values.iter().map(value).collect())
}

fn insert(id: u32, values: &[&str]) -> Message {
    Message::Insert { relation: RelationId(id), new: row(values) }
}

fn small<T, U: TryFrom<T>>(number: T) -> U {
    U::try_from(number).ok().expect("numbers in these tests are small")
}

fn begin(lsn: u64) -> Message {
    let time = Timestamp::from_micros(lsn.cast_signed() * 3);
    Message::Begin { final_lsn: Lsn::new(lsn), time, xid: small(lsn / 10) }
}

fn commit(lsn: u64) -> Message {
    Message::Commit { lsn: Lsn::new(lsn), end: Lsn::new(lsn + 5) }
}

fn described(id: u32, columns: &[&str]) -> Message {
    Message::Relation(relation(id, columns))
}

/// A stream's tail with some tables copied into it, each with the columns `a` and `b`.
fn copied(ids: &[u32]) -> Tail {
    let mut tail = Tail::default();
    let tables =
        ids.iter().map(|id| CopyTable { relation: RelationId(*id), rows_estimate: 0 }).collect();
    let copy = Copy { lsn: Lsn::new(1), audience: vec![], carriers: vec![], tables };
    let mut records = vec![Record::CopyBegin(copy)];
    records.extend(ids.iter().map(|id| Record::Relation(relation(*id, &["a", "b"]))));
    records.push(Record::CopyEnd { rows: 0 });
    observe(&mut tail, &records);
    tail
}

fn observe(tail: &mut Tail, records: &[Record]) {
    let mut buf = RecordsBuf::new();
    records.iter().for_each(|record| buf.push(record));
    tail.observe(&buf.take()).unwrap();
}

/// One session from where the tail ends.
fn session(tail: &Tail, messages: &[Message]) -> (Vec<Record>, Vec<Step>) {
    let mut translator = Translator::new(tail);
    let mut out = Vec::new();
    let steps = messages
        .iter()
        .map(|message| translator.take(message.clone(), &mut out).unwrap())
        .collect();
    (out, steps)
}

fn records(tail: &Tail, messages: &[Message]) -> Vec<Record> {
    session(tail, messages).0
}

#[test]
fn a_transaction_becomes_its_records_without_a_description_that_is_in_force() {
    let tail = copied(&[1]);
    let messages = [begin(100), described(1, &["a", "b"]), insert(1, &["1", "\\N"]), commit(100)];
    let (out, steps) = session(&tail, &messages);
    let expected = [
        Record::Begin { xid: 10, lsn: Lsn::new(100), time: Timestamp::from_micros(300) },
        Record::Insert { relation: RelationId(1), new: row(&["1", "\\N"]) },
        Record::Commit { end: Lsn::new(105) },
    ];
    assert_eq!(out, expected);
    assert_eq!(steps[3], Step::Ended { end: Lsn::new(105), emitted: true });
}

#[test]
fn a_new_row_without_all_its_values_makes_its_table_stale() {
    let tail = copied(&[1, 2]);
    let messages = [
        begin(100),
        described(1, &["a", "b"]),
        described(2, &["a", "b"]),
        insert(1, &["1", "\\U"]),
        insert(1, &["2", "x"]),
        insert(2, &["3", "x"]),
        commit(100),
    ];
    let out = records(&tail, &messages);
    let definitions = Definitions::default().encode();
    let stale = Schema { born: vec![], stale: vec![RelationId(1)], definitions };
    assert_eq!(out[1], Record::Schema(stale));
    assert_eq!(out[2], Record::Insert { relation: RelationId(2), new: row(&["3", "x"]) });
    assert_eq!(out.len(), 4);
    // One that is not copied yet is left to its copy.
    let other = [begin(100), described(3, &["a"]), insert(3, &["\\U"]), commit(100)];
    assert_eq!(records(&tail, &other), []);
    let mut translator = Translator::new(&tail);
    let odd = [begin(100), described(1, &["a", "b"]), insert(1, &["\\U"])];
    let last = odd.map(|message| translator.take(message, &mut vec![]).is_ok());
    assert_eq!(last, [true, true, false]);
}

#[test]
fn a_part_in_which_a_table_became_stale_by_a_row_is_written_again() {
    let tail = copied(&[1, 2]);
    let messages = [
        begin(100),
        described(1, &["a", "b"]),
        described(2, &["a", "b"]),
        insert(1, &["1", "x"]),
        insert(1, &["2", "\\U"]),
        insert(2, &["3", "x"]),
        commit(100),
    ];
    let whole = records(&tail, &messages);
    assert_eq!(whole.len(), 5);
    for cut in 3..whole.len() {
        let mut held = tail.clone();
        observe(&mut held, &whole[..cut]);
        let (out, steps) = session(&held, &messages);
        assert_eq!(out, [Record::Abort], "cut behind {cut} records");
        assert_eq!(steps.last(), Some(&Step::Restart));
        observe(&mut held, &out);
        // The table's copy is to come, so nothing of it is needed.
        let again = records(&held, &messages);
        assert_eq!(again[1..], whole[3..]);
        observe(&mut held, &again);
        assert!(held.open.is_none() && !held.copied.contains(&RelationId(1)));
    }
}

#[test]
fn a_description_is_written_before_a_row_exactly_when_it_differs() {
    let mut tail = copied(&[1]);
    let first = [
        begin(100),
        described(1, &["a", "b", "c"]),
        insert(1, &["1", "2", "3"]),
        insert(1, &["1", "2", "3"]),
        commit(100),
    ];
    let out = records(&tail, &first);
    assert_eq!(out[1], Record::Relation(relation(1, &["a", "b", "c"])));
    assert_eq!(out.iter().filter(|record| matches!(record, Record::Relation(_))).count(), 1);
    observe(&mut tail, &out);
    // The next session describes it anew, but the stream knows it.
    let again =
        [begin(200), described(1, &["a", "b", "c"]), insert(1, &["4", "5", "6"]), commit(200)];
    assert!(!records(&tail, &again).iter().any(|record| matches!(record, Record::Relation(_))));
    // A description without a row leaves no trace.
    let unused = [begin(200), described(1, &["a"]), commit(200)];
    assert_eq!(records(&tail, &unused), []);
}

#[test]
fn a_transaction_without_captured_changes_leaves_no_trace() {
    // PostgreSQL: 001_rep_changes 27
    let tail = copied(&[1]);
    let messages =
        [begin(100), described(2, &["a"]), insert(2, &["x"]), commit(100), begin(200), commit(200)];
    let (out, steps) = session(&tail, &messages);
    assert_eq!(out, []);
    assert_eq!(steps[3], Step::Ended { end: Lsn::new(105), emitted: false });
}

#[test]
fn rows_flow_once_their_table_was_copied() {
    let mut tail = copied(&[1]);
    let mut translator = Translator::new(&tail);
    let mut out = Vec::new();
    for message in [begin(100), described(2, &["a", "b"]), insert(2, &["x", "y"]), commit(100)] {
        translator.take(message, &mut out).unwrap();
    }
    assert_eq!(out, []);
    tail = copied(&[1, 2]);
    translator.refresh(&tail);
    for message in [begin(200), insert(2, &["x", "y"]), commit(200)] {
        translator.take(message, &mut out).unwrap();
    }
    assert_eq!(out.len(), 3, "{out:?}");
}

#[test]
fn rows_of_a_forgotten_table_wait_for_its_next_copy() {
    let tail = copied(&[1, 2]);
    let mut translator = Translator::new(&tail);
    translator.forget(&[RelationId(2)].into());
    let mut out = Vec::new();
    let tables = [begin(100), described(1, &["a", "b"]), described(2, &["a", "b"])];
    let rows = [insert(1, &["x", "y"]), insert(2, &["x", "y"]), commit(100)];
    for message in tables.into_iter().chain(rows) {
        translator.take(message, &mut out).unwrap();
    }
    assert_eq!(out.len(), 3, "{out:?}");
    translator.refresh(&tail);
    for message in [begin(200), insert(2, &["x", "y"]), commit(200)] {
        translator.take(message, &mut out).unwrap();
    }
    assert_eq!(out.len(), 6, "{out:?}");
}

#[test]
fn a_truncate_names_only_tables_that_were_copied() {
    let tail = copied(&[1]);
    let truncate = |ids: &[u32]| Message::Truncate {
        relations: ids.iter().copied().map(RelationId).collect(),
        cascade: true,
        restart_identity: false,
    };
    let tables = [described(1, &["a", "b"]), described(2, &["a"])];
    let [one, two] = tables;
    let out =
        records(&tail, &[begin(100), one, two, truncate(&[2]), truncate(&[2, 1]), commit(100)]);
    let expected =
        Record::Truncate { relations: vec![RelationId(1)], cascade: true, restart_identity: false };
    assert_eq!(out.len(), 3);
    assert_eq!(out[1], expected);
}

#[test]
fn what_another_node_replayed_here_is_dropped_and_other_origins_are_not() {
    let tail = copied(&[1]);
    let from = |name: &str| {
        let origin = Message::Origin { name: name.to_owned() };
        let relation = described(1, &["a", "b"]);
        records(&tail, &[begin(100), origin, relation, insert(1, &["1", "2"]), commit(100)])
    };
    assert_eq!(from("thinwire_0123"), []);
    assert_eq!(from("pg_16400").len(), 3);
}

#[test]
fn complete_transactions_that_are_sent_again_are_skipped() {
    let mut tail = copied(&[1]);
    let first = [begin(100), described(1, &["a", "b"]), insert(1, &["1", "2"]), commit(100)];
    let out = records(&tail, &first);
    observe(&mut tail, &out);
    let next = [begin(200), insert(1, &["3", "4"]), commit(200)];
    let both: Vec<_> = first.into_iter().chain(next).collect();
    let (out, steps) = session(&tail, &both);
    assert_eq!(out.len(), 3);
    assert!(matches!(out[0], Record::Begin { lsn, .. } if lsn == Lsn::new(200)));
    assert_eq!(steps[3], Step::Ended { end: Lsn::new(105), emitted: false });
}

#[test]
fn transactions_before_the_mark_were_captured_or_not_to_be() {
    let mut tail = copied(&[1]);
    tail.mark = Some(Mark { lsn: Lsn::new(200), timeline: 1, system: 1, released: false });
    let transaction =
        |lsn| [begin(lsn), described(1, &["a", "b"]), insert(1, &["1", "2"]), commit(lsn)];
    assert_eq!(records(&tail, &transaction(199)), []);
    assert_eq!(records(&tail, &transaction(200)).len(), 3);
}

/// A transaction in which a table changes its shape, with every kind of change.
fn long_transaction() -> Vec<Message> {
    vec![
        begin(100),
        described(1, &["a", "b"]),
        insert(1, &["1", "one"]),
        described(2, &["a"]),
        insert(2, &["not captured"]),
        Message::Update { relation: RelationId(1), old: None, new: row(&["1", "\\U"]) },
        described(1, &["a", "b", "c"]),
        Message::Update {
            relation: RelationId(1),
            old: Some(OldRow::Key(row(&["1", "\\N", "\\N"]))),
            new: row(&["2", "two", "\\N"]),
        },
        Message::Logical {
            transactional: true,
            lsn: Lsn::new(90),
            prefix: "app".into(),
            content: Bytes::from_static(b"hello"),
        },
        Message::Delete { relation: RelationId(1), old: OldRow::Full(row(&["2", "two", "\\N"])) },
        Message::Truncate {
            relations: vec![RelationId(1)],
            cascade: false,
            restart_identity: true,
        },
        commit(100),
    ]
}

#[test]
fn a_session_cut_behind_any_record_is_continued_with_exactly_the_rest() {
    let tail = copied(&[1]);
    let whole = records(&tail, &long_transaction());
    assert_eq!(whole.len(), 9);
    for cut in 0..=whole.len() {
        let mut held = tail.clone();
        observe(&mut held, &whole[..cut]);
        let rest = records(&held, &long_transaction());
        assert_eq!(rest, whole[cut..], "cut behind {cut} records");
        // And once more, in the middle of the rest.
        let half = rest.len() / 2;
        observe(&mut held, &rest[..half]);
        assert_eq!(records(&held, &long_transaction()), rest[half..]);
    }
}

/// The long transaction's first four records, and what another session makes of them.
fn after_four(messages: &[Message]) -> (Vec<Record>, Vec<Step>) {
    let mut held = copied(&[1]);
    let whole = records(&held, &long_transaction());
    observe(&mut held, &whole[..4]);
    session(&held, messages)
}

#[test]
fn a_part_that_differs_from_what_is_held_is_aborted() {
    let mut other = long_transaction();
    other[2] = insert(1, &["1", "uno"]);
    let (out, steps) = after_four(&other);
    assert_eq!(out, [Record::Abort]);
    assert_eq!(steps.last(), Some(&Step::Restart));
    assert_eq!(steps[2], Step::Next, "nothing is known to differ before all was compared");
}

#[test]
fn a_transaction_that_ends_before_what_is_held_is_aborted() {
    let [first, ..] = &long_transaction()[..] else { unreachable!() };
    for shorter in [
        vec![first.clone(), commit(100)],
        vec![first.clone(), described(1, &["a", "b"]), insert(1, &["1", "one"]), commit(100)],
    ] {
        let (out, steps) = after_four(&shorter);
        assert_eq!(out, [Record::Abort]);
        assert_eq!(steps.last(), Some(&Step::Restart));
    }
}

#[test]
fn another_transaction_in_place_of_the_held_part_aborts_it_unless_it_is_empty() {
    let empty = [begin(50), described(2, &["a"]), insert(2, &["x"]), commit(50)];
    assert_eq!(after_four(&empty).0, []);
    let other = [begin(150), described(1, &["a", "b"]), insert(1, &["1", "2"]), commit(150)];
    let (out, steps) = after_four(&other);
    assert_eq!(out, [Record::Abort]);
    assert_eq!(steps[2..], [Step::Restart, Step::Restart]);
}

#[test]
fn after_an_abort_the_transaction_is_written_from_its_beginning() {
    let mut held = copied(&[1]);
    let whole = records(&held, &long_transaction());
    observe(&mut held, &whole[..4]);
    let mut other = long_transaction();
    other[2] = insert(1, &["1", "uno"]);
    let out = records(&held, &other);
    observe(&mut held, &out);
    let again = records(&held, &other);
    assert!(matches!(again[0], Record::Begin { .. }));
    assert_eq!(again.last(), Some(&Record::Commit { end: Lsn::new(105) }));
}

#[test]
fn a_copy_that_was_left_open_is_aborted_first() {
    let mut tail = copied(&[1]);
    assert_eq!(Translator::opening(&tail), None);
    let copy = Copy { lsn: Lsn::new(9), audience: vec![], carriers: vec![], tables: vec![] };
    observe(&mut tail, &[Record::CopyBegin(copy)]);
    assert_eq!(Translator::opening(&tail), Some(Record::CopyAbort));
    observe(&mut tail, &[Record::CopyAbort]);
    assert_eq!(Translator::opening(&tail), None);
}

#[test]
fn messages_outside_of_transactions_that_are_held_are_dropped() {
    let message = |lsn| Message::Logical {
        transactional: false,
        lsn: Lsn::new(lsn),
        prefix: String::new(),
        content: Bytes::new(),
    };
    let mut tail = copied(&[1]);
    tail.mark = Some(Mark { lsn: Lsn::new(50), timeline: 1, system: 1, released: false });
    assert_eq!(records(&tail, &[message(49)]), []);
    assert_eq!(records(&tail, &[message(50)]).len(), 1);
    // What was written before the commit of a transaction was sent before the transaction.
    let whole = records(&tail, &long_transaction());
    observe(&mut tail, &whole[..4]);
    assert_eq!(records(&tail, &[message(99)]), []);
    assert_eq!(records(&tail, &[message(120)]), [Record::Abort]);
}

#[test]
fn a_part_whose_rest_does_not_come_is_aborted_once_its_place_is_passed() {
    let mut held = copied(&[1]);
    let whole = records(&held, &long_transaction());
    observe(&mut held, &whole[..4]);
    let mut translator = Translator::new(&held);
    let mut out = Vec::new();
    assert_eq!(translator.passed(Lsn::new(100), &mut out), Step::Next);
    assert_eq!(translator.passed(Lsn::new(101), &mut out), Step::Restart);
    assert_eq!(out, [Record::Abort]);
}

#[test]
fn a_transaction_is_abandoned_with_an_abort_exactly_if_a_part_is_in_the_stream() {
    for (messages, expected) in
        [(&long_transaction()[..2], &[][..]), (&long_transaction()[..3], &[Record::Abort])]
    {
        let mut translator = Translator::new(&copied(&[1]));
        for message in messages {
            translator.take(message.clone(), &mut Vec::new()).unwrap();
        }
        let mut out = Vec::new();
        assert_eq!(translator.abandon(&mut out), Step::Restart);
        assert_eq!(out, expected);
        assert_eq!(translator.take(commit(100), &mut out).unwrap(), Step::Restart);
    }
}

#[test]
fn changes_are_told_by_table_and_by_where_they_take_effect() {
    let tail = copied(&[1]);
    let mut translator = Translator::new(&tail);
    let wanted = [RelationId(2)].into();
    let change = insert(2, &["x"]);
    assert_eq!(translator.touches(&change, Some(&wanted)), None);
    translator.take(begin(100), &mut Vec::new()).unwrap();
    assert_eq!(translator.touches(&change, Some(&wanted)), Some(Lsn::new(100)));
    assert_eq!(translator.touches(&insert(1, &["x"]), Some(&wanted)), None);
    assert_eq!(translator.touches(&insert(1, &["x"]), None), Some(Lsn::new(100)));
    let name = "thinwire_x".to_owned();
    translator.take(Message::Origin { name }, &mut Vec::new()).unwrap();
    assert_eq!(translator.touches(&change, Some(&wanted)), None);
}

#[test]
fn messages_out_of_place_are_errors() {
    for messages in [
        vec![commit(100)],
        vec![begin(100), begin(200)],
        vec![begin(100), insert(1, &["1", "2"])],
        vec![described(1, &["a", "b"]), insert(1, &["1", "2"])],
        vec![begin(100), described(1, &["a", "b"]), insert(1, &["1"])],
        vec![Message::Origin { name: "x".into() }],
    ] {
        let mut translator = Translator::new(&copied(&[1]));
        let taken: Result<Vec<_>, _> =
            messages.into_iter().map(|it| translator.take(it, &mut Vec::new())).collect();
        assert!(matches!(taken, Err(Misread::OutOfPlace(_))));
    }
}

fn every_kind() -> Vec<Message> {
    let mut messages = long_transaction();
    messages.push(Message::Origin { name: "thinwire_x".into() });
    messages.push(Message::Type);
    messages
}

proptest! {
    #[test]
    fn messages_in_any_order_never_panic_and_keep_the_stream_well_formed(
        order in prop::collection::vec(0..14_usize, 0..60),
        cut in 0..9_usize,
    ) {
        let mut held = copied(&[1]);
        let whole = records(&held, &long_transaction());
        observe(&mut held, &whole[..cut]);
        let mut translator = Translator::new(&held);
        let (mut out, kinds) = (Vec::new(), every_kind());
        for which in order {
            if translator.take(kinds[which].clone(), &mut out).is_err() {
                break;
            }
        }
        let mut is_open = held.open.is_some();
        for record in &out {
            match record {
                Record::Begin { .. } => prop_assert!(!std::mem::replace(&mut is_open, true)),
                Record::Commit { .. } | Record::Abort => {
                    prop_assert!(std::mem::replace(&mut is_open, false));
                }
                _ => prop_assert!(is_open),
            }
        }
    }
}
