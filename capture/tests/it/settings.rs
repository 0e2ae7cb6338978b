//! What the connection string sets in sessions at the source.

use std::fs;

use thinwire_capture::Source;
use thinwire_engine::model::Origin;

use crate::rig::{Node, Rig, SLOT, soon};

/// A connection string with settings of the user's: some that show in the server's log, some that would change what values
/// look like.
fn with_settings(rig: &Rig) -> Source {
    let mut config: tokio_postgres::Config = rig.cluster.url("shop").parse().unwrap();
    config.options(
        "-c log_replication_commands=on -c log_statement=all -c DateStyle=German -c search_path=nowhere",
    );
    Source::new(config)
}

/// How often the server's log says something.
fn said(rig: &Rig, what: &str) -> usize {
    let folder = rig.cluster.data_dir().parent().unwrap().to_owned();
    let logs = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let logs = logs.filter(|path| path.is_file()).map(|path| fs::read(path).unwrap());
    logs.map(|log| String::from_utf8_lossy(&log).matches(what).count()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_in_the_connection_string_hold_in_every_session() {
    // PostgreSQL: 001_rep_changes 37-39
    let rig = Rig::new(
        "create table t (id int primary key, at date); insert into t values (1, '2026-02-01')",
    );
    rig.init(&["*.*"]).await;
    let (stream, copy) = ("received replication command: START_REPLICATION", "TO STDOUT");
    let node = rig.node();
    rig.check(&node, &["public.t"]).await;
    assert_eq!((said(&rig, stream), said(&rig, copy)), (0, 0), "nothing is set");
    node.shutdown().await;
    rig.slot_is_free().await;
    // They are changed, and changed back.
    let node = Node::start_with(with_settings(&rig), rig.dir.path(), 1 << 30, SLOT);
    node.until("it streams", |_| said(&rig, stream) >= 1).await;
    rig.sql("insert into t values (2, '2026-03-01')");
    soon(node.capture.request_copy(vec![Origin::from_bytes([1; 16])], vec![])).await.unwrap();
    node.until("it copies", |_| said(&rig, copy) >= 1).await;
    rig.check(&node, &["public.t"]).await;
    node.shutdown().await;
    rig.slot_is_free().await;
    let before = said(&rig, stream);
    let node = rig.node();
    rig.sql("insert into t values (3, '2026-04-01')");
    rig.check(&node, &["public.t"]).await;
    assert_eq!(said(&rig, stream), before);
}
