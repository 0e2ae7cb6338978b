//! The journal's disk fails, fills up and loses power: nothing that was confirmed is missing.

use std::{path::Path, sync::Arc, time::Duration};

use thinwire_capture::{Ddl, State};
use thinwire_engine::storage::memory::{Fault, MemoryDisk};

use crate::rig::{Node, PACE, Rig, SLOT};

fn node_on(disk: &MemoryDisk, rig: &Rig) -> Node {
    let disk = Arc::new(disk.clone());
    Node::start_on(disk, rig.source(), Path::new("/journal"), 1 << 30, SLOT, PACE, Ddl::Stop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_halts_until_the_stream_is_opened_anew() {
    let rig = Rig::new("create table t (id int primary key)");
    rig.init(&["public.*"]).await;
    let disk = MemoryDisk::new();
    let node = node_on(&disk, &rig);
    node.caught_up(&rig.source()).await;
    disk.fail(1, Fault::Lossy, false);
    rig.sql("insert into t values (1)");
    let halt = node.halts_with("journal_io").await;
    assert!(halt.detail.contains("restart"), "{}", halt.detail);
    rig.sql("insert into t values (2)");
    node.kill().await;
    let node = node_on(&disk, &rig);
    let model = rig.check(&node, &["public.t"]).await;
    assert_eq!(model.rows("public.t").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_for() {
    let rig = Rig::new("create table t (id int primary key, a text)");
    rig.init(&["public.*"]).await;
    let disk = MemoryDisk::new();
    let node = node_on(&disk, &rig);
    node.caught_up(&rig.source()).await;
    disk.limit(Some(256 << 10));
    rig.sql("insert into t select i, md5(i::text) || repeat(md5((i + 1)::text), 3) from generate_series(1, 50000) i");
    node.until("it waits", |node| node.status().state == State::Held).await;
    assert_eq!(node.halted(), None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    disk.limit(None);
    let model = rig.check(&node, &["public.t"]).await;
    assert_eq!((model.commits, model.aborts), (1, 0));
    assert_eq!(node.status().state, State::Streaming);
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_lose_nothing_that_was_confirmed() {
    let rig = Rig::new("create table t (id serial primary key, a text); create table k (n int)");
    rig.init(&["public.*"]).await;
    let mut disk = MemoryDisk::new();
    let mut random = 1_u64;
    let mut choose = |below: usize| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    for round in 0..12 {
        let node = node_on(&disk, &rig);
        rig.sql(&format!(
            "insert into t (a) select repeat('x', 100) || i from generate_series(1, 5000) i;
             insert into k values ({round}), ({round}); update t set a = 'round {round}' where id % 100 = {round}"
        ));
        tokio::time::sleep(Duration::from_millis(choose(400) as u64)).await;
        // The capture says no more, while the disk may be in the middle of a write.
        disk = node.cut(|| disk.power_cut(&mut choose)).await;
    }
    let node = node_on(&disk, &rig);
    let model = rig.check(&node, &["public.t", "public.k"]).await;
    assert_eq!(model.commits, node.model().commits);
    assert_eq!(node.halted(), None);
}
