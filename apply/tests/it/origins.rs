//! Rows that somebody else changed last, on a target that keeps commit timestamps, and on one that does not.

use std::sync::{Arc, LazyLock};

use thinwire_apply::{Applier, Options, OriginDiffers, check_commit_timestamps};
use thinwire_cluster::Cluster;
use thinwire_engine::model::{Lsn, Offset, Record, Timestamp};

use crate::{
    database::{Database, applied, halted},
    feed::{Feed, Table},
};

const TABLE: &str = "create table t (id int primary key, a text)";

fn table() -> Table {
    Table::new(1, "public.t", &["id*", "a"])
}

/// A database whose server keeps commit timestamps.
async fn keeping(sql: &str) -> Database {
    static KEEPING: LazyLock<Arc<Cluster>> = LazyLock::new(|| {
        let options = thinwire_cluster::Options::default()
            .with("track_commit_timestamp", "on")
            .with("max_replication_slots", "20");
        Arc::new(Cluster::start(options).unwrap())
    });
    Database::on(KEEPING.clone(), sql).await
}

/// The conflicts that were met.
fn met(applier: &Applier) -> Vec<(&'static str, u64)> {
    applier.status().conflicts.all().filter(|(_, count)| *count > 0).collect()
}

#[tokio::test]
async fn updates_and_deletes_of_rows_of_others_are_told_and_made() {
    // PostgreSQL: 030_origin 8, 9
    for (gathered, sql) in [(true, TABLE), (false, "create table t (id int, a text)")] {
        let database = keeping(sql).await;
        let (feed, t) = (Feed::new(), if gathered { table() } else { table().full() });
        let rows: Vec<_> = (1..=9).map(|id| t.insert(&format!("{id}|x"))).collect();
        feed.transaction(&[&[t.relation()], &rows[..]].concat());
        let applier = database.apply(&feed);
        applied(&applier, &feed.stream).await;
        let (update, delete) = match gathered {
            true => (t.update("1|z"), t.delete("2|~")),
            false => (t.update_full("1|x", "1|z"), t.delete_full("2|x")),
        };
        // Those of the origin's own rows are no conflict, whoever has looked at them.
        database.sql("select * from t for update");
        feed.transaction(&[update, delete]);
        applied(&applier, &feed.stream).await;
        assert_eq!(met(&applier), []);
        database.sql("update t set a = 'y' where id in (3, 4, 5, 6)");
        feed.transaction(&match gathered {
            true => vec![
                t.update("3|z"),
                t.update("4|z"),
                t.update("7|z"),
                t.delete("5|~"),
                t.delete("8|~"),
            ],
            false => vec![
                t.update_full("3|y", "3|z"),
                t.update_full("4|y", "4|z"),
                t.update_full("7|x", "7|z"),
                t.delete_full("5|y"),
                t.delete_full("8|x"),
            ],
        });
        applied(&applier, &feed.stream).await;
        assert_eq!(met(&applier), [("update_origin_differs", 2), ("delete_origin_differs", 1)]);
        assert_eq!(database.sql("select * from t order by 1"), "1|z\n3|z\n4|z\n6|y\n7|z\n9|x");
        applier.shutdown().await;
    }
}

#[tokio::test]
async fn rows_of_another_stream_are_those_of_others() {
    let database = keeping(TABLE).await;
    let (one, other, t) = (Feed::new(), Feed::new(), table());
    one.transaction(&[t.relation(), t.insert("1|one"), t.insert("2|one")]);
    database.apply_all(&one).await;
    other.transaction(&[t.relation(), t.update("1|other")]);
    let applier = database.apply(&other);
    applied(&applier, &other.stream).await;
    assert_eq!(met(&applier), [("update_origin_differs", 1)]);
    applier.shutdown().await;
    assert_eq!(database.sql("select * from t order by 1"), "1|other\n2|one");
}

#[tokio::test]
async fn a_row_of_a_partition_that_others_changed_last_is_told() {
    // PostgreSQL: 013_partition 70
    let database = keeping(
        "create table t (id int primary key, a text) partition by range (id);
         create table t_low partition of t for values from (0) to (100);
         create table t_rest partition of t default;
         insert into t values (1, 'here'), (200, 'here')",
    )
    .await;
    let (feed, t) = (Feed::new(), table());
    feed.transaction(&[t.relation(), t.update("1|x"), t.update_key("200|~", "2|x")]);
    let applier = database.apply(&feed);
    applied(&applier, &feed.stream).await;
    assert_eq!(met(&applier), [("update_origin_differs", 2)]);
    applier.shutdown().await;
    assert_eq!(database.sql("select * from t_low order by id"), "1|x\n2|x");
}

#[tokio::test]
async fn rows_of_others_are_treated_as_declared() {
    let sql = format!("{TABLE}; insert into t values (1, 'here'), (2, 'here')");
    let options = |database: &Database, feed: &Feed, declared| Options {
        update_origin_differs: declared,
        delete_origin_differs: declared,
        ..database.options(feed)
    };
    let t = table();
    let changes =
        [t.relation(), t.update("1|x"), t.delete("2|~"), t.insert("3|x"), t.update("3|y")];

    let (database, feed) = (keeping(&sql).await, Feed::new());
    feed.transaction(&changes);
    let applier = Applier::start(options(&database, &feed, OriginDiffers::Skip));
    applied(&applier, &feed.stream).await;
    assert_eq!(met(&applier), [("update_origin_differs", 1), ("delete_origin_differs", 1)]);
    assert_eq!(database.sql("select * from t order by 1"), "1|here\n2|here\n3|y");
    applier.shutdown().await;

    let (database, feed) = (keeping(&sql).await, Feed::new());
    feed.transaction(&changes);
    let applier = Applier::start(options(&database, &feed, OriginDiffers::Stop));
    let halt = halted(&applier, &feed.stream).await;
    assert_eq!((&*halt.code, halt.key.as_deref()), ("update_origin_differs", Some("id=1")));
    assert_eq!(halt.offset, Some(Offset::new(3)));
    applier.shutdown().await;
    assert_eq!(database.sql("select * from t order by 1"), "1|here\n2|here");

    // The changes were committed long before those here; another time long after.
    let (database, feed) = (keeping(&sql).await, Feed::new());
    feed.transaction(&changes);
    let applier = Applier::start(options(&database, &feed, OriginDiffers::LastUpdateWins));
    applied(&applier, &feed.stream).await;
    assert_eq!(met(&applier), [("update_origin_differs", 1), ("delete_origin_differs", 1)]);
    assert_eq!(database.sql("select * from t order by 1"), "1|here\n2|here\n3|y");
    let mut later = feed.wrapped(&[t.update("1|later"), t.delete("2|~")]);
    later[0] =
        Record::Begin { xid: 9, lsn: Lsn::new(900), time: Timestamp::from_micros(YEAR_2100) };
    feed.append(&later);
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(database.sql("select * from t order by 1"), "1|later\n3|y");
    // What has won keeps the time at which it was committed.
    let other = Feed::new();
    other.transaction(&[t.relation(), t.update("1|earlier")]);
    let applier = Applier::start(options(&database, &other, OriginDiffers::LastUpdateWins));
    applied(&applier, &other.stream).await;
    applier.shutdown().await;
    assert_eq!(database.sql("select * from t order by 1"), "1|later\n3|y");
}

/// In microseconds since 2000, nearly.
const YEAR_2100: i64 = 100 * 365 * 86_400 * 1_000_000;

#[tokio::test]
async fn without_commit_timestamps_only_what_needs_none_can_be_declared() {
    let database = Database::new(&format!("{TABLE}; insert into t values (1, 'here')")).await;
    let (feed, t) = (Feed::new(), table());
    feed.transaction(&[t.relation(), t.update("1|x")]);
    let delete_origin_differs = OriginDiffers::Skip;
    let options = Options { delete_origin_differs, ..database.options(&feed) };
    let applier = Applier::start(options);
    let halt = halted(&applier, &feed.stream).await;
    let check = check_commit_timestamps(&database.target()).await;
    assert!(!check.ok && check.cure.contains("track_commit_timestamp"), "{check:?}");
    assert!(check_commit_timestamps(&keeping("").await.target()).await.ok);
    assert_eq!(halt.code, "commit_timestamps_off");
    assert!(halt.detail.contains("track_commit_timestamp = on"), "{halt:?}");
    applier.shutdown().await;
    let applier = database.apply(&feed);
    applied(&applier, &feed.stream).await;
    assert_eq!(met(&applier), []);
    applier.shutdown().await;
    assert_eq!(database.sql("select * from t"), "1|x");
}
