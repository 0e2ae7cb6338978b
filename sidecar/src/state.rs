//! What is remembered of peers between two runs: what they will say again themselves, and what links to them have cost.
//! Deleting it costs time and the accounting, never data.

use std::{
    fs, io, panic,
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use thinwire_engine::model::{Offset, Origin, StreamId};
use tracing::warn;

use crate::access::{Day, Ledger};

/// sled's default cache is 1 GiB; this holds every peer's position many times over.
const CACHE_BYTES: u64 = 1 << 20;

/// What sled says of a folder that is held, and how often and long it is asked again: two seconds in all.
const HELD: &str = "could not acquire lock";
const HELD_TRIES: u32 = 20;
const HELD_PAUSE: Duration = Duration::from_millis(100);

/// A cache of positions, in a folder of its own. Whatever happens to the folder, also while it is in use, costs no more
/// than the cache: its library may fail, or panic, on bytes that it does not understand.
#[derive(Debug)]
pub struct State {
    trees: Mutex<Option<Trees>>,
    known: Known,
}

#[derive(Debug)]
struct Trees {
    acks: sled::Tree,
    usage: sled::Tree,
}

/// What was remembered.
#[derive(Debug, Default)]
struct Known {
    acks: Vec<Ack>,
    usage: Vec<Usage>,
}

/// What a link cost on a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Which peer.
    pub peer: Origin,
    /// When.
    pub day: Day,
    /// Bytes of whole packets, both directions.
    pub bytes: u64,
}

/// What a peer had of a stream when it last said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Which peer.
    pub peer: Origin,
    /// Which stream.
    pub stream: StreamId,
    /// Durable there.
    pub acked: Offset,
    /// In its database.
    pub applied: Offset,
}

impl State {
    /// Opens the cache in `dir` and reads it. One that cannot be opened or read is moved aside and begun anew; without
    /// one, nothing is remembered.
    pub fn open(dir: &Path) -> Self {
        let opened = open_unheld(dir).or_else(|why| {
            warn!(%why, "the cache of peer positions cannot be used; it is begun anew");
            set_aside(dir).map_err(|error| error.to_string())?;
            open(dir)
        });
        match opened {
            Ok((trees, known)) => Self { trees: Mutex::new(Some(trees)), known },
            Err(why) => {
                warn!(%why, "there is no cache of peer positions; they are asked for again");
                Self { trees: Mutex::new(None), known: Known::default() }
            }
        }
    }

    /// Everything that was remembered when the cache was opened.
    pub fn acks(&self) -> &[Ack] {
        &self.known.acks
    }

    /// What links had cost when the cache was opened.
    pub fn usage(&self) -> &[Usage] {
        &self.known.usage
    }

    /// Remembers a position.
    pub fn put(&self, ack: &Ack) {
        let (key, value) = encode(ack);
        self.write(|trees| insert(&trees.acks, &key, &value));
    }

    /// Remembers what links to a peer have cost, on these days and no others.
    pub fn put_usage(&self, peer: Origin, ledger: &Ledger) {
        self.write(|trees| {
            for (day, bytes) in ledger.days() {
                let (key, value) = encode_usage(&Usage { peer, day, bytes });
                insert(&trees.usage, &key, &value)?;
            }
            for entry in trees.usage.scan_prefix(peer.as_bytes()) {
                let (key, value) = entry?;
                let held = decode_usage(&key, &value);
                if held.is_none_or(|held| ledger.day(held.day) == 0) {
                    trees.usage.remove(key)?;
                }
            }
            Ok(())
        });
    }

    /// A cache that fails is not used any more: an old one is as good.
    fn write(&self, act: impl FnOnce(&Trees) -> sled::Result<()>) {
        let mut held = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(trees) = held.as_ref() else { return };
        if let Err(why) = guarded(|| act(trees)) {
            warn!(%why, "the cache of peer positions fails; none is remembered until the next start");
            // Its library would flush it when it is dropped, and might panic again.
            std::mem::forget(held.take());
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // Its library flushes it then, and panics if the disk refuses: that must not hide why the program ends.
        let trees = self.trees.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Err(why) = guarded(|| {
            drop(trees);
            Ok(())
        }) {
            warn!(%why, "the cache of peer positions could not be flushed");
        }
    }
}

/// Moves a cache away, in place of one that was moved away before.
fn set_aside(dir: &Path) -> io::Result<()> {
    let aside = dir.with_extension("unusable");
    let _ = fs::remove_dir_all(&aside);
    let _ = fs::remove_file(&aside);
    match fs::rename(dir, aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens the cache once nobody holds it: threads of its library may still be letting go of it when its last owner is gone.
fn open_unheld(dir: &Path) -> Result<(Trees, Known), String> {
    for _ in 0..HELD_TRIES {
        match open(dir) {
            Err(why) if why.contains(HELD) => thread::sleep(HELD_PAUSE),
            opened => return opened,
        }
    }
    open(dir)
}

fn open(dir: &Path) -> Result<(Trees, Known), String> {
    guarded(|| {
        let db = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).open()?;
        let trees = Trees { acks: db.open_tree("acks")?, usage: db.open_tree("usage")? };
        // sled may repeat an error for ever, so the first one ends the reading.
        let held = |tree: &sled::Tree| tree.iter().collect::<sled::Result<Vec<_>>>();
        let (acks, usage) = (held(&trees.acks)?, held(&trees.usage)?);
        let known = Known {
            acks: acks.iter().filter_map(|(key, value)| decode(key, value)).collect(),
            usage: usage.iter().filter_map(|(key, value)| decode_usage(key, value)).collect(),
        };
        Ok((trees, known))
    })
}

fn insert(tree: &sled::Tree, key: &[u8], value: &[u8]) -> sled::Result<()> {
    match tree.get(key)? {
        Some(held) if held == *value => Ok(()),
        _ => tree.insert(key, value).map(drop),
    }
}

fn encode_usage(usage: &Usage) -> ([u8; 20], [u8; 8]) {
    let mut key = [0; 20];
    key[..16].copy_from_slice(usage.peer.as_bytes());
    key[16..18].copy_from_slice(&usage.day.year.to_le_bytes());
    key[18..19].copy_from_slice(&usage.day.month.to_le_bytes());
    key[19..].copy_from_slice(&usage.day.day.to_le_bytes());
    (key, usage.bytes.to_le_bytes())
}

fn decode_usage(key: &[u8], value: &[u8]) -> Option<Usage> {
    let date = |at: usize| Some(i8::from_le_bytes([*key.get(at)?]));
    Some(Usage {
        peer: Origin::from_bytes(key.get(..16)?.try_into().ok()?),
        day: Day {
            year: i16::from_le_bytes(key.get(16..18)?.try_into().ok()?),
            month: date(18)?,
            day: date(19)?,
        },
        bytes: u64::from_le_bytes(value.try_into().ok()?),
    })
}

/// sled may panic on what it does not understand, so that is an error like any other.
fn guarded<T>(act: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
    match panic::catch_unwind(panic::AssertUnwindSafe(act)) {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err("it is damaged beyond what its library understands".to_owned()),
    }
}

fn encode(ack: &Ack) -> ([u8; 48], [u8; 16]) {
    let (mut key, mut value) = ([0; 48], [0; 16]);
    key[..16].copy_from_slice(ack.peer.as_bytes());
    key[16..32].copy_from_slice(ack.stream.origin.as_bytes());
    key[32..].copy_from_slice(ack.stream.epoch.as_bytes());
    value[..8].copy_from_slice(&ack.acked.get().to_le_bytes());
    value[8..].copy_from_slice(&ack.applied.get().to_le_bytes());
    (key, value)
}

fn decode(key: &[u8], value: &[u8]) -> Option<Ack> {
    use thinwire_engine::model::Epoch;
    let id = |at: usize| key.get(at..at + 16)?.try_into().ok();
    let offset = |at: usize| {
        let bytes = value.get(at..at + 8)?.try_into().ok()?;
        Some(Offset::new(u64::from_le_bytes(bytes)))
    };
    Some(Ack {
        peer: Origin::from_bytes(id(0)?),
        stream: StreamId { origin: Origin::from_bytes(id(16)?), epoch: Epoch::from_bytes(id(32)?) },
        acked: offset(0)?,
        applied: offset(8)?,
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use thinwire_engine::model::Epoch;

    use super::*;

    fn ack(acked: u64) -> Ack {
        Ack {
            peer: Origin::from_bytes([1; 16]),
            stream: StreamId {
                origin: Origin::from_bytes([2; 16]),
                epoch: Epoch::from_bytes([3; 16]),
            },
            acked: Offset::new(acked),
            applied: Offset::new(acked / 2),
        }
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_file()).collect()
    }

    /// Removes the folder, in which threads of the library may still be at work.
    fn vanish(dir: &Path) {
        while dir.exists() {
            let _ = fs::remove_dir_all(dir);
        }
    }

    /// Remembers something in the folder, whatever is there, and finds it again.
    fn is_usable(dir: &Path, acked: u64) {
        let state = State::open(dir);
        state.put(&ack(acked));
        drop(state);
        assert_eq!(State::open(dir).acks(), [ack(acked)]);
    }

    #[test]
    fn positions_are_remembered_and_a_damaged_folder_only_forgets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let state = State::open(&path);
        state.put(&ack(7));
        state.put(&ack(9));
        drop(state);
        assert_eq!(State::open(&path).acks(), [ack(9)]);
        for (number, damage) in [
            |whole: &[u8]| vec![0xA5; whole.len()],
            |whole: &[u8]| whole[..whole.len() / 2].to_vec(),
            |_: &[u8]| Vec::new(),
            |whole: &[u8]| whole.iter().map(|byte| byte ^ 1).collect(),
        ]
        .into_iter()
        .enumerate()
        {
            for file in files(&path) {
                fs::write(&file, damage(&fs::read(&file).unwrap())).unwrap();
            }
            is_usable(&path, 10 + number as u64);
        }
        vanish(&path);
        fs::write(&path, b"a file in its place").unwrap();
        is_usable(&path, 1);
    }

    #[test]
    fn what_links_cost_is_remembered_by_day_and_forgotten_with_the_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let day = |day| Day { year: 2026, month: 6, day };
        let (mut ledger, peer) = (Ledger::default(), Origin::from_bytes([1; 16]));
        let state = State::open(&path);
        ledger.add(day(1), 10);
        ledger.add(day(2), 20);
        state.put_usage(peer, &ledger);
        state.put_usage(Origin::from_bytes([2; 16]), &Ledger::default());
        drop(state);
        let state = State::open(&path);
        let usage = |on, bytes| Usage { peer, day: day(on), bytes };
        assert_eq!(state.usage(), [usage(1, 10), usage(2, 20)]);
        let mut later = Ledger::default();
        later.add(day(2), 25);
        state.put_usage(peer, &later);
        drop(state);
        assert_eq!(State::open(&path).usage(), [usage(2, 25)]);
    }

    #[test]
    fn a_folder_that_vanishes_in_use_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let state = State::open(&path);
        state.put(&ack(1));
        vanish(&path);
        for acked in 2..2_000 {
            state.put(&ack(acked));
        }
        drop(state);
        is_usable(&path, 3);
    }

    #[test]
    fn wherever_a_bit_is_flipped_the_cache_opens_and_says_nothing_that_was_not_put() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let state = State::open(&path);
        (1..40).for_each(|acked| state.put(&ack(acked)));
        drop(state);
        let names: Vec<_> = files(&path);
        let mut copies = 0;
        for name in &names {
            let whole = fs::read(name).unwrap();
            for at in (0..whole.len()).step_by((whole.len() / 12).max(1)) {
                // Threads of the library may still be at work in the one before.
                copies += 1;
                let copy = dir.path().join(format!("copy{copies}"));
                fs::create_dir(&copy).unwrap();
                for file in &names {
                    fs::copy(file, copy.join(file.file_name().unwrap())).unwrap();
                }
                let mut bytes = whole.clone();
                bytes[at] ^= 4;
                fs::write(copy.join(name.file_name().unwrap()), bytes).unwrap();
                let state = State::open(&copy);
                assert!(state.acks().iter().all(|held| (1..40).any(|acked| *held == ack(acked))));
                state.put(&ack(50));
            }
        }
    }
}
