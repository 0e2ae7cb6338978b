//! Two flows that share a link, and what each leaves to the other.

use std::{ops::Range, time::Duration};

use thinwire_transport::{
    Congestion::{self, Cubic, Thin},
    Peer, Rules,
};
use tokio::time::{Instant, sleep};

use crate::{
    sim::{Kind, Sim},
    site::{Site, simulate, transaction, until},
};

/// The shares of the link that the rows of two edges get beside each other, once both have found it.
fn shares(flows: [Congestion; 2], loss: f64, seed: u64) -> [f64; 2] {
    simulate(async {
        let sim = Sim::new(Kind { loss, ..SHARED }, seed);
        let (mut edges, mut hub) = ([Site::new(1), Site::new(3)], Site::new(2));
        sim.set_bottleneck(hub.number);
        hub.start(&sim, edges.iter().map(Site::as_peer).collect());
        for (edge, congestion) in edges.iter_mut().zip(flows) {
            let rules = Rules { congestion, ..Rules::default() };
            edge.start(&sim, vec![Peer { rules, ..hub.as_dialled() }]);
            (1..=MOST).for_each(|xid| edge.append(&transaction(xid, ROWS, ROW)));
        }
        let held = |edge: &Site| hub.held(edge.own_id()).0.get();
        until("both on their way", FOUND, || edges.iter().all(|edge| held(edge) > 0)).await;
        sleep(FOUND).await;
        let (before, start) = (edges.each_ref().map(held), Instant::now());
        sleep(WATCHED).await;
        let capacity = SHARED.bits_per_second / 8.0 * start.elapsed().as_secs_f64();
        let after = edges.each_ref().map(held);
        [0, 1].map(|at| (after[at] - before[at]) as f64 * ROW as f64 / capacity)
    })
}

/// The same of a few seeds.
fn each(flows: [Congestion; 2], loss: f64) -> Vec<[f64; 2]> {
    (0..SEEDS).map(|seed| shares(flows, loss, seed)).collect()
}

/// Whether each flow of each seed has a share within its bounds.
fn within(shares: &[[f64; 2]], bounds: [Range<f64>; 2]) -> bool {
    shares.iter().all(|pair| pair.iter().zip(&bounds).all(|(share, range)| range.contains(share)))
}

#[test]
fn cubic_makes_way_where_our_own_controller_does_not() {
    let alike = each([Cubic, Cubic], 0.1);
    // Each takes every loss for the other, and both together leave much of the link unused.
    assert!(within(&alike, [0.22..0.48, 0.22..0.48]), "{alike:?}");
    assert!(alike.iter().all(|[one, other]| one + other < 0.85), "{alike:?}");
    let beside = each([Thin, Cubic], 0.1);
    // That is what our own takes; from the other one not much.
    assert!(within(&beside, [0.5..0.78, 0.18..0.45]), "{beside:?}");
    assert!(beside.iter().all(|[ours, other]| ours + other > 0.88), "{beside:?}");
    let sum = |shares: &[[f64; 2]]| shares.iter().map(|[_, other]| other).sum::<f64>();
    assert!(sum(&beside) > sum(&alike) * 0.6, "{beside:?}, and {alike:?} among themselves");
}

#[test]
fn where_hardly_anything_is_lost_our_own_controller_leaves_cubic_its_half() {
    for loss in [0.0, 0.02] {
        let beside = each([Thin, Cubic], loss);
        assert!(within(&beside, [0.28..0.5, 0.42..0.68]), "{loss} lost: {beside:?}");
        assert!(beside.iter().all(|[ours, other]| ours + other > 0.88), "{beside:?}");
    }
}

const SHARED: Kind =
    Kind { bits_per_second: 256_000.0, delay: Duration::from_millis(300), loss: 0.0 };

/// More than the link carries all the while.
const MOST: u32 = 50;
const ROWS: u64 = 100;
const ROW: usize = 1_000;

const SEEDS: u64 = 2;

/// How long two flows may take to begin, and then to find the link and each other.
const FOUND: Duration = Duration::from_secs(30);
const WATCHED: Duration = Duration::from_secs(90);
