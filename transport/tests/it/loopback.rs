//! The same over real sockets, in real time.

use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use thinwire_engine::model::Offset;
use thinwire_transport::{
    Network, Peer, StartError,
    endpoint::{Resolving, Udp},
};
use tokio::time::sleep;

use crate::{
    raw::{ALPN, Own, client, endpoint, own_key, tls},
    site::{Site, identity, transaction, until, until_equal},
};

const LONG: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_sockets_carry_both_directions_through_a_restart() {
    let (mut edge, mut hub) = (Site::new(1), Site::new(2));
    hub.start_on(Arc::new(Udp), Some("127.0.0.1:0".parse().unwrap()), vec![edge.as_peer()]);
    let at = hub.transport().listening().unwrap();
    let hub_peer = Peer { address: Some(format!("localhost:{}", at.port())), ..hub.as_peer() };
    edge.start_on(Arc::new(Udp), None, vec![hub_peer]);
    for xid in 1..=200 {
        edge.append(&transaction(xid, 50, 100));
        hub.append(&transaction(xid, 5, 100));
    }
    until_equal(&edge, &hub, edge.own_id(), LONG).await;
    until_equal(&hub, &edge, hub.own_id(), LONG).await;
    assert_eq!(hub.held(edge.own_id()).0, Offset::new(200 * 52));

    hub.kill().await;
    // The dead process' socket goes with its last connection.
    until("free", LONG, || UdpSocket::bind(at).is_ok()).await;
    edge.append(&transaction(201, 10, 100));
    hub.start_on(Arc::new(Udp), Some(at), vec![edge.as_peer()]);
    let took = until_equal(&edge, &hub, edge.own_id(), LONG).await;
    assert!(took < Duration::from_secs(40), "{took:?}");
    edge.shutdown().await;
    until("gone", LONG, || !hub.status(&edge).connected).await;
}

#[tokio::test]
async fn a_port_that_somebody_holds_is_said_at_the_start() {
    let held = UdpSocket::bind("127.0.0.1:0").unwrap();
    let site = Site::new(1);
    let error = site.try_start(Some(held.local_addr().unwrap())).unwrap_err();
    assert!(matches!(error, StartError::PortTaken { .. }), "{error}");
    // An address that this machine does not have (yet) is weather.
    site.try_start(Some("198.51.100.7:7420".parse().unwrap())).unwrap().shutdown().await;
}

/// A machine of 127.0.0.2 that gets to see no more of an answer than the question whether it is there.
#[derive(Debug)]
struct Unfinished;

impl Network for Unfinished {
    fn bind(&self, _: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(RetryOnly(Udp.bind("127.0.0.2:0".parse().unwrap())?)))
    }

    fn resolve(&self, address: &str) -> Resolving {
        Udp.resolve(address)
    }
}

/// A socket to which only Retry packets come, so that each dial proves its address and gets no further.
#[derive(Debug)]
struct RetryOnly(Arc<dyn AsyncUdpSocket>);

impl AsyncUdpSocket for RetryOnly {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.0.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.0.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let polled = self.0.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(count)) = &polled {
            for (buf, meta) in bufs.iter().zip(meta.iter_mut()).take(*count) {
                // A long header, and the type of a Retry (RFC 9000, section 17.2).
                meta.len = if buf[0] & 0xF0 == 0xF0 { meta.len } else { 0 };
            }
        }
        polled
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }
}

#[test]
fn a_flood_from_an_address_that_is_there_keeps_nobody_out() {
    tokio::runtime::Runtime::new().unwrap().block_on(flood());
}

async fn flood() {
    let (mut edge, mut late, mut hub) = (Site::new(1), Site::new(3), Site::new(2));
    let peers = vec![edge.as_peer(), late.as_peer()];
    hub.start_on(Arc::new(Udp), Some("127.0.0.1:0".parse().unwrap()), peers);
    let at = hub.transport().listening().unwrap();
    let hub_peer = || Peer { address: Some(at.to_string()), ..hub.as_peer() };
    edge.start_on(Arc::new(Udp), None, vec![hub_peer()]);
    hub.append(&transaction(1, 10, 100));
    until_equal(&hub, &edge, hub.own_id(), LONG).await;

    let (from, stranger) = (endpoint(&Unfinished), identity(77));
    let config = client(tls(ALPN, Arc::new(Own(own_key(&stranger, &stranger)))));
    let flood = tokio::spawn(async move {
        let mut dials = Vec::new();
        loop {
            dials.push(from.connect_with(config.clone(), at, "thinwire").unwrap());
            sleep(Duration::from_millis(10)).await;
        }
    });
    // Until as many handshakes are under way as may be, whoever begins them.
    until("somebody makes way", LONG, || hub.transport().unwelcome().failed_handshakes > 0).await;
    late.start_on(Arc::new(Udp), None, vec![hub_peer()]);
    let took = until_equal(&hub, &late, hub.own_id(), LONG).await;
    // Sooner than any of the handshakes under way is given up by itself.
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert!(edge.status(&hub).connected && !flood.is_finished());
    flood.abort();
}
