//! A row that several unique indexes refuse: the halt names each of them and the row that it has in the way.

use thinwire_engine::model::{Halt, Record};

use crate::{
    database::Database,
    feed::Table,
    halts::{expect, halts},
};

const MULTIPLE: &str = "multiple_unique_conflicts";

fn table() -> Table {
    Table::new(1, "public.t", &["id*", "a", "b"])
}

async fn refused(sql: &str, record: Record) -> Halt {
    let t = table();
    halts(sql, &t, &[record], "truncate t", true).await
}

fn names(halt: &Halt, indexes: &[&str]) {
    for index in indexes {
        assert!(halt.detail.contains(index), "{index}: {halt:?}");
    }
}

#[tokio::test]
async fn an_insert_names_every_unique_index_in_the_way_and_no_value_of_it() {
    // PostgreSQL: 035_conflicts 1
    let sql = "create table t (id int primary key, a text unique, b int unique);
        insert into t values (1, 'x', null), (2, 'y', 7), (3, 'z', 8)";
    let halt = refused(sql, table().insert("1|y|8")).await;
    expect(&halt, MULTIPLE, 9, "public.t", Some("id=1"));
    names(
        &halt,
        &[
            "3 unique indexes",
            "t_pkey (id) has the row id=1",
            "t_a_key (a) has the row id=2",
            "t_b_key (b) has the row id=3",
        ],
    );
    for value in ["=y", "=8"] {
        assert!(!halt.detail.contains(value), "{halt:?}");
    }
    // Nulls are equal where an index says so, from PostgreSQL 15 on.
    let version = Database::bare(Database::shared(), "").sql("show server_version_num");
    if version.parse::<u32>().unwrap() < 150_000 {
        return;
    }
    let sql = sql.replace("b int unique", "b int, unique nulls not distinct (b)");
    let halt = refused(&sql, table().insert("1|fine|~")).await;
    expect(&halt, MULTIPLE, 9, "public.t", Some("id=1"));
    names(&halt, &["2 unique indexes", "t_pkey (id)", "t_b_key (b) has the row id=1"]);
}

#[tokio::test]
async fn an_update_names_every_unique_index_in_the_way_but_not_its_own_row() {
    // PostgreSQL: 035_conflicts 2
    let sql = "create table t (id int primary key, a text unique, b int unique);
        insert into t values (1, 'x', 6), (2, 'y', 7), (3, 'z', 8)";
    let change = table().update_key("1|~|~", "2|?|8");
    let halt = halts(sql, &table(), &[change], "delete from t where id > 1", true).await;
    expect(&halt, MULTIPLE, 9, "public.t", Some("id=1"));
    names(
        &halt,
        &["2 unique indexes", "t_pkey (id) has the row id=2", "t_b_key (b) has the row id=3"],
    );
    assert!(!halt.detail.contains("t_a_key"), "{halt:?}");
    // One alone is of another kind, and named with its row as well.
    let halt =
        halts(sql, &table(), &[table().update("1|?|8")], "delete from t where id = 3", true).await;
    expect(&halt, "update_exists", 9, "public.t", Some("id=1"));
    names(&halt, &["t_b_key (b) has the row id=3"]);
}

#[tokio::test]
async fn an_insert_into_a_partition_names_every_unique_index_of_the_partition() {
    // PostgreSQL: 035_conflicts 3
    let sql = "create table t (id int primary key, a text, b int) partition by range (id);
        create table t_low partition of t for values from (0) to (100);
        create table t_high (b int, a text, id int not null);
        alter table t attach partition t_high for values from (100) to (200);
        create unique index high_a on t_high (lower(a)); create unique index high_b on t_high (b) where b > 0;
        insert into t values (1, 'x', 6), (102, 'Y', 7), (103, 'z', 8)";
    let halt = refused(sql, table().insert("102|y|8")).await;
    expect(&halt, MULTIPLE, 9, "public.t_high", Some("id=102"));
    names(
        &halt,
        &[
            "3 unique indexes",
            "t_high_pkey (id) has the row id=102",
            "high_a (lower(a)) has the row id=102",
            "high_b (b) has the row id=103",
        ],
    );
    // What is in another partition, or outside of an index, is in nobody's way.
    let sql = &sql.replace("'Y', 7", "'x', -8");
    let halt = refused(sql, table().insert("102|X|-8")).await;
    names(&halt, &["2 unique indexes", "t_high_pkey", "high_a"]);
}

#[tokio::test]
async fn what_the_target_computes_is_compared_as_well() {
    let sql = "create table t (id int primary key, a text collate \"C\", b int,
            twice int generated always as (b * 2) stored unique, more int default 5, unique (a));
        insert into t values (1, 'x', 6), (2, 'y', 7)";
    let halt = refused(sql, table().insert("9|x|7")).await;
    expect(&halt, MULTIPLE, 9, "public.t", Some("id=9"));
    names(&halt, &["t_a_key (a) has the row id=1", "t_twice_key (twice) has the row id=2"]);
}
