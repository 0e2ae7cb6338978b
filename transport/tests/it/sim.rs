//! A network in memory: seeded links in virtual time, and all that can go wrong on them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use thinwire_bench::link::{Fate, Link, Transit};
use thinwire_transport::{Network, endpoint::Resolving};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::site::PORT;

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

/// What carries the packets.
#[derive(Clone, Copy, Debug)]
enum Carrier {
    Kind(Kind),
    /// A link of the benchmarks, with a seed of its own in each direction.
    Link(Link, u64),
}

/// What goes wrong for a while, beside what the link is like anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// The share of packets that are lost.
    pub loss: f64,
    /// The share that comes twice.
    pub duplicate: f64,
    /// The share that comes late, and so behind others, by up to a second.
    pub late: f64,
    /// The share in which a bit is flipped.
    pub corrupt: f64,
    /// Longer packets vanish.
    pub size_max: Option<usize>,
    /// The machine that nothing reaches.
    pub deaf: Option<u8>,
}

/// All hosts, and the links between them.
#[derive(Debug)]
pub struct Sim {
    carrier: Carrier,
    start: Instant,
    state: Mutex<State>,
    post: mpsc::UnboundedSender<Packet>,
}

#[derive(Debug)]
struct State {
    random: u64,
    up: bool,
    faults: Faults,
    bottleneck: Option<IpAddr>,
    free_at: BTreeMap<(IpAddr, IpAddr), Instant>,
    transits: BTreeMap<(IpAddr, IpAddr), Transit>,
    sockets: BTreeMap<SocketAddr, Arc<Socket>>,
    next_port: u16,
    /// By how much address translation shifts the ports that a machine dials from.
    shifts: BTreeMap<IpAddr, u16>,
    sent_bytes: u64,
    sent_packets: u64,
    /// Bytes without headers that one machine sent to another.
    between: BTreeMap<(IpAddr, IpAddr), u64>,
    /// How many bytes the link carries before it loses all that follows.
    lifetime: Option<u64>,
    missing: bool,
    /// Where from and when connections were dialled, and what tells one from another.
    dials: Vec<(Instant, IpAddr)>,
    dialled: BTreeSet<(IpAddr, Vec<u8>)>,
    trace: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    at: Instant,
    number: u64,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Sim {
    pub fn new(kind: Kind, seed: u64) -> Arc<Self> {
        Self::carried(Carrier::Kind(kind), seed)
    }

    /// Hosts that have a link of the benchmarks between them.
    pub fn over(link: Link, seed: u64) -> Arc<Self> {
        Self::carried(Carrier::Link(link, seed), seed)
    }

    fn carried(carrier: Carrier, seed: u64) -> Arc<Self> {
        let (post, posted) = mpsc::unbounded_channel::<Packet>();
        let state = State {
            random: seed,
            up: true,
            faults: Faults::default(),
            bottleneck: None,
            free_at: BTreeMap::new(),
            transits: BTreeMap::new(),
            sockets: BTreeMap::new(),
            next_port: 40_000,
            shifts: BTreeMap::new(),
            sent_bytes: 0,
            sent_packets: 0,
            between: BTreeMap::new(),
            lifetime: None,
            missing: false,
            dials: Vec::new(),
            dialled: BTreeSet::new(),
            trace: 0,
        };
        let sim = Arc::new(Self { carrier, start: Instant::now(), state: Mutex::new(state), post });
        tokio::spawn(carry(Arc::downgrade(&sim), posted));
        sim
    }

    /// The link comes up or goes down; what is on its way is lost.
    pub fn set_up(&self, up: bool) {
        self.state().up = up;
    }

    /// What goes wrong from here on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// All that is sent to a machine passes through one queue from here on, and all that it sends through another.
    pub fn set_bottleneck(&self, number: u8) {
        self.state().bottleneck = Some(ip(number));
    }

    /// Whether addresses can be bound at all.
    pub fn set_missing(&self, missing: bool) {
        self.state().missing = missing;
    }

    /// Lets the link carry so many bytes more; the packet in which they end comes cut. `None` for any number.
    pub fn set_lifetime(&self, bytes: Option<u64>) {
        self.state().lifetime = bytes;
    }

    /// What a machine dials from has another address from here on, and nothing finds the old one.
    pub fn readdress(&self, number: u8) {
        *self.state().shifts.entry(ip(number)).or_default() += SHIFT;
    }

    /// Bytes of whole packets that were offered to links.
    pub fn sent_bytes(&self) -> u64 {
        self.state().sent_bytes
    }

    /// Packets that were offered to links.
    pub fn sent_packets(&self) -> u64 {
        self.state().sent_packets
    }

    /// What of those is no header of IP and UDP.
    pub fn sent_payload(&self) -> u64 {
        let state = self.state();
        state.sent_bytes - HEADERS * state.sent_packets
    }

    /// Bytes without headers that one machine sent to another.
    pub fn sent_between(&self, from: u8, to: u8) -> u64 {
        self.state().between.get(&(ip(from), ip(to))).copied().unwrap_or_default()
    }

    /// Bytes without headers that came from nowhere, and that were sent there.
    pub fn exchanged_with_nowhere(&self) -> (u64, u64) {
        let state = self.state();
        let sum = |counts: &dyn Fn(&(IpAddr, IpAddr)) -> bool| {
            state.between.iter().filter(|(way, _)| counts(way)).map(|(_, bytes)| bytes).sum()
        };
        (sum(&|(from, _)| *from >= ip(NOWHERE)), sum(&|(_, to)| *to >= ip(NOWHERE)))
    }

    /// When a machine dialled.
    pub fn dials(&self, number: u8) -> Vec<Instant> {
        let state = self.state();
        let of_it = state.dials.iter().filter(|(_, from)| *from == ip(number));
        of_it.map(|(at, _)| *at).collect()
    }

    /// A number that is the same if all packets were, at the same times.
    pub fn trace(&self) -> u64 {
        self.state().trace
    }

    pub fn random(&self) -> u64 {
        self.state().random()
    }

    pub fn host(self: &Arc<Self>, number: u8) -> Arc<Host> {
        Arc::new(Host { sim: self.clone(), number })
    }

    /// A packet from anywhere arrives.
    pub fn throw(&self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.deliver(Packet { at: Instant::now(), number: 0, from, to, bytes });
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let now = Instant::now();
        let mut state = self.state();
        let size = bytes.len() as u64 + HEADERS;
        state.note(now, now - self.start, from, to, bytes);
        let Some(bytes) = state.spoil(to, bytes) else { return };
        let arrival = match self.carrier {
            Carrier::Kind(kind) => {
                let queue = state.queue(from.ip(), to.ip());
                state.pass(kind, now, queue, size)
            }
            Carrier::Link(link, seed) => {
                let transit = state.transit(link, seed, (from.ip(), to.ip()));
                match transit.offer(now - self.start, size) {
                    Fate::Arrives(at) => Some(self.start + at),
                    Fate::Lost | Fate::Overflows | Fate::Cut => None,
                }
            }
        };
        let Some(arrival) = arrival else { return };
        let copies = 1 + u32::from(state.chance() < state.faults.duplicate);
        for _ in 0..copies {
            let late = match state.chance() < state.faults.late {
                true => Duration::from_secs_f64(state.chance()),
                false => Duration::ZERO,
            };
            let (at, number) = (arrival + late, state.sent_packets);
            self.post.send(Packet { at, number, from, to, bytes: bytes.clone() }).unwrap();
        }
    }

    fn deliver(&self, packet: Packet) {
        let socket = {
            let mut state = self.state();
            let (way, size) = ((packet.from.ip(), packet.to.ip()), packet.bytes.len() as u64);
            let is_cut = match self.carrier {
                Carrier::Kind(_) => false,
                Carrier::Link(link, seed) => {
                    let (now, transit) = (self.start.elapsed(), state.transit(link, seed, way));
                    !transit.arrives(now, size + HEADERS)
                }
            };
            if !state.up || is_cut {
                return;
            }
            state.behind_translation(packet.to)
        };
        if let Some(socket) = socket {
            socket.push(packet.from, packet.bytes);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// Brings packets when they are due.
async fn carry(sim: Weak<Sim>, mut posted: mpsc::UnboundedReceiver<Packet>) {
    let mut due = BinaryHeap::<Reverse<Packet>>::new();
    loop {
        let next = due.peek().map(|Reverse(packet)| packet.at);
        tokio::select! {
            biased;
            packet = posted.recv() => match packet {
                Some(packet) => due.push(Reverse(packet)),
                None => return,
            },
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                let Some(sim) = sim.upgrade() else { return };
                if let Some(Reverse(packet)) = due.pop() {
                    sim.deliver(packet);
                }
            }
        }
    }
}

impl State {
    /// Writes down that a packet was sent.
    fn note(&mut self, now: Instant, at: Duration, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.sent_bytes += bytes.len() as u64 + HEADERS;
        self.sent_packets += 1;
        *self.between.entry((from.ip(), to.ip())).or_default() += bytes.len() as u64;
        let at = u64::from(at.subsec_nanos()) ^ at.as_secs().rotate_left(32);
        for number in [at, from.port().into(), to.port().into(), bytes.len() as u64] {
            self.trace = (self.trace.rotate_left(5) ^ number).wrapping_mul(0x517C_C1B7_2722_0A95);
        }
        let dials = to.port() == PORT && from.port() != PORT;
        if let Some(id) = initial_source(bytes).filter(|_| dials)
            && self.dialled.insert((from.ip(), id))
        {
            self.dials.push((now, from.ip()));
        }
    }

    /// What packets from one machine to another wait in.
    fn queue(&self, from: IpAddr, to: IpAddr) -> (IpAddr, IpAddr) {
        const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        match self.bottleneck {
            Some(here) if here == to => (ANY, to),
            Some(here) if here == from => (from, ANY),
            _ => (from, to),
        }
    }

    /// When a packet of so many bytes arrives over a link that is as it is.
    fn pass(
        &mut self,
        kind: Kind,
        now: Instant,
        way: (IpAddr, IpAddr),
        bytes: u64,
    ) -> Option<Instant> {
        let free_at = self.free_at.get(&way).copied().unwrap_or(now).max(now);
        let lost = self.chance() < kind.loss;
        // A queue of one second, or of a few packets where those take longer.
        let takes = |bytes: f64| Duration::from_secs_f64(bytes * 8.0 / kind.bits_per_second);
        if lost || free_at - now > takes(QUEUE_MIN).max(Duration::from_secs(1)) {
            return None;
        }
        let sent = free_at + takes(bytes as f64);
        self.free_at.insert(way, sent);
        Some(sent + kind.delay)
    }

    /// One direction of a link of the benchmarks.
    fn transit(&mut self, link: Link, seed: u64, way: (IpAddr, IpAddr)) -> &mut Transit {
        let number = self.transits.len() as u64;
        self.transits.entry(way).or_insert_with(|| Transit::new(link, seed + number))
    }

    /// What is left of a packet.
    fn spoil(&mut self, to: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
        let faults = self.faults;
        let mut bytes = bytes.to_vec();
        if let Some(left) = &mut self.lifetime {
            let whole = bytes.len() as u64;
            bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left = left.saturating_sub(whole);
        }
        let vanishes = faults.size_max.is_some_and(|max| bytes.len() > max)
            || faults.deaf.is_some_and(|number| to.ip() == ip(number))
            || to.ip() >= ip(NOWHERE)
            || !self.up
            || self.chance() < faults.loss;
        if vanishes || bytes.is_empty() {
            return None;
        }
        if self.chance() < faults.corrupt {
            let bit = usize::try_from(self.random() % (bytes.len() as u64 * 8)).unwrap();
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        Some(bytes)
    }

    /// The socket that an address stands for.
    fn behind_translation(&self, to: SocketAddr) -> Option<Arc<Socket>> {
        let shift = self.shifts.get(&to.ip()).copied().unwrap_or_default();
        let port = match to.port() {
            PORT => PORT,
            port => port.checked_sub(shift)?,
        };
        self.sockets.get(&SocketAddr::new(to.ip(), port)).cloned()
    }

    /// What others see of an address.
    fn translated(&self, from: SocketAddr) -> SocketAddr {
        let shift = self.shifts.get(&from.ip()).copied().unwrap_or_default();
        match from.port() {
            PORT => from,
            port => SocketAddr::new(from.ip(), port + shift),
        }
    }

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

impl Network for Host {
    fn bind(&self, local: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let mut state = self.sim.state();
        if state.missing {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        state.next_port += 1;
        let port = if local.port() == 0 { state.next_port } else { local.port() };
        let address = SocketAddr::new(ip(self.number), port);
        let sim = Arc::downgrade(&self.sim);
        let socket = Arc::new(Socket { address, sim, inbox: Mutex::default() });
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
    sim: Weak<Sim>,
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
        if let Some(sim) = self.sim.upgrade() {
            let from = sim.state().translated(self.address);
            sim.send(from, transmit.destination, transmit.contents);
        }
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

fn ip(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

/// The connection id that the sender of an Initial packet of QUIC version 1 gave itself.
fn initial_source(bytes: &[u8]) -> Option<Vec<u8>> {
    let (first, rest) = bytes.split_first()?;
    let (version, rest) = rest.split_first_chunk::<4>()?;
    if first & 0xF0 != 0xC0 || *version != [0, 0, 0, 1] {
        return None;
    }
    let (length, rest) = rest.split_first()?;
    let (length, rest) = rest.get(usize::from(*length)..)?.split_first()?;
    rest.get(..usize::from(*length)).map(<[u8]>::to_vec)
}

/// Of IP and UDP.
const HEADERS: u64 = 28;

/// What a queue holds at least.
const QUEUE_MIN: f64 = 6_000.0;

/// Machines from this number on are addresses that nobody has: what is sent there is gone.
pub const NOWHERE: u8 = 100;

/// By how much a change of address moves a port.
const SHIFT: u16 = 1_000;
