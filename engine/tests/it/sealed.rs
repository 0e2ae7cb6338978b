//! A stream that is idle says of all that it holds that it is durable: damage to it is never taken for a torn end.

use std::sync::Arc;

use thinwire_engine::{
    Error,
    journal::{Journal, Mark, Stream},
    model::{Lsn, Offset},
    storage::memory::{Fault, MemoryDisk},
};

use crate::{
    classify::batches,
    world::{DIR, ID, Model, OPTIONS, Random, append, each_seed, mark, open, say},
};

/// A stream with a few groups of records and marks, sealed.
fn sealed(seed: u64) -> (MemoryDisk, Model) {
    let (mut random, disk, mut model) = (Random(seed), MemoryDisk::new(), Model::default());
    let (_journal, stream) = open(&disk).unwrap();
    for _ in 0..1 + random.below(3) {
        append(&stream, &mut model, &[random.below(60)], &mut random).unwrap();
        if random.one_in(2) {
            model.mark += 1;
            stream.mark(mark(model.mark)).unwrap();
        }
        model.synced(stream.sync().unwrap());
    }
    stream.seal().unwrap();
    model.sealed(&stream);
    (disk, model)
}

fn only_file(disk: &MemoryDisk) -> std::path::PathBuf {
    disk.files().into_iter().find(|path| path.starts_with(DIR)).unwrap()
}

/// Every bit of the batches in front of the seal, flipped: each halts the stream, and what was lost is got back, marks
/// included. Behind it nothing is that would be missed.
fn flipped(seed: u64) -> u64 {
    let (disk, model) = sealed(seed);
    let (path, mut tried) = (only_file(&disk), 0);
    let bytes = disk.content(&path);
    let all = batches(&bytes);
    let seal = all.iter().rfind(|batch| batch.is_seal).unwrap().at;
    for bit in all[0].at * 8..bytes.len() * 8 {
        let damaged = disk.copy();
        damaged.flip(&path, bit);
        let harmed = damaged.content(&path);
        if bit / 8 < seal {
            let Err(Error::Corrupt { segment, .. }) = open(&damaged) else {
                panic!("bit {bit}: it was opened")
            };
            assert!(segment == path && damaged.content(&path) == harmed, "bit {bit}: touched");
            // All of them take long, and are as likely to be mended as some.
            if bit % 61 == 0 {
                mended(&damaged, &model);
            }
        } else {
            let (_journal, stream) = open(&damaged).unwrap();
            assert!(!stream.is_sealed() || bit / 8 >= seal + 48, "bit {bit}");
            model.clone().recovered(&stream);
            model.read(&stream);
        }
        tried += 1;
    }
    tried
}

/// Gets back what is missing from one who holds all records, and no mark.
fn mended(disk: &MemoryDisk, model: &Model) {
    let (journal, _) = Journal::open(Arc::new(disk.clone()), DIR.as_ref(), OPTIONS).unwrap();
    let mut mending = journal.mend_unopened(ID).unwrap().unwrap();
    while let Some(wanted) = mending.wanted() {
        let span = wanted.end.since(wanted.start);
        let from = model.records_from(wanted.start.get() as usize);
        mending.give(&from.until(span)).unwrap();
    }
    mending.finish().unwrap();
    let stream = journal.open_stream(ID).unwrap();
    model.clone().recovered(&stream);
    model.read(&stream);
}

#[test]
fn what_stands_in_front_of_a_seal_is_never_cut() {
    let tally = each_seed("what_stands_in_front_of_a_seal", 40, flipped);
    say(&format!("flipped bits of sealed streams: {}; cut: 0", tally.total));
}

/// What writes and syncs there were, as operations of the disk.
fn operations(disk: &MemoryDisk, act: impl FnOnce()) -> u64 {
    let before = disk.operations();
    act();
    disk.operations() - before
}

#[test]
fn an_idle_stream_is_sealed_once_and_nobody_is_woken_for_it() {
    let (disk, mut model, mut random) = (MemoryDisk::new(), Model::default(), Random(1));
    let (_journal, stream) = open(&disk).unwrap();
    let seal = || operations(&disk, || stream.seal().unwrap());
    assert!(stream.is_sealed() && seal() == 0, "there is nothing to seal");
    for number in 1..4 {
        append(&stream, &mut model, &[9], &mut random).unwrap();
        assert_eq!(seal(), 0, "it is not idle");
        model.synced(stream.sync().unwrap());
        assert!(!stream.is_sealed());
        let (mut watch, marks, tail) = (stream.watch(), stream.watermarks(), stream.tail());
        watch.mark_unchanged();
        assert_eq!(seal(), 2, "one write and one sync");
        assert!(stream.is_sealed() && !watch.has_changed().unwrap());
        assert_eq!((seal(), stream.tail()), (0, tail));
        let after = stream.watermarks();
        assert_eq!(after, thinwire_engine::journal::Watermarks { bytes: after.bytes, ..marks });
        assert!(after.bytes - marks.bytes < 100, "{} bytes", after.bytes - marks.bytes);
        model.accounted(&disk, &stream);
        let seals =
            batches(&disk.content(&only_file(&disk))).iter().filter(|it| it.is_seal).count();
        assert_eq!(seals, number);
    }
    // The next process finds it sealed, and goes on behind it.
    model.mark = 1;
    stream.mark(mark(1)).unwrap();
    model.synced(stream.sync().unwrap());
    stream.seal().unwrap();
    drop((_journal, stream));
    let (_journal, stream) = open(&disk.power_cut(&mut |n| n - 1)).unwrap();
    assert!(stream.is_sealed());
    model.recovered(&stream);
    model.read(&stream);
    let held = Offset::new(model.len() as u64);
    assert_eq!(stream.running_at(held).unwrap(), Some(model.running(model.len())));
    append(&stream, &mut model, &[9], &mut random).unwrap();
    model.synced(stream.sync().unwrap());
    model.read(&stream);
}

#[test]
fn a_seal_that_fails_is_final_and_one_without_room_leaves_the_stream_as_it_was() {
    let (disk, mut model, mut random) = (MemoryDisk::new(), Model::default(), Random(1));
    let (_journal, stream) = open(&disk).unwrap();
    append(&stream, &mut model, &[9], &mut random).unwrap();
    model.synced(stream.sync().unwrap());
    disk.limit(Some(disk.used() + 5));
    assert!(matches!(stream.seal(), Err(Error::NoSpace { .. })));
    assert!(!stream.is_sealed() && !stream.is_poisoned() && !stream.has_staged());
    model.accounted(&disk, &stream);
    disk.limit(None);
    disk.fail(1, Fault::Lossy, false);
    assert!(matches!(stream.seal(), Err(Error::Io { operation: "sync", .. })));
    assert!(stream.is_poisoned() && !stream.is_sealed());
    assert_eq!(operations(&disk, || assert!(stream.seal().is_err())), 0);
}

fn released(stream: &Stream) -> Option<bool> {
    stream.durable_mark().map(|mark| mark.released)
}

#[test]
fn a_mark_that_says_that_the_log_was_let_go_of_is_not_repeated() {
    let (disk, mut model, mut random) = (MemoryDisk::new(), Model::default(), Random(1));
    let (_journal, stream) = open(&disk).unwrap();
    append(&stream, &mut model, &[9], &mut random).unwrap();
    stream.mark(Mark { lsn: Lsn::new(7), timeline: 1, system: 1, released: true }).unwrap();
    stream.sync().unwrap();
    stream.seal().unwrap();
    let all = batches(&disk.content(&only_file(&disk)));
    assert_eq!(all.iter().filter(|batch| batch.is_mark).count(), 1);
    assert_eq!(released(&stream), Some(true));
    drop((_journal, stream));
    let (_journal, stream) = open(&disk).unwrap();
    assert!(stream.is_sealed());
    assert_eq!(released(&stream), Some(true));
}
