//! What is set and how rows are found, case by case.

use bytes::Bytes;
use thinwire_engine::model::{self, RelationId};

use super::*;

/// A table with columns such as `id*`, where a star marks a key column and a `!` an identity column that is GENERATED
/// ALWAYS, a `~` one without equality, and a `^` one whose equal values may look different.
pub(crate) fn table(columns: &[&str], identity: ReplicaIdentity) -> Table {
    let name = |column: &str| column.trim_end_matches(['*', '!', '~', '^']).to_owned();
    Table {
        relation: Arc::new(Relation {
            id: RelationId(1),
            schema: "public".into(),
            name: "t".into(),
            identity,
            columns: columns
                .iter()
                .map(|column| model::Column {
                    name: name(column),
                    key: column.contains('*') || identity == ReplicaIdentity::Full,
                    type_oid: 25,
                    type_modifier: -1,
                })
                .collect(),
        }),
        columns: columns
            .iter()
            .map(|column| Column {
                equality: match column.contains('~') {
                    true => Equality::Text,
                    false => Equality::Operator {
                        schema: "pg_catalog".into(),
                        is_identity: !column.contains('^'),
                    },
                },
                identity_always: column.contains('!'),
                many: match column.contains('~') {
                    true => Many::Texts("pg_catalog".into(), "_json".into()),
                    false => Many::Array("pg_catalog".into(), "_text".into()),
                },
                type_oid: 25,
            })
            .collect(),
        extra: vec!["extra".into()],
        partitioned: false,
        unique: Vec::new(),
        is_independent: true,
        exclusions: 0,
    }
}

/// Values between spaces; `~` is null and `?` unchanged.
pub(crate) fn row(text: &str) -> Row {
    let value = |text: &str| match text {
        "~" => Value::Null,
        "?" => Value::Unchanged,
        text => Value::Bytes(Bytes::copy_from_slice(text.as_bytes())),
    };
    Row(text.split(' ').map(value).collect())
}

fn params(text: &str) -> Vec<Value> {
    row(text).0
}

fn find(conditions: &str, one: bool) -> Find {
    let condition = |letter| match letter {
        '=' => Condition::Equal,
        '0' => Condition::Null,
        _ => Condition::Any,
    };
    Find { conditions: conditions.chars().map(condition).collect(), one }
}

fn set(columns: &str) -> Columns {
    columns.chars().map(|letter| letter == 'x').collect()
}

#[test]
fn an_update_sets_what_was_sent_and_finds_by_the_new_key_if_that_is_the_old() {
    let t = table(&["id*", "a", "b"], ReplicaIdentity::Default);
    let planned = update(&t, None, &row("1 x ?")).unwrap().unwrap();
    let shape = Shape::Update { set: set("xx."), find: find("=..", false) };
    assert_eq!(planned, Planned { shape, params: params("1 x 1") });
}

#[test]
fn an_update_of_the_key_finds_by_the_old() {
    let t = table(&["id*", "a", "b*"], ReplicaIdentity::Index);
    let old = OldRow::Key(row("1 ~ 2"));
    let planned = update(&t, Some(&old), &row("7 ~ 8")).unwrap().unwrap();
    let shape = Shape::Update { set: set("xxx"), find: find("=.=", false) };
    assert_eq!(planned, Planned { shape, params: params("7 ~ 8 1 2") });
}

#[test]
fn a_full_old_row_means_one_row_equal_in_all_that_was_sent() {
    let t = table(&["a", "b", "c"], ReplicaIdentity::Full);
    let old = OldRow::Full(row("1 ~ ?"));
    let planned = update(&t, Some(&old), &row("2 x ?")).unwrap().unwrap();
    let shape = Shape::Update { set: set("xx."), find: find("=0.", true) };
    assert_eq!(planned, Planned { shape, params: params("2 x 1") });
    let planned = delete(&t, &old).unwrap();
    assert_eq!(
        planned,
        Planned { shape: Shape::Delete { find: find("=0.", true) }, params: params("1") }
    );
}

#[test]
fn an_identity_column_that_keeps_its_value_is_not_set() {
    let t = table(&["id*!", "a"], ReplicaIdentity::Default);
    let planned = update(&t, None, &row("1 x")).unwrap().unwrap();
    let shape = Shape::Update { set: set(".x"), find: find("=.", false) };
    assert_eq!(planned, Planned { shape, params: params("x 1") });
    // With nothing left to set there is nothing to do.
    assert_eq!(update(&t, None, &row("1 ?")), Ok(None));
}

#[test]
fn an_identity_column_that_changes_or_may_have_makes_a_row_anew() {
    let key = table(&["id*!", "a"], ReplicaIdentity::Default);
    let old = OldRow::Key(row("1 ~"));
    let planned = update(&key, Some(&old), &row("2 ?")).unwrap().unwrap();
    let shape = Shape::Replace { set: set("x."), find: find("=.", false) };
    assert_eq!(planned, Planned { shape, params: params("2 1") });

    let other = table(&["id*", "n!"], ReplicaIdentity::Default);
    let planned = update(&other, None, &row("1 5")).unwrap().unwrap();
    assert!(matches!(planned.shape, Shape::Replace { .. }));

    let full = table(&["id", "n!"], ReplicaIdentity::Full);
    let old = OldRow::Full(row("1 5"));
    let same = update(&full, Some(&old), &row("2 5")).unwrap().unwrap();
    assert_eq!(same.shape, Shape::Update { set: set("x."), find: find("==", true) });
    let changed = update(&full, Some(&old), &row("2 6")).unwrap().unwrap();
    assert_eq!(changed.shape, Shape::Replace { set: set("xx"), find: find("==", true) });
}

#[test]
fn what_no_source_would_send_is_refused() {
    let t = table(&["id*", "a"], ReplicaIdentity::Default);
    let keyless = table(&["id", "a"], ReplicaIdentity::Default);
    assert!(insert(vec![row("1 ?")], OnExisting::Fail).is_err());
    assert!(update(&t, None, &row("? x")).is_err());
    assert!(update(&keyless, None, &row("1 x")).is_err());
    assert!(delete(&keyless, &OldRow::Key(row("1 x"))).is_err());
}

#[test]
fn a_probe_looks_where_the_change_would_have_been() {
    let t = table(&["id*", "a"], ReplicaIdentity::Default);
    let planned = update(&t, None, &row("1 x")).unwrap().unwrap();
    let expected = Planned { shape: Shape::Find { find: find("=.", false) }, params: params("1") };
    assert_eq!(probe(&planned), Some(expected.clone()));
    assert_eq!(probe(&delete(&t, &OldRow::Key(row("1 ~"))).unwrap()), Some(expected));
    assert_eq!(probe(&insert(vec![row("1 x")], OnExisting::Fail).unwrap()), None);
}

#[test]
fn a_row_is_identified_by_the_sources_key_else_by_the_targets() {
    let unique = |columns: &[&str]| Unique {
        name: columns.join("_"),
        primary: false,
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
    };
    let mut t = table(&["id*", "a", "b*"], ReplicaIdentity::Default);
    assert_eq!(t.identity(), None);
    t.unique = vec![unique(&["elsewhere"]), unique(&["a"]), unique(&["b", "id"])];
    assert_eq!(t.identity(), Some(vec![2, 0]));
    assert_eq!(t.named_by(), [0, 2]);
    let mut full = table(&["id", "a"], ReplicaIdentity::Full);
    assert_eq!((full.key(), full.named_by()), (vec![], vec![]));
    full.unique = vec![unique(&["a"])];
    assert_eq!((full.identity(), full.named_by()), (Some(vec![1]), vec![1]));
}
