//! A node does its source no harm: whatever holds it up, commits go on and the server is shut down at once.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use thinwire_cluster::Options;

use crate::site::{APPLY, CAPTURE, Pair, Site, lively, wait_for};

const SCHEMA: &str = "create table t (id bigint primary key, pad text)";
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a server may take to shut down on a busy machine, whatever becomes of the node: it gives up a session of ours that
/// is silent for eight seconds, and a session that finds the journal full for ten ends by itself. By default it waits a minute.
const SHUTDOWN: Duration = Duration::from_secs(25);

/// The same where the session has been given up already.
const SHUTDOWN_AT_ONCE: Duration = Duration::from_secs(20);

/// How long a node stands still under load: `THINWIRE_STILL_SECONDS`, or longer than its session is waited for.
fn still() -> Duration {
    let asked = std::env::var("THINWIRE_STILL_SECONDS").ok().and_then(|it| it.parse().ok());
    Duration::from_secs(asked.unwrap_or(12))
}

fn signal(site: &Site, signal: Signal) {
    let pid = i32::try_from(site.node.pid().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Goes on when the test is over, however it ends: a process that is stopped cannot be asked to end.
struct Stopped<'a>(&'a Site);

impl<'a> Stopped<'a> {
    fn new(site: &'a Site) -> Self {
        signal(site, Signal::STOP);
        Self(site)
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        signal(self.0, Signal::CONT);
    }
}

/// How long each of so many commits takes, in order of length.
fn commits(site: &Site, count: u32) -> Vec<Duration> {
    let statement = "insert into t select coalesce(max(id), 0) + 1, repeat('x', 100) from t;\n";
    let script = format!("\\timing on\n{}", statement.repeat(count as usize));
    let mut times: Vec<_> = site
        .sql(&script)
        .lines()
        .filter_map(|line| line.strip_prefix("Time: ")?.split_whitespace().next()?.parse().ok())
        .map(|millis: f64| Duration::from_secs_f64(millis / 1_000.0))
        .collect();
    assert_eq!(times.len(), count as usize);
    times.sort_unstable();
    times
}

/// Shuts the server down as `pg_ctl stop -m fast` does, and starts it again.
fn shut_down(site: &Site, limit: Duration, what: &str) {
    let begun = Instant::now();
    site.cluster.stop().unwrap();
    let took = begun.elapsed();
    eprintln!("{what}: the server was shut down in {took:?}");
    assert!(took < limit, "{what}: {took:?}");
    site.cluster.start_again().unwrap();
}

/// Fails unless commits take as long while the node stands still as while it runs, in turns: other programs share the disk,
/// and make some turns slow, but not most.
fn commits_take_as_long_as_ever(site: &Site) {
    let median = || commits(site, 20)[10];
    let turns: Vec<_> = (0..20)
        .map(|_| {
            let before = median();
            let _stopped = Stopped::new(site);
            (before, median())
        })
        .collect();
    let is_slower = |(before, during): &&(Duration, Duration)| {
        *during > before.mul_f64(2.0) + Duration::from_millis(2)
    };
    let slower = turns.iter().filter(is_slower).count();
    eprintln!("commits took longer in {slower} of {} turns", turns.len());
    assert!(slower <= turns.len() * 3 / 4, "medians of each turn, before and then: {turns:?}");
}

#[test]
fn a_node_that_stands_still_holds_up_neither_commits_nor_a_shutdown() {
    // The second never gives up a session by itself.
    for (timeout, still, limit) in
        [("60s", still(), SHUTDOWN_AT_ONCE), ("0", Duration::ZERO, SHUTDOWN)]
    {
        let options = Options::default().with("wal_sender_timeout", timeout);
        let source = Site::with("edge", CAPTURE, SCHEMA, options);
        let target = Site::new("hq", APPLY, SCHEMA);
        let mut pair = Pair::of(source, target, lively());
        pair.start();
        pair.source.sql("insert into t values (0, '')");
        pair.wait_equal(PATIENCE);
        commits_take_as_long_as_ever(&pair.source);
        let stopped = Stopped::new(&pair.source);
        let begun = Instant::now();
        while begun.elapsed() < still {
            // Each that waits for the node would wait for all of the time that is left.
            let slowest = commits(&pair.source, 100).pop();
            assert!(slowest < Some(Duration::from_secs(7)), "a commit took {slowest:?}");
        }
        let what = format!("a node that stands still for {still:?}, wal_sender_timeout {timeout}");
        shut_down(&pair.source, limit, &what);
        pair.source.sql("insert into t values (-1, 'after')");
        drop(stopped);
        pair.wait_equal(PATIENCE);
    }
}

#[test]
fn a_node_that_stands_still_makes_its_source_keep_no_more_log_than_it_may() {
    let (keep, checkpoint) = ("16MB", "32MB");
    let options = Options::default()
        .with("max_slot_wal_keep_size", keep)
        .with("max_wal_size", checkpoint)
        .with("wal_keep_size", "0");
    let source = Site::with("edge", CAPTURE, SCHEMA, options);
    let mut pair = Pair::of(source, Site::new("hq", APPLY, SCHEMA), lively());
    pair.start();
    pair.source.sql("insert into t values (0, '')");
    pair.wait_equal(PATIENCE);
    let stopped = Stopped::new(&pair.source);
    // A session that is told to end while it writes to a node that does not read would stay, and a checkpoint with it; it is
    // given up before.
    pair.source.sql("insert into t values (-1, 'unread')");
    wait_for("the session to be given up", PATIENCE, || {
        (pair.source.sql("select active from pg_replication_slots") == "f").then_some(())
    });
    // Three times as much as both.
    for _ in 0..4 {
        pair.source.sql("insert into t select (select max(id) from t) + i, repeat(md5(i::text), 15) from generate_series(1, 80000) i; checkpoint");
    }
    let written = "select pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) > 150e6 from pg_replication_slots";
    assert_eq!(pair.source.sql(written), "t");
    let kept: u64 = pair.source.sql("select sum(size) from pg_ls_waldir()").parse().unwrap();
    assert!(kept <= (16 + 32 + 2 * 16) << 20, "{kept} bytes of log are kept");
    drop(stopped);
    let halted =
        wait_for("the halt", PATIENCE, || pair.source.status().halted().map(|it| it.1.clone()));
    assert_eq!(halted.code, "slot_lost", "{halted:?}");
}

#[test]
fn a_full_journal_and_a_slow_link_hold_up_no_shutdown() {
    let journal = "[journal]\nbudget = \"4MiB\"\nretention = \"0s\"\nsegment = \"64KiB\"\n";
    let source = Site::new("edge", &format!("{CAPTURE}{journal}"), SCHEMA);
    let target = Site::new("hq", APPLY, SCHEMA);
    let mut pair = Pair::of(source, target, lively());
    pair.start();
    pair.source.sql("insert into t values (0, '')");
    pair.wait_equal(PATIENCE);
    pair.link.cut();
    shut_down(&pair.source, SHUTDOWN, "nobody to ship to");
    let pressure = |site: &Site| {
        let status = site.node.run(&["status", "--json"]).unwrap_or_default();
        serde_json::from_str::<serde_json::Value>(&status)
            .ok()
            .map(|it| it["journal"]["pressure"].clone())
    };
    wait_for("a full journal", PATIENCE, || {
        pair.source.sql(
            "insert into t select (select max(id) from t) + i, md5(random()::text) || md5(random()::text) || md5(random()::text)
             from generate_series(1, 5000) i",
        );
        (pressure(&pair.source)? == "hold_wal").then_some(())
    });
    // The server's log is held, and has to be: what is not in the journal is nowhere else.
    commits(&pair.source, 20);
    shut_down(&pair.source, SHUTDOWN, "a full journal");
    commits(&pair.source, 20);
    // In the middle of a transaction that never fits.
    sleep(Duration::from_secs(1));
    shut_down(&pair.source, SHUTDOWN, "a full journal again");
    pair.link.restore();
    pair.wait_equal(PATIENCE);
}
