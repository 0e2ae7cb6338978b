//! A forecast: will a link keep up with a database, how long does it take, what does it cost?
//!
//! The model knows the link and how Thinwire uses it, and nothing of the machines: their share is
//! given as a time. How the link is used is in [`flow`]; headers and lost packets are shares that were
//! measured. What a database asks is measured by [`live`]: a sample of its rows and changes goes through the packets that
//! would carry them. `thinwire-bench plan --check` measures whether it comes true.

use std::time::Duration;

use crate::link::Link;
use crate::link::ladder::Rung;

pub mod check;
mod decoding;
pub mod flow;
pub mod live;
pub mod promise;
mod psql;
mod sample;
mod words;

use flow::{mean_rate, round_trip, transfer};
pub use words::{HEADING, row};

/// What a database asks of a link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// Transactions a second, on average.
    pub rate: f64,
    /// Bytes of one in packets, among many others.
    pub bytes_each: f64,
    /// Bytes of one in a packet of its own.
    pub alone_each: f64,
    /// Bytes of all rows in packets.
    pub copy_bytes: f64,
}

impl Demand {
    /// Of rows whose size as text is known, and nothing else about them.
    pub fn of_text(rate: f64, bytes_each: f64, database_bytes: u64) -> Demand {
        let bytes_each = bytes_each / TYPICAL_RATIO;
        let copy_bytes = database_bytes as f64 / TYPICAL_RATIO;
        Demand { rate, bytes_each, alone_each: bytes_each * LONELY, copy_bytes }
    }

    /// Bytes in packets until all rows are there, from the moment when both ends do not know each other.
    fn begin_bytes(&self) -> f64 {
        DIAL_BYTES + self.copy_bytes
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

/// The forecast for a database on a link, in the weather of a seed.
pub fn forecast(rung: &Rung, demand: &Demand, seed: u64) -> Forecast {
    let link = rung.link;
    let carried = mean_rate(&link, seed);
    let load = demand.rate * wire_bytes(&link, demand.bytes_each) / carried.max(1.0);
    let copy = transfer(&link, seed, wire_bytes(&link, demand.begin_bytes()));
    // Who is known is probed; who is not is dialled first, and keys go back and forth before anything else does.
    let copy = copy.map(|time| time + round_trip(&link, seed));
    let backlog = demand.rate * demand.bytes_each * DAY.as_secs_f64();
    // While it catches up, the changes go on.
    let room = (1.0 - load).max(0.0);
    let day =
        if room > 0.0 { transfer(&link, seed, wire_bytes(&link, backlog / room)) } else { None };
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
    payload * HEADERS * overtaken(link) / (1.0 - link.loss.min(LOSS_MAX))
}

/// How often a packet is sent because others overtake it, and it is taken for lost. The rate that the window follows is
/// that of the others.
fn overtaken(link: &Link) -> f64 {
    if link.reorders { OVERTAKEN } else { 1.0 }
}

/// One transaction's bytes on the wire, both directions, when they are sent as they come: the fewer
/// come at a time, the worse they compress, and each packet has its headers and its answer. If the
/// link cannot carry that, they wait for each other, and cost less.
fn live_bytes(link: &Link, demand: &Demand, carried: f64) -> f64 {
    let together = (demand.rate * TOGETHER.as_secs_f64()).max(1.0);
    let bulk = wire_bytes(link, demand.bytes_each);
    let lonely = (demand.alone_each - demand.bytes_each).max(0.0);
    let up = wire_bytes(link, demand.bytes_each + lonely / together) + PACKET_UP / together;
    let down = PACKET_DOWN / together;
    let fits = (carried / (demand.rate * up).max(f64::MIN_POSITIVE)).min(1.0);
    (up * fits).max(bulk) + down * fits
}

/// How many times smaller rows of a business become in packets, with some caution.
const TYPICAL_RATIO: f64 = 8.0;
/// Headers of IP, UDP, QUIC and frames in full packets.
const HEADERS: f64 = 1.07;
/// Where each packet takes its own time, some take longer than is waited for them.
const OVERTAKEN: f64 = 1.1;
/// A forecast for a link that loses everything is of no use to anybody.
const LOSS_MAX: f64 = 0.9;
/// How long transactions are collected before they are sent together.
const TOGETHER: Duration = Duration::from_millis(10);
/// How many times the bytes one transaction alone takes that it takes among many.
const LONELY: f64 = 1.6;
/// Headers around a transaction that travels alone, and all that is said back and forth about it.
const PACKET_UP: f64 = 120.0;
const PACKET_DOWN: f64 = 100.0;
/// What a handshake and the hello behind it take towards the target.
const DIAL_BYTES: f64 = 2_665.0;
const IDLE_BYTES_AN_HOUR: f64 = 20_000.0;
const DAY: Duration = Duration::from_secs(86_400);
/// 30 days.
const MONTH: Duration = Duration::from_secs(30 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::course::Course;
    use crate::link::ladder::{CONTACT, LAN, THIN};

    const DEMAND: Demand =
        Demand { rate: 2.0, bytes_each: 50.0, alone_each: 80.0, copy_bytes: 1_220_000.0 };

    #[test]
    fn a_busier_database_needs_more_and_in_the_end_more_than_there_is() {
        let slow = forecast(&THIN, &DEMAND, 1);
        let busy = forecast(&THIN, &Demand { rate: 100.0, ..DEMAND }, 1);
        let hopeless = forecast(&THIN, &Demand { rate: 1_000.0, ..DEMAND }, 1);
        assert!(slow.load < busy.load && busy.load < hopeless.load);
        assert!(slow.keeps_up() && busy.keeps_up() && !hopeless.keeps_up());
        assert!(slow.day < busy.day && hopeless.day.is_none());
        assert!(slow.month_bytes < busy.month_bytes);
        assert!(busy.month_bytes < 40.0 * slow.month_bytes, "many compress better than one");
    }

    #[test]
    fn who_begins_dials_first() {
        let copy = |copy_bytes| forecast(&THIN, &Demand { copy_bytes, ..DEMAND }, 1).copy.unwrap();
        let known = |bytes| transfer(&THIN.link, 1, wire_bytes(&THIN.link, bytes)).unwrap();
        // A round trip of 600 ms, and some 2.9 kB at 16 kB a second.
        for bytes in [50_000.0, 500_000.0] {
            let dial = (copy(bytes) - known(bytes)).as_secs_f64();
            assert!((0.75..0.8).contains(&dial), "{dial}");
        }
        assert_eq!(DEMAND.begin_bytes() - DEMAND.copy_bytes, DIAL_BYTES);
    }

    #[test]
    fn outages_take_their_share() {
        let always = Rung { link: CONTACT.link.with_course(Course::Steady), ..CONTACT };
        let (turns, steady) = (forecast(&CONTACT, &DEMAND, 1), forecast(&always, &DEMAND, 1));
        // A third of the time, less what it takes to notice.
        assert!((3.0..3.5).contains(&(turns.load / steady.load)));
        assert!(turns.copy > steady.copy);
        assert!(forecast(&LAN, &DEMAND, 1).copy < steady.copy);
    }
}
