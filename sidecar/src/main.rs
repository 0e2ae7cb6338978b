//! The `thinwire` program: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use thinwire_sidecar::{cli::Cli, command};

fn main() -> ExitCode {
    // The first thing, before anything could pick another provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = !error.use_stderr();
            let _ = error.print();
            return ExitCode::from(if asked { 0 } else { 2 });
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("thinwire: cannot start its threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(command::run(cli));
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("thinwire: {failure:#}");
            ExitCode::from(command::exit_code(&failure))
        }
    }
}
