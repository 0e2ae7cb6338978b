//! What is said of room, and what crosses it on the wire.

use super::*;
use crate::frame::Holding;

const BUDGET: u64 = 3 << 20;

/// A node with more to ship than the other has room for.
fn much() -> Node {
    let node = Node::new(1);
    for xid in 1..40 {
        node.append(&transaction(xid, 50, 2_000));
    }
    node
}

/// Ships until there is no room for more at the other end.
fn fill(flow: &mut Flow, to: &Node) {
    while let Some(wire) = flow.ship() {
        flow.decoder.push(&wire);
        while let Some(frame) = flow.decoder.next_frame().unwrap() {
            match frame {
                DataFrame::Open(opening) => assert_eq!(flow.receiver.open(&opening), Ok(None)),
                DataFrame::Records { index, first, records } => {
                    let mut later = || {
                        matches!(flow.receiver.take(index, first, &records), Ok(Taken::Later(_)))
                    };
                    // The first time it is only the disk that has to catch up.
                    if later() && {
                        to.sync();
                        later()
                    } {
                        return;
                    }
                }
            }
        }
    }
    panic!("there was room for all of it");
}

/// Applies and lets go of all that is held of a stream.
fn empty(node: &Node, id: StreamId) {
    node.sync();
    let stream = node.journal.stream(id).unwrap();
    stream.trim(stream.watermarks().synced, true).unwrap();
}

/// What was shipped to a full node, over a connection whose opening crosses the word that there is no room.
fn crossing(a: &Node, b: &Node) -> (Flow, Holding) {
    fill(&mut Flow::new(a, b), b);
    let mut receiver = Receiver::new(b.journal.clone(), peer(a, Streams::All, Streams::All));
    let said = receiver.holdings();
    let [full] = said[..] else { panic!("{said:?}") };
    assert!(!full.room);
    let mut sender =
        Sender::new(a.journal.clone(), peer(b, Streams::All, Streams::All), BTreeMap::new());
    sender.holds(vec![Holding { room: true, ..full }]).unwrap();
    sender.wants(Streams::All);
    (Flow { sender, receiver, decoder: DataDecoder::default(), shipped: 0 }, full)
}

#[test]
fn a_stream_that_is_being_taken_is_not_told_to_wait() {
    let (a, b) = (much(), Node::with_budget(2, BUDGET));
    let mut flow = Flow::new(&a, &b);
    fill(&mut flow, &b);
    // It is new here since the greeting, so it is among what the peer is to know.
    let said = flow.receiver.holdings();
    assert!(said.len() == 1 && said[0].room, "{said:?}");
    assert!(!flow.receiver.awaits_room());
}

#[test]
fn an_opening_that_crosses_the_word_of_no_room_waits_for_room() {
    let (a, b) = (much(), Node::with_budget(2, BUDGET));
    let (mut flow, full) = crossing(&a, &b);
    let before = b.held(a.own_id());
    let wire = flow.ship().unwrap();
    assert_eq!(flow.arrive(&wire), []);
    assert!(flow.receiver.awaits_room());
    assert_eq!(b.held(a.own_id()), before, "what is on its way is dropped");

    flow.sender.holds(vec![full]).unwrap();
    assert!(flow.ship().is_none());
    empty(&b, a.own_id());
    let room = flow.receiver.with_room(false);
    assert!(room.len() == 1 && room[0].room, "{room:?}");
    flow.sender.holds(room).unwrap();
    let wire = flow.ship().unwrap();
    assert_eq!(flow.arrive(&wire), []);
    assert!(b.held(a.own_id()).0 > before.0);
}

#[test]
fn an_opening_that_crosses_both_words_may_come_again_once() {
    let (a, b) = (much(), Node::with_budget(2, BUDGET));
    let (mut flow, full) = crossing(&a, &b);
    let before = b.held(a.own_id());
    let crossing = flow.ship().unwrap();
    empty(&b, a.own_id());
    let room = flow.receiver.with_room(false);
    assert_eq!(flow.arrive(&crossing), []);
    let taken = b.held(a.own_id());
    assert!(taken.0 > before.0);

    flow.sender.holds(vec![full]).unwrap();
    flow.sender.holds(room.clone()).unwrap();
    let again = flow.ship().unwrap();
    assert_eq!(flow.arrive(&again), []);
    assert_eq!(b.held(a.own_id()), taken, "the same comes again");
    let further = flow.ship().unwrap();
    assert_eq!(flow.arrive(&further), []);
    assert!(b.held(a.own_id()).0 > taken.0);

    // Once more than it was called is too often.
    flow.sender.holds(vec![full]).unwrap();
    flow.sender.holds(room).unwrap();
    let too_often = flow.ship().unwrap();
    flow.decoder.push(&too_often);
    let Some(DataFrame::Open(opening)) = flow.decoder.next_frame().unwrap() else { panic!() };
    assert!(flow.receiver.open(&opening).is_err());
}
