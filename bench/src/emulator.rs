//! One description of a link, two ways to put it between programs: a UDP proxy, or a tunnel below
//! IP.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;

use crate::link::Link;

mod flight;
mod namespace;
pub mod socket;
mod tun;
pub mod wire;

use socket::Proxy;
use tun::{FAR_ADDRESS, Tunnel};
use wire::Wire;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A proxy between UDP sockets: for Thinwire alone, and for everybody.
    Udp,
    /// Two network namespaces with a TUN device in each: for any program, and for root alone.
    Tun,
}

impl Kind {
    /// The tunnel where it is allowed, the proxy elsewhere.
    pub fn best() -> Kind {
        if tun::allowed() { Kind::Tun } else { Kind::Udp }
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Udp => "udp",
            Kind::Tun => "tun",
        }
    }
}

/// A link that is there.
#[derive(Debug)]
pub(crate) enum Emulator {
    Udp { proxy: Proxy, listen: SocketAddr },
    Tun(Tunnel),
}

impl Emulator {
    pub(crate) fn start(kind: Kind, link: Link, seed: u64) -> Result<Emulator> {
        match kind {
            Kind::Udp => {
                let listen = free_address();
                Ok(Emulator::Udp { proxy: Proxy::start(listen, link, link, seed)?, listen })
            }
            Kind::Tun => Ok(Emulator::Tun(Tunnel::start(link, seed)?)),
        }
    }

    pub(crate) fn wire(&self) -> &Wire {
        match self {
            Emulator::Udp { proxy, .. } => proxy.wire(),
            Emulator::Tun(tunnel) => tunnel.wire(),
        }
    }

    /// Where the farther end listens.
    pub(crate) fn listen(&self) -> SocketAddr {
        match self {
            Emulator::Udp { listen, .. } => *listen,
            Emulator::Tun(_) => (FAR_ADDRESS, PORT).into(),
        }
    }

    /// Where the nearer end dials to reach it.
    pub(crate) fn dial(&self) -> SocketAddr {
        match self {
            Emulator::Udp { proxy, .. } => proxy.address(),
            Emulator::Tun(_) => self.listen(),
        }
    }

    /// The address at which the farther end reaches servers of the nearer one, if it can.
    pub(crate) fn near_address(&self) -> Option<Ipv4Addr> {
        match self {
            Emulator::Udp { .. } => None,
            Emulator::Tun(tunnel) => Some(tunnel.near_address()),
        }
    }

    /// Gives the nearer end another address.
    pub(crate) fn readdress(&mut self) -> Result<()> {
        match self {
            Emulator::Udp { proxy, .. } => proxy.rebind(),
            Emulator::Tun(tunnel) => tunnel.readdress()?,
        }
        Ok(())
    }

    /// Does something at the nearer end; programs that are started there stay there.
    pub(crate) fn near<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match self {
            Emulator::Udp { .. } => act(),
            Emulator::Tun(tunnel) => tunnel.near().enter(act)?,
        }
    }

    /// The same at the farther end.
    pub(crate) fn far<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match self {
            Emulator::Udp { .. } => act(),
            Emulator::Tun(tunnel) => tunnel.far().enter(act)?,
        }
    }
}

/// An address of this machine that nobody else is given.
pub(crate) fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, thinwire_cluster::free_port()).into()
}

/// Where a sidecar listens in a namespace of its own.
const PORT: u16 = 7420;
