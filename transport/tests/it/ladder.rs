//! Every rung of the benchmarks' ladder, carried by two real ends in virtual time: as fast as the link's own figures allow.
//!
//! `THINWIRE_LADDER_SEEDS` sets how many runs there are of each rung.

use std::time::Duration;

use thinwire_bench::link::{
    Link, Transit,
    ladder::{ALL, LEO, Rung, WIFI},
};
use tokio::time::{Instant, sleep};

use crate::{
    seeds::{count, each_seed},
    sim::Sim,
    site::{Site, simulate, transaction, until, until_equal},
};

#[test]
fn every_rung_of_the_ladder_is_used() {
    let rungs = ALL.len() as u64;
    let seeds = count("THINWIRE_LADDER_SEEDS", 1) * rungs;
    each_seed("every_rung", seeds, |seed| {
        let rung = ALL[usize::try_from(seed % rungs).unwrap()];
        let shipped = simulate(ship(rung, seed));
        let (took, limit) = (shipped.took, limit(rung.link, seed, shipped.bytes));
        assert!(took <= limit, "{}: {took:?}, and may take {limit:?}", rung.name);
        // Else the limit would say nothing of half the performance.
        assert!(limit < took * 2, "{}: {took:?}, and might take {limit:?}", rung.name);
        let most = shipped.bytes as f64 * OVERHEAD_MOST;
        assert!(shipped.sent as f64 <= most, "{}: {shipped:?}", rung.name);
        if seed == 0 {
            assert_eq!(simulate(ship(rung, seed)), shipped, "a seed is to replay exactly");
        }
    });
}

#[test]
fn packets_that_overtake_each_other_are_not_sent_twice() {
    for seed in 0..3 {
        let shipped = simulate(ship(WIFI, seed));
        let sent = shipped.sent as f64 / shipped.bytes as f64;
        // Of which 1.11 are what the headers and the losses take.
        assert!(sent < 1.3, "seed {seed}: {sent} bytes for each byte");
    }
}

#[test]
fn another_satellite_each_15_s_and_another_address_each_minute_are_hardly_noticed() {
    simulate(async {
        let sim = Sim::over(LEO.link, 1);
        let (mut edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        edge.start(&sim, vec![hub.as_dialled()]);
        until("connected", MOMENT, || edge.status(&hub).connected).await;
        let every = LEO.readdress.unwrap();
        let (start, mut changed) = (Instant::now(), Duration::ZERO);
        for xid in 1..=200 {
            let last = Instant::now();
            edge.append(&transaction(xid, 1, 100));
            until_equal(&edge, &hub, edge.own_id(), MOMENT).await;
            hub.append(&transaction(xid, 1, 100));
            until_equal(&hub, &edge, hub.own_id(), MOMENT).await;
            sleep(Duration::from_secs(1).saturating_sub(last.elapsed())).await;
            if start.elapsed() >= changed + every {
                changed += every;
                sim.readdress(edge.number);
            }
        }
        assert!(changed >= every * 3);
        assert_eq!(sim.dials(edge.number).len(), 1);
    });
}

/// What a rung made of a backlog.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shipped {
    took: Duration,
    /// Bytes of rows, and of whole packets in both directions.
    bytes: u64,
    sent: u64,
    trace: u64,
}

/// Ships what a rung carries in a minute, or three megabytes.
async fn ship(rung: Rung, seed: u64) -> Shipped {
    let sim = Sim::over(rung.link, seed);
    let (mut edge, mut hub) = (Site::new(1), Site::new(2));
    hub.start(&sim, vec![edge.as_peer()]);
    edge.start(&sim, vec![hub.as_dialled()]);
    let transactions = (rung.link.rate_bps * 60 / 8 / (ROWS * ROW)).clamp(1, 30);
    for xid in 1..=transactions {
        edge.append(&transaction(u32::try_from(xid).unwrap(), ROWS, 1_000));
    }
    let start = Instant::now();
    while hub.held(edge.own_id()) != edge.held(edge.own_id()) {
        sleep(LOOK_EVERY).await;
        assert!(start.elapsed() < Duration::from_secs(3_600), "{} rows", hub.held(edge.own_id()).0);
    }
    let (took, bytes) = (start.elapsed(), transactions * ROWS * ROW);
    Shipped { took, bytes, sent: sim.sent_bytes(), trace: sim.trace() }
}

/// How long a link may take for so many bytes of rows: what its own figures say, with some more bytes for headers and what
/// is sent again, a few round trips until it is filled, and a moment each time it comes back.
fn limit(link: Link, seed: u64, bytes: u64) -> Duration {
    let transit = Transit::new(link, seed);
    let round_trip = (link.delay + link.jitter) * 2;
    let wakes = round_trip * 2 + PROBE_EVERY;
    let (mut at, mut asleep) = (Duration::ZERO, Duration::ZERO);
    let mut bits = bytes as f64 * EFFORT * 8.0;
    while bits > 0.0 {
        if !transit.is_up(at) {
            asleep = at + wakes;
        } else if at >= asleep {
            let rate = transit.rate_bps(at) as f64 * (1.0 - link.loss);
            bits -= rate * STEP.as_secs_f64();
        }
        at += STEP;
    }
    at + round_trip * FILLING + COMMITS
}

const ROW: u64 = 1_000;
const ROWS: u64 = 100;

/// Bytes on the link for each byte of a row, acknowledgements included, as far as time is concerned.
const EFFORT: f64 = 1.4;

/// The same on the worst rung, as far as a bill is.
const OVERHEAD_MOST: f64 = 1.4;

/// Round trips for the handshake, the greeting and a window that begins with ten packets.
const FILLING: u32 = 8;

/// How often a silent connection is probed.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// What the journals of both ends take to make things durable.
const COMMITS: Duration = Duration::from_millis(20);

const STEP: Duration = Duration::from_micros(500);
const LOOK_EVERY: Duration = Duration::from_millis(1);
const MOMENT: Duration = Duration::from_secs(2);
