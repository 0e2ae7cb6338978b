//! Power cuts and failing disks at every point of the journal's life: nothing acknowledged is lost, nothing
//! else appears, and a pure power cut never halts a stream.
//!
//! `THINWIRE_CRASHES` sets how many power cuts the loop makes; each seed replays exactly and is printed when it fails.

use std::{env, path::Path, sync::Arc};

use bytes::Bytes;
use thinwire_engine::{
    Error,
    codec::{Records, RecordsBuf},
    journal::{Journal, Mark, Options, Stream},
    model::{Epoch, Lsn, Offset, Origin, Record, RelationId, Row, StreamId, Timestamp, Value},
    storage::memory::{Fault, MemoryDisk},
};

const DIR: &str = "journal";

fn options() -> Options {
    Options { own: Origin::from_bytes([1; 16]), segment: 64 << 10, budget: 1 << 40 }
}

fn id() -> StreamId {
    StreamId { origin: options().own, epoch: Epoch::from_bytes([2; 16]) }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

fn open(disk: &MemoryDisk) -> Result<(Journal, Arc<Stream>), Error> {
    let (journal, mut unopened) = Journal::open(Arc::new(disk.clone()), Path::new(DIR), options())?;
    match unopened.pop() {
        Some(unopened) => Err(unopened.error),
        None => {
            let stream = journal.open_stream(id())?;
            Ok((journal, stream))
        }
    }
}

/// A transaction that says its number, of some rows of some size.
fn transaction(number: u64, random: &mut Random) -> Records {
    let mut buf = RecordsBuf::new();
    let time = Timestamp::from_micros(0);
    buf.push(&Record::Begin { xid: 1, lsn: Lsn::new(number), time });
    let large = random.below(3) == 0;
    for _ in 0..random.below(4) {
        let size = if large { random.below(40_000) } else { random.below(300) };
        let bytes: Vec<u8> = (0..size).map(|_| random.next().to_le_bytes()[0]).collect();
        let new = Row(vec![Value::Bytes(Bytes::from(bytes))]);
        buf.push(&Record::Insert { relation: RelationId(1), new });
    }
    buf.push(&Record::Commit { end: Lsn::new(number) });
    buf.take()
}

/// What the journal must hold: all that was appended, and how much of it was acknowledged or trimmed.
#[derive(Default)]
struct Model {
    records: Vec<Bytes>,
    acked: usize,
    trimmed: usize,
}

impl Model {
    /// After a power cut: what was acknowledged is there, and what is there was appended.
    fn check(&mut self, stream: &Arc<Stream>) {
        let marks = stream.watermarks();
        let held = marks.synced.get() as usize;
        assert!(held >= self.acked, "{} acknowledged, {held} held", self.acked);
        assert!(held <= self.records.len(), "{held} held, {} appended", self.records.len());
        let first = marks.first.get() as usize;
        assert!(first <= self.trimmed + 1, "trimmed to {first}, allowed was {}", self.trimmed);
        let (mut at, mut reader) = (first, stream.read(marks.first).unwrap());
        while let Some(block) = reader.next_block().unwrap() {
            for record in block.records.iter() {
                assert_eq!(record, self.records[at - 1], "record {at}");
                at += 1;
            }
        }
        assert_eq!(at, held + 1);
        // What was recovered is durable from now on.
        self.records.truncate(held);
        self.acked = held;
    }
}

fn act(stream: &Arc<Stream>, model: &mut Model, random: &mut Random) -> Result<(), Error> {
    match random.below(10) {
        0..=4 => {
            let records = transaction(model.records.len() as u64, random);
            let appended: Vec<Bytes> = records.iter().collect();
            stream.append(records)?;
            model.records.extend(appended);
        }
        5..=8 => model.acked = stream.sync()?.get() as usize,
        _ => {
            model.trimmed = model.trimmed.max(random.below(model.acked + 1));
            stream.trim(Offset::new(model.trimmed as u64), true)?;
        }
    }
    Ok(())
}

/// Acts, cuts the power, recovers, and again; a cut may also come while recovering.
fn life(seed: u64, crashes: u64) {
    let mut random = Random(seed);
    let (mut disk, mut model) = (MemoryDisk::new(), Model::default());
    for _ in 0..crashes {
        let (journal, stream) = open(&disk).expect("a power cut alone never halts a stream");
        model.check(&stream);
        drop(stream.mark(Mark { lsn: Lsn::ZERO, timeline: 1, system: 1, released: false }));
        for _ in 0..random.below(12) {
            act(&stream, &mut model, &mut random).unwrap();
        }
        drop((journal, stream));
        if random.below(4) == 0 {
            // Only the process was killed: the next one finds what the cache holds, and goes on.
            continue;
        }
        disk = disk.power_cut(&mut |n| random.below(n));
        while random.below(3) == 0 {
            let interrupted = disk.clone();
            interrupted.fail(random.below(4) as u64, Fault::Error, true);
            drop(open(&interrupted));
            interrupted.heal();
            disk = interrupted.power_cut(&mut |n| random.below(n));
        }
    }
}

#[test]
fn a_power_cut_at_any_time_loses_nothing_that_was_acknowledged() {
    let crashes = env::var("THINWIRE_CRASHES").ok().and_then(|text| text.parse().ok());
    let lives = crashes.unwrap_or(4_000_u64).div_ceil(40);
    for seed in 0..lives {
        let outcome = std::panic::catch_unwind(|| life(seed, 40));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

#[test]
fn an_error_at_any_operation_loses_nothing_that_was_acknowledged() {
    for fault in [Fault::Error, Fault::Lossy] {
        for sticky in [false, true] {
            for seed in 0..8 {
                for number in 0..60 {
                    fail_once(seed, number, fault, sticky);
                }
            }
        }
    }
}

fn fail_once(seed: u64, number: u64, fault: Fault, sticky: bool) {
    let place = format!("seed {seed}, operation {number}, {fault:?}, sticky {sticky}");
    let mut random = Random(seed);
    let (disk, mut model) = (MemoryDisk::new(), Model::default());
    disk.fail(number, fault, sticky);
    if let Ok((journal, stream)) = open(&disk) {
        for _ in 0..40 {
            match act(&stream, &mut model, &mut random) {
                Ok(()) => {}
                Err(Error::Poisoned { .. } | Error::Io { .. }) => {}
                Err(error) => panic!("{place}: {error}"),
            }
            // Nothing is acknowledged on top of a failed write, whatever the disk says later.
            if stream.is_poisoned() {
                assert!(stream.sync().is_err(), "{place}");
            }
        }
        drop((journal, stream));
    }
    disk.heal();
    // Once as a restarted process finds it, once as a power cut leaves it; and what was recovered must survive
    // the next power cut, because it was told to others.
    for disk in [disk.clone(), disk.power_cut(&mut |n| random.below(n))] {
        let mut expected =
            Model { records: model.records.clone(), acked: model.acked, trimmed: model.trimmed };
        let (journal, stream) = open(&disk).unwrap_or_else(|error| panic!("{place}: {error}"));
        expected.check(&stream);
        drop((journal, stream));
        let cut = disk.power_cut(&mut |n| random.below(n));
        let (_journal, stream) = open(&cut).unwrap_or_else(|error| panic!("{place}: {error}"));
        expected.check(&stream);
    }
}

#[test]
fn a_full_disk_loses_nothing_and_goes_on_when_there_is_room() {
    for seed in 0..30 {
        let mut random = Random(seed);
        let (disk, mut model) = (MemoryDisk::new(), Model::default());
        let (journal, stream) = open(&disk).unwrap();
        disk.limit(Some(300_000));
        let mut full = 0;
        for _ in 0..10_000 {
            if full == 20 {
                break;
            }
            match act(&stream, &mut model, &mut random) {
                Ok(()) => {}
                Err(Error::NoSpace { .. }) => full += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        assert!(full > 0, "seed {seed}: the disk was never full");
        disk.limit(None);
        model.acked = stream.sync().unwrap().get() as usize;
        assert_eq!(model.acked, model.records.len());
        drop((journal, stream));
        let (_journal, stream) = open(&disk.power_cut(&mut |n| random.below(n))).unwrap();
        model.check(&stream);
    }
}
