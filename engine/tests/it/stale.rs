//! Valid bytes in the wrong place: what another life of the stream wrote there, and what another stream did.
//!
//! A device may give back what a block held before. Such a batch is whole, and in its place it is even valid; that it does
//! not follow what is before it is all that tells.

use std::{path::Path, sync::Arc};

use thinwire_engine::{
    Error,
    codec::Records,
    journal::Journal,
    model::{Epoch, StreamId},
    storage::memory::MemoryDisk,
};

use crate::world::{
    DIR, ID, Model, OPTIONS, Random, append, each_seed, insert, interrupted, mark, open, say,
};

/// Two lives of a stream that begin alike and write as many bytes; at the end of the first stands what the second
/// wrote there. It is not taken for a part of the first, neither when it is opened nor when it is read.
pub(crate) fn other_life(seed: u64) -> u64 {
    let mut random = Random(seed);
    let (disk, mut model) = (MemoryDisk::new(), Model::default());
    {
        let (_journal, stream) = open(&disk).unwrap();
        append(&stream, &mut model, &[random.below(500)], &mut random).unwrap();
        model.synced(stream.sync().unwrap());
    }
    let path = disk.files().pop().unwrap();
    let other = disk.copy();
    let (marks, size) = (random.one_in(2), 100 + random.below(300));
    // Either writes twice; what the other wrote at last stands at the end.
    let live = |disk: &MemoryDisk, model: &mut Model, random: &mut Random, number: u64| {
        let (_journal, stream) = open(disk).unwrap();
        let mut lens = Vec::new();
        for step in [number, number + 1] {
            match marks {
                true => {
                    model.mark = step;
                    stream.mark(mark(step)).unwrap();
                }
                false => {
                    let records = Records::one(&insert(size, random));
                    stream.append(records.clone()).unwrap();
                    model.append(&records);
                }
            }
            model.synced(stream.sync().unwrap());
            lens.push(disk.content(&path).len());
        }
        lens
    };
    let mut first = model.clone();
    let lens = live(&disk, &mut first, &mut random, 10);
    if lens != live(&other, &mut model, &mut random, 20) {
        return 0;
    }
    let (mine, its) = (disk.content(&path), other.content(&path));
    let spliced = [&mine[..lens[0]], &its[lens[0]..]].concat();
    // Opened with it at its end, it is cut; what is before it is there.
    let opened = MemoryDisk::new();
    opened.put(&path, spliced.clone());
    let (_journal, stream) = open(&opened).unwrap();
    let held = stream.watermarks().synced.get() as usize;
    assert_eq!(held, if marks { first.len() } else { first.len() - 1 });
    (first.acked, first.acked_mark) = (held, 0);
    first.recovered(&stream);
    assert_eq!(first.mark, if marks { 10 } else { 0 });
    // Put under a reader, it is an error.
    if !marks {
        let (_journal, stream) = open(&disk).unwrap();
        disk.put(&path, spliced);
        let (mut reader, mut last) = (stream.read(stream.watermarks().first).unwrap(), Ok(None));
        while matches!(last, Ok(None)) {
            last = match reader.next_block() {
                Ok(Some(_)) => Ok(None),
                Ok(None) => break,
                Err(error) => Err::<Option<()>, _>(error),
            };
        }
        assert!(matches!(last, Err(Error::Corrupt { .. })), "another life was read");
    }
    1
}

/// Behind the torn end of a stream stands what another stream wrote at the same position of its file. It says that
/// much was durable, and that says nothing here.
pub(crate) fn other_stream(seed: u64) -> u64 {
    let mut random = Random(seed);
    let (disk, mut model) = interrupted(&mut random);
    let disk = disk.power_cut(&mut |n| random.below(n));
    let path = {
        let (_journal, stream) = open(&disk).unwrap();
        model.recovered(&stream);
        disk.files().pop().unwrap()
    };
    let mut content = disk.content(&path);
    let foreign = foreign_file(&mut random, content.len() + 600);
    let from = content.len();
    content.extend_from_slice(&foreign[from..]);
    // Torn in the first bytes, or not.
    if random.one_in(2) {
        let end = content.len().min(from + 30);
        content[from..end].fill(0);
    }
    disk.put(&path, content);
    let (_journal, stream) = open(&disk).expect("another stream's word halts this one");
    model.recovered(&stream);
    model.read(&stream);
    1
}

/// What a stream with many more records has in its first file.
fn foreign_file(random: &mut Random, len: usize) -> Vec<u8> {
    let (disk, id) = (MemoryDisk::new(), StreamId { epoch: Epoch::from_bytes([9; 16]), ..ID });
    let options = thinwire_engine::journal::Options { segment: 1 << 20, ..OPTIONS };
    let (journal, _) = Journal::open(Arc::new(disk.clone()), Path::new(DIR), options).unwrap();
    let stream = journal.open_stream(id).unwrap();
    while disk.used() < len {
        for _ in 0..3 {
            stream.append(Records::one(&insert(1 + random.below(20), random))).unwrap();
        }
        stream.sync().unwrap();
    }
    disk.content(&disk.files()[0])
}

#[test]
fn what_another_life_of_the_stream_wrote_is_not_believed() {
    let tally = each_seed("what_another_life", 4_000, other_life);
    say(&format!("batches of another life: {}; believed: 0", tally.total));
    assert!(tally.total > 3_000);
}

#[test]
fn what_another_stream_wrote_proves_nothing() {
    let tally = each_seed("what_another_stream", 4_000, other_stream);
    say(&format!("ends of another stream: {}; false halts: 0", tally.total));
}
