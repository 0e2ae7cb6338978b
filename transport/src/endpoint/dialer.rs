//! Dials a peer for ever: whatever is missing, now or later, is weather.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use quinn::{ConnectError, Endpoint, TokioRuntime, crypto::rustls::QuicClientConfig};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    connection::{Fresh, converse, describe},
    link::{Link, Reach, dialling_unwanted, dialling_wanted},
    network::{Hardy, Network, Tally, any},
    node::Node,
    settings,
};
use crate::{
    backoff::{
        DIAL_PATIENCE_ANSWERED, DIAL_ROUND, DIAL_TIMEOUT_ANSWERED, dial_beside_delay, dial_delay,
        dial_patience,
    },
    congestion::InFlight,
    identity::Identity,
};

/// The sockets that are dialled from, one an address family, made when they are needed.
#[derive(Debug)]
pub(crate) struct Sockets {
    network: Arc<dyn Network>,
    identity: Identity,
    held: Mutex<[Option<Held>; 2]>,
}

#[derive(Clone, Debug)]
struct Held {
    endpoint: Endpoint,
    tally: Arc<Tally>,
}

impl Sockets {
    pub(crate) fn new(network: Arc<dyn Network>, identity: Identity) -> Self {
        Self { network, identity, held: Mutex::default() }
    }

    /// The endpoint from which an address of this family is dialled. A socket that has reported errors is
    /// replaced: its interface may be gone.
    fn endpoint(&self, ipv6: bool) -> io::Result<Endpoint> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = &mut held[usize::from(ipv6)];
        if let Some(Held { endpoint, tally }) = held {
            if tally.errors.swap(0, Relaxed) > 0 {
                endpoint.rebind_abstract(Arc::new(Hardy::new(self.bind(ipv6)?, tally.clone())))?;
            }
            return Ok(endpoint.clone());
        }
        let tally = Arc::new(Tally::default());
        let socket = Arc::new(Hardy::new(self.bind(ipv6)?, tally.clone()));
        let config = settings::endpoint(&self.identity, self.network.seed());
        let endpoint =
            Endpoint::new_with_abstract_socket(config, None, socket, Arc::new(TokioRuntime))?;
        *held = Some(Held { endpoint: endpoint.clone(), tally });
        Ok(endpoint)
    }

    fn bind(&self, ipv6: bool) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        self.network.bind(any(ipv6))
    }

    /// Forgets an endpoint whose driver has ended.
    fn forget(&self, ipv6: bool) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(ipv6)] = None;
    }

    /// Lets the last packets leave.
    pub(crate) async fn drain(&self) {
        let held = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        for Held { endpoint, .. } in held.into_iter().flatten() {
            endpoint.wait_idle().await;
        }
    }
}

/// Keeps a connection to a peer.
pub(crate) struct Dialer {
    pub(crate) node: Arc<Node>,
    pub(crate) link: Arc<Link>,
    pub(crate) address: String,
    pub(crate) crypto: Arc<QuicClientConfig>,
    pub(crate) sockets: Arc<Sockets>,
}

impl Dialer {
    /// Runs until the node stops, and its connections have ended.
    pub(crate) async fn run(self) {
        let mut connections = JoinSet::new();
        tokio::select! {
            biased;
            () = self.dial_for_ever(&mut connections) => {}
            () = self.watch_route() => {}
            () = self.node.stopped() => {}
        }
        while connections.join_next().await.is_some() {}
    }

    /// Notices when the way to the peer has changed: an interface came up, or has another address.
    async fn watch_route(&self) {
        let mut known: Option<(SocketAddr, Option<IpAddr>)> = None;
        loop {
            sleep(ROUTE_EVERY).await;
            let Some(target) = self.link.target() else { continue };
            let found = (target, self.node.network.route(target));
            let was = known.replace(found).filter(|known| known.0 == target);
            if found.1.is_some() && was.is_some_and(|was| was != found) {
                tracing::info!(peer = self.link.peer.name, "the way to the peer has changed");
                self.link.reroute();
            }
        }
    }

    async fn dial_for_ever(&self, connections: &mut JoinSet<()>) {
        let mut health = self.link.health();
        let mut routes = self.link.routes();
        let (mut failures, mut counted) = (0, false);
        let (mut last, mut rerouted): (Option<Instant>, _) = (None, false);
        loop {
            dialling_wanted(&mut health).await;
            let mut due = self.link.not_before();
            if let Some(last) = last {
                // A connection that lived is no failure; one that died young is.
                if std::mem::take(&mut counted) && last.elapsed() > YOUNG {
                    failures = 0;
                }
                let delay = match health.borrow().state {
                    // What was tried over another way says nothing about this one.
                    _ if std::mem::take(&mut rerouted) => dial_delay(0, self.node.random()),
                    Reach::Suspect => dial_beside_delay(failures, self.node.random()),
                    _ => dial_delay(failures, self.node.random()),
                };
                due = due.max(Some(last + delay));
            }
            let now = Instant::now();
            // What dialling in vain has cost counts too.
            let ration = self.link.ration.as_ref();
            let paid_at = ration.and_then(|ration| ration.opens_at(now.into_std()));
            let due = due.max(paid_at.map(Instant::from_std)).unwrap_or(now);
            tokio::select! {
                biased;
                () = sleep_until(due) => {}
                _ = health.changed() => continue,
                _ = routes.changed() => {
                    (failures, rerouted) = (0, true);
                    continue;
                }
            }
            let reach = health.borrow().state;
            last = Some(Instant::now());
            failures += 1;
            let dialled = tokio::select! {
                biased;
                dialled = self.dial(failures - 1) => dialled,
                () = dialling_unwanted(&mut health) => continue,
                _ = routes.changed() => {
                    (failures, rerouted) = (0, true);
                    continue;
                }
            };
            match dialled {
                Ok((connection, in_flight)) => {
                    while connections.try_join_next().is_some() {}
                    let replaces = reach == Reach::Suspect;
                    let fresh = Fresh { connection, in_flight, dialled: true, replaces };
                    connections.spawn(converse(self.node.clone(), self.link.clone(), fresh));
                    // Until it counts, or has ended.
                    tokio::select! {
                        biased;
                        () = dialling_unwanted(&mut health) => counted = true,
                        _ = connections.join_next() => {}
                    }
                }
                Err(reason) => {
                    tracing::debug!(peer = self.link.peer.name, reason, failures, "dial failed");
                    self.link.set_error(reason);
                }
            }
        }
    }

    async fn dial(&self, failures: u32) -> Result<(quinn::Connection, Arc<InFlight>), String> {
        let address = &self.address;
        let resolving = timeout(RESOLVE, self.node.network.resolve(address)).await;
        let found = match resolving {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(format!("cannot resolve {address}: {error}")),
            Err(_) => return Err(format!("cannot resolve {address}: no answer")),
        };
        // Shifted each round, so that patience does not always fall to the same address.
        let turn = (failures + failures / DIAL_ROUND) as usize;
        let turn = turn.checked_rem(found.len());
        let Some(target) = turn.and_then(|turn| found.get(turn).copied()) else {
            return Err(format!("{address} stands for no address"));
        };
        self.link.set_target(target);
        let ipv6 = target.is_ipv6();
        let endpoint = self
            .sockets
            .endpoint(ipv6)
            .map_err(|error| format!("no socket for {target}: {error}"))?;
        let in_flight = Arc::new(InFlight::default());
        let mut attempt = Attempt { link: &self.link, in_flight: Some(in_flight.clone()) };
        let (patience, rtt) = dial_patience(failures);
        let (crypto, keep_alive) = (self.crypto.clone(), self.link.peer.rules.keep_alive);
        let config = settings::dialling(crypto, in_flight.clone(), rtt, keep_alive);
        let mut connecting =
            endpoint.connect_with(config, target, SERVER_NAME).map_err(|error| {
                if matches!(error, ConnectError::EndpointStopping) {
                    self.sockets.forget(ipv6);
                }
                format!("cannot dial {target}: {error}")
            })?;
        let (began, mut patience, mut answers) = (Instant::now(), patience, 0);
        let reason = loop {
            match timeout(patience, &mut connecting).await {
                Ok(Ok(connection)) => {
                    attempt.in_flight = None;
                    return Ok((connection, in_flight));
                }
                Ok(Err(error)) => break format!("{target}: {}", describe(&error)),
                // Each answer earns it some more time.
                Err(_) if in_flight.acks() > answers && began.elapsed() < DIAL_TIMEOUT_ANSWERED => {
                    (answers, patience) = (in_flight.acks(), DIAL_PATIENCE_ANSWERED);
                }
                Err(_) => break format!("{target} does not answer"),
            }
        };
        Err(reason)
    }
}

/// A dial, until it has led to a connection: what it takes counts, however it ends.
struct Attempt<'a> {
    link: &'a Link,
    in_flight: Option<Arc<InFlight>>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(in_flight) = &self.in_flight {
            self.link.waste(in_flight);
        }
    }
}

/// Never leaves the machine: keys, not names, are verified.
const SERVER_NAME: &str = "thinwire";

/// How often it is asked for the way to a peer: three calls of the system.
const ROUTE_EVERY: Duration = Duration::from_secs(1);

const RESOLVE: Duration = Duration::from_secs(4);

/// A connection that ends sooner counts as a failed dial.
const YOUNG: Duration = Duration::from_secs(10);
