//! Dials a peer for ever: whatever is missing, now or later, is weather.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use quinn::{ConnectError, Connection, crypto::rustls::QuicClientConfig};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    connection::{Fresh, converse, describe},
    link::{Link, Reach, dialling_unwanted, dialling_wanted},
    network::Awaited,
    node::Node,
    settings,
    sockets::Sockets,
};
use crate::{
    backoff::{
        DIAL_PATIENCE_ANSWERED, DIAL_ROUND, DIAL_TIMEOUT_ANSWERED, dial_away_delay, dial_delay,
        dial_patience, probe_interval,
    },
    congestion::InFlight,
};

/// Keeps a connection to a peer.
pub(crate) struct Dialer {
    pub(crate) node: Arc<Node>,
    pub(crate) link: Arc<Link>,
    pub(crate) address: String,
    pub(crate) crypto: Arc<QuicClientConfig>,
    pub(crate) sockets: Arc<Sockets>,
}

impl Dialer {
    /// Runs until the node stops or the link is no more, and its connections have ended.
    pub(crate) async fn run(self) {
        let mut connections = JoinSet::new();
        tokio::select! {
            biased;
            () = self.dial_for_ever(&mut connections) => {}
            () = self.watch_route() => {}
            () = self.link.ended() => {}
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
        let mut tries = Tries::new(Instant::now());
        loop {
            let well = !health.borrow().wants_dialling();
            dialling_wanted(&mut health).await;
            if well {
                tries.end_of_life(Instant::now());
            }
            let reach = health.borrow().state;
            let now = Instant::now();
            let peace = self.link.not_before().filter(|until| *until > now);
            // What dialling in vain has cost counts too.
            let ration = self.link.ration.as_ref();
            let paid_at = ration.and_then(|ration| ration.opens_at(now.into_std()));
            let knocks = peace.is_none() && reach == Reach::Down && tries.knocks();
            let due = tries.due(reach, self.node.random());
            let due = due.max(peace).max(paid_at.map(Instant::from_std)).unwrap_or(now);
            tokio::select! {
                biased;
                () = sleep_until(due) => {}
                _ = health.changed() => continue,
                _ = routes.changed() => {
                    tries.reroute();
                    continue;
                }
                () = self.knock(tries.away), if knocks => {
                    tries.answered = true;
                    continue;
                }
            }
            let reach = health.borrow().state;
            let failures = tries.begin(Instant::now());
            let dialled = tokio::select! {
                biased;
                dialled = self.dial(failures) => dialled,
                () = dialling_unwanted(&mut health) => continue,
                _ = routes.changed() => {
                    tries.reroute();
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
                        () = dialling_unwanted(&mut health) => tries.counted = true,
                        _ = connections.join_next() => {}
                    }
                }
                Err(Failed { reason, unanswered }) => {
                    tries.unanswered += u32::from(unanswered);
                    tracing::debug!(peer = self.link.peer.name, reason, failures, "dial failed");
                    self.link.set_error(reason);
                }
            }
        }
    }

    /// Asks whether somebody is there, again and again, until there is.
    async fn knock(&self, away: Instant) {
        let packet = settings::knock(self.link.peer.key);
        let mut heard: Option<Awaited> = None;
        loop {
            let target = self.link.target();
            let sent = target.and_then(|target| self.sockets.knock(target, &packet));
            if let (Some(target), Some((bytes, tally))) = (target, sent) {
                self.link.knocked(bytes);
                // Counts from here on, however long the answer takes.
                heard.get_or_insert_with(|| tally.await_from(target));
            }
            let answers = async {
                match &heard {
                    Some(heard) => heard.come().await,
                    None => std::future::pending().await,
                }
            };
            if timeout(probe_interval(away.elapsed()), answers).await.is_ok() {
                return;
            }
        }
    }

    async fn dial(&self, failures: u32) -> Result<(Connection, Arc<InFlight>), Failed> {
        let address = &self.address;
        let resolving = timeout(RESOLVE, self.node.network.resolve(address)).await;
        let found = match resolving {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(format!("cannot resolve {address}: {error}").into()),
            Err(_) => return Err(format!("cannot resolve {address}: no answer").into()),
        };
        // Shifted each round, so that patience does not always fall to the same address.
        let turn = (failures + failures / DIAL_ROUND) as usize;
        let turn = turn.checked_rem(found.len());
        let Some(target) = turn.and_then(|turn| found.get(turn).copied()) else {
            return Err(format!("{address} stands for no address").into());
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
        Err(Failed { reason, unanswered: true })
    }
}

/// A dial that led to no connection.
struct Failed {
    reason: String,
    /// Whether anything has left for the peer.
    unanswered: bool,
}

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Self { reason, unanswered: false }
    }
}

/// What was tried since there was a connection.
struct Tries {
    failures: u32,
    /// Those of them that were not for want of a name, a socket or an address here, which costs nothing on the link.
    unanswered: u32,
    last: Option<Instant>,
    /// Since when there is none.
    away: Instant,
    /// The last dial led to a connection that counted.
    counted: bool,
    /// The way to the peer has changed since the last dial.
    rerouted: bool,
    /// Somebody has answered a knock since the last dial.
    answered: bool,
    /// How many dials were begun after such an answer: where they fail, the path swallows dials alone.
    heeded: u32,
}

impl Tries {
    fn new(away: Instant) -> Self {
        Self {
            failures: 0,
            unanswered: 0,
            last: None,
            away,
            counted: false,
            rerouted: false,
            answered: false,
            heeded: 0,
        }
    }

    /// Whether to ask for an answer before the next dial.
    fn knocks(&self) -> bool {
        self.unanswered > KNOCK_AFTER && !self.answered
    }

    /// When to dial next; `None` for at once.
    fn due(&mut self, reach: Reach, random: u64) -> Option<Instant> {
        let last = self.last?;
        let delay = match reach {
            // What was tried over another way says nothing about this one.
            _ if std::mem::take(&mut self.rerouted) => dial_delay(0, random),
            Reach::Suspect => dial_away_delay(self.unanswered, random),
            _ if self.answered && self.heeded == 0 => dial_delay(self.failures, random),
            _ if self.answered => dial_away_delay(self.heeded, random),
            _ if self.unanswered > KNOCK_AFTER => {
                dial_away_delay(self.unanswered - KNOCK_AFTER, random)
            }
            _ => dial_delay(self.failures, random),
        };
        Some(last + delay)
    }

    /// There was a connection that showed life, and there is none any more. One that lived is no failure; one that was
    /// dialled and died young is.
    fn end_of_life(&mut self, now: Instant) {
        let dialled = std::mem::take(&mut self.counted);
        let young = self.last.is_some_and(|last| now - last <= YOUNG);
        if !(dialled && young) {
            (self.failures, self.unanswered, self.away) = (0, 0, now);
            self.heeded = 0;
        }
    }

    /// A dial begins; says how many have failed before.
    fn begin(&mut self, now: Instant) -> u32 {
        self.last = Some(now);
        self.heeded += u32::from(std::mem::take(&mut self.answered));
        let before = self.failures;
        self.failures += 1;
        before
    }

    fn reroute(&mut self) {
        (self.failures, self.unanswered, self.rerouted) = (0, 0, true);
        self.heeded = 0;
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

/// After how many dials in vain it is rather knocked: a round of all kinds of patience.
const KNOCK_AFTER: u32 = DIAL_ROUND;

/// A connection that ends sooner counts as a failed dial.
const YOUNG: Duration = Duration::from_secs(10);
