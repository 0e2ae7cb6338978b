//! The congestion controller for links that lose packets without being full: pure arithmetic, and its seat in quinn.
//!
//! The window follows what was delivered (the best rate of the last rounds times the shortest round trip) and
//! backs off when packets queue, never because they are lost. Half the losses on a radio link have nothing to do
//! with its load, and a window that is halved for each of them carries a third of what the link could.
//!
//! [`InFlight`] is shared with the driver, because after an outage only the application can know that one more
//! packet should leave although the window is full: see [`InFlight::grant_probe`]. On links that are shared with others
//! quinn's own Cubic says how large the window is, and a [`Ration`](ration::Ration) caps either.

mod in_flight;
pub mod ration;

use std::{
    any::Any,
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use quinn::congestion::{Controller, ControllerFactory, CubicConfig};
use quinn_proto::RttEstimator;

pub use in_flight::InFlight;

use in_flight::{PACKET_BYTES, PACKET_OVERHEAD};

/// How much may be unacknowledged. Told of what was sent, acknowledged and lost, and when; asks nothing.
#[derive(Clone, Debug)]
pub struct Window {
    bytes: u64,
    mtu: u64,
    round: Round,
    rounds: u64,
    /// Delivered rates of the last rounds, in bytes a second.
    rates: VecDeque<f64>,
    filling: Option<Filling>,
    /// Of packets of any size, and of full ones, which a slow link takes longer for.
    shortest: Shortest,
    shortest_full: Shortest,
    smoothed_rtt: f64,
    /// When last a round trip was too long to be believed.
    doubted: Option<Instant>,
}

/// From the sending of a packet to its acknowledgement.
#[derive(Clone, Copy, Debug)]
struct Round {
    start: Option<Instant>,
    acked: u64,
    sent: u64,
    lost: u64,
    app_limited: bool,
    /// The shortest round trip of a full packet.
    shortest: Option<f64>,
}

/// The first phase: the pipe is being filled, and each acknowledged byte allows another one.
#[derive(Clone, Copy, Debug, Default)]
struct Filling {
    best_rate: f64,
    rounds_without_gain: u32,
}

impl Window {
    /// At the start of a connection whose packets have `mtu` bytes.
    pub fn new(mtu: u16) -> Self {
        Self {
            bytes: INITIAL_WINDOW,
            mtu: u64::from(mtu),
            round: Round::IDLE,
            rounds: 0,
            rates: VecDeque::with_capacity(RATE_ROUNDS),
            filling: Some(Filling::default()),
            shortest: Shortest::default(),
            shortest_full: Shortest::default(),
            smoothed_rtt: 0.0,
            doubted: None,
        }
    }

    /// Bytes that may be unacknowledged.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The best delivered rate of the last rounds, in bytes a second; zero until one was measured.
    pub fn rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    /// A link may become much longer at once. Rather there was an outage, so that it is believed in steps.
    fn smooth_rtt(&mut self, now: Instant, sample: f64) {
        let longest = self.longest_rtt();
        if self.smoothed_rtt == 0.0 {
            self.smoothed_rtt = sample;
        } else if sample <= longest {
            self.smoothed_rtt += (sample - self.smoothed_rtt) / 8.0;
        } else if self.doubted.replace(now) != Some(now) {
            self.smoothed_rtt += (longest - self.smoothed_rtt) / 8.0;
        }
    }

    /// What is longer is hardly a round trip: an acknowledgement was lost, and its like came only after an outage.
    fn longest_rtt(&self) -> f64 {
        self.smoothed_rtt * RTT_GROWTH + RTT_SLACK
    }

    /// Packets of so many bytes in all were sent.
    pub fn on_sent(&mut self, now: Instant, bytes: u64) {
        self.round.start.get_or_insert(now);
        self.round.sent += bytes;
    }

    /// A packet that was sent at `sent` was acknowledged.
    pub fn on_acked(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool) {
        self.round.acked += bytes;
        self.round.app_limited |= app_limited;
        // The connection's own minimum begins as a configured guess, so the samples are taken here.
        let sample = now.saturating_duration_since(sent).as_secs_f64();
        self.shortest.observe(now, sample);
        if bytes * 2 > self.mtu {
            self.shortest_full.observe(now, sample);
            self.round.shortest = Some(self.round.shortest.map_or(sample, |held| held.min(sample)));
        }
        self.smooth_rtt(now, sample);
        if self.filling.is_some() && !app_limited {
            self.bytes = (self.bytes + bytes).min(WINDOW_MAX);
            self.notice_queue();
        }
        if self.round.start.is_some_and(|start| sent >= start && now > start) {
            self.end_round(now);
        }
    }

    /// So many bytes were lost. Says nothing about the link's load, but in the first phase, when a quarter of
    /// all is lost, the queue in front of the link is overflowing.
    pub fn on_lost(&mut self, bytes: u64) {
        self.round.lost += bytes;
        let sent = self.round.sent.max(8 * self.mtu);
        if self.filling.is_some() && self.round.lost * 4 > sent {
            self.stop_filling();
        }
    }

    /// Packets have another size from now on.
    pub fn on_mtu(&mut self, mtu: u16) {
        self.mtu = u64::from(mtu);
    }

    fn end_round(&mut self, now: Instant) {
        let round = std::mem::replace(&mut self.round, Round { start: Some(now), ..Round::IDLE });
        let Some(start) = round.start else { return };
        let rate = round.acked as f64 / now.duration_since(start).as_secs_f64();
        self.rounds += 1;
        // When there was nothing to send, a low rate says nothing about the link.
        if !round.app_limited || rate > self.rate() {
            if self.rates.len() == RATE_ROUNDS {
                self.rates.pop_front();
            }
            self.rates.push_back(rate);
        }
        let min_rtt = self.pipe().unwrap_or(self.smoothed_rtt);
        // One packet may be late for reasons of the link. When the earliest of a round is, packets queue.
        let queued = (round.shortest.unwrap_or(self.smoothed_rtt) - min_rtt).max(0.0);
        if !round.app_limited {
            self.judge_filling();
        }
        if self.filling.is_none() {
            self.follow(round.acked, queued, min_rtt);
        }
        self.bytes = self.bytes.clamp(FLOOR_PACKETS * self.mtu, WINDOW_MAX);
    }

    /// Ends the first phase when the rate grows no more.
    fn judge_filling(&mut self) {
        let rate = self.rate();
        let Some(filling) = &mut self.filling else { return };
        if rate > filling.best_rate * 1.25 {
            *filling = Filling { best_rate: rate, rounds_without_gain: 0 };
        } else {
            filling.rounds_without_gain += 1;
        }
        if filling.rounds_without_gain >= 3 {
            self.stop_filling();
        }
    }

    /// Ends the first phase when packets begin to wait. A round later the queue would overflow.
    fn notice_queue(&mut self) {
        let Some(min_rtt) = self.pipe() else { return };
        let queued = self.smoothed_rtt - min_rtt;
        if !self.rates.is_empty() && queued > (0.4 * min_rtt).max(0.1) {
            self.stop_filling();
        }
    }

    /// The window may be twice what the pipe holds by now; what is too much would only be lost.
    fn stop_filling(&mut self) {
        self.filling = None;
        if let Some(min_rtt) = self.pipe()
            && self.rate() > 0.0
        {
            self.bytes = self.bytes.min(self.target(1.5, min_rtt));
        }
    }

    /// Sets the window after what the link carries. It shrinks at once and grows as fast as data is delivered.
    fn follow(&mut self, acked: u64, queued: f64, min_rtt: f64) {
        let gain = if queued > (0.25 * min_rtt).max(0.1) {
            1.05
        } else if self.rounds.is_multiple_of(PROBE_ROUNDS) {
            1.5
        } else {
            1.25
        };
        let target = self.target(gain, min_rtt);
        self.bytes = match target > self.bytes {
            true => (self.bytes + acked.max(self.mtu)).min(target),
            false => target,
        };
    }

    /// How long a packet and its acknowledgement take where nothing queues. A full one is never quicker than any; if it
    /// was, that was long ago, over another path.
    fn pipe(&self) -> Option<f64> {
        let shortest = self.shortest.value()?;
        Some(self.shortest_full.value().map_or(shortest, |full| full.max(shortest)))
    }

    fn target(&self, gain: f64, min_rtt: f64) -> u64 {
        // The peer gathers acknowledgements: what is under way meanwhile is in the pipe too.
        let gathered = min_rtt.clamp(ACK_DELAY_LEAST, ACK_DELAY.as_secs_f64());
        let pipe = self.rate() * (min_rtt + gathered);
        // Room for acknowledgements that come in bunches; less where a few packets are seconds of the link.
        let (least, most) = (self.mtu as f64, 3.0 * self.mtu as f64);
        whole(gain * pipe + (0.25 * pipe).clamp(least, most))
    }
}

impl Round {
    const IDLE: Self =
        Self { start: None, acked: 0, sent: 0, lost: 0, app_limited: false, shortest: None };
}

/// A minimum over the last five to ten minutes, so that a path that has become longer is noticed.
#[derive(Clone, Copy, Debug, Default)]
struct Shortest {
    since: Option<Instant>,
    current: Option<f64>,
    previous: Option<f64>,
}

impl Shortest {
    fn observe(&mut self, now: Instant, sample: f64) {
        let since = *self.since.get_or_insert(now);
        let age = now.duration_since(since);
        if age >= RTT_BUCKET {
            let recent = self.current.filter(|_| age < 2 * RTT_BUCKET);
            (self.previous, self.current, self.since) = (recent, None, Some(now));
        }
        self.current = Some(self.current.map_or(sample, |held| held.min(sample)));
    }

    fn value(&self) -> Option<f64> {
        match (self.current, self.previous) {
            (Some(current), Some(previous)) => Some(current.min(previous)),
            (one, other) => one.or(other),
        }
    }
}

/// The whole part; what is beyond the range, or no number, becomes the nearest bound.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
pub(crate) fn whole(value: f64) -> u64 {
    value as u64
}

/// Makes a controller for each path of a connection.
#[derive(Debug)]
pub struct Factory(pub Arc<InFlight>);

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Seat::new(self.0.clone(), now, mtu))
    }
}

/// The window as quinn wants to see it. Both controllers follow the connection, because it begins before it is known
/// whose it is; our own measures the rate either way.
///
/// When an acknowledgement was lost as the link went down, the one that comes after the outage makes quinn believe in
/// a round trip as long as that. It then spreads a window over minutes, and keeps acknowledgements back meanwhile,
/// so that two ends wait for each other. It spreads nothing where the window is huge: until it knows better,
/// that is what it is told as long as there is room for a packet.
struct Seat {
    window: Window,
    cubic: Box<dyn Controller>,
    shared: Arc<InFlight>,
    /// Whether quinn takes an outage for a round trip.
    misled: bool,
}

impl Seat {
    fn new(shared: Arc<InFlight>, now: Instant, mtu: u16) -> Self {
        let cubic = Arc::new(CubicConfig::default()).build(now, mtu);
        Self { window: Window::new(mtu), cubic, shared, misled: false }
    }

    /// Notices what quinn makes, or is about to make, of an acknowledgement of what was sent at `sent`.
    fn notice_outage(&mut self, now: Instant, sent: Instant, believed: Duration) {
        let longest = Duration::from_secs_f64(self.window.longest_rtt());
        let outage = now.saturating_duration_since(sent) > longest;
        self.misled = self.shared.rtt().is_some() && (outage || believed > longest);
    }

    fn remove(&self, bytes: u64) {
        for count in [&self.shared.bytes, &self.shared.left] {
            count.store(count.load(Relaxed).saturating_sub(bytes), Relaxed);
        }
    }

    fn resync(&self, in_flight: u64, limited: bool) {
        self.shared.bytes.store(in_flight, Relaxed);
        self.shared.left.store(in_flight, Relaxed);
        // Nothing waits any more, so that all has left that was written.
        if limited {
            self.shared.left_for_peer.store(self.shared.written.load(Relaxed), Relaxed);
        }
    }
}

impl Controller for Seat {
    fn on_sent(&mut self, now: Instant, bytes: u64, packet: u64) {
        // Packets that only acknowledge are told too. Nobody acknowledges those, but the next
        // acknowledgement of anything puts the count right.
        self.shared.bytes.fetch_add(bytes, Relaxed);
        self.shared.left_for_peer.fetch_add(bytes.saturating_sub(PACKET_OVERHEAD), Relaxed);
        self.shared.packets.fetch_add(1, Relaxed);
        self.shared.moved.notify_one();
        self.shared.spent(now, bytes + PACKET_HEADERS);
        self.window.on_sent(now, bytes);
        self.cubic.on_sent(now, bytes, packet);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        limited: bool,
        rtt: &RttEstimator,
    ) {
        self.remove(bytes);
        self.notice_outage(now, sent, rtt.get());
        self.window.on_acked(now, sent, bytes, limited);
        // A window that a cap keeps from being used says nothing about the link.
        self.cubic.on_ack(now, sent, bytes, limited || self.shared.is_shut(), rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, limited: bool, last: Option<u64>) {
        self.cubic.on_end_acks(now, in_flight, limited, last);
        // Packets of a finished handshake leave the count without being acknowledged or lost.
        self.resync(in_flight, limited);
        self.shared.granted.store(0, Relaxed);
        self.shared.acks.fetch_add(1, Relaxed);
        self.shared.rate.store(whole(self.window.rate()), Relaxed);
        self.shared.rtt.store(whole(self.window.smoothed_rtt * 1e6), Relaxed);
        self.shared.moved.notify_one();
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost: u64) {
        self.cubic.on_congestion_event(now, sent, persistent, lost);
        self.remove(lost);
        let left = self.shared.left_for_peer.load(Relaxed);
        let carried = lost - lost / (1_200 / PACKET_OVERHEAD);
        self.shared.left_for_peer.store(left.saturating_sub(carried), Relaxed);
        self.window.on_lost(lost);
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.window.on_mtu(mtu);
        self.cubic.on_mtu_update(mtu);
    }

    fn window(&self) -> u64 {
        if self.shared.parting.load(Relaxed) {
            return UNPACED;
        }
        if self.shared.is_shut() {
            return SHUT;
        }
        let bytes = match self.shared.is_shared_link() {
            true => self.cubic.window(),
            false => self.window.bytes(),
        };
        self.shared.window.store(bytes, Relaxed);
        if self.shared.is_full() {
            self.shared.filled.notify_one();
        }
        let bytes = bytes.max(self.shared.granted.load(Relaxed));
        let has_room = self.shared.bytes() + PACKET_BYTES < bytes;
        if self.misled && has_room { UNPACED } else { bytes }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let (window, cubic) = (self.window.clone(), self.cubic.clone_box());
        Box::new(Self { window, cubic, shared: self.shared.clone(), misled: self.misled })
    }

    fn initial_window(&self) -> u64 {
        INITIAL_WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Ten packets, as RFC 9002 has it.
const INITIAL_WINDOW: u64 = 12_000;

/// A gigabit a second at 100 ms; beyond it only memory grows.
const WINDOW_MAX: u64 = 16 << 20;

/// A window through which nothing fits. None at all would be nonsense to quinn.
const SHUT: u64 = 1;

/// Two packets: fewer would never leave, because a whole one must fit. More are seconds of a link that
/// carries 2,400 bits a second.
const FLOOR_PACKETS: u64 = 2;

/// Over how many rounds the best rate counts.
const RATE_ROUNDS: usize = 10;

/// Each so many rounds the window is larger for one, to find out whether the link carries more now.
const PROBE_ROUNDS: u64 = 6;

/// By how much a round trip may be longer than usual, and by how many seconds, to be believed.
const RTT_GROWTH: f64 = 4.0;
const RTT_SLACK: f64 = 1.0;

/// A window over which quinn spreads nothing.
const UNPACED: u64 = u64::MAX >> 1;

/// How long a peer is asked to wait for more to acknowledge.
pub(crate) const ACK_DELAY: Duration = Duration::from_millis(100);

/// What quinn makes of it where the round trip is shorter, in seconds.
const ACK_DELAY_LEAST: f64 = 0.025;

/// See [`Shortest`].
const RTT_BUCKET: Duration = Duration::from_secs(300);

/// Of IP and UDP.
const PACKET_HEADERS: u64 = 28;

#[cfg(test)]
mod tests;
