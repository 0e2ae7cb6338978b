//! The forms in which frames travel in the lane that is not of packets. The sender chooses one for a whole connection and
//! says which; the receiver reads them all.

use std::io;

use bytes::{Buf, Bytes};

use super::{
    block::{BlockReader, BlockWriter},
    stream::{Compressor, Decompressor},
};

/// A form, as it is said on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    #[default]
    Zstd = 0,
    Lz4 = 1,
    Plain = 2,
}

impl Form {
    pub(super) fn of(number: u8) -> Option<Self> {
        [Self::Zstd, Self::Lz4, Self::Plain].into_iter().find(|form| *form as u8 == number)
    }

    /// The sending end.
    pub(super) fn writer(self) -> io::Result<FormWriter> {
        Ok(match self {
            Self::Zstd => FormWriter::Zstd(Compressor::new()?),
            Self::Lz4 => FormWriter::Lz4(BlockWriter::default()),
            Self::Plain => FormWriter::Plain,
        })
    }

    /// The receiving end.
    pub(super) fn reader(self) -> io::Result<FormReader> {
        Ok(match self {
            Self::Zstd => FormReader::Zstd(Decompressor::new()?),
            Self::Lz4 => FormReader::Lz4(BlockReader::default()),
            Self::Plain => FormReader::Plain,
        })
    }
}

/// Frames to bytes.
#[derive(Debug)]
pub(super) enum FormWriter {
    Zstd(Compressor),
    Lz4(BlockWriter),
    Plain,
}

/// Bytes to frames.
#[derive(Debug)]
pub(super) enum FormReader {
    Zstd(Decompressor),
    Lz4(BlockReader),
    Plain,
}

impl FormWriter {
    /// Takes bytes in and appends what comes out, which may be nothing yet.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Zstd(compressor) => compressor.push(bytes, out)?,
            Self::Lz4(writer) => writer.push(bytes, out),
            Self::Plain => out.extend_from_slice(bytes),
        }
        Ok(())
    }

    /// Appends all that is still inside.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Zstd(compressor) => compressor.flush(out)?,
            Self::Lz4(writer) => writer.flush(out),
            Self::Plain => {}
        }
        Ok(())
    }
}

impl FormReader {
    /// Takes from the front of `bytes`, gives `take` a bounded piece of what comes out, and says whether there may be more.
    pub(super) fn pull(&mut self, bytes: &mut Bytes, take: impl FnOnce(&[u8])) -> io::Result<bool> {
        match self {
            Self::Zstd(decompressor) => {
                let mut rest = &bytes[..];
                let piece = decompressor.pull(&mut rest)?;
                let more = !piece.is_empty() || !rest.is_empty();
                take(piece);
                let taken = bytes.len() - rest.len();
                bytes.advance(taken);
                Ok(more)
            }
            Self::Lz4(_) if bytes.is_empty() => Ok(false),
            Self::Lz4(reader) => {
                take(reader.pull(bytes)?);
                Ok(!bytes.is_empty())
            }
            Self::Plain => {
                take(bytes);
                bytes.clear();
                Ok(false)
            }
        }
    }
}
