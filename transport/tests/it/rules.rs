//! What a user may say about a peer's link, kept to by two real ends.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use quinn::AsyncUdpSocket;
use thinwire_transport::{Bar, Compression, Congestion, Network, Peer, Rules, endpoint::Resolving};
use tokio::time::{Instant, sleep};

use crate::{
    sim::{Host, Kind, SATELLITE, Sim},
    site::{Site, simulate, transaction, until, until_equal},
};

const LONG: Duration = Duration::from_secs(600);

/// Bytes of one row of noise, and of all packets around one.
const ROW: usize = 200;
const PACKET: u64 = 1_228;

/// Bytes that had left, and rows that had arrived, each so often.
async fn watch(edge: &Site, hub: &Site, duration: Duration) -> Vec<(u64, u64)> {
    let (mut seen, end) = (Vec::new(), Instant::now() + duration);
    while Instant::now() < end {
        seen.push((edge.status(hub).bytes_sent, hub.held(edge.own_id()).0.get()));
        sleep(STEP).await;
    }
    seen
}

const STEP: Duration = Duration::from_millis(20);

/// An edge under `rules` that has more to ship than it can, and the hub that takes it.
async fn under(rules: Rules, kind: Kind, seed: u64) -> (Site, Site) {
    let sim = Sim::new(kind, seed);
    let (mut edge, mut hub) = (Site::new(1), Site::new(2));
    hub.start(&sim, vec![edge.as_peer()]);
    edge.start(&sim, vec![Peer { rules, ..hub.as_dialled() }]);
    for xid in 1..=60 {
        edge.append(&transaction(xid, 200, ROW));
    }
    until("connected", LONG, || edge.status(&hub).connected).await;
    (edge, hub)
}

#[test]
fn a_limit_is_never_exceeded_and_all_of_it_is_used() {
    const NEAR: Kind = Kind { bits_per_second: 10e6, delay: Duration::from_millis(2), loss: 0.0 };
    for congestion in [Congestion::Thin, Congestion::Cubic] {
        for (kind, bits) in [(SATELLITE, 64_000), (NEAR, 64_000), (NEAR, 2_000_000)] {
            let seen = simulate(async {
                let rules = Rules { rate_limit: Some(bits), congestion, ..Rules::default() };
                let (edge, hub) = under(rules, kind, 11).await;
                let seconds = if bits > 1_000_000 { 8 } else { 120 };
                watch(&edge, &hub, Duration::from_secs(seconds)).await
            });
            let cap = bits as f64 / 8.0;
            let steps = usize::try_from(2_000 / STEP.as_millis()).unwrap();
            for pair in seen.windows(steps) {
                let left = pair[steps - 1].0 - pair[0].0;
                let most = cap * 2.01 + PACKET as f64;
                assert!(left as f64 <= most, "{congestion:?}, {kind:?}, {bits}: {left} of {most}");
            }
            let half = seen.len() / 2;
            let rows = seen[seen.len() - 1].1 - seen[half].1;
            let goodput =
                rows as f64 * ROW as f64 / ((seen.len() - half) as f64 * STEP.as_secs_f64());
            let share = goodput / cap;
            assert!((0.9..1.0).contains(&share), "{congestion:?}, {kind:?}, {bits}: {share}");
        }
    }
}

#[test]
fn an_outage_under_a_limit_ends_like_any_other() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 5);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        let rules = Rules { rate_limit: Some(128_000), ..Rules::default() };
        hub.start(&sim, vec![Peer { rules, ..edge.as_peer() }]);
        edge.start(&sim, vec![Peer { rules, ..hub.as_dialled() }]);
        edge.append(&transaction(1, 2_000, ROW));
        until("some of it", LONG, || hub.held(edge.own_id()).0.get() > 200).await;
        sim.set_up(false);
        sleep(Duration::from_secs(60)).await;
        let before = hub.held(edge.own_id()).0;
        sim.set_up(true);
        let stall = until("more", LONG, || hub.held(edge.own_id()).0 > before).await;
        assert!(stall < Duration::from_secs(3), "{stall:?}");
        until_equal(&edge, &hub, edge.own_id(), LONG).await;
    });
}

#[test]
fn a_barred_peer_stays_away_without_hammering_and_comes_back_when_the_bar_lifts() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 8);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        edge.append(&transaction(1, 10, ROW));
        until_equal(&edge, &hub, edge.own_id(), LONG).await;

        let lifts_in = Duration::from_secs(1_800);
        let bar = Bar { reason: "outside of its window".into(), lifts_in };
        assert!(hub.transport().bar(&edge.name, Some(bar.clone())));
        assert!(!hub.transport().bar("nobody", None));
        until("gone", LONG, || !edge.status(&hub).connected && !hub.status(&edge).connected).await;
        let said = edge.status(&hub).last_error.unwrap();
        assert!(said.contains("outside of its window, for another 1800 s"), "{said}");
        edge.append(&transaction(2, 10, ROW));
        sleep(Duration::from_secs(5)).await;
        let before = sim.sent_bytes();
        sleep(Duration::from_secs(1_700)).await;
        assert_eq!(sim.sent_bytes(), before, "somebody dialled");

        // A peer that knows nothing of it is told, and stays away too.
        edge.kill().await;
        edge.start(&sim, vec![hub.as_dialled()]);
        hub.transport().bar(&edge.name, Some(Bar { lifts_in: Duration::from_secs(100), ..bar }));
        sleep(Duration::from_secs(90)).await;
        assert!(sim.sent_bytes() - before < 12_000, "{}", sim.sent_bytes() - before);
        assert_ne!(edge.held(edge.own_id()), hub.held(edge.own_id()));

        hub.transport().bar(&edge.name, None);
        let took = until_equal(&edge, &hub, edge.own_id(), LONG).await;
        assert!(took < Duration::from_secs(25), "{took:?}");
    });
}

#[test]
fn what_a_barred_peer_dials_counts_although_it_is_sent_away() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 14);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        let bar = Bar { reason: "its budget is spent".into(), lifts_in: LONG };
        hub.transport().bar(&edge.name, Some(bar));
        edge.start(&sim, vec![hub.as_dialled()]);
        let asked = || edge.status(&hub).last_error.is_some();
        until("told to stay away", LONG, asked).await;
        sleep(Duration::from_secs(10)).await;
        let (at_edge, at_hub) = (edge.status(&hub), hub.status(&edge));
        // Less than all: the last words come behind the count.
        let most = sim.sent_bytes();
        for status in [&at_edge, &at_hub] {
            let counted = status.bytes_sent + status.bytes_received;
            assert!(counted > most / 2 && counted <= most, "{counted} of {most} bytes");
        }
    });
}

#[test]
fn who_has_barred_its_peer_does_not_dial_and_goes_on_at_once_when_it_may() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 9);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        until("connected", LONG, || edge.status(&hub).connected).await;
        let bar = Bar { reason: "its budget is spent".into(), lifts_in: LONG };
        edge.transport().bar(&hub.name, Some(bar));
        until("gone", LONG, || !hub.status(&edge).connected).await;
        assert!(!edge.status(&hub).connected);
        sleep(Duration::from_secs(5)).await;
        let before = sim.sent_bytes();
        edge.append(&transaction(1, 10, ROW));
        sleep(LONG).await;
        assert_eq!(sim.sent_bytes(), before, "something was sent");
        edge.transport().bar(&hub.name, None);
        let took = until_equal(&edge, &hub, edge.own_id(), LONG).await;
        assert!(took < Duration::from_secs(5), "{took:?}");
    });
}

#[test]
fn whatever_one_end_compresses_with_the_other_reads() {
    let ways = [Compression::Packets, Compression::Zstd, Compression::Lz4, Compression::None];
    for (at, here) in ways.into_iter().enumerate() {
        simulate(async move {
            let sim = Sim::new(SATELLITE, 21);
            let (mut edge, mut hub) = (Site::new(1), Site::new(2));
            let there = ways[(at + 1) % ways.len()];
            let rules = |compression| Rules { compression, ..Rules::default() };
            hub.start(&sim, vec![Peer { rules: rules(there), ..edge.as_peer() }]);
            edge.start(&sim, vec![Peer { rules: rules(here), ..hub.as_dialled() }]);
            for xid in 1..=20 {
                edge.append(&transaction(xid, 10, ROW));
                hub.append(&transaction(xid, 10, ROW));
            }
            // Longer than a packet, a block and a chunk.
            edge.append(&transaction(21, 2, 1_500_000));
            until_equal(&edge, &hub, edge.own_id(), LONG).await;
            until_equal(&hub, &edge, hub.own_id(), LONG).await;
        });
    }
}

/// Bytes of both directions in an hour in which nothing happens, and how long a change then takes to leave.
async fn idle(rules: Rules) -> (u64, Duration) {
    let sim = Sim::new(Kind { loss: 0.0, ..SATELLITE }, 31);
    let (mut edge, mut hub) = (Site::new(1), Site::new(2));
    hub.start(&sim, vec![edge.as_peer()]);
    edge.start(&sim, vec![Peer { rules, ..hub.as_dialled() }]);
    edge.append(&transaction(1, 10, ROW));
    until_equal(&edge, &hub, edge.own_id(), LONG).await;
    sleep(Duration::from_secs(60)).await;
    let before = sim.sent_bytes();
    sleep(Duration::from_secs(3_600)).await;
    let cost = sim.sent_bytes() - before;
    // Not beside a keep-alive.
    let before = sim.sent_bytes();
    until("a keep-alive", LONG, || sim.sent_bytes() > before).await;
    sleep(Duration::from_secs(3)).await;
    let (before, start) = (sim.sent_bytes(), Instant::now());
    edge.append(&transaction(2, 1, 40));
    while sim.sent_bytes() == before {
        sleep(Duration::from_millis(1)).await;
        assert!(start.elapsed() < LONG);
    }
    (cost, start.elapsed())
}

#[test]
fn an_idle_link_costs_next_to_nothing_and_a_change_leaves_at_once() {
    for (keep_alive, most) in [(None, 20_000), (Some(Duration::from_secs(100)), 8_000)] {
        let rules = Rules { keep_alive, ..Rules::default() };
        let (cost, wait) = simulate(idle(rules));
        assert!(cost <= most, "{cost} bytes an hour with {keep_alive:?}");
        assert!(cost >= 1_000, "the link is not kept alive: {cost} bytes");
        assert!(wait <= Duration::from_millis(50), "{wait:?} with {keep_alive:?}");
    }
}

/// A host that is told by which way packets leave.
#[derive(Debug)]
struct Routed {
    host: Arc<Host>,
    route: Mutex<Option<IpAddr>>,
}

impl Routed {
    fn turn(&self, to: Option<u8>) {
        *self.route.lock().unwrap() = to.map(|number| Ipv4Addr::new(10, 1, 0, number).into());
    }
}

impl Network for Routed {
    fn bind(&self, local: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        self.host.bind(local)
    }

    fn resolve(&self, address: &str) -> Resolving {
        self.host.resolve(address)
    }

    fn route(&self, _: SocketAddr) -> Option<IpAddr> {
        *self.route.lock().unwrap()
    }

    fn seed(&self) -> Option<[u8; 32]> {
        self.host.seed()
    }
}

#[test]
fn a_new_way_to_a_peer_is_tried_at_once_and_never_more_than_once_a_second() {
    simulate(async {
        let sim = Sim::new(Kind { loss: 0.0, ..SATELLITE }, 17);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        let routed = Arc::new(Routed { host: sim.host(1), route: Mutex::new(None) });
        sim.set_up(false);
        edge.start_on(routed.clone(), None, vec![hub.as_dialled()]);
        // Into a dial that is patient, and says nothing again for half a minute.
        sleep(Duration::from_secs(97)).await;
        sim.set_up(true);
        routed.turn(Some(1));
        let took = until("connected", LONG, || edge.status(&hub).connected).await;
        assert!(took < Duration::from_millis(5_500), "{took:?}");

        // A way that comes and goes is no reason to hammer.
        sim.set_up(false);
        edge.append(&transaction(1, 1, 40));
        until("silence", LONG, || !edge.status(&hub).connected).await;
        let before = sim.sent_bytes();
        for turn in 0..600_u32 {
            routed.turn((turn % 2 == 0).then_some((turn % 200) as u8));
            sleep(Duration::from_millis(100)).await;
        }
        let spent = sim.sent_bytes() - before;
        // An attempt a second, and a packet that is sent again.
        assert!(spent < 60 * 3 * PACKET, "{spent} bytes in a minute of a way that comes and goes");
        routed.turn(Some(1));
        sim.set_up(true);
        until_equal(&edge, &hub, edge.own_id(), LONG).await;
    });
}

#[test]
fn a_silent_connection_is_probed_as_soon_as_the_way_has_changed() {
    simulate(async {
        let sim = Sim::new(Kind { loss: 0.0, ..SATELLITE }, 18);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        let routed = Arc::new(Routed { host: sim.host(1), route: Mutex::new(None) });
        routed.turn(Some(1));
        edge.start_on(routed.clone(), None, vec![hub.as_dialled()]);
        until("connected", LONG, || edge.status(&hub).connected).await;
        sleep(Duration::from_secs(30)).await;
        let before = sim.sent_bytes();
        until("a keep-alive", LONG, || sim.sent_bytes() > before).await;
        sleep(Duration::from_secs(3)).await;
        let before = sim.sent_bytes();
        routed.turn(Some(2));
        until("a probe", Duration::from_millis(1_100), || sim.sent_bytes() > before).await;
        assert!(sim.sent_bytes() - before < 200, "a probe is no handshake");
    });
}
