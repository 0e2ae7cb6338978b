//! A database of a test's own, in a cluster that all tests share.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use thinwire_apply::{
    Applier, Conflicts, Existing, Options, OriginDiffers, Seal, Setup, SetupError, State, Tables,
    Target, plan,
};
use thinwire_cluster::Cluster;
use thinwire_engine::{
    journal::Stream,
    model::{Halt, Offset, Origin},
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use crate::feed::{Feed, NODE};

static SHARED: LazyLock<Arc<Cluster>> = LazyLock::new(|| Arc::new(new_cluster()));

pub fn new_cluster() -> Cluster {
    let options = thinwire_cluster::Options::default()
        .with("max_connections", "100")
        .with("max_replication_slots", "1000");
    Cluster::start(options).unwrap()
}

/// What we seal with.
pub fn seal() -> Seal {
    Seal::new(b"the only secret of this node")
}

/// For a login that applies no stream yet.
pub fn setup_of(login: &str, tables: Tables) -> Setup {
    Setup { login: login.to_owned(), owner: None, tables, streams: Vec::new(), seal: None }
}

/// Prepares a database, one at a time: who may take the replica role stands in one row of the whole
/// cluster, which PostgreSQL refuses to change for two at once.
pub async fn init(admin: &Target, setup: &Setup) -> Result<Vec<Origin>, SetupError> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    let _turn = ONE_AT_A_TIME.lock().await;
    thinwire_apply::init(admin, setup).await
}

/// A database.
pub struct Database {
    pub cluster: Arc<Cluster>,
    pub name: String,
}

impl Database {
    /// One that is prepared for applying, with what this SQL makes.
    pub async fn new(sql: &str) -> Self {
        Self::on(SHARED.clone(), sql).await
    }

    pub async fn on(cluster: Arc<Cluster>, sql: &str) -> Self {
        let database = Self::bare(cluster, sql);
        let setup = setup_of("postgres", Tables::default());
        init(&database.target(), &setup).await.unwrap();
        database
    }

    /// One that nothing was prepared in.
    pub fn bare(cluster: Arc<Cluster>, sql: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("db{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        cluster.create_database(&name).unwrap();
        cluster.psql(&name, sql).unwrap();
        Self { cluster, name }
    }

    pub fn shared() -> Arc<Cluster> {
        SHARED.clone()
    }

    pub fn target(&self) -> Target {
        self.target_as("postgres")
    }

    pub fn target_as(&self, login: &str) -> Target {
        let config = self.cluster.url_as(login, &self.name).parse().unwrap();
        Target { config, tls: None }
    }

    /// What a query says: values between bars, rows between newlines.
    pub fn sql(&self, text: &str) -> String {
        self.cluster.psql(&self.name, text).unwrap()
    }

    pub fn options(&self, feed: &Feed) -> Options {
        Options {
            target: self.target(),
            owner: None,
            tables: Tables::default(),
            stream: feed.stream.clone(),
            node: NODE,
            seal: seal(),
            conflicts: Conflicts::Stop,
            update_origin_differs: OriginDiffers::Apply,
            delete_origin_differs: OriginDiffers::Apply,
            existing: Existing::Stop,
            is_shared: false,
        }
    }

    pub fn apply(&self, feed: &Feed) -> Applier {
        Applier::start(self.options(feed))
    }

    /// Applies all of a stream and ends.
    pub async fn apply_all(&self, feed: &Feed) {
        let applier = self.apply(feed);
        applied(&applier, &feed.stream).await;
        applier.shutdown().await;
    }

    /// Seals an applied offset that a test has written, as `init` would, in a session like any other.
    pub async fn seal(&self, feed: &Feed) {
        let setup = Setup {
            streams: vec![feed.id.origin],
            seal: Some(seal()),
            ..setup_of("postgres", Tables::default())
        };
        for text in plan(&self.target(), &setup).await.unwrap() {
            self.sql(&text);
        }
    }

    /// The applied offset that the database holds.
    pub fn offset(&self, feed: &Feed) -> String {
        let origin = feed.id.origin;
        self.sql(&format!("select \"offset\" from thinwire.applied where origin = '{origin}'"))
    }
}

/// Waits until all of a stream is applied.
pub async fn applied(applier: &Applier, stream: &Stream) {
    applied_to(applier, stream, stream.watermarks().appended).await;
}

pub async fn applied_to(applier: &Applier, stream: &Stream, offset: Offset) {
    let deadline = Instant::now() + Duration::from_secs(240);
    while stream.watermarks().applied < offset {
        let halted = stream.halted().borrow().clone();
        assert!(
            Instant::now() < deadline,
            "applied up to {}, not {offset}: {:?}, {halted:?}",
            stream.watermarks().applied,
            applier.status()
        );
        sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until a stream is halted.
pub async fn halted(applier: &Applier, stream: &Stream) -> Halt {
    let deadline = Instant::now() + Duration::from_secs(240);
    loop {
        if let Some(halt) = stream.halted().borrow().clone() {
            return halt;
        }
        assert!(Instant::now() < deadline, "not halted: {:?}", applier.status());
        sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until an applier has nothing left to do.
pub async fn idle(applier: &Applier) {
    in_state(applier, State::Idle).await;
}

pub async fn in_state(applier: &Applier, state: State) {
    let deadline = Instant::now() + Duration::from_secs(240);
    while applier.status().state != state {
        assert!(Instant::now() < deadline, "not {state:?}: {:?}", applier.status());
        sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until an applier says that something has gone wrong, in such words.
pub async fn said(applier: &Applier, words: &str) {
    let deadline = Instant::now() + Duration::from_secs(240);
    while !applier.status().last_error.is_some_and(|error| error.contains(words)) {
        assert!(Instant::now() < deadline, "not {words}: {:?}", applier.status());
        sleep(Duration::from_millis(2)).await;
    }
}
