//! The receiving half of a session: which streams are taken, appending them, acknowledging.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use thinwire_engine::{
    Error,
    codec::{Records, Tag, decode},
    journal::{Journal, Stream},
    model::{Halt, HaltedBy, Offset, Running, StreamId, View},
};

use super::{
    DIVERGED, JOURNAL_CORRUPT, MALFORMED, OWN_ORIGIN, UNWANTED, Violation, WITHHELD,
    cursor::FRAME_BYTES, halt_of, stop,
};
use crate::{
    frame::{Ack, Holding, Opening, Prefix, Stop},
    peer::Peer,
};

/// What one peer ships to us.
#[derive(Debug)]
pub(crate) struct Receiver {
    journal: Arc<Journal>,
    peer: Peer,
    taking: BTreeMap<u32, Taking>,
    /// What the peer was told of each stream before it opened it.
    said: BTreeMap<StreamId, Told>,
    /// The streams that the peer was told not to ship, with the bytes that there must be room for.
    full: BTreeMap<StreamId, u64>,
    /// The streams that the peer was told to open again. What it opened before it heard either may come first.
    called: BTreeSet<StreamId>,
    /// The streams of which the peer has asked for a proof.
    proven: BTreeSet<StreamId>,
}

#[derive(Debug)]
enum Taking {
    Going(Going),
    /// There was no room for it. What still comes was on its way when the peer was told; it opens the stream anew
    /// once it is told that there is room.
    Full(Going),
    /// What still comes of it was on its way when the peer was told.
    Stopped,
    /// The same, because what is held of it is damaged: once it is mended, the peer may open it again.
    Unreadable,
}

#[derive(Debug)]
struct Going {
    stream: Arc<Stream>,
    told: Told,
    /// Offsets at which frames ended, with the running checksum there.
    ends: VecDeque<(Offset, Running)>,
}

/// The durable and the applied offset.
type Told = (Offset, Offset);

/// What became of records that arrived.
#[derive(Debug)]
pub(crate) enum Taken {
    /// They are in the journal, or were already, or are not wanted any more.
    Done,
    /// There is no room. Nothing was taken; try again when the stream or the budget has moved.
    Later(Arc<Stream>),
    /// The stream cannot go on; the peer is to be told.
    Stopped(Stop),
}

/// What becomes of long records that are announced.
#[derive(Debug)]
pub(crate) enum Admission {
    /// There may be room for them.
    Welcome,
    /// Their stream is not taken.
    Dropped,
    /// There will never be room for them, and their stream cannot go on; the peer is to be told.
    Stopped(Stop),
}

impl Receiver {
    pub(crate) fn new(journal: Arc<Journal>, peer: Peer) -> Self {
        Self {
            journal,
            peer,
            taking: BTreeMap::new(),
            said: BTreeMap::new(),
            full: BTreeMap::new(),
            called: BTreeSet::new(),
            proven: BTreeSet::new(),
        }
    }

    /// What the peer is to know of the streams that it might ship, except those named before.
    pub(crate) fn holdings(&mut self) -> Vec<Holding> {
        let own = self.journal.own();
        let mut holdings = Vec::new();
        for stream in self.journal.streams() {
            let id = stream.id();
            if self.peer.takes(own, id) && !self.said.contains_key(&id) {
                // Who is shipping it already is held back by not being read, or told that it is set aside.
                let room = self.is_going(id) || has_room(&stream, stretch(&stream));
                let holding = holding_of(&stream, room);
                if !holding.room {
                    self.full.insert(id, FRAME_BYTES as u64);
                }
                self.said.insert(id, (holding.durable, holding.applied));
                holdings.push(holding);
            }
        }
        holdings
    }

    /// The peer begins to ship a stream. Touches the disk if it is new.
    pub(crate) fn open(&mut self, opening: &Opening) -> Result<Option<Stop>, Violation> {
        let (index, id) = (opening.index, opening.stream);
        let taken = self.taking.get(&index);
        if taken.is_none() && self.taking.len() >= STREAMS_MAX {
            return Err(Violation(format!("opens more than {STREAMS_MAX} streams")));
        }
        let vacant = match taken {
            None | Some(Taking::Unreadable) => true,
            Some(Taking::Full(going)) => going.stream.id() == id,
            Some(Taking::Going(going)) => going.stream.id() == id && self.called.remove(&id),
            Some(Taking::Stopped) => false,
        };
        if !vacant || self.is_taken_elsewhere(index, id) {
            return Err(Violation("opens a stream twice".into()));
        }
        match self.admit(opening) {
            Ok(going) => {
                // The peer opened it before it heard that there is no room.
                let is_full = self.full.contains_key(&id);
                let taking = if is_full { Taking::Full(going) } else { Taking::Going(going) };
                self.taking.insert(opening.index, taking);
                Ok(None)
            }
            Err(halt) => {
                self.full.remove(&id);
                let readable = halt.code != JOURNAL_CORRUPT;
                let taking = if readable { Taking::Stopped } else { Taking::Unreadable };
                self.taking.insert(opening.index, taking);
                Ok(Some(stop(opening.stream, &halt)))
            }
        }
    }

    /// Long records are about to come. Nothing is gathered for which there is no use.
    pub(crate) fn admits(&mut self, index: u32, bytes: usize) -> Result<Admission, Violation> {
        let Some(Taking::Going(going)) = self.taking.get(&index) else {
            return self.known(index).map(|()| Admission::Dropped);
        };
        let (bytes, budget) = (bytes as u64, self.journal.usage().budget);
        if bytes <= budget {
            return Ok(Admission::Welcome);
        }
        let halt = halt_of(&Error::TooLarge { bytes, budget });
        let stop = stop(going.stream.id(), &halt);
        going.stream.set_halted(HaltedBy::Transport, Some(halt));
        self.taking.insert(index, Taking::Stopped);
        Ok(Admission::Stopped(stop))
    }

    /// Checks that what foreign records say can be read, whole.
    pub(crate) fn inspect(
        &mut self,
        index: u32,
        records: &Records,
    ) -> Result<Option<Stop>, Violation> {
        let Some(Taking::Going(going)) = self.taking.get(&index) else {
            return self.known(index).map(|()| None);
        };
        match records.iter().find_map(|record| decode(&record).err()) {
            None => Ok(None),
            Some(error) => {
                let name = &self.peer.name;
                let halt =
                    Halt::new(MALFORMED, format!("a record from {name} is unreadable: {error}"));
                let stop = stop(going.stream.id(), &halt);
                going.stream.set_halted(HaltedBy::Transport, Some(halt));
                self.taking.insert(index, Taking::Stopped);
                Ok(Some(stop))
            }
        }
    }

    /// Records arrived, which [`inspect`](Self::inspect) found readable. Does not touch the disk.
    pub(crate) fn take(
        &mut self,
        index: u32,
        first: Offset,
        records: &Records,
    ) -> Result<Taken, Violation> {
        let Some(Taking::Going(going)) = self.taking.get_mut(&index) else {
            return self.known(index).map(|()| Taken::Done);
        };
        if going.stream.is_congested() {
            return Ok(Taken::Later(going.stream.clone()));
        }
        if withholds_from_a_held_copy(&going.stream, first, records) {
            let detail = format!(
                "{} does not have the copy that this node is receiving from elsewhere",
                self.peer.name
            );
            let stop = stop(going.stream.id(), &Halt::new(WITHHELD, detail));
            self.taking.insert(index, Taking::Stopped);
            return Ok(Taken::Stopped(stop));
        }
        match going.stream.append_at(first, records.clone()) {
            Ok(_) => {
                let (next, running, _) = going.stream.end();
                if going.ends.len() == ENDS_MAX {
                    going.ends.pop_front();
                }
                going.ends.push_back((next.prev(), running));
                Ok(Taken::Done)
            }
            Err(Error::Full { .. }) => Ok(Taken::Later(going.stream.clone())),
            Err(Error::Hole { expected, got }) => {
                Err(Violation(format!("ships record {got} where {expected} is next")))
            }
            Err(error) => {
                let halt = halt_of(&error);
                let stop = stop(going.stream.id(), &halt);
                going.stream.set_halted(HaltedBy::Transport, Some(halt));
                self.taking.insert(index, Taking::Stopped);
                Ok(Taken::Stopped(stop))
            }
        }
    }

    /// Whether other streams of the peer wait while one does.
    pub(crate) fn takes_others(&self, index: u32) -> bool {
        let others = self.taking.iter().filter(|(other, _)| **other != index);
        others.map(|(_, taking)| taking).any(|taking| matches!(taking, Taking::Going(_)))
    }

    /// Gives up waiting for room for these records, so that other streams do not wait for this one: what the peer is
    /// to be told.
    pub(crate) fn set_aside(&mut self, index: u32, records: &Records) -> Option<Holding> {
        let taking = self.taking.get_mut(&index)?;
        match std::mem::replace(taking, Taking::Stopped) {
            Taking::Going(going) => {
                let holding = holding_of(&going.stream, false);
                self.full.insert(holding.stream, records.bytes().len() as u64);
                *taking = Taking::Full(going);
                Some(holding)
            }
            other => {
                *taking = other;
                None
            }
        }
    }

    /// Whether the peer was told not to ship a stream for which there was no room.
    pub(crate) fn awaits_room(&self) -> bool {
        !self.full.is_empty()
    }

    /// The streams for which there is room again: for a good stretch of each, or, because there may never be more
    /// before more of it comes, for `little`.
    pub(crate) fn with_room(&mut self, little: bool) -> Vec<Holding> {
        let (mut holdings, called) = (Vec::new(), &mut self.called);
        self.full.retain(|id, wanted| {
            let Some(stream) = self.journal.stream(*id) else { return false };
            let least = if little { *wanted } else { (*wanted).max(stretch(&stream)) };
            let room = has_room(&stream, least);
            if room {
                called.insert(*id);
                holdings.push(holding_of(&stream, true));
            }
            !room
        });
        holdings
    }

    /// The peer says that it will not go on with a stream. If it says that the two copies
    /// differ, ours stands still until somebody has decided.
    pub(crate) fn stopped(&mut self, stop: &Stop) {
        if !self.peer.takes(self.journal.own(), stop.stream) || stop.code != DIVERGED {
            return;
        }
        if let Some(stream) = self.journal.stream(stop.stream) {
            let detail = format!("{} says: {}", self.peer.name, stop.detail);
            stream.set_halted(HaltedBy::Transport, Some(Halt::new(DIVERGED, detail)));
        }
    }

    /// The running checksum that proves to an origin that its own stream is the same here up to a record; none if
    /// that cannot be told, or is not for the peer to ask. Reads the disk.
    pub(crate) fn prove(&mut self, prefix: &Prefix) -> Result<Option<Running>, Violation> {
        let Prefix { stream: id, at } = *prefix;
        if self.proven.len() >= STREAMS_MAX || !self.proven.insert(id) {
            return Err(Violation("asks for a proof twice".into()));
        }
        if id.origin != self.peer.origin() || !self.peer.takes(self.journal.own(), id) {
            return Ok(None);
        }
        let stream = self.journal.stream(id);
        Ok(stream.and_then(|stream| stream.running_at(at).ok().flatten()))
    }

    /// What the peer has not been told yet of how far its streams are.
    pub(crate) fn acks(&mut self) -> Vec<Ack> {
        let mut acks = Vec::new();
        for (&index, taking) in &mut self.taking {
            let (Taking::Going(going) | Taking::Full(going)) = taking else { continue };
            let marks = going.stream.watermarks();
            let now = (marks.synced, marks.applied.min(marks.synced));
            if now == going.told {
                continue;
            }
            going.told = now;
            let running = going.running_at(marks.synced);
            acks.push(Ack { index, durable: now.0, applied: now.1, running });
        }
        acks
    }

    /// Whether the records of this stream are taken as they come.
    fn is_going(&self, id: StreamId) -> bool {
        let mut going = self.taking.values();
        going.any(|taking| matches!(taking, Taking::Going(going) if going.stream.id() == id))
    }

    /// Whether this stream is being taken under another number.
    fn is_taken_elsewhere(&self, index: u32, id: StreamId) -> bool {
        self.taking.iter().filter(|(other, _)| **other != index).any(|(_, taking)| match taking {
            Taking::Going(going) | Taking::Full(going) => going.stream.id() == id,
            Taking::Stopped | Taking::Unreadable => false,
        })
    }

    fn known(&self, index: u32) -> Result<(), Violation> {
        match self.taking.contains_key(&index) {
            true => Ok(()),
            false => Err(Violation("ships records of a stream that it did not open".into())),
        }
    }

    /// Keeps a peer from filling the disk with streams that it makes up.
    fn check_room_for(&self, id: StreamId) -> Result<(), Halt> {
        if self.journal.stream(id).is_some() {
            return Ok(());
        }
        let (streams, origin) = (self.journal.streams(), id.origin);
        let epochs = streams.iter().filter(|stream| stream.id().origin == origin).count();
        if streams.len() >= STREAMS_HELD_MAX || epochs >= EPOCHS_MAX {
            let (held, name) = (streams.len(), &self.peer.name);
            let detail = format!(
                "{name} offers {id}, and {held} streams are held, {epochs} of them of its origin: no more are begun"
            );
            return Err(Halt::new(UNWANTED, detail));
        }
        Ok(())
    }

    fn admit(&self, opening: &Opening) -> Result<Going, Halt> {
        let (id, name) = (opening.stream, &self.peer.name);
        let own = self.journal.own();
        if id.origin == own {
            return Err(Halt::new(
                OWN_ORIGIN,
                format!("{name} claims to be the origin {own}, which we are"),
            ));
        }
        if !self.peer.takes(own, id) {
            return Err(Halt::new(UNWANTED, format!("the stream {id} is not taken from {name}")));
        }
        self.check_room_for(id)?;
        let stream = self.journal.open_stream(id).map_err(|error| halt_of(&error))?;
        let (next, running, _) = stream.end();
        let ours = match opening.next {
            at if at == next => Some(running),
            at if at < next => stream.running_at(at.prev()).map_err(|error| halt_of(&error))?,
            at => {
                let detail = format!("{name} begins {id} at record {at}, and {next} is next here");
                return Err(Halt::new(UNWANTED, detail));
            }
        };
        if let (Some(ours), Some(theirs)) = (ours, opening.running)
            && ours != theirs
        {
            let at = opening.next.prev();
            let detail = format!("{name} holds other records of {id} up to {at} than this node");
            let halt = Halt { offset: Some(at), ..Halt::new(DIVERGED, detail) };
            stream.set_halted(HaltedBy::Transport, Some(halt.clone()));
            return Err(halt);
        }
        let ours = |code: &str| [DIVERGED, MALFORMED].contains(&code);
        let mended = stream.halted_by(HaltedBy::Transport).is_some_and(|halt| ours(&halt.code));
        if mended {
            stream.set_halted(HaltedBy::Transport, None);
        }
        // A peer that begins before what it was told has not heard it yet, and will not heed it when it does.
        let heard = |(durable, _): &&Told| opening.next > *durable;
        let told = self.said.get(&id).filter(heard).copied().unwrap_or_default();
        Ok(Going { stream, told, ends: VecDeque::new() })
    }
}

impl Going {
    /// The running checksum behind a record, if it is at hand.
    fn running_at(&mut self, at: Offset) -> Option<Running> {
        let (next, running, _) = self.stream.end();
        if next.prev() == at {
            return Some(running);
        }
        while self.ends.front().is_some_and(|(end, _)| *end < at) {
            self.ends.pop_front();
        }
        self.ends.front().filter(|(end, _)| *end == at).map(|(_, running)| *running)
    }
}

/// Whether the records would skip what is left of a copy whose beginning is held: the sender holds the stream without
/// it, and this node is to have it.
fn withholds_from_a_held_copy(stream: &Stream, first: Offset, records: &Records) -> bool {
    let (next, _, open) = stream.end();
    if open.is_none_or(|open| open.xid.is_some()) || first.forward(records.span()) <= next {
        return false;
    }
    let ends = [Tag::CopyEnd, Tag::CopyAbort];
    let new = records.after(next.since(first));
    let mut tags = new.iter().map_while(|record| Tag::of(&record).ok());
    tags.find(|tag| *tag == Tag::Skip || ends.contains(tag)) == Some(Tag::Skip)
}

/// Whether so much of a stream could be taken.
fn has_room(stream: &Stream, bytes: u64) -> bool {
    !stream.is_congested() && stream.allowance().room() >= bytes
}

/// What there must be room for before a stream that was full is taken up again: enough that what was dropped on the way
/// is little beside it.
fn stretch(stream: &Stream) -> u64 {
    STRETCH_MAX.min(stream.allowance().budget / SMALL_STRETCH)
}

fn holding_of(stream: &Stream, room: bool) -> Holding {
    let marks = stream.watermarks();
    let (next, running, open) = stream.end();
    Holding {
        stream: stream.id(),
        view: View::FULL,
        first: marks.first,
        last: next.prev(),
        running,
        in_copy: open.is_some_and(|open| open.xid.is_none()),
        durable: marks.synced,
        applied: marks.applied.min(marks.synced),
        room,
    }
}

/// Several times what is on its way on any but the fastest links.
const STRETCH_MAX: u64 = 1 << 20;

/// What part of a stream's allowance is a good stretch, where that is less.
const SMALL_STRETCH: u64 = 8;

/// Most streams that one peer may ship.
const STREAMS_MAX: usize = 1_024;

/// Most streams that are held, so that each peer can be told of all.
const STREAMS_HELD_MAX: usize = STREAMS_MAX - 1;

/// Most streams of one origin: how often it may begin anew.
const EPOCHS_MAX: usize = 64;

/// Frames whose ends are remembered until they are acknowledged: 16 MiB of ordinary ones.
const ENDS_MAX: usize = 1_024;
