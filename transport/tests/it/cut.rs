//! Links that end at any byte, change their address in the middle, or are gone for a month.
//!
//! `THINWIRE_LINK_SEEDS` sets at how many bytes the short session is cut, all of them if there are fewer;
//! `THINWIRE_LINK_DAYS` how many days there is no link.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    seeds::{count, each_seed},
    sim::{Kind, SATELLITE, Sim},
    site::{Site, simulate, transaction, until, until_equal},
};

const QUICK: Kind =
    Kind { bits_per_second: 1_000_000.0, delay: Duration::from_millis(20), loss: 0.0 };

#[test]
fn a_session_that_is_cut_at_any_byte_goes_on_from_there() {
    let length = simulate(async {
        let mut pair = Pair::new(QUICK, 1);
        pair.start();
        pair.until_even(Duration::from_secs(10)).await;
        pair.sim.sent_payload()
    });
    let cuts = count("THINWIRE_LINK_SEEDS", 300).min(length);
    each_seed("a_session_that_is_cut", cuts, |number| {
        simulate(async {
            let mut pair = Pair::new(QUICK, 1);
            pair.sim.set_lifetime(Some(number * length / cuts));
            pair.start();
            sleep(Duration::from_secs(4)).await;
            match number % 3 {
                0 => {}
                1 => pair.edge.kill().await,
                _ => pair.hub.kill().await,
            }
            pair.sim.set_lifetime(None);
            pair.start();
            pair.until_even(Duration::from_secs(30)).await;
        });
    });
}

#[test]
fn a_transfer_goes_on_over_one_connection_while_addresses_change() {
    simulate(async {
        let mut pair = Pair::new(SATELLITE, 2);
        pair.start();
        pair.edge.append(&transaction(2, 1_500, 1_000));
        let (id, mut changes) = (pair.edge.own_id(), 0);
        while pair.hub.held(id) != pair.edge.held(id) {
            sleep(Duration::from_secs(4)).await;
            pair.sim.readdress(pair.edge.number);
            changes += 1;
            assert!(changes < 12, "{} of {}", pair.hub.held(id).0, pair.edge.held(id).0);
        }
        assert!(changes > 4, "{changes}");
        pair.until_even(Duration::from_secs(60)).await;
        assert_eq!(pair.sim.dials(pair.edge.number).len(), 1);
    });
}

#[test]
fn days_without_a_link_lose_nothing_and_end_within_seconds() {
    simulate(async {
        let mut pair = Pair::new(SATELLITE, 3);
        pair.start();
        pair.until_even(Duration::from_secs(60)).await;
        pair.sim.set_up(false);
        let spent = pair.sim.sent_bytes();
        let days = u32::try_from(count("THINWIRE_LINK_DAYS", 2)).unwrap();
        for xid in 2..2 + days * 4 {
            sleep(Duration::from_secs(6 * 3_600)).await;
            pair.edge.append(&transaction(xid, 3, 100));
            pair.hub.append(&transaction(xid, 1, 100));
        }
        let spent = pair.sim.sent_bytes() - spent;
        assert!(spent < u64::from(days) * 15_000_000, "{spent} bytes to nobody");
        pair.sim.set_up(true);
        let took = pair.until_even(Duration::from_secs(120)).await;
        assert!(took < Duration::from_secs(60), "{took:?}");
    });
}

struct Pair {
    sim: Arc<Sim>,
    edge: Site,
    hub: Site,
}

impl Pair {
    /// Two nodes with a transaction each.
    fn new(kind: Kind, seed: u64) -> Self {
        Self { sim: Sim::new(kind, seed), edge: Site::new(1), hub: Site::new(2) }
    }

    /// Starts whoever is not running.
    fn start(&mut self) {
        let Self { sim, edge, hub } = self;
        if !hub.is_alive() {
            hub.start(sim, vec![edge.as_peer()]);
        }
        if !edge.is_alive() {
            edge.start(sim, vec![hub.as_dialled()]);
        }
        for (site, rows) in [(edge, 3), (hub, 1)] {
            if site.held(site.own_id()).0.get() == 0 {
                site.append(&transaction(1, rows, 40));
            }
        }
    }

    async fn until_even(&self, limit: Duration) -> Duration {
        let took = until_equal(&self.edge, &self.hub, self.edge.own_id(), limit).await
            + until_equal(&self.hub, &self.edge, self.hub.own_id(), limit).await;
        let told = |from: &Site, to: &Site| {
            let all = from.held(from.own_id()).0;
            from.status(to).streams.iter().any(|at| at.acked == all)
        };
        let both = || told(&self.edge, &self.hub) && told(&self.hub, &self.edge);
        took + until("told", limit, both).await
    }
}
