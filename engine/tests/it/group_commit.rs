//! Group commit, counted at the disk: one write and one fdatasync for all that waits, and nobody waits for more than
//! the group that holds its own records.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use thinwire_engine::{
    codec::{Records, RecordsBuf},
    journal::{Journal, Options, Stream},
    model::{Epoch, Lsn, Offset, Origin, Record, StreamId, Timestamp},
    storage::{Disk, File, Lock, disk::RealDisk},
};

/// How long is waited for what must happen; far more than it takes.
const SOON: Duration = Duration::from_secs(120);

/// A disk whose fdatasyncs wait to be let through, one by one, once it was closed.
#[derive(Clone, Debug, Default)]
struct GatedDisk(Arc<Gate>);

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    closed: bool,
    writes: u64,
    syncs: u64,
    allowed: u64,
}

impl GatedDisk {
    /// Lets nothing through any more, and counts from here.
    fn close(&self) {
        *self.0.state.lock().unwrap() = GateState { closed: true, ..GateState::default() };
    }

    /// Lets so many more syncs through.
    fn allow(&self, syncs: u64) {
        self.0.state.lock().unwrap().allowed += syncs;
        self.0.changed.notify_all();
    }

    /// Waits until so many syncs have begun.
    fn await_syncs(&self, syncs: u64) {
        let state = self.0.state.lock().unwrap();
        let (_state, late) =
            self.0.changed.wait_timeout_while(state, SOON, |it| it.syncs < syncs).unwrap();
        assert!(!late.timed_out(), "there never was sync number {syncs}");
    }

    fn counts(&self) -> (u64, u64) {
        let state = self.0.state.lock().unwrap();
        (state.writes, state.syncs)
    }

    fn gated(&self, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(GatedFile(file, self.clone()))
    }
}

impl Disk for GatedDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        RealDisk.create(path).map(|file| self.gated(file))
    }
    fn open(&self, path: &Path, write: bool) -> io::Result<Box<dyn File>> {
        RealDisk.open(path, write).map(|file| self.gated(file))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        RealDisk.lock(path)
    }
}

#[derive(Debug)]
struct GatedFile(Box<dyn File>, GatedDisk);

impl File for GatedFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(buf, at)
    }
    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        self.1.0.state.lock().unwrap().writes += 1;
        self.0.write_all_at(buf, at)
    }
    fn sync_data(&self) -> io::Result<()> {
        let gate = &self.1.0;
        let mut state = gate.state.lock().unwrap();
        state.syncs += 1;
        gate.changed.notify_all();
        let number = state.syncs;
        drop(gate.changed.wait_while(state, |it| it.closed && it.allowed < number).unwrap());
        self.0.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn forget_cached(&self) -> io::Result<()> {
        self.0.forget_cached()
    }
}

struct Place {
    disk: GatedDisk,
    stream: Arc<Stream>,
    _journal: Journal,
    _dir: TempDir,
}

fn place() -> Place {
    let (dir, disk) = (tempfile::tempdir().unwrap(), GatedDisk::default());
    let options = Options { own: Origin::from_bytes([1; 16]), segment: 1 << 30, budget: 1 << 40 };
    let (journal, _) = Journal::open(Arc::new(disk.clone()), dir.path(), options).unwrap();
    let id = StreamId { origin: options.own, epoch: Epoch::from_bytes([2; 16]) };
    let stream = journal.open_stream(id).unwrap();
    disk.close();
    Place { disk, stream, _journal: journal, _dir: dir }
}

fn transaction(number: u64) -> Records {
    let mut buf = RecordsBuf::new();
    let (lsn, time) = (Lsn::new(number), Timestamp::from_micros(0));
    buf.push(&Record::Begin { xid: number as u32, lsn, time });
    buf.push(&Record::Commit { end: Lsn::new(number + 1) });
    buf.take()
}

/// Waits on a thread of its own, and says when that is over.
fn sync_aside(stream: &Arc<Stream>, done: &Sender<Offset>) {
    let (stream, done) = (stream.clone(), done.clone());
    thread::spawn(move || done.send(stream.sync().unwrap()));
}

/// Where the kernel says what this thread does.
fn this_thread() -> PathBuf {
    Path::new("/proc").join(fs::read_link("/proc/thread-self").unwrap()).join("stat")
}

/// Waits until a thread sleeps: that stands behind its name, which is in parentheses.
fn await_sleep(thread: &Path) {
    let begun = Instant::now();
    while !fs::read_to_string(thread).unwrap().contains(") S ") {
        assert!(begun.elapsed() < SOON, "{} never sleeps", thread.display());
        thread::yield_now();
    }
}

#[test]
fn all_that_is_staged_during_a_write_is_one_more_write_whatever_the_number_of_producers() {
    for producers in [1, 4, 16, 64] {
        let Place { disk, stream, _dir, _journal } = place();
        let (done, finished) = channel();
        stream.append(transaction(0)).unwrap();
        sync_aside(&stream, &done);
        disk.await_syncs(1);
        for number in 1..=producers {
            let mine = stream.append(transaction(number)).unwrap();
            let (stream, done) = (stream.clone(), done.clone());
            thread::spawn(move || {
                let synced = stream.sync().unwrap();
                assert!(synced >= mine, "{mine} is said to be durable at {synced}");
                done.send(synced)
            });
        }
        disk.allow(2);
        for _ in 0..=producers {
            finished.recv_timeout(SOON).unwrap();
        }
        assert_eq!(disk.counts(), (2, 2), "{producers} producers");
        assert_eq!(stream.watermarks().synced, stream.watermarks().appended);
    }
}

#[test]
fn the_beginning_of_a_transaction_is_worth_no_write_and_who_watches_is_told_of_what_is() {
    let Place { disk, stream, _dir, _journal } = place();
    disk.allow(u64::MAX / 2);
    let mut watch = stream.watch();
    let mut woken = || {
        let woken = watch.has_changed().unwrap();
        watch.mark_unchanged();
        woken
    };
    woken();
    let begin = Record::Begin { xid: 1, lsn: Lsn::new(1), time: Timestamp::from_micros(0) };
    let text = |bytes| {
        let content = vec![b'x'; bytes].into();
        let prefix = "p".into();
        Records::one(&Record::Message { transactional: true, lsn: Lsn::new(1), prefix, content })
    };
    let commit = || Records::one(&Record::Commit { end: Lsn::new(2) });

    stream.append(Records::one(&begin)).unwrap();
    assert!(stream.has_staged() && !stream.is_ripe() && woken(), "something waits");
    stream.append(text(10)).unwrap();
    assert!(!stream.is_ripe() && !woken(), "nothing that matters has changed");
    stream.append(commit()).unwrap();
    assert!(stream.is_ripe() && woken());
    stream.sync().unwrap();
    assert!(!stream.is_ripe() && woken());

    stream.append(Records::one(&begin)).unwrap();
    stream.append(text(10)).unwrap();
    assert!(!stream.is_ripe());
    stream.sync().unwrap();
    woken();
    // Behind a beginning that is on disk, the rest of it is as little use.
    stream.append(text(10)).unwrap();
    assert!(!stream.is_ripe() && woken());
    stream.append(text(60 << 10)).unwrap();
    assert!(stream.is_ripe() && woken(), "a long one is shipped before it is whole");
    stream.sync().unwrap();
    stream.append(commit()).unwrap();
    assert!(stream.is_ripe());
}

#[test]
fn whose_records_are_durable_does_not_wait_for_those_of_others() {
    let Place { disk, stream, _dir, _journal } = place();
    let (done, finished) = channel();
    let first = stream.append(transaction(1)).unwrap();
    sync_aside(&stream, &done);
    disk.await_syncs(1);
    // These have nothing but what is being written, and wait for it already: there is nothing else that they sleep for.
    let followers = 8;
    let (ready, begun) = channel();
    for _ in 0..followers {
        let (stream, done, ready) = (stream.clone(), done.clone(), ready.clone());
        thread::spawn(move || {
            ready.send(this_thread()).unwrap();
            done.send(stream.sync().unwrap())
        });
    }
    let threads: Vec<_> = (0..followers).map(|_| begun.recv_timeout(SOON).unwrap()).collect();
    threads.iter().for_each(|thread| await_sleep(thread));
    // One of them may have slept for a moment on its way there.
    thread::sleep(Duration::from_millis(100));
    threads.iter().for_each(|thread| await_sleep(thread));
    let second = stream.append(transaction(2)).unwrap();
    sync_aside(&stream, &done);
    disk.allow(1);
    disk.await_syncs(2);
    for _ in 0..2 {
        assert_eq!(finished.recv_timeout(SOON).unwrap(), first, "the leader and a follower");
    }
    disk.allow(1);
    for _ in 0..followers {
        finished.recv_timeout(SOON).unwrap();
    }
    assert_eq!((stream.watermarks().synced, disk.counts()), (second, (2, 2)));
}

#[test]
fn nothing_staged_is_nothing_written() {
    let Place { disk, stream, _dir, _journal } = place();
    stream.sync().unwrap();
    assert_eq!(disk.counts(), (0, 0));
    disk.allow(1);
    stream.append(transaction(1)).unwrap();
    stream.sync().unwrap();
    stream.sync().unwrap();
    assert_eq!(disk.counts(), (1, 1));
}
