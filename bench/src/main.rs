//! The `thinwire-bench` program: parses, runs, and turns results into exit codes.

use std::io::{self, Write};
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::thread;

use anyhow::Result;
use clap::Parser;
use thinwire_bench::plan::{self, Demand, check, promise};
use thinwire_bench::progress::Progress;
use thinwire_bench::report::table::Table;
use thinwire_bench::report::{self, Run, terminal};
use thinwire_bench::run::{self, Spec};
use thinwire_bench::stop::Stop;
use thinwire_bench::{
    demo,
    link::ladder,
    report::readme,
    run::{scenario, table},
    workload,
};
use tokio::signal::unix::{SignalKind, signal};

use cli::{Cli, Command, Common, PlanArgs, TableArgs};

mod cli;

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let stop = Arc::new(Stop::default());
    let asked = Arc::clone(&stop);
    thread::spawn(move || listen(&asked));
    let outcome = obey(command, &stop);
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(_) if stop.asked() => {
            eprintln!("thinwire-bench: interrupted; nothing is left behind");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("thinwire-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether what was asked for came out well.
fn obey(command: Command, stop: &Stop) -> Result<bool> {
    match command {
        Command::Demo { link, transactions, seed, plain } => {
            demo::run(&demo::Options { link, transactions, seed, plain }, stop)
        }
        Command::Run(arguments) => {
            let runs = measure_all(&arguments.specs()?, &arguments.common, stop, show)?;
            Ok(all_finished(&runs))
        }
        Command::Table(arguments) => table_of_links(&arguments, stop),
        Command::Plan(arguments) if arguments.check => check(&arguments, stop),
        Command::Plan(arguments) => forecasts(&arguments, stop).map(|()| true),
        Command::Links => names().map(|()| true),
    }
}

fn table_of_links(arguments: &TableArgs, stop: &Stop) -> Result<bool> {
    if let Some(file) = &arguments.write {
        readme::LINKS.check(file)?;
    }
    writeln!(io::stdout(), "{}", table::heading())?;
    let keep = |run: &Run| {
        let line = table::line(run);
        writeln!(io::stdout(), "{line}")?;
        match &arguments.write {
            Some(file) => readme::LINKS.join(file, &table::heading(), &[line], &table::names()),
            None => Ok(()),
        }
    };
    let runs = measure_all(&arguments.specs(), &arguments.common, stop, keep)?;
    Ok(all_finished(&runs))
}

/// Whether Thinwire came to the end of all of them.
fn all_finished(runs: &[Run]) -> bool {
    runs.iter().all(|run| run.outcomes[0].finished)
}

fn measure_all(
    specs: &[Spec],
    common: &Common,
    stop: &Stop,
    keep: impl Fn(&Run) -> Result<()>,
) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    for spec in specs {
        let progress = Progress::new(common.plain);
        let run = run::run(spec, stop, &progress)?;
        drop(progress);
        keep(&run)?;
        runs.push(run);
        // What there is, is worth keeping if the next one fails.
        if let Some(folder) = &common.out {
            report::write(folder, &runs)?;
        }
    }
    Ok(runs)
}

fn show(run: &Run) -> Result<()> {
    Ok(terminal::print(&mut io::stdout().lock(), run)?)
}

fn forecasts(arguments: &PlanArgs, stop: &Stop) -> Result<()> {
    let links = arguments.links()?;
    let demand = arguments.demand(stop)?;
    let mut out = io::stdout().lock();
    let Demand { rate, bytes_each, alone_each, copy_bytes } = demand;
    writeln!(
        out,
        "{rate:.2} transactions a second; in packets, {bytes_each:.1} bytes each among many and \
         {alone_each:.1} alone, {copy_bytes:.0} bytes of rows\n\n{}",
        plan::HEADING
    )?;
    let mut rows = Vec::new();
    for rung in links {
        rows.push(plan::row(&rung, &plan::forecast(&rung, &demand, arguments.seed)));
        writeln!(out, "{}", rows[rows.len() - 1])?;
    }
    let command = arguments.command();
    writeln!(out, "again: {command}")?;
    let (name, heading) = ("forecasts", plan::HEADING);
    match &arguments.out {
        Some(folder) => {
            report::table::write(folder, &Table { name, heading, rows: &rows, command: &command })
        }
        None => Ok(()),
    }
}

/// Whether every forecast came true, as far as forecasts do.
fn check(arguments: &PlanArgs, stop: &Stop) -> Result<bool> {
    if let Some(file) = &arguments.write {
        readme::FORECASTS.check(file)?;
        readme::PROMISES.check(file)?;
    }
    let progress = Progress::new(arguments.plain);
    let (spec, mut came_true) = (arguments.spec(), true);
    let links = arguments.checked()?;
    if !links.is_empty() {
        let costs = check::Costs::measure(&spec, &links, stop, &progress)?;
        let mut checked = Checked::new(arguments, readme::FORECASTS, "forecasts", check::HEADING)?;
        for link in links {
            let line = check::line(&spec, link, costs, stop, &progress)?;
            checked.add(line.row(), &check::names(), line.off())?;
        }
        came_true &= checked.came_true;
    }
    let promises = arguments.promises();
    if !promises.is_empty() {
        let mut checked = Checked::new(arguments, readme::PROMISES, "samples", promise::HEADING)?;
        for promise in promises {
            let line = promise.line(&spec, stop, &progress)?;
            checked.add(line.row(), &promise::names(), line.off())?;
        }
        came_true &= checked.came_true;
    }
    writeln!(io::stdout(), "again: {}", arguments.command())?;
    Ok(came_true)
}

/// A table of forecasts and what came of them, and all the places where it goes.
struct Checked<'a> {
    arguments: &'a PlanArgs,
    place: readme::Place,
    name: &'static str,
    heading: &'static str,
    rows: Vec<String>,
    came_true: bool,
}

impl Checked<'_> {
    fn new<'a>(
        arguments: &'a PlanArgs,
        place: readme::Place,
        name: &'static str,
        heading: &'static str,
    ) -> Result<Checked<'a>> {
        writeln!(io::stdout(), "{heading}")?;
        Ok(Checked { arguments, place, name, heading, rows: Vec::new(), came_true: true })
    }

    fn add(&mut self, row: String, names: &[String], off: f64) -> Result<()> {
        writeln!(io::stdout(), "{row}")?;
        self.came_true &= off.abs() <= check::TOLERANCE;
        self.rows.push(row);
        if let Some(file) = &self.arguments.write {
            self.place.join(file, self.heading, &self.rows, names)?;
        }
        let Checked { name, heading, rows, .. } = self;
        let command = self.arguments.command();
        match &self.arguments.out {
            Some(folder) => {
                report::table::write(folder, &Table { name, heading, rows, command: &command })
            }
            None => Ok(()),
        }
    }
}

fn names() -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "links")?;
    for rung in ladder::ALL {
        writeln!(out, "  {:<10} {}: {}", rung.name, rung.link, rung.stands_for)?;
    }
    writeln!(out, "workloads")?;
    for kind in workload::ALL {
        writeln!(out, "  {:<10} {}", kind.name, kind.stands_for)?;
    }
    writeln!(out, "scenarios")?;
    for scenario in scenario::ALL {
        writeln!(out, "  {:<10} {}", scenario.name, scenario.what)?;
    }
    Ok(())
}

/// The first signal asks for a clean end, the second does not wait for it: what is left is then
/// cleaned up by the wardens.
fn listen(stop: &Stop) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    runtime.block_on(async {
        let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
        let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
            return;
        };
        for asked_already in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if asked_already {
                process::exit(i32::from(INTERRUPTED));
            }
            stop.ask();
        }
    });
}

/// What a shell reports for a program that SIGINT ended.
const INTERRUPTED: u8 = 130;
