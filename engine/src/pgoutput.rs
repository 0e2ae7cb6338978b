//! Postgres' logical messages (`pgoutput`, protocol version 1): bytes to typed messages, messages to records; no I/O.
//!
//! [`decode()`] is total and bounded: any bytes give a [`Message`] or a [`Misread`], never a panic. The
//! [`Translator`] turns the messages of one session into the records that continue a stream, given the stream's
//! [`Tail`](crate::journal::Tail).

mod decode;
mod message;
mod translate;

pub use decode::decode;
pub use message::{Message, Misread};
pub use translate::{InTransaction, OWN_ORIGIN_PREFIX, Step, Translator};

#[cfg(test)]
mod tests;
