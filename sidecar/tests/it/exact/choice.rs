//! Some rows, columns and operations of tables: what was not chosen never leaves its database, copied or streamed.

use thinwire_cluster::Options;

use super::{FENCE, PATIENCE, catch_up, server, start};
use crate::site::{APPLY, CAPTURE, Pair, Site, lively, wait_for};

/// Whether rows and columns of tables can be chosen, which is since PostgreSQL 15; else it says that a test is skipped.
pub(crate) fn narrows(site: &Site) -> bool {
    let version: u32 = site.sql("show server_version_num").parse().unwrap();
    let narrows = version >= 150_000;
    if !narrows {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or_default();
        eprintln!("{test}: skipped: rows and columns cannot be chosen before PostgreSQL 15");
    }
    narrows
}

/// A pair whose source captures what `more` says of all tables, if it can.
pub(super) fn chosen(more: &str, source_schema: &str, target_schema: &str) -> Option<Pair> {
    chosen_on(<[Options; 2]>::default(), more, source_schema, target_schema)
}

/// The same on servers of some kind.
pub(super) fn chosen_on(
    options: [Options; 2],
    more: &str,
    source_schema: &str,
    target_schema: &str,
) -> Option<Pair> {
    let [source, target] = options;
    let capture = format!("{CAPTURE}{more}");
    let source = Site::with("edge", &capture, &format!("{FENCE}{source_schema}"), source);
    if more.contains("[capture.") && !narrows(&source) {
        return None;
    }
    let target = Site::with("hq", APPLY, &format!("{FENCE}{target_schema}"), target);
    Some(Pair::of(source, target, lively()))
}

/// Makes `more` the choice from here on.
pub(super) fn choose(pair: &mut Pair, more: &str) {
    pair.source.node.stop().unwrap();
    pair.source.sections(&format!("{CAPTURE}{more}"));
    pair.source.init();
    pair.source.node.start().unwrap();
}

/// A site's rows, as text, in their order.
pub(super) fn at(site: &Site, table: &str) -> String {
    let rows = site.sql(&format!("select t::text from {table} as t order by t.*"));
    rows.lines().collect::<Vec<_>>().join(" ")
}

/// The target's rows.
pub(super) fn there(pair: &Pair, table: &str) -> String {
    at(&pair.target, table)
}

/// Waits until the target's rows of a table are these.
pub(super) fn becomes(pair: &Pair, table: &str, rows: &str) {
    wait_for(rows, PATIENCE, || (there(pair, table) == rows).then_some(()));
}

#[test]
fn only_rows_that_fulfil_a_condition_are_copied_and_streamed() {
    rows(<[Options; 2]>::default());
}

fn rows(options: [Options; 2]) {
    let schema = "create table orders (id int, site int, note text, primary key (id, site));
         create table notes (a int primary key, b text); alter table notes replica identity full;
         create table others (a int primary key, b boolean);";
    let filters = "[capture.rows]\n\"public.orders\" = \"site = 7 -- ours\"\n\
         \"public.notes\" = \"a > 1000 AND b <> 'filtered'\"\n";
    let Some(mut pair) = chosen_on(options, filters, schema, schema) else { return };
    pair.source.sql(
        "insert into orders select i, 6 + i % 2, 'copied' from generate_series(1, 4) i;
         insert into notes values (1, 'no'), (1500, 'filtered'), (1980, 'yes'), (1001, 'n');
         insert into others select x, x % 3 = 0 from generate_series(1, 3) x",
    );
    start(&mut pair);
    // PostgreSQL: 028_row_filter 6
    assert_eq!(there(&pair, "orders"), "(1,7,copied) (3,7,copied)");
    assert_eq!(there(&pair, "notes"), "(1001,n) (1980,yes)");
    // PostgreSQL: 028_row_filter 8
    assert_eq!(there(&pair, "others"), "(1,f) (2,f) (3,t)");
    pair.source.sql(
        "insert into orders values (5, 7, 'new'), (6, 8, 'new');
         update orders set note = 'changed' where id in (1, 2);
         delete from orders where id in (3, 4)",
    );
    catch_up(&pair, "changes");
    assert_eq!(there(&pair, "orders"), "(1,7,changed) (5,7,new)");
    // Those that cross the line come and go; what is unknown is not fulfilled.
    pair.source.sql(
        "begin; update orders set site = 8 where id = 1; update orders set site = 7 where id = 2;
         update orders set site = 9 where id = 6; commit;
         insert into notes values (800, 'x'), (1600, 'x'), (1601, 'x'), (1602, 'filtered'), (1700, 'x');
         update notes set b = null where a = 1600; update notes set b = 'y' where a >= 1601; delete from notes where a = 1700;
         update notes set b = 'filtered' where a = 1001; delete from others where b",
    );
    catch_up(&pair, "crossing");
    // PostgreSQL: 028_row_filter 17
    assert_eq!(there(&pair, "orders"), "(2,7,changed) (5,7,new)");
    assert_eq!(there(&pair, "notes"), "(1601,y) (1602,y) (1980,y)");
    assert_eq!(there(&pair, "others"), "(1,f) (2,f)");
    pair.source.sql("truncate orders, notes");
    catch_up(&pair, "truncated");
    assert_eq!(there(&pair, "orders") + &there(&pair, "notes"), "");
}

#[test]
fn only_columns_that_are_listed_are_copied_and_streamed() {
    columns(<[Options; 2]>::default());
}

fn columns(options: [Options; 2]) {
    let source = r#"create type mood as enum ('blue', 'red');
         create table people (secret text, gone int, id int primary key, "B" text, age int);
         alter table people drop column gone;
         create table odd ("a'" int primary key, "B" text, "c\" int);
         create table moods (a int primary key, b mood, c int, d text);
         create table whole (a int primary key, b int);
         create table tree (a int primary key, b text, c timestamptz) partition by list (a);
         create table tree_1 partition of tree for values in (1, 2, 3);
         create table tree_2 partition of tree for values in (7, 8, 9) partition by list (a);
         create table tree_2_1 partition of tree_2 for values in (7, 8);"#;
    // Hidden columns that the target has are its own.
    let target = r#"create type mood as enum ('blue', 'red');
         create table people (id int primary key, "B" text);
         create table odd ("c\" int, "a'" int primary key, "B" text default 'own');
         create table moods (a int primary key, b mood, d text);
         create table whole (a int primary key, b int);
         create table tree (a int primary key, b text) partition by list (a);
         create table tree_1 partition of tree default;"#;
    let lists = r#"[capture.columns]
        "public.people" = ["B", "id"]
        "public.odd" = ["a'", 'c\']
        "public.moods" = ["a", "b", "d"]
        "public.tree" = ["a", "b"]
        "#;
    let Some(mut pair) = chosen_on(options, lists, source, target) else { return };
    let listed =
        "select string_agg(format('%s %s', prrelid::regclass, prattrs), ', ' order by prrelid)
                  from pg_publication_rel where prattrs is not null";
    // PostgreSQL: 031_column_list 1, 31
    assert_eq!(pair.source.sql(listed), "people 3 4, odd 1 3, moods 1 2 4, tree 1 2");
    pair.source.sql(
        "insert into people values ('x', 1, 'Ann', 30), ('y', 2, 'Bob', 40); insert into odd values (1, 'x', 3), (4, 'y', 6);
         insert into moods values (1, 'red', 3, 'm'); insert into tree values (1, 'a', now()), (7, 'b', now());
         insert into whole values (1, 2)",
    );
    start(&mut pair);
    // PostgreSQL: 031_column_list 2-5
    assert_eq!(there(&pair, "people"), "(1,Ann) (2,Bob)");
    assert_eq!(there(&pair, "odd"), "(3,1,own) (6,4,own)");
    assert_eq!(there(&pair, "moods") + &there(&pair, "whole"), "(1,red,m)(1,2)");
    assert_eq!(there(&pair, "tree"), "(1,a) (7,b)");
    pair.source.sql(
        "insert into people values ('z', 3, 'Cy', 50); update people set age = 41 where id = 2;
         update people set \"B\" = 'Anna' where id = 1; delete from people where id = 2;
         insert into odd values (2, 'z', 5); update odd set \"B\" = 'w' where \"a'\" = 4; update odd set \"c\\\" = 8 where \"a'\" = 1;
         insert into moods values (2, 'blue', 4, 'n'); update moods set b = 'blue', c = 9, d = d || '!' where a = 1;
         insert into tree values (2, 'c', now()), (8, 'd', now()); update tree set c = null; update tree set a = 3, b = 'e' where a = 7;
         delete from tree where a = 1; update whole set b = 3",
    );
    catch_up(&pair, "changes");
    // PostgreSQL: 031_column_list 6-12, 33
    assert_eq!(there(&pair, "people"), "(1,Anna) (3,Cy)");
    assert_eq!(there(&pair, "odd"), "(5,2,own) (6,4,own) (8,1,own)");
    assert_eq!(there(&pair, "moods"), "(1,blue,m!) (2,blue,n)");
    assert_eq!(there(&pair, "tree"), "(2,c) (3,e) (8,d)");
    assert_eq!(there(&pair, "whole"), "(1,3)");
}

#[test]
fn large_values_in_a_condition_are_compared_whether_or_not_they_changed() {
    // PostgreSQL: 028_row_filter 14, 22
    let schema = "create table big (a text not null, b text not null, c text);
         alter table big alter a set storage external, alter c set storage external;
         create unique index big_key on big (a, b); alter table big replica identity using index big_key;";
    let filter =
        "[capture.rows]\n\"public.big\" = \"a = repeat('1234567890', 200) and b < '10'\"\n";
    let Some(mut pair) = chosen(filter, schema, schema) else { return };
    pair.source.sql(
        "insert into big values (repeat('1234567890', 200), '1234567890', repeat('c', 5000)), (repeat('1234567890', 200), '0', 'c')",
    );
    start(&mut pair);
    let short = "(select length(a) as a, b, length(c) as c from big)";
    assert_eq!(there(&pair, short), "(2000,0,1)");
    pair.source.sql("update big set b = '1' where b = '1234567890'");
    becomes(&pair, short, "(2000,0,1) (2000,1,5000)");
    pair.source.sql("update big set b = '00' where b = '0'; update big set c = 'd' where b = '1'");
    catch_up(&pair, "changes");
    assert_eq!(there(&pair, short), "(2000,00,1) (2000,1,1)");
    pair.source.sql("update big set b = '9' || b");
    catch_up(&pair, "gone");
    assert_eq!(there(&pair, short), "");
}

#[test]
fn tables_that_inherit_are_chosen_each_by_its_own_name() {
    // PostgreSQL: 028_row_filter 15, 16, 23
    let schema = "create table parent (a int primary key);
         create table child (b text, primary key (a)) inherits (parent); create table other (primary key (a)) inherits (parent);";
    let filter =
        "[capture.rows]\n\"public.parent\" = \"a > 15\"\n\"public.child\" = \"a > 15 or a = 1\"\n";
    let Some(mut pair) = chosen(filter, schema, schema) else { return };
    pair.source.sql(
        "insert into parent values (10), (20); insert into child values (0, 'c'), (1, 'c'), (30, 'c'); insert into other values (5)",
    );
    start(&mut pair);
    assert_eq!(there(&pair, "parent"), "(1) (5) (20) (30)");
    pair.source.sql(
        "insert into parent values (14), (16); insert into child values (13, 'd'), (17, 'd'); insert into other values (6);
         update parent set a = a + 100",
    );
    catch_up(&pair, "changes");
    assert_eq!(there(&pair, "only parent"), "(110) (114) (116) (120)");
    assert_eq!(there(&pair, "child"), "(100,c) (101,c) (113,d) (117,d) (130,c)");
    assert_eq!(there(&pair, "other"), "(105) (106)");
}

#[test]
fn partitions_are_narrowed_as_their_root() {
    let source = "create table tree (a int, b int, c text, primary key (a, b)) partition by range (a);
         create table low (c text, b int, a int, primary key (a, b));
         alter table tree attach partition low for values from (minvalue) to (10000);
         create table high partition of tree for values from (10000) to (maxvalue);
         create unique index high_key on high (b, a); alter table high replica identity using index high_key;";
    let target = "create table tree (b int, a int, primary key (a, b));";
    let choice = "[capture.rows]\n\"public.tree\" = \"a < 5000 or b = 7\"\n[capture.columns]\n\"public.tree\" = [\"a\", \"b\"]\n";
    let Some(mut pair) = chosen(choice, source, target) else { return };
    pair.source.sql(
        "insert into tree values (1, 100, 'x'), (7000, 101, 'x'), (15000, 7, 'x'); insert into low values ('y', 200, 2), ('y', 201, 6005)",
    );
    start(&mut pair);
    // PostgreSQL: 028_row_filter 12
    // PostgreSQL: 031_column_list 24, 29
    assert_eq!(there(&pair, "tree"), "(7,15000) (100,1) (200,2)");
    pair.source.sql(
        "insert into tree values (4000, 400, 'n'), (4001, 401, 'n'), (4002, 402, 'n'); insert into low values ('n', 450, 4500), ('n', 123, 5600);
         insert into high values (14000, 1950, 'n'); update low set b = 30 where a = 4001; delete from low where a = 4002;
         update tree set a = 16000 where a = 1; update tree set a = 3 where b = 1950; update high set b = 8 where a = 15000;
         update tree set a = 17000, b = 7 where a = 4000; update tree set c = 'm'",
    );
    catch_up(&pair, "changes");
    // PostgreSQL: 028_row_filter 20, 21, 26
    // PostgreSQL: 031_column_list 22, 25
    assert_eq!(there(&pair, "tree"), "(7,17000) (30,4001) (200,2) (450,4500) (1950,3)");
    pair.source.sql("delete from tree");
    catch_up(&pair, "deletes");
    // PostgreSQL: 031_column_list 23
    assert_eq!(there(&pair, "tree"), "");
}

#[test]
fn a_partition_that_is_captured_by_itself_has_its_own_filter() {
    // PostgreSQL: 028_row_filter 5, 13
    let schema = "create schema far; create table far.tree (x int primary key) partition by range (x);
         create table part (x int primary key); alter table far.tree attach partition part default;";
    let capture = "[capture]\ntables = [\"public.part\", \"public.fence\"]\n[capture.rows]\n\"public.part\" = \"x > 10\"\n";
    let source = Site::new("edge", capture, &format!("{FENCE}{schema}"));
    if !narrows(&source) {
        return;
    }
    let target = Site::new("hq", APPLY, &format!("{FENCE}{schema}"));
    let mut pair = Pair::of(source, target, lively());
    pair.source.sql("insert into far.tree values (1), (20)");
    start(&mut pair);
    assert_eq!(there(&pair, "part"), "(20)");
    pair.source.sql("insert into far.tree values (5), (25); update part set x = 11 where x = 1");
    catch_up(&pair, "changes");
    assert_eq!(there(&pair, "far.tree"), "(11) (20) (25)");
}

#[test]
fn a_key_may_change_to_any_that_is_listed() {
    let schema = "create table t (a int primary key, b int not null, c int, d int);";
    let Some(mut pair) =
        chosen("[capture.columns]\n\"public.t\" = [\"a\", \"b\"]\n", schema, schema)
    else {
        return;
    };
    pair.source.sql("insert into t values (1, 22, 333, 4444)");
    start(&mut pair);
    pair.source.sql(
        "insert into t values (2, 33, 444, 5555); update t set b = b * 2, c = c * 3, d = d * 4",
    );
    catch_up(&pair, "the first key");
    // PostgreSQL: 031_column_list 16
    assert_eq!(there(&pair, "t"), "(1,44,,) (2,66,,)");
    for (round, key) in ["b", "a, b", "b, a", "a"].into_iter().enumerate() {
        let id = round + 3;
        pair.source.sql(&format!(
            "alter table t drop constraint t_pkey; insert into t values ({id}, {id}7, 1, 2); alter table t add primary key ({key});
             update t set b = b * 2, c = c * 3; update t set a = -a where b % 3 = 0; delete from t where a < -1"
        ));
        catch_up(&pair, key);
        let listed = at(&pair.source, "(select a, b, null, null from t)");
        // PostgreSQL: 031_column_list 17-20
        assert_eq!(there(&pair, "(select a, b, c, d from t)"), listed, "{key}");
    }
    pair.source.sql("begin; alter table t drop constraint t_pkey; insert into t values (9, 90), (10, 100); alter table t add primary key (b, a);
         update t set b = 91 where a = 9; delete from t where a = 10; commit");
    catch_up(&pair, "within a transaction");
    // PostgreSQL: 031_column_list 26
    assert_eq!(there(&pair, "(select a, b from t where a = 9)"), "(9,91)");
}

#[test]
fn another_choice_is_another_copy_of_its_table() {
    // PostgreSQL: 031_column_list 13, 14
    let schema = "create table t (id int primary key, site int, v text); create table u (id int primary key);";
    let Some(mut pair) = chosen("[capture.rows]\n\"public.t\" = \"id <= 2\"\n", schema, schema)
    else {
        return;
    };
    pair.source.sql(
        "insert into t select i, i, 'v' from generate_series(1, 4) i; insert into u values (1)",
    );
    start(&mut pair);
    assert_eq!(there(&pair, "t"), "(1,1,v) (2,2,v)");
    choose(&mut pair, "[capture.rows]\n\"public.t\" = \"id > 1\"\n");
    pair.source
        .sql("insert into t values (0, 0, 'w'), (5, 5, 'w'); update t set v = 'x' where id = 3");
    becomes(&pair, "t", "(2,2,v) (3,3,x) (4,4,v) (5,5,w)");
    // A table that comes later, with a list.
    for site in [&pair.source, &pair.target] {
        site.sql("create table later (a int primary key, b text, c int)");
    }
    pair.source.sql("insert into later values (1, 'abc', 3)");
    choose(
        &mut pair,
        "[capture.columns]\n\"public.later\" = [\"a\", \"b\"]\n\"public.t\" = [\"id\", \"site\"]\n",
    );
    becomes(&pair, "later", "(1,abc,)");
    pair.source.sql("insert into later values (2, 'def', 6); update later set c = 5 where a = 1; update later set b = 'xyz' where a = 2");
    becomes(&pair, "later", "(1,abc,) (2,xyz,)");
    becomes(&pair, "(select id, site from t)", "(0,0) (1,1) (2,2) (3,3) (4,4) (5,5)");
    // What is chosen and not published yet is said by name.
    pair.source.node.stop().unwrap();
    pair.source.sections(CAPTURE);
    pair.source.node.start().unwrap();
    let (code, detail) = wait_for("the halt", PATIENCE, || {
        let status = pair.source.status();
        let (_, halted) = status.halted()?;
        Some((halted.code.clone(), halted.detail.clone()))
    });
    assert_eq!(code, "publication_differs");
    for table in ["public.t", "public.later"] {
        assert!(detail.contains(table) && detail.contains("thinwire init"), "{detail}");
    }
    assert!(pair.source.node.run(&["doctor"]).is_err(), "doctor says it too");
}

#[test]
fn operations_that_were_not_chosen_stay_at_the_source() {
    let schema = "create table t (id int primary key, v text); create table keyless (v text);";
    let Some(mut pair) = chosen("operations = [\"insert\"]\n", schema, schema) else { return };
    pair.source.sql("insert into t values (1, 'a'), (2, 'b'); insert into keyless values ('k')");
    start(&mut pair);
    pair.source.sql(
        "update t set v = 'c'; delete from t where id = 1; insert into t values (3, 'd'); update keyless set v = 'l';
         truncate keyless; insert into keyless values ('m')",
    );
    catch_up(&pair, "inserts");
    assert_eq!(there(&pair, "t"), "(1,a) (2,b) (3,d)");
    assert_eq!(there(&pair, "keyless"), "(k) (m)");
    assert_eq!(
        pair.source.sql("select relreplident from pg_class where oid = 'public.keyless'::regclass"),
        "d"
    );
    choose(&mut pair, "");
    pair.source.sql("update keyless set v = 'n'; update t set v = 'e' where id = 2");
    becomes(&pair, "t", "(2,e) (3,d)");
    becomes(&pair, "keyless", "(n)");
}

#[test]
fn schema_changes_bring_what_was_chosen_to_an_empty_target() {
    let capture = "[capture]\ntables = [\"public.*\"]\nddl = \"replicate\"\n";
    let choice = "[capture.rows]\n\"public.made\" = \"site = 7\"\n[capture.columns]\n\"public.people\" = [\"id\", \"name\"]\n\
                  \"public.made\" = [\"id\", \"site\"]\n";
    let schema = "create table people (id int primary key, name text, secret text default 's', unique (secret));";
    let source = Site::new("edge", &format!("{capture}{choice}"), &format!("{FENCE}{schema}"));
    if !narrows(&source) {
        return;
    }
    let target = Site::new("hq", APPLY, "");
    let mut pair = Pair::of(source, target, lively());
    pair.source.sql("insert into people values (1, 'Ann', 'x')");
    pair.start();
    pair.source.sql(
        "create table made (id int, note text, site int, primary key (id, site)); insert into made values (1, 'n', 7), (2, 'n', 8)",
    );
    pair.source.sql("alter table people add column later int; alter table made add column more int; create index on people (secret, name)");
    pair.source
        .sql("update people set name = 'Anna', later = 3; update made set site = 7 where id = 2");
    let all = "select string_agg(attrelid::regclass || '.' || attname, ' ' order by attrelid::regclass::text, attnum) from pg_attribute
               where attnum > 0 and not attisdropped and attrelid in (select oid from pg_class where relname in ('made', 'people'))";
    wait_for("the tables", PATIENCE, || {
        (pair.target.sql(all) == "made.id made.site people.id people.name").then_some(())
    });
    becomes(&pair, "made", "(1,7) (2,7)");
    becomes(&pair, "people", "(1,Anna)");
    // A list that is longer brings the column, one that is shorter takes it away.
    for (list, columns, rows) in [
        ("[\"id\", \"name\", \"later\"]", "people.id people.name people.later", "(1,Anna,3)"),
        ("[\"id\"]", "people.id", "(1)"),
    ] {
        pair.source.node.stop().unwrap();
        pair.source.sections(&format!("{capture}[capture.columns]\n\"public.people\" = {list}\n\"public.made\" = [\"id\", \"site\"]\n"));
        pair.source.init();
        pair.source.node.start().unwrap();
        wait_for(columns, PATIENCE, || pair.target.sql(all).ends_with(columns).then_some(()));
        becomes(&pair, "people", rows);
    }
}

#[test]
fn what_was_chosen_is_refused_where_the_server_cannot_do_it() {
    let Some(bin) = server(14) else { return };
    let schema = "create table t (id int primary key, v text)";
    for choice in [
        "[capture.rows]\n\"public.t\" = \"id > 3\"\n",
        "[capture.columns]\n\"public.t\" = [\"id\"]\n",
    ] {
        let capture = format!("{CAPTURE}{choice}");
        let site = Site::with("edge", &capture, schema, Options::default().with_bin(bin.clone()));
        let error = site.node.run(&["init"]).unwrap_err().to_string();
        assert!(error.contains("public.t are chosen, which needs PostgreSQL 15"), "{error}");
        assert_eq!(site.sql("select count(*) from pg_publication"), "0");
    }
}

/// Rows and columns on one version.
fn both(major: u32) {
    let Some(bin) = server(major) else { return };
    let options = [Options::default().with_bin(bin.clone()), Options::default().with_bin(bin)];
    rows(options.clone());
    columns(options);
}

#[test]
fn rows_and_columns_are_chosen_on_16() {
    both(16);
}

#[test]
fn rows_and_columns_are_chosen_on_17() {
    both(17);
}

#[test]
fn rows_and_columns_are_chosen_on_18() {
    both(18);
}

#[test]
fn a_condition_may_look_at_a_virtual_column() {
    // PostgreSQL: 028_row_filter 24
    let Some(bin) = server(18) else { return };
    let options = [Options::default().with_bin(bin.clone()), Options::default().with_bin(bin)];
    let schema = "create table g (id int primary key, val int, gen int generated always as (val * 2) virtual);";
    let choice = "operations = [\"insert\"]\n[capture.rows]\n\"public.g\" = \"gen > 6\"\n";
    let Some(mut pair) = chosen_on(options, choice, schema, schema) else { return };
    pair.source.sql("insert into g values (1, 1), (2, 4)");
    start(&mut pair);
    pair.source.sql("insert into g values (3, 2), (4, 5)");
    catch_up(&pair, "inserts");
    assert_eq!(there(&pair, "g"), "(2,4,8) (4,5,10)");
}
