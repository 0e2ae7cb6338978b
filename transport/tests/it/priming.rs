//! A connection goes on where the last one ended: both ends learn from what both hold.

use std::time::Duration;

use bytes::Bytes;
use quinn::VarInt;
use thinwire_engine::model::{
    Lsn, Offset, Record, RelationId, Row, StreamId, Timestamp, Value, View,
};
use thinwire_transport::{
    Compression, Peer, Rules,
    frame::{Holding, Priming},
    wire::Outlet,
};
use tokio::time::sleep;

use crate::{
    raw::Raw,
    sim::{Kind, SATELLITE, Sim},
    site::{Site, simulate, until, until_equal},
};

const LONG: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3_600);

/// Transactions that change a device's row, each mostly as it was before.
fn changes(xids: std::ops::Range<u32>) -> Vec<Record> {
    let mut records = Vec::new();
    for xid in xids {
        let lsn = u64::from(xid) * 600;
        let time = Timestamp::from_micros(i64::from(xid) * 1_000_000);
        records.push(Record::Begin { xid, lsn: Lsn::new(lsn), time });
        let device = xid * 7_919 % 300;
        let config = format!("{{\"id\": \"{:08x}\", \"mode\": \"auto\"}}", device * 2_654_435);
        let values = [device.to_string(), format!("{}", xid / 10), config];
        let new = Row(values.map(|text| Value::Bytes(Bytes::from(text.into_bytes()))).into());
        records.push(Record::Update { relation: RelationId(7), old: None, new });
        records.push(Record::Commit { end: Lsn::new(lsn + 60) });
    }
    records
}

/// Bytes on the link, of both directions, for a hundred transactions at the first moment of a connection that follows another.
async fn reconnected(compression: Compression, history: u32, seed: u64) -> u64 {
    // Losses would be most of the difference.
    let sim = Sim::new(Kind { loss: 0.0, ..SATELLITE }, seed);
    let (mut edge, mut hub) = (Site::new(1), Site::new(2));
    let rules = Rules { compression, ..Rules::default() };
    let there = |hub: &Site| vec![Peer { rules, ..hub.as_dialled() }];
    hub.start(&sim, vec![edge.as_peer()]);
    edge.start(&sim, there(&hub));
    edge.append(&changes(1..history));
    until_equal(&edge, &hub, edge.own_id(), LONG).await;
    sleep(Duration::from_secs(5)).await;
    edge.kill().await;
    sim.set_up(false);
    edge.start(&sim, there(&hub));
    edge.append(&changes(history..history + 100));
    sleep(Duration::from_secs(10)).await;
    let before = sim.sent_bytes();
    sim.set_up(true);
    until_equal(&edge, &hub, edge.own_id(), LONG).await;
    sleep(Duration::from_secs(2)).await;
    assert!(edge.status(&hub).last_error.is_none(), "{:?}", edge.status(&hub));
    sim.sent_bytes() - before
}

#[test]
fn what_both_ends_hold_is_not_said_again_after_a_reconnect() {
    simulate(async {
        let primed = reconnected(Compression::Packets, 2_000, 4).await;
        let cold = reconnected(Compression::Packets, 2, 4).await;
        let zstd = reconnected(Compression::Zstd, 2_000, 4).await;
        // A handshake takes more than five thousand of either.
        assert!(primed + 300 < cold, "{primed} bytes primed, {cold} cold");
        assert!(primed + 1_500 < zstd, "{primed} bytes primed, {zstd} with zstd");
    });
}

#[test]
fn nothing_goes_wrong_if_a_stream_goes_both_ways_and_on_and_on() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 6);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        for round in 0..6 {
            let xids = 1 + round * 100..101 + round * 100;
            edge.append(&changes(xids.clone()));
            hub.append(&changes(xids));
            until("some of it", LONG, || hub.held(edge.own_id()).0.get() > u64::from(round) * 290)
                .await;
            match round % 2 {
                0 => {
                    edge.kill().await;
                    edge.start(&sim, vec![hub.as_dialled()]);
                }
                _ => {
                    hub.kill().await;
                    hub.start(&sim, vec![edge.as_peer()]);
                }
            }
        }
        until_equal(&edge, &hub, edge.own_id(), LONG).await;
        until_equal(&hub, &edge, hub.own_id(), LONG).await;
    });
}

fn holding(of: &Site, id: StreamId) -> Holding {
    let (last, running) = of.held(id);
    Holding {
        stream: id,
        view: View::FULL,
        first: Offset::FIRST,
        last,
        running,
        in_copy: false,
        durable: last,
        applied: Offset::ZERO,
        room: true,
    }
}

/// The first byte of what the hub ships to the edge, as one of whose processes the test plays.
async fn first_byte(raw: &mut Raw, instance: u64, hub: &Site) -> u8 {
    raw.say_hello_as(instance, vec![holding(hub, hub.own_id())]).await;
    let _control = raw.connection.accept_uni().await.unwrap();
    hub.append(&changes(9_000..9_001));
    let mut data = raw.connection.accept_uni().await.unwrap();
    let chunk = data.read_chunk(1, true).await.unwrap().unwrap();
    chunk.bytes[0]
}

/// The bit that says that what both ends know comes first.
const PRIMED: u8 = 1 << 7;

const BYE: VarInt = VarInt::from_u32(0);

/// What is said to a peer that was primed with what it does not hold.
const UNPRIMED: VarInt = VarInt::from_u32(6);

#[test]
fn who_is_told_that_the_peer_holds_something_else_begins_without_until_another_process_or_an_hour()
{
    simulate(async {
        let sim = Sim::new(SATELLITE, 12);
        let (edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        hub.append(&changes(1..200));
        let host = sim.host(9);
        // Whether a process of the edge is primed; it parts with what it thinks of that.
        let primed = async |instance, parting| {
            let to = hub.address().parse().unwrap();
            let mut raw = Raw::connect(&*host, &edge.identity, to).await;
            let first = first_byte(&mut raw, instance, &hub).await;
            raw.connection.close(parting, b"");
            until("gone", LONG, || !hub.status(&edge).connected).await;
            first & PRIMED == PRIMED
        };
        assert!(primed(1, BYE).await);
        assert!(primed(1, UNPRIMED).await);
        assert!(!primed(1, BYE).await && !primed(1, BYE).await);
        assert!(primed(2, BYE).await, "another process may hold something else");
        assert!(!primed(1, BYE).await, "the first one is still there");
        sleep(HOUR).await;
        assert!(primed(1, UNPRIMED).await, "the first one may hold something else by now");
        assert!(!primed(1, BYE).await);
        assert!(primed(2, UNPRIMED).await && !primed(2, BYE).await);
    });
}

#[test]
fn who_is_primed_with_what_it_does_not_hold_says_so_and_takes_nothing() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 13);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        edge.append(&changes(1..50));
        until_equal(&edge, &hub, edge.own_id(), LONG).await;
        edge.kill().await;
        let (last, running) = hub.held(edge.own_id());
        let true_one = Priming {
            index: 0,
            stream: edge.own_id(),
            from: Offset::FIRST,
            until: last.next(),
            bytes: 1_000,
            sum: running.get(),
        };
        for lie in [
            true_one,
            Priming { stream: hub.own_id(), ..true_one },
            Priming { from: last.forward(2), until: last.forward(9), ..true_one },
            Priming { until: Offset::new(u64::MAX), bytes: 1, ..true_one },
        ] {
            let host = sim.host(9);
            let to = hub.address().parse().unwrap();
            let mut raw = Raw::connect(&*host, &edge.identity, to).await;
            raw.say_hello(vec![]).await;
            let (mut wire, mut outlet) = (Vec::new(), Outlet::default());
            outlet.begin_primed(&[lie], &mut wire);
            let mut data = raw.connection.open_uni().await.unwrap();
            data.write_all(&wire).await.unwrap();
            assert_eq!(raw.closed().await.error_code, UNPRIMED, "{lie:?}");
        }
        assert_eq!(hub.held(edge.own_id()), (last, running));
    });
}
