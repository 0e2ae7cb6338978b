//! Copies: loaded as one, whatever is there, whatever breaks.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use thinwire_apply::{Applier, Existing, Options};
use thinwire_engine::model::{Copy, CopyTable, Lsn, Origin, Record};

use crate::{
    database::{Database, applied, halted},
    feed::{Feed, NODE, Table, copy_records},
};

fn table() -> Table {
    Table::new(1, "public.t", &["id*", "a"])
}

const TABLE: &str = "create table t (id int primary key, a text, here text default 'local')";

async fn with(database: &Database, feed: &Feed, existing: Existing) -> Applier {
    let applier = Applier::start(Options { existing, ..database.options(feed) });
    applied(&applier, &feed.stream).await;
    applier
}

#[tokio::test]
async fn an_empty_table_is_filled_and_the_stream_goes_on() {
    let database = Database::new(TABLE).await;
    let (feed, t) = (Feed::new(), table());
    feed.copy(&t, &["1|tab\there", "2|line\nbreak \\. \\N", "3|~", "4|", "5|\\"]);
    feed.transaction(&[t.insert("6|new"), t.update("3|known")]);
    database.apply_all(&feed).await;
    assert_eq!(
        database.sql("select id, coalesce(a, '(null)'), here from t order by id"),
        "1|tab\there|local\n2|line\nbreak \\. \\N|local\n3|known|local\n4||local\n5|\\|local\n6|new|local"
    );
    assert_eq!(database.sql("select table_name, rows from thinwire.loaded"), "t|5");
}

#[tokio::test]
async fn a_table_with_rows_stops_the_stream_unless_told_otherwise() {
    let database =
        Database::new(&format!("{TABLE}; insert into t values (2, 'old'), (9, 'old')")).await;
    let (feed, t) = (Feed::new(), table());
    feed.copy(&t, &["1|new", "2|new"]);
    let applier = database.apply(&feed);
    let halt = halted(&applier, &feed.stream).await;
    assert_eq!((&*halt.code, halt.table.as_deref()), ("target_not_empty", Some("public.t")));
    assert_eq!(halt.offset.map(|offset| offset.get()), Some(2));
    applier.shutdown().await;
    assert_eq!(database.sql("select count(*) from t"), "2");
    assert_eq!(database.sql("select count(*) from thinwire.loaded"), "0");

    with(&database, &feed, Existing::Merge).await.shutdown().await;
    let all = "select id, a, here from t order by id";
    assert_eq!(database.sql(all), "1|new|local\n2|new|local\n9|old|local");
}

#[tokio::test]
async fn rows_that_are_there_are_replaced_if_told_so() {
    let database =
        Database::new(&format!("{TABLE}; insert into t values (2, 'old'), (9, 'old')")).await;
    let (feed, t) = (Feed::new(), table());
    feed.copy(&t, &["1|new", "2|new"]);
    with(&database, &feed, Existing::Replace).await.shutdown().await;
    assert_eq!(database.sql("select id, a from t order by id"), "1|new\n2|new");
}

#[tokio::test]
async fn what_cannot_be_merged_is_refused_with_a_sentence() {
    let database = Database::new("create table t (id int, a text); insert into t values (1)").await;
    let (feed, t) = (Feed::new(), table());
    feed.copy(&t, &["1|new"]);
    let options = Options { existing: Existing::Merge, ..database.options(&feed) };
    let applier = Applier::start(options);
    let halt = halted(&applier, &feed.stream).await;
    assert_eq!(halt.code, "target_not_empty");
    assert!(halt.detail.contains("primary key"), "{halt:?}");
    database.sql("create unique index on t (id)");
    applier.retry();
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(database.sql("select * from t"), "1|new");
}

#[tokio::test]
async fn a_table_that_this_stream_has_loaded_is_replaced_by_a_later_copy() {
    let database = Database::new(
        "create table t (id int primary key, a text);
         create table child (id int primary key, t int references t on delete cascade)",
    )
    .await;
    let (feed, t) = (Feed::new(), table());
    feed.copy(&t, &["1|one", "2|two"]);
    feed.transaction(&[t.insert("3|three")]);
    database.apply_all(&feed).await;
    database.sql("insert into child values (1, 1)");
    feed.copy(&t, &["1|one again", "4|four"]);
    // Loaded from the start: without rows it empties what it had loaded.
    feed.transaction(&[t.insert("5|five")]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select * from t order by id"), "1|one again\n4|four\n5|five");
    assert_eq!(database.sql("select * from child"), "1|1", "a reference was followed");
    feed.copy(&t, &[]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select count(*) from t"), "0");
}

#[tokio::test]
async fn a_copy_of_several_tables_with_and_without_rows() {
    let database = Database::new(&format!(
        "{TABLE}; create table empty (id int primary key); create table last (v json);
         create table none ()"
    ))
    .await;
    let feed = Feed::new();
    let (t, empty) = (table(), Table::new(2, "public.empty", &["id*"]));
    let last = Table::new(3, "public.last", &["v"]).full();
    let tables: Vec<_> = [&t, &empty, &last]
        .iter()
        .map(|table| CopyTable { relation: table.id(), rows_estimate: 0 })
        .collect();
    let copy = Copy { lsn: Lsn::new(1), audience: vec![NODE], carriers: vec![], tables };
    feed.append(&[
        Record::CopyBegin(copy),
        t.relation(),
        t.insert("1|x"),
        empty.relation(),
        last.relation(),
        last.insert("{\"a\": 1}"),
        last.insert("{\"a\": 1}"),
        Record::CopyEnd { rows: 3 },
    ]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select count(*), min(v::text) from last"), "2|{\"a\": 1}");
    let loaded = "select table_name, rows from thinwire.loaded order by 1";
    assert_eq!(database.sql(loaded), "empty|0\nlast|2\nt|1");
}

#[tokio::test]
async fn copies_for_others_and_broken_ones_leave_no_trace() {
    let database = Database::new(TABLE).await;
    let (feed, t) = (Feed::new(), table());
    feed.append(&copy_records(&t, &["1|for another"], vec![Origin::from_bytes([3; 16])]));
    let mut broken = copy_records(&t, &["1|broken", "2|broken"], Vec::new());
    broken.pop();
    broken.push(Record::CopyAbort);
    feed.append(&broken);
    // What was described in them stays described.
    feed.transaction(&[t.insert("7|real")]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select id, a from t"), "7|real");
    assert_eq!(database.sql("select count(*) from thinwire.loaded"), "0");
}

#[tokio::test]
async fn a_row_that_is_refused_in_a_copy_is_named() {
    let database = Database::new("create table t (id int primary key, a varchar(5))").await;
    let (feed, t) = (Feed::new(), table());
    let rows: Vec<_> = (0..5000)
        .map(|id| format!("{id}|{}", if id == 3456 { "secret that is too long" } else { "ok" }))
        .collect();
    let rows: Vec<_> = rows.iter().map(String::as_str).collect();
    feed.copy(&t, &rows);
    let applier = database.apply(&feed);
    let halt = halted(&applier, &feed.stream).await;
    assert_eq!((&*halt.code, halt.key.as_deref()), ("bad_value", Some("id=3456")));
    assert_eq!(halt.offset.map(|offset| offset.get()), Some(3 + 3456));
    assert!(!halt.detail.contains("secret"));
    assert_eq!(database.sql("select count(*) from t"), "0");
    database.sql("alter table t alter a type text");
    applier.retry();
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(database.sql("select count(*) from t"), "5000");
}

/// Holds up the last row of many until somebody says that a connection was killed.
const HELD_UP: &str = "
    create sequence killed;
    create function hold_up() returns trigger language plpgsql as $$ begin
      while not (select is_called from public.killed) loop
        perform pg_catalog.pg_sleep(0.01);
      end loop;
      return new; end $$;
    create trigger hold_up before insert on t for each row
      when (new.id = 149999) execute function hold_up();
    alter table t enable always trigger hold_up";

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_killed_while_loading_costs_time_only() {
    for existing in [Existing::Replace, Existing::Merge] {
        let rows = "insert into t values (1, 'old')";
        let database = Database::new(&format!("{TABLE}; {rows}; {HELD_UP}")).await;
        let (feed, t) = (Feed::new(), table());
        let rows: Vec<_> = (0..150_000).map(|id| format!("{id}|some text of the row")).collect();
        let rows: Vec<_> = rows.iter().map(String::as_str).collect();
        feed.copy(&t, &rows);
        let over = AtomicBool::new(false);
        let applier = Applier::start(Options { existing, ..database.options(&feed) });
        std::thread::scope(|scope| {
            let killer = scope.spawn(|| {
                let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity where \
                            application_name = 'thinwire apply' and datname = current_database() \
                            and xact_start is not null";
                let mut killed = 0;
                while killed < 4 && !over.load(Ordering::Relaxed) {
                    killed += database.sql(kill).parse::<u32>().unwrap();
                    if killed > 0 {
                        database.sql("select nextval('killed')");
                    }
                    assert!(["1", "150000"].contains(&&*database.sql("select count(*) from t")));
                    std::thread::sleep(Duration::from_millis(30));
                }
                killed
            });
            tokio::task::block_in_place(|| {
                let runtime = tokio::runtime::Handle::current();
                runtime.block_on(applied(&applier, &feed.stream));
            });
            over.store(true, Ordering::Relaxed);
            assert!(killer.join().unwrap() > 0, "nothing was killed");
        });
        applier.shutdown().await;
        assert_eq!(database.sql("select count(*), count(distinct a) from t"), "150000|1");
    }
}

#[tokio::test]
async fn rows_of_plain_types_with_large_values_are_the_same_whatever_their_form() {
    let database = Database::new(
        "create table t (id int primary key, flag bool, small int2, large int8, ref oid, key uuid, value bytea)",
    )
    .await;
    let (feed, names) = (Feed::new(), ["id*", "flag", "small", "large", "ref", "key", "value"]);
    let t = Table::new(1, "public.t", &names);
    let key = "00112233-4455-6677-8899-aabbccddeeff";
    let large = "5c6e09".repeat(30_000);
    let edges = ["t|-32768|-9223372036854775808|4294967295", "f|32767|9223372036854775807|0"];
    let row = |id: usize, of: &str| format!("{id}|{}|{of}", edges[id % 2]);
    let rows: Vec<_> = (0..30).map(|id| row(id, &format!("{key}|\\x{large}"))).collect();
    let mut rows: Vec<_> = rows.iter().map(String::as_str).collect();
    rows.push("30|~|~|~|~|~|~");
    feed.copy(&t, &rows);
    // One that is not as the server writes it has its neighbours go as text, too.
    let mut more: Vec<_> = (40..300).map(|id| t.insert(&row(id, &format!("{key}|\\x")))).collect();
    more.push(t.insert(&row(300, &format!("{{{key}}}|\\x5C0A"))));
    feed.transaction(&more);
    database.apply_all(&feed).await;
    let expected = format!(
        "select count(*), count(*) filter (where id < 30 and value = '\\x{large}' and key = '{key}'), \
         count(*) filter (where flag and small = -32768 and large = -9223372036854775808 and ref = 4294967295), \
         count(*) filter (where not flag and small = 32767 and large = 9223372036854775807 and ref = 0), \
         count(*) filter (where id >= 40 and value = '\\x' and key = '{key}'), \
         count(*) filter (where value = '\\x5c0a' and key = '{key}'), count(*) filter (where key is null) from t"
    );
    assert_eq!(database.sql(&expected), "292|30|146|145|260|1|1");

    // A row that is refused is found among its neighbours.
    database.sql("alter table t add check (small <> 7)");
    let last = feed.last();
    let many =
        |id: usize| t.insert(&format!("{id}|t|{}|1|1|{key}|\\xff", if id == 1200 { 7 } else { 8 }));
    feed.transaction(&(1000..1300).map(many).collect::<Vec<_>>());
    let applier = database.apply(&feed);
    let halt = halted(&applier, &feed.stream).await;
    assert_eq!((&*halt.code, halt.key.as_deref()), ("constraint", Some("id=1200")));
    assert_eq!(halt.offset.map(|offset| offset.get()), Some(last.get() + 202));
    applier.shutdown().await;
}
