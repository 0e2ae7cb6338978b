//! A peer that says that it holds more of our own stream than we do: a witness of a disk that was rolled back, or a liar.

use thinwire_engine::model::{Halt, Offset, Running};

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
        match self.shipping[place].stream.running_at(asked) {
            Ok(ours) if ours.is_some() && ours == running => {
                self.rolled_back(place, theirs, asked);
            }
            Ok(_) => self.lied(place, theirs, asked),
            Err(error) => self.failed(place, &error),
        }
    }

    /// The peer says that it holds more of our own stream than we do.
    pub(super) fn ahead(&mut self, place: usize, theirs: Offset, ours: Offset) {
        let id = self.shipping[place].stream.id();
        if self.known.get(&id).is_some_and(|marks| marks.acked > ours) {
            return self.rolled_back(place, theirs, ours);
        }
        self.shipping[place].state = State::Ahead(ours);
        self.effects.push(Effect::Prove(Prefix { stream: id, at: ours }));
    }

    fn lied(&mut self, place: usize, theirs: Offset, ours: Offset) {
        let (id, name) = (self.shipping[place].stream.id(), &self.peer.name);
        let detail = format!(
            "{name} says that it holds {id} up to {theirs}, which ends at {ours} here, and does not hold the same up to there"
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
