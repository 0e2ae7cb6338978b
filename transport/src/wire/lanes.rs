//! Two lanes in one stream of bytes: packets, and frames under zstd, LZ4 or nothing.
//!
//! The stream is a byte, its version, the form of the lane of frames and whether it begins with what both ends know, and then
//! chunks. A chunk is an integer, its length with the lane in the lowest bit, and so
//! many bytes. Frames keep their order: what is in the lane of frames is flushed before a packet follows.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use thinwire_engine::{
    codec::{Records, put_varint},
    model::Offset,
};

use super::{
    WireError,
    form::{Form, FormReader, FormWriter},
    packet::{Packer, RECORDS_BYTES_MAX, Unpacker},
};
use crate::{
    frame::{DataDecoder, DataFrame, Priming, put_primings, read_primings},
    peer::Compression,
};

/// The sending end. What a lane needs comes into being when it is first used.
#[derive(Debug, Default)]
pub struct Outlet {
    begun: bool,
    compression: Compression,
    writer: Option<FormWriter>,
    /// Whether bytes wait in the compressor.
    unflushed: bool,
    packer: Option<Packer>,
    chunk: Vec<u8>,
}

impl Outlet {
    /// One that sends records in this way.
    pub fn new(compression: Compression) -> Self {
        Self { compression, ..Self::default() }
    }

    /// Sends encoded frames, whole or in pieces, through the lane of frames.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn stream(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.form().writer()?,
        };
        let pushed = writer.push(bytes, &mut self.chunk);
        self.writer = Some(writer);
        self.unflushed = true;
        self.put(STREAM, out);
        pushed
    }

    /// Sends all that waits, so that the other end can read it.
    ///
    /// # Errors
    /// None that depends on the bytes.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if self.unflushed
            && let Some(writer) = &mut self.writer
        {
            writer.flush(&mut self.chunk)?;
            self.unflushed = false;
            self.put(STREAM, out);
        }
        Ok(())
    }

    /// Sends records of a stream that was opened, through the lane of packets. Only those that
    /// [`fit`](Self::fits).
    ///
    /// # Errors
    /// None that depends on the records.
    pub fn pack(
        &mut self,
        index: u32,
        first: Offset,
        records: &Records,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        self.flush(out)?;
        self.packer.get_or_insert_default().pack(index, first, records, &mut self.chunk);
        self.put(PACKET, out);
        Ok(())
    }

    /// Whether records may go into a packet.
    pub fn fits(&self, records: &Records) -> bool {
        self.compression == Compression::Packets && records.bytes().len() <= RECORDS_BYTES_MAX
    }

    /// Begins the stream with what both ends know already. Before anything else is sent.
    pub fn begin_primed(&mut self, primings: &[Priming], out: &mut Vec<u8>) {
        debug_assert!(!self.begun, "what both ends know is said first");
        self.begun = true;
        out.push(PRIMED | self.head());
        put_primings(primings, out);
    }

    /// Learns from records of a stream that both ends hold, up to the offset behind them.
    pub fn learn(&mut self, index: u32, next: Offset, records: impl Iterator<Item = Bytes>) {
        self.packer.get_or_insert_default().learn(index, next, records);
    }

    fn head(&self) -> u8 {
        (self.form() as u8) << VERSION_BITS | WIRE_VERSION
    }

    fn form(&self) -> Form {
        match self.compression {
            Compression::Packets | Compression::Zstd => Form::Zstd,
            Compression::Lz4 => Form::Lz4,
            Compression::None => Form::Plain,
        }
    }

    fn put(&mut self, lane: u64, out: &mut Vec<u8>) {
        if !self.begun {
            self.begun = true;
            out.push(self.head());
        }
        if !self.chunk.is_empty() {
            put_varint((self.chunk.len() as u64) << 1 | lane, out);
            out.append(&mut self.chunk);
        }
    }
}

/// The receiving end.
#[derive(Debug, Default)]
pub struct Inlet {
    begun: bool,
    /// Whether what both ends know is still to be read.
    primed: bool,
    /// What was read of it and not learnt.
    primings: Vec<Priming>,
    held: BytesMut,
    form: Form,
    reader: Option<FormReader>,
    /// What was not decompressed of the current chunk.
    compressed: Bytes,
    /// Whether the reader may have more.
    pending: bool,
    frames: DataDecoder,
    unpacker: Option<Unpacker>,
}

impl Inlet {
    /// Takes more bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// What the sender says that both ends know. It must be learnt before the next frame is asked for.
    ///
    /// # Errors
    /// For what no sender says.
    pub fn primings(&mut self) -> Result<Vec<Priming>, WireError> {
        self.begin()?;
        Ok(std::mem::take(&mut self.primings))
    }

    /// Learns from records of a stream that both ends hold, up to the offset behind them.
    pub fn learn(&mut self, index: u32, next: Offset, records: impl Iterator<Item = Bytes>) {
        self.unpacker.get_or_insert_default().learn(index, next, records);
    }

    /// The number and the bytes of long records that are about to be gathered. Nothing comes before somebody has decided
    /// to [admit](Self::admit) or to [discard](Self::discard) them.
    pub fn announced(&self) -> Option<(u32, usize)> {
        self.frames.announced()
    }

    /// Gathers what was announced.
    pub fn admit(&mut self) {
        self.frames.admit();
    }

    /// Drops what was announced, as it comes.
    pub fn discard(&mut self) {
        self.frames.discard();
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// Whatever is wrong with it; nothing behind it can be read.
    pub fn next_frame(&mut self) -> Result<Option<DataFrame>, WireError> {
        loop {
            if let Some(frame) = self.frames.next_frame()? {
                return Ok(Some(frame));
            }
            if self.frames.announced().is_some() {
                return Ok(None);
            }
            if self.pending {
                self.decompress()?;
                continue;
            }
            match self.chunk()? {
                None => return Ok(None),
                Some((STREAM, bytes)) => (self.compressed, self.pending) = (bytes, true),
                Some((_, bytes)) => {
                    let unpacked = self.unpacker.get_or_insert_default().unpack(&bytes)?;
                    let frame =
                        DataFrame::records(unpacked.stream, unpacked.first, unpacked.records)?;
                    return Ok(Some(frame));
                }
            }
        }
    }

    fn decompress(&mut self) -> Result<(), WireError> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.form.reader()?,
        };
        self.pending = reader.pull(&mut self.compressed, |piece| self.frames.push(piece))?;
        self.reader = Some(reader);
        Ok(())
    }

    /// Reads the head of the stream; says whether it is whole.
    fn begin(&mut self) -> Result<bool, WireError> {
        if !self.begun {
            let Some(&head) = self.held.first() else { return Ok(false) };
            let form = (head & !PRIMED) >> VERSION_BITS;
            let version = head & ((1 << VERSION_BITS) - 1);
            self.form = Form::of(form)
                .filter(|_| version == WIRE_VERSION)
                .ok_or(WireError::Version(head))?;
            self.held.advance(1);
            (self.begun, self.primed) = (true, head & PRIMED > 0);
        }
        if self.primed {
            let Some((primings, length)) = read_primings(&self.held)? else { return Ok(false) };
            self.held.advance(length);
            (self.primings, self.primed) = (primings, false);
        }
        Ok(true)
    }

    /// The next whole chunk and its lane.
    fn chunk(&mut self) -> Result<Option<(u64, Bytes)>, WireError> {
        if !self.begin()? {
            return Ok(None);
        }
        if !self.primings.is_empty() {
            return Err(WireError::Unprimed);
        }
        let mut head = 0_u64;
        for (at, byte) in self.held.iter().take(HEAD_DIGITS).enumerate() {
            head |= u64::from(byte & 0x7F) << (7 * at);
            if byte & 0x80 == 0 {
                let length = usize::try_from(head >> 1).unwrap_or(usize::MAX);
                if length > CHUNK_MAX {
                    return Err(WireError::Chunk(length));
                }
                if self.held.len() - at - 1 < length {
                    return Ok(None);
                }
                self.held.advance(at + 1);
                return Ok(Some((head & 1, self.held.split_to(length).freeze())));
            }
        }
        match self.held.len() {
            few if few < HEAD_DIGITS => Ok(None),
            _ => Err(WireError::Chunk(usize::MAX)),
        }
    }
}

/// What these chunks and the packets in them are. It changes with everything that the two ends learn.
const WIRE_VERSION: u8 = 1;

/// Above it stands the form of the lane of frames.
const VERSION_BITS: u32 = 4;

/// Whether what both ends know comes next.
const PRIMED: u8 = 1 << 7;

const STREAM: u64 = 0;
const PACKET: u64 = 1;

/// Longest chunk that is believed. A bit that was held to be impossible takes twelve.
const CHUNK_MAX: usize = 16 * RECORDS_BYTES_MAX;

/// Digits of the longest head, seven bits each.
const HEAD_DIGITS: usize = 4;

const _: () = assert!(CHUNK_MAX << 1 < 1 << (7 * HEAD_DIGITS));

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use thinwire_engine::model::Record;

    use super::*;
    use crate::frame::data_header;

    const WAYS: [Compression; 4] =
        [Compression::Packets, Compression::Zstd, Compression::Lz4, Compression::None];

    /// Sends runs of aborted transactions, some in packets, and returns the bytes.
    fn sent(compression: Compression, runs: &[(u32, bool)]) -> (Vec<u8>, Vec<DataFrame>) {
        let mut outlet = Outlet::new(compression);
        let (mut bytes, mut frames) = (Vec::new(), Vec::new());
        for (at, (index, pack)) in runs.iter().enumerate() {
            let (first, records) = (Offset::new(at as u64 + 1), Records::one(&Record::Abort));
            if *pack && outlet.fits(&records) {
                outlet.pack(*index, first, &records, &mut bytes).unwrap();
            } else {
                let mut frame = Vec::new();
                data_header(*index, first, &records, &mut frame);
                frame.extend_from_slice(records.bytes());
                outlet.stream(&frame, &mut bytes).unwrap();
            }
            frames.push(DataFrame::Records { index: *index, first, records });
        }
        outlet.flush(&mut bytes).unwrap();
        (bytes, frames)
    }

    fn received(bytes: &[u8], piece: usize) -> Result<Vec<DataFrame>, WireError> {
        let (mut inlet, mut frames) = (Inlet::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            inlet.push(piece);
            while let Some(frame) = inlet.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn frames_keep_their_order_over_both_lanes(
            runs in vec(any::<(u32, bool)>(), 0..20),
            piece in 1_usize..200,
            way in 0..WAYS.len(),
        ) {
            let (bytes, frames) = sent(WAYS[way], &runs);
            prop_assert_eq!(received(&bytes, piece).unwrap(), frames);
        }

        #[test]
        fn garbage_never_panics(bytes in vec(any::<u8>(), 0..600)) {
            for form in 0..=15_u8 {
                let head = form << VERSION_BITS | WIRE_VERSION;
                let _ = received(&[&[head], &bytes[..]].concat(), 100);
            }
        }

        #[test]
        fn a_flipped_bit_is_noticed_or_harmless(at: usize, bit in 0..8) {
            let runs = [(1, true), (2, false), (1, true), (1, true)];
            let (mut bytes, frames) = sent(Compression::Packets, &runs);
            let place = at % bytes.len();
            bytes[place] ^= 1_u8 << bit;
            let received = received(&bytes, 50).unwrap_or_default();
            let packets = received.iter().filter(|frame| !frames.contains(frame)).count();
            prop_assert!(packets <= 1, "only the lane of frames has no checksum of its own");
        }
    }

    #[test]
    fn another_version_and_a_long_chunk_are_refused() {
        assert!(matches!(received(&[9, 0], 9), Err(WireError::Version(9))));
        let long = [WIRE_VERSION, 0xFF, 0xFF, 0xFF, 0x7F];
        assert!(matches!(received(&long, 9), Err(WireError::Chunk(_))));
        let endless = [WIRE_VERSION, 0xFF, 0xFF, 0xFF, 0xFF];
        assert!(matches!(received(&endless, 9), Err(WireError::Chunk(_))));
    }
}
