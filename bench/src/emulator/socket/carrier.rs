//! The proxy's one task: takes packets in, holds them for their time, sends them out.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time;

use super::{Direction, Ends, Fate, loopback};
use crate::emulator::flight::Flights;

/// Carries packets until it is dropped. Ends only if a socket cannot be opened.
pub(super) async fn carry(front: std::net::UdpSocket, ends: Arc<Ends>) -> io::Result<()> {
    let front = UdpSocket::from_std(front)?;
    let (answers_in, mut answers) = mpsc::channel(ANSWERS_MAX);
    let mut carrier = Carrier {
        ends: Arc::clone(&ends),
        flows: HashMap::new(),
        flights: Flights::new(),
        answers_in,
    };
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    loop {
        let due = carrier.next_due();
        tokio::select! {
            received = front.recv_from(&mut buffer) => {
                if let Ok((length, client)) = received {
                    carrier.up(client, &buffer[..length]).await?;
                }
            }
            Some((client, payload)) = answers.recv() => carrier.down(client, payload),
            () = time::sleep_until(due) => carrier.land(&front).await,
            () = ends.rebind.notified() => carrier.flows.clear(),
        }
    }
}

struct Carrier {
    ends: Arc<Ends>,
    flows: HashMap<SocketAddr, Flow>,
    flights: Flights<Packet>,
    answers_in: mpsc::Sender<(SocketAddr, Vec<u8>)>,
}

/// A client's socket towards the target, and the task that listens on it.
struct Flow {
    socket: Arc<UdpSocket>,
    listener: JoinHandle<()>,
    used: Instant,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Carrier {
    async fn up(&mut self, client: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let socket = self.socket_of(client).await?;
        if let Fate::Arrives(at) = self.ends.offer(Direction::Up, payload.len()) {
            let payload = payload.to_vec();
            self.flights.take_off(at, Packet { payload, exit: Exit::Target(socket) });
        }
        Ok(())
    }

    fn down(&mut self, client: SocketAddr, payload: Vec<u8>) {
        if let Fate::Arrives(at) = self.ends.offer(Direction::Down, payload.len()) {
            self.flights.take_off(at, Packet { payload, exit: Exit::Client(client) });
        }
    }

    fn next_due(&self) -> time::Instant {
        let wait = self.flights.next_due().unwrap_or(IDLE);
        (self.ends.wire.started() + wait).into()
    }

    /// Sends out what has arrived. Errors are a link's business: the packet is lost.
    async fn land(&mut self, front: &UdpSocket) {
        let now = self.ends.wire.now() + CLOCK_GRAIN;
        while let Some(Packet { payload, exit }) = self.flights.land(now) {
            match exit {
                Exit::Target(socket) if self.ends.arrives(Direction::Up, payload.len()) => {
                    let _ = socket.send_to(&payload, self.ends.target).await;
                }
                Exit::Client(client) if self.ends.arrives(Direction::Down, payload.len()) => {
                    let _ = front.send_to(&payload, client).await;
                }
                Exit::Target(_) | Exit::Client(_) => {}
            }
        }
    }

    async fn socket_of(&mut self, client: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        if let Some(flow) = self.flows.get_mut(&client) {
            flow.used = Instant::now();
            return Ok(Arc::clone(&flow.socket));
        }
        if self.flows.len() >= FLOWS_MAX {
            let idle = self.flows.iter().min_by_key(|(_, flow)| flow.used);
            if let Some(idle) = idle.map(|(&client, _)| client) {
                self.flows.remove(&idle);
            }
        }
        // Not connected: a connected socket would turn a target that is away into errors here.
        let target = self.ends.target;
        let socket = Arc::new(UdpSocket::bind((loopback(target), 0)).await?);
        let listening = listen(Arc::clone(&socket), target, client, self.answers_in.clone());
        let listener = tokio::spawn(listening);
        let used = Instant::now();
        self.flows.insert(client, Flow { socket: Arc::clone(&socket), listener, used });
        Ok(socket)
    }
}

async fn listen(
    socket: Arc<UdpSocket>,
    target: SocketAddr,
    client: SocketAddr,
    answers: mpsc::Sender<(SocketAddr, Vec<u8>)>,
) {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        if from == target && answers.send((client, buffer[..length].to_vec())).await.is_err() {
            return;
        }
    }
}

struct Packet {
    payload: Vec<u8>,
    exit: Exit,
}

enum Exit {
    Target(Arc<UdpSocket>),
    Client(SocketAddr),
}

/// The largest UDP payload.
const PACKET_BYTES_MAX: usize = 65_535;
/// Clients at a time; the one that was silent for longest makes room.
const FLOWS_MAX: usize = 64;
/// Packets that were read from the target and not yet looked at.
const ANSWERS_MAX: usize = 256;
/// A timer wakes up to a millisecond late; what is due within half of one goes now.
const CLOCK_GRAIN: Duration = Duration::from_micros(500);
/// How long to sleep when nothing is on the way: for ever.
const IDLE: Duration = Duration::from_secs(1 << 30);
