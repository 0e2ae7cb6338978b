//! Opening a stream: finding the end of what is durable, by proof.
//!
//! - Only the last segment is scanned: a segment is begun only when all before it is durable, so damage in an earlier
//!   one is corruption, found and reported when it is read.
//! - The first batch that is not whole is a *torn tail* if nothing says that it was durable: it was never
//!   acknowledged to anybody, and the file is cut there. If a later batch in the file states, in its
//!   `synced_upto`, that the record there had been durable, it is *corruption*: the stream halts and the file stays as it is.
//! - What the device cannot read is never taken for torn, nor is anything in front of it: it may be what was acknowledged, or
//!   say so of what is in front.
//! - A last segment whose head is damaged and that holds no such proof was being created: it is removed and
//!   the one before it is the last. If the part of its head that has its name is whole, that is a proof of its own: all
//!   records before it had been durable, so the one before it is corrupt if it ends earlier.
//! - What is kept is synced again before anything is acknowledged on top of it, because bytes that are read
//!   need not be on the disk; and the file is changed for that, because a file system that is broken need not say so
//!   otherwise. What nothing proves to be there is written over itself: a page that the device did not take may count as
//!   written, and stay in the cache although that is to be emptied. The same goes for the names of segments.
//!
//! Interrupted at any point and begun again, this ends in the same state.

use std::{borrow::Cow, path::Path, sync::Arc};

use super::{
    Tail,
    format::{self, BATCH_HEADER_BYTES, BatchHeader, Kind, Place},
    group::Start,
    segment::{
        Found, OpenError, Segment, UNREADABLE, decode_state, io_error, records_of, sync_names,
    },
};
use crate::{
    Error,
    codec::Records,
    model::{Offset, StreamId},
    mutant::{self, Mutant},
    storage::{Disk, File, renew_names},
};

/// A stream as it was found.
#[derive(Debug)]
pub(super) struct Recovered {
    /// Base offsets and sizes in bytes, ascending. Never empty.
    pub(super) segments: Vec<(Offset, u64)>,
    pub(super) last: Segment,
    pub(super) position: u64,
    pub(super) chain: u32,
    pub(super) tail: Tail,
    /// Whether the last segment says itself that all that it holds is durable, or holds nothing.
    pub(super) is_sealed: bool,
}

/// Finds the end of the stream in `dir`, which is created if it is not there.
pub(super) fn recover(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    stream: StreamId,
) -> Result<Recovered, Error> {
    disk.create_dir(dir).map_err(|error| io_error("create", dir, error))?;
    remove_unfinished(disk.as_ref(), dir)?;
    let (mut bases, mut unborn) = (list(disk.as_ref(), dir)?, Vec::new());
    let found = loop {
        let Some(&base) = bases.last() else { break None };
        let path = dir.join(format::file_name(base));
        match Segment::open(disk.as_ref(), &path, stream, true) {
            Ok((segment, tail)) => break Some((scan(&segment, tail)?, segment)),
            Err(OpenError::Other(error)) => return Err(error),
            Err(OpenError::Damaged(reason)) => {
                refuse_used(disk.as_ref(), &path, stream, base, reason)?;
                unborn.extend(bases.pop());
            }
        }
    };
    for &base in &unborn {
        reaches(disk.as_ref(), dir, stream, found.as_ref(), base)?;
    }
    discard(disk.as_ref(), dir, &unborn)?;
    let (scanned, last) = match found {
        Some(found) => found,
        None => {
            let tail = Tail::default();
            bases.push(tail.next);
            let segment = Segment::create(disk.as_ref(), dir, stream, &tail)?;
            (scan(&segment, tail)?, segment)
        }
    };
    rewrite(&last, scanned.proven, scanned.position)?;
    cut(&last, scanned.position)?;
    // The process may have been killed between a name and its sync: nothing goes on top of what a power cut
    // could still take, or give back. A batch was written only once all names that were made were durable; which were
    // removed, nothing proves, and the older of two may come back without the newer.
    let is_named = scanned.position > last.body();
    let above = dir.parent().filter(|_| is_named);
    let renewed = [Some(dir), dir.parent().filter(|_| !is_named)].into_iter().flatten();
    if !mutant::on(Mutant::RecoveredNamesUnsynced) {
        for folder in renewed {
            renew_names(disk.as_ref(), folder).map_err(|source| Error::Io {
                operation: "sync",
                path: folder.to_owned(),
                source,
            })?;
        }
        above.map_or(Ok(()), |above| sync_names(disk.as_ref(), above))?;
    }
    let segments = sizes(disk.as_ref(), dir, &bases)?;
    Ok(Recovered {
        segments,
        last,
        position: scanned.position,
        chain: scanned.chain,
        tail: scanned.tail,
        is_sealed: scanned.is_sealed,
    })
}

/// Removes what an interrupted mending left: the segment that it was for is still in its place.
fn remove_unfinished(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    let names = disk.list(dir).map_err(|error| io_error("list", dir, error))?;
    for name in names {
        let path = dir.join(name);
        if path.extension().is_some_and(|ending| ending == format::MENDING) {
            disk.remove(&path).map_err(|error| io_error("remove", &path, error))?;
        }
    }
    Ok(())
}

/// The base offsets of the segments in a folder, ascending.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<Offset>, Error> {
    let names = disk.list(dir).map_err(|error| io_error("list", dir, error))?;
    let mut bases: Vec<_> = names.iter().filter_map(|name| format::base_of(name)).collect();
    bases.sort_unstable();
    Ok(bases)
}

/// What the files in a folder take, as far as that can be told.
pub(super) fn bytes_in(disk: &dyn Disk, dir: &Path) -> u64 {
    let names = disk.list(dir).unwrap_or_default();
    let length = |name| disk.open(&dir.join(name), false).and_then(|file| file.len());
    names.into_iter().filter_map(|name| length(name).ok()).sum()
}

fn sizes(disk: &dyn Disk, dir: &Path, bases: &[Offset]) -> Result<Vec<(Offset, u64)>, Error> {
    let size = |&base: &Offset| {
        let path = dir.join(format::file_name(base));
        let file = disk.open(&path, false).map_err(|error| io_error("open", &path, error))?;
        Ok((base, file.len().map_err(|error| io_error("read the length of", &path, error))?))
    };
    bases.iter().map(size).collect()
}

/// Where a segment's valid part ends.
pub(super) struct Scanned {
    pub(super) tail: Tail,
    pub(super) position: u64,
    pub(super) chain: u32,
    /// What stands behind it, if not the end of the file.
    pub(super) torn: Option<Cow<'static, str>>,
    /// Where what its batches prove to have been durable ends: nothing, as long as there is none.
    proven: u64,
    /// The first record that a batch was found for that proves all before it.
    proven_by: Option<Offset>,
    /// Whether all of it but the seal itself is proven, or there is no batch.
    is_sealed: bool,
}

impl Scanned {
    /// Takes note of what the batch at the position proves.
    fn weigh(&mut self, header: &BatchHeader) {
        let is_after_all = header.synced_upto.next() == header.first;
        if header.is_seal() || (is_after_all && self.proven_by != Some(header.first)) {
            // Of marks in front of others with the same number, nothing but a seal says anything.
            self.proven = self.position;
            self.proven_by = Some(header.first);
        }
    }
}

/// Reads a segment to its last valid batch.
///
/// # Errors
/// [`Error::Corrupt`] if what is not valid is proven to have been durable.
pub(super) fn scan(segment: &Segment, base_tail: Tail) -> Result<Scanned, Error> {
    scan_with(segment, base_tail, |_, _| true)
}

/// The same, and hands the records of each valid batch to `each`, until it returns false.
pub(super) fn scan_with(
    segment: &Segment,
    base_tail: Tail,
    mut each: impl FnMut(Offset, &Records) -> bool,
) -> Result<Scanned, Error> {
    let mut state = Scanned {
        tail: base_tail,
        position: segment.body(),
        chain: segment.header.crc(),
        torn: None,
        proven: 0,
        proven_by: None,
        is_sealed: true,
    };
    loop {
        let bad = match segment.batch_at(state.position)? {
            Found::End => return Ok(state),
            Found::Bad(reason) => reason,
            Found::Unreadable => {
                return Err(segment.corrupt(state.position, state.tail.next, UNREADABLE));
            }
            Found::Batch { header, crc, payload, next } => {
                if let Err(reason) = follows(&state, &header) {
                    reason.into()
                } else {
                    // Whole, in its place, and not to be understood: that is no torn write.
                    let offset = state.tail.next;
                    let records = take(&mut state, &header, payload)
                        .map_err(|reason| segment.corrupt(state.position, offset, reason))?;
                    state.weigh(&header);
                    (state.chain, state.position) = (crc, next);
                    match records {
                        Some(records) if !each(offset, &records) => return Ok(state),
                        _ => continue,
                    }
                }
            }
        };
        if proven_durable(segment, state.position, state.tail.next)? {
            return Err(segment.corrupt(state.position, state.tail.next, bad));
        }
        state.torn = Some(bad);
        return Ok(state);
    }
}

/// Whether a batch that is whole in itself continues the state.
fn follows(state: &Scanned, header: &BatchHeader) -> Result<(), String> {
    if header.chain != state.chain && !mutant::on(Mutant::ChainUnchecked) {
        let (chain, expected) = (header.chain, state.chain);
        return Err(format!(
            "the batch does not follow the one before it: it says {chain:08x}, that one is {expected:08x}"
        ));
    }
    follows_last((header.first, header.running), (state.tail.next, state.tail.running))
}

/// Whether a batch begins where the records before it end.
pub(super) fn follows_last(begins: Start, ends: Start) -> Result<(), String> {
    let what = "the batch's first record does not follow the last one";
    if begins.0 != ends.0 {
        return Err(format!("{what}: it is record {}, and {} is next", begins.0, ends.0));
    }
    if begins.1 != ends.1 {
        let (says, is) = (begins.1.get(), ends.1.get());
        return Err(format!("{what}: it says {says:08x} of those before it, which are {is:08x}"));
    }
    Ok(())
}

/// Takes what a batch holds into the state; returns its records, if it is neither a mark nor a seal.
fn take(
    state: &mut Scanned,
    header: &BatchHeader,
    payload: bytes::Bytes,
) -> Result<Option<Records>, &'static str> {
    let tail = &mut state.tail;
    match header.kind {
        Kind::Mark => {
            let mark = decode_state(&payload).ok_or("the mark cannot be read")?;
            // The one that is repeated behind a seal says nothing that would be lost with it.
            state.is_sealed &= tail.mark_again() == Some(mark);
            tail.observe_stored(mark);
            Ok(None)
        }
        Kind::Records => {
            let records = records_of(header, payload).ok_or("the batch's records are malformed")?;
            tail.observe(&records).map_err(|_| "a record is malformed")?;
            state.is_sealed = header.is_seal();
            Ok(Some(records).filter(|records| !records.is_empty()))
        }
    }
}

/// Whether a valid batch header anywhere behind `at` says that `offset`, or all in front of it, had been durable, or may
/// stand where the device cannot read.
fn proven_durable(segment: &Segment, at: u64, offset: Offset) -> Result<bool, Error> {
    if mutant::on(Mutant::CorruptionCut) || mutant::on(Mutant::TornHalts) {
        return Ok(mutant::on(Mutant::TornHalts));
    }
    let mut headers = Headers::behind(segment, at);
    while let Some((_, header)) = headers.next()? {
        let seals = header.is_seal() && !mutant::on(Mutant::SealIgnored);
        if header.synced_upto >= offset || seals {
            return Ok(true);
        }
    }
    Ok(headers.has_skipped())
}

/// Looks for valid batch headers, whatever lies between them, read or not. Batches are not aligned, so every position is
/// tried.
pub(super) struct Headers<'a> {
    segment: &'a Segment,
    window: Vec<u8>,
    /// Where in the file the window begins, and how much of it was looked at.
    start: u64,
    seen: usize,
    has_skipped: bool,
}

impl<'a> Headers<'a> {
    /// Those at `at` and behind it.
    pub(super) fn behind(segment: &'a Segment, at: u64) -> Self {
        Self { segment, window: Vec::new(), start: at, seen: 0, has_skipped: false }
    }

    /// Whether the device could not read some of what was looked at.
    pub(super) fn has_skipped(&self) -> bool {
        self.has_skipped
    }

    /// The next one, and where it is.
    pub(super) fn next(&mut self) -> Result<Option<(u64, BatchHeader)>, Error> {
        loop {
            let rest = self.window.get(self.seen..).unwrap_or_default();
            let start = self.start + self.seen as u64;
            let found = rest.windows(BATCH_HEADER_BYTES).enumerate().find_map(|(i, bytes)| {
                Some((i, header_in(bytes, self.segment.place(start + i as u64))?))
            });
            if let Some((i, header)) = found {
                self.seen += i + 1;
                return Ok(Some((start + i as u64, header)));
            }
            // A header may straddle the end of the window.
            self.start += self.window.len().saturating_sub(BATCH_HEADER_BYTES - 1) as u64;
            self.seen = 0;
            let left = self.segment.len()?.saturating_sub(self.start);
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            self.window.resize(left.min(SEARCH_WINDOW + BATCH_HEADER_BYTES), 0);
            let read = match self.segment.read(&mut self.window, self.start)? {
                Some(read) => read,
                None => self.read_around()?,
            };
            self.window.truncate(read);
            if read < BATCH_HEADER_BYTES {
                return Ok(None);
            }
        }
    }

    /// Fills the window piece by piece, and with zeros, which are no header, where the device cannot read. Returns how much
    /// there is.
    fn read_around(&mut self) -> Result<usize, Error> {
        let mut done = 0;
        while done < self.window.len() {
            let at = self.start + done as u64;
            let aligned = PIECE - usize::try_from(at % PIECE as u64).unwrap_or_default();
            let end = self.window.len().min(done + aligned);
            let piece = &mut self.window[done..end];
            match self.segment.read(piece, at)? {
                Some(read) if read < piece.len() => return Ok(done + read),
                Some(_) => {}
                None => {
                    piece.fill(0);
                    self.has_skipped = true;
                }
            }
            done = end;
        }
        Ok(done)
    }
}

fn header_in(bytes: &[u8], place: Place) -> Option<BatchHeader> {
    // The two last bytes of a header are zero and its kind is 1 or 2: this spares most checksums.
    let plausible = matches!(bytes, [.., 1 | 2, 0 | 1, 0, 0]);
    let header: &[u8; BATCH_HEADER_BYTES] = bytes.try_into().ok()?;
    let (header, _) = plausible.then(|| BatchHeader::decode(header, place)).flatten()?;
    Some(header)
}

/// Refuses to go on without a last segment if it was in use, and not just being created when the power went.
fn refuse_used(
    disk: &dyn Disk,
    path: &Path,
    stream: StreamId,
    base: Offset,
    reason: &'static str,
) -> Result<(), Error> {
    if is_unborn(disk, path, stream, base)? || mutant::on(Mutant::UsedTakenForUnborn) {
        return Ok(());
    }
    Err(Error::Corrupt { segment: path.to_owned(), at: 0, offset: base, reason: reason.to_owned() })
}

/// Refuses a stream that ends before a segment that was being created begins, if so much of that one is whole that it
/// proves it: all before it had been durable.
fn reaches(
    disk: &dyn Disk,
    dir: &Path,
    stream: StreamId,
    found: Option<&(Scanned, Segment)>,
    unborn: Offset,
) -> Result<(), Error> {
    let offset = found.map_or(Offset::FIRST, |(scanned, _)| scanned.tail.next);
    let path = dir.join(format::file_name(unborn));
    if unborn <= offset
        || Segment::head_at(disk, &path, stream, unborn)?.is_none()
        || mutant::on(Mutant::UnbornNoWitness)
    {
        return Ok(());
    }
    let reason = "it ends before the next segment begins";
    Err(match found {
        Some((scanned, segment)) => {
            let torn = scanned.torn.clone();
            segment.corrupt(scanned.position, offset, torn.unwrap_or(reason.into()))
        }
        None => Error::Corrupt {
            segment: dir.join(format::file_name(offset)),
            at: 0,
            offset,
            reason: reason.to_owned(),
        },
    })
}

/// Removes segments that were being created when the power went.
fn discard(disk: &dyn Disk, dir: &Path, unborn: &[Offset]) -> Result<(), Error> {
    if unborn.is_empty() || mutant::on(Mutant::UnbornKept) {
        return Ok(());
    }
    for base in unborn {
        let path = dir.join(format::file_name(*base));
        disk.remove(&path).map_err(|error| io_error("remove", &path, error))?;
    }
    sync_names(disk, dir)
}

/// Whether a last segment whose head is damaged was never in use.
pub(super) fn is_unborn(
    disk: &dyn Disk,
    path: &Path,
    stream: StreamId,
    base: Offset,
) -> Result<bool, Error> {
    let segment = headless(disk, path, stream, base)?;
    // Any valid batch means that the head had been durable before it, and what cannot be read may be one. So does the
    // absence of the segment before it, which is trimmed only later.
    let first = list(disk, dir_of(path))?.first().copied();
    let predecessor = base == Offset::FIRST || first.is_some_and(|first| first < base);
    Ok(predecessor && !proven_durable(&segment, 0, Offset::ZERO)?)
}

/// A segment whose head cannot be read, to look for batches in.
pub(super) fn headless(
    disk: &dyn Disk,
    path: &Path,
    stream: StreamId,
    base: Offset,
) -> Result<Segment, Error> {
    let file: Arc<dyn File> =
        disk.open(path, false).map_err(|error| io_error("open", path, error))?.into();
    let header = format::SegmentHeader {
        stream,
        base,
        running: crate::model::Running::START,
        preamble_len: 0,
        preamble_crc: 0,
    };
    Ok(Segment { path: path.to_owned(), header, file })
}

fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// Writes a part of the file over itself, so that there is something to sync of it.
fn rewrite(segment: &Segment, from: u64, to: u64) -> Result<(), Error> {
    let (mut at, mut piece) = (from, Vec::new());
    while at < to && !mutant::on(Mutant::TailNotRewritten) {
        let left = usize::try_from(to - at).unwrap_or(usize::MAX);
        piece.resize(left.min(REWRITTEN_AT_ONCE), 0);
        let read = segment.read(&mut piece, at)?;
        if read != Some(piece.len()) {
            return Err(segment.corrupt(at, segment.header.base, UNREADABLE));
        }
        match segment.file.write_all_at(&piece, at).map_err(|error| segment.io("write", error)) {
            // Only a file system that never writes in place needs room for this, and it loses no page of a write that it
            // has refused.
            Err(Error::NoSpace { .. }) => return Ok(()),
            written => written?,
        }
        at += piece.len() as u64;
    }
    Ok(())
}

/// Cuts the file behind what is kept, and makes that durable.
fn cut(segment: &Segment, position: u64) -> Result<(), Error> {
    // A file system that has failed to write its own metadata may say of what it takes for clean that it is
    // synced, but refuses every change: so there is one to make, and a sync that has something to do. One byte
    // more is a torn tail, should it stay.
    match segment.file.set_len(position + 1).map_err(|error| segment.io("grow", error)) {
        Ok(()) | Err(Error::NoSpace { .. }) => {}
        Err(error) => return Err(error),
    }
    if mutant::on(Mutant::TornKept) {
        return segment.file.sync_data().map_err(|error| segment.io("sync", error));
    }
    segment.file.set_len(position).map_err(|error| segment.io("cut", error))?;
    if mutant::on(Mutant::RecoveredUnsynced) {
        return Ok(());
    }
    segment.file.sync_data().map_err(|error| segment.io("sync", error))
}

const SEARCH_WINDOW: usize = 1 << 20;

/// How much is in memory while it is written over itself.
const REWRITTEN_AT_ONCE: usize = 1 << 20;

/// What is read at once where some cannot be: a page, of which a kernel reads all or nothing.
const PIECE: usize = 4 << 10;
