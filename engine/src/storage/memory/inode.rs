//! One file of the disk in memory: what is read, what may still be written, what the device holds, and what of
//! all that a power cut leaves.

use std::{ops::Range, sync::Arc};

/// What a device tears: a sector is written whole or not at all.
const SECTOR: usize = 512;

/// Bytes that are shared until they change.
type Content = Arc<Vec<u8>>;

#[derive(Clone, Default)]
pub(super) struct Inode {
    /// What is read: the cache.
    live: Content,
    /// What a sync may still write; differs from `live` only after a failed one.
    dirty: Content,
    /// What the device holds.
    durable: Content,
    /// What `dirty` was between the last sync and the last change.
    between: Vec<Content>,
    /// What there was before the file was cut: blocks that may come back.
    ghost: Content,
    /// So many bytes from the start are the same in `dirty`, `between` and `durable`.
    clean: usize,
    /// What the device cannot read.
    spoiled: Vec<Range<usize>>,
}

impl Inode {
    /// A file that the device holds.
    pub(super) fn holding(content: Content) -> Self {
        Self {
            live: content.clone(),
            dirty: content.clone(),
            durable: content,
            clean: usize::MAX,
            ..Self::default()
        }
    }

    pub(super) fn live(&self) -> &[u8] {
        &self.live
    }

    pub(super) fn spoil(&mut self, bytes: Range<usize>) {
        self.spoiled.push(bytes);
    }

    /// Whether the device cannot read some of so many bytes at a place.
    pub(super) fn is_spoiled(&self, at: u64, len: usize) -> bool {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        self.spoiled.iter().any(|it| it.start < at.saturating_add(len) && at < it.end)
    }

    pub(super) fn write(&mut self, bytes: &[u8], at: usize) {
        // A device gives other sectors for what is written where it cannot read.
        self.spoiled.retain(|it| it.end <= at || at + bytes.len() <= it.start);
        self.change(at, |content| {
            let end = content.len().max(at + bytes.len());
            content.resize(end, 0);
            content[at..at + bytes.len()].copy_from_slice(bytes);
        });
    }

    pub(super) fn set_len(&mut self, len: usize) {
        if len < self.dirty.len() {
            let behind = self.ghost.get(self.dirty.len()..).unwrap_or_default();
            self.ghost = Arc::new([&self.dirty, behind].concat());
        }
        self.change(len.min(self.live.len()), |content| content.resize(len, 0));
    }

    fn change(&mut self, from: usize, edit: impl Fn(&mut Vec<u8>)) {
        self.clean = self.clean.min(from).min(self.durable.len());
        if !Arc::ptr_eq(&self.dirty, &self.durable) {
            self.between.push(self.dirty.clone());
        }
        if Arc::ptr_eq(&self.live, &self.dirty) {
            // Let go of, so that what nobody else holds is changed in place.
            self.dirty = Content::default();
            edit(Arc::make_mut(&mut self.live));
            self.dirty = self.live.clone();
        } else {
            edit(Arc::make_mut(&mut self.live));
            edit(Arc::make_mut(&mut self.dirty));
        }
    }

    pub(super) fn sync(&mut self) {
        self.durable = self.dirty.clone();
        self.between.clear();
        self.clean = usize::MAX;
    }

    /// A sync failed: the pages count as clean, and the device never took them.
    pub(super) fn drop_unsynced(&mut self) {
        self.dirty = self.durable.clone();
        self.between.clear();
        self.clean = usize::MAX;
    }

    /// The same for some sectors, another choice for each number; the device took the others, and the length.
    pub(super) fn drop_some_unsynced(&mut self, number: u64) {
        let mut content = self.durable[..self.durable.len().min(self.dirty.len())].to_vec();
        content.resize(self.dirty.len(), 0);
        let sectors = content.chunks_mut(SECTOR).zip(self.dirty.chunks(SECTOR)).enumerate();
        for (at, (sector, taken)) in sectors {
            // Any mixture of the two: which sectors are lost must not depend on their place alone.
            if (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (at % 64)) & 1 == 0 {
                sector.copy_from_slice(taken);
            }
        }
        self.durable = Arc::new(content);
        self.drop_unsynced();
    }

    pub(super) fn forget_cached(&mut self) {
        self.live = self.dirty.clone();
    }

    pub(super) fn flip(&mut self, bit: usize) {
        let Self { live, dirty, durable, .. } = self;
        let shared = (Arc::ptr_eq(live, dirty), Arc::ptr_eq(live, durable));
        if shared == (true, true) {
            (*dirty, *durable) = (Content::default(), Content::default());
        }
        for content in [&mut *live, &mut *dirty, &mut *durable] {
            if bit / 8 < content.len() {
                Arc::make_mut(content)[bit / 8] ^= 1 << (bit % 8);
            }
        }
        if shared == (true, true) {
            (*dirty, *durable) = (live.clone(), live.clone());
        }
    }

    pub(super) fn decay(&mut self, bit: usize) {
        let live = self.live.clone();
        self.flip(bit);
        self.live = live;
    }

    /// What a power cut leaves of it.
    pub(super) fn survivor(&self, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        let (ghost, spoiled) = (self.ghost.clone(), self.spoiled.clone());
        if Arc::ptr_eq(&self.dirty, &self.durable) {
            return Self { ghost, spoiled, ..Self::holding(self.durable.clone()) };
        }
        let len = self.surviving_len(choose);
        let mut content = self.durable[..self.clean.min(len)].to_vec();
        content.resize(len, 0);
        let first = self.clean / SECTOR;
        let mut candidates = Vec::new();
        for (number, sector) in content.chunks_mut(SECTOR).enumerate().skip(first) {
            self.candidates(number * SECTOR, sector.len(), &mut candidates);
            let chosen = match candidates[..] {
                [only] => only,
                _ => candidates[choose(candidates.len())],
            };
            sector.fill(0);
            sector[..chosen.len()].copy_from_slice(chosen);
        }
        Self { ghost, spoiled, ..Self::holding(Arc::new(content)) }
    }

    /// Any length that the file had since the last sync, or that a part of what was written gives it.
    fn surviving_len(&self, choose: &mut dyn FnMut(usize) -> usize) -> usize {
        let had = self.between.iter().chain([&self.dirty]).map(|content| content.len());
        let mut lengths = vec![self.durable.len()];
        lengths.extend(had);
        let shortest = lengths.iter().copied().min().unwrap_or_default();
        let longest = lengths.iter().copied().max().unwrap_or_default();
        lengths.extend((shortest.next_multiple_of(SECTOR)..longest).step_by(SECTOR));
        lengths.sort_unstable();
        lengths.dedup();
        match lengths[..] {
            [only] => only,
            _ => lengths[choose(lengths.len())],
        }
    }

    /// All that a sector may hold, without the zeros at its end.
    fn candidates<'a>(&'a self, at: usize, len: usize, out: &mut Vec<&'a [u8]>) {
        out.clear();
        let grown = at >= self.durable.len();
        let ghost = grown.then_some(&self.ghost);
        let contents = [&self.durable].into_iter().chain(&self.between).chain([&self.dirty]);
        for content in contents.chain(ghost) {
            // Of what grew, the durable content has nothing: that is the sector of zeros.
            let rest = content.get(at..).unwrap_or_default();
            let sector = &rest[..rest.len().min(len)];
            let end = sector.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            if !out.contains(&&sector[..end]) {
                out.push(&sector[..end]);
            }
        }
    }
}
