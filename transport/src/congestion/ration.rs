//! A cap on what leaves for a peer, whatever the link would carry: a bucket of bytes that fills at the cap's rate.
//!
//! The bucket goes into debt with each packet, and nothing that waits for the congestion window leaves before the debt is
//! paid. Acknowledgements and timeouts do not wait, but count: what follows waits for them. So does
//! what follows a handshake, and a connection beside another one has no bucket of its own.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// The bucket. Told what left, and when; asks nothing.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Bytes a second.
    rate: f64,
    /// What may leave at once; a debt if it is negative.
    balance: f64,
    at: Option<Instant>,
}

impl Bucket {
    fn new(bits_per_second: u64) -> Self {
        Self { rate: bits_per_second as f64 / 8.0, balance: 0.0, at: None }
    }

    fn fill(&mut self, now: Instant) {
        if let Some(at) = self.at.replace(now) {
            let filled = self.rate * now.saturating_duration_since(at).as_secs_f64();
            self.balance = (self.balance + filled).min(self.rate * CREDIT.as_secs_f64());
        }
    }

    fn spend(&mut self, now: Instant, bytes: u64) {
        self.fill(now);
        let most = (self.rate * DEBT.as_secs_f64()).max(DEBT_BYTES);
        self.balance = (self.balance - bytes as f64).max(-most);
    }

    /// When the debt will be paid; `None` if there is none.
    fn paid_at(&self, now: Instant) -> Option<Instant> {
        (self.balance < 0.0).then(|| now + Duration::from_secs_f64(-self.balance / self.rate))
    }
}

/// The bucket of one peer, shared by whatever sends to it.
#[derive(Debug)]
pub struct Ration {
    bucket: Mutex<Bucket>,
    open: AtomicBool,
    shut: Notify,
}

impl Ration {
    /// So many bits a second, of whole packets.
    pub fn new(bits_per_second: u64) -> Self {
        Self {
            bucket: Mutex::new(Bucket::new(bits_per_second)),
            open: AtomicBool::new(true),
            shut: Notify::new(),
        }
    }

    /// Whether another packet may leave.
    pub fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// A packet of so many bytes has left, its headers included.
    pub fn spend(&self, now: Instant, bytes: u64) {
        let mut bucket = self.lock();
        bucket.spend(now, bytes);
        if bucket.balance < 0.0 && self.open.swap(false, Relaxed) {
            self.shut.notify_waiters();
        }
    }

    /// When another packet may leave, if not now.
    pub fn opens_at(&self, now: Instant) -> Option<Instant> {
        let mut bucket = self.lock();
        bucket.fill(now);
        let paid_at = bucket.paid_at(now);
        self.open.store(paid_at.is_none(), Relaxed);
        paid_at
    }

    /// Waits until nothing may leave.
    pub async fn until_shut(&self) {
        loop {
            let shut = self.shut.notified();
            if !self.is_open() {
                return;
            }
            shut.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What may be saved up: as long as a timer may be late. Not more, so that the cap holds over any time that
/// matters to somebody who pays for it.
const CREDIT: Duration = Duration::from_millis(10);

/// Most that is waited for what could not wait. A peer that sends so much that the acknowledgements alone exceed the cap must
/// not end everything else.
const DEBT: Duration = Duration::from_secs(5);

/// The same for a cap so low that a handshake takes longer than that.
const DEBT_BYTES: f64 = 4_096.0;

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: u64 = 1_228;

    /// Sends whenever it may, for so long; returns when each packet left.
    fn departures(ration: &Ration, start: Instant, duration: Duration) -> Vec<Duration> {
        let (mut now, mut departures) = (start, Vec::new());
        while now < start + duration {
            match ration.opens_at(now) {
                // As late as a timer may be.
                Some(paid_at) => now = paid_at + Duration::from_millis(1),
                None => {
                    departures.push(now - start);
                    ration.spend(now, PACKET);
                }
            }
        }
        departures
    }

    #[test]
    fn no_two_seconds_carry_more_than_the_cap_and_all_of_it_is_used() {
        for bits in [1_000, 64_000, 1_000_000, 50_000_000] {
            let ration = Ration::new(bits);
            let seconds = if bits < 10_000 { 200 } else { 20 };
            let all = departures(&ration, Instant::now(), Duration::from_secs(seconds));
            let cap = bits as f64 / 8.0;
            let used = all.len() as f64 * PACKET as f64 / (cap * seconds as f64);
            assert!((0.9..1.1).contains(&used), "{bits}: {used}");
            for (from, start) in all.iter().enumerate() {
                let within = all[from..].iter().take_while(|at| **at < *start + TWO).count();
                let most = cap * 2.0 + cap * CREDIT.as_secs_f64() + PACKET as f64;
                assert!(within as f64 * PACKET as f64 <= most, "{bits}: {within} from {start:?}");
            }
        }
    }

    #[test]
    fn what_could_not_wait_is_waited_for_but_not_for_ever() {
        let (ration, start) = (Ration::new(64_000), Instant::now());
        ration.spend(start, 4_000);
        assert_eq!(ration.opens_at(start), Some(start + Duration::from_millis(500)));
        (0..1_000).for_each(|_| ration.spend(start, PACKET));
        assert_eq!(ration.opens_at(start), Some(start + DEBT));
        assert!(!ration.is_open());
        assert_eq!(ration.opens_at(start + DEBT), None);
        assert!(ration.is_open());
    }

    #[test]
    fn idle_time_saves_nothing_up() {
        let (ration, start) = (Ration::new(64_000), Instant::now());
        ration.spend(start, PACKET);
        let later = start + Duration::from_secs(3_600);
        assert_eq!(ration.opens_at(later), None);
        ration.spend(later, PACKET);
        assert!(ration.opens_at(later).is_some());
    }

    const TWO: Duration = Duration::from_secs(2);
}
