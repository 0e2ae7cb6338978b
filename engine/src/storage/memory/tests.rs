//! The disk forgets what it may forget, all of it, and nothing else.

use std::{collections::BTreeSet, path::Path};

use super::*;

const FILE: &str = "d/f";

fn create(disk: &MemoryDisk) -> Box<dyn File> {
    disk.create(Path::new(FILE)).unwrap()
}

/// Everything that a power cut can leave of the file.
fn outcomes(disk: &MemoryDisk) -> BTreeSet<Option<Vec<u8>>> {
    let (mut left, mut taken) = (BTreeSet::new(), Vec::<(usize, usize)>::new());
    loop {
        let mut at = 0;
        let after = disk.power_cut(&mut |n| {
            if at == taken.len() {
                taken.push((0, n));
            }
            at += 1;
            taken[at - 1].0
        });
        let is_there = after.files().iter().any(|path| path == Path::new(FILE));
        left.insert(is_there.then(|| after.content(Path::new(FILE))));
        while let Some((chosen, of)) = taken.pop() {
            if chosen + 1 < of {
                taken.push((chosen + 1, of));
                break;
            }
        }
        if taken.is_empty() {
            return left;
        }
    }
}

fn sectors(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| [*byte; 512]).collect()
}

#[test]
fn what_was_synced_with_its_name_survives_and_nothing_else_must() {
    let disk = MemoryDisk::new();
    let file = create(&disk);
    file.write_all_at(&sectors(b"a"), 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(outcomes(&disk), BTreeSet::from([None, Some(sectors(b"a"))]));
    disk.sync_dir(Path::new("d")).unwrap();
    assert_eq!(outcomes(&disk), BTreeSet::from([Some(sectors(b"a"))]));
    disk.remove(Path::new(FILE)).unwrap();
    assert_eq!(outcomes(&disk), BTreeSet::from([None, Some(sectors(b"a"))]));
}

#[test]
fn of_each_unsynced_sector_any_version_may_survive_or_zeros_where_the_file_grew() {
    let disk = MemoryDisk::new();
    let file = create(&disk);
    file.write_all_at(&sectors(b"a"), 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("d")).unwrap();
    file.write_all_at(&sectors(b"bc"), 0).unwrap();
    file.write_all_at(&sectors(b"d"), 0).unwrap();
    let expected = [b"a".as_slice(), b"b", b"d"].into_iter().flat_map(|first| {
        let grown = [b"\0".as_slice(), b"c"].map(|second| [first, second].concat());
        [first.to_vec()].into_iter().chain(grown)
    });
    assert_eq!(outcomes(&disk), expected.map(|bytes| Some(sectors(&bytes))).collect());
}

#[test]
fn a_block_that_was_cut_off_may_come_back_where_the_file_grows_again() {
    let disk = MemoryDisk::new();
    let file = create(&disk);
    file.write_all_at(&sectors(b"ab"), 0).unwrap();
    file.set_len(512).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("d")).unwrap();
    file.write_all_at(&sectors(b"c"), 512).unwrap();
    let expected = [b"a".as_slice(), b"a\0", b"ab", b"ac"];
    assert_eq!(outcomes(&disk), expected.map(|bytes| Some(sectors(bytes))).into());
}

#[test]
fn a_failed_sync_loses_what_can_still_be_read_and_the_next_one_succeeds() {
    let disk = MemoryDisk::new();
    let file = create(&disk);
    disk.sync_dir(Path::new("d")).unwrap();
    file.write_all_at(b"lost", 0).unwrap();
    disk.fail(0, Fault::Lossy, false);
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(disk.content(Path::new(FILE)), b"lost");
    assert_eq!(outcomes(&disk), BTreeSet::from([Some(Vec::new())]));
    file.forget_cached().unwrap();
    assert_eq!(file.len().unwrap(), 0);
}

#[test]
fn a_failed_sync_may_lose_some_sectors_and_keep_the_length() {
    let mut seen = BTreeSet::new();
    for number in 0..40 {
        let disk = MemoryDisk::new();
        let file = create(&disk);
        disk.sync_dir(Path::new("d")).unwrap();
        file.write_all_at(&sectors(b"a"), 0).unwrap();
        file.sync_data().unwrap();
        (0..number).for_each(|_| file.sync_data().unwrap());
        file.write_all_at(&sectors(b"bc"), 0).unwrap();
        disk.fail(0, Fault::Holes, false);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(disk.content(Path::new(FILE)), sectors(b"bc"));
        seen.extend(outcomes(&disk));
    }
    let expected = [b"ac".as_slice(), b"a\0", b"bc", b"b\0"];
    assert_eq!(seen, expected.map(|bytes| Some(sectors(bytes))).into());
}

#[test]
fn what_a_pinned_cache_holds_is_lost_with_the_power_unless_it_is_written_again() {
    for is_written in [false, true] {
        let disk = MemoryDisk::new();
        let file = create(&disk);
        disk.sync_dir(Path::new("d")).unwrap();
        disk.pin_cache();
        file.write_all_at(b"lost", 0).unwrap();
        disk.fail(0, Fault::Lossy, false);
        assert!(file.sync_data().is_err());
        file.forget_cached().unwrap();
        assert_eq!(file.len().unwrap(), 4);
        if is_written {
            file.write_all_at(b"lost", 0).unwrap();
        }
        file.sync_data().unwrap();
        let left = if is_written { b"lost".to_vec() } else { Vec::new() };
        assert_eq!(outcomes(&disk), BTreeSet::from([Some(left)]));
    }
}

#[test]
fn names_of_which_a_sync_failed_count_as_durable_until_one_in_the_folder_changes() {
    let (disk, dir) = (MemoryDisk::new(), Path::new("d"));
    create(&disk);
    disk.fail(0, Fault::Lossy, false);
    assert!(disk.sync_dir(dir).is_err());
    disk.sync_dir(dir).unwrap();
    assert_eq!(outcomes(&disk), BTreeSet::from([None, Some(Vec::new())]));
    disk.create(Path::new("e/f")).unwrap();
    disk.sync_dir(dir).unwrap();
    assert_eq!(outcomes(&disk).len(), 2, "another folder has changed");
    disk.create(Path::new("d/g")).unwrap();
    disk.sync_dir(dir).unwrap();
    assert_eq!(outcomes(&disk), BTreeSet::from([Some(Vec::new())]));
}

#[test]
fn what_decays_is_read_from_the_cache_until_that_is_forgotten() {
    let disk = MemoryDisk::new();
    let file = create(&disk);
    file.write_all_at(b"a", 0).unwrap();
    file.sync_data().unwrap();
    disk.decay(Path::new(FILE), 1);
    assert_eq!(disk.content(Path::new(FILE)), b"a");
    file.forget_cached().unwrap();
    assert_eq!(disk.content(Path::new(FILE)), b"c");
}

#[test]
fn a_full_disk_takes_what_fits_and_a_failing_one_fails_where_it_is_told() {
    let disk = MemoryDisk::new();
    let file = create(&disk);
    disk.limit(Some(3));
    let full = file.write_all_at(b"four", 0).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.content(Path::new(FILE)), b"fou");
    disk.limit(None);
    disk.fail_read(1, Fault::Interrupted, true);
    assert_eq!(file.len().unwrap(), 3);
    let interrupted = disk.list(Path::new("d")).unwrap_err();
    assert_eq!(interrupted.kind(), io::ErrorKind::Interrupted);
    assert!(file.read_at(&mut [0], 0).is_err() && file.set_len(0).is_ok());
    disk.heal();
    assert_eq!(file.len().unwrap(), 0);
}

#[test]
fn a_copy_goes_its_own_way() {
    let disk = MemoryDisk::new();
    let file = create(&disk);
    let copy = disk.copy();
    file.write_all_at(b"a", 0).unwrap();
    copy.put(Path::new(FILE), b"b".to_vec());
    copy.flip(Path::new(FILE), 0);
    assert_eq!(
        (disk.content(Path::new(FILE)), copy.content(Path::new(FILE))),
        (vec![b'a'], vec![b'c'])
    );
    copy.lose(Path::new(FILE));
    assert!(copy.files().is_empty() && !disk.files().is_empty());
}
