//! Temporary PostgreSQL clusters for tests, demo and benchmarks, which leave nothing behind.
//!
//! A [`Cluster`] is a data directory, a unix socket and a TCP port in one short temporary
//! directory, and the server that runs on them. Everything is synchronous and nothing needs
//! privileges; as root, which PostgreSQL refuses to run as, the server runs as `postgres` or
//! `nobody`.
//!
//! - A data directory is made once by `initdb` and then copied (`template`), so that a cluster
//!   starts in a fraction of a second.
//! - [`Cluster::kill9`] is a power cut for the processes: the server and all its children at one
//!   instant.
//! - When the cluster is dropped, also by a failing test, server and directory go. When the process
//!   is killed and nothing is dropped, its [`Warden`] does the same.
//!
//! ```no_run
//! # fn main() -> Result<(), thinwire_cluster::Error> {
//! let cluster = thinwire_cluster::Cluster::start(thinwire_cluster::Options::default())?;
//! cluster.create_database("shop")?;
//! cluster.psql("shop", "create table t (id int primary key)")?;
//! println!("{}", cluster.url("shop"));
//! # Ok(())
//! # }
//! ```
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

mod account;
mod binaries;
mod cluster;
pub mod digest;
mod error;
pub mod names;
mod options;
mod processes;
mod server;
mod template;
mod warden;

pub use binaries::installations;
pub use cluster::{Cluster, free_port};
pub use error::{Error, Result};
pub use options::Options;
pub use warden::Warden;
