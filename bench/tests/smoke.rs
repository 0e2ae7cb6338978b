//! A small run on each emulator, with everything real: servers, sidecars, packets.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use thinwire_bench::emulator::Kind;
use thinwire_bench::progress::Progress;
use thinwire_bench::report::{self, Outcome, Run};
use thinwire_bench::run::scenario::{self, BETWEEN_OUTAGES, Disturbance};
use thinwire_bench::run::{Spec, run};
use thinwire_bench::stop::Stop;
use thinwire_bench::{
    link::{
        Link,
        ladder::{self, Rung},
        trace,
    },
    node, workload,
};

/// A little of a workload, at once.
fn spec(emulator: Kind, scenario: &str) -> Spec {
    Spec {
        link: ladder::GEO,
        workload: workload::find("state").unwrap(),
        scenario: scenario::find(scenario).unwrap(),
        size: 150,
        rate: 10.0,
        seconds: Duration::from_secs(2),
        cut_every: None,
        native: false,
        beside: None,
        emulator,
        seed: 1,
        patience: Duration::from_secs(120),
        trace: None,
        peer: None,
        pglogical: false,
    }
}

/// Nothing where the program is not built.
fn played(spec: &Spec) -> Option<Run> {
    if let Err(error) = node::binary() {
        eprintln!("skipped: {error:#}");
        return None;
    }
    Some(run(spec, &Stop::default(), &Progress::new(true)).unwrap())
}

/// What Thinwire did, which has come to its end with the same in both databases.
fn equal(spec: &Spec) -> Option<Outcome> {
    let run = played(spec)?;
    let [outcome] = run.outcomes.as_slice() else { panic!("{run:?}") };
    assert_eq!((outcome.finished, outcome.equal), (true, Some(true)), "{run:?}");
    Some(outcome.clone())
}

fn backlog(emulator: Kind, native: bool) -> Option<Run> {
    played(&Spec { native, ..spec(emulator, "backlog") })
}

#[test]
fn a_backlog_drains_through_the_proxy_for_anybody() {
    let Some(run) = backlog(Kind::Udp, false) else { return };
    let [thinwire] = run.outcomes.as_slice() else { panic!("{run:?}") };
    assert_eq!((thinwire.finished, thinwire.equal, run.size), (true, Some(true), 150), "{run:?}");
    // A packet each way at least, and the least that the link takes for them.
    assert!(thinwire.up_bytes > 1_000 && thinwire.down_bytes > 28, "{run:?}");
    assert!(thinwire.seconds > 0.62, "{run:?}");
}

#[test]
fn both_drain_the_same_backlog_through_the_tunnel() {
    if Kind::best() != Kind::Tun {
        eprintln!("skipped: only root can make network namespaces and TUN devices");
        return;
    }
    let Some(run) = backlog(Kind::Tun, true) else { return };
    let [thinwire, native] = run.outcomes.as_slice() else { panic!("{run:?}") };
    assert!(thinwire.finished && native.finished, "{run:?}");
    assert_eq!((thinwire.equal, native.equal), (Some(true), Some(true)), "{run:?}");
    let floor = run.floor.unwrap();
    assert!(floor.compressed_bytes < floor.stream_bytes, "{floor:?}");
    assert!(floor.compressed_bytes < native.up_bytes, "{run:?}");
    assert!(thinwire.up_bytes < native.up_bytes, "{run:?}");
    let folder = tempfile::tempdir().unwrap();
    report::write(folder.path(), &[run]).unwrap();
    for name in ["results.json", "results.csv", "report.html"] {
        let text = fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(text.contains("native") && text.contains("thinwire-bench run"), "{name}");
    }
}

#[test]
fn pglogical_drains_it_too_where_it_is_installed() {
    if Kind::best() != Kind::Tun {
        eprintln!("skipped: only root can make network namespaces and TUN devices");
        return;
    }
    let spec = Spec { pglogical: true, ..spec(Kind::Tun, "backlog") };
    let Some(run) = played(&spec) else { return };
    match run.outcomes.as_slice() {
        [_] => eprintln!("skipped: pglogical is not installed"),
        [_, pglogical] => {
            assert_eq!(pglogical.contender, "pglogical");
            assert_eq!((pglogical.finished, pglogical.equal), (true, Some(true)), "{run:?}");
        }
        _ => panic!("{run:?}"),
    }
}

#[test]
fn a_copy_is_timed_from_its_first_packet() {
    let Some(run) = played(&spec(Kind::Udp, "copy")) else { return };
    let [outcome] = run.outcomes.as_slice() else { panic!("{run:?}") };
    assert_eq!((outcome.equal, outcome.goal), (Some(true), 60), "{outcome:?}");
    assert!(outcome.seconds > 0.62 && outcome.up_bytes > 1_000, "{outcome:?}");
    let floor = run.floor.unwrap();
    assert!((100..floor.stream_bytes).contains(&floor.compressed_bytes), "{floor:?}");
}

#[test]
fn a_backlog_drains_through_cuts_and_new_addresses() {
    // More than the link carries until it is cut, which is not a megabyte.
    let (workload, size) = (workload::PHOTOS, 800);
    let cut_every = Some(Duration::from_secs(4));
    let cut = Spec { workload, size, cut_every, ..spec(Kind::Udp, "cuts") };
    let Some(outcome) = equal(&cut) else { return };
    assert!(outcome.points.iter().any(|point| !point.up), "{outcome:?}");
    let mut moving = spec(Kind::Udp, "address");
    moving.scenario.disturbance.readdress_every = Some(Duration::from_secs(1));
    equal(&moving);
}

#[test]
fn a_copy_comes_to_its_end_through_cuts_that_leave_time_for_a_part_of_it() {
    // A megabyte and a half at 250 kB a second, two seconds of every three.
    let link = Rung::new("line", "", Link::new(2_000_000, Duration::from_millis(30)));
    let (workload, cut_every) = (workload::find("album").unwrap(), Some(Duration::from_secs(3)));
    let cut = Spec { link, workload, cut_every, ..spec(Kind::Udp, "copy-cuts") };
    let Some(outcome) = equal(&cut) else { return };
    assert_eq!(outcome.goal, 1_500, "{outcome:?}");
    assert!(outcome.seconds > 8.0, "{outcome:?}");
    assert!(outcome.points.windows(2).filter(|pair| pair[0].up && !pair[1].up).count() > 1);
}

#[test]
fn each_transaction_of_a_trickle_is_timed() {
    let Some(outcome) = equal(&spec(Kind::Udp, "trickle")) else { return };
    let latency = outcome.latency.unwrap();
    assert_eq!(latency.count, 20);
    assert!(latency.p50_ms > 300.0, "half of the link's round trip at least: {latency:?}");
    assert!(outcome.seconds > 1.9, "{outcome:?}");
}

#[test]
fn the_whole_of_outages_is_counted() {
    const OUTAGES: [Duration; 1] = [Duration::from_secs(1)];
    let mut spec = spec(Kind::Udp, "outages");
    spec.scenario.disturbance = Disturbance { outages: &OUTAGES, ..Disturbance::NONE };
    let Some(outcome) = equal(&spec) else { return };
    assert!(outcome.seconds > (BETWEEN_OUTAGES + Duration::from_secs(1)).as_secs_f64());
    assert_eq!(outcome.stalls_ms.len(), 1, "{outcome:?}");
    assert!(outcome.settled_ms.unwrap() >= outcome.stalls_ms[0] - 1_000.0, "{outcome:?}");
    assert!(outcome.points.iter().any(|point| !point.up), "{outcome:?}");
    let calm = BETWEEN_OUTAGES.as_secs_f64() - 1.0;
    let before = outcome.points.iter().take_while(|point| point.seconds < calm).last().unwrap();
    assert!(before.up && before.done > 0 && before.bytes > 0, "{before:?}");
}

#[test]
fn capture_apply_and_idleness_come_to_their_ends() {
    for name in ["capture", "apply", "quiet"] {
        let Some(run) = played(&spec(Kind::Udp, name)) else { return };
        assert!(run.outcomes[0].finished, "{run:?}");
    }
}

#[test]
fn a_capture_and_the_client_it_is_measured_by_read_the_same_backlog_to_its_end() {
    let patience = Duration::from_secs(60);
    let spec = Spec { native: true, patience, link: ladder::LAN, ..spec(Kind::Udp, "capture") };
    let Some(run) = played(&spec) else { return };
    let [ours, client] = run.outcomes.as_slice() else { panic!("{run:?}") };
    assert_eq!((&*ours.contender, &*client.contender), ("thinwire", "pg_recvlogical"));
    assert!(ours.finished && client.finished, "{run:?}");
    assert_eq!((ours.goal, client.goal), (150, 150), "{run:?}");
    // A client that only confirms every now and then does so after ten seconds.
    assert!(client.seconds < 9.0, "{run:?}");
}

#[test]
fn a_recorded_link_is_played_over_and_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("link.csv");
    fs::write(&file, "time,rate,delay,loss,state\n0,2000,20,0,up\n1,,,,down\n").unwrap();
    let link = trace::read(&file).unwrap();
    let photos = workload::PHOTOS;
    let spec = Spec { link, workload: photos, size: 1_200, ..spec(Kind::Udp, "backlog") };
    let Some(outcome) = equal(&spec) else { return };
    // 1.2 MB and more at 250 kB a second, every other second. A look may come too late for some.
    assert!(outcome.seconds > 7.9, "{outcome:?}");
    assert!(outcome.points.windows(2).filter(|pair| pair[0].up && !pair[1].up).count() > 1);
}

/// Two thousand transactions over a satellite. Bytes are those of whole IP packets in both directions.
fn over_a_satellite(workload: &str) -> Option<Run> {
    let (workload, patience) = (workload::find(workload).unwrap(), Duration::from_secs(300));
    let spec = spec(Kind::Udp, "backlog");
    let run = played(&Spec { link: ladder::SAT, workload, size: 2_000, patience, ..spec })?;
    assert_eq!((run.outcomes[0].equal, run.size), (Some(true), 2_000), "{run:?}");
    Some(run)
}

#[test]
fn a_transaction_of_pgbench_takes_35_bytes_at_most() {
    let Some(run) = over_a_satellite("pgbench") else { return };
    assert!(run.outcomes[0].bytes() <= 70_000, "{run:?}");
}

#[test]
fn orders_take_hardly_more_than_all_of_them_in_one_file_under_zstd() {
    let Some(run) = over_a_satellite("orders") else { return };
    let floor = run.floor.unwrap().compressed_bytes;
    assert!(run.outcomes[0].bytes() * 100 <= floor * 115, "{run:?}");
}

#[test]
fn who_is_interrupted_leaves_nothing_behind() {
    if node::binary().is_err() {
        eprintln!("skipped: there is no program `thinwire`");
        return;
    }
    interrupted(Kind::Udp);
    if Kind::best() == Kind::Tun && Path::new("/dev/net/tun").exists() {
        interrupted(Kind::Tun);
    } else {
        eprintln!("skipped in part: only root can make network namespaces and TUN devices");
    }
}

fn interrupted(emulator: Kind) {
    let folder = tempfile::tempdir().unwrap();
    // Servers may run as somebody else.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let words = "run --scenario trickle --workload state --seconds 600 --alone --link geo";
    let mut child = Command::new(env!("CARGO_BIN_EXE_thinwire-bench"))
        .args(words.split_whitespace())
        .args(["--emulator", emulator.name()])
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until = |what: &str, is_so: &mut dyn FnMut() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(100));
        }
    };
    until("nothing has begun", &mut || users(folder.path()).len() >= 4);
    let mut ends = BTreeSet::new();
    if emulator == Kind::Tun {
        until("nobody is at both ends of a link", &mut || {
            ends = users(folder.path()).iter().filter_map(|user| namespace(user)).collect();
            ends.remove(&namespace(Path::new("/proc/self")).unwrap());
            ends.len() == 2
        });
    }
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let mut status = None;
    until("it does not end", &mut || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(130));
    until("processes are left", &mut || users(folder.path()).is_empty());
    until("files are left", &mut || fs::read_dir(folder.path()).unwrap().next().is_none());
    let is_there = |user: &PathBuf| namespace(user).is_some_and(|it| ends.contains(&it));
    until("somebody is left at an end of the link", &mut || !processes().any(|it| is_there(&it)));
    let of_it = format!("thinwire-{}-", child.id());
    let named = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let left: Vec<_> = named.map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(&of_it)), "{left:?}");
}

/// The network namespace that a process is in, as far as that is told.
fn namespace(process: &Path) -> Option<PathBuf> {
    fs::read_link(process.join("ns/net")).ok()
}

/// The processes that have a folder on their command line.
fn users(folder: &Path) -> Vec<PathBuf> {
    let folder = folder.to_str().unwrap();
    let has_it = |process: &PathBuf| {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(folder)
    };
    processes().filter(has_it).collect()
}

/// All there are, as the folders that the kernel shows of them.
fn processes() -> impl Iterator<Item = PathBuf> {
    fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path())
}
