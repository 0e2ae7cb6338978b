//! Whether what a user is told comes true: forecast from a sample of a database at work, and measured with what comes
//! later.

use std::time::Duration;

use anyhow::{Context, Result};
use thinwire_cluster::{Cluster, Options};

use super::live::Live;
use super::{DAY, Demand, MONTH, forecast, wire_bytes};
use crate::link::ladder::{Rung, THIN};
use crate::progress::Progress;
use crate::run::scenario::{self, Scenario, Work};
use crate::run::{Spec, outcomes};
use crate::stop::Stop;
use crate::workload::load::Load;
use crate::workload::{self, Kind};

/// Something that is promised of a workload.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    workload: &'static str,
    scenario: &'static str,
}

/// All that are looked at, each on [`LINK`].
pub const ALL: [Promise; 7] = [
    Promise { workload: "pgbench", scenario: "backlog" },
    Promise { workload: "orders", scenario: "backlog" },
    Promise { workload: "telemetry", scenario: "backlog" },
    Promise { workload: "orders", scenario: "copy" },
    Promise { workload: "telemetry", scenario: "copy" },
    Promise { workload: "pgbench", scenario: "trickle" },
    Promise { workload: "orders", scenario: "trickle" },
];

/// Thin enough that it is the link that takes the time.
pub const LINK: Rung = THIN;

/// A promise and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    name: String,
    work: String,
    /// Forecast and measured, in seconds, where the time depends on the link.
    seconds: Option<(f64, f64)>,
    /// Forecast and measured: towards the target, or in both directions of a month.
    bytes: (f64, f64),
    seed: u64,
}

impl Promise {
    fn found(self) -> Result<(Kind, Scenario)> {
        let kind = workload::find(self.workload).context("there is no such workload")?;
        let scenario = scenario::find(self.scenario).context("there is no such scenario")?;
        Ok((kind, scenario))
    }

    /// Whether it is of such databases.
    pub fn is_of(&self, kind: &Kind) -> bool {
        self.workload == kind.name
    }

    /// What its line begins with.
    fn name(self) -> String {
        format!("| {} | {} | {} |", LINK.name, self.scenario, self.workload)
    }

    /// Forecasts it and measures it; what is common to both is in the spec.
    pub fn line(self, spec: &Spec, stop: &Stop, progress: &Progress) -> Result<Line> {
        let (workload, scenario) = self.found()?;
        // The rows that are sampled are those that will be copied; the changes are not those that will come.
        let other = if scenario.work == Work::Copy { 0 } else { OTHER };
        let demand = sample(workload, spec.seed + other, stop, progress)?;
        let size = sized(&demand);
        let rate =
            if scenario.work == Work::Trickle { RATE } else { size as f64 / DAY.as_secs_f64() };
        let told = forecast(&LINK, &Demand { rate, ..demand }, spec.seed);
        let seconds = TRICKLE;
        let spec = Spec { link: LINK, workload, scenario, size, rate, seconds, ..spec.clone() };
        let outcome = outcomes(&Spec { native: false, ..spec }, stop, progress)?.0;
        let (time, payload, work) = match scenario.work {
            Work::Copy => (told.copy, demand.begin_bytes(), format!("{} rows", outcome.goal)),
            _ => (told.day, demand.bytes_each * size as f64, format!("{size} {}", workload.unit)),
        };
        let mut line = Line {
            name: self.name(),
            work,
            seconds: Some((time.context("it is never there")?.as_secs_f64(), outcome.seconds)),
            bytes: (wire_bytes(&LINK.link, payload), outcome.up_bytes as f64),
            seed: spec.seed,
        };
        if scenario.work == Work::Trickle {
            let month = outcome.bytes() as f64 * MONTH.as_secs_f64() / outcome.seconds;
            line.bytes = (told.month_bytes, month);
            line.seconds = None;
            line.work = format!("{rate} a second, bytes of a month in both directions");
        }
        Ok(line)
    }
}

/// As many transactions as keep the link busy for a while.
fn sized(demand: &Demand) -> u64 {
    let each = wire_bytes(&LINK.link, demand.bytes_each).max(1.0);
    let bytes = LINK.link.rate_bps / 8 * BUSY.as_secs();
    let count = Duration::from_secs_f64(bytes as f64 / each).as_secs();
    count.clamp(SIZE_MIN, SIZE_MAX)
}

/// What `plan --url` measures of such a database while it works.
fn sample(workload: Kind, seed: u64, stop: &Stop, progress: &Progress) -> Result<Demand> {
    progress.begin(&format!("{}: a sample", workload.name));
    let cluster = Cluster::start(Options::default())?;
    let mut work = workload.begin(seed);
    let fill = format!("begin;\n{}\n{}\ncommit;\nanalyze;\n", work.schema(), work.fill());
    cluster.psql(DATABASE, &fill)?;
    let changes = work.backlog(SAMPLE);
    let first = "set synchronous_commit = off;".to_owned();
    let lines = [first].into_iter().chain(changes.lines().map(str::to_owned)).collect();
    let pause = SAMPLE_TIME / u32::try_from(SAMPLE).unwrap_or(u32::MAX);
    let live = Live::begin(&cluster.url(DATABASE), stop, progress)?;
    let load = Load::start(&cluster, DATABASE, lines, pause)?;
    let demand = live.watch(SAMPLE_TIME + LATE)?;
    drop(load);
    Ok(demand)
}

impl Line {
    /// How far the forecast is off at most, as a share of what was measured.
    pub fn off(&self) -> f64 {
        let time = self.seconds.map_or(0.0, |seconds| off(seconds).abs());
        off(self.bytes).abs().max(time)
    }

    /// A line of a table in Markdown.
    pub fn row(&self) -> String {
        let Line { name, work, seconds, bytes, seed } = self;
        let time = match seconds {
            Some(time) => format!("{:.1} | {:.1} | {:+.0} %", time.0, time.1, off(*time) * 100.0),
            None => " | | ".to_owned(),
        };
        let off = off(*bytes) * 100.0;
        format!("{name} {work} | {time} | {:.0} | {:.0} | {off:+.0} % | {seed} |", bytes.0, bytes.1)
    }
}

fn off((forecast, measured): (f64, f64)) -> f64 {
    forecast / measured - 1.0
}

/// The heading of that table.
pub const HEADING: &str = "| link | what | workload | of | forecast: s | measured: s | off | \
    forecast: bytes | measured: bytes | off | seed |\n\
    | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

/// What the lines of the whole table begin with, in their order.
pub fn names() -> Vec<String> {
    ALL.map(Promise::name).to_vec()
}

const DATABASE: &str = "postgres";
/// Names another database of the kind.
const OTHER: u64 = 1_000;
/// Transactions that are sampled. Five and eighteen times as many of pgbench tell the same within a twentieth.
const SAMPLE: u64 = 2_000;
const SAMPLE_TIME: Duration = Duration::from_secs(10);
/// For a busy machine to come to the end of them.
const LATE: Duration = Duration::from_secs(2);
const BUSY: Duration = Duration::from_secs(20);
const SIZE_MIN: u64 = 500;
const SIZE_MAX: u64 = 40_000;
/// Transactions a second of a trickle, and how long it is.
const RATE: f64 = 5.0;
const TRICKLE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_names_what_exists_and_its_line_has_a_field_for_each_column() {
        let columns = HEADING.lines().next().unwrap().matches('|').count();
        for promise in ALL {
            assert!(promise.found().is_ok(), "{promise:?}");
            for seconds in [None, Some((11.0, 10.0))] {
                let (name, work) = (promise.name(), "7 rows".to_owned());
                let line = Line { name, work, seconds, bytes: (90.0, 100.0), seed: 1 };
                assert_eq!(line.row().matches('|').count(), columns, "{}", line.row());
                assert!((line.off() - 0.1).abs() < 1e-9);
            }
        }
    }
}
