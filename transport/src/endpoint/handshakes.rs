//! Who may shake hands: so many at a time, so many a second from one address, and whoever floods makes way for others.
//!
//! An address that somebody made up spends what is the address' own only in part, and so what is everybody's: the rest is
//! for who proves that it is there, by the token of a Retry. Told the time; asks nothing.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// The handshakes under way, and who began some lately.
#[derive(Debug, Default)]
pub(crate) struct Handshakes(Mutex<Inner>);

/// What becomes of somebody who dials.
#[derive(Debug)]
pub(crate) enum Entry {
    /// The handshake may begin.
    Welcome(Place),
    /// Its address has to be proven first.
    Prove,
    /// Not now.
    Ignored,
}

/// A handshake that is under way. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Place {
    handshakes: Arc<Handshakes>,
    number: u64,
    lost: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    /// In the order in which they began.
    under_way: BTreeMap<u64, UnderWay>,
    begun: u64,
    /// Until when what was begun counts against who began it, and against all.
    spent: BTreeMap<Source, Instant>,
    spent_by_all: Option<Instant>,
}

#[derive(Debug)]
struct UnderWay {
    source: Source,
    lost: Arc<Notify>,
}

/// What one party has at its command: an address of IPv4, or a network of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source(IpAddr);

impl Source {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

impl Handshakes {
    /// Somebody dials from an address, which is its own for sure if it is `proven`. Where all places are taken, the
    /// oldest of the address that has most is lost, so that a few addresses cannot hold all.
    pub(crate) fn enter(self: &Arc<Self>, from: IpAddr, proven: bool, now: Instant) -> Entry {
        let source = Source::of(from);
        let mut inner = self.lock();
        if !proven && inner.under_way.len() >= UNPROVEN_MAX {
            return Entry::Prove;
        }
        if !inner.spend(source, proven, now) {
            return if proven { Entry::Ignored } else { Entry::Prove };
        }
        if inner.under_way.len() >= UNDER_WAY_MAX {
            inner.make_way();
        }
        let (number, lost) = (inner.begun, Arc::new(Notify::new()));
        inner.begun += 1;
        inner.under_way.insert(number, UnderWay { source, lost: lost.clone() });
        drop(inner);
        Entry::Welcome(Place { handshakes: self.clone(), number, lost })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Whether one more may begin from there, which counts then.
    fn spend(&mut self, source: Source, proven: bool, now: Instant) -> bool {
        let (most, most_of_all) = match proven {
            true => (BURST, BURST_OF_ALL),
            false => (BURST_UNPROVEN, BURST_OF_ALL_UNPROVEN),
        };
        self.spent.retain(|_, until| *until > now);
        let until = spent_after(self.spent.get(&source).copied(), EVERY, most, now);
        let by_all = spent_after(self.spent_by_all, EVERY_OF_ALL, most_of_all, now);
        let (Some(until), Some(by_all)) = (until, by_all) else { return false };
        if self.spent.len() >= SOURCES_MAX && !self.spent.contains_key(&source) {
            // Whoever has spent least gets it back first anyway.
            let least = self.spent.iter().min_by_key(|(_, until)| **until).map(|(least, _)| *least);
            least.map(|least| self.spent.remove(&least));
        }
        self.spent.insert(source, until);
        self.spent_by_all = Some(by_all);
        true
    }

    fn make_way(&mut self) {
        let mut counts = BTreeMap::<Source, usize>::new();
        self.under_way.values().for_each(|it| *counts.entry(it.source).or_default() += 1);
        let most = counts.values().copied().max();
        let mut oldest_first = self.under_way.iter();
        let found = oldest_first.find(|(_, it)| counts.get(&it.source).copied() == most);
        if let Some(lost) =
            found.map(|(number, _)| *number).and_then(|it| self.under_way.remove(&it))
        {
            lost.lost.notify_one();
        }
    }
}

/// Until when it counts if one more begins, of which there may be `most` at once and one in each `every`.
fn spent_after(
    before: Option<Instant>,
    every: Duration,
    most: u32,
    now: Instant,
) -> Option<Instant> {
    let until = before.map_or(now, |before| before.max(now)) + every;
    Some(until).filter(|until| *until <= now + every * most)
}

impl Place {
    /// Waits until the place is lost to somebody else.
    pub(crate) async fn lost(&self) {
        self.lost.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.handshakes.lock().under_way.remove(&self.number);
    }
}

/// How many may be under way.
const UNDER_WAY_MAX: usize = 64;

/// How many of them may come from addresses that nothing is known of.
const UNPROVEN_MAX: usize = 16;

/// One handshake each so often from one source, in the long run. It takes a fraction of a millisecond of a core, and a
/// fleet behind one address comes back after an outage at this pace.
const EVERY: Duration = Duration::from_millis(125);

/// How many at once after a pause.
const BURST: u32 = 32;

/// How many of these without proof, so that who makes up the address of another leaves it the rest.
const BURST_UNPROVEN: u32 = BURST / 2;

/// One each so often from all of them: what was given up takes memory for some seconds more.
const EVERY_OF_ALL: Duration = Duration::from_millis(10);

/// How many at once after a pause from all.
const BURST_OF_ALL: u32 = 128;

/// How many of these without proof, so that who makes up addresses leaves the rest to who has one.
const BURST_OF_ALL_UNPROVEN: u32 = BURST_OF_ALL / 2;

/// Of how many sources it is known how much they have spent.
const SOURCES_MAX: usize = 1_024;

/// The part of an address of IPv6 that names a network: who has one has all addresses in it.
const NETWORK: u128 = !0 << 64;

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, task::Poll};

    use super::*;

    fn v4(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    fn entered(entry: Entry) -> Place {
        match entry {
            Entry::Welcome(place) => place,
            other => panic!("{other:?}"),
        }
    }

    async fn is_lost(place: &Place) -> bool {
        let mut lost = std::pin::pin!(place.lost());
        std::future::poll_fn(|cx| Poll::Ready(lost.as_mut().poll(cx).is_ready())).await
    }

    #[tokio::test]
    async fn who_takes_all_places_loses_the_oldest_to_whoever_comes() {
        let (handshakes, start) = (Arc::new(Handshakes::default()), Instant::now());
        let mut flood = Vec::new();
        let mut at = start;
        for _ in 0..UNDER_WAY_MAX {
            at += EVERY;
            flood.push(entered(handshakes.enter(v4(1), true, at)));
        }
        let first = entered(handshakes.enter(v4(2), true, at));
        assert!(is_lost(&flood[0]).await && !is_lost(&flood[1]).await);
        // However long the flood goes on.
        for _ in 0..200 {
            at += EVERY;
            flood.push(entered(handshakes.enter(v4(1), true, at)));
            assert!(!is_lost(&first).await);
        }
        let held = handshakes.lock().under_way.len();
        assert_eq!(held, UNDER_WAY_MAX);
        drop((first, flood));
        assert!(handshakes.lock().under_way.is_empty());
    }

    #[test]
    fn one_source_begins_few_a_second_and_others_are_not_held_to_that() {
        let (handshakes, start) = (Arc::new(Handshakes::default()), Instant::now());
        let mut begun = 0;
        for ms in 0..10_000 {
            let at = start + Duration::from_millis(ms);
            begun += u32::from(matches!(handshakes.enter(v4(1), true, at), Entry::Welcome(_)));
        }
        assert!((BURST + 70..=BURST + 80).contains(&begun), "{begun}");
        let at = start + Duration::from_secs(10);
        assert!(matches!(handshakes.enter(v4(2), true, at), Entry::Welcome(_)));
    }

    #[test]
    fn who_makes_up_the_address_of_another_does_not_keep_it_out() {
        let (handshakes, start) = (Arc::new(Handshakes::default()), Instant::now());
        for _ in 0..1_000 {
            assert!(!matches!(handshakes.enter(v4(1), false, start), Entry::Ignored));
        }
        assert!(matches!(handshakes.enter(v4(1), false, start), Entry::Prove));
        assert!(matches!(handshakes.enter(v4(1), true, start), Entry::Welcome(_)));
    }

    #[test]
    fn made_up_addresses_leave_something_to_those_that_are_there() {
        let (handshakes, start) = (Arc::new(Handshakes::default()), Instant::now());
        for number in 0..10_000_u32 {
            let from = IpAddr::from(Ipv4Addr::from_bits(0x0A00_0000 | number));
            let at = start + Duration::from_millis(u64::from(number));
            // Each ends as soon as it has begun.
            drop(handshakes.enter(from, false, at));
            if number % 100 == 0 {
                let entry = handshakes.enter(v4(1), true, at);
                assert!(matches!(entry, Entry::Welcome(_)), "{number}: {entry:?}");
            }
        }
    }

    #[test]
    fn where_many_are_under_way_an_address_is_proven_first() {
        let (handshakes, start) = (Arc::new(Handshakes::default()), Instant::now());
        let held: Vec<_> = (0..u8::MAX)
            .take(UNPROVEN_MAX)
            .map(|last| entered(handshakes.enter(v4(last), false, start)))
            .collect();
        assert!(matches!(handshakes.enter(v4(99), false, start), Entry::Prove));
        assert!(matches!(handshakes.enter(v4(99), true, start), Entry::Welcome(_)));
        drop(held);
        assert!(matches!(handshakes.enter(v4(98), false, start), Entry::Welcome(_)));
    }

    #[test]
    fn a_network_of_ipv6_is_one_source_and_few_are_remembered() {
        let host = |network: u128, host: u128| {
            let base = 0x2001_0db8_u128 << 96;
            IpAddr::from(Ipv6Addr::from_bits(base | network << 64 | host))
        };
        assert_eq!(Source::of(host(7, 1)), Source::of(host(7, 2)));
        assert_ne!(Source::of(host(7, 1)), Source::of(host(8, 1)));
        let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped();
        assert_eq!(Source::of(mapped.into()), Source::of(v4(1)));
    }

    #[test]
    fn many_sources_together_begin_not_much_more_than_a_hundred_a_second() {
        let (handshakes, start) = (Arc::new(Handshakes::default()), Instant::now());
        let mut begun = 0;
        for number in 0..50_000_u32 {
            let from = IpAddr::from(Ipv4Addr::from_bits(0x0A00_0000 | number));
            let at = start + Duration::from_micros(200) * number;
            begun += u32::from(matches!(handshakes.enter(from, true, at), Entry::Welcome(_)));
        }
        assert!((900..1_200).contains(&begun), "{begun}");
        assert!(handshakes.lock().spent.len() <= SOURCES_MAX);
    }
}
