//! What the cache shows and the device does not hold: nobody is to believe it.

use thinwire_engine::{Error, journal::inspect, storage::memory::MemoryDisk};

use crate::{
    classify::batches,
    flips::Sound,
    world::{Model, Random, append, each_seed, mark, open, say, stream_dir},
};

/// A bit that has rotted on the device alone, in what was durable and sealed: opening the journal sees it, and so does
/// verifying.
pub(crate) fn decayed(seed: u64) -> u64 {
    let (mut random, disk, mut model) = (Random(seed), MemoryDisk::new(), Model::default());
    {
        let (_journal, stream) = open(&disk).unwrap();
        for _ in 0..1 + random.below(4) {
            append(&stream, &mut model, &[random.below(300)], &mut random).unwrap();
            model.mark += 1;
            stream.mark(mark(model.mark)).unwrap();
            model.synced(stream.sync().unwrap());
        }
        stream.seal().unwrap();
    }
    let path = disk.files().pop().unwrap();
    let bytes = disk.content(&path);
    let end = batches(&bytes).into_iter().rfind(|batch| batch.is_seal).unwrap().at;
    disk.decay(&path, random.below(end * 8));
    assert!(disk.content(&path) == bytes, "the cache shows what was written");
    let verified = disk.copy();
    let reports = inspect::verify(&verified, &stream_dir()).unwrap();
    assert!(reports.iter().any(|it| it.damage.is_some()), "verifying has believed the cache");
    assert!(matches!(open(&disk), Err(Error::Corrupt { .. })), "opening has believed the cache");
    1
}

#[test]
fn rot_that_only_the_device_knows_of_is_seen_when_opening_and_when_verifying() {
    let tally = each_seed("rot_that_only_the_device", 2_000, decayed);
    say(&format!("bits that rot behind the cache: {}; unseen: 0", tally.total));
}

#[test]
fn verifying_reads_every_segment_from_the_device() {
    let sound = Sound::new(3, 32 << 10);
    for (path, content) in &sound.files {
        for bit in (0..content.len() * 8).step_by(997) {
            let disk = sound.disk();
            disk.decay(path, bit);
            let reports = inspect::verify(&disk, &stream_dir()).unwrap();
            assert!(reports.iter().any(|it| it.damage.is_some()), "{} {bit}", path.display());
        }
    }
}
