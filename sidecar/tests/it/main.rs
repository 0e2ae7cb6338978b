//! The whole path with real databases, real processes and a link that can be cut.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod bad_input;
mod budget;
mod commands;
mod exact;
mod interfaces;
mod journal;
mod kills;
mod mend;
mod outage;
mod restarts;
mod site;
mod syscalls;
mod terms;
mod topology;
mod whole_path;
