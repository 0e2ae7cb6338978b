//! Accepts peers: binds when the address is there, lets in configured keys, and is not moved by anything else.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use quinn::{Endpoint, Incoming, ServerConfig, TokioRuntime};
use rustls::pki_types::CertificateDer;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    StartError,
    connection::{Fresh, converse},
    handshakes::{Entry, Handshakes, Place},
    link::Link,
    links::Links,
    network::Hardy,
    node::{Event, Node},
    settings,
};
use crate::{
    backoff::{DIAL_TIMEOUT_ANSWERED, dial_delay},
    congestion::InFlight,
    identity::{Identity, tls::key_of},
};

/// Listens at an address.
pub(crate) struct Listener {
    pub(crate) node: Arc<Node>,
    pub(crate) links: Arc<Links>,
    pub(crate) identity: Identity,
    pub(crate) config: ServerConfig,
    pub(crate) address: SocketAddr,
    pub(crate) handshakes: Arc<Handshakes>,
}

/// Why there is nothing to listen with.
pub(crate) enum Unbound {
    /// For the user to mend.
    Refused(StartError),
    /// The address is not there yet.
    Weather(io::Error),
}

impl Listener {
    pub(crate) fn bind(&self) -> Result<Endpoint, Unbound> {
        let address = self.address;
        let socket = self.node.network.bind(address).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Unbound::Refused(StartError::PortTaken { address }),
            io::ErrorKind::PermissionDenied => Unbound::Refused(StartError::Denied { address }),
            _ => Unbound::Weather(error),
        })?;
        let socket = Arc::new(Hardy::new(socket, self.node.tally.clone()));
        let config = settings::endpoint(&self.identity, self.node.network.seed());
        let server = Some(self.config.clone());
        Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime))
            .map_err(Unbound::Weather)
    }

    /// Runs until the node stops, and its connections have ended.
    pub(crate) async fn run(self, mut endpoint: Option<Endpoint>) {
        let mut connections = JoinSet::new();
        let this = Arc::new(self);
        while !this.node.is_stopping() {
            let bound = match endpoint.take() {
                Some(bound) => bound,
                None => match this.bind_when_there().await {
                    Some(bound) => bound,
                    None => break,
                },
            };
            tokio::select! {
                biased;
                () = this.clone().accept(&bound, &mut connections) => {}
                () = this.node.stopped() => {
                    while connections.join_next().await.is_some() {}
                    bound.wait_idle().await;
                }
            }
        }
    }

    /// Tries again until the address is there; `None` if the node stops before.
    async fn bind_when_there(&self) -> Option<Endpoint> {
        for failures in 1.. {
            let delay = dial_delay(failures, self.node.random());
            tokio::select! {
                biased;
                () = sleep(delay) => {}
                () = self.node.stopped() => return None,
            }
            match self.bind() {
                Ok(endpoint) => {
                    tracing::info!(address = %self.address, "listening");
                    return Some(endpoint);
                }
                Err(Unbound::Weather(error)) => {
                    tracing::debug!(address = %self.address, %error, "cannot listen yet");
                }
                Err(Unbound::Refused(error)) => {
                    tracing::error!(%error, "cannot listen");
                    let failed = Event::ListenFailed { reason: error.to_string() };
                    tokio::select! {
                        biased;
                        () = self.node.emit(failed) => {}
                        () = self.node.stopped() => return None,
                    }
                }
            }
        }
        None
    }

    async fn accept(self: Arc<Self>, endpoint: &Endpoint, connections: &mut JoinSet<()>) {
        while let Some(incoming) = endpoint.accept().await {
            while connections.try_join_next().is_some() {}
            // Answered here, so that a burst of dials does not get past the question.
            let (from, proven) = (incoming.remote_address(), incoming.remote_address_validated());
            match self.handshakes.enter(from.ip(), proven, Instant::now()) {
                Entry::Welcome(place) => {
                    let this = self.clone();
                    connections.spawn(async move { Box::pin(this.welcome(incoming, place)).await });
                }
                Entry::Prove => drop(incoming.retry()),
                Entry::Ignored => incoming.ignore(),
            }
        }
    }

    async fn welcome(&self, incoming: Incoming, place: Place) {
        let from = incoming.remote_address();
        match self.shake_hands(incoming, place).await {
            Some((link, fresh)) => converse(self.node.clone(), link, fresh).await,
            None => {
                self.node.failed_handshakes.fetch_add(1, Relaxed);
                tracing::debug!(%from, "a handshake failed");
            }
        }
    }

    async fn shake_hands(&self, incoming: Incoming, place: Place) -> Option<(Arc<Link>, Fresh)> {
        let in_flight = Arc::new(InFlight::default());
        let config = settings::accepting(&self.config, in_flight.clone());
        let connecting = incoming.accept_with(config).ok()?;
        let connection = tokio::select! {
            biased;
            // Connections have no idle timeout, so a handshake that goes nowhere would stay for ever.
            connected = timeout(HANDSHAKE, connecting) => connected.ok()?.ok()?,
            () = place.lost() => return None,
        };
        let identity = connection.peer_identity()?;
        let key =
            identity.downcast_ref::<Vec<CertificateDer<'static>>>()?.first().and_then(key_of)?;
        let link = self.links.with_key(key)?;
        Some((link, Fresh { connection, in_flight, dialled: false, replaces: false }))
    }
}

/// As long as who dials waits on a crawling link.
const HANDSHAKE: Duration = DIAL_TIMEOUT_ANSWERED;
