//! Which lane a backlog takes: packets as long as the link is what takes the time.
//!
//! A packet takes about ten times as long to make as zstd's output, and is several times shorter. On a thin link that time is
//! free. Where the link hardly ever makes the sender wait, records go through zstd, until it turns out that what they gain there
//! in time is not worth what it costs in bytes. Small batches are always packed: what is fresh has no backlog to hold up.

use std::time::Duration;

/// What was seen of the current lane.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    packs: bool,
    /// Wire bytes after which the current lane is judged.
    span: u64,
    seen: Seen,
    /// What packets made of records when the link could have taken more.
    packed: Yield,
}

/// What a lane makes of records.
#[derive(Clone, Copy, Debug, Default)]
struct Yield {
    /// Bytes of records a second.
    rate: f64,
    /// Wire bytes for a byte of them.
    share: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    records: u64,
    wire: u64,
    working: Duration,
    waiting: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { packs: true, span: SPAN_MIN, seen: Seen::default(), packed: Yield::default() }
    }
}

impl Pace {
    /// Whether a batch with so many bytes of records is packed.
    pub fn packs(&self, records: usize) -> bool {
        self.packs || records < BACKLOG_BYTES
    }

    /// A batch was sent: so many bytes of records as so many on the wire; making them and waiting for the link
    /// took so long.
    pub fn sent(&mut self, records: usize, wire: usize, working: Duration, waiting: Duration) {
        if records < BACKLOG_BYTES {
            return;
        }
        let seen = &mut self.seen;
        seen.records += records as u64;
        seen.wire += wire as u64;
        seen.working += working;
        seen.waiting += waiting;
        if seen.wire < self.span {
            return;
        }
        let Seen { working, waiting, .. } = *seen;
        let made = std::mem::take(seen).made();
        if self.packs {
            self.packs = waiting * IDLE_SHARE > working;
            self.packed = made;
        } else if !made.is_worth_more_than(self.packed) {
            self.packs = true;
            self.span = (self.span * 4).min(SPAN_MAX);
        }
    }
}

impl Seen {
    fn made(&self) -> Yield {
        let seconds = (self.working + self.waiting).as_secs_f64().max(f64::MIN_POSITIVE);
        let records = self.records as f64;
        Yield { rate: records / seconds, share: self.wire as f64 / records.max(1.0) }
    }
}

impl Yield {
    /// Whether it is faster by at least as much as it is longer. What is much faster may be longer still.
    fn is_worth_more_than(&self, packed: Self) -> bool {
        let longer = (self.share / packed.share.max(f64::MIN_POSITIVE)).clamp(1.0, WORTHWHILE);
        self.rate >= packed.rate * longer
    }
}

/// Smaller batches are what was just committed.
const BACKLOG_BYTES: usize = 8 << 10;

/// More than a connection takes in before it makes us wait, its first window and what may wait behind that, so that a thin
/// link shows; little enough that a fast one is not held up for long.
const SPAN_MIN: u64 = 32 << 10;

/// Every lane that is left is tried again some time.
const SPAN_MAX: u64 = 64 << 20;

/// The link is idle if waiting for it takes less than this part of the work.
const IDLE_SHARE: u32 = 4;

/// A lane that is so many times faster is worth any bytes.
const WORTHWHILE: f64 = 2.0;

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: usize = 16 << 10;

    /// What a lane makes of a batch, and at how many bytes a second.
    type Lane = (usize, f64);

    /// Packing makes a tenth at 5 MB/s, zstd a third at 50 MB/s.
    const ROWS: [Lane; 2] = [(BATCH / 10, 5e6), (BATCH / 3, 50e6)];
    /// Packets save a fourteenth of what zstd makes nothing of.
    const NOISE: [Lane; 2] = [(BATCH - BATCH / 14, 7e6), (BATCH, 50e6)];

    /// Sends batches over a link of so many bytes a second; returns whether the last was packed.
    fn after(pace: &mut Pace, link: f64, batches: usize) -> bool {
        ends_packed(pace, ROWS, link, batches)
    }

    fn ends_packed(
        pace: &mut Pace,
        [packed, squeezed]: [Lane; 2],
        link: f64,
        batches: usize,
    ) -> bool {
        for _ in 0..batches {
            let (wire, speed) = if pace.packs(BATCH) { packed } else { squeezed };
            let working = Duration::from_secs_f64(BATCH as f64 / speed);
            let carrying = Duration::from_secs_f64(wire as f64 / link);
            pace.sent(BATCH, wire, working, carrying.saturating_sub(working));
        }
        pace.packs(BATCH)
    }

    #[test]
    fn a_thin_link_is_always_packed_for() {
        assert!(after(&mut Pace::default(), 64e3, 10_000));
    }

    #[test]
    fn a_fast_link_is_not_held_up() {
        assert!(!after(&mut Pace::default(), 100e6, 1_000));
    }

    #[test]
    fn a_link_that_becomes_thin_is_packed_for_again() {
        let mut pace = Pace::default();
        assert!(!after(&mut pace, 100e6, 1_000));
        assert!(after(&mut pace, 64e3, 1_000));
    }

    #[test]
    fn what_packets_hardly_shorten_goes_as_fast_as_the_link_takes_it() {
        assert!(!ends_packed(&mut Pace::default(), NOISE, 12.5e6, 10_000));
        assert!(ends_packed(&mut Pace::default(), NOISE, 1e6, 10_000));
    }

    #[test]
    fn what_is_fresh_is_packed_on_any_link() {
        let mut pace = Pace::default();
        after(&mut pace, 100e6, 1_000);
        assert!(pace.packs(500));
    }
}
