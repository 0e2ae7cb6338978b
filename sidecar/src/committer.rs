//! Group commit: whenever something waits for the disk, one write and one fdatasync for all of it.

use std::{sync::Arc, time::Duration};

use thinwire_engine::{
    Error,
    journal::Stream,
    model::{Halt, HaltedBy},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tracing::{error, info, warn};

/// How long to wait for room on a full disk before trying again.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);

/// Starts the committer of a stream. It ends, with all written, when `stop` turns true; a disk that fails for good
/// is reported on `fatal`, because only opening the journal anew can tell what it still holds.
pub fn spawn(
    stream: Arc<Stream>,
    mut stop: watch::Receiver<bool>,
    fatal: mpsc::UnboundedSender<String>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut marks = stream.watch();
        loop {
            // Asked first: what was staged before the stop is written below, whatever still flows in.
            let stopping = *stop.borrow();
            if stream.has_staged() {
                match commit(&stream).await {
                    Ok(()) => {}
                    Err(Wait::ForRoom) if stopping => return,
                    Err(Wait::ForRoom) => wait(FULL_DISK_PAUSE, &mut stop).await,
                    Err(Wait::ForNothing(reason)) => {
                        let _ = fatal.send(reason);
                        return;
                    }
                }
            }
            if stopping {
                return;
            }
            if !stream.has_staged() && !*stop.borrow() {
                tokio::select! {
                    changed = marks.changed() => if changed.is_err() { return },
                    _ = stop.changed() => {}
                }
            }
        }
    })
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
        Ok(Err(failure)) => {
            error!(stream = %stream.id(), %failure, "storage_fault");
            stream.set_halted(HaltedBy::Disk, Some(Halt::new("journal_io", failure.to_string())));
            Err(Wait::ForNothing(format!("storage_fault: {failure}")))
        }
        Err(panic) => Err(Wait::ForNothing(panic.to_string())),
    }
}

const DISK_FULL: &str = "disk_full";

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use thinwire_engine::{
        codec::Records,
        journal::{Journal, Options},
        model::{Epoch, Lsn, Origin, Record, StreamId},
        storage::disk::RealDisk,
    };

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stop_is_heard_while_records_flow_in_and_what_came_before_it_is_durable() {
        let dir = tempfile::tempdir().unwrap();
        let own = Origin::from_bytes([1; 16]);
        let options = Options { own, segment: 1 << 20, budget: 1 << 30 };
        let (journal, _) = Journal::open(Arc::new(RealDisk), dir.path(), options).unwrap();
        let id = StreamId { origin: own, epoch: Epoch::from_bytes([2; 16]) };
        let stream = journal.open_stream(id).unwrap();
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
        tokio::time::sleep(Duration::from_millis(200)).await;
        let before = stream.watermarks().appended;
        stop.send_replace(true);
        let ended = timeout(Duration::from_secs(5), committer).await;
        flows.store(false, Ordering::Relaxed);
        writer.await.unwrap();
        ended.unwrap().unwrap();
        assert!(stream.watermarks().synced >= before);
    }
}
