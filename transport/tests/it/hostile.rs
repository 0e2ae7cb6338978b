//! Peers that exhaust what they can: memory and disk stay bounded, and the others do not notice.

use std::time::Duration;

use thinwire_engine::{
    codec::Records,
    model::{Epoch, Offset, Origin, Record, StreamId},
};
use thinwire_transport::{
    Event,
    frame::{Control, CopyRequest, data_header},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    misbehaviour::{connect, hub_and_raw, open, ship},
    raw::{ALPN, Own, client, endpoint, own_key, tls},
    sim::{Faults, Kind, SATELLITE, Sim},
    site::{Site, identity, simulate, transaction, until, until_equal},
};

const LONG: Duration = Duration::from_secs(120);

const QUICK: Kind =
    Kind { bits_per_second: 20_000_000.0, delay: Duration::from_millis(10), loss: 0.0 };

#[test]
fn a_peer_that_stops_reading_is_sent_little_and_holds_up_nobody() {
    simulate(async {
        let sim = Sim::new(QUICK, 1);
        let (edge, mut other, mut hub) = (Site::new(1), Site::new(3), Site::new(2));
        hub.start(&sim, vec![edge.as_peer(), other.as_peer()]);
        other.start(&sim, vec![hub.as_dialled()]);
        for xid in 1..=20 {
            hub.append(&transaction(xid, 1_000, 1_000));
        }
        let mut raw = connect(&sim, &edge, &hub).await;
        raw.say_hello(vec![]).await;
        until_equal(&hub, &other, hub.own_id(), LONG).await;
        sleep(Duration::from_secs(60)).await;
        let shipped = hub.status(&edge).streams[0].shipped;
        assert!(shipped > Offset::ZERO && shipped < Offset::new(8_000), "{shipped} of 20,040");
        // What it says is still heard.
        raw.say(&Control::Pause(true)).await;
        assert!(raw.connection.close_reason().is_none());
    });
}

#[test]
fn nobody_may_open_more_streams_of_quic_than_there_is_use_for() {
    simulate(async {
        let (sim, edge, hub) = hub_and_raw(2).await;
        let mut raw = connect(&sim, &edge, &hub).await;
        raw.say_hello(vec![]).await;
        let (mut one_way, mut both_ways) = (Vec::new(), Vec::new());
        while let Ok(opened) = timeout(Duration::from_secs(5), raw.connection.open_uni()).await {
            one_way.push(opened.unwrap());
        }
        while let Ok(opened) = timeout(Duration::from_secs(5), raw.connection.open_bi()).await {
            both_ways.push(opened.unwrap());
        }
        // The control stream is the fourth.
        assert_eq!((one_way.len(), both_ways.len()), (3, 4));
    });
}

#[test]
fn streams_that_a_peer_makes_up_do_not_fill_the_disk() {
    simulate(async {
        let (sim, edge, hub) = hub_and_raw(3).await;
        for life in 0..3_u16 {
            let mut raw = connect(&sim, &edge, &hub).await;
            raw.say_hello(vec![]).await;
            let mut bytes = Vec::new();
            for index in 0..100_u16 {
                let mut epoch = [7; 16];
                epoch[..2].copy_from_slice(&(life * 100 + index).to_le_bytes());
                let epoch = Epoch::from_bytes(epoch);
                open(index.into(), StreamId { epoch, ..edge.own_id() }, &mut bytes);
            }
            let _data = ship(&raw, &bytes).await;
            let error = || hub.status(&edge).last_error.unwrap_or_default();
            until("refused", LONG, || error().contains("no more are begun")).await;
        }
        assert_eq!(hub.journal().streams().len(), 64 + 1);
    });
}

#[test]
fn more_streams_than_are_counted_end_the_connection() {
    simulate(async {
        let (sim, edge, hub) = hub_and_raw(4).await;
        let mut raw = connect(&sim, &edge, &hub).await;
        raw.say_hello(vec![]).await;
        let mut bytes = Vec::new();
        // Of our own, so that each is refused.
        (0..2_000).for_each(|index| open(index, hub.own_id(), &mut bytes));
        let _data = ship(&raw, &bytes).await;
        until("closed", LONG, || raw.connection.close_reason().is_some()).await;
        let error = hub.status(&edge).last_error.unwrap();
        assert!(error.contains("opens more than 1024 streams"), "{error}");
    });
}

#[test]
fn gaps_end_the_connection_and_overlaps_change_nothing() {
    simulate(async {
        let (sim, edge, hub) = hub_and_raw(5).await;
        let records = |xid| {
            let begin = transaction(xid, 0, 0).swap_remove(0);
            Records::one(&begin)
        };
        for (at, taken) in [(1, true), (1, true), (4, false)] {
            let mut raw = connect(&sim, &edge, &hub).await;
            raw.say_hello(vec![]).await;
            let mut bytes = Vec::new();
            open(0, edge.own_id(), &mut bytes);
            let records = records(u32::try_from(at).unwrap() + u32::from(taken));
            data_header(0, Offset::new(at), &records, &mut bytes);
            bytes.extend_from_slice(records.bytes());
            let _data = ship(&raw, &bytes).await;
            if taken {
                until("taken", LONG, || hub.held(edge.own_id()).0 > Offset::ZERO).await;
            } else {
                assert_eq!(raw.closed().await.error_code, 4_u32.into());
            }
            raw.connection.close(0_u32.into(), b"");
            sleep(Duration::from_secs(2)).await;
        }
        assert_eq!(hub.held(edge.own_id()).0, Offset::FIRST);
    });
}

#[test]
fn a_record_that_no_encoder_writes_halts_its_stream_and_is_not_kept() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 6);
        let (edge, mut other, mut hub) = (Site::new(1), Site::new(3), Site::new(2));
        hub.start(&sim, vec![edge.as_peer(), other.as_peer()]);
        other.start(&sim, vec![hub.as_dialled()]);
        let mut raw = connect(&sim, &edge, &hub).await;
        raw.say_hello(vec![]).await;
        let mut bytes = Vec::new();
        open(0, edge.own_id(), &mut bytes);
        let nonsense = Records::parse(bytes::Bytes::from_static(&[2, 1, 0xFF]), 1).unwrap();
        data_header(0, Offset::FIRST, &nonsense, &mut bytes);
        bytes.extend_from_slice(nonsense.bytes());
        let _data = ship(&raw, &bytes).await;
        let code = || {
            let stream = hub.journal().stream(edge.own_id())?;
            stream.halted().borrow().as_ref().map(|halt| halt.code.clone())
        };
        until("halted", LONG, || code().as_deref() == Some("malformed")).await;
        assert_eq!(hub.held(edge.own_id()).0, Offset::ZERO);
        other.append(&transaction(1, 5, 100));
        until_equal(&other, &hub, other.own_id(), LONG).await;
    });
}

#[test]
fn a_copy_of_what_is_not_shipped_to_it_is_not_for_a_peer_to_ask_for() {
    simulate(async {
        let (sim, edge, hub) = hub_and_raw(7).await;
        let mut raw = connect(&sim, &edge, &hub).await;
        raw.say_hello(vec![]).await;
        let origin = edge.key().origin();
        let (audience, carriers) = (vec![origin], vec![origin]);
        let request = CopyRequest { stream: edge.own_id(), audience, carriers };
        raw.say(&Control::Copy(request)).await;
        assert_eq!(raw.closed().await.error_code, 4_u32.into());
        assert_eq!(hub.next_event(), None);
    });
}

#[test]
fn copies_that_are_asked_for_without_end_are_ordered_as_few() {
    simulate(async {
        let (sim, edge, hub) = hub_and_raw(10).await;
        let mut raw = connect(&sim, &edge, &hub).await;
        raw.say_hello(vec![]).await;
        let stream = hub.own_id();
        let carriers = vec![edge.key().origin()];
        let request = |node: u16| {
            let mut name = [0xAA; 16];
            name[..2].copy_from_slice(&node.to_le_bytes());
            let audience = vec![Origin::from_bytes(name)];
            Control::Copy(CopyRequest { stream, audience, carriers: carriers.clone() })
        };
        for node in 0..1_000 {
            raw.say(&request(node)).await;
        }
        // Of a stream that was never there nobody needs a copy.
        let unknown = StreamId { epoch: Epoch::from_bytes([99; 16]), ..stream };
        let (audience, carriers) = (vec![Origin::from_bytes([7; 16])], carriers.clone());
        raw.say(&Control::Copy(CopyRequest { stream: unknown, audience, carriers })).await;
        sleep(Duration::from_secs(60)).await;
        let mut ordered = Vec::new();
        while let Some(event) = hub.next_event() {
            let Event::CopyRequested { audience, stream: of, .. } = event else {
                panic!("{event:?}")
            };
            assert_eq!(of, stream);
            ordered.push(audience.len());
        }
        assert!(ordered.len() <= 3 && ordered.iter().sum::<usize>() == 1_000, "{ordered:?}");
        assert_eq!(raw.connection.close_reason(), None);
        for node in 0..1_100 {
            if raw.try_say(&request(node)).await.is_err() {
                break;
            }
        }
        let close = raw.closed().await;
        assert_eq!(close.error_code, 4_u32.into());
        let reason = String::from_utf8(close.reason.to_vec()).unwrap();
        assert!(reason.contains("ever more nodes"), "{reason}");
    });
}

#[test]
fn what_was_refused_to_a_peer_is_not_ordered_over_its_next_connection() {
    simulate(async {
        let (sim, edge, hub) = hub_and_raw(12).await;
        let (stream, carriers) = (hub.own_id(), vec![edge.key().origin()]);
        let request = |nodes: std::ops::Range<u16>| {
            let origin = |node: u16| {
                let mut name = [0xAA; 16];
                name[..2].copy_from_slice(&node.to_le_bytes());
                Origin::from_bytes(name)
            };
            let audience = nodes.map(origin).collect();
            Control::Copy(CopyRequest { stream, audience, carriers: carriers.clone() })
        };
        let mut raw = connect(&sim, &edge, &hub).await;
        raw.say_hello(vec![]).await;
        // The first is ordered at once, and the two others would be together.
        raw.say(&request(0..1)).await;
        sleep(Duration::from_secs(2)).await;
        raw.say(&request(1..701)).await;
        raw.say(&request(701..1_401)).await;
        assert_eq!(raw.closed().await.error_code, 4_u32.into());
        let mut raw = connect(&sim, &edge, &hub).await;
        raw.say_hello(vec![]).await;
        sleep(Duration::from_secs(60)).await;
        let mut ordered = Vec::new();
        while let Some(event) = hub.next_event() {
            let Event::CopyRequested { audience, .. } = event else { panic!("{event:?}") };
            ordered.push(audience.len());
        }
        assert_eq!(ordered, [1, 700]);
    });
}

#[test]
fn a_copy_for_who_cannot_need_it_is_not_ordered() {
    simulate(async {
        let (sim, edge, hub) = hub_and_raw(11).await;
        let (own, peer) = (hub.key().origin(), edge.key().origin());
        let other = Origin::from_bytes([5; 16]);
        for (audience, carriers) in
            [(vec![own], vec![peer]), (vec![other], vec![peer, own]), (vec![], vec![peer])]
        {
            let mut raw = connect(&sim, &edge, &hub).await;
            raw.say_hello(vec![]).await;
            let request = CopyRequest { stream: hub.own_id(), audience, carriers };
            raw.say(&Control::Copy(request)).await;
            assert_eq!(raw.closed().await.error_code, 4_u32.into());
        }
        assert_eq!(hub.next_event(), None);
    });
}

#[test]
fn datagrams_without_end_are_dropped() {
    simulate(async {
        let (sim, edge, mut hub) = hub_and_raw(8).await;
        let mut raw = connect(&sim, &edge, &hub).await;
        raw.say_hello(vec![]).await;
        for _ in 0..2_000 {
            let _ = raw.connection.send_datagram(bytes::Bytes::from(vec![9; 1_000]));
            sleep(Duration::from_millis(20)).await;
        }
        assert!(raw.connection.close_reason().is_none());
        let mut bytes = Vec::new();
        open(0, edge.own_id(), &mut bytes);
        let records = Records::one(&Record::Abort);
        data_header(0, Offset::FIRST, &records, &mut bytes);
        bytes.extend_from_slice(records.bytes());
        let _data = ship(&raw, &bytes).await;
        until("taken", LONG, || hub.held(edge.own_id()).0 == Offset::FIRST).await;
        hub.shutdown().await;
    });
}

#[test]
fn a_flood_of_dials_that_lead_nowhere_is_answered_sparingly_and_keeps_nobody_out() {
    simulate(async {
        let sim = Sim::new(QUICK, 9);
        let (mut edge, mut late, mut hub) = (Site::new(1), Site::new(3), Site::new(2));
        hub.start(&sim, vec![edge.as_peer(), late.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        edge.append(&transaction(1, 10_000, 1_000));
        let quiet = until_equal(&edge, &hub, edge.own_id(), LONG).await;

        // Nothing comes back to the machine that dials: its addresses might as well be those of others.
        sim.set_faults(Faults { deaf: Some(FLOODER), ..Faults::default() });
        let stranger = identity(FLOODER);
        let host = sim.host(FLOODER);
        let to = hub.address().parse().unwrap();
        let mut dials = Vec::new();
        edge.append(&transaction(2, 10_000, 1_000));
        let began = Instant::now();
        for _ in 0..200 {
            let from = endpoint(&*host);
            let config = client(tls(ALPN, std::sync::Arc::new(Own(own_key(&stranger, &stranger)))));
            let dial = from.connect_with(config, to, "thinwire").unwrap();
            dials.push((from, dial));
            sleep(Duration::from_millis(5)).await;
        }
        late.start(&sim, vec![hub.as_dialled()]);
        until_equal(&hub, &late, hub.own_id(), Duration::from_secs(10)).await;
        until_equal(&edge, &hub, edge.own_id(), LONG).await;
        let flooded = began.elapsed();
        assert!(flooded < quiet.mul_f64(1.1) + Duration::from_secs(1), "{flooded:?}, {quiet:?}");
        sleep(Duration::from_secs(70)).await;
        let (there, back) = (sim.sent_between(FLOODER, 2), sim.sent_between(2, FLOODER));
        assert!(there > 200 * 1_200 && back <= there * 3, "{there} there, {back} back");
        // Those that were let in without proof cost most; all others a token each.
        assert!(back < there, "{there} there, {back} back");
        assert!(hub.transport().unwelcome().failed_handshakes >= 10);
    });
}

const FLOODER: u8 = 77;
