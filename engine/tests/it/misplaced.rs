//! Whole segments that are lost, doubled, swapped, old, or another stream's.
//!
//! The last ones lost look like a shorter stream, which those see to whom its end was acknowledged; the first ones
//! lost look like a trimmed one, which those see who trimmed. Everything else is an error, when the stream is opened or when it is
//! read.

use std::path::{Path, PathBuf};

use thinwire_engine::{
    Error,
    journal::inspect,
    model::{Epoch, Offset},
    storage::memory::MemoryDisk,
};

use crate::{
    flips::Sound,
    world::{each_seed, open, say, stream_dir},
};

/// How many segments are mixed up.
const SEGMENTS: usize = 8;

fn content(sound: &Sound, number: usize) -> Vec<u8> {
    sound.files[number].1.clone()
}

fn path(sound: &Sound, number: usize) -> &PathBuf {
    &sound.files[number].0
}

/// The last record in a segment.
fn last_in(path: &Path, bytes: &[u8]) -> Offset {
    let disk = MemoryDisk::new();
    disk.put(path, bytes.to_vec());
    let (_journal, stream) = open(&disk).unwrap();
    stream.watermarks().synced
}

/// Every way to mix up the segments of a journal that is made from the seed.
pub(crate) fn mixed_up(seed: u64) -> u64 {
    let sound = Sound::new(seed, SEGMENTS << 12);
    let (count, mut tried) = (sound.files.len(), 0);
    assert!(count >= SEGMENTS);
    let mut seen = |what: &str, damage: &dyn Fn(&MemoryDisk)| {
        let disk = sound.disk();
        damage(&disk);
        assert!(sound.notices(&disk), "{what}");
        tried += 1;
    };
    for one in 0..count {
        let here = path(&sound, one);
        seen(&format!("{one} lost"), &|disk| disk.lose(here));
        seen(&format!("{one} empty"), &|disk| disk.put(here, Vec::new()));
        let cut = content(&sound, one);
        seen(&format!("{one} cut"), &|disk| disk.put(here, cut[..cut.len() / 2].to_vec()));
        let versions = sound.versions.iter().filter(|(of, _)| of == here);
        let last = last_in(here, &content(&sound, one));
        // A version that lacks only marks lacks nothing: the head of the next segment repeats the last.
        for (_, stale) in versions.filter(|(of, bytes)| last_in(of, bytes) < last) {
            seen(&format!("{one} of {} bytes", stale.len()), &|disk| {
                disk.put(here, stale.clone());
            });
        }
        let foreign = of_another_stream(&sound, one);
        seen(&format!("{one} of another stream"), &|disk| disk.put(here, foreign.clone()));
        for other in (0..count).filter(|other| *other != one) {
            let there = path(&sound, other);
            let (mine, its) = (content(&sound, one), content(&sound, other));
            seen(&format!("{one} is {other}"), &|disk| disk.put(here, its.clone()));
            seen(&format!("{one} and {other} swapped"), &|disk| {
                disk.put(here, its.clone());
                disk.put(there, mine.clone());
            });
            seen(&format!("{one} and {other} lost"), &|disk| {
                disk.lose(here);
                disk.lose(there);
            });
        }
    }
    tried
}

/// The bytes of a segment with the name of another stream in them, and the right checksum of its head.
fn of_another_stream(sound: &Sound, number: usize) -> Vec<u8> {
    let mut bytes = content(sound, number);
    bytes[28..44].copy_from_slice(Epoch::from_bytes([3; 16]).as_bytes());
    let crc = crc32fast::hash(&bytes[..64]);
    bytes[64..68].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn segments_that_are_mixed_up_are_seen() {
    let tally = each_seed("segments_that_are_mixed_up", 40, mixed_up);
    say(&format!("segments lost, swapped, doubled, stale: {}; unseen: 0", tally.total));
}

#[test]
fn a_lost_segment_is_an_error_in_the_middle_and_a_shorter_stream_at_its_ends() {
    let sound = Sound::new(7, SEGMENTS << 12);
    for number in 0..sound.files.len() {
        let disk = sound.disk();
        disk.lose(path(&sound, number));
        let (_journal, stream) = open(&disk).unwrap();
        let read = sound.model.try_read(&stream);
        let marks = stream.watermarks();
        let reports = inspect::verify(&disk, &stream_dir()).unwrap();
        let verified = reports.iter().any(|report| report.damage.is_some());
        if number == 0 {
            assert!(marks.first.get() > 1 && read.is_ok() && !verified);
        } else if number + 1 == sound.files.len() {
            assert!((marks.synced.get() as usize) < sound.model.acked && !verified);
        } else {
            assert!(matches!(read, Err(Error::Corrupt { .. })) && verified, "{number}");
        }
    }
}

#[test]
fn a_segment_of_another_stream_is_not_opened_and_not_touched() {
    let sound = Sound::new(8, SEGMENTS << 12);
    let last = sound.files.len() - 1;
    let (disk, foreign) = (sound.disk(), of_another_stream(&sound, last));
    disk.put(path(&sound, last), foreign.clone());
    assert!(matches!(open(&disk), Err(Error::Corrupt { .. })));
    assert!(disk.content(path(&sound, last)) == foreign);
}
