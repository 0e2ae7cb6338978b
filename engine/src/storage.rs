//! The disk as a trait: what the journal relies on, directory syncs among it.
//!
//! The seam lies below the journal, at the file system, so that the code one fears runs unchanged on a disk that
//! loses, tears and fails. Implementations promise: bytes written are durable only once [`File::sync_data`] has
//! returned success; a created, renamed or removed name only once [`Disk::sync_dir`] of its folder has.

pub mod disk;
pub mod memory;

use std::{
    fmt,
    io::{self, IoSlice},
    path::Path,
};

use rustix::io::Errno;

use crate::mutant::{self, Mutant};

/// A file system.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Creates a folder that only its owner may enter, and those above it, durably. It may exist.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names in a folder, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Creates a file that must not exist, readable by its owner only.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Opens a file, for writing too if `write`.
    fn open(&self, path: &Path, write: bool) -> io::Result<Box<dyn File>>;
    /// Gives a file another name in the same folder, in the place of the file that has it, if any.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes a lock that ends with the process, however that ends; `None` if another process has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;
}

/// An open file. All access is at a position: no handle has one of its own.
pub trait File: fmt::Debug + Send + Sync {
    /// Its length.
    fn len(&self) -> io::Result<u64>;
    /// Whether it is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads up to `buf.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes all of `buf`, or fails with any part of it written.
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()>;
    /// Writes one part behind the other, the first at `at`: as one write of all of them.
    fn write_parts_at(&self, parts: &mut [IoSlice<'_>], at: u64) -> io::Result<()> {
        let parts: Vec<&[u8]> = parts.iter().map(|part| &**part).collect();
        self.write_all_at(&parts.concat(), at)
    }
    /// Makes all bytes written so far durable. A failure is final: what was written may be lost although
    /// it can still be read, and a second call may succeed without having written anything.
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts the file to `len` bytes, or lets it grow to them with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes the next read come from the device where it can, not from the cache: after a failed sync,
    /// the cache serves bytes that the device never took.
    fn forget_cached(&self) -> io::Result<()>;
}

/// Makes the names in a folder durable, also those of which a sync had failed: they may count as durable since, and so a
/// sync alone have nothing to do. The folder is changed for it; where that may not be done, or has no room, it is synced
/// as it is.
pub(crate) fn renew_names(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    if mutant::on(Mutant::NamesNotRenewed) {
        return disk.sync_dir(dir);
    }
    let probe = dir.join(PROBE);
    let changed = match disk.create(&probe) {
        Ok(_) => disk.remove(&probe),
        // One that is there is of a process that was killed, or of one that renews the same folder at this moment.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => disk.remove(&probe),
        Err(error) => Err(error),
    };
    match changed {
        Ok(()) => {}
        Err(error) => match error.kind() {
            // The other one has removed it, and so changed the folder.
            io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded => {}
            _ => return Err(error),
        },
    }
    disk.sync_dir(dir)
}

/// A file that is there for a moment only; by its name whoever opens the folder knows that it may go.
pub(crate) const PROBE: &str = "names.mend";

/// Whether a failure to read says that the device cannot give the bytes that stand there: then reading elsewhere may
/// succeed, and trying again will not.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

/// A lock that is held until it is dropped.
pub trait Lock: fmt::Debug + Send + Sync {}
