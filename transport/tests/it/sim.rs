//! A network in memory: seeded links in virtual time.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use thinwire_transport::{Network, endpoint::Resolving};
use tokio::{sync::mpsc, time::Instant};

/// What a link is like, in each direction.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub bits_per_second: f64,
    pub delay: Duration,
    pub loss: f64,
}

/// 512 kbit/s, 600 ms there and back.
pub const SATELLITE: Kind =
    Kind { bits_per_second: 512_000.0, delay: Duration::from_millis(300), loss: 0.01 };

/// All hosts, and the links between them.
#[derive(Debug)]
pub struct Sim {
    kind: Kind,
    state: Mutex<State>,
    post: mpsc::UnboundedSender<Packet>,
}

#[derive(Debug)]
struct State {
    random: u64,
    up: bool,
    free_at: BTreeMap<(IpAddr, IpAddr), Instant>,
    sockets: BTreeMap<SocketAddr, Arc<Socket>>,
    next_port: u16,
    sent_bytes: u64,
    missing: bool,
}

#[derive(Debug)]
struct Packet {
    at: Instant,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Sim {
    pub fn new(kind: Kind, seed: u64) -> Arc<Self> {
        let (post, mut posted) = mpsc::unbounded_channel::<Packet>();
        let state = State {
            random: seed,
            up: true,
            free_at: BTreeMap::new(),
            sockets: BTreeMap::new(),
            next_port: 40_000,
            sent_bytes: 0,
            missing: false,
        };
        let sim = Arc::new(Self { kind, state: Mutex::new(state), post });
        let carrier = Arc::downgrade(&sim);
        tokio::spawn(async move {
            while let Some(packet) = posted.recv().await {
                let carrier = carrier.clone();
                tokio::spawn(async move {
                    tokio::time::sleep_until(packet.at).await;
                    if let Some(sim) = carrier.upgrade() {
                        sim.deliver(packet);
                    }
                });
            }
        });
        sim
    }

    /// The link comes up or goes down; what is on its way is lost.
    pub fn set_up(&self, up: bool) {
        self.state.lock().unwrap().up = up;
    }

    /// Whether addresses can be bound at all.
    pub fn set_missing(&self, missing: bool) {
        self.state.lock().unwrap().missing = missing;
    }

    /// Bytes of whole packets that were offered to links.
    pub fn sent_bytes(&self) -> u64 {
        self.state.lock().unwrap().sent_bytes
    }

    pub fn random(&self) -> u64 {
        self.state.lock().unwrap().random()
    }

    pub fn host(self: &Arc<Self>, number: u8) -> Arc<Host> {
        Arc::new(Host { sim: self.clone(), number })
    }

    /// A packet from anywhere arrives.
    pub fn throw(&self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.deliver(Packet { at: Instant::now(), from, to, bytes });
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap();
        let size = bytes.len() as u64 + 28;
        state.sent_bytes += size;
        let now = Instant::now();
        let free_at = state.free_at.get(&(from.ip(), to.ip())).copied().unwrap_or(now).max(now);
        // A queue of one second.
        let lost = state.chance() < self.kind.loss;
        if !state.up || lost || free_at - now > Duration::from_secs(1) {
            return;
        }
        let sent = free_at + Duration::from_secs_f64(size as f64 * 8.0 / self.kind.bits_per_second);
        state.free_at.insert((from.ip(), to.ip()), sent);
        let packet = Packet { at: sent + self.kind.delay, from, to, bytes: bytes.to_vec() };
        self.post.send(packet).unwrap();
    }

    fn deliver(&self, packet: Packet) {
        let socket = {
            let state = self.state.lock().unwrap();
            if !state.up {
                return;
            }
            state.sockets.get(&packet.to).cloned()
        };
        if let Some(socket) = socket {
            socket.push(packet.from, packet.bytes);
        }
    }
}

impl State {
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn chance(&mut self) -> f64 {
        (self.random() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A machine in the network.
#[derive(Debug)]
pub struct Host {
    sim: Arc<Sim>,
    number: u8,
}

impl Host {
    fn ip(&self) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, self.number).into()
    }
}

impl Network for Host {
    fn bind(&self, local: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let mut state = self.sim.state.lock().unwrap();
        if state.missing {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        state.next_port += 1;
        let port = if local.port() == 0 { state.next_port } else { local.port() };
        let address = SocketAddr::new(self.ip(), port);
        let socket = Arc::new(Socket { address, sim: self.sim.clone(), inbox: Mutex::default() });
        state.sockets.insert(address, socket.clone());
        Ok(socket)
    }

    fn resolve(&self, address: &str) -> Resolving {
        let parsed = address.parse().map_err(|_| io::Error::other("no such host"));
        Box::pin(async move { parsed.map(|address| vec![address]) })
    }

    fn seed(&self) -> Option<[u8; 32]> {
        let random = self.sim.random();
        let mut seed = [self.number; 32];
        seed[..8].copy_from_slice(&random.to_le_bytes());
        Some(seed)
    }
}

type Inbox = (VecDeque<(SocketAddr, Vec<u8>)>, Option<Waker>);

#[derive(Debug)]
struct Socket {
    address: SocketAddr,
    sim: Arc<Sim>,
    inbox: Mutex<Inbox>,
}

impl Socket {
    fn push(&self, from: SocketAddr, bytes: Vec<u8>) {
        let mut inbox = self.inbox.lock().unwrap();
        inbox.0.push_back((from, bytes));
        if let Some(waker) = inbox.1.take() {
            waker.wake();
        }
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.sim.send(self.address, transmit.destination, transmit.contents);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = self.inbox.lock().unwrap();
        let mut count = 0;
        while count < bufs.len()
            && let Some((from, bytes)) = inbox.0.pop_front()
        {
            let len = bytes.len().min(bufs[count].len());
            bufs[count][..len].copy_from_slice(&bytes[..len]);
            meta[count] = RecvMeta { addr: from, len, stride: len, ..RecvMeta::default() };
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        inbox.1 = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}
