//! The whole table: everything that is promised about links, Thinwire and PostgreSQL's own side by
//! side.

use std::time::Duration;

use crate::contender::{native, pglogical, recvlogical, thinwire};
use crate::link::ladder::{self, Rung};
use crate::report::{Outcome, Run, Without, terminal};
use crate::run::Spec;
use crate::run::scenario::{self, Scenario};
use crate::{emulator, workload};

/// One line of the table.
#[derive(Clone, Copy, Debug)]
struct Row {
    link: Rung,
    workload: &'static str,
    scenario: &'static str,
    /// How much of the workload, if not as much as usual.
    size: Option<u64>,
    /// Transactions a second of a trickle.
    rate: f64,
    /// How long a trickle or idleness is.
    seconds: u64,
    /// Whether it is compared with an easier link.
    beside: Option<Without>,
}

/// In the order in which they are measured.
const ROWS: [Row; 28] = [
    Row::new(ladder::THIN, "pgbench", "backlog"),
    Row::new(ladder::SAT, "pgbench", "backlog"),
    Row::new(ladder::FLAPPY, "pgbench", "backlog"),
    Row::new(ladder::CONTACT, "pgbench", "backlog"),
    Row::new(ladder::THIN, "orders", "backlog"),
    Row::new(ladder::SAT, "telemetry", "backlog"),
    Row::new(ladder::SAT, "state", "backlog"),
    Row::new(ladder::SAT, "pgbench", "copy"),
    Row::new(ladder::CONTACT, "pgbench", "copy"),
    Row::new(ladder::FLAPPY, "pgbench", "copy"),
    // Of pgbench's rows the most is blanks.
    Row::new(ladder::SAT, "orders", "copy"),
    // More than one window of contact.
    Row::new(ladder::CONTACT, "album", "copy").beside(Without::Outages),
    Row::new(ladder::FLAPPY, "album", "copy").beside(Without::Outages),
    Row::new(ladder::SAT, "album", "copy-cuts").beside(Without::Outages),
    Row::new(ladder::GEO, "bulk", "cuts").with_size(400_000),
    // Enough to fill several windows of contact, and for the beginning not to matter.
    Row::new(ladder::CONTACT, "photos", "backlog").with_size(2_000).beside(Without::Losses),
    Row::new(ladder::RAIN, "photos", "backlog").with_size(3_000).beside(Without::Losses),
    Row::new(ladder::STORM, "photos", "backlog").with_size(3_000).beside(Without::Losses),
    Row::new(ladder::SAT, "orders", "address"),
    Row::new(ladder::SAT, "orders", "week"),
    Row::new(ladder::SAT, "orders", "trickle"),
    Row::new(ladder::SAT, "pgbench", "outages"),
    Row::new(ladder::SAT, "pgbench", "idle").with_seconds(300),
    Row::new(ladder::SAT, "pgbench", "quiet").with_seconds(600),
    Row::new(ladder::FAST, "pgbench", "backlog").with_size(20_000),
    Row::new(ladder::FAST, "pgbench", "trickle").with_rate(100.0),
    Row::new(ladder::LAN, "pgbench", "apply").with_size(20_000),
    Row::new(ladder::LAN, "pgbench", "capture").with_size(20_000),
];

impl Row {
    const fn new(link: Rung, workload: &'static str, scenario: &'static str) -> Row {
        Row { link, workload, scenario, size: None, rate: 5.0, seconds: 60, beside: None }
    }

    const fn with_size(mut self, size: u64) -> Row {
        self.size = Some(size);
        self
    }

    const fn beside(mut self, without: Without) -> Row {
        self.beside = Some(without);
        self
    }

    const fn with_seconds(mut self, seconds: u64) -> Row {
        self.seconds = seconds;
        self
    }

    const fn with_rate(mut self, rate: f64) -> Row {
        self.rate = rate;
        self
    }

    /// What its line begins with.
    fn name(&self) -> String {
        format!("| {} | {} | {},", self.link.name, self.scenario, self.workload)
    }

    fn found(&self) -> Option<(workload::Kind, Scenario)> {
        Some((workload::find(self.workload)?, scenario::find(self.scenario)?))
    }
}

/// What all lines have in common.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether PostgreSQL's own logical replication is measured too.
    pub native: bool,
    /// Whether pglogical is, where it is installed.
    pub pglogical: bool,
    /// How the links are put between them.
    pub emulator: emulator::Kind,
    /// Names the data and the losses.
    pub seed: u64,
    /// How long each contender may take for each line.
    pub patience: Duration,
}

/// Which lines are wanted: of a kind of which none is named, all.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// The links.
    pub links: Vec<Rung>,
    /// The workloads.
    pub workloads: Vec<workload::Kind>,
    /// The scenarios.
    pub scenarios: Vec<Scenario>,
}

impl Choice {
    fn has(&self, row: &Row) -> bool {
        let Choice { links, workloads, scenarios } = self;
        (links.is_empty() || links.contains(&row.link))
            && (workloads.is_empty() || workloads.iter().any(|kind| kind.name == row.workload))
            && (scenarios.is_empty() || scenarios.iter().any(|it| it.name == row.scenario))
    }
}

/// Everything that the table needs, as far as it is wanted.
pub fn specs(options: Options, choice: &Choice) -> Vec<Spec> {
    let is_wanted = |row: &&Row| choice.has(row);
    let spec = |row: &Row| {
        let (workload, scenario) = row.found()?;
        let spec = Spec {
            link: row.link,
            workload,
            scenario,
            size: row.size.unwrap_or(workload.size),
            rate: row.rate,
            seconds: Duration::from_secs(row.seconds),
            cut_every: None,
            native: options.native,
            beside: row.beside,
            emulator: options.emulator,
            seed: options.seed,
            patience: options.patience,
            trace: None,
            peer: None,
            pglogical: options.pglogical,
        };
        Some(spec)
    };
    ROWS.iter().filter(is_wanted).filter_map(spec).collect()
}

/// The heading of the table, in Markdown.
pub fn heading() -> String {
    let columns = [
        "link",
        "scenario",
        "workload",
        "Thinwire: s",
        "native: s",
        "Thinwire: bytes",
        "native: bytes",
        "zstd -19",
        "link in use",
        "seed",
        "more",
    ];
    format!("| {} |\n|{}", columns.join(" | "), " --- |".repeat(columns.len()))
}

/// What the lines of the whole table begin with, in their order.
pub fn names() -> Vec<String> {
    ROWS.iter().map(Row::name).collect()
}

/// A run as a line of the table.
pub fn line(run: &Run) -> String {
    let of = |name: &str| run.outcomes.iter().find(|outcome| outcome.contender == name);
    let theirs = of(native::NAME).or_else(|| of(recvlogical::NAME));
    let ours = of(thinwire::NAME);
    let seconds = |outcome: Option<&Outcome>| outcome.map(terminal::seconds).unwrap_or_default();
    let bytes = |outcome: Option<&Outcome>| {
        outcome.map(|outcome| outcome.bytes().to_string()).unwrap_or_default()
    };
    let shares = [ours, theirs].into_iter().flatten();
    let shares: Vec<String> =
        shares.map(|outcome| format!("{:.0} %", outcome.utilisation() * 100.0)).collect();
    let third = of(pglogical::NAME);
    let cost = |outcome: &Outcome| {
        let (seconds, bytes) = (terminal::seconds(outcome), outcome.bytes());
        format!("pglogical: {seconds} s, {bytes} bytes")
    };
    let more: Vec<String> = [("", ours), ("native: ", theirs), ("pglogical: ", third)]
        .into_iter()
        .filter_map(|(whose, outcome)| Some((whose, terminal::remarks(run, outcome?))))
        .filter(|(_, remarks)| !remarks.is_empty())
        .map(|(whose, remarks)| format!("{whose}{remarks}"))
        .chain(third.map(cost))
        .chain(terminal::flush(run))
        .chain(terminal::verdict(run))
        .collect();
    let floor = run.floor.map(|floor| floor.compressed_bytes.to_string()).unwrap_or_default();
    let fields = [
        run.link.clone(),
        run.scenario.clone(),
        format!("{}, {} {}", run.workload, run.size, run.unit),
        seconds(ours),
        seconds(theirs),
        bytes(ours),
        bytes(theirs),
        floor,
        shares.join(", "),
        run.seed.to_string(),
        more.join("; "),
    ];
    format!("| {} |", fields.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_a_workload_and_a_scenario_that_exist() {
        assert!(ROWS.iter().all(|row| row.found().is_some()));
    }

    #[test]
    fn a_line_has_a_field_for_each_column() {
        let outcome = |name: &str, finished| Outcome {
            contender: name.into(),
            finished,
            seconds: 7.0,
            up_bytes: 5,
            capacity_bytes: 10,
            ..Outcome::default()
        };
        let outcomes = vec![outcome("thinwire", true), outcome("native", false)];
        let line = line(&Run { link: "sat".into(), outcomes, ..Run::default() });
        let columns = heading().lines().next().unwrap().matches('|').count();
        assert_eq!(line.matches('|').count(), columns, "{line}");
        assert!(line.contains("| 7.0 | > 7 |"), "{line}");
        assert!(line.contains("| 50 %, 50 % |"), "{line}");
    }

    #[test]
    fn a_line_has_its_name_in_the_table_and_can_be_asked_for_alone() {
        let options = Options {
            native: false,
            pglogical: false,
            emulator: emulator::Kind::Udp,
            seed: 7,
            patience: Duration::ZERO,
        };
        let all = specs(options, &Choice::default());
        assert_eq!(all.len(), names().len());
        for (spec, name) in all.iter().zip(names()) {
            let run = Run {
                link: spec.link.name.into(),
                scenario: spec.scenario.name.into(),
                workload: spec.workload.name.into(),
                ..Run::default()
            };
            assert!(line(&run).starts_with(&name), "{name}");
            let choice = Choice {
                links: vec![spec.link],
                workloads: vec![spec.workload],
                scenarios: vec![spec.scenario],
            };
            let [again] = &specs(options, &choice)[..] else { panic!("{name}") };
            assert_eq!(again.command(), spec.command());
        }
    }
}
