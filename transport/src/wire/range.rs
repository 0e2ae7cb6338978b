//! A range coder: bits and their probabilities to bytes and back.
//!
//! Both directions are one trait, so that a model is written once: the writer is given each bit and returns it,
//! the reader returns the one that it finds. A model that only looks at what was returned evolves alike at both
//! ends.

/// Codes bits, in one of the two directions.
pub(super) trait Coder {
    /// Codes one bit, which is set with probability `odds` / 65,536. The reader ignores `bit`.
    fn code(&mut self, bit: bool, odds: u16) -> bool;
}

/// Bits to bytes.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    span: Span,
    out: &'a mut Vec<u8>,
}

/// Bytes to bits. Behind the last byte there are zeros for ever: whether what was read makes sense is for a
/// checksum to say.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    span: Span,
    at: u32,
    rest: &'a [u8],
}

/// All numbers that begin with what was coded.
#[derive(Clone, Copy, Debug)]
struct Span {
    low: u32,
    high: u32,
}

impl Span {
    const ALL: Self = Self { low: 0, high: u32::MAX };

    /// The last number that stands for a set bit.
    fn split(self, odds: u16) -> u32 {
        let width = u64::from(self.high - self.low);
        // The product of 32 and 16 bits without its low 16 has at most 32.
        self.low + u32::try_from((width * u64::from(odds)) >> 16).unwrap_or(u32::MAX)
    }

    fn narrow(&mut self, bit: bool, split: u32) {
        match bit {
            true => self.high = split,
            false => self.low = split + 1,
        }
    }

    /// The byte with which all its numbers begin, if they do; they go on behind it.
    fn shift(&mut self) -> Option<u8> {
        let [first, ..] = self.low.to_be_bytes();
        if first != self.high.to_be_bytes()[0] {
            return None;
        }
        self.low <<= 8;
        self.high = (self.high << 8) | 0xFF;
        Some(first)
    }
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { span: Span::ALL, out }
    }

    /// Appends the fewest bytes that tell the last bits.
    pub(super) fn finish(self) {
        let Span { low, high } = self.span;
        for zeros in [24, 16, 8, 0] {
            let mask = u32::MAX << zeros;
            let Some(number) = low.checked_add(!mask).map(|number| number & mask) else { continue };
            if number <= high {
                let bytes = number.to_be_bytes();
                self.out.extend_from_slice(&bytes[..4 - zeros as usize / 8]);
                return;
            }
        }
    }
}

impl Coder for Writer<'_> {
    fn code(&mut self, bit: bool, odds: u16) -> bool {
        self.span.narrow(bit, self.span.split(odds));
        while let Some(byte) = self.span.shift() {
            self.out.push(byte);
        }
        bit
    }
}

impl<'a> Reader<'a> {
    /// Reads from the front of `bytes`.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let mut reader = Self { span: Span::ALL, at: 0, rest: bytes };
        (0..4).for_each(|_| reader.take());
        reader
    }

    fn take(&mut self) {
        let next = match self.rest.split_first() {
            None => 0,
            Some((&next, rest)) => {
                self.rest = rest;
                next
            }
        };
        self.at = (self.at << 8) | u32::from(next);
    }
}

impl Coder for Reader<'_> {
    fn code(&mut self, _: bool, odds: u16) -> bool {
        let split = self.span.split(odds);
        let bit = self.at <= split;
        self.span.narrow(bit, split);
        while self.span.shift().is_some() {
            self.take();
        }
        bit
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn bits_come_back_whatever_their_odds(bits in vec((any::<bool>(), 1_u16..), 0..3_000)) {
            let mut bytes = Vec::new();
            let mut writer = Writer::new(&mut bytes);
            for (bit, odds) in &bits {
                writer.code(*bit, *odds);
            }
            writer.finish();
            let mut reader = Reader::new(&bytes);
            for (bit, odds) in &bits {
                prop_assert_eq!(reader.code(false, *odds), *bit);
            }
        }
    }

    #[test]
    fn what_was_expected_costs_next_to_nothing() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        (0..10_000).for_each(|_| {
            writer.code(true, 65_500);
        });
        writer.finish();
        assert!(bytes.len() <= 2, "{}", bytes.len());
    }
}
