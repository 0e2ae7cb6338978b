//! The journal's life on a disk that loses power, at any operation: nothing acknowledged is lost, nothing else
//! appears, and a pure power cut never halts a stream.
//!
//! `THINWIRE_CRASHES` sets how many power cuts the loop makes.

use std::sync::atomic::{AtomicU64, Ordering};

use thinwire_engine::storage::memory::{Fault, MemoryDisk};

use crate::world::{Model, Random, act, count, each_seed, open, say};

/// How many power cuts one life has. Short lives keep the world small, and so quick.
const CUTS: u64 = 32;

/// One of so many recoveries is checked by reading everything; all others by the checksum of all records.
const FULL_CHECKS: usize = 6;

/// Acts until the power goes at some operation, recovers, and again; returns how many acknowledged records
/// survived. A cut may also come while recovering, and instead of it only the process may die.
pub(crate) fn life(seed: u64) -> u64 {
    let mut random = Random(seed);
    let (mut disk, mut model, mut cuts, mut survived) = (MemoryDisk::new(), Model::default(), 0, 0);
    while cuts < CUTS {
        if random.one_in(4) {
            disk.pin_cache();
        }
        let (journal, stream) = open(&disk).expect("a power cut alone never halts a stream");
        survived += model.acked as u64;
        model.recovered(&stream);
        if random.one_in(FULL_CHECKS) {
            model.read(&stream);
            model.accounted(&disk, &stream);
        }
        let (before, number) = (disk.operations(), random.below(16) as u64);
        let fault = [Fault::Error, Fault::Error, Fault::Lossy, Fault::Holes][random.below(4)];
        disk.fail(number, fault, fault == Fault::Error || random.one_in(2));
        for _ in 0..random.below(14) {
            if let Err(error) = act(&stream, &mut model, &mut random) {
                assert!(disk.operations() - before > number, "{error}, and the disk did not fail");
                break;
            }
        }
        disk.heal();
        drop((journal, stream));
        if random.one_in(8) {
            // Only the process was killed: the next one finds what the cache holds, and goes on.
            continue;
        }
        cuts += 1;
        disk = disk.power_cut(&mut |n| random.below(n));
        while cuts < CUTS && random.one_in(3) {
            disk.fail(random.below(9) as u64, Fault::Error, true);
            drop(open(&disk));
            disk.heal();
            cuts += 1;
            disk = disk.power_cut(&mut |n| random.below(n));
        }
    }
    let (_journal, stream) = open(&disk).expect("a power cut alone never halts a stream");
    model.recovered(&stream);
    model.read(&stream);
    survived
}

#[test]
fn a_power_cut_at_any_time_loses_nothing_that_was_acknowledged() {
    let lives = count("THINWIRE_CRASHES", 200_000).div_ceil(CUTS);
    let survived = AtomicU64::new(0);
    let tally = each_seed("a_power_cut_at_any_time", lives, |seed| {
        survived.fetch_add(life(seed), Ordering::Relaxed);
        CUTS
    });
    say(&format!(
        "power cuts: {} in {:.0} s; acknowledged records checked: {}, lost: 0; false halts: 0",
        tally.total,
        tally.took.as_secs_f64(),
        survived.into_inner(),
    ));
}
