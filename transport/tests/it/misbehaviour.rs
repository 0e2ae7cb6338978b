//! Strangers, lying peers, and noise: a named reason, nothing taken, others unharmed.

use std::{sync::Arc, time::Duration};

use thinwire_engine::{
    codec::Records,
    model::{Offset, Record, Running, StreamId, View},
};
use thinwire_transport::{
    Identity, Peer,
    frame::{Ack, Control, Holding, Opening, PROTOCOL_VERSION, Prefix, data_header, put_opening},
    wire::Outlet,
};
use tokio::time::timeout;

use crate::{
    raw::{Raw, closed, listener},
    sim::{SATELLITE, Sim},
    site::{Site, simulate, transaction, until, until_equal},
};

const LONG: Duration = Duration::from_secs(120);

#[test]
fn a_stranger_is_refused_and_told_where_to_look() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 1);
        let (mut edge, mut hub, other) = (Site::new(1), Site::new(2), Site::new(3));
        hub.start(&sim, vec![other.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        let error = || edge.status(&hub).last_error.unwrap_or_default();
        until("told", LONG, || error().contains("is this node's key in its configuration")).await;
        assert!(hub.transport().unwelcome().strangers > 0);
        assert!(!edge.status(&hub).connected);
        let before = hub.transport().unwelcome().strangers;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let attempts = hub.transport().unwelcome().strangers - before;
        assert!((8..=60).contains(&attempts), "{attempts} attempts in a minute");
    });
}

#[test]
fn a_node_with_another_key_than_configured_is_not_talked_to() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 2);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        let expected = Identity::generate().unwrap().public();
        edge.start(&sim, vec![Peer { key: expected, ..hub.as_dialled() }]);
        let error = || edge.status(&hub).last_error.unwrap_or_default();
        until("told", LONG, || error().contains(&hub.key().to_string())).await;
        assert!(error().contains(&expected.to_string()));
        assert!(!hub.status(&edge).connected);
    });
}

#[test]
fn another_version_of_the_protocol_is_named_at_both_ends() {
    simulate(async {
        let (sim, edge, hub) = hub_and_raw(3).await;
        let mut raw = connect(&sim, &edge, &hub).await;
        raw.control.write_all(&[4, 0, 1, 9, 0, 0x90]).await.unwrap();
        let close = raw.closed().await;
        let reason = String::from_utf8(close.reason.to_vec()).unwrap();
        let ours = format!("version {PROTOCOL_VERSION}");
        assert!(reason.contains("version 9") && reason.contains(&ours), "{reason}");
        let error = hub.status(&edge).last_error.unwrap();
        assert!(error.contains("version 9"), "{error}");
    });
}

#[test]
fn frames_that_nobody_writes_end_the_connection() {
    simulate(async {
        let (sim, edge, hub) = hub_and_raw(4).await;
        let mut raw = connect(&sim, &edge, &hub).await;
        raw.control.write_all(&[3, 0, 77, 1, 2]).await.unwrap();
        assert_eq!(raw.closed().await.error_code, 4_u32.into());

        let mut raw = connect(&sim, &edge, &hub).await;
        raw.say(&Control::Pause(false)).await;
        assert_eq!(raw.closed().await.error_code, 4_u32.into());

        let mut raw = connect(&sim, &edge, &hub).await;
        raw.say_hello(vec![]).await;
        let mut data = raw.connection.open_uni().await.unwrap();
        data.write_all(b"this is no zstd").await.unwrap();
        assert_eq!(raw.closed().await.error_code, 4_u32.into());

        let mut raw = connect(&sim, &edge, &hub).await;
        raw.say_hello(vec![]).await;
        ship(&raw, &[2, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]).await;
        assert_eq!(raw.closed().await.error_code, 4_u32.into());
        assert!(
            hub.journal().streams().iter().all(|stream| stream.id().origin == hub.key().origin())
        );
    });
}

#[test]
fn a_handshake_without_a_hello_is_given_up() {
    simulate(async {
        let (sim, edge, hub) = hub_and_raw(5).await;
        let raw = connect(&sim, &edge, &hub).await;
        assert_eq!(raw.closed().await.error_code, 2_u32.into());
    });
}

#[test]
fn a_listener_that_greets_nobody_is_given_up_and_dialled_again() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 13);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        let mute = listener(&*sim.host(2), &hub.identity, hub.address().parse().unwrap());
        edge.start(&sim, vec![hub.as_dialled()]);
        for _ in 0..2 {
            let dialled = timeout(LONG, mute.accept()).await.unwrap().unwrap().await.unwrap();
            assert_eq!(closed(&dialled).await.error_code, 2_u32.into());
            assert!(!edge.status(&hub).connected);
        }
        let error = edge.status(&hub).last_error.unwrap();
        assert!(error.contains("no hello came"), "{error}");
        drop(mute);
        hub.start(&sim, vec![edge.as_peer()]);
        edge.append(&transaction(1, 1, 1));
        until_equal(&edge, &hub, edge.own_id(), LONG).await;
    });
}

#[test]
fn acks_of_less_than_before_say_nothing() {
    simulate(async {
        let (sim, edge, hub) = hub_and_raw(14).await;
        hub.append(&transaction(1, 1, 1));
        let mut raw = connect(&sim, &edge, &hub).await;
        raw.say_hello(vec![]).await;
        until("shipped", LONG, || marks(&hub, &edge) == [3, 0, 0]).await;
        acknowledge(&mut raw, 3, 0, Some(hub.held(hub.own_id()).1)).await;
        until("acked", LONG, || marks(&hub, &edge) == [3, 3, 0]).await;
        acknowledge(&mut raw, 0, 0, None).await;
        // What it says of the database is new, and tells when it was read.
        acknowledge(&mut raw, 1, 1, None).await;
        until("applied", LONG, || marks(&hub, &edge)[2] == 1).await;
        assert_eq!(marks(&hub, &edge), [3, 3, 1]);
        assert!(raw.connection.close_reason().is_none());
    });
}

#[test]
fn an_ack_of_other_records_stops_the_stream_by_name_for_who_says_it_alone() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 15);
        let (edge, mut other, mut hub) = (Site::new(1), Site::new(3), Site::new(2));
        hub.start(&sim, vec![edge.as_peer(), other.as_peer()]);
        hub.append(&transaction(1, 1, 1));
        let mut raw = connect(&sim, &edge, &hub).await;
        raw.say_hello(vec![]).await;
        until("shipped", LONG, || marks(&hub, &edge) == [3, 0, 0]).await;
        acknowledge(&mut raw, 3, 0, Some(Running::new(7))).await;
        let error = || hub.status(&edge).last_error.unwrap_or_default();
        let sentence = format!("site1 holds other records of {} up to 3", hub.own_id());
        until("named", LONG, || error().contains(&sentence)).await;
        other.start(&sim, vec![hub.as_dialled()]);
        hub.append(&transaction(2, 1, 1));
        until_equal(&hub, &other, hub.own_id(), LONG).await;
        // Nothing that it says counts, and it is sent no more.
        assert_eq!(marks(&hub, &edge), [0, 0, 0]);
        assert_eq!(*hub.own().halted().borrow(), None);
        assert!(raw.connection.close_reason().is_none());
    });
}

#[test]
fn acks_of_what_does_not_exist_end_the_connection() {
    simulate(async {
        let (sim, edge, hub) = hub_and_raw(6).await;
        hub.append(&transaction(1, 1, 1));
        let mut raw = connect(&sim, &edge, &hub).await;
        raw.say_hello(vec![]).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        acknowledge(&mut raw, 4, 0, None).await;
        assert_eq!(raw.closed().await.error_code, 4_u32.into());
        assert!(hub.status(&edge).streams.iter().all(|stream| stream.acked == Offset::ZERO));
    });
}

#[test]
fn a_peer_that_claims_to_be_us_or_another_is_refused_by_stream() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 7);
        let (mut hub, edge, third) = (Site::new(2), Site::new(1), Site::new(3));
        let only_its_own = Peer { receive: thinwire_transport::Streams::Own, ..edge.as_peer() };
        hub.start(&sim, vec![only_its_own]);
        let mut raw = connect(&sim, &edge, &hub).await;
        raw.say_hello(vec![]).await;
        let mut bytes = Vec::new();
        for (index, stream) in [hub.own_id(), third.own_id(), edge.own_id()].into_iter().enumerate()
        {
            open(u32::try_from(index).unwrap(), stream, &mut bytes);
        }
        let records = Records::one(&Record::Abort);
        for index in 0..3 {
            data_header(index, Offset::FIRST, &records, &mut bytes);
            bytes.extend_from_slice(records.bytes());
        }
        let _data = ship(&raw, &bytes).await;
        until("its own", LONG, || hub.held(edge.own_id()).0 == Offset::FIRST).await;
        assert_eq!(hub.held(hub.own_id()).0, Offset::ZERO);
        assert!(hub.journal().stream(third.own_id()).is_none());
        assert!(raw.connection.close_reason().is_none());
        let error = hub.status(&edge).last_error.unwrap();
        assert!(error.contains("not taken from site1"), "{error}");
    });
}

#[test]
fn a_peer_that_claims_more_of_our_stream_than_there_is_is_refused_alone() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 8);
        let (edge, mut other, mut hub) = (Site::new(1), Site::new(3), Site::new(2));
        hub.start(&sim, vec![edge.as_peer(), other.as_peer()]);
        hub.append(&transaction(1, 1, 1));
        let mut raw = connect(&sim, &edge, &hub).await;
        let ahead = Holding {
            stream: hub.own_id(),
            view: View::FULL,
            first: Offset::FIRST,
            last: Offset::new(90),
            running: Running::new(7),
            in_copy: false,
            durable: Offset::new(90),
            applied: Offset::ZERO,
            room: true,
        };
        raw.say_hello(vec![ahead]).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let prefix = Prefix { stream: hub.own_id(), at: Offset::new(3) };
        raw.say(&Control::Proof(prefix, Some(Running::new(7)))).await;
        let error = || hub.status(&edge).last_error.unwrap_or_default();
        until("named", LONG, || error().contains("does not hold the same")).await;
        assert_eq!(*hub.own().halted().borrow(), None);
        assert!(hub.status(&edge).streams.iter().all(|at| at.acked == Offset::ZERO));
        other.start(&sim, vec![hub.as_dialled()]);
        until_equal(&hub, &other, hub.own_id(), LONG).await;
    });
}

#[test]
fn a_disk_that_was_rolled_back_halts_its_own_stream_once_a_peer_proves_it() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 10);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        hub.append(&transaction(1, 1, 1));
        let before = hub.disk();
        edge.start(&sim, vec![hub.as_dialled()]);
        hub.append(&transaction(2, 1, 1));
        until_equal(&hub, &edge, hub.own_id(), LONG).await;
        hub.kill().await;
        hub.restore(before);
        hub.start(&sim, vec![edge.as_peer()]);
        let code = || hub.own().halted().borrow().as_ref().map(|halt| halt.code.clone());
        until("halted", LONG, || code().as_deref() == Some("peer_ahead")).await;
        assert_eq!(*edge.journal().stream(hub.own_id()).unwrap().halted().borrow(), None);
    });
}

#[test]
fn a_peer_whose_disk_was_rolled_back_is_named_and_served_again() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 11);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        hub.append(&transaction(1, 1, 1));
        edge.start(&sim, vec![hub.as_dialled()]);
        until_equal(&hub, &edge, hub.own_id(), LONG).await;
        let before = edge.disk();
        hub.append(&transaction(2, 1, 1));
        let acked = |at| hub.status(&edge).streams.iter().any(|it| it.acked == Offset::new(at));
        until("acked", LONG, || acked(6)).await;
        edge.kill().await;
        edge.restore(before);
        edge.start(&sim, vec![hub.as_dialled()]);
        let error = || hub.status(&edge).last_error.unwrap_or_default();
        until("named", LONG, || error().contains("its disk was rolled back")).await;
        until_equal(&hub, &edge, hub.own_id(), LONG).await;
    });
}

#[test]
fn noise_on_the_port_is_counted_and_harms_nobody() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 9);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        edge.append(&transaction(1, 500, 100));
        let to = hub.address().parse().unwrap();
        for n in 0..5_000_u64 {
            let size = 1 + (sim.random() % 1_300) as usize;
            let bytes = (0..size).map(|_| sim.random().to_le_bytes()[0]).collect();
            sim.throw(format!("10.0.9.{}:999", n % 200).parse().unwrap(), to, bytes);
            if n % 50 == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        until_equal(&edge, &hub, edge.own_id(), LONG).await;
        assert!(hub.transport().unwelcome().garbage > 1_000);
    });
}

/// A hub that expects the edge, whom the test plays.
pub async fn hub_and_raw(seed: u64) -> (Arc<Sim>, Site, Site) {
    let sim = Sim::new(SATELLITE, seed);
    let (edge, mut hub) = (Site::new(1), Site::new(2));
    hub.start(&sim, vec![edge.as_peer()]);
    (sim, edge, hub)
}

/// How far a hub's own stream is at the edge: what was sent, what is durable there, and what is in its database.
fn marks(hub: &Site, edge: &Site) -> [u64; 3] {
    let streams = hub.status(edge).streams;
    let own = streams.iter().find(|stream| stream.id == hub.own_id());
    own.map_or([0; 3], |at| [at.shipped, at.acked, at.applied].map(Offset::get))
}

/// Says of the first stream how far it is.
async fn acknowledge(raw: &mut Raw, durable: u64, applied: u64, running: Option<Running>) {
    let (durable, applied) = (Offset::new(durable), Offset::new(applied));
    raw.say(&Control::Acks(vec![Ack { index: 0, durable, applied, running }])).await;
}

pub async fn connect(sim: &Arc<Sim>, edge: &Site, hub: &Site) -> Raw {
    Raw::connect(&*sim.host(9), &edge.identity, hub.address().parse().unwrap()).await
}

pub async fn ship(raw: &Raw, frames: &[u8]) -> quinn::SendStream {
    let mut wire = Vec::new();
    let mut outlet = Outlet::default();
    outlet.stream(frames, &mut wire).unwrap();
    outlet.flush(&mut wire).unwrap();
    let mut data = raw.connection.open_uni().await.unwrap();
    data.write_all(&wire).await.unwrap();
    data
}

pub fn open(index: u32, stream: StreamId, out: &mut Vec<u8>) {
    let running = Some(Running::START);
    put_opening(&Opening { index, stream, view: View::FULL, next: Offset::FIRST, running }, out);
}
