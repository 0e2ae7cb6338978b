//! Where a stream starts at the peer, and where it goes on: the rules of [`super::super`], one stream at a time.

use thinwire_engine::{
    Error,
    model::{Offset, Running, StreamId, View},
};

use super::{
    super::cursor::{Cursor, Ends, Start},
    Outgoing, PeerMarks, Sender, State,
    failing::can_be_read,
    index,
};
use crate::frame::{Ack, Opening};

impl Sender {
    /// The peer holds a stream that it could not open before, or had no room for.
    pub(super) fn begin_anew(&mut self, id: StreamId) {
        let Some(&place) = self.places.get(&id) else { return };
        let shipping = &mut self.shipping[place];
        if matches!(shipping.state, State::Stopped | State::Full) {
            (shipping.state, shipping.differs, shipping.ahead) = (State::New, false, None);
            self.turns.join(place);
        }
    }

    /// The peer drops what is on its way of a stream, and what would follow.
    pub(super) fn wait_for_room(&mut self, id: StreamId) {
        let Some(&place) = self.places.get(&id) else { return };
        let shipping = &mut self.shipping[place];
        match &mut shipping.state {
            State::Live(_) => shipping.state = State::Full,
            State::Damaged(cursor) | State::AwaitsCopy(cursor) => *cursor = None,
            _ => return,
        }
        shipping.unacked.clear();
    }

    /// Goes on behind what the peer has got from somebody else, or from here what it gave us; whether we hold as much yet.
    pub(super) fn catch_up(&mut self, place: usize) -> bool {
        let shipping = &mut self.shipping[place];
        let Some(ack) = shipping.ahead else { return true };
        if shipping.stream.watermarks().synced < ack.durable {
            return false;
        }
        shipping.ahead = None;
        self.leap(place, &ack);
        true
    }

    /// Decides where a stream starts at the peer. See the rules in [`super::super`].
    pub(super) fn begin(&mut self, place: usize) -> Result<Option<Outgoing>, Error> {
        let stream = self.shipping[place].stream.clone();
        let (id, marks) = (stream.id(), stream.watermarks());
        let held = self.held.get(&id);
        let last = held.map_or(Offset::ZERO, |held| held.last);
        let theirs = held.map_or(Running::START, |held| held.running);
        if last > marks.synced {
            match id.origin == self.journal.own() {
                true => self.ahead(place, last, marks.synced),
                false => self.shipping[place].state = State::Behind,
            }
            return Ok(None);
        }
        if held.is_some_and(|held| !held.room) {
            self.shipping[place].state = State::Full;
            return Ok(None);
        }
        let next = last.next();
        let gap = self.serve_from.get(&id).copied().filter(|from| *from > next);
        let in_copy = held.is_some_and(|held| held.in_copy);
        let cursor = Cursor::open(&stream, Start { next, in_copy, gap }, self.ends())?;
        let ours = match gap {
            // What was trimmed cannot be compared, and is skipped anyway.
            Some(_) => stream.running_at(last)?,
            None => cursor.running_before(),
        };
        if ours.is_some_and(|ours| ours != theirs) {
            self.diverged(place, last);
            return Ok(None);
        }
        can_be_read(&stream);
        let running = ours.map(|_| theirs);
        let marks = held.map(PeerMarks::of).unwrap_or_default();
        let shipping = &mut self.shipping[place];
        shipping.marks = shipping.marks.max(marks);
        shipping.undecided = false;
        shipping.state = State::Live(Box::new(cursor));
        let index = index(place);
        Ok(Some(Outgoing::Open(Opening { index, stream: id, view: View::FULL, next, running })))
    }

    /// The peer has got what we were about to ship from somebody else: goes on behind it.
    pub(super) fn leap(&mut self, place: usize, ack: &Ack) {
        let ends = self.ends();
        let shipping = &mut self.shipping[place];
        let State::Live(cursor) = &mut shipping.state else { return };
        let next = ack.durable.next();
        if cursor.next_offset() >= next {
            return;
        }
        if shipping.stream.watermarks().synced < ack.durable {
            shipping.ahead = Some(*ack);
            return;
        }
        let start = Start { next, in_copy: false, gap: None };
        let Ok(further) = Cursor::open(&shipping.stream, start, ends) else { return };
        // Inside a copy it is not known whether the peer got its beginning; what it holds is dropped there.
        let proven = further.running_before().is_some_and(|ours| ack.running == Some(ours));
        if proven && !further.began_inside_copy() {
            **cursor = further;
            shipping.unacked.clear();
            shipping.marks.shipped = shipping.marks.shipped.max(ack.durable);
        }
    }

    fn ends(&self) -> Ends {
        Ends { node: self.journal.own(), peer: self.peer.origin() }
    }
}
