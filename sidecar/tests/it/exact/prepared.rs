//! Transactions that are prepared: nothing of them is anywhere but at their source until they are committed there.

use thinwire_cluster::{Options, digest};

use super::{FENCE, PATIENCE, catch_up, equal, pair_on, start};
use crate::site::{APPLY, CAPTURE, DB, Pair, Site, lively, wait_for};

const SCHEMA: &str = "create table t (id int primary key, v text); create table k (v text)";

/// Servers that can prepare, of which the source's decoder spills to its disk early.
fn options() -> [Options; 2] {
    let source = Options::default().with("logical_decoding_work_mem", "64kB");
    [source, Options::default()].map(|it| it.with("max_prepared_transactions", "10"))
}

/// Changes of many rows, more than the decoder holds in memory.
const LARGE: &str = "insert into t select i, md5(i::text) from generate_series(1000, 4999) i;
    update t set v = null where id >= 1000 and id % 2 = 0; delete from t where id >= 1000 and id % 3 = 0";

fn prepare(site: &Site, name: &str, sql: &str) {
    site.sql(&format!("begin; {sql}; prepare transaction '{name}'"));
}

/// What a site holds of both tables.
fn content(site: &Site) -> Vec<String> {
    digest::digests(&site.cluster, DB, &["public.t", "public.k"]).unwrap()
}

/// Fails unless a site has nothing prepared, and nothing but these rows, which anybody may lock.
fn is_untouched(site: &Site, before: &[String], what: &str) {
    let name = site.node.name();
    assert_eq!(content(site), before, "{what}: rows at {name}");
    assert_eq!(site.sql("select count(*) from pg_prepared_xacts"), "0", "{what}: at {name}");
    site.sql("set lock_timeout = '10s'; begin; lock table t, k in access exclusive mode; commit");
}

#[test]
fn what_is_prepared_waits_at_its_source_alone_until_it_is_committed() {
    let mut pair = pair_on(options(), SCHEMA, SCHEMA);
    pair.source.sql("insert into t select i, 'v' from generate_series(1, 10) i");
    start(&mut pair);
    for (what, sql) in [
        ("one", "insert into t values (11, 'one'); update t set v = 'one' where id = 1"),
        ("of two tables", "insert into k values ('two'); delete from t where id = 2"),
        (
            "with a savepoint",
            "insert into t values (12, 'gone'); savepoint a; insert into t values (13, 'gone'); rollback to a;
             insert into t values (13, 'nested'); update t set v = 'kept' where id = 12",
        ),
        // Its name is empty.
        ("", "insert into t values (14, 'of no name')"),
        ("large", LARGE),
    ] {
        for end in ["rollback", "commit"] {
            let before = content(&pair.target);
            prepare(&pair.source, what, sql);
            catch_up(&pair, "what was committed meanwhile");
            // PostgreSQL: 021_twophase 1, 4, 11, 14
            is_untouched(&pair.target, &before, what);
            pair.source.sql(&format!("{end} prepared '{what}'"));
            catch_up(&pair, end);
            assert_eq!(content(&pair.target) == before, end == "rollback", "{end} {what}");
            equal(&pair, &["t", "k"], end);
            let left = pair.target.sql("select count(*) from pg_prepared_xacts");
            // PostgreSQL: 021_twophase 3, 6, 12
            assert_eq!(left, "0", "{end} {what}");
        }
    }
    // It waits for as long as it takes, whatever becomes of the nodes and of what they capture.
    let before = content(&pair.target);
    prepare(
        &pair.source,
        "kept",
        "insert into t values (20, 'kept'); insert into k values ('kept')",
    );
    for table in ["later", "latest"] {
        pair.source.status();
        pair.source.node.stop().unwrap();
        for site in [&pair.source, &pair.target] {
            site.sql(&format!("create table {table} (id int primary key)"));
            site.node.init().unwrap();
        }
        pair.target.node.kill9().unwrap();
        pair.target.node.start().unwrap();
        pair.source.node.start().unwrap();
    }
    pair.source.status();
    is_untouched(&pair.target, &before, "whatever becomes of the nodes");
    pair.source.sql("commit prepared 'kept'");
    equal(&pair, &["t", "k"], "committed at last");
    // PostgreSQL: 021_twophase 26, 29
    assert_eq!(pair.target.sql("select v from t where id = 20"), "kept");
}

#[test]
fn a_target_that_has_the_rows_already_takes_what_is_prepared_later() {
    let [source, target] = options();
    let rows = "insert into t select i, 'v' from generate_series(1, 5) i";
    let schema = format!("{FENCE}{SCHEMA}; {rows}");
    let source = Site::with("edge", CAPTURE, &schema, source);
    // As somebody has restored it from a backup.
    let target = Site::with("hq", "[apply]\nexisting = \"merge\"\n", &schema, target);
    let mut pair = Pair::of(source, target, lively());
    start(&mut pair);
    // PostgreSQL: 021_twophase 18
    assert_eq!(pair.target.sql("select count(*) from t"), "5");
    let before = content(&pair.target);
    prepare(&pair.source, "p", "insert into t values (99, 'prepared')");
    catch_up(&pair, "what was committed meanwhile");
    // PostgreSQL: 021_twophase 20
    is_untouched(&pair.target, &before, "prepared");
    pair.source.sql("commit prepared 'p'");
    equal(&pair, &["t", "k"], "committed");
    // PostgreSQL: 021_twophase 19, 21, 22
    for site in [&pair.source, &pair.target] {
        assert_eq!(site.sql("select count(*), max(id) from t"), "6|99");
        assert_eq!(site.sql("select count(*) from pg_prepared_xacts"), "0");
    }
}

#[test]
fn large_ones_outlive_crashes_and_need_nothing_of_the_target() {
    let [source, target] = options();
    // It could not prepare anything itself.
    // PostgreSQL: 023_twophase_stream 21
    let mut pair = pair_on([source, target.with("max_prepared_transactions", "0")], SCHEMA, SCHEMA);
    start(&mut pair);
    let spilled = "select sum(spill_txns) from pg_stat_replication_slots";
    let left = |pair: &Pair| pair.target.sql("select count(*) from pg_prepared_xacts");
    for round in 0_u32..5 {
        pair.source.sql("truncate t");
        catch_up(&pair, "emptied");
        let before = content(&pair.target);
        prepare(&pair.source, "large", LARGE);
        if round == 2 {
            pair.source.cluster.kill9().unwrap();
            pair.target.cluster.kill9().unwrap();
            pair.source.cluster.start_again().unwrap();
            pair.target.cluster.start_again().unwrap();
        }
        catch_up(&pair, "what was committed meanwhile");
        // PostgreSQL: 023_twophase_stream 2, 5, 9, 12
        is_untouched(&pair.target, &before, "prepared");
        // What comes between counts by itself.
        if round > 2 {
            pair.source.sql("insert into t values (99999, 'between')");
            catch_up(&pair, "between");
            assert_eq!(pair.target.sql("select * from t"), "99999|between", "{round}");
        }
        let end = if matches!(round, 1 | 3) { "rollback" } else { "commit" };
        pair.source.sql(&format!("{end} prepared 'large'"));
        equal(&pair, &["t"], end);
        let expected = usize::from(round > 2) + if end == "commit" { 2_667 } else { 0 };
        // PostgreSQL: 023_twophase_stream 3, 6, 8, 10, 13, 16
        assert_eq!(pair.target.sql("select count(*) from t"), expected.to_string(), "{round}");
        // PostgreSQL: 023_twophase_stream 4, 7, 11, 14
        assert_eq!(left(&pair), "0");
    }
    // The decoder had them on its disk, not in memory.
    // PostgreSQL: 023_twophase_stream 15
    wait_for("the source to tell", PATIENCE, || (pair.source.sql(spilled) != "0").then_some(()));
}

#[test]
fn nothing_is_prepared_at_a_node_between_or_behind_it() {
    let site = |name: &str, sections: &str| {
        let [options, _] = options();
        let mut site = Site::with(name, sections, &format!("{FENCE}{SCHEMA}"), options);
        site.init();
        site
    };
    let (mut left, mut hub, mut right) =
        (site("left", CAPTURE), site("hub", APPLY), site("right", APPLY));
    left.peer("hub", &hub.key, Some(hub.listen), "");
    right.peer("hub", &hub.key, Some(hub.listen), "receive = \"*\"");
    hub.peer("left", &left.key, None, "");
    hub.peer("right", &right.key, None, "send = \"*\"");
    left.sql("insert into t values (1, 'a'), (2, 'b')");
    for site in [&mut hub, &mut left, &mut right] {
        site.node.start().unwrap();
    }
    let mut fence = 0_u32;
    let mut pass = |what: &str| {
        fence += 1;
        left.sql(&format!("insert into fence values ({fence})"));
        for site in [&hub, &right] {
            let arrived = format!("select count(*) from fence where n = {fence}");
            wait_for(what, PATIENCE, || (site.sql(&arrived) == "1").then_some(()));
        }
    };
    pass("the copy");
    let behind = [&hub, &right];
    let nested = "insert into t values (21, 'd'); savepoint s; insert into t values (22, 'gone'); rollback to s";
    let nested_large =
        format!("insert into k values ('kept'); savepoint s; {LARGE}; rollback to s");
    for (sql, end) in [
        ("insert into t values (11, 'c')", "commit"),
        ("insert into t values (12, 'gone')", "rollback"),
        (nested, "commit"),
        (LARGE, "commit"),
        (&nested_large, "commit"),
    ] {
        let before = content(&left);
        prepare(&left, "p", sql);
        pass("what was committed meanwhile");
        for site in behind {
            // PostgreSQL: 022_twophase_cascade 2, 3, 8, 9, 14, 15, 20, 21, 26, 27
            is_untouched(site, &before, sql);
        }
        left.sql(&format!("{end} prepared 'p'"));
        pass(end);
        assert_eq!(content(&left) == before, end == "rollback", "{end}: {sql}");
        for site in behind {
            // PostgreSQL: 022_twophase_cascade 6, 7, 12, 13, 16, 17, 24, 25, 28, 29
            is_untouched(site, &content(&left), end);
        }
        left.sql("delete from t where id >= 1000");
    }
}

#[test]
fn a_prepared_transaction_that_is_refused_is_left_out_by_its_position() {
    let mut pair = pair_on(options(), SCHEMA, SCHEMA);
    start(&mut pair);
    pair.target.sql("insert into t values (5, 'here')");
    prepare(&pair.source, "p", "insert into t values (4, 'there'), (5, 'there')");
    catch_up(&pair, "nobody minds what is only prepared");
    pair.source.sql("commit prepared 'p'; insert into t values (6, 'behind')");
    let halted = wait_for("the halt", PATIENCE, || {
        pair.target.status().halted().map(|(_, halted)| halted.clone())
    });
    assert_eq!(halted.code, "insert_exists");
    let offset = halted.offset.unwrap().to_string();
    pair.target.node.run(&["skip", "--origin", "edge", "--offset", &offset]).unwrap();
    catch_up(&pair, "what is behind it");
    assert_eq!(pair.target.sql("select * from t order by id"), "5|here\n6|behind");
    // PostgreSQL: 029_on_error 3
    assert_eq!(pair.target.sql("select count(*) from pg_prepared_xacts"), "0");
}
