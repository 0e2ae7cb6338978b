//! What a row is made of.

use bytes::Bytes;

/// One column's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// SQL's null.
    Null,
    /// Stored out of line at the source and not changed, so it was not sent. Never confused with null:
    /// what the target has stays.
    Unchanged,
    /// The text form, in UTF-8.
    Bytes(Bytes),
}

/// The values of a row, in the order of its relation's columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row(pub Vec<Value>);
