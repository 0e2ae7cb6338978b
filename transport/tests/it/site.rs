//! A node for tests: identity, journal on a disk in memory, a committer, and a transport that can be killed.

use std::{
    collections::BTreeSet,
    future::Future,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use ring::signature::{Ed25519KeyPair, KeyPair};
use thinwire_engine::{
    codec::RecordsBuf,
    journal::{self, Journal, Stream},
    model::{Epoch, Lsn, Offset, Record, RelationId, Row, Running, StreamId, Timestamp, Value},
    storage::memory::MemoryDisk,
};
use thinwire_transport::{
    Event, Identity, Network, Options, Peer, PeerStatus, PublicKey, Rules, StartError, Streams,
    Transport,
};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use crate::sim::{Host, Sim};

pub const PORT: u16 = 7420;

/// Runs in virtual time.
pub fn simulate<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(future)
}

pub struct Site {
    pub name: String,
    pub number: u8,
    pub identity: Identity,
    pub budget: u64,
    disk: MemoryDisk,
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
            identity: identity(number),
            budget: 1 << 30,
            disk: MemoryDisk::new(),
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
        let options =
            journal::Options { own: self.key().origin(), segment: 256 << 10, budget: self.budget };
        let disk = Arc::new(self.disk.clone());
        let (journal, unopened) = Journal::open(disk, Path::new(JOURNAL), options).unwrap();
        assert!(unopened.is_empty(), "{unopened:?}");
        Arc::new(journal)
    }

    /// Ruins a stretch in the middle of one of its segments.
    pub fn ruin(&self, id: StreamId, segment: usize) {
        let dir = Path::new(JOURNAL).join(id.to_string());
        let mut files = self.disk.files();
        files.retain(|file| file.starts_with(&dir));
        files.sort();
        let mut bytes = self.disk.content(&files[segment]);
        let middle = bytes.len() / 2;
        let end = bytes.len().min(middle + 3_000);
        bytes[middle..end].fill(0x5A);
        self.disk.put(&files[segment], bytes);
    }

    /// The process ends at once, and nobody is told.
    pub async fn kill(&mut self) {
        self.end_life().await;
        self.disk = self.disk.copy();
    }

    /// The same of the whole machine: of what was not durable `choose` says what is left.
    pub async fn cut_power(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        self.end_life().await;
        self.disk = self.disk.power_cut(choose);
    }

    /// The disk as it is, for a backup.
    pub fn disk(&self) -> MemoryDisk {
        self.disk.copy()
    }

    /// A backup is put back while nothing runs.
    pub fn restore(&mut self, disk: MemoryDisk) {
        self.disk = disk;
    }

    async fn end_life(&mut self) {
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

    pub fn is_alive(&self) -> bool {
        self.life.is_some()
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
        self.stage(records);
        self.own().sync().unwrap();
    }

    /// Appends records, which are durable soon.
    pub fn stage(&self, records: &[Record]) {
        let mut buf = RecordsBuf::new();
        records.iter().for_each(|record| buf.push(record));
        self.own().append(buf.take()).unwrap();
    }

    /// All that is held of a stream.
    pub fn records(&self, id: StreamId) -> Vec<Record> {
        let stream = self.journal().stream(id).unwrap();
        let (mut reader, mut all) = (stream.read(Offset::FIRST).unwrap(), Vec::new());
        while let Some(block) = reader.next_block().unwrap() {
            all.extend(block.records.decode(block.first).map(|record| record.unwrap().1));
        }
        all
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
    let (mut changed, mut committers) = (journal.watch(), JoinSet::new());
    let mut committed = BTreeSet::new();
    loop {
        changed.mark_unchanged();
        for stream in journal.streams() {
            if committed.insert(stream.id()) {
                committers.spawn(commit_stream(stream));
            }
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}

async fn commit_stream(stream: Arc<Stream>) {
    let mut marks = stream.watch();
    loop {
        if stream.has_staged() {
            tokio::time::sleep(COMMIT_EVERY).await;
            stream.sync().unwrap();
        }
        if marks.changed().await.is_err() {
            return;
        }
    }
}

/// The same key for a number in each run, so that runs can be repeated.
pub fn identity(number: u8) -> Identity {
    let seed = [number; 32];
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    // An ed25519 private key with its public key, as RFC 8410 writes it.
    let head = [
        0x30, 0x51, 0x02, 0x01, 0x01, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    let public = [0x81, 0x21, 0x00];
    let bytes = [head.as_slice(), &seed, &public, pair.public_key().as_ref()].concat();
    Identity::from_bytes(&bytes).unwrap()
}

/// What a commit takes.
const COMMIT_EVERY: Duration = Duration::from_millis(5);

const JOURNAL: &str = "journal";

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
