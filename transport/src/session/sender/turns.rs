//! Whose turn it is: the streams that may have something to ship, few at a time.

use std::collections::{BTreeSet, VecDeque};

/// The places of streams that wait for their turn, each at most once.
#[derive(Debug, Default)]
pub(super) struct Turns {
    queue: VecDeque<usize>,
    waiting: BTreeSet<usize>,
}

impl Turns {
    /// A stream may have something to ship.
    pub(super) fn join(&mut self, place: usize) {
        if self.waiting.insert(place) {
            self.queue.push_back(place);
        }
    }

    /// The stream whose turn it is.
    pub(super) fn next(&mut self) -> Option<usize> {
        let place = self.queue.pop_front()?;
        self.waiting.remove(&place);
        Some(place)
    }

    /// A stream that had its turn has more. Few take turns at a time, because each of them holds a block in memory.
    pub(super) fn again(&mut self, place: usize) {
        if self.waiting.insert(place) {
            self.queue.insert(self.queue.len().min(STREAMS_AT_A_TIME - 1), place);
        }
    }
}

/// How many streams take turns, each with a block of a quarter megabyte in memory.
const STREAMS_AT_A_TIME: usize = 4;
