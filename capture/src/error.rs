//! What went wrong with the source, sorted by who said so; whether to try again is the runner's to decide.

use std::{fmt, io};

use thinwire_engine::pgoutput::Misread;

/// Why something could not be done at the source, or with what it sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers there.
    #[error("cannot reach PostgreSQL at {host}: {source}")]
    Unreachable {
        /// Host and port, or the socket.
        host: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection was there and is not any more.
    #[error("the connection to PostgreSQL was lost: {0}")]
    Lost(String),
    /// The server said no.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Changes were committed while the publication was not there under its name, and cannot be decoded.
    #[error(
        "changes were committed while the publication was not there under its name, and PostgreSQL leaves them out for ever \
         ({0}): name it back, and begin anew with another `dir` and a new slot"
    )]
    Unpublished(ServerError),
    /// What is at the other end does not speak as a PostgreSQL server does, or not as one that we trust.
    #[error("{0}")]
    Handshake(String),
    /// The stream of changes cannot be read.
    #[error(transparent)]
    Misread(#[from] Misread),
    /// The journal does not take it.
    #[error(transparent)]
    Journal(#[from] thinwire_engine::Error),
    /// It cannot be done as asked; the sentence says why and what to do.
    #[error("{0}")]
    Refused(String),
}

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that the server reported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ServerError {
    /// The SQLSTATE, five characters.
    pub code: String,
    /// The message.
    pub message: String,
    /// More about it, if anything.
    pub detail: Option<String>,
    /// What the server suggests, if anything.
    pub hint: Option<String>,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL says: {} ({})", self.message, self.code)?;
        // Details may quote row values, which are nobody's business in a log; hints never do.
        match &self.hint {
            Some(hint) => write!(f, "; hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl Error {
    /// The SQLSTATE, if the server said it.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Server(error) => Some(&error.code),
            _ => None,
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(said) = error.as_db_error() {
            return Self::Server(ServerError {
                code: said.code().code().to_owned(),
                message: said.message().to_owned(),
                detail: said.detail().map(str::to_owned),
                hint: said.hint().map(str::to_owned),
            });
        }
        Self::Lost(chain(&error))
    }
}

/// An error with all its causes, each once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// SQLSTATEs that are acted on.
pub(crate) mod sqlstate {
    /// The object is in use, such as a slot that another connection streams from.
    pub(crate) const OBJECT_IN_USE: &str = "55006";
    /// There is no object of this name.
    pub(crate) const UNDEFINED_OBJECT: &str = "42704";
    /// The object is not in the state that is needed, such as a publication that was not there yet.
    pub(crate) const OBJECT_NOT_IN_PREREQUISITE_STATE: &str = "55000";
    /// The login may not do it.
    pub(crate) const INSUFFICIENT_PRIVILEGE: &str = "42501";
    /// The class of what goes wrong with values, such as a division by zero.
    pub(crate) const DATA_EXCEPTION_CLASS: &str = "22";
    /// Of that class, what text is told that is not in the encoding of its database, or that UTF-8 does not have.
    pub(crate) const OF_ENCODING: [&str; 2] = ["22021", "22P05"];
    /// Of that class, what no condition is to blame for: bytes that are no text, text that another encoding does not
    /// have, and settings that the server does not take.
    pub(crate) const OF_NO_CONDITION: [&str; 3] = ["22021", "22P05", "22023"];
    /// A lock was not granted in time.
    pub(crate) const LOCK_NOT_AVAILABLE: &str = "55P03";
}
