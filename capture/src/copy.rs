//! Copies: tables as of one position of the source's log, read in a snapshot and written into the stream.
//!
//! A temporary slot exports the snapshot: all transactions whose commit record begins before the slot's position, and
//! no other. Its creation waits for the transactions that are running, so its position is known only afterwards.
//! Until then nothing that may belong behind the copy goes into the stream; see the runner's `copies`.

mod catalog;
mod snapshot;
mod text;
mod write;

pub(crate) use catalog::{Description, describe};
pub(crate) use snapshot::{Preparation, Prepared, extent};
pub(crate) use write::{Target, write};
