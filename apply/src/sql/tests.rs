//! The texts, and that no name gets out of its quotes.

use thinwire_cluster::names;
use thinwire_engine::model::{OldRow, ReplicaIdentity};

use super::*;
use crate::plan::{
    self, Unique,
    tests::{row, table},
};

fn keyed() -> Table {
    let mut table = table(&["id*", "a"], ReplicaIdentity::Default);
    table.unique = vec![Unique { name: "k".into(), primary: true, columns: vec!["id".into()] }];
    table
}

#[test]
fn rows_are_added_in_one_statement() {
    let shape = |rows, existing| Shape::Insert { rows, existing };
    assert_eq!(
        statement(&keyed(), &shape(2, OnExisting::Fail)),
        r#"INSERT INTO "public"."t" ("id", "a") OVERRIDING SYSTEM VALUE VALUES ($1, $2), ($3, $4)"#
    );
    assert!(
        statement(&keyed(), &shape(1, OnExisting::Overwrite))
            .ends_with(r#" ON CONFLICT ("id") DO UPDATE SET "a" = EXCLUDED."a""#)
    );
    assert!(statement(&keyed(), &shape(1, OnExisting::Keep)).ends_with(" ON CONFLICT DO NOTHING"));
    let none = table(&[], ReplicaIdentity::Full);
    assert_eq!(
        statement(&none, &shape(1, OnExisting::Fail)),
        r#"INSERT INTO "public"."t" DEFAULT VALUES"#
    );
}

#[test]
fn a_row_is_found_by_its_key_with_an_operator_that_an_index_knows() {
    let planned = plan::update(&keyed(), None, &row("1 x")).unwrap().unwrap();
    assert_eq!(
        statement(&keyed(), &planned.shape),
        r#"UPDATE ONLY "public"."t" SET "id" = $1, "a" = $2 WHERE "id" OPERATOR("pg_catalog".=) $3"#
    );
    let planned = plan::delete(&keyed(), &OldRow::Key(row("1 ~"))).unwrap();
    assert_eq!(
        statement(&keyed(), &planned.shape),
        r#"DELETE FROM ONLY "public"."t" WHERE "id" OPERATOR("pg_catalog".=) $1"#
    );
}

#[test]
fn one_of_equal_rows_is_found_by_its_place() {
    let mut keyless = table(&["a", "j~", "n"], ReplicaIdentity::Full);
    let planned = plan::delete(&keyless, &OldRow::Full(row("1 {} ~"))).unwrap();
    assert_eq!(
        statement(&keyless, &planned.shape),
        "DELETE FROM ONLY \"public\".\"t\" WHERE ctid OPERATOR(pg_catalog.=) (SELECT ctid FROM ONLY \"public\".\"t\" WHERE \
         \"a\" OPERATOR(\"pg_catalog\".=) $1 AND \"j\" IS DISTINCT FROM NULL AND \
         pg_catalog.format('%s', \"j\") OPERATOR(pg_catalog.=) $2 AND \"n\" IS NOT DISTINCT FROM NULL LIMIT 1)"
    );
    keyless.partitioned = true;
    let text = statement(&keyless, &planned.shape);
    assert!(text.contains(
        "(tableoid, ctid) OPERATOR(pg_catalog.=) (SELECT tableoid, ctid FROM \"public\".\"t\""
    ));
    assert!(!text.contains("ONLY"));
}

#[test]
fn of_equal_rows_the_one_that_looks_the_same_is_meant() {
    let keyless = table(&["a", "n^", "j~", "m^", "o^"], ReplicaIdentity::Full);
    let planned = plan::delete(&keyless, &OldRow::Full(row("1 1.0 {} ~ 2"))).unwrap();
    let text = statement(&keyless, &planned.shape);
    let order = " ORDER BY \
         pg_catalog.format('%s', \"n\") COLLATE pg_catalog.\"C\" OPERATOR(pg_catalog.=) pg_catalog.format('%s', $2) AND \
         pg_catalog.format('%s', \"o\") COLLATE pg_catalog.\"C\" OPERATOR(pg_catalog.=) pg_catalog.format('%s', $4) DESC LIMIT 1)";
    assert!(text.ends_with(order), "{text}");
    // Where the key is unique, there is but one.
    let keyed = table(&["n^*"], ReplicaIdentity::Default);
    let planned = plan::delete(&keyed, &OldRow::Key(row("1.0"))).unwrap();
    assert!(!statement(&keyed, &planned.shape).contains("ORDER BY"));
}

#[test]
fn a_row_is_made_anew_with_all_that_it_had() {
    let identity = table(&["id*!", "a"], ReplicaIdentity::Default);
    let old = OldRow::Key(row("1 ~"));
    let planned = plan::update(&identity, Some(&old), &row("2 ?")).unwrap().unwrap();
    assert_eq!(
        statement(&identity, &planned.shape),
        "WITH gone AS (DELETE FROM ONLY \"public\".\"t\" WHERE \"id\" OPERATOR(\"pg_catalog\".=) $2 RETURNING *) \
         INSERT INTO \"public\".\"t\" (\"id\", \"a\", \"extra\") OVERRIDING SYSTEM VALUE \
         SELECT $1, gone.\"a\", gone.\"extra\" FROM gone"
    );
}

#[test]
fn rows_are_copied_as_text_or_in_binary() {
    let copy = "COPY \"public\".\"t\" (\"id\", \"a\") FROM STDIN";
    assert_eq!(statement(&keyed(), &Shape::Copy), copy);
    assert_eq!(statement(&keyed(), &Shape::CopyBinary), format!("{copy} (FORMAT binary)"));
}

#[test]
fn staged_rows_are_merged_by_the_key() {
    assert_eq!(
        merge_stage(&keyed()),
        "INSERT INTO \"public\".\"t\" (\"id\", \"a\") OVERRIDING SYSTEM VALUE \
         SELECT \"id\", \"a\" FROM pg_temp.thinwire_stage \
         ON CONFLICT (\"id\") DO UPDATE SET \"a\" = EXCLUDED.\"a\""
    );
}

#[test]
fn no_name_gets_out_of_its_quotes() {
    for name in ["\"", "a\"; drop table x; --", "$1", "a'b", "\\", "\n", "ü€𝄞", "select", ""]
    {
        let quoted = ident(name);
        let inner = quoted.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
        assert_eq!(inner.replace("\"\"", ""), name.replace('"', ""), "{name}");
        assert_eq!(inner.matches('"').count() % 2, 0, "{name}");
        assert_eq!(inner.replace("\"\"", "\""), name);
    }
    assert_eq!(literal("a'b"), "'a''b'");
    assert_eq!(literal("a\\'b"), r"E'a\\''b'");
    assert_eq!(qualified("a.b", "c"), r#""a.b"."c""#);
}

#[test]
fn any_name_is_one_token_whatever_backslashes_mean() {
    let seed = 5;
    for (at, name) in names::any(seed).take(100_000).enumerate() {
        for is_standard in [true, false] {
            for text in [ident(&name), literal(&name)] {
                let read = names::unquoted(&text, is_standard);
                assert_eq!(read.as_ref(), Some(&name), "seed {seed}, name {at}: {text}");
            }
        }
    }
}

#[test]
fn any_name_is_read_as_it_is_by_a_server() {
    let cluster = thinwire_cluster::Cluster::start(Default::default()).unwrap();
    let seed = 6;
    let all: Vec<String> = names::any(seed).take(5_000).collect();
    for is_standard in [true, false] {
        let read = names::read_back(&cluster, &all, is_standard, ident, literal);
        assert_eq!(read.unwrap(), all.len(), "seed {seed}, standard strings {is_standard}");
    }
}
