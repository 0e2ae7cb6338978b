//! Keeps to what a user has said about when each peer is talked to, and how much.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use thinwire_engine::model::Origin;
use thinwire_transport::{Bar, PeerStatus, Transport};
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use super::{Node, lock};
use crate::{
    access::{Access, Ledger, Local, Stop},
    config::Config,
    state::State,
};

/// How often it is looked: what a link carries meanwhile may be too much.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A peer's terms, and what was last found.
#[derive(Debug, Default)]
pub(super) struct Door {
    pub(super) access: Access,
    /// What keeps it shut.
    stop: Option<Stop>,
    warned: bool,
}

/// The doors of all peers, with what their links have cost before.
pub(super) fn doors(config: &Config, state: &State) -> BTreeMap<Origin, Door> {
    let door = |name: &str, origin: Origin| {
        let mut ledger = Ledger::default();
        state.usage().iter().filter(|usage| usage.peer == origin).for_each(|usage| {
            ledger.add(usage.day, usage.bytes);
        });
        let terms = config.terms.get(name).cloned().unwrap_or_default();
        (origin, Door { access: Access::new(terms, ledger), ..Door::default() })
    };
    config.peers.iter().map(|peer| door(&peer.name, peer.origin())).collect()
}

/// Gives the doors the terms of another configuration. What links have cost, and who has set terms aside, stays, also of peers
/// that are gone: they may come back.
pub(super) fn exchange(held: &mut BTreeMap<Origin, Door>, config: &Config, state: &State) {
    for (origin, new) in doors(config, state) {
        match held.get_mut(&origin) {
            Some(door) => door.access.agree(new.access.terms().clone()),
            None => drop(held.insert(origin, new)),
        }
    }
}

fn look_at(doors: &mut BTreeMap<Origin, Door>, transport: &Transport, now: Local) {
    for peer in transport.peers() {
        let Some(door) = doors.get_mut(&peer.origin) else { continue };
        let bar = door.look(&peer, now);
        transport.bar(&peer.name, bar);
    }
}

impl Node {
    pub(super) async fn keep_doors(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        loop {
            self.look_at_doors(Local::now());
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                _ = stopped.changed() => return,
            }
        }
    }

    /// Counts what links have cost, and opens and shuts doors.
    pub(super) fn look_at_doors(&self, now: Local) {
        look_at(&mut lock(&self.doors), &self.transport, now);
    }

    /// Remembers what links have cost.
    pub(super) fn remember_costs(&self) {
        for (peer, door) in &*lock(&self.doors) {
            self.state.put_usage(*peer, door.access.ledger());
        }
    }

    /// Somebody says that a peer is to be talked to: ends a pause, or else sets its terms aside for today.
    pub(super) fn resume_peer(&self, name: &str, is_named: bool) {
        let Some(peer) = self.transport.peers().into_iter().find(|peer| peer.name == name) else {
            return;
        };
        if is_named && !peer.paused {
            let now = Local::now();
            if let Some(door) = lock(&self.doors).get_mut(&peer.origin) {
                door.access.set_aside(now);
            }
            info!(peer = name, "its window and budget do not count until the day is over");
            self.look_at_doors(now);
        }
        self.transport.resume(name);
    }

    /// Somebody says that a peer is not to be talked to. Its terms count again afterwards.
    pub(super) fn pause_peer(&self, name: &str) {
        if let Some(peer) = self.peers().known.iter().find(|peer| peer.name == name)
            && let Some(door) = lock(&self.doors).get_mut(&peer.origin())
        {
            door.access.keep();
        }
        self.transport.pause(name);
    }
}

impl Door {
    fn look(&mut self, peer: &PeerStatus, now: Local) -> Option<Bar> {
        self.access.count(now, peer.bytes_sent.saturating_add(peer.bytes_received));
        let stop = self.access.stop(now);
        let (before, after) = (self.stop.map(|stop| stop.cause), stop.map(|stop| stop.cause));
        match stop {
            Some(stop) if before != after => {
                let (code, seconds) = (stop.cause.code(), stop.lifts_in.as_secs());
                info!(peer = peer.name, code, seconds, "{}", stop.cause.sentence());
            }
            None if before.is_some() => info!(peer = peer.name, "may be talked to again"),
            _ => {}
        }
        let spent = self.access.spent(now);
        let warns = spent.is_nearly_over();
        if warns && !std::mem::replace(&mut self.warned, warns) {
            let (day_bytes, month_bytes) = (spent.day, spent.month);
            warn!(peer = peer.name, day_bytes, month_bytes, "most of its budget is spent");
        }
        self.warned = warns;
        self.stop = stop;
        stop.map(|stop| Bar { reason: stop.cause.sentence().to_owned(), lifts_in: stop.lifts_in })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use thinwire_engine::{
        codec::RecordsBuf,
        journal::{self, Journal},
        model::{Epoch, Lsn, Offset, Record, RelationId, Row, StreamId, Timestamp, Value},
        storage::memory::MemoryDisk,
    };
    use thinwire_transport::{Compression, Identity, Options, Peer, PublicKey, Rules, Streams};
    use tokio::sync::mpsc;

    use super::*;
    use crate::access::{Budget, Cause, Day, Terms, Windows};

    /// A node of which there is no more than what its links need.
    struct Site {
        key: PublicKey,
        journal: Arc<Journal>,
        transport: Transport,
    }

    impl Site {
        /// Must be called inside a runtime.
        fn start(identity: Identity, peers: Vec<Peer>) -> Self {
            let key = identity.public();
            let kept = journal::Options { own: key.origin(), segment: 1 << 20, budget: 1 << 30 };
            let disk = Arc::new(MemoryDisk::new());
            let journal = Arc::new(Journal::open(disk, "journal".as_ref(), kept).unwrap().0);
            journal.open_stream(own(key)).unwrap();
            tokio::spawn(commit(journal.clone()));
            let transport = Transport::start(Options {
                identity,
                node_name: "node".into(),
                listen: Some("127.0.0.1:0".parse().unwrap()),
                peers,
                journal: journal.clone(),
                events: mpsc::channel(1).0,
            });
            Self { key, journal, transport: transport.unwrap() }
        }

        fn held(&self, of: &Site) -> Offset {
            let stream = self.journal.stream(own(of.key));
            stream.map_or(Offset::ZERO, |stream| stream.watermarks().synced)
        }
    }

    fn own(key: PublicKey) -> StreamId {
        StreamId { origin: key.origin(), epoch: Epoch::from_bytes([1; 16]) }
    }

    async fn commit(journal: Arc<Journal>) {
        loop {
            journal.streams().iter().filter(|stream| stream.has_staged()).for_each(|stream| {
                stream.sync().unwrap();
            });
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// A node that has something for two others: with one of them there are terms, with the other none.
    struct Trio {
        doors: BTreeMap<Origin, Door>,
        here: Site,
        bound: Site,
        free: Site,
    }

    impl Trio {
        fn new(terms: Terms, ledger: Ledger) -> Self {
            let identity = Identity::generate().unwrap();
            let as_peer = |name: &str, key| Peer {
                name: name.into(),
                key,
                address: None,
                send: Streams::Own,
                receive: Streams::Own,
                rules: Rules { compression: Compression::None, ..Rules::default() },
            };
            let here = as_peer("here", identity.public());
            let other = || Site::start(Identity::generate().unwrap(), vec![here.clone()]);
            let (bound, free) = (other(), other());
            let dialled = |name, site: &Site, starts_barred| {
                let peer = as_peer(name, site.key);
                let address = site.transport.listening().map(|address| address.to_string());
                Peer { address, rules: Rules { starts_barred, ..peer.rules }, ..peer }
            };
            let peers = vec![dialled("bound", &bound, true), dialled("free", &free, false)];
            let door = Door { access: Access::new(terms, ledger), ..Door::default() };
            let doors = BTreeMap::from([(bound.key.origin(), door)]);
            Self { doors, here: Site::start(identity, peers), bound, free }
        }

        fn append(&self, bytes: usize) {
            let mut records = RecordsBuf::new();
            records.push(&Record::Begin { xid: 1, lsn: Lsn::new(1), time: Timestamp::default() });
            let new = Row(vec![Value::Bytes(vec![7; bytes].into())]);
            records.push(&Record::Insert { relation: RelationId(7), new });
            records.push(&Record::Commit { end: Lsn::new(2) });
            let stream = self.here.journal.stream(own(self.here.key)).unwrap();
            stream.append(records.take()).unwrap();
            stream.sync().unwrap();
        }

        fn has_all(&self, site: &Site) -> bool {
            site.held(&self.here) == self.here.held(&self.here)
        }

        /// The peer with terms, as it was last seen.
        fn peer(&self) -> PeerStatus {
            self.here.transport.peers().remove(0)
        }

        fn stop(&self) -> Option<Stop> {
            self.doors[&self.bound.key.origin()].stop
        }

        /// Waits for something while the clock on the wall shows `now`.
        async fn until(&mut self, now: Local, what: &str, so: impl Fn(&Self) -> bool) {
            let start = Instant::now();
            loop {
                look_at(&mut self.doors, &self.here.transport, now);
                if so(self) {
                    return;
                }
                assert!(start.elapsed() < Duration::from_secs(120), "in vain for {what}");
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    fn june(day: i8, hour: u32) -> Local {
        let weekday = (day - 1).rem_euclid(7).unsigned_abs();
        let day = Day { year: 2026, month: 6, day };
        Local { day, weekday, second: hour * 3_600, month_days: 30 }
    }

    #[tokio::test]
    async fn a_window_opens_and_shuts_by_itself_for_its_peer_alone() {
        let windows = Windows::parse(&["22:00-06:00"]).unwrap();
        let terms = Terms { windows, ..Terms::default() };
        let mut trio = Trio::new(terms, Ledger::default());
        trio.append(10);
        trio.until(june(1, 21), "the other", |it| it.has_all(&it.free)).await;
        assert_eq!(trio.stop().unwrap().cause, Cause::Window);
        assert_eq!(trio.peer().bytes_sent, 0);
        trio.until(june(1, 22), "all of it", |it| it.has_all(&it.bound)).await;

        trio.until(june(2, 6), "the end", |it| !it.peer().connected).await;
        trio.append(10);
        trio.until(june(2, 6), "the other", |it| it.has_all(&it.free)).await;
        assert!(!trio.has_all(&trio.bound));
        trio.until(june(2, 22), "the rest", |it| it.has_all(&it.bound)).await;
    }

    #[tokio::test]
    async fn a_spent_month_stops_its_peer_alone_until_the_next_month() {
        let mut ledger = Ledger::default();
        ledger.add(june(2, 0).day, 190_000);
        let budget = Budget { month: Some(200_000), ..Budget::default() };
        let mut trio = Trio::new(Terms { budget, ..Terms::default() }, ledger);
        trio.append(50_000);
        let spent = Stop { cause: Cause::Month, lifts_in: Duration::from_secs(12 * 3_600) };
        let is_over = |it: &Trio| it.stop() == Some(spent) && !it.peer().connected;
        trio.until(june(30, 12), "the end", is_over).await;
        trio.append(10);
        trio.until(june(30, 23), "the other", |it| it.has_all(&it.free)).await;
        assert!(!trio.has_all(&trio.bound));

        let first = Day { year: 2026, month: 7, day: 1 };
        let july = Local { day: first, weekday: 2, second: 0, month_days: 31 };
        trio.until(july, "all of it", |it| it.has_all(&it.bound)).await;
        assert_eq!(trio.stop(), None);
    }
}
