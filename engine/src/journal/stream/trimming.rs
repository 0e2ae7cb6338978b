//! Letting go of the oldest segments, one by one, so that no power cut and no failure leaves a gap.

use std::{io::ErrorKind, sync::PoisonError};

use super::{Stream, Watermarks};
use crate::{
    Error,
    limits::PRIMING_BYTES,
    model::Offset,
    mutant::{self, Mutant},
};

impl Stream {
    /// Removes whole segments from the front, as far as all their records are at or before `upto`. Unless
    /// `pressed`, what compression is primed with is kept. Touches the disk. Returns the bytes freed.
    ///
    /// # Errors
    /// [`Error::Io`]; what was removed before stays removed. A sync of the folder that failed is final: it poisons the
    /// stream, of which nothing more is removed until it was opened anew ([`Error::Poisoned`]).
    pub fn trim(&self, upto: Offset, pressed: bool) -> Result<u64, Error> {
        let _names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        self.check(&self.state())?;
        let mut freed = 0;
        while let Some((base, bytes)) = self.oldest_before(upto, pressed) {
            // Readers are told first, so that none looks for a file that is gone.
            self.state().segments.remove(0);
            self.set_front(|marks| marks.bytes -= bytes);
            if let Err(error) = self.remove_segment(base) {
                if mutant::on(Mutant::TrimFailureForgiven) {
                    return Err(error);
                }
                // It is first again, so that none behind it goes while it may still be there: a stream that
                // lacks a segment in its middle cannot be read.
                self.state().segments.insert(0, (base, bytes));
                self.set_front(|marks| marks.bytes += bytes);
                return Err(error);
            }
            self.budget.give(self.id, bytes);
            freed += bytes;
        }
        Ok(freed)
    }

    fn set_front(&self, account: impl FnOnce(&mut Watermarks)) {
        let state = self.state();
        let first = state.segments.first().map_or(state.tail.next, |(base, _)| *base);
        drop(state);
        self.marks.send_modify(|marks| {
            marks.first = first;
            account(marks);
        });
    }

    /// Removes a segment's file, durably; one that is gone already too.
    fn remove_segment(&self, base: Offset) -> Result<(), Error> {
        let path = self.segment_path(base);
        match self.disk.remove(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                return Err(Error::Io { operation: "remove", path, source });
            }
            _ => {}
        }
        if mutant::on(Mutant::TrimUnsynced) {
            return Ok(());
        }
        // One by one: of several names that vanish together a power cut may bring back any.
        self.sync_names()
    }

    /// Makes the names of the segments durable. A failure is final, as that of any sync.
    pub(super) fn sync_names(&self) -> Result<(), Error> {
        self.disk.sync_dir(&self.dir).map_err(|source| {
            if !mutant::on(Mutant::FailedNamesForgiven) {
                self.poison();
            }
            Error::Io { operation: "sync", path: self.dir.clone(), source }
        })
    }

    /// The first segment, if it may go.
    fn oldest_before(&self, upto: Offset, pressed: bool) -> Option<(Offset, u64)> {
        let state = self.state();
        let [(base, bytes), (next_base, _), ..] = state.segments[..] else {
            return None;
        };
        // Only what everybody has can prime compression.
        let acked = state.segments[1..].windows(2).filter(|pair| pair[1].0.prev() <= upto);
        let behind: u64 = acked.map(|pair| pair[0].1).sum();
        let primed = pressed || behind >= PRIMING_BYTES;
        let end = if mutant::on(Mutant::TrimTooFar) { base } else { next_base.prev() };
        (end <= upto && primed).then_some((base, bytes))
    }
}
