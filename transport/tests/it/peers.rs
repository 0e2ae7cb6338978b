//! Peers that come, go and change while a node runs.

use std::{sync::Arc, time::Duration};

use thinwire_engine::model::Offset;
use thinwire_transport::{Peer, Rules, StartError};
use tokio::time::{sleep, timeout};

use crate::{
    raw::{endpoint, resuming},
    sim::{SATELLITE, Sim},
    site::{Site, simulate, transaction, until, until_equal},
};

const LONG: Duration = Duration::from_secs(120);

/// How soon a key that is taken away has no connection any more.
const SOON: Duration = Duration::from_secs(5);

/// A hub to which two edges ship much, one of them without noticing what becomes of the other.
async fn hub_and_edges(seed: u64) -> (Arc<Sim>, Site, Site, Site) {
    let sim = Sim::new(SATELLITE, seed);
    let (mut edge, mut other, mut hub) = (Site::new(1), Site::new(3), Site::new(2));
    hub.start(&sim, vec![edge.as_peer(), other.as_peer()]);
    edge.start(&sim, vec![hub.as_dialled()]);
    other.start(&sim, vec![hub.as_dialled()]);
    edge.append(&transaction(1, 2_000, 1_000));
    other.append(&transaction(1, 2_000, 1_000));
    until("in the middle", LONG, || hub.held(edge.own_id()).0 > Offset::new(100)).await;
    (sim, edge, other, hub)
}

#[test]
fn who_is_taken_out_loses_its_connection_until_it_is_back_and_others_do_not_notice() {
    simulate(async {
        let (sim, edge, other, hub) = hub_and_edges(1).await;
        hub.transport().set_peers(vec![other.as_peer()]).unwrap();
        until("over", SOON, || !edge.status(&hub).connected).await;
        let said = edge.status(&hub).last_error.unwrap();
        assert!(said.contains("the key was taken out of the configuration"), "{said}");
        let peers = hub.transport().peers();
        assert!(peers.len() == 1 && peers[0].name == other.name, "{peers:?}");
        let held = hub.held(edge.own_id()).0;
        until_equal(&other, &hub, other.own_id(), LONG).await;
        sleep(LONG).await;
        assert!(!edge.status(&hub).connected && hub.transport().unwelcome().strangers > 0);
        assert_eq!(hub.held(edge.own_id()).0, held);

        hub.transport().set_peers(vec![other.as_peer(), edge.as_peer()]).unwrap();
        until_equal(&edge, &hub, edge.own_id(), LONG).await;
        assert_eq!(sim.dials(other.number).len(), 1);
    });
}

#[test]
fn who_has_another_key_is_let_in_with_that_one_only() {
    simulate(async {
        let (sim, edge, other, hub) = hub_and_edges(2).await;
        let mut renewed = Site::new(5);
        let renamed = Peer { name: edge.name.clone(), ..renewed.as_peer() };
        hub.transport().set_peers(vec![renamed, other.as_peer()]).unwrap();
        until("over", SOON, || !edge.status(&hub).connected).await;
        renewed.start(&sim, vec![hub.as_dialled()]);
        renewed.append(&transaction(1, 10, 100));
        until_equal(&renewed, &hub, renewed.own_id(), LONG).await;
        assert!(hub.status(&edge).connected, "it is known by the old name");
        assert!(!edge.status(&hub).connected);
    });
}

#[test]
fn a_copy_that_was_made_for_a_key_is_not_served_to_another_of_that_name() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 7);
        let (edge, mut renewed, mut hub) = (Site::new(1), Site::new(5), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        hub.append(&transaction(1, 10, 100));
        let begins = hub.own().watermarks().synced.next();
        hub.append(&transaction(2, 10, 100));
        let renamed = Peer { name: edge.name.clone(), ..renewed.as_peer() };
        hub.transport().set_peers(vec![renamed]).unwrap();
        assert!(!hub.transport().serve_from(edge.key().origin(), hub.own_id(), begins));
        renewed.start(&sim, vec![hub.as_dialled()]);
        until_equal(&hub, &renewed, hub.own_id(), LONG).await;
        assert_eq!(hub.next_event(), None);
    });
}

#[test]
fn a_live_connection_is_closed_and_neither_a_ticket_nor_a_handshake_under_way_brings_it_back() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 3);
        let (edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        let (config, to) = (resuming(&edge.identity), hub.address().parse().unwrap());
        let from = endpoint(&*sim.host(9));
        let live = from.connect_with(config.clone(), to, "thinwire").unwrap().await.unwrap();
        let under_way = from.connect_with(config.clone(), to, "thinwire").unwrap();
        sleep(Duration::from_millis(400)).await;
        hub.transport().set_peers(vec![]).unwrap();
        let closed = timeout(SOON, live.closed()).await.unwrap().to_string();
        assert!(closed.contains("the key was taken out"), "{closed}");
        let again = from.connect_with(config, to, "thinwire").unwrap();
        let Err(again) = again.into_0rtt() else { panic!("there is a ticket") };
        for connecting in [under_way, again] {
            let refused = match timeout(LONG, connecting).await.unwrap() {
                Err(_) => true,
                Ok(connection) => timeout(LONG, connection.closed()).await.is_ok(),
            };
            assert!(refused);
        }
    });
}

#[test]
fn who_dials_stops_to_dial_whom_it_has_no_more_and_dials_whom_it_has_since() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 4);
        let (mut edge, mut hub, mut next) = (Site::new(1), Site::new(2), Site::new(3));
        hub.start(&sim, vec![edge.as_peer()]);
        next.start(&sim, vec![edge.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        until("connected", LONG, || hub.status(&edge).connected).await;
        edge.transport().set_peers(vec![next.as_dialled()]).unwrap();
        until("over", SOON, || !hub.status(&edge).connected).await;
        edge.append(&transaction(1, 10, 100));
        until_equal(&edge, &next, edge.own_id(), LONG).await;
        // In the middle of a dial, too.
        edge.transport().set_peers(vec![hub.as_dialled()]).unwrap();
        sleep(Duration::from_millis(100)).await;
        edge.transport().set_peers(vec![next.as_dialled()]).unwrap();
        let dials = sim.dials(edge.number).len();
        sleep(LONG).await;
        assert!(!hub.status(&edge).connected && edge.status(&next).connected);
        assert!(sim.dials(edge.number).len() <= dials + 1);
        edge.shutdown().await;
    });
}

#[test]
fn who_is_only_configured_otherwise_is_connected_with_anew_and_not_forgotten() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 5);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        edge.append(&transaction(1, 10, 100));
        let acked = |at| edge.status(&hub).streams.iter().any(|it| it.acked == Offset::new(at));
        until("acked", LONG, || acked(12)).await;
        let before = edge.status(&hub);
        let rules = Rules { rate_limit: Some(64_000), ..Rules::default() };
        edge.transport().set_peers(vec![Peer { rules, ..hub.as_dialled() }]).unwrap();
        assert!(acked(12), "what was acknowledged is not known any more");
        assert!(edge.status(&hub).bytes_sent >= before.bytes_sent);
        edge.append(&transaction(2, 10, 100));
        until_equal(&edge, &hub, edge.own_id(), LONG).await;
        assert_eq!(sim.dials(edge.number).len(), 2);
        // The same peers again change nothing.
        edge.transport().set_peers(vec![Peer { rules, ..hub.as_dialled() }]).unwrap();
        sleep(Duration::from_secs(10)).await;
        assert_eq!(sim.dials(edge.number).len(), 2);
    });
}

#[test]
fn peers_that_cannot_be_told_apart_change_nothing() {
    simulate(async {
        let (_sim, edge, other, hub) = hub_and_edges(6).await;
        let same_name = Peer { name: edge.name.clone(), ..other.as_peer() };
        let ourselves = hub.as_peer();
        for wrong in [same_name, edge.as_peer(), ourselves] {
            let set = hub.transport().set_peers(vec![edge.as_peer(), wrong]);
            assert!(matches!(set, Err(StartError::DuplicatePeer { .. })));
        }
        assert!(hub.status(&edge).connected && hub.status(&other).connected);
    });
}
