//! Links that are up for seconds only, and links that are full in both directions.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    sim::{Kind, Sim},
    site::{Site, simulate, transaction, until, until_equal},
};

const ROW: u64 = 1_000;
const ROWS: u64 = 100;
const LONG: Duration = Duration::from_secs(600);

/// An orbiter's pass.
const PASS: Kind =
    Kind { bits_per_second: 512_000.0, delay: Duration::from_millis(30), loss: 0.01 };
/// The same, over an older radio.
const SLOW: Kind = Kind { bits_per_second: 256_000.0, ..PASS };
/// As far as a satellite.
const FAR: Kind = Kind { bits_per_second: 256_000.0, delay: Duration::from_millis(300), loss: 0.0 };
const THIN: Kind = Kind { bits_per_second: 64_000.0, ..FAR };

/// Gives a site as many rows as the link carries in so many seconds.
fn fill(site: &Site, kind: Kind, seconds: f64) {
    let transactions = kind.bits_per_second / 8.0 * seconds / (ROW * ROWS) as f64;
    let mut xid = 0;
    while f64::from(xid) + 1.0 <= transactions {
        xid += 1;
        site.append(&transaction(xid, ROWS, 1_000));
    }
}

/// The share of what a link could carry while it is up that rows are, from the second time that it is up on.
async fn used(kind: Kind, up: Duration, down: Duration, seed: u64) -> f64 {
    const TIMES: u32 = 4;
    let sim = Sim::new(kind, seed);
    let (mut edge, mut hub) = (Site::new(1), Site::new(2));
    hub.start(&sim, vec![edge.as_peer()]);
    edge.start(&sim, vec![hub.as_dialled()]);
    fill(&edge, kind, up.as_secs_f64() * f64::from(TIMES + 1));
    until("connected", LONG, || edge.status(&hub).connected).await;
    let mut shares = 0.0;
    for time in 0..=TIMES {
        sim.set_up(true);
        let before = hub.held(edge.own_id()).0;
        sleep(up).await;
        sim.set_up(false);
        // Whenever the link comes back, it is not in step with anything.
        sleep(down + Duration::from_millis(seed * 173)).await;
        let rows = hub.held(edge.own_id()).0.since(before);
        if time > 0 {
            shares += (rows * ROW) as f64 / (up.as_secs_f64() * kind.bits_per_second / 8.0);
        }
    }
    shares / f64::from(TIMES)
}

#[test]
fn most_of_a_short_contact_is_used_for_what_is_new() {
    for kind in [PASS, SLOW, FAR] {
        // Of eight seconds of a far link three round trips are gone before the first row can arrive.
        let short = if kind.delay < FAR.delay { 0.80 } else { 0.55 };
        for (up, down, least) in [(8, 82, short), (20, 70, 0.85)] {
            let shares = (0..4).map(|seed| {
                simulate(used(kind, Duration::from_secs(up), Duration::from_secs(down), seed))
            });
            let mean = shares.sum::<f64>() / 4.0;
            assert!(mean >= least, "{mean} of contacts of {up} s, {kind:?}");
        }
    }
}

/// How long it takes to carry a minute's load, and one in the other direction at the same time.
async fn carried(kind: Kind, back: f64) -> Duration {
    let sim = Sim::new(kind, 3);
    let (mut edge, mut hub) = (Site::new(1), Site::new(2));
    hub.start(&sim, vec![edge.as_peer()]);
    edge.start(&sim, vec![hub.as_dialled()]);
    fill(&edge, kind, 60.0);
    fill(&hub, kind, back);
    let start = Instant::now();
    until_equal(&edge, &hub, edge.own_id(), LONG).await;
    until_equal(&hub, &edge, hub.own_id(), LONG).await;
    start.elapsed()
}

#[test]
fn two_backlogs_in_opposite_directions_do_not_hold_each_other_up() {
    for kind in [PASS, SLOW, FAR, THIN] {
        let alone = simulate(carried(kind, 0.0));
        let both = simulate(carried(kind, 60.0));
        assert!(both < alone.mul_f64(1.15), "{both:?}, alone {alone:?}: {kind:?}");
    }
}
