//! What a connection's controller and its driver tell each other, for both: neither waits for the other.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::ration::Ration;
use crate::peer::Congestion;

/// What a connection's controller and its driver tell each other.
#[derive(Debug, Default)]
pub struct InFlight {
    pub(super) bytes: AtomicU64,
    /// What was left when the last acknowledgement had been taken in.
    pub(super) left: AtomicU64,
    pub(super) granted: AtomicU64,
    pub(super) acks: AtomicU64,
    pub(super) rate: AtomicU64,
    /// The round trip in microseconds, smoothed.
    pub(super) rtt: AtomicU64,
    /// The window as it was last asked for, and how many packets have left.
    pub(super) window: AtomicU64,
    pub(super) packets: AtomicU64,
    pub(super) filled: Notify,
    /// What the driver has written, and what of it has left for the first time.
    pub(super) written: AtomicU64,
    pub(super) left_for_peer: AtomicU64,
    pub(super) moved: Notify,
    pub(super) parting: AtomicBool,
    /// What rules the connection, once it is known whose it is.
    rule: OnceLock<Rule>,
    /// Bytes of whole packets that left before that.
    unruled: AtomicU64,
}

/// Which window counts, and what caps it.
#[derive(Debug)]
struct Rule {
    congestion: Congestion,
    ration: Option<Arc<Ration>>,
}

impl InFlight {
    /// Bytes that were sent and neither acknowledged nor given up; a little more than that between acknowledgements.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Bytes of those that had been sent before the last acknowledgement came; exact.
    pub fn left(&self) -> u64 {
        self.left.load(Relaxed)
    }

    /// How many acknowledgements have come; it changes when the peer is there.
    pub fn acks(&self) -> u64 {
        self.acks.load(Relaxed)
    }

    /// The best delivered rate of the last rounds, in bytes a second.
    pub fn rate(&self) -> u64 {
        self.rate.load(Relaxed)
    }

    /// The round trip, smoothed; `None` until one was measured. The connection's own is wrong for long after an outage: see
    /// `Seat`.
    pub fn rtt(&self) -> Option<Duration> {
        let rtt = self.rtt.load(Relaxed);
        (rtt > 0).then(|| Duration::from_micros(rtt))
    }

    /// It is known whose connection it is: which window counts from `now` on, and what caps it.
    pub fn govern(&self, now: Instant, congestion: Congestion, ration: Option<Arc<Ration>>) {
        if let Some(ration) = &ration {
            ration.spend(now, self.unruled.load(Relaxed));
        }
        // A connection is somebody's once.
        let _ = self.rule.set(Rule { congestion, ration });
    }

    /// Bytes of whole packets that left before it was known whose connection it is.
    pub fn unruled(&self) -> u64 {
        self.unruled.load(Relaxed)
    }

    pub(super) fn is_shut(&self) -> bool {
        let ration = self.rule.get().and_then(|rule| rule.ration.as_ref());
        ration.is_some_and(|ration| !ration.is_open())
    }

    pub(super) fn is_shared_link(&self) -> bool {
        self.rule.get().is_some_and(|rule| rule.congestion == Congestion::Cubic)
    }

    pub(super) fn spent(&self, now: Instant, bytes: u64) {
        match self.rule.get() {
            None => drop(self.unruled.fetch_add(bytes, Relaxed)),
            Some(Rule { ration: Some(ration), .. }) => ration.spend(now, bytes),
            Some(Rule { ration: None, .. }) => {}
        }
    }

    /// The driver has written so many bytes to the connection.
    pub fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Relaxed);
    }

    /// Waits until little of what was written waits inside the connection, and nothing is being probed. What
    /// waits there would leave with the probes of an outage, a packet each, and nobody would be there to take it.
    pub async fn drained(&self) {
        loop {
            let moved = self.moved.notified();
            let unsent =
                self.written.load(Relaxed).saturating_sub(self.left_for_peer.load(Relaxed));
            let few = unsent <= (self.rate() / UNSENT_SHARE).max(UNSENT_BYTES);
            if few && self.granted.load(Relaxed) == 0 {
                return;
            }
            moved.await;
        }
    }

    /// How many packets have left.
    pub fn packets(&self) -> u64 {
        self.packets.load(Relaxed)
    }

    /// Whether the window has no room for another packet.
    pub fn is_full(&self) -> bool {
        self.bytes() + PACKET_BYTES >= self.window.load(Relaxed)
    }

    /// Waits until the window has no room for another packet.
    pub async fn filled(&self) {
        loop {
            let filled = self.filled.notified();
            if self.is_full() {
                return;
            }
            filled.await;
        }
    }

    /// Lets a packet more leave although the window is full, because it carries acknowledgements that the peer may
    /// be waiting for with a full window of its own. Quinn keeps those back for as long as data waits.
    pub fn grant_answer(&self) {
        self.granted.store(self.bytes() + PROBE_BYTES, Relaxed);
    }

    /// The connection is about to be closed. The packet that says so, all that leaves from then on, leaves whatever waits
    /// before it: quinn keeps it behind that, and nothing takes what waits off a window any more.
    pub fn part(&self) {
        self.parting.store(true, Relaxed);
    }

    /// Lets a packet more leave although the window is full, until the next acknowledgement. Without it
    /// nothing, not even a ping, leaves a connection whose window was full when the link went down, except at
    /// timeouts that double without an end.
    pub fn grant_probe(&self) {
        self.granted.store(self.bytes() + PROBE_BYTES, Relaxed);
        // When it is lost it will be taken off what has left, but it carries nothing of that.
        self.left_for_peer.fetch_add(PACKET_OVERHEAD * 2, Relaxed);
    }
}

/// What quinn wants room for before it sends another packet.
pub(super) const PACKET_BYTES: u64 = 1_200;

/// What a packet costs beside the data in it. Rather too much than too little: what is thought to wait and has left is
/// noticed when nothing waits, and what is thought to have left and waits would become ever more.
pub(super) const PACKET_OVERHEAD: u64 = 40;

/// One full packet, and not the next one after a probe.
const PROBE_BYTES: u64 = 1_232;

/// What may wait inside the connection: enough for one bunch of acknowledgements to be answered at once.
const UNSENT_BYTES: u64 = 5 << 10;

/// On faster links: a tenth of a second of the link.
const UNSENT_SHARE: u64 = 10;
