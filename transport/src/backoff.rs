//! When to dial or probe again: pure functions of attempts, silence and randomness.

use std::time::Duration;

/// The time from the start of one dial to the start of the next, after so many that failed in a row. At least a
/// second, so that nobody is flooded; at most five, so that a short contact is not missed; jittered downwards,
/// so that many edges behind one outage do not come back in step.
pub fn dial_delay(failures: u32, random: u64) -> Duration {
    let steps = failures.saturating_sub(1).min(DOUBLINGS_MAX);
    let base = (DIAL_DELAY_MIN * 2_u32.pow(steps)).min(DIAL_DELAY_MAX);
    let cut = base.mul_f64(0.25 * unit(random));
    (base - cut)
        .max(DIAL_DELAY_MIN + DIAL_DELAY_MIN.mul_f64(0.25 * unit(random.rotate_left(32))))
        .min(DIAL_DELAY_MAX)
}

/// The same while something cheaper says sooner when the link is back: probes of a connection that is only silent, or
/// knocks. They cost a hundredth of a dial. What is left for it is a path that swallows them alone: an
/// outage becomes twice as long there, and by no more than about an hour.
pub fn dial_away_delay(failures: u32, random: u64) -> Duration {
    let doublings = failures.min(AWAY_DOUBLINGS_MAX);
    dial_delay(u32::MAX, random) * 2_u32.pow(doublings)
}

/// How long one dial may go unanswered, and the round trip that it is to expect. The usual ones let a packet of a
/// handshake take the four seconds that it takes at 2,400 bits a second: who gives up sooner leaves a queue for those who come
/// after, and who expects a shorter round trip says all of it twice. Each fourth dial suits a link that is
/// slower, or whose queue is full, each eighth one on which it waits behind all that earlier dials left there.
pub fn dial_patience(failures: u32) -> (Duration, Duration) {
    match failures % DIAL_ROUND {
        7 => (DIAL_TIMEOUT_CRAWL, RTT_CRAWL),
        3 => (DIAL_TIMEOUT_SLOW, RTT_SLOW),
        _ => (DIAL_TIMEOUT, RTT_USUAL),
    }
}

/// After how many failures patience starts over.
pub const DIAL_ROUND: u32 = 8;

/// How long one dial may take that was answered at all.
pub const DIAL_TIMEOUT_ANSWERED: Duration = DIAL_TIMEOUT_CRAWL;

/// How long it may wait for the next answer: who answered may have been restarted since, and knows nothing of it.
pub const DIAL_PATIENCE_ANSWERED: Duration = Duration::from_secs(15);

/// How long to wait between probes of a link that has been silent for so long, or between knocks.
pub fn probe_interval(silence: Duration) -> Duration {
    match silence {
        s if s < PROBE_BRISK => Duration::from_millis(500),
        s if s < PROBE_PATIENT => Duration::from_secs(5),
        _ => Duration::from_secs(75),
    }
}

/// The share of the range of `u64` that lies below a random number.
fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

const DIAL_DELAY_MIN: Duration = Duration::from_secs(1);
const DIAL_DELAY_MAX: Duration = Duration::from_secs(5);
const DOUBLINGS_MAX: u32 = 3;
const AWAY_DOUBLINGS_MAX: u32 = 10;
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
const DIAL_TIMEOUT_SLOW: Duration = Duration::from_secs(20);
const DIAL_TIMEOUT_CRAWL: Duration = Duration::from_secs(60);
/// Repeated after three times as long: over most links once, if it was lost.
const RTT_USUAL: Duration = Duration::from_millis(900);
const RTT_SLOW: Duration = Duration::from_secs(2);
const RTT_CRAWL: Duration = Duration::from_secs(5);

/// Outages of an hour end within two seconds of the link's return.
const PROBE_BRISK: Duration = Duration::from_secs(4_500);

/// A day without an answer is no outage any more: a month of it costs as much as a month of idling.
const PROBE_PATIENT: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn dials_are_one_to_five_seconds_apart(failures: u32, random: u64) {
            let delay = dial_delay(failures, random);
            prop_assert!(delay >= DIAL_DELAY_MIN && delay <= DIAL_DELAY_MAX, "{delay:?}");
        }
    }

    #[test]
    fn delays_grow_and_are_spread() {
        assert!(dial_delay(1, u64::MAX) < Duration::from_millis(1_300));
        assert!(dial_delay(9, 0) == DIAL_DELAY_MAX);
        assert!(dial_delay(9, u64::MAX) < Duration::from_secs(4));
    }

    #[test]
    fn where_something_cheaper_asks_dials_become_rare() {
        assert!(dial_away_delay(0, 0) <= DIAL_DELAY_MAX);
        assert!(dial_away_delay(3, 0) <= DIAL_DELAY_MAX * 8);
        for random in [0, u64::MAX] {
            let longest = dial_away_delay(u32::MAX, random);
            assert!((3_600..5_400).contains(&longest.as_secs()), "{longest:?}");
        }
    }

    #[test]
    fn probes_slow_down_when_nobody_has_answered_for_long() {
        assert_eq!(probe_interval(Duration::ZERO), Duration::from_millis(500));
        assert_eq!(probe_interval(Duration::from_secs(7_200)), Duration::from_secs(5));
        assert_eq!(probe_interval(Duration::from_secs(1_000_000)), Duration::from_secs(75));
    }
}
