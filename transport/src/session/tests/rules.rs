//! Each rule of the session's header, and each lie that it must see through.

use thinwire_engine::journal::Watermarks;

use super::{
    super::{DIVERGED, MALFORMED, OWN_ORIGIN, PEER_AHEAD, UNPROVEN, UNWANTED, sender::PeerMarks},
    *,
};
use crate::frame::{Ack, Holding, Opening};

fn marks(node: &Node, id: StreamId) -> Watermarks {
    node.journal.stream(id).unwrap().watermarks()
}

fn halt_code(node: &Node, id: StreamId) -> Option<String> {
    let stream = node.journal.stream(id)?;
    stream.halted().borrow().as_ref().map(|halt| halt.code.clone())
}

/// How far the peer is believed to hold the only stream that goes to it.
fn acked(sender: &Sender) -> Offset {
    sender.marks().next().map_or(Offset::ZERO, |(_, marks)| marks.acked)
}

fn skips(records: &[Record]) -> u64 {
    records
        .iter()
        .map(|record| match record {
            Record::Skip { count, .. } => *count,
            _ => 0,
        })
        .sum()
}

#[test]
fn a_copy_for_somebody_else_is_withheld_and_the_checksum_stays() {
    let (a, b, c) = (Node::new(1), Node::new(2), Node::new(3));
    a.append(&transaction(1, 3, 100));
    a.append(&copy(&[&c], 200));
    a.append(&transaction(2, 3, 100));
    let mut flow = Flow::new(&a, &b);
    flow.run(&b);
    assert_same(&a, &b, a.own_id());
    let got = b.records(a.own_id());
    assert_eq!(skips(&got), 202);
    assert!(got.contains(&relation()));
    assert!(
        !got.iter().any(|record| matches!(record, Record::CopyBegin(_) | Record::CopyEnd { .. }))
    );
    assert!(flow.shipped < 3_000, "{}", flow.shipped);

    Flow::new(&a, &c).run(&c);
    assert_eq!(a.records(a.own_id()), c.records(a.own_id()));
}

#[test]
fn a_resume_inside_a_copy_neither_leaks_nor_withholds() {
    let (a, b, c) = (Node::new(1), Node::new(2), Node::new(3));
    let whole = copy(&[&c], 300);
    a.append(&whole[..150]);
    Flow::new(&a, &b).run(&b);
    Flow::new(&a, &c).run(&c);
    a.append(&whole[150..]);
    a.append(&transaction(2, 3, 100));
    Flow::new(&a, &b).run(&b);
    Flow::new(&a, &c).run(&c);
    assert_same(&a, &b, a.own_id());
    assert_eq!(skips(&b.records(a.own_id())), 302);
    assert_eq!(a.records(a.own_id()), c.records(a.own_id()));
}

#[test]
fn a_skipped_run_is_forwarded_and_split_anywhere() {
    let (a, hub, c, d) = (Node::new(1), Node::new(2), Node::new(3), Node::new(4));
    a.append(&transaction(1, 3, 100));
    let whole = copy(&[&d], 300);
    a.append(&whole[..100]);
    // One holder learns of the run in two parts, the other in one.
    Flow::new(&a, &c).run(&c);
    a.append(&whole[100..]);
    a.append(&transaction(2, 3, 100));
    Flow::new(&a, &hub).run(&hub);
    Flow::new(&hub, &c).run(&c);
    assert_same(&a, &c, a.own_id());
    assert_same(&a, &hub, a.own_id());
}

#[test]
fn a_newcomer_is_served_from_its_copy_on() {
    let (a, b) = (Node::new(1), Node::new(2));
    a.append(&transaction(1, 300, 900));
    let from = marks(&a, a.own_id()).synced.next();
    a.append(&copy(&[&b], 20));
    let serve = BTreeMap::from([(a.own_id(), from)]);
    let mut flow = Flow::with(&a, &b, Streams::Own, Streams::Own, serve);
    flow.run(&b);
    assert_same(&a, &b, a.own_id());
    let got = b.records(a.own_id());
    assert!(matches!(got[0], Record::Skip { count: 302, .. }));
    assert!(matches!(got[1], Record::CopyBegin(_)));

    a.append(&transaction(2, 1, 1));
    Flow::new(&a, &b).run(&b);
    assert_same(&a, &b, a.own_id());
}

#[test]
fn what_was_trimmed_is_asked_for_as_a_copy() {
    let (a, b) = (Node::new(1), Node::new(2));
    for xid in 1..9 {
        a.append(&transaction(xid, 30, 2_000));
    }
    let end = marks(&a, a.own_id()).synced;
    a.own().trim(end, true).unwrap();
    assert!(marks(&a, a.own_id()).first > Offset::FIRST);
    let mut flow = Flow::new(&a, &b);
    let (_, effects) = flow.run(&b);
    assert_eq!(effects, [Effect::CopyNeeded(a.own_id())]);
    assert_eq!(flow.shipped, 0);

    a.append(&copy(&[&b], 20));
    flow.sender.moved(a.own_id());
    flow.sender.serve_from(a.own_id(), end.next());
    let (_, effects) = flow.run(&b);
    assert!(matches!(effects[..], [Effect::Delivered(_)]), "{effects:?}");
    assert_same(&a, &b, a.own_id());
}

#[test]
fn a_rolled_back_disk_halts_its_own_stream() {
    let (a, b, rolled) = (Node::new(1), Node::new(2), Node::new(1));
    a.append(&transaction(1, 3, 10));
    rolled.append(&transaction(1, 3, 10));
    a.append(&transaction(2, 3, 10));
    Flow::new(&a, &b).run(&b);
    let mut flow = Flow::new(&rolled, &b);
    assert_eq!(acked(&flow.sender), Offset::ZERO, "what does not exist is acknowledged");
    let (_, effects) = flow.run(&b);
    let [Effect::Prove(prefix)] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(halt_code(&rolled, a.own_id()), None);
    let proof = flow.receiver.prove(&prefix).unwrap();
    flow.sender.proven(prefix, proof);
    let effects = flow.sender.effects();
    let [Effect::Stop(stop)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(stop.code, PEER_AHEAD);
    assert_eq!(acked(&flow.sender), Offset::ZERO);
    assert_eq!(halt_code(&rolled, a.own_id()).as_deref(), Some(PEER_AHEAD));
    assert_eq!(halt_code(&b, a.own_id()), None);
}

#[test]
fn what_was_acknowledged_before_proves_that_our_disk_was_rolled_back() {
    let (a, b, rolled) = (Node::new(1), Node::new(2), Node::new(1));
    a.append(&transaction(1, 3, 10));
    rolled.append(&transaction(1, 1, 10));
    let mut flow = Flow::new(&a, &b);
    flow.run(&b);
    let known: BTreeMap<_, _> = flow.sender.marks().collect();
    let mut flow = Flow::new(&rolled, &b);
    flow.sender.compare(known);
    let (_, effects) = flow.run(&b);
    assert!(matches!(&effects[..], [Effect::Stop(stop)] if stop.code == PEER_AHEAD), "{effects:?}");
    assert_eq!(halt_code(&rolled, a.own_id()).as_deref(), Some(PEER_AHEAD));
}

/// The end of a node's stream, of which another holds more and has trimmed that much; how it was asked, and what it said.
fn rolled_back_and_trimmed(a: &Node, b: &Node, rolled: &Node, known: u64) -> Flow {
    for xid in 1..9 {
        a.append(&transaction(xid, 30, 2_000));
    }
    rolled.append(&transaction(1, 30, 2_000));
    Flow::new(a, b).run(b);
    let held = b.journal.stream(a.own_id()).unwrap();
    held.trim(held.watermarks().synced, true).unwrap();
    assert!(held.watermarks().first.prev() > marks(rolled, a.own_id()).synced);
    let mut flow = Flow::new(rolled, b);
    let acked = PeerMarks { acked: Offset::new(known), ..PeerMarks::default() };
    flow.sender.compare(BTreeMap::from([(a.own_id(), acked)]));
    let (_, effects) = flow.run(b);
    let asked = effects.iter().find_map(|effect| match effect {
        Effect::Prove(prefix) => Some(*prefix),
        _ => None,
    });
    let proof = flow.receiver.prove(&asked.unwrap()).unwrap();
    assert_eq!(proof, None, "it cannot tell");
    flow.sender.proven(asked.unwrap(), proof);
    flow
}

#[test]
fn a_rolled_back_disk_halts_its_own_stream_though_its_peer_has_trimmed() {
    let (a, b, rolled) = (Node::new(1), Node::new(2), Node::new(1));
    let mut flow = rolled_back_and_trimmed(&a, &b, &rolled, 1);
    let effects = flow.sender.effects();
    assert!(matches!(&effects[..], [Effect::Stop(stop)] if stop.code == PEER_AHEAD), "{effects:?}");
    assert_eq!(halt_code(&rolled, a.own_id()).as_deref(), Some(PEER_AHEAD));
    assert_eq!(acked(&flow.sender), Offset::ZERO);

    // It stands still in the next connection too, whatever is remembered by then.
    let mut flow = Flow::new(&rolled, &b);
    let (_, effects) = flow.run(&b);
    assert!(matches!(&effects[..], [Effect::Stop(stop)] if stop.code == PEER_AHEAD), "{effects:?}");
}

#[test]
fn a_peer_that_cannot_tell_and_of_which_nothing_is_remembered_is_refused_alone() {
    let (a, b, rolled) = (Node::new(1), Node::new(2), Node::new(1));
    let mut flow = rolled_back_and_trimmed(&a, &b, &rolled, 0);
    let effects = flow.sender.effects();
    assert!(matches!(&effects[..], [Effect::Stop(stop)] if stop.code == UNPROVEN), "{effects:?}");
    assert_eq!(halt_code(&rolled, a.own_id()), None);
    rolled.append(&transaction(2, 3, 10));
    flow.sender.moved(a.own_id());
    assert!(flow.ship().is_none(), "nothing comes under numbers that it may hold");
}

/// A connection that ends before the peer has proven anything, and the one after it: what is remembered in it is
/// what was before, overlaid by what the first has left.
fn what_is_remembered_outlives_a_connection(paused: bool) {
    let (a, b, rolled) = (Node::new(1), Node::new(2), Node::new(1));
    for xid in 1..9 {
        a.append(&transaction(xid, 30, 2_000));
    }
    rolled.append(&transaction(1, 30, 2_000));
    Flow::new(&a, &b).run(&b);
    let held = b.journal.stream(a.own_id()).unwrap();
    held.trim(held.watermarks().synced, true).unwrap();
    let remembered = PeerMarks { acked: Offset::new(20), ..PeerMarks::default() };
    let mut known = BTreeMap::from([(a.own_id(), remembered)]);

    let mut cut = Flow::new(&rolled, &b);
    cut.sender.pause(paused);
    cut.sender.compare(known.clone());
    known.extend(cut.sender.marks());
    assert!(cut.ship().is_none());
    let asked = cut.sender.effects().iter().any(|effect| matches!(effect, Effect::Prove(_)));
    assert_eq!(asked, !paused);
    // What is captured meanwhile decides nothing.
    (2..9).for_each(|xid| drop(rolled.append(&transaction(xid, 30, 2_000))));
    known.extend(cut.sender.marks());
    cut.sender.stopped(a.own_id());
    known.extend(cut.sender.marks());
    assert_eq!(known[&a.own_id()], remembered);
}

#[test]
fn what_is_remembered_of_a_peer_outlives_a_cut_before_its_proof() {
    what_is_remembered_outlives_a_connection(false);
}

#[test]
fn what_is_remembered_of_a_peer_outlives_a_pause_before_its_proof() {
    what_is_remembered_outlives_a_connection(true);
}

#[test]
fn a_rolled_back_disk_halts_its_own_stream_in_the_connection_after_a_cut() {
    for paused in [false, true] {
        let (a, b, rolled) = (Node::new(1), Node::new(2), Node::new(1));
        a.append(&transaction(1, 3, 10));
        rolled.append(&transaction(1, 1, 10));
        Flow::new(&a, &b).run(&b);
        let remembered = PeerMarks { acked: Offset::new(1), ..PeerMarks::default() };
        let mut known = BTreeMap::from([(a.own_id(), remembered)]);
        let mut cut = Flow::new(&rolled, &b);
        cut.sender.pause(paused);
        cut.sender.compare(known.clone());
        assert!(cut.ship().is_none());
        known.extend(cut.sender.marks());

        let mut flow = Flow::new(&rolled, &b);
        flow.sender.compare(known);
        let (_, effects) = flow.run(&b);
        let asked = effects.iter().find_map(|effect| match effect {
            Effect::Prove(prefix) => Some(*prefix),
            _ => None,
        });
        flow.sender.proven(asked.unwrap(), None);
        assert_eq!(halt_code(&rolled, a.own_id()).as_deref(), Some(PEER_AHEAD));
    }
}

#[test]
fn a_peer_that_only_says_that_it_is_ahead_is_refused_alone() {
    let (a, b, c) = (Node::new(1), Node::new(2), Node::new(3));
    a.append(&transaction(1, 3, 10));
    let ahead = Holding {
        stream: a.own_id(),
        view: thinwire_engine::model::View::FULL,
        first: Offset::FIRST,
        last: Offset::new(90),
        running: Running::new(7),
        in_copy: false,
        durable: Offset::new(90),
        applied: Offset::ZERO,
        room: true,
    };
    for claim in [None, Some(Running::new(7))] {
        let peer_of = |node: &Node| peer(node, Streams::All, Streams::All);
        let mut sender = Sender::new(a.journal.clone(), peer_of(&b), BTreeMap::new());
        sender.holds(vec![ahead]).unwrap();
        sender.wants(Streams::All);
        assert!(sender.next_batch().is_empty());
        let effects = sender.effects();
        let [Effect::Prove(prefix)] = effects[..] else { panic!("{effects:?}") };
        sender.proven(prefix, claim);
        let effects = sender.effects();
        assert!(
            matches!(&effects[..], [Effect::Stop(stop)] if stop.code == UNPROVEN),
            "{effects:?}"
        );
        assert_eq!((acked(&sender), halt_code(&a, a.own_id())), (Offset::ZERO, None));
    }
    Flow::new(&a, &c).run(&c);
    assert_same(&a, &c, a.own_id());
}

#[test]
fn a_proof_is_given_to_the_origin_alone_and_once() {
    let (a, b, c) = (Node::new(1), Node::new(2), Node::new(3));
    a.append(&transaction(1, 3, 10));
    Flow::new(&a, &b).run(&b);
    let receiver_for =
        |node: &Node| Receiver::new(b.journal.clone(), peer(node, Streams::All, Streams::All));
    let prefix = crate::frame::Prefix { stream: a.own_id(), at: Offset::new(5) };
    let mut to_origin = receiver_for(&a);
    assert_eq!(to_origin.prove(&prefix).unwrap(), Some(b.held(a.own_id()).1));
    assert!(to_origin.prove(&prefix).is_err());
    assert_eq!(receiver_for(&c).prove(&prefix).unwrap(), None);
    let beyond = crate::frame::Prefix { at: Offset::new(6), ..prefix };
    assert_eq!(receiver_for(&a).prove(&beyond).unwrap(), None);
}

#[test]
fn a_stream_that_became_another_is_told_apart() {
    let (a, b, other) = (Node::new(1), Node::new(2), Node::new(1));
    a.append(&transaction(1, 3, 10));
    other.append(&transaction(7, 3, 10));
    other.append(&transaction(8, 3, 10));
    Flow::new(&a, &b).run(&b);
    let mut flow = Flow::new(&other, &b);
    let (_, effects) = flow.run(&b);
    let [Effect::Stop(stop)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(stop.code, DIVERGED);
    assert_eq!(flow.shipped, 0);
    assert_eq!(acked(&flow.sender), Offset::ZERO, "others count as ours");
    flow.receiver.stopped(stop);
    assert_eq!(halt_code(&b, a.own_id()).as_deref(), Some(DIVERGED));
    assert_same(&a, &b, a.own_id());

    // The right disk is back: the stream goes on by itself.
    a.append(&transaction(2, 3, 10));
    Flow::new(&a, &b).run(&b);
    assert_eq!(halt_code(&b, a.own_id()), None);
    assert_same(&a, &b, a.own_id());
}

#[test]
fn a_lying_opening_is_seen_through() {
    let (a, b) = (Node::new(1), Node::new(2));
    a.append(&transaction(1, 3, 10));
    Flow::new(&a, &b).run(&b);
    let mut receiver = Receiver::new(b.journal.clone(), peer(&a, Streams::All, Streams::All));
    let lie = Opening {
        index: 0,
        stream: a.own_id(),
        view: thinwire_engine::model::View::FULL,
        next: Offset::new(6),
        running: Some(Running::new(1)),
    };
    let stop = receiver.open(&lie).unwrap().unwrap();
    assert_eq!(stop.code, DIVERGED);
    assert_eq!(halt_code(&b, a.own_id()).as_deref(), Some(DIVERGED));

    let far = Opening { index: 1, next: Offset::new(99), running: None, ..lie };
    assert_eq!(receiver.open(&far).unwrap().unwrap().code, UNWANTED);
    assert!(receiver.open(&far).is_err());
}

#[test]
fn nobody_may_send_what_is_not_taken_from_it() {
    let (a, b, c) = (Node::new(1), Node::new(2), Node::new(3));
    c.append(&transaction(1, 3, 10));
    let mut receiver = Receiver::new(b.journal.clone(), peer(&a, Streams::All, Streams::Own));
    let opening = |index, stream| Opening {
        index,
        stream,
        view: thinwire_engine::model::View::FULL,
        next: Offset::FIRST,
        running: Some(Running::START),
    };
    assert_eq!(receiver.open(&opening(0, c.own_id())).unwrap().unwrap().code, UNWANTED);
    assert_eq!(receiver.open(&opening(1, b.own_id())).unwrap().unwrap().code, OWN_ORIGIN);
    let records = Records::one(&begin(1));
    assert!(receiver.inspect(0, &records).unwrap().is_none());
    assert!(matches!(receiver.take(0, Offset::FIRST, &records), Ok(Taken::Done)));
    assert!(receiver.take(9, Offset::FIRST, &records).is_err());
    assert!(b.journal.streams().is_empty());
}

#[test]
fn gaps_and_unreadable_records_are_refused() {
    let (a, b) = (Node::new(1), Node::new(2));
    a.append(&transaction(1, 3, 10));
    let mut flow = Flow::new(&a, &b);
    flow.run(&b);
    let records = Records::one(&begin(1));
    assert!(flow.receiver.take(0, Offset::new(7), &records).is_err());

    let nonsense = Records::parse(Bytes::from_static(&[2, 1, 0xFF]), 1).unwrap();
    let stop = flow.receiver.inspect(0, &nonsense).unwrap().unwrap();
    assert_eq!(stop.code, MALFORMED);
    assert_eq!(halt_code(&b, a.own_id()).as_deref(), Some(MALFORMED));
    assert!(!b.journal.stream(a.own_id()).unwrap().is_poisoned());
    assert_same(&a, &b, a.own_id());
}

#[test]
fn forged_acks_change_nothing() {
    let (a, b) = (Node::new(1), Node::new(2));
    a.append(&transaction(1, 3, 10));
    let mut flow = Flow::new(&a, &b);
    flow.run(&b);
    let ack = |index, durable| Ack {
        index,
        durable: Offset::new(durable),
        applied: Offset::new(durable),
        running: None,
    };
    assert!(flow.sender.acked(&ack(0, 6)).is_err());
    assert!(flow.sender.acked(&ack(1, 1)).is_err());
    flow.sender.acked(&ack(0, 2)).unwrap();
    flow.sender.acked(&ack(0, 0)).unwrap();
    assert_eq!(acked(&flow.sender), Offset::new(5));
}

#[test]
fn an_ack_with_another_checksum_stops_the_stream() {
    let (a, b) = (Node::new(1), Node::new(2));
    a.append(&transaction(1, 3, 10));
    let mut flow = Flow::new(&a, &b);
    while flow.ship().is_some() {}
    let lie = Ack {
        index: 0,
        durable: Offset::new(5),
        applied: Offset::ZERO,
        running: Some(Running::new(1)),
    };
    flow.sender.acked(&lie).unwrap();
    let effects = flow.sender.effects();
    assert!(matches!(&effects[1], Effect::Stop(stop) if stop.code == DIVERGED), "{effects:?}");
    flow.sender.acked(&Ack { running: None, ..lie }).unwrap();
    assert_eq!(acked(&flow.sender), Offset::ZERO, "others count as ours");
}

#[test]
fn what_is_held_anew_counts_again_once_it_is_the_same() {
    let (a, b) = (Node::new(1), Node::new(2));
    a.append(&transaction(1, 3, 10));
    Flow::new(&a, &b).run(&b);
    let peer_of = |node: &Node| peer(node, Streams::All, Streams::All);
    let right = Receiver::new(b.journal.clone(), peer_of(&a)).holdings()[0];
    let mut sender = Sender::new(a.journal, peer_of(&b), BTreeMap::new());
    sender.holds(vec![Holding { running: Running::new(1), ..right }]).unwrap();
    sender.wants(Streams::All);
    sender.next_batch();
    assert_eq!(acked(&sender), Offset::ZERO);
    sender.holds(vec![right]).unwrap();
    sender.next_batch();
    assert_eq!(acked(&sender), Offset::new(5));
}

#[test]
fn a_peer_that_lost_durable_records_is_named_and_served_again() {
    let (a, b) = (Node::new(1), Node::new(2));
    a.append(&transaction(1, 3, 10));
    let mut flow = Flow::new(&a, &b);
    flow.run(&b);
    let known: BTreeMap<_, _> = flow.sender.marks().collect();
    let empty = Node::new(2);
    let mut flow = Flow::new(&a, &empty);
    flow.sender.compare(known);
    let (_, effects) = flow.run(&empty);
    assert_eq!(effects[0], Effect::WentBack(a.own_id(), Offset::new(5), Offset::ZERO));
    assert_same(&a, &empty, a.own_id());
}

#[test]
fn a_full_journal_makes_the_receiver_wait() {
    let (a, b) = (Node::new(1), Node::with_budget(2, 3 << 20));
    for xid in 1..40 {
        a.append(&transaction(xid, 50, 2_000));
    }
    let mut flow = Flow::new(&a, &b);
    let mut full = None;
    'ship: while let Some(wire) = flow.ship() {
        flow.decoder.push(&wire);
        while let Some(frame) = flow.decoder.next_frame().unwrap() {
            match frame {
                DataFrame::Open(opening) => {
                    assert!(flow.receiver.open(&opening).unwrap().is_none())
                }
                DataFrame::Records { index, first, records } => {
                    let mut later = || {
                        matches!(flow.receiver.take(index, first, &records), Ok(Taken::Later(_)))
                    };
                    // The first time it is only the disk that has to catch up.
                    if later() && {
                        b.sync();
                        later()
                    } {
                        full = Some((index, first, records));
                        break 'ship;
                    }
                }
            }
        }
    }
    let (index, first, records) = full.unwrap();
    let stream = b.journal.stream(a.own_id()).unwrap();
    stream.trim(stream.watermarks().synced, true).unwrap();
    assert!(matches!(flow.receiver.take(index, first, &records), Ok(Taken::Done)));
}

#[test]
fn a_pause_keeps_everything_for_later() {
    let (a, b) = (Node::new(1), Node::new(2));
    a.append(&transaction(1, 3, 10));
    let mut flow = Flow::new(&a, &b);
    flow.sender.pause(true);
    assert!(flow.ship().is_none());
    flow.sender.pause(false);
    flow.run(&b);
    assert_same(&a, &b, a.own_id());
}

#[test]
fn streams_take_turns() {
    let (hub, c) = (Node::new(9), Node::new(8));
    let edges: Vec<Node> = (1..7).map(Node::new).collect();
    for edge in &edges {
        edge.append(&transaction(1, 100, 2_000));
        Flow::new(edge, &hub).run(&hub);
    }
    let mut flow = Flow::new(&hub, &c);
    let mut seen = Vec::new();
    for _ in 0..12 {
        for outgoing in flow.sender.next_batch() {
            if let Outgoing::Run(index, _) = outgoing {
                seen.push(index);
            }
        }
    }
    let first: std::collections::BTreeSet<_> = seen.iter().take(4).collect();
    assert_eq!(first.len(), 4, "{seen:?}");
}

#[test]
fn an_origin_nobody_heard_of_is_no_trouble() {
    let (a, b) = (Node::new(1), Node::new(2));
    a.append(&transaction(1, 3, 10));
    let mut flow = Flow::with(
        &a,
        &b,
        Streams::Listed(vec![Origin::from_bytes([0; 16])]),
        Streams::All,
        BTreeMap::new(),
    );
    flow.run(&b);
    assert_eq!(flow.shipped, 0);
}

#[test]
fn a_peer_that_opens_before_what_it_was_told_is_told_again_in_acks() {
    let (a, b) = (Node::new(1), Node::new(2));
    a.append(&transaction(1, 3, 10));
    let mut late = Flow::new(&a, &b);
    // The same comes by another way, and what is said of it crosses the opening.
    Flow::new(&a, &b).run(&b);
    assert_eq!(late.receiver.holdings().len(), 1);
    late.run(&b);
    assert_eq!(acked(&late.sender), Offset::new(5));
}
