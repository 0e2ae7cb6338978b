//! One running server process: started, waited for, and ended in each of PostgreSQL's ways.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::account::Account;
use crate::error::during;
use crate::processes;
use crate::template::run;
use crate::{Error, Result};

/// What a server needs to start.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) account: Account,
    pub(crate) bin: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) sockets: PathBuf,
    pub(crate) log: PathBuf,
}

/// A server that was started and not yet ended by us.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Starts a server, in a process group of its own so that a Ctrl-C at our terminal does not
    /// reach it.
    pub(crate) fn spawn(place: &Place, port: u16) -> Result<Server> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&place.log)
            .map_err(during(format!("open {}", place.log.display())))?;
        let error_log = log.try_clone().map_err(during("duplicate a file descriptor"))?;
        let child = place
            .account
            .command(place.bin.join("postgres"))
            .arg("-D")
            .arg(&place.data)
            .args(["-p", &port.to_string(), "-k"])
            .arg(&place.sockets)
            .current_dir(&place.data)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(error_log)
            .process_group(0)
            .spawn()
            .map_err(during("start postgres"))?;
        Ok(Server { child })
    }

    /// The postmaster's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until connections are accepted, recovery included.
    pub(crate) fn wait_ready(&mut self, place: &Place) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            if self.ended() {
                return Err(Error::Ended { log: log_tail(&place.log) });
            }
            if is_ready(&place.data, self.pid()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(slow("ready", READY_TIMEOUT, place));
            }
            thread::sleep(POLL);
        }
    }

    /// Whether the server has ended by itself.
    pub(crate) fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it with a checkpoint and without waiting for clients (PostgreSQL's fast shutdown).
    pub(crate) fn stop(mut self, place: &Place) -> Result<()> {
        processes::signal(self.pid(), Signal::INT);
        if self.ends_within(STOP_TIMEOUT) {
            return Ok(());
        }
        self.abandon(place);
        Err(slow("stopped", STOP_TIMEOUT, place))
    }

    /// Ends it without a checkpoint, but cleanly for the system: shared memory is given back.
    pub(crate) fn abandon(mut self, place: &Place) {
        processes::signal(self.pid(), Signal::QUIT);
        if !self.ends_within(ABANDON_TIMEOUT) {
            self.kill(place);
        }
    }

    /// Kills it and all its children at one instant, and removes what would keep the next one from
    /// starting.
    pub(crate) fn kill(mut self, place: &Place) {
        let segment = shared_memory(&place.data);
        processes::kill_family(&mut self.child);
        let _ = fs::remove_file(place.data.join(PID_FILE));
        if let Some(segment) = segment {
            // Gone at the next start anyway, but there may be none.
            let _ = run(place.account.command("ipcrm").args(["-m", &segment]));
        }
    }

    fn ends_within(&mut self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while !self.ended() {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }
}

/// The last few kilobytes of a log.
pub(crate) fn log_tail(log: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(log) {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)));
        let _ = file.read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

fn slow(state: &'static str, timeout: Duration, place: &Place) -> Error {
    Error::Slow { state, seconds: timeout.as_secs(), log: log_tail(&place.log) }
}

/// The postmaster writes its state to the eighth line of its pid file.
fn is_ready(data: &Path, pid: u32) -> bool {
    let text = fs::read_to_string(data.join(PID_FILE)).unwrap_or_default();
    let mut lines = text.lines();
    lines.next().is_some_and(|line| line.trim() == pid.to_string())
        && lines.nth(6).is_some_and(|line| line.trim() == "ready")
}

/// The id of the small System V segment by which servers exclude each other from a data directory.
fn shared_memory(data: &Path) -> Option<String> {
    let text = fs::read_to_string(data.join(PID_FILE)).ok()?;
    Some(text.lines().nth(6)?.split_whitespace().nth(1)?.to_owned())
}

const PID_FILE: &str = "postmaster.pid";
const POLL: Duration = Duration::from_millis(5);
/// Generous: recovery on a busy machine with a slow disk.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// More than `wal_sender_timeout`, for which a fast shutdown may wait.
const STOP_TIMEOUT: Duration = Duration::from_secs(90);
const ABANDON_TIMEOUT: Duration = Duration::from_secs(10);
const LOG_TAIL_BYTES: u64 = 4096;
