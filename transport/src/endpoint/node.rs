//! What all connections of a node share.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ring::rand::{SecureRandom, SystemRandom};
use thinwire_engine::{
    journal::Journal,
    model::{Origin, StreamId},
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::network::{Network, Tally};
use crate::identity::PublicKey;

/// What the program has to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer needs records of a stream that were trimmed. Make a copy for it, and say with
    /// [`Transport::serve_from`](super::Transport::serve_from) where it begins. Said again at each connection
    /// until then.
    CopyNeeded {
        /// The peer's name.
        peer: String,
        /// The peer's origin: the audience of the copy.
        origin: Origin,
        /// The stream.
        stream: StreamId,
    },
    /// Nodes behind a peer need a copy of a stream that is shipped to it. Make it if the stream is ours, else ask
    /// on with [`Transport::request_copy`](super::Transport::request_copy).
    CopyRequested {
        /// The peer's name.
        peer: String,
        /// The peer's origin.
        origin: Origin,
        /// The stream.
        stream: StreamId,
        /// Who loads the copy.
        audience: Vec<Origin>,
        /// Who passes it on, the peer included.
        carriers: Vec<Origin>,
    },
    /// The address to listen at, which was not there before, is held by another process.
    ListenFailed {
        /// A sentence.
        reason: String,
    },
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) journal: Arc<Journal>,
    pub(crate) network: Arc<dyn Network>,
    /// A random number of this life of the process.
    pub(crate) instance: u64,
    pub(crate) strangers: Arc<Strangers>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) failed_handshakes: AtomicU64,
    events: mpsc::Sender<Event>,
    stopping: watch::Sender<bool>,
    random: Mutex<Random>,
}

impl Node {
    pub(crate) fn new(
        name: String,
        journal: Arc<Journal>,
        network: Arc<dyn Network>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let mut random = Random::new(network.seed());
        Self {
            name,
            journal,
            network,
            instance: random.next(),
            strangers: Arc::default(),
            tally: Arc::default(),
            failed_handshakes: AtomicU64::new(0),
            events,
            stopping: watch::Sender::new(false),
            random: Mutex::new(random),
        }
    }

    /// Tells the program, once it listens.
    pub(crate) async fn emit(&self, event: Event) {
        // Who does not listen any more need not be told.
        let _ = self.events.send(event).await;
    }

    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits until the node stops.
    pub(crate) async fn stopped(&self) {
        // The sender lives as long as the node.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    pub(crate) fn random(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}

/// Random numbers to spread attempts with; nothing secret depends on them.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new(seed: Option<[u8; 32]>) -> Self {
        let mut start = [0; 8];
        match seed {
            Some(seed) => start.iter_mut().zip(seed).for_each(|(to, from)| *to = from),
            // Without randomness attempts are not spread, which is no reason not to start.
            None => drop(SystemRandom::new().fill(&mut start)),
        }
        Self(u64::from_le_bytes(start))
    }

    /// The next one (splitmix64).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// Nodes that nobody configured and that wanted to connect: counted, and logged once a minute each.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    count: AtomicU64,
    logged: Mutex<BTreeMap<PublicKey, Instant>>,
}

impl Strangers {
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// A node with a key that nobody configured wanted to connect.
    pub(super) fn came(&self, key: PublicKey) {
        self.count.fetch_add(1, Relaxed);
        let now = Instant::now();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.retain(|_, at| now - *at < LOG_EVERY);
        if logged.len() < STRANGERS_LOGGED && !logged.contains_key(&key) {
            logged.insert(key, now);
            tracing::warn!(%key, "refused a node with a key that is not configured");
        }
    }
}

const LOG_EVERY: Duration = Duration::from_secs(60);

/// A flood of new keys must fill neither memory nor the log.
const STRANGERS_LOGGED: usize = 32;
