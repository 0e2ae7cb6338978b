//! A link between real UDP sockets: a proxy that anybody may run, without privileges.
//!
//! Clients send to the proxy's address; each client address gets a socket of its own towards the
//! target, as behind a NAT. Every packet goes through the model of [`crate::link`], one direction
//! each. The proxy lives in a thread with a small runtime of its own, so that it can be used from
//! any code and keeps its time whatever else the process does.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tokio::runtime;
use tokio::sync::{Notify, oneshot};

use crate::link::{Counters, Fate, Link, Transit};

mod carrier;

/// A link that UDP packets go through. Dropping it closes its sockets.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    ends: Arc<Ends>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What went over a link, from the clients to the target (`up`) and back (`down`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// From the clients to the target.
    pub up: Counters,
    /// From the target to the clients.
    pub down: Counters,
}

impl Stats {
    /// The bytes that were sent on the wire in both directions, whatever became of them there.
    pub fn carried_bytes(&self) -> u64 {
        self.up.carried_bytes() + self.down.carried_bytes()
    }
}

impl Proxy {
    /// Opens a link to `target` on a free port of the loopback interface.
    pub fn start(target: SocketAddr, up: Link, down: Link, seed: u64) -> io::Result<Proxy> {
        let front = UdpSocket::bind((loopback(target), 0))?;
        front.set_nonblocking(true)?;
        let address = front.local_addr()?;
        let ends = Arc::new(Ends {
            started: Instant::now(),
            target,
            transits: Mutex::new(Transits {
                up: Transit::new(up, seed.wrapping_mul(2)),
                down: Transit::new(down, seed.wrapping_mul(2).wrapping_add(1)),
            }),
            rebind: Notify::new(),
        });
        let (stop, stopped) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let carried = Arc::clone(&ends);
        let thread = thread::Builder::new().name("link".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    _ = carrier::carry(front, carried) => {}
                }
            });
        })?;
        Ok(Proxy { address, ends, stop: Some(stop), thread: Some(thread) })
    }

    /// Where clients send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes the link down, in both directions and for packets on the way.
    pub fn cut(&self) {
        let mut transits = self.ends.transits();
        transits.up.cut();
        transits.down.cut();
    }

    /// Brings the link back.
    pub fn restore(&self) {
        let mut transits = self.ends.transits();
        transits.up.restore();
        transits.down.restore();
    }

    /// Whether the link is up: neither cut nor down by itself.
    pub fn is_up(&self) -> bool {
        let now = self.ends.started.elapsed();
        let transits = self.ends.transits();
        transits.up.is_up(now) && transits.down.is_up(now)
    }

    /// What went over the link so far.
    pub fn stats(&self) -> Stats {
        let transits = self.ends.transits();
        Stats { up: transits.up.counters(), down: transits.down.counters() }
    }

    /// Changes the clients' addresses as the target sees them, as when a modem gets a new one.
    /// What the target sends to the old ones is lost.
    pub fn rebind(&self) {
        self.ends.rebind.notify_one();
    }

    /// Changes the rate of both directions.
    pub fn set_rate(&self, rate_bps: u64) {
        self.change(|link| link.rate_bps = rate_bps);
    }

    /// Changes the losses of both directions.
    pub fn set_loss(&self, loss: f64) {
        self.change(|link| link.loss = loss);
    }

    /// Replaces the link in both directions.
    pub fn set_links(&self, up: Link, down: Link) {
        let mut transits = self.ends.transits();
        transits.up.set_link(up);
        transits.down.set_link(down);
    }

    fn change(&self, change: impl Fn(&mut Link)) {
        let mut transits = self.ends.transits();
        let Transits { up, down } = &mut *transits;
        for transit in [up, down] {
            let mut link = transit.link();
            change(&mut link);
            transit.set_link(link);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the proxy's owner and its thread share.
#[derive(Debug)]
struct Ends {
    started: Instant,
    target: SocketAddr,
    transits: Mutex<Transits>,
    rebind: Notify,
}

#[derive(Debug)]
struct Transits {
    up: Transit,
    down: Transit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl Ends {
    fn transits(&self) -> MutexGuard<'_, Transits> {
        self.transits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self, direction: Direction, payload_bytes: usize) -> Fate {
        let bytes = wire_bytes(payload_bytes);
        self.transits().of(direction).offer(self.started.elapsed(), bytes)
    }

    fn arrives(&self, direction: Direction, payload_bytes: usize) -> bool {
        let bytes = wire_bytes(payload_bytes);
        self.transits().of(direction).arrives(self.started.elapsed(), bytes)
    }
}

impl Transits {
    fn of(&mut self, direction: Direction) -> &mut Transit {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

/// The loopback address of the target's family.
fn loopback(target: SocketAddr) -> IpAddr {
    match target {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

fn wire_bytes(payload_bytes: usize) -> u64 {
    payload_bytes as u64 + OVERHEAD_BYTES
}

/// An IPv4 header and a UDP header.
const OVERHEAD_BYTES: u64 = 28;

#[cfg(test)]
mod tests;
