//! What becomes of a node whose publication somebody has renamed.

use std::time::Duration;

use crate::site::{Pair, Site, lively, wait_for};

const SCHEMA: &str = "create table t (id int primary key, v text)";
const PATIENCE: Duration = Duration::from_secs(60);

fn renamed(pair: &mut Pair) -> String {
    pair.start();
    pair.source.sql("insert into t values (1, 'before')");
    pair.wait_equal(PATIENCE);
    pair.source.sql("alter publication thinwire_edge rename to another");
    // A session goes by what it has read of the catalogs until something is committed.
    pair.source.sql("select pg_terminate_backend(active_pid) from pg_replication_slots");
    missing(&pair.source)
}

/// What the node says of a publication that is not there.
fn missing(site: &Site) -> String {
    let halted =
        wait_for("the halt", PATIENCE, || site.status().halted().map(|(_, halted)| halted.clone()));
    assert_eq!(halted.code, "publication_missing", "{halted:?}");
    assert!(halted.detail.contains("thinwire_edge"), "{halted:?}");
    halted.detail
}

#[test]
fn a_publication_that_was_renamed_is_missed_by_name_and_used_again_once_it_is_named_back() {
    // PostgreSQL: 007_ddl 5
    let mut pair = Pair::new(lively(), SCHEMA);
    renamed(&mut pair);
    pair.source.sql("alter publication another rename to thinwire_edge");
    pair.source.node.run(&["retry"]).unwrap();
    pair.source.sql("insert into t values (2, 'behind')");
    pair.wait_equal(PATIENCE);
    assert!(pair.source.status().halted().is_none());
}

#[test]
fn changes_that_were_committed_without_the_publication_are_not_passed_over() {
    let mut pair = Pair::new(lively(), SCHEMA);
    renamed(&mut pair);
    pair.source.sql("insert into t values (2, 'meanwhile')");
    pair.source.sql("alter publication another rename to thinwire_edge");
    pair.source.node.run(&["retry"]).unwrap();
    pair.source.sql("insert into t values (3, 'behind')");
    wait_for("the halt about what was committed meanwhile", PATIENCE, || {
        missing(&pair.source).contains("while the publication was not there").then_some(())
    });
    assert_eq!(pair.target.sql("select id from t"), "1");
}
