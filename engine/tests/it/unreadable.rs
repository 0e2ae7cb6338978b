//! Places that the device cannot read: mended like rot where something says what stood there, and never taken for an end
//! that was torn.

use std::path::{Path, PathBuf};

use thinwire_engine::{
    Error,
    journal::inspect,
    model::Offset,
    storage::{Disk, memory::MemoryDisk},
};

use crate::classify::{BATCH_HEAD, batches};
use crate::mend::{DIR, ID, Random, expected, filled, nurse, open, read_all, segments};

/// What a kernel reads at least.
const PAGE: u64 = 4 << 10;

/// Some pages of a file, one in the middle of them readable in between, sometimes.
fn spoil(disk: &MemoryDisk, random: &mut Random, path: &Path, len: u64) {
    let pages = len.div_ceil(PAGE);
    let first = random.below(pages);
    for page in first..(first + 1 + random.below(4)).min(pages) {
        if page == first || random.below(4) > 0 {
            disk.spoil(path, range(page));
        }
    }
}

fn range(page: u64) -> std::ops::Range<usize> {
    let at = (page * PAGE) as usize;
    at..at + PAGE as usize
}

fn contents(disk: &MemoryDisk) -> Vec<(PathBuf, Vec<u8>)> {
    disk.files().into_iter().map(|path| (path.clone(), disk.content(&path))).collect()
}

#[test]
fn what_cannot_be_read_is_mended_to_what_it_was() {
    let mut fetched = 0;
    for seed in 0..60 {
        let (disk, all) = filled(seed % 20);
        let mut random = Random(seed + 4_000_000);
        let (journal, stream) = open(&disk);
        let stream = stream.unwrap();
        let files = segments(&disk);
        // Every second one, or neighbours, but for the last: a small one may be all that says where they end.
        let step = 1 + random.below(2) as usize;
        for (path, len) in
            files[..files.len() + step - 2].iter().skip(random.below(2) as usize).step_by(step)
        {
            spoil(&disk, &mut random, path, *len);
        }
        while let Err(error) = read_all(&stream) {
            let Error::Corrupt { segment, reason, .. } = &error else { panic!("{seed}: {error}") };
            assert!(reason.contains("cannot read"), "seed {seed}: {error}");
            assert!(files.iter().any(|(path, _)| path == segment), "seed {seed}: {error}");
            let offset = *stream.damage().borrow().first().unwrap();
            let mut mending = stream.mend(offset).unwrap();
            nurse(&mut mending, &all, &mut random);
            fetched += mending.finish().unwrap().fetched;
        }
        assert!(read_all(&stream).unwrap() == expected(&all), "seed {seed}");
        let tail = stream.tail();
        drop((journal, stream));
        let (_journal, stream) = open(&disk.power_cut(&mut |n| random.below(n as u64) as usize));
        let stream = stream.unwrap();
        assert!(stream.tail() == tail && read_all(&stream).unwrap() == expected(&all));
    }
    assert!(fetched > 1_000, "only {fetched} records were missing");
}

#[test]
fn recovery_halts_at_what_cannot_be_read_and_never_cuts_it() {
    let mut mended = 0;
    for seed in 0..20 {
        let (sound, all) = filled(seed);
        let (path, len) = segments(&sound).pop().unwrap();
        for page in 0..len.div_ceil(PAGE) {
            // As it was left, and with the head of a batch in front of it that is torn.
            for torn in [false, true] {
                let disk = sound.copy();
                disk.spoil(&path, range(page));
                let bytes = sound.content(&path);
                let mut before = batches(&bytes).into_iter().rev();
                let before = before.find(|it| it.at as u64 + BATCH_HEAD as u64 <= page * PAGE);
                if let (true, Some(before)) = (torn, before) {
                    disk.flip(&path, before.at * 8);
                }
                mended += u64::from(halted_and_mended(&disk, &path, &all, seed));
            }
        }
    }
    assert!(mended > 20, "only {mended} were mended");
}

/// Whether a stream that is halted for its last segment can be mended; if so, nothing of it is missing.
fn halted_and_mended(
    disk: &MemoryDisk,
    path: &Path,
    all: &[thinwire_engine::codec::Records],
    seed: u64,
) -> bool {
    let before = contents(disk);
    let (journal, stream) = open(disk);
    assert!(stream.is_none(), "seed {seed}: what cannot be read is taken for torn");
    assert!(contents(disk) == before, "seed {seed}: it was touched");
    let Err(error) = journal.open_stream(ID) else { panic!("seed {seed}") };
    let Error::Corrupt { segment, .. } = &error else { panic!("seed {seed}: {error}") };
    assert_eq!(segment, path, "seed {seed}");
    let mut mending = match journal.mend_unopened(ID) {
        Ok(mending) => mending.unwrap(),
        Err(Error::Corrupt { .. }) => {
            assert!(contents(disk) == before, "seed {seed}: it was touched");
            return false;
        }
        Err(error) => panic!("seed {seed}: {error}"),
    };
    nurse(&mut mending, all, &mut Random(seed));
    mending.finish().unwrap();
    let stream = journal.open_stream(ID).unwrap();
    assert!(read_all(&stream).unwrap() == expected(all), "seed {seed}: some are gone");
    true
}

#[test]
fn what_cannot_be_read_is_found_in_the_background_and_by_verifying() {
    let (disk, _) = filled(7);
    let (_journal, stream) = open(&disk);
    let stream = stream.unwrap();
    let (bases, files) = (stream.segments(), segments(&disk));
    let dir = Path::new(DIR).join(ID.to_string());
    for which in [0, 2, files.len() - 1] {
        for page in [0, 1] {
            let disk = disk.copy();
            disk.spoil(&files[which].0, range(page));
            let reports = inspect::verify(&disk, &dir).unwrap();
            let damaged: Vec<_> = reports.iter().filter(|it| it.damage.is_some()).collect();
            assert_eq!(damaged.len(), 1, "{damaged:?}");
            let damage = damaged[0].damage.as_ref().unwrap();
            assert!(!damage.torn && damage.reason.contains("cannot read"), "{damage:?}");
            assert!(damage.at < (page + 1) * PAGE, "{damage:?}");
            assert_eq!(damaged[0].path, files[which].0);
            let dumped = inspect::dump(&disk, &dir, Offset::FIRST, |_, _| true);
            assert!(matches!(dumped, Err(Error::Corrupt { .. })), "{dumped:?}");
        }
    }
    disk.spoil(&files[2].0, range(1));
    let damaged: Vec<_> = bases.iter().filter(|base| stream.scrub(**base).is_err()).collect();
    assert_eq!(damaged, [&bases[2]]);
    let damage = stream.damage().borrow().clone();
    assert!(damage.len() == 1 && damage.iter().all(|it| (bases[2]..bases[3]).contains(it)));
}

#[test]
fn a_disk_gives_other_sectors_for_those_that_it_cannot_read() {
    let (disk, path) = (MemoryDisk::new(), Path::new("file"));
    let file = disk.create(path).unwrap();
    file.write_all_at(&[7; 2_000], 0).unwrap();
    disk.spoil(path, 512..1_024);
    let mut bytes = [0; 100];
    assert_eq!(file.read_at(&mut bytes, 400).unwrap(), 100);
    assert!(file.read_at(&mut bytes, 500).is_err());
    assert!(disk.power_cut(&mut |_| 0).open(path, false).is_err(), "its name was never synced");
    file.write_all_at(&[8; 600], 500).unwrap();
    assert_eq!(file.read_at(&mut bytes, 500).unwrap(), 100);
}
