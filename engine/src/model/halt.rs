//! Why a stream stands still at this node, for people and for programs.

use serde::{Deserialize, Serialize};

use super::Offset;

/// Why a stream stands still. Nothing of it is skipped; it goes on by itself or by `thinwire retry` once the
/// cause is mended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    /// A stable word for the cause, such as `missing_table`.
    pub code: String,
    /// The record that cannot be taken, where there is one.
    pub offset: Option<Offset>,
    /// The table that it is about, `schema.name`.
    pub table: Option<String>,
    /// The row's key, `column=value, …`.
    pub key: Option<String>,
    /// A sentence that says what is wrong and what to do.
    pub detail: String,
}

/// Who cannot go on with a stream, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HaltedBy {
    /// Its journal: the disk takes nothing.
    Disk,
    /// The exchange with peers.
    Transport,
    /// The reading of the local database.
    Capture,
    /// The writing into it.
    Apply,
}

impl Halt {
    /// A halt that is about no table.
    pub fn new(code: &str, detail: impl Into<String>) -> Self {
        Self { code: code.to_owned(), offset: None, table: None, key: None, detail: detail.into() }
    }
}
