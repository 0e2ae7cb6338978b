//! The `thinwire-bench` program: parses, runs, and turns results into exit codes.

use std::process::{self, ExitCode};
use std::sync::Arc;
use std::thread;

use clap::{Parser, Subcommand};
use thinwire_bench::demo;
use thinwire_bench::ladder::{self, Rung};
use thinwire_bench::measure;
use thinwire_bench::stop::Stop;
use tokio::signal::unix::{SignalKind, signal};

/// Thinwire on simulated links.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Two databases, two sidecars and a thin link that drops; ends with a verdict.
    Demo {
        /// The link: thin, contact, flappy, sat or lan.
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
    /// Time and bytes of the first copy and of a backlog, on one link or all thin ones.
    Measure {
        /// The links; thin, contact, flappy and sat if none is named.
        #[arg(long, value_parser = rung)]
        link: Vec<Rung>,
        /// How many pgbench transactions the backlog has.
        #[arg(long, default_value_t = 2_000)]
        transactions: u64,
        /// Names the run: the data and the losses of the link.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let stop = Arc::new(Stop::default());
    let asked = Arc::clone(&stop);
    thread::spawn(move || listen(&asked));
    let outcome = match command {
        Command::Demo { link, transactions, seed, plain } => {
            demo::run(&demo::Options { link, transactions, seed, plain }, &stop)
        }
        Command::Measure { link, transactions, seed } => {
            let thin = [ladder::THIN, ladder::CONTACT, ladder::FLAPPY, ladder::SAT];
            let links = if link.is_empty() { thin.to_vec() } else { link };
            measure::run(&measure::Options { links, transactions, seed }, &stop).map(|()| true)
        }
    };
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

fn rung(name: &str) -> Result<Rung, String> {
    let names = ladder::ALL.map(|rung| rung.name).join(", ");
    ladder::find(name).ok_or_else(|| format!("there is no such link; there are {names}"))
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
