//! Exactly once, whichever system call is the last that a sidecar makes, and whatever it is refused by the disk.
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
    site::{APPLY, CAPTURE, DB, Pair, Site, lively, wait_for},
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
    let source = &pair.source.cluster;
    let mut nodes = [&mut pair.source.node, &mut pair.target.node];
    let killed = thread::scope(|scope| {
        let _stop = StopOnDrop(&running);
        scope.spawn(|| write(source, &running));
        let mut random = Random::new(seed);
        let mut killed = BTreeMap::<_, u64>::new();
        for _ in 0..cycles {
            nodes.rotate_left(1);
            let node = &mut *nodes[0];
            let (call, most) = *random.pick(&CALLS);
            // Others come while it works, too.
            thread::sleep(Duration::from_millis(if most > 3 { random.below(800) } else { 0 }));
            let number = random.below(most) + 1;
            let came = kill_at(node, call, number);
            *killed.entry((node.name().to_owned(), call)).or_default() += u64::from(came);
        }
        killed
    });
    pair.wait_equal(Duration::from_secs(60));
    for name in [pair.source.node.name(), pair.target.node.name()] {
        let came: u64 = killed.iter().filter(|((of, _), _)| of == name).map(|(_, came)| came).sum();
        assert!(came > 0, "no kill of {name} ever came");
    }
    let rows = pair.target.sql("select count(*) from ledger");
    say(&format!(
        "kills of sidecars at system calls, seed {seed}: {killed:?} of {cycles}; {} rows, equal; {:.1} s",
        rows.trim(),
        started.elapsed().as_secs_f64()
    ));
}

#[test]
fn a_sidecar_whose_disk_refuses_a_sync_ends_with_the_reason_and_loses_nothing() {
    if let Err(reason) = can_trace() {
        return skip("failing syncs", &reason);
    }
    let schema = "create table ledger (n bigint primary key, note text)";
    let [source, target] = [("edge", CAPTURE), ("hq", APPLY)].map(|(name, sections)| {
        Site::new(name, &format!("{sections}[journal]\nsegment = \"64KiB\"\n"), schema)
    });
    let mut pair = Pair::of(source, target, lively());
    pair.start();
    let mut n = 0;
    let mut insert = |pair: &Pair, notes: u64| {
        pair.source.sql(&format!(
            "insert into ledger select i, md5(i::text) || md5((-i)::text) from generate_series({n}, {}) i",
            n + notes - 1
        ));
        n += notes;
    };
    insert(&pair, 1);
    pair.wait_equal(Duration::from_secs(60));
    // The sync of a group; and of the names in a folder, when a segment begins.
    for call in ["fdatasync", "fsync"] {
        for at_source in [true, false] {
            let site = if at_source { &pair.source } else { &pair.target };
            let pid = site.node.pid().unwrap().to_string();
            let fault = format!("inject={call}:error=EIO");
            let trace = format!("trace={call}");
            let mut tracer =
                strace(&["-f", "-qq", "-e", &trace, "-e", &fault, "-p", &pid]).spawn().unwrap();
            // Whenever it has taken hold, there is something to sync.
            let ended = wait_for("the end of the sidecar", Duration::from_secs(20), || {
                insert(&pair, 500);
                let site = if at_source { &mut pair.source } else { &mut pair.target };
                site.node.check().err()
            });
            tracer.wait().unwrap();
            let ended = ended.to_string();
            assert!(ended.contains("exit status: 1") && ended.contains("storage_fault"), "{ended}");
            insert(&pair, 10);
            let site = if at_source { &mut pair.source } else { &mut pair.target };
            site.node.start().unwrap();
            pair.wait_equal(Duration::from_secs(60));
        }
    }
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
