//! The composition root: which tasks a node is made of, who owns what, and the order in which they stop.
//!
//! One committer a stream; capture writes the node's own stream, the transport those of others; one applier a
//! received stream; a keeper that trims and remembers. They know each other only by the journal's watermarks.

mod access;
mod copies;
mod keeper;
mod mend;
mod peers;
mod report;
mod scope;
mod scrub;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::AtomicU64},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use thinwire_apply::{Applier, Seal, Target};
use thinwire_capture::{Capture, Pace, Source};
use thinwire_engine::{
    Error,
    journal::{Journal, Options, Stream, Unopened},
    model::{Epoch, Halt, HaltedBy, Origin, StreamId},
    storage::disk::RealDisk,
};
use thinwire_transport::{Event, Identity, Transport, session::PEER_AHEAD};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
};
use tracing::{error, info};

use crate::{
    access::{Local, clock},
    committer,
    config::Config,
    control::{Request, Response},
    database::Database,
    drain::Drain,
    forecast::Forecast,
    state::{Ack, State},
};
use peers::Peers;

/// A running node.
pub struct Node {
    config: Config,
    key: String,
    seal: Seal,
    /// When it was started, in seconds since 1970.
    since: u64,
    journal: Arc<Journal>,
    unopened: Mutex<Vec<Unopened>>,
    transport: Transport,
    peers: Mutex<Arc<Peers>>,
    /// Set once the node's own stream can be written.
    capture: OnceLock<Capture>,
    appliers: Mutex<BTreeMap<StreamId, Applier>>,
    /// What is being mended.
    patients: Mutex<BTreeSet<mend::Patient>>,
    mended: AtomicU64,
    /// When all of the journal had last been read in the background.
    scrubbed: Mutex<Option<Instant>>,
    /// For whom a copy is on its way.
    waiting: Mutex<copies::Waiting>,
    state: State,
    forecast: Mutex<Forecast>,
    drains: Mutex<BTreeMap<Origin, Drain>>,
    /// When each peer is talked to, and what that has cost.
    doors: Mutex<BTreeMap<Origin, access::Door>>,
    stop: watch::Sender<bool>,
    fatal: mpsc::UnboundedSender<String>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    committers: Mutex<Vec<JoinHandle<()>>>,
}

impl Node {
    /// Recovers the journal and starts everything that the configuration asks for. The receiver hears of a fault
    /// that only a restart can mend.
    ///
    /// # Errors
    /// A journal that another process holds or that cannot be used, a port that is taken.
    pub async fn start(
        config: Config,
        identity: Identity,
    ) -> Result<(Arc<Self>, mpsc::UnboundedReceiver<String>)> {
        let origin = identity.public().origin();
        let key = identity.public().to_string();
        let seal = Seal::new(&identity.to_bytes());
        let (journal, mut unopened) = open_journal(&config, origin).await?;
        let own = own_stream(&config, &journal, &mut unopened, origin)?;
        for Unopened { id, error, .. } in &unopened {
            error!(stream = %id, %error, "the stream is halted");
        }
        let (stop, stopped) = watch::channel(false);
        let (fatal, fatal_received) = mpsc::unbounded_channel();
        let (events, events_received) = mpsc::channel(64);
        let transport = Transport::start(thinwire_transport::Options {
            identity,
            node_name: config.name.clone(),
            listen: config.listen,
            peers: config.peers.clone(),
            journal: journal.clone(),
            events,
        })?;
        let state = State::open(&config.state_dir());
        let doors = Mutex::new(access::doors(&config, &state));
        let peers = Mutex::new(Arc::new(Peers::of(&config)));
        let capture = OnceLock::new();
        if let Some(started) = own.and_then(|stream| start_capture(&config, &state, stream)) {
            let _ = capture.set(started);
        }
        let node = Arc::new(Self {
            config,
            key,
            seal,
            since: clock::now(),
            journal,
            unopened: Mutex::new(unopened),
            transport,
            peers,
            capture,
            appliers: Mutex::default(),
            patients: Mutex::default(),
            mended: AtomicU64::new(0),
            scrubbed: Mutex::default(),
            waiting: Mutex::default(),
            state,
            forecast: Mutex::default(),
            drains: Mutex::default(),
            doors,
            stop,
            fatal,
            tasks: Mutex::default(),
            committers: Mutex::default(),
        });
        node.clone().start_tasks(stopped, events_received);
        info!(node = %node.config.name, key = %node.key, "running");
        Ok((node, fatal_received))
    }

    /// Answers a command of a user of the system.
    pub async fn handle(self: &Arc<Self>, request: Request, user: u32) -> Response {
        match request {
            Request::Status => Response::Status(Box::new(self.status())),
            Request::Pause(scope) => self.pause(&scope),
            Request::Resume(scope) => self.resume(&scope),
            Request::Retry(scope) => self.retry(&scope),
            Request::Skip(skip) => self.skip(&skip, user).await,
            Request::Reload => match self.reload() {
                Ok(()) => Response::Done,
                Err(why) => Response::Refused(why),
            },
        }
    }

    /// Ends the program, for a reason that only a person can mend.
    pub fn fail(&self, reason: String) {
        let _ = self.fatal.send(reason);
    }

    /// Drains and ends: first what writes, then the disk, then what tells others what is durable.
    pub async fn stop(&self) {
        let appliers = std::mem::take(&mut *lock(&self.appliers));
        let mut ending = JoinSet::new();
        for applier in appliers.into_values() {
            ending.spawn(async move { applier.shutdown().await });
        }
        if let Some(capture) = self.capture.get() {
            capture.shutdown().await;
        }
        ending.join_all().await;
        self.stop.send_replace(true);
        let committers = std::mem::take(&mut *lock(&self.committers));
        for committer in committers {
            let _ = committer.await;
        }
        self.transport.shutdown().await;
        self.look_at_doors(Local::now());
        self.remember();
        for task in std::mem::take(&mut *lock(&self.tasks)) {
            task.abort();
        }
    }

    fn start_tasks(self: Arc<Self>, stopped: watch::Receiver<bool>, events: mpsc::Receiver<Event>) {
        self.remind_of_acks();
        let tasks = [
            tokio::spawn(self.clone().attend_streams(stopped.clone())),
            tokio::spawn(self.clone().attend_events(events)),
            tokio::spawn(self.clone().look_for_damage(stopped.clone())),
            tokio::spawn(self.clone().keep_doors(stopped.clone())),
            tokio::spawn(self.clone().scrub(stopped.clone())),
            tokio::spawn(self.clone().keep(stopped)),
        ];
        lock(&self.tasks).extend(tasks);
    }

    /// Gives every stream, held or new, its committer and, if it is to be applied here, its applier.
    async fn attend_streams(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let mut changed = self.journal.watch();
        let mut attended = BTreeSet::new();
        loop {
            for stream in self.journal.streams() {
                if attended.insert(stream.id()) {
                    self.attend(stream, stopped.clone());
                }
            }
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                _ = stopped.changed() => return,
            }
        }
    }

    fn attend(&self, stream: Arc<Stream>, stopped: watch::Receiver<bool>) {
        let committer = committer::spawn(stream.clone(), stopped, self.fatal.clone());
        lock(&self.committers).push(committer);
        let received = stream.id().origin != self.journal.own();
        if let (true, Some(apply), Some(database)) =
            (received, &self.config.apply, &self.config.database)
        {
            let applier = Applier::start(thinwire_apply::Options {
                target: target(database),
                owner: apply.owner.as_ref().map(target),
                tables: apply.tables.clone(),
                stream: stream.clone(),
                node: self.journal.own(),
                seal: self.seal.clone(),
                conflicts: apply.conflicts,
                update_origin_differs: apply.update_origin_differs,
                delete_origin_differs: apply.delete_origin_differs,
                existing: apply.existing,
                is_shared: self.config.capture.is_some(),
            });
            let mut appliers = lock(&self.appliers);
            appliers.insert(stream.id(), applier);
            // Several lives of one origin's stream: the database says which one counts.
            let origin = stream.id().origin;
            let same: Vec<_> = appliers.iter().filter(|(id, _)| id.origin == origin).collect();
            if same.len() > 1 {
                same.into_iter().for_each(|(_, applier)| applier.share_target());
            }
        }
    }
}

fn target(database: &Database) -> Target {
    Target { config: database.config.clone(), tls: database.tls.clone() }
}

async fn open_journal(config: &Config, own: Origin) -> Result<(Arc<Journal>, Vec<Unopened>)> {
    let options = Options { own, segment: config.journal.segment, budget: config.journal.budget };
    let dir = config.journal_dir();
    let (journal, unopened) =
        tokio::task::spawn_blocking(move || Journal::open(Arc::new(RealDisk), &dir, options))
            .await?
            .with_context(|| format!("cannot open the journal of {}", config.name))?;
    Ok((Arc::new(journal), unopened))
}

/// The stream that capture writes; a new one, with a new epoch, if there is none.
fn own_stream(
    config: &Config,
    journal: &Journal,
    unopened: &mut Vec<Unopened>,
    own: Origin,
) -> Result<Option<Arc<Stream>>> {
    if config.capture.is_none() || unopened.iter().any(|stream| stream.id.origin == own) {
        return Ok(None);
    }
    let mut held = journal.streams();
    held.retain(|stream| stream.id().origin == own);
    match &held[..] {
        [] => {
            let mut epoch = [0; 16];
            ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut epoch)
                .map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
            let id = StreamId { origin: own, epoch: Epoch::from_bytes(epoch) };
            Ok(begin(journal, id, unopened)?)
        }
        [stream] => Ok(Some(stream.clone())),
        _ => bail!(
            "the journal holds two streams of this node; move the one that is not to be continued away from {}",
            config.journal_dir().display()
        ),
    }
}

/// Begins a stream. Where the disk does not take it for now, it is one of those that are opened later.
fn begin(
    journal: &Journal,
    id: StreamId,
    unopened: &mut Vec<Unopened>,
) -> Result<Option<Arc<Stream>>, Error> {
    match journal.open_stream(id) {
        Err(error) if mend::may_pass(&error) => {
            unopened.push(Unopened { id, bytes: 0, error });
            Ok(None)
        }
        opened => opened.map(Some),
    }
}

fn start_capture(config: &Config, state: &State, stream: Arc<Stream>) -> Option<Capture> {
    let (capture, database) = (config.capture.as_ref()?, config.database.as_ref()?);
    heed(state.acks(), &stream);
    let name = thinwire_capture::slot::name_for(&config.name);
    Some(Capture::start(thinwire_capture::Options {
        source: Source { config: database.config.clone(), tls: database.tls.clone() },
        slot: name.clone(),
        publication: name,
        stream,
        patterns: capture.tables.clone(),
        choice: capture.choice.clone(),
        ddl: capture.ddl,
        on_full: config.journal.on_full,
        pace: Pace::default(),
    }))
}

/// Has the node's own stream stand still if it ends before what a peer is remembered to hold of it: the disk was rolled
/// back, and what would be captured came under numbers that are taken. A peer that can be reached says so itself.
fn heed(acks: &[Ack], stream: &Stream) {
    let ends = stream.watermarks().synced;
    let ahead = acks.iter().filter(|ack| ack.stream == stream.id() && ack.acked > ends);
    if let Some(Ack { peer, acked, .. }) = ahead.max_by_key(|ack| ack.acked) {
        let detail = format!(
            "the peer {peer} had our records up to {acked}, and this node has them only up to {ends}: its disk was rolled back"
        );
        error!(stream = %stream.id(), detail, "the stream is halted");
        let halt = Halt { offset: Some(ends), ..Halt::new(PEER_AHEAD, detail) };
        stream.set_halted(HaltedBy::Transport, Some(halt));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use thinwire_engine::{
        codec::Records,
        model::{Lsn, Offset, Record},
        storage::memory::MemoryDisk,
    };

    use super::*;

    const OWN: Origin = Origin::from_bytes([1; 16]);
    const ID: StreamId = StreamId { origin: OWN, epoch: Epoch::from_bytes([2; 16]) };

    fn journal(disk: &MemoryDisk) -> (Journal, Vec<Unopened>) {
        let options = Options { own: OWN, segment: 1 << 20, budget: 1 << 30 };
        Journal::open(Arc::new(disk.clone()), "journal".as_ref(), options).unwrap()
    }

    #[test]
    fn a_stream_that_there_is_no_room_for_is_begun_later() {
        let disk = MemoryDisk::new();
        let (journal, mut unopened) = journal(&disk);
        disk.limit(Some(10));
        assert!(begin(&journal, ID, &mut unopened).unwrap().is_none());
        assert!(matches!(unopened[..], [Unopened { id: ID, error: Error::NoSpace { .. }, .. }]));
        disk.limit(None);
        assert!(begin(&journal, ID, &mut unopened).unwrap().is_some());
    }

    #[test]
    fn a_stream_that_ends_before_what_a_peer_is_remembered_to_hold_stands_still() {
        let (journal, _) = journal(&MemoryDisk::new());
        let stream = journal.open_stream(ID).unwrap();
        for number in 0..5 {
            stream.append(Records::one(&Record::Commit { end: Lsn::new(number) })).unwrap();
        }
        stream.sync().unwrap();
        let peer = Origin::from_bytes([3; 16]);
        let ack =
            |stream, acked| Ack { peer, stream, acked: Offset::new(acked), applied: Offset::ZERO };
        let other = StreamId { epoch: Epoch::from_bytes([4; 16]), ..ID };
        heed(&[ack(ID, 5), ack(ID, 2), ack(other, 9)], &stream);
        assert_eq!(stream.halted_by(HaltedBy::Transport), None);
        heed(&[ack(ID, 5), ack(ID, 6), ack(ID, 2)], &stream);
        let halt = stream.halted_by(HaltedBy::Transport).unwrap();
        assert_eq!((halt.code.as_str(), halt.offset), (PEER_AHEAD, Some(Offset::new(5))));
        assert!(halt.detail.contains("up to 6"), "{}", halt.detail);
    }
}
