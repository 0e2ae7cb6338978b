//! One stream: appending, group commit, rotation, trimming, and the watermarks that all others watch.
//!
//! Two locks, always taken in this order: `writer` is held across disk writes, `state` never is.

mod damage;
mod sealing;
mod trimming;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError},
};

use tokio::sync::watch;

use super::{
    Mark, Open, Pressure, Reader, Tail, Usage,
    budget::Budget,
    format,
    group::{End, Staged, Start},
    recovery::recover,
    segment::Segment,
};
use crate::{
    Error,
    codec::{DecodeError, Records},
    limits::{STAGED_BYTES_MAX, STATE_BYTES_MAX},
    model::{Halt, HaltedBy, Offset, Running, StreamId},
    mutant::{self, Mutant},
    storage::Disk,
};

/// How far a stream has come at this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The first record that is still held; one after the last if none is.
    pub first: Offset,
    /// The last record in memory.
    pub appended: Offset,
    /// The last durable record.
    pub synced: Offset,
    /// The last durable record that leaves no transaction or copy open.
    pub complete: Offset,
    /// The last record whose effect the local database holds durably.
    pub applied: Offset,
    /// Bytes on disk.
    pub bytes: u64,
}

/// A stream that this node holds. All methods may be called from any thread; those that touch the disk
/// say so.
#[derive(Debug)]
pub struct Stream {
    id: StreamId,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    budget: Arc<Budget>,
    writer: Mutex<Writer>,
    state: Mutex<State>,
    /// Held while segments are removed or replaced.
    names: Mutex<()>,
    written: Condvar,
    marks: watch::Sender<Watermarks>,
    halts: Mutex<BTreeMap<HaltedBy, Halt>>,
    halted: watch::Sender<Option<Halt>>,
    damage: watch::Sender<BTreeSet<Offset>>,
}

/// The end of the last segment, as it is on disk.
#[derive(Debug)]
struct Writer {
    segment: Segment,
    end: End,
}

#[derive(Debug)]
struct State {
    tail: Tail,
    staged: Staged,
    /// How many groups were taken to be written, and the last of them that is durable.
    taken: u64,
    durable: u64,
    segments: Vec<(Offset, u64)>,
    durable_mark: Option<Mark>,
    /// Whether something in the last segment says that all before it is durable, or nothing is in it.
    is_sealed: bool,
    poisoned: bool,
}

impl Stream {
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        id: StreamId,
        segment_bytes: u64,
        budget: Arc<Budget>,
    ) -> Result<Self, Error> {
        let mut found = recover(&disk, dir, id)?;
        if mutant::on(Mutant::OffsetReused) {
            found.tail.next = found.tail.next.prev().max(Offset::FIRST);
        }
        let bytes = found.segments.iter().map(|(_, bytes)| bytes).sum();
        budget.register(id, bytes);
        let last = found.tail.next.prev();
        let marks = Watermarks {
            first: found.segments.first().map_or(Offset::FIRST, |(base, _)| *base),
            appended: last,
            synced: last,
            complete: found.tail.complete,
            applied: Offset::ZERO,
            bytes,
        };
        Ok(Self {
            id,
            disk,
            dir: dir.to_owned(),
            segment_bytes,
            budget,
            writer: Mutex::new(Writer {
                segment: found.last,
                end: End { position: found.position, chain: found.chain },
            }),
            state: Mutex::new(State {
                durable_mark: found.tail.mark,
                tail: found.tail,
                staged: Staged::default(),
                taken: 0,
                durable: 0,
                segments: found.segments,
                is_sealed: found.is_sealed,
                poisoned: false,
            }),
            names: Mutex::default(),
            written: Condvar::new(),
            marks: watch::Sender::new(marks),
            halts: Mutex::default(),
            halted: watch::Sender::new(None),
            damage: watch::Sender::default(),
        })
    }

    /// Which stream it is.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// How far it is.
    pub fn watermarks(&self) -> Watermarks {
        *self.marks.borrow()
    }

    /// The same, to wait for changes of; of what is *appended*, the first behind what was taken to be written.
    pub fn watch(&self) -> watch::Receiver<Watermarks> {
        self.marks.subscribe()
    }

    /// The state behind the last appended record.
    pub fn tail(&self) -> Tail {
        self.state().tail.clone()
    }

    /// The next offset, the running checksum before it and what is open there: the part of the
    /// [`tail`](Self::tail) that costs nothing to have.
    pub fn end(&self) -> (Offset, Running, Option<Open>) {
        let tail = &self.state().tail;
        (tail.next, tail.running, tail.open)
    }

    /// The last mark that is durable.
    pub fn durable_mark(&self) -> Option<Mark> {
        self.state().durable_mark
    }

    /// Whether so much waits for the disk that a writer should wait for the *synced* watermark first.
    pub fn is_congested(&self) -> bool {
        self.state().staged.bytes() >= STAGED_BYTES_MAX
    }

    /// What this stream uses of the budget, and what it may use in all as things are.
    pub fn allowance(&self) -> Usage {
        self.budget.allowance(self.id)
    }

    /// What this stream uses of the budget, and what it may use in all for a copy.
    pub fn copy_allowance(&self) -> Usage {
        self.budget.copy_allowance(self.id)
    }

    /// Says that somebody waits for room for `bytes` before going on with the stream, which `step` is to show; history is
    /// given up for it. Returns whether there is as much room.
    pub fn await_room(&self, bytes: u64, step: Pressure) -> bool {
        self.budget.await_room(self.id, bytes, step)
    }

    /// Whether an earlier failure made the stream refuse all writes until it is opened anew.
    pub fn is_poisoned(&self) -> bool {
        self.state().poisoned
    }

    /// Stages records behind those appended before and returns the last one's offset. They are
    /// durable once the *synced* watermark has reached it. Does not touch the disk.
    ///
    /// # Errors
    /// [`Error::Full`] if the budget has no room, [`Error::TooLarge`] if it never will, [`Error::TooManyTables`] for more
    /// than a segment can begin with: nothing was staged. [`Error::Record`] for a record that cannot be decoded,
    /// [`Error::Poisoned`] after a failed write.
    pub fn append(&self, records: Records) -> Result<Offset, Error> {
        self.stage(self.state(), records)
    }

    /// Like [`append`](Self::append), for records whose first offset is known. Those that are held already are
    /// dropped.
    ///
    /// # Errors
    /// Also [`Error::Hole`] if `first` is beyond the next offset.
    pub fn append_at(&self, first: Offset, records: Records) -> Result<Offset, Error> {
        let state = self.state();
        let next = state.tail.next;
        if first > next {
            return Err(Error::Hole { expected: next, got: first });
        }
        if first.get().checked_add(records.span()).is_none() {
            let source = DecodeError::Malformed("more records than can be numbered");
            return Err(Error::Record { offset: first, source });
        }
        let held = next.since(first);
        if held >= records.span() {
            return Ok(next.prev());
        }
        let new = if held == 0 { records } else { records.after(held) };
        self.stage(state, new)
    }

    /// Stages a mark: it takes no offset, is not shipped, and is durable with the next sync.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after a failed write.
    pub fn mark(&self, mark: Mark) -> Result<(), Error> {
        let mut state = self.state();
        self.check(&state)?;
        let mark = state.tail.observe_mark(mark);
        let start = state.start();
        state.staged.mark(mark, start);
        drop(state);
        self.marks.send_modify(|_| {});
        Ok(())
    }

    /// Whether anything waits for the disk.
    pub fn has_staged(&self) -> bool {
        !self.state().staged.is_empty()
    }

    /// Whether what waits for the disk is worth a write of its own: something is complete with it, or it is long. Nobody
    /// has use yet for the beginning of a transaction. Who [watches](Self::watch) is woken when it becomes so.
    pub fn is_ripe(&self) -> bool {
        self.state().staged.is_ripe()
    }

    /// Writes all that is staged, with one write and one fdatasync, and returns the *synced* watermark. Blocks
    /// on the disk. Of concurrent calls one writes for all: the others return as soon as what was staged
    /// before they were called is durable, and what was staged during a write is the next one.
    ///
    /// # Errors
    /// [`Error::NoSpace`] leaves everything staged for another try. Any other failure poisons the stream: what
    /// was staged is not durable and must be appended again after it was opened anew.
    pub fn sync(&self) -> Result<Offset, Error> {
        let Some(mut writer) = self.turn()? else {
            return Ok(self.watermarks().synced);
        };
        let synced = self.lead(&mut writer, false);
        self.let_go(writer);
        synced
    }

    /// Lets the next one write.
    fn let_go(&self, writer: MutexGuard<'_, Writer>) {
        drop(writer);
        // Nobody is between finding the writer taken and waiting for it while the state is locked.
        drop(self.state());
        self.written.notify_all();
    }

    /// Waits until others have made durable all that is staged, or until it is our turn to write it.
    fn turn(&self) -> Result<Option<MutexGuard<'_, Writer>>, Error> {
        let mut state = self.state();
        let wanted = state.taken + u64::from(!state.staged.is_empty());
        loop {
            self.check(&state)?;
            if state.durable >= wanted {
                return Ok(None);
            }
            match self.writer.try_lock() {
                Ok(writer) => return Ok(Some(writer)),
                // What the one before us had taken to be written is lost.
                Err(TryLockError::Poisoned(_)) => return Err(Error::Poisoned { stream: self.id }),
                Err(TryLockError::WouldBlock) => {
                    state = self.written.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Writes all that is staged, and begins a new segment behind it if this one is full or has to `end`.
    fn lead(&self, writer: &mut Writer, end: bool) -> Result<Offset, Error> {
        let (staged, after, tail) = {
            let mut state = self.state();
            let staged = state.staged.take();
            // What is staged is all that the state is ahead of the disk, so this is the state behind the write.
            let might_end = end || self.is_full(writer, staged.bytes() as u64);
            let tail = might_end.then(|| state.tail.clone());
            state.taken += 1;
            (staged, self.end_of(&state), tail)
        };
        let grown = match self.write(writer, &staged) {
            Ok(grown) => grown,
            Err(error) => return Err(self.failed(error, staged)),
        };
        self.budget.give(self.id, staged.bytes() as u64);
        self.budget.force(self.id, grown);
        let buffers = staged.into_buffers();
        let after = match mutant::on(Mutant::AckOfLaterRecords) {
            true => self.end_of(&self.state()),
            false => after,
        };
        self.publish(&after, grown, buffers);
        if let Some(tail) = tail.filter(|_| end || self.is_full(writer, 0)) {
            self.rotate(writer, &tail)?;
        }
        Ok(after.last)
    }

    /// Says how far the local database holds the stream durably.
    pub fn set_applied(&self, applied: Offset) {
        self.marks.send_if_modified(|marks| {
            let changed = marks.applied != applied;
            marks.applied = applied;
            changed
        });
    }

    /// Says why somebody cannot go on with the stream at this node, or that it can. What others say stays.
    pub fn set_halted(&self, by: HaltedBy, halt: Option<Halt>) {
        let mut halts = self.halts.lock().unwrap_or_else(PoisonError::into_inner);
        match halt {
            Some(halt) => halts.insert(by, halt),
            None => halts.remove(&by),
        };
        let gravest = halts.values().next().cloned();
        self.halted.send_if_modified(|held| {
            let changed = *held != gravest;
            *held = gravest;
            changed
        });
    }

    /// Why the stream stands still at this node, the gravest reason first; to read or to wait for changes of.
    pub fn halted(&self) -> watch::Receiver<Option<Halt>> {
        self.halted.subscribe()
    }

    /// Why one of its users cannot go on with it.
    pub fn halted_by(&self, by: HaltedBy) -> Option<Halt> {
        self.halts.lock().unwrap_or_else(PoisonError::into_inner).get(&by).cloned()
    }

    /// A reader whose first record is the one at `from`. It ends at the *synced* watermark of the moment
    /// and goes on when that has moved.
    ///
    /// # Errors
    /// [`Error::Trimmed`] if the record is held no more.
    pub fn read(self: &Arc<Self>, from: Offset) -> Result<Reader, Error> {
        Reader::open(self.clone(), from)
    }

    /// The running checksum behind the record at `offset`, which proves a shared prefix. Reads the disk.
    /// `None` if that cannot be told: it is before what is held, or not durable yet.
    ///
    /// # Errors
    /// What reading may fail with.
    pub fn running_at(self: &Arc<Self>, offset: Offset) -> Result<Option<Running>, Error> {
        if offset == Offset::ZERO {
            return Ok(Some(Running::START));
        }
        let marks = self.watermarks();
        if offset > marks.synced || offset < marks.first.prev() {
            return Ok(None);
        }
        super::reader::running_at(self, offset)
    }

    fn stage(&self, mut guard: MutexGuard<'_, State>, records: Records) -> Result<Offset, Error> {
        let state = &mut *guard;
        self.check(state)?;
        if records.is_empty() {
            return Ok(state.tail.next.prev());
        }
        self.check_state(state, &records)?;
        self.budget.take(self.id, records.bytes().len() as u64)?;
        let start = state.start();
        if let Err(error) = state.tail.observe(&records) {
            // The state is ahead of what can be written now; only reading it anew is safe.
            drop(guard);
            self.poison();
            return Err(error);
        }
        let (is_first, was_ripe) = (state.staged.is_empty(), state.staged.is_ripe());
        let is_writing = state.taken > state.durable;
        let to_pack = state.staged.push(&records, start, state.tail.running, is_writing);
        if state.tail.open.is_none() {
            state.staged.await_it();
        }
        let ripens = !was_ripe && state.staged.is_ripe();
        let last = state.tail.next.prev();
        // Waking is dear, and who waits for the disk's work was woken by the first and by what made it worthwhile.
        self.marks.send_if_modified(|marks| {
            marks.appended = last;
            is_first || ripens
        });
        drop(guard);
        if let Some(batch) = to_pack {
            batch.pack();
        }
        Ok(last)
    }

    fn write(&self, writer: &mut Writer, staged: &Staged) -> Result<u64, Error> {
        let synced = match mutant::on(Mutant::NoWordOfDurability) {
            true => Offset::ZERO,
            false => self.watermarks().synced,
        };
        let Writer { segment, end } = writer;
        let Usage { bytes, budget } = self.budget.usage();
        let written = staged.write(segment, *end, synced, bytes < budget / 2);
        let after = written.map_err(|source| {
            let error = segment.io("write", source);
            let full = matches!(error, Error::NoSpace { .. });
            if full && !mutant::on(Mutant::PartLeftOnFullDisk) {
                // What was written of it is cut off, so that the next try starts on clean ground.
                if let Err(source) = segment.file.set_len(end.position) {
                    return segment.io("cut", source);
                }
            }
            error
        })?;
        let sync = || match mutant::on(Mutant::AckWithoutSync) {
            true => Ok(()),
            false => segment.file.sync_data(),
        };
        let again = |error| match mutant::on(Mutant::FailedSyncRetried) {
            true => segment.file.sync_data(),
            false => Err(error),
        };
        sync().or_else(again).map_err(|source| Error::Io {
            operation: "sync",
            path: segment.path.clone(),
            source,
        })?;
        let grown = after.position - end.position;
        *end = after;
        Ok(grown)
    }

    fn failed(&self, error: Error, staged: Staged) -> Error {
        let mut state = self.state();
        match error {
            Error::NoSpace { .. } if mutant::on(Mutant::StagedForgotten) => {}
            Error::NoSpace { .. } => state.staged.put_back(staged),
            _ => state.poisoned = !mutant::on(Mutant::FailureForgiven),
        }
        drop(state);
        self.marks.send_modify(|_| {});
        error
    }

    fn publish(&self, after: &EndOf, grown: u64, buffers: Vec<Vec<u8>>) {
        let mut state = self.state();
        state.staged.reuse(buffers);
        state.durable = state.taken;
        state.durable_mark = after.mark;
        state.is_sealed = false;
        if let Some((_, bytes)) = state.segments.last_mut() {
            *bytes += grown;
        }
        // Together with the state: who finds its group durable finds the watermark moved.
        self.marks.send_modify(|marks| {
            marks.synced = after.last;
            marks.complete = after.complete;
            marks.bytes += grown;
        });
        drop(state);
        self.written.notify_all();
    }

    /// Whether a segment ends once that much more was written to it. One without records has nothing to end: the
    /// next would begin where it does.
    fn is_full(&self, writer: &Writer, more: u64) -> bool {
        writer.end.position - writer.segment.body() + more >= self.segment_bytes
    }

    /// Begins a new segment behind what was just written.
    fn rotate(&self, writer: &mut Writer, tail: &Tail) -> Result<(), Error> {
        if tail.next == writer.segment.header.base {
            return Ok(());
        }
        let segment = match Segment::create(self.disk.as_ref(), &self.dir, self.id, tail) {
            // The old one just grows on until there is room for a new one.
            Err(Error::NoSpace { .. }) => return Ok(()),
            Err(error) => {
                self.poison();
                return Err(error);
            }
            Ok(created) => created,
        };
        let bytes = segment.body();
        self.budget.force(self.id, bytes);
        (writer.end.position, writer.end.chain) = (bytes, segment.header.crc());
        writer.segment = segment;
        let mut state = self.state();
        state.segments.push((tail.next, bytes));
        // The head of this one says of the one before that it was durable.
        state.is_sealed = true;
        drop(state);
        self.marks.send_modify(|marks| marks.bytes += bytes);
        Ok(())
    }

    fn end_of(&self, state: &State) -> EndOf {
        EndOf { last: state.tail.next.prev(), complete: state.tail.complete, mark: state.tail.mark }
    }

    /// Refuses what no segment could begin behind.
    fn check_state(&self, state: &State, records: &Records) -> Result<(), Error> {
        let offset = state.tail.next;
        let bytes =
            state.tail.bytes_with(records).map_err(|source| Error::Record { offset, source })?;
        match bytes <= STATE_BYTES_MAX {
            true => Ok(()),
            false => Err(Error::TooManyTables { stream: self.id, bytes, max: STATE_BYTES_MAX }),
        }
    }

    /// Takes nothing more until the stream is opened anew.
    fn poison(&self) {
        self.state().poisoned = true;
        self.marks.send_modify(|_| {});
    }

    fn check(&self, state: &State) -> Result<(), Error> {
        match state.poisoned {
            true => Err(Error::Poisoned { stream: self.id }),
            false => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The base of the segment that holds `offset`, or will; `None` if it is held no more.
    pub(super) fn segment_with(&self, offset: Offset) -> Option<Offset> {
        let state = self.state();
        let after = state.segments.partition_point(|(base, _)| *base <= offset);
        state.segments.get(after.checked_sub(1)?).map(|(base, _)| *base)
    }

    pub(super) fn segment_path(&self, base: Offset) -> PathBuf {
        self.dir.join(format::file_name(base))
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }
}

impl State {
    /// Where what is staged next will stand.
    fn start(&self) -> Start {
        (self.tail.next, self.tail.running)
    }
}

/// What becomes true when the staged records are durable.
struct EndOf {
    last: Offset,
    complete: Offset,
    mark: Option<Mark>,
}
