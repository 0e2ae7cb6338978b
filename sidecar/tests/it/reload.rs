//! Peers that are taken away, added and given other terms while a node runs.

use std::time::Duration;

use serde_json::Value;

use crate::site::{APPLY, CAPTURE, Pair, Site, lively, wait_for};
use thinwire_bench::emulator::socket::Proxy;

const SCHEMA: &str = "create table t (id bigint primary key)";

const SOON: Duration = Duration::from_secs(30);

/// What a node says of its peers.
fn peers(site: &Site) -> Vec<Value> {
    let status = site.node.run(&["status", "--json"]).unwrap();
    let mut status: Value = serde_json::from_str(&status).unwrap();
    serde_json::from_value(status["peers"].take()).unwrap()
}

#[test]
fn a_peer_that_is_taken_away_under_way_is_cut_off_and_comes_back_where_it_was() {
    let mut source = Site::new("edge", CAPTURE, SCHEMA);
    let mut target = Site::new("hq", APPLY, SCHEMA);
    source.init();
    target.init();
    let link = Proxy::start(target.listen, lively(), lively(), 7).unwrap();
    source.peer("hq", &target.key.clone(), Some(link.address()), "");
    target.peer("edge", &source.key.clone(), None, "");
    let mut pair = Pair { source, target, link };
    pair.start();
    pair.source.sql("insert into t values (1)");
    pair.wait_equal(SOON);
    let edge = pair.source.key.clone();

    // Much more than it costs to come back.
    pair.source.sql("insert into t select random() * 9e18 from generate_series(1, 20000)");
    pair.wait_equal(SOON);
    let before = wait_for("a cost", SOON, || {
        peers(&pair.target)[0]["budget"]["day_bytes"].as_u64().filter(|bytes| *bytes > 100_000)
    });

    pair.target.without_peers();
    pair.target.node.run(&["reload"]).unwrap();
    assert!(peers(&pair.target).is_empty());
    wait_for("the connection's end", SOON, || {
        let hq = peers(&pair.source).remove(0);
        (hq["connected"] == false).then_some(())
    });
    pair.source.sql("insert into t values (2)");
    wait_for("a reason", SOON, || {
        let hq = peers(&pair.source).remove(0);
        hq["detail"].as_str().filter(|it| it.contains("this node's key")).map(str::to_owned)
    });
    assert_eq!(pair.target.sql("select count(*) from t where id = 2"), "0");

    pair.target.peer("edge", &edge, None, "day_budget = \"1GB\"");
    let pid = rustix::process::Pid::from_raw(pair.target.node.pid().unwrap().cast_signed());
    rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::HUP).unwrap();
    wait_for("the peer", SOON, || (!peers(&pair.target).is_empty()).then_some(()));
    pair.source.node.run(&["retry", "--peer", "hq"]).unwrap();
    pair.wait_equal(SOON);
    let budget = &peers(&pair.target)[0]["budget"];
    assert_eq!(budget["day_limit"], 1_000_000_000);
    // What it has cost before counts.
    assert!(budget["day_bytes"].as_u64().unwrap() >= before, "{budget} after {before} bytes");

    // A file that cannot be read changes nothing, and is complained of.
    pair.target.peer("edge", &edge, None, "");
    let error = pair.target.node.run(&["reload"]).unwrap_err().to_string();
    assert!(error.contains("two peers have this name"), "{error}");
    pair.source.sql("insert into t values (3)");
    pair.wait_equal(SOON);
}
