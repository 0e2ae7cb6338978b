//! Sessions of pgoutput messages through the translator: what comes out is well formed, and a session that is cut
//! anywhere and begun again ends in the same records.

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use thinwire_engine::{
    codec::{Records, RecordsBuf, decode, encode},
    journal::Tail,
    model::{
        Column, Copy, CopyTable, Lsn, Offset, OldRow, Record, Relation, RelationId,
        ReplicaIdentity, Row, Timestamp, Value,
    },
    pgoutput::{self, Message, Step, Translator},
};

/// What the source sends next.
#[derive(Arbitrary, Debug)]
enum Sent<'a> {
    Begin,
    Commit,
    Origin {
        ours: bool,
    },
    Describe {
        table: u8,
        columns: u8,
    },
    Insert {
        table: u8,
        values: u8,
        value: u8,
    },
    Update {
        table: u8,
        values: u8,
        value: u8,
        full: Option<bool>,
    },
    Delete {
        table: u8,
        values: u8,
        full: bool,
    },
    Truncate {
        tables: Vec<u8>,
    },
    Message {
        transactional: bool,
    },
    Type,
    /// Any bytes at all.
    Raw(&'a [u8]),
}

/// Plays the input.
pub fn translate(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok((tables, cut)) = input.arbitrary::<(u8, u8)>() else { return };
    let tail = copied(tables);
    let (messages, honest) = messages(&mut input);
    let whole = session(&tail, &messages);
    let mut end = tail.clone();
    end.observe(&gathered(&whole)).expect("what is translated can be observed");

    let cut = usize::from(cut) % (whole.len() + 1);
    let mut tail = tail;
    tail.observe(&gathered(&whole[..cut])).expect("so can a part of it");
    let rest = session(&tail, &messages);
    // What became stale in the part that is held is not said again: that part is aborted, and its tables are copied anew.
    let is_stale = |record: &Record| matches!(record, Record::Schema(_));
    if honest && !whole[..cut].iter().any(is_stale) {
        let again = whole[..cut].iter().chain(&rest).filter(is_repeatable);
        assert!(again.eq(whole.iter().filter(is_repeatable)), "{cut} of {whole:?}, then {rest:?}");
    }
}

/// One session from where the tail ends, until the source says what nobody says.
fn session(tail: &Tail, messages: &[Message]) -> Vec<Record> {
    let mut translator = Translator::new(tail);
    let mut out = Vec::new();
    for message in messages {
        let before = out.len();
        match translator.take(message.clone(), &mut out) {
            Ok(Step::Next) => {}
            Ok(Step::Ended { emitted, .. }) => {
                let commits = matches!(out[before..], [Record::Commit { .. }]);
                assert_eq!(emitted, commits);
                assert!(translator.transaction().is_none());
            }
            Ok(Step::Restart) | Err(_) => break,
        }
    }
    check(tail, &out);
    out
}

/// No transaction is void or inside another, no row is outside of one, of a table that was not copied, or not as
/// its table was described.
fn check(tail: &Tail, records: &[Record]) {
    let mut tail = tail.clone();
    for record in records {
        let open = tail.open.is_some();
        match record {
            Record::Begin { .. } => assert!(!open, "a transaction in another"),
            Record::Commit { .. } => {
                assert!(tail.open.is_some_and(|it| it.records > 1), "a void transaction");
            }
            Record::Insert { relation, new } => check_row(&tail, *relation, new),
            Record::Update { relation, old, new } => {
                check_row(&tail, *relation, new);
                old.iter().for_each(|old| check_row(&tail, *relation, old.row()));
            }
            Record::Delete { relation, old } => check_row(&tail, *relation, old.row()),
            Record::Truncate { relations, .. } => {
                assert!(open && !relations.is_empty());
                assert!(relations.iter().all(|id| tail.copied.contains(id)));
            }
            Record::Message { transactional, .. } => assert_eq!(open, *transactional),
            Record::Abort => assert!(open, "the end of nothing"),
            Record::Relation(_) => {}
            // A row came without all its values.
            Record::Schema(schema) => {
                assert!(open && schema.born.is_empty() && !schema.stale.is_empty());
                assert!(schema.stale.iter().all(|id| tail.copied.contains(id)));
            }
            other => panic!("{other:?} comes from no message"),
        }
        let mut bytes = Vec::new();
        encode(record, &mut bytes);
        assert_eq!(decode(&Bytes::from(bytes)).as_ref(), Ok(record));
        tail.observe(&Records::one(record)).expect("it decodes");
    }
}

fn check_row(tail: &Tail, id: RelationId, row: &Row) {
    assert!(tail.open.is_some(), "a row outside of a transaction");
    assert!(tail.copied.contains(&id), "a row of a table that was not copied");
    let columns = tail.relations.get(&id).map(|relation| relation.columns.len());
    assert_eq!(columns, Some(row.0.len()), "a row that is not as its table was described");
}

/// Messages outside of transactions are only known by the next commit or mark to be held.
fn is_repeatable(record: &&Record) -> bool {
    !matches!(record, Record::Message { transactional: false, .. })
}

/// The messages, and whether their positions are those of an honest source: each beyond the ones before.
fn messages(input: &mut Unstructured<'_>) -> (Vec<Message>, bool) {
    let (mut messages, mut honest, mut lsn) = (Vec::new(), true, 0);
    while messages.len() < MESSAGES_MAX && !input.is_empty() {
        let Ok(sent) = input.arbitrary() else { break };
        if let Sent::Raw(bytes) = sent {
            if let Ok(message) = pgoutput::decode(&Bytes::copy_from_slice(bytes)) {
                messages.push(message);
                honest = false;
            }
            continue;
        }
        lsn += 10;
        messages.push(message(sent, lsn, &messages));
    }
    (messages, honest)
}

fn message(sent: Sent<'_>, lsn: u64, before: &[Message]) -> Message {
    let relation = |table: u8| RelationId(u32::from(table % TABLES));
    match sent {
        Sent::Begin => {
            Message::Begin { final_lsn: Lsn::new(lsn), time: Timestamp::default(), xid: 1 }
        }
        Sent::Commit => {
            // Where the transaction said that it would end.
            let begun = before.iter().rev().find_map(|message| match message {
                Message::Begin { final_lsn, .. } => Some(final_lsn.get()),
                _ => None,
            });
            let lsn = begun.unwrap_or(lsn);
            Message::Commit { lsn: Lsn::new(lsn), end: Lsn::new(lsn + 5) }
        }
        Sent::Origin { ours } => {
            Message::Origin { name: if ours { "thinwire_x" } else { "other" }.to_owned() }
        }
        Sent::Describe { table, columns } => Message::Relation(described(relation(table), columns)),
        Sent::Insert { table, values, value } => {
            Message::Insert { relation: relation(table), new: row(values, value) }
        }
        Sent::Update { table, values, value, full } => Message::Update {
            relation: relation(table),
            old: full.map(|full| old(full, values)),
            new: row(values, value),
        },
        Sent::Delete { table, values, full } => {
            Message::Delete { relation: relation(table), old: old(full, values) }
        }
        Sent::Truncate { tables } => Message::Truncate {
            relations: tables.into_iter().map(relation).collect(),
            cascade: false,
            restart_identity: false,
        },
        Sent::Message { transactional } => Message::Logical {
            transactional,
            lsn: Lsn::new(lsn),
            prefix: String::new(),
            content: Bytes::new(),
        },
        Sent::Type | Sent::Raw(_) => Message::Type,
    }
}

fn described(id: RelationId, columns: u8) -> Relation {
    let column = |number: u8| Column {
        name: number.to_string(),
        key: number == 0,
        type_oid: 25,
        type_modifier: -1,
    };
    Relation {
        id,
        schema: "s".to_owned(),
        name: "t".to_owned(),
        identity: ReplicaIdentity::Default,
        columns: (0..columns % COLUMNS).map(column).collect(),
    }
}

fn old(full: bool, values: u8) -> OldRow {
    if full { OldRow::Full(row(values, 1)) } else { OldRow::Key(row(values, 0)) }
}

fn row(values: u8, value: u8) -> Row {
    let value = match value {
        0 => Value::Null,
        1 => Value::Unchanged,
        byte => Value::Bytes(Bytes::from(vec![byte])),
    };
    Row(vec![value; usize::from(values % COLUMNS)])
}

/// A stream whose first record is the copy of some of the tables: a bit each.
fn copied(tables: u8) -> Tail {
    let ids = (0..TABLES).filter(|table| tables & (1 << table) != 0);
    let ids: Vec<_> = ids.map(|table| RelationId(table.into())).collect();
    let tables = ids.iter().map(|&relation| CopyTable { relation, rows_estimate: 0 }).collect();
    let copy = Copy { lsn: Lsn::new(1), audience: vec![], carriers: vec![], tables };
    let mut records = vec![Record::CopyBegin(copy)];
    records.extend(ids.iter().map(|id| Record::Relation(described(*id, 2))));
    records.push(Record::CopyEnd { rows: 0 });
    let mut tail = Tail::default();
    tail.observe(&gathered(&records)).expect("it is sound");
    assert_eq!(tail.next, Offset::FIRST.forward(records.len() as u64));
    tail
}

fn gathered(records: &[Record]) -> Records {
    let mut buf = RecordsBuf::new();
    records.iter().for_each(|record| buf.push(record));
    buf.take()
}

/// So that one input does not take for ever.
const MESSAGES_MAX: usize = 64;

/// Few tables of few columns, so that they meet.
const TABLES: u8 = 4;
const COLUMNS: u8 = 4;
