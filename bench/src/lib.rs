//! Simulated links, workloads and real sidecar processes: what tests, demo and benchmarks share.
//!
//! [`link`] is the model of a link, a pure function that is told the time; [`ladder`] has the links
//! by name; [`socket`] puts a link between real UDP sockets. [`shop`] makes a workload, [`node`]
//! runs a real `thinwire` process and [`status`] reads what it says about itself. [`demo`] plays
//! all of it together, [`measure`] says what a link carried in what time.
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod course;
pub mod demo;
mod flight;
pub mod ladder;
pub mod link;
pub mod measure;
mod namespace;
pub mod node;
pub mod random;
pub mod shop;
pub mod socket;
mod stage;
pub mod status;
pub mod stop;
pub mod trace;
mod tun;
mod verdict;
pub mod wire;
