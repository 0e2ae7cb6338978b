//! A disk in memory that forgets what was not synced, tears writes, fails, fills up and rots: for tests of what
//! must survive all that.
//!
//! It knows two states of each file and folder: what a running system reads, and what the device holds. A power cut
//! leaves, of every 512-byte sector written since the last sync, what it held at any moment since, or zeros where
//! the file grew, or there what it held before the file was cut; of a file's length anything between; of a name, also
//! a folder's, made or removed since its folder was synced either state. All choices come from the caller's seed. Contents
//! are shared until they change, so that a power cut costs what it touches.

mod inode;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::io::Errno;

use super::{Disk, File, Lock};
use inode::Inode;

/// A file system in memory. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    world: Arc<Mutex<World>>,
}

/// What an operation is made to do instead of succeeding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and changes nothing.
    Error,
    /// A write that is done in part before it fails; a sync that fails and loses what it should have made durable,
    /// which is read from the cache all the same until that is forgotten; a sync of a folder that fails, and behind which
    /// its names count as durable until one of them changes; anything else fails.
    Lossy,
    /// The same, but that a sync of a file loses some of it only: the length stays, and zeros or what stood there before
    /// stand in the place of the rest.
    Holes,
    /// It fails because there is no space, a write in part.
    Full,
    /// It fails because a signal came, and changes nothing.
    Interrupted,
}

/// When operations of one sort go wrong.
#[derive(Clone, Copy)]
struct Plan {
    at: u64,
    fault: Fault,
    sticky: bool,
}

#[derive(Clone, Default)]
struct World {
    inodes: Vec<Inode>,
    live: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    /// The folders that were made, and whether their names are durable.
    folders: BTreeMap<String, bool>,
    /// The folders of which a sync has failed, and which have nothing to write since.
    lapsed: BTreeSet<String>,
    locked: Vec<PathBuf>,
    /// Whether the cache stays as it is when it is to be forgotten.
    pinned: bool,
    changes: u64,
    change_plan: Option<Plan>,
    reads: u64,
    read_plan: Option<Plan>,
    capacity: Option<usize>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another disk with the same state, which nobody has locked and nothing goes wrong on.
    #[must_use]
    pub fn copy(&self) -> Self {
        let world = World {
            locked: Vec::new(),
            change_plan: None,
            read_plan: None,
            ..self.world().clone()
        };
        Self { world: Arc::new(Mutex::new(world)) }
    }

    /// Has the cache stay as it is whenever it is to be forgotten, as a kernel keeps pages that somebody else uses.
    pub fn pin_cache(&self) {
        self.world().pinned = true;
    }

    /// How many operations that change something were asked for so far.
    pub fn operations(&self) -> u64 {
        self.world().changes
    }

    /// How many operations that only look were asked for so far.
    pub fn reads(&self) -> u64 {
        self.world().reads
    }

    /// Makes the operation with this number, counted from now among those that change something, go wrong; all
    /// after it too if `sticky`.
    pub fn fail(&self, number: u64, fault: Fault, sticky: bool) {
        let mut world = self.world();
        world.change_plan = Some(Plan { at: world.changes + number, fault, sticky });
    }

    /// The same among the operations that only look: opening, listing, reading, asking for a length.
    pub fn fail_read(&self, number: u64, fault: Fault, sticky: bool) {
        let mut world = self.world();
        world.read_plan = Some(Plan { at: world.reads + number, fault, sticky });
    }

    /// Lets all operations succeed again.
    pub fn heal(&self) {
        let mut world = self.world();
        (world.change_plan, world.read_plan) = (None, None);
    }

    /// Lets the disk hold this many bytes of files; `None` for any number.
    pub fn limit(&self, capacity: Option<usize>) {
        self.world().capacity = capacity;
    }

    /// How many bytes of files it holds.
    pub fn used(&self) -> usize {
        self.world().used()
    }

    /// The paths of all files.
    pub fn files(&self) -> Vec<PathBuf> {
        self.world().live.keys().map(PathBuf::from).collect()
    }

    /// What a file holds, as it is read; nothing if there is none.
    pub fn content(&self, path: &Path) -> Vec<u8> {
        let world = self.world();
        let inode = world.live.get(name(path).as_ref());
        inode.map(|&inode| world.inodes[inode].live().to_vec()).unwrap_or_default()
    }

    /// Makes a file hold something else behind everybody's back, on the device and in the cache: rot, a stale
    /// block, one of another place, a file from a backup. It need not have existed.
    pub fn put(&self, path: &Path, content: Vec<u8>) {
        let mut world = self.world();
        let name = name(path).into_owned();
        let inode = world.live.get(&name).copied().unwrap_or(world.inodes.len());
        let content = Inode::holding(Arc::new(content));
        match world.inodes.get_mut(inode) {
            Some(held) => *held = content,
            None => world.inodes.push(content),
        }
        world.live.insert(name.clone(), inode);
        world.durable.insert(name, inode);
    }

    /// Makes a file disappear behind everybody's back.
    pub fn lose(&self, path: &Path) {
        let mut world = self.world();
        world.live.remove(name(path).as_ref());
        world.durable.remove(name(path).as_ref());
    }

    /// Flips a bit of a file, on the device and in the cache.
    pub fn flip(&self, path: &Path, bit: usize) {
        let mut world = self.world();
        if let Some(&inode) = world.live.get(name(path).as_ref()) {
            world.inodes[inode].flip(bit);
        }
    }

    /// Flips a bit of a file on the device alone: what the cache holds stays as it was.
    pub fn decay(&self, path: &Path, bit: usize) {
        let mut world = self.world();
        if let Some(&inode) = world.live.get(name(path).as_ref()) {
            world.inodes[inode].decay(bit);
        }
    }

    /// Makes bytes of a file such that the device cannot read them, until they are written again or the file holds
    /// something else.
    pub fn spoil(&self, path: &Path, bytes: Range<usize>) {
        let mut world = self.world();
        if let Some(&inode) = world.live.get(name(path).as_ref()) {
            world.inodes[inode].spoil(bytes);
        }
    }

    /// The disk as a power cut leaves it. `choose(n)` returns a number below `n`; the same answers leave the
    /// same disk, and all answers together all that a power cut can leave.
    #[must_use]
    pub fn power_cut(&self, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        let world = self.world();
        let mut after = World::default();
        let (kept, lost): (Vec<_>, Vec<_>) =
            world.folders.iter().partition(|(_, durable)| **durable || choose(2) == 0);
        let is_lost = |name: &str| lost.iter().any(|(dir, _)| inside(dir, name).is_some());
        let kept = kept.into_iter().filter(|(name, _)| !is_lost(name));
        after.folders = kept.map(|(name, _)| (name.clone(), true)).collect();
        let vanished = world.durable.keys().filter(|name| !world.live.contains_key(*name));
        for name in world.live.keys().chain(vanished).filter(|name| !is_lost(name)) {
            let (live, durable) = (world.live.get(name), world.durable.get(name));
            let kept = if live == durable || choose(2) == 0 { durable } else { live };
            if let Some(&inode) = kept {
                after.live.insert(name.clone(), after.inodes.len());
                after.inodes.push(world.inodes[inode].survivor(choose));
            }
        }
        after.durable.clone_from(&after.live);
        Self { world: Arc::new(Mutex::new(after)) }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(path: &Path) -> Cow<'_, str> {
    path.to_string_lossy()
}

/// What of a name comes behind its folder.
fn inside<'a>(dir: &str, name: &'a str) -> Option<&'a str> {
    match dir {
        HERE => Some(name),
        _ => name.strip_prefix(dir)?.strip_prefix('/'),
    }
}

/// The folder in which names without one are.
const HERE: &str = ".";

impl Plan {
    fn hits(self, number: u64) -> Option<Fault> {
        (number == self.at || (self.sticky && number > self.at)).then_some(self.fault)
    }
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Error | Self::Lossy | Self::Holes => io::Error::other("injected"),
            Self::Full => io::ErrorKind::StorageFull.into(),
            Self::Interrupted => io::ErrorKind::Interrupted.into(),
        }
    }
}

impl World {
    /// Counts an operation that changes something; says what is to go wrong with it.
    fn step(&mut self) -> Option<Fault> {
        self.changes += 1;
        self.change_plan?.hits(self.changes - 1)
    }

    fn change(&mut self) -> io::Result<()> {
        self.step().map_or(Ok(()), |fault| Err(fault.error()))
    }

    /// A name changes: its folder is to be written, as a whole.
    fn touch(&mut self, path: &Path) {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        self.lapsed.remove(name(dir.unwrap_or(Path::new(HERE))).as_ref());
    }

    fn look(&mut self) -> io::Result<()> {
        self.reads += 1;
        let fault = self.read_plan.and_then(|plan| plan.hits(self.reads - 1));
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }

    fn has_folder(&self, dir: &str) -> bool {
        let in_use = || self.live.keys().any(|name| inside(dir, name).is_some());
        dir == HERE || self.folders.contains_key(dir) || in_use()
    }

    fn used(&self) -> usize {
        self.live.values().map(|&inode| self.inodes[inode].live().len()).sum()
    }

    /// How much of a write fits.
    fn fitting(&self, inode: usize, at: usize, len: usize) -> usize {
        let Some(capacity) = self.capacity else { return len };
        let grown = (at + len).saturating_sub(self.inodes[inode].live().len());
        let missing = (self.used() + grown).saturating_sub(capacity);
        len - missing.min(grown).min(len)
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDisk").finish_non_exhaustive()
    }
}

impl Disk for MemoryDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if self.world().has_folder(&name(dir)) {
            return Ok(());
        }
        let above = dir.parent().filter(|above| !above.as_os_str().is_empty());
        let above = above.unwrap_or(Path::new(HERE));
        self.create_dir(above)?;
        let mut world = self.world();
        world.change()?;
        world.touch(dir);
        world.folders.insert(name(dir).into_owned(), false);
        drop(world);
        self.sync_dir(above)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut world = self.world();
        world.look()?;
        let dir = name(dir);
        let all = world.live.keys().chain(world.folders.keys());
        let inside = all.filter_map(|name| inside(&dir, name));
        let names: BTreeSet<_> = inside.filter_map(|rest| rest.split('/').next()).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut world = self.world();
        world.change()?;
        let name = name(path);
        if world.live.contains_key(name.as_ref()) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = world.inodes.len();
        world.touch(path);
        world.inodes.push(Inode::default());
        world.live.insert(name.into_owned(), inode);
        Ok(Box::new(MemoryFile { disk: self.clone(), inode }))
    }

    fn open(&self, path: &Path, _: bool) -> io::Result<Box<dyn File>> {
        let mut world = self.world();
        world.look()?;
        let inode = *world.live.get(name(path).as_ref()).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemoryFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.change()?;
        let inode = world.live.remove(name(from).as_ref()).ok_or(io::ErrorKind::NotFound)?;
        world.touch(to);
        world.live.insert(name(to).into_owned(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.change()?;
        world.live.remove(name(path).as_ref()).ok_or(io::ErrorKind::NotFound)?;
        world.touch(path);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.world();
        let fault = world.step();
        let dir = name(dir);
        if let Some(Fault::Lossy | Fault::Holes) = fault {
            world.lapsed.insert(dir.clone().into_owned());
        }
        fault.map_or(Ok(()), |fault| Err(fault.error()))?;
        if world.lapsed.contains(dir.as_ref()) {
            return Ok(());
        }
        let here = |name: &str| inside(&dir, name).is_some_and(|rest| !rest.contains('/'));
        let World { live, durable, folders, .. } = &mut *world;
        folders.iter_mut().filter(|(name, _)| here(name)).for_each(|(_, durable)| *durable = true);
        durable.retain(|name, inode| !here(name) || live.get(name) == Some(inode));
        for (name, inode) in live.iter().filter(|(name, _)| here(name)) {
            if !durable.contains_key(name) {
                durable.insert(name.clone(), *inode);
            }
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let mut world = self.world();
        if world.locked.iter().any(|locked| locked == path) {
            return Ok(None);
        }
        world.locked.push(path.to_owned());
        Ok(Some(Box::new(MemoryLock { disk: self.clone(), path: path.to_owned() })))
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    inode: usize,
}

impl File for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        let mut world = self.disk.world();
        world.look()?;
        Ok(world.inodes[self.inode].live().len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let mut world = self.disk.world();
        world.look()?;
        let live = world.inodes[self.inode].live();
        let rest = usize::try_from(at).ok().and_then(|at| live.get(at..)).unwrap_or_default();
        let read = rest.len().min(buf.len());
        if world.inodes[self.inode].is_spoiled(at, read) {
            return Err(Errno::IO.into());
        }
        buf[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let fits = world.fitting(self.inode, at, buf.len());
        let fault = world.step();
        let written = match fault {
            None => fits,
            Some(Fault::Lossy | Fault::Holes | Fault::Full) => fits.min(buf.len() / 2),
            Some(Fault::Error | Fault::Interrupted) => 0,
        };
        world.inodes[self.inode].write(&buf[..written], at);
        match fault {
            Some(fault) => Err(fault.error()),
            None if fits < buf.len() => Err(io::ErrorKind::StorageFull.into()),
            None => Ok(()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        let fault = world.step();
        let number = world.changes;
        let inode = &mut world.inodes[self.inode];
        match fault {
            None => inode.sync(),
            Some(Fault::Lossy) => inode.drop_unsynced(),
            Some(Fault::Holes) => inode.drop_some_unsynced(number),
            Some(_) => {}
        }
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        world.change()?;
        world.inodes[self.inode].set_len(usize::try_from(len).map_err(io::Error::other)?);
        Ok(())
    }

    fn forget_cached(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        world.look()?;
        if !world.pinned {
            world.inodes[self.inode].forget_cached();
        }
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryLock {
    disk: MemoryDisk,
    path: PathBuf,
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.disk.world().locked.retain(|locked| *locked != self.path);
    }
}

impl Lock for MemoryLock {}
