//! Partitions that come and go, and what is said of the tables that they are parts of.

use thinwire_capture::slot;
use thinwire_engine::model::{Body, Table};

use crate::{
    choice::{following, rows},
    rig::{Node, Rig},
    schema::{definitions, node, options, ready, told},
};

const ROOT: &str = "create table log (day int primary key, v text) partition by range (day);
    create table log_1 partition of log for values from (0) to (10);
    insert into log values (1, 'a')";

/// The table as the last change that tells of it has it.
fn last(node: &Node, name: &str) -> Table {
    let all = node.model().schemas;
    let objects = all.iter().rev().flat_map(|schema| definitions(schema).objects);
    let bodies = objects.filter(|it| it.name == name).map(|it| it.body);
    bodies
        .filter_map(|body| if let Body::Table(table) = body { Some(table) } else { None })
        .next()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_comes_or_goes_is_told_even_if_it_is_empty() {
    let rig = Rig::new(ROOT);
    let node = ready(&rig).await;
    rig.sql("create table log_2 (day int primary key, v text)");
    rig.sql("alter table log attach partition log_2 for values from (10) to (20)");
    rig.check(&node, &[]).await;
    assert!(last(&node, "log_2").partition_of.is_some_and(|of| of.name == "log"));
    rig.sql("alter table log detach partition log_2");
    rig.sql("insert into log_2 values (12, 'c')");
    node.until("it is copied", |node| node.stream.tail().copied.len() == 2).await;
    rig.check(&node, &["public.log_2"]).await;
    assert_eq!(last(&node, "log_2").partition_of, None);
    assert_eq!(told(&node), ["log_2", "log log_2", "log_2 log"]);
    let stale = node.model().schemas.iter().map(|it| it.stale.len()).max();
    assert_eq!(stale, Some(1), "only what was a table by itself and is no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_partitioned_itself_brings_its_own() {
    let rig = Rig::new(ROOT);
    rig.sql("create schema far");
    slot::init(&rig.source(), &options(&["public.*"])).await.unwrap();
    let node = node(&rig);
    node.until("all is copied", Node::has_copied).await;
    // It is captured only as long as it is a part.
    rig.sql(
        "create table far.mid (day int primary key, v text) partition by range (day);
         create table far.leaf partition of far.mid for values from (10) to (20)",
    );
    rig.sql("alter table log attach partition far.mid for values from (10) to (30)");
    rig.sql("insert into log values (11, 'b')");
    let model = rig.check(&node, &[]).await;
    assert_eq!(model.rows("public.log").len(), 2);
    assert_eq!(told(&node), ["far log mid leaf"]);
    assert!(last(&node, "leaf").partition_of.is_some_and(|of| of.name == "mid"));
    rig.sql("delete from log where day > 10; alter table log detach partition far.mid");
    let model = rig.check(&node, &[]).await;
    assert_eq!(last(&node, "mid").partition_of, None);
    assert_eq!(model.copies, 1, "nothing had rows when it came or went");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_works_on_a_partition_does_not_hold_up_what_is_told_of_another() {
    let rig = Rig::new(ROOT);
    let node = ready(&rig).await;
    let other = rig.source().connect().await.unwrap();
    other.batch_execute("begin; lock table only public.log_1").await.unwrap();
    rig.sql(
        "create table log_2 partition of log for values from (10) to (20);
         create table apart (day int primary key, v text);
         alter table log attach partition apart for values from (20) to (30);
         insert into log values (11, 'b'), (21, 'c')",
    );
    other.batch_execute("commit").await.unwrap();
    let model = rig.check(&node, &[]).await;
    assert_eq!(model.rows("public.log").len(), 3);
    assert_eq!(told(&node), ["log_2", "apart", "log apart"]);
    assert_eq!(node.halted(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_older_rows_have_in_a_new_column_is_told_of_a_partitioned_table_too() {
    let rig = Rig::new(ROOT);
    let node = ready(&rig).await;
    rig.sql("alter table log add column at timestamptz default now(), add column plain int");
    rig.check(&node, &[]).await;
    let columns = last(&node, "log").columns;
    let missing: Vec<_> = columns.iter().map(|it| it.missing.clone()).collect();
    let at = rig.sql("set timezone = 'UTC'; select at from log");
    assert_eq!(missing, [None, None, Some(at), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_choice_of_rows_the_other_partitions_are_free_while_one_is_made() {
    let rig = Rig::new(ROOT);
    let node = following(&rig, &rows("public.log", "day < 15")).await;
    let maker = rig.source().connect().await.unwrap();
    let made =
        "begin; create table public.log_2 partition of public.log for values from (10) to (20);
         insert into public.log values (11, 'b'), (16, 'c')";
    maker.batch_execute(made).await.unwrap();
    rig.sql("set lock_timeout = '1s'; begin; lock table only log_1; commit");
    maker.batch_execute("commit").await.unwrap();
    // And the other way round: one that is locked holds nobody up for long, and hides nothing.
    let other = rig.source().connect().await.unwrap();
    other.batch_execute("begin; lock table only public.log_1").await.unwrap();
    rig.sql("create table log_3 partition of log for values from (20) to (30); insert into log values (12, 'd')");
    other.batch_execute("commit").await.unwrap();
    rig.sql("update log set v = 'e'; delete from log where day = 12");
    let model = rig.check(&node, &[]).await;
    assert_eq!(model.rows("public.log").len(), 2);
    node.until("nothing is left to later", |_| {
        rig.sql("select count(*) from thinwire.delayed") == "0"
    })
    .await;
    assert_eq!(rig.sql("select prrelid::regclass from pg_publication_rel"), "log");
    assert_eq!(node.halted(), None);
}
