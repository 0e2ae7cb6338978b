//! Which lane a backlog takes: packets as long as the link is what takes the time.
//!
//! A packet takes about ten times as long to make as zstd's output, and is several times shorter. On a thin link that time is
//! free. Where the link hardly ever makes the sender wait, records go through zstd, until it turns out that they
//! do not go much faster there. Small batches are always packed: what is fresh has no backlog to hold up.

use std::time::Duration;

/// What was seen of the current lane.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    packs: bool,
    /// Wire bytes after which the current lane is judged.
    span: u64,
    seen: Seen,
    /// Bytes of records a second that the link took in packets, when it could have taken more.
    packed_rate: f64,
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
        Self { packs: true, span: SPAN_MIN, seen: Seen::default(), packed_rate: 0.0 }
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
        let Seen { records, working, waiting, .. } = std::mem::take(seen);
        let rate = records as f64 / (working + waiting).as_secs_f64().max(f64::MIN_POSITIVE);
        if self.packs {
            self.packs = waiting * IDLE_SHARE > working;
            self.packed_rate = rate;
        } else if rate < self.packed_rate * WORTHWHILE {
            self.packs = true;
            self.span = (self.span * 4).min(SPAN_MAX);
        }
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

/// Only a lane that is so many times faster is worth its bytes.
const WORTHWHILE: f64 = 2.0;

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: usize = 16 << 10;

    /// Sends batches over a link of so many bytes a second until `until` or for a long time; returns whether the last was
    /// packed. Packing makes a tenth at 5 MB/s, zstd a third at 50 MB/s.
    fn after(pace: &mut Pace, link: f64, batches: usize) -> bool {
        for _ in 0..batches {
            let (wire, speed) =
                if pace.packs(BATCH) { (BATCH / 10, 5e6) } else { (BATCH / 3, 50e6) };
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
    fn what_is_fresh_is_packed_on_any_link() {
        let mut pace = Pace::default();
        after(&mut pace, 100e6, 1_000);
        assert!(pace.packs(500));
    }
}
