//! The proxy between real sockets.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::Duration;

use super::*;
use std::time::Instant;

/// A target that answers each packet with the sender's port and the packet.
fn echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let mut answer = from.port().to_be_bytes().to_vec();
            answer.extend_from_slice(&buffer[..length]);
            socket.send_to(&answer, from).unwrap();
        }
    });
    address
}

struct Client(UdpSocket);

impl Client {
    fn new() -> Client {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client(socket)
    }

    /// Sends what the link keeps for itself, and waits until that is counted.
    fn lose(&self, proxy: &Proxy, text: &[u8], lost: impl Fn(Stats) -> u64) {
        let before = lost(proxy.stats());
        self.0.send_to(text, proxy.address()).unwrap();
        until("nothing is lost", || lost(proxy.stats()) > before);
    }

    /// The port that the target saw, and how long the answer took.
    fn ask(&self, proxy: &Proxy, text: &[u8]) -> Option<(u16, Duration)> {
        let started = Instant::now();
        self.0.send_to(text, proxy.address()).unwrap();
        let mut buffer = [0; 2048];
        let (length, from) = self.0.recv_from(&mut buffer).ok()?;
        assert_eq!((&buffer[2..length], from), (text, proxy.address()));
        Some((u16::from_be_bytes([buffer[0], buffer[1]]), started.elapsed()))
    }
}

fn until(complaint: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{complaint}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn packets_take_their_time_and_none_passes_a_cut() {
    let link = Link::new(10_000_000, Duration::from_millis(30));
    let proxy = Proxy::start(echo(), link, link, 1).unwrap();
    let client = Client::new();
    let (_, took) = client.ask(&proxy, b"one").unwrap();
    assert!(took >= Duration::from_millis(59), "{took:?}");
    proxy.cut();
    assert!(!proxy.is_up());
    client.lose(&proxy, b"two", |stats| stats.up.cut.packets);
    proxy.restore();
    assert!(client.ask(&proxy, b"three").is_some());
    let stats = proxy.stats();
    assert_eq!(stats.up.offered.bytes, 3 + 3 + 5 + 3 * 28);
    assert_eq!((stats.up.cut.packets, stats.up.delivered.packets), (1, 2));
    assert_eq!(stats.carried_bytes(), (3 + 5 + 2 * 28) + (5 + 7 + 2 * 28));
}

#[test]
fn clients_have_addresses_of_their_own_which_rebind_changes() {
    let link = Link::new(1_000_000_000, Duration::from_micros(100));
    let proxy = Proxy::start(echo(), link, link, 1).unwrap();
    let clients = [Client::new(), Client::new()];
    let mut ports = BTreeSet::new();
    for _ in 0..2 {
        let seen = clients.each_ref().map(|client| client.ask(&proxy, b"x").unwrap().0);
        let again = clients.each_ref().map(|client| client.ask(&proxy, b"x").unwrap().0);
        assert_eq!(seen, again);
        ports.extend(seen);
        proxy.rebind();
        // The proxy hears of it in its own time; what is under way then is lost.
        let moved = |(port, _): (u16, Duration)| port != seen[0];
        until("the address stays", || clients[0].ask(&proxy, b"x").is_some_and(moved));
    }
    assert_eq!(ports.len(), 4);
}

#[test]
fn the_link_changes_while_it_runs_and_ends_with_its_owner() {
    let link = Link::new(1_000_000_000, Duration::ZERO);
    let proxy = Proxy::start(echo(), link, link, 1).unwrap();
    let client = Client::new();
    proxy.set_loss(1.0);
    client.lose(&proxy, b"x", |stats| stats.up.lost.packets);
    proxy.set_loss(0.0);
    proxy.set_rate(8_000);
    let (_, took) = client.ask(&proxy, &[7; 72]).unwrap();
    assert!(took >= Duration::from_millis(199), "{took:?}");
    let address = proxy.address();
    drop(proxy);
    // A process that another test has just forked holds the sockets until it becomes another program.
    until("the port is held", || UdpSocket::bind(address).is_ok());
}
