//! Compression: one zstd stream a connection and direction, flushed a batch.
//!
//! Everything that the connection carried before is the dictionary for what comes, which is why it is one stream
//! and not one piece a batch. Both ends hold a window of at most a megabyte; a stream that asks for more is
//! refused. Output comes in bounded pieces, so that bytes that decompress to very many cost time, not memory.

use std::io;

use zstd::stream::raw::{CParameter, DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

/// The sending end.
pub struct Compressor {
    encoder: Encoder<'static>,
    piece: Box<[u8]>,
}

/// The receiving end.
pub struct Decompressor {
    decoder: Decoder<'static>,
    piece: Box<[u8]>,
}

impl Compressor {
    /// The start of a stream.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new() -> io::Result<Self> {
        let mut encoder = Encoder::new(LEVEL)?;
        encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
        encoder.set_parameter(CParameter::HashLog(TABLE_LOG))?;
        encoder.set_parameter(CParameter::ChainLog(TABLE_LOG))?;
        encoder.set_parameter(CParameter::ContentSizeFlag(false))?;
        Ok(Self { encoder, piece: vec![0; PIECE].into() })
    }

    /// Takes `bytes` in and appends what comes out, which may be nothing yet.
    ///
    /// # Errors
    /// None that depends on the bytes.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() {
            let mut output = OutBuffer::around(&mut self.piece[..]);
            self.encoder.run(&mut input, &mut output)?;
            out.extend_from_slice(output.as_slice());
        }
        Ok(())
    }

    /// Appends all that is still inside: the other end can read everything up to here.
    ///
    /// # Errors
    /// None that depends on the bytes.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let mut output = OutBuffer::around(&mut self.piece[..]);
            let left = self.encoder.flush(&mut output)?;
            out.extend_from_slice(output.as_slice());
            if left == 0 {
                return Ok(());
            }
        }
    }
}

impl Decompressor {
    /// The start of a stream.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new() -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
        Ok(Self { decoder, piece: vec![0; PIECE].into() })
    }

    /// Takes from the front of `bytes` and returns the next piece of output. Call it until `bytes` is empty and
    /// the piece too.
    ///
    /// # Errors
    /// For bytes that no [`Compressor`] made.
    pub fn pull(&mut self, bytes: &mut &[u8]) -> io::Result<&[u8]> {
        let mut input = InBuffer::around(bytes);
        let mut output = OutBuffer::around(&mut self.piece[..]);
        let hint = self.decoder.run(&mut input, &mut output)?;
        let (taken, made) = (input.pos(), output.as_slice().len());
        *bytes = &bytes[taken..];
        if hint == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the stream ends"));
        }
        if taken == 0 && made == 0 && !bytes.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the stream stands still"));
        }
        Ok(&self.piece[..made])
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

/// Small enough that a link of a hundred megabits is not slowed by it on one core.
const LEVEL: i32 = 5;

/// A window of half a megabyte at each end.
const WINDOW_LOG: u32 = 19;

/// Tables of half a megabyte each at the sending end.
const TABLE_LOG: u32 = 17;

/// What comes out at a time.
const PIECE: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn decompress(decompressor: &mut Decompressor, mut bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let piece = decompressor.pull(&mut bytes)?;
            all.extend_from_slice(piece);
            if piece.len() < PIECE && bytes.is_empty() {
                return Ok(all);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_flushed_batch_comes_out_whole(batches in vec(vec(any::<u8>(), 0..5_000), 1..20)) {
            let (mut there, mut here) = (Compressor::new().unwrap(), Decompressor::new().unwrap());
            for batch in batches {
                let mut wire = Vec::new();
                there.push(&batch, &mut wire).unwrap();
                there.flush(&mut wire).unwrap();
                prop_assert_eq!(decompress(&mut here, &wire).unwrap(), batch);
            }
        }

        #[test]
        fn garbage_never_panics(bytes in vec(any::<u8>(), 0..2_000)) {
            let _ = decompress(&mut Decompressor::new().unwrap(), &bytes);
        }
    }

    #[test]
    fn what_was_sent_before_is_the_dictionary() {
        let mut there = Compressor::new().unwrap();
        let batch: Vec<u8> =
            (0..4_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        there.push(&batch, &mut first).unwrap();
        there.flush(&mut first).unwrap();
        there.push(&batch, &mut second).unwrap();
        there.flush(&mut second).unwrap();
        assert!(second.len() * 50 < first.len(), "{} after {}", second.len(), first.len());
    }

    #[test]
    fn a_window_beyond_the_bound_is_refused() {
        let mut encoder = Encoder::new(3).unwrap();
        encoder.set_parameter(CParameter::WindowLog(23)).unwrap();
        let mut out = vec![0; 4 << 20];
        let noise: Vec<u8> =
            (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut output = OutBuffer::around(&mut out[..]);
        encoder.run(&mut InBuffer::around(&noise), &mut output).unwrap();
        encoder.flush(&mut output).unwrap();
        let made = output.as_slice().to_vec();
        assert!(decompress(&mut Decompressor::new().unwrap(), &made).is_err());
    }

    #[test]
    fn a_bomb_comes_out_in_bounded_pieces() {
        let mut there = Compressor::new().unwrap();
        let mut wire = Vec::new();
        there.push(&vec![0; 64 << 20], &mut wire).unwrap();
        there.flush(&mut wire).unwrap();
        assert!(wire.len() < 16 << 10);
        let (mut here, mut bytes, mut total) = (Decompressor::new().unwrap(), wire.as_slice(), 0);
        loop {
            let piece = here.pull(&mut bytes).unwrap();
            assert!(piece.len() <= PIECE);
            total += piece.len();
            if piece.is_empty() && bytes.is_empty() {
                break;
            }
        }
        assert_eq!(total, 64 << 20);
    }
}
