//! Cut anywhere and resume: outages, restarts of either side, and what they cost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use thinwire_engine::model::Offset;

use crate::{
    sim::{Kind, SATELLITE, Sim},
    site::{Site, simulate, transaction, until, until_equal},
};

const LONG: Duration = Duration::from_secs(600);

fn fill(site: &Site, transactions: u32, rows: u64, bytes: usize) {
    let records: Vec<_> =
        (1..=transactions).flat_map(|xid| transaction(xid, rows, bytes)).collect();
    site.append(&records);
}

#[test]
fn five_thousand_records_survive_a_link_that_is_cut_at_random() {
    let (uncut, _) = simulate(run(0, false));
    // What may be unacknowledged: the pipe, a full queue before it, and a frame.
    let window = 38_400 + 64_000 + 16_384;
    let (mut extra, mut cuts) = (0, 0);
    for seed in 1..=8 {
        let (bytes, cut) = simulate(run(seed, true));
        assert!(
            bytes < uncut + cut * window,
            "seed {seed}: {bytes} bytes, {cut} cuts, {uncut} without"
        );
        (extra, cuts) = (extra + bytes.saturating_sub(uncut), cuts + cut);
    }
    assert!(extra < cuts * window / 2, "{extra} bytes more for {cuts} cuts");
}

/// Ships 5,000 records; returns the bytes on the link and how often it was cut.
async fn run(seed: u64, cutting: bool) -> (u64, u64) {
    let sim = Sim::new(SATELLITE, seed);
    let (mut edge, mut hub) = (Site::new(1), Site::new(2));
    hub.start(&sim, vec![edge.as_peer()]);
    edge.start(&sim, vec![hub.as_dialled()]);
    fill(&edge, 500, 8, 60);
    let id = edge.own_id();
    let cuts = Arc::new(AtomicU64::new(0));
    let cutter = {
        let (sim, cuts) = (sim.clone(), cuts.clone());
        tokio::spawn(async move {
            if !cutting {
                return;
            }
            loop {
                tokio::time::sleep(Duration::from_millis(1_500 + sim.random() % 4_000)).await;
                sim.set_up(false);
                cuts.fetch_add(1, Relaxed);
                tokio::time::sleep(Duration::from_millis(200 + sim.random() % 12_000)).await;
                sim.set_up(true);
            }
        })
    };
    until_equal(&edge, &hub, id, LONG).await;
    assert_eq!(hub.held(id).0, Offset::new(5_000));
    let acked =
        || edge.status(&hub).streams.iter().all(|stream| stream.acked == Offset::new(5_000));
    until("acked", LONG, acked).await;
    cutter.abort();
    (sim.sent_bytes(), cuts.load(Relaxed))
}

#[test]
fn a_connection_lives_through_an_outage_and_goes_on_within_two_seconds() {
    simulate(async {
        for outage in [4, 30, 300] {
            let sim = Sim::new(SATELLITE, outage);
            let (mut edge, mut hub) = (Site::new(1), Site::new(2));
            hub.start(&sim, vec![edge.as_peer()]);
            edge.start(&sim, vec![hub.as_dialled()]);
            fill(&edge, 200, 40, 200);
            until("half of it", LONG, || hub.held(edge.own_id()).0 > Offset::new(2_000)).await;
            sim.set_up(false);
            tokio::time::sleep(Duration::from_secs(outage)).await;
            let before = hub.held(edge.own_id()).0;
            sim.set_up(true);
            let stall = until("more", LONG, || hub.held(edge.own_id()).0 > before).await;
            assert!(stall < Duration::from_millis(2_800), "{stall:?} after {outage} s");
        }
    });
}

#[test]
fn either_side_may_be_killed_inside_a_huge_transaction() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 3);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        let id = edge.own_id();
        edge.append(&transaction(1, 6_000, 60));
        let mut last = Offset::ZERO;
        for round in 0..4_u64 {
            let goal = Offset::new(1_000 * (round + 1));
            until("some", LONG, || hub.held(id).0 >= goal).await;
            assert!(hub.held(id).0 >= last, "durable records were lost");
            last = hub.held(id).0;
            if round % 2 == 0 {
                hub.kill().await;
                tokio::time::sleep(Duration::from_secs(2)).await;
                hub.start(&sim, vec![edge.as_peer()]);
            } else {
                edge.kill().await;
                edge.start(&sim, vec![hub.as_dialled()]);
            }
        }
        until_equal(&edge, &hub, id, LONG).await;
        assert_eq!(hub.held(id).0, Offset::new(6_002));
    });
}

#[test]
fn a_restarted_listener_is_found_again_even_if_nothing_is_to_be_shipped_to_it() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 9);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        until("connected", LONG, || edge.status(&hub).connected).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        hub.kill().await;
        hub.start(&sim, vec![edge.as_peer()]);
        hub.append(&transaction(1, 1, 1));
        let id = hub.own_id();
        let stall = until_equal(&hub, &edge, id, LONG).await;
        assert!(stall < Duration::from_secs(40), "{stall:?}");
    });
}

#[test]
fn both_directions_share_one_connection() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 4);
        let (mut a, mut b) = (Site::new(1), Site::new(2));
        // Both dial: the two connections that cross are decided between.
        a.start(&sim, vec![b.as_dialled()]);
        b.start(&sim, vec![a.as_dialled()]);
        fill(&a, 20, 20, 100);
        fill(&b, 20, 20, 100);
        until_equal(&a, &b, a.own_id(), LONG).await;
        until_equal(&b, &a, b.own_id(), LONG).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(a.status(&b).connected && b.status(&a).connected);
        let quiet = sim.sent_bytes();
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        let hour = sim.sent_bytes() - quiet;
        assert!(hour < 20_000, "{hour} bytes in an idle hour");
        assert!(a.status(&b).connected && b.status(&a).connected);
    });
}

#[test]
fn a_change_on_an_idle_link_leaves_at_once() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 5);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        until("connected", LONG, || edge.status(&hub).connected).await;
        tokio::time::sleep(Duration::from_secs(200)).await;
        edge.append(&transaction(1, 1, 1));
        let took = until_equal(&edge, &hub, edge.own_id(), LONG).await;
        assert!(took < Duration::from_millis(380), "{took:?}");
    });
}

#[test]
fn what_is_missing_at_the_start_is_waited_for() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 6);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        sim.set_missing(true);
        hub.start(&sim, vec![edge.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        fill(&edge, 2, 2, 10);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(edge.status(&hub).last_error.is_some());
        sim.set_missing(false);
        let took = until_equal(&edge, &hub, edge.own_id(), LONG).await;
        assert!(took < Duration::from_secs(15), "{took:?}");
        assert_eq!(edge.status(&hub).last_error, None);
    });
}

#[test]
fn a_link_of_2400_bits_a_second_and_three_seconds_carries_something() {
    let crawl = Kind { bits_per_second: 2_400.0, delay: Duration::from_millis(1_500), loss: 0.05 };
    simulate(async move {
        let sim = Sim::new(crawl, 7);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        fill(&edge, 10, 10, 60);
        until_equal(&edge, &hub, edge.own_id(), Duration::from_secs(1_800)).await;
    });
}

#[test]
fn a_polite_shutdown_tells_the_last_acks_and_is_quick() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 8);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        fill(&edge, 2, 2, 10);
        until_equal(&edge, &hub, edge.own_id(), LONG).await;
        let start = tokio::time::Instant::now();
        hub.shutdown().await;
        assert!(start.elapsed() <= Duration::from_secs(2), "{:?}", start.elapsed());
        until("acked", Duration::from_secs(1), || {
            edge.status(&hub).streams.iter().any(|stream| stream.acked == Offset::new(8))
        })
        .await;
        until("gone", Duration::from_secs(1), || !edge.status(&hub).connected).await;
    });
}

#[test]
fn a_pause_stops_both_directions_and_ends() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 10);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        until("connected", LONG, || edge.status(&hub).connected).await;
        assert!(hub.transport().pause("site1"));
        tokio::time::sleep(Duration::from_secs(5)).await;
        fill(&edge, 2, 2, 10);
        fill(&hub, 2, 2, 10);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(hub.held(edge.own_id()).0, Offset::ZERO);
        assert_eq!(edge.held(hub.own_id()).0, Offset::ZERO);
        assert!(hub.status(&edge).paused);
        hub.transport().resume("site1");
        until_equal(&edge, &hub, edge.own_id(), LONG).await;
        until_equal(&hub, &edge, hub.own_id(), LONG).await;
    });
}

#[test]
fn an_outage_costs_little() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 77);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        fill(&edge, 200, 40, 200);
        until("half of it", LONG, || hub.held(edge.own_id()).0 > Offset::new(2_000)).await;
        sim.set_up(false);
        let before = sim.sent_bytes();
        tokio::time::sleep(Duration::from_secs(600)).await;
        let spent = sim.sent_bytes() - before;
        // Probes, what waited in the connection, and eight dials beside it.
        assert!(
            spent < 1_200 * 75 + 70_000 + 8 * 5_000,
            "{spent} bytes in ten minutes without a link"
        );
    });
}

#[test]
fn a_lossy_link_is_filled() {
    let rungs = [(0.0, 0.9), (0.02, 0.9), (0.05, 0.88), (0.1, 0.8)];
    let runs = rungs.iter().flat_map(|rung| (11..14).map(move |seed| (rung, seed)));
    for (&(loss, least), seed) in runs {
        let kind = Kind { bits_per_second: 256_000.0, delay: Duration::from_millis(300), loss };
        simulate(async move {
            let sim = Sim::new(kind, seed);
            let (mut edge, mut hub) = (Site::new(1), Site::new(2));
            hub.start(&sim, vec![edge.as_peer()]);
            edge.start(&sim, vec![hub.as_dialled()]);
            fill(&edge, 40, 100, 1_000);
            tokio::time::sleep(Duration::from_secs(60)).await;
            let bytes = hub.held(edge.own_id()).0.get() * 1_000;
            let share = bytes as f64 / (60.0 * 32_000.0);
            assert!(share > least, "{share} of the capacity at {loss} loss, seed {seed}");
        });
    }
}

#[test]
fn a_link_of_2400_bits_a_second_and_three_seconds_that_loses_a_third_carries_something() {
    for seed in 1..=5 {
        simulate(async move {
            let kind =
                Kind { bits_per_second: 2_400.0, delay: Duration::from_millis(1_500), loss: 0.3 };
            let sim = Sim::new(kind, seed);
            let (mut edge, mut hub) = (Site::new(1), Site::new(2));
            hub.start(&sim, vec![edge.as_peer()]);
            edge.start(&sim, vec![hub.as_dialled()]);
            fill(&edge, 10, 10, 60);
            let connected = || edge.status(&hub).connected;
            until("connected", Duration::from_secs(900), connected).await;
            until_equal(&edge, &hub, edge.own_id(), Duration::from_secs(900)).await;
        });
    }
}

#[test]
fn who_only_listens_and_receives_is_quiet_while_the_link_is_down() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 78);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        fill(&edge, 200, 40, 200);
        until("half of it", LONG, || hub.held(edge.own_id()).0 > Offset::new(2_000)).await;
        sim.set_up(false);
        tokio::time::sleep(Duration::from_secs(30)).await;
        let sent = |from: &Site, to: &Site| sim.sent_between(from.number, to.number);
        let before = (sent(&hub, &edge), sent(&edge, &hub));
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        let (listener, dialler) = (sent(&hub, &edge) - before.0, sent(&edge, &hub) - before.1);
        // What it has said last is said again, ever more rarely; it asks for nothing.
        assert!(listener < 1_500, "{listener} bytes in an hour without a link");
        assert!(dialler > 50_000, "nobody asked whether the link is back: {dialler} bytes");
    });
}
