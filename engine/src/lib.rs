//! The change model, its bytes, and the journal that keeps them: everything that must be right
//! before a clock, a socket or a database client enters.
//!
//! Invariants: this crate is synchronous and never asks for the time, the environment or randomness;
//! only [`storage::disk`] touches files; every length that comes from a disk or a wire is compared
//! with a constant of [`limits`] before it is used; nothing here panics on foreign bytes.
#![cfg_attr(not(test), deny(clippy::unwrap_used))]
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod codec;
pub mod error;
pub mod journal;
pub mod limits;
pub mod model;
pub mod mutant;
pub mod pgoutput;
pub mod storage;

pub use error::Error;
