//! What is remembered of peers between two runs. Only what they will say again themselves: deleting it
//! costs time, never data.

use std::{
    fs, panic,
    path::{Path, PathBuf},
};

use thinwire_engine::model::{Offset, Origin, StreamId};
use tracing::warn;

/// sled's default cache is 1 GiB; this holds every peer's position many times over.
const CACHE_BYTES: u64 = 1 << 20;

/// A cache of positions, in a folder of its own.
#[derive(Debug)]
pub struct State {
    acks: Option<sled::Tree>,
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
    /// Opens the cache in `dir`. One that cannot be opened is moved aside and begun anew; without
    /// one, nothing is remembered.
    pub fn open(dir: &Path) -> Self {
        let database = open(dir).or_else(|why| {
            warn!(%why, "the cache of peer positions cannot be opened; it is begun anew");
            let aside = dir.with_extension("unusable");
            let _ = fs::remove_dir_all(&aside);
            fs::rename(dir, aside).map_err(|error| error.to_string())?;
            open(dir)
        });
        let acks = database.and_then(|db| db.open_tree("acks").map_err(|error| error.to_string()));
        if let Err(why) = &acks {
            warn!(%why, "there is no cache of peer positions; they are asked for again");
        }
        Self { acks: acks.ok() }
    }

    /// Everything that is remembered. What cannot be read is left out.
    pub fn acks(&self) -> Vec<Ack> {
        let Some(tree) = &self.acks else { return Vec::new() };
        // sled may repeat an error for ever, so the first one ends the list.
        let held = tree.iter().map_while(Result::ok);
        held.filter_map(|(key, value)| decode(&key, &value)).collect()
    }

    /// Remembers a position.
    pub fn put(&self, ack: &Ack) {
        if let Some(tree) = &self.acks {
            let (key, value) = encode(ack);
            if tree.get(key).is_ok_and(|held| held.is_some_and(|held| held == value[..])) {
                return;
            }
            // A cache that cannot be written is as good as an old one.
            let _ = tree.insert(key, &value[..]);
        }
    }
}

/// sled may panic on a folder that it does not understand, so that is an error like any other.
fn open(dir: &Path) -> Result<sled::Db, String> {
    let dir: PathBuf = dir.to_owned();
    let opened = panic::catch_unwind(move || {
        sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).open()
    });
    match opened {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error)) => Err(error.to_string()),
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

    #[test]
    fn positions_are_remembered_and_a_damaged_folder_only_forgets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let state = State::open(&path);
        state.put(&ack(7));
        state.put(&ack(9));
        assert_eq!(state.acks(), [ack(9)]);
        drop(state);
        assert_eq!(State::open(&path).acks(), [ack(9)]);

        for entry in fs::read_dir(&path).unwrap() {
            let file = entry.unwrap().path();
            if file.is_file() {
                fs::write(&file, vec![0xA5; 4_096]).unwrap();
            }
        }
        let state = State::open(&path);
        assert!(state.acks().is_empty());
        state.put(&ack(1));
        assert_eq!(state.acks(), [ack(1)]);
    }
}
