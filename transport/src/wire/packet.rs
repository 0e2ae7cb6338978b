//! Packets: runs of records as few bytes.
//!
//! A packet is the CRC-32 of the records' canonical bytes, little-endian, and what the model makes of them.
//! Each is to be read by an [`Unpacker`] that has read all before it. The checksum stands between what a foreign
//! or mistaken sender says and the journal: nothing is given out that it does not confirm.

use bytes::Bytes;
use thinwire_engine::{
    codec::{DecodeError, Records},
    model::{Offset, Running},
};

use super::{
    model::Model,
    range::{Coder, Reader, Writer},
};

/// The sending end.
#[derive(Debug)]
pub struct Packer {
    model: Model,
}

/// The receiving end.
#[derive(Debug)]
pub struct Unpacker {
    model: Model,
}

/// What was in a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The number of the stream.
    pub stream: u32,
    /// The first record's offset.
    pub first: Offset,
    /// The records.
    pub records: Records,
}

/// Why bytes are not a packet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Too short for anything.
    #[error("a packet of {0} bytes")]
    Short(usize),
    /// More comes out than a sender puts in.
    #[error("a packet with more than {RECORDS_BYTES_MAX} bytes in it")]
    Long,
    /// What comes out is not what was put in.
    #[error("a packet that is not what was sent")]
    Checksum,
    /// What comes out is not records.
    #[error("malformed records in a packet: {0}")]
    Records(#[from] DecodeError),
}

impl Default for Packer {
    fn default() -> Self {
        Self { model: Model::new() }
    }
}

impl Packer {
    /// Appends a packet. The records must not be longer than [`RECORDS_BYTES_MAX`].
    pub fn pack(&mut self, stream: u32, first: Offset, records: &Records, out: &mut Vec<u8>) {
        out.extend_from_slice(&checksum(records.bytes()).to_le_bytes());
        let mut writer = Writer::new(out);
        let model = &mut self.model;
        head(model, &mut writer, stream, first, records.count());
        model.mind.room = usize::MAX;
        let mut again = Vec::with_capacity(records.bytes().len());
        for record in records.iter() {
            // With all the room there is, nothing is too long.
            let _ = model.record(&mut writer, stream, &record, &mut again);
        }
        model.flow(stream).next = first.get().wrapping_add(records.span());
        writer.finish();
        debug_assert_eq!(again[..], records.bytes()[..]);
    }
}

impl Packer {
    /// Learns from records of a stream as if they had passed, up to the offset behind them.
    pub fn learn(&mut self, stream: u32, next: Offset, records: impl Iterator<Item = Bytes>) {
        learn(&mut self.model, stream, next, records);
    }
}

impl Default for Unpacker {
    fn default() -> Self {
        Self { model: Model::new() }
    }
}

impl Unpacker {
    /// Learns from records of a stream as if they had passed, up to the offset behind them.
    pub fn learn(&mut self, stream: u32, next: Offset, records: impl Iterator<Item = Bytes>) {
        learn(&mut self.model, stream, next, records);
    }

    /// What is in a packet.
    ///
    /// # Errors
    /// For one that no [`Packer`] made, or not behind the same ones; nothing that follows can be read.
    pub fn unpack(&mut self, packet: &[u8]) -> Result<Unpacked, PacketError> {
        let (sum, packet) =
            packet.split_first_chunk::<4>().ok_or(PacketError::Short(packet.len()))?;
        let mut reader = Reader::new(packet);
        let model = &mut self.model;
        let (stream, first, count) = head(model, &mut reader, 0, Offset::ZERO, 0);
        model.mind.room = RECORDS_BYTES_MAX;
        let (mut bytes, nothing) = (Vec::new(), Bytes::new());
        for _ in 0..count {
            let read = model.record(&mut reader, stream, &nothing, &mut bytes);
            if read.is_none() || bytes.len() > RECORDS_BYTES_MAX {
                return Err(PacketError::Long);
            }
        }
        if checksum(&bytes) != u32::from_le_bytes(*sum) {
            return Err(PacketError::Checksum);
        }
        let records = Records::parse(bytes.into(), count)?;
        model.flow(stream).next = first.get().wrapping_add(records.span());
        Ok(Unpacked { stream, first, records })
    }
}

/// Writing teaches a model the same as reading does, so both ends write, to nobody.
fn learn(model: &mut Model, stream: u32, next: Offset, records: impl Iterator<Item = Bytes>) {
    let (mut nowhere, mut again) = (Vec::new(), Vec::new());
    let mut writer = Writer::new(&mut nowhere);
    model.mind.room = usize::MAX;
    for record in records {
        // With all the room there is, nothing is too long.
        let _ = model.record(&mut writer, stream, &record, &mut again);
        again.clear();
    }
    model.flow(stream).next = next.get();
}

/// Codes what stands before the records.
fn head<C: Coder>(
    model: &mut Model,
    coder: &mut C,
    stream: u32,
    first: Offset,
    count: u32,
) -> (u32, Offset, u32) {
    let number = |number: i64| u32::try_from(number & 0xFFFF_FFFF).unwrap_or_default();
    let stream = number(model.count(coder, 6, stream.into()));
    let next = model.flow(stream).next;
    let off = first.get().wrapping_sub(next).cast_signed();
    let first = next.wrapping_add(model.count(coder, 7, off).cast_unsigned());
    let count = number(model.count(coder, 8, count.into()));
    (stream, Offset::new(first), count)
}

fn checksum(bytes: &[u8]) -> u32 {
    Running::START.extend(bytes).get()
}

/// Most that is in a packet, in canonical bytes.
pub const RECORDS_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests;
