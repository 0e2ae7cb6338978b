//! Time and processor time of many turns of the same work.
//!
//! What a turn waits for a processor that other programs have is not counted: it tells of them, and would weigh
//! the more the more of its time a contender computes.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

/// What some turns took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter {
    times: Vec<Duration>,
    cpu: Duration,
}

impl Meter {
    /// Does one turn.
    pub(crate) fn turn<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (cpu, waited, started) = (cpu_time(), waited(), Instant::now());
        let done = work();
        let took = started.elapsed();
        self.times.push(took.saturating_sub(self::waited() - waited));
        self.cpu += cpu_time().saturating_sub(cpu);
        done
    }

    /// Takes in what was timed elsewhere.
    pub(crate) fn extend(&mut self, times: impl IntoIterator<Item = Duration>) {
        self.times.extend(times);
    }

    /// What the share `share` of all turns did not exceed.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 <= share < 1"
        )]
        let at = (sorted.len() as f64 * share) as usize;
        sorted.get(at).copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    /// How many times as fast these turns were as those of `other` beside them: the median of the pairs.
    pub(crate) fn speed_against(&self, other: &Self) -> f64 {
        let pairs = self.times.iter().zip(&other.times);
        let mut ratios: Vec<f64> =
            pairs.map(|(mine, theirs)| theirs.as_secs_f64() / mine.as_secs_f64()).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn count(&self) -> u64 {
        self.times.len() as u64
    }

    /// User and system time of all turns.
    pub(crate) fn cpu(&self) -> Duration {
        self.cpu
    }
}

/// User and system time of this process so far.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).expect("a process has not run for negative time");
    let nanos = u32::try_from(time.tv_nsec).expect("nanoseconds are below a thousand million");
    Duration::new(seconds, nanos)
}

/// How long this thread could have run so far, but had no processor.
fn waited() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').nth(1).and_then(|it| it.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}
