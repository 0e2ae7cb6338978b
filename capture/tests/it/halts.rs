//! What cannot be continued is refused by name, and goes on by itself once it is mended.

use std::{sync::atomic::Ordering, time::Duration};

use tempfile::TempDir;
use thinwire_capture::{State, slot};

use crate::rig::{Node, Rig, SLOT, init_options, options};

#[tokio::test(flavor = "multi_thread")]
async fn without_a_publication_or_a_slot_it_waits_for_init() {
    // PostgreSQL: 007_ddl 2
    // PostgreSQL: 024_add_drop_pub 4
    let rig = Rig::new("create table t (id int primary key)");
    let node = rig.node();
    let halt = node.halts_with("publication_missing").await;
    assert!(halt.detail.contains(SLOT), "{}", halt.detail);
    // Now and then it looks again.
    node.until("it stands still", |node| node.status().state == State::Halted).await;
    rig.sql(&format!("create publication {SLOT} for table t"));
    let halt = node.halts_with("slot_missing").await;
    assert!(halt.detail.contains(SLOT), "{}", halt.detail);
    rig.sql(&format!("drop publication {SLOT}"));
    rig.init(&["public.*"]).await;
    node.capture.retry();
    node.until("it goes on", |node| node.halted().is_none() && node.has_copied()).await;
    rig.sql("insert into t values (1)");
    rig.check(&node, &["public.t"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_dropped_is_never_replaced_silently() {
    let rig = Rig::new("create table t (id int primary key)");
    let node = rig.ready().await;
    node.caught_up(&rig.source()).await;
    node.capture.pause();
    node.until("it is paused", |node| node.status().state == State::Paused).await;
    rig.slot_is_free().await;
    rig.sql(&format!("select pg_drop_replication_slot('{SLOT}')"));
    rig.sql("insert into t values (1)");
    node.capture.resume();
    node.halts_with("slot_missing").await;
    // A new slot begins behind what the journal knows, so the row in between would be missing.
    rig.init(&["public.*"]).await;
    node.halts_with("journal_behind_slot").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_whose_log_is_gone_is_lost() {
    let options = options().with("max_slot_wal_keep_size", "1MB").with("max_wal_size", "32MB");
    let rig =
        Rig::with(options, "create table t (id int primary key); create table noise (a text)");
    let node = rig.ready().await;
    node.capture.pause();
    node.until("it is paused", |node| node.status().state == State::Paused).await;
    for _ in 0..5 {
        rig.sql(
            "insert into noise select repeat('x', 1000) from generate_series(1, 1000);
                 select pg_switch_wal(); checkpoint",
        );
    }
    node.capture.resume();
    let halt = node.halts_with("slot_lost").await;
    assert!(halt.detail.contains("max_slot_wal_keep_size"), "{}", halt.detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_is_refused() {
    let rig = Rig::new("create table t (id int primary key)");
    rig.ready().await.shutdown().await;
    // Temporary clusters with the same options are copies of one, with the same identifier.
    let mut options = options();
    options.encoding = "LATIN1".to_owned();
    let other = Rig::with(options, "create table t (id int primary key)");
    other.init(&["public.*"]).await;
    let node = Node::start(other.source(), rig.dir.path(), &other.cluster);
    node.halts_with("wrong_system").await;
    let appended = node.stream.watermarks().appended;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(node.stream.watermarks().appended, appended);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_on_the_slot_is_refused_by_name() {
    let rig = Rig::new("create table t (id int primary key)");
    let first = rig.ready().await;
    let dir = TempDir::new().unwrap();
    let second = Node::start(rig.source(), dir.path(), &rig.cluster);
    // To an empty journal it looks read from, which is the graver reason.
    second.halts_with("journal_behind_slot").await;
    second.shutdown().await;
    first.shutdown().await;
    // Two nodes on copies of one journal.
    let copied = TempDir::new().unwrap();
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(format!("{}/.", rig.dir.path().display()))
        .arg(copied.path())
        .status()
        .unwrap();
    assert!(status.success());
    let first = rig.node();
    // If it confirmed anything more, the second one would be refused for that.
    first.held.store(true, Ordering::SeqCst);
    first.until("it streams", |node| node.status().state == State::Streaming).await;
    let started = std::time::Instant::now();
    let second = Node::start(rig.source(), copied.path(), &rig.cluster);
    let halt = second.halts_with("slot_in_use").await;
    assert!(started.elapsed() >= Duration::from_secs(6), "it may have been our own ghost");
    assert!(halt.detail.contains("application \"thinwire\""), "{}", halt.detail);
    first.shutdown().await;
    // Whether it has its turn depends on how much the first has confirmed since the copy was made.
    second
        .until("it looks again", |node| node.halted().is_none_or(|halt| halt.code != "slot_in_use"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_was_lost_is_noticed() {
    let rig = Rig::new("create table t (id int primary key)");
    let node = rig.ready().await;
    rig.sql("insert into t values (1)");
    node.caught_up(&rig.source()).await;
    node.shutdown().await;
    let empty = TempDir::new().unwrap();
    let node = Node::start(rig.source(), empty.path(), &rig.cluster);
    let halt = node.halts_with("journal_behind_slot").await;
    assert!(halt.detail.contains("init"), "{}", halt.detail);
    // The cure that it names.
    rig.slot_is_free().await;
    rig.sql(&format!("select pg_drop_replication_slot('{SLOT}')"));
    rig.init(&["public.*"]).await;
    node.until("it goes on", |node| node.halted().is_none() && node.has_copied()).await;
    rig.check(&node, &["public.t"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_restored_from_an_older_copy_is_refused() {
    let rig = Rig::new("create table t (id int primary key)");
    let node = rig.ready().await;
    node.caught_up(&rig.source()).await;
    node.shutdown().await;
    rig.cluster.stop().unwrap();
    let data = rig.cluster.data_dir().to_owned();
    let backup = data.with_extension("backup");
    let run = |program: &str, arguments: &[&std::path::Path]| {
        let arguments = arguments.iter().map(|it| it.as_os_str());
        assert!(std::process::Command::new(program).args(arguments).status().unwrap().success());
    };
    run("cp", &["-a".as_ref(), &data, &backup]);
    rig.cluster.start_again().unwrap();
    let node = rig.node();
    rig.sql("insert into t select generate_series(1, 1000)");
    node.caught_up(&rig.source()).await;
    node.shutdown().await;
    rig.cluster.stop().unwrap();
    run("rm", &["-r".as_ref(), &data]);
    run("cp", &["-a".as_ref(), &backup, &data]);
    rig.cluster.start_again().unwrap();
    let node = rig.node();
    node.halts_with("source_rolled_back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_logical_wal_it_says_so() {
    // PostgreSQL: 001_rep_changes 36
    let cluster = options().with("wal_level", "replica");
    let rig = Rig::with(cluster, "create table t (id int primary key)");
    let error = slot::init(&rig.source(), &init_options(&["public.*"])).await.unwrap_err();
    assert!(error.to_string().contains("wal_level is replica"), "{error}");
    rig.sql(&format!("create publication {SLOT} for table t"));
    let node = rig.node();
    let halt = node.halts_with("wal_level").await;
    assert!(halt.detail.contains("ALTER SYSTEM"), "{}", halt.detail);
    let checks = slot::check(&rig.source(), &init_options(&["*.*"])).await;
    assert!(checks.iter().any(|it| !it.ok && it.what.contains("wal_level")), "{checks:?}");
}
