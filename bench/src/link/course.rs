//! How a link changes with time by itself: a pure function of the time, and of the seed where it is
//! drawn.

use std::fmt;
use std::time::Duration;

use crate::link::Link;
use crate::random::Random;

/// What a link does of its own accord.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Course {
    /// Nothing: it stays as it is.
    Steady,
    /// It is up and down in turns, beginning with `up` at time zero.
    Turns {
        /// How long it is up.
        up: Duration,
        /// How long it is down.
        down: Duration,
    },
    /// It is another one in each period.
    Periods(Periods),
    /// It was recorded. Each moment holds until the next, the last one as long as the one before it; then the recording
    /// begins again. A single moment holds for ever.
    Recorded(&'static [Moment]),
}

/// Periods that differ: handovers, fading, neighbours who come and go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Periods {
    /// How long each is.
    pub every: Duration,
    /// For how long the link is down at the beginning of each, but not of the first.
    pub outage: Duration,
    /// Each adds a delay, evenly drawn up to this.
    pub delay_spread: Duration,
    /// Each has a share of the rate, evenly drawn between this and 1.
    pub rate_floor: f64,
}

/// A recorded link from some time on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// Since the start.
    pub at: Duration,
    /// Bits a second.
    pub rate_bps: u64,
    /// The time that a packet travels.
    pub delay: Duration,
    /// The share of packets that is lost.
    pub loss: f64,
    /// Whether there is a link at all.
    pub up: bool,
}

impl Course {
    /// Whether the link is up at a time since its start.
    pub fn is_up(&self, now: Duration) -> bool {
        match *self {
            Course::Steady => true,
            Course::Turns { up, down } => {
                let turn = (up + down).as_nanos().max(1);
                now.as_nanos() % turn < up.as_nanos()
            }
            Course::Periods(periods) => {
                let into = now.as_nanos() % periods.length();
                periods.number(now) == 0 || into >= periods.outage.as_nanos()
            }
            Course::Recorded(moments) => {
                moment(moments, now).is_none_or(|it| it.up && it.rate_bps > 0)
            }
        }
    }

    /// The link as it is at a time since its start; the seed says what is drawn.
    pub fn shape(&self, link: Link, now: Duration, seed: u64) -> Link {
        match *self {
            Course::Steady | Course::Turns { .. } => link,
            Course::Periods(periods) => periods.shape(link, now, seed),
            Course::Recorded(moments) => moment(moments, now).map_or(link, |moment| Link {
                rate_bps: moment.rate_bps,
                delay: moment.delay,
                loss: moment.loss,
                ..link
            }),
        }
    }
}

impl fmt::Display for Course {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Course::Steady => Ok(()),
            Course::Turns { up, down } => {
                write!(out, ", up {} s, down {} s", up.as_secs_f64(), down.as_secs_f64())
            }
            Course::Periods(periods) => {
                let Periods { every, outage, rate_floor, .. } = periods;
                write!(out, ", another each {} s", every.as_secs_f64())?;
                if !outage.is_zero() {
                    write!(out, " after {} ms of nothing", outage.as_millis())?;
                }
                write!(out, " with {:.0} to 100 % of the rate", rate_floor * 100.0)
            }
            Course::Recorded(moments) => write!(out, ", {} recorded moments", moments.len()),
        }
    }
}

impl Periods {
    fn length(&self) -> u128 {
        self.every.as_nanos().max(1)
    }

    fn number(&self, now: Duration) -> u64 {
        u64::try_from(now.as_nanos() / self.length()).unwrap_or(u64::MAX)
    }

    fn shape(&self, link: Link, now: Duration, seed: u64) -> Link {
        let mut random = Random::new(Random::new(seed).bits() ^ self.number(now));
        let share = self.rate_floor + (1.0 - self.rate_floor) * random.unit();
        Link {
            rate_bps: scaled(link.rate_bps, share),
            delay: link.delay + self.delay_spread.mul_f64(random.unit()),
            ..link
        }
    }
}

/// A share of a rate, in thousandths, because whole numbers of bits are enough.
fn scaled(rate_bps: u64, share: f64) -> u64 {
    let per_mille = Duration::from_millis(1_000).mul_f64(share.clamp(0.0, 1.0)).as_millis();
    let scaled = u128::from(rate_bps) * per_mille / 1_000;
    u64::try_from(scaled).unwrap_or(rate_bps).max(1)
}

/// How long a recording is, if it has an end.
pub(crate) fn length(moments: &[Moment]) -> Option<Duration> {
    match moments {
        [.., before, last] => Some(last.at + (last.at - before.at)),
        _ => None,
    }
}

fn moment(moments: &[Moment], now: Duration) -> Option<&Moment> {
    let into = match length(moments) {
        Some(length) => duration(now.as_nanos() % length.as_nanos().max(1)),
        None => now,
    };
    let after = moments.partition_point(|moment| moment.at <= into);
    moments.get(after.saturating_sub(1))
}

fn duration(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    const LINK: Link = Link::new(1_000_000, ms(20));

    #[test]
    fn turns_begin_with_contact() {
        let course = Course::Turns { up: ms(20), down: ms(40) };
        let up: Vec<u64> = (0..140).filter(|&at| course.is_up(ms(at))).collect();
        let expected: Vec<u64> = (0..20).chain(60..80).chain(120..140).collect();
        assert_eq!(up, expected);
    }

    #[test]
    fn a_handover_is_an_outage_and_then_another_delay() {
        let periods =
            Periods { every: ms(1_000), outage: ms(100), delay_spread: ms(30), rate_floor: 0.5 };
        let course = Course::Periods(periods);
        let down: Vec<u64> = (0..2_500).filter(|&at| !course.is_up(ms(at))).collect();
        assert_eq!(down, (1_000..1_100).chain(2_000..2_100).collect::<Vec<u64>>());
        let links: Vec<Link> = (0..50).map(|at| course.shape(LINK, ms(at * 1_000), 7)).collect();
        for link in &links {
            assert!((ms(20)..=ms(50)).contains(&link.delay), "{link:?}");
            assert!((500_000..=1_000_000).contains(&link.rate_bps), "{link:?}");
        }
        assert!(links.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(course.shape(LINK, ms(999), 7), links[0]);
        assert_ne!(course.shape(LINK, ms(0), 8), links[0]);
    }

    #[test]
    fn a_recorded_moment_holds_until_the_next_and_the_recording_begins_again() {
        const fn at(seconds: u64, rate_bps: u64, up: bool) -> Moment {
            Moment { at: ms(seconds * 1_000), rate_bps, delay: ms(5), loss: 0.1, up }
        }
        static MOMENTS: [Moment; 3] = [at(0, 1_000, true), at(10, 0, true), at(18, 3_000, false)];
        let course = Course::Recorded(&MOMENTS);
        for again in [0, 26_000, 26_000 * 1_000_000] {
            let rate = |millis| course.shape(LINK, ms(again + millis), 1).rate_bps;
            assert_eq!(
                [rate(0), rate(9_999), rate(18_000), rate(25_999)],
                [1_000, 1_000, 3_000, 3_000]
            );
            assert!(course.is_up(ms(again)));
            assert!(!course.is_up(ms(again + 10_000)), "a rate of nothing is no link");
            assert!(!course.is_up(ms(again + 18_000)));
        }
        assert_eq!(length(&MOMENTS), Some(ms(26_000)));
        let single = Course::Recorded(&MOMENTS[..1]);
        assert_eq!(single.shape(LINK, ms(1 << 40), 1).rate_bps, 1_000);
    }
}
