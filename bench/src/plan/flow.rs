//! How long bytes take on a link, by what Thinwire does there: it probes, fills a window, and sends again what was lost.
//!
//! Losses take nothing of the rate but what is sent again. They take time at the end, when there is nothing else to send
//! while it is waited for.

use std::collections::VecDeque;
use std::time::Duration;

use super::{LOSS_MAX, MONTH, overtaken};
use crate::emulator::wire;
use crate::link::Link;
use crate::link::course::{self, Course};

/// The time until so many bytes have arrived, lost ones included, beginning with the link at its time zero and nothing
/// in flight; nothing if that takes more than a month. What takes long goes on as it was on average.
pub fn transfer(link: &Link, seed: u64, wire_bytes: f64) -> Option<Duration> {
    let mut flow = Flow::new(link, seed);
    let mut left = wire_bytes;
    let span = span(link);
    while flow.now < span {
        let (step, bytes) = flow.step();
        if bytes > 0.0 && bytes >= left {
            return Some(flow.now - step + step.mul_f64(left / bytes) + flow.end());
        }
        left -= bytes;
    }
    let carried = (wire_bytes - left) / flow.now.as_secs_f64();
    let is_near = left <= carried * MONTH.as_secs_f64() && carried > 0.0;
    is_near.then(|| flow.now + Duration::from_secs_f64(left / carried))
}

/// What a link carries on average if there is always something to send, in bytes a second, over its outages.
pub fn mean_rate(link: &Link, seed: u64) -> f64 {
    let mut flow = Flow::new(link, seed);
    let mut carried = 0.0;
    let span = span(link);
    while flow.now < span {
        carried += flow.step().1;
    }
    carried / flow.now.as_secs_f64()
}

/// There and back, when the link begins.
pub fn round_trip(link: &Link, seed: u64) -> Duration {
    Flow::new(link, seed).path().round
}

/// How long a link has to be looked at to know it: an hour, or more for a recording that is longer, and always the whole
/// of it.
fn span(link: &Link) -> Duration {
    let length = match link.course {
        Course::Recorded(moments) => course::length(moments),
        Course::Steady | Course::Turns { .. } | Course::Periods(_) => None,
    };
    let times = |length: Duration| HOUR.div_duration_f64(length).ceil();
    length.map_or(HOUR, |length| length.mul_f64(times(length)))
}

/// A sender that always has something, on a link that begins.
struct Flow<'a> {
    link: &'a Link,
    seeds: [u64; 2],
    now: Duration,
    /// For how long nothing has come through.
    silent: Duration,
    /// Bytes that may be unacknowledged.
    window: f64,
    /// The rates of the last round trips, each with the time at which the sender knows of it.
    rates: VecDeque<(Duration, f64)>,
}

/// What a link is like at a moment.
struct Path {
    /// Bytes a second.
    rate: f64,
    there: Duration,
    /// There and back.
    round: Duration,
    /// For how long the other end gathers acknowledgements.
    gathers: Duration,
}

impl Path {
    fn trip(&self) -> Duration {
        self.round + self.gathers
    }
}

impl Flow<'_> {
    fn new(link: &Link, seed: u64) -> Flow<'_> {
        Flow {
            link,
            seeds: wire::seeds(seed),
            now: Duration::ZERO,
            silent: PROBE_EVERY,
            window: WINDOW_BYTES,
            rates: VecDeque::new(),
        }
    }

    /// Lets time pass; how much, and the bytes that are sent and reach the other end or are lost on the way.
    fn step(&mut self) -> (Duration, f64) {
        if !self.link.course.is_up(self.now) {
            self.silent += LOOK;
            return self.pass(LOOK, 0.0);
        }
        let path = self.path();
        if !self.silent.is_zero() {
            // A probe has to come through, and its answer, before anything else is sent.
            let attempts = 1.0 / (1.0 - self.link.loss.min(LOSS_MAX)).powi(2);
            let wait = self.silent.min(PROBE_EVERY).mul_f64(attempts - 0.5);
            self.silent = Duration::ZERO;
            return self.pass(wait + path.round, 0.0);
        }
        let step = (path.trip() / STEPS).clamp(STEP_MIN, STEP_MAX);
        let rate = path.rate.min(self.window / path.trip().as_secs_f64());
        self.learn(&path, rate, step);
        // What is under way when the link goes down has not been sent.
        let arrives = self.link.course.is_up(self.now + path.there);
        self.pass(step, if arrives { rate * step.as_secs_f64() } else { 0.0 })
    }

    fn pass(&mut self, time: Duration, bytes: f64) -> (Duration, f64) {
        self.now += time;
        (time, bytes)
    }

    fn path(&self) -> Path {
        let shape = |seed| self.link.course.shape(*self.link, self.now, seed);
        let [there, back] = self.seeds.map(shape);
        let rate = there.rate_bps as f64 / 8.0 / overtaken(self.link);
        let bunch = Duration::from_secs_f64(ACKED_AT_ONCE * PACKET_BYTES / rate.max(1.0));
        Path {
            rate,
            there: there.delay,
            round: there.delay + back.delay + self.link.jitter,
            gathers: bunch.min(ACK_DELAY),
        }
    }

    /// The window doubles with each round trip, up to what the best of the last rates would fill, and a half more.
    fn learn(&mut self, path: &Path, rate: f64, step: Duration) {
        let trip = path.trip();
        self.rates.push_back((self.now + trip, rate));
        let oldest = self.now.saturating_sub(trip * RATE_ROUNDS);
        while self.rates.front().is_some_and(|(known, _)| *known < oldest) {
            self.rates.pop_front();
        }
        let known = self.rates.iter().take_while(|(known, _)| *known <= self.now);
        let grown = self.window * 2.0_f64.powf(step.div_duration_f64(trip));
        self.window = match known.map(|(_, rate)| *rate).reduce(f64::max) {
            Some(best) => {
                let pipe = path.round + path.round.clamp(ACK_DELAY_LEAST, ACK_DELAY);
                grown.min((WINDOW_GAIN * best * pipe.as_secs_f64()).max(WINDOW_BYTES))
            }
            None => grown,
        };
    }

    /// From the last byte that is sent for the first time until all is there.
    fn end(&self) -> Duration {
        let path = self.path();
        let under_way = path.rate * path.trip().as_secs_f64() / PACKET_BYTES;
        let rounds = rounds_of_repair(self.link, under_way);
        path.there + self.link.jitter / 2 + path.trip().mul_f64(LATE * rounds)
    }
}

/// How often on average something of the last packets is missing, sent again, and waited for. Losses in a row are one.
fn rounds_of_repair(link: &Link, packets: f64) -> f64 {
    let loss = link.loss.min(LOSS_MAX);
    let chances = (packets / link.burst.max(1.0)).max(1.0);
    (1..ROUNDS_MAX).map(|round| 1.0 - (1.0 - loss.powi(round)).powf(chances)).sum()
}

const HOUR: Duration = Duration::from_secs(3_600);
/// How often a link that is silent is probed.
pub(super) const PROBE_EVERY: Duration = Duration::from_millis(500);
/// What is sent at first.
const WINDOW_BYTES: f64 = 12_000.0;
/// What may be under way beyond what the pipe holds, to notice when it holds more.
const WINDOW_GAIN: f64 = 1.5;
/// Over how many round trips the best rate counts.
const RATE_ROUNDS: u32 = 10;
/// A full packet, with its headers.
const PACKET_BYTES: f64 = 1_228.0;
/// After how many packets there is an acknowledgement, and after what time if there are fewer; a sender that sees a
/// shorter round trip reckons with the least.
const ACKED_AT_ONCE: f64 = 4.0;
const ACK_DELAY: Duration = Duration::from_millis(100);
const ACK_DELAY_LEAST: Duration = Duration::from_millis(25);
/// After how many round trips a packet without an acknowledgement is taken for lost.
const LATE: f64 = 1.5;
/// Where nine packets of ten are lost, what is missing after so many rounds is a thousandth.
const ROUNDS_MAX: i32 = 64;
/// How finely time passes: in parts of a round trip, within these bounds.
const STEPS: u32 = 8;
const STEP_MIN: Duration = Duration::from_millis(10);
const STEP_MAX: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::course::{Moment, Periods};

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn seconds(link: &Link, bytes: f64) -> f64 {
        transfer(link, 1, bytes).unwrap().as_secs_f64()
    }

    #[test]
    fn a_transfer_takes_what_the_rate_says_and_a_little_to_begin() {
        let link = Link::new(800_000, ms(100));
        let time = seconds(&link, 1_000_000.0);
        assert!((10.5..12.0).contains(&time), "{time}");
        let twice = seconds(&link, 2_000_000.0);
        assert!((twice - time - 10.0).abs() < 0.1, "{time} and {twice}");
    }

    #[test]
    fn losses_are_waited_for_at_the_end_and_at_the_beginning_and_nowhere_else() {
        let clean = Link::new(256_000, ms(300));
        let lossy = clean.with_loss(0.1);
        let [short, long] =
            [300_000.0, 3_000_000.0].map(|bytes| seconds(&lossy, bytes) - seconds(&clean, bytes));
        assert!((0.3..1.5).contains(&short), "{short}");
        assert!((short - long).abs() < 0.1, "{short} and {long}");
        let bursts = seconds(&lossy.with_burst(8.0), 300_000.0);
        assert!(bursts < seconds(&lossy, 300_000.0), "losses in a row are repaired together");
    }

    #[test]
    fn what_does_not_fit_into_a_window_of_contact_waits_for_the_next() {
        let turns = Link::new(80_000, ms(100)).with_turns(ms(10_000), ms(50_000));
        assert!(seconds(&turns, 60_000.0) < 10.0);
        assert!((60.0..70.0).contains(&seconds(&turns, 120_000.0)));
        let dead = turns.with_turns(Duration::ZERO, ms(50_000));
        assert_eq!(transfer(&dead, 1, 1.0), None);
    }

    #[test]
    fn an_outage_costs_what_is_under_way_when_it_comes_and_the_way_of_a_probe() {
        let far = Link::new(80_000, ms(2_000)).with_turns(ms(10_000), ms(50_000));
        let a_turn = mean_rate(&far, 1) * 60.0 / 10_000.0;
        assert!((3.3..3.9).contains(&a_turn), "{a_turn} of 10 seconds");
    }

    #[test]
    fn the_weather_of_a_forecast_is_that_of_the_link_with_the_same_seed() {
        let periods = Periods {
            every: ms(60_000),
            outage: Duration::ZERO,
            delay_spread: ms(0),
            rate_floor: 0.1,
        };
        let link = Link::new(1_000_000, ms(50)).with_course(Course::Periods(periods));
        for seed in 1..10 {
            let wire = wire::Wire::new(link, link, 0);
            wire.begin(link, seed);
            let expected = 1_000_000.0 * 8.0 / wire.rate_bps() as f64;
            let time = transfer(&link, seed, 1_000_000.0).unwrap().as_secs_f64();
            assert!((0.0..2.0).contains(&(time - expected)), "seed {seed}: {time}, not {expected}");
        }
    }

    #[test]
    fn a_recording_says_what_its_link_is_like_however_it_ends() {
        const fn at(seconds: u64, up: bool) -> Moment {
            Moment { at: ms(seconds * 1_000), rate_bps: 80_000, delay: ms(300), loss: 0.0, up }
        }
        static ENDS_DOWN: [Moment; 3] = [at(0, true), at(60, true), at(120, false)];
        static ENDS_UP: [Moment; 3] = [at(0, false), at(60, true), at(120, true)];
        for moments in [&ENDS_DOWN, &ENDS_UP] {
            let link = Link::new(80_000, ms(300)).with_course(Course::Recorded(moments));
            let share = mean_rate(&link, 1) / 10_000.0;
            assert!((0.63..0.67).contains(&share), "two minutes of three, not {share}");
        }
    }

    #[test]
    fn what_takes_long_goes_on_as_it_was_on_average() {
        let turns = Link::new(80_000, ms(100)).with_turns(ms(10_000), ms(50_000));
        let rate = mean_rate(&turns, 1);
        assert!((0.8..1.0).contains(&(rate / (10_000.0 / 6.0))), "{rate}");
        let day = seconds(&turns, rate * 86_400.0);
        assert!((day / 86_400.0 - 1.0).abs() < 0.01, "{day}");
        assert_eq!(transfer(&turns, 1, rate * 86_400.0 * 40.0), None);
    }
}
