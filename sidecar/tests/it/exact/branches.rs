//! Partitions under their own names: each is a table of its own, unless its root is meant as well.

use super::{FENCE, catch_up, start};
use crate::{
    exact::choice::{becomes, there},
    site::{APPLY, Pair, Site, lively},
};

/// A pair whose source captures tables of these names.
fn pair_of(tables: &str, source: &str, target: &str) -> Pair {
    let capture = format!("[capture]\ntables = [{tables}, \"public.fence\"]\n");
    let source = Site::new("edge", &capture, &format!("{FENCE}{source}"));
    let target = Site::new("hq", APPLY, &format!("{FENCE}{target}"));
    Pair::of(source, target, lively())
}

const TREE: &str = "
    create table tree (a int primary key, b text) partition by list (a);
    create table low (b text, a int not null); alter table tree attach partition low for values in (1, 2, 3);
    create table high partition of tree for values in (4, 5, 6); create table rest partition of tree default;";

#[test]
fn partitions_that_are_captured_by_their_own_names_are_tables_of_their_own() {
    // No table is partitioned here, and each has a column of its own.
    let target = "create table low (a int primary key, own text default 'low', b text);
         create table high (a int primary key, own text default 'high', b text);
         create table rest (a int primary key, b text, own text default 'rest');
         create table tree (a int primary key, b text);
         create table fired (tab text, op text, a int);
         create function note() returns trigger language plpgsql as
           $$ begin insert into public.fired values (tg_relname, tg_op, coalesce(new.a, old.a)); return null; end $$;
         create trigger note after insert or update or delete on high for each row execute function note();
         alter table high enable replica trigger note";
    let names = "\"public.low\", \"public.high\", \"public.rest\"";
    let mut pair = pair_of(names, TREE, target);
    pair.source.sql("insert into tree values (2, 'copied'), (9, 'copied')");
    start(&mut pair);
    let low = "(select own, a, b from low)";
    let high = "(select own, a, b from high)";
    let rest = "(select own, a, b from rest)";
    assert_eq!(there(&pair, low) + &there(&pair, rest), "(low,2,copied)(rest,9,copied)");
    let all = |pair: &Pair, what: &str, expected: [&str; 3]| {
        catch_up(pair, what);
        assert_eq!([low, high, rest].map(|table| there(pair, table)), expected, "{what}");
        assert_eq!(pair.target.sql("select count(*) from tree"), "0", "{what}");
    };
    pair.source.sql(
        "delete from tree; insert into tree values (1), (0); insert into low (a) values (3); insert into high values (5)",
    );
    // PostgreSQL: 013_partition 4, 5, 7
    all(&pair, "inserts", ["(low,1,) (low,3,)", "(high,5,)", "(rest,0,)"]);
    pair.source
        .sql("update tree set a = 2 where a = 1; update tree set a = 6, b = 'moved' where a = 5");
    // PostgreSQL: 013_partition 12, 13, 15
    all(&pair, "updates", ["(low,2,) (low,3,)", "(high,6,moved)", "(rest,0,)"]);
    pair.source.sql("update tree set a = 4 where a = 0");
    // PostgreSQL: 013_partition 18-20
    all(&pair, "a move", ["(low,2,) (low,3,)", "(high,4,) (high,6,moved)", ""]);
    pair.source.sql("delete from tree where a in (2, 3); delete from high");
    // PostgreSQL: 013_partition 22, 23
    all(&pair, "deletes", ["", "", ""]);
    let fired = "select string_agg(concat_ws(' ', op, a), ', ' order by op, a) from fired";
    let expected = "DELETE 4, DELETE 6, INSERT 4, INSERT 5, UPDATE 6";
    assert_eq!(pair.target.sql(fired), expected, "as what they were at their source");

    pair.source.sql("insert into tree values (1), (4), (7)");
    all(&pair, "filled", ["(low,1,)", "(high,4,)", "(rest,7,)"]);
    pair.source.sql("truncate high");
    // PostgreSQL: 013_partition 25
    all(&pair, "a partition emptied", ["(low,1,)", "", "(rest,7,)"]);
    pair.source.sql("truncate tree");
    // PostgreSQL: 013_partition 27
    all(&pair, "the root emptied", ["", "", ""]);
}

#[test]
fn a_partition_whose_root_is_not_meant_is_sent_by_itself() {
    // PostgreSQL: 013_partition 36, 45, 50
    let source = "create table tree (a int primary key, b text) partition by list (a);
         create table part partition of tree for values in (0, 1, 2, 3, 5, 6);
         create table rest partition of tree default";
    let target = "create table part (own text default 'here', b text, a int primary key);
         create table tree (a int primary key, b text)";
    let mut pair = pair_of("\"public.part\"", source, target);
    start(&mut pair);
    let part = "(select own, a, b from part)";
    pair.source.sql("insert into tree values (1), (0), (3), (5), (100)");
    catch_up(&pair, "inserts");
    assert_eq!(there(&pair, part), "(here,0,) (here,1,) (here,3,) (here,5,)");
    pair.source.sql("update tree set a = 6 where a = 5");
    catch_up(&pair, "an update");
    assert_eq!(there(&pair, part), "(here,0,) (here,1,) (here,3,) (here,6,)");
    pair.source.sql("update tree set a = 2 where a = 6; update part set b = 'b' where a = 0");
    catch_up(&pair, "another one");
    assert_eq!(there(&pair, part), "(here,0,b) (here,1,) (here,2,) (here,3,)");
    // What leaves it leaves the target, what comes into it comes.
    pair.source.sql("update tree set a = 101 where a = 1; update tree set a = 5 where a = 100");
    catch_up(&pair, "moves");
    assert_eq!(there(&pair, part), "(here,0,b) (here,2,) (here,3,) (here,5,)");
    pair.source.sql("delete from tree");
    catch_up(&pair, "deletes");
    assert_eq!(there(&pair, part) + &there(&pair, "tree"), "");
}

#[test]
fn a_root_is_what_its_partitions_are_sent_as_in_whatever_order_they_are_named() {
    // PostgreSQL: 013_partition 34, 41-43, 65
    let source = "create table tree (a int primary key) partition by list (a);
         create table below partition of tree for values in (-1, 0, 1, 2) partition by list (a);
         create table lowest partition of below for values in (-1, 0, 1, 2)";
    // Tables of the same names that have nothing to do with each other.
    let target = "create table tree (a int primary key); create table below (a int primary key); create table lowest (a int primary key)";
    for names in [
        "\"public.below\", \"public.tree\"",
        "\"public.tree\", \"public.below\"",
        "\"public.lowest\", \"public.below\", \"public.tree\"",
    ] {
        let mut pair = pair_of(names, source, target);
        pair.source.sql("insert into tree values (-1)");
        start(&mut pair);
        becomes(&pair, "tree", "(-1)");
        pair.source.sql("insert into tree values (0); insert into below values (1); insert into lowest values (2)");
        catch_up(&pair, names);
        assert_eq!(there(&pair, "tree"), "(-1) (0) (1) (2)", "{names}");
        assert_eq!(there(&pair, "below") + &there(&pair, "lowest"), "", "{names}");
        pair.target.sql("insert into below values (50); insert into lowest values (50)");
        pair.source.sql("truncate tree");
        catch_up(&pair, "truncated");
        assert_eq!(there(&pair, "tree"), "", "{names}");
        assert_eq!(there(&pair, "below") + &there(&pair, "lowest"), "(50)(50)", "{names}");
    }
}
