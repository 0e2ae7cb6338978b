//! A link below IP: two network namespaces, a TUN device in each, and a thread that carries packets
//! between.
//!
//! Any program can run at its two ends, over TCP as well as UDP; only root can make it. Every
//! packet
//! goes through the model of [`crate::link`] with all its bytes, headers included. Nothing has to
//! be
//! removed afterwards: devices and namespaces end with the last process that uses them.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::emulator::flight::Flights;
use crate::emulator::namespace::{Namespace, ip};
use crate::emulator::wire::{Direction, Wire};
use crate::link::{Fate, Link};

/// A link between two namespaces. Dropping it takes the devices away.
#[derive(Debug)]
pub(crate) struct Tunnel {
    near: Namespace,
    far: Namespace,
    near_address: Ipv4Addr,
    wire: Arc<Wire>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tunnel {
    /// Makes namespaces and devices and begins to carry.
    pub(crate) fn start(link: Link, seed: u64) -> Result<Tunnel> {
        ensure!(allowed(), "only root can make network namespaces and TUN devices");
        let (near, far) = (Namespace::new()?, Namespace::new()?);
        let devices = [open(&near, NEAR_ADDRESSES[0])?, open(&far, FAR_ADDRESS)?];
        let wire = Arc::new(Wire::new(link, link, seed));
        let over = Arc::new(AtomicBool::new(false));
        let (carried, ends) = (Arc::clone(&wire), Arc::clone(&over));
        let thread = thread::Builder::new().name("link".into()).spawn(move || {
            let mut carrier = Carrier {
                wire: &carried,
                devices: &devices,
                flights: Flights::new(),
                buffer: vec![0; PACKET_BYTES_MAX],
            };
            while !ends.load(Ordering::Relaxed) && carrier.turn().is_ok() {}
        })?;
        let near_address = NEAR_ADDRESSES[0];
        Ok(Tunnel { near, far, near_address, wire, over, thread: Some(thread) })
    }

    /// The link itself.
    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// The end that is nearer to where changes are made.
    pub(crate) fn near(&self) -> &Namespace {
        &self.near
    }

    /// The other end.
    pub(crate) fn far(&self) -> &Namespace {
        &self.far
    }

    /// Where the nearer end is at this moment.
    pub(crate) fn near_address(&self) -> Ipv4Addr {
        self.near_address
    }

    /// Gives the nearer end another address, as when a modem gets one, and takes the old one away.
    pub(crate) fn readdress(&mut self) -> Result<()> {
        let [first, second] = NEAR_ADDRESSES;
        let new = if self.near_address == first { second } else { first };
        let old = with_prefix(self.near_address);
        self.near.enter(|| {
            ip(&["address", "delete", &old, "dev", DEVICE])?;
            settle(new)
        })??;
        self.near_address = new;
        Ok(())
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether this process may make a tunnel.
pub(crate) fn allowed() -> bool {
    rustix::process::geteuid().is_root()
}

fn open(namespace: &Namespace, address: Ipv4Addr) -> Result<SyncDevice> {
    let device = namespace.enter(|| {
        let device = DeviceBuilder::new().name(DEVICE).mtu(MTU).build_sync()?;
        device.set_nonblocking(true)?;
        Ok::<_, io::Error>(device)
    })?;
    let device = device.context("opening a TUN device")?;
    namespace.enter(|| {
        ip(&["link", "set", DEVICE, "up"])?;
        settle(address)
    })??;
    Ok(device)
}

/// Gives the device of the namespace an address, and its route Linux's own congestion control: a
/// machine's other choice would make runs differ from machine to machine.
fn settle(address: Ipv4Addr) -> Result<()> {
    ip(&["address", "add", &with_prefix(address), "dev", DEVICE])?;
    ip(&["route", "replace", RANGE, "dev", DEVICE, "congctl", "cubic"])
}

fn with_prefix(address: Ipv4Addr) -> String {
    format!("{address}/{PREFIX}")
}

struct Carrier<'a> {
    wire: &'a Wire,
    /// The nearer end's and the farther end's.
    devices: &'a [SyncDevice; 2],
    flights: Flights<(Direction, Vec<u8>)>,
    buffer: Vec<u8>,
}

impl Carrier<'_> {
    /// Waits for a packet to come or to land, and does what is to be done then.
    fn turn(&mut self) -> io::Result<()> {
        self.wait()?;
        for direction in [Direction::Up, Direction::Down] {
            self.take_in(direction)?;
        }
        while let Some((direction, packet)) = self.flights.land(self.wire.now()) {
            if self.wire.arrives(direction, packet.len() as u64) {
                // What a full device does not take is lost, as on any other link.
                let _ = self.exit(direction).send(&packet);
            }
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<()> {
        let due = self.flights.next_due().map(|at| at.saturating_sub(self.wire.now()));
        let wait = due.unwrap_or(LOOK_EVERY).min(LOOK_EVERY);
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        let mut ends =
            self.devices.each_ref().map(|it| PollFd::from_borrowed_fd(it.as_fd(), PollFlags::IN));
        match poll(&mut ends, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_in(&mut self, direction: Direction) -> io::Result<()> {
        let [near, far] = self.devices;
        let device = if direction == Direction::Up { near } else { far };
        for _ in 0..PACKETS_A_TURN {
            let length = match device.recv(&mut self.buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let packet = &self.buffer[..length];
            if is_ipv4(packet)
                && let Fate::Arrives(at) = self.wire.offer(direction, length as u64)
            {
                self.flights.take_off(at, (direction, packet.to_vec()));
            }
        }
        Ok(())
    }

    fn exit(&self, direction: Direction) -> &SyncDevice {
        let [near, far] = self.devices;
        if direction == Direction::Up { far } else { near }
    }
}

/// The kernel's own announcements, which are IPv6, are no traffic of what is measured.
fn is_ipv4(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 4)
}

/// The range that is set aside for benchmarks.
const RANGE: &str = "198.18.0.0/15";
const PREFIX: u8 = 15;
/// Where the nearer end is at first, and after a change of address.
const NEAR_ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(198, 18, 0, 3)];
/// Where the farther end is.
pub(crate) const FAR_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 2);
const DEVICE: &str = "link0";
const MTU: u16 = 1_500;
const PACKET_BYTES_MAX: usize = 65_536;
/// How many packets of one direction are taken before the other has its turn.
const PACKETS_A_TURN: usize = 64;
/// How late the thread may notice that it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;
