//! What can go wrong with a temporary cluster, as sentences for whoever runs the tests.

use std::io;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no PostgreSQL server on this machine, or not where it was said to be.
    #[error(
        "no PostgreSQL server was found {searched}: install the package `postgresql`, or set \
         THINWIRE_PG_BIN to the directory that holds initdb and postgres"
    )]
    NoServer {
        /// Where it was looked for.
        searched: String,
    },
    /// We are root and nobody else is there to run the server.
    #[error("PostgreSQL does not run as root, and /etc/passwd has neither `postgres` nor `nobody`")]
    NoAccount,
    /// The operating system refused something.
    #[error("could not {action}: {source}")]
    Io {
        /// What was attempted, in the infinitive.
        action: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A program that belongs to PostgreSQL or to the system ended with an error.
    #[error("{program} failed with {status}: {output}")]
    Failed {
        /// The program's name.
        program: String,
        /// How it ended.
        status: String,
        /// What it wrote to standard error.
        output: String,
    },
    /// The server ended while it was starting.
    #[error("PostgreSQL ended while it was starting; its log ends with:\n{log}")]
    Ended {
        /// The end of the server's log.
        log: String,
    },
    /// The server did not reach a state in time.
    #[error("PostgreSQL was not {state} after {seconds} s; its log ends with:\n{log}")]
    Slow {
        /// The state that was waited for.
        state: &'static str,
        /// How long it was waited for.
        seconds: u64,
        /// The end of the server's log.
        log: String,
    },
    /// The call needs a running server, or one that is not running.
    #[error("the server is {0} already")]
    State(&'static str),
}

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Names the action that an I/O error interrupted.
pub(crate) fn during(action: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let action = action.into();
    move |source| Error::Io { action, source }
}
