//! The same over real sockets, in real time.

use std::{net::UdpSocket, sync::Arc, time::Duration};

use thinwire_engine::model::Offset;
use thinwire_transport::{Peer, StartError, endpoint::Udp};

use crate::site::{Site, transaction, until, until_equal};

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
    assert!(took < Duration::from_secs(20), "{took:?}");
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
