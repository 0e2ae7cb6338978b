//! A tiny shell that unmounts and detaches if we are killed.
//!
//! It looks every second whether this process still lives, and cannot just wait for a pipe to close: a thread that
//! is killed while it waits for our own disk keeps every file open until somebody aborts the connection, which is
//! the first thing that the shell does.

use std::{
    io,
    path::Path,
    process::{Child, Command, Stdio},
};

use std::os::unix::process::CommandExt;

/// Watches over one folder with the mount points `disk` and `mounted`; drop it when they are empty.
#[derive(Debug)]
pub(crate) struct Warden(Child);

impl Warden {
    pub(crate) fn start(folder: &Path) -> io::Result<Self> {
        Self::over(std::process::id(), folder)
    }

    fn over(pid: u32, folder: &Path) -> io::Result<Self> {
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "thinwire-blocks-warden", &pid.to_string()])
            .arg(folder)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self(shell))
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process is as good as dead when it is gone, a zombie, or has SIGKILL waiting; and its number is not another's when
/// it began at the same time. Folders are removed only when empty.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
PATH=$PATH:/usr/sbin:/sbin
pid=$1 folder=$2
born() { stat=$(cat "/proc/$pid/stat" 2>/dev/null); set -- ${stat##*) }; state=$1 birth=${20}; }
born; first=$birth
while sleep 1; do
    born
    [ "$birth" = "$first" ] || break
    case $state in Z | X) break ;; esac
    grep -q '^SigPnd:.*[13579bdf]..$' "/proc/$pid/status" && break
done
umount -f "$folder/disk"
umount -l "$folder/mounted"
for backing in /sys/block/loop*/loop/backing_file; do
    case $(cat "$backing") in
    "$folder"/*) loop=${backing#/sys/block/}; losetup -d "/dev/${loop%%/*}" ;;
    esac
done
umount -l "$folder/disk"
rmdir "$folder/disk" "$folder/mounted" "$folder"
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, thread, time::Duration};

    #[test]
    fn the_folder_goes_when_the_watched_process_is_killed() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("victim");
        fs::create_dir_all(folder.join("disk")).unwrap();
        fs::create_dir(folder.join("mounted")).unwrap();
        let mut watched = Command::new("sleep").arg("100").spawn().unwrap();
        let _warden = Warden::over(watched.id(), &folder).unwrap();
        thread::sleep(Duration::from_millis(1200));
        assert!(folder.exists());
        watched.kill().unwrap();
        // Not waited for yet, and so a zombie.
        let gone = (0..600).any(|_| {
            thread::sleep(Duration::from_millis(100));
            !folder.exists()
        });
        watched.wait().unwrap();
        assert!(gone);
    }
}
