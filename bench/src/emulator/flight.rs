//! Packets on their way: what an emulator holds until the link says that it arrives.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Things in flight, in the order of their arrival; those of the same time keep their order.
#[derive(Debug)]
pub(crate) struct Flights<T> {
    heap: BinaryHeap<Reverse<Flight<T>>>,
    number: u64,
}

#[derive(Debug)]
struct Flight<T> {
    at: Duration,
    number: u64,
    thing: T,
}

impl<T> Flights<T> {
    pub(crate) fn new() -> Flights<T> {
        Flights { heap: BinaryHeap::new(), number: 0 }
    }

    /// Holds a thing until a time.
    pub(crate) fn take_off(&mut self, at: Duration, thing: T) {
        self.number += 1;
        self.heap.push(Reverse(Flight { at, number: self.number, thing }));
    }

    /// When the next one lands.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse(flight)| flight.at)
    }

    /// The next one that has landed by now.
    pub(crate) fn land(&mut self, now: Duration) -> Option<T> {
        if self.next_due()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(flight)| flight.thing)
    }
}

impl<T> Flight<T> {
    fn key(&self) -> (Duration, u64) {
        (self.at, self.number)
    }
}

impl<T> Ord for Flight<T> {
    fn cmp(&self, other: &Flight<T>) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl<T> PartialOrd for Flight<T> {
    fn partial_cmp(&self, other: &Flight<T>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Flight<T> {
    fn eq(&self, other: &Flight<T>) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Flight<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_land_by_time_and_then_in_their_order() {
        let ms = Duration::from_millis;
        let mut flights = Flights::new();
        for (at, name) in [(5, "c"), (3, "a"), (5, "d"), (4, "b")] {
            flights.take_off(ms(at), name);
        }
        assert_eq!(flights.next_due(), Some(ms(3)));
        assert_eq!(flights.land(ms(2)), None);
        let landed: Vec<&str> = std::iter::from_fn(|| flights.land(ms(5))).collect();
        assert_eq!(landed, ["a", "b", "c", "d"]);
        assert_eq!(flights.next_due(), None);
    }
}
