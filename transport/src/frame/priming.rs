//! What a sender says that both ends know already, at the head of its data stream.

use bytes::Bytes;
use thinwire_engine::{
    codec::{Cursor, put_varint},
    model::{Offset, StreamId},
};

use super::{FrameError, ids};

/// Records of a stream that both ends hold, from which both learn before anything is shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priming {
    /// The number under which the stream is or will be opened.
    pub index: u32,
    /// Which stream.
    pub stream: StreamId,
    /// The first record.
    pub from: Offset,
    /// The one behind the last.
    pub until: Offset,
    /// How many bytes they have, descriptions of the tables in force before them included.
    pub bytes: u32,
    /// The checksum of those.
    pub sum: u32,
}

/// Appends what is said of some streams, with its length before it.
pub fn put_primings(primings: &[Priming], out: &mut Vec<u8>) {
    let mut body = Vec::new();
    for priming in primings {
        let Priming { index, stream, from, until, bytes, sum } = priming;
        put_varint(u64::from(*index), &mut body);
        body.extend_from_slice(&ids::to_bytes(*stream));
        for number in [from.get(), until.get(), u64::from(*bytes), u64::from(*sum)] {
            put_varint(number, &mut body);
        }
    }
    put_varint(body.len() as u64, out);
    out.extend_from_slice(&body);
}

/// What is said of some streams, from the front of `bytes`, and how long that is; `None` if there is more to come.
///
/// # Errors
/// For what no sender writes.
pub fn read_primings(bytes: &[u8]) -> Result<Option<(Vec<Priming>, usize)>, FrameError> {
    let (mut length, mut start) = (0_usize, None);
    for (at, byte) in bytes.iter().take(LENGTH_DIGITS).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            start = Some(at + 1);
            break;
        }
    }
    let Some(start) = start else {
        return match bytes.len() {
            few if few < LENGTH_DIGITS => Ok(None),
            _ => Err(FrameError::Malformed("a length of too many digits".into())),
        };
    };
    if length > PRIMINGS_MAX * PRIMING_MAX {
        let max = (PRIMINGS_MAX * PRIMING_MAX) as u64;
        return Err(FrameError::TooLong { length: length as u64, max });
    }
    let Some(body) = bytes.get(start..start + length) else { return Ok(None) };
    let body = Bytes::copy_from_slice(body);
    let (mut cursor, mut primings) = (Cursor::new(&body), Vec::new());
    while cursor.remaining() > 0 {
        if primings.len() == PRIMINGS_MAX {
            return Err(FrameError::Malformed("too many streams are known".into()));
        }
        primings.push(priming(&mut cursor)?);
    }
    let total = primings.iter().fold(0_u64, |sum, priming| sum + u64::from(priming.bytes));
    match total {
        few if few <= PRIMED_BYTES_MAX as u64 => Ok(Some((primings, start + length))),
        length => Err(FrameError::TooLong { length, max: PRIMED_BYTES_MAX as u64 }),
    }
}

fn priming(cursor: &mut Cursor<'_>) -> Result<Priming, FrameError> {
    let index = cursor.varint32()?;
    let id: [u8; 32] = cursor.array()?;
    let stream =
        ids::from_bytes(&id).ok_or_else(|| FrameError::Malformed("a stream's name".to_owned()))?;
    let (from, until) = (Offset::new(cursor.varint()?), Offset::new(cursor.varint()?));
    if from == Offset::ZERO || until <= from {
        return Err(FrameError::Malformed("known records that are none".into()));
    }
    Ok(Priming { index, stream, from, until, bytes: cursor.varint32()?, sum: cursor.varint32()? })
}

/// Most streams of which something is said.
pub const PRIMINGS_MAX: usize = 8;

/// From how many bytes of records both ends learn in all: a fraction of a second of a small machine at each connection, and
/// as much as is remembered.
pub const PRIMED_BYTES_MAX: usize = 256 << 10;

/// A name, two offsets and three other numbers.
const PRIMING_MAX: usize = 5 + 32 + 10 + 10 + 5 + 5;

/// Digits of the length, seven bits each.
const LENGTH_DIGITS: usize = 2;

const _: () = assert!(PRIMINGS_MAX * PRIMING_MAX < 1 << (7 * LENGTH_DIGITS));

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use thinwire_engine::model::{Epoch, Origin};

    use super::*;

    /// What is said of as many streams as may be, if it is as much of each.
    const EACH: u32 = 32 << 10;

    fn some() -> impl Strategy<Value = Priming> {
        (any::<u32>(), 1..u64::MAX, 1_u64.., 0..=EACH, any::<u32>()).prop_map(
            |(index, from, more, bytes, sum)| Priming {
                index,
                stream: StreamId {
                    origin: Origin::from_bytes([7; 16]),
                    epoch: Epoch::from_bytes([9; 16]),
                },
                from: Offset::new(from),
                until: Offset::new(from.saturating_add(more)),
                bytes,
                sum,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_said_is_read_as_soon_as_it_is_whole(all in vec(some(), 0..=PRIMINGS_MAX)) {
            let mut bytes = Vec::new();
            put_primings(&all, &mut bytes);
            let whole = bytes.len();
            for short in 0..whole {
                prop_assert_eq!(read_primings(&bytes[..short]), Ok(None));
            }
            bytes.push(7);
            prop_assert_eq!(read_primings(&bytes), Ok(Some((all, whole))));
        }

        #[test]
        fn garbage_never_panics(bytes in vec(any::<u8>(), 0..600)) {
            let _ = read_primings(&bytes);
        }
    }

    #[test]
    fn more_than_may_be_known_is_refused() {
        let stream =
            StreamId { origin: Origin::from_bytes([7; 16]), epoch: Epoch::from_bytes([9; 16]) };
        let (from, until) = (Offset::new(1), Offset::new(2));
        let one = Priming { index: 0, stream, from, until, bytes: u32::MAX, sum: 0 };
        for wrong in [
            vec![one],
            vec![Priming { bytes: EACH * 8 + 1, ..one }],
            vec![Priming { bytes: EACH, ..one }, Priming { bytes: EACH * 7 + 1, ..one }],
            vec![Priming { bytes: 1, ..one }; PRIMINGS_MAX + 1],
            vec![Priming { bytes: 1, until: from, ..one }],
        ] {
            let mut bytes = Vec::new();
            put_primings(&wrong, &mut bytes);
            assert!(read_primings(&bytes).is_err(), "{wrong:?}");
        }
        assert!(read_primings(&[0xFF, 0xFF, 0xFF]).is_err());
    }
}
