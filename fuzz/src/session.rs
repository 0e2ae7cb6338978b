//! A node and a peer that says whatever the input says: what the node holds is what it took, and what it
//! ships and acknowledges is durable.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use thinwire_engine::{
    codec::{Records, RecordsBuf},
    journal::{Journal, Options},
    model::{
        Copy, Epoch, Lsn, Offset, Origin, Record, RelationId, Row, Running, StreamId, Timestamp,
        Value, View,
    },
    storage::memory::MemoryDisk,
};
use thinwire_transport::{
    Peer, PublicKey, Rules, Streams,
    frame::{
        Ack, Control, ControlDecoder, DataDecoder, DataFrame, Excerpt, Hello, Holding, Opening,
        Stop,
    },
    fuzzing::{Broken, Fate, Session},
};

/// What the peer does next, or the node itself.
#[derive(Arbitrary, Debug)]
enum Action<'a> {
    Open { index: u8, stream: u8, next: u8, running: Claim },
    Records { index: u8, first: u8, records: Vec<Kind> },
    RecordsThatFollow { index: u8, again: u8, records: Vec<Kind> },
    Data(&'a [u8]),
    Control(&'a [u8]),
    Hello { wants: u8, stream: u8, first: u8, last: u8, running: Claim, in_copy: bool, room: bool },
    Ack { index: u8, durable: u8, applied: u8, running: Claim },
    Stop { stream: u8, diverged: bool },
    Fetch { stream: u8, from: u8, count: u8 },
    Ship,
    Acknowledge,
    Sync,
    Reconnect,
}

/// A running checksum that the peer claims.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Claim {
    None,
    /// The one of the stream's end here.
    Right,
    Some(u32),
}

/// A record that the peer ships.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Kind {
    Begin,
    Insert(u8),
    Commit,
    Abort,
    CopyBegin { ours: bool },
    CopyEnd,
    CopyAbort,
    Skip { count: u16, running: u32 },
    SkipFar { count: u64 },
    Unreadable,
}

struct Node {
    journal: Arc<Journal>,
    session: Session,
    peer: Peer,
    data: DataDecoder,
    control: ControlDecoder,
    /// What was taken of each stream.
    taken: BTreeMap<StreamId, RecordsBuf>,
    /// The numbers of the streams that the peer opened.
    open: BTreeMap<u32, StreamId>,
    /// What was shipped: of which stream, up to where.
    shipped: BTreeMap<u32, (StreamId, Offset)>,
}

/// Plays the input.
pub fn converse(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok((small, receive)) = input.arbitrary::<(bool, u8)>() else { return };
    let mut node = Node::new(small, receive);
    let own = node.own();
    for _ in 0..ACTIONS_MAX {
        if input.is_empty() {
            break;
        }
        let Ok(action) = input.arbitrary() else { break };
        if node.act(action).is_err() {
            node.reconnect();
        }
    }
    assert_eq!(node.own(), own, "the peer changed our own stream");
    node.check();
}

impl Node {
    fn new(small: bool, receive: u8) -> Self {
        let own = key(OURS).origin();
        let budget = if small { SMALL_BUDGET } else { 1 << 40 };
        let options = Options { own, segment: 64 << 10, budget };
        let disk = Arc::new(MemoryDisk::new());
        let (journal, _) = Journal::open(disk, Path::new("j"), options).expect("an empty disk");
        let stream = journal.open_stream(id(0)).expect("an empty disk");
        let records = [Kind::Begin, Kind::Insert(9), Kind::Commit, Kind::Begin, Kind::Commit];
        stream.append(encoded(&records)).and_then(|_| stream.sync()).expect("there is room");
        let peer = Peer {
            name: String::new(),
            key: key(THEIRS),
            address: None,
            send: Streams::All,
            receive: streams(receive),
            rules: Rules::default(),
        };
        let journal = Arc::new(journal);
        Self {
            session: Session::new(&journal, &peer),
            journal,
            peer,
            data: DataDecoder::default(),
            control: ControlDecoder::default(),
            taken: BTreeMap::new(),
            open: BTreeMap::new(),
            shipped: BTreeMap::new(),
        }
    }

    fn reconnect(&mut self) {
        self.session = Session::new(&self.journal, &self.peer);
        (self.data, self.control) = (DataDecoder::default(), ControlDecoder::default());
        self.open.clear();
        self.shipped.clear();
    }

    fn act(&mut self, action: Action<'_>) -> Result<(), Broken> {
        match action {
            Action::Open { index, stream, next, running } => self.opened(&Opening {
                index: index.into(),
                stream: id(stream),
                view: View::FULL,
                next: Offset::new(u64::from(next).max(1)),
                running: self.claimed(id(stream), running),
            }),
            Action::Records { index, first, records } => {
                let first = Offset::new(u64::from(first).max(1));
                self.arrived(index.into(), first, &encoded(&records))
            }
            Action::RecordsThatFollow { index, again, records } => {
                let Some(&stream) = self.open.get(&index.into()) else { return Ok(()) };
                let next = self.end(stream).0.get().saturating_sub(u64::from(again)).max(1);
                self.arrived(index.into(), Offset::new(next), &encoded(&records))
            }
            Action::Data(bytes) => self.data(bytes),
            Action::Control(bytes) => {
                self.control.push(bytes);
                while let Some(control) = self.control.next_frame().map_err(|_| Broken)? {
                    self.session.control(control)?;
                }
                Ok(())
            }
            Action::Fetch { stream, from, count } => {
                let from = Offset::new(from.into());
                let until = from.forward(count.into());
                self.fetch(&Excerpt { stream: id(stream), from, until });
                Ok(())
            }
            Action::Ship => self.ship(),
            Action::Acknowledge => self.acknowledge(),
            Action::Sync => {
                for stream in self.journal.streams() {
                    stream.sync().expect("nothing fails on this disk");
                }
                Ok(())
            }
            Action::Reconnect => Err(Broken),
            other => self.said(other),
        }
    }

    /// The peer says something beside records.
    fn said(&mut self, action: Action<'_>) -> Result<(), Broken> {
        let control = match action {
            Action::Hello { wants, stream, first, last, running, in_copy, room } => {
                let last = Offset::new(last.into());
                let holding = Holding {
                    stream: id(stream),
                    view: View::FULL,
                    first: Offset::new(first.into()),
                    last,
                    running: self.claimed(id(stream), running).unwrap_or_default(),
                    in_copy,
                    durable: last,
                    applied: last,
                    room,
                };
                Control::Hello(Hello {
                    name: String::new(),
                    instance: 0,
                    replaces: false,
                    paused: false,
                    wants: streams(wants),
                    holds: vec![holding],
                })
            }
            Action::Ack { index, durable, applied, running } => Control::Acks(vec![Ack {
                index: index.into(),
                durable: Offset::new(durable.into()),
                applied: Offset::new(applied.into()),
                running: self.claimed(id(0), running),
            }]),
            Action::Stop { stream, diverged } => Control::Stop(Stop {
                stream: id(stream),
                code: if diverged { "diverged" } else { "unwanted" }.to_owned(),
                detail: String::new(),
            }),
            _ => return Ok(()),
        };
        self.session.control(control)
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.data.push(bytes);
        while let Some(frame) = self.data.next_frame().map_err(|_| Broken)? {
            match frame {
                DataFrame::Open(opening) => self.opened(&opening)?,
                DataFrame::Records { index, first, records } => {
                    self.arrived(index, first, &records)?;
                }
            }
        }
        Ok(())
    }

    fn opened(&mut self, opening: &Opening) -> Result<(), Broken> {
        let id = opening.stream;
        let is_new = self.journal.stream(id).is_none();
        if self.session.open(opening)? {
            assert!(self.peer.takes(self.journal.own(), id), "takes what it may not");
            self.open.insert(opening.index, id);
        } else {
            let unwanted = !self.peer.takes(self.journal.own(), id);
            assert!(!(unwanted && is_new && self.journal.stream(id).is_some()));
        }
        Ok(())
    }

    fn arrived(&mut self, index: u32, first: Offset, records: &Records) -> Result<(), Broken> {
        if records.is_empty() || first.get().checked_add(records.span()).is_none() {
            // The decoder of frames lets none of these through.
            return Ok(());
        }
        let before = self.open.get(&index).map(|&id| (id, self.end(id)));
        let fate = self.session.records(index, first, records)?;
        let Some((id, (next, ..))) = before else {
            assert_ne!(fate, Fate::Later, "waits for a stream that it does not take");
            return Ok(());
        };
        if fate == Fate::Stopped {
            self.open.remove(&index);
        }
        if fate == Fate::Taken && next.since(first) < records.span() {
            assert!(first <= next, "takes records behind a hole");
            self.taken.entry(id).or_default().append(&records.after(next.since(first)));
        } else {
            assert_eq!(self.end(id).0, next, "took what it refused");
        }
        Ok(())
    }

    /// What is given again is durable, without a gap, and no more than was asked for.
    fn fetch(&self, wanted: &Excerpt) {
        let Some(parts) = self.session.excerpt(wanted) else { return };
        let mut next = wanted.from;
        for (first, records) in parts {
            assert_eq!(first, next);
            next = first.forward(records.span());
        }
        let synced = self.journal.stream(wanted.stream).map(|it| it.watermarks().synced);
        assert!(next <= wanted.until && Some(next.prev()) <= synced);
    }

    /// What is shipped is what is durable, without a gap.
    fn ship(&mut self) -> Result<(), Broken> {
        let mut decoder = DataDecoder::default();
        decoder.push(&self.session.ship());
        while let Some(frame) = decoder.next_frame().expect("what is shipped can be read") {
            match frame {
                DataFrame::Open(opening) => {
                    self.shipped.insert(opening.index, (opening.stream, opening.next));
                }
                DataFrame::Records { index, first, records } => {
                    let (id, next) = self.shipped.get_mut(&index).expect("it was opened");
                    assert_eq!(first, *next);
                    *next = first.forward(records.span());
                    let stream = self.journal.stream(*id).expect("it is held");
                    assert!(next.prev() <= stream.watermarks().synced);
                }
            }
        }
        for (id, acked) in self.session.acked() {
            let synced = self.journal.stream(id).map(|stream| stream.watermarks().synced);
            assert!(id.origin != self.journal.own() || Some(acked) <= synced);
        }
        Ok(())
    }

    /// What is acknowledged is durable.
    fn acknowledge(&mut self) -> Result<(), Broken> {
        for ack in self.session.acks() {
            let id = self.open.get(&ack.index).expect("only what was opened is acknowledged");
            let stream = self.journal.stream(*id).expect("it is held");
            assert!(ack.durable <= stream.watermarks().synced && ack.applied <= ack.durable);
            let (next, running, _) = stream.end();
            if let Some(claimed) = ack.running.filter(|_| ack.durable == next.prev()) {
                assert_eq!(claimed, running);
            }
        }
        Ok(())
    }

    /// All that was taken is read again, and nothing else.
    fn check(&mut self) {
        for stream in self.journal.streams() {
            stream.sync().expect("nothing fails on this disk");
            let (next, running, _) = stream.end();
            if stream.id() == id(0) {
                continue;
            }
            let taken = self.taken.entry(stream.id()).or_default().take();
            assert_eq!(next, Offset::FIRST.forward(taken.span()));
            assert_eq!(running, taken.running(Running::START));
            let (mut read, mut reader) =
                (RecordsBuf::new(), stream.read(Offset::FIRST).expect("all is held"));
            while let Some(block) = reader.next_block().expect("what was written can be read") {
                read.append(&block.records);
            }
            assert_eq!(read.take(), taken);
        }
    }

    fn own(&self) -> (Offset, Running) {
        let own = self.journal.own();
        let mut streams = self.journal.streams().into_iter().filter(|it| it.id().origin == own);
        let (next, running, _) = streams.next().expect("it was opened first").end();
        assert!(streams.next().is_none(), "the peer made a stream of ours");
        (next, running)
    }

    fn end(&self, id: StreamId) -> (Offset, Running) {
        let end = self.journal.stream(id).map(|stream| stream.end());
        end.map_or((Offset::FIRST, Running::START), |(next, running, _)| (next, running))
    }

    fn claimed(&self, id: StreamId, claim: Claim) -> Option<Running> {
        match claim {
            Claim::None => None,
            Claim::Right => Some(self.end(id).1),
            Claim::Some(value) => Some(Running::new(value)),
        }
    }
}

fn encoded(kinds: &[Kind]) -> Records {
    let mut buf = RecordsBuf::new();
    for record in kinds.iter().map(|kind| record(*kind)) {
        // No more are numbered than can be.
        let span = record.as_ref().map_or(1, Record::span);
        if buf.span().checked_add(span).is_none() {
            break;
        }
        match record {
            Some(record) => buf.push(&record),
            // A commit without its position.
            None => buf.push_encoded(&[2], 1),
        }
    }
    buf.take()
}

fn record(kind: Kind) -> Option<Record> {
    Some(match kind {
        Kind::Begin => Record::Begin { xid: 1, lsn: Lsn::new(1), time: Timestamp::default() },
        Kind::Insert(size) => {
            let value = Value::Bytes(Bytes::from(vec![size; size.into()]));
            Record::Insert { relation: RelationId(1), new: Row(vec![value]) }
        }
        Kind::Commit => Record::Commit { end: Lsn::new(2) },
        Kind::Abort => Record::Abort,
        Kind::CopyBegin { ours } => Record::CopyBegin(Copy {
            lsn: Lsn::new(1),
            audience: if ours { vec![] } else { vec![Origin::from_bytes([7; 16])] },
            carriers: vec![],
            tables: vec![],
        }),
        Kind::CopyEnd => Record::CopyEnd { rows: 0 },
        Kind::CopyAbort => Record::CopyAbort,
        Kind::Skip { count, running } => {
            Record::Skip { count: u64::from(count).max(1), running: Running::new(running) }
        }
        Kind::SkipFar { count } => Record::Skip { count: count.max(1), running: Running::START },
        Kind::Unreadable => return None,
    })
}

fn streams(choice: u8) -> Streams {
    match choice % 4 {
        0 => Streams::Own,
        1 => Streams::Listed(vec![id(3).origin]),
        _ => Streams::All,
    }
}

/// Ours, another of ours, the peer's, a second of the peer's, and a third node's.
fn id(number: u8) -> StreamId {
    let (key, epoch) = [(OURS, 1), (OURS, 2), (THEIRS, 1), (THIRD, 1), (THEIRS, 2)]
        [usize::from(number) % 5]
        .to_owned();
    StreamId { origin: self::key(key).origin(), epoch: Epoch::from_bytes([epoch; 16]) }
}

fn key(number: u8) -> PublicKey {
    PublicKey::from_bytes([number; 32])
}

const OURS: u8 = 1;
const THEIRS: u8 = 2;
const THIRD: u8 = 3;

/// So that one input does not take for ever.
const ACTIONS_MAX: usize = 48;

/// A budget that a few records fill.
const SMALL_BUDGET: u64 = 8 << 10;
