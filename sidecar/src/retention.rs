//! When a segment may go: the local database has applied it, every peer to which its stream is sent has acked
//! it, and the retention window has passed. Nothing else removes one.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use thinwire_engine::model::{Offset, StreamId};

/// How finely the window is followed: what is kept of the past is bounded by it.
const STEPS: u32 = 512;

/// What everybody has of each stream, and since when.
#[derive(Debug)]
pub struct Retention {
    window: Duration,
    history: BTreeMap<StreamId, VecDeque<(Instant, Offset)>>,
}

impl Retention {
    /// Keeps what everybody has for `window`.
    pub fn new(window: Duration) -> Self {
        Self { window, history: BTreeMap::new() }
    }

    /// Told what `consumers` (the local database and peers) have of a stream, says what may go; `pressed`, the window
    /// is given up for room. A stream that nobody consumes is kept.
    pub fn decide(
        &mut self,
        stream: StreamId,
        consumers: impl IntoIterator<Item = Offset>,
        pressed: bool,
        now: Instant,
    ) -> Offset {
        let safe = consumers.into_iter().min().unwrap_or(Offset::ZERO);
        let history = self.history.entry(stream).or_default();
        let due = |at: &(Instant, Offset)| at.1 < safe && now - at.0 >= self.window / STEPS;
        if history.back().is_none_or(due) {
            history.push_back((now, safe));
        }
        let is_aged =
            |at: Option<&(Instant, Offset)>| at.is_some_and(|at| now - at.0 >= self.window);
        // The last one that is old enough stays in front: it is what may go until the next is.
        while is_aged(history.get(1)) {
            history.pop_front();
        }
        let aged = history.front().filter(|at| is_aged(Some(at))).map_or(Offset::ZERO, |at| at.1);
        // A consumer that came back to before what it had takes precedence over what was noted.
        if pressed { safe } else { aged.min(safe) }
    }
}

#[cfg(test)]
mod tests {
    use thinwire_engine::model::{Epoch, Origin};

    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn stream() -> StreamId {
        StreamId { origin: Origin::from_bytes([1; 16]), epoch: Epoch::from_bytes([2; 16]) }
    }

    fn offsets(ordinals: &[u64]) -> Vec<Offset> {
        ordinals.iter().copied().map(Offset::new).collect()
    }

    #[test]
    fn nothing_goes_before_the_slowest_consumer_has_it_for_the_window() {
        let (mut retention, start) = (Retention::new(WINDOW), Instant::now());
        let mut at = |seconds, consumers: &[u64]| {
            let now = start + Duration::from_secs(seconds);
            retention.decide(stream(), offsets(consumers), false, now).get()
        };
        assert_eq!(at(0, &[50, 9]), 0);
        assert_eq!(at(59, &[50, 20]), 0);
        assert_eq!(at(60, &[50, 20]), 9);
        assert_eq!(at(118, &[50, 20]), 9);
        assert_eq!(at(119, &[50, 20]), 20);
        assert_eq!(at(500, &[50, 20]), 20);
        assert_eq!(at(501, &[50, 3]), 3);
    }

    #[test]
    fn when_room_is_needed_the_window_is_given_up_but_not_the_consumers() {
        let mut retention = Retention::new(WINDOW);
        let upto = retention.decide(stream(), offsets(&[50, 9]), true, Instant::now());
        assert_eq!(upto, Offset::new(9));
    }

    #[test]
    fn a_stream_that_nobody_takes_is_kept() {
        let mut retention = Retention::new(Duration::ZERO);
        assert_eq!(retention.decide(stream(), [], true, Instant::now()), Offset::ZERO);
    }
}
