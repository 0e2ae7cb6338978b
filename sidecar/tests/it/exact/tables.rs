//! Tables of every shape: keys, identities, partitions, names, and targets that are not like their source.

use std::time::Duration;

use thinwire_cluster::Options;

use super::{
    Ends, FENCE, PATIENCE, catch_up, copied, equal, halt_of, pair_of, pair_of_all, pair_on, start,
};
use crate::site::{APPLY, DB, Pair, Site, lively, wait_for};

/// Tables whose rows are told apart in every way there is.
pub(super) const KEYS: &str = r#"
    create table pair_key (a int, b text, v text, primary key (b, a));
    create table text_key (k text primary key, v text);
    create table uuid_key (k uuid primary key default gen_random_uuid(), v text);
    create table include_key (k int, i int, v text, primary key (k) include (i));
    create table index_key (k int not null, v text, also int not null);
    create unique index index_key_idx on index_key (also, k);
    alter table index_key replica identity using index index_key_idx;
    create table deferred_key (k int primary key deferrable initially deferred, v text);
    create table full_key (k int primary key, v text, n numeric);
    alter table full_key replica identity full;
    create table no_key (k int, v text, n numeric, j json);
    create table one_column (k int);
    create table no_columns ();
    create table wide_key (k text primary key, v text);
    create table expression_key (k int, v text);
    create unique index expression_key_idx on expression_key (lower(v));
    create function double(int) returns int language sql immutable as 'select $1 * 2';
    create unique index partial_key_idx on expression_key (k) where k > double(0);
    create table hash_index (k int, v text);
    create index hash_index_idx on hash_index using hash (v);
    -- A type without a binary form, and without an order.
    create type plain;
    create function plain_in(cstring) returns plain language internal immutable strict as 'textin';
    create function plain_out(plain) returns cstring language internal immutable strict as 'textout';
    create type plain (input = plain_in, output = plain_out);
    create table own_type (k int primary key, v plain);
    create table own_type_only (v plain);
    create table mixed_index (k int, v text);
    create index mixed_index_idx on mixed_index (v, k, (v || '!'));
    alter table hash_index replica identity full;
"#;

/// What is in them at first.
const KEYED_ROWS: &str = "
    insert into pair_key select i, 'b' || i % 3, 'v' from generate_series(1, 20) i;
    insert into text_key values ('', 'empty'), (' ', 'blank'), ('ä', 'x'), (E'a\\nb', 'y');
    insert into uuid_key (v) select i from generate_series(1, 5) i;
    insert into include_key select i, i, 'v' from generate_series(1, 5) i;
    insert into index_key select i, 'v', -i from generate_series(1, 5) i;
    insert into deferred_key select i, 'v' from generate_series(1, 5) i;
    insert into full_key select i, 'v', 1.0 from generate_series(1, 5) i;
    insert into no_key select 1, 'same', 1.0, '{}' from generate_series(1, 5);
    insert into no_key values (1, 'same', 1.00, '{}'), (1, 'same', 1.0, '{ }'), (null, null, null, null);
    insert into one_column values (1), (1), (null), (null);
    insert into no_columns default values; insert into no_columns default values;
    insert into wide_key select repeat(chr(96 + i), 2000), 'v' from generate_series(1, 5) i;
    insert into expression_key values (1, 'A'), (2, 'b'), (-1, 'c'), (-1, 'd');
    insert into hash_index select i % 2, 'v' || i % 3 from generate_series(1, 12) i;
    insert into mixed_index select i % 4, 'v' || i % 3 from generate_series(1, 12) i;
    insert into own_type values (1, 'a b'), (2, ''), (3, null); insert into own_type_only values ('a'), ('a'), ('b'), (null)";

#[test]
fn rows_are_told_apart_by_keys_of_every_kind() {
    keys(&mut pair_of(KEYS, KEYS));
}

/// The same wherever it is.
pub(super) fn keys(ends: &mut impl Ends) {
    let tables = [
        "pair_key",
        "text_key",
        "uuid_key",
        "include_key",
        "index_key",
        "deferred_key",
        "full_key",
        "no_key",
        "one_column",
        "no_columns",
        "wide_key",
        "expression_key",
        "hash_index",
        "mixed_index",
        "own_type",
        "own_type_only",
    ];
    ends.source().sql(KEYED_ROWS);
    start(ends);
    // PostgreSQL: 100_bugs 6
    equal(ends, &tables, "copied");
    ends.source().sql(
        "begin;
         update pair_key set a = a + 100, b = 'moved' where a <= 3; update pair_key set v = null where a > 15;
         update text_key set k = k || '!', v = 'changed'; delete from text_key where k = ' !';
         update uuid_key set k = gen_random_uuid(); delete from uuid_key where v = '1';
         update include_key set i = i * 10; update include_key set k = -k where k < 3;
         update index_key set also = also - 100, v = 'w' where k < 3; update index_key set v = 'x' where k = 4;
         delete from index_key where k = 5;
         update deferred_key set k = k + 1; delete from deferred_key where k = 6;
         update full_key set k = 6 - k + 10, v = null where k < 3; delete from full_key where k = 5;
         delete from no_key where ctid = (select min(ctid) from no_key);
         update no_key set v = 'other' where ctid = (select min(ctid) from no_key);
         update no_key set k = 2 where n::text = '1.00'; update no_key set k = 3 where j::text = '{ }';
         update no_key set v = 'was null' where k is null;
         delete from one_column where ctid = (select min(ctid) from one_column where k is null);
         update one_column set k = 2 where ctid = (select max(ctid) from one_column where k = 1);
         insert into no_columns default values;
         update wide_key set k = reverse(k) || 'z', v = 'w' where k like 'a%'; delete from wide_key where k like 'b%';
         update expression_key set v = upper(v) where k = -1; delete from expression_key where v = 'D';
         update hash_index set k = null where ctid = (select min(ctid) from hash_index);
         delete from hash_index where ctid = (select max(ctid) from hash_index where k = 1);
         update mixed_index set v = null where v = 'v1'; delete from mixed_index where k = 2;
         update own_type set v = 'c' where k = 1; update own_type set k = 4 where k = 2;
         update own_type_only set v = 'c' where ctid = (select min(ctid) from own_type_only);
         delete from own_type_only where v is null;
         commit",
    );
    // Two rows exchange their keys, by way of a third.
    ends.source().sql(
        "begin; update text_key set k = 'third' where k = '!'; update text_key set k = '!' where k = 'ä!';
         update text_key set k = 'ä!' where k = 'third'; commit;
         delete from no_columns where ctid = (select min(ctid) from no_columns)",
    );
    // PostgreSQL: 001_rep_changes 4, 7-9, 14, 15, 17
    // PostgreSQL: 032_subscribe_use_index 1, 2, 7-10, 13-15
    // PostgreSQL: 100_bugs 1
    equal(ends, &tables, "streamed");
    for target in ends.targets() {
        assert_eq!(target.sql("select count(*) from no_columns"), "2");
        assert_eq!(target.sql("select count(*) from no_key where v = 'same'"), "5");
    }
}

/// A name for everything that quoting could get wrong, each at most 63 bytes.
fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "select",
        "MixedCase",
        "with space",
        "quo\"te",
        "apo'strophe",
        "back\\slash",
        "$$dollar$$",
        "new\nline",
        "tab\t",
        "ünïcödé",
        "漢字🦀",
        "dot.ted",
        "star*",
        "100%s",
        "\"); drop table canary; --",
        "{brace}",
    ]
    .map(str::to_owned)
    .into();
    names.push("x".repeat(63));
    names.push("é".repeat(31));
    names
}

fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[test]
fn names_of_every_kind_are_names_at_both_ends() {
    let mut schema = "create table public.canary (n int primary key);".to_owned();
    let (mut tables, names) = (Vec::new(), names());
    for (at, name) in names.iter().enumerate() {
        let beyond = |count: usize| ident(&names[(at + count) % names.len()]);
        let (table, key, other, kind) = (ident(name), beyond(1), beyond(5), beyond(9));
        let label = name.replace('\'', "''");
        schema += &format!(
            "create schema {table}; create type {table}.{kind} as enum ('{label}', 'b');
             create table {table}.{table} ({key} int primary key, {other} {table}.{kind}, c text);
             create table {table}.{other} ({key} int, {other} text);\n"
        );
        tables.push((at, format!("{table}.{table}")));
        tables.push((at, format!("{table}.{other}")));
    }
    let mut pair = pair_of_all(&schema);
    let write = |pair: &Pair, key: usize| {
        let mut sql = String::new();
        for (at, table) in &tables {
            let value = names[*at].replace('\'', "''");
            sql += &format!("insert into {table} values ({key}, '{value}');\n");
        }
        pair.source.sql(&sql);
    };
    let only: Vec<&str> = tables.iter().map(|(_, table)| table.as_str()).collect();
    write(&pair, 1);
    write(&pair, 2);
    start(&mut pair);
    // PostgreSQL: 025_rep_changes_for_schema 1, 2
    equal(&pair, &only, "copied");
    write(&pair, 3);
    let mut sql = String::new();
    for (at, table) in &tables {
        let key = ident(&names[(at + 1) % names.len()]);
        let other = ident(&names[(at + 5) % names.len()]);
        sql += &format!("update {table} set {key} = 10, {other} = 'b' where {key} = 1;\n");
        sql += &format!("delete from {table} where {key} = 2;\n");
    }
    pair.source.sql(&sql);
    // PostgreSQL: 025_rep_changes_for_schema 4
    equal(&pair, &only, "streamed");
    pair.source.sql(&format!("truncate {}", only.join(", ")));
    equal(&pair, &only, "truncated");
    assert_eq!(pair.target.sql("select count(*) from public.canary"), "0");
}

#[test]
fn what_is_not_logged_or_no_table_is_left_alone() {
    let schema = "create table t (id int primary key, v text);
         create unlogged table scratch (id int primary key);
         create view v as select * from t; create materialized view m as select * from t;
         create table parent (id int primary key, v text); create table child (more text) inherits (parent);
         create table unwanted (id int primary key, v text);
         create sequence s;
         create rule redirect as on insert to v do instead insert into t values (new.id, new.v);";
    let mut pair = pair_of_all(schema);
    pair.source.sql(
        "insert into t values (1, 'a'); refresh materialized view m; insert into scratch values (1);
         insert into parent values (1, 'p'); insert into child values (1, 'c', 'more');
         insert into unwanted values (1, 'u')",
    );
    start(&mut pair);
    let tables = ["t", "parent"];
    equal(&pair, &tables, "copied");
    pair.source.sql(
        "begin; create temporary table mine (id int primary key); insert into mine values (1); update mine set id = 2;
         insert into scratch values (2); refresh materialized view m; select nextval('s');
         insert into v values (2, 'through the view'); insert into unwanted values (2, 'u'); commit;
         update parent set v = v || '!'; update child set more = more || '?'; insert into child values (2, 'd', 'e');
         delete from parent where id = 1; create table later (id int primary key); insert into later values (1);
         drop materialized view m; drop view v; drop table scratch",
    );
    // PostgreSQL: 100_bugs 2, 3
    equal(&pair, &tables, "streamed");
    assert_eq!(pair.target.sql("select count(*) from only parent"), "0");
    assert_eq!(pair.target.sql("select id, v, more from child"), "2|d|e");
    // PostgreSQL: 001_rep_changes 1, 28
    assert_eq!(pair.target.sql("select count(*) from unwanted"), "0");
    assert_eq!(pair.target.sql("select count(*) from scratch"), "0");
}

#[test]
fn the_target_may_have_other_columns_orders_types_and_defaults() {
    let mut pair = pair_of(
        "create table t (gone int, id int primary key, a varchar(20), n int, f real, d date);
         alter table t drop column gone;
         create table full_t (a int, gone text default 'x', b text); alter table full_t drop column gone;
         create table g (id int primary key, v int);
         create table w (id int primary key, e text); create table h (a int, v text)",
        "create type e as enum ('one', 'two');
         create table t (extra timestamptz default now(), n bigint, a text, gone int, note text default 'here',
             id bigint primary key, d timestamp, f double precision, row_id bigint generated always as identity,
             twice bigint generated always as (id * 2) stored);
         alter table t drop column gone;
         create table full_t (more int default 7, b varchar, a numeric(10,2));
         create table g (v int, id int primary key, serial serial);
         create table w (id smallint primary key, e e);
         create table h (a int, own serial primary key, v text)",
    );
    pair.source.sql(
        "insert into t select i, 'a' || i, i, i / 4.0, date '2024-01-01' + i from generate_series(1, 5) i;
         insert into full_t values (1, 'x'), (1, 'x'), (2, null);
         insert into g select i, i from generate_series(1, 3) i; insert into w values (1, 'one')",
    );
    start(&mut pair);
    let all = "select id, a, n, f, d, note, twice from t order by id";
    // PostgreSQL: 008_diff_schema 1, 2
    // PostgreSQL: 011_generated 1
    // PostgreSQL: 014_binary 8
    assert_eq!(
        pair.target.sql(&format!("{all} limit 2")),
        "1|a1|1|0.25|2024-01-02 00:00:00|here|2\n2|a2|2|0.5|2024-01-03 00:00:00|here|4"
    );
    pair.target.sql("update t set note = 'kept'");
    pair.source.sql(
        "update t set id = 10, n = null where id = 1; update t set a = 'changed' where id = 2; delete from t where id = 3;
         insert into t values (6, 'new', 6, 6, '2024-06-06');
         update full_t set b = 'y' where ctid = (select min(ctid) from full_t where a = 1);
         delete from full_t where b is null; update g set v = v * 10; update w set e = 'two';
         insert into h values (1, 'a'), (2, 'b'), (3, 'c'); update h set v = 'd' where a = 2; delete from h where a = 1",
    );
    catch_up(&pair, "streamed");
    // PostgreSQL: 001_rep_changes 5, 16
    // PostgreSQL: 008_diff_schema 3, 4
    // PostgreSQL: 011_generated 2
    // PostgreSQL: 015_stream 4
    assert_eq!(
        pair.target.sql(all),
        "2|changed|2|0.5|2024-01-03 00:00:00|kept|4\n4|a4|4|1|2024-01-05 00:00:00|kept|8\n\
         5|a5|5|1.25|2024-01-06 00:00:00|kept|10\n6|new|6|6|2024-06-06 00:00:00|here|12\n\
         10|a1||0.25|2024-01-02 00:00:00|kept|20"
    );
    // PostgreSQL: 032_subscribe_use_index 11, 12
    assert_eq!(pair.target.sql("select a, b, more from full_t order by b"), "1.00|x|7\n1.00|y|7");
    assert_eq!(
        pair.target.sql("select id, v, serial from g order by id"),
        "1|10|1\n2|20|2\n3|30|3"
    );
    assert_eq!(pair.target.sql("select * from w"), "1|two");
    // PostgreSQL: 008_diff_schema 5
    assert_eq!(pair.target.sql("select a, v from h order by a"), "2|d\n3|c");
    assert_eq!(pair.target.sql("select count(distinct row_id) from t"), "5");
    // A value that the target's type does not take halts, and goes on once it does.
    pair.source.sql("update w set e = 'three'");
    let (code, detail) = halt_of(&pair.target);
    assert!(code == "bad_value" && detail.contains("enum"), "{code}: {detail}");
    pair.target.sql("alter type e add value 'three'");
    pair.target.node.run(&["retry"]).unwrap();
    catch_up(&pair, "mended");
    assert_eq!(pair.target.sql("select * from w"), "1|three");
}

const PARTITIONED: &str = "
    create table by_list (id int, region text, v text, primary key (id, region)) partition by list (region);
    create table to_plain (id int primary key, v text) partition by range (id);
    create table keyless (region text, v text) partition by list (region);
    create table keyless_a partition of keyless for values in ('a');
    create table keyless_b (v text, gone int, region text); alter table keyless_b drop column gone;
    alter table keyless attach partition keyless_b default;
    create table to_plain_1 partition of to_plain for values from (minvalue) to (100);
    create table to_plain_2 (gone int, v text, id int not null); alter table to_plain_2 drop column gone;
    alter table to_plain attach partition to_plain_2 for values from (100) to (maxvalue);
    create table by_list_a partition of by_list for values in ('a');
    create table by_list_b (v text, region text not null, id int not null);
    alter table by_list attach partition by_list_b for values in ('b');
    create table by_list_rest partition of by_list default partition by hash (id);
    create table by_list_rest_0 partition of by_list_rest for values with (modulus 2, remainder 0);
    create table by_list_rest_1 partition of by_list_rest for values with (modulus 2, remainder 1);
    create table to_partitions (id int primary key, v text);";

#[test]
fn partitions_may_be_cut_in_any_way_at_either_end() {
    partitions(<[Options; 2]>::default());
}

/// The same on servers of some kind.
pub(super) fn partitions(options: [Options; 2]) {
    let target = "
        create table by_list (region text, v text, id int, primary key (region, id)) partition by hash (id, region);
        create table by_list_0 partition of by_list for values with (modulus 2, remainder 0);
        create table by_list_1 (id int not null, v text, region text not null);
        alter table by_list attach partition by_list_1 for values with (modulus 2, remainder 1);
        create table to_plain (v text, id int primary key);
        create table keyless (v text, region text);
        create table to_partitions (v text, id int primary key) partition by list (id);
        create table to_partitions_7 partition of to_partitions for values in (7);
        create table to_partitions_rest partition of to_partitions default;";
    let mut pair = pair_on(options, PARTITIONED, target);
    let tables = ["by_list", "to_plain", "keyless", "to_partitions"];
    pair.source.sql(
        "insert into by_list select i, substr('abcd', i % 4 + 1, 1), 'v' from generate_series(1, 40) i;
         insert into to_plain select i * 10, 'v' from generate_series(1, 20) i;
         insert into keyless select substr('abc', i % 3 + 1, 1), 'v' from generate_series(1, 12) i;
         insert into to_partitions select i, 'v' from generate_series(1, 10) i",
    );
    start(&mut pair);
    // PostgreSQL: 013_partition 32, 33
    // PostgreSQL: 025_rep_changes_for_schema 3
    equal(&pair, &tables, "copied");
    pair.source.sql(
        "begin; update by_list set region = 'b' where region = 'a' and id < 20; commit;
         update by_list set region = 'c', id = id + 100 where region = 'b' and id > 20;
         update by_list_b set v = 'by its own name'; update by_list set v = null where region = 'd';
         delete from by_list where id % 7 = 0; insert into by_list_rest values (500, 'e', 'in the middle');
         update to_plain set id = id + 95 where id < 50; delete from to_plain_2 where id = 200;
         update keyless set region = 'b' where ctid = (select min(ctid) from keyless where region = 'a') and region = 'a';
         delete from keyless_b where ctid = (select min(ctid) from keyless_b);
         update to_partitions set id = 7 + id * 100 where id = 7; update to_partitions set id = 7 where id = 3;
         delete from to_partitions where id = 5;
         insert into by_list values (600, 'a', 'through the root'), (601, 'b', null), (602, 'z', 'through two');
         insert into to_plain values (7, 'through the root'), (2000, null); insert into keyless values ('a', 'w'), ('q', null)",
    );
    // PostgreSQL: 013_partition 1-3, 8-10, 16, 17, 21, 35, 37-40, 44, 46-49, 51-57
    // PostgreSQL: 025_rep_changes_for_schema 5
    // PostgreSQL: 032_subscribe_use_index 3, 4
    equal(&pair, &tables, "streamed");
    // Partitions come and go at the source; the new one's rows are the table's.
    pair.source.sql(
        "create table to_plain_3 (id int not null, v text); alter table to_plain detach partition to_plain_1;
         alter table to_plain attach partition to_plain_3 for values from (minvalue) to (100);
         insert into to_plain values (1, 'into the new one'); delete from to_plain where id >= 100;
         insert into to_plain values (1000, 'again')",
    );
    catch_up(&pair, "repartitioned");
    assert_eq!(
        pair.target
            .sql("select string_agg(v, ',' order by id) from to_plain where id in (1, 1000)"),
        "into the new one,again"
    );
    pair.source.sql("truncate by_list, keyless; insert into by_list values (1, 'z', 'after')");
    // PostgreSQL: 013_partition 26, 64
    equal(&pair, &["by_list", "keyless"], "truncated");
}

#[test]
fn an_identity_that_changes_under_way_is_followed() {
    let schema = "create table t (id int primary key, other int not null, v text);
         create unique index t_other on t (other);
         create table u (id int primary key, v text); create table w (id int unique, v text); create table x (id int, v text)";
    let mut pair = pair_of(schema, schema);
    pair.source.sql("insert into t select i, i, 'v' from generate_series(1, 50) i");
    start(&mut pair);
    let identities =
        ["full", "using index t_other", "default", "using index t_pkey", "full", "default"];
    for (round, identity) in identities.into_iter().enumerate() {
        pair.source.sql(&format!(
            "update t set v = v || {round} where id % 7 = {round};
             begin; alter table t replica identity {identity};
             update t set other = other + 1000, v = null where id % 5 = {round} % 5;
             update t set id = id + 100 where id % 11 = {round}; delete from t where id % 13 = {round}; commit;
             update t set v = 'back' where v is null"
        ));
        // PostgreSQL: 100_bugs 7
        equal(&pair, &["t"], identity);
    }
    // Without any, PostgreSQL itself would refuse changes: the table gets another one, and the application goes on.
    for (table, before) in [("x", "full"), ("u", "default"), ("w", "full")] {
        pair.source.sql(&format!(
            "alter table {table} replica identity nothing; insert into {table} values (1, 'a'), (2, 'a')"
        ));
        // PostgreSQL: 001_rep_changes 6
        pair.source.sql(&format!("update {table} set v = 'b'; delete from {table} where id = 2"));
        equal(&pair, &[table], "an identity of nothing");
        pair.source.sql(&format!(
            "alter table {table} replica identity {before}; update {table} set v = 'bb'"
        ));
        equal(&pair, &[table], "an identity again");
    }
    pair.source.sql("alter table u drop constraint u_pkey");
    pair.source.sql(
        "update u set v = 'c'; insert into u values (2, 'd'), (2, 'd'); delete from u where id = 1",
    );
    pair.target.sql("alter table u drop constraint u_pkey");
    pair.target.node.run(&["retry"]).unwrap();
    equal(&pair, &["u"], "no key any more");
}

#[test]
fn a_table_may_be_rewritten_altered_and_renamed_under_way() {
    let schema = "create table t (id int primary key, a int, v text, n varchar(10));
         create table full_t (a int, v text); alter table full_t replica identity full;
         create schema old; create table old.s (id int primary key)";
    let mut pair = pair_of_all(schema);
    pair.source.sql(
        "insert into t select i, i, md5(i::text), 'n' from generate_series(1, 200) i;
         insert into full_t select i % 5, 'v' from generate_series(1, 20) i; insert into old.s values (1)",
    );
    start(&mut pair);
    let tables = ["t", "full_t"];
    // Rewritten as it is: nothing of that is a change.
    pair.target.sql("alter table t alter column n type text");
    pair.source.sql(
        "vacuum full t; cluster t using t_pkey; update t set a = -a where id = 1;
         alter table t alter column n type text; update t set n = repeat('long', 10) where id = 2",
    );
    // PostgreSQL: 006_rewrite 1, 2
    equal(&pair, &tables, "rewritten");
    // Columns come, with a default that no row stores, and go; in the middle of a transaction too.
    let add = "alter table t add c int not null default 7; alter table full_t add c int default 5";
    pair.target.sql(add);
    pair.source.sql(&format!(
        "begin; update t set v = 'before' where id = 3; {add}; update t set v = 'after' where id = 4;
         insert into t values (300, 1, 'x', 'n', 8); commit;
         update full_t set v = 'w' where ctid = (select min(ctid) from full_t);
         delete from full_t where ctid = (select max(ctid) from full_t)"
    ));
    // PostgreSQL: 017_stream_ddl 1-3
    // PostgreSQL: 100_bugs 12, 13
    equal(&pair, &tables, "columns added");
    pair.source.sql(
        "begin; alter table t drop column a; update t set v = 'dropped' where id = 5; commit;
         alter table full_t drop column v; update full_t set a = 9 where ctid = (select min(ctid) from full_t)",
    );
    catch_up(&pair, "columns dropped");
    pair.target.sql("alter table t drop column a; alter table full_t drop column v");
    // PostgreSQL: 001_rep_changes 23
    // PostgreSQL: 013_partition 67
    // PostgreSQL: 100_bugs 11
    equal(&pair, &tables, "columns dropped");
    // A change that was rolled back was none.
    pair.source.sql(
        "begin; alter table t add gone int default 1; update t set gone = 2 where id = 6; rollback;
         begin; savepoint a; alter table t add gone int; update t set gone = 3 where id = 7; rollback to a;
         update t set v = 'kept' where id = 7; commit",
    );
    // PostgreSQL: 019_stream_subxact_ddl_abort 2
    equal(&pair, &["t"], "altered in vain");
    // A rename is a table of another name.
    // Before 16, PostgreSQL goes on under a schema's old name until the next session.
    pair.source.node.stop().unwrap();
    pair.source.sql("alter schema old rename to new; insert into new.s values (2)");
    pair.source.node.start().unwrap();
    let (code, detail) = halt_of(&pair.target);
    assert_eq!(code, "missing_table", "{detail}");
    pair.target.sql("alter schema old rename to new");
    pair.target.node.run(&["retry"]).unwrap();
    // PostgreSQL: 100_bugs 8, 10
    equal(&pair, &["new.s", "t"], "renamed");
    pair.source.sql("alter table new.s rename to r; alter table new.r rename id to k");
    pair.target.sql("alter table new.s rename to r; alter table new.r rename id to k");
    pair.source.sql("insert into new.r values (3); update new.r set k = 4 where k = 1");
    equal(&pair, &["new.r"], "renamed again");
}

#[test]
fn a_table_that_is_dropped_and_made_again_is_copied_again() {
    let schema = "create table t (id int primary key, v text); create table u (id int primary key)";
    let mut pair = pair_of(schema, schema);
    pair.source.sql("insert into t values (1, 'old'); insert into u values (1)");
    start(&mut pair);
    equal(&pair, &["t", "u"], "copied");
    pair.source.sql(
        "update t set v = 'older'; drop table t; insert into u values (2);
         create table t (v text, id int primary key); insert into t values ('new', 2)",
    );
    equal(&pair, &["u"], "the other goes on");
    assert_eq!(pair.target.sql("select * from t"), "1|older");
    pair.source.node.init().unwrap();
    copied(&pair, &["t"], "made again");
    pair.source.sql("update t set id = 3; insert into t values ('newer', 4)");
    equal(&pair, &["t"], "made again");
}

#[test]
fn a_nondeterministic_collation_finds_what_the_target_finds_equal() {
    let collation = "create collation ext_ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);";
    let schema = &format!(
        "{collation} create table keyed (k text collate ext_ci primary key, v text);
         create table keyless (k text collate ext_ci, v text);"
    );
    let probe = Site::new("probe", APPLY, "select 1");
    let made = probe.cluster.psql(DB, collation);
    if made.is_err_and(|error| error.to_string().contains("ICU is not supported")) {
        let is_required = super::is_required(crate::schema::major(&probe));
        assert!(!is_required, "this PostgreSQL is required, and was built without ICU");
        eprintln!("skipped: this PostgreSQL was built without ICU");
        return;
    }
    let mut pair = pair_of(schema, schema);
    pair.source.sql(
        "insert into keyed values ('Straße', 'a'), ('b', 'b'); insert into keyless values ('A', 'x'), ('a', 'x'), ('B', 'y')",
    );
    start(&mut pair);
    pair.source.sql(
        "update keyed set k = 'STRASSE' where v = 'a'; update keyed set k = 'B' where v = 'b';
         update keyless set v = 'low' where k::bytea = 'a'; delete from keyless where k = 'b'",
    );
    equal(&pair, &["keyed", "keyless"], "streamed");
    // The target has the row under another spelling.
    pair.target.sql("update keyed set k = 'b' where v = 'b'");
    pair.target.sql("update keyless set k = 'A' where v = 'low'");
    pair.source.sql(
        "update keyed set v = 'found' where k = 'b'; update keyless set v = 'found' where v = 'low'",
    );
    catch_up(&pair, "found");
    // PostgreSQL: 012_collation 1
    assert_eq!(pair.target.sql("select k, v from keyed where v = 'found'"), "B|found");
    // PostgreSQL: 012_collation 2
    assert_eq!(pair.target.sql("select v from keyless where k = 'a' order by v"), "found\nx");
}

#[test]
fn a_row_filter_of_the_targets_own_triggers_and_references_is_kept() {
    let source = "create table parent (id int primary key); create table child (id int primary key, p int references parent);
         create table g (id int primary key, v int, twice int generated always as (v * 2) stored);
         create table t (id int primary key, v text)";
    let target = "create table parent (id int primary key); create table child (id int primary key, p int references parent);
         create table g (id int primary key, v int, twice int generated always as (v * 20) stored);
         create function more() returns trigger language plpgsql as $$ begin new.v := new.v + 1; return new; end $$;
         create trigger more before insert or update on g for each row execute function more();
         alter table g enable replica trigger more;
         create table t (id int primary key, v text); create table fired (what text);
         create function note() returns trigger language plpgsql as
           $$ begin insert into public.fired values (tg_name); return new; end $$;
         create function refuse() returns trigger language plpgsql as
           $$ begin if new.v = 'unwanted' then return null; end if; return new; end $$;
         create trigger ordinary before insert or update on t for each row execute function note();
         create trigger replica before update of v on t for each row execute function note();
         create function swallow() returns trigger language plpgsql as
           $$ begin begin insert into public.fired values (1 / 0); exception when others then null; end; return new; end $$;
         create trigger swallow before insert on t for each row execute function swallow();
         alter table t enable always trigger swallow;
         create trigger filter before insert or update on t for each row execute function refuse();
         alter table t enable replica trigger replica; alter table t enable always trigger filter";
    let mut pair = pair_of(source, target);
    start(&mut pair);
    pair.source.sql(
        "insert into parent values (1), (2); insert into child values (1, 1), (2, 2);
         insert into t values (1, 'a'), (2, 'unwanted'), (3, 'c'); update t set v = 'b' where id = 1;
         update t set v = 'unwanted' where id = 3; update t set id = 10 where id = 1",
    );
    pair.source.sql("insert into g values (1, 10), (2, 20); update g set v = 30 where id = 2");
    catch_up(&pair, "triggers");
    // PostgreSQL: 011_generated 3
    assert_eq!(pair.target.sql("select v, twice from g order by id"), "11|220\n31|620");
    // PostgreSQL: 003_constraints 1, 2, 4
    assert_eq!(pair.target.sql("select * from t order by id"), "3|c\n10|b");
    // All columns are written, so a trigger on one of them fires whichever has changed.
    // PostgreSQL: 003_constraints 5, 6
    // PostgreSQL: 013_partition 14
    assert_eq!(pair.target.sql("select what, count(*) from fired group by 1"), "replica|2");
    // An error that a trigger has caught leaves the progress as it is: nothing is applied again.
    pair.target.node.kill9().unwrap();
    pair.target.cluster.kill9().unwrap();
    pair.target.cluster.start_again().unwrap();
    pair.target.node.start().unwrap();
    pair.source.sql("insert into t values (11, 'd')");
    catch_up(&pair, "after a crash");
    // PostgreSQL: 100_bugs 16, 17
    assert_eq!(pair.target.sql("select id from t order by id"), "3\n10\n11");
    // References are not checked while applying: the target may lack the parent.
    pair.target.sql("delete from child; delete from parent");
    pair.source.sql("insert into child values (3, 1)");
    catch_up(&pair, "references");
    // PostgreSQL: 003_constraints 3
    assert_eq!(pair.target.sql("select * from child"), "3|1");
    wait_for("the node to say so", Duration::from_secs(10), || {
        pair.target.status().halted().is_none().then_some(())
    });
}

#[test]
fn triggers_of_a_targets_partitions_fire_for_the_rows_that_come_to_them() {
    let source = "create table t (a int primary key, v text)";
    let target = "create table t (a int primary key, v text) partition by list (a);
         create table t_1 partition of t for values in (1, 2); create table t_rest partition of t default;
         create table fired (tab text, op text, a int);
         create function note() returns trigger language plpgsql as
           $$ begin insert into public.fired values (tg_relname, tg_op, coalesce(new.a, old.a)); return null; end $$;
         create trigger note after insert or update or delete on t for each row execute function note();
         alter table only t enable replica trigger note; alter table t_1 enable replica trigger note;
         alter table t_rest disable trigger note";
    let mut pair = pair_of(source, target);
    start(&mut pair);
    pair.source.sql(
        "insert into t values (1, 'a'), (5, 'b'); update t set v = 'c' where a = 1; update t set a = 2 where a = 1;
         update t set a = 6 where a = 5; update t set a = 7 where a = 2; delete from t where a = 6",
    );
    equal(&pair, &["t"], "streamed");
    let fired = "select string_agg(concat_ws(' ', tab, op, a), ', ' order by op, a) from fired";
    // PostgreSQL: 013_partition 6, 11
    assert_eq!(pair.target.sql(fired), "t_1 DELETE 2, t_1 INSERT 1, t_1 UPDATE 1, t_1 UPDATE 2");
}

#[test]
fn a_copy_that_the_target_refuses_goes_on_once_it_is_mended() {
    let schema = "create table t (id int primary key, v text); create table u (id int primary key)";
    let mut pair = pair_of(schema, &format!("{schema}; alter table t add check (v <> 'bad')"));
    pair.source.sql("insert into t select i, 'v' from generate_series(1, 500) i; insert into t values (1000, 'bad'); insert into u values (1)");
    pair.start();
    let (code, detail) = halt_of(&pair.target);
    assert_eq!(code, "constraint", "{detail}");
    assert_eq!(pair.target.sql("select (select count(*) from t), (select count(*) from u)"), "0|0");
    pair.source.sql("update t set v = 'good' where id = 1000; insert into u values (2)");
    pair.target.sql("alter table t drop constraint t_v_check");
    pair.target.node.run(&["retry"]).unwrap();
    // PostgreSQL: 004_sync 1, 2
    // PostgreSQL: 029_on_error 1
    equal(&pair, &["t", "u"], "mended");
    pair.target.goes_on();
    // Afterwards rows that are there already halt, and go on once they are gone.
    pair.target.sql("insert into t values (2000, 'here')");
    pair.source.sql("insert into t values (2000, 'there')");
    let (code, _) = halt_of(&pair.target);
    assert_eq!(code, "insert_exists");
    pair.target.sql("delete from t where id = 2000");
    pair.target.node.run(&["retry"]).unwrap();
    equal(&pair, &["t"], "mended again");
}

#[test]
fn a_target_that_is_altered_under_way_is_used_as_it_is() {
    let source = "create table t (a int not null, b int); create unique index t_a on t (a);
         alter table t replica identity using index t_a; create table plain (id int primary key, v text)";
    let target = "create table t (a int not null, b int, c int) partition by list (a);
         create table t_1 partition of t default; create unique index t_a on t (a);
         alter table t replica identity using index t_a; alter table t_1 replica identity using index t_1_a_idx;
         create table plain (id int primary key, v text)";
    let mut pair = pair_of(source, target);
    start(&mut pair);
    let rows = |pair: &Pair| pair.target.sql("select a, b, c from t order by a");
    pair.source.sql("insert into t values (1, 1); update t set a = 2 where a = 1; insert into plain values (1, 'a')");
    catch_up(&pair, "at first");
    // PostgreSQL: 013_partition 71
    assert_eq!(rows(&pair), "2|1|");
    pair.target.sql(
        "alter table t detach partition t_1; alter table t_1 drop column b; alter table t_1 add b int;
         alter table t attach partition t_1 default; update t set b = 1;
         alter table plain add extra int default 7; alter table plain alter v type varchar(50)",
    );
    pair.source.sql("update t set a = 3 where a = 2; update plain set v = 'b'; insert into plain values (2, 'c')");
    catch_up(&pair, "after the target was altered");
    // PostgreSQL: 013_partition 72
    assert_eq!(rows(&pair), "3|1|");
    assert_eq!(pair.target.sql("select * from plain order by id"), "1|b|7\n2|c|7");
    pair.source.sql(
        "alter table t drop column b, add column c int; alter table t add column b int; update t set c = 1 where a = 3",
    );
    catch_up(&pair, "after the source was altered");
    // PostgreSQL: 013_partition 66, 73
    assert_eq!(rows(&pair), "3||1");
    pair.target.sql(
        "alter table t replica identity nothing; drop index t_a; alter table plain drop column extra;
         alter table plain drop constraint plain_pkey",
    );
    pair.source.sql("update t set a = 4 where a = 3; update plain set v = 'd' where id = 1; delete from plain where id = 2");
    catch_up(&pair, "without an index at the target");
    // PostgreSQL: 013_partition 74
    assert_eq!(rows(&pair), "4||1");
    // PostgreSQL: 001_rep_changes 24
    assert_eq!(pair.target.sql("select * from plain"), "1|d");
}

#[test]
fn what_is_done_to_a_partition_as_a_whole_is_not_carried() {
    // PostgreSQL sends a partition's rows as its root's, and nothing of what happens to the partition itself.
    // The target has the one as a tree, the other by hash, and the third as a plain table.
    let tables = ["tree", "hash", "plain"];
    let tree = |name: &str| {
        format!("create table {name} (id int primary key, v text) partition by range (id);
         create table {name}_1 partition of {name} for values from (0) to (10); create table {name}_2 partition of {name} default;")
    };
    let target = format!(
        "{} create table hash (id int primary key, v text) partition by hash (id);
         create table hash_0 partition of hash for values with (modulus 2, remainder 0);
         create table hash_1 partition of hash for values with (modulus 2, remainder 1);
         create table plain (id int primary key, v text)",
        tree("tree")
    );
    let mut pair = pair_of(&tables.map(tree).concat(), &target);
    for table in tables {
        pair.source
            .sql(&format!("insert into {table} select i, 'v' from generate_series(1, 20) i"));
    }
    start(&mut pair);
    for table in tables {
        pair.source.sql(&format!("truncate {table}_1; insert into {table} values (21, 'w')"));
    }
    catch_up(&pair, "a partition emptied");
    for table in tables {
        let count = format!("select count(*) from {table}");
        assert_eq!(pair.source.sql(&count), "12");
        // PostgreSQL: 013_partition 58-60
        assert_eq!(pair.target.sql(&count), "21", "{table}");
    }
    pair.source.sql("truncate tree, hash, plain; insert into tree values (1, 'x')");
    // PostgreSQL: 013_partition 61-63
    equal(&pair, &tables, "the tables emptied");
    assert_eq!(
        pair.target.sql("select (select count(*) from hash), (select count(*) from plain)"),
        "0|0"
    );
}

#[test]
fn partitions_that_are_captured_by_their_own_names_are_emptied_one_by_one() {
    let schema = "create table t (id int primary key, v text) partition by range (id);
         create table t_1 partition of t for values from (0) to (10); create table t_2 partition of t default";
    let capture =
        "[capture]\nmode = \"slot\"\ntables = [\"public.t_1\", \"public.t_2\", \"public.fence\"]\n";
    let schema = format!("{FENCE}{schema}");
    let source = Site::new("edge", capture, &schema);
    let target = Site::new("hq", APPLY, &schema);
    let mut pair = Pair::of(source, target, lively());
    pair.source.sql("insert into t select i, 'v' from generate_series(1, 20) i");
    start(&mut pair);
    pair.source.sql("truncate t_1; insert into t values (5, 'w'), (21, 'w')");
    // PostgreSQL: 013_partition 24
    equal(&pair, &["t", "t_1", "t_2"], "a partition emptied");
    pair.source.sql("truncate t");
    equal(&pair, &["t"], "the table emptied");
}

#[test]
fn a_table_that_left_the_publication_is_sent_no_more() {
    let schema = "create table t (id int primary key); create table u (id int primary key)";
    let mut pair = pair_of(schema, schema);
    pair.source.sql("insert into t values (1); insert into u values (1)");
    start(&mut pair);
    pair.source.sql(
        "insert into t values (2); alter publication thinwire_edge drop table t; insert into t values (3); insert into u values (2)",
    );
    equal(&pair, &["u"], "the other goes on");
    // PostgreSQL: 001_rep_changes 10, 11
    // PostgreSQL: 025_rep_changes_for_schema 13
    assert_eq!(pair.target.sql("select max(id) from t"), "2");
    // Nobody who runs sees that it was away.
    pair.source.node.stop().unwrap();
    pair.source.sql("delete from t where id = 1");
    pair.source.node.init().unwrap();
    pair.source.node.start().unwrap();
    copied(&pair, &["t"], "it comes back");
    pair.source.sql("insert into t values (4)");
    equal(&pair, &["t", "u"], "it goes on");
}

#[test]
fn an_index_of_expressions_alone_or_of_some_rows_finds_no_row() {
    let people =
        "create table people (first text, last text); alter table people replica identity full;";
    let indexes = "create index expressions on people ((first || ' ' || last));
         create index some_rows on people (first) where first = 'f1'";
    let mut pair = pair_of(people, &format!("{people} {indexes}"));
    pair.source.sql("insert into people select 'f' || i, 'l' || i from generate_series(0, 200) i");
    start(&mut pair);
    // What a session has counted is seen when it ends.
    let counts = |pair: &mut Pair| {
        pair.target.node.stop().unwrap();
        let gone =
            "select count(*) = 0 from pg_stat_activity where application_name like 'thinwire%'";
        wait_for("its sessions to end", PATIENCE, || (pair.target.sql(gone) == "t").then_some(()));
        pair.target.sql(
            "select (select sum(idx_scan) from pg_stat_user_indexes where relname = 'people'), seq_scan
             from pg_stat_user_tables where relname = 'people'",
        )
    };
    let before = counts(&mut pair);
    pair.target.node.start().unwrap();
    pair.source.sql(
        "update people set first = 'none' where first = 'f1'; update people set first = 'none' where first = 'f2';
         delete from people where first = 'f3'; begin; delete from people where last = 'l4';
         update people set last = null where last = 'l5'; delete from people where last is null; commit",
    );
    equal(&pair, &["people"], "changed");
    let after = counts(&mut pair);
    let (used, read) = after.split_once('|').unwrap();
    let (used_before, read_before) = before.split_once('|').unwrap();
    // PostgreSQL: 032_subscribe_use_index 5, 6
    assert_eq!(used, used_before);
    assert_ne!(read, read_before);
}
