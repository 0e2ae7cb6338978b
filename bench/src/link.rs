//! A link as a pure function of packet size, time and seed; it is told the time and asks nothing.
//!
//! A packet waits in a drop-tail queue, takes its bits' time on the wire, travels for the delay and
//! may be lost: at random, in bursts, or because the link is down when it enters or when it would
//! arrive. How the link changes by itself is its [`Course`]. Whoever carries the packets asks
//! [`Transit::offer`] at the one end and [`Transit::arrives`] at the other, and does what they say.

use std::fmt;
use std::time::Duration;

use crate::random::Random;

pub mod course;
pub mod ladder;
pub mod trace;

use course::Course;

/// One direction of a link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Bits a second on the wire.
    pub rate_bps: u64,
    /// The time that a packet travels.
    pub delay: Duration,
    /// At most this much is added to the delay, evenly distributed.
    pub jitter: Duration,
    /// Whether jitter may let packets overtake each other.
    pub reorders: bool,
    /// The share of packets that is lost.
    pub loss: f64,
    /// The mean number of packets that are lost in a row; 1 makes losses independent.
    pub burst: f64,
    /// What may wait for the wire.
    pub queue: Queue,
    /// How it changes with time by itself.
    pub course: Course,
}

/// How much may wait for the wire before packets are dropped at the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// This many bytes.
    Bytes(u64),
    /// What the wire carries in this time.
    Time(Duration),
}

impl Link {
    /// A link without losses that is always up, with a queue of one second.
    pub const fn new(rate_bps: u64, delay: Duration) -> Link {
        Link {
            rate_bps,
            delay,
            jitter: Duration::ZERO,
            reorders: false,
            loss: 0.0,
            burst: 1.0,
            queue: Queue::Time(Duration::from_secs(1)),
            course: Course::Steady,
        }
    }

    /// The same link with this share of packets lost.
    #[must_use]
    pub const fn with_loss(mut self, loss: f64) -> Link {
        self.loss = loss;
        self
    }

    /// The same link with losses in bursts of this mean length.
    #[must_use]
    pub const fn with_burst(mut self, packets: f64) -> Link {
        self.burst = packets;
        self
    }

    /// The same link with a varying delay.
    #[must_use]
    pub const fn with_jitter(mut self, jitter: Duration, reorders: bool) -> Link {
        self.jitter = jitter;
        self.reorders = reorders;
        self
    }

    /// The same link with another queue.
    #[must_use]
    pub const fn with_queue(mut self, queue: Queue) -> Link {
        self.queue = queue;
        self
    }

    /// The same link, up and down in turns.
    #[must_use]
    pub const fn with_turns(self, up: Duration, down: Duration) -> Link {
        self.with_course(Course::Turns { up, down })
    }

    /// The same link with another course.
    #[must_use]
    pub const fn with_course(mut self, course: Course) -> Link {
        self.course = course;
        self
    }

    /// The time that bytes occupy the wire.
    pub fn wire_time(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(self.rate_bps.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn queue_time(&self) -> Duration {
        match self.queue {
            Queue::Bytes(bytes) => self.wire_time(bytes),
            Queue::Time(time) => time,
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kbps, millis) = (self.rate_bps / 1_000, self.delay.as_secs_f64() * 2_000.0);
        write!(out, "{kbps} kbit/s, {millis:.0} ms there and back")?;
        if !self.jitter.is_zero() {
            let order = if self.reorders { ", reordering" } else { "" };
            write!(out, " and up to {} ms of jitter{order}", self.jitter.as_millis())?;
        }
        if self.loss > 0.0 {
            write!(out, ", {:.1} % loss", self.loss * 100.0)?;
        }
        if self.burst > 1.0 {
            write!(out, " in bursts of {:.0}", self.burst)?;
        }
        write!(out, "{}", self.course)
    }
}

/// What becomes of a packet that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives at this time, if the link is up then.
    Arrives(Duration),
    /// It is lost on the way.
    Lost,
    /// The queue is full.
    Overflows,
    /// The link is down.
    Cut,
}

/// Packets and their bytes on the wire, IP headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Number of packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a link was given and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Everything that came to the link.
    pub offered: Traffic,
    /// What came out at the other end.
    pub delivered: Traffic,
    /// What was lost on the way.
    pub lost: Traffic,
    /// What found the queue full.
    pub overflowed: Traffic,
    /// What entered, or would have arrived, while the link was down.
    pub cut: Traffic,
}

/// One direction of a link at work.
#[derive(Clone, Debug)]
pub struct Transit {
    link: Link,
    seed: u64,
    random: Random,
    is_cut: bool,
    in_burst: bool,
    wire_free: Duration,
    last_arrival: Duration,
    counters: Counters,
}

impl Transit {
    /// A link at time zero.
    pub fn new(link: Link, seed: u64) -> Transit {
        Transit {
            link,
            seed,
            random: Random::new(seed),
            is_cut: false,
            in_burst: false,
            wire_free: Duration::ZERO,
            last_arrival: Duration::ZERO,
            counters: Counters::default(),
        }
    }

    /// Offers a packet of this size on the wire at a time since the start, which never goes
    /// backwards.
    pub fn offer(&mut self, now: Duration, bytes: u64) -> Fate {
        self.counters.offered.add(bytes);
        if !self.is_up(now) {
            self.counters.cut.add(bytes);
            return Fate::Cut;
        }
        let link = self.link.course.shape(self.link, now, self.seed);
        let start = self.wire_free.max(now);
        let wire_time = link.wire_time(bytes);
        if start - now + wire_time > link.queue_time().max(wire_time) {
            self.counters.overflowed.add(bytes);
            return Fate::Overflows;
        }
        self.wire_free = start + wire_time;
        if self.is_lost(link) {
            self.counters.lost.add(bytes);
            return Fate::Lost;
        }
        let jitter = link.jitter.mul_f64(self.random.unit());
        let arrival = self.wire_free + link.delay + jitter;
        if link.reorders {
            return Fate::Arrives(arrival);
        }
        self.last_arrival = self.last_arrival.max(arrival);
        Fate::Arrives(self.last_arrival)
    }

    /// Whether a packet that reaches the other end now comes out there: not if the link is down.
    pub fn arrives(&mut self, now: Duration, bytes: u64) -> bool {
        let arrives = self.is_up(now);
        let counter = if arrives { &mut self.counters.delivered } else { &mut self.counters.cut };
        counter.add(bytes);
        arrives
    }

    /// Takes the link down until [`restore`](Transit::restore).
    pub fn cut(&mut self) {
        self.is_cut = true;
    }

    /// Ends a [`cut`](Transit::cut).
    pub fn restore(&mut self) {
        self.is_cut = false;
    }

    /// Whether the link is up: neither cut nor down by itself.
    pub fn is_up(&self, now: Duration) -> bool {
        !self.is_cut && self.link.course.is_up(now)
    }

    /// What it carries at this time, in bits a second: nothing while it is down.
    pub fn rate_bps(&self, now: Duration) -> u64 {
        let link = self.link.course.shape(self.link, now, self.seed);
        if self.is_up(now) { link.rate_bps } else { 0 }
    }

    /// The link as it is described.
    pub fn link(&self) -> Link {
        self.link
    }

    /// Changes the link for the packets to come.
    pub fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// Makes it a new link at time zero, whose wire is free. Counters and a cut stay.
    pub fn begin(&mut self, link: Link, seed: u64) {
        let Transit { is_cut, counters, .. } = *self;
        *self = Transit { is_cut, counters, ..Transit::new(link, seed) };
    }

    /// What was offered so far and what became of it.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Independent losses, or a chain of a good and a bad state whose mean stay in the bad one is
    /// the burst's length and whose share of bad packets is the loss (Gilbert).
    fn is_lost(&mut self, Link { loss, burst, .. }: Link) -> bool {
        if burst <= 1.0 || loss >= 1.0 {
            return self.random.chance(loss);
        }
        let leave = 1.0 / burst;
        let enter = leave * loss / (1.0 - loss);
        let change = if self.in_burst { leave } else { enter };
        self.in_burst ^= self.random.chance(change);
        self.in_burst
    }
}

impl Traffic {
    fn add(&mut self, bytes: u64) {
        self.packets += 1;
        self.bytes += bytes;
    }
}

impl Counters {
    /// What was really sent on the wire, whatever became of it there.
    pub fn carried_bytes(&self) -> u64 {
        self.delivered.bytes + self.lost.bytes
    }

    /// The packets of those bytes.
    pub fn carried_packets(&self) -> u64 {
        self.delivered.packets + self.lost.packets
    }
}

#[cfg(test)]
mod tests;
