//! The bytes on disk: the only module that knows where in a segment a field stands.
//!
//! ```text
//! segment  magic 8 | version 2 | zero 2 | origin 16 | epoch 16 | base offset 8 | running checksum 4
//!          | preamble length 4 | preamble CRC 4 | header CRC 4      then the preamble, then batches
//! batch    header CRC 4 | payload CRC 4 | stored length 4 | raw length 4 | first offset 8 | synced_upto 8
//!          | records 4 | running checksum before 4 | chain 4 | kind 1 | codec 1 | zero 2      then the payload
//! ```
//!
//! All integers are little-endian. Every CRC is CRC-32 (IEEE). A batch header's covers also what is not written in it:
//! the stream, the segment's base offset and the batch's position, so that a valid batch in the wrong place
//! is not valid; `chain` is the header CRC of the batch before it, or of the segment header.
//!
//! The segment's first 68 bytes stand in every version, the last four of them the checksum of the others: a program that knows
//! less must see that a later one wrote the segment, and not take it for one that was being created when the power went.
//!
//! A batch of no records is a *seal*: it is written only once everything before it in the file is durable, and says so.

use crate::{
    model::{Epoch, Offset, Origin, Running, StreamId},
    mutant::{self, Mutant},
};

/// The version of everything in this file, and of the records' encoding.
pub(crate) const VERSION: u16 = 1;
pub(crate) const SEGMENT_HEADER_BYTES: usize = 68;
pub(crate) const BATCH_HEADER_BYTES: usize = 48;

const MAGIC: [u8; 8] = *b"THINWIRE";
const _: () = assert!(8 + 2 + 2 + 16 + 16 + 8 + 4 + 4 + 4 + 4 == SEGMENT_HEADER_BYTES);
const _: () = assert!(4 * 4 + 2 * 8 + 3 * 4 + 4 == BATCH_HEADER_BYTES);

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) stream: StreamId,
    pub(crate) base: Offset,
    pub(crate) running: Running,
    pub(crate) preamble_len: u32,
    pub(crate) preamble_crc: u32,
}

/// Why bytes are not a segment header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotSegment {
    /// Written by a version of the program that knows more.
    Version(u16),
    /// Not one at all, or damaged.
    Damaged,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[12..28].copy_from_slice(self.stream.origin.as_bytes());
        out[28..44].copy_from_slice(self.stream.epoch.as_bytes());
        out[44..52].copy_from_slice(&self.base.get().to_le_bytes());
        out[52..56].copy_from_slice(&self.running.get().to_le_bytes());
        out[56..60].copy_from_slice(&self.preamble_len.to_le_bytes());
        out[60..64].copy_from_slice(&self.preamble_crc.to_le_bytes());
        let crc = crc32fast::hash(&out[..64]);
        out[64..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, NotSegment> {
        if bytes[..8] != MAGIC {
            return Err(NotSegment::Damaged);
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if crc32fast::hash(&bytes[..64]) != u32_at(bytes, 64) {
            return Err(NotSegment::Damaged);
        }
        // What is reserved means something only to a program that knows more.
        if version != VERSION || bytes[10..12] != [0; 2] {
            return Err(NotSegment::Version(version));
        }
        Ok(Self {
            stream: StreamId {
                origin: Origin::from_bytes(id_at(bytes, 12)),
                epoch: Epoch::from_bytes(id_at(bytes, 28)),
            },
            base: Offset::new(u64_at(bytes, 44)),
            running: Running::new(u32_at(bytes, 52)),
            preamble_len: u32_at(bytes, 56),
            preamble_crc: u32_at(bytes, 60),
        })
    }

    /// What the first batch's chain is.
    pub(crate) fn crc(&self) -> u32 {
        u32_at(&self.encode(), 64)
    }
}

/// What a batch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Records, numbered from `first`.
    Records,
    /// A source mark: takes no offset and is not shipped.
    Mark,
}

/// How a batch's payload is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Plain,
    Lz4,
}

/// The head of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) kind: Kind,
    pub(crate) codec: Codec,
    pub(crate) payload_crc: u32,
    pub(crate) stored_len: u32,
    pub(crate) raw_len: u32,
    pub(crate) first: Offset,
    pub(crate) synced_upto: Offset,
    pub(crate) records: u32,
    pub(crate) running: Running,
    pub(crate) chain: u32,
}

/// Where a batch stands: what its checksum covers without it being written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) stream: StreamId,
    pub(crate) base: Offset,
    pub(crate) at: u64,
}

impl BatchHeader {
    /// A header of which the payload says the rest.
    pub(crate) fn new(
        kind: Kind,
        (first, running): (Offset, Running),
        records: u32,
        synced_upto: Offset,
        chain: u32,
    ) -> Self {
        Self {
            kind,
            codec: Codec::Plain,
            payload_crc: 0,
            stored_len: 0,
            raw_len: 0,
            first,
            synced_upto,
            records,
            running,
            chain,
        }
    }

    /// Whether everything before it in its file, marks included, had been durable when it was written.
    pub(crate) fn is_seal(&self) -> bool {
        self.kind == Kind::Records && self.records == 0
    }

    pub(crate) fn encode(&self, place: Place) -> [u8; BATCH_HEADER_BYTES] {
        let mut out = [0; BATCH_HEADER_BYTES];
        out[4..8].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[8..12].copy_from_slice(&self.stored_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.raw_len.to_le_bytes());
        out[16..24].copy_from_slice(&self.first.get().to_le_bytes());
        out[24..32].copy_from_slice(&self.synced_upto.get().to_le_bytes());
        out[32..36].copy_from_slice(&self.records.to_le_bytes());
        out[36..40].copy_from_slice(&self.running.get().to_le_bytes());
        out[40..44].copy_from_slice(&self.chain.to_le_bytes());
        out[44] = match self.kind {
            Kind::Records => 1,
            Kind::Mark => 2,
        };
        out[45] = match self.codec {
            Codec::Plain => 0,
            Codec::Lz4 => 1,
        };
        let crc = header_crc(&out, place);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header and its checksum, which the next batch's chain must repeat.
    pub(crate) fn decode(bytes: &[u8; BATCH_HEADER_BYTES], place: Place) -> Option<(Self, u32)> {
        let crc = u32_at(bytes, 0);
        if header_crc(bytes, place) != crc || bytes[46..] != [0; 2] {
            return None;
        }
        let header = Self {
            kind: match bytes[44] {
                1 => Kind::Records,
                2 => Kind::Mark,
                _ => return None,
            },
            codec: match bytes[45] {
                0 => Codec::Plain,
                1 => Codec::Lz4,
                _ => return None,
            },
            payload_crc: u32_at(bytes, 4),
            stored_len: u32_at(bytes, 8),
            raw_len: u32_at(bytes, 12),
            first: Offset::new(u64_at(bytes, 16)),
            synced_upto: Offset::new(u64_at(bytes, 24)),
            records: u32_at(bytes, 32),
            running: Running::new(u32_at(bytes, 36)),
            chain: u32_at(bytes, 40),
        };
        Some((header, crc))
    }
}

/// Why bytes are not a batch header.
pub(crate) fn not_batch(bytes: &[u8; BATCH_HEADER_BYTES], place: Place) -> String {
    match (u32_at(bytes, 0), header_crc(bytes, place)) {
        (is, expected) if is == expected => {
            "the batch's header is of no kind that is known".to_owned()
        }
        (is, expected) => mismatch("the batch's header does not match its checksum", is, expected),
    }
}

/// What two checksums say that are not the same.
pub(crate) fn mismatch(what: &str, stored: u32, computed: u32) -> String {
    format!("{what}: {stored:08x} is stored, {computed:08x} is that of the bytes")
}

fn header_crc(bytes: &[u8; BATCH_HEADER_BYTES], place: Place) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    if mutant::on(Mutant::PlaceUncovered) {
        hasher.update(&bytes[4..]);
        return hasher.finalize();
    }
    hasher.update(place.stream.origin.as_bytes());
    hasher.update(place.stream.epoch.as_bytes());
    hasher.update(&place.base.get().to_le_bytes());
    hasher.update(&place.at.to_le_bytes());
    let uncovered = match () {
        () if mutant::on(Mutant::LengthUncovered) => 4..16,
        () if mutant::on(Mutant::DurabilityUncovered) => 24..32,
        () => 4..4,
    };
    hasher.update(&bytes[4..uncovered.start]);
    hasher.update(&bytes[uncovered.end..]);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

fn id_at(bytes: &[u8], at: usize) -> [u8; 16] {
    let mut field = [0; 16];
    field.copy_from_slice(&bytes[at..at + 16]);
    field
}

/// The ending of the name of a file that is to take the place of a damaged segment.
pub(crate) const MENDING: &str = "mend";

/// A segment's file name.
pub(crate) fn file_name(base: Offset) -> String {
    format!("{base:020}.seg", base = base.get())
}

/// The base offset that a file name states; `None` for the name of anything else.
pub(crate) fn base_of(name: &str) -> Option<Offset> {
    let digits = name.strip_suffix(".seg")?;
    let whole = digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit());
    whole.then(|| digits.parse().ok().map(Offset::new)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId =
        StreamId { origin: Origin::from_bytes([1; 16]), epoch: Epoch::from_bytes([2; 16]) };

    #[test]
    fn a_segment_header_with_any_byte_changed_is_another_or_none() {
        let whole = SegmentHeader {
            stream: STREAM,
            base: Offset::new(3),
            running: Running::new(4),
            preamble_len: 5,
            preamble_crc: 6,
        };
        for at in 0..64 {
            let mut bytes = whole.encode();
            bytes[at] ^= 0x10;
            let crc = crc32fast::hash(&bytes[..64]);
            bytes[64..].copy_from_slice(&crc.to_le_bytes());
            match SegmentHeader::decode(&bytes) {
                Ok(header) => assert_eq!(header.encode(), bytes, "byte {at}"),
                Err(why) => assert_eq!(why == NotSegment::Damaged, at < 8, "byte {at}"),
            }
        }
    }

    #[test]
    fn a_batch_header_with_any_byte_changed_is_another_or_none() {
        let place = Place { stream: STREAM, base: Offset::FIRST, at: 7 };
        let whole = BatchHeader {
            kind: Kind::Records,
            codec: Codec::Plain,
            payload_crc: 1,
            stored_len: 2,
            raw_len: 3,
            first: Offset::new(4),
            synced_upto: Offset::new(5),
            records: 6,
            running: Running::new(7),
            chain: 8,
        };
        for at in 4..BATCH_HEADER_BYTES {
            let mut bytes = whole.encode(place);
            bytes[at] ^= 0x10;
            let crc = header_crc(&bytes, place);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
            let decoded = BatchHeader::decode(&bytes, place);
            assert_eq!(decoded.is_none(), at >= 44, "byte {at}");
            decoded.iter().for_each(|(header, _)| assert_eq!(header.encode(place), bytes));
        }
    }
}
