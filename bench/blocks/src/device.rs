//! A block device of the kernel over a disk in memory, and the file system on it while it is mounted.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use fuser::BackgroundSession;
use tempfile::TempDir;

use crate::{Disk, FileSystem, file, program, warden::Warden};

/// A block device with a fresh file system, which is not mounted. All goes when it is dropped.
#[derive(Debug)]
pub struct Device {
    disk: Disk,
    file_system: FileSystem,
    node: Option<String>,
    session: Option<BackgroundSession>,
    folder: PathBuf,
    _warden: Warden,
}

impl Device {
    /// Makes the file system and the device that it is on.
    ///
    /// # Errors
    /// What the system's programs complain of. [`missing`](crate::missing()) tells before what cannot work.
    pub fn attach(file_system: FileSystem) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("thinwire-blocks").tempdir()?;
        let image = file_system.make(folder.path())?;
        let [below, above] = [folder.path().join(BELOW), folder.path().join(ABOVE)];
        fs::create_dir(&below)?;
        fs::create_dir(&above)?;
        let mut device = Self {
            disk: Disk::new(file_system.whole()),
            file_system,
            node: None,
            session: None,
            _warden: Warden::start(folder.path())?,
            // From here on it is removed as an empty folder or not at all: never with what is mounted in it.
            folder: TempDir::keep(folder),
        };
        device.disk.load(image);
        device.session = Some(file::serve(device.disk.clone(), file_system.size(), &below)?);
        let backing = below.join(file::NAME);
        let found = program::run("losetup", &["--find", "--show", &backing.to_string_lossy()])?;
        device.node = Some(found);
        Ok(device)
    }

    /// The disk below.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Mounts the file system until what is returned is dropped. Nothing may be open in it then.
    ///
    /// # Errors
    /// What `mount` complains of.
    pub fn mount(&self) -> io::Result<Mounted<'_>> {
        let path = self.folder.join(ABOVE);
        let node = self.node.as_deref().unwrap_or_default();
        let (kind, options) = (self.file_system.kind(), self.file_system.mount_options());
        program::run("mount", &["-t", kind, "-o", options, node, &path.to_string_lossy()])?;
        Ok(Mounted { path, _device: self })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Best effort: the warden cannot do better, and a panic in here would hide the test's own.
        if let Some(node) = self.node.take() {
            let _ = program::run("losetup", &["--detach", &node]);
        }
        let below = self.folder.join(BELOW);
        if let Some(session) = self.session.take() {
            // The kernel lets go of the disk only when nobody looks into the device any more, as udev does now and then.
            unmount(&below);
            let _ = session.umount_and_join();
        }
        for folder in [below, self.folder.join(ABOVE), self.folder.clone()] {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// A mounted file system.
#[derive(Debug)]
pub struct Mounted<'a> {
    path: PathBuf,
    _device: &'a Device,
}

impl Mounted<'_> {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // A program that another thread is just starting has all our files open until it runs.
        unmount(&self.path);
    }
}

/// Unmounts, if need be under whoever goes on using it.
fn unmount(path: &Path) {
    let path = path.to_string_lossy();
    let unmounted = (0..UNMOUNT_ATTEMPTS).any(|attempt| {
        thread::sleep(Duration::from_millis(10 * attempt));
        program::run("umount", &[&path]).is_ok()
    });
    if !unmounted {
        // Somebody has a file open in it, most likely because a test is failing.
        let _ = program::run("umount", &["-l", &path]);
    }
}

/// Waiting longer each time, twenty seconds in all.
const UNMOUNT_ATTEMPTS: u64 = 64;
/// Where the disk is a file.
const BELOW: &str = "disk";
/// Where the file system is mounted.
const ABOVE: &str = "mounted";

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Write};

    const ALL: [FileSystem; 5] = [
        FileSystem::Ext4,
        FileSystem::Ext4DataJournal,
        FileSystem::Ext4Small,
        FileSystem::Xfs,
        FileSystem::Btrfs,
    ];

    #[test]
    fn a_power_cut_leaves_what_was_synced_and_nothing_stays_behind() {
        for file_system in ALL {
            if let Some(reason) = crate::missing(file_system) {
                let line = format!("skipped on {}: {reason}\n", file_system.name());
                io::stderr().write_all(line.as_bytes()).unwrap();
                continue;
            }
            let device = Device::attach(file_system).unwrap();
            let mounted = device.mount().unwrap();
            let mut file = File::create(mounted.path().join("file")).unwrap();
            file.write_all(b"synced").unwrap();
            file.sync_all().unwrap();
            File::open(mounted.path()).unwrap().sync_all().unwrap();
            let here = device.disk().position();
            file.write_all(b" and not").unwrap();
            drop(file);
            drop(mounted);
            device.disk().load(device.disk().cut(here, &mut |_| 0));
            let mounted = device.mount().unwrap();
            assert_eq!(fs::read(mounted.path().join("file")).unwrap(), b"synced");
            drop(mounted);
            let (folder, node) = (device.folder.clone(), device.node.clone().unwrap());
            drop(device);
            assert!(!folder.exists());
            let attached = program::run("losetup", &["--all"]).unwrap();
            assert!(!attached.contains(&*folder.to_string_lossy()), "{node}: {attached}");
        }
    }
}
