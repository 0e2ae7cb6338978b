//! What went wrong with a journal, sorted by what the caller must do next.

use std::{io, path::PathBuf};

use crate::{
    codec::DecodeError,
    model::{Offset, StreamId},
};

/// Why a journal did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The budget does not allow it. Wait until something was trimmed and try again; nothing was lost.
    #[error("the journal is full: {used} of {budget} bytes are used")]
    Full {
        /// Bytes on disk and staged.
        used: u64,
        /// Bytes that this writer may use.
        budget: u64,
    },
    /// A record is larger than the budget could ever hold of its stream. Only a larger budget helps.
    #[error(
        "a record of {bytes} bytes does not fit into the journal, whose budget leaves its stream {budget} for one: \
         raise [journal] budget and restart"
    )]
    TooLarge {
        /// The record's size, or that of those that were offered with it.
        bytes: u64,
        /// The most that its stream may take at once.
        budget: u64,
    },
    /// The disk is full. What is staged stays staged; try again when there is room.
    #[error("no space left on the device while writing {path}")]
    NoSpace {
        /// The file.
        path: PathBuf,
    },
    /// The disk refused. A failed write or sync is final for its file: the stream takes nothing more until
    /// it is opened anew.
    #[error("cannot {operation} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier failure made the stream unusable until it is opened anew.
    #[error("the stream {stream} took a write error earlier and must be opened anew")]
    Poisoned {
        /// Which.
        stream: StreamId,
    },
    /// Bytes that were durable are not what was written. The stream halts; nothing was changed.
    #[error("{segment} is corrupt at byte {at} (offset {offset}): {reason}")]
    Corrupt {
        /// The file.
        segment: PathBuf,
        /// Where in it.
        at: u64,
        /// The record that was expected there.
        offset: Offset,
        /// What is wrong.
        reason: String,
    },
    /// Records were offered for a damaged place that do not lead to what stands behind it. Somebody else may have
    /// the right ones.
    #[error("the records offered for {from} to {until} do not lead to what follows them")]
    Unproven {
        /// The first that is wanted.
        from: Offset,
        /// The one behind the last that is wanted.
        until: Offset,
    },
    /// The stream is being mended and cannot be opened before that is over.
    #[error("the stream {stream} is being mended")]
    Mending {
        /// Which.
        stream: StreamId,
    },
    /// A record was offered that does not follow the last one. The sender must start where we end.
    #[error("record {got} was offered where {expected} is next")]
    Hole {
        /// The next offset of the stream.
        expected: Offset,
        /// The one that was offered.
        got: Offset,
    },
    /// The records asked for were trimmed already.
    #[error("record {wanted} was asked for, but the stream starts at {first}")]
    Trimmed {
        /// The first record that is held.
        first: Offset,
        /// The one that was asked for.
        wanted: Offset,
    },
    /// A record cannot be decoded.
    #[error("record {offset}: {source}")]
    Record {
        /// Which.
        offset: Offset,
        /// Why.
        source: DecodeError,
    },
    /// A record would make the state that each segment begins with, most of it descriptions of tables, longer than
    /// any that is read. Nothing was staged.
    #[error(
        "the tables of the stream {stream} would take {bytes} bytes to describe, and may take {max}"
    )]
    TooManyTables {
        /// Which stream.
        stream: StreamId,
        /// What the state would take, at most.
        bytes: usize,
        /// What it may take.
        max: usize,
    },
    /// Another process holds the journal.
    #[error("{path} is in use by another process")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A file of a version that this program does not know. It was not touched.
    #[error("{path} has format version {version}; this program knows version {known}")]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        version: u16,
        /// What we know.
        known: u16,
    },
}
