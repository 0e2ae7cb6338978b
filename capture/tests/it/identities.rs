//! Where schema changes are not followed, no statement fails all the same that worked before `init`.

use thinwire_capture::{
    Choice, Source,
    slot::{self, Check, InitOptions},
};

use crate::{
    rig::{NODE, Rig, SLOT, init_options, options},
    schema::{options as replicating, told},
};

const SCHEMA: &str = "create table t (id int primary key, v text);
    create table u (id int not null, v text); create unique index u_id on u (id);
    alter table u replica identity using index u_id;
    create type word as enum ('a', 'b'); create table w (k word primary key, v int);
    create table log (day int, v text) partition by range (day);
    create table log_1 partition of log for values from (0) to (10);
    create table keyed (day int primary key, v text) partition by range (day);
    insert into t values (1, 'a'); insert into u values (1, 'a'); insert into w values ('a', 1);
    insert into log values (1, 'a')";

/// What is installed in the schema and in the publication.
fn published(rig: &Rig) -> String {
    rig.sql(&format!(
        "select string_agg(tablename, ' ' order by tablename) from pg_publication_tables where pubname = '{SLOT}'"
    ))
}

fn identity(rig: &Rig, table: &str) -> String {
    rig.sql(&format!("select relreplident from pg_class where oid = '{table}'::regclass"))
}

fn failing(checks: &[Check]) -> Vec<&str> {
    checks.iter().filter(|it| !it.ok).map(|it| it.what.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_keys_and_partitions_updates_go_on_working() {
    let rig = Rig::new(SCHEMA);
    let report = rig.init(&["*.*"]).await;
    assert_eq!(report.doubts, Vec::<String>::new());
    assert_eq!(rig.init(&["*.*"]).await.done, Vec::<String>::new());
    let node = rig.node();
    let before = published(&rig);
    for sql in [
        "create table log_2 partition of log for values from (10) to (20)",
        "insert into log values (11, 'b'); update log set v = 'c'; update log_2 set day = 12; delete from log_1",
        "create table log_3 (day int, v text); alter table log attach partition log_3 for values from (20) to (30)",
        "insert into log values (21, 'd'); update log set v = 'e'",
        "create table log_4 partition of log for values from (30) to (50) partition by range (day);
         create table log_4a partition of log_4 for values from (30) to (40);
         insert into log values (31, 'f'); update log_4 set v = 'g'",
        "create table k1 partition of keyed for values from (0) to (10); insert into keyed values (1, 'a');
         update keyed set v = 'b'",
        "alter table keyed drop constraint keyed_pkey; update keyed set v = 'c'",
        "alter table t drop constraint t_pkey; update t set v = 'b'; delete from t",
        "drop index u_id; update u set v = 'b'; delete from u",
        "drop type word cascade; update w set v = 2; delete from w",
        "alter table t replica identity nothing; insert into t values (2, 'x'); update t set v = 'y'",
    ] {
        rig.sql(sql);
    }
    rig.check(&node, &["public.t", "public.u"]).await;
    assert_eq!(["t", "u", "w", "log_4a", "k1"].map(|it| identity(&rig, it)).concat(), "fffff");
    // A key that comes back identifies again.
    rig.sql("alter table t add primary key (id); update t set id = 3");
    assert_eq!(identity(&rig, "t"), "d");
    assert_eq!(published(&rig), before);
    // Nothing else is done, and nothing is told.
    rig.sql("create table later (a int); alter table t rename to renamed; alter table renamed add column w int");
    rig.sql("update renamed set w = 1");
    assert_eq!(identity(&rig, "later"), "d");
    assert_eq!(published(&rig), before.replace(" t ", " renamed "), "{before}");
    rig.check(&node, &["public.renamed"]).await;
    assert_eq!(told(&node), Vec::<String>::new());
    assert_eq!(node.halted(), None);
    node.shutdown().await;
    rig.slot_is_free().await;
    slot::drop(&rig.source(), NODE).await.unwrap();
    assert_eq!(rig.sql("select count(*) from pg_event_trigger"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_as_it_was_chosen_stays_so_whatever_becomes_of_its_key() {
    let Some(rig) = Rig::narrowing(
        "create table t (id int, site int, v text, primary key (id, site));
         create table l (id int primary key, other int not null unique, v text);
         create table p (id int, site int, v text, primary key (id, site)) partition by range (id);
         create table p1 partition of p default",
    ) else {
        return;
    };
    let mut choice = Choice::default();
    choice.filter("public.t", "site = 7").unwrap();
    choice.filter("public.p", "site = 7").unwrap();
    choice.list("public.l", &["id", "v"]).unwrap();
    let chosen = InitOptions { choice, ..init_options(&["*.*"]) };
    slot::init(&rig.source(), &chosen).await.unwrap();
    rig.sql("insert into t values (1, 7, 'a'); insert into l values (1, 1, 'a'); insert into p values (1, 7, 'a')");
    let changes =
        "update t set v = 'c'; update l set v = 'c'; update p set v = 'c'; update p1 set id = 3";
    rig.sql(
        "alter table t add column w int; alter table l add column w int; create index on p (v)",
    );
    rig.sql(
        "create table p2 partition of p for values from (10) to (20); insert into p values (11, 7)",
    );
    rig.sql(changes);
    assert_eq!(published(&rig), "l p t");
    // Whole rows identify what a condition looks at; they do not go with a list.
    rig.sql("alter table p drop constraint p_pkey; alter table t drop constraint t_pkey");
    rig.sql("alter table l drop constraint l_pkey; insert into l values (2, 2, 'b')");
    assert_eq!(["l", "p", "t"].map(|it| identity(&rig, it)).concat(), "dff");
    assert!(rig.cluster.psql("shop", "update l set v = 'd'").is_err());
    rig.sql("alter table l add primary key (id)");
    assert_eq!(published(&rig), "l p t");
    rig.sql(changes);
    rig.sql("alter table l drop constraint l_pkey, add primary key (other)");
    assert_eq!(published(&rig), "l p t");
    assert!(rig.cluster.psql("shop", "update l set v = 'd'").is_err());
    let again = slot::init(&rig.source(), &chosen).await.unwrap_err().to_string();
    assert!(again.contains("public.l"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_column_takes_a_keyless_table_off_where_the_server_would_refuse_its_updates() {
    let rig = Rig::new("create table t (a int)");
    rig.init(&["*.*"]).await;
    rig.sql("alter table t add column b int generated always as (a * 2) stored; insert into t values (1)");
    rig.sql("update t set a = 2; delete from t");
    let version: u32 = rig.sql("show server_version_num").parse().unwrap();
    assert_eq!(published(&rig), if version >= 180_000 { "" } else { "t" });
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_install_it_is_told_which_tables_have_no_key() {
    let rig =
        Rig::new("create role owner login replication; grant create on database shop to owner");
    rig.sql("grant create on schema public to owner; set role owner; create table keyless (a int); create table parted (a int) partition by range (a); create table t (id int primary key)");
    let humble = Source::new(rig.cluster.url_as("owner", "shop").parse().unwrap());
    let report = slot::init(&humble, &init_options(&["*.*"])).await.unwrap();
    assert!(
        report.doubts[0].starts_with("public.keyless is published and has no key"),
        "{report:?}"
    );
    assert_eq!(report.doubts.len(), 2);
    let checks = slot::check(&humble, &init_options(&["*.*"])).await;
    assert_eq!(failing(&checks).len(), 1, "{checks:?}");
    assert!(failing(&checks)[0].starts_with("public.parted has no key"), "{checks:?}");
    let advice = checks.iter().find(|it| it.what.starts_with("public.keyless has no key"));
    assert!(advice.is_some_and(|it| it.ok && it.cure.is_some()), "{checks:?}");
    // Once a superuser has installed it, the login that runs sees it.
    let as_owner = InitOptions { run_as: Some("owner".into()), ..init_options(&["*.*"]) };
    slot::init(&rig.source(), &as_owner).await.unwrap();
    let checks = slot::check(&humble, &init_options(&["*.*"])).await;
    assert_eq!(failing(&checks), Vec::<&str>::new(), "{checks:?}");
    assert_eq!(
        slot::init(&humble, &init_options(&["*.*"])).await.unwrap().doubts,
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_replicated_only_the_identities_remain() {
    let rig = Rig::new(SCHEMA);
    slot::init(&rig.source(), &replicating(&["*.*"])).await.unwrap();
    let planned = slot::plan(&rig.source(), &init_options(&["*.*"])).await.unwrap();
    assert_eq!(rig.init(&["*.*"]).await.done, planned);
    assert!(planned[0].contains("follows"), "{planned:?}");
    let before = published(&rig);
    rig.sql("create table later (a int); select thinwire.publish_missing('thinwire_shop')");
    rig.sql("alter table t drop constraint t_pkey; update t set v = 'b'");
    assert_eq!(published(&rig), before);
    // And the other way round.
    slot::init(&rig.source(), &replicating(&["*.*"])).await.unwrap();
    rig.sql("create table more (a int)");
    assert!(published(&rig).contains("more"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_of_which_one_follows_are_each_given_their_own() {
    let rig = Rig::new("create table t (id int primary key); create table x (id int primary key)");
    rig.init(&["public.t"]).await;
    let second = InitOptions { node: "other".into(), ..replicating(&["public.x"]) };
    slot::init(&rig.source(), &second).await.unwrap();
    rig.sql(
        "insert into t values (1); insert into x values (1); alter table t drop constraint t_pkey",
    );
    rig.sql("alter table x drop constraint x_pkey; update t set id = 2; update x set id = 2");
    slot::drop(&rig.source(), "other").await.unwrap();
    rig.sql("alter table t replica identity default; update t set id = 3");
    assert_eq!(rig.sql("select count(*) from thinwire.captures"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_identified_at_once_is_a_little_later() {
    let rig = Rig::new(SCHEMA);
    let node = rig.ready().await;
    rig.sql(
        "alter event trigger thinwire_command disable; alter table log_1 replica identity default;
         alter event trigger thinwire_command enable always",
    );
    let other = rig.source().connect().await.unwrap();
    other.batch_execute("begin; select from public.log_1").await.unwrap();
    rig.sql("create table log_2 partition of log for values from (10) to (20)");
    assert_eq!(identity(&rig, "log_1"), "d");
    other.batch_execute("commit").await.unwrap();
    node.until("it is identified", |_| identity(&rig, "log_1") == "f").await;
    assert_eq!(["log_1", "log_2"].map(|it| identity(&rig, it)).concat(), "ff");
    assert_eq!(rig.sql("select count(*) from thinwire.delayed"), "0");
    assert_eq!(node.halted(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_no_utf8_halts_by_name() {
    let mut options = options();
    options.encoding = "SQL_ASCII".to_owned();
    let rig = Rig::with(options, "create table t (id int primary key, v text)");
    let report = rig.init(&["*.*"]).await;
    assert!(report.doubts[0].contains("SQL_ASCII"), "{report:?}");
    let node = rig.node();
    rig.sql("insert into t values (1, 'fine')");
    rig.check(&node, &["public.t"]).await;
    rig.sql("insert into t values (2, E'\\xff')");
    let halt = node.halts_with("not_utf8").await;
    assert!(halt.detail.contains("begin anew"), "{}", halt.detail);
    let checks = slot::check(&rig.source(), &init_options(&["*.*"])).await;
    assert!(checks.iter().any(|it| it.ok && it.what.contains("SQL_ASCII")), "{checks:?}");
}
