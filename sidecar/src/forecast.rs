//! When the journal will be full, if it goes on growing as it did in the last minutes.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use thinwire_engine::{journal::Usage, model::StreamId};

/// Long enough to look past the steps in which segments come and go, short enough to notice that the link went down.
const WINDOW: Duration = Duration::from_secs(300);
/// How finely the window is followed: what is kept of the past is bounded by it.
const STEP: Duration = Duration::from_secs(5);

/// How much each stream had in the last minutes.
#[derive(Debug, Default)]
pub struct Forecast {
    history: BTreeMap<StreamId, VecDeque<(Instant, u64)>>,
    hours_left: Option<f64>,
}

impl Forecast {
    /// Told what each stream uses and may use, works out the time that is left.
    pub fn observe(&mut self, streams: &[(StreamId, Usage)], now: Instant) {
        self.history.retain(|id, _| streams.iter().any(|(known, _)| known == id));
        // All grow into the same room; the first that has none left is felt.
        let (mut rate, mut room) = (0.0, u64::MAX);
        for (id, usage) in streams {
            let growth = self.growth(*id, usage.bytes, now);
            if growth > 0.0 {
                rate += growth;
                room = room.min(usage.room());
            }
        }
        self.hours_left = (rate > 0.0).then(|| as_float(room) / rate / 3_600.0);
    }

    /// Until a stream that grows has no room; `None` if none grows.
    pub fn hours_left(&self) -> Option<f64> {
        self.hours_left
    }

    /// By how many bytes a second the stream grew over the window.
    fn growth(&mut self, id: StreamId, bytes: u64, now: Instant) -> f64 {
        let history = self.history.entry(id).or_default();
        if history.back().is_none_or(|(at, _)| now - *at >= STEP) {
            history.push_back((now, bytes));
        }
        while history.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) {
            history.pop_front();
        }
        let Some((since, before)) = history.front() else { return 0.0 };
        let elapsed = now - *since;
        match elapsed < STEP {
            true => 0.0,
            false => as_float(bytes.saturating_sub(*before)) / elapsed.as_secs_f64(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a forecast needs no more than 52 bits")]
fn as_float(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use thinwire_engine::model::{Epoch, Origin};

    use super::*;

    fn stream(number: u8) -> StreamId {
        StreamId { origin: Origin::from_bytes([number; 16]), epoch: Epoch::from_bytes([0; 16]) }
    }

    /// The forecast after seconds in which streams grew, each by so many bytes a second.
    fn after(seconds: u64, rates: &[u64], budget: u64) -> Option<f64> {
        let (mut forecast, start) = (Forecast::default(), Instant::now());
        for second in 0..=seconds {
            let used = |rate: &u64| Usage { bytes: rate * second, budget };
            let streams: Vec<_> = (1..).map(stream).zip(rates.iter().map(used)).collect();
            forecast.observe(&streams, start + Duration::from_secs(second));
        }
        forecast.hours_left()
    }

    fn is_about(hours: Option<f64>, expected: f64) -> bool {
        hours.is_some_and(|hours| (hours - expected).abs() < expected / 100.0)
    }

    #[test]
    fn what_is_left_is_the_room_at_the_rate_of_the_window() {
        assert_eq!(after(4, &[1_000], 10_000_000), None);
        assert!(is_about(after(100, &[1_000], 3_700_000), 1.0));
        assert!(is_about(after(3_600, &[1_000], 7_200_000), 1.0));
        // Two streams grow into the same room.
        assert!(is_about(after(100, &[500, 500], 3_650_000), 1.0));
        // One that has little room but does not grow is not in the way.
        assert!(is_about(after(100, &[1_000, 0], 3_700_000), 1.0));
        assert_eq!(after(600, &[0], 1_000), None);
    }

    #[test]
    fn what_was_before_the_window_is_forgotten() {
        let (mut forecast, start) = (Forecast::default(), Instant::now());
        for second in 0..1_000_u64 {
            let usage = Usage { bytes: second.min(300) * 1_000, budget: 1 << 30 };
            forecast.observe(&[(stream(1), usage)], start + Duration::from_secs(second));
            assert!(forecast.history[&stream(1)].len() <= 62);
            assert_eq!(forecast.hours_left().is_some(), (5..600).contains(&second), "{second}");
        }
    }
}
