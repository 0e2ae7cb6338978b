//! What one write holds: staged records gathered into batches, behind what is on disk.
//!
//! What a batch stores depends on its records alone, not on its place. So a thread that stages records packs the batches
//! that it completes while the disk is busy with the group before; what is left is packed by the one who writes.

use std::{
    io, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    format::{BatchHeader, Kind},
    segment::{Packed, Segment, encode_state, pack, put_packed},
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
    /// Records behind all items that are no batch yet.
    run: Vec<Records>,
    run_bytes: usize,
    run_start: Start,
    bytes: usize,
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
struct Body {
    run: Vec<Records>,
    packed: Option<Packed>,
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
    /// is complete with them.
    pub(super) fn push(&mut self, records: Records, start: Start) -> Option<Arc<Batch>> {
        let more = records.bytes().len();
        if more >= BATCH_BYTES {
            self.seal();
        }
        if self.run.is_empty() {
            self.run_start = start;
        }
        self.run.push(records);
        self.run_bytes += more;
        self.bytes += more;
        if self.run_bytes < BATCH_BYTES {
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
        mem::take(self)
    }

    /// Puts what was taken and not written back in front of what was staged since.
    pub(super) fn put_back(&mut self, mut taken: Self) {
        taken.items.append(&mut self.items);
        self.items = taken.items;
        self.bytes += taken.bytes;
    }

    /// Writes what was taken as it is to stand behind `end`, in pieces that are gathered in `out`; returns the end behind
    /// it. After a failure any part of it may be there.
    pub(super) fn write(
        &self,
        segment: &Segment,
        mut end: End,
        synced: Offset,
        out: &mut Vec<u8>,
    ) -> io::Result<End> {
        let mut written = end.position;
        out.clear();
        for item in &self.items {
            let (kind, start, records) = match item {
                Item::Mark(..) if mutant::on(Mutant::MarkForgotten) => continue,
                Item::Mark(_, start) => (Kind::Mark, *start, 0),
                Item::Batch(batch) => (Kind::Records, batch.start, batch.records),
            };
            let header = BatchHeader::new(kind, start, records, synced, end.chain);
            let before = out.len();
            let mut put = |body: &Packed| put_packed(segment, end.position, header, body, out);
            end.chain = match item {
                Item::Mark(mark, _) => put(&pack(&encode_state(mark).into())),
                Item::Batch(batch) => put(batch.body().pack()),
            };
            end.position += (out.len() - before) as u64;
            if out.len() >= PIECE_BYTES {
                segment.file.write_all_at(out, written)?;
                written = end.position;
                out.clear();
            }
        }
        if !out.is_empty() {
            segment.file.write_all_at(out, written)?;
        }
        Ok(end)
    }

    /// Makes one batch of what was gathered; none remains.
    fn seal(&mut self) -> Option<Arc<Batch>> {
        if self.run.is_empty() {
            return None;
        }
        let run = mem::take(&mut self.run);
        self.run_bytes = 0;
        let batch = Arc::new(Batch {
            start: self.run_start,
            records: run.iter().map(Records::count).sum(),
            body: Mutex::new(Body { run, packed: None }),
        });
        self.items.push(Item::Batch(batch.clone()));
        Some(batch)
    }
}

impl Batch {
    /// Makes of the records what is stored of them, unless that was done or somebody is at it.
    pub(super) fn pack(&self) {
        if let Ok(mut body) = self.body.try_lock() {
            body.pack();
        }
    }

    fn body(&self) -> MutexGuard<'_, Body> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body {
    /// What is stored of the records. They are let go of.
    fn pack(&mut self) -> &Packed {
        let Self { run, packed } = self;
        packed.get_or_insert_with(|| {
            let packed = match &run[..] {
                [records] => pack(records.bytes()),
                run => pack(RecordsBuf::concat(run).bytes()),
            };
            run.clear();
            packed
        })
    }
}

/// A group that is larger is written in several pieces, because what is gathered takes memory once more.
pub(super) const PIECE_BYTES: usize = 256 << 10;
