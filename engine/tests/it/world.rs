//! What the proofs of the journal share: chance from a seed, a small journal on the disk that forgets, and the
//! model of what it must hold.

use std::{
    cell::Cell,
    env,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use thinwire_engine::{
    Error,
    codec::{Records, RecordsBuf, put_varint},
    journal::{Journal, Mark, Options, Stream},
    model::{
        Epoch, Lsn, Offset, Origin, Record, RelationId, Row, Running, StreamId, Timestamp, Value,
    },
    storage::memory::{Fault, MemoryDisk},
};

pub(crate) const DIR: &str = "journal";
pub(crate) const OWN: Origin = Origin::from_bytes([1; 16]);
pub(crate) const ID: StreamId = StreamId { origin: OWN, epoch: Epoch::from_bytes([2; 16]) };

/// Segments so small that they end all the time.
pub(crate) const OPTIONS: Options = Options { own: OWN, segment: 4 << 10, budget: 1 << 40 };

pub(crate) fn stream_dir() -> PathBuf {
    Path::new(DIR).join(ID.to_string())
}

/// splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

thread_local! {
    /// What this thread has seen of disks and streams, if that is of interest.
    static TRACE: Cell<Option<u32>> = const { Cell::new(None) };
}

/// A checksum of every disk on which a journal is opened meanwhile, and of what is said then; and of what is returned.
pub(crate) fn traced(proof: impl FnOnce() -> u64) -> u32 {
    TRACE.set(Some(0));
    let returned = proof();
    trace(&returned.to_le_bytes());
    TRACE.take().expect("it was begun above")
}

fn trace(bytes: &[u8]) {
    TRACE.set(TRACE.get().map(|before| {
        let mut hasher = crc32fast::Hasher::new_with_initial(before);
        hasher.update(bytes);
        hasher.finalize()
    }));
}

fn trace_opening(disk: &MemoryDisk, opened: &Result<(Journal, Arc<Stream>), Error>) {
    if TRACE.get().is_none() {
        return;
    }
    for path in disk.files() {
        trace(path.to_string_lossy().as_bytes());
        trace(&disk.content(&path));
    }
    let said = match opened {
        Ok((_, stream)) => format!("{:?} {:?}", stream.watermarks(), stream.tail()),
        Err(error) => error.to_string(),
    };
    trace(format!("{} {said}", disk.operations()).as_bytes());
}

/// Opens the journal and its stream.
pub(crate) fn open(disk: &MemoryDisk) -> Result<(Journal, Arc<Stream>), Error> {
    let opened = try_open(disk);
    trace_opening(disk, &opened);
    opened
}

fn try_open(disk: &MemoryDisk) -> Result<(Journal, Arc<Stream>), Error> {
    let (journal, mut unopened) = Journal::open(Arc::new(disk.clone()), Path::new(DIR), OPTIONS)?;
    match unopened.pop() {
        Some(unopened) => Err(unopened.error),
        None => {
            let stream = journal.open_stream(ID)?;
            Ok((journal, stream))
        }
    }
}

/// Bytes that do not compress, to cut rows from.
static NOISE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut random = Random(0);
    (0..1 << 15).flat_map(|_| random.next().to_le_bytes()).collect::<Vec<u8>>().into()
});

/// A row of `size` bytes, which is another each time.
pub(crate) fn insert(size: usize, random: &mut Random) -> Record {
    let at = random.below(NOISE.len() - size);
    let new = Row(vec![Value::Bytes(NOISE.slice(at..at + size))]);
    Record::Insert { relation: RelationId(random.below(1 << 20) as u32), new }
}

/// A transaction of rows of these sizes.
pub(crate) fn transaction(sizes: &[usize], random: &mut Random) -> Records {
    let mut buf = RecordsBuf::new();
    let (lsn, time) = (Lsn::new(random.next() >> 20), Timestamp::from_micros(0));
    buf.push(&Record::Begin { xid: random.next() as u32, lsn, time });
    for size in sizes {
        buf.push(&insert(*size, random));
    }
    buf.push(&Record::Commit { end: lsn.into_next() });
    buf.take()
}

trait Next {
    fn into_next(self) -> Self;
}

impl Next for Lsn {
    fn into_next(self) -> Self {
        Self::new(self.get() + 1)
    }
}

pub(crate) fn mark(number: u64) -> Mark {
    Mark { lsn: Lsn::new(number), timeline: 1, system: 1, released: false }
}

/// The first bytes of the records that begin and end a transaction.
const BEGIN: u8 = 1;
const COMMIT: u8 = 2;

/// What is known of a record that was appended.
#[derive(Clone, Debug)]
struct Entry {
    record: Bytes,
    /// The checksum of all records up to it, computed here.
    running: Running,
    /// The last record up to it that leaves no transaction open.
    complete: usize,
    /// Whether it leaves one open.
    open: bool,
    /// The last record that had been acknowledged when it was written.
    synced_before: usize,
}

/// What the journal must hold: all that was appended, and how much of it was acknowledged or trimmed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    entries: Vec<Entry>,
    pub(crate) acked: usize,
    pub(crate) trimmed: usize,
    /// The number of the last mark that was staged, and of the last that was acknowledged.
    pub(crate) mark: u64,
    pub(crate) acked_mark: u64,
    /// The last record, and the last mark, in front of a word that all there is durable.
    pub(crate) sealed: (usize, u64),
}

impl Model {
    /// How many records were appended.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn running(&self, offset: usize) -> Running {
        offset.checked_sub(1).map_or(Running::START, |last| self.entries[last].running)
    }

    /// Takes what was appended.
    pub(crate) fn append(&mut self, records: &Records) {
        for record in records.iter() {
            let mut length = Vec::with_capacity(5);
            put_varint(record.len() as u64, &mut length);
            let running = self.running(self.len()).extend(&length).extend(&record);
            let (before, open) =
                self.entries.last().map_or((0, false), |entry| (entry.complete, entry.open));
            let open = match record.first() {
                Some(&BEGIN) => true,
                Some(&COMMIT) => false,
                _ => open,
            };
            let complete = if open { before } else { self.len() + 1 };
            let synced_before = usize::MAX;
            self.entries.push(Entry { record, running, complete, open, synced_before });
        }
    }

    /// Takes that all was made durable.
    pub(crate) fn synced(&mut self, upto: Offset) {
        self.written(upto.get() as usize);
        self.acked_mark = self.mark;
    }

    /// Takes that the stream was to be sealed.
    pub(crate) fn sealed(&mut self, stream: &Stream) {
        if stream.is_sealed() {
            self.sealed = (self.acked, self.acked_mark);
        }
    }

    fn written(&mut self, upto: usize) {
        let before = self.acked;
        for entry in self.entries.iter_mut().take(upto).skip(before) {
            entry.synced_before = before;
        }
        self.acked = upto;
    }

    /// The records from this offset on.
    pub(crate) fn records_from(&self, offset: usize) -> Records {
        let mut buf = RecordsBuf::new();
        self.entries[offset - 1..].iter().for_each(|entry| buf.push_encoded(&entry.record, 1));
        buf.take()
    }

    /// What the batch that begins with this record must say had been durable.
    pub(crate) fn synced_before(&self, offset: usize) -> Option<usize> {
        self.entries.get(offset.checked_sub(1)?).map(|entry| entry.synced_before)
    }

    /// After a power cut: what was acknowledged is there, and what is there was appended. From then on, what was
    /// recovered counts as acknowledged.
    pub(crate) fn recovered(&mut self, stream: &Stream) {
        let marks = stream.watermarks();
        let held = marks.synced.get() as usize;
        assert!(held >= self.acked, "{} records were acknowledged, {held} are held", self.acked);
        assert!(held <= self.len(), "{held} records are held, {} were appended", self.len());
        assert_eq!(marks.appended, marks.synced);
        let first = marks.first.get() as usize;
        assert!(first <= self.trimmed + 1, "trimmed to {first}, allowed was {}", self.trimmed);
        let (next, running, open) = stream.end();
        assert_eq!(next.get() as usize, held + 1);
        assert_eq!(running, self.running(held), "other records than those that were appended");
        let complete = held.checked_sub(1).map_or(0, |last| self.entries[last].complete);
        assert_eq!(marks.complete.get() as usize, complete);
        assert_eq!(open.is_some(), complete < held);
        let mark = stream.durable_mark().map_or(0, |mark| mark.lsn.get());
        assert!(
            mark >= self.acked_mark,
            "mark {} was acknowledged, {mark} is held",
            self.acked_mark
        );
        assert!(mark <= self.mark, "mark {mark} is held, {} was staged", self.mark);
        self.entries.truncate(held);
        self.written(held);
        (self.mark, self.acked_mark) = (mark, mark);
    }

    /// All that is held is read, and is what was appended.
    pub(crate) fn read(&self, stream: &Arc<Stream>) {
        self.try_read(stream).unwrap_or_else(|error| panic!("{error}"));
    }

    /// The same, if it can be read at all.
    pub(crate) fn try_read(&self, stream: &Arc<Stream>) -> Result<(), Error> {
        let marks = stream.watermarks();
        let mut at = marks.first.get() as usize;
        let mut reader = stream.read(marks.first)?;
        while let Some(block) = reader.next_block()? {
            assert_eq!(block.running, self.running(at - 1), "before record {at}");
            for record in block.records.iter() {
                assert!(at <= self.len(), "record {at} was never appended");
                assert!(record == self.entries[at - 1].record, "record {at} is another");
                at += 1;
            }
        }
        assert_eq!(at, marks.synced.get() as usize + 1);
        Ok(())
    }

    /// The disk holds what is accounted for, and nothing else.
    pub(crate) fn accounted(&self, disk: &MemoryDisk, stream: &Stream) {
        assert_eq!(disk.used() as u64, stream.watermarks().bytes, "bytes on disk");
    }
}

/// One random thing that a node does with its stream.
pub(crate) fn act(stream: &Stream, model: &mut Model, random: &mut Random) -> Result<(), Error> {
    match random.below(18) {
        0..=4 => append(stream, model, &[random.below(90)], random)?,
        5 | 6 => {
            append(stream, model, &[random.below(900), random.below(700), 3], random)?;
        }
        7 => append(stream, model, &[3_000 + random.below(4_000)], random)?,
        8 => {
            stream.mark(mark(model.mark + 1))?;
            model.mark += 1;
        }
        9..=14 => model.synced(stream.sync()?),
        15 | 16 => {
            match stream.seal() {
                // Nothing was staged, and nothing is.
                Err(Error::NoSpace { .. }) => assert!(!stream.has_staged() && !stream.is_sealed()),
                sealed => {
                    sealed?;
                    assert!(stream.has_staged() || stream.is_sealed());
                }
            }
            model.sealed(stream);
        }
        _ => {
            model.trimmed = model.trimmed.max(random.below(model.acked + 1));
            stream.trim(Offset::new(model.trimmed as u64), true)?;
        }
    }
    Ok(())
}

/// Appends a transaction, sometimes in two parts.
pub(crate) fn append(
    stream: &Stream,
    model: &mut Model,
    sizes: &[usize],
    random: &mut Random,
) -> Result<(), Error> {
    let records = transaction(sizes, random);
    let parts = match random.below(3) {
        0 => vec![records.until(1), records.after(1)],
        _ => vec![records],
    };
    for part in parts {
        let last = stream.append(part.clone())?;
        model.append(&part);
        assert_eq!(last.get() as usize, model.len());
    }
    Ok(())
}

/// A disk on which a node was interrupted at some operation, some times, and what its journal must hold.
pub(crate) fn interrupted(random: &mut Random) -> (MemoryDisk, Model) {
    let (disk, mut model) = (MemoryDisk::new(), Model::default());
    for _ in 0..1 + random.below(3) {
        let Ok((_journal, stream)) = open(&disk) else { break };
        model.recovered(&stream);
        disk.fail(random.below(24) as u64, Fault::Error, true);
        for _ in 0..random.below(24) {
            if act(&stream, &mut model, random).is_err() {
                break;
            }
        }
        disk.heal();
    }
    (disk, model)
}

/// Whether failures are expected, and so not worth a word.
pub(crate) static QUIET: AtomicBool = AtomicBool::new(false);

/// What is being tried, said when it fails.
pub(crate) struct Place(pub(crate) String);

impl Drop for Place {
    fn drop(&mut self) {
        if thread::panicking() && !QUIET.load(Ordering::Relaxed) {
            say(&self.0);
        }
    }
}

/// How often to try, by an environment variable.
pub(crate) fn count(variable: &str, default: u64) -> u64 {
    env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What all threads together have done.
pub(crate) struct Tally {
    pub(crate) took: Duration,
    pub(crate) total: u64,
}

/// Runs the cases of so many seeds, from `THINWIRE_FIRST_SEED` or 0 on, on all cores; only that of `THINWIRE_SEED` if it
/// is set. A case says how much it was worth; the sum is the tally.
pub(crate) fn each_seed(test: &str, seeds: u64, case: impl Fn(u64) -> u64 + Sync) -> Tally {
    let only = env::var("THINWIRE_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let start = count("THINWIRE_FIRST_SEED", 0);
    let (first, end) = only.map_or((start, start + seeds), |seed| (seed, seed + 1));
    let (next, total, started) = (AtomicU64::new(first), AtomicU64::new(0), Instant::now());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| case(seed))) {
                Ok(worth) => total.fetch_add(worth, Ordering::Relaxed),
                Err(_) => {
                    next.store(end, Ordering::Relaxed);
                    panic!(
                        "seed {seed} fails; replay it with THINWIRE_SEED={seed} \
                         cargo test -p thinwire-engine --test it -- {test}"
                    );
                }
            };
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    Tally { took: started.elapsed(), total: total.into_inner() }
}

/// Says what was proven, past the harness that keeps the output of tests that pass.
pub(crate) fn say(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}
