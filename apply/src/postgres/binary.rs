//! Values in binary, where that is certainly the value which the server would read from their text.
//!
//! Certain are few types, and of them what their output function writes: it is parsed and written again, and if that is
//! not the same, the text goes as it is. The types of users, domains among them, arrays, and all whose binary form is not
//! plain from their text go as text.

use bytes::{BufMut, BytesMut};
use thinwire_engine::model::{Row, Value};
use tokio_postgres::types::Type;

use crate::plan::{Column, Table};

/// A value whose binary form is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary<'a> {
    Bool(bool),
    Int2(i16),
    Int4(i32),
    Int8(i64),
    Oid(u32),
    /// The digits of a UUID, with its hyphens.
    Uuid(&'a [u8]),
    /// The digits of a bytea.
    Bytea(&'a [u8]),
}

impl<'a> Binary<'a> {
    /// None if the type is another, or the text not what its output function writes.
    pub(super) fn of(text: &'a [u8], of: &Type) -> Option<Self> {
        match *of {
            Type::BOOL => match text {
                b"t" => Some(Self::Bool(true)),
                b"f" => Some(Self::Bool(false)),
                _ => None,
            },
            Type::INT2 => number(text).map(Self::Int2),
            Type::INT4 => number(text).map(Self::Int4),
            Type::INT8 => number(text).map(Self::Int8),
            Type::OID => number(text).map(Self::Oid),
            Type::UUID => is_uuid(text).then_some(Self::Uuid(text)),
            Type::BYTEA => {
                let digits = text.strip_prefix(b"\\x")?;
                let is_whole = digits.len().is_multiple_of(2);
                let all = is_whole && digits.iter().all(|digit| value_of(*digit).is_some());
                all.then_some(Self::Bytea(digits))
            }
            _ => None,
        }
    }

    pub(super) fn put(self, out: &mut BytesMut) {
        match self {
            Self::Bool(value) => out.put_u8(value.into()),
            Self::Int2(value) => out.put_i16(value),
            Self::Int4(value) => out.put_i32(value),
            Self::Int8(value) => out.put_i64(value),
            Self::Oid(value) => out.put_u32(value),
            Self::Uuid(digits) => {
                let digits: Vec<_> = digits.iter().copied().filter(|it| *it != b'-').collect();
                put_digits(&digits, out);
            }
            Self::Bytea(digits) => put_digits(digits, out),
        }
    }
}

/// The types of a table's columns if its rows may go by COPY in binary, which pays where their text is much longer.
pub(super) fn types(table: &Table) -> Option<Vec<Type>> {
    let of = |column: &Column| Type::from_oid(column.type_oid).filter(|of| TYPES.contains(of));
    let types: Vec<_> = table.columns.iter().map(of).collect::<Option<_>>()?;
    types.contains(&Type::BYTEA).then_some(types)
}

/// Whether all values of a row have a binary form.
pub(super) fn has_row(row: &Row, types: &[Type]) -> bool {
    row.0.iter().zip(types).all(|(value, of)| match value {
        Value::Null => true,
        Value::Unchanged => false,
        Value::Bytes(text) => Binary::of(text, of).is_some(),
    })
}

/// Appends such a row as COPY's binary format has it.
pub(super) fn put_copy_row(row: &Row, types: &[Type], out: &mut BytesMut) {
    // A table has at most 1,600 columns.
    out.put_i16(i16::try_from(types.len()).unwrap_or(i16::MAX));
    for (value, of) in row.0.iter().zip(types) {
        let binary = match value {
            Value::Bytes(text) => Binary::of(text, of),
            Value::Null | Value::Unchanged => None,
        };
        let Some(binary) = binary else {
            out.put_i32(NULL);
            continue;
        };
        let at = out.len();
        out.put_i32(0);
        binary.put(out);
        // No value is longer than its text, which limits bound.
        let length = i32::try_from(out.len() - at - size_of::<i32>()).unwrap_or(i32::MAX);
        out[at..][..size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends the bytes that an even number of hexadecimal digits stand for.
fn put_digits(digits: &[u8], out: &mut BytesMut) {
    let at = out.len();
    out.resize(at + digits.len() / 2, 0);
    let value = |digit: u8| value_of(digit).unwrap_or_default();
    for (byte, pair) in out[at..].iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0]) << 4 | value(pair[1]);
    }
}

/// A number that is written as the server writes it.
fn number<N: std::str::FromStr + ToString>(text: &[u8]) -> Option<N> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse::<N>().ok().filter(|number| number.to_string() == text)
}

fn is_uuid(text: &[u8]) -> bool {
    let fits = |(at, byte): (usize, &u8)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => value_of(*byte).is_some(),
    };
    text.len() == UUID_CHARS && text.iter().enumerate().all(fits)
}

/// What a hexadecimal digit stands for, as the server writes it.
fn value_of(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// What stands before all rows in COPY's binary format: its signature, no flags, no extension;
pub(super) const COPY_BEGIN: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// and behind them.
pub(super) const COPY_END: &[u8] = &[0xFF, 0xFF];
/// The types of which a binary form is known.
const TYPES: [Type; 7] =
    [Type::BOOL, Type::INT2, Type::INT4, Type::INT8, Type::OID, Type::UUID, Type::BYTEA];
/// The length of a value that is null.
const NULL: i32 = -1;
/// Thirty-two digits and four hyphens.
const UUID_CHARS: usize = 36;
