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

/// What the link has carried when nothing is on its way any more.
fn settled(pair: &Pair) -> u64 {
    let mut carried = pair.link.stats().carried_bytes();
    wait_for("a link at rest", Duration::from_secs(20), || {
        std::thread::sleep(Duration::from_millis(500));
        let now = pair.link.stats().carried_bytes();
        (std::mem::replace(&mut carried, now) == now).then_some(now)
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

    insert_noise(&pair.source, 2_000_000);
    wait_for_stop(&pair.source, "day_budget_spent");
    let carried = settled(&pair);
    // What comes after the look that has stopped it is counted at the next.
    let (stopped, spent) = wait_for("the end to be counted", Duration::from_secs(20), || {
        let peer = peer(&pair.source);
        let spent = peer["budget"]["day_bytes"].as_u64().unwrap();
        let is_over = peer["connected"] == false && carried.abs_diff(spent) < 20_000;
        is_over.then_some((peer, spent))
    });
    // What a limit of 1 Mbit/s carries between two looks, and its acknowledgements; but not all.
    assert!((200_000..600_000).contains(&spent), "{spent}");
    assert_eq!(stopped["budget"]["warning"], true);
    assert_eq!(stopped["fits_budget"], false);
    // What is left takes the budgets of several days from tomorrow on.
    let tomorrow = stopped["stopped"]["lifts_in_seconds"].as_u64().unwrap();
    let eta = stopped["eta_seconds"].as_u64().unwrap();
    let days = (eta - tomorrow) / 86_400;
    assert!((2..20).contains(&days), "{eta} s, and {tomorrow} to midnight");
    assert!(pair.source.node.log().contains("most of its budget is spent"));

    pair.source.node.stop().unwrap();
    pair.source.node.start().unwrap();
    let after = wait_for_stop(&pair.source, "day_budget_spent")["budget"]["day_bytes"].clone();
    assert!(
        after.as_u64().unwrap().abs_diff(spent) < 20_000,
        "{after} after a restart, {spent} before"
    );
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
    let carried = settled(&pair);
    std::thread::sleep(Duration::from_secs(8));
    let more = pair.link.stats().carried_bytes() - carried;
    assert!(more < 1_000, "{more} bytes from a peer that was told to stay away");

    pair.target.node.run(&["resume", "--peer", "edge"]).unwrap();
    pair.source.node.run(&["retry", "--peer", "hq"]).unwrap();
    pair.wait_equal(Duration::from_secs(30));
}
