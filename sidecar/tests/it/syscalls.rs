//! Exactly once, whichever system call is the last that the source's sidecar makes.
//!
//! `THINWIRE_CALL_CYCLES` sets how often it is killed, `THINWIRE_REAL_SEED` at which calls; skipped with a line on stderr where
//! strace is missing or may not trace.

use std::{
    collections::BTreeMap,
    env,
    io::{Write, stderr},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use thinwire_bench::{node::Node, random::Random};
use thinwire_cluster::Cluster;

use crate::{
    kills::StopOnDrop,
    site::{DB, Pair, lively},
    skip,
};

/// What changes the disk, and what others are told by; with the most calls of its kind that a thread may still make,
/// because they are counted for each thread. Those with few are made while it starts, mostly.
const CALLS: [(&str, u64); 8] = [
    ("fdatasync", 12),
    ("pwritev", 12),
    ("sendmsg", 12),
    ("openat", 3),
    ("pwrite64", 2),
    ("fsync", 2),
    ("ftruncate", 2),
    ("rename", 1),
];
/// A process that never comes to its call is killed by us.
const PATIENCE: Duration = Duration::from_secs(2);

#[test]
fn a_sidecar_killed_at_any_system_call_loses_and_repeats_nothing() {
    if let Err(reason) = can_trace() {
        return skip("kills at system calls", &reason);
    }
    let mut pair = Pair::new(lively(), "create table ledger (n bigint primary key, note text)");
    pair.start();
    let (cycles, seed) = (setting("THINWIRE_CALL_CYCLES", 24), setting("THINWIRE_REAL_SEED", 1));
    let (running, started) = (AtomicBool::new(true), Instant::now());
    let (source, node) = (&pair.source.cluster, &mut pair.source.node);
    let killed = thread::scope(|scope| {
        let _stop = StopOnDrop(&running);
        scope.spawn(|| write(source, &running));
        let mut random = Random::new(seed);
        let mut killed = BTreeMap::<&str, u64>::new();
        for _ in 0..cycles {
            let (call, most) = *random.pick(&CALLS);
            // Others come while it works, too.
            thread::sleep(Duration::from_millis(if most > 3 { random.below(800) } else { 0 }));
            let number = random.below(most) + 1;
            *killed.entry(call).or_default() += u64::from(kill_at(node, call, number));
        }
        killed
    });
    pair.wait_equal(Duration::from_secs(60));
    assert!(killed.values().sum::<u64>() > 0, "no kill ever came");
    let rows = pair.target.sql("select count(*) from ledger");
    say(&format!(
        "kills of a sidecar at system calls, seed {seed}: {killed:?} of {cycles}; {} rows, equal; {:.1} s",
        rows.trim(),
        started.elapsed().as_secs_f64()
    ));
}

/// Has it killed at one of its next calls of a kind, then starts it again. Whether the call came.
fn kill_at(node: &mut Node, call: &str, number: u64) -> bool {
    let pid = node.pid().unwrap();
    let fault = format!("inject={call}:signal=KILL:when={number}");
    let mut tracer = strace(&["-f", "-qq", "-e", &format!("trace={call}"), "-e", &fault])
        .args(["-p", &pid.to_string()])
        .spawn()
        .unwrap();
    // It ends with the process that it traces.
    let came = ends_within(&mut tracer, PATIENCE);
    node.kill9().unwrap();
    tracer.wait().unwrap();
    node.start().unwrap();
    came
}

fn strace(options: &[&str]) -> Command {
    let mut command = Command::new("strace");
    command.args(options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn ends_within(child: &mut Child, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Why not, if not.
fn can_trace() -> Result<(), String> {
    let mut sleeping = Command::new("sleep").arg("10").spawn().unwrap();
    let mut tracer = strace(&["-qq", "-p", &sleeping.id().to_string()]).spawn();
    let attached = match &mut tracer {
        Ok(tracer) => !ends_within(tracer, Duration::from_millis(300)),
        Err(_) => false,
    };
    sleeping.kill().unwrap();
    sleeping.wait().unwrap();
    match (tracer, attached) {
        (Err(error), _) => Err(format!("strace cannot be started: {error}")),
        (Ok(mut tracer), attached) => {
            tracer.wait().unwrap();
            attached.then_some(()).ok_or_else(|| "strace cannot trace here".to_owned())
        }
    }
}

/// Writes a few transactions at a time, without end.
fn write(source: &Cluster, running: &AtomicBool) {
    let mut n = 0_u64;
    while running.load(Ordering::Relaxed) {
        let script: String = (n..n + 10)
            .map(|n| format!("insert into ledger values ({n}, repeat('{n} ', 40));"))
            .collect();
        source.psql(DB, &script).unwrap();
        n += 10;
        thread::sleep(Duration::from_millis(5));
    }
}

fn setting(name: &str, usual: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Says something to whoever runs the tests, also when they pass.
fn say(text: &str) {
    stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}
