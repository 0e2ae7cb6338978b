//! Two halves of a session and a wire between them that is cut anywhere.

mod copies;
mod room;
mod rules;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;
use thinwire_engine::{
    codec::{Records, RecordsBuf},
    journal::{Journal, Options, Stream},
    model::{
        Copy, CopyTable, Epoch, Lsn, Offset, Origin, Record, Relation, RelationId, ReplicaIdentity,
        Row, Running, StreamId, Timestamp, Value,
    },
    storage::disk::RealDisk,
};

use super::{
    receiver::{Receiver, Taken},
    sender::{Effect, Outgoing, Sender},
};
use crate::{
    frame::{DataDecoder, DataFrame, Stop, data_header, put_opening},
    identity::PublicKey,
    peer::{Peer, Rules, Streams},
};

/// A node: a key and a journal.
struct Node {
    key: PublicKey,
    journal: Arc<Journal>,
    _dir: TempDir,
}

impl Node {
    fn new(number: u8) -> Self {
        Self::with_budget(number, 1 << 30)
    }

    fn with_budget(number: u8, budget: u64) -> Self {
        let key = PublicKey::from_bytes([number; 32]);
        let dir = tempfile::tempdir().unwrap();
        let options = Options { own: key.origin(), segment: 64 << 10, budget };
        let (journal, unopened) =
            Journal::open(Arc::new(RealDisk), &dir.path().join("journal"), options).unwrap();
        assert!(unopened.is_empty());
        Self { key, journal: Arc::new(journal), _dir: dir }
    }

    fn own(&self) -> Arc<Stream> {
        self.journal.open_stream(self.own_id()).unwrap()
    }

    fn own_id(&self) -> StreamId {
        StreamId { origin: self.key.origin(), epoch: Epoch::from_bytes([1; 16]) }
    }

    fn append(&self, records: &[Record]) -> Arc<Stream> {
        let stream = self.own();
        let mut buf = RecordsBuf::new();
        records.iter().for_each(|record| buf.push(record));
        stream.append(buf.take()).unwrap();
        stream.sync().unwrap();
        stream
    }

    fn sync(&self) {
        for stream in self.journal.streams() {
            stream.sync().unwrap();
        }
    }

    fn held(&self, id: StreamId) -> (Offset, Running) {
        let (next, running, _) = self.journal.stream(id).unwrap().end();
        (next.prev(), running)
    }

    fn records(&self, id: StreamId) -> Vec<Record> {
        let mut reader = self.journal.stream(id).unwrap().read(Offset::FIRST).unwrap();
        let mut all = Vec::new();
        while let Some(block) = reader.next_block().unwrap() {
            all.extend(block.records.decode(block.first).map(|record| record.unwrap().1));
        }
        all
    }
}

/// What goes from one node to another over one connection.
struct Flow {
    sender: Sender,
    receiver: Receiver,
    decoder: DataDecoder,
    /// Bytes of records that the sender gave out.
    shipped: usize,
}

impl Flow {
    fn new(from: &Node, to: &Node) -> Self {
        Self::with(from, to, Streams::All, Streams::All, BTreeMap::new())
    }

    fn with(
        from: &Node,
        to: &Node,
        send: Streams,
        receive: Streams,
        serve_from: BTreeMap<StreamId, Offset>,
    ) -> Self {
        let mut receiver =
            Receiver::new(to.journal.clone(), peer(from, Streams::All, receive.clone()));
        let mut sender =
            Sender::new(from.journal.clone(), peer(to, send, Streams::All), serve_from);
        sender.holds(receiver.holdings()).unwrap();
        sender.wants(receive);
        Self { sender, receiver, decoder: DataDecoder::default(), shipped: 0 }
    }

    /// The next batch, as it is on the wire.
    fn ship(&mut self) -> Option<Vec<u8>> {
        let batch = self.sender.next_batch();
        let mut wire = Vec::new();
        for outgoing in &batch {
            match outgoing {
                Outgoing::Open(opening) => put_opening(opening, &mut wire),
                Outgoing::Run(index, run) => {
                    data_header(*index, run.first, &run.records, &mut wire);
                    wire.extend_from_slice(run.records.bytes());
                    self.shipped += run.records.bytes().len();
                }
            }
        }
        (!batch.is_empty()).then_some(wire)
    }

    /// Bytes arrive. Returns what the receiver refuses.
    fn arrive(&mut self, wire: &[u8]) -> Vec<Stop> {
        self.decoder.push(wire);
        let mut stops = Vec::new();
        while let Some(frame) = self.decoder.next_frame().unwrap() {
            match frame {
                DataFrame::Open(opening) => stops.extend(self.receiver.open(&opening).unwrap()),
                DataFrame::Records { index, first, records } => {
                    stops.extend(self.receiver.inspect(index, &records).unwrap());
                    stops.extend(self.take(index, first, &records));
                }
            }
        }
        stops
    }

    /// Records are taken. Where the journal has gathered as much as it may, it is synced first.
    fn take(&mut self, index: u32, first: Offset, records: &Records) -> Option<Stop> {
        let mut taken = self.receiver.take(index, first, records).unwrap();
        if let Taken::Later(stream) = &taken {
            stream.sync().unwrap();
            taken = self.receiver.take(index, first, records).unwrap();
        }
        match taken {
            Taken::Done => None,
            Taken::Later(_) => panic!("the journal is full"),
            Taken::Stopped(stop) => Some(stop),
        }
    }

    /// Ships until there is nothing left; makes it durable and acknowledges it.
    fn run(&mut self, to: &Node) -> (Vec<Stop>, Vec<Effect>) {
        let mut stops = Vec::new();
        while let Some(wire) = self.ship() {
            stops.extend(self.arrive(&wire));
        }
        to.sync();
        for ack in self.receiver.acks() {
            self.sender.acked(&ack).unwrap();
        }
        (stops, self.sender.effects())
    }
}

fn peer(node: &Node, send: Streams, receive: Streams) -> Peer {
    Peer {
        name: format!("node {}", node.key.as_bytes()[0]),
        key: node.key,
        address: None,
        send,
        receive,
        rules: Rules::default(),
    }
}

fn begin(xid: u32) -> Record {
    Record::Begin { xid, lsn: Lsn::new(u64::from(xid) * 100), time: Timestamp::default() }
}

fn insert(bytes: usize, seed: u64) -> Record {
    // Real noise: what compresses well would fill neither segments nor frames.
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    let noise: Vec<u8> = (0..bytes).map(|_| byte()).collect();
    let new = Row(vec![Value::Bytes(Bytes::from(noise)), Value::Null]);
    Record::Insert { relation: RelationId(7), new }
}

fn commit() -> Record {
    Record::Commit { end: Lsn::new(9) }
}

fn relation() -> Record {
    Record::Relation(Relation {
        id: RelationId(7),
        schema: "public".into(),
        name: "t".into(),
        identity: ReplicaIdentity::Default,
        columns: vec![],
    })
}

fn transaction(xid: u32, rows: u64, bytes: usize) -> Vec<Record> {
    let mut records = vec![begin(xid)];
    records.extend((0..rows).map(|row| insert(bytes, row + u64::from(xid))));
    records.push(commit());
    records
}

fn copy(audience: &[&Node], rows: u64) -> Vec<Record> {
    let mut records = vec![
        Record::CopyBegin(Copy {
            lsn: Lsn::new(5),
            audience: audience.iter().map(|node| node.key.origin()).collect(),
            carriers: vec![],
            tables: vec![CopyTable { relation: RelationId(7), rows_estimate: rows }],
        }),
        relation(),
    ];
    records.extend((0..rows).map(|row| insert(900, row)));
    records.push(Record::CopyEnd { rows });
    records
}

/// The same stream at both.
fn assert_same(a: &Node, b: &Node, id: StreamId) {
    assert_eq!(a.held(id), b.held(id));
}

#[test]
fn a_stream_arrives_whole_and_is_acknowledged() {
    let (a, b) = (Node::new(1), Node::new(2));
    for xid in 1..50 {
        a.append(&transaction(xid, 20, 100));
    }
    let mut flow = Flow::new(&a, &b);
    let (stops, effects) = flow.run(&b);
    assert_eq!(stops, []);
    let delivered: u64 = effects
        .iter()
        .map(|effect| match effect {
            Effect::Delivered(bytes) => *bytes,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(delivered, flow.shipped as u64);
    assert_same(&a, &b, a.own_id());
    assert_eq!(a.records(a.own_id()), b.records(a.own_id()));
    let (_, marks) = flow.sender.marks().next().unwrap();
    assert_eq!((marks.shipped, marks.acked), (Offset::new(49 * 22), Offset::new(49 * 22)));

    a.append(&transaction(50, 1, 1));
    flow.sender.moved(a.own_id());
    flow.run(&b);
    assert_same(&a, &b, a.own_id());
}

#[test]
fn only_what_is_durable_is_shipped() {
    let (a, b) = (Node::new(1), Node::new(2));
    a.append(&transaction(1, 1, 1));
    a.own().append(Records::one(&begin(2))).unwrap();
    Flow::new(&a, &b).run(&b);
    assert_eq!(b.held(a.own_id()).0, Offset::new(3));
}

#[test]
fn only_what_is_durable_is_acknowledged() {
    let (a, b) = (Node::new(1), Node::new(2));
    a.append(&transaction(1, 1, 1));
    let mut flow = Flow::new(&a, &b);
    while let Some(wire) = flow.ship() {
        flow.arrive(&wire);
    }
    assert_eq!(flow.receiver.acks(), []);
    b.sync();
    let acks = flow.receiver.acks();
    assert_eq!((acks.len(), acks[0].durable), (1, Offset::new(3)));
    assert_eq!(acks[0].running, Some(b.held(a.own_id()).1));
    assert_eq!(flow.receiver.acks(), []);
}

#[test]
fn both_directions_do_not_echo() {
    let (a, b) = (Node::new(1), Node::new(2));
    a.append(&transaction(1, 3, 10));
    b.append(&transaction(2, 3, 10));
    for _ in 0..3 {
        Flow::new(&a, &b).run(&b);
        Flow::new(&b, &a).run(&a);
    }
    assert_eq!(a.held(a.own_id()), b.held(a.own_id()));
    assert_eq!(a.held(b.own_id()), b.held(b.own_id()));
    assert_eq!(a.held(a.own_id()).0, Offset::new(5));
}

#[test]
fn a_hub_forwards_what_it_holds() {
    let (a, hub, c) = (Node::new(1), Node::new(2), Node::new(3));
    a.append(&transaction(1, 30, 1_000));
    Flow::new(&a, &hub).run(&hub);
    Flow::new(&hub, &c).run(&c);
    assert_same(&a, &c, a.own_id());
    let mut back = Flow::new(&hub, &a);
    back.run(&a);
    assert_eq!(back.shipped, 0);
}

#[test]
fn what_the_peer_got_from_elsewhere_is_not_shipped() {
    let (a, hub, c) = (Node::new(1), Node::new(2), Node::new(3));
    a.append(&transaction(1, 500, 1_000));
    Flow::new(&a, &hub).run(&hub);
    let mut slow = Flow::new(&hub, &c);
    let first = slow.ship().unwrap();
    slow.arrive(&first);
    Flow::new(&a, &c).run(&c);
    let ack = slow.receiver.acks();
    slow.sender.acked(&ack[0]).unwrap();
    let before = slow.shipped;
    slow.run(&c);
    assert_eq!(slow.shipped, before);
    assert_same(&a, &c, a.own_id());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Frames are in flight when the link is cut; those are all that is ever sent again.
    #[test]
    fn cuts_anywhere_cost_the_unacknowledged_window_at_most(
        sizes in proptest::collection::vec((1_u64..60, 0_usize..3_000), 1..25),
        cuts in proptest::collection::vec((1_usize..8, 0_usize..4, any::<bool>()), 0..20),
    ) {
        let (a, b) = (Node::new(1), Node::new(2));
        for (xid, (rows, bytes)) in sizes.iter().enumerate() {
            a.append(&transaction(u32::try_from(xid).unwrap() + 1, *rows, *bytes));
        }
        let total: usize = a.records(a.own_id()).iter().map(|record| Records::one(record).bytes().len()).sum();
        let (mut shipped, mut lost) = (0, 0);
        for (arrives, in_flight, durable) in cuts {
            let mut flow = Flow::new(&a, &b);
            for _ in 0..arrives {
                let Some(wire) = flow.ship() else { break };
                prop_assert_eq!(flow.arrive(&wire), []);
            }
            let before = flow.shipped;
            for at in 0..in_flight {
                let Some(wire) = flow.ship() else { break };
                if at == 0 {
                    flow.arrive(&wire[..wire.len() / 2]);
                }
            }
            lost += flow.shipped - before;
            shipped += flow.shipped;
            if durable {
                b.sync();
            }
        }
        let mut last = Flow::new(&a, &b);
        let (stops, _) = last.run(&b);
        prop_assert_eq!(stops, []);
        assert_same(&a, &b, a.own_id());
        prop_assert_eq!(a.records(a.own_id()), b.records(a.own_id()));
        prop_assert!(shipped + last.shipped <= total + lost, "{} + {} > {} + {}", shipped, last.shipped, total, lost);
    }
}
