//! When a peer is talked to and how much, kept to by real nodes.

use std::time::Duration;

use serde_json::Value;
use thinwire_bench::{emulator::socket::Proxy, link::Link};
use thinwire_sidecar::access::Local;

use crate::site::{APPLY, CAPTURE, Pair, Site, lively, wait_for};

const SCHEMA: &str = "create table t (id bigint primary key, pad text)";

/// A pair whose ends have these lines about each other.
fn pair(link: Link, at_source: &str, at_target: &str) -> Pair {
    let mut source = Site::new("edge", CAPTURE, SCHEMA);
    let mut target = Site::new("hq", APPLY, SCHEMA);
    source.init();
    target.init();
    let link = Proxy::start(target.listen, link, link, 7).unwrap();
    source.peer("hq", &target.key.clone(), Some(link.address()), at_source);
    target.peer("edge", &source.key.clone(), None, at_target);
    Pair { source, target, link }
}

/// What a node says of its only peer.
fn peer(site: &Site) -> Value {
    let status =
        wait_for("a status", Duration::from_secs(20), || site.node.run(&["status", "--json"]).ok());
    let mut status: Value = serde_json::from_str(&status).unwrap();
    status["peers"][0].take()
}

fn wait_for_stop(site: &Site, code: &str) -> Value {
    wait_for(code, Duration::from_secs(60), || {
        let peer = peer(site);
        (peer["stopped"]["code"] == code).then_some(peer)
    })
}

/// Rows that no compression makes smaller than so many bytes.
fn insert_noise(site: &Site, bytes: u64) {
    site.sql(&format!(
        "insert into t select coalesce((select max(id) from t), 0) + i,
         (select string_agg(md5(random()::text || i || j), '') from generate_series(1, 20) j)
         from generate_series(1, {}) i",
        bytes / 320
    ));
}

#[test]
fn a_spent_budget_stops_a_peer_across_restarts_until_somebody_sets_it_aside() {
    let rules = "rate_limit = \"1Mbit/s\"\ncongestion = \"cubic\"\nday_budget = \"200kB\"\n\
                 month_budget = \"10MB\"\nwindow = \"00:00-24:00\"";
    let mut pair = pair(lively(), rules, "");
    pair.start();
    pair.source.sql("insert into t values (0, 'first')");
    pair.wait_equal(Duration::from_secs(30));
    let before = peer(&pair.source);
    assert_eq!(before["budget"]["day_limit"], 200_000);
    assert_eq!(before["budget"]["stopped"], false);
    assert_eq!(before["window"]["open"], true);

    insert_noise(&pair.source, 600_000);
    let stopped = wait_for_stop(&pair.source, "day_budget_spent");
    let spent = stopped["budget"]["day_bytes"].as_u64().unwrap();
    // What a limit of 1 Mbit/s carries between two looks, and its acknowledgements.
    assert!((200_000..300_000).contains(&spent), "{spent}");
    assert_eq!(stopped["budget"]["warning"], true);
    assert_eq!(stopped["fits_budget"], false);
    assert_eq!((&stopped["connected"], &stopped["eta_seconds"]), (&false.into(), &Value::Null));
    assert!(pair.source.node.log().contains("most of its budget is spent"));
    let carried = pair.link.stats().carried_bytes();
    assert!(carried.abs_diff(spent) < 20_000, "{carried} on the link, {spent} counted");

    pair.source.node.stop().unwrap();
    pair.source.node.start().unwrap();
    wait_for_stop(&pair.source, "day_budget_spent");
    std::thread::sleep(Duration::from_secs(3));
    let still = pair.link.stats().carried_bytes();
    assert!(still - carried < 2_000, "{} bytes while it was stopped", still - carried);

    pair.source.node.run(&["resume", "--peer", "hq"]).unwrap();
    pair.wait_equal(Duration::from_secs(60));
    let aside = peer(&pair.source);
    assert_eq!((&aside["budget"]["set_aside"], &aside["stopped"]), (&true.into(), &Value::Null));
    let text = pair.source.node.run(&["status"]).unwrap();
    assert!(text.contains("set aside until the day is over"), "{text}");
    // A pause ends that, and what resumes everything does not bring it back.
    pair.source.node.run(&["pause", "--peer", "hq"]).unwrap();
    pair.source.node.run(&["resume"]).unwrap();
    wait_for_stop(&pair.source, "day_budget_spent");
}

#[test]
fn outside_of_its_window_a_peer_that_dials_is_told_to_stay_away() {
    // From three hours after this one, for an hour.
    let hour = Local::now().second / 3_600;
    let window = format!("window = \"{:02}:00-{:02}:00\"", (hour + 3) % 24, (hour + 4) % 24);
    let mut pair = pair(lively(), "", &window);
    pair.start();
    pair.source.sql("insert into t values (1, 'a')");
    let closed = wait_for_stop(&pair.target, "outside_window");
    assert_eq!(closed["window"]["open"], false);
    let wait = closed["stopped"]["lifts_in_seconds"].as_u64().unwrap();
    assert!((7_000..=10_800).contains(&wait), "{wait}");
    wait_for("the reason at the other end", Duration::from_secs(20), || {
        let peer = peer(&pair.source);
        peer["detail"].as_str()?.contains("outside of its window").then_some(())
    });
    let carried = pair.link.stats().carried_bytes();
    std::thread::sleep(Duration::from_secs(8));
    let more = pair.link.stats().carried_bytes() - carried;
    assert!(more < 1_000, "{more} bytes from a peer that was told to stay away");

    pair.target.node.run(&["resume", "--peer", "edge"]).unwrap();
    pair.source.node.run(&["retry", "--peer", "hq"]).unwrap();
    pair.wait_equal(Duration::from_secs(30));
}
