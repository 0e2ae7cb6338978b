//! A process that is killed, or refused, at any of its system calls: all that it acknowledged is there.
//!
//! `THINWIRE_REAL_CALLS_PERCENT` sets how many of the calls of a run are tried; which ones follows from
//! `THINWIRE_REAL_SEED`.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Instant};

use crate::{
    model::Model,
    say, setting, skip,
    work::{Random, open},
};

#[test]
fn a_process_killed_at_any_system_call_has_acknowledged_only_what_is_there() {
    each_call("kills at system calls", &KILLED, &["signal=KILL"]);
}

#[test]
fn a_process_refused_at_any_system_call_has_acknowledged_only_what_is_there() {
    let errors = ["error=EIO", "error=ENOSPC", "error=EMFILE"];
    each_call("errors at system calls", &REFUSED, &errors);
}

/// Everything that the journal asks of the system, and what it is told by.
const KILLED: [&str; 14] = [
    "mkdir",
    "openat",
    "flock",
    "getdents64",
    "fadvise64",
    "pread64",
    "pwrite64",
    "pwritev",
    "fdatasync",
    "fsync",
    "ftruncate",
    "unlink",
    "rename",
    "write",
];
const REFUSED: [&str; 8] =
    ["fdatasync", "fsync", "pwrite64", "pwritev", "openat", "ftruncate", "unlink", "rename"];

fn each_call(what: &str, calls: &[&str], manners: &[&str]) {
    let started = Instant::now();
    let probe = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return skip(what, "strace is not there, or may not trace");
    }
    let all = calls_of_a_run(calls);
    let (share, seed) =
        (setting("THINWIRE_REAL_CALLS_PERCENT", 20), setting("THINWIRE_REAL_SEED", 1));
    let (mut random, mut tried, mut acked) = (Random(seed), 0, 0);
    for (call, number) in &all {
        let manner = manners[random.below(manners.len())];
        if random.below(100) as u64 >= share {
            continue;
        }
        tried += 1;
        acked += interrupted(call, &format!("inject={call}:{manner}:when={number}"));
    }
    say(format!(
        "{what}: {tried} of the {} of a run; {acked} records acknowledged, lost: 0; false halts: 0; {:.1} s",
        all.len(),
        started.elapsed().as_secs_f64()
    ));
}

/// The calls that an undisturbed run makes for its journal, each with its number among those of its kind.
fn calls_of_a_run(calls: &[&str]) -> Vec<(String, u32)> {
    let folder = tempfile::tempdir().unwrap();
    let (dir, log) = (folder.path().join("journal"), folder.path().join("log"));
    let traced = format!("trace={}", calls.join(","));
    let (well, said) = strace(&["-o", &log.to_string_lossy(), "-e", &traced], &dir);
    assert!(well, "an undisturbed run failed; it said:\n{said}");
    let (mut seen, mut all) = (BTreeMap::<String, u32>::new(), Vec::new());
    for line in fs::read_to_string(log).unwrap().lines() {
        let named = line.split_whitespace().nth(1).and_then(|word| word.split_once('('));
        let Some((call, _)) = named.filter(|(call, _)| calls.contains(call)) else { continue };
        let number = seen.entry(call.to_owned()).or_default();
        *number += 1;
        // What the loader opens and reads before the program begins is none of ours.
        if all.is_empty() && !line.contains(&*dir.to_string_lossy()) {
            continue;
        }
        all.push((call.to_owned(), *number));
    }
    assert!(all.len() > 100, "only {} calls were seen", all.len());
    for call in calls {
        assert!(all.iter().any(|(seen, _)| seen == call), "{call} is never called");
    }
    all
}

/// Runs with a fault, then checks what is there; returns how much was acknowledged.
fn interrupted(call: &str, fault: &str) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let (dir, log) = (folder.path().join("journal"), folder.path().join("log"));
    let (log_name, traced) = (log.to_string_lossy(), format!("trace={call}"));
    let options = ["-o", &*log_name, "-e", &traced, "-e", fault];
    let (well, said) = strace(&options, &dir);
    let refused = fs::read_to_string(&log).unwrap().contains("INJECTED");
    assert!(!well || refused, "{fault} did not happen");
    let mut model = Model::default();
    said.lines().for_each(|line| model.hear(line.parse().unwrap()));
    let opened = open(&dir);
    let (_journal, stream) = opened.unwrap_or_else(|error| panic!("{fault}: {error}"));
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| model.check(&stream)));
    assert!(checked.is_ok(), "{fault}, seed {WORK_SEED}, journal said:\n{said}");
    model.acked()
}

/// Runs `torture` under strace; returns whether it ended well, and what it said.
fn strace(options: &[&str], dir: &Path) -> (bool, String) {
    let output = Command::new("strace")
        .args(["-f", "-qq"])
        .args(options)
        .arg(env!("CARGO_BIN_EXE_torture"))
        .arg(dir)
        .args([WORK_SEED, ACTS])
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

/// A run that rotates, trims and opens many segments.
const ACTS: &str = "150";
const WORK_SEED: &str = "7";
