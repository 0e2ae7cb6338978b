//! Torn or corrupt: on every image of a power cut, with and without a bit flipped in what it had made durable, the
//! journal says which it is, as far as that can be known from the file.
//!
//! It can be known of every record that a later batch of the file calls durable, of everything in front of a seal, marks
//! included, and of all in a file behind which the head of another one says where it was to begin. What is behind the last
//! such word is cut as if it was torn: what was acknowledged since the stream was last sealed, and nothing else. That it
//! is shorter then is for those to see to whom it was acknowledged. `THINWIRE_IMAGES`
//! sets how many images there are.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use thinwire_engine::{Error, storage::memory::MemoryDisk};

use crate::world::{Model, Random, count, each_seed, interrupted, open, say};

/// The layout of the files, told apart from the code that is tested.
const HEAD: usize = 68;
pub(crate) const BATCH_HEAD: usize = 48;

/// A batch in a file.
pub(crate) struct Batch {
    pub(crate) at: usize,
    end: usize,
    /// The record that is next where it begins.
    first: u64,
    pub(crate) is_mark: bool,
    pub(crate) is_seal: bool,
}

impl Batch {
    /// Whether nothing in it is read but to recover.
    pub(crate) fn is_no_record(&self) -> bool {
        self.is_mark || self.is_seal
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(field)
}

/// The batches of a sound file.
pub(crate) fn batches(bytes: &[u8]) -> Vec<Batch> {
    let (mut at, mut out) = (HEAD + number::<4>(bytes, 56) as usize, Vec::new());
    while at < bytes.len() {
        let end = at + BATCH_HEAD + number::<4>(bytes, at + 8) as usize;
        let first = number::<8>(bytes, at + 16);
        let is_mark = bytes[at + 44] == 2;
        let is_seal = !is_mark && number::<4>(bytes, at + 32) == 0;
        out.push(Batch { at, end, first, is_mark, is_seal });
        at = end;
    }
    out
}

/// Whether so much of a segment's head is whole that it says what the segment is.
fn is_named(bytes: &[u8]) -> bool {
    let checksum = HEAD - 4;
    bytes.len() >= HEAD
        && u64::from(crc32fast::hash(&bytes[..checksum])) == number::<4>(bytes, checksum)
}

/// What became of a flipped bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The stream was not opened, and its files were not touched.
    Halted,
    /// It was opened, and reading says where it is corrupt.
    Unreadable,
    /// It ends before the flipped bit, behind which nothing says that it had been durable.
    Cut,
    /// What the bit was in says nothing that is not said elsewhere.
    Harmless,
}

/// One image of a power cut, opened as it is and with a flipped bit.
pub(crate) fn image(seed: u64) -> Verdict {
    let mut random = Random(seed);
    let (disk, mut model) = interrupted(&mut random);
    let image = disk.power_cut(&mut |n| random.below(n));
    let sound = image.copy();
    {
        let (_journal, stream) = open(&sound).expect("a power cut alone never halts a stream");
        model.recovered(&stream);
        model.read(&stream);
    }
    let files = sound.files();
    let path = &files[random.below(files.len())];
    let bytes = sound.content(path);
    let mut others = image.files().into_iter().filter(|path| !files.contains(path));
    let is_followed = others.any(|path| is_named(&image.content(&path)));
    let bit = random.below(bytes.len() * 8);
    image.flip(path, bit);
    let last = Some(path) == files.last();
    match last {
        true => {
            let alone = files.len() == 1;
            flipped_in_the_last(&image, path, &bytes, bit, (alone, is_followed), &model)
        }
        false => flipped_before_the_last(&image, path, &bytes, bit, &model),
    }
}

/// Everything behind it is there, and it is found when it is read; marks at the end are not read, because the
/// head of the next segment repeats the last.
fn flipped_before_the_last(
    image: &MemoryDisk,
    path: &Path,
    sound: &[u8],
    bit: usize,
    model: &Model,
) -> Verdict {
    let damaged = image.content(path);
    let (_journal, stream) = open(image).expect("only the last segment is needed to open");
    model.clone().recovered(&stream);
    let read = model.try_read(&stream);
    assert!(image.content(path) == damaged, "what is corrupt was touched");
    let batches = batches(sound);
    let records_end = batches.iter().filter(|it| !it.is_no_record()).map(|it| it.end).max();
    if Some(bit / 8) >= records_end {
        assert!(read.is_ok());
        return Verdict::Harmless;
    }
    assert!(matches!(read, Err(Error::Corrupt { .. })));
    Verdict::Unreadable
}

fn flipped_in_the_last(
    image: &MemoryDisk,
    path: &Path,
    sound: &[u8],
    bit: usize,
    (alone, is_followed): (bool, bool),
    model: &Model,
) -> Verdict {
    let all = batches(sound);
    let hit = all.iter().position(|batch| (batch.at..batch.end).contains(&(bit / 8)));
    let born_alone = alone && !path.ends_with("00000000000000000001.seg");
    let proven = match hit {
        Some(hit) if is_followed && all[hit..].iter().any(|batch| !batch.is_no_record()) => true,
        Some(hit) => all[hit + 1..].iter().filter(|later| !later.is_mark).any(|later| {
            let synced = model.synced_before(later.first as usize);
            later.is_seal || synced >= Some(all[hit].first as usize)
        }),
        // The head: whatever was written behind it came after it was durable, and so does the
        // removal of all segments before it.
        None => !all.is_empty() || born_alone,
    };
    let damaged = image.content(path);
    let opened = open(image);
    let (_journal, stream) = match opened {
        Ok(opened) => opened,
        Err(Error::Corrupt { segment, .. }) => {
            assert_eq!(&segment, path);
            assert!(image.content(path) == damaged, "what is corrupt was touched");
            return Verdict::Halted;
        }
        Err(error) => panic!("{error}"),
    };
    assert!(!proven, "a later batch says that what was cut had been durable");
    let held = stream.watermarks().synced.get();
    let mut cut = model.clone();
    let Some(hit) = hit else {
        assert_eq!(held as usize, model.acked);
        cut.recovered(&stream);
        cut.read(&stream);
        return Verdict::Harmless;
    };
    // Cut exactly at the batch that was hit: what is before it is there, and those who were told of more see it.
    assert_eq!(held + 1, all[hit].first);
    let mark = stream.durable_mark().map_or(0, |mark| mark.lsn.get());
    let (sealed, sealed_mark) = model.sealed;
    assert!(held as usize >= sealed, "{sealed} records were sealed, {held} are held");
    assert!(mark >= sealed_mark, "mark {sealed_mark} was sealed, {mark} is held");
    (cut.acked, cut.acked_mark) = (held as usize, 0);
    cut.recovered(&stream);
    cut.read(&stream);
    Verdict::Cut
}

#[test]
fn what_was_durable_is_never_cut_silently_and_what_was_not_never_halts() {
    let images = count("THINWIRE_IMAGES", 200_000);
    let verdicts = [const { AtomicU64::new(0) }; 4];
    let tally = each_seed("what_was_durable_is_never_cut", images, |seed| {
        verdicts[image(seed) as usize].fetch_add(1, Ordering::Relaxed);
        1
    });
    let [halted, unreadable, cut, harmless] = verdicts.map(AtomicU64::into_inner);
    say(&format!(
        "images of power cuts: {} in {:.0} s; false halts: 0; with a flipped bit: {halted} halted, \
         {unreadable} found by reading, {cut} cut behind the last word of durability, {harmless} harmless",
        tally.total,
        tally.took.as_secs_f64(),
    ));
    assert!([halted, unreadable, cut, harmless].iter().all(|count| count * 1_000 > images));
}
