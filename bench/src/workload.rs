//! What a database does: kinds of changes by name, seeded, as SQL text.
//!
//! A workload has tables, the rows that were there before, and transactions. All of it follows from
//! the seed, so that a run can be repeated and every contender gets the same. Ids and times are
//! given, never taken from sequences or clocks.

use std::fmt::Write as _;

mod bulk;
pub(crate) mod load;
mod orders;
mod pgbench;
mod photos;
pub mod shop;
mod state;
mod telemetry;

/// A workload by name.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// What it is called on the command line and in reports.
    pub name: &'static str,
    /// The real database that it stands for.
    pub stands_for: &'static str,
    /// What a backlog is counted in.
    pub unit: &'static str,
    /// How much a backlog has if nobody says.
    pub size: u64,
    make: fn(u64) -> Box<dyn Workload>,
}

/// All of them.
pub const ALL: [Kind; 7] = [
    Kind {
        name: "pgbench",
        stands_for: "pgbench's own TPC-B-like transactions at scale 1: the known yardstick",
        unit: "transactions",
        size: 2_000,
        make: |seed| Box::new(pgbench::Pgbench::new(seed)),
    },
    Kind {
        name: "orders",
        stands_for: "a shop: orders with JSON, text and arrays, partial updates of wide rows",
        unit: "transactions",
        size: 2_000,
        make: |seed| Box::new(orders::Orders::new(seed)),
    },
    Kind {
        name: "telemetry",
        stands_for: "a plant: many sensors, narrow rows, ten readings a transaction",
        unit: "transactions",
        size: 2_000,
        make: |seed| Box::new(telemetry::Telemetry::new(seed)),
    },
    Kind {
        name: "state",
        stands_for: "a fleet: few rows, updated all the time",
        unit: "transactions",
        size: 4_000,
        make: |seed| Box::new(state::State::new(seed)),
    },
    Kind {
        name: "bulk",
        stands_for: "a nightly import: one transaction of many rows",
        unit: "rows",
        size: 40_000,
        make: |seed| Box::new(bulk::Bulk::new(seed)),
    },
    PHOTOS,
    Kind {
        name: "album",
        stands_for: "the same, with 1,500 photos that are there already",
        unit: "transactions",
        size: 1_500,
        make: |seed| Box::new(photos::Photos::of_years(seed)),
    },
];

/// What does not become smaller, so that a link's share in the time it takes is plain.
pub const PHOTOS: Kind = Kind {
    name: "photos",
    stands_for: "an inspector's photos: a kilobyte each that nothing makes smaller",
    unit: "transactions",
    size: 1_500,
    make: |seed| Box::new(photos::Photos::new(seed)),
};

/// The workload of this name.
pub fn find(name: &str) -> Option<Kind> {
    ALL.into_iter().find(|kind| kind.name == name)
}

impl Kind {
    /// The workload of a seed, at its beginning.
    pub fn begin(&self, seed: u64) -> Box<dyn Workload> {
        (self.make)(seed)
    }
}

/// A database and what happens to it.
pub trait Workload: Send {
    /// The tables, for both databases.
    fn schema(&self) -> String;

    /// The rows that were there before.
    fn fill(&mut self) -> String;

    /// The statements of the next transaction, on one line.
    fn change(&mut self) -> String;

    /// A query for a number that grows with what was applied of it, in the kind's unit; it is the
    /// same at both ends when all has arrived.
    fn progress(&self) -> String;

    /// Everything that waits for the link: this many of the kind's unit.
    fn backlog(&mut self, size: u64) -> String {
        let mut sql = String::new();
        for _ in 0..size {
            let _ = writeln!(sql, "begin; {} commit;", self.change().trim_end());
        }
        sql
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thinwire_cluster::{Cluster, Options};

    #[test]
    fn every_workload_runs_on_a_real_server_and_counts_its_progress() {
        let cluster = Cluster::start(Options::default()).unwrap();
        for kind in ALL {
            let mut workload = kind.begin(1);
            cluster.create_database(kind.name).unwrap();
            let sql = |text: &str| {
                let answer = cluster.psql(kind.name, text);
                answer.unwrap_or_else(|error| panic!("{}: {error}", kind.name))
            };
            sql(&workload.schema());
            sql(&workload.fill());
            let progress = workload.progress();
            let count = || sql(&progress).parse::<u64>().unwrap();
            let before = count();
            sql(&workload.backlog(50));
            assert_eq!(count() - before, 50, "{}", kind.name);
            sql(&workload.change());
            assert_eq!(count() - before, 51, "{}", kind.name);
        }
    }

    #[test]
    fn a_seed_names_everything_that_happens() {
        for kind in ALL {
            let story = |seed| {
                let mut workload = kind.begin(seed);
                workload.fill() + &workload.backlog(20) + &workload.change()
            };
            assert_eq!(story(1), story(1), "{}", kind.name);
            assert_ne!(story(1), story(2), "{}", kind.name);
            assert!(!kind.begin(1).change().contains('\n'), "{}", kind.name);
        }
    }
}
