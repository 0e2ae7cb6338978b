//! The frames that were shipped and are not acknowledged: what an acknowledgement delivers, and whether it fits.

use std::collections::VecDeque;

use thinwire_engine::model::{Offset, Running};

use crate::frame::Ack;

/// A frame that was shipped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) last: Offset,
    pub(super) running: Running,
    pub(super) bytes: u64,
}

/// The frames of one stream that the peer has not acknowledged, in order.
#[derive(Debug, Default)]
pub(super) struct Unacked(VecDeque<Sent>);

/// What an acknowledgement says of what was shipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Delivered {
    /// Bytes of records.
    pub(super) bytes: u64,
    /// The peer holds something else than what was shipped.
    pub(super) differs: bool,
}

impl Unacked {
    /// A frame leaves. Where very many are under way, the oldest two become one.
    pub(super) fn push(&mut self, sent: Sent) {
        if self.0.len() == UNACKED_MAX
            && let Some(oldest) = self.0.pop_front()
            && let Some(next) = self.0.front_mut()
        {
            next.bytes += oldest.bytes;
        }
        self.0.push_back(sent);
    }

    /// Forgets what is acknowledged.
    pub(super) fn acknowledge(&mut self, ack: &Ack) -> Delivered {
        let mut delivered = Delivered::default();
        while let Some(sent) = self.0.front().filter(|sent| sent.last <= ack.durable) {
            delivered.bytes += sent.bytes;
            delivered.differs |= sent.last == ack.durable
                && ack.running.is_some_and(|running| running != sent.running);
            self.0.pop_front();
        }
        delivered
    }

    /// Nothing that was shipped is awaited any more.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Frames remembered until they are acknowledged.
const UNACKED_MAX: usize = 4_096;
