//! How much of the disk each stream may take: one budget a node, and in it a reserve for each
//! received stream that no other stream may use.
//!
//! Without the reserve, two nodes that are full of their own changes would wait for each other for ever:
//! neither could take the other's, so neither would be acked, so neither could trim.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    Error,
    model::{Origin, StreamId},
};

/// What part of the budget is set aside for all received streams together.
const RESERVED_SHARE: u64 = 4;

/// What is used of a journal's budget, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// On disk, and staged for it.
    pub bytes: u64,
    /// What may be used.
    pub budget: u64,
}

#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    own: Origin,
    used: Mutex<BTreeMap<StreamId, u64>>,
}

impl Budget {
    pub(crate) fn new(limit: u64, own: Origin) -> Self {
        Self { limit, own, used: Mutex::default() }
    }

    /// Adds a stream with what it has on disk already, which may be more than it would be given.
    pub(crate) fn register(&self, stream: StreamId, bytes: u64) {
        self.lock().insert(stream, bytes);
    }

    /// Takes `bytes` for a stream, or says that there is no room.
    pub(crate) fn take(&self, stream: StreamId, bytes: u64) -> Result<(), Error> {
        let mut used = self.lock();
        let allowed = self.allowed(&used, stream);
        let mine = used.entry(stream).or_default();
        if mine.saturating_add(bytes) > allowed {
            return Err(Error::Full { used: *mine, budget: allowed });
        }
        *mine += bytes;
        Ok(())
    }

    /// Takes `bytes` that are not to be refused: a stream's own bookkeeping.
    pub(crate) fn force(&self, stream: StreamId, bytes: u64) {
        *self.lock().entry(stream).or_default() += bytes;
    }

    /// Gives back.
    pub(crate) fn give(&self, stream: StreamId, bytes: u64) {
        if let Some(mine) = self.lock().get_mut(&stream) {
            *mine = mine.saturating_sub(bytes);
        }
    }

    /// What one stream uses, and what it may use in all as things are.
    pub(crate) fn allowance(&self, stream: StreamId) -> Usage {
        let used = self.lock();
        Usage {
            bytes: used.get(&stream).copied().unwrap_or_default(),
            budget: self.allowed(&used, stream),
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage { bytes: self.lock().values().sum(), budget: self.limit }
    }

    /// What a stream may have in all: the budget, less what others have and the unused part of
    /// the reserves of the received ones.
    fn allowed(&self, used: &BTreeMap<StreamId, u64>, stream: StreamId) -> u64 {
        let received = used.keys().filter(|id| id.origin != self.own).count().max(1) as u64;
        let reserve = self.limit / RESERVED_SHARE / received;
        let others: u64 = used
            .iter()
            .filter(|(id, _)| **id != stream)
            .map(|(id, &bytes)| if id.origin == self.own { bytes } else { bytes.max(reserve) })
            .sum();
        // Capture on an otherwise empty node leaves room for the first stream that will arrive.
        let first_arrival = match used.keys().all(|id| id.origin == self.own) {
            true if stream.origin == self.own => reserve,
            _ => 0,
        };
        self.limit.saturating_sub(others).saturating_sub(first_arrival)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<StreamId, u64>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Epoch;

    fn stream(origin: u8) -> StreamId {
        StreamId { origin: Origin::from_bytes([origin; 16]), epoch: Epoch::from_bytes([0; 16]) }
    }

    #[test]
    fn capture_never_takes_the_reserve_of_what_is_received() {
        let budget = Budget::new(1_000, stream(1).origin);
        assert!(budget.take(stream(1), 750).is_ok());
        assert!(budget.take(stream(1), 1).is_err());
        assert!(budget.take(stream(2), 250).is_ok());
        assert!(budget.take(stream(2), 1).is_err());
    }

    #[test]
    fn a_received_stream_never_takes_the_reserve_of_another() {
        let budget = Budget::new(1_000, stream(1).origin);
        budget.register(stream(2), 0);
        budget.register(stream(3), 0);
        assert!(budget.take(stream(2), 875).is_ok());
        assert!(budget.take(stream(2), 1).is_err());
        assert!(budget.take(stream(3), 125).is_ok());
        budget.give(stream(2), 500);
        assert!(budget.take(stream(1), 500).is_ok());
        assert_eq!(budget.usage(), Usage { bytes: 1_000, budget: 1_000 });
    }
}
