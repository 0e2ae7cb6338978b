//! Copies for some nodes only, and streams that come by several paths: nobody is left without the rows.

use super::*;
use crate::frame::Holding;

/// A copy of a few rows, which some load and others pass on.
fn copy_by(audience: &[&Node], carriers: &[&Node]) -> Vec<Record> {
    let mut records = copy(audience, 20);
    let Record::CopyBegin(copy) = &mut records[0] else { panic!("a copy begins otherwise") };
    copy.carriers = carriers.iter().map(|node| node.key.origin()).collect();
    records
}

fn end_of(node: &Node, id: StreamId) -> Offset {
    node.held(id).0
}

/// Ships what a node lacks from where its copy begins.
fn serve(from: &Node, to: &Node, id: StreamId, copy: Offset) -> Flow {
    Flow::with(from, to, Streams::All, Streams::All, BTreeMap::from([(id, copy)]))
}

/// Ships three transactions of a node to another one that lacks the second and has a copy instead.
fn brought_up_by_a_copy(a: &Node, b: &Node) -> StreamId {
    let id = a.own_id();
    a.append(&transaction(1, 3, 100));
    Flow::new(a, b).run(b);
    a.append(&transaction(2, 300, 100));
    let begins = end_of(a, id).next();
    a.append(&copy_by(&[b], &[]));
    a.append(&transaction(3, 3, 100));
    serve(a, b, id, begins).run(b);
    assert!(b.records(id).contains(&Record::CopyEnd { rows: 20 }));
    id
}

#[test]
fn what_was_trimmed_never_arrives_without_the_copy_that_makes_up_for_it() {
    let (a, b) = (Node::new(1), Node::new(2));
    let id = a.own_id();
    a.append(&transaction(1, 300, 100));
    let begins = a.held(id).0.next();
    let newcomer = Node::new(3);
    a.append(&copy_by(&[&newcomer], &[]));
    a.append(&transaction(2, 3, 100));
    // Holds all but the copy, which was not for it.
    Flow::new(&a, &b).run(&b);
    let first = serve(&a, &newcomer, id, begins).ship().unwrap();
    for cut in (0..=first.len()).step_by(89).chain([first.len()]) {
        let n = Node::new(3);
        serve(&a, &n, id, begins).arrive(&first[..cut]);
        n.sync();
        // The other path is up sooner.
        Flow::new(&b, &n).run(&n);
        serve(&a, &n, id, begins).run(&n);
        assert_same(&a, &n, id);
        let got = n.records(id);
        let rows = got.iter().filter(|record| matches!(record, Record::Insert { .. })).count();
        let has_copy = got.contains(&Record::CopyEnd { rows: 20 });
        assert!(has_copy || rows == 303, "cut at {cut} of {}: {rows} rows", first.len());
    }
}

#[test]
fn who_was_brought_up_by_a_copy_does_not_pass_on_what_it_lacks() {
    let (a, b, n) = (Node::new(1), Node::new(2), Node::new(3));
    let id = brought_up_by_a_copy(&a, &b);
    let mut flow = Flow::new(&b, &n);
    let (stops, effects) = flow.run(&n);
    assert_eq!(stops, []);
    assert!(effects.contains(&Effect::CopyNeeded(id)), "{effects:?}");
    assert_eq!(end_of(&n, id), Offset::new(5), "what is whole is shipped all the same");

    // The one that is asked for comes by the same path.
    let begins = end_of(&a, id).next();
    a.append(&copy_by(&[&n], &[&b]));
    a.append(&transaction(4, 3, 100));
    Flow::new(&a, &b).run(&b);
    flow.sender.moved(id);
    assert!(flow.ship().is_none());
    flow.sender.serve_from(id, begins);
    assert_eq!(flow.run(&n).0, []);
    assert_same(&a, &n, id);
    let got = n.records(id);
    assert!(matches!(got[5], Record::Skip { .. }) && matches!(got[6], Record::CopyBegin(_)));
    assert!(got.contains(&Record::CopyEnd { rows: 20 }));
}

#[test]
fn nothing_is_skipped_for_a_copy_that_the_peer_does_not_get() {
    let (a, b, n) = (Node::new(1), Node::new(2), Node::new(3));
    let id = a.own_id();
    a.append(&transaction(1, 3, 100));
    let of_another = end_of(&a, id).next();
    a.append(&copy_by(&[&b], &[]));
    a.append(&transaction(2, 3, 100));
    for wrong in [of_another, of_another.prev(), end_of(&a, id)] {
        let mut flow = serve(&a, &n, id, wrong);
        let (stops, effects) = flow.run(&n);
        assert_eq!((stops, effects), (vec![], vec![Effect::CopyNeeded(id)]));
        assert_eq!(end_of(&n, id), Offset::ZERO);
    }
    // The one that is made for it is served all the same.
    let mut flow = serve(&a, &n, id, of_another);
    flow.run(&n);
    let begins = end_of(&a, id).next();
    a.append(&copy_by(&[&n], &[]));
    flow.sender.moved(id);
    flow.sender.serve_from(id, begins);
    flow.run(&n);
    assert_same(&a, &n, id);
    assert!(n.records(id).contains(&Record::CopyEnd { rows: 20 }));
}

#[test]
fn who_waits_for_a_copy_and_for_room_is_begun_with_anew() {
    let (a, b, n) = (Node::new(1), Node::new(2), Node::new(3));
    let id = brought_up_by_a_copy(&a, &b);
    let mut flow = Flow::new(&b, &n);
    assert!(flow.run(&n).1.contains(&Effect::CopyNeeded(id)));

    // What was on its way between the two words was dropped.
    let mut anew = Receiver::new(n.journal.clone(), peer(&b, Streams::All, Streams::All));
    let [held] = anew.holdings()[..] else { panic!("one stream is held") };
    flow.sender.holds(vec![Holding { room: false, ..held }]).unwrap();
    flow.sender.holds(vec![held]).unwrap();
    let begins = end_of(&a, id).next();
    a.append(&copy_by(&[&n], &[&b]));
    Flow::new(&a, &b).run(&b);
    flow.sender.moved(id);
    flow.sender.serve_from(id, begins);
    let wire = flow.ship().unwrap();
    flow.decoder.push(&wire);
    let first = flow.decoder.next_frame().unwrap();
    assert!(matches!(first, Some(DataFrame::Open(_))), "{first:?}");
}

#[test]
fn a_run_that_was_withheld_from_the_one_in_between_is_passed_on() {
    let (a, b, c, n) = (Node::new(1), Node::new(2), Node::new(4), Node::new(3));
    let id = a.own_id();
    a.append(&transaction(1, 3, 100));
    a.append(&copy_by(&[&c], &[]));
    // The next in the stream is a copy that the one in between only carries.
    a.append(&copy_by(&[&c], &[&b]));
    a.append(&transaction(2, 3, 100));
    Flow::new(&a, &b).run(&b);
    let (_, effects) = Flow::new(&b, &n).run(&n);
    assert!(matches!(effects[..], [Effect::Delivered(_)]), "{effects:?}");
    assert_same(&a, &n, id);
}
