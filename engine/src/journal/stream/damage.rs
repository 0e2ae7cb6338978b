//! Damage that readers of a stream meet, and mending it while the stream is in use.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
};

use tokio::sync::watch;

use super::Stream;
use crate::{
    Error,
    journal::mend::{Mending, Owner, Site},
    model::Offset,
    mutant::{self, Mutant},
};

impl Stream {
    /// Records that could not be read because their segments are damaged, one a segment, as long as that was not mended;
    /// to read or to wait for changes of.
    pub fn damage(&self) -> watch::Receiver<BTreeSet<Offset>> {
        self.damage.subscribe()
    }

    /// The first records of its segments.
    pub fn segments(&self) -> Vec<Offset> {
        self.state().segments.iter().map(|(base, _)| *base).collect()
    }

    /// Reads the segment that begins with the record at `base`, as far as it is durable, from the device, so that damage is
    /// met while somebody has what was there. It counts as met by any reader. Touches the disk.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for what is not as it was written, [`Error::Trimmed`] if the segment is held no more.
    pub fn scrub(self: &Arc<Self>, base: Offset) -> Result<(), Error> {
        let mut reader = self.read(base)?;
        reader.forget_cached()?;
        // Its head was read before, from the cache.
        reader = self.read(base)?;
        while self.segment_with(reader.next_offset()) == Some(base) {
            if reader.next_block()?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Begins to mend the segment that holds the record at `offset`. The stream can be used meanwhile. Touches the disk.
    ///
    /// # Errors
    /// [`Error::Trimmed`] if the record is held no more, [`Error::Corrupt`] if what is left of the segment does not
    /// say what is missing, [`Error::NoSpace`] and [`Error::Io`] as the disk has it.
    pub fn mend(self: &Arc<Self>, offset: Offset) -> Result<Mending, Error> {
        let trimmed = || {
            self.damage.send_if_modified(|damage| damage.remove(&offset));
            Error::Trimmed { first: self.watermarks().first, wanted: offset }
        };
        let mut base = self.segment_with(offset).ok_or_else(trimmed)?;
        if self.is_last(base) {
            self.end_segment()?;
            base = self.segment_with(offset).ok_or_else(trimmed)?;
        }
        if self.is_last(base) {
            // Somebody writes to its file, which must stay where it is.
            let reason =
                "it is the last segment, and none can be begun behind it for now".to_owned();
            let segment = self.segment_path(base);
            return Err(Error::Corrupt { segment, at: 0, offset: base, reason });
        }
        Mending::begin(Site {
            disk: self.disk.clone(),
            dir: self.dir.clone(),
            id: self.id,
            base,
            budget: self.budget.clone(),
            owner: Owner::Stream(self.clone()),
        })
    }

    /// Writes what is staged and begins a new segment behind it, if there is room for one.
    fn end_segment(&self) -> Result<(), Error> {
        let poisoned = |_| Error::Poisoned { stream: self.id };
        let mut writer = self.writer.lock().map_err(poisoned)?;
        let checked = self.check(&self.state());
        let ended = checked.and_then(|()| self.lead(&mut writer, true));
        self.let_go(writer);
        ended.map(drop)
    }

    fn is_last(&self, base: Offset) -> bool {
        self.state().segments.last().is_some_and(|(last, _)| *last == base)
    }

    /// A reader met a damaged segment.
    pub(in crate::journal) fn note_damage(&self, offset: Offset) {
        let base = self.segment_with(offset);
        self.damage.send_if_modified(|damage| {
            let is_known = damage.iter().any(|known| self.segment_with(*known) == base);
            !is_known && damage.insert(offset)
        });
    }

    /// Has the mended segment put in the place of the damaged one, unless that was trimmed meanwhile.
    pub(in crate::journal) fn put_in_place(
        &self,
        base: Offset,
        bytes: u64,
        rename: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let _names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        self.check(&self.state())?;
        let held = self.state().segments.iter().any(|(held, _)| *held == base);
        if !held || self.is_last(base) {
            return Err(Error::Trimmed { first: self.watermarks().first, wanted: base });
        }
        rename()?;
        if !mutant::on(Mutant::MendedNameUnsynced) {
            self.sync_names()?;
        }
        let mut before = bytes;
        for (_, held) in self.state().segments.iter_mut().filter(|(held, _)| *held == base) {
            before = std::mem::replace(held, bytes);
        }
        self.budget.give(self.id, before);
        self.budget.force(self.id, bytes);
        self.marks.send_modify(|marks| marks.bytes = marks.bytes - before + bytes);
        self.damage.send_if_modified(|damage| {
            let before = damage.len();
            damage.retain(|offset| self.segment_with(*offset) != Some(base));
            damage.len() < before
        });
        Ok(())
    }
}
