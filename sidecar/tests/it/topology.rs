//! Both directions over one connection without an echo, and a hub that forwards.

use std::time::Duration;

use thinwire_bench::emulator::socket::Proxy;
use thinwire_cluster::digest;

use crate::site::{APPLY, CAPTURE, DB, Pair, Site, lively, wait_for};

#[test]
fn two_way_exchange_does_not_echo() {
    let schema = "create table t (id bigint primary key, who text)";
    let both = format!("{CAPTURE}[apply]\nexisting = \"merge\"\n");
    let source = Site::new("left", &both, schema);
    let target = Site::new("right", &both, schema);
    let mut pair = Pair::of(source, target, lively());
    pair.start();
    for round in 0..40_u64 {
        pair.source.sql(&format!("insert into t values ({}, 'left')", round * 2));
        pair.target.sql(&format!("insert into t values ({}, 'right')", round * 2 + 1));
    }
    pair.wait_equal(Duration::from_secs(60));
    // PostgreSQL: 030_origin 1-3
    assert_eq!(pair.source.sql("select count(*) from t").trim(), "80");
    pair.source.sql("update t set who = 'changed by left' where id < 10");
    pair.wait_equal(Duration::from_secs(30));
    // Each removes what came from the other as well.
    pair.source.sql("delete from t where id % 8 = 1");
    pair.target.sql("delete from t where id % 8 = 2");
    pair.wait_equal(Duration::from_secs(30));
    // PostgreSQL: 030_origin 4, 5
    assert_eq!(pair.source.sql("select count(*) from t"), "60");
    // An echo would keep the streams growing.
    let appended = |pair: &Pair| -> Vec<u64> {
        [&pair.source, &pair.target]
            .iter()
            .flat_map(|site| site.status().streams)
            .filter_map(|stream| stream.appended)
            .collect()
    };
    let quiet = wait_for("quiet", Duration::from_secs(30), || {
        let before = appended(&pair);
        std::thread::sleep(Duration::from_secs(2));
        (before == appended(&pair)).then_some(before)
    });
    assert_eq!(quiet.len(), 4);
}

#[test]
fn a_hub_forwards_between_two_edges() {
    let schema = "create table a (id bigint primary key, v text); create table b (id bigint primary key, v text)";
    let only =
        |table: &str| format!("[capture]\nmode = \"slot\"\ntables = [\"public.{table}\"]\n{APPLY}");
    let mut left = Site::new("left", &only("a"), schema);
    let mut right = Site::new("right", &only("b"), schema);
    let mut hub = Site::new("hub", APPLY, schema);
    // This one asks for nothing but the hub's own changes.
    let mut other = Site::new("other", APPLY, schema);
    for site in [&mut left, &mut right, &mut hub, &mut other] {
        site.init();
    }
    let link = Proxy::start(hub.listen, lively(), lively(), 3).unwrap();
    let all = "receive = \"*\"";
    left.peer("hub", &hub.key, Some(link.address()), all);
    right.peer("hub", &hub.key, Some(link.address()), all);
    hub.peer("left", &left.key, None, "send = \"*\"");
    hub.peer("right", &right.key, None, "send = \"*\"");
    other.peer("hub", &hub.key, Some(link.address()), "");
    hub.peer("other", &other.key, None, "send = \"*\"");
    for site in [&mut left, &mut right, &mut hub, &mut other] {
        site.node.start().unwrap();
    }
    left.sql("insert into a select i, md5(i::text) from generate_series(1, 2000) i");
    right.sql("insert into b select i, md5(i::text) from generate_series(1, 3000) i");
    let tables = ["public.a", "public.b"];
    // PostgreSQL: 022_twophase_cascade 1
    // PostgreSQL: 030_origin 6
    wait_for("all three to be equal", Duration::from_secs(60), || {
        let digests: Vec<_> = [&left, &right, &hub]
            .iter()
            .map(|site| digest::digests(&site.cluster, DB, &tables).unwrap())
            .collect();
        let filled = digests[0].iter().all(|digest| !digest.starts_with("0:"));
        (filled && digests[0] == digests[1] && digests[1] == digests[2]).then_some(())
    });
    // PostgreSQL: 030_origin 7
    wait_for("the other to be connected", Duration::from_secs(30), || {
        other.status().peers.iter().all(|peer| peer.connected).then_some(())
    });
    assert_eq!(other.sql("select (select count(*) from a), (select count(*) from b)"), "0|0");
    // What the hub passes on is taken over like the hub's own.
    left.node.stop().unwrap();
    left.sql("update thinwire.applied set seal = null");
    left.init();
    left.node.start().unwrap();
    right.sql("insert into b values (0, 'more')");
    wait_for("more of the right one", Duration::from_secs(60), || {
        (left.sql("select v from b where id = 0") == "more").then_some(())
    });
    for site in [&left, &right, &hub, &other] {
        site.check_memory();
    }
}

#[test]
fn an_edge_that_joins_late_behind_a_hub_is_copied_to_through_it() {
    let schema = "create table t (id bigint primary key, v text)";
    let small = "[journal]\nretention = \"0s\"\nsegment = \"64KiB\"\nbudget = \"5MiB\"\n";
    let mut origin = Site::new("origin", &format!("{CAPTURE}{small}"), schema);
    let mut hub = Site::new("hub", &format!("{APPLY}{small}"), schema);
    origin.init();
    hub.init();
    origin.peer("hub", &hub.key, Some(hub.listen), "");
    hub.peer("origin", &origin.key, None, "");
    hub.node.start().unwrap();
    origin.node.start().unwrap();
    wait_for("the hub's journal to be trimmed", Duration::from_secs(60), || {
        origin.sql("delete from t; insert into t select i, md5(random()::text) || md5(random()::text) from generate_series(1, 3000) i");
        hub.status().streams.first()?.first.filter(|first| *first > 1)
    });
    origin.sql("vacuum full t");
    let mut late = Site::new("late", APPLY, schema);
    late.init();
    late.peer("hub", &hub.key, Some(hub.listen), "receive = \"*\"");
    hub.peer("late", &late.key, None, "send = \"*\"");
    hub.node.stop().unwrap();
    hub.node.start().unwrap();
    late.node.start().unwrap();
    let equal = || {
        let digest = |site: &Site| digest::digest(&site.cluster, DB, "public.t").unwrap();
        (digest(&origin) == digest(&late) && digest(&origin) == digest(&hub)).then_some(())
    };
    wait_for("the late edge to be equal", Duration::from_secs(60), equal);
    origin.sql("update t set v = 'changed' where id % 7 = 0");
    wait_for("it to stay equal", Duration::from_secs(30), equal);
}

#[test]
fn a_source_that_lost_its_journal_begins_anew_and_leaves_others_rows_alone() {
    let schema = "create table t (id bigint primary key, who text)";
    let mut left = Site::new("left", CAPTURE, schema);
    let mut right = Site::new("right", CAPTURE, schema);
    let mut hub = Site::new("hub", "[apply]\nexisting = \"merge\"\n", schema);
    for site in [&mut left, &mut right, &mut hub] {
        site.init();
    }
    for site in [&mut left, &mut right] {
        site.peer("hub", &hub.key, Some(hub.listen), "");
    }
    hub.peer("left", &left.key, None, "");
    hub.peer("right", &right.key, None, "");
    left.sql("insert into t select i, 'left' from generate_series(1, 100) i");
    right.sql("insert into t select i, 'right' from generate_series(1001, 1100) i");
    for site in [&mut left, &mut right, &mut hub] {
        site.node.start().unwrap();
    }
    let counts = |hub: &Site| hub.sql("select who || count(*) from t group by who order by 1");
    let wait = |what: &str, expected: &str, hub: &Site| {
        wait_for(what, Duration::from_secs(60), || (counts(hub).trim() == expected).then_some(()));
    };
    wait("both to arrive", "left100\nright100", &hub);
    left.node.stop().unwrap();
    std::fs::remove_dir_all(left.node.config().with_extension("").join("journal")).unwrap();
    left.drop_slots();
    left.sql("insert into t select i, 'left' from generate_series(101, 150) i");
    left.node.init().unwrap();
    left.node.start().unwrap();
    wait("the new life of the stream to be applied", "left150\nright100", &hub);
    left.sql("update t set who = 'changed' where id <= 10");
    right.sql("update t set who = 'changed' where id <= 1010");
    wait("both to go on", "changed20\nleft140\nright90", &hub);
    // After a restart the old life has to stay behind as well.
    hub.node.stop().unwrap();
    hub.node.start().unwrap();
    left.sql("delete from t where id <= 10");
    wait("it to go on", "changed10\nleft140\nright90", &hub);
}
