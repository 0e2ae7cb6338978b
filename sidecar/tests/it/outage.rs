//! The far side is gone: the source's log stays flat, nothing unapplied is trimmed, full nodes come unstuck.

use std::{thread::sleep, time::Duration};

use thinwire_bench::link::Link;

use crate::site::{APPLY, CAPTURE, Pair, Site, lively, wait_for};

const SCHEMA: &str = "create table t (id bigint primary key, pad text)";

fn confirmed(site: &Site) -> u64 {
    let lsn = site.sql(
        "select confirmed_flush_lsn - '0/0'::pg_lsn from pg_replication_slots where not temporary",
    );
    lsn.trim().parse().unwrap()
}

fn retained(site: &Site) -> u64 {
    let bytes = site.sql(
        "select pg_current_wal_lsn() - restart_lsn from pg_replication_slots where not temporary",
    );
    bytes.trim().parse().unwrap()
}

#[test]
fn with_the_far_side_gone_the_slot_moves_on_and_the_log_stays_flat() {
    let mut pair = Pair::new(lively(), SCHEMA);
    pair.source.node.start().unwrap();
    pair.source.sql("insert into t values (0, '')");
    for round in 1..=8_u64 {
        let before = confirmed(&pair.source);
        pair.source.sql(&format!(
            "insert into t select i, repeat(md5(i::text), 20) from generate_series({}, {}) i; checkpoint",
            round * 4_000,
            round * 4_000 + 3_999
        ));
        wait_for("the confirmed position to move", Duration::from_secs(20), || {
            (confirmed(&pair.source) > before).then_some(())
        });
    }
    // 8 rounds wrote more than 25 MB of log; what is retained is what the last moments wrote.
    let flat = wait_for("the log to be let go", Duration::from_secs(40), || {
        pair.source.sql("checkpoint; insert into t values ((select max(id) + 1 from t), '')");
        let bytes = retained(&pair.source);
        (bytes < 8 << 20).then_some(bytes)
    });
    assert!(flat < 8 << 20);
    pair.target.node.start().unwrap();
    pair.wait_equal(Duration::from_secs(60));
}

#[test]
fn an_idle_database_lets_go_of_its_log_too() {
    let mut pair = Pair::new(lively(), SCHEMA);
    pair.source.node.start().unwrap();
    pair.source.cluster.create_database("other").unwrap();
    let before = confirmed(&pair.source);
    // Log of a database that is not captured at all.
    pair.source
        .cluster
        .psql("other", "create table o as select i, md5(i::text) from generate_series(1, 20000) i")
        .unwrap();
    wait_for("the confirmed position to move", Duration::from_secs(60), || {
        (confirmed(&pair.source) > before + (1 << 20)).then_some(())
    });
    pair.source.node.stop().unwrap();
}

#[test]
fn with_a_halted_apply_nothing_unapplied_is_trimmed_and_it_goes_on_once_mended() {
    let journal = "[journal]\nbudget = \"8MiB\"\nretention = \"0s\"\nsegment = \"64KiB\"\n";
    let source = Site::new("edge", &format!("{CAPTURE}{journal}"), SCHEMA);
    let target = Site::new("hq", &format!("{APPLY}{journal}"), SCHEMA);
    let mut pair = Pair::of(source, target, lively());
    pair.start();
    pair.source.sql("insert into t values (1, 'first')");
    pair.wait_equal(Duration::from_secs(30));
    pair.target.sql("alter table t rename to hidden");
    pair.source.sql("insert into t values (2, 'halts')");
    let halted = wait_for("the halt", Duration::from_secs(30), || {
        pair.target.status().halted().map(|(_, halted)| halted.clone())
    });
    assert_eq!(halted.code, "missing_table");
    assert_eq!(halted.table.as_deref(), Some("public.t"));
    assert!(halted.offset.is_some());
    for round in 1..=30_u64 {
        pair.source.sql(&format!(
            "insert into t select i, md5(i::text) || md5((-i)::text) from generate_series({}, {}) i",
            round * 4_000,
            round * 4_000 + 3_999
        ));
    }
    sleep(Duration::from_secs(5));
    let stream = pair.target.status().streams[0].clone();
    assert!(stream.first <= stream.applied.map(|applied| applied + 1), "{stream:?}");
    pair.target.sql("alter table hidden rename to t");
    pair.target.node.run(&["retry"]).unwrap();
    pair.wait_equal(Duration::from_secs(90));
    pair.target.goes_on();
}

#[test]
fn two_full_nodes_that_send_to_each_other_come_unstuck() {
    let journal = "[journal]\nbudget = \"4MiB\"\nretention = \"0s\"\nsegment = \"64KiB\"\n";
    let schema = "create table a (id bigint primary key, pad text); create table b (id bigint primary key, pad text)";
    let only = |table: &str| {
        format!("[capture]\nmode = \"slot\"\ntables = [\"public.{table}\"]\n{APPLY}{journal}")
    };
    let source = Site::new("left", &only("a"), schema);
    let target = Site::new("right", &only("b"), schema);
    let mut pair = Pair::of(source, target, lively());
    pair.link.cut();
    pair.start();
    let fill = |site: &Site, table: &str| {
        for round in 0..12_u64 {
            site.sql(&format!(
                "insert into {table} select i, md5(i::text) || md5((-i)::text) || md5((i * 7)::text)
                 from generate_series({}, {}) i",
                round * 5_000,
                round * 5_000 + 4_999
            ));
        }
    };
    fill(&pair.source, "a");
    fill(&pair.target, "b");
    for site in [&pair.source, &pair.target] {
        wait_for("the journal to be full", Duration::from_secs(60), || {
            let journal = site.status().journal;
            (journal.bytes * 10 > journal.budget_bytes * 6).then_some(())
        });
    }
    pair.link.restore();
    pair.wait_equal(Duration::from_secs(120));
}

/// Bytes that a first copy puts on the wire, with the link cut so many times while it runs.
fn first_copy_bytes(cuts: u32) -> u64 {
    let link = Link::new(8_000_000, Duration::from_millis(10));
    let mut pair = Pair::new(link, SCHEMA);
    // Random digits, so that a cut costs a small part of what there is to send.
    pair.source.sql(
        "select setseed(0.5);
         insert into t select i, md5(random()::text) || md5(random()::text) || md5(random()::text)
             || md5(random()::text) || md5(random()::text) || md5(random()::text) || md5(random()::text)
         from generate_series(1, 80000) i",
    );
    pair.start();
    wait_for("the copy to begin on the link", Duration::from_secs(60), || {
        (pair.link.stats().up.delivered.bytes > 100_000).then_some(())
    });
    for _ in 0..cuts {
        sleep(Duration::from_millis(300));
        pair.link.cut();
        sleep(Duration::from_millis(400));
        pair.link.restore();
    }
    assert_eq!(
        pair.target.sql("select count(*) from t").trim(),
        "0",
        "it was over before the cuts"
    );
    pair.wait_equal(Duration::from_secs(120));
    let stats = pair.link.stats();
    stats.carried_bytes()
}

#[test]
fn a_first_copy_that_is_cut_ten_times_sends_hardly_more_than_one_that_is_not() {
    let (smooth, cut) = (first_copy_bytes(0), first_copy_bytes(10));
    assert!(cut * 10 <= smooth * 11, "{cut} bytes with cuts, {smooth} without");
}

#[test]
fn a_full_journal_lets_go_of_the_slot_if_told_so_and_copies_again_when_there_is_room() {
    let journal = "[journal]\nbudget = \"4MiB\"\nretention = \"0s\"\nsegment = \"64KiB\"\non_full = \"resync\"\n";
    let schema = "create table t (id bigint primary key, pad text); create table u (v text)";
    let source = Site::new("edge", &format!("{CAPTURE}{journal}"), schema);
    let target = Site::new("hq", APPLY, schema);
    let mut pair = Pair::of(source, target, lively());
    pair.source.sql("insert into t select i, md5(i::text) from generate_series(1, 500) i; insert into u values ('a'), ('a')");
    pair.start();
    pair.wait_equal(Duration::from_secs(30));
    pair.link.cut();
    let slots = |pair: &Pair| {
        pair.source
            .sql("select count(*) from pg_replication_slots where not temporary")
            .trim()
            .to_owned()
    };
    wait_for("the slot to be let go of", Duration::from_secs(90), || {
        pair.source.sql("update t set pad = md5(random()::text || pad) || md5(random()::text)");
        (slots(&pair) == "0").then_some(())
    });
    pair.source.sql("delete from t where id > 400; insert into u values ('b'); update t set pad = 'end' where id = 7");
    pair.source.sql("vacuum full t; vacuum full u");
    // Killed now, it still knows what it did.
    pair.source.node.kill9().unwrap();
    pair.source.node.start().unwrap();
    pair.link.restore();
    pair.wait_equal(Duration::from_secs(90));
    assert_eq!(slots(&pair), "1");
    pair.source.sql("update t set pad = 'after' where id = 9; insert into u values ('c')");
    pair.wait_equal(Duration::from_secs(30));
}
