//! The tests of the tests: each mistake of `thinwire_engine::mutant` is made in turn, and one of the proofs must
//! see it before it has tried many seeds; without a mistake, none may see anything.
#![allow(clippy::disallowed_methods, reason = "tests keep their own files")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers of the tests own")]
#![allow(dead_code, unused_imports, reason = "the proofs are tests in another binary")]

mod cache;
mod classify;
mod crash;
mod errors;
mod flips;
mod meanwhile;
mod mend;
mod misplaced;
mod recovery;
mod stale;
mod world;

use std::{
    panic::{catch_unwind, set_hook},
    process::ExitCode,
    sync::atomic::Ordering,
};

use thinwire_engine::mutant::{self, Mutant};
use world::say;

/// How many seeds may be needed, unless `THINWIRE_MUTANT_SEEDS` says otherwise.
const SEEDS_MAX: u64 = 10_000;

/// How many seeds are tried without any mistake.
const SEEDS_SOUND: u64 = 60;

type Proof = (&'static str, fn(u64) -> u64);

/// The quick ones first. A dear one is tried with one of several seeds.
const PROOFS: [(u64, Proof); 15] = [
    (1, ("life", crash::life)),
    (1, ("recovery", recovery::interruptions)),
    (1, ("classify", |seed| classify::image(seed) as u64)),
    (1, ("decay", cache::decayed)),
    (1, ("fill", errors::fill)),
    (1, ("other life", stale::other_life)),
    (1, ("other stream", stale::other_stream)),
    (1, ("meanwhile", meanwhile::overtaken)),
    (1, ("lost mark", mend::lost_mark)),
    (16, ("mending", |seed| mend::damaged(seed / 16))),
    (16, ("followed", |seed| mend::followed(seed / 16))),
    (32, ("flips", |seed| flips::piece(seed / 32 % 900))),
    (32, ("sectors", |seed| flips::sector(seed / 32 % 100))),
    (32, ("errors", |seed| errors::workload(seed / 32))),
    (64, ("misplaced", |seed| misplaced::mixed_up(seed / 64 % 40))),
];

/// The first proof that fails, and after how many seeds.
fn seen(seeds: u64) -> Option<(u64, &'static str)> {
    (0..seeds).find_map(|seed| {
        let due = PROOFS.iter().filter(|(every, _)| seed % every == 0);
        let failed = |(name, proof): &Proof| catch_unwind(|| proof(seed)).is_err().then_some(*name);
        due.map(|(_, proof)| proof).find_map(failed).map(|name| (seed + 1, name))
    })
}

fn main() -> ExitCode {
    // What is expected to fail need not say so.
    set_hook(Box::new(|_| {}));
    world::QUIET.store(true, Ordering::Relaxed);
    // Made before any mistake is.
    assert!(!flips::SOUND.files.is_empty());
    if let Some((seeds, name)) = seen(SEEDS_SOUND) {
        say(&format!("without a mistake, {name} fails at seed {}", seeds - 1));
        return ExitCode::FAILURE;
    }
    let (mut missed, max) = (0, world::count("THINWIRE_MUTANT_SEEDS", SEEDS_MAX));
    for &mistake in Mutant::ALL {
        mutant::set(Some(mistake));
        let line = match seen(max) {
            Some((seeds, name)) => format!("{seeds:>6} seeds, seen by {name}"),
            None => {
                missed += 1;
                format!("NOT SEEN in {max} seeds")
            }
        };
        mutant::set(None);
        say(&format!("{:<24}{line}", format!("{mistake:?}")));
    }
    let all = Mutant::ALL.len();
    say(&format!("mutants seen: {} of {all}; mistakes seen where none is: 0", all - missed));
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
