//! One row of `COPY … TO STDOUT` in text form.

use bytes::{Bytes, BytesMut};
use thinwire_engine::model::{Row, Value};

use crate::error::{Error, Result};

/// The row that a line is, which may end in a newline. Values without escapes share the line's bytes.
pub(super) fn parse(line: Bytes, columns: usize) -> Result<Row> {
    let line = match line.last() {
        Some(b'\n') => line.slice(..line.len() - 1),
        _ => line,
    };
    if columns == 0 && line.is_empty() {
        return Ok(Row(vec![]));
    }
    let (mut values, mut start) = (Vec::with_capacity(columns), 0);
    loop {
        let rest = &line[start..];
        let end = rest.iter().position(|&byte| byte == b'\t').map(|at| start + at);
        values.push(value(line.slice(start..end.unwrap_or(line.len())))?);
        match end {
            Some(end) => start = end + 1,
            None => break,
        }
    }
    match values.len() == columns {
        true => Ok(Row(values)),
        false => Err(odd()),
    }
}

fn value(field: Bytes) -> Result<Value> {
    if field.as_ref() == b"\\N" {
        return Ok(Value::Null);
    }
    let Some(first) = field.iter().position(|&byte| byte == b'\\') else {
        return Ok(Value::Bytes(field));
    };
    // `bytea` in hexadecimal begins with the only backslash it has, doubled.
    if first == 0 && field.get(1) == Some(&b'\\') && !field[2..].contains(&b'\\') {
        return Ok(Value::Bytes(field.slice(1..)));
    }
    unescape(&field, first).map(Value::Bytes)
}

fn unescape(field: &[u8], first: usize) -> Result<Bytes> {
    let mut out = BytesMut::with_capacity(field.len());
    let (plain, mut rest) = field.split_at(first);
    out.extend_from_slice(plain);
    while let [b'\\', escaped, after @ ..] = rest {
        out.extend_from_slice(&[match escaped {
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0B,
            b'\\' => b'\\',
            _ => return Err(odd()),
        }]);
        let next = after.iter().position(|&byte| byte == b'\\').unwrap_or(after.len());
        out.extend_from_slice(&after[..next]);
        rest = &after[next..];
    }
    match rest.is_empty() {
        true => Ok(out.freeze()),
        false => Err(odd()),
    }
}

fn odd() -> Error {
    Error::Handshake("a copied row is not in the form that was asked for".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: &'static [u8], columns: usize) -> Vec<Value> {
        parse(Bytes::from_static(line), columns).unwrap().0
    }

    fn text(value: &'static [u8]) -> Value {
        Value::Bytes(Bytes::from_static(value))
    }

    #[test]
    fn fields_are_split_and_unescaped() {
        assert_eq!(row(b"1\tone\t\\N\t\n", 4), [text(b"1"), text(b"one"), Value::Null, text(b"")]);
        assert_eq!(row(b"a\\tb\\nc\\\\d\\r\\b\\f\\v\n", 1), [text(b"a\tb\nc\\d\r\x08\x0C\x0B")]);
        assert_eq!(row(b"\\\\x00ff\n", 1), [text(b"\\x00ff")]);
        assert_eq!(row(b"\\\\N\t\\\\\n", 2), [text(b"\\N"), text(b"\\")]);
        assert_eq!(row(b"\\\\a\\\\b\n", 1), [text(b"\\a\\b")]);
        assert_eq!(row(b"\n", 1), [text(b"")]);
        assert_eq!(row(b"\n", 0), []);
        assert_eq!(row("é\u{1F600}\tü\n".as_bytes(), 2)[1], text("ü".as_bytes()));
    }

    #[test]
    fn rows_of_another_form_are_errors() {
        for (line, columns) in [
            (&b"1\t2\n"[..], 1),
            (b"1\n", 2),
            (b"1\n", 0),
            (b"a\\\n", 1),
            (b"\\x41\n", 1),
            (b"ab\\q\n", 1),
        ] {
            assert!(parse(Bytes::from_static(line), columns).is_err(), "{line:?}");
        }
    }
}
