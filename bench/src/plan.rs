//! A forecast: will a link keep up with a database, how long does it take, what does it cost?
//!
//! The model knows the link and how Thinwire uses it, and nothing of the machines: their share is
//! given as a time. It sends what its window allows each round trip, begins anew after an outage,
//! and pays for headers and lost packets. Its constants were fitted to measurements, which
//! `thinwire-bench plan --check` makes again.

use std::time::Duration;

use crate::link::Link;
use crate::link::course::Course;
use crate::link::ladder::Rung;

pub mod check;
pub mod live;
mod words;

pub use words::{HEADING, row};

/// What a database asks of a link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// Transactions a second, on average.
    pub rate: f64,
    /// What one takes in the stream of changes under `zstd -19`, among many others.
    pub bytes_each: f64,
    /// What all rows take under `zstd -19`.
    pub copy_bytes: u64,
}

impl Demand {
    /// Of rows whose size as text is known, and nothing else about them.
    pub fn of_text(rate: f64, bytes_each: f64, database_bytes: u64) -> Demand {
        let copy = Duration::from_secs_f64(database_bytes as f64 / TYPICAL_RATIO / 1e6);
        let copy_bytes = u64::try_from(copy.as_micros()).unwrap_or(u64::MAX);
        Demand { rate, bytes_each: bytes_each / TYPICAL_RATIO, copy_bytes }
    }
}

/// What is to be expected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// The share of what the link carries, over its outages, that the changes need.
    pub load: f64,
    /// How long the first copy takes; nothing if the link never carries it.
    pub copy: Option<Duration>,
    /// Bytes a month in both directions, in IP packets.
    pub month_bytes: f64,
    /// How long it takes to catch up with a day without link.
    pub day: Option<Duration>,
}

/// The forecast for a database on a link.
pub fn forecast(rung: &Rung, demand: &Demand) -> Forecast {
    let link = rung.link;
    let carried = mean_rate_bps(&link) / 8.0 * EFFICIENCY;
    let load = demand.rate * wire_bytes(&link, demand.bytes_each * WIRE_FACTOR) / carried.max(1.0);
    let copy = transfer(&link, SEED, wire_bytes(&link, demand.copy_bytes as f64 * WIRE_FACTOR));
    let backlog = demand.rate * demand.bytes_each * WIRE_FACTOR * DAY.as_secs_f64();
    // While it catches up, the changes go on.
    let room = (1.0 - load).max(0.0);
    let day =
        if room > 0.0 { transfer(&link, SEED, wire_bytes(&link, backlog / room)) } else { None };
    let month = demand.rate * live_bytes(&link, demand, carried) * MONTH.as_secs_f64();
    let idle = IDLE_BYTES_AN_HOUR * MONTH.as_secs_f64() / 3_600.0;
    Forecast { load, copy, month_bytes: month.max(idle), day }
}

impl Forecast {
    /// Whether the link carries what happens.
    pub fn keeps_up(&self) -> bool {
        self.load < 1.0
    }
}

/// Bytes on the wire towards the target of a payload that is sent at once.
pub fn wire_bytes(link: &Link, payload: f64) -> f64 {
    let again = if link.reorders { OVERTAKEN } else { 1.0 };
    payload * HEADERS * again / (1.0 - link.loss.min(LOSS_MAX))
}

/// The time until so many bytes have arrived, beginning with the link at its time zero and nothing
/// in flight; nothing if that takes more than a month.
pub fn transfer(link: &Link, seed: u64, wire_bytes: f64) -> Option<Duration> {
    let mut now = Duration::ZERO;
    let mut left = wire_bytes;
    let mut flight = None;
    while left > 0.0 {
        if now > MONTH {
            return None;
        }
        if !link.course.is_up(now) {
            flight = None;
            now += LOOK;
            continue;
        }
        let shaped = link.course.shape(*link, now, seed);
        let trip = shaped.delay * 2 + link.jitter / 2;
        let Some(window) = flight else {
            // A probe has to come through before anything else is sent.
            now += PROBE_WAIT + trip;
            flight = Some(WINDOW_BYTES);
            continue;
        };
        let step = trip.clamp(STEP_MIN, STEP_MAX);
        let carried = goodput(&shaped) * step.as_secs_f64();
        let sent = carried.min(window);
        if sent >= left && sent > 0.0 {
            now += step.mul_f64((left / carried).min(1.0));
        } else {
            now += step;
        }
        left -= sent;
        flight = Some(window * WINDOW_GROWTH);
    }
    Some(now + link.delay + link.jitter / 2)
}

/// Bytes a second that a link carries when there is enough to send: fewer where so much is lost that what is sent
/// again is lost again, and is waited for.
fn goodput(link: &Link) -> f64 {
    let loss = link.loss.min(LOSS_MAX);
    link.rate_bps as f64 / 8.0 * (EFFICIENCY - LOST_AGAIN * loss * loss).max(1.0 - LOSS_MAX)
}

/// One transaction's bytes on the wire, both directions, when they are sent as they come: the fewer
/// come at a time, the worse they compress, and each packet has its headers and its answer. If the
/// link cannot carry that, they wait for each other, and cost less.
fn live_bytes(link: &Link, demand: &Demand, carried: f64) -> f64 {
    let together = (demand.rate * TOGETHER.as_secs_f64()).max(1.0);
    let bulk = wire_bytes(link, demand.bytes_each * WIRE_FACTOR);
    let up = bulk * (1.0 + LONELY / together) + PACKET_UP / together;
    let down = PACKET_DOWN / together;
    let fits = (carried / (demand.rate * up).max(f64::MIN_POSITIVE)).min(1.0);
    (up * fits).max(bulk) + down * fits
}

/// What a link carries on average, its outages included.
fn mean_rate_bps(link: &Link) -> f64 {
    match link.course {
        Course::Steady => link.rate_bps as f64,
        Course::Turns { up, down } => {
            link.rate_bps as f64 * up.as_secs_f64()
                / (up + down).as_secs_f64().max(f64::MIN_POSITIVE)
        }
        Course::Periods(periods) => {
            let up = 1.0 - periods.outage.as_secs_f64() / periods.every.as_secs_f64();
            link.rate_bps as f64 * up * (1.0 + periods.rate_floor) / 2.0
        }
        Course::Recorded(moments) => {
            let spans = moments.windows(2).map(|pair| (pair[0], pair[1].at - pair[0].at));
            let (bits, time) = spans.fold((0.0, 0.0), |(bits, time), (moment, span)| {
                let rate = if moment.up { moment.rate_bps as f64 } else { 0.0 };
                (bits + rate * span.as_secs_f64(), time + span.as_secs_f64())
            });
            if time > 0.0 { bits / time } else { link.rate_bps as f64 }
        }
    }
}

const SEED: u64 = 1;
/// How many times smaller rows of a business become under `zstd -19`.
const TYPICAL_RATIO: f64 = 5.0;
/// What Thinwire puts on the wire for each byte of the stream under `zstd -19`.
const WIRE_FACTOR: f64 = 1.22;
/// Headers of IP, UDP, QUIC and frames in full packets.
const HEADERS: f64 = 1.07;
/// What is sent twice because packets overtake each other, and are taken for lost.
const OVERTAKEN: f64 = 1.25;
/// The share of the link's rate that is used when there is enough to send and nothing is lost.
const EFFICIENCY: f64 = 0.99;
/// What of it losses cost, by their square: an eighth where one packet of ten is lost.
const LOST_AGAIN: f64 = 12.0;
/// How long it takes on average until a probe finds that there is a link.
const PROBE_WAIT: Duration = Duration::from_millis(500);
/// What is sent at first, and how it grows with each round trip.
const WINDOW_BYTES: f64 = 12_000.0;
const WINDOW_GROWTH: f64 = 2.0;
/// How finely time passes.
const STEP_MIN: Duration = Duration::from_millis(10);
const STEP_MAX: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(20);
/// A forecast for a link that loses everything is of no use to anybody.
const LOSS_MAX: f64 = 0.9;
/// How long transactions are collected before they are sent together.
const TOGETHER: Duration = Duration::from_millis(10);
/// How much worse one transaction alone compresses than many.
const LONELY: f64 = 0.6;
/// Headers around a transaction that travels alone, and all that is said back and forth about it.
const PACKET_UP: f64 = 160.0;
const PACKET_DOWN: f64 = 130.0;
const IDLE_BYTES_AN_HOUR: f64 = 20_000.0;
const DAY: Duration = Duration::from_secs(86_400);
/// 30 days.
const MONTH: Duration = Duration::from_secs(30 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::ladder::{CONTACT, LAN, THIN};

    const DEMAND: Demand = Demand { rate: 2.0, bytes_each: 41.0, copy_bytes: 1_000_000 };

    #[test]
    fn a_transfer_takes_what_the_rate_says_and_a_little_to_begin() {
        let link = Link::new(800_000, Duration::from_millis(100));
        let time = transfer(&link, 1, 1_000_000.0).unwrap().as_secs_f64();
        assert!((10.5..12.5).contains(&time), "{time}");
        let twice = transfer(&link, 1, 2_000_000.0).unwrap().as_secs_f64();
        assert!((twice - time - 10.1).abs() < 0.2, "{time} and {twice}");
    }

    #[test]
    fn what_does_not_fit_into_a_window_of_contact_waits_for_the_next() {
        let turns = Link::new(80_000, Duration::from_millis(100))
            .with_turns(Duration::from_secs(10), Duration::from_secs(50));
        let time = |bytes| transfer(&turns, 1, bytes).unwrap().as_secs_f64();
        assert!(time(60_000.0) < 10.0);
        assert!((60.0..70.0).contains(&time(120_000.0)), "{}", time(120_000.0));
        let dead = turns.with_turns(Duration::ZERO, Duration::from_secs(50));
        assert_eq!(transfer(&dead, 1, 1.0), None);
    }

    #[test]
    fn a_busier_database_needs_more_and_in_the_end_more_than_there_is() {
        let slow = forecast(&THIN, &DEMAND);
        let busy = forecast(&THIN, &Demand { rate: 100.0, ..DEMAND });
        let hopeless = forecast(&THIN, &Demand { rate: 1_000.0, ..DEMAND });
        assert!(slow.load < busy.load && busy.load < hopeless.load);
        assert!(slow.keeps_up() && busy.keeps_up() && !hopeless.keeps_up());
        assert!(slow.day < busy.day && hopeless.day.is_none());
        assert!(slow.month_bytes < busy.month_bytes);
        assert!(busy.month_bytes < 40.0 * slow.month_bytes, "many compress better than one");
    }

    #[test]
    fn outages_take_their_share() {
        let always = Rung { link: CONTACT.link.with_course(Course::Steady), ..CONTACT };
        let (turns, steady) = (forecast(&CONTACT, &DEMAND), forecast(&always, &DEMAND));
        assert!((turns.load / steady.load - 3.0).abs() < 0.01);
        assert!(turns.copy > steady.copy);
        assert!(forecast(&LAN, &DEMAND).copy < steady.copy);
    }
}
