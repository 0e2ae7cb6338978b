//! What each command does: one file a command.

mod control;
mod doctor;
mod drop;
mod init;
mod journal;
mod run;

use anyhow::Result;
use thinwire_transport::StartError;

use crate::{
    cli::{self, Cli, Command},
    config::{Config, ConfigError},
    keyfile::{self, KeyError},
};

/// The exit code of a command that asks a node which is not running.
pub const NOT_RUNNING: u8 = 3;
/// The exit code for what only a person can mend before another try makes sense.
const BAD_CONFIGURATION: u8 = 2;

/// Carries out the command; returns the exit code.
///
/// # Errors
/// What the program ends with; [`exit_code`] says how.
pub async fn run(cli: Cli) -> Result<u8> {
    match cli.command {
        Command::Init(arguments) => init::run(&arguments).await,
        Command::Drop(arguments) => drop::run(&arguments).await,
        Command::Run(arguments) => run::run(Config::load(&arguments.config)?).await,
        Command::Doctor(arguments) => doctor::run(Config::load(&arguments.config)?).await,
        Command::Status(arguments) => control::status(&arguments).await,
        Command::Pause(target) => control::tell(&target, control::Verb::Pause).await,
        Command::Resume(target) => control::tell(&target, control::Verb::Resume).await,
        Command::Retry(target) => control::tell(&target, control::Verb::Retry).await,
        Command::Skip(what) => control::skip(&what).await,
        Command::Reload(arguments) => control::reload(&arguments).await,
        Command::Journal(command) => journal::run(&command),
        Command::Key(arguments) => key(&arguments),
    }
}

/// The exit code for a failure.
pub fn exit_code(failure: &anyhow::Error) -> u8 {
    let is_peer = matches!(failure.downcast_ref(), Some(StartError::DuplicatePeer { .. }));
    match is_peer || failure.is::<ConfigError>() || failure.is::<KeyError>() {
        true => BAD_CONFIGURATION,
        false => 1,
    }
}

fn key(arguments: &cli::Config) -> Result<u8> {
    let config = Config::load(&arguments.config)?;
    let identity = keyfile::load(&config.key_path())?;
    print_line(&identity.public().to_string())?;
    Ok(0)
}

/// Writes a line of results; a reader that went away is not a failure.
fn print_line(line: &str) -> Result<()> {
    use std::io::{ErrorKind, Write};
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
