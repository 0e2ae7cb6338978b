//! Writing streams into PostgreSQL, or into any other sink, exactly once.
//!
//! One [`Applier`] a received stream. It reads what is complete in the relay journal, and hands it to a [`Sink`] in
//! target transactions that hold whole source transactions together with the offset up to which the stream has been
//! applied. That offset, read back from the sink, is the truth after any failure: nothing is ever run again that it
//! covers, and nothing is left out that it does not. So a connection that is lost during a commit is not a special
//! case: every failure is answered by asking the sink how far it is.
//!
//! - [`sink`] says what a target must promise; [`applier`] is the loop that relies on it.
//! - [`Postgres`] is the sink for PostgreSQL: `plan` turns records into statements, `sql` is the only place where their
//!   text is made, [`conflict`] sorts what the database answers, `progress` is the applied offset in it.
//! - [`init()`] and [`plan()`] prepare a database, [`check()`] examines it.
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod applier;
mod backoff;
pub mod conflict;
mod plan;
mod postgres;
mod progress;
mod schema;
mod seal;
mod setup;
pub mod sink;
mod sql;
mod tables;

pub use applier::{Applier, ApplierStatus, Options, Outcome, State};
pub use conflict::{ConflictCounts, Conflicts, Existing, OriginDiffers};
pub use postgres::{LastSkipped, Postgres, Skipped, Tally, Target};
pub use seal::Seal;
pub use setup::{Check, Setup, SetupError, check, check_commit_timestamps, init, plan};
pub use sink::{Change, Progress, Relations, Sink, SinkError, Skip};
pub use tables::Tables;
