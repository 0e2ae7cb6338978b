//! Integers of variable length, and a reader of bytes that cannot run past their end.

use bytes::Bytes;

use super::DecodeError;

/// Appends an unsigned integer: seven bits a byte, low ones first.
pub fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

/// Reads from the front of bytes. Byte strings are shared with them, not copied.
#[derive(Debug)]
pub struct Cursor<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// A reader at the first of `bytes`.
    pub fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// How many bytes were read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let &byte = self.bytes.get(self.at).ok_or(DecodeError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    /// An unsigned integer in its shortest form.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        // Most are of one byte.
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::Malformed("integer of more than 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return match byte {
                    0 if shift > 0 => Err(DecodeError::Malformed("integer not in shortest form")),
                    _ => Ok(value),
                };
            }
        }
        Err(DecodeError::Malformed("integer of more than 64 bits"))
    }

    /// An unsigned integer of at most 32 bits.
    pub fn varint32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.varint()?)
            .map_err(|_| DecodeError::Malformed("integer of more than 32 bits"))
    }

    /// A signed integer, zigzag.
    pub fn signed(&mut self) -> Result<i64, DecodeError> {
        let raw = self.varint()?;
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    /// A length or count, not above `max`.
    pub fn length(&mut self, max: usize) -> Result<usize, DecodeError> {
        let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if length > max {
            return Err(DecodeError::TooLong { length, max });
        }
        Ok(length)
    }

    /// The next `length` bytes, shared.
    pub fn take(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        if length > self.remaining() {
            return Err(DecodeError::Truncated);
        }
        let taken = self.bytes.slice(self.at..self.at + length);
        self.at += length;
        Ok(taken)
    }

    /// The next `length` bytes, borrowed.
    pub fn peel(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        if length > self.remaining() {
            return Err(DecodeError::Truncated);
        }
        let taken = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.peel(N)?.try_into().map_err(|_| DecodeError::Truncated)
    }

    /// A string with its length, of at most `max` bytes.
    pub fn string(&mut self, max: usize) -> Result<String, DecodeError> {
        let length = self.length(max)?;
        let bytes = self.peel(length)?;
        let text = str::from_utf8(bytes).map_err(|_| DecodeError::Malformed("not UTF-8"))?;
        Ok(text.to_owned())
    }

    /// Fails unless all was read.
    pub fn end(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            _ => Err(DecodeError::Malformed("bytes behind the end of a record")),
        }
    }
}
