//! A node for tests: identity, journal on a real disk, a committer, and a transport that can be killed.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tempfile::TempDir;
use thinwire_engine::{
    codec::RecordsBuf,
    journal::{self, Journal, Stream},
    model::{Epoch, Lsn, Offset, Record, RelationId, Row, Running, StreamId, Timestamp, Value},
    storage::disk::RealDisk,
};
use thinwire_transport::{
    Event, Identity, Network, Options, Peer, PeerStatus, PublicKey, Rules, StartError, Streams,
    Transport,
};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use crate::sim::{Host, Sim};

pub const PORT: u16 = 7420;

/// Runs in virtual time.
pub fn simulate<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(future)
}

pub struct Site {
    pub name: String,
    pub number: u8,
    pub identity: Identity,
    dir: TempDir,
    life: Option<Life>,
}

/// From a start to a kill.
struct Life {
    transport: Option<Transport>,
    journal: Arc<Journal>,
    committer: JoinHandle<()>,
    events: Mutex<mpsc::Receiver<Event>>,
}

impl Site {
    pub fn new(number: u8) -> Self {
        Self {
            name: format!("site{number}"),
            number,
            identity: Identity::generate().unwrap(),
            dir: tempfile::tempdir().unwrap(),
            life: None,
        }
    }

    pub fn key(&self) -> PublicKey {
        self.identity.public()
    }

    pub fn address(&self) -> String {
        format!("10.0.0.{}:{PORT}", self.number)
    }

    pub fn own_id(&self) -> StreamId {
        StreamId { origin: self.key().origin(), epoch: Epoch::from_bytes([self.number; 16]) }
    }

    /// This site as a peer that dials.
    pub fn as_peer(&self) -> Peer {
        Peer {
            name: self.name.clone(),
            key: self.key(),
            address: None,
            send: Streams::All,
            receive: Streams::All,
            rules: Rules::default(),
        }
    }

    /// This site as a peer that is dialled.
    pub fn as_dialled(&self) -> Peer {
        Peer { address: Some(self.address()), ..self.as_peer() }
    }

    pub fn start(&mut self, sim: &Arc<Sim>, peers: Vec<Peer>) {
        let host: Arc<Host> = sim.host(self.number);
        self.start_on(host, Some(self.address().parse().unwrap()), peers);
    }

    pub fn start_on(
        &mut self,
        network: Arc<dyn Network>,
        listen: Option<SocketAddr>,
        peers: Vec<Peer>,
    ) {
        let journal = self.open_journal();
        journal.open_stream(self.own_id()).unwrap();
        let (sender, events) = mpsc::channel(16);
        let options = Options {
            identity: self.identity.clone(),
            node_name: self.name.clone(),
            listen,
            peers,
            journal: journal.clone(),
            events: sender,
        };
        let transport = Transport::start_on(options, network).unwrap();
        let committer = tokio::spawn(commit(journal.clone()));
        let events = Mutex::new(events);
        self.life = Some(Life { transport: Some(transport), journal, committer, events });
    }

    /// Only the transport, which may not start.
    pub fn try_start(&self, listen: Option<SocketAddr>) -> Result<Transport, StartError> {
        Transport::start(Options {
            identity: self.identity.clone(),
            node_name: self.name.clone(),
            listen,
            peers: vec![],
            journal: self.open_journal(),
            events: mpsc::channel(1).0,
        })
    }

    /// Opens the journal again, once the last life has let go of it.
    fn open_journal(&self) -> Arc<Journal> {
        let dir = self.dir.path().join("journal");
        let options =
            journal::Options { own: self.key().origin(), segment: 256 << 10, budget: 1 << 30 };
        let (journal, unopened) = Journal::open(Arc::new(RealDisk), &dir, options).unwrap();
        assert!(unopened.is_empty(), "{unopened:?}");
        Arc::new(journal)
    }

    /// The file of one of its segments, by number.
    pub fn segment(&self, id: StreamId, number: usize) -> std::path::PathBuf {
        let dir = self.dir.path().join("journal").join(id.to_string());
        let mut files: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.swap_remove(number)
    }

    /// As a power cut does it: what was not durable is gone, nobody is told.
    pub async fn kill(&mut self) {
        if let Some(mut life) = self.life.take() {
            life.committer.abort();
            drop(life.transport.take());
            let gone = Arc::downgrade(&life.journal);
            drop(life);
            while gone.upgrade().is_some() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    pub async fn shutdown(&mut self) {
        let transport = self.life.as_mut().unwrap().transport.take().unwrap();
        transport.shutdown().await;
    }

    pub fn transport(&self) -> &Transport {
        self.life.as_ref().unwrap().transport.as_ref().unwrap()
    }

    pub fn journal(&self) -> &Arc<Journal> {
        &self.life.as_ref().unwrap().journal
    }

    pub fn own(&self) -> Arc<Stream> {
        self.journal().open_stream(self.own_id()).unwrap()
    }

    pub fn append(&self, records: &[Record]) {
        let mut buf = RecordsBuf::new();
        records.iter().for_each(|record| buf.push(record));
        self.own().append(buf.take()).unwrap();
        self.own().sync().unwrap();
    }

    /// Last record and running checksum of a stream, once that is durable; before, only the durable record.
    pub fn held(&self, id: StreamId) -> (Offset, Running) {
        let Some(stream) = self.journal().stream(id) else { return (Offset::ZERO, Running::START) };
        let (next, running, _) = stream.end();
        match stream.watermarks().synced {
            synced if synced == next.prev() => (synced, running),
            synced => (synced, Running::START),
        }
    }

    pub fn status(&self, of: &Site) -> PeerStatus {
        let peers = self.transport().peers();
        peers.into_iter().find(|peer| peer.name == of.name).unwrap()
    }

    pub fn next_event(&self) -> Option<Event> {
        self.life.as_ref().unwrap().events.lock().unwrap().try_recv().ok()
    }
}

/// Makes durable what is appended, where no thread may be used.
async fn commit(journal: Arc<Journal>) {
    loop {
        for stream in journal.streams() {
            stream.sync().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until something is so; says after how long, in the time of the test.
pub async fn until(what: &str, limit: Duration, mut so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < limit, "not after {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    start.elapsed()
}

pub async fn until_equal(from: &Site, to: &Site, id: StreamId, limit: Duration) -> Duration {
    until("equal", limit, || from.held(id) == to.held(id)).await
}

/// A transaction whose rows are noise, so that nothing is saved by compression.
pub fn transaction(xid: u32, rows: u64, bytes: usize) -> Vec<Record> {
    let mut records = vec![Record::Begin {
        xid,
        lsn: Lsn::new(u64::from(xid) * 100),
        time: Timestamp::default(),
    }];
    let mut state = (u64::from(xid) << 32) | 0x9E37_79B9;
    for _ in 0..rows {
        let noise: Vec<u8> = (0..bytes)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[3]
            })
            .collect();
        let new = Row(vec![Value::Bytes(Bytes::from(noise))]);
        records.push(Record::Insert { relation: RelationId(7), new });
    }
    records.push(Record::Commit { end: Lsn::new(u64::from(xid) * 100 + 50) });
    records
}
