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
const SHUTDOWN: Duration = Duration::from_secs(45);

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
fn shut_down(site: &Site, what: &str) {
    let begun = Instant::now();
    site.cluster.stop().unwrap();
    let took = begun.elapsed();
    eprintln!("{what}: the server was shut down in {took:?}");
    assert!(took < SHUTDOWN, "{what}: {took:?}");
    site.cluster.start_again().unwrap();
}

#[test]
fn a_node_that_stands_still_holds_up_neither_commits_nor_a_shutdown() {
    // The second never gives up a session by itself.
    for timeout in ["60s", "0"] {
        let options = Options::default().with("wal_sender_timeout", timeout);
        let source = Site::with("edge", CAPTURE, SCHEMA, options);
        let target = Site::new("hq", APPLY, SCHEMA);
        let mut pair = Pair::of(source, target, lively());
        pair.start();
        pair.source.sql("insert into t values (0, '')");
        pair.wait_equal(PATIENCE);
        let before = commits(&pair.source, 300);
        let stopped = Stopped::new(&pair.source);
        let during = commits(&pair.source, 300);
        let most = |times: &[Duration]| times[times.len() * 98 / 100];
        eprintln!("98 % of commits within {:?}, then {:?}", most(&before), most(&during));
        // Other programs share the disk; a commit that waits for a node waits until it goes on.
        let limit = most(&before) * 3 + Duration::from_secs(2);
        assert!(most(&during) < limit, "{:?} and {:?}", most(&before), most(&during));
        shut_down(&pair.source, &format!("a node that stands still, wal_sender_timeout {timeout}"));
        pair.source.sql("insert into t values (-1, 'after')");
        drop(stopped);
        pair.wait_equal(PATIENCE);
    }
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
    shut_down(&pair.source, "nobody to ship to");
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
    shut_down(&pair.source, "a full journal");
    commits(&pair.source, 20);
    // In the middle of a transaction that never fits.
    sleep(Duration::from_secs(1));
    shut_down(&pair.source, "a full journal again");
    pair.link.restore();
    pair.wait_equal(PATIENCE);
}
