//! Bytes to typed messages: every length bounded, every error a value, values shared with the input.

use bytes::Bytes;

use super::{Message, Misread};
use crate::{
    limits::{COLUMNS_MAX, NAME_BYTES_MAX, RECORD_BYTES_MAX, RELATIONS_MAX},
    model::{Column, Lsn, OldRow, Relation, RelationId, ReplicaIdentity, Row, Timestamp, Value},
};

/// The message that `bytes` are, all of them.
///
/// # Errors
/// [`Misread`] for anything that a server of protocol version 1 does not send.
pub fn decode(bytes: &Bytes) -> Result<Message, Misread> {
    let mut input = Input { bytes, at: 0 };
    let message = match input.u8()? {
        b'B' => Message::Begin {
            final_lsn: input.lsn()?,
            time: Timestamp::from_micros(input.u64()?.cast_signed()),
            xid: input.u32()?,
        },
        b'C' => commit(&mut input)?,
        b'O' => {
            input.lsn()?;
            Message::Origin { name: input.name("an origin's name")? }
        }
        b'R' => Message::Relation(relation(&mut input)?),
        b'Y' => {
            input.u32()?;
            input.text()?;
            input.text()?;
            Message::Type
        }
        b'I' => {
            let relation = input.relation_id()?;
            match input.u8()? {
                b'N' => Message::Insert { relation, new: input.row()? },
                _ => return Err(Misread::Malformed("an insert without a new row")),
            }
        }
        b'U' => update(&mut input)?,
        b'D' => {
            let relation = input.relation_id()?;
            let kind = input.u8()?;
            let old = input.old_row(kind)?;
            Message::Delete {
                relation,
                old: old.ok_or(Misread::Malformed("a delete without an old row"))?,
            }
        }
        b'T' => truncate(&mut input)?,
        b'M' => logical(&mut input)?,
        kind => return Err(Misread::Kind(kind)),
    };
    match input.remaining() {
        0 => Ok(message),
        _ => Err(Misread::Malformed("bytes behind its end")),
    }
}

fn commit(input: &mut Input<'_>) -> Result<Message, Misread> {
    // Flags, of which none is in use.
    input.u8()?;
    let (lsn, end) = (input.lsn()?, input.lsn()?);
    input.u64()?;
    Ok(Message::Commit { lsn, end })
}

fn relation(input: &mut Input<'_>) -> Result<Relation, Misread> {
    let id = input.relation_id()?;
    // The catalogs' own schema is written as nothing.
    let schema = match input.name("a schema's name")? {
        name if name.is_empty() => "pg_catalog".to_owned(),
        name => name,
    };
    let name = input.name("a table's name")?;
    let identity = match input.u8()? {
        b'd' => ReplicaIdentity::Default,
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        _ => return Err(Misread::Malformed("an unknown replica identity")),
    };
    let count = input.columns()?;
    let mut columns = Vec::with_capacity(count.min(input.remaining()));
    for _ in 0..count {
        columns.push(Column {
            key: input.u8()? & KEY_FLAG != 0,
            name: input.name("a column's name")?,
            type_oid: input.u32()?,
            type_modifier: input.u32()?.cast_signed(),
        });
    }
    Ok(Relation { id, schema, name, identity, columns })
}

fn update(input: &mut Input<'_>) -> Result<Message, Misread> {
    let relation = input.relation_id()?;
    let kind = input.u8()?;
    let old = input.old_row(kind)?;
    let kind = if old.is_some() { input.u8()? } else { kind };
    match kind {
        b'N' => Ok(Message::Update { relation, old, new: input.row()? }),
        _ => Err(Misread::Malformed("an update without a new row")),
    }
}

fn truncate(input: &mut Input<'_>) -> Result<Message, Misread> {
    let count = bounded(input.u32()?, RELATIONS_MAX)?;
    let flags = input.u8()?;
    let mut relations = Vec::with_capacity(count.min(input.remaining()));
    for _ in 0..count {
        relations.push(input.relation_id()?);
    }
    Ok(Message::Truncate { relations, cascade: flags & 1 != 0, restart_identity: flags & 2 != 0 })
}

fn logical(input: &mut Input<'_>) -> Result<Message, Misread> {
    let transactional = input.u8()? & 1 != 0;
    let lsn = input.lsn()?;
    // A prefix is chosen freely and no identifier, so bytes that are not UTF-8 are no reason to stop.
    let prefix = String::from_utf8_lossy(&input.text()?).into_owned();
    let length = bounded(input.u32()?, RECORD_BYTES_MAX)?;
    let content = input.take(length)?;
    Ok(Message::Logical { transactional, lsn, prefix, content })
}

fn bounded(length: u32, max: usize) -> Result<usize, Misread> {
    match usize::try_from(length) {
        Ok(length) if length <= max => Ok(length),
        _ => Err(Misread::TooLong { length: usize::try_from(length).unwrap_or(usize::MAX), max }),
    }
}

/// Reads from the front of bytes.
struct Input<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Input<'_> {
    fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, length: usize) -> Result<Bytes, Misread> {
        if length > self.remaining() {
            return Err(Misread::Truncated);
        }
        let taken = self.bytes.slice(self.at..self.at + length);
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Misread> {
        let end = self.at.checked_add(N).ok_or(Misread::Truncated)?;
        let slice = self.bytes.get(self.at..end).ok_or(Misread::Truncated)?;
        self.at = end;
        slice.try_into().map_err(|_| Misread::Truncated)
    }

    fn u8(&mut self) -> Result<u8, Misread> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, Misread> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Misread> {
        self.array().map(u64::from_be_bytes)
    }

    fn lsn(&mut self) -> Result<Lsn, Misread> {
        self.u64().map(Lsn::new)
    }

    fn relation_id(&mut self) -> Result<RelationId, Misread> {
        self.u32().map(RelationId)
    }

    /// A count of columns.
    fn columns(&mut self) -> Result<usize, Misread> {
        bounded(self.array().map(u16::from_be_bytes)?.into(), COLUMNS_MAX)
    }

    /// Bytes up to a zero.
    fn text(&mut self) -> Result<Bytes, Misread> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == 0).ok_or(Misread::Truncated)?;
        let text = self.take(length)?;
        self.at += 1;
        Ok(text)
    }

    fn name(&mut self, what: &'static str) -> Result<String, Misread> {
        let text = self.text()?;
        if text.len() > NAME_BYTES_MAX {
            return Err(Misread::TooLong { length: text.len(), max: NAME_BYTES_MAX });
        }
        let text = str::from_utf8(&text).map_err(|_| Misread::Malformed(what))?;
        Ok(text.to_owned())
    }

    /// The old row that `kind` announces, if it announces one.
    fn old_row(&mut self, kind: u8) -> Result<Option<OldRow>, Misread> {
        Ok(match kind {
            b'K' => Some(OldRow::Key(self.row()?)),
            b'O' => Some(OldRow::Full(self.row()?)),
            _ => None,
        })
    }

    fn row(&mut self) -> Result<Row, Misread> {
        let count = self.columns()?;
        let mut values = Vec::with_capacity(count.min(self.remaining()));
        for _ in 0..count {
            values.push(match self.u8()? {
                b'n' => Value::Null,
                b'u' => Value::Unchanged,
                b't' => {
                    let length = bounded(self.u32()?, RECORD_BYTES_MAX)?;
                    Value::Bytes(self.take(length)?)
                }
                b'b' => return Err(Misread::Malformed("a binary value, which was not asked for")),
                _ => return Err(Misread::Malformed("an unknown kind of value")),
            });
        }
        Ok(Row(values))
    }
}

/// Set in the flags of a column that is part of the replica identity.
const KEY_FLAG: u8 = 1;
