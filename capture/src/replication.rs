//! A client of the streaming replication protocol: its own, because the SQL client has no copy-both mode.
//!
//! [`Connection`] is a session that takes replication commands; [`Connection::start`] turns it into a stream, whose
//! two halves are independent: [`Incoming`] is read by whoever takes the changes, [`Outgoing`] belongs to a task that
//! reports positions, so that a busy reader never looks dead to the server.

mod authenticate;
mod channel_binding;
mod connection;
mod dial;
mod stream;

pub(crate) use connection::{Connection, System};
pub(crate) use stream::{Frame, Incoming, Outgoing};
