//! What one write holds: staged records gathered into batches, behind what is on disk.
//!
//! What a batch stores does not depend on its place. So a thread that stages records compresses the batches that it
//! completes while the disk is busy with the group before. Where it gets through with all of them, the disk is the slower
//! one, and gets few bytes. Where it does not, the processor is: it compresses fewer of the next group, and the rest is
//! stored as it is, so that a fast disk does not wait. Where nobody was to do it meanwhile, the one who writes does it.

use std::{
    io::{self, IoSlice},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{
    format::{BatchHeader, Kind},
    segment::{Packed, Segment, encode_state, pack},
    tail::StoredMark,
};
use crate::{
    codec::{Records, RecordsBuf},
    limits::BATCH_BYTES,
    model::{Offset, Running},
    mutant::{self, Mutant},
};

/// Where in the stream something stands: the next offset, and the running checksum before it.
pub(super) type Start = (Offset, Running);

/// What waits for the disk, in order.
#[derive(Debug, Default)]
pub(super) struct Staged {
    items: Vec<Item>,
    /// Records behind all items that are no batch yet. Copied, so that whoever appended them lets go of them at once: much
    /// cheaper than that another thread does it later, one by one.
    run: RecordsBuf,
    run_start: Start,
    run_end: Running,
    bytes: usize,
    pace: Pace,
}

/// How much of the time that the disk is busy goes into compression.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// How many batches of a group are packed by whoever stages them.
    most: usize,
    packed: usize,
    /// How many were complete only once the disk had nothing to do.
    late: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { most: usize::MAX, packed: 0, late: 0 }
    }
}

impl Pace {
    /// Whether a batch that is complete is to be packed by whoever staged it.
    fn has_time(&mut self, is_writing: bool) -> bool {
        self.late += usize::from(!is_writing);
        let has_time = is_writing && self.packed < self.most;
        self.packed += usize::from(has_time);
        has_time
    }

    /// Whether what was not packed in time is to be stored as it is. One batch may always be late, because the disk has
    /// nothing to do for a moment between any two groups.
    fn haste(&self) -> bool {
        self.packed > 0 && (self.late > 1 || self.packed == self.most)
    }

    /// The pace of the next group. Packing a batch takes about as long as staging two.
    fn next(self) -> Self {
        let most = match (self.packed, self.late) {
            (0, _) => self.most,
            (_, 0 | 1) => self.most.saturating_add(1),
            (packed, late) => packed.saturating_sub(late / 2).max(1),
        };
        Self { most, ..Self::default() }
    }
}

#[derive(Debug)]
enum Item {
    Batch(Arc<Batch>),
    Mark(StoredMark, Start),
}

/// Records that are written together.
#[derive(Debug)]
pub(super) struct Batch {
    start: Start,
    records: u32,
    body: Mutex<Body>,
}

/// Either the records or what was made of them.
#[derive(Debug)]
enum Body {
    Records(Records, u32),
    Packed(Packed),
}

/// What the next batch continues.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) position: u64,
    pub(super) chain: u32,
}

impl Staged {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.run.is_empty()
    }

    /// What the records take as they are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds records. Small runs are gathered into batches of the usual size, and none is split. Returns a batch that
    /// is complete with them, if the disk `is_writing` for long enough that the caller should pack it meanwhile.
    pub(super) fn push(
        &mut self,
        records: &Records,
        start: Start,
        end: Running,
        is_writing: bool,
    ) -> Option<Arc<Batch>> {
        self.add(records, start, end).filter(|_| self.pace.has_time(is_writing))
    }

    fn add(&mut self, records: &Records, start: Start, end: Running) -> Option<Arc<Batch>> {
        let more = records.bytes().len();
        self.bytes += more;
        if more >= BATCH_BYTES {
            self.seal();
            return Some(self.batch(records, start, end));
        }
        if self.run.is_empty() {
            self.run_start = start;
            self.run.reserve(BATCH_BYTES);
        }
        self.run.append(records);
        self.run_end = end;
        if self.run.bytes_len() < BATCH_BYTES {
            return None;
        }
        self.seal()
    }

    /// Adds a mark.
    pub(super) fn mark(&mut self, mark: StoredMark, start: Start) {
        self.seal();
        // Only the last of several in a row says anything, unless one before it opened a gap.
        match self.items.last_mut() {
            Some(Item::Mark(last, _)) if !last.mark().released => *last = mark,
            _ => self.items.push(Item::Mark(mark, start)),
        }
    }

    /// All of it, in whole batches; nothing remains.
    pub(super) fn take(&mut self) -> Self {
        self.seal();
        let pace = self.pace.next();
        mem::replace(self, Self { pace, ..Self::default() })
    }

    /// Puts what was taken and not written back in front of what was staged since.
    pub(super) fn put_back(&mut self, mut taken: Self) {
        taken.items.append(&mut self.items);
        self.items = taken.items;
        self.bytes += taken.bytes;
    }

    /// Writes what was taken as it is to stand behind `end`; returns the end behind it. After a failure any part of it may
    /// be there. Batches are left uncompressed only if there is `room` for them.
    pub(super) fn write(
        &self,
        segment: &Segment,
        mut end: End,
        synced: Offset,
        room: bool,
    ) -> io::Result<End> {
        let haste = room && self.pace.haste();
        let (at, mut parts) = (end.position, Vec::with_capacity(2 * self.items.len()));
        for item in &self.items {
            let (kind, start, records) = match item {
                Item::Mark(..) if mutant::on(Mutant::MarkForgotten) => continue,
                Item::Mark(_, start) => (Kind::Mark, *start, 0),
                Item::Batch(batch) => (Kind::Records, batch.start, batch.records),
            };
            let header = BatchHeader::new(kind, start, records, synced, end.chain);
            let mut put = |body: &Packed| {
                let (head, chain) = body.head(header, segment.place(end.position));
                end.position += (head.len() + body.stored.len()) as u64;
                end.chain = chain;
                parts.extend([Bytes::copy_from_slice(&head), body.stored.clone()]);
            };
            match item {
                Item::Mark(mark, _) => put(&pack(&encode_state(mark).into())),
                Item::Batch(batch) => put(batch.body().pack(haste)),
            }
        }
        let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        segment.file.write_parts_at(&mut slices, at)?;
        Ok(end)
    }

    /// Makes one batch of what was gathered; none remains.
    fn seal(&mut self) -> Option<Arc<Batch>> {
        let records = self.run.take();
        (!records.is_empty()).then(|| self.batch(&records, self.run_start, self.run_end))
    }

    fn batch(&mut self, records: &Records, start: Start, end: Running) -> Arc<Batch> {
        let body = Mutex::new(Body::Records(records.clone(), records.crc_between(start.1, end)));
        let batch = Arc::new(Batch { start, records: records.count(), body });
        self.items.push(Item::Batch(batch.clone()));
        batch
    }
}

impl Batch {
    /// Makes of the records what is stored of them, unless that was done or somebody is at it.
    pub(super) fn pack(&self) {
        if let Ok(mut body) = self.body.try_lock() {
            body.pack(false);
        }
    }

    fn body(&self) -> MutexGuard<'_, Body> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body {
    /// What is stored of the records: in haste they themselves. They are let go of.
    fn pack(&mut self, haste: bool) -> &Packed {
        if let Self::Records(records, crc) = self {
            let bytes = records.bytes();
            *self = Self::Packed(match haste {
                true => Packed::plain(bytes.clone(), *crc),
                false => pack(bytes),
            });
        }
        match self {
            Self::Packed(packed) => packed,
            Self::Records(..) => unreachable!("they were packed"),
        }
    }
}
