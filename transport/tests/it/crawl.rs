//! Links that crawl: what it takes to be connected where a packet of a handshake takes seconds.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    sim::{Kind, Sim},
    site::{Site, simulate, until},
};

const LONG: Duration = Duration::from_secs(600);

#[test]
fn a_handshake_takes_what_its_packets_take_also_where_they_crawl() {
    for bits in [2_400, 4_800, 9_600, 20_000] {
        simulate(async {
            let delay = Duration::from_millis(300);
            let sim = Sim::new(Kind { bits_per_second: f64::from(bits), delay, loss: 0.0 }, 1);
            let (mut edge, mut hub) = (Site::new(1), Site::new(2));
            hub.start(&sim, vec![edge.as_peer()]);
            edge.start(&sim, vec![hub.as_dialled()]);
            connected(&sim, &edge, &hub, bits).await;
            sleep(Duration::from_secs(120)).await;
            hub.kill().await;
            hub.start(&sim, vec![edge.as_peer()]);
            until("lost", LONG, || !edge.status(&hub).connected).await;
            connected(&sim, &edge, &hub, bits).await;
            // The second was dialled once, too.
            assert_eq!(sim.dials(edge.number).len(), 2, "{bits} bits a second");
        });
    }
}

/// Waits for the connection, which is not to cost more than its packets do where they are not repeated, or some times that on
/// links where one takes longer than anybody would wait to repeat it.
async fn connected(sim: &Arc<Sim>, edge: &Site, hub: &Site, bits: u32) {
    let sent =
        || sim.sent_between(edge.number, hub.number) + sim.sent_between(hub.number, edge.number);
    let before = sent();
    let both = || edge.status(hub).connected && hub.status(edge).connected;
    let took = until("connected", LONG, both).await;
    let slack = if bits < CRAWL { 3.6 } else { 1.0 };
    let (bytes, most) = (sent() - before, FLOOR * slack);
    assert!(bytes as f64 <= most, "{bytes} bytes at {bits} bits a second");
    let limit = most * 8.0 / f64::from(bits) + ROUND_TRIPS;
    assert!(took.as_secs_f64() < limit, "{took:?} at {bits} bits a second, and may take {limit}");
}

/// Bytes of all packets that have to be: three of 1,200, and little ones.
const FLOOR: f64 = 4_250.0;

/// Seconds for two round trips, and for the headers below QUIC.
const ROUND_TRIPS: f64 = 2.0;

/// Below so many bits a second an answer may take longer than the 2.7 seconds after which a packet is repeated.
const CRAWL: u32 = 10_000;
