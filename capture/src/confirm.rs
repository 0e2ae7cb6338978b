//! What may be confirmed to the source: what is synced in the journal, and nothing else.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use thinwire_engine::{
    journal::Stream,
    model::{Lsn, Offset},
};

/// Follows the *synced* watermark. The source's log before the confirmed position is never needed again.
#[derive(Debug)]
pub(crate) struct Confirm {
    stream: Arc<Stream>,
    state: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Commits that are appended and were not synced when last looked at, in their order.
    waiting: VecDeque<(Offset, Lsn)>,
    confirmed: Lsn,
}

impl Confirm {
    /// Begins with what a stream holds durably when it was just opened.
    pub(crate) fn new(stream: Arc<Stream>) -> Self {
        let confirmed = stream.tail().last_commit.map_or(Lsn::ZERO, |(_, end)| end);
        let state = Mutex::new(Inner { waiting: VecDeque::new(), confirmed });
        let confirm = Self { stream, state };
        confirm.advance();
        confirm
    }

    /// A transaction that ends at `end` in the source's log was appended; its `Commit` is at `offset`.
    pub(crate) fn expect(&self, offset: Offset, end: Lsn) {
        self.lock().waiting.push_back((offset, end));
    }

    /// Looks at the *synced* watermark and returns what may be confirmed. It never goes back.
    pub(crate) fn advance(&self) -> Lsn {
        // A mark covers all that was appended before it, and is durable together with that.
        let mark = self.stream.durable_mark().map_or(Lsn::ZERO, |mark| mark.lsn);
        let synced = self.stream.watermarks().synced;
        let mut state = self.lock();
        let mut confirmed = state.confirmed.max(mark);
        while let Some((offset, end)) = state.waiting.front().copied()
            && offset <= synced
        {
            confirmed = confirmed.max(end);
            state.waiting.pop_front();
        }
        state.confirmed = confirmed;
        confirmed
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
