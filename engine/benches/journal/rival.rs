//! What the journal is measured against: the bare system calls, and a published log.

use std::path::Path;

use okaywal::{Configuration, LogVoid, WriteAheadLog};
use tempfile::TempDir;
use thinwire_engine::storage::{Disk, File, disk::RealDisk};

use crate::{journal::folder, workload::Group};

/// A file that is written to and synced: nobody can be durable with less.
#[derive(Debug)]
pub(crate) struct Raw {
    file: Box<dyn File>,
    position: u64,
    _dir: TempDir,
}

impl Raw {
    pub(crate) fn new(place: &Path) -> Self {
        let dir = folder(place);
        let file = RealDisk.create(&dir.path().join("raw")).expect("a file can be made");
        Self { file, position: 0, _dir: dir }
    }

    pub(crate) fn commit(&mut self, bytes: &[u8]) {
        self.file.write_all_at(bytes, self.position).expect("the disk takes it");
        self.file.sync_data().expect("the disk keeps it");
        self.position += bytes.len() as u64;
    }
}

/// `okaywal`: checksums, fdatasync and group commit like the journal, preallocated files, no compression. Others were
/// not taken because they do not sync on request, or because they would bring dozens of crates into every build of
/// the tests.
#[derive(Debug)]
pub(crate) struct Published {
    log: Option<WriteAheadLog>,
    _dir: TempDir,
}

impl Published {
    /// With files as long as the journal's segments.
    pub(crate) fn new(place: &Path) -> Self {
        let dir = folder(place);
        let log = Configuration::default_for(dir.path())
            .preallocate_bytes(64 << 20)
            .checkpoint_after_bytes(60 << 20)
            .buffer_bytes(256 << 10)
            .open(LogVoid)
            .expect("the log opens");
        Self { log: Some(log), _dir: dir }
    }

    /// One entry a group, in it one checksummed chunk a transaction.
    pub(crate) fn commit(&self, group: &Group) {
        let log = self.log.as_ref().expect("it is open until it is dropped");
        let mut entry = log.begin_entry().expect("the log takes an entry");
        for records in &group.transactions {
            entry.write_chunk(records.bytes()).expect("the log takes a chunk");
        }
        entry.commit().expect("the disk takes it");
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // Its threads would otherwise write into a folder that is being removed.
        let _ = self.log.take().map(WriteAheadLog::shutdown);
    }
}
