//! Damaged segments on real nodes: fetched back from the peer that holds their records, else halted and not touched.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use crate::site::{APPLY, CAPTURE, Pair, Site, lively, wait_for};

const SCHEMA: &str = "create table t (id bigint primary key, pad text)";
const JOURNAL: &str = "[journal]\nsegment = \"64KiB\"\n";
const LONG: Duration = Duration::from_secs(60);

fn pair() -> Pair {
    let source = Site::new("edge", &format!("{CAPTURE}{JOURNAL}"), SCHEMA);
    let target = Site::new("hq", &format!("{APPLY}{JOURNAL}"), SCHEMA);
    Pair::of(source, target, lively())
}

fn fill(site: &Site, round: u64) {
    (round * 10..round * 10 + 10).for_each(|part| fill_part(site, part));
}

fn fill_part(site: &Site, part: u64) {
    site.sql(&format!(
        "insert into t select i, md5(random()::text) || md5(random()::text)
         from generate_series({}, {}) i",
        part * 300,
        part * 300 + 299
    ));
}

/// The segments of the only stream in a node's journal, in order.
fn segments(site: &Site) -> Vec<PathBuf> {
    let journal = site.node.config().parent().unwrap().join(site.node.name()).join("journal");
    let list = |dir: PathBuf| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut streams = list(journal).filter(|path| path.is_dir());
    let mut files: Vec<_> = list(streams.next().unwrap()).collect();
    files.sort();
    files
}

/// Flips a bit in the middle of a file.
fn flip(path: &PathBuf) -> Vec<u8> {
    flip_at(path, fs::metadata(path).unwrap().len() / 2)
}

/// Flips a bit, and writes nothing else: a node may read the file at any moment.
fn flip_at(path: &PathBuf, at: u64) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    let byte = &mut bytes[usize::try_from(at).unwrap()];
    *byte ^= 0x10;
    File::options().write(true).open(path).unwrap().write_all_at(&[*byte], at).unwrap();
    bytes
}

#[test]
fn a_relay_journal_is_mended_by_the_origin_and_applied() {
    let mut pair = pair();
    pair.start();
    fill(&pair.source, 0);
    pair.wait_equal(LONG);
    pair.target.sql("alter table t rename to hidden");
    fill(&pair.source, 1);
    fill(&pair.source, 2);
    // All rows of the three rounds, and what else is recorded with them.
    wait_for("the relay journal", LONG, || {
        let (source, target) = (pair.source.status(), pair.target.status());
        let (source, target) = (source.streams[0].synced, target.streams[0].synced);
        (source > Some(9_000) && source == target).then_some(())
    });
    pair.target.node.stop().unwrap();
    let files = segments(&pair.target);
    assert!(files.len() > 5, "{files:?}");
    for file in &files[files.len() - 4..files.len() - 1] {
        flip(file);
    }
    // On both sides of a border, too.
    let before = &files[files.len() - 4];
    flip_at(before, fs::metadata(before).unwrap().len() - 1);
    flip_at(&files[files.len() - 3], 20);
    pair.target.sql("alter table hidden rename to t");
    pair.target.node.start().unwrap();
    pair.wait_equal(LONG);
    pair.target.goes_on();
    let status = pair.target.status();
    assert!(status.journal.mended_segments >= 3, "{:?}", status.journal);
    pair.target.node.stop().unwrap();
    let verified = Command::new(thinwire_bench::node::binary().unwrap())
        .args(["journal", "verify"])
        .arg(files[0].parent().unwrap())
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn an_origin_whose_last_segment_is_damaged_gets_it_back_and_captures_on() {
    let mut pair = pair();
    pair.start();
    for id in 0..60 {
        pair.source.sql(&format!("insert into t values ({id}, md5(random()::text))"));
    }
    pair.wait_equal(LONG);
    pair.source.node.stop().unwrap();
    let last = segments(&pair.source).pop().unwrap();
    flip(&last);
    pair.source.sql("insert into t values (1000, 'written while the node was down')");
    pair.source.node.start().unwrap();
    pair.wait_equal(LONG);
    pair.source.sql("insert into t values (1001, 'captured again')");
    pair.wait_equal(LONG);
    let status = pair.source.status();
    assert_eq!(status.journal.mended_segments, 1);
    assert_eq!(status.streams.len(), 1, "{status:?}");
    assert!(status.halted().is_none(), "{status:?}");
}

#[test]
fn what_came_for_one_gap_does_not_come_again_while_nobody_has_another() {
    let journal = "[journal]\nsegment = \"16MiB\"\n";
    let source = Site::new("edge", &format!("{CAPTURE}{journal}"), SCHEMA);
    let target = Site::new("hq", &format!("{APPLY}{journal}"), SCHEMA);
    let mut pair = Pair::of(source, target, lively());
    pair.start();
    let mut ends = Vec::new();
    for part in 0..8 {
        if part == 4 {
            pair.wait_equal(LONG);
            pair.link.cut();
        }
        fill_part(&pair.source, part);
        wait_for("the journal", LONG, || {
            let status = pair.source.status();
            (status.streams[0].synced > Some((part + 1) * 300)).then_some(())
        });
        ends.push(fs::metadata(&segments(&pair.source)[0]).unwrap().len());
    }
    pair.source.node.stop().unwrap();
    let segment = segments(&pair.source).remove(0);
    // The target has the records of the first, and not those of the second.
    let flip_both = || [ends[1], ends[5]].map(|end| flip_at(&segment, end - 100));
    let [_, damaged] = flip_both();
    pair.source.node.start().unwrap();
    pair.link.restore();
    let log = pair.source.node.config().with_extension("log");
    let lines = |what| fs::read_to_string(&log).unwrap().matches(what).count();
    // An attempt that comes before the peer gets nothing at all.
    let (back, failed) = ("got lost records back", "lost records are with no peer");
    wait_for("the first gap to be filled", LONG, || (lines(back) > 0).then_some(()));
    let before = lines(failed);
    wait_for("more attempts", LONG, || (lines(failed) >= before + 2).then_some(()));
    assert_eq!(lines(back), 1, "{}", pair.source.node.log());
    assert!(fs::read(&segment).unwrap() == damaged, "the damaged file is still there");
    // It is sound again.
    flip_both();
    pair.wait_equal(Duration::from_secs(150));
}

#[test]
fn damage_that_nobody_reads_is_found_in_the_background_and_mended() {
    let journal = "[journal]\nsegment = \"64KiB\"\nscrub = \"3s\"\n";
    let source = Site::new("edge", &format!("{CAPTURE}{journal}"), SCHEMA);
    let target = Site::new("hq", &format!("{APPLY}{JOURNAL}"), SCHEMA);
    let mut pair = Pair::of(source, target, lively());
    pair.start();
    fill(&pair.source, 0);
    pair.wait_equal(LONG);
    let files = segments(&pair.source);
    flip(&files[1]);
    let status = wait_for("the mended segment", LONG, || {
        let status = pair.source.status();
        (status.journal.mended_segments == 1).then_some(status)
    });
    assert!(status.halted().is_none(), "{status:?}");
    wait_for("the end of a round", LONG, || {
        pair.source.status().journal.scrubbed_seconds_ago.filter(|ago| *ago < 10)
    });
}

#[test]
fn what_no_peer_holds_halts_with_the_place_and_is_not_touched() {
    let mut pair = pair();
    pair.link.cut();
    pair.start();
    for part in 0..10 {
        fill_part(&pair.source, part);
        // One by one, so that none shares its batch with the one that is damaged.
        wait_for("the journal", LONG, || {
            let status = pair.source.status();
            (status.streams[0].synced > Some((part + 1) * 300)).then_some(())
        });
    }
    pair.source.node.stop().unwrap();
    let files = segments(&pair.source);
    let damaged = &files[files.len() - 2];
    let bytes = flip(damaged);
    pair.source.node.start().unwrap();
    pair.link.restore();
    let halted = wait_for("the halt", LONG, || {
        pair.source.status().halted().map(|(_, halted)| halted.clone())
    });
    assert_eq!(halted.code, "journal_corrupt");
    for part in [damaged.file_name().unwrap().to_str().unwrap(), "byte", "offset", "checksum"] {
        assert!(halted.detail.contains(part), "{part} in {}", halted.detail);
    }
    assert_eq!(fs::read(damaged).unwrap(), bytes);
    // What is in front of it arrives, and what is captured meanwhile is kept.
    let before = pair.source.status().streams[0].synced;
    pair.source.sql("insert into t values (100000, 'kept')");
    wait_for("capture", LONG, || (pair.source.status().streams[0].synced > before).then_some(()));
    let target = wait_for("the part in front", LONG, || {
        pair.target.status().streams.first().and_then(|stream| stream.synced.filter(|at| *at > 100))
    });
    assert!(Some(target) < before);
    // Whoever makes the file sound again has it go on by itself.
    flip(damaged);
    pair.wait_equal(Duration::from_secs(150));
}
