//! How small bytes become under zstd: a compressor that keeps nothing but the size.

use std::io::{self, Write};

use anyhow::Result;
use zstd::stream::write::Encoder;

/// `zstd -19 --long`, whose output goes nowhere.
pub(crate) struct Squeeze {
    encoder: Encoder<'static, Count>,
    bytes: u64,
}

impl Squeeze {
    pub(crate) fn new() -> Result<Squeeze> {
        let mut encoder = Encoder::new(Count(0), LEVEL)?;
        encoder.long_distance_matching(true)?;
        encoder.window_log(WINDOW_LOG)?;
        Ok(Squeeze { encoder, bytes: 0 })
    }

    pub(crate) fn take_in(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        Ok(self.encoder.write_all(bytes)?)
    }

    /// The bytes that went in, and those that came out.
    pub(crate) fn finish(self) -> Result<(u64, u64)> {
        Ok((self.bytes, self.encoder.finish()?.0))
    }
}

/// A writer that only counts.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0 += buffer.len() as u64;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `-19`: the best that is worth its time.
const LEVEL: i32 = 19;
/// `--long`: matches reach back 128 MiB.
const WINDOW_LOG: u32 = 27;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_far_back_is_found_again() {
        let size_of = |repeats: u64| {
            let mut squeeze = Squeeze::new().unwrap();
            for _ in 0..repeats {
                let mut random = crate::random::Random::new(1);
                (0..100_000).for_each(|_| {
                    squeeze.take_in(&random.bits().to_le_bytes()).unwrap();
                });
            }
            squeeze.finish().unwrap()
        };
        let (once, thrice) = (size_of(1), size_of(3));
        assert_eq!((once.0, thrice.0), (800_000, 2_400_000));
        assert!(once.1 > 790_000 && thrice.1 < once.1 + 10_000, "{once:?} {thrice:?}");
    }
}
