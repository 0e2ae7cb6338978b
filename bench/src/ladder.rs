//! The links by name: constants, each with the real link that it stands for.

use std::time::Duration;

use crate::link::Link;

/// A named link, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rung {
    /// What it is called on the command line and in reports.
    pub name: &'static str,
    /// The real link that it stands for.
    pub stands_for: &'static str,
    /// Each of its directions.
    pub link: Link,
}

/// A link that is hardly there all the time.
pub const THIN: Rung = Rung {
    name: "thin",
    stands_for: "a ship's shared L-band terminal, a remote clinic's share of a satellite channel",
    link: link(128, 600).with_loss(0.02),
};

/// A geostationary satellite link as it is sold.
pub const SAT: Rung = Rung {
    name: "sat",
    stands_for: "a VSAT terminal over a geostationary satellite",
    link: link(512, 600).with_loss(0.01),
};

/// A link that is there for a third of the time.
pub const CONTACT: Rung = Rung {
    name: "contact",
    stands_for: "a truck or a vessel that has coverage now and then, a relay that orbits",
    link: link(256, 600).with_loss(0.02).with_turns(seconds(20), seconds(40)),
};

/// A link that comes and goes faster than most software reconnects.
pub const FLAPPY: Rung = Rung {
    name: "flappy",
    stands_for: "a cellular modem at the edge of its cell, an antenna behind swaying trees",
    link: link(512, 300).with_loss(0.02).with_turns(seconds(6), seconds(14)),
};

/// A link that is never the reason to wait.
pub const LAN: Rung = Rung {
    name: "lan",
    stands_for: "two machines on one switch",
    link: Link::new(1_000_000_000, Duration::from_micros(100)),
};

/// All of them, the thinnest first.
pub const ALL: [Rung; 5] = [THIN, CONTACT, FLAPPY, SAT, LAN];

/// The rung of this name.
pub fn find(name: &str) -> Option<Rung> {
    ALL.into_iter().find(|rung| rung.name == name)
}

const fn link(rate_kbps: u64, round_trip_ms: u64) -> Link {
    Link::new(rate_kbps * 1_000, Duration::from_millis(round_trip_ms / 2))
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
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
