//! Transactions of every shape: what was rolled back in part, prepared, emptied or interrupted arrives as it ended.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use thinwire_bench::node::binary;
use thinwire_cluster::{Options, digest};

use super::{PATIENCE, catch_up, equal, pair_of, pair_of_all, pair_on, start};
use crate::site::{APPLY, CAPTURE, DB, Pair, Site, wait_for};

const SCHEMA: &str = "create table t (id int primary key, v text); create table k (v text)";

#[test]
fn what_was_rolled_back_to_a_savepoint_never_was() {
    savepoints(<[Options; 2]>::default());
}

/// The same on servers of some kind.
pub(super) fn savepoints(options: [Options; 2]) {
    let mut pair = pair_on(options, SCHEMA, SCHEMA);
    pair.source.sql("insert into t select i, 'v' from generate_series(1, 100) i");
    start(&mut pair);
    pair.source.sql(
        "begin; insert into t values (200, 'kept'); savepoint a; insert into t values (201, 'gone');
           savepoint b; delete from t where id < 50; release b; update t set v = 'gone'; rollback to a;
           savepoint c; insert into t values (201, 'kept'); savepoint d; insert into k values ('gone');
           rollback to d; insert into k values ('kept'); release c; commit;
         begin; insert into t values (300, 'gone'); savepoint a; insert into t values (301, 'gone'); rollback;
         begin; savepoint a; insert into t values (400, 'gone'); rollback to a; commit;
         begin; savepoint a; update t set id = id + 1000 where id < 10; savepoint b; delete from t where id > 1000;
           rollback to a; savepoint b; update t set id = -id where id < 5; release a; commit",
    );
    // An error that a function catches undoes what it did, and the transaction goes on.
    pair.source.sql(
        "do $$ begin for i in 1..50 loop begin
             insert into t values (500 + i, 'tried'); insert into k values ('tried ' || i);
             if i % 3 = 0 then perform 1 / 0; end if; update t set v = 'done' where id = 500 + i;
             if i % 5 = 0 then insert into t values (1, 'is there'); end if;
           exception when division_by_zero then null; when unique_violation then insert into k values ('caught'); end;
         end loop; end $$;
         do $$ begin insert into t values (900, 'all gone'); raise exception 'caught'; exception when others then null; end $$;
         do $$ begin begin insert into t values (901, 'x'); drop table t; raise exception 'caught';
           exception when others then null; end; insert into t values (902, 'after'); end $$;",
    );
    // PostgreSQL: 016_stream_subxact 1
    // PostgreSQL: 018_stream_subxact_abort 1-4
    // PostgreSQL: 019_stream_subxact_ddl_abort 1
    equal(&pair, &["t", "k"], "subtransactions");
    assert_eq!(pair.target.sql("select count(*) from t where v = 'gone' or v like 'all%'"), "0");
    assert_eq!(pair.target.sql("select v from t where id = 902"), "after");
}

#[test]
fn thousands_of_subtransactions_and_two_huge_transactions_at_once_take_no_memory() {
    // What the source decodes spills to its disk early, as it would with very much.
    let source = Options::default().with("logical_decoding_work_mem", "64kB");
    let mut pair = pair_on([source, Options::default()], SCHEMA, SCHEMA);
    // PostgreSQL: 015_stream 1
    start(&mut pair);
    let nested = "do $$ begin for i in 1..5000 loop begin
            insert into t values (BASE + i, repeat(md5(i::text), 4));
            if i % 4 = 0 then raise exception 'x'; end if; insert into k values (i::text);
            exception when raise_exception then null; end; end loop; end $$;";
    // 64 MB each, as much as a node may have of memory altogether.
    let huge = |base: u32, end: &str| {
        let mut sql = "begin;\n".to_owned();
        for round in 0..20_u32 {
            let from = base + round * 1_000;
            sql += &format!(
                "insert into t select i, repeat(md5(i::text), 100) from generate_series({from}, {}) i;
                 savepoint s; update t set v = 'x' where id between {from} and {from} + 300; {};\n",
                from + 999,
                if round % 2 == 0 { "rollback to s" } else { "release s" }
            );
        }
        sql + end
    };
    let source = &pair.source.cluster;
    thread::scope(|scope| {
        for (base, end) in [(1_000_000, "commit"), (2_000_000, "rollback"), (3_000_000, "commit")] {
            let sql = huge(base, end);
            scope.spawn(move || source.psql(DB, &sql).unwrap());
        }
        scope.spawn(|| source.psql(DB, &nested.replace("BASE", "0")).unwrap());
        scope.spawn(|| source.psql(DB, &nested.replace("BASE", "10000")).unwrap());
    });
    // PostgreSQL: 015_stream 2, 7
    // PostgreSQL: 016_stream_subxact 2
    // PostgreSQL: 018_stream_subxact_abort 5, 6
    equal(&pair, &["t", "k"], "interleaved");
    assert_eq!(pair.target.sql("select count(*) from t"), "47500");
    // Checks what each node has needed, too.
    pair.wait_equal(PATIENCE);
}

#[test]
fn tables_are_emptied_with_all_that_truncate_may_say() {
    let schema = "create table one (id int generated by default as identity primary key, v text);
         create table two (id int primary key, one int references one);
         create table three (id int primary key, two int references two);
         create table root (id int, primary key (id)) partition by range (id);
         create table root_1 partition of root for values from (0) to (10);
         create table root_2 partition of root for values from (10) to (20);
         create table parent (id int primary key); create table child (extra int) inherits (parent)";
    // The second refers to what is emptied, and is not captured.
    let local = "create table unwanted (id int primary key, one int references one);";
    let mut pair = pair_of_all(&format!("{schema}; {local}"));
    pair.target.sql("alter table unwanted drop constraint unwanted_one_fkey; insert into unwanted values (1, 1)");
    let fill = "insert into one (v) select 'v' from generate_series(1, 5); insert into two select i, 1 from generate_series(1, 5) i;
         insert into three select i, 2 from generate_series(1, 5) i; insert into root select generate_series(0, 19);
         insert into parent select generate_series(1, 3); insert into child select i, i from generate_series(11, 13) i;";
    pair.source.sql(fill);
    start(&mut pair);
    let tables = ["one", "two", "three", "root", "parent", "child"];
    equal(&pair, &tables, "copied");
    for (round, truncate) in [
        "truncate three",
        "truncate one, two, three, unwanted",
        "truncate one cascade",
        "truncate one restart identity cascade",
        "truncate root",
        "truncate only parent",
        "truncate parent",
        "begin; truncate three; insert into three values (99, null); truncate three; insert into three values (98, null); commit",
        "begin; truncate one cascade; rollback",
        "begin; savepoint s; truncate root; rollback to s; insert into root values (5) on conflict do nothing; commit",
        "truncate child, root, three",
    ]
    .into_iter()
    .enumerate()
    {
        let sequence = "pg_get_serial_sequence('public.one', 'id')";
        pair.target.sql(&format!("select setval({sequence}, 50)"));
        pair.source.sql(truncate);
        // PostgreSQL: 010_truncate 1, 6-8
        equal(&pair, &tables, truncate);
        let next = pair.target.sql(&format!("select nextval({sequence})"));
        let restarted = round == 3;
        // PostgreSQL: 010_truncate 2, 3
        assert_eq!(next, if restarted { "1" } else { "51" }, "{truncate}");
        pair.source.sql(
            "truncate one, two, three, root, parent, unwanted restart identity; truncate child",
        );
        pair.source.sql(fill);
        // What restarts the sequence has come before the next round sets it.
        equal(&pair, &tables, "filled again");
    }
    // PostgreSQL: 010_truncate 9
    assert_eq!(pair.target.sql("select count(*) from unwanted"), "1");
}

#[test]
fn prepared_transactions_count_from_their_commit_and_outlive_crashes() {
    prepared(<[Options; 2]>::default());
}

/// The same on servers of some kind.
pub(super) fn prepared(options: [Options; 2]) {
    let options = options.map(|it| it.with("max_prepared_transactions", "10"));
    let mut pair = pair_on(options, SCHEMA, SCHEMA);
    pair.source.sql("insert into t select i, 'v' from generate_series(1, 10) i");
    start(&mut pair);
    let prepare = |pair: &Pair, gid: &str, sql: &str| {
        pair.source.sql(&format!("begin; {sql}; prepare transaction '{gid}'"));
    };
    prepare(
        &pair,
        "first",
        "insert into t values (100, 'first'); update t set v = 'first' where id = 1",
    );
    prepare(&pair, "undone", "delete from t where id = 2");
    prepare(
        &pair,
        "nested",
        "savepoint a; insert into t values (101, 'gone'); rollback to a; insert into t values (101, 'nested')",
    );
    prepare(&pair, "empty", "select from t where id = 5 for share");
    prepare(&pair, "", "insert into t values (102, 'of no name')");
    prepare(&pair, "it''s \"odd\"", "insert into k values ('odd')");
    pair.source.sql("insert into t values (200, 'between')");
    catch_up(&pair, "what was committed meanwhile");
    assert_eq!(pair.target.sql("select id from t where id >= 100"), "200");
    // Both servers crash between, then the node.
    pair.target.cluster.kill9().unwrap();
    pair.source.cluster.kill9().unwrap();
    pair.source.cluster.start_again().unwrap();
    pair.target.cluster.start_again().unwrap();
    pair.source.sql(
        "commit prepared 'first'; rollback prepared 'undone'; commit prepared 'empty'; rollback prepared ''",
    );
    // PostgreSQL: 021_twophase 5, 7, 15, 16
    equal(&pair, &["t", "k"], "after a crash of both servers");
    // PostgreSQL: 021_twophase 2, 8
    // PostgreSQL: 023_twophase_stream 1
    assert_eq!(pair.target.sql("select v from t where id in (1, 100)"), "first\nfirst");
    pair.source.node.kill9().unwrap();
    pair.source.sql("commit prepared 'nested'; commit prepared 'it''s \"odd\"'");
    pair.source.node.start().unwrap();
    // PostgreSQL: 021_twophase 13, 17
    equal(&pair, &["t", "k"], "after a crash of the node");
    prepare(&pair, "later", "insert into t values (300, 'later')");
    pair.target.cluster.kill9().unwrap();
    pair.source.sql("commit prepared 'later'");
    pair.target.cluster.start_again().unwrap();
    // PostgreSQL: 021_twophase 9, 23
    equal(&pair, &["t", "k"], "after a crash of the target");
    prepare(&pair, "last", "delete from t where id = 300");
    pair.source.cluster.kill9().unwrap();
    pair.source.cluster.start_again().unwrap();
    pair.source.sql("commit prepared 'last'");
    // PostgreSQL: 021_twophase 10
    equal(&pair, &["t", "k"], "after a crash of the source");
}

#[test]
fn a_transaction_prepared_before_the_slot_or_a_copy_is_whole_or_waited_for() {
    let options = || Options::default().with("max_prepared_transactions", "10");
    let mut pair = pair_on([options(), options()], SCHEMA, SCHEMA);
    start(&mut pair);
    let later = "create table later (id int primary key, v text)";
    pair.source.sql(later);
    pair.target.sql(later);
    pair.source.sql("insert into later values (1, 'before')");
    pair.source.sql("begin; insert into later values (2, 'prepared'); prepare transaction 'p'");
    // The copy waits for it, because it may commit at any time; what is written meanwhile is not lost.
    pair.source.node.stop().unwrap();
    pair.source.node.init().unwrap();
    pair.target.node.init().unwrap();
    pair.source.node.start().unwrap();
    pair.source
        .sql("insert into later values (3, 'meanwhile'); insert into t values (1, 'meanwhile')");
    thread::sleep(Duration::from_secs(2));
    pair.source.sql("commit prepared 'p'");
    super::copied(&pair, &["later"], "a copy beside a prepared transaction");
    pair.source.sql("update later set v = v || '!'");
    equal(&pair, &["later", "t"], "streamed");
}

#[test]
fn messages_and_transactions_without_changes_do_no_harm() {
    let mut pair = pair_of(SCHEMA, SCHEMA);
    start(&mut pair);
    pair.source.sql(
        "select pg_logical_emit_message(false, 'outside', 'a'); select pg_logical_emit_message(true, 'inside', 'b');
         begin; insert into t values (1, 'a'); select pg_logical_emit_message(true, 'in', repeat('x', 100000));
           select pg_logical_emit_message(false, 'out', E'\\\\x00ff'::bytea); insert into t values (2, 'b'); commit;
         begin; select pg_logical_emit_message(false, 'aborted', 'c'); insert into t values (3, 'gone'); rollback;
         select pg_logical_emit_message(true, '', ''); create table not_captured (id int);
         begin; insert into not_captured values (1); commit; begin; commit; analyze; checkpoint;
         select pg_switch_wal(); update t set v = 'never' where false",
    );
    equal(&pair, &["t"], "messages");
    assert_eq!(pair.target.sql("select count(*) from t"), "2");
    // One that is outside of transactions outlives the rollback of the one it was written in.
    let journal = pair.source.node.config().with_extension("").join("journal");
    let dump = Command::new(binary().unwrap()).args(["journal", "dump"]).arg(journal).output();
    let dump = String::from_utf8(dump.unwrap().stdout).unwrap();
    for prefix in ["outside", "inside", "in", "out", "aborted"] {
        // PostgreSQL: 020_messages 4, 5
        assert!(dump.contains(&format!("message {prefix:?} ")), "{prefix}: {dump}");
    }
    // Nothing but messages and what is not captured: the source's log is let go all the same.
    let before = pair.source.sql("select confirmed_flush_lsn from pg_replication_slots");
    pair.source
        .sql("insert into not_captured select generate_series(1, 1000); select pg_switch_wal()");
    wait_for("the slot to follow", PATIENCE, || {
        let moved = format!(
            "select confirmed_flush_lsn > '{before}'::pg_lsn + 1000000 from pg_replication_slots"
        );
        (pair.source.sql(&moved) == "t").then_some(())
    });
}

#[test]
fn a_source_that_waits_for_its_standby_is_answered_once_the_journal_has_it() {
    let mut pair = pair_of(SCHEMA, SCHEMA);
    start(&mut pair);
    pair.source.cluster.set("synchronous_standby_names", "*").unwrap();
    let begun = Instant::now();
    pair.source.sql("set statement_timeout = '60s'; insert into t values (1, 'a'), (2, 'b')");
    // PostgreSQL: 010_truncate 10
    equal(&pair, &["t"], "inserts");
    pair.source.sql("set statement_timeout = '60s'; truncate t; insert into k values ('c')");
    // PostgreSQL: 010_truncate 11
    equal(&pair, &["t", "k"], "truncate");
    assert!(begun.elapsed() < PATIENCE, "the source was not answered");
    pair.source.cluster.set("synchronous_standby_names", "").unwrap();
}

#[test]
fn prepared_transactions_pass_through_a_node_between() {
    let site = |name: &str, sections: &str| {
        let options = Options::default().with("max_prepared_transactions", "10");
        let mut site = Site::with(name, sections, SCHEMA, options);
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
    left.sql(
        "begin; insert into t values (11, 'c'); prepare transaction 'a'; commit prepared 'a';
         begin; insert into t values (12, 'gone'); prepare transaction 'b'; rollback prepared 'b';
         begin; insert into t values (21, 'd'); savepoint s; insert into t values (22, 'gone'); rollback to s;
           prepare transaction 'c'; commit prepared 'c';
         begin; insert into t select i, md5(i::text) from generate_series(100, 5000) i; update t set v = null where id % 2 = 0;
           delete from t where id % 3 = 0; prepare transaction 'd'; commit prepared 'd';
         begin; insert into k values ('kept'); savepoint s; insert into k select md5(i::text) from generate_series(1, 5000) i;
           delete from t; rollback to s; prepare transaction 'e'; commit prepared 'e'",
    );
    for site in [&hub, &right] {
        wait_for("the last one", PATIENCE, || {
            (site.sql("select v from k") == "kept").then_some(())
        });
        for table in ["public.t", "public.k"] {
            // PostgreSQL: 022_twophase_cascade 4, 5, 10, 11, 18, 19, 22, 23, 30-33
            let of = |site: &Site| digest::digest(&site.cluster, DB, table).unwrap();
            assert_eq!(of(site), of(&left), "{table} at {}", site.node.name());
        }
        assert_eq!(site.sql("select count(*) from pg_prepared_xacts"), "0");
    }
}
