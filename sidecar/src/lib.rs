//! The node that the `thinwire` program is made of: configuration, tasks, status, shutdown.
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod access;
pub mod cli;
pub mod command;
pub mod committer;
pub mod config;
pub mod control;
pub mod database;
pub mod drain;
pub mod forecast;
pub mod keyfile;
pub mod metrics;
pub mod node;
pub mod page;
pub mod retention;
pub mod state;
pub mod status;
