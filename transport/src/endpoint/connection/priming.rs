//! Before the first record is shipped both ends learn from what both hold, so that a connection goes on where the last
//! one ended. It takes no round trip: the hellos have said what is held. Should the two not hold the same after all, the
//! connection ends, and those after it begin without, until another process answers or an hour has passed.

use super::{Conversation, End};
use crate::{
    frame::{PRIMED_BYTES_MAX, PRIMINGS_MAX, Priming},
    peer::Compression,
    session::history::History,
    wire::{Inlet, Outlet},
};

impl Conversation {
    /// Learns what the peer holds already, and says so at the head of the stream.
    pub(super) fn prime(&self, outlet: &mut Outlet, wire: &mut Vec<u8>) {
        let instance = self.facts.instance;
        let compression = self.link.peer.rules.compression;
        if compression != Compression::Packets || !self.link.primes(instance) {
            return;
        }
        let known = self.sender().known(PRIMINGS_MAX);
        let mut room = PRIMED_BYTES_MAX;
        let (mut primings, mut histories) = (Vec::new(), Vec::new());
        for (at, (index, stream, first, until)) in known.iter().enumerate() {
            let share = room / (known.len() - at);
            let Ok(Some(history)) = History::latest(stream, *first, *until, share) else {
                continue;
            };
            if let Some(priming) = history.priming(*index, stream) {
                room -= history.bytes();
                primings.push(priming);
                histories.push(history);
            }
        }
        if !primings.is_empty() {
            outlet.begin_primed(&primings, wire);
            for (priming, history) in primings.iter().zip(&histories) {
                outlet.learn(priming.index, history.until(), history.records());
            }
        }
    }

    /// Learns what the peer says that both hold.
    pub(super) fn be_primed(&self, inlet: &mut Inlet) -> Result<(), End> {
        for priming in inlet.primings()? {
            let history = self.history(&priming).ok_or(End::Unprimed)?;
            inlet.learn(priming.index, history.until(), history.records());
        }
        Ok(())
    }

    fn history(&self, priming: &Priming) -> Option<History> {
        let journal = &self.node.journal;
        let is_taken = self.link.peer.takes(journal.own(), priming.stream);
        let stream = journal.stream(priming.stream).filter(|_| is_taken)?;
        History::named(&stream, priming).ok()?
    }
}
