//! A temporary cluster, a node that captures from it, and the little that a program around capture does.

use std::{
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;
use thinwire_capture::{
    Capture, CaptureStatus, Choice, Ddl, OnFull, Options, Pace, Patterns, Source,
    slot::{self, InitOptions, Report},
};
use thinwire_cluster::Cluster;
use thinwire_engine::{
    Error,
    journal::{Journal, Options as JournalOptions, Stream},
    model::{Epoch, Halt, Offset, Origin, Record, StreamId},
    storage::{Disk, disk::RealDisk},
};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::model::Model;

pub(crate) const NODE: &str = "shop";
pub(crate) const SLOT: &str = "thinwire_shop";

/// The first version of which rows and columns can be chosen.
pub(crate) const NARROWS: u32 = 150_000;

/// A cluster with a database that is captured.
pub(crate) struct Rig {
    pub(crate) cluster: Cluster,
    pub(crate) dir: TempDir,
}

impl Rig {
    pub(crate) fn new(schema: &str) -> Self {
        Self::with(options(), schema)
    }

    /// The same where rows and columns of tables can be chosen, which is since PostgreSQL 15; else it says that a test is skipped.
    pub(crate) fn narrowing(schema: &str) -> Option<Self> {
        let rig = Self::new("");
        if rig.version() < NARROWS {
            let thread = std::thread::current();
            let test = thread.name().unwrap_or_default();
            eprintln!("{test}: skipped: rows and columns cannot be chosen before PostgreSQL 15");
            return None;
        }
        rig.sql(schema);
        Some(rig)
    }

    /// The server's version, such as 150004.
    pub(crate) fn version(&self) -> u32 {
        self.sql("show server_version_num").parse().unwrap()
    }

    pub(crate) fn with(options: thinwire_cluster::Options, schema: &str) -> Self {
        let cluster = Cluster::start(options).unwrap();
        cluster.create_database("shop").unwrap();
        let rig = Self { cluster, dir: TempDir::new().unwrap() };
        rig.sql(schema);
        rig
    }

    /// Runs SQL as the superuser, through psql.
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.cluster.psql("shop", sql).unwrap()
    }

    pub(crate) fn source(&self) -> Source {
        Source::new(self.cluster.url("shop").parse().unwrap())
    }

    pub(crate) async fn init(&self, patterns: &[&str]) -> Report {
        slot::init(&self.source(), &init_options(patterns)).await.unwrap()
    }

    /// Starts a node on the journal that this rig keeps.
    pub(crate) fn node(&self) -> Node {
        Node::start(self.source(), self.dir.path(), &self.cluster)
    }

    /// A node after `init` of everything.
    pub(crate) async fn ready(&self) -> Node {
        self.init(&["*.*"]).await;
        let node = self.node();
        node.until("all is copied", |node| node.has_copied()).await;
        node
    }

    /// Waits until nobody streams from the slot.
    pub(crate) async fn slot_is_free(&self) {
        let active = format!("select active from pg_replication_slots where slot_name = '{SLOT}'");
        let started = Instant::now();
        while self.sql(&active) == "t" {
            assert!(started.elapsed() < TIMEOUT, "somebody streams from the slot");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Compares what the journal says with what the tables hold.
    pub(crate) async fn check(&self, node: &Node, tables: &[&str]) -> Model {
        node.caught_up(&self.source()).await;
        let model = node.model();
        let client = self.source().connect().await.unwrap();
        for table in tables {
            assert_eq!(model.rows(table), rows(&client, table).await, "{table}");
        }
        model
    }
}

pub(crate) fn options() -> thinwire_cluster::Options {
    thinwire_cluster::Options::default()
        .with("wal_sender_timeout", "3s")
        .with("max_prepared_transactions", "10")
}

pub(crate) fn init_options(patterns: &[&str]) -> InitOptions {
    InitOptions {
        node: NODE.to_owned(),
        patterns: Patterns::parse(patterns).unwrap(),
        choice: Choice::default(),
        ddl: Ddl::Stop,
        run_as: None,
    }
}

/// A table's rows in the sessions' text form, in order.
pub(crate) async fn rows(client: &Client, table: &str) -> Vec<Vec<Option<String>>> {
    let answer = client.simple_query(&format!("SELECT * FROM ONLY {table}")).await.unwrap();
    let mut rows: Vec<Vec<Option<String>>> = answer
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
            }
            _ => None,
        })
        .collect();
    rows.sort();
    rows
}

/// A journal, what makes it durable, and a capture.
pub(crate) struct Node {
    _journal: Journal,
    pub(crate) stream: Arc<Stream>,
    pub(crate) capture: Capture,
    /// Whether the committer stands still.
    pub(crate) held: Arc<AtomicBool>,
    committer: JoinHandle<()>,
}

pub(crate) const OWN: Origin = Origin::from_bytes([7; 16]);

/// Opens a journal with one stream of our own.
pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path, budget: u64) -> (Journal, Arc<Stream>) {
    let options = JournalOptions { own: OWN, segment: 1 << 20, budget };
    let mut opened = Journal::open(disk.clone(), dir, options);
    // A process that another test has just forked holds the lock until it becomes another program.
    while let Err(Error::Locked { .. }) = opened {
        std::thread::sleep(Duration::from_millis(1));
        opened = Journal::open(disk.clone(), dir, options);
    }
    let (journal, unopened) = opened.unwrap();
    assert!(unopened.is_empty(), "{unopened:?}");
    let id = StreamId { origin: OWN, epoch: Epoch::from_bytes([9; 16]) };
    let stream = journal.open_stream(id).unwrap();
    (journal, stream)
}

/// What captures everything.
fn capture_options(
    source: Source,
    slot: &str,
    stream: Arc<Stream>,
    pace: Pace,
    ddl: Ddl,
) -> Options {
    Options {
        source,
        slot: slot.to_owned(),
        publication: slot.to_owned(),
        stream,
        patterns: Patterns::parse(&["*.*"]).unwrap(),
        choice: Choice::default(),
        ddl,
        on_full: OnFull::HoldWal,
        pace,
    }
}

impl Node {
    pub(crate) fn start(source: Source, dir: &Path, _cluster: &Cluster) -> Self {
        Self::start_with(source, dir, 4 << 30, SLOT)
    }

    pub(crate) fn start_with(source: Source, dir: &Path, budget: u64, slot: &str) -> Self {
        Self::start_on(Arc::new(RealDisk), source, dir, budget, slot, PACE, Ddl::Stop)
    }

    pub(crate) fn start_on(
        disk: Arc<dyn Disk>,
        source: Source,
        dir: &Path,
        budget: u64,
        slot: &str,
        pace: Pace,
        ddl: Ddl,
    ) -> Self {
        let (journal, stream) = open(disk, dir, budget);
        let options = capture_options(source, slot, stream, pace, ddl);
        Self::of(journal, options)
    }

    /// One that captures only what was chosen.
    pub(crate) fn choosing(rig: &Rig, choice: &Choice, ddl: Ddl) -> Self {
        let (journal, stream) = open(Arc::new(RealDisk), rig.dir.path(), 1 << 30);
        let options = capture_options(rig.source(), SLOT, stream, PACE, ddl);
        Self::of(journal, Options { choice: choice.clone(), ..options })
    }

    fn of(journal: Journal, options: Options) -> Self {
        let (stream, held) = (options.stream.clone(), Arc::new(AtomicBool::new(false)));
        let committer = tokio::spawn(commit(stream.clone(), held.clone()));
        let capture = Capture::start(options);
        Self { _journal: journal, stream, capture, held, committer }
    }

    pub(crate) fn status(&self) -> CaptureStatus {
        self.capture.status()
    }

    pub(crate) fn halted(&self) -> Option<Halt> {
        self.stream.halted().borrow().clone()
    }

    pub(crate) async fn halts_with(&self, code: &str) -> Halt {
        self.until(code, |node| node.halted().is_some_and(|halt| halt.code == code)).await;
        self.halted().unwrap()
    }

    pub(crate) fn has_copied(&self) -> bool {
        let tail = self.stream.tail();
        !tail.copied.is_empty() && tail.open.is_none()
    }

    /// Waits until all that is committed now is durable here.
    pub(crate) async fn caught_up(&self, source: &Source) {
        self.until("all is copied", Self::has_copied).await;
        let client = source.connect().await.unwrap();
        let row = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap();
        let end: thinwire_engine::model::Lsn = row.get::<_, String>(0).parse().unwrap();
        self.until("all is captured", |node| node.status().confirmed >= end).await;
        // A copy is confirmed by nothing, but has to be durable for what follows.
        self.until("all is durable", |node| {
            node.stream.watermarks().synced == node.stream.watermarks().appended
        })
        .await;
    }

    pub(crate) async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !done(self) {
            let (status, halted) = (self.status(), self.halted());
            assert!(started.elapsed() < TIMEOUT, "never: {what}: {status:?} {halted:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// All durable records.
    pub(crate) fn records(&self) -> Vec<(Offset, Record)> {
        let mut reader = self.stream.read(Offset::FIRST).unwrap();
        let mut all = Vec::new();
        while let Some(block) = reader.next_block().unwrap() {
            all.extend(block.records.decode(block.first).map(Result::unwrap));
        }
        all
    }

    pub(crate) fn model(&self) -> Model {
        Model::of(self.records().into_iter().map(|(_, record)| record))
    }

    /// Ends without a word, as a killed process does: what was not synced is gone.
    pub(crate) async fn kill(self) {
        let Self { _journal: journal, stream, capture, held, committer } = self;
        held.store(true, Ordering::SeqCst);
        committer.abort();
        let _ = committer.await;
        drop(capture);
        // Its tasks hold the stream until they are gone.
        while Arc::strong_count(&stream) > 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop((stream, journal));
    }

    /// Ends the capture, then looks at the disk while it is still written to, then ends.
    pub(crate) async fn cut<T>(self, look: impl FnOnce() -> T) -> T {
        let Self { _journal: journal, stream, capture, held: _, committer } = self;
        drop(capture);
        // One for the journal, one here, one for the committer, which has another while it syncs.
        while Arc::strong_count(&stream) > 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let seen = look();
        committer.abort();
        let _ = committer.await;
        drop((stream, journal));
        seen
    }

    pub(crate) async fn shutdown(self) {
        let Self { _journal: journal, stream, capture, held: _, committer } = self;
        capture.shutdown().await;
        committer.abort();
        let _ = committer.await;
        let _ = stream.sync();
        while Arc::strong_count(&stream) > 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop((stream, journal));
    }
}

/// Makes what is appended durable, as the program does.
async fn commit(stream: Arc<Stream>, held: Arc<AtomicBool>) {
    let mut watermarks = stream.watch();
    loop {
        while stream.has_staged() && !held.load(Ordering::SeqCst) {
            let stream = stream.clone();
            let synced = tokio::task::spawn_blocking(move || stream.sync()).await.unwrap();
            match synced {
                Ok(_) => {}
                Err(Error::NoSpace { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
                // It is poisoned, and whoever appends will see it.
                Err(_) => return,
            }
        }
        let _ = tokio::time::timeout(Duration::from_millis(20), watermarks.changed()).await;
    }
}

/// Fails if it takes too long.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, future).await.expect("this took too long")
}

/// Fast, because tests wait.
pub(crate) const PACE: Pace = Pace {
    mark: Duration::from_millis(200),
    poll: Duration::from_millis(200),
    recheck: Duration::from_millis(200),
    stall: Duration::from_secs(2),
};

const TIMEOUT: Duration = Duration::from_secs(240);
