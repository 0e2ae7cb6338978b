//! Values as text: as parameters of any type, and as lines of COPY.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use thinwire_engine::model::{Row, Value};
use tokio_postgres::types::{Format, IsNull, ToSql, Type};

/// A parameter in text form, whatever type the statement gives it: the server's input function reads it.
pub(crate) struct Text(pub(crate) Value);

impl Text {
    /// A parameter that is not a value of a row.
    pub(crate) fn of(text: impl Into<String>) -> Self {
        Self(Value::Bytes(text.into().into()))
    }

    /// The same, or null.
    pub(crate) fn maybe(text: Option<String>) -> Self {
        text.map_or(Self(Value::Null), Self::of)
    }

    /// How many bytes it is.
    pub(crate) fn bytes_len(&self) -> usize {
        match &self.0 {
            Value::Bytes(bytes) => bytes.len(),
            Value::Null | Value::Unchanged => 0,
        }
    }
}

/// Says nothing: the client logs parameters.
impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl ToSql for Text {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match &self.0 {
            Value::Null => Ok(IsNull::Yes),
            Value::Unchanged => Err("an unchanged value is not a parameter".into()),
            Value::Bytes(bytes) => {
                out.put_slice(bytes);
                Ok(IsNull::No)
            }
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(
        &self,
        of: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.to_sql(of, out)
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }
}

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

    #[test]
    fn parameters_do_not_show_in_logs() {
        assert_eq!(format!("{:?}", Text::of("secret")), "…");
    }
}
