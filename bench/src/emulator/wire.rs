//! The two directions of a link at work, shared by whoever carries its packets and whoever commands
//! it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::link::{Counters, Fate, Link, Transit};

/// A link in both directions, on a clock that began when it was made.
#[derive(Debug)]
pub struct Wire {
    started: Instant,
    transits: Mutex<Transits>,
}

/// What went over a link, from the nearer end to the farther (`up`) and back (`down`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// From the nearer end, which has the clients, to the farther one.
    pub up: Counters,
    /// From the farther end to the nearer one.
    pub down: Counters,
}

impl Stats {
    /// The bytes that were sent on the wire in both directions, whatever became of them there.
    pub fn carried_bytes(&self) -> u64 {
        self.up.carried_bytes() + self.down.carried_bytes()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

impl Wire {
    pub(crate) fn new(up: Link, down: Link, seed: u64) -> Wire {
        let [up_seed, down_seed] = seeds(seed);
        Wire {
            started: Instant::now(),
            transits: Mutex::new(Transits {
                up: Transit::new(up, up_seed),
                down: Transit::new(down, down_seed),
                origin: Duration::ZERO,
            }),
        }
    }

    /// When its clock began.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// What becomes of a packet that enters now; its arrival is on this wire's clock.
    pub(crate) fn offer(&self, direction: Direction, bytes: u64) -> Fate {
        let mut transits = self.transits();
        let origin = transits.origin;
        match transits.of(direction).offer(self.now().saturating_sub(origin), bytes) {
            Fate::Arrives(at) => Fate::Arrives(at + origin),
            other => other,
        }
    }

    /// Whether a packet that has reached the other end comes out there.
    pub(crate) fn arrives(&self, direction: Direction, bytes: u64) -> bool {
        let mut transits = self.transits();
        let now = self.now().saturating_sub(transits.origin);
        transits.of(direction).arrives(now, bytes)
    }

    /// Takes the link down, in both directions and for packets on the way.
    pub fn cut(&self) {
        let mut transits = self.transits();
        transits.up.cut();
        transits.down.cut();
    }

    /// Brings the link back.
    pub fn restore(&self) {
        let mut transits = self.transits();
        transits.up.restore();
        transits.down.restore();
    }

    /// Whether the link is up: neither cut nor down by itself.
    pub fn is_up(&self) -> bool {
        let transits = self.transits();
        let now = self.now().saturating_sub(transits.origin);
        transits.up.is_up(now) && transits.down.is_up(now)
    }

    /// What the nearer end can send at this moment, in bits a second.
    pub fn rate_bps(&self) -> u64 {
        let transits = self.transits();
        transits.up.rate_bps(self.now().saturating_sub(transits.origin))
    }

    /// What went over the link so far.
    pub fn stats(&self) -> Stats {
        let transits = self.transits();
        Stats { up: transits.up.counters(), down: transits.down.counters() }
    }

    /// Replaces the link in both directions. Its course goes on where it stands.
    pub fn set_links(&self, up: Link, down: Link) {
        let mut transits = self.transits();
        transits.up.set_link(up);
        transits.down.set_link(down);
    }

    /// Makes both directions new links whose time begins at this moment, with their own draws.
    pub fn begin(&self, link: Link, seed: u64) {
        let mut transits = self.transits();
        transits.origin = self.now();
        let [up, down] = seeds(seed);
        transits.up.begin(link, up);
        transits.down.begin(link, down);
    }

    /// Changes the link in both directions.
    pub(crate) fn change(&self, change: impl Fn(&mut Link)) {
        let mut transits = self.transits();
        let Transits { up, down, .. } = &mut *transits;
        for transit in [up, down] {
            let mut link = transit.link();
            change(&mut link);
            transit.set_link(link);
        }
    }

    fn transits(&self) -> MutexGuard<'_, Transits> {
        self.transits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each direction draws for itself.
pub(crate) fn seeds(seed: u64) -> [u64; 2] {
    let up = seed.wrapping_mul(2);
    [up, up.wrapping_add(1)]
}

#[derive(Debug)]
struct Transits {
    up: Transit,
    down: Transit,
    /// The time zero of both, on the wire's clock.
    origin: Duration,
}

impl Transits {
    fn of(&mut self, direction: Direction) -> &mut Transit {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::course::Course;

    #[test]
    fn a_link_begins_its_course_when_it_is_told() {
        let steady = Link::new(8_000_000, Duration::ZERO);
        let wire = Wire::new(steady, steady, 1);
        assert!(matches!(wire.offer(Direction::Up, 100), Fate::Arrives(_)));
        let hour = Duration::from_secs(3_600);
        std::thread::sleep(Duration::from_millis(5));
        let turns = Course::Turns { up: hour, down: hour };
        wire.begin(steady.with_course(turns), 1);
        assert!(wire.is_up());
        let before = wire.now();
        let Fate::Arrives(at) = wire.offer(Direction::Down, 100) else {
            panic!("the link is up");
        };
        assert!(at >= before, "{at:?} is before {before:?}");
        assert_eq!(wire.stats().up.offered.packets, 1, "what was counted stays");
        wire.cut();
        assert!(!wire.is_up());
    }
}
