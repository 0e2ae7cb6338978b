//! What is known of one peer, whatever connections come and go: which one counts, how far its streams are, what
//! it cost.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quinn::Connection;
use thinwire_engine::model::{Offset, Origin, StreamId};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    bar::{Bar, asks_for_peace},
    connection::{Conversation, End},
    orders::Orders,
    settings,
};
use crate::{
    congestion::{InFlight, ration::Ration, whole},
    frame::CopyRequest,
    peer::{Peer, Streams},
    session::{Violation, sender::PeerMarks},
};

/// A peer, and the connection to it if there is one.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: Peer,
    /// What caps all that is sent to it.
    pub(crate) ration: Option<Arc<Ration>>,
    own: Origin,
    inner: Mutex<Inner>,
    health: watch::Sender<Health>,
    /// Counts how often the way to the peer has changed.
    routes: watch::Sender<u64>,
    changed: watch::Sender<u64>,
}

/// Whether the peer can be reached, for who dials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) state: Reach,
    pub(crate) paused: bool,
    pub(crate) barred: bool,
    pub(crate) over: Option<Over>,
}

/// Why the link is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// There is another one to the same node.
    Changed,
    /// The node is no peer any more.
    Removed,
}

impl Health {
    /// Whether there should be a connection, and is none that shows life.
    pub(crate) fn wants_dialling(&self) -> bool {
        !self.paused && !self.barred && self.over.is_none() && self.state != Reach::Up
    }
}

/// How a peer can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reach {
    /// There is no connection.
    #[default]
    Down,
    /// There is one.
    Up,
    /// There is one that has been silent for too long.
    Suspect,
}

#[derive(Debug, Default)]
struct Inner {
    active: Option<Arc<Conversation>>,
    last_error: Option<String>,
    past: Traffic,
    known: BTreeMap<StreamId, PeerMarks>,
    serve_from: BTreeMap<StreamId, Offset>,
    goodput: f64,
    delivered: u64,
    wants: Option<Streams>,
    bar: Option<Bar>,
    /// The peer has asked not to be dialled before.
    not_before: Option<Instant>,
    unprimed: Option<Unprimed>,
    orders: Orders,
    target: Option<SocketAddr>,
}

/// Who did not hold what it was primed with, and when it said so.
#[derive(Clone, Copy, Debug)]
struct Unprimed {
    instance: u64,
    at: Instant,
}

/// Bytes of whole packets, headers of IP and UDP included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// What decides between two connections to the same peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Whether this node dialled it.
    pub(crate) dialled: bool,
    /// The peer's process at the other end.
    pub(crate) instance: u64,
    /// Whether its dialler had given up on those before it.
    pub(crate) replaces: bool,
}

/// How a peer is doing.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerStatus {
    /// What it is called here.
    pub name: String,
    /// The name that its streams bear.
    pub origin: Origin,
    /// Whether there is a connection that is not silent.
    pub connected: bool,
    /// The round trip, smoothed.
    pub rtt_ms: Option<u64>,
    /// Bits of records a second, before compression, that it acknowledged lately, while there was something to ship.
    pub goodput_bps: u64,
    /// Bytes of whole packets sent to it since the start.
    pub bytes_sent: u64,
    /// Bytes of whole packets that came from it since the start.
    pub bytes_received: u64,
    /// What last went wrong, until it is well again.
    pub last_error: Option<String>,
    /// Whether nothing is exchanged with it because somebody said so.
    pub paused: bool,
    /// The streams that go to it.
    pub streams: Vec<PeerStream>,
    /// Which of our streams it takes, as it said when it last connected.
    pub wants: Option<Streams>,
}

/// How far a stream is at a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStream {
    /// Which.
    pub id: StreamId,
    /// The last record that was sent.
    pub shipped: Offset,
    /// The last that is durable there.
    pub acked: Offset,
    /// The last that is in its database.
    pub applied: Offset,
}

impl Link {
    pub(crate) fn new(peer: Peer, own: Origin, changed: watch::Sender<u64>) -> Self {
        let ration = peer.rules.rate_limit.map(|bits| Arc::new(Ration::new(bits)));
        let barred = peer.rules.starts_barred;
        let bar = barred.then(Bar::at_start);
        Self {
            peer,
            ration,
            own,
            inner: Mutex::new(Inner { bar, ..Inner::default() }),
            health: watch::Sender::new(Health { barred, ..Health::default() }),
            routes: watch::Sender::new(0),
            changed,
        }
    }

    /// Knows what was known of the node by another link.
    pub(crate) fn inherit(&self, before: &Self) {
        let (mut inner, mut old) = (self.lock(), before.lock());
        inner.orders = std::mem::take(&mut old.orders);
        inner.past = old.past;
        inner.known.clone_from(&old.known);
        if let Some(active) = &old.active {
            inner.past.add(active.traffic());
            inner.known.extend(active.marks());
        }
        inner.serve_from.clone_from(&old.serve_from);
        inner.wants.clone_from(&old.wants);
        let paused = before.is_paused();
        self.health.send_modify(|health| health.paused = paused);
    }

    /// Nothing is exchanged with the peer over this link any more.
    pub(crate) fn end(&self, over: Over) {
        self.health.send_modify(|health| health.over = Some(over));
    }

    /// Waits until the link is no more.
    pub(crate) async fn ended(&self) {
        // The sender lives as long as the link.
        let _ = self.health().wait_for(|health| health.over.is_some()).await;
    }

    /// Counts what a dial took that led to no connection.
    pub(crate) fn waste(&self, in_flight: &InFlight) {
        let sent = in_flight.unruled();
        self.add_traffic(Traffic { sent, received: 0 });
        in_flight.govern(
            Instant::now().into_std(),
            self.peer.rules.congestion,
            self.ration.clone(),
        );
    }

    /// Counts a packet that belongs to no connection.
    pub(crate) fn knocked(&self, sent: u64) {
        self.add_traffic(Traffic { sent, received: 0 });
        if let Some(ration) = &self.ration {
            ration.spend(Instant::now().into_std(), sent);
        }
    }

    /// Lets a connection go on whenever what was sent is paid for.
    pub(crate) async fn keep_to_ration(&self, connection: &Connection) -> Infallible {
        let Some(ration) = &self.ration else { return std::future::pending().await };
        loop {
            ration.until_shut().await;
            while let Some(paid_at) = ration.opens_at(Instant::now().into_std()) {
                sleep_until(Instant::from_std(paid_at)).await;
            }
            settings::nudge(connection);
        }
    }

    /// Makes a connection the one that counts, or refuses it because there is a better one. The one that
    /// counted before is returned, to be closed.
    pub(crate) fn register(
        &self,
        new: &Arc<Conversation>,
    ) -> Result<Option<Arc<Conversation>>, Arc<Conversation>> {
        let mut inner = self.lock();
        let silent = self.health.borrow().state == Reach::Suspect;
        if let Some(held) = &inner.active
            && !held.is_over()
            && !prefer_new(self.own, self.peer.origin(), (held.facts, silent), new.facts)
        {
            return Err(held.clone());
        }
        let old = inner.active.replace(new.clone());
        if let Some(old) = &old {
            inner.retire(old);
        }
        inner.last_error = None;
        inner.not_before = None;
        drop(inner);
        self.set_reach(Reach::Up);
        Ok(old)
    }

    /// A connection is over.
    pub(crate) fn unregister(&self, over: &Arc<Conversation>) {
        let mut inner = self.lock();
        if !inner.active.as_ref().is_some_and(|active| Arc::ptr_eq(active, over)) {
            return;
        }
        inner.active = None;
        inner.retire(over);
        drop(inner);
        self.set_reach(Reach::Down);
    }

    /// The traffic of a connection that never counted.
    pub(crate) fn add_traffic(&self, traffic: Traffic) {
        self.lock().past.add(traffic);
    }

    /// The connection has become suspect, or has shown life again.
    pub(crate) fn suspect(&self, of: &Arc<Conversation>, suspect: bool) {
        let active = self.lock().active.clone();
        if active.is_some_and(|active| Arc::ptr_eq(&active, of)) {
            self.set_reach(if suspect { Reach::Suspect } else { Reach::Up });
        }
    }

    pub(crate) fn set_error(&self, error: impl Into<String>) {
        self.lock().last_error = Some(error.into());
        self.touch();
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.health.send_modify(|health| health.paused = paused);
        let active = self.lock().active.clone();
        if let Some(active) = active {
            active.pause(paused);
        }
        self.touch();
    }

    /// Exchanges nothing with the peer until told otherwise.
    pub(crate) fn set_bar(&self, bar: Option<Bar>) {
        let barred = bar.is_some();
        self.lock().bar = bar;
        self.health
            .send_if_modified(|health| std::mem::replace(&mut health.barred, barred) != barred);
    }

    /// Waits until nothing may be exchanged with the peer, and says why.
    pub(crate) async fn closed(&self) -> End {
        let mut health = self.health();
        loop {
            // The sender lives as long as the link.
            let _ = health.wait_for(|health| health.barred || health.over.is_some()).await;
            let (over, bar) = (health.borrow().over, self.lock().bar.clone());
            match (over, bar) {
                (Some(over), _) => return End::Over(over),
                (None, Some(bar)) => return End::Barred(bar),
                (None, None) => tokio::task::yield_now().await,
            }
        }
    }

    /// Leaves the peer alone, or begins without a common history, if that is how it ended a connection, which was to its
    /// process `instance` if that had said so. `random` spreads those that were asked at once.
    pub(crate) fn heed(&self, end: &End, instance: Option<u64>, random: u64) {
        if let Some(instance) = instance.filter(|_| end.says_unprimed()) {
            self.lock().unprimed = Some(Unprimed { instance, at: Instant::now() });
        }
        if let End::Lost(error) = end
            && let Some(peace) = asks_for_peace(error)
        {
            let spread = peace.mul_f64(PEACE_SPREAD * (random >> 11) as f64 / (1_u64 << 53) as f64);
            self.lock().not_before = Some(Instant::now() + peace + spread);
        }
    }

    /// Forgets that the peer asked to be left alone.
    pub(crate) fn disregard(&self) {
        self.lock().not_before = None;
        // The dialler looks again.
        self.health.send_modify(|_| {});
    }

    /// Whether both ends learn from what both hold: not if the same process of the peer has found that to differ lately.
    pub(crate) fn primes(&self, instance: u64) -> bool {
        let differs = |it: Unprimed| it.instance == instance && it.at.elapsed() < UNPRIMED_FOR;
        !self.lock().unprimed.is_some_and(differs)
    }

    /// Where the peer was dialled last.
    pub(crate) fn target(&self) -> Option<SocketAddr> {
        self.lock().target
    }

    pub(crate) fn set_target(&self, target: SocketAddr) {
        self.lock().target = Some(target);
    }

    /// The way to the peer has changed.
    pub(crate) fn reroute(&self) {
        self.routes.send_modify(|routes| *routes += 1);
    }

    /// Changes whenever the way to the peer has.
    pub(crate) fn routes(&self) -> watch::Receiver<u64> {
        self.routes.subscribe()
    }

    /// When the peer may be dialled, if it has asked for peace.
    pub(crate) fn not_before(&self) -> Option<Instant> {
        self.lock().not_before
    }

    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.health.borrow().paused
    }

    /// The copy that was made for the peer begins there.
    pub(crate) fn serve_from(&self, stream: StreamId, from: Offset) {
        let mut inner = self.lock();
        inner.serve_from.insert(stream, from);
        let active = inner.active.clone();
        drop(inner);
        if let Some(active) = active {
            active.serve_from(stream, from);
        }
    }

    /// Asks the peer for a copy; says whether there is a connection to ask over.
    pub(crate) fn request_copy(&self, request: CopyRequest) -> bool {
        let active = self.lock().active.clone();
        active.map(|active| active.request_copy(request)).is_some()
    }

    /// The peer asks for a copy; it is ordered with others that it asks for.
    pub(crate) fn order(&self, request: CopyRequest) -> Result<(), Violation> {
        self.lock().orders.add(request, Instant::now())
    }

    /// What it has asked for and is to be ordered now, and when there may be more.
    pub(crate) fn next_order(&self, now: Instant) -> (Option<CopyRequest>, Option<Instant>) {
        let mut inner = self.lock();
        (inner.orders.next(now), inner.orders.due())
    }

    /// The connection that counts.
    pub(crate) fn active(&self) -> Option<Arc<Conversation>> {
        self.lock().active.clone()
    }

    pub(crate) fn served_from(&self) -> BTreeMap<StreamId, Offset> {
        self.lock().serve_from.clone()
    }

    /// What the peer acknowledged in an earlier life of this process.
    pub(crate) fn know(&self, stream: StreamId, acked: Offset, applied: Offset) {
        let mut inner = self.lock();
        let marks = inner.known.entry(stream).or_default();
        marks.acked = marks.acked.max(acked);
        marks.applied = marks.applied.max(applied);
        marks.shipped = marks.shipped.max(acked);
    }

    pub(crate) fn known(&self) -> BTreeMap<StreamId, PeerMarks> {
        self.lock().known.clone()
    }

    /// The peer has acknowledged so many more bytes of records.
    pub(crate) fn delivered(&self, bytes: u64) {
        self.lock().delivered += bytes;
        self.touch();
    }

    /// So much time has passed; `busy` if something was on its way. Idle time says nothing about goodput.
    pub(crate) fn passed(&self, time: Duration, busy: bool) {
        let mut inner = self.lock();
        let delivered = std::mem::take(&mut inner.delivered);
        if busy || delivered > 0 {
            let sample = delivered as f64 / time.as_secs_f64();
            let weight = 1.0 - (-time.as_secs_f64() / GOODPUT_SECONDS).exp();
            inner.goodput += (sample - inner.goodput) * weight;
        }
    }

    pub(crate) fn status(&self) -> PeerStatus {
        let inner = self.lock();
        let health = *self.health.borrow();
        let mut known = inner.known.clone();
        let mut traffic = inner.past;
        if let Some(active) = &inner.active {
            traffic.add(active.traffic());
            known.extend(active.marks());
        }
        let streams = known.into_iter().map(|(id, marks)| PeerStream {
            id,
            shipped: marks.shipped,
            acked: marks.acked,
            applied: marks.applied,
        });
        PeerStatus {
            name: self.peer.name.clone(),
            origin: self.peer.origin(),
            connected: health.state == Reach::Up,
            rtt_ms: inner.active.as_ref().map(|active| millis(active.rtt())),
            goodput_bps: whole(inner.goodput * 8.0),
            bytes_sent: traffic.sent,
            bytes_received: traffic.received,
            last_error: inner.last_error.clone(),
            paused: health.paused,
            wants: inner.wants.clone(),
            streams: streams.collect(),
        }
    }

    /// What the peer takes from us, as it said last.
    pub(crate) fn set_wants(&self, wants: Streams) {
        self.lock().wants = Some(wants);
    }

    /// Something that the status shows has changed.
    pub(crate) fn touch(&self) {
        self.changed.send_modify(|generation| *generation += 1);
    }

    fn set_reach(&self, state: Reach) {
        self.health.send_modify(|health| health.state = state);
        self.touch();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Keeps what a connection that is over has to leave.
    fn retire(&mut self, over: &Conversation) {
        self.past.add(over.traffic());
        self.known.extend(over.marks());
    }
}

impl Traffic {
    fn add(&mut self, more: Self) {
        self.sent += more.sent;
        self.received += more.received;
    }
}

/// Waits until the peer should be dialled: it cannot be reached, and nobody has paused or barred it.
pub(crate) async fn dialling_wanted(health: &mut watch::Receiver<Health>) {
    // The sender lives as long as the link, which its dialler holds.
    let _ = health.wait_for(Health::wants_dialling).await;
}

/// Waits until there is a connection that shows life, or none is wanted.
pub(crate) async fn dialling_unwanted(health: &mut watch::Receiver<Health>) {
    let _ = health.wait_for(|health| !health.wants_dialling()).await;
}

/// Of two connections to one peer, both ends must keep the same one, each from what it knows.
fn prefer_new(own: Origin, peer: Origin, (held, silent): (Facts, bool), new: Facts) -> bool {
    // Another process at the other end: the one that held the old connection is gone.
    if new.instance != held.instance {
        return true;
    }
    if new.replaces || silent {
        return true;
    }
    // A node dials again only when it has lost its own.
    if new.dialled == held.dialled {
        return true;
    }
    // Both dialled at the same time.
    let by_smaller = |facts: Facts| facts.dialled == (own < peer);
    by_smaller(new)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// For how long it is believed that two ends do not hold the same. What differs is not always the history: a peer may
/// have let go of it since its hello. Being wrong again costs a handshake.
const UNPRIMED_FOR: Duration = Duration::from_secs(3_600);

/// By how much more peace is given than was asked for, at most.
const PEACE_SPREAD: f64 = 0.05;

/// Over how many seconds goodput is averaged.
const GOODPUT_SECONDS: f64 = 10.0;

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Origin = Origin::from_bytes([1; 16]);
    const LARGE: Origin = Origin::from_bytes([2; 16]);

    fn facts(dialled: bool, instance: u64) -> Facts {
        Facts { dialled, instance, replaces: false }
    }

    #[test]
    fn both_ends_keep_the_same_of_two_that_crossed() {
        // The small one's dial arrives at the large one after its own was registered, and the other way round.
        let at_small = prefer_new(SMALL, LARGE, (facts(true, 9), false), facts(false, 9));
        let at_large = prefer_new(LARGE, SMALL, (facts(true, 8), false), facts(false, 8));
        assert!(!at_small && at_large);
        let at_small = prefer_new(SMALL, LARGE, (facts(false, 9), false), facts(true, 9));
        let at_large = prefer_new(LARGE, SMALL, (facts(false, 8), false), facts(true, 8));
        assert!(at_small && !at_large);
    }

    #[test]
    fn a_restarted_peer_replaces_its_dead_connection_at_once() {
        for dialled in [false, true] {
            assert!(prefer_new(SMALL, LARGE, (facts(dialled, 1), false), facts(false, 2)));
        }
    }

    #[test]
    fn who_gave_up_or_hears_nothing_takes_the_new_one() {
        let held = facts(true, 9);
        let new = facts(false, 9);
        assert!(!prefer_new(SMALL, LARGE, (held, false), new));
        assert!(prefer_new(SMALL, LARGE, (held, true), new));
        assert!(prefer_new(SMALL, LARGE, (held, false), Facts { replaces: true, ..new }));
    }
}
