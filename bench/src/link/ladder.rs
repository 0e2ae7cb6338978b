//! The links by name: constants, each with the real link that it stands for.

use std::time::Duration;

use crate::link::course::{Course, Periods};
use crate::link::{Link, Queue};

/// A named link, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rung {
    /// What it is called on the command line and in reports.
    pub name: &'static str,
    /// The real link that it stands for.
    pub stands_for: &'static str,
    /// Each of its directions.
    pub link: Link,
    /// How often the nearer end gets a new address.
    pub readdress: Option<Duration>,
}

impl Rung {
    /// A link whose addresses stay.
    pub const fn new(name: &'static str, stands_for: &'static str, link: Link) -> Rung {
        Rung { name, stands_for, link, readdress: None }
    }

    const fn with_readdress(mut self, every: Duration) -> Rung {
        self.readdress = Some(every);
        self
    }
}

/// A link that is hardly there all the time.
pub const THIN: Rung = Rung::new(
    "thin",
    "a ship's shared L-band terminal, a remote clinic's share of a satellite channel",
    link(128, 600).with_loss(0.02),
);

/// A geostationary satellite link as it is sold.
pub const SAT: Rung = Rung::new(
    "sat",
    "a VSAT terminal over a geostationary satellite",
    link(512, 600).with_loss(0.01),
);

/// A link that is there for a third of the time.
pub const CONTACT: Rung = Rung::new(
    "contact",
    "a truck or a vessel that has coverage now and then, a relay that orbits",
    link(256, 600).with_loss(0.02).with_turns(seconds(20), seconds(40)),
);

/// A radio link with losses that TCP takes for congestion.
pub const RAIN: Rung = Rung::new(
    "rain",
    "a satellite or microwave link in heavy rain",
    link(256, 600).with_loss(0.05),
);

/// The same, worse.
pub const STORM: Rung = Rung::new(
    "storm",
    "the same in a thunderstorm, or a radio modem at the end of its range",
    link(256, 600).with_loss(0.1),
);

/// A link that comes and goes faster than most software reconnects.
pub const FLAPPY: Rung = Rung::new(
    "flappy",
    "a cellular modem at the edge of its cell, an antenna behind swaying trees",
    link(512, 300).with_loss(0.02).with_turns(seconds(6), seconds(14)),
);

/// The second generation of mobile networks: everywhere, and hardly anything.
pub const GPRS: Rung = Rung::new(
    "2g",
    "a GPRS modem in a meter, a pump or a truck: slow, and with seconds of queue",
    link(32, 700)
        .with_loss(0.01)
        .with_jitter(millis(200), false)
        .with_queue(Queue::Time(seconds(4))),
);

/// A radio cable underground.
pub const MINE: Rung = Rung::new(
    "mine",
    "a leaky feeder underground: losses come in bursts whenever a machine passes",
    link(64, 200).with_loss(0.05).with_burst(8.0).with_jitter(millis(60), false),
);

/// A satellite link with neighbours on the same transponder.
pub const VSAT: Rung = Rung::new(
    "vsat",
    "a VSAT channel that a fleet shares: the rate is what the neighbours leave over",
    link(256, 650).with_loss(0.01).with_burst(3.0).with_jitter(millis(120), false).with_course(
        Course::Periods(Periods {
            every: seconds(5),
            outage: Duration::ZERO,
            delay_spread: millis(60),
            rate_floor: 0.25,
        }),
    ),
);

/// A modern geostationary link.
pub const GEO: Rung = Rung::new(
    "geo",
    "a spot beam of a high-throughput geostationary satellite",
    link(2_000, 620).with_loss(0.005).with_jitter(millis(20), false),
);

/// A constellation in a low orbit, seen from a moving dish.
pub const LEO: Rung = Rung::new(
    "leo",
    "a constellation in low orbit: another satellite each 15 s, another address each minute",
    link(20_000, 46).with_loss(0.005).with_queue(Queue::Time(millis(200))).with_course(
        Course::Periods(Periods {
            every: seconds(15),
            outage: millis(200),
            delay_spread: millis(25),
            rate_floor: 0.4,
        }),
    ),
)
.with_readdress(seconds(60));

/// A satellite that rises and sets.
pub const PASS: Rung = Rung::new(
    "pass",
    "an orbiter's pass of eight minutes each hour and a half, at a sixtieth of its time",
    link(512, 60).with_loss(0.01).with_turns(seconds(8), seconds(82)),
);

/// A link in port only.
pub const FERRY: Rung = Rung::new(
    "ferry",
    "a ferry with network in port: two hours of eight, at a two hundred and fortieth of its time",
    link(4_000, 60).with_loss(0.005).with_turns(seconds(30), seconds(90)),
);

/// Mobile network with one bar.
pub const LTE: Rung = Rung::new(
    "lte",
    "weak LTE: a rate that fades, bursts of loss, a deep queue at the tower",
    link(1_000, 120)
        .with_loss(0.02)
        .with_burst(4.0)
        .with_jitter(millis(40), false)
        .with_queue(Queue::Time(seconds(3)))
        .with_course(Course::Periods(Periods {
            every: seconds(3),
            outage: Duration::ZERO,
            delay_spread: millis(60),
            rate_floor: 0.1,
        })),
);

/// A radio channel that everybody uses.
pub const WIFI: Rung = Rung::new(
    "wifi",
    "a congested WiFi channel: bursts of loss, jitter, packets that overtake each other",
    link(5_000, 20)
        .with_loss(0.04)
        .with_burst(5.0)
        .with_jitter(millis(40), true)
        .with_queue(Queue::Time(millis(300))),
);

/// A good line between two places.
pub const FAST: Rung =
    Rung::new("fast", "a leased line between two cities of a country", link(100_000, 20));

/// A link that is never the reason to wait.
pub const LAN: Rung = Rung::new(
    "lan",
    "two machines on one switch",
    Link::new(1_000_000_000, Duration::from_micros(100)),
);

/// All of them, the thinnest first.
pub const ALL: [Rung; 17] = [
    GPRS, MINE, THIN, VSAT, RAIN, STORM, CONTACT, PASS, FLAPPY, SAT, LTE, FERRY, GEO, WIFI, LEO,
    FAST, LAN,
];

/// The rung of this name.
pub fn find(name: &str) -> Option<Rung> {
    ALL.into_iter().find(|rung| rung.name == name)
}

const fn link(rate_kbps: u64, round_trip_ms: u64) -> Link {
    Link::new(rate_kbps * 1_000, millis(round_trip_ms / 2))
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_is_found_by_its_name() {
        for rung in ALL {
            assert_eq!(find(rung.name), Some(rung));
        }
        assert_eq!(find("tin"), None);
    }
}
