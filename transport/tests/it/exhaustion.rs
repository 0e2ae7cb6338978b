//! Peers and strangers that want memory: bombs, drips, floods from addresses that nobody has, and keys that are taken away.

use std::{fs, sync::Arc, time::Duration};

use thinwire_engine::{
    codec::{Records, RecordsBuf},
    model::{Offset, Record},
};
use thinwire_transport::{
    Peer, Streams,
    frame::{Control, Hello, data_header},
    wire::Outlet,
};
use tokio::time::{Instant, sleep};

use crate::{
    misbehaviour::{connect, hub_and_raw, open},
    raw::{ALPN, Own, client, endpoint, own_key, tls},
    sim::{Faults, Kind, NOWHERE, SATELLITE, Sim},
    site::{Site, identity, simulate, transaction, until, until_equal},
};

const LONG: Duration = Duration::from_secs(120);

const QUICK: Kind =
    Kind { bits_per_second: 20_000_000.0, delay: Duration::from_millis(10), loss: 0.0 };

/// Sends a frame of one record of zeros, which is small on the wire.
fn bomb(outlet: &mut Outlet, index: u32, bytes: usize, wire: &mut Vec<u8>) {
    let (mut length, mut frame) = (Vec::new(), Vec::new());
    thinwire_engine::codec::put_varint(bytes as u64, &mut length);
    // The header of a frame with one record of another length, and that length in its place.
    let fields = [vec![u8::try_from(index).unwrap(), 1, 1], length].concat();
    frame.push(2);
    thinwire_engine::codec::put_varint((fields.len() + bytes) as u64, &mut frame);
    frame.extend_from_slice(&fields);
    outlet.stream(&frame, wire).unwrap();
    let zeros = vec![0; 1 << 20];
    (0..bytes / zeros.len()).for_each(|_| outlet.stream(&zeros, wire).unwrap());
}

#[test]
fn a_record_that_has_no_place_is_dropped_as_it_comes_and_what_follows_is_read() {
    simulate(async {
        let sim = Sim::new(QUICK, 1);
        let (edge, third, mut hub) = (Site::new(1), Site::new(3), Site::new(2));
        hub.budget = 64 << 20;
        hub.start(&sim, vec![Peer { receive: Streams::Own, ..edge.as_peer() }]);
        let mut raw = connect(&sim, &edge, &hub).await;
        raw.say_hello(vec![]).await;
        let (mut outlet, mut frames, mut wire) = (Outlet::default(), Vec::new(), Vec::new());
        open(0, third.own_id(), &mut frames);
        open(1, edge.own_id(), &mut frames);
        outlet.stream(&frames, &mut wire).unwrap();
        // Of a stream that is not taken.
        bomb(&mut outlet, 0, BOMB, &mut wire);
        let (records, mut frame) = (Records::one(&Record::Abort), Vec::new());
        data_header(1, Offset::FIRST, &records, &mut frame);
        frame.extend_from_slice(records.bytes());
        outlet.stream(&frame, &mut wire).unwrap();
        // Of one that is, and beyond all that the journal may hold.
        bomb(&mut outlet, 1, BOMB, &mut wire);
        outlet.flush(&mut wire).unwrap();
        assert!(wire.len() < BOMB / 1_000, "{} bytes are no bomb", wire.len());
        let before = memory();
        let mut data = raw.connection.open_uni().await.unwrap();
        data.write_all(&wire).await.unwrap();
        let error = || hub.status(&edge).last_error.unwrap_or_default();
        until("refused", LONG, || error().contains("budget")).await;
        let grown = memory().saturating_sub(before);
        assert!(grown < GROWTH, "{grown} bytes more");
        assert_eq!(hub.held(edge.own_id()).0, Offset::FIRST);
        assert!(hub.journal().stream(third.own_id()).is_none());
        let halt = hub.journal().stream(edge.own_id()).unwrap().halted().borrow().clone();
        assert_eq!(halt.map(|halt| halt.code).as_deref(), Some("record_too_large"));
        assert_eq!(raw.connection.close_reason(), None);
    });
}

#[test]
fn bytes_that_drip_one_by_one_and_with_gaps_are_taken_and_hold_up_nobody() {
    simulate(async {
        let sim = Sim::new(QUICK, 2);
        let (edge, mut other, mut hub) = (Site::new(1), Site::new(3), Site::new(2));
        hub.start(&sim, vec![edge.as_peer(), other.as_peer()]);
        other.start(&sim, vec![hub.as_dialled()]);
        let mut raw = connect(&sim, &edge, &hub).await;
        raw.say_hello(vec![]).await;
        let records = transaction(1, 20, 100);
        let mut buf = RecordsBuf::new();
        records.iter().for_each(|record| buf.push(record));
        let (records, mut frame) = (buf.take(), Vec::new());
        open(0, edge.own_id(), &mut frame);
        data_header(0, Offset::FIRST, &records, &mut frame);
        frame.extend_from_slice(records.bytes());
        let (mut outlet, mut wire) = (Outlet::default(), Vec::new());
        outlet.stream(&frame, &mut wire).unwrap();
        outlet.flush(&mut wire).unwrap();
        assert!(wire.len() > 1_000);

        sim.set_faults(Faults { loss: 0.3, late: 0.3, ..Faults::default() });
        let (before, packets) = (memory(), sim.sent_packets());
        let mut data = raw.connection.open_uni().await.unwrap();
        for byte in &wire {
            data.write_all(&[*byte]).await.unwrap();
            sleep(Duration::from_millis(5)).await;
        }
        assert!(sim.sent_packets() - packets > wire.len() as u64, "they did not come one by one");
        sim.set_faults(Faults::default());
        other.append(&transaction(1, 100, 1_000));
        until_equal(&other, &hub, other.own_id(), Duration::from_secs(5)).await;
        until("taken", LONG, || hub.held(edge.own_id()).0 == Offset::new(22)).await;
        let grown = memory().saturating_sub(before);
        assert!(grown < GROWTH, "{grown} bytes more");
    });
}

#[test]
fn a_hello_that_drips_is_given_up() {
    simulate(async {
        let (sim, edge, hub) = hub_and_raw(3).await;
        let mut raw = connect(&sim, &edge, &hub).await;
        let (mut hello, start) = (Vec::new(), Instant::now());
        Control::Hello(Hello {
            name: "drip".repeat(50),
            instance: 1,
            replaces: false,
            paused: false,
            wants: Streams::All,
            holds: vec![],
        })
        .encode(&mut hello)
        .unwrap();
        for byte in hello {
            if raw.control.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(raw.closed().await.error_code, 2_u32.into());
        assert!(start.elapsed() < Duration::from_secs(61), "{:?}", start.elapsed());
        assert!(!hub.status(&edge).connected);
    });
}

#[test]
fn a_key_that_is_taken_away_loses_its_connection_and_gets_no_other() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 4);
        let (mut edge, mut other, mut hub) = (Site::new(1), Site::new(3), Site::new(2));
        hub.start(&sim, vec![edge.as_peer(), other.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        other.start(&sim, vec![hub.as_dialled()]);
        edge.append(&transaction(1, 2_000, 1_000));
        until("in the middle", LONG, || hub.held(edge.own_id()).0 > Offset::new(100)).await;
        // What is configured is read at the start.
        hub.kill().await;
        hub.start(&sim, vec![other.as_peer()]);
        let (held, restarted) = (hub.held(edge.own_id()).0, Instant::now());
        let error = || edge.status(&hub).last_error.unwrap_or_default();
        until("over", Duration::from_secs(5), || !edge.status(&hub).connected).await;
        until("told", LONG, || error().contains("is this node's key in its configuration")).await;
        other.append(&transaction(1, 100, 100));
        until_equal(&other, &hub, other.own_id(), LONG).await;
        sleep(LONG.saturating_sub(restarted.elapsed())).await;
        assert!(!edge.status(&hub).connected);
        assert_eq!(hub.held(edge.own_id()).0, held);
        assert!(hub.transport().unwelcome().strangers > 0);
    });
}

#[test]
fn a_flood_of_first_packets_from_addresses_that_nobody_has_costs_little() {
    simulate(async {
        let sim = Sim::new(QUICK, 5);
        let (mut edge, mut late, mut hub) = (Site::new(1), Site::new(3), Site::new(2));
        hub.start(&sim, vec![edge.as_peer(), late.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        edge.append(&transaction(1, 5_000, 1_000));
        let quiet = until_equal(&edge, &hub, edge.own_id(), LONG).await;

        let to = hub.address().parse().unwrap();
        let (stranger, mut dials) = (identity(NOWHERE), Vec::new());
        edge.append(&transaction(2, 5_000, 1_000));
        let (before, began) = (memory(), Instant::now());
        for number in 0..FLOOD {
            let from = endpoint(&*sim.host(NOWHERE + u8::try_from(number % 100).unwrap()));
            let config = client(tls(ALPN, Arc::new(Own(own_key(&stranger, &stranger)))));
            dials.push((from.connect_with(config, to, "thinwire").unwrap(), from));
            sleep(Duration::from_millis(2)).await;
        }
        late.start(&sim, vec![hub.as_dialled()]);
        until_equal(&hub, &late, hub.own_id(), Duration::from_secs(10)).await;
        until_equal(&edge, &hub, edge.own_id(), LONG).await;
        let flooded = began.elapsed();
        assert!(flooded < quiet.mul_f64(1.1) + Duration::from_secs(1), "{flooded:?}, {quiet:?}");
        sleep(Duration::from_secs(70)).await;
        let (there, back) = sim.exchanged_with_nowhere();
        assert!(there > FLOOD * 1_200 && back < there, "{there} there, {back} back");
        // The flood's own dials are in the same process, and are most of it.
        let grown = memory().saturating_sub(before);
        assert!(grown < GROWTH, "{grown} bytes more");
        assert!(hub.transport().unwelcome().failed_handshakes > 0);
    });
}

/// The most memory that the process has had so far, in bytes.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

const BOMB: usize = 256 << 20;

/// By how much memory may grow, with what other tests take that run in the same process: less than what a bomb unpacks to.
const GROWTH: u64 = 192 << 20;

const FLOOD: u64 = 1_000;
