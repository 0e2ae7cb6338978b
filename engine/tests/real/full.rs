//! A disk that is full again and again: nothing is lost, writers wait, trimming frees, and it goes on by itself.
//!
//! `THINWIRE_REAL_FULL_CYCLES` sets how often it fills.

use std::{fs, time::Instant};

use thinwire_blocks::{Device, FileSystem};
use thinwire_engine::{Error, journal::Stream, model::Offset};

use crate::{
    model::Model,
    possible, say, setting,
    work::{Random, Said, append, open, opened, sync},
};

#[test]
fn a_full_disk_loses_nothing_and_goes_on_when_there_is_room() {
    if !possible("full disks", FileSystem::Ext4Small) {
        return;
    }
    let (cycles, started) = (setting("THINWIRE_REAL_FULL_CYCLES", 50), Instant::now());
    let device = Device::attach(FileSystem::Ext4Small).unwrap();
    let mounted = device.mount().unwrap();
    // Most of the room is somebody else's, so that the journal is full soon.
    fs::write(mounted.path().join("other"), vec![1; OTHER_BYTES]).unwrap();
    let (mut random, mut model, mut reopened) = (Random(1), Model::default(), 0);
    let (mut journal, mut stream) = open(mounted.path()).unwrap();
    for cycle in 0..cycles {
        fill(&stream, &mut random, &mut model);
        if random.below(3) == 0 {
            // A process that starts on a full disk finds what is durable, and frees.
            drop((journal, stream));
            (journal, stream) = open(mounted.path()).unwrap_or_else(|error| panic!("{error}"));
            model.check(&stream);
            model.hear(opened(&stream));
            reopened += 1;
        }
        let upto = model.acked();
        model.hear(Said::Trimming { upto });
        let freed = stream.trim(Offset::new(upto), true).unwrap();
        assert!(freed > 0, "cycle {cycle}: nothing was freed");
        let last = stream.sync().expect("there is room again").get();
        assert_eq!(last, stream.watermarks().appended.get());
        model.hear(Said::Durable { last, mark: 0 });
        assert!(model.is_settled());
        model.check(&stream);
        device.disk().forget();
    }
    let acked = model.acked();
    drop((journal, stream));
    drop(mounted);
    let mounted = device.mount().unwrap();
    let (_journal, stream) = open(mounted.path()).unwrap();
    model.check(&stream);
    say(format!(
        "full disks: filled and freed {cycles} times, {reopened} times by a process that found it full; \
         {acked} records acknowledged, lost: 0; {:.1} s",
        started.elapsed().as_secs_f64()
    ));
}

/// Writes until there is no room, and a little longer.
fn fill(stream: &Stream, random: &mut Random, model: &mut Model) {
    let mut refused = 0;
    for _ in 0..WRITES_MAX {
        append(stream, random, &mut |said| model.hear(said)).unwrap();
        match sync(stream, random, &mut |said| model.hear(said)) {
            Ok(()) => assert_eq!(refused, 0, "there is room without anything freed"),
            Err(Error::NoSpace { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        if refused == REFUSALS {
            assert!(stream.has_staged() && !stream.is_poisoned());
            return;
        }
    }
    panic!("the disk was never full");
}

const OTHER_BYTES: usize = 10 << 20;
/// More than fit.
const WRITES_MAX: u32 = 10_000;
/// How often a writer tries again in vain.
const REFUSALS: u32 = 3;
