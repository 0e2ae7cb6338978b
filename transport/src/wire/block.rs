//! LZ4 over frames as they are: blocks of bounded size, each with what passed before as its dictionary.
//!
//! A block is two integers, its length before and after compression, and its bytes. Blocks are never cut: a chunk holds
//! whole ones.

use std::io;

use bytes::{Buf, Bytes};
use lz4_flex::block::{compress_with_dict, decompress_into_with_dict};
use thinwire_engine::codec::{Cursor, put_varint};

/// The sending end.
#[derive(Debug, Default)]
pub(super) struct BlockWriter {
    held: Vec<u8>,
    past: Past,
}

/// The receiving end.
#[derive(Debug, Default)]
pub(super) struct BlockReader {
    piece: Vec<u8>,
    past: Past,
}

impl BlockWriter {
    /// Takes bytes in, and appends the blocks that they fill.
    pub(super) fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.held.len()));
            self.held.extend_from_slice(now);
            bytes = later;
            if self.held.len() == BLOCK_BYTES {
                self.flush(out);
            }
        }
    }

    /// Appends what is still inside.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        if self.held.is_empty() {
            return;
        }
        let block = compress_with_dict(&self.held, &self.past.0);
        put_varint(self.held.len() as u64, out);
        put_varint(block.len() as u64, out);
        out.extend_from_slice(&block);
        self.past.keep(&self.held);
        self.held.clear();
    }
}

impl BlockReader {
    /// Takes the next block from the front of `bytes` and returns what is in it.
    pub(super) fn pull(&mut self, bytes: &mut Bytes) -> io::Result<&[u8]> {
        let wrong = |_| io::Error::new(io::ErrorKind::InvalidData, "not a block");
        let mut cursor = Cursor::new(bytes);
        let whole = cursor.length(BLOCK_BYTES).map_err(wrong)?;
        let length = cursor.length(BLOCK_BYTES_MAX).map_err(wrong)?;
        let block = cursor.take(length).map_err(wrong)?;
        let taken = cursor.position();
        self.piece.resize(whole, 0);
        match decompress_into_with_dict(&block, &mut self.piece, &self.past.0) {
            Ok(made) if made == whole => {}
            Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "a block too short")),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
        bytes.advance(taken);
        self.past.keep(&self.piece);
        Ok(&self.piece)
    }
}

/// The bytes that passed last.
#[derive(Debug, Default)]
struct Past(Vec<u8>);

impl Past {
    fn keep(&mut self, bytes: &[u8]) {
        let excess = (self.0.len() + bytes.len()).saturating_sub(PAST_BYTES);
        self.0.drain(..excess.min(self.0.len()));
        self.0.extend_from_slice(bytes);
    }
}

/// What is compressed at a time.
const BLOCK_BYTES: usize = 32 << 10;

/// What that takes at most: LZ4 adds a byte to 255 that it cannot make shorter.
const BLOCK_BYTES_MAX: usize = BLOCK_BYTES + BLOCK_BYTES / 255 + 64;

/// How far back LZ4 can refer.
const PAST_BYTES: usize = 64 << 10;

const _: () = assert!(BLOCK_BYTES <= PAST_BYTES);

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn read(reader: &mut BlockReader, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let (mut bytes, mut all) = (Bytes::from(bytes), Vec::new());
        while !bytes.is_empty() {
            all.extend_from_slice(reader.pull(&mut bytes)?);
        }
        Ok(all)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_flushed_batch_comes_out_whole(batches in vec((any::<u8>(), 0..90_000_usize), 1..9)) {
            let (mut writer, mut reader) = (BlockWriter::default(), BlockReader::default());
            for (seed, length) in batches {
                let noise = (0..length).map(|at| (at * at / 7).to_le_bytes()[0] ^ seed);
                let (batch, mut wire) = (noise.collect::<Vec<_>>(), Vec::new());
                writer.push(&batch, &mut wire);
                writer.flush(&mut wire);
                prop_assert_eq!(read(&mut reader, wire).unwrap(), batch);
            }
        }

        #[test]
        fn garbage_is_refused_or_comes_out_bounded(bytes in vec(any::<u8>(), 1..600)) {
            let mut reader = BlockReader::default();
            let mut bytes = Bytes::from(bytes);
            while let Ok(piece) = reader.pull(&mut bytes) {
                prop_assert!(piece.len() <= BLOCK_BYTES);
            }
        }
    }

    #[test]
    fn what_was_sent_before_is_the_dictionary() {
        let mut writer = BlockWriter::default();
        let batch: Vec<u8> =
            (0..4_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut sizes = Vec::new();
        for _ in 0..2 {
            let mut wire = Vec::new();
            writer.push(&batch, &mut wire);
            writer.flush(&mut wire);
            sizes.push(wire.len());
        }
        assert!(sizes[1] * 50 < sizes[0], "{sizes:?}");
    }

    #[test]
    fn a_block_that_says_to_be_longer_than_it_may_is_refused() {
        let mut wire = Vec::new();
        put_varint(BLOCK_BYTES as u64 + 1, &mut wire);
        put_varint(1, &mut wire);
        wire.push(0);
        assert!(read(&mut BlockReader::default(), wire).is_err());
    }
}
