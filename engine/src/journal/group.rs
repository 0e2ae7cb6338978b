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
    limits::{BATCH_BYTES, STAGED_BYTES_MAX},
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
    /// Whether somebody waits for it; the beginning of a transaction is of no use yet.
    is_awaited: bool,
    pace: Pace,
    /// Whether the disk had no room for some of it before: then it gets as few bytes as can be.
    is_cramped: bool,
    /// Memory of groups that are on disk, for the runs to come: what is given back to the system is dear to get again.
    spare: Vec<Vec<u8>>,
}

/// How much of the time that the disk is busy goes into compression.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// How many batches of a group are packed by whoever stages them.
    most: usize,
    packed: usize,
    /// How many were complete only once the disk had nothing to do.
    late: usize,
    /// How many groups ago somebody last packed while the disk was busy.
    alone: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { most: usize::MAX, packed: 0, late: 0, alone: usize::MAX }
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
    /// nothing to do for a moment between any two groups. All of them are where one thread stages and writes in turn:
    /// nobody waits for it.
    fn haste(&self) -> bool {
        let is_late = self.late > 1 && (self.packed > 0 || self.alone < ALONE);
        is_late || self.packed > 0 && self.packed == self.most
    }

    /// The pace of the next group. Packing a batch takes about as long as staging two.
    fn next(self) -> Self {
        let most = match (self.packed, self.late) {
            (0, _) => self.most,
            (_, 0 | 1) => self.most.saturating_add(1),
            (packed, late) => packed.saturating_sub(late / 2).max(1),
        };
        let alone = if self.packed > 0 { 0 } else { self.alone.saturating_add(1) };
        Self { most, packed: 0, late: 0, alone }
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
    /// A seal behind what is durable, and behind it the last mark once more: the only copy of that may rot.
    pub(super) fn sealing(start: Start, mark: Option<StoredMark>) -> Self {
        let mut seal = Self::default();
        seal.batch(&Records::default(), start, start.1);
        seal.items.extend(mark.map(|mark| Item::Mark(mark, start)));
        seal
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.run.is_empty()
    }

    /// What the records take as they are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Notes that somebody waits for it to be durable.
    pub(super) fn await_it(&mut self) {
        self.is_awaited = true;
    }

    /// Whether it is worth a write of its own.
    pub(super) fn is_ripe(&self) -> bool {
        !self.is_empty() && (self.is_awaited || self.bytes >= BATCH_BYTES)
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
            match self.spare.pop() {
                Some(spare) => self.run.reuse(spare),
                None => self.run.reserve(RUN_BYTES),
            }
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
        self.is_awaited = true;
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
        let (pace, spare) = (self.pace.next(), mem::take(&mut self.spare));
        mem::replace(self, Self { pace, spare, ..Self::default() })
    }

    /// Puts what was taken and not written back in front of what was staged since.
    pub(super) fn put_back(&mut self, mut taken: Self) {
        taken.items.append(&mut self.items);
        self.items = taken.items;
        self.bytes += taken.bytes;
        self.is_awaited |= taken.is_awaited;
        self.is_cramped = true;
    }

    /// Keeps memory for runs to come. What fewer and smaller groups do not need is let go of little by little.
    pub(super) fn reuse(&mut self, buffers: Vec<Vec<u8>>) {
        if self.spare.len() > buffers.len() {
            self.spare.pop();
        }
        self.spare.extend(buffers);
        self.spare.truncate(SPARE_MAX);
    }

    /// The memory of what was taken and written, as far as nobody else has it.
    pub(super) fn into_buffers(self) -> Vec<Vec<u8>> {
        let batch = |item| match item {
            Item::Batch(batch) => Arc::into_inner(batch),
            Item::Mark(..) => None,
        };
        let batches = self.items.into_iter().filter_map(batch);
        batches.filter_map(Batch::into_buffer).collect()
    }

    /// Writes what was taken as it is to stand behind `end`; returns the end behind it. After a failure any part of it may
    /// be there. Batches are stored uncompressed only if there is `room` for them.
    pub(super) fn write(
        &self,
        segment: &Segment,
        mut end: End,
        synced: Offset,
        room: bool,
    ) -> io::Result<End> {
        let haste = room && !self.is_cramped && self.pace.haste();
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
                Item::Batch(batch) if haste => put(&batch.body().as_it_is()),
                Item::Batch(batch) => put(batch.body().pack()),
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
            body.pack();
        }
    }

    fn body(&self) -> MutexGuard<'_, Body> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory of a run, if nobody else has it.
    fn into_buffer(self) -> Option<Vec<u8>> {
        let mut bytes = match self.body.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Body::Records(records, _) => records.into_bytes(),
            Body::Packed(packed) => packed.stored,
        };
        // Emptied first, so that nothing is copied whoever has it.
        bytes.truncate(0);
        Some(Vec::from(bytes)).filter(|it| (RUN_BYTES..=2 * RUN_BYTES).contains(&it.capacity()))
    }
}

impl Body {
    /// What is stored of the records: less than they take, if that can be. They are let go of.
    fn pack(&mut self) -> &Packed {
        if let Self::Records(records, _) = self {
            *self = Self::Packed(pack(records.bytes()));
        }
        match self {
            Self::Packed(packed) => packed,
            Self::Records(..) => unreachable!("they were packed"),
        }
    }

    /// What is stored in haste: the records themselves, unless they are packed already. They stay, and can be packed later.
    fn as_it_is(&self) -> Packed {
        match self {
            Self::Records(records, crc) => Packed::plain(records.bytes().clone(), *crc),
            Self::Packed(packed) => packed.clone(),
        }
    }
}

/// How many groups it takes without anybody who packs while the disk is busy, until nobody is believed to be there: who
/// waits for a processor may miss many.
const ALONE: usize = 256;

/// What a run takes in memory: a batch, and room for the records that complete it, if they are few.
const RUN_BYTES: usize = BATCH_BYTES + (4 << 10);

/// How many runs' memory is kept: as much as may be staged.
const SPARE_MAX: usize = STAGED_BYTES_MAX / BATCH_BYTES;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        journal::Tail,
        model::{Epoch, Origin, Record, RelationId, Row, StreamId, Value},
        storage::{Disk, memory::MemoryDisk},
    };

    const ID: StreamId =
        StreamId { origin: Origin::from_bytes([1; 16]), epoch: Epoch::from_bytes([2; 16]) };

    /// Stages batches that compress well, as many of them while the disk is busy and as many while it is not.
    fn stage(staged: &mut Staged, at: &mut Start, busy: usize, idle: usize) {
        let row = Row(vec![Value::Bytes(vec![7; BATCH_BYTES].into())]);
        let records = Records::one(&Record::Insert { relation: RelationId(1), new: row });
        for number in 0..busy + idle {
            let running = records.running(at.1);
            if let Some(batch) = staged.push(&records, *at, running, number < busy) {
                batch.pack();
            }
            *at = (at.0.next(), running);
        }
    }

    fn segment() -> (Segment, End) {
        let (disk, dir) = (MemoryDisk::new(), Path::new("stream"));
        disk.create_dir(dir).unwrap();
        let segment = Segment::create(&disk, dir, ID, &Tail::default()).unwrap();
        let end = End { position: segment.body(), chain: segment.header.crc() };
        (segment, end)
    }

    #[test]
    fn what_was_packed_stays_so_in_haste_and_what_found_no_room_is_packed_for_the_next_try() {
        let (mut staged, mut at) = (Staged::default(), (Offset::FIRST, Running::START));
        let (segment, end) = segment();
        let write = |taken: &Staged, room| {
            let after = taken.write(&segment, end, Offset::ZERO, room).unwrap();
            usize::try_from(after.position - end.position).unwrap()
        };
        stage(&mut staged, &mut at, 1, 5);
        let taken = staged.take();
        let hurried = write(&taken, true);
        assert!((5 * BATCH_BYTES..6 * BATCH_BYTES).contains(&hurried), "{hurried} bytes");
        // The same again: staged in haste behind what did not fit.
        stage(&mut staged, &mut at, 1, 5);
        staged.put_back(taken);
        let again = staged.take();
        assert_eq!(again.items.len(), 12);
        assert!(write(&again, true) < BATCH_BYTES);
        stage(&mut staged, &mut at, 1, 5);
        let next = staged.take();
        assert!(write(&next, true) > 5 * BATCH_BYTES, "there was room again");
        assert!(write(&next, false) < BATCH_BYTES, "the budget is nearly full");
        assert!(write(&next, true) < BATCH_BYTES, "what is packed is not unpacked");
    }

    #[test]
    fn one_who_stages_and_writes_in_turn_waits_for_compression_and_two_do_not() {
        let (mut staged, mut at) = (Staged::default(), (Offset::FIRST, Running::START));
        let mut group = |busy, idle| {
            stage(&mut staged, &mut at, busy, idle);
            staged.take().pace.haste()
        };
        assert!((0..3).all(|_| !group(0, 5)));
        assert!(group(1, 5));
        assert!((0..ALONE).all(|_| group(0, 5)), "the other one was late");
        assert!(!group(0, 5), "it has gone");
    }

    #[test]
    fn memory_is_used_again_and_not_more_of_it_kept_than_groups_need() {
        let mut staged = Staged::default();
        let row = Row(vec![Value::Bytes(vec![7; BATCH_BYTES / 8].into())]);
        let records = Records::one(&Record::Insert { relation: RelationId(1), new: row });
        let mut group = |batches: usize| {
            let (mut at, mut before) = ((Offset::FIRST, Running::START), staged.spare.len());
            for _ in 0..batches * 8 {
                let running = records.running(at.1);
                staged.push(&records, at, running, false);
                at = (at.0.next(), running);
            }
            before -= staged.spare.len();
            let taken = staged.take();
            let buffers = taken.into_buffers();
            assert_eq!(buffers.len(), batches);
            staged.reuse(buffers);
            (before, staged.spare.len())
        };
        assert_eq!(group(4), (0, 4));
        assert_eq!(group(4), (4, 4));
        assert_eq!(group(SPARE_MAX + 9), (4, SPARE_MAX));
        assert_eq!(group(1), (1, SPARE_MAX - 1));
        assert!((0..SPARE_MAX * 2).map(|_| group(1).1).any(|kept| kept <= 2));
    }
}
