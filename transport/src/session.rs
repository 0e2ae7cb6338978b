//! The conversation of two nodes, apart from sockets and clocks.
//!
//! A session has two halves that know nothing of each other. The sender decides which streams the peer gets
//! and from which record, and cuts them into frames; the receiver decides which it takes, appends them, and says
//! how far they are durable and applied. Both work on journals and frames only: what they are told
//! and what they return is all there is, so that a test can cut the wire between any two bytes.
//!
//! Rules, case by case, for a stream that is to be shipped:
//! - the peer holds nothing of it: it starts at record 1;
//! - the peer holds it up to *n*: it starts at *n* + 1, if both have the same running checksum behind *n*, else it has
//!   *diverged* and stands still;
//! - the peer holds more of our own stream than we do: either our disk was rolled back, and numbering records on would
//!   give old numbers to new records, or the peer lies. Our stream halts if the peer knows the running checksum where we
//!   end, which nobody can who was not shipped as much, if it is remembered that it has acknowledged more than we
//!   have, or if it cannot tell and it is remembered that it has acknowledged anything; else the peer alone is refused;
//! - the peer holds more of another's stream than we do: it has it from elsewhere, there is nothing to ship;
//! - what the peer needs was trimmed here: the program is asked for a copy, and says from where on to serve;
//! - the peer has no room for it: it waits, while all others flow, until the peer says that there is room, and starts
//!   behind what the peer holds by then. What was on its way is dropped there and sent again.
//!
//! What this code refuses to do: go on behind a mismatch, take a stream from a peer that may not send it, take
//! its own stream from anybody, acknowledge what is not durable, or ship what is not.

pub(crate) mod cursor;
pub(crate) mod excerpt;
pub(crate) mod history;
pub(crate) mod receiver;
pub(crate) mod sender;

use thinwire_engine::{
    Error,
    model::{Halt, StreamId},
};

use crate::frame::Stop;

/// Both hold records under the same numbers that are not the same.
pub const DIVERGED: &str = "diverged";
/// A peer holds records of our own stream that we do not have.
pub const PEER_AHEAD: &str = "peer_ahead";
/// A peer says so, and does not prove it.
pub const UNPROVEN: &str = "unproven";
/// The journal's bytes are not what was written.
pub const JOURNAL_CORRUPT: &str = "journal_corrupt";
/// The journal was written by a version that is not known.
pub const JOURNAL_VERSION: &str = "journal_version";
/// The disk refused.
pub const JOURNAL_IO: &str = "journal_io";
/// A record is larger than the journal's budget allows.
pub const RECORD_TOO_LARGE: &str = "record_too_large";
/// A record that no encoder writes.
pub const MALFORMED: &str = "malformed";
/// A peer offers a stream that it may not send here.
pub const UNWANTED: &str = "unwanted";
/// A peer lacks a copy of which this node holds the beginning.
pub const WITHHELD: &str = "withheld";
/// A peer claims to be the origin that we are.
pub const OWN_ORIGIN: &str = "own_origin";

/// What a peer did that no honest one does. The connection ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the peer {0}")]
pub(crate) struct Violation(pub(crate) String);

/// Why a stream of the journal cannot go on, for its status and for the peer.
pub(crate) fn halt_of(error: &Error) -> Halt {
    let code = match error {
        Error::Corrupt { .. } | Error::Mending { .. } => JOURNAL_CORRUPT,
        Error::Version { .. } => JOURNAL_VERSION,
        Error::Record { .. } => MALFORMED,
        Error::TooLarge { .. } => RECORD_TOO_LARGE,
        _ => JOURNAL_IO,
    };
    Halt::new(code, error.to_string())
}

pub(crate) fn stop(stream: StreamId, halt: &Halt) -> Stop {
    Stop { stream, code: halt.code.clone(), detail: halt.detail.clone() }
}

#[cfg(test)]
mod tests;
