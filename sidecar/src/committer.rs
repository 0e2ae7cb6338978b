//! Group commit: whenever something waits for the disk, one write and one fdatasync for all of it; and once nothing
//! does for a while, a seal behind it, so that rot in what came last is told from a torn end. It is also who sees that
//! a stream takes nothing more, whoever met the failure: with nothing staged nobody else would end the program.

use std::{sync::Arc, time::Duration};

use thinwire_engine::{
    Error,
    journal::Stream,
    model::{Halt, HaltedBy},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{error, info, warn};

/// How long the beginning of a transaction waits for more. A transaction is read in many small pieces, and a write for each
/// of them would hold up the last one.
const UNRIPE_MAX: Duration = Duration::from_millis(5);

/// How long nothing was written until a stream is sealed: what rots sooner looks as if it had never been durable.
const IDLE: Duration = Duration::from_secs(1);

/// How long to wait for room on a full disk before trying again.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);

/// Starts the committer of a stream. It ends, with all written and sealed, when `stop` turns true; a disk that fails for good
/// is reported on `fatal`, because only opening the journal anew can tell what it still holds.
pub fn spawn(
    stream: Arc<Stream>,
    mut stop: watch::Receiver<bool>,
    fatal: mpsc::UnboundedSender<String>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let (mut marks, mut patience) = (stream.watch(), Patience::default());
        let mut written = Instant::now();
        loop {
            // Asked first: what was staged before the stop is written below, whatever still flows in.
            let stopping = *stop.borrow();
            let is_due = stream.has_staged() && (stopping || patience.is_over(&stream));
            if is_due || stream.is_poisoned() {
                match commit(&stream).await {
                    Ok(()) => written = Instant::now(),
                    Err(Wait::ForRoom) if stopping => return,
                    Err(Wait::ForRoom) => wait(FULL_DISK_PAUSE, &mut stop).await,
                    Err(Wait::ForNothing(reason)) => {
                        let _ = fatal.send(reason);
                        return;
                    }
                }
            }
            if is_idle(&stream) && (stopping || written.elapsed() >= IDLE) {
                if let Err(Wait::ForNothing(reason)) = seal(&stream).await {
                    let _ = fatal.send(reason);
                    return;
                }
                // Without room it is tried again.
                written = Instant::now();
            }
            if stopping {
                return;
            }
            if !stream.is_ripe() && !*stop.borrow() {
                tokio::select! {
                    changed = marks.changed() => if changed.is_err() { return },
                    _ = stop.changed() => {}
                    () = sleep(UNRIPE_MAX), if stream.has_staged() => {}
                    () = sleep_until(written + IDLE), if is_idle(&stream) => {}
                }
            }
        }
    })
}

/// Whether nothing waits for the disk, and nothing says yet that what came last is durable.
fn is_idle(stream: &Stream) -> bool {
    !stream.has_staged() && !stream.is_sealed()
}

/// Since when the beginning of a transaction waits for the rest of it.
#[derive(Default)]
struct Patience(Option<Instant>);

impl Patience {
    /// Whether what waits for the disk has to wait no longer.
    fn is_over(&mut self, stream: &Stream) -> bool {
        let since = *self.0.get_or_insert_with(Instant::now);
        let is_over = stream.is_ripe() || since.elapsed() >= UNRIPE_MAX;
        if is_over {
            self.0 = None;
        }
        is_over
    }
}

/// Waits, but not longer than until the stop.
async fn wait(pause: Duration, stop: &mut watch::Receiver<bool>) {
    let _ = timeout(pause, stop.wait_for(|stop| *stop)).await;
}

enum Wait {
    ForRoom,
    ForNothing(String),
}

async fn commit(stream: &Arc<Stream>) -> Result<(), Wait> {
    let syncing = stream.clone();
    let outcome = tokio::task::spawn_blocking(move || syncing.sync()).await;
    let halted = stream.halted_by(HaltedBy::Disk).is_some();
    match outcome {
        Ok(Ok(_)) => {
            if halted {
                info!(stream = %stream.id(), "there is room on the disk again");
                stream.set_halted(HaltedBy::Disk, None);
            }
            Ok(())
        }
        Ok(Err(Error::NoSpace { path })) => {
            if !halted {
                let detail = format!(
                    "no space left on the device that holds {}; nothing is lost, and it goes on when there is room",
                    path.display()
                );
                warn!(stream = %stream.id(), "{detail}");
                stream.set_halted(HaltedBy::Disk, Some(Halt::new(DISK_FULL, detail)));
            }
            Err(Wait::ForRoom)
        }
        Ok(Err(failure)) => Err(storage_fault(stream, &failure)),
        Err(panic) => Err(Wait::ForNothing(panic.to_string())),
    }
}

async fn seal(stream: &Arc<Stream>) -> Result<(), Wait> {
    let sealing = stream.clone();
    match tokio::task::spawn_blocking(move || sealing.seal()).await {
        Ok(Ok(())) => Ok(()),
        // Nothing waits for it that anybody had to be told of.
        Ok(Err(Error::NoSpace { .. })) => Err(Wait::ForRoom),
        Ok(Err(failure)) => Err(storage_fault(stream, &failure)),
        Err(panic) => Err(Wait::ForNothing(panic.to_string())),
    }
}

fn storage_fault(stream: &Stream, failure: &Error) -> Wait {
    error!(stream = %stream.id(), %failure, "storage_fault");
    stream.set_halted(HaltedBy::Disk, Some(Halt::new("journal_io", failure.to_string())));
    Wait::ForNothing(format!("storage_fault: {failure}"))
}

const DISK_FULL: &str = "disk_full";

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use thinwire_engine::{
        codec::Records,
        journal::{Journal, Options},
        model::{Epoch, Lsn, Origin, Record, StreamId, Timestamp},
        storage::{
            disk::RealDisk,
            memory::{Fault, MemoryDisk},
        },
    };

    use super::*;

    const OWN: Origin = Origin::from_bytes([1; 16]);
    const ID: StreamId = StreamId { origin: OWN, epoch: Epoch::from_bytes([2; 16]) };

    fn place() -> (tempfile::TempDir, Arc<Stream>) {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { own: OWN, segment: 1 << 20, budget: 1 << 30 };
        let (journal, _) = Journal::open(Arc::new(RealDisk), dir.path(), options).unwrap();
        (dir, journal.open_stream(ID).unwrap())
    }

    /// A stream of several small segments on a disk that can fail.
    fn segmented(disk: &MemoryDisk) -> Arc<Stream> {
        let options = Options { own: OWN, segment: 4 << 10, budget: 1 << 30 };
        let (journal, _) =
            Journal::open(Arc::new(disk.clone()), "journal".as_ref(), options).unwrap();
        let stream = journal.open_stream(ID).unwrap();
        for number in 0..1_000 {
            stream.append(Records::one(&Record::Commit { end: Lsn::new(number) })).unwrap();
            stream.sync().unwrap();
        }
        assert!(stream.segments().len() > 3);
        stream
    }

    /// Has the sync of a folder fail behind the removal of a segment.
    fn fail_trimming(disk: &MemoryDisk, stream: &Stream) {
        disk.fail(1, Fault::Error, false);
        stream.trim(stream.watermarks().synced, true).unwrap_err();
        assert!(stream.is_poisoned() && !stream.has_staged());
    }

    #[tokio::test]
    async fn a_failed_sync_of_names_ends_the_program_though_nothing_is_staged() {
        for is_waiting in [true, false] {
            let disk = MemoryDisk::new();
            let stream = segmented(&disk);
            let (_stop, stopped) = watch::channel(false);
            let (fatal, mut faults) = mpsc::unbounded_channel();
            if !is_waiting {
                fail_trimming(&disk, &stream);
            }
            spawn(stream.clone(), stopped, fatal);
            if is_waiting {
                sleep(Duration::from_millis(50)).await;
                fail_trimming(&disk, &stream);
            }
            let reason = timeout(Duration::from_secs(60), faults.recv()).await.unwrap().unwrap();
            assert!(reason.starts_with("storage_fault"), "{reason}");
            assert_eq!(stream.halted_by(HaltedBy::Disk).unwrap().code, "journal_io");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_transaction_that_stays_unfinished_becomes_durable_all_the_same() {
        let (_dir, stream) = place();
        let (_stop, stopped) = watch::channel(false);
        let (fatal, _faults) = mpsc::unbounded_channel();
        let _committer = spawn(stream.clone(), stopped, fatal);
        let begin = Record::Begin { xid: 1, lsn: Lsn::new(1), time: Timestamp::from_micros(0) };
        let last = stream.append(Records::one(&begin)).unwrap();
        let mut marks = stream.watch();
        let durable = marks.wait_for(|marks| marks.synced >= last);
        timeout(Duration::from_secs(60), durable).await.unwrap().unwrap();
    }

    fn committed(number: u64) -> Records {
        Records::one(&Record::Commit { end: Lsn::new(number) })
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_is_sealed_once_after_a_while_and_at_the_stop() {
        let disk = MemoryDisk::new();
        let stream = segmented(&disk);
        stream.append(committed(1)).unwrap();
        let (stop, stopped) = watch::channel(false);
        let (fatal, _faults) = mpsc::unbounded_channel();
        let committer = spawn(stream.clone(), stopped, fatal);
        sleep(IDLE / 2).await;
        assert!(!stream.has_staged() && !stream.is_sealed(), "it has just been written to");
        let before = disk.operations();
        sleep(IDLE * 3).await;
        assert!(stream.is_sealed());
        assert_eq!(disk.operations() - before, 2, "one write and one sync");
        stream.append(committed(2)).unwrap();
        sleep(IDLE / 4).await;
        assert!(!stream.has_staged() && !stream.is_sealed());
        stop.send_replace(true);
        committer.await.unwrap();
        assert!(stream.is_sealed(), "an orderly end leaves nothing unproven");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stop_is_heard_while_records_flow_in_and_what_came_before_it_is_durable() {
        let (_dir, stream) = place();
        let (stop, stopped) = watch::channel(false);
        let (fatal, _faults) = mpsc::unbounded_channel();
        let committer = spawn(stream.clone(), stopped, fatal);
        let flows = Arc::new(AtomicBool::new(true));
        let writer = tokio::task::spawn_blocking({
            let (flows, stream) = (flows.clone(), stream.clone());
            move || {
                while flows.load(Ordering::Relaxed) {
                    let record = Record::Commit { end: Lsn::new(1) };
                    stream.append(Records::one(&record)).unwrap();
                }
            }
        });
        sleep(Duration::from_millis(200)).await;
        let before = stream.watermarks().appended;
        stop.send_replace(true);
        let ended = timeout(Duration::from_secs(60), committer).await;
        flows.store(false, Ordering::Relaxed);
        writer.await.unwrap();
        ended.unwrap().unwrap();
        assert!(stream.watermarks().synced >= before);
    }
}
