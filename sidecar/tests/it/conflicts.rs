//! What an operator sees and does when rows at the target are not what a change expects.

use std::time::Duration;

use thinwire_bench::node::status::{Counts, Halted};

use crate::site::{APPLY, CAPTURE, Pair, Site, lively, wait_for};

const SCHEMA: &str = "create table t (id int primary key, v text)";

/// Long enough for a halted stream to try again by itself.
const PATIENCE: Duration = Duration::from_secs(60);

fn halt_of(site: &Site) -> Halted {
    wait_for("a halt", PATIENCE, || site.status().halted().map(|(_, halted)| halted.clone()))
}

fn counts(site: &Site) -> Counts {
    let streams = site.status().streams;
    streams.iter().find_map(|stream| stream.counts.clone()).unwrap_or_default()
}

fn conflicts(counts: &Counts) -> Vec<(&str, u64)> {
    let met = counts.conflicts.iter().filter(|(_, count)| **count > 0);
    met.map(|(kind, count)| (&**kind, *count)).collect()
}

#[test]
fn nothing_is_counted_at_first_then_conflicts_by_kind_and_a_restart_begins_anew() {
    let mut pair = Pair::new(lively(), SCHEMA);
    pair.source.sql("insert into t select i, 'v' from generate_series(1, 10) i");
    pair.start();
    pair.wait_equal(Duration::from_secs(30));
    let first = counts(&pair.target);
    // PostgreSQL: 026_stats 1
    assert_eq!((first.apply_errors, first.copy_errors, conflicts(&first)), (0, 0, vec![]));
    assert_eq!(first.conflicts.get("update_missing"), Some(&0), "{first:?}");
    assert!(!pair.target.node.run(&["status"]).unwrap().contains("conflicts"));

    pair.target.sql("insert into t values (11, 'here')");
    pair.source.sql("insert into t values (11, 'there')");
    assert_eq!(halt_of(&pair.target).code, "insert_exists");
    pair.target.sql("delete from t where id in (11, 5)");
    pair.target.node.run(&["retry"]).unwrap();
    pair.wait_equal_but_row_five();
    pair.source.sql("update t set v = 'w' where id = 5");
    let halted = wait_for("the second halt", PATIENCE, || {
        let halted = pair.target.status().halted().map(|(_, halted)| halted.clone());
        halted.filter(|halted| halted.code == "update_missing")
    });
    assert_eq!(halted.key.as_deref(), Some("id=5"));
    let met = counts(&pair.target);
    // PostgreSQL: 026_stats 12
    assert_eq!(conflicts(&met), [("insert_exists", 1), ("update_missing", 1)]);
    assert!(met.apply_errors >= 2 && met.copy_errors == 0, "{met:?}");
    let told = pair.target.node.run(&["status"]).unwrap();
    assert!(told.contains("conflicts: insert_exists 1, update_missing 1"), "{told}");

    let since = pair.target.status().since;
    pair.target.node.stop().unwrap();
    pair.target.sql("insert into t values (5, 'v')");
    std::thread::sleep(Duration::from_secs(1));
    pair.target.node.start().unwrap();
    pair.wait_equal(Duration::from_secs(30));
    assert_eq!(conflicts(&counts(&pair.target)), []);
    assert!(since > 1_600_000_000 && pair.target.status().since > since);
}

impl Pair {
    fn wait_equal_but_row_five(&self) {
        let rows = "select count(*), max(id) from t where id <> 5";
        let expected = self.source.sql(rows);
        wait_for("the other rows", PATIENCE, || (self.target.sql(rows) == expected).then_some(()));
    }
}

#[test]
fn errors_of_copies_and_of_changes_are_counted_apart() {
    let source = Site::new("edge", CAPTURE, SCHEMA);
    let target = Site::new("hq", APPLY, &format!("{SCHEMA}; alter table t add check (v <> 'bad')"));
    let mut pair = Pair::of(source, target, lively());
    pair.source.sql("insert into t values (1, 'bad')");
    pair.start();
    assert_eq!(halt_of(&pair.target).code, "constraint");
    let counted = counts(&pair.target);
    // PostgreSQL: 026_stats 11
    assert!(counted.copy_errors > 0 && counted.apply_errors == 0, "{counted:?}");
    pair.source.sql("update t set v = 'good'");
    pair.target.sql("alter table t drop constraint t_v_check");
    pair.target.node.run(&["retry"]).unwrap();
    pair.wait_equal(PATIENCE);
    pair.target.goes_on();
    let copies = counts(&pair.target).copy_errors;
    assert_eq!(counts(&pair.target).apply_errors, 0);

    pair.target.sql("alter table t add check (v <> 'worse')");
    pair.source.sql("insert into t values (2, 'worse')");
    assert_eq!(halt_of(&pair.target).code, "constraint");
    let counted = counts(&pair.target);
    // PostgreSQL: 026_stats 2
    assert!(counted.copy_errors == copies && counted.apply_errors > 0, "{counted:?}");
    assert_eq!(conflicts(&counted), []);
    pair.target.sql("alter table t drop constraint t_v_check");
    pair.wait_equal(PATIENCE);
}

#[test]
fn one_transaction_is_skipped_by_its_position() {
    // PostgreSQL: 029_on_error 2
    let mut pair = Pair::new(lively(), SCHEMA);
    pair.start();
    pair.source.sql("insert into t values (1, 'v')");
    pair.wait_equal(Duration::from_secs(30));
    pair.target.sql("insert into t values (5, 'here')");
    pair.source.sql(
        "begin; insert into t values (4, 'v'), (5, 'there'); commit; insert into t values (6, 'v')",
    );
    let halted = halt_of(&pair.target);
    let offset = halted.offset.unwrap();
    let skip = |origin: &str, offset: u64| {
        let offset = offset.to_string();
        pair.target.node.run(&["skip", "--origin", origin, "--offset", &offset])
    };
    for (origin, offset, why) in [
        ("edge", offset + 1, "is halted at"),
        ("nobody", offset, "no stream of nobody"),
        ("hq", offset, "no stream of hq"),
    ] {
        let refused = skip(origin, offset).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    // Nothing is left out while the database cannot remember it.
    pair.target.sql("alter table thinwire.skipped rename to away");
    let refused = skip("edge", offset).unwrap_err().to_string();
    assert!(refused.contains("run `thinwire init`"), "{refused}");
    pair.target.sql("alter table thinwire.away rename to skipped");
    wait_for("the halt again", PATIENCE, || {
        let halted = pair.target.status().halted().map(|(_, halted)| halted.clone());
        halted.filter(|halted| halted.offset == Some(offset))
    });
    pair.target.node.kill9().unwrap();
    pair.target.node.start().unwrap();
    let skip = |offset: u64| {
        let offset = offset.to_string();
        pair.target.node.run(&["skip", "--origin", "edge", "--offset", &offset])
    };
    assert_eq!(halt_of(&pair.target).offset, Some(offset));
    skip(offset).unwrap();
    let refused = skip(offset).unwrap_err().to_string();
    assert!(refused.contains("is not halted"), "{refused}");
    wait_for("the row behind it", PATIENCE, || {
        (pair.target.sql("select * from t order by id") == "1|v\n5|here\n6|v").then_some(())
    });
    let noted = "select \"offset\", code, xid is not null, lsn is not null, commit_time < skipped_at + '1 min',
                 asked_by like 'user %', login from thinwire.skipped";
    assert_eq!(pair.target.sql(noted), format!("{offset}|insert_exists|t|t|t|t|postgres"));
    pair.target.node.stop().unwrap();
    pair.target.node.start().unwrap();
    wait_for("what was left out in the status", PATIENCE, || {
        let told = pair.target.node.run(&["status"]).unwrap_or_default();
        told.contains(&format!("left out 1, the last at {offset} (insert_exists) by user"))
            .then_some(())
    });
    assert_eq!(pair.target.status().streams[0].skipped, Some(1));
    pair.source.sql("update t set v = 'w' where id = 6");
    wait_for("what comes later", PATIENCE, || {
        (pair.target.sql("select v from t where id = 6") == "w").then_some(())
    });
}

#[test]
fn a_copy_that_would_hold_rows_of_others_is_warned_of_whatever_the_tables() {
    // PostgreSQL: 030_origin 10-13
    // Partitions and what they are part of, and a table that comes later.
    let schema = "create table root (id int primary key, v text) partition by range (id);
         create table low partition of root for values from (0) to (100) partition by range (id);
         create table lowest partition of low for values from (0) to (10)";
    let both = format!("{CAPTURE}[apply]\nexisting = \"merge\"\n");
    let (left, right) = (Site::new("left", &both, schema), Site::new("right", &both, schema));
    let mut pair = Pair::of(left, right, lively());
    pair.start();
    let warning = |site: &Site| {
        // A port is bound once the node runs.
        site.status();
        let found = site.node.run(&["doctor"]).unwrap();
        let line = found.lines().find(|line| line.contains("copies of this node's tables"));
        line.map(str::to_owned).unwrap_or_default()
    };
    for (site, name, peer) in [(&pair.source, "left", "hq"), (&pair.target, "right", "edge")] {
        let warning = warning(site);
        assert!(
            warning.starts_with("ok    ") && warning.contains(&format!("from {peer};")),
            "{warning}"
        );
        let streams = site.status().streams;
        let own = streams.iter().find(|stream| stream.name == name).unwrap();
        assert_eq!(own.copied_with, [peer]);
        let told = site.node.run(&["status"]).unwrap();
        assert!(told.contains(&format!("a copy of it holds rows of {peer} too")), "{told}");
    }
    // It is true: the rows of the one come back to it in a copy of the other, and are merged.
    pair.target.sql("insert into root values (1, 'right')");
    wait_for("the row at the left", PATIENCE, || {
        (pair.source.sql("select v from lowest") == "right").then_some(())
    });
    let ddl = "create table later (id int primary key, v text)";
    pair.target.sql(ddl);
    pair.source.sql(ddl);
    assert!(!warning(&pair.target).is_empty());
    // Nor is there anything to warn of once nothing is taken from the other.
    pair.source.without_peers();
    let key = pair.target.key.clone();
    pair.source.peer("hq", &key, Some(pair.link.address()), "receive = []");
    assert_eq!(warning(&pair.source), "");
    // One way, nothing of that.
    let mut alone = Pair::new(lively(), SCHEMA);
    alone.start();
    assert_eq!((warning(&alone.source), warning(&alone.target)), (String::new(), String::new()));
    assert!(alone.source.status().streams.iter().all(|stream| stream.copied_with.is_empty()));
}
