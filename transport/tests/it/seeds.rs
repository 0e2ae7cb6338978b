//! Many runs that differ by their seed alone; the one that fails is named, and can be run again.

use std::{
    env,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::Instant,
};

/// A number from the environment, or the usual one.
pub fn count(variable: &str, usual: u64) -> u64 {
    let set = env::var(variable).ok();
    set.map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

/// Runs the case of each seed below `seeds`, on all cores; only that of `THINWIRE_SEED` if it is set.
pub fn each_seed(test: &str, seeds: u64, case: impl Fn(u64) + Sync) {
    let only = env::var("THINWIRE_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let (first, end) = only.map_or((0, seeds), |seed| (seed, seed + 1));
    let (next, started) = (AtomicU64::new(first), Instant::now());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= end {
                return;
            }
            if catch_unwind(AssertUnwindSafe(|| case(seed))).is_err() {
                next.store(end, Relaxed);
                panic!(
                    "seed {seed} fails; replay it with THINWIRE_SEED={seed} \
                     cargo test -p thinwire-transport --test it -- {test}"
                );
            }
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                resume_unwind(panic);
            }
        }
    });
    let took = started.elapsed();
    drop(writeln!(io::stderr(), "{test}: {} seeds in {took:.0?}", end - first));
}

/// Numbers from a seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// From 0 to 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Between two numbers, as many in each decade.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.share())
    }
}
