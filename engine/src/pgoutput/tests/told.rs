//! Schemas that the translator is told of between messages, and what becomes stale by them.

use super::*;
use crate::model::{Body, Object, Partition, Table};

/// One session that takes messages and is told of changes of the schema in their place.
fn told(tail: &Tail, script: &[Told]) -> Vec<Record> {
    let mut translator = Translator::new(tail);
    let mut out = Vec::new();
    for told in script {
        match told {
            Told::Message(message) => translator.take(message.clone(), &mut out).unwrap(),
            Told::Schema { tables, stale, born } => {
                let ids = |ids: &[u32]| ids.iter().copied().map(RelationId).collect();
                let definitions = Definitions { objects: tables.clone(), dropped: Vec::new() };
                translator.schema(&definitions, ids(born), ids(stale), &mut out).unwrap()
            }
        };
    }
    out
}

enum Told {
    Message(Message),
    Schema { tables: Vec<Object>, stale: &'static [u32], born: &'static [u32] },
}

fn table(id: u32, root: Option<&str>) -> Object {
    let partition_of = root.map(|name| Partition {
        schema: "public".to_owned(),
        name: name.to_owned(),
        bound: "DEFAULT".to_owned(),
    });
    let body = Body::Table(Table { partition_of, ..Table::default() });
    let (schema, owner) = ("public".to_owned(), "postgres".to_owned());
    Object { id, schema, name: format!("t{id}"), owner, comment: None, body }
}

#[test]
fn a_table_that_is_told_of_before_its_copy_is_said_to_be_stale() {
    let change =
        |tables: &[Object], stale, born| Told::Schema { tables: tables.into(), stale, born };
    let script = [
        Told::Message(begin(100)),
        change(&[], &[1], &[]),
        change(&[table(1, None), table(2, None)], &[], &[]),
        change(&[table(3, None)], &[], &[3]),
        change(&[table(3, None), table(4, None), table(5, Some("t4"))], &[4], &[]),
        Told::Message(commit(100)),
    ];
    let tail = copied(&[1, 2]);
    let whole = told(&tail, &script);
    let stale = whole.iter().filter_map(|record| match record {
        Record::Schema(schema) => Some(schema.stale.iter().map(|id| id.0).collect()),
        _ => None,
    });
    let stale: Vec<Vec<u32>> = stale.collect();
    assert_eq!(stale, [vec![1], vec![1], vec![], vec![4]]);
    // Another session says the same of it, wherever the one before was cut.
    for cut in 0..whole.len() {
        let mut held = tail.clone();
        observe(&mut held, &whole[..cut]);
        assert_eq!(told(&held, &script), whole[cut..], "cut behind {cut} records");
    }
}

#[test]
fn one_that_is_told_of_for_its_heirs_may_not_be_captured_and_is_not_stale() {
    let mut heir = table(2, None);
    let Body::Table(body) = &mut heir.body else { panic!("it is a table") };
    body.inherits.push(("public".to_owned(), "t1".to_owned()));
    let tables = vec![table(1, None), heir];
    let script = [Told::Message(begin(100)), Told::Schema { tables, stale: &[], born: &[] }];
    let out = told(&copied(&[3]), &script);
    let Record::Schema(schema) = &out[1] else { panic!("{out:?}") };
    assert_eq!(schema.stale, [RelationId(2)]);
}

#[test]
fn what_became_stale_in_a_foreign_transaction_stays_of_it() {
    let origin = Message::Origin { name: "thinwire_x".to_owned() };
    let script = [
        Told::Message(begin(100)),
        Told::Message(origin),
        Told::Schema { tables: vec![table(1, None)], stale: &[1], born: &[] },
        Told::Message(commit(100)),
    ];
    let out = told(&copied(&[1, 2]), &script);
    let definitions = Definitions::default().encode();
    let left = Schema { born: vec![], stale: vec![RelationId(1)], definitions };
    assert_eq!(out[1..], [Record::Schema(left), Record::Commit { end: Lsn::new(105) }]);
}
