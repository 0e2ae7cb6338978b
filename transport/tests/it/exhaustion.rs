//! Peers and strangers that want memory: bombs, drips, floods from addresses that nobody has, and keys that are taken away.

use std::{
    env, fs,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    process::Command,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use thinwire_engine::{
    codec::{Records, RecordsBuf},
    model::{Offset, Record},
};
use thinwire_transport::{
    Network, Peer, Streams,
    endpoint::Resolving,
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

const BROAD: Kind = Kind { bits_per_second: 8_000_000.0, ..QUICK };

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
    alone("a_record_that_has_no_place_is_dropped_as_it_comes_and_what_follows_is_read", async {
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
        grown(before, GROWTH);
        assert_eq!(hub.held(edge.own_id()).0, Offset::FIRST);
        assert!(hub.journal().stream(third.own_id()).is_none());
        let halt = hub.journal().stream(edge.own_id()).unwrap().halted().borrow().clone();
        assert_eq!(halt.map(|halt| halt.code).as_deref(), Some("record_too_large"));
        assert_eq!(raw.connection.close_reason(), None);
    });
}

#[test]
fn bytes_that_drip_one_by_one_and_with_gaps_are_taken_and_hold_up_nobody() {
    alone("bytes_that_drip_one_by_one_and_with_gaps_are_taken_and_hold_up_nobody", async {
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
        grown(before, GROWTH);
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
    alone("a_flood_of_first_packets_from_addresses_that_nobody_has_costs_little", async {
        let flooded = shipped(true).await;
        let quiet = shipped(false).await;
        assert!(quiet > 0 && flooded * 10 > quiet * 9, "{flooded} rows of {quiet}");
    });
}

/// Rows of a steady stream that arrive while a flood lasts, or for as long without one. Who comes meanwhile is let in.
async fn shipped(with_flood: bool) -> u64 {
    let sim = Sim::new(BROAD, 5);
    let (mut edge, mut late, mut hub) = (Site::new(1), Site::new(3), Site::new(2));
    hub.start(&sim, vec![edge.as_peer(), late.as_peer()]);
    hub.append(&transaction(1, 1, 100));
    edge.start(&sim, vec![hub.as_dialled()]);
    let to = hub.address().parse().unwrap();
    let firsts = first_packets(to).await;
    edge.append(&transaction(1, STEADY, 1_000));
    let held = || hub.held(edge.own_id()).0.get();
    until("on its way", LONG, || held() > STEADY / 8).await;

    let (before, start, rows) = (memory(), Instant::now(), held());
    let flood = tokio::spawn({
        let sim = sim.clone();
        async move { if with_flood { pour(&sim, to, &firsts).await } else { 0 } }
    });
    sleep(FLOOD_TIME / 3).await;
    late.start(&sim, vec![hub.as_dialled()]);
    let took = until_equal(&hub, &late, hub.own_id(), LONG).await;
    assert!(took < Duration::from_secs(1), "let in after {took:?}");
    sleep(FLOOD_TIME - start.elapsed()).await;
    let rows = held() - rows;
    assert!(held() < STEADY, "it was not steady");
    let there = flood.await.unwrap();
    if with_flood {
        sleep(Duration::from_secs(70)).await;
        let (_, back) = sim.exchanged_with_nowhere();
        assert!(back < there, "{there} there, {back} back");
        grown(before, FLOOD_GROWTH);
        assert!(hub.transport().unwelcome().failed_handshakes > 0);
    }
    rows
}

/// Brings first packets from a hundred addresses that nobody has, five each millisecond; returns how many bytes.
async fn pour(sim: &Sim, to: SocketAddr, firsts: &[Vec<u8>]) -> u64 {
    let (start, mut number, mut there) = (Instant::now(), 0_usize, 0);
    while start.elapsed() < FLOOD_TIME {
        for _ in 0..5 {
            let bytes = firsts[number % firsts.len()].clone();
            there += bytes.len() as u64;
            let from = [10, 0, 0, NOWHERE + u8::try_from(number % 100).unwrap()];
            let port = 1_024 + u16::try_from(number % 50_000).unwrap();
            sim.throw((from, port).into(), to, bytes);
            number += 1;
        }
        sleep(Duration::from_millis(1)).await;
    }
    there
}

/// Runs a test in a process of its own, where nobody else has lifted the peak of memory before.
fn alone<F: Future<Output = ()>>(test: &str, body: F) {
    if env::var_os(ALONE).is_some() {
        return simulate(body);
    }
    let mut program = Command::new(env::current_exe().unwrap());
    let run = program.args(["--exact", &format!("exhaustion::{test}")]).env(ALONE, "1").output();
    let run = run.unwrap();
    let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

/// Set where a test runs alone.
const ALONE: &str = "THINWIRE_TEST_ALONE";

/// The most memory that the process has had so far, in bytes.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn grown(before: u64, most: u64) {
    let grown = memory().saturating_sub(before);
    assert!(grown < most, "{grown} bytes more, and {before} before");
}

/// What a thousand strangers send first.
async fn first_packets(to: SocketAddr) -> Vec<Vec<u8>> {
    let (stranger, kept) = (identity(NOWHERE), Arc::new(Kept::default()));
    let from = endpoint(&Keeps(kept.clone()));
    let config = client(tls(ALPN, Arc::new(Own(own_key(&stranger, &stranger)))));
    for _ in 0..DIALS {
        let sent = kept.0.lock().unwrap().len();
        let dial = from.connect_with(config.clone(), to, "thinwire").unwrap();
        until("sent", LONG, || kept.0.lock().unwrap().len() > sent).await;
        // What is said of the end of a dial is not said to anybody either.
        kept.0.lock().unwrap().truncate(sent + 1);
        drop(dial);
        sleep(Duration::from_millis(1)).await;
        kept.0.lock().unwrap().truncate(sent + 1);
    }
    std::mem::take(&mut *kept.0.lock().unwrap())
}

/// A socket that keeps what is sent, and to which nothing comes.
#[derive(Debug, Default)]
struct Kept(Mutex<Vec<Vec<u8>>>);

#[derive(Debug)]
struct Keeps(Arc<Kept>);

impl Network for Keeps {
    fn bind(&self, _: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(self.0.clone())
    }

    fn resolve(&self, _: &str) -> Resolving {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }
}

#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Kept {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.0.lock().unwrap().push(transmit.contents.to_vec());
        Ok(())
    }

    fn poll_recv(
        &self,
        _: &mut Context<'_>,
        _: &mut [IoSliceMut<'_>],
        _: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok("10.0.0.99:9".parse().unwrap())
    }
}

const BOMB: usize = 256 << 20;

/// By how much memory may grow whatever is unpacked.
const GROWTH: u64 = 8 << 20;

/// By how much it may grow in a flood, and with what is shipped meanwhile to a disk that is in memory.
const FLOOD_GROWTH: u64 = 32 << 20;

/// How many of the first packets of a flood differ, and how long it lasts.
const DIALS: usize = 1_000;
const FLOOD_TIME: Duration = Duration::from_secs(4);

/// Rows of a thousand bytes that a link does not carry sooner.
const STEADY: u64 = 5_500;
