//! Applying for real: against a sink that fails in every way, and against PostgreSQL.
#![allow(unreachable_pub, missing_docs, reason = "a test program has no users")]

mod changes;
mod copies;
mod crashes;
mod database;
mod deadlocks;
mod definitions;
mod feed;
mod gathered;
mod halts;
mod hostile;
mod memory;
mod origins;
mod rivals;
mod schema;
mod setup;
mod simulated;
mod skips;
