//! How far a stream is at a peer, as the peer says and as it was sent.

use thinwire_engine::model::Offset;

use crate::frame::{Ack, Holding};

/// How far a stream is at a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerMarks {
    /// The last record that was sent, whether it arrived or not.
    pub(crate) shipped: Offset,
    /// The last that is durable there.
    pub(crate) acked: Offset,
    /// The last that is in its database.
    pub(crate) applied: Offset,
}

impl PeerMarks {
    /// As the peer says.
    pub(super) fn of(held: &Holding) -> Self {
        let acked = held.durable.min(held.last);
        Self { shipped: held.last, acked, applied: held.applied.min(acked) }
    }

    pub(super) fn max(self, other: Self) -> Self {
        Self {
            shipped: self.shipped.max(other.shipped),
            acked: self.acked.max(other.acked),
            applied: self.applied.max(other.applied),
        }
    }

    /// The peer says how far it is; what is older than what is known says nothing.
    pub(super) fn acknowledge(&mut self, ack: &Ack) {
        self.acked = self.acked.max(ack.durable);
        self.applied = self.applied.max(ack.applied.min(ack.durable));
    }
}
