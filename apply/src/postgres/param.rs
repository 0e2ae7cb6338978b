//! Parameters of statements: in binary where that is certainly the same value, else as text, which the server's own input
//! function reads whatever the type.

use std::{error::Error, fmt};

use bytes::{BufMut, BytesMut};
use thinwire_engine::model::Value;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};

use super::binary::Binary;

/// A parameter, of whatever type the statement gives it.
pub(crate) struct Param(pub(crate) Value);

impl Param {
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
impl fmt::Debug for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl ToSql for Param {
    fn to_sql(
        &self,
        of: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match &self.0 {
            Value::Null => return Ok(IsNull::Yes),
            Value::Unchanged => return Err("an unchanged value is not a parameter".into()),
            Value::Bytes(text) => match Binary::of(text, of) {
                Some(binary) => binary.put(out),
                None => out.put_slice(text),
            },
        }
        Ok(IsNull::No)
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

    fn encode_format(&self, of: &Type) -> Format {
        match &self.0 {
            Value::Bytes(text) if Binary::of(text, of).is_some() => Format::Binary,
            _ => Format::Text,
        }
    }
}

#[cfg(test)]
mod tests;
