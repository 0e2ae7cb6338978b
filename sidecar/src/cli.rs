//! The command line as the user typed it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Keeps PostgreSQL databases in sync over links that are slow, lossy, metered or mostly down.
#[derive(Debug, Parser)]
#[command(name = "thinwire", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can be asked to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes the identity and prepares the database; safe to repeat. Prints the public key.
    Init(Setup),
    /// Takes away what `init` has made at the source of this node: for good, or to begin anew.
    Drop(Setup),
    /// Runs the sidecar until it is told to stop.
    Run(Config),
    /// Checks every precondition, one line each, with the cure. Exits 0 only if all hold.
    Doctor(Config),
    /// Says how the running sidecar is doing. Exits 3 if it is not running.
    Status(Status),
    /// Stops exchange with a peer, apply of a stream, or everything, until `resume`.
    Pause(Target),
    /// Undoes `pause`.
    Resume(Target),
    /// Tries again at once what has halted.
    Retry(Target),
    /// Leaves out the transaction or copy that has halted a stream, for good, and nothing else.
    Skip(Skip),
    /// Takes the peers from the configuration as it is now, as SIGHUP does; all else of it waits for a restart.
    Reload(Config),
    /// Looks into a journal: in use, or a copy of one.
    #[command(subcommand)]
    Journal(Journal),
    /// Prints the public key, on one line.
    Key(Config),
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct Config {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Arguments of `init` and `drop`.
#[derive(Debug, Args)]
pub struct Setup {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: Config,
    /// A login that may create and drop schemas, publications, slots and grants; by default the configured one.
    #[arg(long, value_name = "URL")]
    pub admin_url: Option<String>,
    /// Prints the SQL for somebody else to run, and changes nothing.
    #[arg(long)]
    pub print_sql: bool,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: Config,
    /// Prints one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// What to pause, resume or retry; everything if nothing is named.
#[derive(Debug, Args)]
pub struct Target {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: Config,
    /// A peer's name.
    #[arg(long, value_name = "NAME")]
    pub peer: Option<String>,
    /// A stream, by its origin's fingerprint or name.
    #[arg(long, value_name = "ORIGIN")]
    pub stream: Option<String>,
}

/// What to leave out.
#[derive(Debug, Args)]
pub struct Skip {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: Config,
    /// The stream, by its origin's fingerprint or name.
    #[arg(long, value_name = "NAME")]
    pub origin: String,
    /// The offset that the halt names.
    #[arg(long, value_name = "N")]
    pub offset: u64,
}

/// What to do with a journal's files.
#[derive(Debug, Subcommand)]
pub enum Journal {
    /// Lists segments: offsets, size, state. Reads only their heads, and the last one.
    Ls {
        /// A journal, a stream in it, or a copy of either.
        dir: PathBuf,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Prints records, one line each, up to the end or the first damage; exits 1 on damage.
    Dump {
        /// A journal, a stream in it, or a copy of either.
        dir: PathBuf,
        /// The first offset to print.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// How many records to print at the most, a stream.
        #[arg(long)]
        limit: Option<u64>,
        /// Only the streams whose name, ORIGIN-EPOCH, begins with this.
        #[arg(long, value_name = "ORIGIN")]
        stream: Option<String>,
        /// Prints the values of rows too.
        #[arg(long)]
        values: bool,
    },
    /// Reads every byte and says where one is not as it was written; exits 1 on any damage, also on an end that `run`
    /// would cut.
    Verify {
        /// A journal, a stream in it, or a copy of either.
        dir: PathBuf,
    },
}
