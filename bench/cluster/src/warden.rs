//! A tiny shell that outlives us, to kill what we started and remove what we made if we are killed
//! ourselves.
//!
//! It reads a pipe whose other end only this process holds. When this process ends, in whatever
//! way, the pipe closes and the shell does its work; nothing is polled and no pid of ours can be
//! mistaken for a later process'. The other candidate, `PR_SET_PDEATHSIG`, fires when the *thread*
//! that started the child ends, and test threads end while a shared cluster is in use.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;

use crate::Result;
use crate::error::during;

/// Watches over processes and one directory; drop it last, when both are gone.
#[derive(Debug)]
pub struct Warden {
    shell: Child,
    pipe: Mutex<Option<ChildStdin>>,
}

impl Warden {
    /// Begins to watch. If this process dies, the watched processes get SIGQUIT (PostgreSQL's
    /// immediate shutdown), then SIGKILL, and `directory` is removed.
    pub fn start(directory: &Path) -> Result<Warden> {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "thinwire-warden"])
            .arg(directory)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(during("start /bin/sh"))?;
        let pipe = Mutex::new(shell.stdin.take());
        Ok(Warden { shell, pipe })
    }

    /// Adds a process to those that must not outlive us.
    pub fn watch(&self, pid: u32) {
        self.tell("watch", pid);
    }

    /// Takes a process off the list, because it has ended.
    pub fn forget(&self, pid: u32) {
        self.tell("forget", pid);
    }

    fn tell(&self, verb: &str, pid: u32) {
        let mut pipe = self.pipe.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(pipe) = pipe.as_mut() {
            // A warden that somebody killed cannot help, and is no reason to stop.
            let _ = writeln!(pipe, "{verb} {pid}");
        }
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        drop(self.pipe.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
        let _ = self.shell.wait();
    }
}

const SCRIPT: &str = r#"
trap '' HUP INT TERM
watched=
while read -r verb pid; do
    case $verb in
    watch) watched="$watched $pid" ;;
    forget)
        kept=
        for p in $watched; do [ "$p" = "$pid" ] || kept="$kept $p"; done
        watched=$kept
        ;;
    esac
done
for p in $watched; do kill -CONT "$p"; kill -QUIT "$p"; done
for round in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    left=
    for p in $watched; do kill -0 "$p" && left="$left $p"; done
    [ -z "$left" ] && break
    sleep 0.1
done
for p in $left; do kill -KILL "$p"; done
rm -rf -- "$1"
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::runs;
    use std::fs;

    #[test]
    fn the_closed_pipe_kills_the_watched_and_removes_the_directory() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("victim");
        fs::create_dir(&directory).unwrap();
        let spawn = || Command::new("sleep").arg("100").spawn().unwrap();
        let (mut watched, mut forgotten) = (spawn(), spawn());
        let warden = Warden::start(&directory).unwrap();
        warden.watch(forgotten.id());
        warden.watch(watched.id());
        warden.forget(forgotten.id());
        drop(warden);
        assert!(!runs(watched.id()));
        assert!(runs(forgotten.id()));
        assert!(!directory.exists());
        forgotten.kill().unwrap();
        watched.wait().unwrap();
        forgotten.wait().unwrap();
    }
}
