//! Records that are appended while others are being written: they are acknowledged by their own write alone.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use thinwire_engine::{
    codec::{Records, RecordsBuf},
    journal::{Journal, Options, Stream},
    model::{Offset, Record, RelationId, Row, Value},
    storage::{Disk, File, Lock, memory::MemoryDisk},
};

use crate::world::{DIR, ID, Model, OPTIONS, Random, act, append, each_seed, open};

/// What happens while the disk syncs.
type Meanwhile = Arc<Mutex<Option<Box<dyn FnMut() + Send>>>>;

/// A disk on which something happens at each sync of a file.
#[derive(Clone)]
struct Busy {
    disk: MemoryDisk,
    meanwhile: Meanwhile,
}

struct BusyFile {
    file: Box<dyn File>,
    meanwhile: Meanwhile,
}

impl std::fmt::Debug for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.disk.fmt(f)
    }
}

impl std::fmt::Debug for BusyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.file.fmt(f)
    }
}

impl Busy {
    fn file(&self, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(BusyFile { file, meanwhile: self.meanwhile.clone() })
    }
}

impl Disk for Busy {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.disk.create(path).map(|file| self.file(file))
    }
    fn open(&self, path: &Path, write: bool) -> io::Result<Box<dyn File>> {
        self.disk.open(path, write).map(|file| self.file(file))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.disk.lock(path)
    }
}

impl File for BusyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(buf, at)
    }
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(buf, at)
    }
    fn sync_data(&self) -> io::Result<()> {
        // Taken out, because what happens may sync too.
        let happening = self.meanwhile.lock().unwrap().take();
        if let Some(mut happening) = happening {
            happening();
            *self.meanwhile.lock().unwrap() = Some(happening);
        }
        self.file.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn forget_cached(&self) -> io::Result<()> {
        self.file.forget_cached()
    }
}

/// A life in which every sync is overtaken by an append, until the power goes.
pub(crate) fn overtaken(seed: u64) -> u64 {
    let (disk, meanwhile) = (MemoryDisk::new(), Meanwhile::default());
    let busy = Busy { disk: disk.clone(), meanwhile: meanwhile.clone() };
    let (journal, _) = Journal::open(Arc::new(busy), Path::new(DIR), OPTIONS).unwrap();
    let stream: Arc<Stream> = journal.open_stream(ID).unwrap();
    let shared = Arc::new(Mutex::new((Model::default(), Random(seed))));
    let (weak, theirs) = (Arc::downgrade(&stream), shared.clone());
    *meanwhile.lock().unwrap() = Some(Box::new(move || {
        // Only while the writer below waits in a sync, and so does not use the model.
        if let (Some(stream), Ok(mut shared)) = (weak.upgrade(), theirs.try_lock()) {
            let (model, random) = &mut *shared;
            let sizes = [random.below(100)];
            append(&stream, model, &sizes, random).unwrap();
        }
    }));
    for _ in 0..20 {
        let sync = {
            let (model, random) = &mut *shared.lock().unwrap();
            let sync = random.one_in(2);
            if !sync {
                act(&stream, model, random).unwrap();
            }
            sync.then_some(model.mark)
        };
        if let Some(mark) = sync {
            let synced = stream.sync().unwrap();
            let model = &mut shared.lock().unwrap().0;
            assert_eq!(synced, stream.watermarks().synced);
            (model.acked, model.acked_mark) = (synced.get() as usize, mark);
        }
    }
    *meanwhile.lock().unwrap() = None;
    drop((journal, stream));
    let (model, random) = &mut *shared.lock().unwrap();
    let cut = disk.power_cut(&mut |n| random.below(n));
    let (_journal, stream) = open(&cut).unwrap();
    model.recovered(&stream);
    model.read(&stream);
    1
}

#[test]
fn what_is_appended_during_a_write_is_acknowledged_by_the_next() {
    each_seed("what_is_appended_during_a_write", 4_000, overtaken);
}

/// A row that is a whole batch, and nearly nothing once it is compressed.
fn wide() -> Records {
    let new = Row(vec![Value::Bytes(vec![7; WIDE].into())]);
    Records::one(&Record::Insert { relation: RelationId(1), new })
}

const WIDE: usize = 64 << 10;

fn append_wide(stream: &Stream, rows: usize) {
    for _ in 0..rows {
        stream.append(wide()).unwrap();
    }
}

/// What a group takes on the disk before which so many batches were staged while the disk was busy, and so many when it
/// was not.
fn group(busy: usize, idle: usize, budget: u64) -> usize {
    let (disk, meanwhile) = (MemoryDisk::new(), Meanwhile::default());
    let busy_disk = Busy { disk: disk.clone(), meanwhile: meanwhile.clone() };
    let options = Options { segment: 1 << 30, budget, ..OPTIONS };
    let (journal, _) = Journal::open(Arc::new(busy_disk), Path::new(DIR), options).unwrap();
    let stream: Arc<Stream> = journal.open_stream(ID).unwrap();
    let theirs = stream.clone();
    *meanwhile.lock().unwrap() = Some(Box::new(move || {
        append_wide(&theirs, busy);
    }));
    stream.append(wide()).unwrap();
    stream.sync().unwrap();
    *meanwhile.lock().unwrap() = None;
    append_wide(&stream, idle);
    let before = disk.used();
    stream.sync().unwrap();
    let grown = disk.used() - before;
    let mut all = RecordsBuf::new();
    let mut reader = stream.read(Offset::FIRST).unwrap();
    while let Some(block) = reader.next_block().unwrap() {
        all.append(&block.records);
    }
    assert_eq!(
        all.take().iter().collect::<Vec<_>>(),
        vec![wide().iter().next().unwrap(); 1 + busy + idle]
    );
    grown
}

#[test]
fn what_is_not_compressed_while_the_disk_is_busy_is_stored_as_it_is_and_a_slow_disk_gets_little() {
    let roomy = 1 << 40;
    // Somebody had the time for all of it, or for all but what came between two groups.
    assert!(group(8, 0, roomy) < WIDE && group(8, 1, roomy) < WIDE);
    // The processor is behind.
    let plain = group(2, 4, roomy);
    assert!((4 * WIDE..5 * WIDE).contains(&plain), "{plain} bytes");
    // A group now and then, and a disk that is half full.
    assert!(group(0, 4, roomy) < WIDE && group(2, 4, 11 * WIDE as u64) < WIDE);
}

#[test]
fn after_a_group_that_was_late_less_is_compressed_and_then_more_again() {
    let (disk, meanwhile) = (MemoryDisk::new(), Meanwhile::default());
    let busy = Busy { disk: disk.clone(), meanwhile: meanwhile.clone() };
    let options = Options { segment: 1 << 30, budget: 1 << 40, ..OPTIONS };
    let (journal, _) = Journal::open(Arc::new(busy), Path::new(DIR), options).unwrap();
    let stream: Arc<Stream> = journal.open_stream(ID).unwrap();
    let theirs = stream.clone();
    *meanwhile.lock().unwrap() = Some(Box::new(move || {
        append_wide(&theirs, 8);
    }));
    let sync = || {
        let before = disk.used();
        stream.sync().unwrap();
        (disk.used() - before) / WIDE
    };
    stream.append(wide()).unwrap();
    assert_eq!((sync(), sync()), (0, 0), "all of eight are compressed");
    append_wide(&stream, 8);
    assert_eq!(sync(), 8, "eight were late");
    // Half of what was late takes as long to compress: four are left of eight, then three, two and one.
    assert_eq!([sync(), sync(), sync(), sync(), sync()], [4, 3, 2, 1, 0]);
    *meanwhile.lock().unwrap() = None;
}
