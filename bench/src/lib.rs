//! Simulated links, workloads, real processes and measurements: what tests, demo and benchmarks
//! share.
//!
//! [`link`] is the model of a link, a pure function that is told the time; [`ladder`] has the links
//! by name, [`trace`] reads a recorded one. [`socket`] puts a link between UDP sockets, and
//! [`emulator`] chooses between that and a tunnel that carries any program's packets. [`workload`]
//! says what a database does and [`scenario`] what happens meanwhile; [`run`] measures both on a
//! link, for Thinwire and for PostgreSQL's own logical replication, [`report`] writes down what was
//! found, and [`plan`] forecasts it. [`demo`] plays a story on real processes ([`node`],
//! [`status`]).
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
mod namespace;
mod native;
pub mod node;
pub mod plan;
mod probe;
pub mod progress;
pub mod random;
pub mod readme;
mod recvlogical;
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
