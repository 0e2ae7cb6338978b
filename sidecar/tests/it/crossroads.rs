//! Several sources of the same tables at one target: they do not hold each other up, and are counted apart.

use std::{thread, time::Duration};

use thinwire_bench::node::status::{Counts, Stream};
use thinwire_cluster::Options;

use crate::site::{CAPTURE, Site, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// Two sources, and the hub that applies both.
struct Crossroads {
    left: Site,
    right: Site,
    hub: Site,
}

impl Crossroads {
    fn new(schema: &str, hub_schema: &str) -> Self {
        let mut left = Site::new("left", CAPTURE, schema);
        let mut right = Site::new("right", CAPTURE, schema);
        let options = Options::default().with("deadlock_timeout", "50ms");
        let mut hub = Site::with("hub", "[apply]\nexisting = \"merge\"\n", hub_schema, options);
        for site in [&mut left, &mut right, &mut hub] {
            site.init();
        }
        left.peer("hub", &hub.key, Some(hub.listen), "");
        right.peer("hub", &hub.key, Some(hub.listen), "");
        hub.peer("left", &left.key, None, "");
        hub.peer("right", &right.key, None, "");
        let mut all = Self { left, right, hub };
        for site in [&mut all.hub, &mut all.left, &mut all.right] {
            site.node.start().unwrap();
        }
        all
    }

    fn becomes(&self, query: &str, expected: &str) {
        wait_for(expected, PATIENCE, || {
            if let Some((stream, halted)) = self.hub.status().halted() {
                panic!("{}: {halted:?}", stream.name);
            }
            (self.hub.sql(query) == expected).then_some(())
        });
    }

    fn stream(&self, name: &str) -> Stream {
        let streams = self.hub.status().streams;
        streams.into_iter().find(|stream| stream.name == name).unwrap()
    }

    /// Waits until the stream of a source is halted with this code.
    fn halts(&self, name: &str, code: &str) {
        wait_for(code, PATIENCE, || {
            let streams = self.hub.status().streams;
            let stream = streams.into_iter().find(|stream| stream.name == name)?;
            (stream.halted?.code == code).then_some(())
        });
    }

    fn counts(&self, name: &str) -> Counts {
        self.stream(name).counts.unwrap_or_default()
    }
}

#[test]
fn two_sources_fill_and_empty_the_same_tables_without_a_deadlock() {
    let schema = "create table a (id int primary key, v text); create table b (id int primary key, v text); create table done (who text primary key)";
    let all = Crossroads::new(schema, schema);
    let counts = "select (select count(*) from a), (select count(*) from b)";
    all.left.sql("insert into a values (1, 'left'); insert into b values (1, 'left')");
    all.right.sql("insert into a values (2, 'right'); insert into b values (2, 'right')");
    // PostgreSQL: 010_truncate 12
    all.becomes(counts, "2|2");
    // Both empty both tables again and again, in opposite orders and one by one.
    thread::scope(|scope| {
        for (site, first, second, odd) in [(&all.left, "a", "b", 1), (&all.right, "b", "a", 0)] {
            scope.spawn(move || {
                for round in 10..=35 {
                    let id = round * 2 + odd;
                    site.sql(&format!(
                        "begin; insert into {first} values ({id}, 'x'); truncate {first}; insert into {second} values ({id}, 'y');
                         truncate {second}; commit; truncate a, b;
                         begin; truncate {second}; insert into {first} values ({id}, 'x'); delete from {first} where id = {id}; commit"
                    ));
                }
            });
        }
    });
    for site in [&all.left, &all.right] {
        site.sql(&format!("insert into done values ('{}')", site.node.name()));
    }
    all.becomes("select count(*) from done", "2");
    // PostgreSQL: 010_truncate 13, 14
    assert_eq!(all.hub.sql(counts), "0|0");
    all.left.sql("insert into a values (1001, 'left'); insert into b values (1001, 'left')");
    all.right.sql("insert into a values (1002, 'right'); insert into b values (1002, 'right')");
    all.becomes(counts, "2|2");
    // One truncate takes the rows of both, as there.
    all.left.sql("truncate a");
    all.becomes(counts, "0|2");
}

#[test]
fn each_stream_has_counters_of_its_own_and_a_restart_begins_them_all_anew() {
    let schema =
        "create table l (id int primary key, v text); create table r (id int primary key, v text)";
    let constrained = "create table l (id int primary key, v text, check (v <> 'bad')); create table r (id int primary key, v text, check (v <> 'bad'))";
    let mut all = Crossroads::new(schema, constrained);
    let none = |counts: &Counts| (counts.apply_errors, counts.copy_errors) == (0, 0);
    all.left.sql("insert into l values (1, 'fine')");
    all.right.sql("insert into r values (1, 'fine')");
    all.becomes("select (select count(*) from l), (select count(*) from r)", "1|1");
    assert!(none(&all.counts("left")) && none(&all.counts("right")));
    // The second is as well as before.
    all.left.sql("insert into l values (2, 'bad')");
    all.halts("left", "constraint");
    // PostgreSQL: 026_stats 5
    assert!(all.counts("left").apply_errors > 0 && none(&all.counts("right")));
    all.right.sql("insert into r values (2, 'bad')");
    all.halts("right", "constraint");
    assert!(all.counts("left").apply_errors > 0 && all.counts("right").apply_errors > 0);
    all.hub.sql("alter table l drop constraint l_v_check; alter table r drop constraint r_v_check");
    all.hub.node.run(&["retry"]).unwrap();
    wait_for("both to go on", PATIENCE, || all.hub.status().halted().is_none().then_some(()));
    let mut since = all.hub.status().since;
    for id in [3, 4] {
        // The moment is told in seconds.
        thread::sleep(Duration::from_millis(1_100));
        all.hub.node.stop().unwrap();
        all.hub.node.start().unwrap();
        all.left.sql(&format!("insert into l values ({id}, 'fine')"));
        all.right.sql(&format!("insert into r values ({id}, 'fine')"));
        let expected = format!("{id}|{id}");
        all.becomes("select (select count(*) from l), (select count(*) from r)", &expected);
        // PostgreSQL: 026_stats 3, 6, 7
        assert!(none(&all.counts("left")) && none(&all.counts("right")));
        let again = all.hub.status().since;
        // PostgreSQL: 026_stats 4, 8, 9
        assert!(again > since, "{again} is not after {since}");
        since = again;
    }
}
