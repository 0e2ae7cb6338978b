//! A link between real UDP sockets: a proxy that anybody may run, without privileges.
//!
//! Clients send to the proxy's address; each client address gets a socket of its own towards the
//! target, as behind a NAT. Every packet goes through the model of [`crate::link`], one direction
//! each. The proxy lives in a thread with a small runtime of its own, so that it can be used from
//! any code and keeps its time whatever else the process does.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime;
use tokio::sync::{Notify, oneshot};

pub use crate::emulator::wire::Stats;
use crate::emulator::wire::{Direction, Wire};
use crate::link::{Fate, Link};

mod carrier;

/// A link that UDP packets go through. Dropping it closes its sockets.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    ends: Arc<Ends>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Opens a link to `target` on a free port of the loopback interface.
    pub fn start(target: SocketAddr, up: Link, down: Link, seed: u64) -> io::Result<Proxy> {
        let front = UdpSocket::bind((loopback(target), 0))?;
        front.set_nonblocking(true)?;
        let address = front.local_addr()?;
        let ends =
            Arc::new(Ends { target, wire: Wire::new(up, down, seed), rebind: Notify::new() });
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

    /// The link itself.
    pub fn wire(&self) -> &Wire {
        &self.ends.wire
    }

    /// Takes the link down, in both directions and for packets on the way.
    pub fn cut(&self) {
        self.wire().cut();
    }

    /// Brings the link back.
    pub fn restore(&self) {
        self.wire().restore();
    }

    /// Whether the link is up: neither cut nor down by itself.
    pub fn is_up(&self) -> bool {
        self.wire().is_up()
    }

    /// What went over the link so far.
    pub fn stats(&self) -> Stats {
        self.wire().stats()
    }

    /// Changes the clients' addresses as the target sees them, as when a modem gets a new one.
    /// What the target sends to the old ones is lost.
    pub fn rebind(&self) {
        self.ends.rebind.notify_one();
    }

    /// Changes the rate of both directions.
    pub fn set_rate(&self, rate_bps: u64) {
        self.wire().change(|link| link.rate_bps = rate_bps);
    }

    /// Changes the losses of both directions.
    pub fn set_loss(&self, loss: f64) {
        self.wire().change(|link| link.loss = loss);
    }

    /// Replaces the link in both directions.
    pub fn set_links(&self, up: Link, down: Link) {
        self.wire().set_links(up, down);
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
    target: SocketAddr,
    wire: Wire,
    rebind: Notify,
}

impl Ends {
    fn offer(&self, direction: Direction, payload_bytes: usize) -> Fate {
        self.wire.offer(direction, wire_bytes(payload_bytes))
    }

    fn arrives(&self, direction: Direction, payload_bytes: usize) -> bool {
        self.wire.arrives(direction, wire_bytes(payload_bytes))
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
