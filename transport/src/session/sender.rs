//! The sending half of a session: which streams go to the peer, from where, and in which order.

mod ahead;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use thinwire_engine::{
    Error,
    journal::{Journal, Stream},
    model::{Halt, HaltedBy, Offset, Running, StreamId, View},
};

use super::{
    DIVERGED, JOURNAL_CORRUPT, Violation,
    cursor::{Cursor, FRAME_BYTES, Run, Start},
    halt_of, stop,
};
use crate::{
    frame::{Ack, Holding, Opening, Prefix, Stop},
    peer::{Peer, Streams},
};

/// What we ship to one peer.
#[derive(Debug)]
pub(crate) struct Sender {
    journal: Arc<Journal>,
    peer: Peer,
    /// What the peer takes from us; nothing is shipped before it has said.
    wants: Option<Streams>,
    held: BTreeMap<StreamId, Holding>,
    serve_from: BTreeMap<StreamId, Offset>,
    /// What the peer acknowledged in earlier connections.
    known: BTreeMap<StreamId, PeerMarks>,
    /// All streams that go to the peer. Their places in it are their numbers on the wire.
    shipping: Vec<Shipping>,
    places: BTreeMap<StreamId, usize>,
    /// Those that may have something to ship.
    queue: VecDeque<usize>,
    paused: bool,
    effects: Vec<Effect>,
}

#[derive(Debug)]
struct Shipping {
    stream: Arc<Stream>,
    state: State,
    queued: bool,
    marks: PeerMarks,
    unacked: VecDeque<Sent>,
    /// What the peer said last, if it then held more than we do: it gets the stream from somebody else, or from us it
    /// gets what it gave us.
    ahead: Option<Ack>,
    /// Whether the peer's records are others than ours, so that what it has of them is nothing of ours.
    differs: bool,
    /// The peer says that it holds more of our own than we do, and it is not decided what comes of it: what is
    /// remembered of the peer decides, and must outlive this connection.
    undecided: bool,
}

#[derive(Debug)]
enum State {
    /// Not begun.
    New,
    /// Opened at the peer.
    Live(Box<Cursor>),
    /// The peer has more of it, from elsewhere.
    Behind,
    /// The peer says that it has more of our own than we do, and was asked to prove that it has what we have.
    Ahead(Offset),
    /// What the peer needs was trimmed.
    AwaitsCopy,
    /// What the peer needs cannot be read until it is mended; where it was opened, it goes on from there.
    Damaged(Option<Box<Cursor>>),
    /// The peer has no room for it.
    Full,
    /// Not over this connection any more.
    Stopped,
}

/// A frame that was shipped.
#[derive(Clone, Copy, Debug)]
struct Sent {
    last: Offset,
    running: Running,
    bytes: u64,
}

/// How far a stream is at a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerMarks {
    /// The last record that was sent, whether it arrived or not.
    pub(crate) shipped: Offset,
    /// The last that is durable there.
    pub(crate) acked: Offset,
    /// The last that is in its database.
    pub(crate) applied: Offset,
}

impl PeerMarks {
    /// As the peer says.
    fn of(held: &Holding) -> Self {
        let acked = held.durable.min(held.last);
        Self { shipped: held.last, acked, applied: held.applied.min(acked) }
    }

    fn max(self, other: Self) -> Self {
        Self {
            shipped: self.shipped.max(other.shipped),
            acked: self.acked.max(other.acked),
            applied: self.applied.max(other.applied),
        }
    }
}

/// What goes onto the wire.
#[derive(Clone, Debug)]
pub(crate) enum Outgoing {
    Open(Opening),
    Run(u32, Run),
}

impl Outgoing {
    /// How many bytes of records it has.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Open(_) => 0,
            Self::Run(_, run) => run.records.bytes().len(),
        }
    }
}

/// What others need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The peer needs records that were trimmed.
    CopyNeeded(StreamId),
    /// A stream does not go on; the peer is to be told.
    Stop(Stop),
    /// The peer is to prove that it holds the same up to there.
    Prove(Prefix),
    /// The peer lost durable records: it held up to the first offset, and now up to the second.
    WentBack(StreamId, Offset, Offset),
    /// The peer has acknowledged so many more bytes of records.
    Delivered(u64),
}

impl Sender {
    pub(crate) fn new(
        journal: Arc<Journal>,
        peer: Peer,
        serve_from: BTreeMap<StreamId, Offset>,
    ) -> Self {
        Self {
            journal,
            peer,
            wants: None,
            held: BTreeMap::new(),
            serve_from,
            known: BTreeMap::new(),
            shipping: Vec::new(),
            places: BTreeMap::new(),
            queue: VecDeque::new(),
            paused: false,
            effects: Vec::new(),
        }
    }

    /// The peer has said what it takes and, in what it holds, from where.
    pub(crate) fn wants(&mut self, wants: Streams) {
        self.wants = Some(wants);
        self.look_for_streams();
    }

    /// The peer holds these streams. What it says of one that is shipped already comes in acks.
    pub(crate) fn holds(&mut self, holdings: Vec<Holding>) -> Result<(), Violation> {
        for holding in holdings {
            if self.held.len() >= STREAMS_MAX {
                return Err(Violation(format!("holds more than {STREAMS_MAX} streams")));
            }
            self.held.insert(holding.stream, holding);
            match holding.room {
                true => self.begin_anew(holding.stream),
                false => self.wait_for_room(holding.stream),
            }
        }
        Ok(())
    }

    /// Whether nothing is shipped for now.
    pub(crate) fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// The journal may have streams that go to the peer and are not shipped yet.
    pub(crate) fn look_for_streams(&mut self) {
        let Some(wants) = &self.wants else { return };
        let own = self.journal.own();
        let mut found = Vec::new();
        for stream in self.journal.streams() {
            let id = stream.id();
            let goes = self.peer.ships(own, id) && wants.include(own, id.origin);
            if goes && !self.places.contains_key(&id) && self.shipping.len() < STREAMS_MAX {
                // Nothing that we do not have can be acknowledged.
                let exists = |held: &&Holding| {
                    id.origin != own || held.durable <= stream.watermarks().synced
                };
                let held = self.held.get(&id).filter(exists);
                let undecided = id.origin == own
                    && self.held.get(&id).is_some_and(|held| {
                        held.durable.max(held.last) > stream.watermarks().synced
                    });
                let marks = held.map(PeerMarks::of).unwrap_or_default();
                self.places.insert(id, self.shipping.len());
                found.push(self.shipping.len());
                self.shipping.push(Shipping {
                    stream,
                    state: State::New,
                    queued: false,
                    marks,
                    unacked: VecDeque::new(),
                    ahead: None,
                    differs: false,
                    undecided,
                });
            }
        }
        found.into_iter().for_each(|place| self.enqueue(place));
    }

    /// More of a stream is durable here.
    pub(crate) fn moved(&mut self, id: StreamId) {
        let Some(&place) = self.places.get(&id) else { return };
        let shipping = &mut self.shipping[place];
        if matches!(shipping.state, State::Behind) {
            let last = self.held.get(&id).map_or(Offset::ZERO, |held| held.last);
            if shipping.stream.watermarks().synced < last {
                return;
            }
            shipping.state = State::New;
        }
        self.enqueue(place);
    }

    /// The copy that was made for the peer begins there.
    pub(crate) fn serve_from(&mut self, id: StreamId, from: Offset) {
        self.serve_from.insert(id, from);
        let Some(&place) = self.places.get(&id) else { return };
        let state = &mut self.shipping[place].state;
        if matches!(state, State::AwaitsCopy) {
            *state = State::New;
            self.enqueue(place);
        }
    }

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
        self.enqueue(place);
    }

    /// The peer will not take a stream any more.
    pub(crate) fn stopped(&mut self, id: StreamId) {
        if let Some(&place) = self.places.get(&id) {
            self.shipping[place].state = State::Stopped;
        }
    }

    /// What to send next: frames up to the usual size in all, so that they are worth a packet. Reads the disk.
    pub(crate) fn next_batch(&mut self) -> Vec<Outgoing> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while !self.paused
            && bytes < FRAME_BYTES
            && let Some(place) = self.queue.pop_front()
        {
            match self.advance(place) {
                Ok(Some(outgoing)) => {
                    bytes += outgoing.size();
                    batch.push(outgoing);
                    // Few streams take turns at a time, because each of them holds a block in memory.
                    let turn = self.queue.len().min(STREAMS_AT_A_TIME - 1);
                    self.queue.insert(turn, place);
                }
                Ok(None) => self.shipping[place].queued = false,
                Err(error) => {
                    self.shipping[place].queued = false;
                    self.failed(place, &error);
                }
            }
        }
        batch
    }

    /// The peer says how far a stream is.
    pub(crate) fn acked(&mut self, ack: &Ack) -> Result<(), Violation> {
        let place = ack.index as usize;
        let Some(shipping) = self.shipping.get_mut(place) else {
            return Err(Violation("acknowledges a stream that was not opened".into()));
        };
        let id = shipping.stream.id();
        let synced = shipping.stream.watermarks().synced;
        if id.origin == self.journal.own() && ack.durable > synced {
            let durable = ack.durable;
            return Err(Violation(format!(
                "acknowledges record {durable} of {id}, which does not exist"
            )));
        }
        if shipping.differs {
            return Ok(());
        }
        let marks = &mut shipping.marks;
        // An ack that is older than what is known says nothing.
        marks.acked = marks.acked.max(ack.durable);
        marks.applied = marks.applied.max(ack.applied.min(ack.durable));
        let (mut delivered, mut differs) = (0, false);
        while let Some(sent) = shipping.unacked.front().filter(|sent| sent.last <= ack.durable) {
            delivered += sent.bytes;
            differs |= sent.last == ack.durable
                && ack.running.is_some_and(|running| running != sent.running);
            shipping.unacked.pop_front();
        }
        if delivered > 0 {
            self.effects.push(Effect::Delivered(delivered));
        }
        if differs {
            self.diverged(place, ack.durable);
        } else {
            self.leap(place, ack);
        }
        Ok(())
    }

    /// Whether anything that was shipped is not acknowledged.
    pub(crate) fn awaits_acks(&self) -> bool {
        self.shipping.iter().any(|shipping| !shipping.unacked.is_empty())
    }

    /// Streams that go to the peer and of which it has said to hold something durably: their numbers, from where on, and
    /// the offset behind it. At most so many; those with the fewest records to come last.
    pub(crate) fn known(&self, most: usize) -> Vec<(u32, Arc<Stream>, Offset, Offset)> {
        let mut known: Vec<_> = self
            .shipping
            .iter()
            .enumerate()
            .filter_map(|(place, shipping)| {
                let held = self.held.get(&shipping.stream.id())?;
                let until = held.durable.min(held.last).next();
                let pending = shipping.stream.watermarks().synced.since(until.prev());
                let is_going = matches!(shipping.state, State::New | State::Live(_));
                (is_going && held.first < until)
                    .then(|| (pending, (index(place), shipping.stream.clone(), held.first, until)))
            })
            .collect();
        known.sort_by_key(|(pending, _)| std::cmp::Reverse(*pending));
        known.into_iter().take(most).map(|(_, known)| known).collect()
    }

    /// How far the streams that go to the peer are there, but for those of which it is not decided.
    pub(crate) fn marks(&self) -> impl Iterator<Item = (StreamId, PeerMarks)> + '_ {
        let decided = self.shipping.iter().filter(|shipping| !shipping.undecided);
        decided.map(|shipping| (shipping.stream.id(), shipping.marks))
    }

    /// What others need to know since the last call.
    pub(crate) fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Compares what the peer says that it holds with what it acknowledged in earlier connections.
    pub(crate) fn compare(&mut self, known: BTreeMap<StreamId, PeerMarks>) {
        for (id, marks) in &known {
            let held = self.held.get(id).map_or(Offset::ZERO, |held| held.durable);
            if self.places.contains_key(id) && held < marks.acked {
                self.effects.push(Effect::WentBack(*id, marks.acked, held));
            }
        }
        self.known = known;
    }

    /// The peer holds a stream that it could not open before, or had no room for.
    fn begin_anew(&mut self, id: StreamId) {
        let Some(&place) = self.places.get(&id) else { return };
        let shipping = &mut self.shipping[place];
        if matches!(shipping.state, State::Stopped | State::Full) {
            (shipping.state, shipping.differs, shipping.ahead) = (State::New, false, None);
            self.enqueue(place);
        }
    }

    /// The peer drops what is on its way of a stream, and what would follow.
    fn wait_for_room(&mut self, id: StreamId) {
        let Some(&place) = self.places.get(&id) else { return };
        let shipping = &mut self.shipping[place];
        match &mut shipping.state {
            State::Live(_) => shipping.state = State::Full,
            State::Damaged(cursor) => *cursor = None,
            _ => return,
        }
        shipping.unacked.clear();
    }

    fn enqueue(&mut self, place: usize) {
        let shipping = &mut self.shipping[place];
        if !shipping.queued {
            shipping.queued = true;
            self.queue.push_back(place);
        }
    }

    /// The next frame of one stream.
    fn advance(&mut self, place: usize) -> Result<Option<Outgoing>, Error> {
        if !self.catch_up(place) {
            return Ok(None);
        }
        let shipping = &mut self.shipping[place];
        match &mut shipping.state {
            State::New => self.begin(place),
            State::Live(cursor) => {
                let Some(run) = cursor.next_run()? else { return Ok(None) };
                let last = cursor.next_offset().prev();
                shipping.marks.shipped = shipping.marks.shipped.max(last);
                let bytes = run.records.bytes().len() as u64;
                if shipping.unacked.len() == UNACKED_MAX
                    && let Some(oldest) = shipping.unacked.pop_front()
                    && let Some(next) = shipping.unacked.front_mut()
                {
                    next.bytes += oldest.bytes;
                }
                shipping.unacked.push_back(Sent { last, running: run.running, bytes });
                Ok(Some(Outgoing::Run(index(place), run)))
            }
            State::Behind
            | State::Ahead(_)
            | State::AwaitsCopy
            | State::Damaged(_)
            | State::Full
            | State::Stopped => Ok(None),
        }
    }

    /// Goes on behind what the peer has got from somebody else, or from here what it gave us; whether we hold as much yet.
    fn catch_up(&mut self, place: usize) -> bool {
        let shipping = &mut self.shipping[place];
        let Some(ack) = shipping.ahead else { return true };
        if shipping.stream.watermarks().synced < ack.durable {
            return false;
        }
        shipping.ahead = None;
        self.leap(place, &ack);
        true
    }

    /// Decides where a stream starts at the peer. See the rules in [`super`].
    fn begin(&mut self, place: usize) -> Result<Option<Outgoing>, Error> {
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
        let cursor = Cursor::open(&stream, Start { next, in_copy, gap }, self.peer.origin())?;
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
    fn leap(&mut self, place: usize, ack: &Ack) {
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
        let Ok(further) = Cursor::open(&shipping.stream, start, self.peer.origin()) else { return };
        // Inside a copy it is not known whether the peer got its beginning; what it holds is dropped there.
        let proven = further.running_before().is_some_and(|ours| ack.running == Some(ours));
        if proven && !further.began_inside_copy() {
            **cursor = further;
            shipping.unacked.clear();
            shipping.marks.shipped = shipping.marks.shipped.max(ack.durable);
        }
    }

    fn failed(&mut self, place: usize, error: &Error) {
        let shipping = &mut self.shipping[place];
        let id = shipping.stream.id();
        if let Error::Trimmed { .. } = error {
            shipping.state = State::AwaitsCopy;
            self.effects.push(Effect::CopyNeeded(id));
            return;
        }
        let halt = halt_of(error);
        if let Error::Corrupt { .. } = error {
            // The peer keeps what it has; it need not be told of what may be mended.
            shipping.stream.set_halted(HaltedBy::Transport, Some(halt));
            shipping.state =
                State::Damaged(match std::mem::replace(&mut shipping.state, State::New) {
                    State::Live(cursor) => Some(cursor),
                    _ => None,
                });
            return;
        }
        self.halt(place, halt);
    }

    fn diverged(&mut self, place: usize, at: Offset) {
        let id = self.shipping[place].stream.id();
        let name = &self.peer.name;
        let detail = format!("{name} holds other records of {id} up to {at} than this node");
        // The peer's copy stands still, not ours: others may well hold the same as we do.
        self.shipping[place].state = State::Stopped;
        self.disown(place);
        self.effects.push(Effect::Stop(stop(id, &Halt::new(DIVERGED, detail))));
    }

    /// The peer holds something else under the same numbers: nothing of ours may go because of it.
    fn disown(&mut self, place: usize) {
        let shipping = &mut self.shipping[place];
        (shipping.marks, shipping.differs, shipping.undecided) =
            (PeerMarks::default(), true, false);
    }

    fn halt(&mut self, place: usize, halt: Halt) {
        let shipping = &mut self.shipping[place];
        self.effects.push(Effect::Stop(stop(shipping.stream.id(), &halt)));
        shipping.stream.set_halted(HaltedBy::Transport, Some(halt));
        shipping.state = State::Stopped;
    }
}

/// What was said of a damaged journal is over.
fn can_be_read(stream: &Stream) {
    let halt = stream.halted_by(HaltedBy::Transport);
    if halt.is_some_and(|halt| halt.code == JOURNAL_CORRUPT) {
        stream.set_halted(HaltedBy::Transport, None);
    }
}

/// A place as it is written on the wire.
fn index(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// Most streams that go to one peer, and that it may say it holds.
const STREAMS_MAX: usize = 1_024;

/// How many streams take turns, each with a block of a quarter megabyte in memory.
const STREAMS_AT_A_TIME: usize = 4;

/// Frames remembered until they are acknowledged.
const UNACKED_MAX: usize = 4_096;
