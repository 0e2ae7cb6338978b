//! The real disk, with its writes and syncs counted, or its syncs left out.

use std::{
    io::{self, IoSlice},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use thinwire_engine::storage::{Disk, File, Lock, disk::RealDisk};

/// The machine's file system, watched. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct WatchedDisk {
    counts: Arc<Counts>,
    lazy: bool,
}

#[derive(Debug, Default)]
struct Counts {
    writes: AtomicU64,
    syncs: AtomicU64,
}

impl WatchedDisk {
    /// One that syncs nothing: to make large journals quickly.
    pub(crate) fn lazy() -> Self {
        Self { lazy: true, ..Self::default() }
    }

    /// How many writes and fdatasyncs of files there were.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.counts.writes.load(Ordering::SeqCst), self.counts.syncs.load(Ordering::SeqCst))
    }

    fn watch(&self, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(WatchedFile { file, disk: self.clone() })
    }
}

impl Disk for WatchedDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(self.watch(RealDisk.create(path)?))
    }
    fn open(&self, path: &Path, write: bool) -> io::Result<Box<dyn File>> {
        Ok(self.watch(RealDisk.open(path, write)?))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.lazy { Ok(()) } else { RealDisk.sync_dir(dir) }
    }
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        RealDisk.lock(path)
    }
}

#[derive(Debug)]
struct WatchedFile {
    file: Box<dyn File>,
    disk: WatchedDisk,
}

impl File for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(buf, at)
    }
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        self.disk.counts.writes.fetch_add(1, Ordering::SeqCst);
        self.file.write_all_at(buf, at)
    }
    fn write_parts_at(&self, parts: &mut [IoSlice<'_>], at: u64) -> io::Result<()> {
        self.disk.counts.writes.fetch_add(1, Ordering::SeqCst);
        self.file.write_parts_at(parts, at)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.disk.counts.syncs.fetch_add(1, Ordering::SeqCst);
        if self.disk.lazy { Ok(()) } else { self.file.sync_data() }
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn forget_cached(&self) -> io::Result<()> {
        self.file.forget_cached()
    }
}
