//! Doors for the fuzz targets to what only the journal may decode, and what must hold behind them.

use std::{path::Path, sync::Arc};

use bytes::Bytes;

use super::{
    Tail,
    format::{
        self, BATCH_HEADER_BYTES, BatchHeader, Codec, Kind, SEGMENT_HEADER_BYTES, SegmentHeader,
    },
    segment::{Found, OpenError, Segment, decode_state, encode_state, pack, records_of},
    tail::StoredMark,
};
use crate::{
    limits::BATCH_BYTES_MAX,
    model::{Epoch, Offset, Origin, Running, StreamId},
    storage::{Disk, File, memory::MemoryDisk},
};

/// Any bytes are a segment's header that encodes to the same bytes, or none; and behind a header whose
/// checksums fit, any bytes are the state at a segment's head, or damage.
pub fn segment(input: &[u8]) {
    if let Some(bytes) = input.first_chunk::<SEGMENT_HEADER_BYTES>()
        && let Ok(header) = SegmentHeader::decode(bytes)
    {
        assert_eq!(&header.encode(), bytes);
    }
    let Some((fields, preamble)) = input.split_first_chunk::<FIELDS>() else { return };
    let tail: Option<Tail> = decode_state(preamble);
    // With the positions that the state itself has, it is the state of this segment.
    let own = tail.as_ref().filter(|_| fields[0] & 1 == 0);
    let header = SegmentHeader {
        stream: stream(),
        base: own.map_or(Offset::new(u64_of(&fields[1..])), |tail| tail.next),
        running: own.map_or(Running::new(u32_of(&fields[9..])), |tail| tail.running),
        preamble_len: u32_len(preamble) ^ u32::from(fields[13]),
        preamble_crc: crc32fast::hash(preamble),
    };
    let path = Path::new("stream").join(format::file_name(header.base));
    let disk = MemoryDisk::new();
    write(&disk, &path, &[&header.encode(), preamble].concat());
    match Segment::open(&disk, &path, stream(), false) {
        Ok((segment, opened)) => {
            assert_eq!(segment.header, header);
            assert_eq!(Some(&opened), tail.as_ref());
            assert_eq!((opened.next, opened.running), (header.base, header.running));
        }
        Err(OpenError::Damaged(_)) => assert!(own.is_none() || fields[13] != 0),
        Err(OpenError::Other(error)) => panic!("{error}"),
    }
}

/// Any bytes are no batch unless their checksums fit; where those fit, what is read is what the header says;
/// and what is written is read again.
pub fn batch(input: &[u8]) {
    let file = segment_with(input);
    if let Some(bytes) = input.first_chunk::<BATCH_HEADER_BYTES>()
        && let Some((header, _)) = BatchHeader::decode(bytes, file.place(0))
    {
        assert_eq!(&header.encode(file.place(0)), bytes);
    }
    check(&file, 0, None);

    let Some((fields, payload)) = input.split_first_chunk::<FIELDS>() else { return };
    let header = BatchHeader {
        kind: if fields[0] & 1 == 0 { Kind::Records } else { Kind::Mark },
        codec: if fields[0] & 2 == 0 { Codec::Plain } else { Codec::Lz4 },
        payload_crc: crc32fast::hash(payload),
        stored_len: u32_len(payload) ^ u32::from(fields[1]),
        raw_len: u32_of(&fields[2..]),
        first: Offset::new(u64_of(&fields[6..])),
        synced_upto: Offset::ZERO,
        records: u32::from(fields[14]),
        running: Running::START,
        chain: 0,
    };
    // As the header says, behind a byte that is part of no batch.
    let file = segment_with(&[&[0], &header.encode(file.place(1))[..], payload].concat());
    check(&file, 1, Some((header, payload)));

    let packed = pack(&Bytes::copy_from_slice(payload));
    let written = [&packed.head(header, file.place(0)).0[..], &packed.stored].concat();
    let file = segment_with(&written);
    match file.batch_at(0) {
        Ok(Found::Batch { payload: read, next, .. }) => {
            assert_eq!(read, payload);
            assert_eq!(next, written.len() as u64);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(file.batch_at(written.len() as u64), Ok(Found::End)));
}

/// Any bytes are a mark, or the state at the end of a stream, that encodes to bytes that are the same, or nothing.
pub fn mark(input: &[u8]) {
    if let Some(mark) = decode_state::<StoredMark>(input) {
        assert_eq!(decode_state(&encode_state(&mark)), Some(mark));
    }
    if let Some(tail) = decode_state::<Tail>(input) {
        assert_eq!(decode_state(&encode_state(&tail)).as_ref(), Some(&tail));
    }
}

/// Reads what stands at `at`: a batch is what its header says, and one that was written there.
fn check(file: &Segment, at: u64, written: Option<(BatchHeader, &[u8])>) {
    let found = file.batch_at(at).expect("nothing fails on this disk");
    let Found::Batch { header, payload, next, .. } = found else { return };
    assert!(payload.len() <= BATCH_BYTES_MAX && payload.len() == header.raw_len as usize);
    assert_eq!(next, at + BATCH_HEADER_BYTES as u64 + u64::from(header.stored_len));
    if let Some((expected, stored)) = written {
        assert_eq!(header, expected);
        assert!(header.codec == Codec::Lz4 || payload == stored);
    }
    if header.kind == Kind::Records
        && let Some(records) = records_of(&header, payload.clone())
    {
        assert_eq!((records.count(), records.bytes()), (header.records, &payload));
    }
}

/// A segment whose file holds these bytes.
fn segment_with(bytes: &[u8]) -> Segment {
    let (disk, path) = (MemoryDisk::new(), Path::new("segment"));
    let header = SegmentHeader {
        stream: stream(),
        base: Offset::FIRST,
        running: Running::START,
        preamble_len: 0,
        preamble_crc: 0,
    };
    Segment { path: path.to_owned(), header, file: write(&disk, path, bytes) }
}

fn write(disk: &MemoryDisk, path: &Path, bytes: &[u8]) -> Arc<dyn File> {
    let written = disk.create(path).and_then(|file| file.write_all_at(bytes, 0).map(|()| file));
    written.expect("nothing fails on this disk").into()
}

fn stream() -> StreamId {
    StreamId { origin: Origin::from_bytes([1; 16]), epoch: Epoch::from_bytes([2; 16]) }
}

fn u32_of(fields: &[u8]) -> u32 {
    fields.first_chunk().copied().map_or(0, u32::from_le_bytes)
}

fn u64_of(fields: &[u8]) -> u64 {
    fields.first_chunk().copied().map_or(0, u64::from_le_bytes)
}

fn u32_len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("an input is small")
}

/// How many bytes of an input stand for the fields of a header.
const FIELDS: usize = 15;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_inputs_that_are_kept_for_the_fuzzer_hold_behind_each_door() {
        for (name, door) in [("batch", batch as fn(&[u8])), ("mark", mark), ("segment", segment)] {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
            let inputs = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path());
            let count = inputs.map(|path| door(&fs::read(path).unwrap())).count();
            assert!(count > 0, "{name} has no inputs");
        }
    }
}
