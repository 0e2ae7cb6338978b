//! A peer that says that it holds more of our own stream than we do: a witness of a disk that was rolled back, or a liar.
//!
//! Going on behind a rollback gives old numbers to new records; believing a lie stops us for nothing. Case by case:
//! - the stream stands still for this reason already: it goes on standing still;
//! - the peer is remembered to have acknowledged more than we have: our disk was rolled back;
//! - else it is asked for the running checksum where we end. It tells ours: nobody can who was not shipped as much, so our
//!   disk was rolled back;
//! - it tells another one: what it holds is not our stream, and it alone is refused;
//! - it cannot tell, because it has trimmed that record, or holds it inside a run that it was not to carry. It is
//!   believed if it is remembered to have acknowledged any record of the stream: who trimmed what it had been shipped
//!   is the only witness there may be, and to stand still for nothing costs less than to go on wrongly;
//! - it cannot tell, and nothing of it is remembered: anybody could say as much, and it alone is refused. Nothing of
//!   ours comes under the numbers of what it may hold, because nothing is shipped to it.

use thinwire_engine::model::{Halt, HaltedBy, Offset, Running, StreamId};

use super::{
    super::{PEER_AHEAD, UNPROVEN, stop},
    Effect, Sender, State,
};
use crate::frame::Prefix;

impl Sender {
    /// The peer proves, or does not, that it holds the same up to a record as we do. Reads the disk.
    pub(crate) fn proven(&mut self, prefix: Prefix, running: Option<Running>) {
        let Some(&place) = self.places.get(&prefix.stream) else { return };
        let State::Ahead(asked) = self.shipping[place].state else { return };
        if asked != prefix.at {
            return;
        }
        let theirs = self.held.get(&prefix.stream).map_or(Offset::ZERO, |held| held.last);
        let Some(running) = running else {
            return match self.remembered(prefix.stream) > Offset::ZERO {
                true => self.rolled_back(place, theirs, asked),
                false => self.refused(place, theirs, asked, "cannot prove it"),
            };
        };
        match self.shipping[place].stream.running_at(asked) {
            Ok(ours) if ours == Some(running) => self.rolled_back(place, theirs, asked),
            Ok(_) => self.refused(place, theirs, asked, "does not hold the same up to there"),
            Err(error) => self.failed(place, &error),
        }
    }

    /// The peer says that it holds more of our own stream than we do.
    pub(super) fn ahead(&mut self, place: usize, theirs: Offset, ours: Offset) {
        let stream = &self.shipping[place].stream;
        let id = stream.id();
        let halt = stream.halted_by(HaltedBy::Transport);
        let stands_still = halt.is_some_and(|halt| halt.code == PEER_AHEAD);
        if stands_still || self.remembered(id) > ours {
            return self.rolled_back(place, theirs, ours);
        }
        self.shipping[place].state = State::Ahead(ours);
        self.effects.push(Effect::Prove(Prefix { stream: id, at: ours }));
    }

    /// How far the peer is remembered to have acknowledged a stream.
    fn remembered(&self, id: StreamId) -> Offset {
        self.known.get(&id).map_or(Offset::ZERO, |marks| marks.acked)
    }

    fn refused(&mut self, place: usize, theirs: Offset, ours: Offset, because: &str) {
        let (id, name) = (self.shipping[place].stream.id(), &self.peer.name);
        let detail = format!(
            "{name} says that it holds {id} up to {theirs}, which ends at {ours} here, and {because}"
        );
        self.shipping[place].state = State::Stopped;
        self.disown(place);
        self.effects.push(Effect::Stop(stop(id, &Halt::new(UNPROVEN, detail))));
    }

    fn rolled_back(&mut self, place: usize, theirs: Offset, ours: Offset) {
        let name = &self.peer.name;
        let detail = format!(
            "{name} holds our records up to {theirs}, and this node only up to {ours}: its disk was rolled back"
        );
        let halt = Halt { offset: Some(ours), ..Halt::new(PEER_AHEAD, detail) };
        self.disown(place);
        self.halt(place, halt);
    }
}
