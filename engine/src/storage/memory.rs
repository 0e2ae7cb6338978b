//! A disk in memory that forgets what was not synced, tears writes, fails and fills up: for tests of what must
//! survive a power cut.
//!
//! It knows two states of each file and folder: what a running system reads, and what the device holds. A power cut
//! leaves, of every 512-byte sector written since the last sync, the old content, the new one, or zeros where
//! the file grew; of a file's length anything between; of a name created or removed since its folder was
//! synced either state. All choices come from the caller's seed.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Disk, File, Lock};

/// What a device tears: a sector is written whole or not at all.
const SECTOR: usize = 512;

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
    /// which is read from the cache all the same until that is forgotten; anything else fails.
    Lossy,
}

#[derive(Default)]
struct World {
    inodes: Vec<Inode>,
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    locked: Vec<PathBuf>,
    operations: u64,
    fault: Option<(u64, Fault, bool)>,
    capacity: Option<usize>,
}

#[derive(Clone, Default)]
struct Inode {
    /// What is read: the cache.
    live: Vec<u8>,
    /// What a sync may still write; differs from `live` only after a failed one.
    dirty: Vec<u8>,
    /// What the device holds.
    durable: Vec<u8>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many operations that change something were asked for so far.
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// Makes the operation with this number, counted from now, go wrong; all after it too if `sticky`.
    pub fn fail(&self, number: u64, fault: Fault, sticky: bool) {
        let mut world = self.world();
        world.fault = Some((world.operations + number, fault, sticky));
    }

    /// Lets all operations succeed again.
    pub fn heal(&self) {
        self.world().fault = None;
    }

    /// Lets the disk hold this many bytes of files; `None` for any number.
    pub fn limit(&self, capacity: Option<usize>) {
        self.world().capacity = capacity;
    }

    /// Flips a bit of a file, on the device and in the cache.
    pub fn flip(&self, path: &Path, bit: usize) {
        let mut world = self.world();
        if let Some(&inode) = world.live.get(path) {
            let Inode { live, dirty, durable } = &mut world.inodes[inode];
            for bytes in [live, dirty, durable] {
                if let Some(byte) = bytes.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
            }
        }
    }

    /// The disk as a power cut leaves it. `choose(n)` returns a number below `n`; the same answers leave the
    /// same disk.
    #[must_use]
    pub fn power_cut(&self, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        let world = self.world();
        let mut after = World::default();
        let mut names: Vec<_> = world.live.keys().chain(world.durable.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let (live, durable) = (world.live.get(name), world.durable.get(name));
            let kept = if live == durable || choose(2) == 0 { durable } else { live };
            if let Some(&inode) = kept {
                let content = survivor(&world.inodes[inode], choose);
                after.live.insert(name.clone(), after.inodes.len());
                after.inodes.push(Inode {
                    live: content.clone(),
                    dirty: content.clone(),
                    durable: content,
                });
            }
        }
        after.durable = after.live.clone();
        Self { world: Arc::new(Mutex::new(after)) }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of a file survives.
fn survivor(inode: &Inode, choose: &mut dyn FnMut(usize) -> usize) -> Vec<u8> {
    let Inode { dirty, durable, .. } = inode;
    if dirty == durable {
        return durable.clone();
    }
    let (short, long) = (dirty.len().min(durable.len()), dirty.len().max(durable.len()));
    let len = match choose(3) {
        0 => durable.len(),
        1 => dirty.len(),
        _ => short + choose(long - short + 1),
    };
    let mut content = vec![0; len];
    for (number, sector) in content.chunks_mut(SECTOR).enumerate() {
        let at = number * SECTOR;
        let part =
            |bytes: &[u8]| bytes.get(at..).map(|rest| rest[..rest.len().min(SECTOR)].to_vec());
        let (new, old) = (part(dirty).unwrap_or_default(), part(durable).unwrap_or_default());
        let chosen = match choose(3) {
            _ if new == old => new,
            0 => old,
            1 => new,
            // Zeros only where the file grew; elsewhere a lost write leaves what was there.
            _ if at >= durable.len() => Vec::new(),
            _ => old,
        };
        let kept = chosen.len().min(sector.len());
        sector[..kept].copy_from_slice(&chosen[..kept]);
    }
    content
}

impl World {
    /// Counts an operation; says what is to go wrong with it.
    fn step(&mut self) -> Option<Fault> {
        let number = self.operations;
        self.operations += 1;
        let (at, fault, sticky) = self.fault?;
        (number == at || (sticky && number > at)).then_some(fault)
    }

    fn fallible(&mut self) -> io::Result<()> {
        match self.step() {
            Some(_) => Err(io::Error::other("injected")),
            None => Ok(()),
        }
    }

    fn used(&self) -> usize {
        self.live.values().map(|&inode| self.inodes[inode].live.len()).sum()
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDisk").finish_non_exhaustive()
    }
}

impl Disk for MemoryDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        // Folders themselves are assumed durable: they are made once, before anything is in them.
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let world = self.world();
        let inside = world.live.keys().filter_map(|path| path.strip_prefix(dir).ok());
        let mut names: Vec<_> = inside
            .filter_map(|rest| rest.iter().next())
            .filter_map(|name| name.to_str().map(str::to_owned))
            .collect();
        names.dedup();
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut world = self.world();
        world.fallible()?;
        if world.live.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = world.inodes.len();
        world.inodes.push(Inode::default());
        world.live.insert(path.to_owned(), inode);
        Ok(Box::new(MemoryFile { disk: self.clone(), inode }))
    }

    fn open(&self, path: &Path, _: bool) -> io::Result<Box<dyn File>> {
        let inode = *self.world().live.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemoryFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.fallible()?;
        let inode = world.live.remove(from).ok_or(io::ErrorKind::NotFound)?;
        world.live.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.fallible()?;
        world.live.remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.fallible()?;
        let World { live, durable, .. } = &mut *world;
        durable.retain(|path, _| path.parent() != Some(dir));
        let inside = live.iter().filter(|(path, _)| path.parent() == Some(dir));
        durable.extend(inside.map(|(path, inode)| (path.clone(), *inode)));
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
        Ok(self.disk.world().inodes[self.inode].live.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let world = self.disk.world();
        let live = &world.inodes[self.inode].live;
        let rest = usize::try_from(at).ok().and_then(|at| live.get(at..)).unwrap_or_default();
        let read = rest.len().min(buf.len());
        buf[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let grown = (at + buf.len()).saturating_sub(world.inodes[self.inode].live.len());
        let full = world.capacity.is_some_and(|capacity| world.used() + grown > capacity);
        let fault = world.step();
        let written = match fault {
            None if !full => buf,
            Some(Fault::Error) => return Err(io::Error::other("injected")),
            _ => &buf[..buf.len() / 2],
        };
        let Inode { live, dirty, .. } = &mut world.inodes[self.inode];
        for bytes in [live, dirty] {
            let end = bytes.len().max(at + written.len());
            bytes.resize(end, 0);
            bytes[at..at + written.len()].copy_from_slice(written);
        }
        match (fault, full) {
            (None, false) => Ok(()),
            (None, true) => Err(io::ErrorKind::StorageFull.into()),
            _ => Err(io::Error::other("injected")),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        let fault = world.step();
        let inode = &mut world.inodes[self.inode];
        match fault {
            None => {
                inode.durable = inode.dirty.clone();
                Ok(())
            }
            Some(fault) => {
                if fault == Fault::Lossy {
                    inode.dirty = inode.durable.clone();
                }
                Err(io::Error::other("injected"))
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        world.fallible()?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let Inode { live, dirty, .. } = &mut world.inodes[self.inode];
        live.resize(len, 0);
        dirty.resize(len, 0);
        Ok(())
    }

    fn forget_cached(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        let inode = &mut world.inodes[self.inode];
        inode.live = inode.dirty.clone();
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
