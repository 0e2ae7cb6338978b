//! Canonical bytes back to records: every length bounded, every error a value.

use bytes::Bytes;

use super::{
    Cursor, Tag,
    encode::{OLD_FULL, OLD_KEY, OLD_NONE},
};
use crate::{
    limits::{AUDIENCE_MAX, COLUMNS_MAX, NAME_BYTES_MAX, RECORD_BYTES_MAX, RELATIONS_MAX},
    model::{
        Column, Copy, CopyTable, Lsn, OldRow, Origin, Record, Relation, RelationId,
        ReplicaIdentity, Row, Running, Schema, Timestamp, Value,
    },
};

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end too early.
    #[error("the record ends too early")]
    Truncated,
    /// A kind that this version does not know.
    #[error("unknown kind of record {0}")]
    Tag(u8),
    /// A length or count beyond its limit.
    #[error("a length of {length} is above the limit of {max}")]
    TooLong {
        /// What was claimed.
        length: usize,
        /// What is allowed.
        max: usize,
    },
    /// Anything else that no encoder writes.
    #[error("malformed record: {0}")]
    Malformed(&'static str),
}

/// The record that `bytes` are, all of them. Values share the bytes.
pub fn decode(bytes: &Bytes) -> Result<Record, DecodeError> {
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(DecodeError::TooLong { length: bytes.len(), max: RECORD_BYTES_MAX });
    }
    let tag = Tag::of(bytes)?;
    let mut cursor = Cursor::new(bytes);
    cursor.u8()?;
    let record = body(tag, &mut cursor)?;
    cursor.end()?;
    Ok(record)
}

fn body(tag: Tag, cursor: &mut Cursor<'_>) -> Result<Record, DecodeError> {
    Ok(match tag {
        Tag::Begin => Record::Begin {
            xid: cursor.varint32()?,
            lsn: Lsn::new(cursor.varint()?),
            time: Timestamp::from_micros(cursor.signed()?),
        },
        Tag::Commit => Record::Commit { end: Lsn::new(cursor.varint()?) },
        Tag::Abort => Record::Abort,
        Tag::Relation => Record::Relation(relation(cursor)?),
        Tag::Insert => Record::Insert { relation: relation_id(cursor)?, new: row(cursor)? },
        Tag::Update => Record::Update {
            relation: relation_id(cursor)?,
            old: old_row(cursor)?,
            new: row(cursor)?,
        },
        Tag::Delete => Record::Delete {
            relation: relation_id(cursor)?,
            old: old_row(cursor)?.ok_or(DecodeError::Malformed("a delete without an old row"))?,
        },
        Tag::Truncate => truncate(cursor)?,
        Tag::Message => Record::Message {
            transactional: boolean(cursor)?,
            lsn: Lsn::new(cursor.varint()?),
            prefix: cursor.string(RECORD_BYTES_MAX)?,
            content: content(cursor)?,
        },
        Tag::CopyBegin => Record::CopyBegin(copy(cursor)?),
        Tag::CopyEnd => Record::CopyEnd { rows: cursor.varint()? },
        Tag::CopyAbort => Record::CopyAbort,
        Tag::Skip => skip(cursor)?,
        Tag::Schema => Record::Schema(Schema {
            born: list(cursor, RELATIONS_MAX, relation_id)?,
            stale: list(cursor, RELATIONS_MAX, relation_id)?,
            definitions: content(cursor)?,
        }),
    })
}

fn content(cursor: &mut Cursor<'_>) -> Result<Bytes, DecodeError> {
    let length = cursor.length(RECORD_BYTES_MAX)?;
    cursor.take(length)
}

fn skip(cursor: &mut Cursor<'_>) -> Result<Record, DecodeError> {
    let count = cursor.varint()?;
    if count == 0 {
        return Err(DecodeError::Malformed("a skipped run of no records"));
    }
    Ok(Record::Skip { count, running: Running::new(cursor.varint32()?) })
}

fn truncate(cursor: &mut Cursor<'_>) -> Result<Record, DecodeError> {
    let flags = cursor.u8()?;
    if flags > 3 {
        return Err(DecodeError::Malformed("unknown flags of a truncate"));
    }
    Ok(Record::Truncate {
        cascade: flags & 1 != 0,
        restart_identity: flags & 2 != 0,
        relations: list(cursor, RELATIONS_MAX, relation_id)?,
    })
}

fn copy(cursor: &mut Cursor<'_>) -> Result<Copy, DecodeError> {
    Ok(Copy {
        lsn: Lsn::new(cursor.varint()?),
        audience: list(cursor, AUDIENCE_MAX, |cursor| Ok(Origin::from_bytes(cursor.array()?)))?,
        carriers: list(cursor, AUDIENCE_MAX, |cursor| Ok(Origin::from_bytes(cursor.array()?)))?,
        tables: list(cursor, RELATIONS_MAX, |cursor| {
            Ok(CopyTable { relation: relation_id(cursor)?, rows_estimate: cursor.varint()? })
        })?,
    })
}

fn relation(cursor: &mut Cursor<'_>) -> Result<Relation, DecodeError> {
    Ok(Relation {
        id: relation_id(cursor)?,
        schema: cursor.string(NAME_BYTES_MAX)?,
        name: cursor.string(NAME_BYTES_MAX)?,
        identity: match cursor.u8()? {
            b'd' => ReplicaIdentity::Default,
            b'n' => ReplicaIdentity::Nothing,
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            _ => return Err(DecodeError::Malformed("unknown replica identity")),
        },
        columns: list(cursor, COLUMNS_MAX, column)?,
    })
}

fn column(cursor: &mut Cursor<'_>) -> Result<Column, DecodeError> {
    Ok(Column {
        key: boolean(cursor)?,
        name: cursor.string(NAME_BYTES_MAX)?,
        type_oid: cursor.varint32()?,
        type_modifier: i32::try_from(cursor.signed()?)
            .map_err(|_| DecodeError::Malformed("type modifier of more than 32 bits"))?,
    })
}

fn old_row(cursor: &mut Cursor<'_>) -> Result<Option<OldRow>, DecodeError> {
    Ok(match cursor.u8()? {
        OLD_NONE => None,
        OLD_KEY => Some(OldRow::Key(row(cursor)?)),
        OLD_FULL => Some(OldRow::Full(row(cursor)?)),
        _ => return Err(DecodeError::Malformed("unknown form of an old row")),
    })
}

fn row(cursor: &mut Cursor<'_>) -> Result<Row, DecodeError> {
    list(cursor, COLUMNS_MAX, value).map(Row)
}

fn value(cursor: &mut Cursor<'_>) -> Result<Value, DecodeError> {
    Ok(match cursor.length(RECORD_BYTES_MAX + 2)? {
        0 => Value::Null,
        1 => Value::Unchanged,
        length => Value::Bytes(cursor.take(length - 2)?),
    })
}

fn relation_id(cursor: &mut Cursor<'_>) -> Result<RelationId, DecodeError> {
    cursor.varint32().map(RelationId)
}

fn boolean(cursor: &mut Cursor<'_>) -> Result<bool, DecodeError> {
    match cursor.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Malformed("a truth value that is neither 0 nor 1")),
    }
}

/// A counted list. Memory grows with what was really read, not with the count that was claimed.
fn list<T>(
    cursor: &mut Cursor<'_>,
    max: usize,
    mut item: impl FnMut(&mut Cursor<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = cursor.length(max)?;
    let mut items = Vec::with_capacity(count.min(cursor.remaining()));
    for _ in 0..count {
        items.push(item(cursor)?);
    }
    Ok(items)
}
