//! What a machine lacks to have devices and file systems of ours: a reason to skip a test.

use std::fs::{self, File};

use crate::{FileSystem, program};

/// What this machine lacks for a device with this file system, if anything.
pub fn missing(file_system: FileSystem) -> Option<String> {
    if !may_mount() {
        return Some("only root with all its rights may mount".to_owned());
    }
    for path in ["/dev/fuse", "/dev/loop-control"] {
        if let Err(error) = File::options().read(true).write(true).open(path) {
            return Some(format!("{path} cannot be used: {error}"));
        }
    }
    let programs = ["mount", "umount", "losetup", file_system.maker()];
    if let Some(absent) = programs.into_iter().find(|name| program::find(name).is_none()) {
        return Some(format!("there is no program `{absent}`"));
    }
    let kind = file_system.kind();
    (!knows(kind) && (program::run("modprobe", &[kind]).is_err() || !knows(kind)))
        .then(|| format!("the kernel has no {kind}"))
}

/// Whether we are root, and not one that a container has locked up.
fn may_mount() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let rights = rights.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    rustix::process::geteuid().is_root()
        && rights.is_some_and(|rights| rights & (1 << CAP_SYS_ADMIN) != 0)
}

fn knows(kind: &str) -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.lines().any(|line| line.split_whitespace().last() == Some(kind))
}

/// The number of the right to mount, among others.
const CAP_SYS_ADMIN: u32 = 21;
