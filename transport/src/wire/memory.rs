//! Rows that passed lately, by their keys: a changed row is mostly its old self.
//!
//! Both ends remember and forget the same rows, in the order in which they passed, within a fixed number of bytes.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use thinwire_engine::{
    codec::{Cursor, put_varint},
    model::{Row, Value},
};

/// The rows.
#[derive(Debug, Default)]
pub(super) struct Memory {
    rows: HashMap<u64, Kept>,
    /// In the order in which they came; a row that changed is there again, and only its last place counts.
    order: VecDeque<(u64, u32)>,
    bytes: usize,
    turn: u32,
}

#[derive(Debug)]
struct Kept {
    row: Box<[u8]>,
    turn: u32,
}

impl Memory {
    /// The row under a key.
    pub(super) fn find(&self, key: u64) -> Option<Row> {
        let bytes = Bytes::copy_from_slice(&self.rows.get(&key)?.row);
        let mut cursor = Cursor::new(&bytes);
        let mut values = Vec::new();
        while cursor.remaining() > 0 {
            values.push(match cursor.length(ROW_BYTES_MAX + 2).ok()? {
                0 => Value::Null,
                1 => Value::Unchanged,
                length => Value::Bytes(cursor.take(length - 2).ok()?),
            });
        }
        Some(Row(values))
    }

    /// Remembers a row, if it is not too large.
    pub(super) fn keep(&mut self, key: u64, row: &Row) {
        self.forget(key);
        let size: usize = row.0.iter().map(|value| 4 + bytes_of(value).len()).sum();
        if size > ROW_BYTES_MAX {
            return;
        }
        let mut bytes = Vec::with_capacity(size);
        for value in &row.0 {
            match value {
                Value::Null => bytes.push(0),
                Value::Unchanged => bytes.push(1),
                Value::Bytes(value) => {
                    put_varint(value.len() as u64 + 2, &mut bytes);
                    bytes.extend_from_slice(value);
                }
            }
        }
        self.turn = self.turn.wrapping_add(1);
        self.bytes += bytes.len() + ROW_COST;
        self.order.push_back((key, self.turn));
        self.rows.insert(key, Kept { row: bytes.into(), turn: self.turn });
        while self.bytes > MEMORY_BYTES
            && let Some((key, turn)) = self.order.pop_front()
        {
            self.bytes -= PLACE_COST;
            if self.rows.get(&key).is_some_and(|kept| kept.turn == turn) {
                self.forget(key);
            }
        }
    }

    /// Forgets what is under a key. Its place in the order stays until its turn comes.
    pub(super) fn forget(&mut self, key: u64) {
        if let Some(kept) = self.rows.remove(&key) {
            self.bytes -= kept.row.len() + ROW_COST - PLACE_COST;
        }
    }
}

/// A value's bytes; none if it has none.
pub(super) fn bytes_of(value: &Value) -> &[u8] {
    match value {
        Value::Bytes(bytes) => bytes,
        Value::Null | Value::Unchanged => &[],
    }
}

/// What is remembered in all, with what it costs to remember it.
const MEMORY_BYTES: usize = 1 << 20;

/// Larger rows are not remembered.
const ROW_BYTES_MAX: usize = 8 << 10;

/// What a row takes beside its bytes: its entry and its place.
const ROW_COST: usize = 80;

/// What its place in the order takes.
const PLACE_COST: usize = 16;
