//! Records to canonical bytes and back: versioned by the segment that holds them, bounded, total.
//!
//! A record has exactly one encoding, because the running checksum of a stream is taken over it. A tag, then
//! fields; integers are LEB128, shortest form only, signed ones zigzag; strings and lists carry their length.
//! A value is one integer (0 null, 1 unchanged, n + 2 for n bytes) and its bytes: for pgbench's rows that is
//! half of what the same structs take as MessagePack, and it decodes without recursion.

mod cursor;
mod decode;
mod encode;
mod records;

pub use cursor::{Cursor, put_varint};
pub use decode::{DecodeError, decode};
pub use encode::encode;
pub(crate) use records::Framed;
pub use records::{Records, RecordsBuf};

/// The first byte of a record, which tells its kind without decoding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "one a variant of Record, which says what each is")]
pub enum Tag {
    Begin = 1,
    Commit = 2,
    Abort = 3,
    Relation = 4,
    Insert = 5,
    Update = 6,
    Delete = 7,
    Truncate = 8,
    Message = 9,
    CopyBegin = 10,
    CopyEnd = 11,
    CopyAbort = 12,
    Skip = 13,
    Schema = 14,
}

impl Tag {
    /// The kind of an encoded record.
    pub fn of(record: &[u8]) -> Result<Self, DecodeError> {
        let &byte = record.first().ok_or(DecodeError::Truncated)?;
        // The first is 1, and there are no gaps.
        Self::ALL.get(usize::from(byte).wrapping_sub(1)).copied().ok_or(DecodeError::Tag(byte))
    }

    const ALL: [Self; 14] = [
        Self::Begin,
        Self::Commit,
        Self::Abort,
        Self::Relation,
        Self::Insert,
        Self::Update,
        Self::Delete,
        Self::Truncate,
        Self::Message,
        Self::CopyBegin,
        Self::CopyEnd,
        Self::CopyAbort,
        Self::Skip,
        Self::Schema,
    ];
}

const _: () = {
    let mut at = 0;
    while at < Tag::ALL.len() {
        assert!(Tag::ALL[at] as usize == at + 1);
        at += 1;
    }
};
