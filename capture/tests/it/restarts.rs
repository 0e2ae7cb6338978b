//! Cut anywhere and resume: the stream is as if nothing had happened.

use std::sync::{Arc, atomic::Ordering};

use thinwire_engine::{model::Record, storage::disk::RealDisk};

use crate::rig::{Node, Rig};

const ROWS: u64 = 60_000;

async fn with_a_big_transaction() -> Rig {
    let rig = Rig::new("create table t (id int primary key, pad text); create table u (a int)");
    let node = rig.ready().await;
    node.shutdown().await;
    rig.sql(&format!(
        "begin; insert into t select i, repeat('x', 50) || i from generate_series(1, {ROWS}) i; \
         alter table u add column b text default 'z'; insert into u values (1, 'one'); \
         update t set pad = 'changed' where id % 10 = 0; delete from t where id % 7 = 0; commit; \
         insert into t values (-1, 'after')"
    ));
    rig
}

fn is_whole(node: &Node) {
    let begins: Vec<_> = node
        .records()
        .into_iter()
        .filter_map(|(_, record)| match record {
            Record::Begin { xid, .. } => Some(xid),
            Record::Abort => panic!("nothing had to be aborted"),
            _ => None,
        })
        .collect();
    assert_eq!(begins.len(), 2, "{begins:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_transaction_survives_kills_at_any_offset() {
    let rig = with_a_big_transaction().await;
    let mut reached = 0;
    for step in 1..=6_u64 {
        let node = rig.node();
        // The transaction cannot come to its end unseen: whoever is far ahead of the disk waits.
        node.held.store(true, Ordering::SeqCst);
        let target = if step > 5 { ROWS } else { step * ROWS / 12 };
        node.until("some more is captured", |node| {
            let is_reached = node.stream.watermarks().appended.get() > target;
            // What is staged is lost in some of the kills.
            if !is_reached || step % 2 == 1 {
                node.stream.sync().unwrap();
            }
            is_reached
        })
        .await;
        node.kill().await;
        let node = crate::rig::open(Arc::new(RealDisk), rig.dir.path(), 4 << 30);
        let held = node.1.watermarks().synced.get();
        assert!(held >= reached, "what was durable stays");
        reached = held;
        assert!(step > 5 || node.1.tail().open.is_some(), "it was cut inside the transaction");
    }
    let node = rig.node();
    let model = rig.check(&node, &["public.t", "public.u"]).await;
    assert_eq!((model.commits, model.aborts), (2, 0));
    is_whole(&node);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_transaction_survives_lost_connections() {
    let rig = with_a_big_transaction().await;
    let node = rig.node();
    for step in 1..=4_u64 {
        let target = step * ROWS / 5;
        node.until("some more is captured", |node| {
            node.stream.watermarks().appended.get() > target
        })
        .await;
        rig.sql("select pg_terminate_backend(active_pid) from pg_replication_slots where active");
    }
    let model = rig.check(&node, &["public.t", "public.u"]).await;
    assert_eq!((model.commits, model.aborts), (2, 0));
    is_whole(&node);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_transactions_survive_kills_of_both_sides() {
    let rig = Rig::new("create table t (id serial primary key, a text)");
    let mut node = rig.ready().await;
    for round in 0..6 {
        for batch in 0..20 {
            rig.sql(&format!("insert into t (a) values ('{round}'); update t set a = '{batch}'"));
        }
        if round % 3 == 2 {
            rig.cluster.kill9().unwrap();
            rig.cluster.start_again().unwrap();
        } else {
            node.kill().await;
            node = rig.node();
        }
    }
    let model = rig.check(&node, &["public.t"]).await;
    assert_eq!(model.rows("public.t").len(), 120);
    assert_eq!((model.commits, model.aborts), (240, 0));
}
