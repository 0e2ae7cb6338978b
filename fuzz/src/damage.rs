//! Damage to a valid journal: whatever is done to its files, what is read is what was written, or an error; and what
//! is mended is what it was.
//!
//! The input flips bits, cuts, swaps and removes files, and puts sectors in place that are zero, stale or of elsewhere.
//! It never chooses whole bytes, because a fuzzer that may do so forges checksums.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use thinwire_engine::{
    Error,
    codec::RecordsBuf,
    journal::{Mending, Stream, inspect},
    model::{Offset, Record},
    storage::{Disk, memory::MemoryDisk},
};

use crate::disk::{ID, LARGE, folder, holds, journal, mark, open, transaction};

/// How the journal comes to be.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Growth {
    Transaction { rows: u8, size: u8 },
    Mark { released: bool },
    Sync,
}

/// What is done to its files. Numbers are taken modulo what there is.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Harm {
    Flip { file: u8, bit: u32 },
    FlipNearEnd { file: u8, bit: u16 },
    Cut { file: u8, at: u32 },
    Zeros { file: u8, sector: u8 },
    Grow { file: u8, by: u16 },
    Sector { file: u8, sector: u8, from: u8, source: u8 },
    Swap { one: u8, other: u8 },
    Copy { from: u8, to: u8 },
    Remove { file: u8 },
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Writes a journal, harms it, and reads it.
pub fn harm_and_read(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok((lies, harms)) = wishes(&mut input) else { return };
    let disk = MemoryDisk::new();
    let Ok((records, stale)) = grow(&disk, &mut input) else { return };
    let written = files(&disk);
    let mut harmed = written.clone();
    harms.into_iter().for_each(|harm| inflict(harm, &mut harmed, &stale));
    let disk = disk_with(&harmed);
    let dir = folder();
    inspect::verify(&disk, &dir).expect("damage is no error of a report");
    drop(inspect::dump(&disk, &dir, Offset::FIRST, |_, _| true));
    match open(&disk) {
        Ok((_, stream)) => {
            let whole = read(&stream, &records);
            let held = stream.watermarks().synced;
            assert!(harmed != written || (whole && held.get() == records.len() as u64));
            mend_open(&stream, &records, lies);
        }
        Err(Error::Corrupt { .. } | Error::Version { .. }) => {
            assert!(harmed != written, "what nobody touched is corrupt");
            // A last segment without a readable head or a batch may be gone; all else is as it was.
            let left = files(&disk);
            assert!(left.len() + 1 >= harmed.len());
            assert!(left.iter().all(|(path, bytes)| harmed.get(path) == Some(bytes)));
            if !mend_unopened(&disk, &records, lies) {
                return;
            }
        }
        Err(error) => panic!("{error}"),
    }
    goes_on(&disk, records);
}

/// What the input wishes done, ahead of what it is done to, so that a short one does something too: whether
/// false records are offered for mending, and the harm.
fn wishes(input: &mut Unstructured<'_>) -> arbitrary::Result<(bool, Vec<Harm>)> {
    let (lies, count) = (input.arbitrary()?, input.int_in_range(0..=HARMS_MAX)?);
    Ok((lies, (0..count).map(|_| input.arbitrary()).collect::<Result<_, _>>()?))
}

/// Mends a stream that cannot be opened; returns whether it can be.
fn mend_unopened(disk: &MemoryDisk, records: &[Bytes], lies: bool) -> bool {
    let (journal, _) = journal(disk).expect("nothing fails on this disk");
    let Some(mending) = journal.mend_unopened(ID).transpose().and_then(begun) else { return false };
    nurse(mending, records, lies);
    let opened = journal.open_stream(ID);
    opened.is_ok_and(|stream| {
        read(&stream, records);
        true
    })
}

/// Mends a stream that is open, one damage after the other.
fn mend_open(stream: &Arc<Stream>, records: &[Bytes], lies: bool) {
    for _ in 0..MENDINGS_MAX {
        let damage = stream.damage().borrow().first().copied();
        let Some(mending) = damage.and_then(|offset| begun(stream.mend(offset))) else { return };
        nurse(mending, records, lies);
        read(stream, records);
    }
}

/// What is beyond repair is said to be so.
fn begun(mending: Result<Mending, Error>) -> Option<Mending> {
    match mending {
        Ok(mending) => Some(mending),
        Err(Error::Corrupt { .. } | Error::Version { .. } | Error::Trimmed { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Gives what is wanted, after others if the input lies: those are not believed.
fn nurse(mut mending: Mending, records: &[Bytes], mut lies: bool) {
    while let Some(wanted) = mending.wanted() {
        let (from, until) = (wanted.start.get() - 1, wanted.end.get() - 1);
        let (Ok(from), Ok(until)) = (usize::try_from(from), usize::try_from(until)) else { return };
        assert!(until <= records.len(), "wants what never was");
        let mut buf = RecordsBuf::new();
        records[from..until].iter().for_each(|record| buf.push_encoded(record, 1));
        let right = buf.take();
        if lies {
            right.iter().for_each(|_| buf.push(&Record::CopyAbort));
            assert!(matches!(mending.give(&buf.take()), Err(Error::Unproven { .. })));
            lies = false;
        }
        mending.give(&right).expect("what was there is believed");
    }
    mending.finish().expect("nothing fails on this disk");
}

/// What was recovered is recovered again, and a stream that was opened goes on.
fn goes_on(disk: &MemoryDisk, mut records: Vec<Bytes>) {
    let recovered = files(disk);
    let (journal, stream) = open(disk).expect("what was opened once is opened again");
    assert_eq!(files(disk), recovered);
    let held = stream.watermarks().synced;
    records.truncate(usize::try_from(held.get()).unwrap_or(usize::MAX));
    let more = transaction(u64::MAX, 1, 1);
    records.extend(more.iter());
    let last = stream.append(more).and_then(|_| stream.sync()).expect("nothing fails here");
    drop((journal, stream));
    let (_, stream) = open(disk).expect("what was written on top is recovered");
    assert_eq!(stream.watermarks().synced, last);
    read(&stream, &records);
}

/// Whether all can be read; what can is what was written.
fn read(stream: &Arc<Stream>, records: &[Bytes]) -> bool {
    match holds(stream, stream.watermarks().first, records) {
        Ok(()) => true,
        Err(Error::Corrupt { .. } | Error::Version { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Writes a journal; returns its records, and its files as they were halfway.
fn grow(disk: &MemoryDisk, input: &mut Unstructured<'_>) -> arbitrary::Result<(Vec<Bytes>, Files)> {
    let (journal, stream) = open(disk).expect("nothing fails on this disk");
    let (mut records, mut stale) = (Vec::new(), Files::new());
    // Only large rows fill more than one segment, and they are slow.
    let larger = if input.ratio(1, 4)? { LARGE } else { 0 };
    let steps = input.int_in_range(1..=STEPS_MAX)?;
    for step in 0..steps {
        match input.arbitrary()? {
            Growth::Transaction { rows, size } => {
                let transaction = transaction(step, rows, size | larger);
                records.extend(transaction.iter());
                stream.append(transaction).expect("there is room");
            }
            Growth::Mark { released } => stream.mark(mark(step, released)).expect("it is sound"),
            Growth::Sync => {
                stream.sync().expect("nothing fails on this disk");
                // A stream that is idle now and then.
                if step.is_multiple_of(3) {
                    stream.seal().expect("nothing fails on this disk");
                }
            }
        }
        if step == steps / 2 {
            stale = files(disk);
        }
    }
    stream.sync().expect("nothing fails on this disk");
    drop((journal, stream));
    Ok((records, stale))
}

fn inflict(harm: Harm, files: &mut Files, stale: &Files) {
    match harm {
        Harm::Flip { file, bit } => with(files, file, |bytes| {
            let bit = usize::try_from(bit).unwrap_or_default() % (bytes.len() * 8).max(1);
            flip(bytes, bit);
        }),
        Harm::FlipNearEnd { file, bit } => with(files, file, |bytes| {
            let bit = (bytes.len() * 8).saturating_sub(usize::from(bit) + 1);
            flip(bytes, bit);
        }),
        Harm::Cut { file, at } => with(files, file, |bytes| {
            bytes.truncate(usize::try_from(at).unwrap_or_default() % (bytes.len() + 1));
        }),
        Harm::Grow { file, by } => with(files, file, |bytes| {
            bytes.resize(bytes.len() + usize::from(by), 0);
        }),
        Harm::Zeros { file, sector } => {
            with(files, file, |bytes| put(bytes, sector, &[0; SECTOR]));
        }
        Harm::Sector { file, sector, from, source } => {
            let elsewhere = if from & 1 == 0 { stale } else { &*files };
            let bytes = elsewhere.values().nth(usize::from(from / 2) % elsewhere.len().max(1));
            let sectors = bytes.map(|bytes| bytes.chunks(SECTOR)).into_iter().flatten();
            let Some(found) = sectors.cycle().nth(source.into()).map(<[u8]>::to_vec) else {
                return;
            };
            with(files, file, |bytes| put(bytes, sector, &found));
        }
        Harm::Swap { one, other } => {
            let (Some(one), Some(other)) = (path(files, one), path(files, other)) else { return };
            let (first, second) = (files[&one].clone(), files[&other].clone());
            files.extend([(one, second), (other, first)]);
        }
        Harm::Copy { from, to } => {
            let (Some(from), Some(to)) = (path(files, from), path(files, to)) else { return };
            files.insert(to, files[&from].clone());
        }
        Harm::Remove { file } => {
            path(files, file).and_then(|path| files.remove(&path));
        }
    }
}

fn with(files: &mut Files, number: u8, harm: impl FnOnce(&mut Vec<u8>)) {
    if let Some(bytes) = path(files, number).and_then(|path| files.get_mut(&path)) {
        harm(bytes);
    }
}

/// The last file is the first, because it is the one that recovery scans.
fn path(files: &Files, number: u8) -> Option<PathBuf> {
    files.keys().rev().nth(usize::from(number) % files.len().max(1)).cloned()
}

fn flip(bytes: &mut [u8], bit: usize) {
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
}

fn put(bytes: &mut [u8], sector: u8, content: &[u8]) {
    let sectors = bytes.len().div_ceil(SECTOR).max(1);
    let place = bytes.iter_mut().skip(usize::from(sector) % sectors * SECTOR);
    place.zip(content).for_each(|(to, from)| *to = *from);
}

fn files(disk: &MemoryDisk) -> Files {
    let dir = folder();
    let names = disk.list(&dir).expect("nothing fails on this disk");
    let paths = names.iter().map(|name| dir.join(name));
    paths.map(|path| (path.clone(), content(disk, &path))).collect()
}

fn content(disk: &MemoryDisk, path: &Path) -> Vec<u8> {
    let read = disk.open(path, false).and_then(|file| {
        let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or_default()];
        file.read_at(&mut bytes, 0)?;
        Ok(bytes)
    });
    read.expect("nothing fails on this disk")
}

fn disk_with(files: &Files) -> MemoryDisk {
    let disk = MemoryDisk::new();
    for (path, bytes) in files {
        let written = disk.create(path).and_then(|file| {
            file.write_all_at(bytes, 0)?;
            file.sync_data()
        });
        written.expect("nothing fails on this disk");
    }
    disk.sync_dir(&folder()).expect("nothing fails on this disk");
    disk
}

/// So that one input does not take for ever.
const STEPS_MAX: u64 = 24;
const HARMS_MAX: usize = 12;
const MENDINGS_MAX: usize = 8;

/// What a disk writes at once.
const SECTOR: usize = 512;
