//! Blocks that cannot be written: the kernel says so once, keeps serving the lost bytes from its cache, and says that
//! all is well when it is asked again. Nothing acknowledged may rest on that.
//!
//! `THINWIRE_REAL_FAILED_BLOCKS` sets how many failures each file system sees.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    time::Instant,
};

use thinwire_blocks::{Device, Disk, FileSystem, Image};
use thinwire_engine::{Error, journal::Stream};

use crate::{
    model::Model,
    possible, say, setting,
    work::{MARK, Random, Said, act, append, open, opened, sync},
};

#[test]
fn a_block_that_fails_takes_nothing_acknowledged_with_it_on_ext4() {
    fail(FileSystem::Ext4);
}

#[test]
fn a_block_that_fails_takes_nothing_acknowledged_with_it_on_xfs() {
    fail(FileSystem::Xfs);
}

#[test]
fn a_block_that_fails_takes_nothing_acknowledged_with_it_on_btrfs() {
    fail(FileSystem::Btrfs);
}

/// What was seen on the way.
#[derive(Default)]
struct Seen {
    rounds: u64,
    failed: u64,
    refused: u64,
    reopened: u64,
    acked: u64,
}

fn fail(file_system: FileSystem) {
    if !possible("failing blocks", file_system) {
        return;
    }
    let (rounds, started) = (setting("THINWIRE_REAL_FAILED_BLOCKS", 40), Instant::now());
    let (device, mut seen) = (Device::attach(file_system).unwrap(), Seen::default());
    let fresh = device.disk().cut(0, &mut |_| 0);
    for seed in 0..rounds {
        let image = fresh.clone();
        let round = catch_unwind(AssertUnwindSafe(|| round(&device, image, seed, &mut seen)));
        assert!(round.is_ok(), "{}, seed {seed}", file_system.name());
    }
    assert!(seen.refused > 0 && seen.reopened > 0, "no failure was ever met");
    let Seen { rounds, failed, refused, reopened, acked } = seen;
    say(format!(
        "failing blocks on {}: {failed} writes failed in {rounds} rounds, {refused} reported to the journal, \
         {reopened} journals opened on what was left in the cache; {acked} records acknowledged, lost: 0; {:.1} s",
        file_system.name(),
        started.elapsed().as_secs_f64()
    ));
}

/// Works until a write fails and beyond, goes on as a restarted process does, then drops the cache, or cuts the power.
fn round(device: &Device, fresh: Image, seed: u64, seen: &mut Seen) {
    let disk = device.disk();
    disk.load(fresh);
    let (mut random, mut model) = (Random(seed), Model::default());
    let mounted = device.mount().unwrap();
    let failed = work_into_failure(disk, mounted.path(), &mut random, &mut model);
    seen.refused += u64::from(failed);
    // Not a block of the cache is dropped but by the journal itself.
    seen.reopened += u64::from(work_again(mounted.path(), &mut random, &mut model));
    seen.failed += disk.heal();
    if random.below(2) == 0 {
        drop(mounted);
    } else {
        let image = disk.cut(disk.position(), &mut |n| random.below(n));
        drop(mounted);
        disk.load(image);
    }
    let mounted = device.mount().unwrap();
    let (_journal, stream) = open(mounted.path()).expect("a failed block alone halts no stream");
    model.check(&stream);
    seen.acked += model.acked();
    seen.rounds += 1;
}

/// Whether the journal was told of a failure.
fn work_into_failure(disk: &Disk, dir: &Path, random: &mut Random, model: &mut Model) -> bool {
    let (_journal, stream) = open(dir).unwrap();
    model.hear(opened(&stream));
    for _ in 0..random.below(20) {
        act(&stream, random, &mut |said| model.hear(said)).unwrap();
    }
    arm(disk, random);
    let mut failed = false;
    // It goes on asking: what has failed stays so.
    for _ in 0..60 {
        failed |= failure(&stream, act(&stream, random, &mut |said| model.hear(said)));
    }
    failed
}

/// Lets one of the next writes fail, once, or for ever where it was to go: mostly one of the journal's bytes, else any of
/// the file system's own.
fn arm(disk: &Disk, random: &mut Random) {
    let (mut before, for_ever) = (random.below(8), random.below(4) == 0);
    let any = random.below(4) == 0;
    let mut failed_at = None;
    disk.fail_writes(move |at, bytes| {
        if failed_at.is_some() {
            return for_ever && failed_at == Some(at);
        }
        if !any && !bytes.windows(MARK.len()).any(|window| window == MARK) {
            return false;
        }
        let now = before == 0;
        before = before.saturating_sub(1);
        failed_at = now.then_some(at);
        now
    });
}

/// Opens the journal anew in the same mount and goes on, as far as that is possible.
fn work_again(dir: &Path, random: &mut Random, model: &mut Model) -> bool {
    let (_journal, stream) = match open(dir) {
        Ok(opened) => opened,
        Err(Error::Io { .. }) => return false,
        Err(error) => panic!("{error}"),
    };
    model.check(&stream);
    model.hear(opened(&stream));
    let mut hear = |said: Said| model.hear(said);
    for _ in 0..random.below(4) {
        let grown =
            append(&stream, random, &mut hear).and_then(|()| sync(&stream, random, &mut hear));
        if failure(&stream, grown) {
            break;
        }
    }
    true
}

/// Whether it failed; if so, nothing may be acknowledged on top of it, whatever the disk says later.
fn failure(stream: &Arc<Stream>, outcome: Result<(), Error>) -> bool {
    match outcome {
        Ok(()) => false,
        Err(Error::Io { .. } | Error::Poisoned { .. }) => {
            assert!(!stream.is_poisoned() || stream.sync().is_err());
            true
        }
        Err(error) => panic!("{error}"),
    }
}
