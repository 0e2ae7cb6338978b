//! A journal of one stream on a disk in memory, and the transactions that fill it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use thinwire_engine::{
    Error,
    codec::{Records, RecordsBuf},
    journal::{Journal, Mark, Options, Stream},
    model::{Epoch, Lsn, Offset, Origin, Record, RelationId, Row, StreamId, Timestamp, Value},
    storage::memory::MemoryDisk,
};

/// The stream.
pub const ID: StreamId =
    StreamId { origin: Origin::from_bytes([1; 16]), epoch: Epoch::from_bytes([2; 16]) };

/// The smallest segment that may be, so that few transactions fill one.
const OPTIONS: Options = Options { own: ID.origin, segment: 64 << 10, budget: 1 << 40 };

/// The longest row: two fill a segment.
const ROW_BYTES_MAX: usize = 40_000;

/// One more than a transaction has rows.
const ROWS_MAX: u8 = 4;

/// Sizes from here on stand for large rows; most are small, because large ones are slow.
pub const LARGE: u8 = 0xE0;

/// The stream's folder.
pub fn folder() -> PathBuf {
    Path::new("journal").join(ID.to_string())
}

/// Opens the journal, and in it the stream.
///
/// # Errors
/// Those of the stream.
pub fn open(disk: &MemoryDisk) -> Result<(Journal, Arc<Stream>), Error> {
    let (journal, failure) = journal(disk)?;
    match failure {
        Some(error) => Err(error),
        None => journal.open_stream(ID).map(|stream| (journal, stream)),
    }
}

/// Opens the journal; says why the stream could not be opened, if it could not.
///
/// # Errors
/// Those of the disk.
pub fn journal(disk: &MemoryDisk) -> Result<(Journal, Option<Error>), Error> {
    let disk = Arc::new(disk.clone());
    let (journal, mut unopened) = Journal::open(disk, Path::new("journal"), OPTIONS)?;
    Ok((journal, unopened.pop().map(|unopened| unopened.error)))
}

/// Transaction `number`, of a few rows of a size. No two are equal.
pub fn transaction(number: u64, rows: u8, size: u8) -> Records {
    let size = match usize::from(size) {
        large if size >= LARGE => ROW_BYTES_MAX / 32 * (large - usize::from(LARGE) + 1),
        small => small,
    };
    let mut buf = RecordsBuf::new();
    let time = Timestamp::from_micros(0);
    buf.push(&Record::Begin { xid: 1, lsn: Lsn::new(number), time });
    for row in 0..rows % ROWS_MAX {
        let new = Row(vec![Value::Bytes(noise(number.wrapping_add(row.into()), size))]);
        buf.push(&Record::Insert { relation: RelationId(1), new });
    }
    buf.push(&Record::Commit { end: Lsn::new(number) });
    buf.take()
}

/// A mark that says its number.
pub fn mark(number: u64, released: bool) -> Mark {
    Mark { lsn: Lsn::new(number), timeline: 1, system: 1, released }
}

/// Checks that the stream holds `records` from `first` on, as far as it can be read; returns whether it can to its end.
pub fn holds(stream: &Arc<Stream>, first: Offset, records: &[Bytes]) -> Result<(), Error> {
    let (mut at, mut reader) = (first, stream.read(first)?);
    while let Some(block) = reader.next_block()? {
        assert_eq!(block.first, at);
        for record in block.records.iter() {
            assert_eq!(Some(&record), record_at(records, at), "record {at}");
            at = at.next();
        }
    }
    assert_eq!(at, stream.watermarks().synced.next());
    Ok(())
}

fn record_at(records: &[Bytes], at: Offset) -> Option<&Bytes> {
    records.get(usize::try_from(at.prev().get()).ok()?)
}

/// Bytes that do not compress, made once.
fn noise(number: u64, size: usize) -> Bytes {
    static NOISE: LazyLock<Bytes> = LazyLock::new(|| {
        let mut state = 1_u64;
        let mut byte = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        (0..2 * ROW_BYTES_MAX).map(|_| byte()).collect()
    });
    let start = usize::try_from(number).unwrap_or_default() % ROW_BYTES_MAX;
    NOISE.slice(start..start + size)
}
