//! What it costs that nobody is there, and how soon it is noticed that somebody is.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    seeds::count,
    sim::{Faults, Kind, SATELLITE, Sim},
    site::{Site, simulate, transaction, until},
};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const LONG: Duration = Duration::from_secs(600);

/// Two nodes that both have something for each other when the link goes, which loses such a share while it is there.
async fn parted_over(loss: f64, seed: u64) -> (Arc<Sim>, Site, Site) {
    let sim = Sim::new(Kind { loss, ..SATELLITE }, seed);
    let (mut edge, mut hub) = (Site::new(1), Site::new(2));
    hub.start(&sim, vec![edge.as_peer()]);
    edge.start(&sim, vec![hub.as_dialled()]);
    edge.append(&transaction(1, 3_000, 200));
    hub.append(&transaction(1, 3_000, 200));
    let some = || hub.held(edge.own_id()).0.get().min(edge.held(hub.own_id()).0.get()) > 200;
    until("some of it", LONG, some).await;
    sim.set_up(false);
    (sim, edge, hub)
}

/// The same over a link that loses nothing.
async fn parted(seed: u64) -> (Arc<Sim>, Site, Site) {
    parted_over(0.0, seed).await
}

/// The same, and the one who dials is started anew while there is no link.
async fn parted_and_restarted(seed: u64) -> (Arc<Sim>, Site, Site) {
    let (sim, mut edge, hub) = parted(seed).await;
    edge.kill().await;
    edge.start(&sim, vec![hub.as_dialled()]);
    (sim, edge, hub)
}

/// What is sent in an hour, a day, and a month, of which the rest is like a few more days.
async fn cost((sim, _edge, _hub): (Arc<Sim>, Site, Site)) -> [u64; 3] {
    let (before, days) = (sim.sent_bytes(), count("THINWIRE_LINK_AWAY_DAYS", 2));
    sleep(HOUR).await;
    let hour = sim.sent_bytes() - before;
    sleep(DAY - HOUR).await;
    let day = sim.sent_bytes() - before;
    sleep(DAY * u32::try_from(days).unwrap()).await;
    let rest = sim.sent_bytes() - before - day;
    [hour, day, day + rest * 29 / days]
}

#[test]
fn a_month_away_costs_no_more_than_a_month_of_idling() {
    let connected = simulate(async { cost(parted(1).await).await });
    let restarted = simulate(async { cost(parted_and_restarted(1).await).await });
    for [hour, day, month] in [connected, restarted] {
        assert!(hour < 1_200_000, "{hour} bytes in an hour: {connected:?}, {restarted:?}");
        assert!(day < 4_500_000, "{day} bytes in a day: {connected:?}, {restarted:?}");
        assert!(month < 15_000_000, "{month} bytes in a month: {connected:?}, {restarted:?}");
    }
}

#[test]
fn a_path_that_swallows_dials_alone_costs_no_more_than_a_silent_one() {
    let [hour, day] = simulate(async {
        let (sim, _edge, hub) = parted_and_restarted(1).await;
        sim.set_faults(Faults { size_max: Some(1_000), ..Faults::default() });
        sim.set_up(true);
        let (before, answers) = (sim.sent_bytes(), sim.sent_between(2, 1));
        sleep(HOUR).await;
        let hour = sim.sent_bytes() - before;
        assert!(sim.sent_between(2, 1) > answers, "{:?} answers", hub.own_id());
        sleep(DAY - HOUR).await;
        [hour, sim.sent_bytes() - before]
    });
    assert!(hour < 1_200_000, "{hour} bytes in an hour");
    assert!(day < 4_500_000, "{day} bytes in a day");
}

/// How long it takes from the return of the link until more has arrived, on average.
fn stall<F: Future<Output = (Arc<Sim>, Site, Site)>>(
    outage: Duration,
    parted: impl Fn(u64) -> F,
) -> Duration {
    const SEEDS: u64 = 20;
    let each = (0..SEEDS).map(|seed| {
        simulate(async {
            let (sim, edge, hub) = parted(seed).await;
            sleep(outage + Duration::from_millis(seed * 137)).await;
            let before = hub.held(edge.own_id()).0;
            sim.set_up(true);
            until("more", LONG, || hub.held(edge.own_id()).0 > before).await
        })
    });
    each.sum::<Duration>() / u32::try_from(SEEDS).unwrap()
}

#[test]
fn outages_of_up_to_an_hour_end_within_two_seconds_of_the_links_return() {
    for loss in [0.0, 0.02] {
        for seconds in [10, 60, 600, 3_600] {
            let mean = stall(Duration::from_secs(seconds), |seed| parted_over(loss, seed));
            assert!(mean < Duration::from_secs(2), "{mean:?} after {seconds} s, {loss} lost");
        }
    }
}

#[test]
fn who_was_started_without_a_link_knocks_until_there_is_one() {
    for seconds in [120, 600, 3_600] {
        let mean = stall(Duration::from_secs(seconds), parted_and_restarted);
        assert!(mean < Duration::from_secs(7), "{mean:?} after {seconds} s");
    }
}
