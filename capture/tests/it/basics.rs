//! What is committed is captured, exactly and in order; what is confirmed is durable.

use std::{sync::atomic::Ordering, time::Duration};

use thinwire_capture::{Error, Source, State};
use thinwire_engine::model::{OldRow, Record, Value};

use crate::rig::{Node, Rig, options, rows, soon};

const TYPES: &str = r#"
create type mood as enum ('sad', 'ok', 'happy');
create type pair as (a int, b text);
create domain posint as int check (value > 0);
create table types (id int primary key, b bool, i2 int2, i8 int8, f4 float4, f8 float8, n numeric, n2 numeric(10,2),
  t text, v varchar(20), c char(5), by bytea, d date, ti time, tz timestamptz, ts timestamp, iv interval, j json,
  jb jsonb, u uuid, ia int[], ta text[], m mood, p pair, dom posint, ip inet, r int4range, mo money, x xml, bi bit(3),
  o oid, rc regclass, pt point);
insert into types values (1, true, -32768, 9223372036854775807, 1.1, 0.1, 'NaN', 12345678.90, E'tab\there\nnl\\back',
  'v', 'c', '\x00ff5c', '2024-02-29', '23:59:59.999999', '2024-01-01 12:00:00+05', '1999-12-31 23:59:59.5',
  '1 year -2 days 03:04:05.6', '{"a": [1, 2]}', '{"b": null}', '00112233-4455-6677-8899-aabbccddeeff', '{1,NULL,3}',
  '{"a b","c\"d",NULL}', 'happy', '(1,"x y")', 5, '192.168.0.1/24', '[1,5)', '-12.34', '<a>b</a>', B'101', 42, 'types',
  '(1.5,2.5)');
insert into types (id) values (2);
"#;

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_every_type_are_the_same_copied_and_streamed() {
    let rig = Rig::new(TYPES);
    // The application's own settings must not show in what is captured.
    rig.sql(
        "alter database shop set datestyle = 'SQL, DMY'; alter database shop set timezone = 'Asia/Tokyo'; \
         alter database shop set bytea_output = 'escape'; alter database shop set extra_float_digits = -3; \
         alter database shop set intervalstyle = 'iso_8601'",
    );
    let node = rig.ready().await;
    rig.sql("insert into types select 3, b, i2, i8, f4, f8, n, n2, t, v, c, by, d, ti, tz, ts, iv, j, jb, u, ia, ta,
             m, p, dom, ip, r, mo, x, bi, o, rc, pt from types where id = 1");
    let model = rig.check(&node, &["public.types"]).await;
    let rows = model.rows("public.types");
    assert_eq!(rows[0][1..], rows[2][1..], "the copied and the streamed row");
    assert_eq!(rows[0][11].as_deref(), Some("\\x00ff5c"));
    assert_eq!(rows[0][14].as_deref(), Some("2024-01-01 07:00:00+00"));
    assert_eq!(rows[0][31].as_deref(), Some("public.types"));
    // The description in the copy is the one that the stream has.
    let described = node.records().into_iter().filter(|(_, it)| matches!(it, Record::Relation(_)));
    assert_eq!(described.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_arrives_in_commit_order() {
    let rig = Rig::new(
        "create table t (id int primary key, a text, big text);
         create table k (a int, b text);
         create table \"odd \"\"name\" (\"sel'ect\" int primary key, g int generated always as (\"sel'ect\" * 2) stored);
         create table empty ();
         alter table t alter column big set storage external;
         insert into t values (1, 'one', repeat('x', 10000)); insert into k values (1, 'a'), (1, 'a'), (2, null);
         insert into \"odd \"\"name\" values (1); insert into empty default values",
    );
    let node = rig.ready().await;
    rig.sql(
        "insert into t values (2, 'two', 'small');
         update t set a = 'uno' where id = 1;
         update t set id = 10 where id = 1;
         delete from t where id = 2;
         begin; insert into t values (3, 'x', null); savepoint s; insert into t values (4, 'gone', null);
         rollback to s; insert into t values (5, 'y', null); commit;
         begin; insert into t values (6, 'rolled back', null); rollback;
         begin; insert into t values (7, 'prepared', null); prepare transaction 'two';
         insert into t values (8, 'meanwhile', null); commit prepared 'two';
         begin; insert into t values (9, 'not so', null); prepare transaction 'three'; rollback prepared 'three';
         update k set b = 'changed' where a = 2; delete from k where ctid = (select min(ctid) from k);
         insert into \"odd \"\"name\" values (2); insert into empty default values;
         select pg_logical_emit_message(true, 'app', 'inside'); select pg_logical_emit_message(false, 'app', 'outside');
         insert into k values (3, 'commits what was written')",
    );
    let model = rig.check(&node, &["public.t", "public.k", "public.empty"]).await;
    assert_eq!(model.rows("public.odd \"name").len(), 2);
    let told: Vec<_> = model.messages.iter().map(|(prefix, text)| (&**prefix, &**text)).collect();
    // PostgreSQL: 020_messages 1, 2
    assert_eq!(told, [("app", b"inside".as_slice()), ("app", b"outside")]);
    let records = node.records();
    let unchanged = records.iter().any(|(_, record)| {
        matches!(record, Record::Update { new, .. } if new.0.contains(&Value::Unchanged))
    });
    assert!(unchanged, "a TOASTed value that did not change is not sent");
    let full =
        records.iter().any(|(_, it)| matches!(it, Record::Delete { old: OldRow::Full(_), .. }));
    assert!(full, "a keyless row is told by all of it");
    rig.sql("truncate t, k");
    let model = rig.check(&node, &["public.t", "public.k"]).await;
    assert!(model.rows("public.t").is_empty());
    assert_eq!(model.aborts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_confirmed_before_it_is_synced() {
    let rig = Rig::new("create table t (id int primary key)");
    let node = rig.ready().await;
    node.caught_up(&rig.source()).await;
    node.held.store(true, Ordering::SeqCst);
    // What it had begun when it was held may be durable, and told, only a moment later.
    tokio::time::sleep(Duration::from_millis(300)).await;
    node.stream.sync().unwrap();
    node.until("what is durable is confirmed", |node| {
        let durable = node.stream.durable_mark().map(|mark| mark.lsn);
        durable.is_some_and(|lsn| node.status().confirmed >= lsn)
    })
    .await;
    let before = node.status().confirmed;
    rig.sql("insert into t select generate_series(1, 100)");
    let wal_end = rig.sql("select pg_current_wal_lsn()");
    node.until("it is appended", |node| {
        let marks = node.stream.watermarks();
        marks.appended > marks.synced
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let confirmed = rig.sql("select confirmed_flush_lsn from pg_replication_slots");
    assert_eq!(confirmed, before.to_string());
    assert_eq!(node.status().confirmed, before);
    node.held.store(false, Ordering::SeqCst);
    node.until("it is confirmed", |node| node.status().confirmed >= wal_end.parse().unwrap()).await;
    rig.check(&node, &["public.t"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_database_is_confirmed_by_marks_alone() {
    let rig = Rig::new("create table t (id int primary key); create table other (id int)");
    rig.init(&["public.t"]).await;
    let node = rig.node();
    node.until("all is copied", Node::has_copied).await;
    node.caught_up(&rig.source()).await;
    let appended = node.stream.watermarks().appended;
    let before = node.status().confirmed;
    rig.sql("insert into other select generate_series(1, 10000)");
    node.caught_up(&rig.source()).await;
    assert!(node.status().confirmed > before);
    assert_eq!(node.stream.watermarks().appended, appended, "marks take no offset");
    let confirmed = node.status().confirmed;
    assert!(node.stream.durable_mark().unwrap().lsn >= confirmed);
    // The source forgets what was confirmed.
    rig.sql("checkpoint");
    let retained = rig.sql("select pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) from pg_replication_slots");
    assert!(retained.parse::<u64>().unwrap() < 1 << 20, "{retained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_shuts_down_at_once_and_capture_comes_back_by_itself() {
    let rig = Rig::new("create table t (id int primary key)");
    let node = rig.ready().await;
    rig.sql("insert into t values (1)");
    let started = std::time::Instant::now();
    rig.cluster.stop().unwrap();
    assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
    node.until("it is missed", |node| {
        let status = node.status();
        status.last_error.is_some() && status.state == State::Connecting
    })
    .await;
    assert_eq!(node.halted(), None);
    rig.cluster.start_again().unwrap();
    rig.sql("insert into t values (2)");
    rig.check(&node, &["public.t"]).await;
    rig.cluster.kill9().unwrap();
    rig.cluster.start_again().unwrap();
    rig.sql("insert into t values (3)");
    let model = rig.check(&node, &["public.t"]).await;
    assert_eq!(model.rows("public.t").len(), 3);
    assert_eq!(node.status().state, State::Streaming);
    assert_eq!(node.status().last_error, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_proven_by_scram_and_a_wrong_one_is_said() {
    // PostgreSQL: 027_nosuperuser 3
    let rig = Rig::with(options().with_password("sec'ret"), "create table t (id int primary key)");
    let source = Source::new(rig.cluster.tcp_url("shop").parse().unwrap());
    rig.init(&["public.*"]).await;
    let mut wrong = source.clone();
    wrong.config.password("wrong");
    let node = Node::start(wrong.clone(), rig.dir.path(), &rig.cluster);
    node.until("the password is refused", |node| {
        node.status()
            .last_error
            .is_some_and(|error| error.contains("password authentication failed"))
    })
    .await;
    assert_eq!(node.halted(), None, "a password may be mended at the server");
    let Err(Error::Server(error)) = wrong.connect().await else { panic!() };
    assert_eq!(error.code, "28P01");
    node.shutdown().await;
    let node = Node::start(source, rig.dir.path(), &rig.cluster);
    rig.sql("insert into t values (1)");
    rig.check(&node, &["public.t"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_stops_reading_and_resuming_goes_on() {
    // A server that is not told lets go of the slot after this.
    let options = options().with("wal_sender_timeout", "60s");
    let rig = Rig::with(options, "create table t (id int primary key)");
    let node = rig.ready().await;
    node.capture.pause();
    node.until("it is paused", |node| node.status().state == State::Paused).await;
    rig.sql("insert into t values (1)");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(node.model().rows("public.t").is_empty());
    node.capture.resume();
    rig.check(&node, &["public.t"]).await;
    soon(node.shutdown()).await;
    let started = std::time::Instant::now();
    rig.slot_is_free().await;
    assert!(started.elapsed() < Duration::from_secs(40), "the server was told");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_encoding_is_captured_as_utf8() {
    let mut options = options();
    options.encoding = "LATIN1".to_owned();
    let schema =
        "set client_encoding = 'UTF8'; create table t (id int primary key, \"größe\" text)";
    let rig = Rig::with(options, schema);
    rig.sql("set client_encoding = 'UTF8'; insert into t values (1, 'übel')");
    let node = rig.ready().await;
    rig.sql("set client_encoding = 'UTF8'; insert into t values (2, 'böse')");
    let model = rig.check(&node, &["public.t"]).await;
    let client = rig.source().connect().await.unwrap();
    assert_eq!(rows(&client, "public.t").await[1][1].as_deref(), Some("böse"));
    assert_eq!(model.tables.values().next().unwrap().relation.columns[1].name, "größe");
}
