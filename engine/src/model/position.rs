//! Positions: each its own type, with only the arithmetic that makes sense.

use std::{fmt, num::ParseIntError, str::FromStr};

use serde::{Deserialize, Serialize};

/// The ordinal number of a record in its stream, dense, from 1. The only currency of resume and
/// acknowledgement. [`Offset::ZERO`] stands for "before the first record".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Offset(u64);

impl Offset {
    /// Before the first record: nothing is held.
    pub const ZERO: Self = Self(0);
    /// The first record of every stream.
    pub const FIRST: Self = Self(1);

    /// The offset with this ordinal number.
    pub const fn new(ordinal: u64) -> Self {
        Self(ordinal)
    }

    /// The ordinal number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The offset before this one; that of the first is [`Offset::ZERO`].
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The offset that lies `records` further.
    pub const fn forward(self, records: u64) -> Self {
        Self(self.0.saturating_add(records))
    }

    /// How many records lie in `other..self`; zero if `other` is not before.
    pub const fn since(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A position in the write-ahead log of the source. Never used as an [`Offset`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Lsn(u64);

impl Lsn {
    /// No position.
    pub const ZERO: Self = Self(0);

    /// The position with this byte number.
    pub const fn new(byte: u64) -> Self {
        Self(byte)
    }

    /// The byte number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// As PostgreSQL writes it: two hexadecimal halves.
impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (high, low) = text.split_once('/').unwrap_or(("", text));
        let high = u32::from_str_radix(high, 16)?;
        let low = u32::from_str_radix(low, 16)?;
        Ok(Self((u64::from(high) << 32) | u64::from(low)))
    }
}

/// Microseconds since 2000-01-01 00:00 UTC, PostgreSQL's own epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The time that many microseconds after the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds after the epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_reads_what_it_writes() {
        for lsn in [0, 1, 0x16_B374_D848, u64::MAX] {
            let lsn = Lsn::new(lsn);
            assert_eq!(lsn.to_string().parse::<Lsn>().unwrap(), lsn);
        }
        assert!("1/2/3".parse::<Lsn>().is_err());
        assert!("nonsense".parse::<Lsn>().is_err());
    }

    #[test]
    fn offsets_do_not_wrap() {
        assert_eq!(Offset::ZERO.prev(), Offset::ZERO);
        assert_eq!(Offset::new(u64::MAX).next(), Offset::new(u64::MAX));
        assert_eq!(Offset::FIRST.since(Offset::new(9)), 0);
    }
}
