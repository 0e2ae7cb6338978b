//! What happens between two databases while somebody watches: scenarios by name.

use std::time::Duration;

/// A scenario by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scenario {
    /// What it is called on the command line and in reports.
    pub name: &'static str,
    /// What happens in it.
    pub what: &'static str,
    /// What is to be done.
    pub work: Work,
    /// What happens to the link meanwhile.
    pub disturbance: Disturbance,
    /// What each node's configuration says of the other besides what it must.
    pub peer: &'static str,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// The first copy, into empty tables.
    Copy,
    /// Everything that was committed while the link was down.
    Backlog,
    /// Transactions at a pace, each timed from its commit to its commit at the target.
    Trickle,
    /// The same as a backlog, but the outage is long and nobody parts in order before it.
    Week,
    /// A backlog that is at the target already, and is only applied.
    Apply,
    /// A backlog that is in the source's log, and is only read from there: by PostgreSQL's own client, if not by us.
    Capture,
    /// Transactions at a pace through outages, each longer than the one before.
    Outages,
    /// Nothing.
    Idle,
}

/// What happens to a link, beyond what it does by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disturbance {
    /// How often it is cut for a second, and every middlebox forgets its connections.
    pub cut_every: Option<Duration>,
    /// How often the nearer end gets another address.
    pub readdress_every: Option<Duration>,
    /// Outages that nobody is told of, one after the other, with [time](BETWEEN_OUTAGES) before each to calm down.
    pub outages: &'static [Duration],
}

impl Disturbance {
    /// Nothing.
    pub const NONE: Disturbance =
        Disturbance { cut_every: None, readdress_every: None, outages: &[] };

    /// How long it takes until its last outage is over.
    pub(crate) fn length(&self) -> Duration {
        self.outages.iter().map(|outage| *outage + BETWEEN_OUTAGES).sum()
    }
}

/// The plainest of all.
pub const BACKLOG: Scenario =
    Scenario::new("backlog", "draining what was committed while the link was down", Work::Backlog);

/// All of them.
pub const ALL: [Scenario; 12] = [
    Scenario::new("copy", "the first copy of a database", Work::Copy),
    Scenario::new(
        "copy-cuts",
        "the same, with the link cut for a second and connections lost every 6 s",
        Work::Copy,
    )
    .with_cuts(CUT_EVERY),
    BACKLOG,
    Scenario::new(
        "cuts",
        "the same, with the link cut for a second and connections lost every 6 s",
        Work::Backlog,
    )
    .with_cuts(CUT_EVERY),
    Scenario::new("address", "the same, with a new address every 5 s", Work::Backlog)
        .with_addresses(READDRESS_EVERY),
    Scenario::new("trickle", "transactions at a pace, each timed", Work::Trickle),
    Scenario::new(
        "week",
        "a long outage that nobody expected, with writes all the time: a week, in 75 s",
        Work::Week,
    ),
    Scenario::new(
        "outages",
        "transactions at a pace through outages of 10, 20, 40 and 60 s",
        Work::Outages,
    )
    .with_outages(&OUTAGES),
    Scenario::new(
        "apply",
        "applying what has arrived: the databases at work, and no link",
        Work::Apply,
    ),
    Scenario::new(
        "capture",
        "reading what was committed: into our journal, or pg_recvlogical's nothing",
        Work::Capture,
    ),
    Scenario::new("idle", "nothing to do: what it costs to stay in touch", Work::Idle),
    Scenario::new(
        "quiet",
        "the same where nothing on the way forgets connections: with a sign of life every 100 s",
        Work::Idle,
    )
    .with_peer("keep_alive = \"100s\""),
];

/// The scenario of this name.
pub fn find(name: &str) -> Option<Scenario> {
    ALL.into_iter().find(|scenario| scenario.name == name)
}

impl Scenario {
    const fn new(name: &'static str, what: &'static str, work: Work) -> Scenario {
        Scenario { name, what, work, disturbance: Disturbance::NONE, peer: "" }
    }

    const fn with_cuts(mut self, every: Duration) -> Scenario {
        self.disturbance.cut_every = Some(every);
        self
    }

    const fn with_peer(mut self, peer: &'static str) -> Scenario {
        self.peer = peer;
        self
    }

    const fn with_outages(mut self, outages: &'static [Duration]) -> Scenario {
        self.disturbance.outages = outages;
        self
    }

    const fn with_addresses(mut self, every: Duration) -> Scenario {
        self.disturbance.readdress_every = Some(every);
        self
    }
}

const CUT_EVERY: Duration = Duration::from_secs(6);
const READDRESS_EVERY: Duration = Duration::from_secs(5);
/// How long each cut is.
pub(crate) const CUT: Duration = Duration::from_secs(1);
const OUTAGES: [Duration; 4] = [
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(40),
    Duration::from_secs(60),
];
/// For whatever an outage stirred up to settle.
pub const BETWEEN_OUTAGES: Duration = Duration::from_secs(10);
/// More than the minute after which PostgreSQL gives up a connection that is silent.
pub(crate) const WEEK: Duration = Duration::from_secs(75);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_found_by_its_name() {
        for scenario in ALL {
            assert_eq!(find(scenario.name), Some(scenario));
        }
        assert_eq!(find("peace"), None);
    }
}
