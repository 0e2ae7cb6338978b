//! Simulated links, workloads and real sidecar processes: what tests, demo and benchmarks share.
//!
//! [`link`] is the model of a link, a pure function that is told the time; [`ladder`] has the links
//! by name; [`socket`] puts a link between real UDP sockets. [`shop`] makes a workload, [`node`]
//! runs a real `thinwire` process and [`status`] reads what it says about itself. [`demo`] plays
//! all of it together, [`measure`] says what a link carried in what time.
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

mod bed;
mod contender;
pub mod course;
pub mod demo;
pub mod emulator;
mod flight;
mod floor;
pub mod ladder;
pub mod link;
mod load;
pub mod measure;
mod namespace;
mod native;
pub mod node;
pub mod plan;
mod probe;
pub mod progress;
pub mod random;
pub mod report;
pub mod run;
pub mod scenario;
pub mod shop;
pub mod socket;
mod squeeze;
mod stage;
pub mod status;
pub mod stop;
pub mod table;
mod thinwire;
pub mod trace;
mod trial;
mod tun;
mod verdict;
mod watch;
pub mod wire;
pub mod workload;
