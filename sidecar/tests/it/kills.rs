//! Exactly once and in order, whatever is killed: the target is always a prefix of the source's commits.
//!
//! `THINWIRE_KILL_CYCLES` sets how often each process is killed; the default keeps the suite short.

use std::{
    env,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use thinwire_bench::node::Node;
use thinwire_cluster::Cluster;

use crate::site::{DB, Pair, lively, wait_for};

/// A counter that each transaction moves by one and writes down, and a bank whose total never changes.
const SCHEMA: &str = "
    create table counter (id int primary key, n bigint not null);
    create table ledger (n bigint primary key, note text not null);
    create table bank (id int primary key, balance bigint not null);
    insert into counter values (1, 0);
    insert into bank select i, 1000 from generate_series(1, 20) i;
";

fn transaction(n: u64) -> String {
    let (from, to) = (n % 20 + 1, (n * 7 + 3) % 20 + 1);
    format!(
        "begin;
         update counter set n = n + 1 where id = 1;
         insert into ledger select n, 'written by ' || n from counter where id = 1;
         update bank set balance = balance - {n} where id = {from};
         update bank set balance = balance + {n} where id = {to};
         commit;"
    )
}

/// One line: whether what is visible is a prefix, and how long it is; and since when the server
/// runs, because what is visible is durable only a moment later.
const PREFIX: &str = "
    begin isolation level repeatable read;
    select coalesce((select n from counter), 0) || ' ' || (select count(*) from ledger) || ' ' ||
        coalesce((select max(n) from ledger), 0) || ' ' ||
        coalesce((select sum(balance) from bank), 20000) || ' ' ||
        (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint;
    commit;
";

struct Load<'a> {
    running: &'a AtomicBool,
    done: &'a AtomicU64,
}

impl Load<'_> {
    /// Writes without pause; what fails because the server was killed is tried again.
    fn write(&self, source: &Cluster) {
        let mut n = 0;
        while self.running.load(Ordering::Relaxed) {
            let script: String = (0..20).map(|i| transaction(n + i)).collect();
            match source.psql(DB, &script) {
                Ok(_) => {
                    n += 20;
                    self.done.fetch_add(20, Ordering::Relaxed);
                }
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Looks at the target all the time.
    fn watch(&self, target: &Cluster) {
        let (mut last, mut since) = (0_u64, 0_u64);
        while self.running.load(Ordering::Relaxed) {
            if let Ok(line) = target.psql(DB, PREFIX) {
                let seen: Vec<u64> =
                    line.split_whitespace().map(|word| word.parse().unwrap()).collect();
                assert_eq!(seen[0], seen[1], "counter and ledger");
                assert_eq!(seen[1], seen[2], "ledger without gaps");
                assert_eq!(seen[3], 20_000, "the bank's total");
                let is_same = std::mem::replace(&mut since, seen[4]) == seen[4];
                assert!(!is_same || seen[0] >= last, "went back from {last} to {}", seen[0]);
                last = seen[0];
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn cycles() -> u32 {
    env::var("THINWIRE_KILL_CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// Lets at least a hundred transactions pass, so that there are some in flight.
fn let_pass(done: &AtomicU64) {
    let from = done.load(Ordering::Relaxed);
    wait_for("a hundred transactions", Duration::from_secs(60), || {
        (done.load(Ordering::Relaxed) >= from + 100).then_some(())
    });
}

/// What may be killed.
struct Victims<'a> {
    source: &'a Cluster,
    target: &'a Cluster,
    edge: &'a mut Node,
    hq: &'a mut Node,
}

/// Kills again and again while transactions are in flight, then lets everything arrive and compares.
fn under_load(kill: impl Fn(&mut Victims<'_>)) {
    let mut pair = Pair::new(lively(), SCHEMA);
    pair.target.sql("truncate counter, bank");
    pair.start();
    pair.wait_equal(Duration::from_secs(60));
    let (running, done) = (AtomicBool::new(true), AtomicU64::new(0));
    let load = Load { running: &running, done: &done };
    let mut victims = Victims {
        source: &pair.source.cluster,
        target: &pair.target.cluster,
        edge: &mut pair.source.node,
        hq: &mut pair.target.node,
    };
    thread::scope(|scope| {
        let _stop = StopOnDrop(&running);
        let (load, source, target) = (&load, victims.source, victims.target);
        scope.spawn(move || load.write(source));
        scope.spawn(move || load.watch(target));
        for _ in 0..cycles() {
            let_pass(&done);
            kill(&mut victims);
        }
        let_pass(&done);
    });
    pair.wait_equal(Duration::from_secs(60));
}

/// Ends the load also when the test fails.
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
fn a_killed_source_sidecar_loses_and_repeats_nothing() {
    under_load(|victims| {
        victims.edge.kill9().unwrap();
        thread::sleep(Duration::from_millis(300));
        victims.edge.start().unwrap();
    });
}

#[test]
fn a_killed_target_sidecar_loses_and_repeats_nothing() {
    under_load(|victims| {
        victims.hq.kill9().unwrap();
        thread::sleep(Duration::from_millis(300));
        victims.hq.start().unwrap();
    });
}

#[test]
fn a_killed_source_database_loses_and_repeats_nothing() {
    under_load(|victims| {
        victims.source.kill9().unwrap();
        victims.source.start_again().unwrap();
    });
}

#[test]
fn a_killed_target_database_loses_and_repeats_nothing() {
    under_load(|victims| {
        victims.target.kill9().unwrap();
        victims.target.start_again().unwrap();
    });
}

#[test]
fn all_of_them_killed_together_lose_and_repeat_nothing() {
    under_load(|victims| {
        victims.edge.kill9().unwrap();
        victims.target.kill9().unwrap();
        victims.hq.kill9().unwrap();
        victims.source.kill9().unwrap();
        victims.source.start_again().unwrap();
        victims.edge.start().unwrap();
        victims.hq.start().unwrap();
        victims.target.start_again().unwrap();
    });
}

#[test]
fn nodes_killed_while_the_first_copy_is_read_and_loaded_leave_no_trace_of_it() {
    let schema = "create table t (id int primary key, v text); create table keyless (v text)";
    let mut pair = Pair::new(lively(), schema);
    pair.source.sql(
        "insert into t select i, md5(i::text) from generate_series(1, 150000) i;
         insert into keyless select 'v' || i % 1000 from generate_series(1, 50000) i",
    );
    let loaded = |pair: &Pair| pair.target.sql("select count(*) from t").trim().to_owned();
    pair.target.node.start().unwrap();
    for cycle in 0..cycles() + 2 {
        pair.source.node.start().unwrap();
        thread::sleep(Duration::from_millis(150 + u64::from(cycle) * 130));
        pair.source.node.kill9().unwrap();
        pair.source.sql(&format!(
            "insert into t values (-{cycle} - 1, 'meanwhile'); delete from t where id = {cycle}"
        ));
    }
    pair.source.node.start().unwrap();
    for cycle in 0..cycles() + 2 {
        wait_for("a whole copy to arrive", Duration::from_secs(60), || {
            let status = pair.target.status();
            let stream = status.streams.first()?;
            (stream.synced? > 150_000).then_some(())
        });
        thread::sleep(Duration::from_millis(50 + u64::from(cycle) * 90));
        pair.target.node.kill9().unwrap();
        let count = loaded(&pair);
        assert!(count == "0" || count.parse::<u64>().unwrap() >= 149_000, "{count} rows of a copy");
        pair.target.node.start().unwrap();
    }
    pair.wait_equal(Duration::from_secs(90));
}
