//! How much of the disk each stream may take: one budget a node, and in it a reserve for each
//! received stream that no other stream may use.
//!
//! Without the reserve, two nodes that are full of their own changes would wait for each other for ever:
//! neither could take the other's, so neither would be acked, so neither could trim.
//!
//! As the budget runs out, history goes first, then copies wait, then what is received waits beyond its reserve, and
//! only then the node's own changes: [`Pressure`] says how far that is.

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

/// History is given up when a stream has used this much of what it may have.
const HISTORY_PERCENT: u64 = 90;

/// The part of the budget that copies leave to changes.
const COPIES_LEAVE: u64 = 16;

/// The part of the budget that received streams, beyond their reserves, leave to the node's own.
const RECEIVED_LEAVE: u64 = 32;

/// What the last segment may hold, which is never trimmed, and a record therefore cannot have: it is bounded by the
/// same part of the budget.
const LAST_SEGMENT: u64 = 16;

/// What is used of a journal's budget, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// On disk, and staged for it.
    pub bytes: u64,
    /// What may be used.
    pub budget: u64,
}

impl Usage {
    /// What may be taken yet.
    pub fn room(&self) -> u64 {
        self.budget.saturating_sub(self.bytes)
    }
}

/// What is given up because the budget runs out. Each step comes after those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Nothing.
    #[default]
    None,
    /// History: what everybody has goes at once.
    Retention,
    /// Copies: none begins.
    Copies,
    /// Receiving: a received stream was refused what it would still be refused.
    Receiving,
    /// The node's own changes: likewise.
    Capture,
}

#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    own: Origin,
    used: Mutex<Streams>,
}

type Streams = BTreeMap<StreamId, Used>;

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    bytes: u64,
    /// What it was refused last, if nothing was taken since.
    refused: Option<u64>,
    /// What somebody waits for before going on with it, and the step that shows it.
    awaited: Option<(u64, Pressure)>,
}

impl Budget {
    pub(crate) fn new(limit: u64, own: Origin) -> Self {
        Self { limit, own, used: Mutex::default() }
    }

    /// Adds a stream with what it has on disk already, which may be more than it would be given.
    pub(crate) fn register(&self, stream: StreamId, bytes: u64) {
        self.lock().insert(stream, Used { bytes, ..Used::default() });
    }

    /// Takes `bytes` for a stream, or says that there is no room.
    pub(crate) fn take(&self, stream: StreamId, bytes: u64) -> Result<(), Error> {
        let mut streams = self.lock();
        // Half of the budget is less than what any stream could have, and almost all that is taken is less.
        if bytes > self.limit / 2 {
            let most = self.most(&streams, stream);
            if bytes > most {
                return Err(Error::TooLarge { bytes, budget: most });
            }
        }
        let allowed = self.allowed(&streams, stream);
        let mine = streams.entry(stream).or_default();
        if mine.bytes.saturating_add(bytes) > allowed {
            mine.refused = Some(bytes);
            return Err(Error::Full { used: mine.bytes, budget: allowed });
        }
        *mine = Used { bytes: mine.bytes + bytes, refused: None, ..*mine };
        Ok(())
    }

    /// Remembers that somebody waits for room for `bytes`, of which `step` tells; says whether there is as much.
    pub(crate) fn await_room(&self, stream: StreamId, bytes: u64, step: Pressure) -> bool {
        let mut streams = self.lock();
        let is_there = bytes <= self.allowance_in(&streams, stream).room();
        let awaited = (!is_there).then_some((bytes, step));
        streams.entry(stream).or_default().awaited = awaited;
        is_there
    }

    /// Takes `bytes` that are not to be refused: a stream's own bookkeeping.
    pub(crate) fn force(&self, stream: StreamId, bytes: u64) {
        self.lock().entry(stream).or_default().bytes += bytes;
    }

    /// Gives back.
    pub(crate) fn give(&self, stream: StreamId, bytes: u64) {
        if let Some(mine) = self.lock().get_mut(&stream) {
            mine.bytes = mine.bytes.saturating_sub(bytes);
        }
    }

    /// What one stream uses, and what it may use in all as things are.
    pub(crate) fn allowance(&self, stream: StreamId) -> Usage {
        self.allowance_in(&self.lock(), stream)
    }

    /// The same, of what a copy may use.
    pub(crate) fn copy_allowance(&self, stream: StreamId) -> Usage {
        let usage = self.allowance(stream);
        Usage { budget: usage.budget.saturating_sub(self.limit / COPIES_LEAVE), ..usage }
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage { bytes: self.lock().values().map(|used| used.bytes).sum(), budget: self.limit }
    }

    /// The furthest step that is in force for any stream.
    pub(crate) fn pressure(&self) -> Pressure {
        let streams = self.lock();
        let total =
            Usage { bytes: streams.values().map(|used| used.bytes).sum(), budget: self.limit };
        let of_total = if is_short(total) { Pressure::Retention } else { Pressure::None };
        let steps = streams.iter().map(|(id, used)| {
            let (usage, is_own) = (self.allowance_in(&streams, *id), id.origin == self.own);
            let awaited = used.awaited.filter(|(bytes, _)| *bytes > usage.room());
            let awaited = awaited.map_or(Pressure::None, |(_, step)| step);
            awaited.max(match used.refused {
                Some(bytes) if bytes > usage.room() && is_own => Pressure::Capture,
                Some(bytes) if bytes > usage.room() => Pressure::Receiving,
                _ if is_own && usage.room() < self.limit / COPIES_LEAVE => Pressure::Copies,
                _ if is_short(usage) => Pressure::Retention,
                _ => Pressure::None,
            })
        });
        steps.max().unwrap_or_default().max(of_total)
    }

    fn allowance_in(&self, streams: &Streams, stream: StreamId) -> Usage {
        Usage {
            bytes: streams.get(&stream).map(|used| used.bytes).unwrap_or_default(),
            budget: self.allowed(streams, stream),
        }
    }

    /// What a stream may have in all: the budget, less what others have and the unused part of
    /// the reserves of the received ones.
    fn allowed(&self, streams: &Streams, stream: StreamId) -> u64 {
        let reserve = self.reserve(streams);
        let others = streams.iter().filter(|(id, _)| **id != stream);
        let others: u64 = others
            .map(
                |(id, used)| {
                    if id.origin == self.own { used.bytes } else { used.bytes.max(reserve) }
                },
            )
            .sum();
        let left = self.limit.saturating_sub(others);
        match (stream.origin == self.own, streams.keys().any(|id| id.origin == self.own)) {
            // Capture on an otherwise empty node leaves room for the first stream that will arrive.
            (true, _) if self.received(streams) == 0 => left.saturating_sub(reserve),
            (true, _) | (false, false) => left,
            (false, true) => {
                left.saturating_sub(self.limit / RECEIVED_LEAVE).max(left.min(reserve))
            }
        }
    }

    /// The largest record that the stream could ever take, with everything else gone.
    fn most(&self, streams: &Streams, stream: StreamId) -> u64 {
        let empty = streams.keys().map(|id| (*id, Used::default())).collect();
        self.allowed(&empty, stream).saturating_sub(self.limit / LAST_SEGMENT)
    }

    /// What is set aside for each received stream, or for the first one that will come.
    fn reserve(&self, streams: &Streams) -> u64 {
        self.limit / RESERVED_SHARE / self.received(streams).max(1)
    }

    fn received(&self, streams: &Streams) -> u64 {
        streams.keys().filter(|id| id.origin != self.own).count() as u64
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_short(usage: Usage) -> bool {
    usage.bytes.saturating_mul(100) >= usage.budget.saturating_mul(HISTORY_PERCENT)
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
        budget.register(stream(1), 700);
        assert!(budget.take(stream(1), 50).is_ok());
        assert!(budget.take(stream(1), 1).is_err());
        budget.register(stream(2), 200);
        assert!(budget.take(stream(2), 50).is_ok());
        assert!(budget.take(stream(2), 1).is_err());
    }

    #[test]
    fn a_received_stream_never_takes_the_reserve_of_another() {
        let budget = Budget::new(1_000, stream(1).origin);
        budget.register(stream(2), 0);
        budget.register(stream(3), 0);
        assert!(budget.take(stream(2), 800).is_ok());
        assert!(budget.take(stream(2), 75).is_ok());
        assert!(budget.take(stream(2), 1).is_err());
        budget.register(stream(3), 100);
        assert!(budget.take(stream(3), 25).is_ok());
        budget.give(stream(2), 500);
        assert!(budget.take(stream(1), 500).is_ok());
        assert_eq!(budget.usage(), Usage { bytes: 1_000, budget: 1_000 });
    }

    #[test]
    fn what_no_trimming_can_make_room_for_is_told_from_what_waits() {
        let budget = Budget::new(3_200, stream(1).origin);
        budget.register(stream(1), 2_000);
        assert!(matches!(budget.take(stream(1), 2_200), Err(Error::Full { .. })));
        assert!(matches!(
            budget.take(stream(1), 2_201),
            Err(Error::TooLarge { budget: 2_200, .. })
        ));
        assert!(matches!(budget.take(stream(2), 3_000), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn the_steps_come_in_their_order_and_go_when_there_is_room() {
        let budget = Budget::new(3_200, stream(1).origin);
        budget.register(stream(2), 800);
        let mut steps = Vec::new();
        let mut received = 0;
        while budget.take(stream(1), 10).is_ok() {
            // What is received takes turns until it has to wait.
            received += u32::from(budget.take(stream(2), 10).is_ok());
            let step = budget.pressure();
            if steps.last() != Some(&step) {
                steps.push(step);
            }
        }
        assert!(received > 10);
        steps.push(budget.pressure());
        use Pressure::{Capture, Copies, None, Receiving, Retention};
        assert_eq!(steps, [None, Retention, Copies, Receiving, Capture]);
        budget.give(stream(1), 1_000);
        assert_eq!(budget.pressure(), None);
    }

    #[test]
    fn history_is_given_up_for_as_long_as_somebody_waits_for_more_room_than_there_is() {
        let budget = Budget::new(4_000, stream(1).origin);
        budget.register(stream(1), 2_000);
        assert!(budget.await_room(stream(1), 1_000, Pressure::Copies));
        assert!(!budget.await_room(stream(1), 1_500, Pressure::Copies));
        // Changes that flow meanwhile do not end the wait.
        assert!(budget.take(stream(1), 10).is_ok());
        assert_eq!(budget.pressure(), Pressure::Copies);
        budget.give(stream(1), 510);
        assert_eq!(budget.pressure(), Pressure::None);
    }

    #[test]
    fn a_refusal_is_remembered_far_from_the_limit_until_it_would_fit() {
        let budget = Budget::new(4_000, stream(1).origin);
        budget.register(stream(1), 1_500);
        assert_eq!(budget.pressure(), Pressure::None);
        assert!(budget.take(stream(1), 1_600).is_err());
        assert_eq!(budget.pressure(), Pressure::Capture);
        budget.give(stream(1), 100);
        assert_eq!(budget.pressure(), Pressure::None);
    }
}
