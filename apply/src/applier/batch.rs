//! A target transaction being filled: what is in it, and when it is full.

use std::time::Duration;

use thinwire_engine::model::{Offset, Record};
use tokio::time::Instant;

use super::source::Item;
use crate::Progress;

/// A target transaction being filled.
#[derive(Default)]
pub(super) struct Batch {
    /// Whether it was begun at the target.
    pub(super) open: bool,
    /// Its first record.
    pub(super) first: Option<Offset>,
    /// How far the stream is applied with it; none if it holds nothing.
    pub(super) progress: Option<Progress>,
    pub(super) transactions: u64,
    pub(super) rows: u64,
    pub(super) records: usize,
    bytes: usize,
}

impl Batch {
    /// Whether another source transaction may join.
    pub(super) fn has_room(&self, started: Instant) -> bool {
        self.records < BATCH_RECORDS && self.bytes < BATCH_BYTES && started.elapsed() < BATCH_TIME
    }

    /// The records up to `last` are in it.
    pub(super) fn reach(&mut self, last: Offset) {
        self.progress.get_or_insert_default().offset = last;
    }

    /// Notes where and when the source committed what begins with a record.
    pub(super) fn locate(&mut self, record: &Record) {
        let progress = self.progress.get_or_insert_default();
        match record {
            Record::Begin { lsn, time, .. } => {
                (progress.lsn, progress.time) = (Some(*lsn), Some(*time));
            }
            Record::CopyBegin(copy) => (progress.lsn, progress.time) = (Some(copy.lsn), None),
            _ => {}
        }
    }

    /// Notes what a record adds to it.
    pub(super) fn count(&mut self, item: &Item) {
        self.first.get_or_insert(item.offset);
        self.records += 1;
        self.bytes += item.bytes;
        self.locate(&item.record);
        match &item.record {
            Record::Begin { .. } | Record::CopyBegin(_) => self.transactions += 1,
            Record::Insert { .. }
            | Record::Update { .. }
            | Record::Delete { .. }
            | Record::Truncate { .. } => self.rows += 1,
            _ => {}
        }
    }
}

/// A target transaction takes no further source transaction when it has so many records,
const BATCH_RECORDS: usize = 12_000;
/// so many bytes of them,
const BATCH_BYTES: usize = 1 << 20;
/// or is so old: it holds locks, and somebody waits to see what is in it.
const BATCH_TIME: Duration = Duration::from_millis(200);
