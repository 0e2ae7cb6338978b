//! A journal of one stream in a temporary folder.

use std::{fs, path::Path, sync::Arc};

use tempfile::TempDir;
use thinwire_engine::{
    journal::{Journal, Options, Stream},
    model::{Epoch, Origin, StreamId},
    storage::Disk,
};

use crate::workload::Group;

/// What a node's segments are unless it is told otherwise.
pub(crate) const SEGMENT_BYTES: u64 = 64 << 20;
/// More than any run writes.
const BUDGET_BYTES: u64 = 1 << 40;

const OWN: Origin = Origin::from_bytes([7; 16]);

/// A new journal that goes with its folder.
#[derive(Debug)]
pub(crate) struct Temporary {
    pub(crate) stream: Arc<Stream>,
    _journal: Journal,
    _dir: TempDir,
}

impl Temporary {
    pub(crate) fn new(place: &Path, disk: Arc<dyn Disk>) -> Self {
        let dir = folder(place);
        let (journal, stream) = open(dir.path(), disk);
        Self { stream, _journal: journal, _dir: dir }
    }
}

/// A folder that is removed when it is dropped.
pub(crate) fn folder(place: &Path) -> TempDir {
    fs::create_dir_all(place).expect("the folder for temporary files can be made");
    TempDir::with_prefix_in("journal-", place).expect("a temporary folder can be made")
}

/// The journal in `dir` and its only stream.
pub(crate) fn open(dir: &Path, disk: Arc<dyn Disk>) -> (Journal, Arc<Stream>) {
    let options = Options { own: OWN, segment: SEGMENT_BYTES, budget: BUDGET_BYTES };
    let (journal, unopened) = Journal::open(disk, dir, options).expect("the journal opens");
    assert!(unopened.is_empty(), "{unopened:?}");
    let id = StreamId { origin: OWN, epoch: Epoch::from_bytes([9; 16]) };
    let stream = journal.open_stream(id).expect("the stream opens");
    (journal, stream)
}

/// Appends a group.
pub(crate) fn append(stream: &Stream, group: &Group) {
    for records in &group.transactions {
        stream.append(records.clone()).expect("there is room");
    }
}

/// Appends a group and waits until it is durable.
pub(crate) fn commit(stream: &Stream, group: &Group) {
    append(stream, group);
    stream.sync().expect("the disk takes it");
}
