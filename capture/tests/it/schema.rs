//! Schema changes travel in their place among the rows, and new tables are captured from their birth.

use std::sync::Arc;

use thinwire_capture::{Ddl, slot::InitOptions};
use thinwire_engine::{
    model::{Body, Definitions, Record, Schema},
    storage::disk::RealDisk,
};

use crate::rig::{Node, PACE, Rig, SLOT, init_options};

fn options(patterns: &[&str]) -> InitOptions {
    InitOptions { ddl: Ddl::Replicate, ..init_options(patterns) }
}

async fn init(rig: &Rig, patterns: &[&str]) {
    thinwire_capture::slot::init(&rig.source(), &options(patterns)).await.unwrap();
}

fn node(rig: &Rig) -> Node {
    let disk = Arc::new(RealDisk);
    Node::start_on(disk, rig.source(), rig.dir.path(), 1 << 30, SLOT, PACE, Ddl::Replicate)
}

/// A node that captures everything, and has copied what there was.
async fn ready(rig: &Rig) -> Node {
    init(rig, &["*.*"]).await;
    let node = node(rig);
    node.until("all is copied", Node::has_copied).await;
    node
}

fn definitions(schema: &Schema) -> Definitions {
    Definitions::decode(&schema.definitions).unwrap()
}

/// The names of what each schema change behind the copies tells of, with `-` before what is gone.
fn told(node: &Node) -> Vec<String> {
    let mut told = Vec::new();
    let mut is_copy = false;
    for (_, record) in node.records() {
        match record {
            Record::CopyBegin(_) => is_copy = true,
            Record::CopyEnd { .. } => is_copy = false,
            Record::Schema(schema) if !is_copy => {
                let Definitions { objects, dropped } = definitions(&schema);
                let gone = dropped.iter().map(|it| format!("-{}", it.name));
                let all: Vec<_> = objects.iter().map(|it| it.name.clone()).chain(gone).collect();
                told.push(all.join(" "));
            }
            _ => {}
        }
    }
    told
}

const START: &str =
    "create table old (id int primary key, a text); insert into old values (1, 'x')";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_captured_from_its_birth_in_one_string_or_two() {
    let rig = Rig::new(START);
    let node = ready(&rig).await;
    let client = rig.source().connect().await.unwrap();
    client
        .batch_execute("create table public.riders (id int); insert into public.riders values (1)")
        .await
        .unwrap();
    client.batch_execute("create table public.two (id int primary key)").await.unwrap();
    client.batch_execute("insert into public.two values (7)").await.unwrap();
    client
        .batch_execute("update public.riders set id = 2; delete from public.two; insert into public.two values (8)")
        .await
        .unwrap();
    let model = rig.check(&node, &["public.old", "public.riders", "public.two"]).await;
    assert_eq!(model.copies, 1, "nothing of them was copied");
    assert_eq!(told(&node), ["riders", "two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rolled_back_leaves_nothing() {
    let rig = Rig::new(START);
    let node = ready(&rig).await;
    rig.sql(
        "begin; create table kept (a int); savepoint s; create table gone (a int);
         insert into gone values (1); alter table old add b int; rollback to s;
         insert into kept values (1); commit;
         begin; create table never (a int); insert into never values (1); rollback",
    );
    let model = rig.check(&node, &["public.kept", "public.old"]).await;
    assert_eq!(told(&node), ["kept"]);
    assert!(!model.has("public.gone") && !model.has("public.never"));
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_constraints_and_indexes_are_told_as_they_are() {
    let rig = Rig::new(START);
    let node = ready(&rig).await;
    rig.sql(
        "alter table old add column at timestamptz default now(); alter table old rename a to b",
    );
    rig.sql("alter table old add check (id > 0); create index on old (b); alter table old alter b set not null");
    rig.sql("insert into old (id, b) values (2, 'y'); alter table old drop column at; drop index old_b_idx");
    let model = node_model(&rig, &node).await;
    let last = definitions(model.schemas.last().unwrap());
    let Body::Table(table) = &last.objects[0].body else { panic!("{last:?}") };
    let columns: Vec<_> = table.columns.iter().map(|it| (it.number, it.name.as_str())).collect();
    assert_eq!(columns, [(1, "id"), (2, "b")]);
    assert!(table.columns[1].not_null && table.indexes.is_empty());
    let constraints: Vec<_> = table.constraints.iter().map(|it| it.definition.as_str()).collect();
    assert_eq!(constraints, ["PRIMARY KEY (id)", "CHECK ((id > 0))"]);
    let added = model.schemas.iter().map(definitions).find_map(|it| match &it.objects[0].body {
        Body::Table(table) => table.columns.iter().find(|it| it.name == "at").cloned(),
        _ => None,
    });
    let added = added.unwrap();
    assert_eq!(added.default.as_deref(), Some("now()"));
    assert!(added.missing.unwrap().ends_with("+00"), "old rows get the value of that moment");
}

/// The model, without a comparison of rows.
async fn node_model(rig: &Rig, node: &Node) -> crate::model::Model {
    rig.check(node, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_definition_does_not_determine_is_copied_again() {
    let rig = Rig::new(START);
    let node = ready(&rig).await;
    rig.sql("create table made as select generate_series(1, 3) as x; insert into made values (4)");
    rig.sql("alter table old alter a type int using length(a); insert into old values (5, 5)");
    rig.sql("alter table old add r float8 default random()");
    node.until("they are copied", |node| node.model().copies >= 2 && node.has_copied()).await;
    let id = rig.sql("select 'old'::regclass::oid").parse().unwrap();
    node.until("it is copied again", |node| {
        let tail = node.stream.tail();
        tail.copied.len() == 2 && tail.copied.contains(&thinwire_engine::model::RelationId(id))
    })
    .await;
    rig.check(&node, &["public.old", "public.made"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyless_table_can_be_updated_at_once_and_a_key_is_used_once_there_is_one() {
    let rig = Rig::new(START);
    let node = ready(&rig).await;
    rig.sql("create table k (a int, b text); insert into k values (1, 'x'); update k set a = 2; delete from k");
    rig.sql(
        "insert into k values (3, 'z'); alter table k add primary key (a); update k set b = 'y'",
    );
    rig.sql("alter table k drop constraint k_pkey; update k set a = 4");
    rig.sql("create table p (a int, b int) partition by range (a);
             create table p1 partition of p for values from (0) to (10); insert into p values (1, 1);
             update p set b = 2; update p1 set b = 3");
    rig.sql("alter table old drop constraint old_pkey; update old set a = 'q'");
    let model = rig.check(&node, &["public.k", "public.old"]).await;
    assert_eq!(model.rows("public.p").len(), 1);
    let identity = "select string_agg(relreplident::text, '' order by relname) from pg_class where relname in ('k', 'old', 'p', 'p1')";
    assert_eq!(rig.sql(identity), "ffff");
}
