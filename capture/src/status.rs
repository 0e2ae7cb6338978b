//! What capture is doing, for people and programs to look at.

use std::sync::{Mutex, MutexGuard, PoisonError};

use thinwire_engine::model::Lsn;

/// What capture is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Trying to reach the source, or to be let in.
    #[default]
    Connecting,
    /// Changes flow into the journal.
    Streaming,
    /// A copy is being read.
    Copying,
    /// The journal takes no more for now; the source keeps its log.
    Held,
    /// Told to pause.
    Paused,
    /// Something must be mended first; the stream says what.
    Halted,
}

/// A table that is being copied, or was in the last copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyProgress {
    /// `schema.name`.
    pub table: String,
    /// Rows in the stream.
    pub rows_done: u64,
    /// Rows in all, by the source's estimate until the table is done.
    pub rows_total: u64,
    /// Bytes read.
    pub bytes_done: u64,
}

/// A picture of capture at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureStatus {
    /// What it is doing.
    pub state: State,
    /// The slot's name.
    pub slot: String,
    /// What was confirmed to the source: the log before it is not needed any more.
    pub confirmed: Lsn,
    /// How much log the source keeps for the slot, in bytes.
    pub retained_wal_bytes: u64,
    /// The tables of the current or last copy.
    pub copy: Vec<CopyProgress>,
    /// Tables that the patterns mean and that `init` has not published yet.
    pub unpublished: Vec<String>,
    /// Messages about the schema that the triggers at the source did not write.
    pub forged: u64,
    /// The last thing that went wrong, until it goes right.
    pub last_error: Option<String>,
}

/// The status, shared by those who know a part of it.
#[derive(Debug, Default)]
pub(crate) struct Shared(Mutex<CaptureStatus>);

impl Shared {
    pub(crate) fn new(slot: &str) -> Self {
        Self(Mutex::new(CaptureStatus { slot: slot.to_owned(), ..CaptureStatus::default() }))
    }

    pub(crate) fn picture(&self) -> CaptureStatus {
        self.lock().clone()
    }

    /// Sets the state and returns the one before.
    pub(crate) fn set_state(&self, state: State) -> State {
        std::mem::replace(&mut self.lock().state, state)
    }

    pub(crate) fn set_error(&self, error: Option<String>) {
        self.lock().last_error = error;
    }

    pub(crate) fn set_confirmed(&self, confirmed: Lsn) {
        self.lock().confirmed = confirmed;
    }

    pub(crate) fn set_retained(&self, bytes: u64) {
        self.lock().retained_wal_bytes = bytes;
    }

    pub(crate) fn count_forged(&self) {
        self.lock().forged += 1;
    }

    pub(crate) fn set_unpublished(&self, tables: Vec<String>) {
        self.lock().unpublished = tables;
    }

    pub(crate) fn set_copy(&self, tables: impl Iterator<Item = CopyProgress>) {
        self.lock().copy = tables.collect();
    }

    pub(crate) fn advance_copy(&self, at: usize, rows: u64, bytes: u64) {
        if let Some(table) = self.lock().copy.get_mut(at) {
            (table.rows_done, table.bytes_done) = (rows, bytes);
            table.rows_total = table.rows_total.max(rows);
        }
    }

    /// The table is done, so its number of rows is known.
    pub(crate) fn end_copy(&self, at: usize) {
        if let Some(table) = self.lock().copy.get_mut(at) {
            table.rows_total = table.rows_done;
        }
    }

    fn lock(&self) -> MutexGuard<'_, CaptureStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
