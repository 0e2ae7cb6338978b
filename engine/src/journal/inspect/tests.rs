//! Whatever is done to a journal's files is found, with its place; whatever a journal in use does is not damage.

use std::{
    fs, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::sleep,
    time::Duration,
};

use super::*;
use crate::{
    journal::{
        Stream,
        tests::{Place, read_all, transaction},
    },
    storage::{File, Lock, disk::RealDisk},
};

/// A sound journal of several segments that nobody has open.
fn journal() -> (Place, PathBuf) {
    let place = Place::new();
    let (_journal, stream) = place.open().unwrap();
    fill(&stream, 1..=200);
    let dir = place.dir.path().join(place.id().to_string());
    (place, dir)
}

fn fill(stream: &Arc<Stream>, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        stream.append(transaction(number, 4)).unwrap();
        stream.sync().unwrap();
    }
}

fn damaged(dir: &Path) -> Vec<SegmentReport> {
    let mut reports = verify(&RealDisk, dir).unwrap();
    reports.retain(|report| report.damage.is_some());
    reports
}

fn dumped(dir: &Path, from: u64) -> (Vec<(Offset, Record)>, Result<(), Error>) {
    let mut all = Vec::new();
    let outcome = dump(&RealDisk, dir, Offset::new(from), |offset, record| {
        all.push((offset, record.unwrap()));
        true
    });
    (all, outcome)
}

#[test]
fn a_sound_journal_is_listed_verified_and_dumped_whole() {
    let (place, dir) = journal();
    let found = stream_dirs(&RealDisk, place.dir.path()).unwrap().unwrap();
    assert_eq!(found, std::slice::from_ref(&dir));
    assert_eq!(stream_dirs(&RealDisk, &dir).unwrap().unwrap(), found);
    assert!(strays(&RealDisk, place.dir.path(), &found).unwrap().is_empty());
    assert!(damaged(&dir).is_empty());
    let (_journal, stream) = place.open().unwrap();
    for reports in [verify(&RealDisk, &dir).unwrap(), list(&RealDisk, &dir).unwrap()] {
        assert!(reports.len() > 2);
        assert!(reports.windows(2).all(|pair| pair[0].last.next() == pair[1].base));
        assert_eq!(reports.last().unwrap().last, stream.watermarks().synced);
        assert_eq!(reports.iter().filter(|report| report.is_last).count(), 1);
        assert_eq!(
            reports.iter().map(|report| report.bytes).sum::<u64>(),
            stream.watermarks().bytes
        );
    }
    let (all, outcome) = dumped(&dir, 77);
    outcome.unwrap();
    assert_eq!(all, read_all(&stream, Offset::new(77)).unwrap());
}

#[test]
fn every_flipped_byte_and_every_truncation_is_found_in_its_segment() {
    let (place, dir) = journal();
    let paths = place.segments();
    for (number, path) in paths.iter().enumerate() {
        let whole = fs::read(path).unwrap();
        let is_last = number + 1 == paths.len();
        for at in (0..whole.len()).step_by(whole.len() / 60) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            fs::write(path, &bytes).unwrap();
            assert_eq!(damaged(&dir)[0].path, *path, "byte {at}");
            fs::write(path, &whole[..at]).unwrap();
            let found = damaged(&dir);
            // The last one may be cut exactly behind a batch: nothing in the file speaks of what is lost.
            assert!(is_last || !found.is_empty(), "cut at {at}");
            assert!(found.iter().all(|report| report.base >= number_of(path)), "cut at {at}");
        }
        fs::write(path, &whole).unwrap();
    }
    assert!(damaged(&dir).is_empty());
}

fn number_of(path: &Path) -> Offset {
    format::base_of(name_of(path).unwrap()).unwrap()
}

#[test]
fn a_dump_hands_out_all_that_stands_before_the_damage() {
    let (place, dir) = journal();
    let (whole, _) = dumped(&dir, 1);
    let path = place.segments()[1].clone();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (before, outcome) = dumped(&dir, 1);
    let Err(Error::Corrupt { segment, at, offset, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((segment, offset), (path.clone(), before.last().unwrap().0.next()));
    assert!(at <= middle as u64 && before.len() > 100);
    assert_eq!(before, whole[..before.len()]);
    fs::remove_file(path).unwrap();
    let (before, outcome) = dumped(&dir, 1);
    assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{outcome:?}");
    assert_eq!(before, whole[..before.len()]);
}

#[test]
fn a_torn_end_is_told_from_corruption_and_is_the_end_of_a_dump() {
    let (place, dir) = journal();
    let (whole, _) = dumped(&dir, 1);
    let path = place.segments().pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 7]).unwrap();
    let found = damaged(&dir);
    assert!(found[0].damage.as_ref().unwrap().torn, "{found:?}");
    let listed = list(&RealDisk, &dir).unwrap().pop().unwrap();
    assert!(listed.damage.unwrap().torn);
    let (before, outcome) = dumped(&dir, 1);
    outcome.unwrap();
    assert_eq!(before, whole[..whole.len() - 6]);
    // Made whole meanwhile, as by a writer, it is nothing.
    fs::write(&path, &bytes).unwrap();
    assert!(verify_last(&RealDisk, &dir, &found[0]).unwrap().unwrap().damage.is_none());
    // A head that was being written is cut as well.
    let next = dir.join(format::file_name(whole.last().unwrap().0.next()));
    fs::write(&next, &bytes[..40]).unwrap();
    assert!(damaged(&dir)[0].damage.as_ref().unwrap().torn);
    // Its name says that all before it was there.
    fs::remove_file(&path).unwrap();
    let damage = damaged(&dir).pop().unwrap().damage.unwrap();
    assert!(!damage.torn && damage.reason.ends_with("are missing"), "{damage:?}");
}

#[test]
fn segments_that_are_missing_twice_there_or_of_another_stream_are_found() {
    let (place, dir) = journal();
    let paths = place.segments();
    let reason = || damaged(&dir)[0].damage.clone().unwrap();
    let whole = fs::read(&paths[1]).unwrap();
    let (first, after) = (number_of(&paths[1]), number_of(&paths[2]));
    fs::remove_file(&paths[1]).unwrap();
    let expected = format!("the records from {first} to {} are missing", after.prev());
    assert_eq!((reason().reason, reason().offset), (expected, first));
    fs::write(&paths[1], &whole).unwrap();

    let renamed = dir.join(format::file_name(first.next()));
    fs::write(&renamed, &whole).unwrap();
    assert!(reason().reason.contains("another segment"), "{:?}", reason());
    fs::remove_file(renamed).unwrap();

    let mut other = Place::new();
    other.id = 10;
    fill(&other.open().unwrap().1, 1..=200);
    fs::copy(&other.segments()[1], &paths[1]).unwrap();
    assert!(reason().reason.contains("another stream"), "{:?}", reason());
    fs::write(&paths[1], &whole).unwrap();

    // What is gone at the front was trimmed.
    fs::remove_file(&paths[0]).unwrap();
    assert!(damaged(&dir).is_empty());
}

#[test]
fn whatever_else_lies_in_the_folders_is_named() {
    let (place, dir) = journal();
    let root = place.dir.path();
    let names = [
        root.join("notes.txt"),
        dir.join("1.seg"),
        dir.join("core"),
        dir.join("00000000000000000001.mend"),
    ];
    for path in &names {
        fs::write(path, b"x").unwrap();
        let found = strays(&RealDisk, root, std::slice::from_ref(&dir)).unwrap();
        assert_eq!(found.iter().map(|stray| &stray.path).collect::<Vec<_>>(), [path]);
        fs::remove_file(path).unwrap();
    }
    fs::write(root.join("LOCK"), b"x").unwrap();
    assert_eq!(strays(&RealDisk, root, &[dir]).unwrap().len(), 1);
    let empty = tempfile::tempdir().unwrap();
    assert!(stream_dirs(&RealDisk, empty.path()).unwrap().is_none());
}

/// Whether what looks torn is whole once the writer, which this machine may have put to sleep, has gone on.
fn settles(dir: &Path, mut report: SegmentReport) -> bool {
    for _ in 0..6_000 {
        match &report.damage {
            None => return true,
            Some(damage) if !damage.torn => return false,
            Some(_) => sleep(Duration::from_millis(10)),
        }
        let Some(again) = verify_last(&RealDisk, dir, &report).unwrap() else { return true };
        report = again;
    }
    false
}

#[test]
fn a_journal_that_grows_and_is_trimmed_while_it_is_read_is_sound() {
    let place = Place::new();
    let (_journal, stream) = place.open().unwrap();
    fill(&stream, 1..=100);
    let dir = place.dir.path().join(place.id().to_string());
    let rounds = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            // Until it was looked at often enough, but not for ever.
            let is_wanted = |number: u64| {
                number <= 1_500 || number <= 100_000 && rounds.load(Ordering::Relaxed) <= 3
            };
            for number in (101..).take_while(|number| is_wanted(*number)) {
                fill(&stream, std::iter::once(number));
                if number % 50 == 0 {
                    stream.trim(stream.watermarks().synced, true).unwrap();
                }
            }
        });
        while !writer.is_finished() {
            for report in damaged(&dir) {
                assert!(settles(&dir, report.clone()), "{report:?}");
            }
            assert!(list(&RealDisk, &dir).is_ok());
            dumped(&dir, 1).1.unwrap();
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    });
    let rounds = rounds.into_inner();
    assert!(rounds > 3, "only {rounds} rounds");
}

/// The machine's disk, on which a folder is emptied just before it is listed for the last time of `left`.
#[derive(Debug)]
struct Emptied {
    left: AtomicUsize,
}

impl Disk for Emptied {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            for name in RealDisk.list(dir)? {
                RealDisk.remove(&dir.join(name))?;
            }
        }
        RealDisk.list(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        RealDisk.create(path)
    }
    fn open(&self, path: &Path, write: bool) -> io::Result<Box<dyn File>> {
        RealDisk.open(path, write)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        RealDisk.lock(path)
    }
}

#[test]
fn a_folder_that_is_emptied_while_it_is_looked_at_does_no_harm() {
    let (place, dir) = journal();
    let files: Vec<_> =
        place.segments().into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    for left in 1..8 {
        for (what, look) in LOOKS.iter().enumerate() {
            files.iter().for_each(|(bytes, path)| fs::write(path, bytes).unwrap());
            // Whether it was in use is asked of a last one alone, whose head is damaged.
            let (bytes, last) = files.last().unwrap();
            fs::write(last, &bytes[1..]).unwrap();
            look(&Emptied { left: AtomicUsize::new(left) }, &dir);
            assert!(left > 1 || place.segments().is_empty(), "look {what}");
        }
    }
}

type Look = fn(&Emptied, &Path);

/// Every way to look; what is found depends on when the folder is emptied.
const LOOKS: [Look; 4] = [
    |disk, dir| drop(verify(disk, dir)),
    |disk, dir| drop(list(disk, dir)),
    |disk, dir| drop(dump(disk, dir, Offset::FIRST, |_, _| true)),
    |disk, dir| drop(relations_before(disk, dir, Offset::new(u64::MAX))),
];
