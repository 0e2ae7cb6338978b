//! Schema changes travel in their place among the rows, and new tables are captured from their birth.

use std::sync::Arc;

use thinwire_capture::{
    Ddl, Source, State,
    slot::{self, InitOptions},
};
use thinwire_engine::{
    model::{Body, Definitions, Record, RelationId, Schema, Sequence, Table},
    storage::disk::RealDisk,
};

use crate::{
    model::Model,
    rig::{NARROWS, Node, PACE, Rig, SLOT, init_options},
};

pub(crate) fn options(patterns: &[&str]) -> InitOptions {
    InitOptions { ddl: Ddl::Replicate, ..init_options(patterns) }
}

async fn init(rig: &Rig, patterns: &[&str]) {
    slot::init(&rig.source(), &options(patterns)).await.unwrap();
}

pub(crate) fn node(rig: &Rig) -> Node {
    let disk = Arc::new(RealDisk);
    Node::start_on(disk, rig.source(), rig.dir.path(), 1 << 30, SLOT, PACE, Ddl::Replicate)
}

/// A node that captures everything, and has copied what there was.
pub(crate) async fn ready(rig: &Rig) -> Node {
    init(rig, &["*.*"]).await;
    let node = node(rig);
    node.until("all is copied", Node::has_copied).await;
    node
}

pub(crate) fn definitions(schema: &Schema) -> Definitions {
    Definitions::decode(&schema.definitions).unwrap()
}

/// The names of what each schema change behind the copies tells of, with `-` before what is gone.
pub(crate) fn told(node: &Node) -> Vec<String> {
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

/// A table as it was told last.
fn last_told(model: &Model, name: &str) -> Table {
    let told = model.schemas.iter().flat_map(|it| definitions(it).objects);
    let tables = told.filter_map(|it| match it.body {
        Body::Table(table) if it.name == name => Some(table),
        _ => None,
    });
    tables.last().unwrap()
}

fn indexes(model: &Model, name: &str) -> Vec<String> {
    last_told(model, name).indexes.into_iter().map(|it| it.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_got_another_number_is_missed_all_the_same() {
    let rig = Rig::new(START);
    let node = ready(&rig).await;
    rig.sql(
        "create table u (id int not null, v text); create unique index u_id on u (id);
         alter table u replica identity using index u_id; create unique index u_v on u (v);
         create table p (id int not null, v text) partition by range (id);
         create table p1 partition of p for values from (0) to (10);
         create unique index p1_v on p1 (v); insert into u values (1, 'x'); insert into p values (1, 'x')",
    );
    let model = node_model(&rig, &node).await;
    assert_eq!(indexes(&model, "u"), ["u_id", "u_v"]);
    assert_eq!(indexes(&model, "p1"), ["p1_v"]);
    rig.sql("reindex index concurrently u_v; drop index u_v; insert into u values (2, 'x')");
    rig.sql(
        "alter table p alter v type varchar(50); drop index p1_v; insert into p values (2, 'x')",
    );
    let model = node_model(&rig, &node).await;
    assert_eq!(indexes(&model, "u"), ["u_id"]);
    assert_eq!(indexes(&model, "p1"), [""; 0]);
    rig.sql("reindex table concurrently u; drop index u_id; update u set v = 'y' where id = 1");
    let model = rig.check(&node, &["public.u"]).await;
    assert_eq!(indexes(&model, "u"), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_a_type_is_told_of_the_tables_of_that_type() {
    let rig = Rig::new(START);
    let node = ready(&rig).await;
    let columns = |model: &Model, name: &str| -> Vec<String> {
        last_told(model, name).columns.into_iter().map(|it| it.name).collect()
    };
    rig.sql(
        "create type pair as (a int, b text); create table typed of pair (primary key (a));
         create table parted of pair partition by list (a);
         create table parted_1 partition of parted for values in (1)",
    );
    rig.sql("alter type pair rename attribute b to d cascade; insert into typed values (1, 'x')");
    rig.sql("alter type pair add attribute c int cascade; insert into typed values (2, 'y', 3)");
    let model = rig.check(&node, &["public.typed"]).await;
    for table in ["typed", "parted"] {
        assert_eq!(columns(&model, table), ["a", "d", "c"], "{table}");
    }
    assert_eq!(columns(&model, "parted_1")[..2], ["a", "d"]);
    rig.sql("alter type pair drop attribute d cascade; insert into typed values (3, 4)");
    let model = rig.check(&node, &[]).await;
    assert_eq!(columns(&model, "typed"), ["a", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_value_that_old_rows_have_is_told_whatever_type_it_has() {
    let rig = Rig::new(START);
    let node = ready(&rig).await;
    let added = [
        ("box", "(1,1),(0,0)"),
        ("int[]", "{1,2}"),
        ("text[]", r#"{"a b",NULL,"c\"d"}"#),
        ("text", r#"a"b, {c}; \d"#),
        ("text", ""),
        ("text", "NULL"),
        ("point", "(1,2)"),
        ("jsonb", r#"{"a": [1, 2]}"#),
    ];
    for (at, (data_type, value)) in added.iter().enumerate() {
        rig.sql(&format!("alter table old add column n{at} {data_type} default '{value}'"));
    }
    let model = node_model(&rig, &node).await;
    let last = definitions(model.schemas.last().unwrap());
    let Body::Table(table) = &last.objects[0].body else { panic!("{last:?}") };
    let told: Vec<_> = table.columns.iter().filter_map(|it| it.missing.as_deref()).collect();
    assert_eq!(told, added.map(|(_, value)| value));
}

/// The model, without a comparison of rows.
async fn node_model(rig: &Rig, node: &Node) -> Model {
    rig.check(node, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_definition_does_not_determine_is_copied_again() {
    let rig = Rig::new(START);
    let node = ready(&rig).await;
    rig.sql("create table made as select generate_series(1, 3) as x; insert into made values (4)");
    rig.sql("alter table old alter a type int using length(a); insert into old values (5, 5)");
    rig.sql("alter table old add r float8 default random()");
    // Before it has read all of this, the old one counts as copied as well.
    node.caught_up(&rig.source()).await;
    node.until("they are copied", |node| node.model().copies >= 2 && node.has_copied()).await;
    let id = rig.sql("select 'old'::regclass::oid").parse().unwrap();
    node.until("it is copied again", |node| {
        let tail = node.stream.tail();
        tail.copied.len() == 2 && tail.copied.contains(&RelationId(id))
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

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_object_is_told_with_what_it_needs() {
    let rig = Rig::new(START);
    let node = ready(&rig).await;
    for sql in [
        "create schema s",
        "create type s.mood as enum ('sad', 'ok')",
        "alter type s.mood add value 'mad' before 'ok'",
        "create type s.pair as (a int, m s.mood)",
        "create domain s.small as int check (value < 10)",
        "create type s.span as range (subtype = float8)",
        "create sequence s.counter",
        "create function s.one() returns int language sql immutable as 'select 1'",
        "create table s.t (p s.pair, d s.small default s.one(), n int default nextval('s.counter'), r s.span)",
        "create view s.v as select d from s.t",
        "create procedure s.p(x int) language sql as 'select 1'",
        "alter schema s rename to z",
        "drop schema z cascade",
    ] {
        rig.sql(sql);
    }
    rig.check(&node, &[]).await;
    let told = told(&node);
    let expected = [
        "s",
        "s mood",
        "s mood",
        "s mood pair",
        "s small",
        "s span",
        "s counter",
        "s one",
        "s mood pair small span counter one t",
        "s small v",
        "s p",
    ];
    assert_eq!(told[..11], expected);
    let mut renamed: Vec<_> = told[11].split(' ').collect();
    renamed.sort_unstable();
    assert_eq!(renamed, ["counter", "mood", "one", "p", "pair", "small", "span", "t", "v", "z"]);
    assert!(told[12].ends_with("-z") && told[12].contains("-t "), "{}", told[12]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_somebody_forges_is_counted_and_ignored() {
    let rig = Rig::new(START);
    let node = ready(&rig).await;
    rig.sql("create role mallory login; grant usage, create on schema public to mallory");
    let mallory = Source::new(rig.cluster.url_as("mallory", "shop").parse().unwrap());
    let client = mallory.connect().await.unwrap();
    let body = format!(
        r#"{{"publication": "{SLOT}", "xid": 1, "objects": [], "dropped": [{{"id": 1, "kind": "table", "schema": "public", "name": "old"}}], "born": [], "stale": []}}"#
    );
    let forge = format!(
        "begin; select pg_logical_emit_message(true, 'thinwire.schema', repeat('x', 32) || '{body}'); \
         select pg_logical_emit_message(true, 'thinwire.schema', 'x'); \
         create table public.theirs (a int); insert into public.theirs values (1); commit; \
         select pg_logical_emit_message(false, 'thinwire.schema', repeat('x', 32) || '{body}')"
    );
    client.batch_execute(&forge).await.unwrap();
    assert!(client.query("select secret from thinwire.captures", &[]).await.is_err());
    assert!(client.query("select thinwire.tell_all('x')", &[]).await.is_err());
    let model = rig.check(&node, &["public.old", "public.theirs"]).await;
    assert_eq!(told(&node), ["theirs"]);
    assert_eq!(model.messages, []);
    assert_eq!(node.status().forged, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_with_schema_changes_is_resumed_where_it_was_cut() {
    let rig = Rig::new(START);
    let node = ready(&rig).await;
    node.shutdown().await;
    rig.sql(
        "begin; create table big (id int primary key, pad text); \
         insert into big select i, repeat('x', 50) || i from generate_series(1, 30000) i; \
         alter table big add b int; insert into big select i, 'y', 2 from generate_series(30001, 60000) i; \
         create table late (a int); insert into late values (1); update late set a = 2; commit; \
         insert into big values (0, 'after', 3)",
    );
    for step in 1..=4_u64 {
        let node = self::node(&rig);
        node.until("some more is captured", |node| {
            node.stream.watermarks().appended.get() > step * 15_000
        })
        .await;
        node.kill().await;
    }
    let node = self::node(&rig);
    let model = rig.check(&node, &["public.old", "public.big", "public.late"]).await;
    assert_eq!((model.commits, model.aborts, model.copies), (2, 0, 1));
    assert_eq!(told(&node), ["big", "big", "late"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_inside_the_statement_stands_and_the_stream_says_so() {
    let rig = Rig::new(START);
    let node = ready(&rig).await;
    // What can be read of the same transaction is read before it each time.
    rig.sql(
        "begin; create table fine (id int primary key); insert into fine values (1);
         alter table thinwire.parts rename to lost; create table t (id int primary key); insert into t values (1); commit",
    );
    let halt = node.halts_with("schema_unreadable").await;
    assert!(halt.detail.contains("CREATE TABLE: relation \"thinwire.parts\""), "{}", halt.detail);
    rig.sql("alter table thinwire.lost rename to parts; insert into old values (2, 'y')");
    node.capture.retry();
    node.until("all is copied again", |node| node.stream.tail().copied.len() == 3).await;
    assert_eq!(node.halted(), None);
    rig.check(&node, &["public.old", "public.t", "public.fine"]).await;
    // Nothing is left of what runs: the statement stands all the same.
    rig.sql(
        "drop table thinwire.captures cascade; create table u (a int); insert into u values (1)",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_are_followed_and_planted_functions_are_never_found() {
    let rig = Rig::new(START);
    let node = ready(&rig).await;
    rig.sql(
        "create table canary (hit text); create role bob login; \
         grant create on schema public to bob; grant insert on canary to bob; \
         create schema bobs authorization bob",
    );
    let bob = Source::new(rig.cluster.url_as("bob", "shop").parse().unwrap());
    let client = bob.connect().await.unwrap();
    client
        .batch_execute(
            "set search_path = bobs, pg_temp, pg_catalog; \
             create function bobs.hit(name, name) returns bool language plpgsql as \
               $$ begin insert into public.canary values ('operator'); return true; end $$; \
             create operator bobs.= (leftarg = name, rightarg = name, function = bobs.hit); \
             create function bobs.quote_ident(text) returns text language plpgsql as \
               $$ begin insert into public.canary values ('quote'); return $1; end $$; \
             create temp table pg_class (oid oid, relname name); create temp table captures (a int); \
             create type pg_temp.jsonb as (a int)",
        )
        .await
        .unwrap();
    for name in
        ["a'b", "a\"b", "$$", "$function$", "new\nline", "\\", "%I", "ünï", "; drop table old; --"]
    {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        let literal = format!("E'{}'", name.replace('\\', "\\\\").replace('\'', "''"));
        let sql = format!(
            "create table bobs.{quoted} ({quoted} text default {literal}); \
             create index on bobs.{quoted} ({quoted}); \
             insert into bobs.{quoted} default values; update bobs.{quoted} set {quoted} = 'b'; \
             alter table bobs.{quoted} rename {quoted} to x; alter table bobs.{quoted} add y int; \
             insert into bobs.{quoted} values ('c', 1)"
        );
        client.batch_execute(&sql).await.unwrap();
    }
    let model = rig.check(&node, &["public.old"]).await;
    for name in ["a'b", "a\"b", "$$", "new\nline", "; drop table old; --"] {
        assert!(model.has(&format!("bobs.{name}")), "{name:?}");
    }
    assert_eq!(rig.sql("select count(*) from public.canary"), "0");
    assert_eq!(node.halted(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_at_one_database_follow_what_each_of_them_captures() {
    let rig = Rig::new(START);
    let node = ready(&rig).await;
    let second = InitOptions { node: "other".into(), ..options(&["public.x*", "!public.xx"]) };
    slot::init(&rig.source(), &second).await.unwrap();
    rig.sql("create table x1 (a int); insert into x1 values (1); create table y1 (a int); create table xx (a int)");
    let listed = |publication: &str| {
        rig.sql(&format!(
            "select string_agg(tablename, ' ' order by tablename) from pg_publication_tables where pubname = '{publication}'"
        ))
    };
    assert_eq!(listed(SLOT), "old x1 xx y1");
    assert_eq!(listed("thinwire_other"), "x1");
    rig.sql(
        "alter table y1 rename to x2; alter table x1 rename to z1; insert into z1 values (2);
             insert into x2 values (1); insert into xx values (1)",
    );
    assert_eq!(listed("thinwire_other"), "x2");
    rig.check(&node, &["public.old", "public.z1", "public.x2", "public.xx"]).await;
    assert_eq!(told(&node), ["x1", "y1", "xx", "x2", "z1"]);
    assert_eq!(node.status().forged, 0);
    slot::drop(&rig.source(), "other").await.unwrap();
    rig.sql("create table more (a int)");
    assert_eq!(listed(SLOT), "more old x2 xx z1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_is_installed_once_and_taken_away_again() {
    let rig = Rig::new(START);
    // A slot that exists already gets a message that tells of all tables.
    let node = rig.ready().await;
    node.shutdown().await;
    let planned = slot::plan(&rig.source(), &options(&["*.*"])).await.unwrap();
    let done = slot::init(&rig.source(), &options(&["*.*"])).await.unwrap().done;
    assert_eq!(done, planned);
    let again = slot::init(&rig.source(), &options(&["*.*"])).await.unwrap().done;
    assert_eq!(again, Vec::<String>::new());
    let checks = slot::check(&rig.source(), &options(&["*.*"])).await;
    assert!(checks.iter().all(|it| it.ok), "{checks:?}");
    let node = self::node(&rig);
    rig.check(&node, &["public.old"]).await;
    assert_eq!(told(&node), ["old"]);
    node.shutdown().await;
    // Without it, only what gives identities is left, and nothing at all once the node is gone.
    rig.init(&["*.*"]).await;
    assert_eq!(rig.sql("select follows from thinwire.captures"), "f");
    let checks = slot::check(&rig.source(), &options(&["*.*"])).await;
    assert!(checks.iter().any(|it| !it.ok), "{checks:?}");
    let node = self::node(&rig);
    node.halts_with("ddl_not_installed").await;
    node.shutdown().await;
    rig.slot_is_free().await;
    slot::drop(&rig.source(), crate::rig::NODE).await.unwrap();
    let left = "select count(*) from pg_event_trigger union all
                select count(*) from pg_trigger where not tgisinternal union all
                select count(*) from pg_namespace where nspname = 'thinwire'";
    assert_eq!(rig.sql(left), "0\n0\n0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_humble_login_follows_what_a_superuser_has_installed() {
    let rig = Rig::new(START);
    rig.sql("create role runner login replication; create role owner login; grant create on database shop to owner");
    let humble = Source::new(rig.cluster.url_as("owner", "shop").parse().unwrap());
    let refused = slot::init(&humble, &options(&["*.*"])).await.unwrap_err().to_string();
    assert!(refused.contains("only a superuser"), "{refused}");
    let as_runner = InitOptions { run_as: Some("runner".into()), ..options(&["*.*"]) };
    slot::init(&rig.source(), &as_runner).await.unwrap();
    let source = Source::new(rig.cluster.url_as("runner", "shop").parse().unwrap());
    let node = Node::start_on(
        Arc::new(RealDisk),
        source,
        rig.dir.path(),
        1 << 30,
        SLOT,
        PACE,
        Ddl::Replicate,
    );
    rig.sql("create schema s; create table s.t (id serial); insert into s.t default values");
    node.until("all is copied", |node| node.stream.tail().copied.len() == 2).await;
    rig.sql("alter table s.t alter id type bigint; insert into s.t default values");
    node.until("it is copied again", |node| {
        node.model().copies >= 2 && node.stream.tail().copied.len() == 2
    })
    .await;
    rig.check(&node, &["public.old", "s.t"]).await;
    assert_eq!(node.halted(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_to_wait_for_another_is_published_a_little_later() {
    let rig = Rig::new(START);
    let node = ready(&rig).await;
    let long = rig.source().connect().await.unwrap();
    long.batch_execute("begin; create table public.a (x int); insert into public.a values (1)")
        .await
        .unwrap();
    // Both go on at once, and whoever waits waits but a moment.
    rig.sql(
        "set deadlock_timeout = '10s'; set statement_timeout = '5s';
             create table b (x int); insert into b values (1)",
    );
    long.batch_execute("commit").await.unwrap();
    node.until("it is copied", |node| node.stream.tail().copied.len() == 3).await;
    rig.sql("insert into a values (2); insert into b values (2)");
    let model = rig.check(&node, &["public.a", "public.b"]).await;
    // Before 15 nobody waits to have a table published: each is so from its birth, and needs no copy.
    assert_eq!(model.copies, if rig.version() < NARROWS { 1 } else { 2 });
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_another_node_made_only_the_birth_remains() {
    let rig = Rig::new(START);
    let node = ready(&rig).await;
    rig.sql("select pg_replication_origin_create('thinwire_other')");
    let theirs = rig.source().connect().await.unwrap();
    theirs
        .batch_execute(
            "set session_replication_role = replica; \
             select pg_replication_origin_session_setup('thinwire_other'); \
             create table public.t (id int primary key); insert into public.t values (1); \
             alter table public.old add b int; create table public.brief (a int); drop table public.brief",
        )
        .await
        .unwrap();
    rig.sql("insert into t values (2)");
    let model = rig.check(&node, &[]).await;
    assert_eq!(model.rows("public.t"), [[Some("2".to_owned())]]);
    assert_eq!((model.copies, told(&node).concat()), (1, String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_sequences_are_told_ahead_and_nothing_while_they_stand_still() {
    let rig = Rig::new(
        "create table t (id serial primary key); insert into t default values; create sequence loose",
    );
    let node = ready(&rig).await;
    let values = |node: &Node, name: &str| -> Vec<i64> {
        let told = node.model().schemas.into_iter().flat_map(|it| definitions(&it).objects);
        told.filter_map(|object| match object.body {
            Body::Sequence(Sequence { value, .. }) if object.name == name => value,
            _ => None,
        })
        .collect()
    };
    node.until("it is told", |node| values(node, "t_id_seq").contains(&130)).await;
    rig.sql("select nextval('loose') from generate_series(1, 1000)");
    node.until("it is told", |node| values(node, "loose").last().is_some_and(|it| *it > 1_064))
        .await;
    rig.sql("insert into t default values");
    rig.check(&node, &["public.t"]).await;
    let appended = node.stream.watermarks().appended;
    tokio::time::sleep(PACE.poll * 4).await;
    assert_eq!(node.stream.watermarks().appended, appended);
    assert_eq!(values(&node, "t_id_seq").last(), Some(&130));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_retry_while_it_looks_again_is_heard() {
    let rig = Rig::new(START);
    init(&rig, &["public.*"]).await;
    let node = node(&rig);
    node.until("all is copied", Node::has_copied).await;
    rig.sql("create schema far; create table far.noise (a int, pad text)");
    // Whoever looks again reads the log from here, and much of it before what cannot be read.
    let open = rig.source().connect().await.unwrap();
    open.batch_execute("begin; select pg_catalog.pg_current_xact_id()").await.unwrap();
    rig.sql("insert into far.noise select i, repeat('x', 100) from generate_series(1, 300000) i");
    rig.sql("alter table thinwire.parts rename to lost; create table t (id int primary key)");
    rig.sql("alter table thinwire.lost rename to parts");
    node.halts_with("schema_unreadable").await;
    node.until("it looks again", |node| node.status().state == State::Streaming).await;
    node.capture.retry();
    // A copy waits for it.
    open.batch_execute("commit").await.unwrap();
    node.until("all is copied again", |node| node.stream.tail().copied.len() == 2).await;
    assert_eq!(node.halted(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_that_is_dropped_is_not_told_again_behind_a_copy() {
    let rig = Rig::new("create table t (id serial primary key); create sequence loose");
    let node = ready(&rig).await;
    let told = |node: &Node, name: &str| -> usize {
        let told = node.model().schemas.into_iter().flat_map(|it| definitions(&it).objects);
        told.filter(|object| object.name == name).count()
    };
    rig.sql("select nextval('loose'); insert into t default values");
    node.until("they are told", |node| told(node, "loose") > 0 && told(node, "t_id_seq") > 1).await;
    rig.sql("drop sequence loose");
    node.caught_up(&rig.source()).await;
    let before = (told(&node, "loose"), told(&node, "t_id_seq"));
    // A column of another type has all rows copied again.
    rig.sql("alter table t alter id type bigint");
    node.until("it is copied again", |node| node.model().copies == 2).await;
    node.until("the other one is told", |node| told(node, "t_id_seq") > before.1 + 1).await;
    tokio::time::sleep(PACE.poll * 3).await;
    assert_eq!(told(&node, "loose"), before.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_choice_of_tables_takes_effect_at_once() {
    let rig = Rig::new(START);
    init(&rig, &["public.old"]).await;
    let node = node(&rig);
    node.until("all is copied", Node::has_copied).await;
    rig.sql("create table keyless (a int); insert into keyless values (1)");
    init(&rig, &["public.*"]).await;
    rig.sql(
        "create table next (a int); insert into next values (1); insert into keyless values (2)",
    );
    node.until("all is copied", |node| node.stream.tail().copied.len() == 3).await;
    let model = rig.check(&node, &["public.old", "public.keyless", "public.next"]).await;
    assert_eq!(model.copies, 2);
    assert_eq!(told(&node), ["old keyless", "next"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_captured_no_more_is_the_targets_own() {
    let rig = Rig::new(START);
    rig.sql(
        "create schema far;
         create table off (a int); create table log (a int) partition by range (a);
         create table log_1 partition of log for values from (0) to (1);
         create table kept (a int) partition by range (a);
         create table far.kept_1 partition of kept for values from (0) to (1);
         create table far.kept_2 partition of kept for values from (1) to (2)",
    );
    init(&rig, &["public.*"]).await;
    let node = node(&rig);
    node.until("all is copied", Node::has_copied).await;
    init(&rig, &["public.old", "public.kept"]).await;
    let before = told(&node).len();
    rig.sql("drop table far.kept_2");
    rig.sql("drop table off, log");
    rig.sql("drop table kept, old");
    rig.check(&node, &[]).await;
    let mut told = told(&node).split_off(before);
    let mut last: Vec<_> = told.pop().unwrap().split(' ').map(str::to_owned).collect();
    last.sort();
    assert_eq!(last, ["-kept", "-kept_1", "-old"]);
    let told: Vec<_> = told.iter().filter(|it| it.contains('-')).collect();
    assert_eq!(told, ["kept -kept_2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_installed_anew_has_another_secret_and_is_believed_all_the_same() {
    let rig = Rig::new(START);
    let node = ready(&rig).await;
    let forge = "select pg_logical_emit_message(true, 'thinwire.schema', repeat('x', 32) || \
                 '{\"publication\": \"thinwire_shop\"}')";
    for round in 1..=2 {
        let stop = InitOptions { ddl: Ddl::Stop, ..options(&["*.*"]) };
        slot::init(&rig.source(), &stop).await.unwrap();
        rig.sql("delete from thinwire.captures");
        init(&rig, &["*.*"]).await;
        rig.sql(&format!("create table t{round} (a int); insert into t{round} values (1)"));
        rig.sql(forge);
        rig.check(&node, &[&format!("public.t{round}")]).await;
        assert_eq!(node.status().forged, round);
    }
    assert_eq!(told(&node), ["old", "t1", "old t1", "t2"]);
    assert_eq!(node.model().copies, 1);
}
