//! What is published wrongly for a while: nobody's statements fail for it, nothing more is told, and it is mended.

use std::time::Duration;

use thinwire_capture::{
    Ddl,
    slot::{self, InitOptions},
};

use crate::{
    choice::{all_told, choosing, columns, following, rows},
    rig::{Node, Rig},
};

const PEOPLE: &str = "create table people (id int primary key, name text not null, hush text);
    insert into people values (1, 'Ann', 'x')";
const PUBLISHED: &str =
    "select coalesce(string_agg(prrelid::regclass::text, ',' order by prrelid::regclass::text), '')
    from pg_publication_rel";
/// Holds the publication until its transaction ends.
const HOLD: &str = "begin; create table public.held (id int primary key)";
const NO_KEY: &str = "alter table public.people drop constraint people_pkey";

#[tokio::test(flavor = "multi_thread")]
async fn a_key_goes_while_somebody_holds_the_publication_and_no_update_fails() {
    let Some(rig) = Rig::narrowing(PEOPLE) else { return };
    let node = following(&rig, &columns("public.people", &["id", "name"])).await;
    let (holder, user) =
        (rig.source().connect().await.unwrap(), rig.source().connect().await.unwrap());
    holder.batch_execute(HOLD).await.unwrap();
    let release = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        holder.batch_execute("commit").await.unwrap();
    };
    let (altered, ()) = tokio::join!(user.batch_execute(NO_KEY), release);
    altered.unwrap();
    rig.sql("update people set hush = 'y'; delete from people where id = 2");
    assert_eq!(rig.sql(PUBLISHED), "held");
    node.until("it is no more copied", |node| node.stream.tail().copied.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_the_publication_and_waits_for_us_is_let_go_and_the_rest_is_mended() {
    let Some(rig) = Rig::narrowing(PEOPLE) else { return };
    let node = following(&rig, &columns("public.people", &["id", "name"])).await;
    let (holder, user) =
        (rig.source().connect().await.unwrap(), rig.source().connect().await.unwrap());
    holder.batch_execute(HOLD).await.unwrap();
    let read = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        holder.batch_execute("select from public.people; commit").await
    };
    let (altered, read) = tokio::join!(user.batch_execute(NO_KEY), read);
    altered.unwrap();
    read.unwrap();
    node.until("it is taken off", |_| rig.sql(PUBLISHED) == "held").await;
    rig.sql("update people set hush = 'y'");
    node.until("it is no more copied", |node| node.stream.tail().copied.len() == 1).await;
    assert_eq!(rig.sql("select count(*) from thinwire.delayed"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_gets_a_name_is_narrowed_before_any_row_of_it_is_told() {
    let Some(rig) =
        Rig::narrowing("create table a (id int primary key); create table b (id int primary key)")
    else {
        return;
    };
    let node = following(&rig, &rows("public.a", "id > 3")).await;
    let (holder, user) =
        (rig.source().connect().await.unwrap(), rig.source().connect().await.unwrap());
    holder.batch_execute(HOLD).await.unwrap();
    let renamed = async {
        let rename = "drop table public.a; alter table public.b rename to a";
        user.batch_execute(rename).await.unwrap();
        user.batch_execute("insert into public.a values (1), (5)").await.unwrap();
    };
    let release = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        holder.batch_execute("commit").await.unwrap();
    };
    tokio::join!(renamed, release);
    node.until("it is copied again", |node| node.model().copies == 2).await;
    let model = rig.check(&node, &[]).await;
    assert_eq!(model.rows("public.a"), [[Some("5".to_owned())]]);
    let records = node.records();
    assert!(records.iter().all(|(_, it)| !format!("{it:?}").contains("b\"1\"")), "{records:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_out_is_not_captured_as_a_part_of_another_table() {
    let tree = "(k int primary key, v int, hush text) partition by range (k)";
    let Some(rig) = Rig::narrowing(&format!(
        "create table tree {tree}; create table tree_1 partition of tree for values from (0) to (9);
         create table whole {tree}; create table whole_1 partition of whole for values from (10) to (19)"
    )) else { return };
    let choice = columns("public.tree", &["k", "v"]);
    let node = following(&rig, &choice).await;
    rig.sql("alter table tree detach partition tree_1; alter table whole attach partition tree_1 for values from (0) to (9)");
    assert_eq!(rig.sql(PUBLISHED), "tree");
    rig.sql("insert into whole values (1, 1, 'hush hush'), (11, 1, 'more hush'); update whole set v = 2");
    rig.check(&node, &[]).await;
    let records = node.records();
    assert!(records.iter().all(|(_, it)| !format!("{it:?}").contains("hush hush")), "{records:?}");
    rig.sql("select thinwire.publish_missing('thinwire_shop'), thinwire.publish_delayed('thinwire_shop')");
    assert_eq!(rig.sql(PUBLISHED), "tree");
    // Who initialises decides, and whatever comes behind that leaves it so.
    let options = InitOptions { ddl: Ddl::Replicate, ..choosing(&choice) };
    slot::init(&rig.source(), &options).await.unwrap();
    rig.sql("alter table whole add late int");
    assert_eq!(rig.sql(PUBLISHED), "tree,whole");
    node.until("it is copied again", |node| node.model().copies == 2).await;
    let model = rig.check(&node, &[]).await;
    assert_eq!(model.rows("public.whole").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_is_not_captured_hides_what_its_heir_hides() {
    let Some(rig) = Rig::narrowing(
        "create schema base; create type base.shade as enum ('umbra');
         create table base.parent (id int, hush_n int default 7, shade base.shade, name text, check (hush_n > 0));
         create index hush_index on base.parent (hush_n);
         create table child (primary key (id)) inherits (base.parent)",
    ) else { return };
    let node = following(&rig, &columns("public.child", &["id", "name"])).await;
    rig.sql(
        "insert into child values (1, 2, 'umbra', 'Ann'); alter table base.parent add late int",
    );
    rig.sql("alter table child add own int");
    let model = rig.check(&node, &[]).await;
    let told = all_told(&node);
    for hidden in ["hush", "shade", "umbra", "late"] {
        assert!(!told.contains(hidden), "{hidden}: {told}");
    }
    assert!(told.contains("\"parent\"") && told.contains("\"name\""), "{told}");
    assert_eq!(model.rows("public.child"), [[Some("1".to_owned()), Some("Ann".to_owned())]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_that_says_nothing_is_one_for_everything_and_mended_by_the_next_init() {
    let rig = Rig::new("create table t (id int primary key)");
    let everything = thinwire_capture::Choice::default();
    let node = following(&rig, &everything).await;
    node.shutdown().await;
    rig.sql(
        "update thinwire.captures set choice = '{}'; alter table thinwire.captures alter choice set default '{}'",
    );
    let node = Node::choosing(&rig, &everything, Ddl::Replicate);
    rig.sql("insert into t values (1)");
    rig.check(&node, &["public.t"]).await;
    assert_eq!(node.halted(), None);
    rig.sql("comment on event trigger thinwire_command is 'another edition'");
    let options = InitOptions { ddl: Ddl::Replicate, ..choosing(&everything) };
    slot::init(&rig.source(), &options).await.unwrap();
    let default = "select pg_get_expr(adbin, adrelid) like '%identified%' from pg_attrdef
        where adrelid = 'thinwire.captures'::regclass and adnum =
            (select attnum from pg_attribute where attrelid = adrelid and attname = 'choice')";
    assert_eq!(rig.sql(default), "t");
    assert_eq!(rig.sql("select choice ->> 'identified' from thinwire.captures"), "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_otherwise_by_hand_is_copied_again_also_after_a_restart() {
    let Some(rig) = Rig::narrowing(PEOPLE) else { return };
    rig.sql("create table orders (id int primary key); insert into orders values (1), (9)");
    let choice = rows("public.orders", "id <= 3");
    slot::init(&rig.source(), &choosing(&choice)).await.unwrap();
    let mut node = Node::choosing(&rig, &choice, Ddl::Stop);
    node.until("all is copied", Node::has_copied).await;
    for (copies, by_hand, restarts) in [
        (2, "only orders where (id <= 1), only people", false),
        (3, "only orders where (id <= 7), only people", true),
        (4, "only orders, only people (id, name)", true),
    ] {
        rig.sql(&format!("alter publication thinwire_shop set table {by_hand}"));
        node.halts_with("publication_differs").await;
        rig.sql("insert into orders select max(id) + 1 from orders where id < 9; update people set hush = hush || 'y'");
        let back =
            "alter publication thinwire_shop set table only orders where (id <= 3), only people";
        if restarts {
            // What is noticed counts once it is durable.
            node.until("it is durable", |node| {
                let marks = node.stream.watermarks();
                marks.synced == marks.appended
            })
            .await;
            node.kill().await;
            rig.sql(back);
            rig.slot_is_free().await;
            node = Node::choosing(&rig, &choice, Ddl::Stop);
        } else {
            rig.sql(back);
        }
        node.until("it is copied again", |node| node.model().copies == copies).await;
        let model = rig.check(&node, &["public.people"]).await;
        let expected = rig.sql("select count(*) from orders where id <= 3");
        assert_eq!(model.rows("public.orders").len().to_string(), expected, "{by_hand}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_seen_away_is_copied_again_also_after_a_restart() {
    let rig = Rig::new(PEOPLE);
    let node = rig.ready().await;
    rig.sql("alter publication thinwire_shop drop table only people");
    // What is noticed counts once it is durable: a node that dies before has noticed nothing.
    let away = |node: &Node| {
        let marks = node.stream.watermarks();
        node.stream.tail().copied.is_empty() && marks.synced == marks.appended
    };
    node.until("it is durable that it was away", away).await;
    node.kill().await;
    rig.sql("insert into people values (2, 'Bea', 'missed'); alter publication thinwire_shop add table only people");
    rig.slot_is_free().await;
    let node = rig.node();
    node.until("it is copied again", |node| node.model().copies == 2).await;
    rig.check(&node, &["public.people"]).await;
}
