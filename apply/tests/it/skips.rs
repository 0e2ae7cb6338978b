//! What halts a stream can be left out: exactly that, once, and remembered with the progress that passes it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use thinwire_apply::{Applier, State};
use thinwire_engine::model::{Offset, Record};

use crate::{
    database::{Database, applied, halted, idle, in_state},
    feed::{Feed, NODE, Table, copy_records},
    memory::{Fault, Memory, Target},
    schema::{one, table as schema_table},
};

const TABLE: &str = "create table t (id int primary key, a text)";

fn table() -> Table {
    Table::new(1, "public.t", &["id*", "a"])
}

async fn skip(applier: &Applier, offset: Offset) -> Result<(), String> {
    applier.skip(offset, "somebody".to_owned())?.await.unwrap()
}

/// What is noted: the record, the first and last of what was left out, and why.
const NOTED: &str =
    "select \"offset\", first_offset, last_offset, lsn, xid, code, table_name, asked_by
     from thinwire.skipped where epoch <> 'other' order by 1";

#[tokio::test]
async fn a_transaction_is_left_out_and_nothing_else_is_lost() {
    let database = Database::new(&format!("{TABLE}; insert into t values (5, 'here')")).await;
    let (feed, t) = (Feed::new(), table());
    feed.append(&[t.relation()]);
    feed.append_unsynced(&feed.wrapped(&[t.insert("1|before")]));
    // What it describes stays described.
    let wider = Table::new(1, "public.t", &["id*", "a"]);
    feed.append_unsynced(&feed.wrapped(&[t.insert("4|x"), wider.relation(), t.insert("5|x")]));
    feed.append_unsynced(&feed.wrapped(&[t.insert("6|behind")]));
    feed.stream.sync().unwrap();
    let applier = database.apply(&feed);
    let halt = halted(&applier, &feed.stream).await;
    in_state(&applier, State::Halted).await;
    assert_eq!(halt.offset, Some(Offset::new(8)));
    let refused = skip(&applier, Offset::new(9)).await.unwrap_err();
    assert!(refused.contains("halted at 8 (insert_exists), not at 9"), "{refused}");
    assert_eq!(database.sql(NOTED), "");
    skip(&applier, Offset::new(8)).await.unwrap();
    assert!(skip(&applier, Offset::new(8)).await.unwrap_err().contains("is not halted"));
    applied(&applier, &feed.stream).await;
    idle(&applier).await;
    assert_eq!(database.sql("select * from t order by id"), "1|before\n5|here\n6|behind");
    assert_eq!(database.sql(NOTED), "8|5|9|0/C8|2|insert_exists|public.t|somebody");
    let seen = applier.status().skipped.unwrap();
    assert_eq!((seen.count, seen.last.unwrap().offset), (1, 8));
    assert_eq!(feed.stream.halted().borrow().clone(), None);
    applier.shutdown().await;
}

#[tokio::test]
async fn a_transaction_too_large_to_be_held_is_left_out_whole_after_a_restart_too() {
    let database = Database::new(&format!("{TABLE}; insert into t values (2500, 'here')")).await;
    let (feed, t) = (Feed::new(), table());
    feed.append(&[t.relation()]);
    let rows: Vec<_> = (0..5_000).map(|id| t.insert(&format!("{id}|x"))).collect();
    feed.append_unsynced(&feed.wrapped(&rows));
    let end = feed.transaction(&[t.insert("9000|behind")]);
    let applier = database.apply(&feed);
    let halt = halted(&applier, &feed.stream).await;
    in_state(&applier, State::Halted).await;
    applier.shutdown().await;
    // Another stream of the same origin is no part of this one.
    database.sql(&format!(
        "insert into thinwire.skipped (origin, epoch, \"offset\", first_offset, last_offset, code, detail, asked_by)
         values ('{}', 'other', 1, 1, 1, 'x', 'x', 'x')",
        feed.stream.id().origin
    ));
    let applier = database.apply(&feed);
    in_state(&applier, State::Halted).await;
    skip(&applier, halt.offset.unwrap()).await.unwrap();
    applied(&applier, &feed.stream).await;
    idle(&applier).await;
    assert_eq!(applier.status().skipped.unwrap().count, 1);
    applier.shutdown().await;
    assert_eq!(database.sql("select * from t order by id"), "2500|here\n9000|behind");
    assert_eq!(database.sql(NOTED), "2503|2|5003|0/64|1|insert_exists|public.t|somebody");
    assert_eq!(database.offset(&feed), end.to_string());
}

#[tokio::test]
async fn a_copy_that_is_refused_is_left_out() {
    let database = Database::new(&format!("{TABLE}; insert into t values (5, 'here')")).await;
    let (feed, t) = (Feed::new(), table());
    feed.append_unsynced(&copy_records(&t, &["1|x", "5|x"], Vec::new()));
    feed.transaction(&[t.insert("9|behind")]);
    let applier = database.apply(&feed);
    let halt = halted(&applier, &feed.stream).await;
    in_state(&applier, State::Halted).await;
    skip(&applier, halt.offset.unwrap()).await.unwrap();
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(database.sql("select * from t order by id"), "5|here\n9|behind");
    let noted = database.sql(NOTED);
    assert!(noted.contains("|1|5|0/1||target_not_empty|public.t|"), "{noted}");
}

/// The answers of the target are lost, or it fails, at every call in turn; yet each change is there once, and what was
/// left out is not there at all.
#[tokio::test(start_paused = true)]
async fn what_is_left_out_stays_out_whatever_fails_meanwhile() {
    for (call, fault) in ["skip", "commit", "begin", "applied"]
        .into_iter()
        .flat_map(|call| [(call, Fault::Before), (call, Fault::After)])
    {
        let target = Arc::new(Mutex::new(Target::default()));
        let (feed, t) = (Feed::new(), table());
        feed.append(&[t.relation()]);
        feed.append_unsynced(&feed.wrapped(&[t.insert("1|x")]));
        feed.append_unsynced(&feed.wrapped(&[t.insert("2|x")]));
        let end = feed.transaction(&[t.insert("3|x")]);
        let refused = Offset::new(6);
        target.lock().unwrap().refused.insert(refused);
        let armed = Arc::new(Mutex::new(false));
        let arm = armed.clone();
        let sink = Memory::new(&target, move |name| {
            (name == call && std::mem::take(&mut *arm.lock().unwrap())).then_some(fault)
        });
        let applier = Applier::with_sink(sink, feed.stream.clone(), NODE);
        let halt = halted(&applier, &feed.stream).await;
        assert_eq!(halt.offset, Some(refused), "{call} {fault:?}");
        in_state(&applier, State::Halted).await;
        *armed.lock().unwrap() = true;
        let told = skip(&applier, refused).await;
        match (call, fault) {
            // It is done all the same, and nobody knows for certain.
            ("commit", Fault::After) => assert!(told.unwrap_err().contains("is not known")),
            _ => assert_eq!(told, Ok(()), "{call} {fault:?}"),
        }
        applied(&applier, &feed.stream).await;
        applier.shutdown().await;
        let target = target.lock().unwrap();
        let rows = target.log.iter().filter(|(_, it)| matches!(it, Record::Insert { .. }));
        let offsets: Vec<_> = rows.map(|(offset, _)| offset.get()).collect();
        assert_eq!(offsets, [3, 9], "{call} {fault:?}");
        assert_eq!(target.progress.offset, end);
        assert!(target.faults == 1 && !target.skipped.is_empty(), "{call} {fault:?}");
        assert_eq!(
            (target.skipped[0].first, target.skipped[0].last),
            (Offset::new(5), Offset::new(7))
        );
    }
}

#[tokio::test]
async fn who_leaves_out_a_single_record_is_told_if_the_database_refuses_that() {
    let database = Database::new(
        "create view v as select 1 as id;
         create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$",
    )
    .await;
    database.sql(
        "create constraint trigger refuse after insert on thinwire.skipped initially deferred
           for each row execute function refuse();
         alter table thinwire.skipped enable always trigger refuse",
    );
    let feed = Feed::new();
    feed.append(&[one(&schema_table(1, "public.v", &["id integer"]))]);
    let applier = database.apply(&feed);
    let halt = halted(&applier, &feed.stream).await;
    assert_eq!(halt.code, "schema_refused");
    in_state(&applier, State::Halted).await;
    let told = tokio::time::timeout(PATIENCE, skip(&applier, halt.offset.unwrap())).await;
    let refused = told.expect("nobody is told").unwrap_err();
    assert!(refused.contains("it was not left out: a trigger or function raised"), "{refused}");
    database.sql("drop trigger refuse on thinwire.skipped");
    in_state(&applier, State::Halted).await;
    skip(&applier, halt.offset.unwrap()).await.unwrap();
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
}

const PATIENCE: Duration = Duration::from_secs(60);
