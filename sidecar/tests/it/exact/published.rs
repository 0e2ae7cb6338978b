//! What is chosen changes under way: tables come and go, all of them and some of them are meant at once, and what was
//! chosen twice is one choice.

use std::process::Command;

use thinwire_bench::node::binary;
use thinwire_cluster::Options;

use super::{
    FENCE, catch_up,
    choice::{becomes, choose, chosen, chosen_on, narrows, there},
    copied, equal, server, start,
};
use crate::site::{APPLY, CAPTURE, Pair, Site, lively};

/// Makes these the tables that the source captures from here on.
fn mean(pair: &mut Pair, tables: &str) {
    pair.source.node.stop().unwrap();
    pair.source.sections(&format!("[capture]\ntables = [{tables}, \"public.fence\"]\n"));
    pair.source.node.init().unwrap();
    pair.source.node.start().unwrap();
}

/// A pair whose source captures tables of these names.
fn meaning(tables: &str, schema: &str) -> Pair {
    let capture = format!("[capture]\ntables = [{tables}, \"public.fence\"]\n");
    let source = Site::new("edge", &capture, &format!("{FENCE}{schema}"));
    let target = Site::new("hq", APPLY, &format!("{FENCE}{schema}"));
    Pair::of(source, target, lively())
}

/// What is published, by name.
fn published(pair: &Pair) -> String {
    pair.source.sql(
        "select string_agg(schemaname || '.' || tablename, ' ' order by 1, schemaname, tablename)
         from pg_publication_tables where tablename <> 'fence'",
    )
}

#[test]
fn tables_that_are_named_later_come_whole_and_those_that_are_named_no_more_stay_as_they_are() {
    let schema = "create table one (a int primary key); create table two (a int primary key);
         create table three (a int primary key)";
    let mut pair = meaning("\"public.one\"", schema);
    pair.source.sql(
        "insert into one values (1); insert into two values (1); insert into three values (1)",
    );
    start(&mut pair);
    becomes(&pair, "one", "(1)");
    // Rows of a table that is not meant yet are not there yet.
    pair.source.sql("insert into two values (2)");
    catch_up(&pair, "of one");
    // PostgreSQL: 001_rep_changes 12
    assert_eq!(there(&pair, "two"), "");
    mean(&mut pair, "\"public.one\", \"public.two\"");
    // PostgreSQL: 001_rep_changes 13
    becomes(&pair, "two", "(1) (2)");
    pair.source.sql("insert into one values (2); insert into two values (3)");
    catch_up(&pair, "of both");
    assert_eq!(there(&pair, "one") + &there(&pair, "two"), "(1) (2)(1) (2) (3)");
    // Another one instead of the first: its changes are passed over from there on, and nothing of it is taken away.
    mean(&mut pair, "\"public.two\", \"public.three\"");
    becomes(&pair, "three", "(1)");
    assert_eq!(published(&pair), "public.three public.two");
    pair.source.sql("delete from one; insert into two values (4); update three set a = 3");
    catch_up(&pair, "without the first");
    // PostgreSQL: 001_rep_changes 26
    assert_eq!(there(&pair, "one"), "(1) (2)");
    // PostgreSQL: 001_rep_changes 25
    assert_eq!(there(&pair, "two") + &there(&pair, "three"), "(1) (2) (3) (4)(3)");
}

#[test]
fn a_table_that_is_not_there_is_refused_by_name_and_comes_once_it_is() {
    let schema = "create table one (a int primary key)";
    let mut pair = meaning("\"public.one\"", schema);
    pair.source.sql("insert into one values (1)");
    start(&mut pair);
    becomes(&pair, "one", "(1)");
    // Beside what there is, and instead of it.
    for names in ["\"public.one\", \"public.later\"", "\"public.later\""] {
        let sections = format!("[capture]\ntables = [{names}, \"public.fence\"]\n");
        pair.source.sections(&sections);
        let config = pair.source.node.config();
        for command in ["init", "doctor"] {
            let mut program = Command::new(binary().unwrap());
            let output = program.arg(command).arg("--config").arg(config).output().unwrap();
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8(text).unwrap();
            assert!(!output.status.success(), "{text}");
            // PostgreSQL: 007_ddl 3, 4
            assert!(text.contains("there is no table public.later"), "{command}: {text}");
        }
        assert_eq!(published(&pair), "public.one", "nothing was changed");
    }
    // A pattern may mean what comes later.
    mean(&mut pair, "\"public.one\", \"public.la*\"");
    pair.source.sql("insert into one values (2)");
    catch_up(&pair, "meanwhile");
    for site in [&pair.source, &pair.target] {
        site.sql("create table later (a int primary key)");
    }
    pair.source.sql("insert into later values (1); insert into one values (3)");
    catch_up(&pair, "before it is asked for");
    // PostgreSQL: 004_sync 5
    // PostgreSQL: 025_rep_changes_for_schema 6
    assert_eq!(there(&pair, "later") + &there(&pair, "one"), "(1) (2) (3)");
    pair.source.node.init().unwrap();
    // PostgreSQL: 025_rep_changes_for_schema 7
    becomes(&pair, "later", "(1)");
    pair.source.sql("insert into later values (2); insert into one values (4)");
    equal(&pair, &["one", "later"], "both");
}

#[test]
fn what_leaves_a_schema_or_is_dropped_leaves_the_list_of_what_is_published() {
    let schema = "create schema s; create table s.a (a int); create table s.b (a int); create table s.c (a int)";
    let source = Site::new(
        "edge",
        "[capture]\ntables = [\"s.*\", \"public.fence\"]\n",
        &format!("{FENCE}{schema}"),
    );
    let target = Site::new("hq", APPLY, &format!("{FENCE}{schema}"));
    let mut pair = Pair::of(source, target, lively());
    pair.source
        .sql("insert into s.a values (1); insert into s.b values (1); insert into s.c values (1)");
    start(&mut pair);
    equal(&pair, &["s.a", "s.b", "s.c"], "copied");
    // It is published under its new name until somebody asks for what is meant.
    pair.source.sql("alter table s.c set schema public");
    // PostgreSQL: 025_rep_changes_for_schema 9
    assert_eq!(published(&pair), "public.c s.a s.b");
    pair.source.node.init().unwrap();
    // PostgreSQL: 025_rep_changes_for_schema 10
    assert_eq!(published(&pair), "s.a s.b");
    pair.source.sql("insert into c values (2); insert into s.a values (2)");
    equal(&pair, &["s.a", "s.b"], "without it");
    assert_eq!(there(&pair, "s.c"), "(1)");
    // PostgreSQL: 025_rep_changes_for_schema 11
    // One that is dropped needs nobody to ask, and nobody stumbles.
    assert_eq!(published(&pair), "s.a s.b");
    pair.source.sql("drop table s.b; insert into s.a values (3)");
    // PostgreSQL: 025_rep_changes_for_schema 12
    assert_eq!(published(&pair), "s.a");
    pair.source.node.init().unwrap();
    equal(&pair, &["s.a"], "after one was dropped");
    assert_eq!(published(&pair), "s.a");
    pair.source.node.run(&["doctor"]).unwrap();
}

#[test]
fn a_choice_holds_although_all_tables_of_a_schema_or_of_all_are_meant() {
    let schema = "create schema s; create table s.x (x int primary key, y int, z int); create table s.whole (x int primary key)";
    for tables in ["\"*.*\"", "\"s.*\", \"public.fence\"", "\"s.x\", \"s.*\", \"*.*\""] {
        let capture = format!(
            "[capture]\ntables = [{tables}]\n[capture.rows]\n\"s.x\" = \"x > 10\"\n[capture.columns]\n\"s.x\" = [\"x\", \"y\"]\n"
        );
        let source = Site::new("edge", &capture, &format!("{FENCE}{schema}"));
        if !narrows(&source) {
            return;
        }
        let target = Site::new("hq", APPLY, &format!("{FENCE}{schema}"));
        let mut pair = Pair::of(source, target, lively());
        pair.source.sql("insert into s.x select i, i, i from unnest(array[0, 5, 10, 15, 20]) i; insert into s.whole values (1)");
        start(&mut pair);
        // PostgreSQL: 028_row_filter 1, 3
        becomes(&pair, "s.x", "(15,15,) (20,20,)");
        becomes(&pair, "s.whole", "(1)");
        pair.source.sql(
            "insert into s.x values (-99, 1, 1), (99, 1, 1); update s.x set y = 2, z = 3 where x = 15; insert into s.whole values (-99)",
        );
        catch_up(&pair, tables);
        // PostgreSQL: 028_row_filter 2, 4
        // PostgreSQL: 031_column_list 27, 28
        assert_eq!(there(&pair, "s.x"), "(15,2,) (20,20,) (99,1,)", "{tables}");
        assert_eq!(there(&pair, "s.whole"), "(-99) (1)", "{tables}");
    }
}

#[test]
fn two_conditions_are_one_with_or_and_without_any_the_table_is_whole() {
    let schema = "create table few (c int primary key); create table tree (a int primary key) partition by range (a);
         create table part partition of tree default";
    let filters = "[capture.rows]\n\"public.few\" = \"c % 2 = 0 or c % 3 = 0\"\n\"public.tree\" = \"a < 15 or a > 17\"\n";
    let Some(mut pair) = chosen(filters, schema, schema) else { return };
    pair.source.sql(
        "insert into few select generate_series(1, 7); insert into tree values (14), (15), (18)",
    );
    start(&mut pair);
    // PostgreSQL: 028_row_filter 7
    assert_eq!(there(&pair, "few"), "(2) (3) (4) (6)");
    assert_eq!(there(&pair, "tree"), "(14) (18)");
    pair.source.sql(
        "insert into few select generate_series(8, 13); insert into tree values (13), (20), (19)",
    );
    pair.source.sql("insert into part values (12); update tree set a = 16 where a = 20; update tree set a = 10 where a = 15");
    catch_up(&pair, "changes");
    // PostgreSQL: 028_row_filter 18
    assert_eq!(there(&pair, "few"), "(2) (3) (4) (6) (8) (9) (10) (12)");
    // PostgreSQL: 028_row_filter 25
    assert_eq!(there(&pair, "tree"), "(10) (12) (13) (14) (18) (19)");
    choose(&mut pair, "");
    // PostgreSQL: 028_row_filter 11
    copied(&pair, &["few", "tree"], "without any condition");
    pair.source.sql("insert into few values (-1); insert into tree values (-17), (21); delete from few where c = 7");
    // PostgreSQL: 028_row_filter 19
    equal(&pair, &["few", "tree"], "without any condition, changes");
}

#[test]
fn one_table_has_one_choice_and_two_are_refused_where_they_are_written() {
    // PostgreSQL: 031_column_list 15, 34
    let schema = "create table t (a int primary key, b int, c int)";
    for (choice, key) in [
        (
            "[capture.columns]\n\"public.t\" = [\"a\", \"b\"]\n\"public.t\" = [\"a\", \"c\"]\n",
            "public.t",
        ),
        ("[capture.rows]\n\"public.t\" = \"a > 1\"\n\"public.t\" = \"a > 2\"\n", "public.t"),
    ] {
        let site = Site::new("edge", &format!("{CAPTURE}{choice}"), schema);
        let error = site.node.run(&["init"]).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("duplicate key"), "{error}");
        assert!(error.contains("exit status: 2"), "{error}");
        assert_eq!(site.sql("select count(*) from pg_publication"), "0");
    }
    // The same list under two patterns of tables is the list of one table, whose rows come once.
    let both = "tables = [\"public.*\", \"public.t\", \"*.t\"]\n[capture.columns]\n\"public.t\" = [\"a\", \"b\"]\n";
    let source = Site::new("edge", &format!("[capture]\n{both}"), &format!("{FENCE}{schema}"));
    if !narrows(&source) {
        return;
    }
    let target = Site::new("hq", APPLY, &format!("{FENCE}{schema}"));
    let mut pair = Pair::of(source, target, lively());
    pair.source.sql("insert into t values (1, 1, 1)");
    start(&mut pair);
    becomes(&pair, "t", "(1,1,)");
    pair.source.sql("insert into t values (2, 2, 2); update t set b = 3, c = 3 where a = 1");
    catch_up(&pair, "changes");
    assert_eq!(there(&pair, "t"), "(1,3,) (2,2,)");
}

#[test]
fn a_generated_column_is_the_targets_own_affair_and_a_list_of_it_is_refused() {
    let source = "create table plain (a int primary key, b int generated always as (a * 2) stored);
         create table listed (a int primary key, b int generated always as (a * 2) stored, c text);
         create table computed (a int primary key, b int)";
    // What is computed at the source is an ordinary column here, and the other way round.
    let target = "create table plain (a int primary key, b int);
         create table listed (a int primary key, b int default -1, c text);
         create table computed (a int primary key, b int generated always as (a * 22) stored)";
    let site = Site::new(
        "edge",
        &format!("{CAPTURE}[capture.columns]\n\"public.listed\" = [\"a\", \"b\"]\n"),
        source,
    );
    if !narrows(&site) {
        return;
    }
    let error = site.node.run(&["init"]).unwrap_err().to_string();
    // PostgreSQL: 011_generated 9
    assert!(error.contains("generated columns of public.listed are chosen"), "{error}");
    drop(site);
    let list = "[capture.columns]\n\"public.listed\" = [\"a\", \"c\"]\n";
    let Some(mut pair) = chosen(list, source, target) else { return };
    pair.source.sql(
        "insert into plain values (1), (2); insert into listed (a, c) values (1, 'c'); insert into computed values (1, 7)",
    );
    pair.start();
    // A value for a column that the target computes has no place there.
    let (_, detail) = super::halt_of(&pair.target);
    // PostgreSQL: 011_generated 11
    assert_eq!(detail, "the column b is sent with values, but is generated here");
    pair.target.sql("alter table computed alter b drop expression");
    pair.target.node.run(&["retry"]).unwrap();
    catch_up(&pair, "once it has");
    assert_eq!(there(&pair, "computed"), "(1,7)");
    assert_eq!(there(&pair, "plain"), "(1,) (2,)");
    assert_eq!(there(&pair, "listed"), "(1,-1,c)");
    pair.source.sql(
        "insert into plain values (3); update plain set a = 4 where a = 2;
         insert into listed (a, c) values (2, 'd'); update listed set c = 'e' where a = 1",
    );
    catch_up(&pair, "changes");
    // PostgreSQL: 011_generated 7
    assert_eq!(there(&pair, "plain"), "(1,) (3,) (4,)");
    // PostgreSQL: 011_generated 10
    assert_eq!(there(&pair, "listed"), "(1,-1,e) (2,-1,d)");
}

/// Sets an option of the source's publication by hand, and sees it refused, and mended by `init`.
fn is_refused(pair: &Pair, option: &str, expected: &str) {
    pair.source.sql(&format!("alter publication thinwire_edge set ({option})"));
    let (code, detail) = super::halt_of(&pair.source);
    assert_eq!(code, "publication_differs");
    assert!(detail.contains(expected) && detail.contains("thinwire init"), "{detail}");
    pair.source.node.run(&["doctor"]).unwrap_err();
    pair.source.node.init().unwrap();
    pair.source.node.run(&["retry"]).unwrap();
    catch_up(pair, "mended");
    pair.source.node.run(&["doctor"]).unwrap();
}

#[test]
fn partitions_that_are_published_by_hand_are_refused() {
    let schema = "create table t (a int primary key) partition by list (a); create table t_1 partition of t default";
    let Some(mut pair) = chosen("", schema, schema) else { return };
    start(&mut pair);
    let expected = "publishes partitions under their own names";
    is_refused(&pair, "publish_via_partition_root = false", expected);
    pair.source.sql("insert into t values (1)");
    equal(&pair, &["t"], "mended");
    // What is sent as a partition's own is of no table that was copied.
    pair.source.sql("alter publication thinwire_edge set (publish_via_partition_root = false)");
    pair.source.sql("insert into t values (2); update t set a = 3 where a = 1");
    assert_eq!(super::halt_of(&pair.source).0, "publication_differs");
    pair.source.sql("insert into t values (4)");
    pair.source.node.init().unwrap();
    pair.source.node.run(&["retry"]).unwrap();
    equal(&pair, &["t"], "copied again");
}

#[test]
fn generated_columns_that_are_published_by_hand_are_refused() {
    // PostgreSQL: 011_generated 4-6, 8
    let Some(bin) = server(18) else { return };
    let options = || Options::default().with_bin(bin.clone());
    let source = "create table t (a int primary key, b int generated always as (a * 2) stored);
         create table listed (a int primary key, b int generated always as (a * 2) stored, c int)";
    let target = "create table t (a int primary key, b int); create table listed (a int primary key, b int, c int)";
    let list = "[capture.columns]\n\"public.listed\" = [\"a\", \"c\"]\n";
    let Some(mut pair) = chosen_on([options(), options()], list, source, target) else { return };
    pair.source.sql("insert into t values (1); insert into listed (a, c) values (1, 1)");
    start(&mut pair);
    let rows = |pair: &Pair| there(pair, "t") + &there(pair, "listed");
    assert_eq!(rows(&pair), "(1,)(1,,1)");
    is_refused(&pair, "publish_generated_columns = stored", "publishes generated columns");
    pair.source.sql("insert into t values (2); insert into listed (a, c) values (2, 2); update t set a = 3 where a = 1");
    catch_up(&pair, "mended");
    assert_eq!(rows(&pair), "(2,) (3,)(1,,1) (2,,2)");
}
