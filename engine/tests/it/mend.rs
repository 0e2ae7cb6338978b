//! Damaged segments: mended with another holder's records to what they were, or left as they are.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use thinwire_engine::{
    Error,
    codec::{Records, RecordsBuf},
    journal::{Journal, Mark, Mending, Options, Stream, inspect},
    model::{
        Copy, CopyTable, Epoch, Lsn, Offset, Origin, Record, RelationId, Row, StreamId, Timestamp,
        Value,
    },
    storage::{
        Disk,
        memory::{Fault, MemoryDisk},
    },
};

pub(crate) const DIR: &str = "journal";
const OWN: Origin = Origin::from_bytes([1; 16]);
pub(crate) const ID: StreamId = StreamId { origin: OWN, epoch: Epoch::from_bytes([2; 16]) };

/// splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

pub(crate) fn open(disk: &MemoryDisk) -> (Journal, Option<Arc<Stream>>) {
    let options = Options { own: OWN, segment: 64 << 10, budget: 1 << 40 };
    let (journal, unopened) =
        Journal::open(Arc::new(disk.clone()), Path::new(DIR), options).unwrap();
    let stream = unopened.is_empty().then(|| journal.open_stream(ID).unwrap());
    (journal, stream)
}

pub(crate) fn transaction(number: u64, random: &mut Random) -> Records {
    let mut buf = RecordsBuf::new();
    let time = Timestamp::from_micros(0);
    buf.push(&Record::Begin { xid: 1, lsn: Lsn::new(number), time });
    for _ in 0..random.below(6) {
        let bytes: Vec<u8> =
            (0..random.below(1_500)).map(|_| random.next().to_le_bytes()[0]).collect();
        let new = Row(vec![Value::Bytes(Bytes::from(bytes))]);
        buf.push(&Record::Insert { relation: RelationId(1), new });
    }
    buf.push(&Record::Commit { end: Lsn::new(number) });
    buf.take()
}

/// A journal of several segments with marks between, and all records that it holds, each with its span.
pub(crate) fn filled(seed: u64) -> (MemoryDisk, Vec<Records>) {
    let (disk, mut random, mut all) = (MemoryDisk::new(), Random(seed), Vec::new());
    let (_journal, stream) = open(&disk);
    let stream = stream.unwrap();
    for number in 0..120 {
        let records = transaction(number, &mut random);
        all.extend(records.iter().map(|record| {
            let mut buf = RecordsBuf::new();
            buf.push_encoded(&record, 1);
            buf.take()
        }));
        stream.append(records).unwrap();
        if random.below(9) == 0 {
            let lsn = Lsn::new(number);
            stream.mark(Mark { lsn, timeline: 1, system: 1, released: false }).unwrap();
        }
        if random.below(3) > 0 {
            stream.sync().unwrap();
        }
    }
    stream.sync().unwrap();
    (disk, all)
}

pub(crate) fn segments(disk: &MemoryDisk) -> Vec<(std::path::PathBuf, u64)> {
    let dir = Path::new(DIR).join(ID.to_string());
    let mut paths: Vec<_> = disk.list(&dir).unwrap().iter().map(|name| dir.join(name)).collect();
    paths.sort();
    let len = |path: &Path| disk.open(path, false).unwrap().len().unwrap();
    paths.into_iter().map(|path| (path.clone(), len(&path))).collect()
}

fn harm(disk: &MemoryDisk, random: &mut Random, path: &Path, len: u64) {
    let (at, run) = (random.below(len), [1, 40, 700, 9_000][random.below(4) as usize]);
    for byte in at..(at + run).min(len) {
        disk.flip(path, (byte * 8 + random.below(8)) as usize);
    }
}

pub(crate) fn read_all(stream: &Arc<Stream>) -> Result<Vec<Bytes>, Error> {
    let (mut reader, mut all) = (stream.read(Offset::FIRST)?, Vec::new());
    while let Some(block) = reader.next_block()? {
        all.extend(block.records.iter());
    }
    Ok(all)
}

/// Gives what is wanted out of all records, in pieces of random size.
pub(crate) fn nurse(mending: &mut Mending, all: &[Records], random: &mut Random) {
    while let Some(wanted) = mending.wanted() {
        let left = wanted.end.since(wanted.start);
        let (start, mut buf) = (wanted.start.prev().get() as usize, RecordsBuf::new());
        for record in &all[start..start + 1 + random.below(left) as usize] {
            buf.append(record);
        }
        mending.give(&buf.take()).unwrap();
    }
}

pub(crate) fn expected(all: &[Records]) -> Vec<Bytes> {
    all.iter().flat_map(|record| record.iter().collect::<Vec<_>>()).collect()
}

/// Damages every second segment, or all but the last, mends what readers meet while the stream goes on, and cuts the power; returns how many
/// records were missing.
pub(crate) fn damaged(seed: u64) -> u64 {
    let (mut fetched, (disk, mut all)) = (0, filled(seed));
    let mut random = Random(seed + 1_000_000);
    let (journal, stream) = open(&disk);
    let stream = stream.unwrap();
    let files = segments(&disk);
    assert!(files.len() > 2, "seed {seed}");
    let (which, step) = (random.below(2) as usize, 1 + random.below(2) as usize);
    for (path, len) in files[..files.len() + step - 2].iter().skip(which).step_by(step) {
        harm(&disk, &mut random, path, *len);
    }
    while let Err(error) = read_all(&stream) {
        assert!(matches!(error, Error::Corrupt { .. }), "seed {seed}: {error}");
        let offset = *stream.damage().borrow().first().unwrap();
        let mut mending = stream.mend(offset).unwrap();
        if random.below(4) == 0 {
            lie(&mut mending, &mut random);
        }
        nurse(&mut mending, &all, &mut random);
        // The stream goes on meanwhile.
        let records = transaction(7, &mut random);
        all.extend(records.iter().map(|record| {
            let mut buf = RecordsBuf::new();
            buf.push_encoded(&record, 1);
            buf.take()
        }));
        stream.append(records).unwrap();
        stream.sync().unwrap();
        fetched += mending.finish().unwrap().fetched;
        assert_eq!(stream.damage().borrow().len(), 0);
    }
    assert_eq!(read_all(&stream).unwrap(), expected(&all), "seed {seed}");
    let bytes = segments(&disk).iter().map(|(_, len)| len).sum::<u64>();
    assert_eq!(journal.usage().bytes, bytes, "seed {seed}: the budget knows the new sizes");
    let tail = stream.tail();
    drop((journal, stream));
    let (_journal, stream) = open(&disk.power_cut(&mut |n| random.below(n as u64) as usize));
    let stream = stream.unwrap();
    assert_eq!(read_all(&stream).unwrap(), expected(&all), "seed {seed}");
    assert_eq!(stream.tail(), tail, "seed {seed}");
    let dir = Path::new(DIR).join(ID.to_string());
    for report in inspect::verify(&disk, &dir).unwrap() {
        assert!(report.damage.is_none(), "seed {seed}: {report:?}");
    }
    fetched
}

/// Offers as many records as are wanted, but others.
fn lie(mending: &mut Mending, random: &mut Random) {
    let Some(wanted) = mending.wanted() else { return };
    let mut buf = RecordsBuf::new();
    for _ in 0..wanted.end.since(wanted.start) {
        buf.push(&Record::Commit { end: Lsn::new(random.next()) });
    }
    let error = mending.give(&buf.take()).unwrap_err();
    assert!(matches!(error, Error::Unproven { .. }), "{error}");
    assert_eq!(mending.wanted(), Some(wanted));
}

#[test]
fn whatever_is_damaged_is_mended_to_what_it_was_while_the_stream_goes_on() {
    let fetched: u64 = (0..150).map(damaged).sum();
    assert!(fetched > 1_000, "only {fetched} records were missing");
}

#[test]
fn a_stream_that_cannot_be_opened_is_mended_and_opened() {
    let mut unopened = 0;
    for seed in 0..300 {
        let (disk, all) = filled(seed % 20);
        let mut random = Random(seed + 2_000_000);
        let (path, len) = segments(&disk).pop().unwrap();
        harm(&disk, &mut random, &path, len);
        let (journal, stream) = open(&disk);
        if stream.is_some() {
            // The end alone was hit, which only the outside witnesses can tell from a torn one.
            continue;
        }
        unopened += 1;
        let mut mending = match journal.mend_unopened(ID).map(Option::unwrap) {
            Ok(mending) => mending,
            Err(error) => panic!("seed {seed}: {error}"),
        };
        nurse(&mut mending, &all, &mut random);
        mending.finish().unwrap();
        let stream = journal.open_stream(ID).unwrap();
        let held = stream.watermarks().synced.get() as usize;
        assert_eq!(read_all(&stream).unwrap(), expected(&all[..held]), "seed {seed}");
        stream.append(transaction(9, &mut random)).unwrap();
        stream.sync().unwrap();
        drop((journal, stream));
        let (_journal, stream) = open(&disk.power_cut(&mut |n| random.below(n as u64) as usize));
        assert_eq!(read_all(&stream.unwrap()).unwrap()[..held], expected(&all[..held]));
    }
    assert!(unopened > 50, "only {unopened} streams could not be opened");
}

#[test]
fn records_that_do_not_fit_are_refused_and_the_right_ones_still_taken() {
    let (disk, all) = filled(3);
    let mut random = Random(3);
    let (journal, stream) = open(&disk);
    let stream = stream.unwrap();
    let (path, len) = segments(&disk).remove(1);
    for byte in len / 3..len / 3 + 5_000 {
        disk.flip(&path, byte as usize * 8);
    }
    assert!(read_all(&stream).is_err());
    let before = segments(&disk);
    let offset = *stream.damage().borrow().first().unwrap();
    let mut mending = stream.mend(offset).unwrap();
    let wanted = mending.wanted().unwrap();
    let count = wanted.end.since(wanted.start) as usize;
    let mut wrong = RecordsBuf::new();
    (0..count).for_each(|_| wrong.append(&all[0]));
    let error = mending.give(&wrong.take()).unwrap_err();
    assert!(matches!(error, Error::Unproven { .. }), "{error}");
    assert_eq!(mending.wanted(), Some(wanted));
    let mut much = RecordsBuf::new();
    (0..=count).for_each(|_| much.append(&all[0]));
    assert!(matches!(mending.give(&much.take()), Err(Error::Hole { .. })));
    assert!(matches!(mending.finish(), Err(Error::Unproven { .. })));
    assert_eq!(segments(&disk), before, "what was begun is gone, what was damaged is there");
    let mut mending = stream.mend(offset).unwrap();
    nurse(&mut mending, &all, &mut random);
    mending.finish().unwrap();
    assert_eq!(read_all(&stream).unwrap(), expected(&all));
    drop(journal);
}

#[test]
fn interrupted_at_any_operation_either_the_damaged_segment_is_there_or_the_mended_one() {
    for number in 0..40 {
        for fault in [Fault::Error, Fault::Lossy] {
            let (disk, all) = filled(5);
            let mut random = Random(number);
            let (journal, stream) = open(&disk);
            let stream = stream.unwrap();
            let (path, len) = segments(&disk).remove(1);
            harm(&disk, &mut random, &path, len);
            let Err(_) = read_all(&stream) else { continue };
            let offset = *stream.damage().borrow().first().unwrap();
            disk.fail(number, fault, true);
            if let Ok(mut mending) = stream.mend(offset) {
                while let Some(wanted) = mending.wanted() {
                    let record = &all[wanted.start.prev().get() as usize];
                    if mending.give(record).is_err() {
                        break;
                    }
                }
                let _ = mending.finish();
            }
            disk.heal();
            drop((journal, stream));
            let cut = disk.power_cut(&mut |n| random.below(n as u64) as usize);
            let (_journal, stream) = open(&cut);
            let stream = stream.unwrap();
            while read_all(&stream).is_err() {
                let offset = *stream.damage().borrow().first().unwrap();
                let mut mending = stream.mend(offset).unwrap();
                nurse(&mut mending, &all, &mut random);
                mending.finish().unwrap();
            }
            assert_eq!(read_all(&stream).unwrap(), expected(&all), "operation {number}");
            let leftovers = segments(&cut)
                .iter()
                .filter(|(path, _)| path.extension().unwrap() != "seg")
                .count();
            assert_eq!(leftovers, 0, "operation {number}");
        }
    }
}

/// Loses one mark of the last segment with damage, sometimes the one that says that the source's log was let go of, and
/// mends it: tables count as copied only if they were copied since.
pub(crate) fn lost_mark(seed: u64) -> u64 {
    let (disk, mut random) = (MemoryDisk::new(), Random(seed));
    let (journal, stream) = open(&disk);
    let stream = stream.unwrap();
    let mut all = Vec::new();
    let mut append = |stream: &Stream, record: Record| {
        stream.append(Records::one(&record)).unwrap();
        stream.sync().unwrap();
        all.push(Records::one(&record));
    };
    let table = CopyTable { relation: RelationId(1), rows_estimate: 0 };
    let copy = Copy { lsn: Lsn::new(1), audience: vec![], carriers: vec![], tables: vec![table] };
    append(&stream, Record::CopyBegin(copy));
    append(&stream, Record::CopyEnd { rows: 0 });
    let released = random.below(4);
    let mut marks = Vec::new();
    for number in 0..4 {
        let (lsn, before) = (Lsn::new(number + 1), segments(&disk)[0].1);
        let released = number == released;
        stream.mark(Mark { lsn, timeline: 1, system: 1, released }).unwrap();
        stream.sync().unwrap();
        marks.push(before..segments(&disk)[0].1);
        append(&stream, Record::CopyAbort);
    }
    let sound = stream.tail();
    assert_eq!(sound.copied.len(), 0);
    drop((journal, stream));
    let (path, _) = segments(&disk).remove(0);
    let lost = random.below(3) as usize;
    let at = marks[lost].start + random.below(marks[lost].end - marks[lost].start);
    disk.flip(&path, at as usize * 8);
    let (journal, stream) = open(&disk);
    assert!(stream.is_none(), "what a later batch proves to have been durable is missed");
    let mut mending = journal.mend_unopened(ID).unwrap().unwrap();
    nurse(&mut mending, &all, &mut random);
    mending.finish().unwrap();
    let stream = journal.open_stream(ID).unwrap();
    assert_eq!(stream.tail().copied, sound.copied, "seed {seed}: mark {lost} is lost");
    assert_eq!(stream.tail().mark, sound.mark);
    assert_eq!(read_all(&stream).unwrap(), expected(&all));
    1
}

#[test]
fn a_release_whose_mark_rots_alone_is_missed_by_the_next_mark() {
    assert_eq!((0..60).map(lost_mark).sum::<u64>(), 60);
}

/// Damages the bytes of a file from `from` to `until`.
fn wipe(disk: &MemoryDisk, path: &Path, from: u64, until: u64) {
    (from..until).for_each(|byte| disk.flip(path, byte as usize * 8));
}

#[test]
fn damages_on_both_sides_of_a_border_do_not_wait_for_each_other() {
    for seed in 0..40 {
        let (disk, all) = filled(seed);
        let mut random = Random(seed);
        let files = segments(&disk);
        if files[files.len() - 1].1 < 1_000 {
            // Without its head it is one that was never in use, and what is damaged before it the end of the stream.
            continue;
        }
        // Only heads, or the first batches behind them too, of one segment or of several in a row.
        let (first, head) = (random.below(2) as usize, [60, 4_000][random.below(2) as usize]);
        let last = first + random.below((files.len() - 1 - first) as u64) as usize;
        for (path, len) in &files[first..=last] {
            wipe(&disk, path, len - 1_000, *len);
        }
        for (path, _) in &files[first + 1..=last + 1] {
            // Of a short last one nothing would be left that tells it from one that was never in use.
            wipe(&disk, path, 0, if *path == files[files.len() - 1].0 { 60 } else { head });
        }
        let (journal, stream) = open(&disk);
        let stream = match stream {
            Some(stream) => stream,
            None => loop {
                let mut mending = journal.mend_unopened(ID).unwrap().unwrap();
                nurse(&mut mending, &all, &mut random);
                mending.finish().unwrap();
                if let Ok(stream) = journal.open_stream(ID) {
                    break stream;
                }
            },
        };
        while read_all(&stream).is_err() {
            let offset = *stream.damage().borrow().first().unwrap();
            let mut mending = stream.mend(offset).unwrap();
            lie(&mut mending, &mut random);
            nurse(&mut mending, &all, &mut random);
            mending.finish().unwrap();
        }
        assert!(read_all(&stream).unwrap() == expected(&all), "seed {seed}");
    }
}

/// Damages the segment before one that was being created, of whose head so much is left that it says what it is, or less;
/// mends it, and returns 1. 0 if nothing said that what is damaged had been durable, so that it was cut.
pub(crate) fn followed(seed: u64) -> u64 {
    let (disk, all) = filled(seed % 20);
    let mut random = Random(seed + 3_000_000);
    let files = segments(&disk);
    let [.., (path, len), (unborn, _)] = &files[..] else { panic!("seed {seed}: one segment") };
    let (is_named, ends) = (!seed.is_multiple_of(3), !seed.is_multiple_of(2));
    disk.open(unborn, true).unwrap().set_len(if is_named { 80 } else { 40 }).unwrap();
    match ends {
        true => wipe(&disk, path, len - 1_000, *len),
        false => harm(&disk, &mut random, path, *len),
    }
    let name = unborn.file_stem().unwrap().to_str().unwrap();
    let held = name.parse::<usize>().unwrap() - 1;
    let (journal, stream) = open(&disk);
    if let Some(stream) = stream {
        assert!(!is_named, "seed {seed}: what was proven to be durable is cut");
        assert!(stream.watermarks().synced < Offset::new(held as u64));
        return 0;
    }
    let mut mending = journal.mend_unopened(ID).unwrap().unwrap();
    nurse(&mut mending, &all, &mut random);
    mending.finish().unwrap();
    let stream = journal.open_stream(ID).unwrap();
    let got = read_all(&stream).unwrap();
    assert_eq!(got, expected(&all[..got.len()]), "seed {seed}");
    assert!(!is_named || got.len() == held, "seed {seed}: {} of {held}", got.len());
    1
}

#[test]
fn a_segment_before_one_that_was_being_created_is_mended_to_where_that_one_begins() {
    let mended: u64 = (0..60).map(followed).sum();
    assert!((41..55).contains(&mended), "{mended} of 60 mended");
}

#[test]
fn what_was_given_is_kept_for_the_next_attempt_unless_the_file_is_another() {
    let (disk, all) = filled(3);
    let mut random = Random(3);
    let (_journal, stream) = open(&disk);
    let stream = stream.unwrap();
    let (path, len) = segments(&disk).remove(1);
    let sound = disk.content(&path);
    wipe(&disk, &path, len / 4, len / 4 + 10);
    wipe(&disk, &path, len / 4 * 3, len / 4 * 3 + 10);
    let damaged = disk.content(&path);
    assert!(read_all(&stream).is_err());
    let offset = *stream.damage().borrow().first().unwrap();
    let half = |random: &mut Random| {
        let mut mending = stream.mend(offset).unwrap();
        assert!(!mending.has_begun());
        let first = mending.wanted().unwrap();
        while mending.wanted().is_some_and(|wanted| wanted.end == first.end) {
            let wanted = mending.wanted().unwrap();
            mending.give(&all[wanted.start.prev().get() as usize]).unwrap();
        }
        let second = mending.wanted().unwrap();
        assert!(mending.has_begun() && second.start >= first.end, "seed {}", random.0);
        (mending, first, second)
    };
    // As it was.
    let (mending, first, second) = half(&mut random);
    let mending = mending.again().unwrap();
    assert_eq!(mending.wanted(), Some(second));
    // Mended by hand, and damaged again.
    disk.put(&path, sound.clone());
    let mending = mending.again().unwrap();
    assert_eq!((mending.wanted(), mending.has_begun()), (None, false));
    disk.put(&path, damaged);
    let mut mending = mending.again().unwrap();
    assert_eq!(mending.wanted(), Some(first));
    nurse(&mut mending, &all, &mut random);
    mending.finish().unwrap();
    assert_eq!(read_all(&stream).unwrap(), expected(&all));
    // Trimmed meanwhile.
    disk.put(&path, sound);
    let mending = stream.mend(offset).unwrap();
    stream.trim(stream.watermarks().synced, true).unwrap();
    assert!(matches!(mending.again(), Err(Error::Trimmed { .. })));
}

#[test]
fn a_full_disk_costs_nothing_of_what_was_given() {
    let (mut full, mut kept) = (0, 0);
    for seed in 0..40 {
        let (disk, all) = filled(seed % 20);
        let mut random = Random(seed + 5_000_000);
        let (journal, stream) = open(&disk);
        let stream = stream.unwrap();
        let (path, len) = segments(&disk).remove(1);
        let sizes: u64 = segments(&disk).iter().map(|(_, len)| len).sum();
        for part in 1..6 {
            wipe(&disk, &path, len / 6 * part, len / 6 * part + 5);
        }
        assert!(read_all(&stream).is_err());
        let offset = *stream.damage().borrow().first().unwrap();
        let (mut mending, mut given) = (stream.mend(offset).unwrap(), 0);
        let mut room = random.below(len) as usize;
        disk.limit(Some(disk.used() + room));
        let mut has_room = |error: Error, mending: &Mending| {
            assert!(matches!(error, Error::NoSpace { .. }), "seed {seed}: {error}");
            full += 1;
            kept += usize::from(mending.has_begun());
            // What was taken of it counts, so that everybody else goes slower.
            let held: u64 = segments(&disk).iter().map(|(_, len)| len).sum();
            assert!((held..held + (70 << 10)).contains(&journal.usage().bytes), "seed {seed}");
            room += random.below(len / 2) as usize + 1;
            disk.limit(Some(sizes as usize + room));
        };
        loop {
            while let Err(error) = mending.go_on() {
                has_room(error, &mending);
                mending = mending.again().unwrap();
            }
            let Some(wanted) = mending.wanted() else { break };
            match mending.give(&all[wanted.start.prev().get() as usize]) {
                Ok(()) => given += 1,
                Err(error) => {
                    let asked_again = mending.wanted() == Some(wanted);
                    given += u64::from(!asked_again);
                    has_room(error, &mending);
                }
            }
        }
        disk.limit(None);
        let fetched = mending.finish().unwrap().fetched;
        assert_eq!(given, fetched, "seed {seed}: what was given is asked for again");
        assert_eq!(read_all(&stream).unwrap(), expected(&all), "seed {seed}");
        let held: u64 = segments(&disk).iter().map(|(_, len)| len).sum();
        assert_eq!(journal.usage().bytes, held, "seed {seed}");
    }
    assert!(full > 40 && kept > 20, "the disk was full {full} times, {kept} times in between");
}

#[test]
fn what_a_mending_takes_counts_in_the_budget_until_it_is_dropped() {
    let (disk, all) = filled(3);
    let (journal, stream) = open(&disk);
    let stream = stream.unwrap();
    let (path, len) = segments(&disk).remove(1);
    wipe(&disk, &path, len / 2, len / 2 + 5);
    assert!(read_all(&stream).is_err());
    let before = journal.usage().bytes;
    let offset = *stream.damage().borrow().first().unwrap();
    let mut mending = stream.mend(offset).unwrap();
    assert_eq!(journal.usage().bytes, before);
    nurse(&mut mending, &all, &mut Random(3));
    let held: u64 = segments(&disk).iter().map(|(_, len)| len).sum();
    assert_eq!(journal.usage().bytes, held);
    assert!(held > before + len / 2);
    drop(mending);
    assert_eq!(journal.usage().bytes, before);
}

#[test]
fn nothing_is_written_before_somebody_gives_something() {
    let (disk, all) = filled(5);
    let mut random = Random(5);
    let (_journal, stream) = open(&disk);
    let stream = stream.unwrap();
    let (path, len) = segments(&disk).remove(1);
    (len / 2..len / 2 + 5_000).for_each(|byte| disk.flip(&path, byte as usize * 8));
    assert!(read_all(&stream).is_err());
    let offset = *stream.damage().borrow().first().unwrap();
    let operations = disk.operations();
    let mut mending = stream.mend(offset).unwrap();
    assert!(mending.wanted().is_some());
    assert_eq!(disk.operations(), operations, "nobody was asked yet");
    nurse(&mut mending, &all, &mut random);
    assert!(disk.operations() > operations);
    mending.finish().unwrap();
    assert_eq!(read_all(&stream).unwrap(), expected(&all));
}

#[test]
fn reading_in_the_background_meets_damage_where_it_is_and_nowhere_else() {
    let (disk, _) = filled(7);
    let (_journal, stream) = open(&disk);
    let stream = stream.unwrap();
    let bases = stream.segments();
    assert_eq!(bases.len(), segments(&disk).len());
    assert!(bases.iter().all(|base| stream.scrub(*base).is_ok()));
    let (path, len) = segments(&disk).remove(2);
    disk.flip(&path, len as usize * 4);
    let damaged: Vec<_> = bases.iter().filter(|base| stream.scrub(**base).is_err()).collect();
    assert_eq!(damaged, [&bases[2]]);
    let damage = stream.damage().borrow().clone();
    assert!(damage.len() == 1 && damage.iter().all(|it| (bases[2]..bases[3]).contains(it)));
    stream.trim(stream.watermarks().synced, true).unwrap();
    assert!(matches!(stream.scrub(bases[0]), Err(Error::Trimmed { .. })));
}

#[test]
fn damage_that_cannot_be_mended_hides_no_other() {
    let (disk, all) = filled(6);
    let mut random = Random(6);
    let (_journal, stream) = open(&disk);
    let stream = stream.unwrap();
    let files = segments(&disk);
    for (path, len) in [&files[1], &files[3]] {
        (len / 2..len / 2 + 300).for_each(|byte| disk.flip(path, byte as usize * 8));
    }
    assert!(read_all(&stream).is_err() && read_all(&stream).is_err());
    assert_eq!(stream.damage().borrow().len(), 1);
    let base: u64 = files[3].0.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let mut reader = stream.read(Offset::new(base)).unwrap();
    while let Ok(Some(_)) = reader.next_block() {}
    let damage = stream.damage().borrow().clone();
    assert_eq!(damage.len(), 2, "{damage:?}");
    let (first, second) = (*damage.first().unwrap(), *damage.last().unwrap());
    let mut mending = stream.mend(second).unwrap();
    nurse(&mut mending, &all, &mut random);
    mending.finish().unwrap();
    assert_eq!(stream.damage().borrow().iter().copied().collect::<Vec<_>>(), [first]);
    let mut mending = stream.mend(first).unwrap();
    nurse(&mut mending, &all, &mut random);
    mending.finish().unwrap();
    assert_eq!(read_all(&stream).unwrap(), expected(&all));
}

#[test]
fn a_head_of_another_segment_does_not_stand_in_the_way() {
    for which in [0, 1, usize::MAX] {
        let (disk, all) = filled(9);
        let mut random = Random(9);
        let files = segments(&disk);
        let (path, _) = files[which.min(files.len() - 1)].clone();
        let (mut bytes, other) = (disk.content(&path), disk.content(&files[2].0));
        bytes[..HEAD].copy_from_slice(&other[..HEAD]);
        disk.put(&path, bytes);
        let (journal, stream) = open(&disk);
        let stream = match stream {
            Some(stream) => {
                assert!(read_all(&stream).is_err());
                let offset = *stream.damage().borrow().first().unwrap();
                let mut mending = stream.mend(offset).unwrap();
                nurse(&mut mending, &all, &mut random);
                mending.finish().unwrap();
                stream
            }
            None => {
                let mut mending = journal.mend_unopened(ID).unwrap().unwrap();
                nurse(&mut mending, &all, &mut random);
                mending.finish().unwrap();
                journal.open_stream(ID).unwrap()
            }
        };
        assert_eq!(read_all(&stream).unwrap(), expected(&all), "segment {which}");
    }
}

/// A segment's header.
const HEAD: usize = 68;

#[test]
fn a_segment_that_was_trimmed_meanwhile_does_not_come_back() {
    let (disk, all) = filled(8);
    let mut random = Random(8);
    let (_journal, stream) = open(&disk);
    let stream = stream.unwrap();
    let (path, len) = segments(&disk).remove(0);
    disk.flip(&path, len as usize * 4);
    assert!(read_all(&stream).is_err());
    let mut mending = stream.mend(*stream.damage().borrow().first().unwrap()).unwrap();
    nurse(&mut mending, &all, &mut random);
    stream.trim(stream.watermarks().synced, true).unwrap();
    assert!(matches!(mending.finish(), Err(Error::Trimmed { .. })));
    assert!(segments(&disk).iter().all(|(held, _)| *held != path));
}
