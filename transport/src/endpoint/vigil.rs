//! Whether a connection is alive: when to probe, and when to dial beside it. Told the time; asks nothing.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::probe_interval;

/// Watches one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vigil {
    acks: u64,
    /// How many frames had been sent that ask for an acknowledgement, when there was none to wait for.
    settled: u64,
    /// Since when something is unacknowledged without any acknowledgement coming.
    since: Instant,
    waiting: bool,
    probed: Instant,
    suspect: bool,
    /// The way to the peer has changed since it was last heard.
    doubtful: bool,
}

/// What is to be done about a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Advice {
    /// Let a probe leave.
    pub(crate) probe: bool,
    /// The connection has become suspect, or has shown life again.
    pub(crate) suspect: Option<bool>,
}

/// What a connection looks like.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Signs {
    /// Bytes in flight when the last acknowledgement had come.
    pub(crate) left: u64,
    /// How many acknowledgements have come.
    pub(crate) acks: u64,
    /// How many frames were sent that ask for one.
    pub(crate) asking: u64,
    /// How many packets have come.
    pub(crate) heard: u64,
    pub(crate) rtt: Duration,
}

impl Vigil {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            acks: 0,
            settled: 0,
            since: now,
            waiting: false,
            probed: now,
            suspect: false,
            doubtful: false,
        }
    }

    /// Whether an acknowledgement is awaited.
    pub(crate) fn waits(&self, signs: Signs) -> bool {
        signs.left > 0 || signs.asking != self.settled
    }

    /// How long to look away.
    pub(crate) fn pause(&self, now: Instant, signs: Signs) -> Duration {
        match (self.waits(signs), self.suspect) {
            (false, _) => IDLE_TICK,
            (true, false) => TICK,
            // As rarely as it is probed.
            (true, true) => probe_interval(now - self.since).min(IDLE_TICK),
        }
    }

    /// The way to the peer has changed: whoever does not answer soon will not.
    pub(crate) fn doubt(&mut self) {
        self.doubtful = true;
    }

    pub(crate) fn observe(&mut self, now: Instant, signs: Signs) -> Advice {
        let mut advice = Advice::default();
        let answered = signs.acks != self.acks;
        self.doubtful &= !answered;
        if answered && signs.left == 0 {
            // What was sent between the acknowledgement and now goes unnoticed until it is sent again.
            self.settled = signs.asking;
        }
        let waiting = self.waits(signs);
        let began = waiting && !self.waiting;
        self.waiting = waiting;
        if answered || began || !waiting {
            (self.acks, self.since) = (signs.acks, now);
            if self.suspect {
                self.suspect = false;
                advice.suspect = Some(false);
            }
            return advice;
        }
        let rtt = signs.rtt;
        let silence = now - self.since;
        if silence >= PROBE_AFTER.max(rtt.mul_f64(1.25))
            && now - self.probed >= probe_interval(silence)
        {
            self.probed = now;
            advice.probe = true;
        }
        let patience = match self.doubtful {
            true => DOUBT_AFTER.max(rtt * 2),
            false => SUSPECT_AFTER.max(rtt * 4),
        };
        if !self.suspect && silence >= patience {
            self.suspect = true;
            advice.suspect = Some(true);
        }
        advice
    }
}

/// How long to wait for the peer's hello: a round trip, and the losses of a bad link. At high loss a few
/// handshakes in a thousand complete on one side and never carry anything.
pub(crate) fn hello_timeout(rtt: Duration) -> Duration {
    (rtt * 10).clamp(Duration::from_secs(8), Duration::from_secs(60))
}

const TICK: Duration = Duration::from_millis(250);
const IDLE_TICK: Duration = Duration::from_secs(1);
const PROBE_AFTER: Duration = Duration::from_millis(750);
const SUSPECT_AFTER: Duration = Duration::from_secs(5);
const DOUBT_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(left: u64, acks: u64, asking: u64) -> Signs {
        Signs { left, acks, asking, heard: 0, rtt: Duration::from_millis(600) }
    }

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn silence_is_probed_twice_a_second_and_suspect_after_five() {
        let start = Instant::now();
        let mut vigil = Vigil::new(start);
        let (mut probes, mut suspect_at) = (0, None);
        for tick in 1..=40 {
            let advice = vigil.observe(at(start, (tick - 1) * 250), signs(12_000, 0, 10));
            probes += u32::from(advice.probe);
            if advice.suspect == Some(true) {
                suspect_at = Some((tick - 1) * 250);
            }
        }
        assert!((17..=20).contains(&probes), "{probes}");
        assert_eq!(suspect_at, Some(5_000));
        assert_eq!(vigil.observe(at(start, 10_250), signs(12_000, 1, 20)).suspect, Some(false));
    }

    #[test]
    fn a_connection_with_nothing_in_flight_is_left_alone() {
        let start = Instant::now();
        let mut vigil = Vigil::new(start);
        assert_eq!(vigil.observe(at(start, 250), signs(0, 1, 7)), Advice::default());
        for tick in 2..=1_000 {
            assert_eq!(vigil.observe(at(start, tick * 250), signs(0, 1, 7)), Advice::default());
        }
        // Silence counts from when something was sent.
        assert_eq!(vigil.observe(at(start, 250_500), signs(0, 1, 8)), Advice::default());
        assert!(vigil.observe(at(start, 251_500), signs(0, 1, 8)).probe);
    }

    #[test]
    fn over_another_way_there_is_less_patience_until_something_is_heard() {
        let start = Instant::now();
        let mut vigil = Vigil::new(start);
        vigil.observe(start, signs(100, 1, 1));
        vigil.doubt();
        assert_eq!(vigil.observe(at(start, 1_150), signs(100, 1, 1)).suspect, None);
        assert_eq!(vigil.observe(at(start, 1_200), signs(100, 1, 1)).suspect, Some(true));
        assert_eq!(vigil.observe(at(start, 1_300), signs(100, 2, 1)).suspect, Some(false));
        assert_eq!(vigil.observe(at(start, 4_000), signs(100, 2, 1)).suspect, None);
    }

    #[test]
    fn a_long_round_trip_is_no_silence() {
        let start = Instant::now();
        let mut vigil = Vigil::new(start);
        let signs = Signs { rtt: Duration::from_secs(3), ..signs(100, 0, 1) };
        vigil.observe(start, signs);
        assert_eq!(vigil.observe(at(start, 3_000), signs), Advice::default());
    }
}
