//! Streams as 32 bytes in MessagePack, where the derived form would be an array of 32 numbers.

use std::fmt;

use serde::{Deserializer, Serializer, de};
use thinwire_engine::model::{Epoch, Origin, StreamId};

/// For `#[serde(with)]`.
pub(super) fn serialize<S: Serializer>(id: &StreamId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(&to_bytes(*id))
}

/// For `#[serde(with)]`.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<StreamId, D::Error> {
    from.deserialize_bytes(IdVisitor)
}

/// Origin, then epoch.
pub(super) fn to_bytes(id: StreamId) -> [u8; 32] {
    let mut bytes = [0; 32];
    let (origin, epoch) = bytes.split_at_mut(16);
    origin.copy_from_slice(id.origin.as_bytes());
    epoch.copy_from_slice(id.epoch.as_bytes());
    bytes
}

/// The stream with these bytes.
pub(super) fn from_bytes(bytes: &[u8]) -> Option<StreamId> {
    let (origin, epoch) = bytes.split_first_chunk::<16>()?;
    Some(StreamId {
        origin: Origin::from_bytes(*origin),
        epoch: Epoch::from_bytes(epoch.try_into().ok()?),
    })
}

struct IdVisitor;

impl de::Visitor<'_> for IdVisitor {
    type Value = StreamId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the 32 bytes of a stream's name")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<StreamId, E> {
        from_bytes(bytes).ok_or_else(|| E::invalid_length(bytes.len(), &self))
    }
}
