//! `init`, `plan`, `check` and `drop` on real databases.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use thinwire_capture::{
    Patterns, Source,
    slot::{self, Check, InitOptions},
};
use thinwire_engine::model::Origin;

use crate::rig::{NODE, Node, Rig, SLOT, init_options, soon};

const SCHEMA: &str = r#"
create table keyed (id int primary key, a text);
create table keyless (a int, b text);
create table audit (a int);
create unlogged table scratch (id int primary key);
create view v as select * from keyed;
create materialized view mv as select * from keyed;
create schema "o'dd";
create table "o'dd"."ta""ble; drop" ("c'ol" int primary key);
create table measures (at date, v int) partition by range (at);
create table measures_1 partition of measures for values from ('2024-01-01') to ('2024-02-01');
create table measures_2 partition of measures for values from ('2024-02-01') to ('2024-03-01');
create table deferred (id int primary key deferrable initially deferred);
"#;

fn failing(checks: &[Check]) -> Vec<&str> {
    checks.iter().filter(|it| !it.ok).map(|it| it.what.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn init_publishes_what_is_meant_and_a_second_time_does_nothing() {
    // PostgreSQL: 001_rep_changes 32, 34
    let rig = Rig::new(SCHEMA);
    let patterns = ["*.*", "!public.audit"];
    let planned = slot::plan(&rig.source(), &init_options(&patterns)).await.unwrap();
    assert_eq!(rig.sql("select count(*) from pg_publication"), "0", "a plan changes nothing");
    let report = rig.init(&patterns).await;
    assert_eq!(report.done, planned);
    assert_eq!(report.needed, Vec::<String>::new());
    let expected = [
        "o'dd.ta\"ble; drop",
        "public.deferred",
        "public.keyed",
        "public.keyless",
        "public.measures",
    ];
    assert_eq!(report.tables, expected);
    let published = rig.sql(
        "select string_agg(relname, ',' order by relname) from pg_publication_rel join pg_class c on c.oid = prrelid",
    );
    assert_eq!(published, "deferred,keyed,keyless,measures,ta\"ble; drop");
    assert_eq!(
        rig.sql("select string_agg(relname, ',' order by relname) from pg_class where relreplident = 'f'"),
        "deferred,keyless,measures,measures_1,measures_2"
    );
    assert_eq!(rig.init(&patterns).await.done, Vec::<String>::new());
    // Every application statement still works.
    rig.sql(
        "insert into keyless values (1, 'a'); update keyless set a = 2; delete from keyless;
             insert into measures values ('2024-01-15', 1); update measures set at = '2024-02-15';
             insert into deferred values (1); update deferred set id = 2",
    );
    let checks = slot::check(&rig.source(), &init_options(&["*.*"])).await;
    assert_eq!(failing(&checks), Vec::<&str>::new(), "{checks:?}");
    assert!(checks.iter().any(|it| it.ok && it.what.contains("superuser") && it.cure.is_some()));
    slot::drop(&rig.source(), NODE).await.unwrap();
    slot::drop(&rig.source(), NODE).await.unwrap();
    assert_eq!(rig.sql("select count(*) from pg_replication_slots"), "0");
    let checks = slot::check(&rig.source(), &init_options(&["*.*"])).await;
    assert_eq!(failing(&checks).len(), 2, "{checks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_and_partitions_are_captured() {
    let rig = Rig::new(SCHEMA);
    rig.sql("insert into measures values ('2024-01-15', 1), ('2024-02-15', 2); insert into deferred values (1);
             insert into \"o'dd\".\"ta\"\"ble; drop\" values (1)");
    let node = rig.ready().await;
    rig.sql("insert into measures values ('2024-01-16', 3); update measures set at = '2024-02-16' where v = 1;
             delete from measures where v = 2; update deferred set id = 2;
             update \"o'dd\".\"ta\"\"ble; drop\" set \"c'ol\" = 2;
             create table measures_3 partition of measures for values from ('2024-03-01') to ('2024-04-01');
             insert into measures values ('2024-03-15', 4)");
    let model = rig.check(&node, &["public.deferred"]).await;
    assert_eq!(model.sum("public.measures", 1), 8);
    assert_eq!(model.rows("public.measures").len(), 3);
    assert_eq!(model.rows("o'dd.ta\"ble; drop"), [[Some("2".to_owned())]]);
    assert!(!model.has("public.measures_1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_captured_is_refused_by_name_and_nothing_is_changed() {
    let rig = Rig::new(SCHEMA);
    rig.sql("create table nothing (a int); alter table nothing replica identity nothing");
    for (patterns, expected) in [
        (&["public.keyd"][..], "there is no table public.keyd in the database shop"),
        (&["public.v"], "public.v is a view"),
        (&["public.mv"], "materialized"),
        (&["public.scratch"], "public.scratch is unlogged"),
        (&["public.*"], "public.nothing has REPLICA IDENTITY NOTHING"),
    ] {
        let error = slot::init(&rig.source(), &init_options(patterns)).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert_eq!(rig.sql("select count(*) from pg_publication"), "0");
    assert_eq!(rig.sql("select count(*) from pg_class where relreplident = 'f'"), "0");
    assert!(Patterns::parse(&["keyed"]).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_humble_login_captures_once_it_has_what_it_needs() {
    let rig = Rig::new(SCHEMA);
    rig.sql("create role runner login; revoke all on schema public from public");
    let options = InitOptions { run_as: Some("runner".into()), ..init_options(&["public.keyed"]) };
    let report = slot::init(&rig.source(), &options).await.unwrap();
    assert_eq!(report.needed, ["ALTER ROLE \"runner\" REPLICATION"]);
    assert!(report.done.iter().any(|it| it.starts_with("GRANT USAGE")), "{:?}", report.done);
    let source = Source::new(rig.cluster.url_as("runner", "shop").parse().unwrap());
    let checks = slot::check(&source, &init_options(&["*.*"])).await;
    assert!(failing(&checks).iter().any(|it| it.contains("may not replicate")), "{checks:?}");
    rig.sql(&report.needed[0]);
    let checks = slot::check(&source, &init_options(&["*.*"])).await;
    assert_eq!(failing(&checks), Vec::<&str>::new(), "{checks:?}");
    let node = Node::start(source, rig.dir.path(), &rig.cluster);
    rig.sql("insert into keyed values (1, 'a')");
    rig.check(&node, &["public.keyed"]).await;
    // Rows that a policy hides are an error, not missing rows.
    node.shutdown().await;
    rig.sql("alter table keyed enable row level security");
    let source = Source::new(rig.cluster.url_as("runner", "shop").parse().unwrap());
    let checks = slot::check(&source, &init_options(&["*.*"])).await;
    assert!(failing(&checks).iter().any(|it| it.contains("row-level security")), "{checks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slot_is_created_once_older_transactions_have_ended() {
    let rig = Rig::new(SCHEMA);
    let long = rig.source().connect().await.unwrap();
    long.batch_execute("begin; insert into public.audit values (1)").await.unwrap();
    let is_ending = Arc::new(AtomicBool::new(false));
    let ending = is_ending.clone();
    let later = tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
        ending.store(true, Ordering::SeqCst);
        long.batch_execute("commit").await.unwrap();
    });
    rig.init(&["public.keyed"]).await;
    assert!(is_ending.load(Ordering::SeqCst));
    later.await.unwrap();
    assert_eq!(rig.sql("select count(*) from pg_replication_slots"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_any_characters_come_through_as_they_are() {
    let rig = Rig::new("select 1");
    let source = rig.source();
    let client = source.connect().await.unwrap();
    let names = [
        "\"; DROP TABLE x; --",
        "a'b",
        "a\"b",
        "$$",
        "new\nline",
        "tab\t",
        "ünïcödé",
        "\u{FFFD}",
        " ",
        "\\",
        "E'\\n'",
        "%s",
        "*",
        "😀",
        "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg",
    ];
    for name in names {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        client
            .batch_execute(&format!(
                "create table public.{quoted} ({quoted} text); insert into public.{quoted} values ('copied')"
            ))
            .await
            .unwrap();
    }
    let node = rig.ready().await;
    for name in names {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        let insert = format!("insert into public.{quoted} values ('streamed')");
        client.batch_execute(&insert).await.unwrap();
    }
    let model = rig.check(&node, &[]).await;
    for name in names {
        assert_eq!(model.rows(&format!("public.{name}")).len(), 2, "{name:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_functions_and_tables_are_never_found() {
    let rig = Rig::new("create table t (id int primary key, a text)");
    rig.sql(
        "create table canary (hit text);
         create function public.hit(text, text) returns bool language plpgsql as
           $$ begin insert into public.canary values ('operator'); return true; end $$;
         create operator public.= (leftarg = text, rightarg = text, function = public.hit);
         create function public.lower(text) returns text language plpgsql as
           $$ begin insert into public.canary values ('lower'); return $1; end $$;
         create table public.pg_class (oid oid, relname name);
         create function public.current_setting(text) returns text language plpgsql as
           $$ begin insert into public.canary values ('setting'); return 'x'; end $$;
         alter database shop set search_path = public, pg_catalog;
         alter role postgres set search_path = public, pg_catalog",
    );
    rig.init(&["public.t"]).await;
    let node = rig.node();
    node.until("all is copied", Node::has_copied).await;
    rig.sql("insert into t values (1, 'a')");
    rig.check(&node, &["public.t"]).await;
    assert_eq!(
        failing(&slot::check(&rig.source(), &init_options(&["*.*"])).await),
        Vec::<&str>::new()
    );
    assert_eq!(rig.sql("select count(*) from public.canary"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_somebody_else_is_left_alone() {
    let rig = Rig::new(SCHEMA);
    rig.sql(&format!("select pg_create_logical_replication_slot('{SLOT}', 'test_decoding')"));
    let error = slot::init(&rig.source(), &init_options(&["*.*"])).await.unwrap_err();
    assert!(error.to_string().contains("not Thinwire's"), "{error}");
    let checks = slot::check(&rig.source(), &init_options(&["*.*"])).await;
    assert!(failing(&checks).iter().any(|it| it.contains("not Thinwire's")), "{checks:?}");
    let error = slot::drop(&rig.source(), NODE).await.unwrap_err();
    assert!(error.to_string().contains("not Thinwire's"), "{error}");
    assert_eq!(rig.sql("select count(*) from pg_replication_slots"), "1");
    let other = Source::new("host=/nowhere user=x".parse().unwrap());
    let checks = soon(slot::check(&other, &init_options(&["*.*"]))).await;
    assert_eq!(failing(&checks).len(), 1, "{checks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_or_another_nodes_is_not_dropped() {
    let rig = Rig::new(SCHEMA);
    let node = rig.ready().await;
    let there = "select count(*) from pg_replication_slots, pg_publication, pg_event_trigger";
    let error = slot::drop(&rig.source(), NODE).await.unwrap_err().to_string();
    assert!(error.contains(SLOT) && error.contains("stop it first"), "{error}");
    node.shutdown().await;
    rig.slot_is_free().await;
    let comment = rig.sql("select obj_description(oid, 'pg_publication') from pg_publication");
    let other = comment.replace(&format!(" {NODE};"), " other;");
    rig.sql(&format!("comment on publication {SLOT} is '{other}'"));
    let error = slot::drop(&rig.source(), NODE).await.unwrap_err().to_string();
    assert!(error.contains("belongs to the node \"other\""), "{error}");
    assert_eq!(rig.sql(there), "3");
    // What is planned is what is done.
    rig.sql(&format!("comment on publication {SLOT} is '{comment}'"));
    let planned = slot::plan_drop(&rig.source(), NODE).await.unwrap();
    assert_eq!(rig.sql(there), "3");
    assert_eq!(slot::drop(&rig.source(), NODE).await.unwrap(), planned);
    assert_eq!(rig.sql(there), "0");
    assert_eq!(rig.sql("select to_regnamespace('thinwire')"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_made_and_dropped_at_once_leaves_the_server_as_it_was() {
    // PostgreSQL: 100_bugs 14
    let rig = Rig::new("create table t (id int primary key); insert into t values (1)");
    let server = rig.cluster.pid();
    for _ in 0..3 {
        rig.init(&["*.*"]).await;
        slot::drop(&rig.source(), NODE).await.unwrap();
    }
    assert_eq!(rig.sql("select count(*) from pg_replication_slots"), "0");
    // As one that a copy makes, with its snapshot, on a connection of its own.
    let node = rig.ready().await;
    for _ in 0..3 {
        soon(node.capture.request_copy(vec![Origin::from_bytes([1; 16])], vec![])).await.unwrap();
    }
    node.until("they are gone", |_| rig.sql("select count(*) from pg_replication_slots") == "1")
        .await;
    rig.check(&node, &["public.t"]).await;
    assert_eq!(rig.cluster.pid(), server);
    assert!(!rig.cluster.log_tail().contains("PANIC"), "{}", rig.cluster.log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn that_commits_may_wait_for_the_node_is_said() {
    let rig = Rig::new(SCHEMA);
    rig.init(&["*.*"]).await;
    let says = "commits may wait for this node: synchronous_standby_names means it";
    // Nothing is written from here on that has a commit to wait for.
    for (standbys, is_said) in [("other", false), ("*", true), ("other, thinwire", true)] {
        rig.cluster.set("synchronous_standby_names", standbys).unwrap();
        let checks = slot::check(&rig.source(), &init_options(&["*.*"])).await;
        let said = checks.iter().find(|it| it.what == says);
        assert_eq!(said.is_some_and(|it| it.ok && it.cure.is_some()), is_said, "{checks:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_travel_is_named_with_its_number() {
    let rig = Rig::new(
        "create role reader; create table t (id int primary key) partition by range (id);
         create table t1 partition of t default; grant select on t to reader;
         create function f() returns trigger language plpgsql as 'begin return new; end';
         create trigger g before insert on t1 for each row execute function f();
         create trigger h before insert on t for each row execute function f();
         create policy p on t1; create collation c (locale = 'C'); create unlogged table w ();
         create function same(text, text) returns bool immutable language sql as 'select true';
         create operator === (leftarg = text, rightarg = text, function = same);
         create type pair as (a int, b int); create function first(pair) returns int immutable language sql as 'select $1.a';
         create cast (pair as int) with function first(pair);
         create text search configuration conf (copy = simple); select lo_create(0)",
    );
    let options = InitOptions { ddl: thinwire_capture::Ddl::Replicate, ..init_options(&["*.*"]) };
    slot::init(&rig.source(), &options).await.unwrap();
    let checks = slot::check(&rig.source(), &options).await;
    let named = checks.iter().find_map(|it| it.what.strip_prefix("not carried with the schema: "));
    let expected = "1 casts, 1 collations, 1 large objects, 1 operators, 1 privileges of others, 1 row-level policies, \
                    1 text search objects, 2 triggers, 1 unlogged tables";
    assert_eq!(named, Some(expected), "{checks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sequences_that_stand_still_at_the_target_are_counted() {
    let rig = Rig::new(
        "create sequence lonely; create sequence shared; create table left_out (id serial primary key);
         create table t (id serial primary key, a int generated always as identity, b int default nextval('shared'),
             c int default nextval('shared'));
         create table p (id serial primary key) partition by range (id); create table p1 partition of p default;
         create table bare (id int primary key)",
    );
    let says = |checks: &[Check]| {
        let found = checks.iter().find(|it| it.what.starts_with("not carried: "));
        found.map(|it| (it.ok && it.cure.is_some(), it.what.clone()))
    };
    for (patterns, expected) in [
        (&["public.bare"][..], None),
        (&["*.*", "!public.left_out"], Some((true, "not carried: 4 sequences of captured tables"))),
    ] {
        rig.init(patterns).await;
        let checks = slot::check(&rig.source(), &init_options(patterns)).await;
        assert_eq!(says(&checks), expected.map(|(ok, what)| (ok, what.to_owned())), "{checks:?}");
    }
    let options = InitOptions { ddl: thinwire_capture::Ddl::Replicate, ..init_options(&["*.*"]) };
    slot::init(&rig.source(), &options).await.unwrap();
    assert_eq!(says(&slot::check(&rig.source(), &options).await), None);
}
