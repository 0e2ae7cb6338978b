//! What a stream is called, what of it a peer may see, and the checksum that proves a shared prefix.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The node where a change was first committed: the first half of the SHA-256 of its public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin([u8; 16]);

/// The random id of a stream. A re-created stream has a new one, so that positions of the old can
/// never be mistaken for positions of the new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch([u8; 16]);

/// A stream: the ordered log of one origin's changes. Written `<origin>-<epoch>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId {
    /// Whose changes.
    pub origin: Origin,
    /// Which life of the stream.
    pub epoch: Epoch,
}

/// What of a stream a holder was entitled to: the hash of its filters. Records withheld only because a
/// copy was meant for somebody else do not narrow a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View(u64);

impl View {
    /// Every table, row, column and operation.
    pub const FULL: Self = Self(0);
}

/// The running checksum of a stream: the CRC-32 (IEEE) of all canonical records up to an offset, each with
/// its length before it. A skipped run carries the origin's checksum behind it, so that at
/// any offset every holder of the stream has the same value, whatever was withheld from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running(u32);

impl Running {
    /// Before the first record.
    pub const START: Self = Self(0);

    /// A value that was read.
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// The value to write.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The checksum after `framed` more bytes of records, lengths included.
    #[must_use]
    pub fn extend(self, framed: &[u8]) -> Self {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(framed);
        Self(hasher.finalize())
    }
}

/// Text that is not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 32 hexadecimal digits")]
pub struct ParseIdError;

macro_rules! id128 {
    ($name:ident) => {
        impl $name {
            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }
    };
}

id128!(Origin);
id128!(Epoch);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.origin, self.epoch)
    }
}

impl FromStr for StreamId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let (origin, epoch) = text.split_once('-').ok_or(ParseIdError)?;
        Ok(Self { origin: origin.parse()?, epoch: epoch.parse()? })
    }
}

fn parse_hex(text: &str) -> Result<[u8; 16], ParseIdError> {
    let digits = text.as_bytes();
    if digits.len() != 32 {
        return Err(ParseIdError);
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let &[high, low] = pair else {
            return Err(ParseIdError);
        };
        *byte = (hex_digit(high)? << 4) | hex_digit(low)?;
    }
    Ok(bytes)
}

fn hex_digit(digit: u8) -> Result<u8, ParseIdError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(ParseIdError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_what_they_write_and_nothing_else() {
        let id = StreamId {
            origin: Origin::from_bytes(*b"0123456789abcdef"),
            epoch: Epoch::from_bytes([0xFE; 16]),
        };
        assert_eq!(id.to_string().parse::<StreamId>(), Ok(id));
        for bad in ["", "-", "zz", &"A".repeat(32), &id.to_string()[1..]] {
            assert!(bad.parse::<StreamId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn running_checksum_does_not_depend_on_how_records_were_grouped() {
        let whole = Running::START.extend(b"abcdef");
        assert_eq!(whole, Running::START.extend(b"abc").extend(b"def"));
        assert_ne!(whole, Running::START.extend(b"abcdeg"));
    }
}
