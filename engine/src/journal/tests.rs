//! The journal on a real folder: what is appended is read, what is torn is cut, what is corrupt halts.
#![expect(clippy::cast_possible_truncation, reason = "small numbers of the tests' own")]

use std::{fs, path::PathBuf};

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::{
    codec::{Records, RecordsBuf},
    model::{Epoch, Lsn, Offset, Record, RelationId, Row, Running, Timestamp, Value},
    storage::{
        disk::RealDisk,
        memory::{Fault, MemoryDisk},
    },
};

pub(super) struct Place {
    pub(super) dir: TempDir,
    pub(super) id: u8,
    options: Options,
}

impl Place {
    pub(super) fn new() -> Self {
        let own = Origin::from_bytes([7; 16]);
        let options = Options { own, segment: 64 << 10, budget: 1 << 30 };
        Self { dir: TempDir::new().unwrap(), id: 9, options }
    }

    pub(super) fn id(&self) -> StreamId {
        StreamId { origin: self.options.own, epoch: Epoch::from_bytes([self.id; 16]) }
    }

    pub(super) fn open(&self) -> Result<(Journal, Arc<Stream>), Error> {
        let (journal, mut unopened) =
            Journal::open(Arc::new(RealDisk), self.dir.path(), self.options)?;
        if let Some(unopened) = unopened.pop() {
            return Err(unopened.error);
        }
        let stream = journal.open_stream(self.id())?;
        Ok((journal, stream))
    }

    pub(super) fn segments(&self) -> Vec<PathBuf> {
        let dir = self.dir.path().join(self.id().to_string());
        let mut paths: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }
}

/// A row of a few hundred bytes that do not compress, the same for the same number.
fn insert(number: u64) -> Record {
    let mut state = number + 1;
    let mut byte = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let bytes: Vec<u8> = (0..100 + number % 300).map(|_| byte()).collect();
    Record::Insert { relation: RelationId(1), new: Row(vec![Value::Bytes(Bytes::from(bytes))]) }
}

/// A transaction of `rows` rows, whose number is its commit position.
pub(super) fn transaction(number: u64, rows: u64) -> Records {
    let mut buf = RecordsBuf::new();
    let time = Timestamp::from_micros(0);
    buf.push(&Record::Begin { xid: number as u32, lsn: Lsn::new(number), time });
    (0..rows).for_each(|row| buf.push(&insert(number * 1_000 + row)));
    buf.push(&Record::Commit { end: Lsn::new(number + 1) });
    buf.take()
}

pub(super) fn read_all(stream: &Arc<Stream>, from: Offset) -> Result<Vec<(Offset, Record)>, Error> {
    let (mut reader, mut all) = (stream.read(from)?, Vec::new());
    while let Some(block) = reader.next_block()? {
        all.extend(block.records.decode(block.first).map(Result::unwrap));
    }
    Ok(all)
}

#[test]
fn what_is_synced_is_read_again_from_any_offset_and_after_reopening() {
    let place = Place::new();
    let (journal, stream) = place.open().unwrap();
    for number in 1..=300 {
        stream.append(transaction(number, 8)).unwrap();
        if number % 7 == 0 {
            stream.sync().unwrap();
        }
    }
    assert!(stream.watermarks().synced < stream.watermarks().appended);
    stream.sync().unwrap();
    let (all, tail) = (read_all(&stream, Offset::FIRST).unwrap(), stream.tail());
    assert_eq!(all.len(), 3_000);
    assert!(place.segments().len() > 3, "rotation was not exercised");
    drop((journal, stream));

    let (_journal, stream) = place.open().unwrap();
    assert_eq!(stream.tail(), tail);
    for from in (1..=3_000).step_by(97) {
        let part = read_all(&stream, Offset::new(from)).unwrap();
        assert_eq!(part, all[from as usize - 1..]);
    }
    let mut running = Running::START;
    for (offset, record) in &all {
        running = Records::one(record).running(running);
        if offset.get() % 191 == 0 {
            assert_eq!(stream.running_at(*offset).unwrap(), Some(running), "{offset}");
        }
    }
    assert_eq!(tail.running, running);
}

#[test]
fn opening_reads_nothing_of_any_segment_but_the_last() {
    let place = Place::new();
    let (journal, stream) = place.open().unwrap();
    for number in 1..=200 {
        stream.append(transaction(number, 4)).unwrap();
        stream.sync().unwrap();
    }
    let (marks, tail) = (stream.watermarks(), stream.tail());
    drop((journal, stream));
    let paths = place.segments();
    assert!(paths.len() > 2);
    for path in &paths[..paths.len() - 1] {
        let length = fs::metadata(path).unwrap().len();
        fs::write(path, vec![0; length as usize]).unwrap();
    }
    let (_journal, stream) = place.open().unwrap();
    assert_eq!((stream.watermarks(), stream.tail()), (marks, tail));
    assert!(read_all(&stream, Offset::FIRST).is_err());
}

#[test]
fn what_was_not_synced_is_not_readable() {
    let place = Place::new();
    let (_journal, stream) = place.open().unwrap();
    stream.append(transaction(1, 1)).unwrap();
    assert_eq!(read_all(&stream, Offset::FIRST).unwrap(), vec![]);
    assert_eq!(stream.running_at(Offset::FIRST).unwrap(), None);
}

#[test]
fn a_torn_tail_is_cut_at_the_last_whole_batch_wherever_it_is_torn() {
    let place = Place::new();
    let (journal, stream) = place.open().unwrap();
    stream.append(transaction(1, 2)).unwrap();
    stream.sync().unwrap();
    let kept = fs::metadata(&place.segments()[0]).unwrap().len();
    stream.append(transaction(2, 2)).unwrap();
    stream.sync().unwrap();
    drop((journal, stream));
    let whole = fs::read(&place.segments()[0]).unwrap();
    for len in kept..whole.len() as u64 {
        fs::write(&place.segments()[0], &whole[..len as usize]).unwrap();
        let (_journal, stream) = place.open().unwrap();
        assert_eq!(stream.watermarks().synced, Offset::new(4), "cut at {len}");
        assert_eq!(fs::metadata(&place.segments()[0]).unwrap().len(), kept);
    }
}

#[test]
fn every_flipped_bit_below_a_durable_batch_is_corruption() {
    let place = Place::new();
    let (journal, stream) = place.open().unwrap();
    for number in 1..=3 {
        stream.append(transaction(number, 1)).unwrap();
        stream.sync().unwrap();
    }
    let proven = 6;
    drop((journal, stream));
    let path = place.segments()[0].clone();
    let whole = fs::read(&path).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bytes).unwrap();
        match place.open() {
            Err(Error::Corrupt { .. } | Error::Version { .. }) => {
                assert_eq!(fs::read(&path).unwrap(), bytes, "a corrupt file was touched");
            }
            Err(other) => panic!("bit {bit}: {other}"),
            // The last batch is proven by nothing behind it: it may only be cut, never changed.
            Ok((_journal, stream)) => {
                assert_eq!(stream.watermarks().synced, Offset::new(proven), "bit {bit}");
            }
        }
    }
}

#[test]
fn a_segment_cut_or_taken_from_the_middle_is_corruption_when_read() {
    let place = Place::new();
    let (journal, stream) = place.open().unwrap();
    for number in 1..=600 {
        stream.append(transaction(number, 4)).unwrap();
        stream.sync().unwrap();
    }
    drop((journal, stream));
    let first = place.segments()[0].clone();
    let len = fs::metadata(&first).unwrap().len();
    fs::OpenOptions::new().write(true).open(&first).unwrap().set_len(len - 9).unwrap();
    let (journal, stream) = place.open().unwrap();
    assert!(matches!(read_all(&stream, Offset::FIRST), Err(Error::Corrupt { .. })));
    drop((journal, stream));
    fs::remove_file(&place.segments()[1]).unwrap();
    let (_journal, stream) = place.open().unwrap();
    assert!(matches!(read_all(&stream, Offset::FIRST), Err(Error::Corrupt { .. })));
}

#[test]
fn records_that_are_held_are_not_numbered_twice_and_a_hole_is_refused() {
    let place = Place::new();
    let (_journal, stream) = place.open().unwrap();
    let records = transaction(1, 8);
    stream.append_at(Offset::FIRST, records.until(4)).unwrap();
    assert_eq!(stream.append_at(Offset::FIRST, records.until(3)).unwrap(), Offset::new(4));
    assert_eq!(stream.append_at(Offset::new(3), records.after(2)).unwrap(), Offset::new(10));
    let hole = stream.append_at(Offset::new(12), transaction(2, 1));
    assert!(matches!(hole, Err(Error::Hole { .. })));
    stream.sync().unwrap();
    let read: Vec<_> = read_all(&stream, Offset::FIRST).unwrap();
    let sent: Vec<_> = records.decode(Offset::FIRST).map(Result::unwrap).collect();
    assert_eq!(read, sent);
}

#[test]
fn trimming_removes_whole_segments_and_reading_before_them_says_so() {
    let place = Place::new();
    let (journal, stream) = place.open().unwrap();
    for number in 1..=600 {
        stream.append(transaction(number, 4)).unwrap();
        stream.sync().unwrap();
    }
    let (used, last) = (journal.usage().bytes, stream.watermarks().synced);
    assert_eq!(stream.trim(last, false).unwrap(), 0, "priming is kept");
    let freed = stream.trim(Offset::new(1_000), true).unwrap();
    let marks = stream.watermarks();
    assert!(freed > 0 && marks.first > Offset::FIRST && marks.first <= Offset::new(1_001));
    assert_eq!(journal.usage().bytes, used - freed);
    assert!(matches!(stream.read(Offset::FIRST), Err(Error::Trimmed { .. })));
    let running = stream.running_at(marks.first.prev()).unwrap();
    assert!(running.is_some(), "the place before the first record can still be proven");
    drop((journal, stream));
    let (_journal, stream) = place.open().unwrap();
    assert_eq!(stream.watermarks().first, marks.first);
    assert_eq!(read_all(&stream, marks.first).unwrap().len() as u64, last.since(marks.first) + 1);
}

#[test]
fn a_segment_that_could_not_be_removed_does_not_stay_behind_one_that_was() {
    let options = Options { own: Origin::from_bytes([7; 16]), segment: 4 << 10, budget: 1 << 30 };
    let id = StreamId { origin: options.own, epoch: Epoch::from_bytes([9; 16]) };
    let open = |disk: &MemoryDisk| {
        let (journal, _) = Journal::open(Arc::new(disk.clone()), Path::new("j"), options).unwrap();
        journal.open_stream(id).unwrap()
    };
    // The first try fails at one operation, the next is cut off by the power at another, and either state of three
    // names may survive.
    for (failing, operation, names) in
        (0..2).flat_map(|f| (0..8).flat_map(move |o| (0..8_usize).map(move |n| (f, o, n))))
    {
        let disk = MemoryDisk::new();
        let stream = open(&disk);
        for number in 1..=12 {
            stream.append(transaction(number, 8)).unwrap();
            stream.sync().unwrap();
        }
        let marks = stream.watermarks();
        disk.fail(failing, Fault::Error, false);
        assert!(matches!(stream.trim(marks.synced, true), Err(Error::Io { .. })));
        assert_eq!(stream.watermarks(), marks, "what is not gone for certain is still held");
        disk.fail(operation, Fault::Error, true);
        drop(stream.trim(marks.synced, true));
        disk.heal();
        let mut left = names;
        let cut = disk.power_cut(&mut |n| {
            let chosen = left % n;
            left >>= 1;
            chosen
        });
        let stream = open(&cut);
        let read = read_all(&stream, stream.watermarks().first);
        assert!(read.is_ok(), "{failing}, {operation}, {names:b}: {read:?}");
    }
}

#[test]
fn an_open_transaction_and_a_mark_survive_reopening() {
    let place = Place::new();
    let (journal, stream) = place.open().unwrap();
    let mark = Mark { lsn: Lsn::new(5), timeline: 1, system: 77, released: false };
    stream.append(transaction(6, 2)).unwrap();
    stream.mark(mark).unwrap();
    assert_eq!(stream.durable_mark(), None);
    stream.append(transaction(9, 40).until(30)).unwrap();
    stream.sync().unwrap();
    let tail = stream.tail();
    drop((journal, stream));
    let (_journal, stream) = place.open().unwrap();
    assert_eq!(stream.durable_mark(), Some(mark));
    assert_eq!(stream.tail(), tail);
    let open = tail.open.unwrap();
    assert_eq!((open.begin, open.xid, open.records), (Offset::new(5), Some(9), 30));
    assert_eq!(tail.complete, Offset::new(4));
    assert_eq!(tail.last_commit, Some((Lsn::new(6), Lsn::new(7))));
}

#[test]
fn a_segment_of_marks_alone_grows_on_and_is_never_replaced_by_itself() {
    let place = Place::new();
    let (journal, stream) = place.open().unwrap();
    let mark = |lsn| Mark { lsn: Lsn::new(lsn), timeline: 1, system: 7, released: false };
    for lsn in 1..=1_500 {
        stream.mark(mark(lsn)).unwrap();
        stream.sync().unwrap();
    }
    assert_eq!(place.segments().len(), 1);
    assert!(fs::metadata(&place.segments()[0]).unwrap().len() > 64 << 10);
    stream.append(transaction(1, 1)).unwrap();
    stream.sync().unwrap();
    assert_eq!(place.segments().len(), 2, "records end it");
    drop((journal, stream));
    let (_journal, stream) = place.open().unwrap();
    assert_eq!(stream.durable_mark(), Some(mark(1_500)));
    assert_eq!(stream.watermarks().synced, Offset::new(3));
}

#[test]
fn the_head_of_a_segment_that_was_being_created_proves_what_is_before_it() {
    let place = Place::new();
    let (journal, stream) = place.open().unwrap();
    let (mut number, mut lengths) = (0, Vec::new());
    while place.segments().len() < 2 {
        number += 1;
        lengths.push(fs::metadata(&place.segments()[0]).unwrap().len() as usize);
        stream.append(transaction(number, 4)).unwrap();
        stream.sync().unwrap();
    }
    let (marks, last) = (stream.watermarks(), lengths.pop().unwrap());
    drop((journal, stream));
    let [before, unborn] = &place.segments()[..] else { panic!("one segment has ended") };
    let sound = fs::read(before).unwrap();
    let mut flipped = sound.clone();
    flipped[last + 60] ^= 1;
    let head = fs::read(unborn).unwrap();
    for (damaged, at) in [(&flipped[..], last), (&sound[..last], last), (&sound[..9_000], 0)] {
        fs::write(before, damaged).unwrap();
        fs::write(unborn, &head[..head.len() - 1]).unwrap();
        let error = place.open().unwrap_err();
        let Error::Corrupt { segment, at: found, offset, .. } = &error else { panic!("{error}") };
        assert_eq!((segment, *offset <= marks.synced), (before, true), "{error}");
        assert!(at == 0 || *found == at as u64, "{error}");
        assert_eq!((fs::read(before).unwrap(), place.segments().len()), (damaged.to_vec(), 2));
    }
    // What does not say by itself what it is proves nothing.
    fs::write(before, &flipped).unwrap();
    fs::write(unborn, &head[..40]).unwrap();
    let (journal, stream) = place.open().unwrap();
    assert!(stream.watermarks().synced < marks.synced && place.segments().len() == 1);
    drop((journal, stream));
    fs::write(before, &sound).unwrap();
    fs::write(unborn, &head[..head.len() - 1]).unwrap();
    let (_journal, stream) = place.open().unwrap();
    assert_eq!((stream.watermarks().synced, place.segments().len()), (marks.synced, 1));
    assert_eq!(stream.append(transaction(number, 1)).unwrap(), marks.synced.forward(3));
}

#[test]
fn swapped_segments_are_corruption_and_are_not_touched() {
    let place = Place::new();
    let (journal, stream) = place.open().unwrap();
    for number in 1..=600 {
        stream.append(transaction(number, 4)).unwrap();
        stream.sync().unwrap();
    }
    drop((journal, stream));
    let [.., before, last] = &place.segments()[..] else { panic!("too few segments") };
    let (first, second) = (fs::read(before).unwrap(), fs::read(last).unwrap());
    fs::write(before, &second).unwrap();
    fs::write(last, &first).unwrap();
    assert!(matches!(place.open(), Err(Error::Corrupt { .. })));
    assert_eq!((fs::read(before).unwrap(), fs::read(last).unwrap()), (second, first));
}

#[test]
fn a_skipped_run_takes_its_offsets_and_carries_the_checksum_over() {
    let place = Place::new();
    let (_journal, stream) = place.open().unwrap();
    let all = transaction(1, 20);
    let skip = Record::Skip { count: 12, running: all.until(12).running(Running::START) };
    stream.append(Records::one(&skip)).unwrap();
    stream.append_at(Offset::new(13), all.after(12)).unwrap();
    stream.sync().unwrap();
    assert_eq!(stream.tail().running, all.running(Running::START));
    let after = stream.running_at(Offset::new(15)).unwrap();
    assert_eq!(after, Some(all.until(15).running(Running::START)));
    assert_eq!(stream.running_at(Offset::new(5)).unwrap(), None);
    let read = read_all(&stream, Offset::new(6)).unwrap();
    assert_eq!(read[0].1.span(), 7, "a run is cut where reading begins");
}

#[test]
fn a_full_budget_refuses_without_losing_and_takes_again_after_trimming() {
    let mut place = Place::new();
    place.options.budget = 4 << 20;
    let (_journal, stream) = place.open().unwrap();
    let mut number = 0;
    let full = loop {
        number += 1;
        if let Err(error) = stream.append(transaction(number, 20)) {
            break error;
        }
        stream.sync().unwrap();
    };
    assert!(matches!(full, Error::Full { .. }), "{full}");
    let last = stream.watermarks().synced;
    assert_eq!(last, stream.watermarks().appended);
    assert!(stream.trim(last, true).unwrap() > 0);
    assert_eq!(stream.append(transaction(number, 20)).unwrap(), last.forward(22));
}

#[test]
fn a_second_process_is_refused() {
    let place = Place::new();
    let _held = place.open().unwrap();
    assert!(matches!(place.open(), Err(Error::Locked { .. })));
}

#[test]
fn journals_beside_one_another_are_opened_at_once() {
    let above = TempDir::new().unwrap();
    let options = Place::new().options;
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let above = above.path();
            scope.spawn(move || {
                for round in 0..50 {
                    let dir = above.join(format!("{thread}-{round}"));
                    Journal::open(Arc::new(RealDisk), &dir, options).unwrap();
                }
            });
        }
    });
    let left = fs::read_dir(above.path()).unwrap().count();
    assert_eq!(left, 8 * 50, "nothing but the journals is left in the folder above them");
}

#[test]
fn a_segment_of_an_unknown_version_is_refused_and_not_touched() {
    let place = Place::new();
    drop(place.open().unwrap());
    let path = place.segments()[0].clone();
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    let crc = crc32fast::hash(&bytes[..64]);
    bytes[64..68].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(place.open(), Err(Error::Version { version: 2, .. })));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_last_segment_of_a_later_version_is_never_taken_for_one_that_was_being_created() {
    let place = Place::new();
    let (journal, stream) = place.open().unwrap();
    for number in 1..=200 {
        stream.append(transaction(number, 4)).unwrap();
        stream.sync().unwrap();
    }
    drop((journal, stream));
    let path = place.segments().pop().unwrap();
    let sound = fs::read(&path).unwrap();
    // All that stands in every version is magic, version and checksum; and its batches may be anywhere, or none.
    for (version, length) in [(2, 68), (2, 500), (u16::MAX, 68), (7, sound.len())] {
        let mut bytes: Vec<u8> = (0..length).map(|at| (at * 37) as u8).collect();
        bytes[..8].copy_from_slice(&sound[..8]);
        bytes[8..10].copy_from_slice(&version.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..64]);
        bytes[64..68].copy_from_slice(&crc.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        let error = place.open().unwrap_err();
        assert!(matches!(error, Error::Version { version: v, .. } if v == version), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "it was touched");
    }
}
