//! Every bit, every byte, every sector: no damage to a journal of several segments stays unseen.
//!
//! *Seen* means: the stream does not open; or reading it is refused; or it ends before what was acknowledged, or begins
//! behind what was trimmed, which those know to whom it was acknowledged and who trimmed. The journal was sealed before,
//! so that all damage in front of the last seal is seen without them. `inspect::verify` sees all but whole batches that
//! are missing at an end of the journal.
//!
//! What is not seen is counted: a cut that takes whole batches without records from the end of a segment. The head of the
//! next segment repeats such a mark, and a seal that is gone at the end of the journal is written anew.

use std::{
    path::{Path, PathBuf},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use thinwire_engine::{Error, journal::inspect, storage::memory::MemoryDisk};

use crate::classify::batches;
use crate::world::{Model, Random, append, each_seed, mark, open, say, stream_dir};

/// How large the journal is at least.
const BYTES: usize = 64 << 10;

/// How many bytes one case damages, one after the other.
const PIECE: usize = 64;

const SECTOR: usize = 512;

/// A journal, whole and durable.
pub(crate) struct Sound {
    pub(crate) model: Model,
    pub(crate) files: Vec<(PathBuf, Vec<u8>)>,
    /// What the files were after each sync.
    pub(crate) versions: Vec<(PathBuf, Vec<u8>)>,
}

impl Sound {
    pub(crate) fn new(seed: u64, bytes: usize) -> Self {
        let (mut random, disk, mut model) = (Random(seed), MemoryDisk::new(), Model::default());
        let (_journal, stream) = open(&disk).unwrap();
        let mut versions = Vec::new();
        while disk.used() < bytes {
            let sizes = [random.below(200), random.below(60)];
            append(&stream, &mut model, &sizes[..random.below(3)], &mut random).unwrap();
            if random.one_in(5) {
                model.mark += 1;
                stream.mark(mark(model.mark)).unwrap();
            }
            if random.one_in(2) {
                model.synced(stream.sync().unwrap());
                let path = disk.files().pop().unwrap();
                versions.push((path.clone(), disk.content(&path)));
                if random.one_in(8) {
                    stream.seal().unwrap();
                }
            }
        }
        // The last segment holds something too.
        let mut segments = 0;
        while segments != disk.files().len() {
            segments = disk.files().len();
            append(&stream, &mut model, &[100], &mut random).unwrap();
            model.synced(stream.sync().unwrap());
        }
        stream.seal().unwrap();
        let files = disk.files().into_iter().map(|path| (path.clone(), disk.content(&path)));
        Self { model, files: files.collect(), versions }
    }

    /// Whether what the disk holds now is seen not to be what it was. If it is not seen, nothing was lost.
    pub(crate) fn sees(&self, disk: &MemoryDisk) -> bool {
        let stream = match open(disk) {
            Ok((_journal, stream)) => stream,
            Err(Error::Corrupt { .. }) => return true,
            Err(error) => panic!("{error}"),
        };
        let marks = stream.watermarks();
        let (first, last) = (marks.first.get() as usize, marks.synced.get() as usize);
        let mark = stream.durable_mark().map_or(0, |mark| mark.lsn.get());
        let shorter = last < self.model.acked || mark < self.model.acked_mark;
        if shorter || first > self.model.trimmed + 1 {
            return true;
        }
        match self.model.try_read(&stream) {
            Err(Error::Corrupt { .. }) => true,
            Err(error) => panic!("{error}"),
            Ok(()) => {
                self.model.clone().recovered(&stream);
                false
            }
        }
    }

    /// The same, or it is verified to be damaged.
    pub(crate) fn notices(&self, disk: &MemoryDisk) -> bool {
        let reports = inspect::verify(disk, &stream_dir()).unwrap();
        // First looked at, because opening cuts what is torn.
        let verified = reports.iter().any(|report| report.damage.is_some());
        self.sees(disk) || verified
    }

    pub(crate) fn disk(&self) -> MemoryDisk {
        let disk = MemoryDisk::new();
        self.files.iter().for_each(|(path, content)| disk.put(path, content.clone()));
        disk
    }

    /// A journal of one file and the next alone, or of the last two, which is quicker to look at.
    fn around(&self, number: usize) -> Self {
        let from = number.min(self.files.len() - 2);
        let files = self.files[from..self.files.len().min(number + 2)].to_vec();
        let disk = MemoryDisk::new();
        files.iter().for_each(|(path, content)| disk.put(path, content.clone()));
        let (_journal, stream) = open(&disk).unwrap();
        let mut model = self.model.clone();
        model.trimmed = stream.watermarks().first.get() as usize - 1;
        (model.acked, model.acked_mark) = (stream.watermarks().synced.get() as usize, 0);
        model.recovered(&stream);
        Self { model, files, versions: Vec::new() }
    }
}

/// How many flipped bits only verifying has seen.
static MARKS: AtomicU64 = AtomicU64::new(0);

/// How many cuts nobody has seen.
static UNSEEN: AtomicU64 = AtomicU64::new(0);

pub(crate) static SOUND: LazyLock<Sound> = LazyLock::new(|| Sound::new(1, BYTES));

fn pieces() -> Vec<(usize, usize)> {
    let files = SOUND.files.iter().enumerate();
    files
        .flat_map(|(n, (_, bytes))| (0..bytes.len()).step_by(PIECE).map(move |at| (n, at)))
        .collect()
}

/// Where a file may be cut without anybody seeing it: in front of batches without records at its end.
fn spare_ends(content: &[u8]) -> Vec<usize> {
    let all = batches(content);
    all.iter().rev().take_while(|batch| batch.is_no_record()).map(|batch| batch.at).collect()
}

/// Asserts that damage of one file of a journal is seen by verifying; and by opening and reading, unless what was
/// hit is a seal, or a mark, which the head of the next segment repeats, or which nobody was told of. Returns whether it
/// was one.
fn assert_seen(sound: &Sound, disk: &MemoryDisk, path: &Path, what: &str) -> bool {
    let reports = inspect::verify(disk, &stream_dir()).unwrap();
    let damaged = reports.iter().find(|report| report.damage.is_some());
    assert!(damaged.is_some_and(|report| report.path == *path), "{what}: not verified");
    if sound.sees(disk) {
        return false;
    }
    let at = damaged.and_then(|report| report.damage.as_ref()).map_or(0, |damage| damage.at);
    let (_, content) = sound.files.iter().find(|(of, _)| of == path).expect("it is a file of it");
    let hit = batches(content).into_iter().find(|batch| batch.at as u64 == at);
    assert!(
        hit.is_some_and(|batch| batch.is_no_record()),
        "{what}: neither opening nor reading sees it"
    );
    true
}

/// Flips every bit of a piece, and cuts the file at each of its bytes.
pub(crate) fn piece(seed: u64) -> u64 {
    let (number, from) = pieces()[seed as usize];
    let (path, content) = &SOUND.files[number];
    let (sound, to) = (SOUND.around(number), content.len().min(from + PIECE));
    let disk = sound.disk();
    for bit in from * 8..to * 8 {
        let damaged = disk.copy();
        damaged.flip(path, bit);
        let what = format!("{} bit {bit}", path.display());
        MARKS.fetch_add(u64::from(assert_seen(&sound, &damaged, path, &what)), Ordering::Relaxed);
    }
    let spare = spare_ends(content);
    for len in from..to {
        let damaged = disk.copy();
        damaged.put(path, content[..len].to_vec());
        let is_seen = sound.notices(&damaged);
        assert!(is_seen || spare.contains(&len), "{}: unseen when cut at {len}", path.display());
        UNSEEN.fetch_add(u64::from(!is_seen), Ordering::Relaxed);
    }
    ((to - from) * 8) as u64
}

/// Puts a sector of anywhere, of now or of an earlier time, or zeros, in the place of one.
pub(crate) fn sector(seed: u64) -> u64 {
    let sectors = SOUND.files.iter().enumerate().flat_map(|(number, (_, bytes))| {
        (0..bytes.len().div_ceil(SECTOR)).map(move |sector| (number, sector * SECTOR))
    });
    let sectors: Vec<_> = sectors.collect();
    let Some(&(number, at)) = sectors.get(seed as usize) else { return 0 };
    let (path, content) = &SOUND.files[number];
    let len = SECTOR.min(content.len() - at);
    let part = |bytes: &[u8], at: usize| {
        let mut part = bytes.get(at..).unwrap_or_default().to_vec();
        part.resize(len, 0);
        part
    };
    let misdirected = sectors.iter().map(|&(other, at)| part(&SOUND.files[other].1, at));
    let stale =
        SOUND.versions.iter().filter(|(of, _)| of == path).map(|(_, bytes)| part(bytes, at));
    let (sound, mut tried) = (SOUND.around(number), 0);
    for replacement in misdirected.chain(stale).chain([vec![0; len]]) {
        let mut bytes = content.clone();
        bytes[at..at + len].copy_from_slice(&replacement);
        if bytes != *content {
            let damaged = sound.disk();
            damaged.put(path, bytes);
            assert_seen(&sound, &damaged, path, &format!("{} at {at}", path.display()));
            tried += 1;
        }
    }
    tried
}

#[test]
fn every_flipped_bit_and_every_cut_is_seen() {
    let pieces = pieces().len() as u64;
    let tally = each_seed("every_flipped_bit", pieces, piece);
    assert!(tally.total >= 8 * BYTES as u64);
    let (took, marks) = (tally.took.as_secs_f64(), MARKS.load(Ordering::Relaxed));
    // Marks and seals are few and short.
    assert!(marks * 50 < tally.total, "{marks} bits are seen by verifying alone");
    let (cuts, unseen) = (tally.total / 8, UNSEEN.load(Ordering::Relaxed));
    // One whole mark or seal at the end of a segment, now and then two.
    assert!(unseen <= 2 * SOUND.files.len() as u64, "{unseen} cuts are unseen");
    say(&format!(
        "flipped bits: {} in {took:.0} s; unseen: 0; seen by verifying alone, in marks and seals at an end: {marks}; \
         cuts: {cuts}, one at each byte; unseen, in front of such marks and seals: {unseen}",
        tally.total
    ));
}

#[test]
fn every_stale_misdirected_or_empty_sector_is_seen() {
    let sectors: usize = SOUND.files.iter().map(|(_, bytes)| bytes.len().div_ceil(SECTOR)).sum();
    let tally = each_seed("every_stale", sectors as u64, sector);
    let took = tally.took.as_secs_f64();
    // One that nobody sees fails.
    say(&format!("stale and misdirected sectors: {} in {took:.0} s; unseen: 0", tally.total));
}
