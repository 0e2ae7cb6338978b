//! Simulated links, workloads, real processes and measurements: what tests, demo and benchmarks
//! share.
//!
//! [`link`] is the model of a link, a pure function that is told the time; [`link::ladder`] has the
//! links by name, [`link::trace`] reads a recorded one. [`emulator`] puts it between UDP sockets, or
//! makes of it a tunnel that carries any program's packets. [`workload`] says what a database does
//! and [`run::scenario`] what happens meanwhile; [`run`] measures both on a link, for Thinwire and
//! for PostgreSQL's own logical replication, [`report`] writes down what was found, and [`plan`]
//! forecasts it. [`demo`] plays a story on real processes ([`node`]).
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

mod contender;
pub mod demo;
pub mod emulator;
pub mod link;
pub mod node;
pub mod plan;
pub mod progress;
pub mod random;
pub mod report;
pub mod run;
mod squeeze;
pub mod stop;
pub mod workload;
