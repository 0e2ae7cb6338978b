//! The frames on the wire, with their bounds.
//!
//! Two kinds. *Control* frames are small, travel uncompressed on a stream of their own that goes first, and are
//! MessagePack arrays behind a two-byte length, so none is longer than 64 KiB. *Data* frames
//! carry records and travel in the data stream, in either of the lanes of [`crate::wire`]. What is read here
//! comes from outside: every length is compared with a bound before it is used, and nothing panics.

mod control;
mod data;
mod ids;
mod priming;

pub use control::{
    Ack, Control, ControlDecoder, CopyRequest, Excerpt, Hello, Holding, PROTOCOL_VERSION, Prefix,
    STREAMS_PER_FRAME_MAX, Stop,
};
pub use data::{DataDecoder, DataFrame, Opening, data_header, put_opening};
pub use priming::{PRIMED_BYTES_MAX, PRIMINGS_MAX, Priming, put_primings, read_primings};

use thinwire_engine::codec::DecodeError;

/// Why foreign bytes are not a frame. The connection ends: nothing behind them can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The peer speaks another version of the protocol.
    #[error("the peer speaks version {theirs} of the protocol, and this node version {ours}")]
    Version {
        /// What the peer says.
        theirs: u16,
        /// What we speak.
        ours: u16,
    },
    /// A kind that this version does not know.
    #[error("unknown kind of frame {0}")]
    Kind(u8),
    /// A length or count beyond its bound.
    #[error("a frame of {length} bytes is above the limit of {max}")]
    TooLong {
        /// What was claimed.
        length: u64,
        /// What is allowed.
        max: u64,
    },
    /// Anything else that no sender writes.
    #[error("malformed frame: {0}")]
    Malformed(String),
    /// The records in a frame are not whole.
    #[error("malformed records in a frame: {0}")]
    Records(#[from] DecodeError),
}

#[cfg(test)]
mod tests;
