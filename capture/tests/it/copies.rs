//! Copies are the tables as of one place in the stream, whatever happens around them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use thinwire_capture::{Ddl, Pace, Source, State};
use thinwire_engine::{
    model::{Offset, Origin, Record},
    storage::disk::RealDisk,
};
use tokio::task::JoinHandle;

use crate::{
    model::Model,
    rig::{Node, PACE, Rig, SLOT, soon},
};

const BANK: &str = "
create table bank (id int primary key, balance bigint not null, pad text);
insert into bank select i, 1000, repeat('p', 100) from generate_series(1, 3000) i;
create table ledger (who int, amount bigint, note text);
";

const TOTAL: i64 = 3_000_000;

/// Sessions that move money until they are told to stop; what they moved is in a keyless table.
struct Writers {
    stop: Arc<AtomicBool>,
    moved: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(source: &Source, count: u64) -> Self {
        let (stop, moved) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let tasks = (0..count)
            .map(|seed| {
                let (source, stop, moved) = (source.clone(), stop.clone(), moved.clone());
                tokio::spawn(async move { transfer(source, seed, stop, moved).await })
            })
            .collect();
        Self { stop, moved, tasks }
    }

    async fn reach(&self, moved: u64) {
        while self.moved.load(Ordering::SeqCst) < moved {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.moved.load(Ordering::SeqCst)
    }
}

async fn transfer(source: Source, seed: u64, stop: Arc<AtomicBool>, moved: Arc<AtomicU64>) {
    let client = source.connect().await.unwrap();
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
    let mut next = |below: u64| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    while !stop.load(Ordering::SeqCst) {
        // In order, so that two never wait for each other.
        let (a, b) = (next(1_500) + 1, next(1_500) + 1_501);
        let amount = next(50);
        let is_void = next(10) == 0;
        let pause = next(4);
        let end = if is_void { "rollback" } else { "commit" };
        client
            .batch_execute(&format!(
                "begin; update public.bank set balance = balance - {amount} where id = {a}; \
                 savepoint s; insert into public.ledger values ({a}, 0, 'void'); rollback to s; \
                 insert into public.ledger values ({a}, {amount}, 'row of {seed}'); \
                 update public.bank set balance = balance + {amount} where id = {b}; \
                 select pg_sleep(0.00{pause}); {end}"
            ))
            .await
            .unwrap();
        moved.fetch_add(1, Ordering::SeqCst);
    }
}

/// Replays the stream and looks at the bank behind each transaction.
fn total_never_changes(node: &Node) {
    let mut model = Model::default();
    for (offset, record) in node.records() {
        if model.feed(record) && model.has("public.bank") && model.commits % 50 == 0 {
            assert_eq!(model.sum("public.bank", 1), TOTAL, "behind record {offset}");
        }
    }
    assert_eq!(model.sum("public.bank", 1), TOTAL);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_copy_while_writers_run_is_exact() {
    let rig = Rig::new(BANK);
    let writers = Writers::start(&rig.source(), 4);
    writers.reach(50).await;
    rig.init(&["public.*"]).await;
    writers.reach(200).await;
    let node = rig.node();
    node.until("all is copied", Node::has_copied).await;
    writers.reach(writers.moved.load(Ordering::SeqCst) + 600).await;
    writers.finish().await;
    let model = rig.check(&node, &["public.bank", "public.ledger"]).await;
    assert_eq!((model.copies, model.aborts), (1, 0));
    assert!(model.commits > 500, "{}", model.commits);
    total_never_changes(&node);
    let progress = node.status().copy;
    assert_eq!(progress.len(), 2);
    let bank = progress.iter().find(|it| it.table == "public.bank").unwrap();
    assert_eq!((bank.rows_done, bank.rows_total), (3_000, 3_000));
    assert!(bank.bytes_done > 300_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_added_later_is_copied_while_all_tables_change() {
    let rig = Rig::new(BANK);
    rig.init(&["public.ledger"]).await;
    let node = rig.node();
    node.until("the first is copied", Node::has_copied).await;
    let writers = Writers::start(&rig.source(), 4);
    writers.reach(300).await;
    // A transaction that is older than the slot and commits behind it.
    let long = rig.source().connect().await.unwrap();
    long.batch_execute("begin; update public.bank set pad = 'old' where id = 2999").await.unwrap();
    rig.init(&["public.*"]).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    long.batch_execute("commit").await.unwrap();
    node.until("the second is copied", |node| node.stream.tail().copied.len() == 2).await;
    writers.reach(writers.moved.load(Ordering::SeqCst) + 300).await;
    writers.finish().await;
    let model = rig.check(&node, &["public.bank", "public.ledger"]).await;
    assert_eq!(model.copies, 2);
    total_never_changes(&node);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_added_one_after_another_are_put_in_their_places() {
    const TABLES: usize = 12;
    let rig = Rig::new("create table log (id serial primary key, a text)");
    for table in 0..TABLES {
        rig.sql(&format!(
            "create table t{table} (id int primary key, n int); insert into t{table} values (1, 0)"
        ));
    }
    rig.init(&["public.log"]).await;
    let node = rig.node();
    node.until("the first is copied", Node::has_copied).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (source, stopped) = (rig.source(), stop.clone());
    // Each transaction begins with a table that is captured already and then changes all the others.
    let writer = tokio::spawn(async move {
        let client = source.connect().await.unwrap();
        let updates: String =
            (0..TABLES).map(|table| format!("update public.t{table} set n = n + 1;")).collect();
        for pause in (0..).map(|round| round % 5) {
            if stopped.load(Ordering::SeqCst) {
                break;
            }
            let rows =
                "insert into public.log (a) select repeat('x', 1000) from generate_series(1, 300)";
            client.batch_execute(&format!("begin; {rows}; {updates} commit")).await.unwrap();
            tokio::time::sleep(Duration::from_millis(pause * 8)).await;
        }
    });
    let tables: Vec<String> = (0..TABLES).map(|table| format!("public.t{table}")).collect();
    for table in 0..TABLES {
        let patterns: Vec<&str> =
            ["public.log"].into_iter().chain(tables[..=table].iter().map(String::as_str)).collect();
        rig.init(&patterns).await;
        node.until("one more is copied", |node| node.stream.tail().copied.len() == table + 2).await;
    }
    stop.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    let names: Vec<&str> = tables.iter().map(String::as_str).chain(["public.log"]).collect();
    let model = rig.check(&node, &names).await;
    assert_eq!(model.copies, TABLES as u64 + 1);
    // At any commit, all tables that are there have seen the same transactions.
    let mut model = Model::default();
    for (offset, record) in node.records() {
        if model.feed(record) {
            let counts: Vec<i64> = tables
                .iter()
                .filter(|table| model.has(table))
                .map(|table| model.sum(table, 1))
                .collect();
            assert!(counts.windows(2).all(|pair| pair[0] == pair[1]), "{counts:?} behind {offset}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_away_is_copied_again() {
    // PostgreSQL: 024_add_drop_pub 3
    let rig = Rig::new(BANK);
    let node = rig.ready().await;
    node.until("nothing is left out", |node| node.status().unpublished.is_empty()).await;
    rig.init(&["public.*", "!public.ledger"]).await;
    rig.sql("insert into ledger values (1, 1, 'missed')");
    tokio::time::sleep(Duration::from_millis(600)).await;
    rig.init(&["public.*"]).await;
    node.until("it is copied again", |node| {
        node.records().iter().filter(|(_, it)| matches!(it, Record::CopyEnd { .. })).count() == 2
    })
    .await;
    rig.sql("insert into ledger values (2, 2, 'seen')");
    node.caught_up(&rig.source()).await;
    let second = node
        .records()
        .into_iter()
        .skip_while(|(at, record)| !matches!(record, Record::CopyBegin(_)) || *at == Offset::FIRST);
    let model = Model::of(second.map(|(_, record)| record));
    assert_eq!(model.rows("public.ledger").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_meant_and_not_published_are_told() {
    let rig = Rig::new(BANK);
    rig.init(&["public.bank"]).await;
    let node = rig.node();
    node.until("it is told", |node| node.status().unpublished == ["public.ledger"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_joins_later_has_everything_from_its_copy_on() {
    let rig = Rig::new(BANK);
    let node = rig.ready().await;
    let writers = Writers::start(&rig.source(), 4);
    writers.reach(200).await;
    let (late, other) = (Origin::from_bytes([1; 16]), Origin::from_bytes([2; 16]));
    let begin = soon(node.capture.request_copy(vec![late], vec![])).await.unwrap();
    writers.reach(writers.moved.load(Ordering::SeqCst) + 200).await;
    writers.finish().await;
    let everybody = rig.check(&node, &["public.bank", "public.ledger"]).await;
    let records: Vec<_> = node.records();
    let from_copy = || records.iter().filter(|(at, _)| *at >= begin).map(|(_, it)| it.clone());
    assert!(matches!(from_copy().next(), Some(Record::CopyBegin(copy)) if copy.audience == [late]));
    let joined = Model::seen_by(Some(late), from_copy());
    for table in ["public.bank", "public.ledger"] {
        assert_eq!(joined.rows(table), everybody.rows(table));
    }
    let all = records.iter().map(|(_, it)| it.clone());
    let bystander = Model::seen_by(Some(other), all);
    assert_eq!(bystander.rows("public.bank"), everybody.rows("public.bank"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_waits_for_a_long_transaction_does_not_hold_up_changes_for_ever() {
    let rig = Rig::new(BANK);
    let node = rig.ready().await;
    let long = rig.source().connect().await.unwrap();
    long.batch_execute("begin; insert into public.ledger values (0, 0, 'long')").await.unwrap();
    let mut answer = node.capture.request_copy(vec![Origin::from_bytes([1; 16])], vec![]);
    let waits = "select slot_name from pg_replication_slots where slot_name like '%copy%'";
    node.until("the copy waits", |_| !rig.sql(waits).is_empty()).await;
    let slot = rig.sql(waits);
    let started = std::time::Instant::now();
    rig.sql("insert into ledger values (1, 1, 'short')");
    node.until("the change flows all the same", |node| {
        node.model().rows("public.ledger").len() == 1
    })
    .await;
    assert!(started.elapsed() > Duration::from_secs(1), "it waited at first");
    assert!(answer.try_recv().is_err());
    // The next try has another one.
    node.until("the slot is gone", |_| rig.sql(waits).lines().all(|it| it != slot)).await;
    long.batch_execute("commit").await.unwrap();
    soon(answer).await.unwrap();
    rig.check(&node, &["public.ledger"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_copy_holds_is_not_captured_again_when_the_source_sends_it_again() {
    let rig = Rig::new("create table t (id int primary key); create table k (n int)");
    rig.init(&["public.*"]).await;
    rig.sql("insert into t values (1); insert into k values (1)");
    // Nothing but the copy itself makes a mark.
    let pace = Pace { mark: Duration::from_secs(3600), ..PACE };
    let disk = Arc::new(RealDisk);
    let start = || {
        let (disk, source) = (disk.clone(), rig.source());
        Node::start_on(disk, source, rig.dir.path(), 1 << 30, SLOT, pace, Ddl::Stop)
    };
    let node = start();
    node.until("all is copied", Node::has_copied).await;
    rig.sql("select pg_terminate_backend(active_pid) from pg_replication_slots where active");
    rig.sql("insert into t values (2); insert into k values (2)");
    node.until("it goes on", |node| node.stream.tail().last_commit.is_some()).await;
    node.shutdown().await;
    let node = start();
    rig.sql("insert into t values (3); insert into k values (3)");
    let model = rig.check(&node, &["public.t", "public.k"]).await;
    assert_eq!((model.copies, model.commits), (1, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_killed_in_the_middle_is_aborted_and_made_again() {
    let rig = Rig::new(
        "create table big (id int primary key, pad text);
         insert into big select i, repeat('x', 500) || i from generate_series(1, 40000) i",
    );
    rig.init(&["public.*"]).await;
    for stage in 1..=3 {
        let node = rig.node();
        // It cannot come to its end unseen: whoever is far ahead of the disk waits.
        node.held.store(true, Ordering::SeqCst);
        let before = node.stream.watermarks().appended.get();
        node.until("a part is copied", |node| {
            node.stream.sync().unwrap();
            node.stream.watermarks().appended.get() > before + stage * 3_000
        })
        .await;
        node.kill().await;
        rig.sql(&format!("update big set pad = 'changed' where id = {stage}"));
    }
    let node = rig.node();
    node.until("all is copied", Node::has_copied).await;
    let model = rig.check(&node, &["public.big"]).await;
    assert_eq!(model.copies, 1);
    assert!(model.aborts >= 1, "{}", model.aborts);
    // A session that was closed takes a moment to end.
    let slots = "select string_agg(slot_name, ',') from pg_replication_slots";
    node.until("no temporary slot is left", |_| rig.sql(slots) == SLOT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_session_is_killed_is_made_again_while_changes_flow() {
    let rig = Rig::new(
        "create table big (id int primary key, pad text);
         insert into big select i, repeat('x', 500) || i from generate_series(1, 60000) i",
    );
    rig.init(&["public.*"]).await;
    let node = rig.node();
    // It cannot come to its end unseen: whoever is far ahead of the disk waits.
    node.held.store(true, Ordering::SeqCst);
    node.until("a part is copied", |node| {
        node.stream.sync().unwrap();
        node.stream.watermarks().appended.get() > 3_000
    })
    .await;
    rig.sql("select pg_terminate_backend(pid) from pg_stat_activity where query like 'COPY %'");
    node.held.store(false, Ordering::SeqCst);
    rig.sql("update big set pad = 'changed' where id = 7");
    node.until("all is copied", Node::has_copied).await;
    let model = rig.check(&node, &["public.big"]).await;
    assert_eq!((model.copies, model.aborts), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_cannot_fit_is_refused_with_the_sizes_until_it_fits() {
    let rig = Rig::new(
        "create table big (id int primary key, pad text);
         insert into big select i, repeat('x', 500) || i from generate_series(1, 20000) i",
    );
    rig.init(&["public.*"]).await;
    let node = Node::start_with(rig.source(), rig.dir.path(), 8 << 20, SLOT);
    let halt = node.halts_with("copy_too_large").await;
    assert!(halt.detail.contains("bytes"), "{}", halt.detail);
    assert_eq!(node.stream.watermarks().appended.get(), 0);
    rig.sql("delete from big where id > 100; vacuum full big");
    node.shutdown().await;
    let node = Node::start_with(rig.source(), rig.dir.path(), 8 << 20, SLOT);
    rig.check(&node, &["public.big"]).await;
    assert_eq!(node.halted(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_holds_the_log_and_goes_on_when_there_is_room() {
    let rig = Rig::new("create table t (id int primary key, pad text)");
    rig.init(&["public.*"]).await;
    let node = Node::start_with(rig.source(), rig.dir.path(), 8 << 20, SLOT);
    node.until("all is copied", Node::has_copied).await;
    // What does not compress, more than the budget has.
    rig.sql(
        "insert into t select i, (select string_agg(md5(i::text || j::text), '') from generate_series(1, 20) j)
         from generate_series(1, 20000) i",
    );
    node.until("it is held", |node| node.status().state == State::Held).await;
    assert_eq!(node.halted(), None);
    let retained = |node: &Node| node.status().retained_wal_bytes;
    node.until("the log is kept", |node| retained(node) > 1 << 20).await;
    // The test has read it; so it may go.
    let (mut model, started) = (Model::default(), std::time::Instant::now());
    let mut reader = node.stream.read(Offset::FIRST).unwrap();
    while model.commits < 1 {
        assert!(started.elapsed() < Duration::from_secs(240), "{:?}", node.status());
        while let Some(block) = reader.next_block().unwrap() {
            let records = block.records.decode(block.first).map(|it| it.unwrap().1);
            records.for_each(|record| {
                model.feed(record);
            });
            node.stream.trim(block.last(), true).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(model.rows("public.t").len(), 20_000);
    assert_eq!((model.commits, model.aborts), (1, 0));
    node.until("it streams again", |node| node.status().state == State::Streaming).await;
}
