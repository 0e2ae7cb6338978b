//! Few bytes on the wire: two ways to send records, each with its own state for a connection and direction.
//!
//! [`packet`] makes the fewest bytes: it knows what rows are, and what each column held before; a value takes it about
//! a microsecond. [`stream`] is zstd over frames as they are, ten times as fast; instead of it a user may ask for LZ4, or
//! for frames as they are. [`lanes`] puts both into one stream of bytes, and [`pace`] says which is taken.

mod block;
mod column;
mod form;
pub mod lanes;
mod memory;
mod model;
mod odds;
pub mod pace;
pub mod packet;
mod range;
mod shape;
pub mod stream;
mod text;

use std::io;

pub use lanes::{Inlet, Outlet};
pub use stream::{Compressor, Decompressor};

use crate::frame::FrameError;

/// Why what a peer sends cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// It is in a form that this version does not know.
    #[error("the peer's records come in form {0}, which is unknown here")]
    Version(u8),
    /// A chunk beyond its bound.
    #[error("a chunk of {0} bytes is above the limit")]
    Chunk(usize),
    /// What both ends were to know was not learnt.
    #[error("frames that build on what this end has not learnt")]
    Unprimed,
    /// A packet that cannot be read.
    #[error(transparent)]
    Packet(#[from] packet::PacketError),
    /// A frame that cannot be read.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The compressed stream is broken.
    #[error("the peer's data cannot be decompressed: {0}")]
    Zstd(#[from] io::Error),
}
