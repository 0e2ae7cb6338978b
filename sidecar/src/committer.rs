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
    time::sleep,
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
            while stream.has_staged() {
                match commit(&stream).await {
                    Ok(()) => {}
                    Err(Wait::ForRoom) if *stop.borrow() => return,
                    Err(Wait::ForRoom) => sleep(FULL_DISK_PAUSE).await,
                    Err(Wait::ForNothing(reason)) => {
                        let _ = fatal.send(reason);
                        return;
                    }
                }
            }
            if *stop.borrow() {
                return;
            }
            tokio::select! {
                changed = marks.changed() => if changed.is_err() { return },
                _ = stop.changed() => {}
            }
        }
    })
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
