//! Power cuts while recovering, several in a row: it ends in the same state as without any.
//!
//! `THINWIRE_RECOVERY_CRASHES` sets how many there are.

use std::path::PathBuf;

use thinwire_engine::{
    journal::{Tail, Watermarks},
    storage::memory::{Fault, MemoryDisk},
};

use crate::world::{Random, count, each_seed, interrupted, open, say};

/// How often in a row the power goes.
const DEPTH: u64 = 5;

type State = (Watermarks, Tail, Vec<(PathBuf, Vec<u8>)>);

/// Recovers, and says all that there is then.
fn recovered(disk: &MemoryDisk) -> State {
    let (_journal, stream) = open(disk).expect("a power cut alone never halts a stream");
    let files = disk.files().into_iter().map(|path| (path.clone(), disk.content(&path)));
    (stream.watermarks(), stream.tail(), files.collect())
}

/// One image of a power cut, recovered at once and with cuts between; returns how many those were.
pub(crate) fn interruptions(seed: u64) -> u64 {
    let mut random = Random(seed);
    let (disk, _) = interrupted(&mut random);
    let mut disk = disk.power_cut(&mut |n| random.below(n));
    let expected = recovered(&disk.copy());
    for _ in 0..DEPTH {
        disk.fail(random.below(10) as u64, Fault::Error, true);
        drop(open(&disk));
        disk.heal();
        disk = disk.power_cut(&mut |n| random.below(n));
    }
    assert_eq!(recovered(&disk), expected);
    DEPTH
}

#[test]
fn recovery_that_is_cut_short_again_and_again_ends_as_if_it_was_not() {
    let seeds = count("THINWIRE_RECOVERY_CRASHES", 200_000).div_ceil(DEPTH);
    let tally = each_seed("recovery_that_is_cut_short", seeds, interruptions);
    say(&format!(
        "power cuts while recovering: {} in {:.0} s; states that differ: 0",
        tally.total,
        tally.took.as_secs_f64()
    ));
}
