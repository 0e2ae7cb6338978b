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
    assert!(counted.copy_errors > 0 && counted.apply_errors == 0, "{counted:?}");
    pair.source.sql("update t set v = 'good'");
    pair.target.sql("alter table t drop constraint t_v_check");
    pair.target.node.run(&["retry"]).unwrap();
    pair.wait_equal(PATIENCE);
    let copies = counts(&pair.target).copy_errors;
    assert_eq!(counts(&pair.target).apply_errors, 0);

    pair.target.sql("alter table t add check (v <> 'worse')");
    pair.source.sql("insert into t values (2, 'worse')");
    assert_eq!(halt_of(&pair.target).code, "constraint");
    let counted = counts(&pair.target);
    assert!(counted.copy_errors == copies && counted.apply_errors > 0, "{counted:?}");
    assert_eq!(conflicts(&counted), []);
    pair.target.sql("alter table t drop constraint t_v_check");
    pair.wait_equal(PATIENCE);
}
