//! A run of encoded records, each with its length before it: what a batch holds on disk, and what
//! travels in a frame.

use bytes::Bytes;

use super::{Cursor, DecodeError, Tag, decode, encode, put_varint};
use crate::{
    limits::RECORD_BYTES_MAX,
    model::{Offset, Record, Running},
};

/// Records being gathered.
#[derive(Clone, Debug, Default)]
pub struct RecordsBuf {
    bytes: Vec<u8>,
    scratch: Vec<u8>,
    count: u32,
    span: u64,
    skips: bool,
    describes: bool,
}

impl RecordsBuf {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a record.
    pub fn push(&mut self, record: &Record) {
        self.scratch.clear();
        encode(record, &mut self.scratch);
        put_varint(self.scratch.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(&self.scratch);
        self.count += 1;
        self.span += record.span();
        self.skips |= is_skip(&self.scratch);
        self.describes |= describes(&self.scratch);
    }

    /// Appends a record that is encoded already and takes `span` offsets.
    pub fn push_encoded(&mut self, record: &[u8], span: u64) {
        put_varint(record.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(record);
        self.count += 1;
        self.span += span;
        self.skips |= is_skip(record);
        self.describes |= describes(record);
    }

    /// Makes room for so many bytes more.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Gathers into memory that was used before. What was gathered is forgotten.
    pub(crate) fn reuse(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        *self =
            Self { bytes: buffer, scratch: std::mem::take(&mut self.scratch), ..Self::default() };
    }

    /// Appends records that were gathered elsewhere.
    pub fn append(&mut self, records: &Records) {
        self.bytes.extend_from_slice(&records.bytes);
        self.count += records.count;
        self.span += records.span;
        self.skips |= records.skips;
        self.describes |= records.describes;
    }

    /// Their bytes with lengths.
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// How many offsets they take.
    pub fn span(&self) -> u64 {
        self.span
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The records gathered so far; none remain.
    pub fn take(&mut self) -> Records {
        let count = std::mem::take(&mut self.count);
        let span = std::mem::take(&mut self.span);
        let skips = std::mem::take(&mut self.skips);
        let describes = std::mem::take(&mut self.describes);
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        Records { bytes, count, span, skips, describes }
    }
}

/// Records in their canonical encoding, checked to be whole: each length and tag, not each field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    bytes: Bytes,
    count: u32,
    span: u64,
    /// Whether a skipped run is among them: rare, and without one much is simpler.
    skips: bool,
    /// Whether anything but rows and the ends of transactions is among them: likewise.
    describes: bool,
}

/// A record where it lies in its run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Framed<'a> {
    /// The record.
    pub(crate) record: &'a [u8],
    /// Where its length begins, and where it ends.
    pub(crate) begin: usize,
    pub(crate) end: usize,
}

impl Records {
    /// Takes foreign bytes for `count` records.
    pub fn parse(bytes: Bytes, count: u32) -> Result<Self, DecodeError> {
        let mut records = Self { bytes, count, ..Self::default() };
        let mut cursor = Cursor::new(&records.bytes);
        let (mut span, mut skips, mut describing) = (0_u64, false, false);
        for _ in 0..count {
            let record = framed(&mut cursor)?.record;
            let spans = span_of(record)?;
            span = span.checked_add(spans).ok_or(DecodeError::Malformed("too many records"))?;
            skips |= is_skip(record);
            describing |= describes(record);
        }
        cursor.end()?;
        (records.span, records.skips, records.describes) = (span, skips, describing);
        Ok(records)
    }

    /// Just one.
    pub fn one(record: &Record) -> Self {
        let mut buf = RecordsBuf::new();
        buf.push(record);
        buf.take()
    }

    /// All bytes, lengths included.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same, without the rest.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// How many records, a skipped run being one.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many offsets they take.
    pub fn span(&self) -> u64 {
        self.span
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether any of them may say something about tables and copies.
    pub(crate) fn describe(&self) -> bool {
        self.describes
    }

    /// The records' bytes, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.framed().map(|framed| self.bytes.slice_ref(framed.record))
    }

    /// The same, borrowed, each with its place.
    pub(crate) fn framed(&self) -> impl Iterator<Item = Framed<'_>> {
        let mut cursor = Cursor::new(&self.bytes);
        std::iter::from_fn(move || framed(&mut cursor).ok())
    }

    /// The records with their first offsets, if the first of all is at `first`.
    pub fn decode(
        &self,
        first: Offset,
    ) -> impl Iterator<Item = Result<(Offset, Record), DecodeError>> + '_ {
        let mut at = first;
        self.iter().map(move |bytes| {
            let offset = at;
            at = at.forward(span_of(&bytes).unwrap_or(1));
            Ok((offset, decode(&bytes)?))
        })
    }

    /// The running checksum behind them.
    pub fn running(&self, before: Running) -> Running {
        if !self.skips {
            return before.extend(&self.bytes);
        }
        self.framed().fold(before, |running, framed| match skip_of(framed.record) {
            Some((_, running)) => running,
            None => running.extend(&self.bytes[framed.begin..framed.end]),
        })
    }

    /// The CRC-32 of all bytes, if the running checksum is `before` in front of them and `after` behind them: two checksums
    /// of adjacent parts make that of the whole, and so the whole and one part make that of the other.
    pub(crate) fn crc_between(&self, before: Running, after: Running) -> u32 {
        if self.skips {
            return crc32fast::hash(&self.bytes);
        }
        let mut whole = crc32fast::Hasher::new_with_initial(before.get());
        whole.combine(&crc32fast::Hasher::new_with_initial_len(0, self.bytes.len() as u64));
        let crc = whole.finalize() ^ after.get();
        debug_assert_eq!(crc, crc32fast::hash(&self.bytes));
        crc
    }

    /// Without the records of the first `span` offsets. A skipped run that straddles the place is cut.
    #[must_use]
    pub fn after(&self, span: u64) -> Self {
        let (mut left, mut buf) = (span, RecordsBuf::new());
        for Framed { record, .. } in self.framed() {
            let spans = span_of(record).unwrap_or(1);
            if left >= spans {
                left -= spans;
                continue;
            }
            match skip_of(record) {
                Some((count, running)) if left > 0 => {
                    buf.push(&Record::Skip { count: count - left, running });
                    left = 0;
                }
                _ => buf.push_encoded(record, spans),
            }
        }
        buf.take()
    }

    /// Only the records of the first `span` offsets; a skipped run that straddles the place is left out.
    #[must_use]
    pub fn until(&self, span: u64) -> Self {
        let (mut left, mut buf) = (span, RecordsBuf::new());
        for Framed { record, .. } in self.framed() {
            let spans = span_of(record).unwrap_or(1);
            if spans > left {
                break;
            }
            left -= spans;
            buf.push_encoded(record, spans);
        }
        buf.take()
    }
}

/// How many offsets an encoded record takes.
fn span_of(record: &[u8]) -> Result<u64, DecodeError> {
    match Tag::of(record)? {
        Tag::Skip => decode(&Bytes::copy_from_slice(record)).map(|record| record.span()),
        _ => Ok(1),
    }
}

fn is_skip(record: &[u8]) -> bool {
    record.first() == Some(&(Tag::Skip as u8))
}

fn describes(record: &[u8]) -> bool {
    use Tag::{Abort, Begin, Commit, Delete, Insert, Message, Truncate, Update};
    let tag = Tag::of(record);
    !matches!(tag, Ok(Begin | Insert | Update | Delete | Truncate | Message | Commit | Abort))
}

/// How long a skipped run is and the running checksum behind it; `None` for any other record.
fn skip_of(record: &[u8]) -> Option<(u64, Running)> {
    if !is_skip(record) {
        return None;
    }
    match decode(&Bytes::copy_from_slice(record)) {
        Ok(Record::Skip { count, running }) => Some((count, running)),
        _ => None,
    }
}

fn framed<'a>(cursor: &mut Cursor<'a>) -> Result<Framed<'a>, DecodeError> {
    let begin = cursor.position();
    let length = cursor.length(RECORD_BYTES_MAX)?;
    if length == 0 {
        return Err(DecodeError::Malformed("an empty record"));
    }
    let record = cursor.peel(length)?;
    Ok(Framed { record, begin, end: cursor.position() })
}
