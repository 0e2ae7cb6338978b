//! A peer that nothing is exchanged with for a time, and how long the peer is asked to stay away.

use std::{fmt, time::Duration};

use quinn::{ConnectionError, VarInt};

/// Why nothing is exchanged with a peer, and for how long at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// A part of a sentence, such as "outside of its window".
    pub reason: String,
    /// Until it is worth trying again.
    pub lifts_in: Duration,
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, for another {} s", self.reason, self.lifts_in.as_secs())
    }
}

impl Bar {
    /// Until somebody has looked whether the peer may be talked to.
    pub(super) fn at_start() -> Self {
        Self {
            reason: "the node has only just started".to_owned(),
            lifts_in: Duration::from_secs(1),
        }
    }

    /// What the peer is told: the cause, and the seconds in which it need not try.
    pub(super) fn code(&self) -> VarInt {
        let seconds = self.lifts_in.as_secs().clamp(1, SECONDS_MAX);
        VarInt::from_u64(seconds << CAUSE_BITS | BARRED).unwrap_or(VarInt::MAX)
    }
}

/// How long the peer that ended a connection asks to be left alone; `None` if it did not.
pub(super) fn asks_for_peace(error: &ConnectionError) -> Option<Duration> {
    let ConnectionError::ApplicationClosed(close) = error else { return None };
    let code = u64::from(close.error_code);
    let is_bar = code & ((1 << CAUSE_BITS) - 1) == BARRED && code >> CAUSE_BITS > 0;
    is_bar.then(|| Duration::from_secs((code >> CAUSE_BITS).min(SECONDS_MAX)))
}

/// The cause, in the lowest bits of the code. Others have no higher ones.
const BARRED: u64 = 5;
const CAUSE_BITS: u32 = 8;

/// A peer that was told to come back tomorrow would not notice that somebody changed their mind. One handshake an hour
/// is 120 kB a day.
const SECONDS_MAX: u64 = 3_600;

#[cfg(test)]
mod tests {
    use quinn::ApplicationClose;

    use super::*;

    fn closed(error_code: VarInt) -> ConnectionError {
        ConnectionError::ApplicationClosed(ApplicationClose { error_code, reason: "".into() })
    }

    #[test]
    fn the_other_end_reads_how_long_and_believes_an_hour_at_most() {
        for (seconds, read) in [(0, 1), (60, 60), (3_600, 3_600), (u64::MAX, 3_600)] {
            let lifts_in = Duration::from_secs(seconds);
            let bar = Bar { reason: String::new(), lifts_in };
            assert_eq!(asks_for_peace(&closed(bar.code())), Some(Duration::from_secs(read)));
        }
        assert_eq!(asks_for_peace(&closed(VarInt::MAX)), None);
        let longest = VarInt::from_u64(u64::from(VarInt::MAX) & !0xFF | BARRED).unwrap();
        assert_eq!(asks_for_peace(&closed(longest)), Some(Duration::from_secs(SECONDS_MAX)));
        for other in 0..=255 {
            assert_eq!(asks_for_peace(&closed(VarInt::from_u32(other))), None);
        }
    }
}
