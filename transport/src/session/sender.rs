//! The sending half of a session: which streams go to the peer, from where, and in which order.

mod ahead;
mod failing;
mod marks;
mod start;
mod turns;
mod unacked;

use std::{collections::BTreeMap, sync::Arc};

use thinwire_engine::{
    Error,
    journal::{Journal, Stream},
    model::{Offset, StreamId},
};

use super::{
    Violation,
    cursor::{Cursor, FRAME_BYTES, Run},
};
use crate::{
    frame::{Ack, Holding, Opening, Prefix, Stop},
    peer::{Peer, Streams},
};
pub(crate) use marks::PeerMarks;
use turns::Turns;
use unacked::{Sent, Unacked};

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
    turns: Turns,
    paused: bool,
    effects: Vec<Effect>,
}

#[derive(Debug)]
struct Shipping {
    stream: Arc<Stream>,
    state: State,
    marks: PeerMarks,
    unacked: Unacked,
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
    /// What the peer needs was trimmed; where it was opened, it goes on from there.
    AwaitsCopy(Option<Box<Cursor>>),
    /// What the peer needs cannot be read until it is mended; where it was opened, it goes on from there.
    Damaged(Option<Box<Cursor>>),
    /// The peer has no room for it.
    Full,
    /// Not over this connection any more.
    Stopped,
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
            turns: Turns::default(),
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
                    marks,
                    unacked: Unacked::default(),
                    ahead: None,
                    differs: false,
                    undecided,
                });
            }
        }
        found.into_iter().for_each(|place| self.turns.join(place));
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
        self.turns.join(place);
    }

    /// The copy that was made for the peer begins there.
    pub(crate) fn serve_from(&mut self, id: StreamId, from: Offset) {
        self.serve_from.insert(id, from);
        let Some(&place) = self.places.get(&id) else { return };
        let State::AwaitsCopy(cursor) = &mut self.shipping[place].state else { return };
        let (state, reading) = match cursor.take() {
            None => (State::New, Ok(())),
            Some(mut cursor) => {
                let reading = cursor.skip_to(from);
                (State::Live(cursor), reading)
            }
        };
        self.shipping[place].state = state;
        match reading {
            Ok(()) => self.turns.join(place),
            Err(error) => self.failed(place, &error),
        }
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
            && let Some(place) = self.turns.next()
        {
            match self.advance(place) {
                Ok(Some(outgoing)) => {
                    bytes += outgoing.size();
                    batch.push(outgoing);
                    self.turns.again(place);
                }
                Ok(None) => {}
                Err(error) => self.failed(place, &error),
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
        shipping.marks.acknowledge(ack);
        let delivered = shipping.unacked.acknowledge(ack);
        if delivered.bytes > 0 {
            self.effects.push(Effect::Delivered(delivered.bytes));
        }
        if delivered.differs {
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
                shipping.unacked.push(Sent { last, running: run.running, bytes });
                Ok(Some(Outgoing::Run(index(place), run)))
            }
            State::Behind
            | State::Ahead(_)
            | State::AwaitsCopy(_)
            | State::Damaged(_)
            | State::Full
            | State::Stopped => Ok(None),
        }
    }
}

/// A place as it is written on the wire.
fn index(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// Most streams that go to one peer, and that it may say it holds.
const STREAMS_MAX: usize = 1_024;
