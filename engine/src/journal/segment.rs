//! One segment file: creating it, opening it, and reading a batch at a position.

use std::{
    borrow::Cow,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};

use super::{
    Tail,
    format::{
        self, BATCH_HEADER_BYTES, BatchHeader, Codec, Kind, NotSegment, Place,
        SEGMENT_HEADER_BYTES, SegmentHeader, VERSION,
    },
};
use crate::{
    Error,
    codec::Records,
    limits::{BATCH_BYTES_MAX, DEPTH_MAX, PREAMBLE_BYTES_MAX},
    model::{Offset, StreamId},
    mutant::{self, Mutant},
    storage::{Disk, File, is_unreadable},
};

/// An open segment. Sharing it shares the file.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    pub(super) file: Arc<dyn File>,
}

/// What stands at a position of a segment.
#[derive(Debug)]
pub(super) enum Found {
    /// A whole, valid batch.
    Batch { header: BatchHeader, crc: u32, payload: Bytes, next: u64 },
    /// The end of the file.
    End,
    /// Anything else, and why it is not a batch.
    Bad(Cow<'static, str>),
    /// What the device cannot read: a batch, or nothing that was ever acknowledged. Nobody can tell.
    Unreadable,
}

/// Why a segment could not be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// Its head is damaged: never made durable, or rotten.
    Damaged(&'static str),
    Other(Error),
}

impl Segment {
    /// Creates the segment whose first record will be `tail.next`, durably.
    pub(super) fn create(
        disk: &dyn Disk,
        dir: &Path,
        stream: StreamId,
        tail: &Tail,
    ) -> Result<Self, Error> {
        let path = dir.join(format::file_name(tail.next));
        let (header, head) = head_of(stream, tail)?;
        let file = disk.create(&path).map_err(|source| io_error("create", &path, source))?;
        if let Err((operation, source)) = fill(file.as_ref(), &head) {
            // A head without a body would stand in the way of the next attempt, and after a power cut for the end of
            // the stream. If it cannot be removed for certain, the caller must not go on.
            if !mutant::on(Mutant::FailedSegmentLeft) {
                let io = |source| Error::Io { operation: "remove", path: path.clone(), source };
                disk.remove(&path).map_err(io)?;
                sync_names(disk, dir)?;
            }
            return Err(io_error(operation, &path, source));
        }
        match sync_names(disk, dir) {
            _ if mutant::on(Mutant::NameUnsynced) => {}
            Err(_) if mutant::on(Mutant::FailedNameRetried) => sync_names(disk, dir)?,
            synced => synced?,
        }
        Ok(Self { path, header, file: file.into() })
    }

    /// Begins a file at `path` that is not in use before it was synced and put in place.
    pub(super) fn draft(
        disk: &dyn Disk,
        path: PathBuf,
        stream: StreamId,
        tail: &Tail,
    ) -> Result<Self, Error> {
        let (header, head) = head_of(stream, tail)?;
        let file = disk.create(&path).map_err(|source| io_error("create", &path, source))?;
        file.write_all_at(&head, 0).map_err(|source| io_error("write", &path, source))?;
        Ok(Self { path, header, file: file.into() })
    }

    /// Opens the segment at `path`, with the state at its base.
    pub(super) fn open(
        disk: &dyn Disk,
        path: &Path,
        stream: StreamId,
        write: bool,
    ) -> Result<(Self, Tail), OpenError> {
        let other = |operation, source| OpenError::Other(io_error(operation, path, source));
        let file = disk.open(path, write).map_err(|error| other("open", error))?;
        if write && !mutant::on(Mutant::CacheBelieved) {
            // Who will write on trusts the device alone: the cache may hold what it never took.
            file.forget_cached().map_err(|error| other("evict from the cache", error))?;
        }
        let named = base_named(path);
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let read = file.read_at(&mut bytes, 0);
        let read = read.map_err(|error| unread(path, (0, named.unwrap_or_default()), error))?;
        if read < bytes.len() {
            return Err(OpenError::Damaged("the header is incomplete"));
        }
        let header = SegmentHeader::decode(&bytes).map_err(|why| match why {
            NotSegment::Damaged => OpenError::Damaged("the header is damaged"),
            NotSegment::Version(version) => {
                OpenError::Other(Error::Version { path: path.to_owned(), version, known: VERSION })
            }
        })?;
        if header.stream != stream || named != Some(header.base) {
            // Whole, but not what belongs here: taken for unborn, it would be removed.
            return Err(OpenError::Other(Error::Corrupt {
                segment: path.to_owned(),
                at: 0,
                offset: named.unwrap_or(header.base),
                reason: format!(
                    "the header is that of another segment, of {} from record {} on",
                    header.stream, header.base
                ),
            }));
        }
        let segment = Self { path: path.to_owned(), header, file: file.into() };
        let tail = segment.read_preamble()?;
        Ok((segment, tail))
    }

    /// The head of a segment as far as it says what the segment is, if that much is whole. The state behind it may not be.
    pub(super) fn head_at(
        disk: &dyn Disk,
        path: &Path,
        stream: StreamId,
        base: Offset,
    ) -> Result<Option<SegmentHeader>, Error> {
        let file = disk.open(path, false).map_err(|error| io_error("open", path, error))?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let read = match file.read_at(&mut bytes, 0) {
            Err(error) if is_unreadable(&error) => return Ok(None),
            read => read.map_err(|error| io_error("read", path, error))?,
        };
        let header = SegmentHeader::decode(&bytes).ok().filter(|_| read == bytes.len());
        Ok(header.filter(|it| (it.stream, it.base) == (stream, base)))
    }

    fn read_preamble(&self) -> Result<Tail, OpenError> {
        let damaged = OpenError::Damaged("the state at its head is damaged");
        let len = self.header.preamble_len as usize;
        if len > PREAMBLE_BYTES_MAX {
            return Err(damaged);
        }
        let (mut bytes, at) = (vec![0; len], SEGMENT_HEADER_BYTES as u64);
        let read = self.file.read_at(&mut bytes, at);
        let read = read.map_err(|error| unread(&self.path, (at, self.header.base), error))?;
        let matches = crc32fast::hash(&bytes) == self.header.preamble_crc;
        if read < len || !(matches || mutant::on(Mutant::HeadUnchecked)) {
            return Err(damaged);
        }
        decode_preamble(&bytes)
            .filter(|tail| tail.next == self.header.base && tail.running == self.header.running)
            .ok_or(damaged)
    }

    /// Where its first batch stands.
    pub(super) fn body(&self) -> u64 {
        SEGMENT_HEADER_BYTES as u64 + u64::from(self.header.preamble_len)
    }

    /// Its length.
    pub(super) fn len(&self) -> Result<u64, Error> {
        self.file.len().map_err(|error| self.io("read the length of", error))
    }

    /// What checksums of a batch at `at` cover beside it.
    pub(super) fn place(&self, at: u64) -> Place {
        Place { stream: self.header.stream, base: self.header.base, at }
    }

    /// Reads bytes as [`File::read_at`] does; `None` if the device cannot give them.
    pub(super) fn read(&self, bytes: &mut [u8], at: u64) -> Result<Option<usize>, Error> {
        match self.file.read_at(bytes, at) {
            Err(error) if is_unreadable(&error) => Ok(None),
            read => read.map(Some).map_err(|error| self.io("read", error)),
        }
    }

    /// Reads what stands at `at`.
    pub(super) fn batch_at(&self, at: u64) -> Result<Found, Error> {
        let mut bytes = [0; BATCH_HEADER_BYTES];
        match self.read(&mut bytes, at)? {
            None => return Ok(Found::Unreadable),
            Some(0) => return Ok(Found::End),
            Some(BATCH_HEADER_BYTES) => {}
            Some(_) => return Ok(Found::Bad("the batch's header is incomplete".into())),
        }
        let Some((header, chain)) = BatchHeader::decode(&bytes, self.place(at)) else {
            return Ok(Found::Bad(format::not_batch(&bytes, self.place(at)).into()));
        };
        let (stored, raw) = (header.stored_len as usize, header.raw_len as usize);
        if stored > BATCH_BYTES_MAX || raw > BATCH_BYTES_MAX {
            return Ok(Found::Bad("the batch is longer than any that is written".into()));
        }
        let body = at + BATCH_HEADER_BYTES as u64;
        let (ends, len) = (body + stored as u64, self.len()?);
        if len < ends {
            let reason =
                format!("the batch is incomplete: it ends at byte {ends}, the file at {len}");
            return Ok(Found::Bad(reason.into()));
        }
        let mut payload = vec![0; stored];
        if self.read(&mut payload, body)?.is_none() {
            return Ok(Found::Unreadable);
        }
        let crc = crc32fast::hash(&payload);
        if crc != header.payload_crc && !mutant::on(Mutant::LengthUncovered) {
            let what = "the batch's records do not match their checksum";
            return Ok(Found::Bad(format::mismatch(what, header.payload_crc, crc).into()));
        }
        let next = body + stored as u64;
        Ok(match unpack(header.codec, payload, raw) {
            Some(payload) => Found::Batch { header, crc: chain, payload, next },
            None => Found::Bad("the batch's records cannot be unpacked".into()),
        })
    }

    /// A corruption of this segment.
    pub(super) fn corrupt(&self, at: u64, offset: Offset, reason: impl Into<String>) -> Error {
        Error::Corrupt { segment: self.path.clone(), at, offset, reason: reason.into() }
    }

    /// A failure on this file.
    pub(super) fn io(&self, operation: &'static str, source: io::Error) -> Error {
        io_error(operation, &self.path, source)
    }
}

/// What a batch stores of its payload.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    codec: Codec,
    raw_len: u32,
    crc: u32,
    pub(super) stored: Bytes,
}

impl Packed {
    /// A payload as it is, of which the checksum is known.
    pub(super) fn plain(payload: Bytes, crc: u32) -> Self {
        let raw_len = u32_len(payload.len());
        Self { codec: Codec::Plain, raw_len, crc, stored: payload }
    }

    /// The header of a batch of it at `place`, and the header's checksum.
    pub(super) fn head(
        &self,
        header: BatchHeader,
        place: Place,
    ) -> ([u8; BATCH_HEADER_BYTES], u32) {
        let header = BatchHeader {
            codec: self.codec,
            raw_len: self.raw_len,
            stored_len: u32_len(self.stored.len()),
            payload_crc: self.crc,
            ..header
        };
        let bytes = header.encode(place);
        (bytes, u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

/// Makes of a payload what is stored: it itself, or less.
pub(super) fn pack(payload: &Bytes) -> Packed {
    let mut out = vec![0; get_maximum_output_size(payload.len())];
    let len = compress_into(payload, &mut out).ok().filter(|len| *len < payload.len());
    let Some(len) = len else {
        return Packed::plain(payload.clone(), crc32fast::hash(payload));
    };
    out.truncate(len);
    let stored = Bytes::from(out.into_boxed_slice());
    let (raw_len, crc) = (u32_len(payload.len()), crc32fast::hash(&stored));
    Packed { codec: Codec::Lz4, raw_len, crc, stored }
}

/// The records of a batch of records.
pub(super) fn records_of(header: &BatchHeader, payload: Bytes) -> Option<Records> {
    debug_assert_eq!(header.kind, Kind::Records);
    Records::parse(payload, header.records).ok()
}

/// A value in the form in which marks and preambles are stored.
pub(super) fn encode_state<T: serde::Serialize>(state: &T) -> Vec<u8> {
    rmp_serde::to_vec(state).expect("the journal's own state has no unserialisable part")
}

/// The reverse; `None` for bytes that are not one.
pub(super) fn decode_state<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(bytes);
    decoder.set_max_depth(DEPTH_MAX);
    T::deserialize(&mut decoder).ok()
}

/// The header of a segment that begins with the state, and its bytes with those of the state.
///
/// # Errors
/// [`Error::TooManyTables`] for a state that would not be read again.
pub(super) fn head_of(stream: StreamId, tail: &Tail) -> Result<(SegmentHeader, Vec<u8>), Error> {
    let preamble = encode_state(tail);
    if preamble.len() > PREAMBLE_BYTES_MAX {
        let (bytes, max) = (preamble.len(), PREAMBLE_BYTES_MAX);
        return Err(Error::TooManyTables { stream, bytes, max });
    }
    let header = SegmentHeader {
        stream,
        base: tail.next,
        running: tail.running,
        preamble_len: u32_len(preamble.len()),
        preamble_crc: crc32fast::hash(&preamble),
    };
    let mut head = header.encode().to_vec();
    head.extend_from_slice(&preamble);
    Ok((header, head))
}

fn decode_preamble(bytes: &[u8]) -> Option<Tail> {
    decode_state(bytes).map(Tail::restored)
}

fn fill(file: &dyn File, head: &[u8]) -> Result<(), (&'static str, io::Error)> {
    file.write_all_at(head, 0).map_err(|error| ("write", error))?;
    match mutant::on(Mutant::HeadUnsynced) {
        true => Ok(()),
        false => file.sync_data().map_err(|error| ("sync", error)),
    }
}

/// Makes the names in a folder durable. A failure is final, whatever its cause, as that of any sync.
pub(super) fn sync_names(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    let io = |source| Error::Io { operation: "sync", path: dir.to_owned(), source };
    disk.sync_dir(dir).map_err(io)
}

fn unpack(codec: Codec, payload: Vec<u8>, raw: usize) -> Option<Bytes> {
    match codec {
        Codec::Plain => (payload.len() == raw).then(|| Bytes::from(payload)),
        // What claims to be more than its bytes can become takes no memory.
        Codec::Lz4 if raw / LZ4_RATIO_MAX > payload.len() => None,
        Codec::Lz4 => {
            let mut out = vec![0; raw];
            let written = decompress_into(&payload, &mut out).ok()?;
            (written == raw).then(|| Bytes::from(out))
        }
    }
}

/// An I/O failure, with a full disk told apart.
pub(super) fn io_error(operation: &'static str, path: &Path, source: io::Error) -> Error {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    match full.contains(&source.kind()) {
        true => Error::NoSpace { path: path.to_owned() },
        false => Error::Io { operation, path: path.to_owned(), source },
    }
}

/// A segment that could not be read: damaged where the device cannot give its bytes. Whoever opens it must not go on as if
/// nothing had stood there.
pub(super) fn unread(path: &Path, (at, offset): (u64, Offset), source: io::Error) -> OpenError {
    OpenError::Other(match is_unreadable(&source) {
        true => {
            let (segment, reason) = (path.to_owned(), UNREADABLE.to_owned());
            Error::Corrupt { segment, at, offset, reason }
        }
        false => io_error("read", path, source),
    })
}

/// The base offset that a segment's path states.
pub(super) fn base_named(path: &Path) -> Option<Offset> {
    format::base_of(path.file_name()?.to_str()?)
}

/// What is wrong with bytes that the device cannot give.
pub(super) const UNREADABLE: &str = "the device cannot read what stands there";

fn u32_len(len: usize) -> u32 {
    u32::try_from(len).expect("batches and preambles are bounded by limits far below 4 GiB")
}

/// How many bytes one byte of LZ4 can become: each of a match's length stands for 255.
const LZ4_RATIO_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_compresses_best_is_unpacked_and_what_claims_more_is_not() {
        let zeros = vec![0; 4 << 20];
        let packed = lz4_flex::block::compress(&zeros);
        assert!(zeros.len() / packed.len() >= LZ4_RATIO_MAX - 1, "{} bytes", packed.len());
        assert_eq!(unpack(Codec::Lz4, packed.clone(), zeros.len()).as_deref(), Some(&zeros[..]));
        let lie = (packed.len() + 1) * LZ4_RATIO_MAX;
        assert_eq!(unpack(Codec::Lz4, packed, lie), None);
    }
}
