//! A disk that fails at any operation, once or for ever, or is full: nothing acknowledged is lost, nothing is
//! acknowledged on top of a failure, and what is full goes on when there is room.

use thinwire_engine::{
    Error,
    model::Offset,
    storage::memory::{Fault, MemoryDisk},
};

use crate::world::{Model, Place, Random, act, append, count, each_seed, open, say};

/// How many things one workload does.
const ACTIONS: usize = 24;

/// How a disk goes wrong.
#[derive(Clone, Copy, Debug)]
enum Sort {
    Change(Fault),
    Read(Fault),
}

const SORTS: [Sort; 7] = [
    Sort::Change(Fault::Error),
    Sort::Change(Fault::Lossy),
    Sort::Change(Fault::Holes),
    Sort::Change(Fault::Full),
    Sort::Change(Fault::Interrupted),
    Sort::Read(Fault::Error),
    Sort::Read(Fault::Interrupted),
];

/// One workload on a disk that goes wrong in every way at every operation; returns how many ways that were.
pub(crate) fn workload(seed: u64) -> u64 {
    let mut runs = 0;
    for sort in SORTS {
        for sticky in [false, true] {
            // Until the workload is done before anything goes wrong.
            for number in 0.. {
                runs += 1;
                if !fails_at(seed, number, sort, sticky) {
                    break;
                }
            }
        }
    }
    runs
}

/// Whether anything went wrong before the workload was done.
fn fails_at(seed: u64, number: u64, sort: Sort, sticky: bool) -> bool {
    let place = format!("operation {number}, {sort:?}, sticky {sticky}");
    let _place = Place(place.clone());
    let mut random = Random(seed);
    let (disk, mut model) = (MemoryDisk::new(), Model::default());
    // The cache may be believed by force.
    if random.one_in(2) {
        disk.pin_cache();
    }
    // The workload begins with a stream that is there already, half of the time.
    if random.one_in(2) {
        let (_journal, stream) = open(&disk).unwrap();
        append(&stream, &mut model, &[random.below(3_000)], &mut random).unwrap();
        model.synced(stream.sync().unwrap());
    }
    let count = |disk: &MemoryDisk| match sort {
        Sort::Change(_) => disk.operations(),
        Sort::Read(_) => disk.reads(),
    };
    let before = count(&disk);
    match sort {
        Sort::Change(fault) => disk.fail(number, fault, sticky),
        Sort::Read(fault) => disk.fail_read(number, fault, sticky),
    }
    if let Ok((_journal, stream)) = open(&disk) {
        model.recovered(&stream);
        for _ in 0..ACTIONS {
            let acted = act(&stream, &mut model, &mut random);
            let failed = count(&disk) - before > number;
            match acted {
                Err(Error::Poisoned { .. } | Error::Io { .. } | Error::NoSpace { .. }) => {
                    assert!(failed, "{place}: an error without a cause");
                    let is_sync = matches!(acted, Err(Error::Io { operation: "sync", .. }));
                    assert!(!is_sync || stream.is_poisoned(), "{place}: a failed sync is final");
                }
                Err(error) => panic!("{place}: {error}"),
                Ok(()) => {}
            }
            // Nothing is acknowledged on top of a failed write, whatever the disk says later.
            if stream.is_poisoned() {
                let (operations, synced) = (disk.operations(), stream.watermarks().synced);
                assert!(stream.sync().is_err(), "{place}");
                let upto = Offset::new(model.acked as u64);
                assert!(stream.trim(upto, true).is_err(), "{place}");
                assert_eq!(disk.operations(), operations, "{place}: the disk was tried again");
                assert_eq!(stream.watermarks().synced, synced, "{place}");
            }
            if random.one_in(4) {
                let read = model.try_read(&stream);
                assert!(failed || count(&disk) - before > number || read.is_ok(), "{place}");
            }
        }
        // A removal that failed is tried again.
        for _ in 0..3 {
            model.trimmed = model.acked;
            drop(stream.trim(Offset::new(model.acked as u64), true));
        }
    }
    let failed = count(&disk) - before > number;
    disk.heal();
    // Once as a restarted process finds it, once as a power cut leaves it; and what was recovered must survive
    // the next power cut, because it was told to others.
    for disk in [disk.copy(), disk.power_cut(&mut |n| random.below(n))] {
        let mut expected = model.clone();
        let (journal, stream) = open(&disk).unwrap_or_else(|error| panic!("{place}: {error}"));
        expected.recovered(&stream);
        expected.read(&stream);
        drop((journal, stream));
        let cut = disk.power_cut(&mut |n| random.below(n));
        let (_journal, stream) = open(&cut).unwrap_or_else(|error| panic!("{place}: {error}"));
        expected.recovered(&stream);
        expected.read(&stream);
    }
    failed
}

/// A journal whose first opening is interrupted at some operation, as by a kill, and which is opened again by the next
/// process; returns whether it was. What that one acknowledges survives the power.
fn begun_twice(number: u64) -> bool {
    let (mut random, disk, mut model) = (Random(number), MemoryDisk::new(), Model::default());
    disk.fail(number, Fault::Error, true);
    let interrupted = open(&disk).is_err();
    disk.heal();
    let (_journal, stream) = open(&disk).unwrap();
    append(&stream, &mut model, &[100], &mut random).unwrap();
    model.synced(stream.sync().unwrap());
    // Whatever can be lost is.
    let cut = disk.power_cut(&mut |n| n - 1);
    let (_journal, stream) = open(&cut).unwrap();
    model.recovered(&stream);
    interrupted
}

#[test]
fn a_journal_that_was_begun_twice_keeps_what_it_acknowledges() {
    // Making the folders and the first segment, each durably, and what recovery does beside.
    let interrupted = (0..40).filter(|number| begun_twice(*number)).count();
    assert!((8..40).contains(&interrupted), "{interrupted} openings were interrupted");
}

#[test]
fn a_failed_sync_of_a_new_segments_name_is_final_whatever_its_cause() {
    for fault in [Fault::Error, Fault::Lossy, Fault::Full] {
        let (mut random, disk, mut model) = (Random(1), MemoryDisk::new(), Model::default());
        let (journal, stream) = open(&disk).unwrap();
        append(&stream, &mut model, &[5_000], &mut random).unwrap();
        // Behind the group's write and sync, and the new file's creation, write and sync.
        let before = disk.operations();
        disk.fail(5, fault, false);
        let failed = stream.sync();
        assert!(matches!(failed, Err(Error::Io { operation: "sync", .. })), "{failed:?}");
        assert_eq!(disk.operations() - before, 6, "{fault:?}: something was tried again");
        assert!(stream.is_poisoned(), "{fault:?}");
        drop((journal, stream));
        // The next process finds the name, and makes it durable for certain.
        let (_journal, stream) = open(&disk).unwrap();
        model.recovered(&stream);
        append(&stream, &mut model, &[9], &mut random).unwrap();
        model.synced(stream.sync().unwrap());
        let (_journal, stream) = open(&disk.power_cut(&mut |n| n - 1)).unwrap();
        model.recovered(&stream);
        let (_journal, stream) = open(&disk.power_cut(&mut |_| 0)).unwrap();
        model.recovered(&stream);
    }
}

/// A disk that fills up and is freed, again and again.
pub(crate) fn fill(seed: u64) -> u64 {
    let mut random = Random(seed);
    let (mut disk, mut model, mut full) = (MemoryDisk::new(), Model::default(), 0);
    for _ in 0..6 {
        let (_journal, stream) = open(&disk).unwrap();
        model.recovered(&stream);
        disk.limit(Some(disk.used() + random.below(12_000)));
        while full % 8 != 7 {
            match act(&stream, &mut model, &mut random) {
                Ok(()) => {}
                Err(Error::NoSpace { .. }) => {
                    full += 1;
                    assert!(!stream.is_poisoned());
                    assert!(stream.has_staged(), "what did not fit is no longer staged");
                    assert_eq!(stream.watermarks().appended.get() as usize, model.len());
                    model.accounted(&disk, &stream);
                }
                Err(error) => panic!("{error}"),
            }
        }
        full += 1;
        // Still full, it is trimmed all the same, and what that frees is used.
        model.trimmed = model.acked;
        let segments = disk.files().len();
        let freed = stream.trim(Offset::new(model.acked as u64), true).unwrap();
        assert!(freed > 0 || segments == 1, "{segments} segments, none trimmed");
        model.read(&stream);
        if random.one_in(2) {
            disk.limit(None);
            model.synced(stream.sync().unwrap());
            assert_eq!(model.acked, model.len());
            model.accounted(&disk, &stream);
        }
        drop(stream);
        disk.limit(None);
        disk = disk.power_cut(&mut |n| random.below(n));
    }
    let (_journal, stream) = open(&disk).unwrap();
    model.recovered(&stream);
    model.read(&stream);
    full
}

#[test]
fn an_error_at_any_operation_loses_nothing_that_was_acknowledged() {
    let seeds = count("THINWIRE_WORKLOADS", 200);
    let tally = each_seed("an_error_at_any_operation", seeds, workload);
    let took = tally.took.as_secs_f64();
    say(&format!("failing disks: {seeds} workloads, {} failures in {took:.0} s", tally.total));
}

#[test]
fn a_full_disk_loses_nothing_and_goes_on_when_there_is_room() {
    let tally = each_seed("a_full_disk", 500, fill);
    let took = tally.took.as_secs_f64();
    say(&format!("full disks: {} writes that did not fit in {took:.0} s", tally.total));
}
