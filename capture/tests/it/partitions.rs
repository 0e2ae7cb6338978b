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
    assert_eq!(model.copies, 1, "it had no rows when it came");
    assert_eq!(model.rows("public.log").len(), 2);
    assert_eq!(told(&node), ["far log mid leaf"]);
    assert!(last(&node, "leaf").partition_of.is_some_and(|of| of.name == "mid"));
    rig.sql("delete from log where day > 10; alter table log detach partition far.mid");
    rig.check(&node, &[]).await;
    assert_eq!(last(&node, "mid").partition_of, None);
    node.until("what had rows is copied again", |node| node.model().copies == 2).await;
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
async fn who_holds_another_table_does_not_hold_up_what_is_attached() {
    let rig = Rig::new(ROOT);
    rig.sql("create table unrelated (id int primary key); create table apart (day int primary key, v text)");
    let node = ready(&rig).await;
    let other = rig.source().connect().await.unwrap();
    other.batch_execute("begin; lock table public.unrelated").await.unwrap();
    rig.sql("alter table log attach partition apart for values from (20) to (30); insert into log values (21, 'c')");
    rig.check(&node, &[]).await;
    assert_eq!(told(&node), ["log apart"]);
    assert_eq!(node.halted(), None);
    other.batch_execute("commit").await.unwrap();
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
    let Some(rig) = Rig::narrowing(ROOT) else { return };
    let node = following(&rig, &rows("public.log", "day < 15")).await;
    let maker = rig.source().connect().await.unwrap();
    let made =
        "begin; create table public.log_2 partition of public.log for values from (10) to (20);
         insert into public.log values (11, 'b'), (16, 'c')";
    maker.batch_execute(made).await.unwrap();
    rig.sql("set lock_timeout = '30s'; begin; lock table only log_1; commit");
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

/// A root of two levels with rows in each part.
const TREE: &str = "create table tree (id int primary key, v text) partition by range (id);
    create table tree_1 partition of tree for values from (0) to (10);
    create table tree_2 partition of tree for values from (10) to (30) partition by range (id);
    create table tree_21 partition of tree_2 for values from (10) to (20);
    create table tree_22 partition of tree_2 for values from (20) to (30);
    insert into tree select i, 'v' from generate_series(1, 25) i";

/// How often something was said to be stale so far.
fn stale(node: &Node) -> usize {
    node.model().schemas.iter().map(|it| it.stale.len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_emptied_alone_has_its_whole_copied_and_with_it_has_not() {
    let rig = Rig::new(&format!(
        "{TREE}; create role clerk; grant all on tree, tree_1, tree_2, tree_21, tree_22 to clerk"
    ));
    let node = ready(&rig).await;
    // Each with whether the root is to be copied for it, whoever does it and whatever else is done.
    let steps = [
        ("set role clerk; truncate tree_1", true),
        ("truncate tree_21, tree_22", true),
        ("insert into tree values (1), (11), (21); truncate tree_2; insert into tree values (12)", true),
        ("set session_replication_role = replica; truncate tree_1; insert into tree values (2)", true),
        ("truncate tree; insert into tree values (3), (13)", false),
        ("begin; truncate tree_21, tree; insert into tree values (4), (14); commit", false),
        ("begin; savepoint s; truncate tree_21; rollback to s; insert into tree values (15); commit", false),
        ("begin; savepoint s; truncate tree; rollback to s; truncate tree_1; commit", true),
        ("begin; truncate tree; insert into tree values (1), (21); truncate tree_1; truncate tree; commit", true),
        ("begin; truncate tree; insert into tree values (2), (22); truncate tree_22; commit", true),
        ("begin; select set_config('thinwire.truncate_thinwire_shop_' || 'tree'::regclass::oid, '9 ab', true);
          truncate tree_1; commit", true),
    ];
    for (sql, is_copied) in steps {
        let before = stale(&node);
        rig.sql(sql);
        node.caught_up(&rig.source()).await;
        node.until(sql, |node| node.stream.tail().copied.len() == 1).await;
        let held = rig.check(&node, &[]).await.rows("public.tree");
        let ids: Vec<&str> = held.iter().flat_map(|row| row[0].as_deref()).collect();
        let there = "select string_agg(id::text, ' ' order by id::text collate \"C\") from tree";
        assert_eq!(ids.join(" "), rig.sql(there), "{sql}");
        assert_eq!(stale(&node) > before, is_copied, "{sql}");
    }
    assert_eq!(node.halted(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_watched_from_when_they_come_until_they_go() {
    let rig = Rig::new(TREE);
    let watched = || {
        rig.sql("select string_agg(tgrelid::regclass || ' ' || split_part(tgname, '_', 2), ', ' order by tgrelid::regclass::text, tgname)
             from pg_trigger where tgname like 'thinwire%' and tgenabled = 'A'")
    };
    let all =
        "tree before, tree_1 after, tree_2 after, tree_2 before, tree_21 after, tree_22 after";
    // Who writes to one is not waited for.
    rig.init(&["*.*"]).await;
    let writer = rig.source().connect().await.unwrap();
    writer.batch_execute("begin; update public.tree_21 set v = 'w'").await.unwrap();
    slot::init(&rig.source(), &options(&["*.*"])).await.unwrap();
    assert_eq!(watched(), all.replace(", tree_21 after", ""));
    writer.batch_execute("commit").await.unwrap();
    rig.sql("select thinwire.publish_missing('thinwire_shop')");
    assert_eq!(watched(), all);
    let node = ready(&rig).await;
    rig.sql(
        "create table more (like tree including all); alter table tree attach partition more for values from (30) to (40);
         create table tree_3 partition of tree for values from (40) to (50); alter table tree_2 detach partition tree_22",
    );
    let more = all.replace("tree before", "more after, tree before");
    assert_eq!(watched(), more.replace("tree_22 after", "tree_3 after"));
    rig.sql("alter table tree detach partition more");
    node.caught_up(&rig.source()).await;
    // Whatever is broken, what users do stands.
    rig.sql("drop function thinwire.truncated_as; truncate tree_1");
    let halt = node.halts_with("schema_unreadable").await;
    assert!(halt.detail.contains("TRUNCATE: function thinwire.truncated_as"), "{halt:?}");
    rig.sql("drop table thinwire.captures cascade; truncate tree_1; truncate tree");
    rig.sql("drop function thinwire.follow_truncate cascade; truncate tree_1; truncate tree");
    assert_eq!(watched(), "");
}
