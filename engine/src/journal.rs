//! The journal: every stream that a node holds, in append-only segmented checksummed files.
//!
//! **Durable** means: the bytes survive power loss, because `fdatasync` of the file, and for a new file `fsync`
//! of its folder, has returned success. Watermarks, each at most the one before it:
//! here *appended* (in memory), *synced* (durable), *applied* (in the local database); at a peer *shipped*, *acked*
//! (durable there), *applied*. Nothing is told to anybody about a record before it is synced.
//!
//! One folder a stream, `<origin>-<epoch>`; in it one file a segment, named by its base offset. A segment opens with
//! the [`Tail`] at its base, so that opening a stream costs its last segment, and reading may start at any.
//! Writers [`append`](Stream::append) in memory and wait for the *synced* watermark; one
//! [`sync`](Stream::sync) writes all that waits with one write and one fdatasync. Behind what is idle,
//! [`seal`](Stream::seal) says that it is durable, so that recovery never takes damage to it for a torn end.
//!
//! What this code refuses to do: retry a failed sync, cut bytes that were proven durable, skip a record that it
//! cannot read, or number a record twice.

mod budget;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod group;
pub mod inspect;
mod mend;
mod reader;
mod recovery;
mod segment;
mod stream;
mod tail;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use budget::Budget;
pub use budget::{Pressure, Usage};
use mend::Closed;
pub use mend::{Mended, Mending};
pub use reader::{Block, Reader};
pub use stream::{Stream, Watermarks};
pub use tail::{Mark, Open, Tail};

use crate::{
    Error,
    limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN},
    model::{Origin, StreamId},
    storage::{Disk, Lock, PROBE, renew_names},
};

/// How a journal is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whose changes are captured here; all other streams are received.
    pub own: Origin,
    /// Size at which a segment ends, in bytes. Clamped so that the budget holds many.
    pub segment: u64,
    /// What all streams together may take on disk, in bytes.
    pub budget: u64,
}

/// All streams of a node.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    budget: Arc<Budget>,
    streams: Mutex<BTreeMap<StreamId, Arc<Stream>>>,
    /// Streams that are not open because they are being mended.
    mending: Arc<Mutex<BTreeSet<StreamId>>>,
    changed: watch::Sender<u64>,
    _lock: Box<dyn Lock>,
}

/// A stream that could not be opened. The others are not affected.
#[derive(Debug)]
pub struct Unopened {
    /// Which.
    pub id: StreamId,
    /// What it takes of the budget, on disk.
    pub bytes: u64,
    /// Why.
    pub error: Error,
}

impl Journal {
    /// Opens or creates the journal in `dir` and recovers its streams. Streams that cannot be
    /// recovered are named, not touched, and not opened.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it; [`Error::Io`] if the folder cannot be used.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
    ) -> Result<(Self, Vec<Unopened>), Error> {
        let io =
            |operation, path: &Path, source| Error::Io { operation, path: path.to_owned(), source };
        disk.create_dir(dir).map_err(|error| io("create", dir, error))?;
        let names = disk.list(dir).map_err(|error| io("list", dir, error))?;
        let ids: Vec<StreamId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        // It may be there and its name not durable yet: a process may have been killed between the two, or its sync have
        // failed. A stream was begun only once that was done.
        let above = dir.parent().filter(|above| !above.as_os_str().is_empty());
        let above = above.unwrap_or(Path::new("."));
        let synced = match ids.is_empty() {
            true => renew_names(disk.as_ref(), above),
            false => disk.sync_dir(above),
        };
        synced.map_err(|error| io("sync", above, error))?;
        let lock_path = dir.join("LOCK");
        let lock = disk
            .lock(&lock_path)
            .map_err(|error| io("lock", &lock_path, error))?
            .ok_or(Error::Locked { path: lock_path })?;
        let options = Options { segment: segment_bytes(options), ..options };
        let journal = Self {
            budget: Arc::new(Budget::new(options.budget, options.own)),
            disk,
            dir: dir.to_owned(),
            options,
            streams: Mutex::default(),
            mending: Arc::default(),
            changed: watch::Sender::new(0),
            _lock: lock,
        };
        if names.iter().any(|name| name == PROBE) {
            let probe = dir.join(PROBE);
            journal.disk.remove(&probe).map_err(|error| io("remove", &probe, error))?;
        }
        let mut unopened = Vec::new();
        for id in ids {
            if let Err(error) = journal.open_stream(id) {
                let bytes = recovery::bytes_in(journal.disk.as_ref(), &dir.join(id.to_string()));
                journal.budget.register(id, bytes);
                unopened.push(Unopened { id, bytes, error });
            }
        }
        Ok((journal, unopened))
    }

    /// The stream, if it is held and open.
    pub fn stream(&self, id: StreamId) -> Option<Arc<Stream>> {
        self.lock().get(&id).cloned()
    }

    /// The stream, which is created if it is not held yet.
    ///
    /// # Errors
    /// What opening or creating its files may fail with.
    pub fn open_stream(&self, id: StreamId) -> Result<Arc<Stream>, Error> {
        let mut streams = self.lock();
        if let Some(stream) = streams.get(&id) {
            return Ok(stream.clone());
        }
        if self.mending.lock().unwrap_or_else(PoisonError::into_inner).contains(&id) {
            return Err(Error::Mending { stream: id });
        }
        let stream = Arc::new(Stream::open(
            self.disk.clone(),
            &self.dir.join(id.to_string()),
            id,
            self.options.segment,
            self.budget.clone(),
        )?);
        streams.insert(id, stream.clone());
        self.changed.send_modify(|generation| *generation += 1);
        Ok(stream)
    }

    /// Begins to mend a stream that could not be opened because its last segment is damaged: that one, or another that has to
    /// be mended before it. It cannot be opened until that is finished or dropped. `None` if it is open, or nothing is there that could be mended. Touches the disk.
    ///
    /// # Errors
    /// As [`Stream::mend`]; [`Error::Mending`] if somebody mends it already.
    pub fn mend_unopened(&self, id: StreamId) -> Result<Option<Mending>, Error> {
        let closed = {
            let streams = self.lock();
            if streams.contains_key(&id) {
                return Ok(None);
            }
            Closed::keep(&self.mending, id).ok_or(Error::Mending { stream: id })?
        };
        let dir = self.dir.join(id.to_string());
        let Some(base) = mend::first_to_mend(self.disk.as_ref(), &dir, id)? else {
            return Ok(None);
        };
        let owner = mend::Owner::Nobody(Arc::new(closed));
        let (disk, budget) = (self.disk.clone(), self.budget.clone());
        Mending::begin(mend::Site { disk, dir, id, base, budget, owner }).map(Some)
    }

    /// All streams that are open.
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        self.lock().values().cloned().collect()
    }

    /// Changes whenever a stream was added.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whose changes are captured here.
    pub fn own(&self) -> Origin {
        self.options.own
    }

    /// What is given up because the budget runs out.
    pub fn pressure(&self) -> Pressure {
        self.budget.pressure()
    }

    /// What is used of the budget.
    pub fn usage(&self) -> Usage {
        self.budget.usage()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<StreamId, Arc<Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The configured segment size, but so that a received stream's reserve holds several.
fn segment_bytes(options: Options) -> u64 {
    options.segment.min(options.budget / 32).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
}

#[cfg(test)]
mod tests;
