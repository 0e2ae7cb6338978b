//! A seed is all that it takes to see something again: every hundredth is lived twice, and the same is on the disk and said.

use crate::{
    cache, classify, crash, errors, recovery, stale,
    world::{each_seed, say, traced},
};

/// Seeds that are looked at, of which one in so many is lived.
const SEEDS: u64 = 4_000;
const EVERY: u64 = 100;

/// A proof, and how many of the seeds that are lived it has one of: some are dear.
type Proof = (&'static str, u64, fn(u64) -> u64);

const PROOFS: [Proof; 7] = [
    ("life", 1, crash::life),
    ("recovery", 1, recovery::interruptions),
    ("classify", 1, |seed| classify::image(seed) as u64),
    ("fill", 1, errors::fill),
    ("errors", 10, errors::workload),
    ("other life", 1, stale::other_life),
    ("decay", 1, cache::decayed),
];

fn twice(number: u64) -> u64 {
    let (seed, mut lived) = (number * EVERY, 0);
    for (name, _, proof) in PROOFS.into_iter().filter(|(_, every, _)| number.is_multiple_of(*every))
    {
        let (once, again) = (traced(|| proof(seed)), traced(|| proof(seed)));
        assert_eq!(once, again, "{name} with seed {seed} is another the second time");
        // Otherwise nothing was compared.
        assert_ne!(once, traced(|| proof(seed + 1)), "{name} with seeds {seed} and {}", seed + 1);
        lived += 1;
    }
    lived
}

#[test]
fn what_a_seed_does_it_does_again() {
    let tally = each_seed("what_a_seed_does", SEEDS / EVERY, twice);
    let took = tally.took.as_secs_f64();
    say(&format!("lived twice: {} in {took:.0} s; that differ: 0", tally.total));
}
