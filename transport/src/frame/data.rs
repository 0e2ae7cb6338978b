//! Data frames: a stream is opened, records follow.

use bytes::{Buf, Bytes, BytesMut};
use thinwire_engine::{
    codec::{Cursor, Records, put_varint},
    limits::RECORD_BYTES_MAX,
    model::{Offset, Running, StreamId, View},
};

use super::{FrameError, ids};

/// What travels in the data stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataFrame {
    /// Records of a stream will follow under a number.
    Open(Opening),
    /// Consecutive records.
    Records {
        /// The number under which their stream was opened.
        index: u32,
        /// The first one's offset.
        first: Offset,
        /// The records.
        records: Records,
    },
}

/// How a sender begins to ship a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The number that stands for the stream from here on.
    pub index: u32,
    /// Which stream.
    pub stream: StreamId,
    /// What of it.
    pub view: View,
    /// The offset of the record that will come first.
    pub next: Offset,
    /// The running checksum before it; none if it lies inside a run that the sender skipped.
    pub running: Option<Running>,
}

/// Appends an opening.
pub fn put_opening(opening: &Opening, out: &mut Vec<u8>) {
    let mut body = Vec::with_capacity(64);
    put_varint(u64::from(opening.index), &mut body);
    body.extend_from_slice(&ids::to_bytes(opening.stream));
    put_varint(view_number(opening.view), &mut body);
    put_varint(opening.next.get(), &mut body);
    match opening.running {
        None => body.push(0),
        Some(running) => {
            body.push(1);
            put_varint(u64::from(running.get()), &mut body);
        }
    }
    out.push(OPEN);
    put_varint(body.len() as u64, out);
    out.extend_from_slice(&body);
}

/// Appends what stands before a frame's records; their bytes follow as they are.
pub fn data_header(index: u32, first: Offset, records: &Records, out: &mut Vec<u8>) {
    let mut fields = Vec::with_capacity(16);
    put_varint(u64::from(index), &mut fields);
    put_varint(first.get(), &mut fields);
    put_varint(u64::from(records.count()), &mut fields);
    out.push(RECORDS);
    put_varint((fields.len() + records.bytes().len()) as u64, out);
    out.extend_from_slice(&fields);
}

/// Gathers decompressed bytes and gives out the frames in them.
#[derive(Debug, Default)]
pub struct DataDecoder {
    held: BytesMut,
    /// Whether the long frame that is being gathered is to be.
    admitted: bool,
    /// How much of a frame that is not wanted is still to come.
    dropping: usize,
}

impl DataDecoder {
    /// Takes more bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let (_, bytes) = bytes.split_at(self.drop_of(bytes.len()));
        if self.held.capacity() - self.held.len() < bytes.len() {
            // Doubling, but never beyond the end of the frame that is being gathered: a large
            // record must not cost twice itself.
            let missing = match header(&self.held) {
                Ok(Some((_, start, length))) => (start + length).saturating_sub(self.held.len()),
                _ => 0,
            };
            self.held.reserve(missing.min(self.held.len()).max(bytes.len()).max(CHUNK));
        }
        self.held.extend_from_slice(bytes);
    }

    /// The number and the bytes of the long records that are being gathered, until somebody decides about them:
    /// what decompresses to very much is announced in a few bytes, and can be [dropped](Self::discard) as it comes.
    pub fn announced(&self) -> Option<(u32, usize)> {
        let (kind, start, length) = header(&self.held).ok()??;
        let is_whole = self.held.len() - start >= length;
        if kind != RECORDS || length <= LONG || is_whole || self.admitted {
            return None;
        }
        index(&self.held[start..]).ok()?.map(|index| (index, length))
    }

    /// Goes on gathering what was announced.
    pub fn admit(&mut self) {
        self.admitted = true;
    }

    /// Drops what was announced: it never becomes a frame.
    pub fn discard(&mut self) {
        if let Ok(Some((_, start, length))) = header(&self.held) {
            self.dropping = start + length;
            let held = self.drop_of(self.held.len());
            self.held.advance(held);
        }
    }

    /// How many of so many bytes belong to what is dropped.
    fn drop_of(&mut self, bytes: usize) -> usize {
        let dropped = self.dropping.min(bytes);
        self.dropping -= dropped;
        dropped
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// Whatever is wrong with it; nothing behind it can be read.
    pub fn next_frame(&mut self) -> Result<Option<DataFrame>, FrameError> {
        let Some((kind, start, length)) = header(&self.held)? else { return Ok(None) };
        if self.held.len() - start < length {
            // Without a number they cannot be announced, and must not be gathered unannounced.
            if kind == RECORDS {
                index(&self.held[start..])?;
            }
            return Ok(None);
        }
        self.admitted = false;
        self.held.advance(start);
        let body = self.held.split_to(length);
        // A short frame must not keep the whole buffer alive while it waits for the disk.
        let body = match length {
            short if short < CHUNK / 8 => Bytes::copy_from_slice(&body),
            _ => body.freeze(),
        };
        match kind {
            OPEN => open(&body).map(DataFrame::Open).map(Some),
            _ => records(&body).map(Some),
        }
    }
}

/// A frame's kind, where its body starts and how long it is.
fn header(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, FrameError> {
    let Some((&kind, rest)) = bytes.split_first() else { return Ok(None) };
    let max = match kind {
        OPEN => OPENING_MAX,
        RECORDS => RECORDS_MAX,
        other => return Err(FrameError::Kind(other)),
    };
    let mut length = 0_u64;
    for (at, byte) in rest.iter().take(LENGTH_DIGITS).enumerate() {
        length |= u64::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return match usize::try_from(length) {
                Ok(length) if length <= max => Ok(Some((kind, at + 2, length))),
                _ => Err(FrameError::TooLong { length, max: max as u64 }),
            };
        }
    }
    match rest.len() {
        few if few < LENGTH_DIGITS => Ok(None),
        _ => Err(FrameError::Malformed("a length of too many digits".into())),
    }
}

/// The number of the stream of a frame's records, if its digits are there.
fn index(body: &[u8]) -> Result<Option<u32>, FrameError> {
    let digits = body.iter().take(INDEX_DIGITS).copied().collect();
    match Cursor::new(&digits).varint32() {
        Ok(index) => Ok(Some(index)),
        Err(_) if digits.len() < INDEX_DIGITS => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn open(body: &Bytes) -> Result<Opening, FrameError> {
    let mut cursor = Cursor::new(body);
    let index = cursor.varint32()?;
    let id: [u8; 32] = cursor.array()?;
    let stream = ids::from_bytes(&id).ok_or_else(|| bad("a stream's name"))?;
    let view = match cursor.varint()? {
        0 => View::FULL,
        _ => return Err(bad("a view that this version does not know")),
    };
    let next = Offset::new(cursor.varint()?);
    let running = match cursor.u8()? {
        0 => None,
        1 => Some(Running::new(cursor.varint32()?)),
        _ => return Err(bad("a truth value that is neither 0 nor 1")),
    };
    cursor.end()?;
    if next == Offset::ZERO {
        return Err(bad("an opening before the first record"));
    }
    Ok(Opening { index, stream, view, next, running })
}

fn records(body: &Bytes) -> Result<DataFrame, FrameError> {
    // What is wrong is the same as when it was seen before the rest was there.
    index(body)?;
    let mut cursor = Cursor::new(body);
    let index = cursor.varint32()?;
    let first = Offset::new(cursor.varint()?);
    let count = cursor.varint32()?;
    DataFrame::records(index, first, Records::parse(body.slice(cursor.position()..), count)?)
}

impl DataFrame {
    /// Records that came from outside, if they lie where records can.
    pub(crate) fn records(index: u32, first: Offset, records: Records) -> Result<Self, FrameError> {
        if records.is_empty() || first == Offset::ZERO {
            return Err(bad("records that take no offset"));
        }
        if first.get().checked_add(records.span()).is_none() {
            return Err(bad("records beyond the last offset"));
        }
        Ok(Self::Records { index, first, records })
    }
}

/// Only the full view has a number in this version; others are refused where they are named.
fn view_number(view: View) -> u64 {
    u64::from(view != View::FULL)
}

fn bad(what: &str) -> FrameError {
    FrameError::Malformed(what.to_owned())
}

const OPEN: u8 = 1;
const RECORDS: u8 = 2;

/// By how much the buffer grows.
const CHUNK: usize = 32 << 10;

/// From how many bytes on records are announced before they are gathered. Only single records are as long.
const LONG: usize = 1 << 20;

/// Digits of a stream's number, seven bits each.
const INDEX_DIGITS: usize = 5;

/// A number, a name, a view, an offset and a checksum.
const OPENING_MAX: usize = 128;

/// One longest record and the fields before it.
const RECORDS_MAX: usize = RECORD_BYTES_MAX + 64;

/// Digits of the longest length, seven bits each.
const LENGTH_DIGITS: usize = 5;

const _: () = assert!(RECORDS_MAX < 1 << 35);
