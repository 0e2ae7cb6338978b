//! Started again and again: whatever became of the state folder or the lock costs time only, a second process is
//! refused, and a stream that cannot be opened is in the way of none.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use thinwire_sidecar::status::{Status, Stream};

use crate::{
    kills::StopOnDrop,
    site::{Pair, Site, lively, wait_for},
};

const SCHEMA: &str = "create table t (id bigint primary key, v text)";

fn dir_of(site: &Site) -> PathBuf {
    site.node.config().with_extension("")
}

fn full_status(site: &Site) -> Status {
    site.status();
    serde_json::from_str(&site.node.run(&["status", "--json"]).unwrap()).unwrap()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for file in files(from) {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

/// What is done to the state folder of a node that is stopped.
fn harm(round: u32, state: &Path) {
    let aside = state.with_extension("older");
    match round % 5 {
        0 => drop(fs::remove_dir_all(state)),
        1 => files(state).iter().for_each(|file| {
            let bytes = fs::read(file).unwrap();
            fs::write(file, &bytes[..bytes.len() / 3]).unwrap();
        }),
        2 => files(state).iter().for_each(|file| {
            let mut bytes = fs::read(file).unwrap();
            bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 0x20);
            fs::write(file, bytes).unwrap();
        }),
        // Rolled back to what it was some rounds ago.
        3 if aside.is_dir() => copy(&aside, state),
        _ => copy(state, &aside),
    }
}

#[test]
fn the_state_folder_can_go_at_any_time_and_a_lock_that_was_left_never_blocks() {
    let mut pair = Pair::new(lively(), SCHEMA);
    pair.start();
    pair.source.sql("insert into t values (0, 'first')");
    pair.wait_equal(Duration::from_secs(30));
    let running = AtomicBool::new(true);
    let Pair { source, target, .. } = &mut pair;
    let states = [dir_of(source).join("state"), dir_of(target).join("state")];
    let cluster = &source.cluster;
    thread::scope(|scope| {
        let _stop = StopOnDrop(&running);
        scope.spawn(|| {
            for round in 1_u64.. {
                if !running.load(Ordering::Relaxed) {
                    return;
                }
                let sql = format!(
                    "insert into t select i, md5(i::text) from generate_series({}, {}) i; delete from t where id = {}",
                    round * 100, round * 100 + 99, round * 100 + 7
                );
                cluster.psql(crate::site::DB, &sql).unwrap();
                sleep(Duration::from_millis(30));
            }
        });
        let nodes = [&mut source.node, &mut target.node];
        for round in 0..28_u32 {
            let which = round as usize % 2;
            if round % 3 == 0 {
                // Also while it is in use.
                let _ = fs::remove_dir_all(&states[which]);
                sleep(Duration::from_millis(300));
            }
            if round % 4 == 3 {
                nodes[which].stop().unwrap();
            } else {
                nodes[which].kill9().unwrap();
            }
            harm(round / 2, &states[which]);
            let started = Instant::now();
            nodes[which].start().unwrap();
            while nodes[which].status().unwrap().is_none() {
                nodes[which].check().unwrap();
                assert!(started.elapsed() < Duration::from_secs(60), "{}", nodes[which].log());
                sleep(Duration::from_millis(20));
            }
            // Long enough for positions to be remembered now and then.
            sleep(Duration::from_millis(150 + u64::from(round % 5) * 150));
        }
    });
    pair.wait_equal(Duration::from_secs(60));
}

/// What becomes of the state folder between two operations.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Gone,
    CutShort,
    Flipped,
    RolledBack,
    GoneInUse,
}

impl Fate {
    /// Lets it happen to a node, which runs before and after.
    fn befall(self, site: &mut Site) {
        let state = dir_of(site).join("state");
        assert!(!files(&state).is_empty(), "there is something to lose");
        if matches!(self, Self::GoneInUse) {
            // The node may make a file in it meanwhile.
            wait_for("the folder to go", Duration::from_secs(10), || {
                let _ = fs::remove_dir_all(&state);
                (!state.exists()).then_some(())
            });
        }
        site.node.stop().unwrap();
        match self {
            Self::Gone => harm(0, &state),
            Self::CutShort => harm(1, &state),
            Self::Flipped => harm(2, &state),
            Self::RolledBack => harm(3, &state),
            Self::GoneInUse => {}
        }
        site.node.start().unwrap();
        site.status();
    }
}

/// What an application does, from an empty table to an empty table.
const OPERATIONS: [&str; 6] = [
    "insert into t select i, md5(i::text) from generate_series(1, 2000) i",
    "update t set v = v || 'x' where id % 3 = 0",
    "begin; insert into t values (-1, 'a'); savepoint s; delete from t; rollback to s; \
     update t set id = -id where id = 7; commit",
    "insert into t values (0, repeat('many ', 200000))",
    "delete from t where id % 5 = 0",
    "truncate t",
];

#[test]
fn whatever_becomes_of_the_state_folder_between_any_two_operations_costs_time_only() {
    let mut pair = Pair::new(lively(), SCHEMA);
    pair.start();
    pair.source.sql("insert into t values (1, 'first'); truncate t");
    pair.wait_equal(Duration::from_secs(30));
    for site in [&mut pair.source, &mut pair.target] {
        site.node.stop().unwrap();
        let state = dir_of(site).join("state");
        copy(&state, &state.with_extension("older"));
        site.node.start().unwrap();
        site.status();
    }
    let fates = [Fate::Gone, Fate::CutShort, Fate::Flipped, Fate::RolledBack, Fate::GoneInUse];
    for fate in fates {
        for (number, operation) in OPERATIONS.iter().enumerate() {
            // Not waited for: most of it is on its way when both nodes forget.
            pair.source.sql(operation);
            thread::scope(|scope| {
                scope.spawn(|| fate.befall(&mut pair.source));
                scope.spawn(|| fate.befall(&mut pair.target));
            });
            pair.wait_equal(Duration::from_secs(60));
            for site in [&pair.source, &pair.target] {
                let streams = full_status(site).streams;
                let halted = streams.iter().find_map(|stream| stream.halted.as_ref());
                assert!(halted.is_none(), "{fate:?} behind operation {number}: {halted:?}");
            }
        }
    }
}

#[test]
fn a_second_process_is_refused_and_the_first_goes_on() {
    let mut pair = Pair::new(lively(), SCHEMA);
    pair.start();
    pair.source.sql("insert into t values (1, 'a')");
    pair.wait_equal(Duration::from_secs(30));
    let refused = pair.source.node.run(&["run"]).unwrap_err().to_string();
    assert!(refused.contains("exit status: 1"), "{refused}");
    assert!(refused.contains("LOCK is in use by another process"), "{refused}");
    pair.source.sql("insert into t values (2, 'b')");
    pair.wait_equal(Duration::from_secs(30));
    assert!(pair.source.node.status().unwrap().is_some(), "its control socket is still its own");
}

#[test]
fn a_stream_that_cannot_be_opened_is_listed_once_with_its_cause_and_its_bytes() {
    let mut pair = Pair::new(lively(), SCHEMA);
    pair.start();
    pair.source.sql("insert into t select i, md5(i::text) from generate_series(1, 3000) i");
    pair.wait_equal(Duration::from_secs(30));
    pair.target.node.stop().unwrap();
    let journal = dir_of(&pair.target).join("journal");
    let mut folders = fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().path());
    let segment = files(&folders.find(|path| path.is_dir()).unwrap()).remove(0);
    let whole = fs::read(&segment).unwrap();
    let mut version = whole.clone();
    version[8] = 9;
    let crc = crc32(&version[..64]);
    version[64..68].copy_from_slice(&crc.to_le_bytes());
    let mut flipped = whole.clone();
    flipped[whole.len() / 3] ^= 1;
    for (bytes, code) in [(version, "journal_version"), (flipped, "journal_corrupt")] {
        fs::write(&segment, &bytes).unwrap();
        pair.target.node.start().unwrap();
        // Its peer comes and tries. Damage would be mended, so for that the link is cut.
        if code == "journal_version" {
            wait_for("the peer", Duration::from_secs(30), || {
                full_status(&pair.target).peers[0].connected.then_some(())
            });
        }
        sleep(Duration::from_secs(1));
        let status = full_status(&pair.target);
        let [Stream { halted: Some(halted), journal_bytes, .. }] = &status.streams[..] else {
            panic!("{:?}", status.streams)
        };
        assert_eq!(halted.code, code, "{halted:?}");
        assert_eq!(*journal_bytes, bytes.len() as u64);
        assert!(status.journal.bytes >= *journal_bytes, "{:?}", status.journal);
        assert_eq!(fs::read(&segment).unwrap(), bytes, "it was not touched");
        pair.target.node.stop().unwrap();
        pair.link.cut();
    }
    fs::write(&segment, &whole).unwrap();
    pair.link.restore();
    pair.target.node.start().unwrap();
    pair.source.sql("insert into t values (-1, 'after')");
    pair.wait_equal(Duration::from_secs(60));
    assert!(full_status(&pair.target).streams.iter().all(|stream| stream.halted.is_none()));
}

/// CRC-32 (IEEE), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn a_stream_that_the_disk_did_not_give_is_opened_once_it_does() {
    let mut pair = Pair::new(lively(), SCHEMA);
    pair.start();
    pair.source.sql("insert into t values (0, 'first')");
    pair.wait_equal(Duration::from_secs(30));
    let segment = |site: &Site| {
        let streams = fs::read_dir(dir_of(site).join("journal")).unwrap();
        let mut streams = streams.map(|entry| entry.unwrap().path());
        files(&streams.find(|path| path.is_dir()).unwrap()).remove(0)
    };
    let segments = [segment(&pair.source), segment(&pair.target)];
    pair.source.node.stop().unwrap();
    pair.target.node.stop().unwrap();
    // A folder is there and cannot be opened for writing: the system refuses, and nothing is said of damage.
    for segment in &segments {
        fs::rename(segment, segment.with_extension("aside")).unwrap();
        fs::create_dir(segment).unwrap();
    }
    pair.source.sql("insert into t values (1, 'second')");
    pair.start();
    for site in [&pair.source, &pair.target] {
        let halted = wait_for("the halt", Duration::from_secs(30), || {
            site.status().halted().map(|(_, halted)| halted.clone())
        });
        assert_eq!(halted.code, "journal_io", "{halted:?}");
    }
    for segment in &segments {
        fs::remove_dir(segment).unwrap();
        fs::rename(segment.with_extension("aside"), segment).unwrap();
    }
    pair.wait_equal(Duration::from_secs(60));
    for site in [&pair.source, &pair.target] {
        site.goes_on();
        assert_eq!(site.status().streams.len(), 1);
    }
}

#[test]
fn what_a_peer_is_remembered_to_hold_stops_capture_though_the_peer_is_away() {
    let mut pair = Pair::new(lively(), SCHEMA);
    pair.start();
    pair.source.sql("insert into t values (0, 'first')");
    pair.wait_equal(Duration::from_secs(30));
    pair.source.node.stop().unwrap();
    let journal = dir_of(&pair.source).join("journal");
    let aside = journal.with_extension("older");
    copy_all(&journal, &aside);
    pair.source.node.start().unwrap();
    pair.source.sql("insert into t values (1, 'second')");
    pair.wait_equal(Duration::from_secs(30));
    // Only what the peer has said can be remembered.
    wait_for("the peer to say that it has it", Duration::from_secs(30), || {
        let status = pair.source.status();
        (status.peers[0].streams[0].acked == status.streams[0].synced).then_some(())
    });
    pair.source.node.stop().unwrap();
    pair.target.node.stop().unwrap();
    // Rolled back, all but what is remembered of the peer.
    fs::remove_dir_all(&journal).unwrap();
    copy_all(&aside, &journal);
    pair.source.node.start().unwrap();
    let halted = wait_for("the halt", Duration::from_secs(30), || {
        pair.source.status().halted().map(|(_, halted)| halted.clone())
    });
    assert_eq!(halted.code, "peer_ahead", "{halted:?}");
    pair.source.sql("insert into t values (2, 'third')");
    let synced = || pair.source.status().streams[0].synced;
    let before = synced();
    sleep(Duration::from_secs(2));
    assert_eq!(synced(), before, "{:?}", pair.source.status());
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let target = to.join(entry.file_name().unwrap());
        match entry.is_dir() {
            true => copy_all(&entry, &target),
            false => drop(fs::copy(&entry, &target).unwrap()),
        }
    }
}
