//! A disk in memory: what it holds, every write and barrier in order, what a power cut leaves of them, and which
//! writes fail.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::Image;

/// A disk that remembers. Clones share it.
#[derive(Clone)]
pub struct Disk {
    /// Where blocks stand that are never torn.
    whole: &'static [u64],
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What it held when the log began.
    base: Image,
    /// What is read from it.
    live: Image,
    log: Vec<Event>,
    log_bytes: usize,
    fails: Option<Box<Fails>>,
    failed: u64,
}

/// Whether the write of these bytes at this position fails.
type Fails = dyn FnMut(u64, &[u8]) -> bool + Send;

enum Event {
    Write { at: u64, bytes: Box<[u8]> },
    Barrier,
}

impl Disk {
    /// A disk of zeros that tears what is longer than a sector, but for writes that begin at `whole`.
    pub(crate) fn new(whole: &'static [u64]) -> Self {
        Self { whole, state: Arc::default() }
    }

    /// Puts this content on the disk and begins a new log; no write fails any more. Nothing may be mounted.
    pub fn load(&self, image: Image) {
        *self.state() = State { base: image.clone(), live: image, ..State::default() };
    }

    /// Begins a new log with what the disk holds, for who writes much and cuts nothing before this moment.
    pub fn forget(&self) {
        let mut state = self.state();
        state.base = state.live.clone();
        state.log.clear();
        state.log_bytes = 0;
    }

    /// How many writes and barriers there were since the log began: a moment in the disk's life.
    pub fn position(&self) -> usize {
        self.state().log.len()
    }

    /// What a power cut at `moment` would have left: all that was written before the last barrier, and of what was
    /// written since any part, in sectors. `choose(n)` returns a number below `n`; the same answers leave the
    /// same content.
    #[must_use]
    pub fn cut(&self, moment: usize, choose: &mut dyn FnMut(usize) -> usize) -> Image {
        let state = self.state();
        let before = &state.log[..moment.min(state.log.len())];
        let barrier = before.iter().rposition(|event| matches!(event, Event::Barrier)).unwrap_or(0);
        let (certain, pending) = before.split_at(barrier);
        let mut image = state.base.clone();
        for (at, bytes) in writes(certain) {
            image.write(at, bytes);
        }
        let manner = Manner::ALL[choose(Manner::ALL.len())];
        for (at, bytes) in writes(pending) {
            let torn = manner == Manner::Sectors && !self.whole.contains(&at);
            let part = if torn { SECTOR } else { bytes.len() };
            for (number, kept) in bytes.chunks(part).enumerate() {
                if manner.keeps(choose) {
                    image.write(at + (number * part) as u64, kept);
                }
            }
        }
        image
    }

    /// From now on a write fails, and leaves nothing, if `fails` says so of its position and bytes.
    pub fn fail_writes(&self, fails: impl FnMut(u64, &[u8]) -> bool + Send + 'static) {
        self.state().fails = Some(Box::new(fails));
    }

    /// Lets all writes succeed again, and says how many have failed since the content was loaded.
    pub fn heal(&self) -> u64 {
        let mut state = self.state();
        state.fails = None;
        state.failed
    }

    pub(crate) fn read(&self, at: u64, out: &mut [u8]) {
        self.state().live.read(at, out);
    }

    /// Whether the write succeeded.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> bool {
        let mut state = self.state();
        let injected = state.fails.as_mut().is_some_and(|fails| fails(at, bytes));
        if injected || state.log_bytes + bytes.len() > LOG_BYTES_MAX {
            state.failed += 1;
            return false;
        }
        state.live.write(at, bytes);
        state.log_bytes += bytes.len();
        state.log.push(Event::Write { at, bytes: bytes.into() });
        true
    }

    pub(crate) fn barrier(&self) {
        self.state().log.push(Event::Barrier);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("position", &self.position()).finish_non_exhaustive()
    }
}

fn writes(events: &[Event]) -> impl Iterator<Item = (u64, &[u8])> {
    events.iter().filter_map(|event| match event {
        Event::Write { at, bytes } => Some((*at, &bytes[..])),
        Event::Barrier => None,
    })
}

/// How a power cut treats what no barrier covers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Nothing,
    Everything,
    WholeWrites,
    Sectors,
}

impl Manner {
    const ALL: [Self; 4] = [Self::Nothing, Self::Everything, Self::WholeWrites, Self::Sectors];

    /// Whether the next part survives.
    fn keeps(self, choose: &mut dyn FnMut(usize) -> usize) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::WholeWrites | Self::Sectors => choose(2) == 1,
        }
    }
}

/// What a device writes whole or not at all.
const SECTOR: usize = 512;
/// A test that writes more than this to one log has gone astray; its writes fail.
const LOG_BYTES_MAX: usize = 512 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn sectors(image: &Image) -> [u8; 4] {
        let mut out = [0; 4 * SECTOR];
        image.read(0, &mut out);
        [out[0], out[SECTOR], out[2 * SECTOR], out[3 * SECTOR]]
    }

    /// A first sector behind a barrier, and two that are not.
    fn written() -> Disk {
        let disk = Disk::new(&[]);
        assert!(disk.write(0, &[1; SECTOR]));
        disk.barrier();
        assert!(disk.write(SECTOR as u64, &[2; 2 * SECTOR]));
        disk
    }

    #[test]
    fn what_a_barrier_covers_survives_and_of_the_rest_any_part() {
        let disk = written();
        let mut seen = std::collections::BTreeSet::new();
        for answers in 0_usize..64 {
            let mut left = answers;
            let image = disk.cut(disk.position(), &mut |n| {
                let answer = left % n;
                left /= n;
                answer
            });
            seen.insert(sectors(&image));
        }
        let expected = [[1, 0, 0, 0], [1, 0, 2, 0], [1, 2, 0, 0], [1, 2, 2, 0]];
        assert_eq!(seen, expected.into());
    }

    #[test]
    fn a_cut_before_the_barrier_may_take_what_it_covers() {
        let disk = written();
        assert_eq!(sectors(&disk.cut(1, &mut |_| 0)), [0; 4]);
        assert_eq!(sectors(&disk.cut(1, &mut |_| 1)), [1, 0, 0, 0]);
        assert_eq!(sectors(&disk.cut(2, &mut |_| 0)), [1, 0, 0, 0]);
    }

    #[test]
    fn a_write_that_is_said_to_be_whole_is_never_torn() {
        let disk = Disk { whole: &[SECTOR as u64], ..written() };
        let mut answers = [3, 1].into_iter();
        let image = disk.cut(disk.position(), &mut |_| answers.next().unwrap());
        assert_eq!(sectors(&image), [1, 2, 2, 0]);
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_and_is_counted() {
        let disk = written();
        disk.fail_writes(|at, _| at == 0);
        assert!(!disk.write(0, &[9; SECTOR]));
        assert!(disk.write(3 * SECTOR as u64, &[3; SECTOR]));
        assert_eq!(disk.heal(), 1);
        assert!(disk.write(0, &[4; SECTOR]));
        assert_eq!(sectors(&disk.cut(disk.position(), &mut |_| 1)), [4, 2, 2, 3]);
    }
}
