//! The driver: quinn and tokio on one side, sessions on the other.
//!
//! Only this module knows QUIC. A peer pair has one connection that counts; either side may dial, and both ship over
//! it. Connections live through outages and are probed by the application; one that has been silent for seconds
//! is dialled beside, and the loser is closed. What is missing, now or later (an address, an interface,
//! a name server, the peer), is tried again for ever; only what a user has to mend ends the start. Whatever is waited
//! for together is looked at in one order, so that a simulation repeats itself exactly.

mod bar;
mod connection;
mod dialer;
mod handshakes;
mod link;
mod links;
mod listener;
mod network;
mod node;
mod orders;
mod settings;
mod sockets;
mod vigil;

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use thinwire_engine::{
    journal::Journal,
    model::{Offset, Origin, StreamId},
};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

pub use bar::Bar;
pub use connection::{FetchError, Fetching};
pub use link::{PeerStatus, PeerStream};
pub use network::{Network, Resolving, Udp};
pub use node::Event;

use crate::{
    frame::CopyRequest,
    identity::{Identity, PublicKey, tls},
    peer::Peer,
};
use dialer::Dialer;
use link::Link;
use links::Links;
use listener::{Listener, Unbound};
use node::Node;
use sockets::Sockets;

/// What a node's transport is made of.
#[derive(Debug)]
pub struct Options {
    /// Who we are.
    pub identity: Identity,
    /// What we call ourselves. A label.
    pub node_name: String,
    /// Where peers dial us; without it we only dial.
    pub listen: Option<SocketAddr>,
    /// Whom we exchange streams with.
    pub peers: Vec<Peer>,
    /// Where streams are.
    pub journal: Arc<Journal>,
    /// What the program has to act on.
    pub events: mpsc::Sender<Event>,
}

/// What a user has to mend before a node can start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process listens there.
    #[error("cannot listen on {address}: another process holds the port")]
    PortTaken {
        /// The address.
        address: SocketAddr,
    },
    /// This process may not listen there.
    #[error("cannot listen on {address}: permission denied")]
    Denied {
        /// The address.
        address: SocketAddr,
    },
    /// The journal was opened for another node.
    #[error("the journal belongs to another identity than this node's")]
    ForeignJournal,
    /// A peer's key or name is there twice, or is our own.
    #[error("the peer {name} is configured twice, or is this node itself")]
    DuplicatePeer {
        /// The peer.
        name: String,
    },
    /// The identity cannot be used for TLS.
    #[error("the identity cannot be used: {0}")]
    Identity(String),
}

/// What came to the port and was not a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unwelcome {
    /// Datagrams that are not QUIC.
    pub garbage: u64,
    /// Nodes whose key is not configured.
    pub strangers: u64,
    /// Handshakes that failed, those of strangers among them.
    pub failed_handshakes: u64,
}

/// A running transport. Dropping it ends all connections without a word; [`shutdown`](Self::shutdown) is the
/// polite way.
#[derive(Debug)]
pub struct Transport {
    node: Arc<Node>,
    identity: Identity,
    links: Arc<Links>,
    sockets: Arc<Sockets>,
    tasks: Mutex<JoinSet<()>>,
    changed: watch::Sender<u64>,
    listening: Option<SocketAddr>,
}

impl Transport {
    /// Starts on the machine's network. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What a user has to mend. Whatever is only missing for now is none.
    pub fn start(options: Options) -> Result<Self, StartError> {
        Self::start_on(options, Arc::new(Udp))
    }

    /// Starts on some network.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_on(options: Options, network: Arc<dyn Network>) -> Result<Self, StartError> {
        let Options { identity, node_name, listen, peers, journal, events } = options;
        let own = identity.public().origin();
        if journal.own() != own {
            return Err(StartError::ForeignJournal);
        }
        let changed = watch::Sender::new(0);
        let node = Arc::new(Node::new(node_name, journal, network.clone(), events));
        let strangers = node.strangers.clone();
        let links = Arc::new(Links::new(identity.public(), strangers, changed.clone()));
        let sockets = Arc::new(Sockets::new(network, identity.clone()));
        let tasks = Mutex::default();
        let mut this = Self { node, identity, links, sockets, tasks, changed, listening: None };
        // A listener that cannot start is no reason to dial, and before there are peers everybody is a stranger.
        let dialers = this.exchange_peers(peers)?;
        if let Some(address) = listen {
            let listener = this.listener(address)?;
            let endpoint = match listener.bind() {
                Ok(endpoint) => Some(endpoint),
                Err(Unbound::Refused(error)) => return Err(error),
                Err(Unbound::Weather(error)) => {
                    tracing::warn!(%address, %error, "cannot listen yet; trying again");
                    None
                }
            };
            this.listening = endpoint.as_ref().and_then(|endpoint| endpoint.local_addr().ok());
            this.tasks().spawn(listener.run(endpoint));
        }
        this.dial(dialers);
        Ok(this)
    }

    /// Exchanges the peers for others while the node runs. The connection of one that is not among them, or that has another
    /// key, is closed, and it gets no other; one of which anything else differs is connected with anew, by what holds
    /// from here on. All others go on undisturbed. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If two peers have the same name or key, or one has this node's; then nothing changes.
    pub fn set_peers(&self, peers: Vec<Peer>) -> Result<(), StartError> {
        let dialers = self.exchange_peers(peers)?;
        self.dial(dialers);
        Ok(())
    }

    /// Returns who dials those that are new.
    fn exchange_peers(&self, peers: Vec<Peer>) -> Result<Vec<Dialer>, StartError> {
        // Before anything changes: it does not depend on the peer whether the identity can be used.
        client_crypto(&self.identity, self.identity.public())?;
        let dialer = |link: Arc<Link>| {
            let address = link.peer.address.clone()?;
            let crypto = client_crypto(&self.identity, link.peer.key).map(Arc::new);
            let (node, sockets) = (self.node.clone(), self.sockets.clone());
            Some(crypto.map(|crypto| Dialer { node, link, address, crypto, sockets }))
        };
        self.links.set(peers)?.into_iter().filter_map(dialer).collect()
    }

    fn dial(&self, dialers: Vec<Dialer>) {
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        for dialer in dialers {
            tasks.spawn(dialer.run());
        }
    }

    fn listener(&self, address: SocketAddr) -> Result<Listener, StartError> {
        let config = tls::server(&self.identity, self.links.clone()).map_err(unusable)?;
        let crypto = QuicServerConfig::try_from(config).map_err(unusable)?;
        Ok(Listener {
            node: self.node.clone(),
            links: self.links.clone(),
            identity: self.identity.clone(),
            config: settings::server(Arc::new(crypto)),
            address,
            handshakes: Arc::default(),
        })
    }

    /// Where it listens, if it does already; tells the port where any was asked for.
    pub fn listening(&self) -> Option<SocketAddr> {
        self.listening
    }

    /// How all peers are doing, in the order of the configuration.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.links.all().iter().map(|link| link.status()).collect()
    }

    /// Changes whenever a peer has acknowledged, connected, gone or failed.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What came to the port and was not a peer.
    pub fn unwelcome(&self) -> Unwelcome {
        Unwelcome {
            garbage: self.node.tally.garbage.load(Relaxed),
            strangers: self.node.strangers.count(),
            failed_handshakes: self.node.failed_handshakes.load(Relaxed),
        }
    }

    /// Exchanges nothing with a peer until [`resume`](Self::resume): it is asked to ship nothing, is not dialled, and a
    /// connection that is there stays, silent. Returns whether there is such a peer.
    pub fn pause(&self, peer: &str) -> bool {
        self.with(peer, |link| link.set_paused(true))
    }

    /// Ends a pause.
    pub fn resume(&self, peer: &str) -> bool {
        self.with(peer, |link| link.set_paused(false))
    }

    /// Exchanges nothing with a peer, and has no connection to it: one that is there is closed with the reason, and a peer
    /// that dials is told to stay away until the bar lifts, or for an hour. Told again, only what is said changes;
    /// `None` lifts it. Returns whether there is such a peer.
    pub fn bar(&self, peer: &str, bar: Option<Bar>) -> bool {
        self.with(peer, |link| link.set_bar(bar))
    }

    /// Dials a peer that has asked to be left alone all the same. One that is only away is tried again anyway.
    pub fn retry(&self, peer: &str) -> bool {
        self.with(peer, Link::disregard)
    }

    /// The copy of a stream that was made for a peer begins at `from`: what the peer lacks before is skipped. It is named
    /// by its origin, because its name may be another node's by then. Returns whether there is such a peer.
    pub fn serve_from(&self, peer: Origin, stream: StreamId, from: Offset) -> bool {
        self.links.with_origin(peer).map(|link| link.serve_from(stream, from)).is_some()
    }

    /// Asks the peer from which a stream comes for a copy: `audience` loads it, `carriers` (we among them) pass it on. It
    /// comes as part of the stream. Says whether there was a connection to ask over.
    pub fn request_copy(
        &self,
        peer: &str,
        stream: StreamId,
        audience: Vec<Origin>,
        carriers: Vec<Origin>,
    ) -> bool {
        let link = self.links.named(peer);
        link.is_some_and(|link| link.request_copy(CopyRequest { stream, audience, carriers }))
    }

    /// Asks a peer for records of a stream that were lost here: of our own stream, or of one that it ships to us.
    ///
    /// # Errors
    /// If there is no connection to it, or it does not give them.
    pub async fn fetch(
        &self,
        peer: &str,
        stream: StreamId,
        wanted: Range<Offset>,
    ) -> Result<Fetching, FetchError> {
        let link = self.links.named(peer).filter(|link| !link.is_paused());
        let active =
            link.and_then(|link| link.active()).ok_or_else(|| FetchError::NotConnected {
                peer: peer.to_owned(),
                reason: "it is away, or paused".to_owned(),
            })?;
        active.fetch(stream, wanted).await
    }

    /// What a peer acknowledged in an earlier life of this process, until it says so itself.
    pub fn known_ack(&self, peer: &str, stream: StreamId, acked: Offset, applied: Offset) -> bool {
        self.with(peer, |link| link.know(stream, acked, applied))
    }

    /// Sends the last acknowledgements, says goodbye and ends; within two seconds.
    pub async fn shutdown(&self) {
        self.node.stop();
        let mut tasks = std::mem::take(&mut *self.tasks());
        let ended = async {
            while tasks.join_next().await.is_some() {}
            self.sockets.drain().await;
        };
        if timeout(SHUTDOWN, ended).await.is_err() {
            tracing::debug!("connections did not end in time");
        }
    }

    fn with(&self, peer: &str, act: impl FnOnce(&Link)) -> bool {
        self.links.named(peer).map(|link| act(&link)).is_some()
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn client_crypto(identity: &Identity, key: PublicKey) -> Result<QuicClientConfig, StartError> {
    let config = tls::client(identity, key).map_err(unusable)?;
    QuicClientConfig::try_from(config).map_err(unusable)
}

fn unusable(error: impl std::fmt::Display) -> StartError {
    StartError::Identity(error.to_string())
}

/// Runs what touches the disk where it keeps no other task waiting, if the runtime has such a place.
fn blocking<R>(work: impl FnOnce() -> R) -> R {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

const SHUTDOWN: Duration = Duration::from_secs(2);
