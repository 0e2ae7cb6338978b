//! Source and target are equal: after the first copy with writes running, after cuts, after one huge transaction.

use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use thinwire_bench::{link::Link, node::binary};
use thinwire_cluster::digest;

use crate::site::{APPLY, BUSY, CAPTURE, DB, Pair, Site, lively, wait_for};

/// Tables with and without a key, wide values, and one that stays empty.
const SHOP: &str = "
    create table items (id bigint primary key, name text not null, price numeric(12,2),
        tags text[], details jsonb, picture bytea, added timestamptz default now());
    create table notes (author text, body text);
    alter table notes replica identity full;
    create table nothing (id int primary key);
    create table \"Odd Name\" (\"the Key\" uuid primary key, \"select\" text);
";

fn fill(pair: &Pair, rows: u32) {
    pair.source.sql(&format!(
        "insert into items select i, 'item ' || i, i * 1.25, array['a', 'b' || i],
            jsonb_build_object('i', i, 'text', repeat(md5(i::text), 3)),
            decode(repeat(md5(i::text), 4), 'hex') from generate_series(1, {rows}) i;
         insert into notes select 'author ' || i % 10, 'note ' || i / 3 from generate_series(1, {rows}) i;
         insert into \"Odd Name\" select gen_random_uuid(), 'v' || i from generate_series(1, 50) i;"
    ));
}

#[test]
fn first_copy_is_exact_while_writes_go_on() {
    // PostgreSQL: 001_rep_changes 2
    // PostgreSQL: 100_bugs 4
    let mut pair = Pair::new(lively(), SHOP);
    fill(&pair, 20_000);
    let writing = AtomicBool::new(true);
    let source = &pair.source.cluster;
    thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let writing = &writing;
                scope.spawn(move || {
                    let mut round = 0;
                    while writing.load(Ordering::Relaxed) {
                        round += 1;
                        let id = 100_000 + writer * 1_000_000 + round;
                        let written = source
                            .psql(
                                DB,
                                &format!(
                                    "begin;
                                     insert into items (id, name) values ({id}, 'new');
                                     update items set price = price + 1 where id % 997 = {round} % 997;
                                     delete from items where id = {round} * 7 + {writer};
                                     update items set id = -id where id = {round} * 11 + 3;
                                     insert into notes values ('w{writer}', '{round}');
                                     delete from notes where ctid = (select min(ctid) from notes where author = 'author 3');
                                     commit"
                                ),
                            )
                            ;
                        // The two may run into each other, and then one of them has written nothing.
                        if let Err(error) = written {
                            assert!(error.to_string().contains("deadlock detected"), "{error}");
                        }
                    }
                })
            })
            .collect();
        pair.target.node.start().unwrap();
        pair.source.node.start().unwrap();
        wait_for("the copy to arrive", Duration::from_secs(60), || {
            let count = pair.target.sql("select count(*) from items");
            (count.trim() != "0").then_some(())
        });
        thread::sleep(Duration::from_secs(2));
        writing.store(false, Ordering::Relaxed);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
    pair.wait_equal(Duration::from_secs(60));
    pair.source.sql("truncate notes; update items set details = null where id = 5");
    pair.wait_equal(Duration::from_secs(20));
    pair.source.node.stop().unwrap();
    pair.target.node.stop().unwrap();
}

#[test]
fn ten_thousand_transactions_arrive_over_a_link_that_is_cut_five_times() {
    let mut pair = Pair::new(lively(), "");
    for site in [&pair.source, &pair.target] {
        let output = site.pgbench(&["-i", "-q", "-I", "dtp"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    pair.source
        .sql("truncate pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history");
    let output = pair.source.pgbench(&["-i", "-q", "-I", "g"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The tables are published by a second init: they were not there at the first.
    pair.source.node.init().unwrap();
    pair.start();
    let mut bench = pair
        .source
        .pgbench(&["-n", "-c", "4", "-t", "2500"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(1_500));
        pair.link.cut();
        thread::sleep(Duration::from_millis(1_500));
        pair.link.restore();
    }
    assert!(bench.wait().unwrap().success());
    pair.wait_equal(Duration::from_secs(90));
    let count = pair.target.sql("select count(*) from pgbench_history");
    assert_eq!(count.trim(), "10000");
}

#[test]
fn one_transaction_of_400_000_rows_passes_a_link_that_is_cut_every_few_seconds() {
    let schema = "create table big (id int primary key, a text, b int)";
    let mut pair =
        Pair::new(Link::new(8_000_000, Duration::from_millis(25)).with_loss(0.01), schema);
    pair.source.sql("insert into big select i, md5(i::text), i from generate_series(1, 400000) i");
    pair.start();
    pair.wait_equal(Duration::from_secs(180));
    pair.source.sql("update big set b = b + 1");
    let changed = "select count(*) from big where b = id + 1";
    for round in 0.. {
        thread::sleep(Duration::from_secs(4));
        pair.link.cut();
        thread::sleep(Duration::from_secs(2));
        pair.link.restore();
        match pair.target.sql(changed).trim() {
            "0" => assert!(round < 40 * BUSY, "it did not arrive"),
            "400000" => break,
            part => panic!("{part} of 400000 rows are visible"),
        }
    }
    pair.wait_equal(Duration::from_secs(30));
}

#[test]
fn a_table_that_is_captured_later_is_copied_without_a_gap() {
    let mut pair = Pair::new(lively(), "create table first (id int primary key)");
    pair.start();
    pair.source.sql("insert into first select generate_series(1, 100)");
    pair.wait_equal(Duration::from_secs(30));
    let later = "create table later (id int primary key, t text)";
    pair.source.sql(later);
    pair.target.sql(later);
    pair.source.sql("insert into later select i, 'before' from generate_series(1, 5000) i");
    pair.source.node.init().unwrap();
    pair.target.node.init().unwrap();
    for i in 0..50 {
        pair.source.sql(&format!(
            "begin; insert into later values ({}, 'after'); update later set t = 'changed' where id = {};
             insert into first values ({}); commit",
            10_000 + i,
            i + 1,
            1_000 + i
        ));
    }
    // PostgreSQL: 001_rep_changes 30
    // PostgreSQL: 004_sync 6, 7
    // PostgreSQL: 024_add_drop_pub 1, 2
    // PostgreSQL: 100_bugs 5
    pair.wait_equal(Duration::from_secs(60));
}

#[test]
fn a_peer_that_joins_when_the_journal_was_trimmed_is_copied_to_and_others_are_not() {
    let journal = "[journal]\nretention = \"0s\"\nsegment = \"64KiB\"\nbudget = \"6MiB\"\n";
    let schema = "create table t (id bigint primary key, v text); create table u (v text)";
    let source = Site::new("edge", &format!("{CAPTURE}{journal}"), schema);
    let target = Site::new("hq", APPLY, schema);
    let mut pair = Pair::of(source, target, lively());
    pair.start();
    for round in 0..20_u64 {
        pair.source.sql(&format!(
            "insert into t select i, md5(i::text) || md5((-i)::text) from generate_series({}, {}) i;
             delete from t where id % 3 = {} % 3; insert into u values ('x'), ('y')",
            round * 2_000,
            round * 2_000 + 1_999,
            round
        ));
    }
    pair.wait_equal(Duration::from_secs(60));
    wait_for("the journal to be trimmed", Duration::from_secs(60), || {
        pair.source.sql("insert into u select md5(i::text) from generate_series(1, 3000) i");
        pair.source.status().streams[0].first.filter(|first| *first > 1)
    });
    // What is left has to fit into the small journal.
    pair.source.sql("delete from t where id < 30000; delete from u where v not like 'x%'");
    pair.source.sql("vacuum full t; vacuum full u");
    pair.wait_equal(Duration::from_secs(60));
    let mut late = Site::new("late", APPLY, schema);
    late.init();
    let (source_key, late_key) = (pair.source.key.clone(), late.key.clone());
    late.peer("edge", &source_key, None, "");
    pair.source.peer("late", &late_key, Some(late.listen), "");
    pair.source.node.stop().unwrap();
    late.node.start().unwrap();
    pair.source.node.start().unwrap();
    let tables = ["public.t", "public.u"];
    let same = |pair: &Pair, late: &Site| {
        let source = digest::digests(&pair.source.cluster, DB, &tables).unwrap();
        source == digest::digests(&late.cluster, DB, &tables).unwrap()
    };
    wait_for("the late peer to be equal", Duration::from_secs(60), || {
        same(&pair, &late).then_some(())
    });
    pair.source.sql("update t set v = 'changed' where id % 10 = 0; insert into u values ('z')");
    wait_for("it to stay equal", Duration::from_secs(30), || same(&pair, &late).then_some(()));
    pair.wait_equal(Duration::from_secs(30));
    // The copy was withheld from the first peer, which accounts for its offsets all the same.
    let journal = pair.target.node.config().with_extension("").join("journal");
    let dump =
        Command::new(binary().unwrap()).args(["journal", "dump"]).arg(journal).output().unwrap();
    let dump = String::from_utf8(dump.stdout).unwrap();
    assert_eq!(dump.matches("copy of").count(), 1, "one copy, the first");
    assert!(dump.contains("  skip "));
}
