//! Values as text: lines of COPY, and elements of arrays.

use bytes::{BufMut, BytesMut};
use thinwire_engine::model::{Row, Value};

/// Appends a row as a line of COPY's text format.
pub(crate) fn put_copy_row(row: &Row, out: &mut BytesMut) {
    for (at, value) in row.0.iter().enumerate() {
        if at > 0 {
            out.put_u8(b'\t');
        }
        match value {
            Value::Bytes(bytes) => put_copy_value(bytes, out),
            Value::Null | Value::Unchanged => out.put_slice(b"\\N"),
        }
    }
    out.put_u8(b'\n');
}

/// Appends a value as an element of an array in text form.
pub(crate) fn put_array_element(value: &Value, out: &mut Vec<u8>) {
    let Value::Bytes(bytes) = value else { return out.extend_from_slice(b"NULL") };
    out.push(b'"');
    for byte in bytes {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

fn put_copy_value(bytes: &[u8], out: &mut BytesMut) {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| escape(*byte).is_some()) {
        let (plain, special) = rest.split_at(at);
        out.put_slice(plain);
        if let Some(letter) = escape(special[0]) {
            out.put_slice(&[b'\\', letter]);
        }
        rest = &special[1..];
    }
    out.put_slice(rest);
}

/// The letter that stands for a byte behind a backslash, if it may not stand for itself.
fn escape(byte: u8) -> Option<u8> {
    match byte {
        b'\\' => Some(b'\\'),
        b'\n' => Some(b'n'),
        b'\r' => Some(b'r'),
        b'\t' => Some(b't'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: Vec<Value>) -> String {
        let mut out = BytesMut::new();
        put_copy_row(&Row(values), &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn copy_lines_escape_what_would_end_a_value_or_a_line() {
        let text = |text: &'static str| Value::Bytes(bytes::Bytes::from_static(text.as_bytes()));
        assert_eq!(line(vec![text("a"), Value::Null, text("")]), "a\t\\N\t\n");
        assert_eq!(
            line(vec![text("\\N"), text("x\ty\nz\r\\."), text("ünï")]),
            "\\\\N\tx\\ty\\nz\\r\\\\.\tünï\n"
        );
        assert_eq!(line(vec![text("\\."), text("\\\\")]), "\\\\.\t\\\\\\\\\n");
        assert_eq!(line(vec![]), "\n");
    }
}
