//! The command line as it was typed, and the measurements that it asks for.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use thinwire_bench::link::ladder::{self, Rung};
use thinwire_bench::plan::promise::{self, Promise};
use thinwire_bench::plan::{Demand, live};
use thinwire_bench::progress::Progress;
use thinwire_bench::report::Without;
use thinwire_bench::run::Spec;
use thinwire_bench::run::scenario::{self, Scenario};
use thinwire_bench::stop::Stop;
use thinwire_bench::{emulator, link::trace, run::table, workload};

/// Thinwire on simulated links.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Two databases, two sidecars and a thin link that drops; ends with a verdict.
    Demo {
        /// The link; see `links`.
        #[arg(long, default_value = "sat", value_parser = rung)]
        link: Rung,
        /// How many pgbench transactions to run.
        #[arg(long, default_value_t = 2_400)]
        transactions: u64,
        /// Names the run: the data and the losses of the link.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Lines instead of bars; the default when the output is not a terminal.
        #[arg(long)]
        plain: bool,
    },
    /// Measures scenarios with workloads on links, beside PostgreSQL's own logical replication.
    Run(RunArgs),
    /// Everything that is promised about links, beside PostgreSQL's own logical replication.
    Table(TableArgs),
    /// Will this database fit through that link? How long, how much? Measures or takes your word.
    Plan(PlanArgs),
    /// The links, workloads and scenarios by name.
    Links,
}

/// What `run` measures: each scenario with each workload on each link.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The links; see `links`.
    #[arg(long, default_value = "thin", value_parser = rung, conflicts_with = "trace")]
    link: Vec<Rung>,
    /// A link of your own: CSV of time (s), rate (kbit/s), delay (ms), loss (%), up or down. The last line holds as
    /// long as the one before it, and then the recording begins again.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// The workloads.
    #[arg(long, default_value = "pgbench", value_parser = kind)]
    workload: Vec<workload::Kind>,
    /// The scenarios.
    #[arg(long, default_value = "backlog", value_parser = scenario_named)]
    scenario: Vec<Scenario>,
    /// How much a backlog has, in transactions (rows, of bulk).
    #[arg(long)]
    size: Option<u64>,
    /// Transactions a second of a trickle.
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    rate: f64,
    /// How long a trickle or idleness is, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Cut the link for a second, this many seconds apart, and let connections be forgotten.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(2..))]
    cut_every: Option<u64>,
    /// Measure Thinwire also on the same link `uncut`, or `clean`: without losses as well.
    #[arg(long, value_parser = without)]
    beside: Option<Without>,
    /// Without PostgreSQL's own logical replication; the default for those who are not root.
    #[arg(long, conflicts_with = "pglogical")]
    alone: bool,
    /// Measure pglogical too, where it is installed; needs to be root.
    #[arg(long)]
    pglogical: bool,
    /// Lines of TOML for what each node says of the other, such as 'keep_alive = "100s"'.
    #[arg(long, value_name = "TOML")]
    peer: Option<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What `table` measures.
#[derive(Args, Debug)]
pub(crate) struct TableArgs {
    /// Only the lines of these links.
    #[arg(long, value_parser = rung)]
    link: Vec<Rung>,
    /// Only the lines of these workloads.
    #[arg(long, value_parser = kind)]
    workload: Vec<workload::Kind>,
    /// Only the lines of these scenarios.
    #[arg(long, value_parser = scenario_named)]
    scenario: Vec<Scenario>,
    /// A file, such as README.md, in whose table the lines take the place of the old ones.
    #[arg(long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// Without PostgreSQL's own logical replication; the default for those who are not root.
    #[arg(long, conflicts_with = "pglogical")]
    alone: bool,
    /// With pglogical, where it is installed.
    #[arg(long)]
    pglogical: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

impl TableArgs {
    /// Every line of the table.
    pub(crate) fn specs(&self) -> Vec<Spec> {
        let options = table::Options {
            native: self.common.has_native(self.alone),
            pglogical: self.pglogical,
            emulator: self.common.emulator(),
            seed: self.common.seed,
            patience: Duration::from_secs(self.common.patience),
        };
        let choice = table::Choice {
            links: self.link.clone(),
            workloads: self.workload.clone(),
            scenarios: self.scenario.clone(),
        };
        table::specs(options, &choice)
    }
}

/// What `plan` is asked.
#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// The links; all if none is named.
    #[arg(long, value_parser = rung, conflicts_with = "trace")]
    link: Vec<Rung>,
    /// A link of your own, as for `run`; the recording is repeated for as long as need be.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// A live database to measure, in libpq's words; nothing in it is changed.
    #[arg(long)]
    url: Option<String>,
    /// How long to measure it, in seconds.
    #[arg(long, default_value_t = 60, requires = "url", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Without a database to measure: transactions a second,
    #[arg(long, default_value_t = 1.0, value_parser = positive, conflicts_with_all = ["url", "check"])]
    rate: f64,
    /// bytes of changed rows in each, as text,
    #[arg(long, default_value_t = 500, conflicts_with_all = ["url", "check"])]
    bytes: u32,
    /// and bytes of all rows, as text.
    #[arg(long, default_value_t = 100_000_000, conflicts_with_all = ["url", "check"])]
    database_bytes: u64,
    /// Measure instead whether forecasts come true, with a backlog on each link, and what samples of databases promise.
    #[arg(long, conflicts_with = "url")]
    pub(crate) check: bool,
    /// Of that only what samples of these workloads promise.
    #[arg(long, value_parser = kind, requires = "check", conflicts_with_all = ["link", "trace"])]
    workload: Vec<workload::Kind>,
    /// That without PostgreSQL's own logical replication; the default for those who are not root.
    #[arg(long, requires = "check")]
    alone: bool,
    /// A file, such as README.md, in which what `--check` found of a link takes the place of what it found before.
    #[arg(long, value_name = "FILE", requires = "check", conflicts_with = "trace")]
    pub(crate) write: Option<PathBuf>,
    /// How the link is emulated for `--check`: `tun` (any program; root), `udp` (Thinwire alone), or the best.
    #[arg(long, value_parser = emulator_named, requires = "check")]
    emulator: Option<emulator::Kind>,
    /// Names the weather of the link, and for `--check` the data and the losses.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How long each contender may take in `--check`, in seconds.
    #[arg(long, default_value_t = 600, requires = "check")]
    patience: u64,
    /// A folder for forecasts.json, forecasts.csv and forecasts.html.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Lines instead of a bar; the default when the output is not a terminal.
    #[arg(long)]
    pub(crate) plain: bool,
}

impl PlanArgs {
    pub(crate) fn links(&self) -> Result<Vec<Rung>> {
        Ok(match &self.trace {
            Some(path) => vec![trace::read(path)?],
            None if self.link.is_empty() => ladder::ALL.to_vec(),
            None => self.link.clone(),
        })
    }

    /// Measured or given.
    pub(crate) fn demand(&self, stop: &Stop) -> Result<Demand> {
        match &self.url {
            Some(url) => {
                let (time, progress) =
                    (Duration::from_secs(self.seconds), Progress::new(self.plain));
                live::measure(url, time, stop, &progress)
            }
            None => Ok(Demand::of_text(self.rate, f64::from(self.bytes), self.database_bytes)),
        }
    }

    /// What asks for it again, as it is typed. The URL of a database is left out: it may have a password, and reports are
    /// passed on.
    pub(crate) fn command(&self) -> String {
        let mut words = vec!["thinwire-bench plan".to_owned()];
        words.extend(self.trace.as_ref().map(|path| format!("--trace {}", path.display())));
        words.extend(self.link.iter().map(|link| format!("--link {}", link.name)));
        words.extend(self.workload.iter().map(|kind| format!("--workload {}", kind.name)));
        words.push(match (self.check, &self.url) {
            (true, _) => self.checking(),
            (false, Some(_)) => format!("--url \"$URL\" --seconds {}", self.seconds),
            (false, None) => {
                let PlanArgs { rate, bytes, database_bytes, .. } = self;
                format!("--rate {rate} --bytes {bytes} --database-bytes {database_bytes}")
            }
        });
        words.push(format!("--seed {}", self.seed));
        words.join(" ")
    }

    fn checking(&self) -> String {
        let (alone, emulator) = (if self.alone { " --alone" } else { "" }, self.spec().emulator);
        format!("--check{alone} --emulator {} --patience {}", emulator.name(), self.patience)
    }

    /// The links on which forecasts are compared with backlogs.
    pub(crate) fn checked(&self) -> Result<Vec<Rung>> {
        if self.workload.is_empty() { self.links() } else { Ok(Vec::new()) }
    }

    /// What samples of databases promise, if the link is asked about on which that is measured.
    pub(crate) fn promises(&self) -> Vec<Promise> {
        let is_asked = self.link.is_empty() || self.link.contains(&promise::LINK);
        let named = |promise: &Promise| {
            self.workload.is_empty() || self.workload.iter().any(|kind| promise.is_of(kind))
        };
        promise::ALL
            .into_iter()
            .filter(|it| is_asked && self.trace.is_none() && named(it))
            .collect()
    }

    /// What forecasts are compared with; its link is replaced.
    pub(crate) fn spec(&self) -> Spec {
        let emulator = self.emulator.unwrap_or_else(emulator::Kind::best);
        Spec {
            link: ladder::LAN,
            workload: workload::PHOTOS,
            scenario: scenario::BACKLOG,
            size: workload::PHOTOS.size,
            rate: self.rate,
            seconds: Duration::ZERO,
            cut_every: None,
            native: !self.alone && emulator == emulator::Kind::Tun,
            beside: None,
            emulator,
            seed: self.seed,
            patience: Duration::from_secs(self.patience),
            trace: self.trace.clone(),
            peer: None,
            pglogical: false,
        }
    }
}

/// What every measurement has.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// How the link is emulated: `tun` (any program; root), `udp` (Thinwire alone), or the best.
    #[arg(long, value_parser = emulator_named)]
    emulator: Option<emulator::Kind>,
    /// Names the run: the data and the losses of the link.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long each contender may take, in seconds.
    #[arg(long, default_value_t = 600)]
    patience: u64,
    /// A folder for results.json, results.csv and report.html.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Lines instead of a bar; the default when the output is not a terminal.
    #[arg(long)]
    pub(crate) plain: bool,
}

impl RunArgs {
    /// Each scenario with each workload on each link.
    pub(crate) fn specs(&self) -> Result<Vec<Spec>> {
        let links = match &self.trace {
            Some(path) => vec![trace::read(path)?],
            None => self.link.clone(),
        };
        let mut specs = Vec::new();
        for link in links {
            for &workload in &self.workload {
                for &scenario in &self.scenario {
                    specs.push(self.spec(link, workload, scenario));
                }
            }
        }
        Ok(specs)
    }

    fn spec(&self, link: Rung, workload: workload::Kind, scenario: Scenario) -> Spec {
        let size = self.size.unwrap_or(workload.size);
        let common = &self.common;
        Spec {
            link,
            workload,
            scenario,
            size,
            rate: self.rate,
            seconds: Duration::from_secs(self.seconds),
            cut_every: self.cut_every.map(Duration::from_secs),
            native: common.has_native(self.alone),
            beside: self.beside,
            emulator: common.emulator(),
            seed: common.seed,
            patience: Duration::from_secs(common.patience),
            trace: self.trace.clone(),
            peer: self.peer.clone(),
            pglogical: self.pglogical,
        }
    }
}

impl Common {
    fn emulator(&self) -> emulator::Kind {
        self.emulator.unwrap_or_else(emulator::Kind::best)
    }

    /// Whether PostgreSQL's own logical replication is measured too: always where the link carries TCP, if not told otherwise.
    fn has_native(&self, alone: bool) -> bool {
        !alone && self.emulator() == emulator::Kind::Tun
    }
}

fn rung(name: &str) -> Result<Rung, String> {
    let names = ladder::ALL.map(|rung| rung.name).join(", ");
    ladder::find(name).ok_or_else(|| format!("there is no such link; there are {names}"))
}

fn kind(name: &str) -> Result<workload::Kind, String> {
    let names = workload::ALL.map(|kind| kind.name).join(", ");
    workload::find(name).ok_or_else(|| format!("there is no such workload; there are {names}"))
}

fn scenario_named(name: &str) -> Result<Scenario, String> {
    let names = scenario::ALL.map(|scenario| scenario.name).join(", ");
    scenario::find(name).ok_or_else(|| format!("there is no such scenario; there are {names}"))
}

fn without(name: &str) -> Result<Without, String> {
    match name {
        "uncut" => Ok(Without::Outages),
        "clean" => Ok(Without::Losses),
        _ => Err("there are uncut and clean".to_owned()),
    }
}

fn emulator_named(name: &str) -> Result<emulator::Kind, String> {
    let kinds = [emulator::Kind::Udp, emulator::Kind::Tun];
    let found = kinds.into_iter().find(|kind| kind.name() == name);
    found.ok_or_else(|| "there are udp and tun".into())
}

fn positive(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|error| format!("{error}"))?;
    let is_sound = value.is_finite() && (0.01..=100_000.0).contains(&value);
    if is_sound { Ok(value) } else { Err("must be from 0.01 to 100000".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn specs(text: &str) -> Vec<Spec> {
        match Cli::parse_from(text.split_whitespace()).command {
            Command::Run(arguments) => arguments.specs().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_of_a_measurement_asks_for_the_same_measurement() {
        Cli::command().debug_assert();
        let typed = "thinwire-bench run --link sat --link lte --workload orders --scenario cuts \
             --size 70 --cut-every 9 --pglogical --emulator tun --seed 5 --patience 77";
        let asked = specs(typed);
        assert_eq!(asked.len(), 2);
        let again = specs(&asked[1].command());
        assert_eq!((again[0].patience, again[0].pglogical), (Duration::from_secs(77), true));
        assert_eq!(again[0].command(), asked[1].command());
        assert_eq!((again[0].link, again[0].size), (ladder::LTE, 70));
    }

    fn plan(text: &str) -> PlanArgs {
        match Cli::parse_from(text.split_whitespace()).command {
            Command::Plan(arguments) => arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_of_a_forecast_asks_for_the_same_forecast() {
        for (asked, more) in [
            ("--link sat --link lte --rate 0.5 --bytes 70 --database-bytes 9000 --seed 5", ""),
            ("--trace my.csv --rate 1 --bytes 500 --database-bytes 100000000 --seed 1", ""),
            ("--link thin --check --alone --emulator tun --patience 77 --seed 5", " --plain"),
            ("--workload orders --check --emulator udp --patience 600 --seed 1", " --out reports"),
        ] {
            let command = format!("thinwire-bench plan {asked}");
            assert_eq!(plan(&format!("{command}{more}")).command(), command);
        }
        let url = "thinwire-bench plan --url host=ship,password=secret --seconds 9 --seed 3";
        let told = "thinwire-bench plan --url \"$URL\" --seconds 9 --seed 3";
        assert_eq!(plan(url).command(), told);
        assert_eq!(plan(told).command(), told, "the shell puts it there");
    }

    #[test]
    fn postgresqls_own_replication_is_beside_it_wherever_tcp_is_carried() {
        for (typed, native) in [("tun", true), ("tun --alone", false), ("udp", false)] {
            let [spec] = &specs(&format!("thinwire-bench run --emulator {typed}"))[..] else {
                panic!("{typed}")
            };
            assert_eq!(spec.native, native, "{typed}");
            assert_eq!(specs(&spec.command())[0].native, native, "{}", spec.command());
        }
    }
}
