//! What becomes of a stream that cannot go on to the peer: asked for anew, waited for, or stopped with a reason.

use thinwire_engine::{
    Error,
    journal::Stream,
    model::{Halt, HaltedBy, Offset, StreamId},
};

use super::{
    super::{DIVERGED, JOURNAL_CORRUPT, PEER_AHEAD, halt_of, stop},
    Effect, PeerMarks, Sender, State,
};

impl Sender {
    /// What was damaged of a stream was mended.
    pub(crate) fn mended(&mut self, id: StreamId) {
        let Some(&place) = self.places.get(&id) else { return };
        let shipping = &mut self.shipping[place];
        let State::Damaged(cursor) = &mut shipping.state else { return };
        shipping.state = match cursor.take() {
            None => State::New,
            Some(mut cursor) => match cursor.reopen() {
                Ok(()) => State::Live(cursor),
                Err(error) => {
                    shipping.state = State::Live(cursor);
                    return self.failed(place, &error);
                }
            },
        };
        can_be_read(&shipping.stream);
        self.turns.join(place);
    }

    pub(super) fn failed(&mut self, place: usize, error: &Error) {
        let shipping = &mut self.shipping[place];
        let id = shipping.stream.id();
        let mut cursor = || match std::mem::replace(&mut shipping.state, State::New) {
            State::Live(cursor) => Some(cursor),
            _ => None,
        };
        if let Error::Trimmed { .. } = error {
            shipping.state = State::AwaitsCopy(cursor());
            self.effects.push(Effect::CopyNeeded(id));
            return;
        }
        let halt = halt_of(error);
        if let Error::Corrupt { .. } = error {
            // The peer keeps what it has; it need not be told of what may be mended.
            shipping.state = State::Damaged(cursor());
            blame(&shipping.stream, halt);
            return;
        }
        self.halt(place, halt);
    }

    pub(super) fn diverged(&mut self, place: usize, at: Offset) {
        let id = self.shipping[place].stream.id();
        let name = &self.peer.name;
        let detail = format!("{name} holds other records of {id} up to {at} than this node");
        // The peer's copy stands still, not ours: others may well hold the same as we do.
        self.shipping[place].state = State::Stopped;
        self.disown(place);
        self.effects.push(Effect::Stop(stop(id, &Halt::new(DIVERGED, detail))));
    }

    /// The peer holds something else under the same numbers: nothing of ours may go because of it.
    pub(super) fn disown(&mut self, place: usize) {
        let shipping = &mut self.shipping[place];
        (shipping.marks, shipping.differs, shipping.undecided) =
            (PeerMarks::default(), true, false);
    }

    pub(super) fn halt(&mut self, place: usize, halt: Halt) {
        let shipping = &mut self.shipping[place];
        self.effects.push(Effect::Stop(stop(shipping.stream.id(), &halt)));
        blame(&shipping.stream, halt);
        shipping.state = State::Stopped;
    }
}

/// Says why a stream cannot be shipped. That a peer holds more of it stays said: what is appended meanwhile would part from
/// that, and who holds it may not be there to say it again.
fn blame(stream: &Stream, halt: Halt) {
    let held = stream.halted_by(HaltedBy::Transport);
    if held.is_none_or(|held| held.code != PEER_AHEAD || halt.code == PEER_AHEAD) {
        stream.set_halted(HaltedBy::Transport, Some(halt));
    }
}

/// What was said of a damaged journal is over.
pub(super) fn can_be_read(stream: &Stream) {
    let halt = stream.halted_by(HaltedBy::Transport);
    if halt.is_some_and(|halt| halt.code == JOURNAL_CORRUPT) {
        stream.set_halted(HaltedBy::Transport, None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use thinwire_engine::{
        journal::{Journal, Options},
        model::{Epoch, Origin},
        storage::memory::MemoryDisk,
    };

    use super::*;

    #[test]
    fn what_a_peer_holds_beyond_us_stays_said_whatever_else_goes_wrong() {
        let own = Origin::from_bytes([1; 16]);
        let options = Options { own, segment: 1 << 20, budget: 1 << 30 };
        let (journal, _) =
            Journal::open(Arc::new(MemoryDisk::new()), "journal".as_ref(), options).unwrap();
        let epoch = Epoch::from_bytes([2; 16]);
        let stream = journal.open_stream(StreamId { origin: own, epoch }).unwrap();
        let said = || stream.halted_by(HaltedBy::Transport).unwrap();
        blame(&stream, Halt::new(JOURNAL_CORRUPT, "rot"));
        blame(&stream, Halt::new(PEER_AHEAD, "up to 7"));
        blame(&stream, Halt::new(JOURNAL_CORRUPT, "rot"));
        assert_eq!((said().code.as_str(), said().detail.as_str()), (PEER_AHEAD, "up to 7"));
        blame(&stream, Halt::new(PEER_AHEAD, "up to 9"));
        assert_eq!(said().detail, "up to 9");
        can_be_read(&stream);
        assert_eq!(said().code, PEER_AHEAD);
    }
}
