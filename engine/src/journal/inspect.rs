//! Looking at a journal without opening it: for people, on one in use, or on a copy. Changes nothing, locks nothing.
//!
//! A journal in use grows at its end and loses segments at its front while it is looked at. Neither is damage: a
//! segment that vanishes is one that was trimmed if all that are left lie behind it, and a last batch that is
//! half-written [looks](verify_last) whole a moment later.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::{
    Tail,
    format::{self, SEGMENT_HEADER_BYTES, SegmentHeader},
    recovery::{Scanned, is_unborn, list as bases, scan, scan_with},
    segment::{OpenError, Segment, base_named, io_error, unread},
};
use crate::{
    Error,
    codec::DecodeError,
    model::{Offset, Record, Relation, RelationId, StreamId},
    storage::{Disk, PROBE},
};

/// What a segment is found to be.
#[derive(Clone, Debug)]
pub struct SegmentReport {
    /// The file.
    pub path: PathBuf,
    /// The stream that it says it is of; none if that cannot be read.
    pub stream: Option<StreamId>,
    /// The first record, by the file's name.
    pub base: Offset,
    /// The last record of its valid part; the one before `base` if it holds none.
    pub last: Offset,
    /// Its length.
    pub bytes: u64,
    /// Whether no other follows it: it is the one that is written to.
    pub is_last: bool,
    /// What is wrong with it.
    pub damage: Option<Damage>,
}

/// What is wrong with a segment.
#[derive(Clone, Debug)]
pub struct Damage {
    /// Where in the file.
    pub at: u64,
    /// The record that was expected there.
    pub offset: Offset,
    /// What is wrong, in words.
    pub reason: String,
    /// Whether it is an end that was never durable, which opening the journal would cut.
    pub torn: bool,
}

/// Something in a journal's folders that is no part of it.
#[derive(Clone, Debug)]
pub struct Stray {
    /// Where it is.
    pub path: PathBuf,
    /// What it is taken for, in words.
    pub what: &'static str,
}

/// The folders of the streams in `dir`, which is a journal, one stream's folder, or a copy of either. `None` if it is
/// neither.
///
/// # Errors
/// [`Error::Io`] if a folder cannot be listed.
pub fn stream_dirs(disk: &dyn Disk, dir: &Path) -> Result<Option<Vec<PathBuf>>, Error> {
    let mut names = disk.list(dir).map_err(|error| io_error("list", dir, error))?;
    let is_journal = names.iter().any(|name| name == LOCK);
    names.retain(|name| stream_of(Path::new(name)).is_some());
    names.sort_unstable();
    if !names.is_empty() || (is_journal && stream_of(dir).is_none()) {
        return Ok(Some(names.iter().map(|name| dir.join(name)).collect()));
    }
    let is_stream = stream_of(dir).is_some() || !bases(disk, dir)?.is_empty();
    Ok(is_stream.then(|| vec![dir.to_owned()]))
}

/// What lies in `dir` beside the streams in `streams`, and in their folders beside their segments.
///
/// # Errors
/// [`Error::Io`] if a folder cannot be listed.
pub fn strays(disk: &dyn Disk, dir: &Path, streams: &[PathBuf]) -> Result<Vec<Stray>, Error> {
    let mut strays = Vec::new();
    if streams != [dir] {
        for path in paths(disk, dir)? {
            let what = match name_of(&path) {
                Some(LOCK) if is_empty(disk, &path) => continue,
                Some(LOCK) => "the lock, which should be empty",
                Some(PROBE) => "left by an opening that did not end",
                _ if streams.contains(&path) => continue,
                _ => "not part of a journal",
            };
            strays.push(Stray { path, what });
        }
    }
    for stream in streams {
        for path in paths(disk, stream)? {
            let what = match path.extension().and_then(|ending| ending.to_str()) {
                _ if name_of(&path).and_then(format::base_of).is_some() => continue,
                Some(format::MENDING) => "left by a mending that did not end",
                Some(SEGMENT) => "not a name that a segment is given",
                _ => "not part of a stream",
            };
            strays.push(Stray { path, what });
        }
    }
    Ok(strays)
}

/// What the segments of a stream's folder are by their names, lengths and heads; only the last one is read.
///
/// # Errors
/// [`Error::Io`] if a folder cannot be listed.
pub fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<SegmentReport>, Error> {
    let (bases, mut reports) = (bases(disk, dir)?, Vec::new());
    for (number, base) in bases.iter().enumerate() {
        let found = match bases.get(number + 1) {
            None => read_segment(disk, dir, *base, true).map(|(report, _)| report),
            Some(next) => read_head(disk, dir, *base, false)
                .map(|(report, _)| SegmentReport { last: next.prev(), ..report }),
        };
        reports.extend(unless_trimmed(disk, dir, *base, found)?);
    }
    Ok(reports)
}

/// Reads every byte of every segment in a stream's folder, from the device where it can be.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be listed, or a file not be opened. Damage is not an error but part of the report.
pub fn verify(disk: &dyn Disk, dir: &Path) -> Result<Vec<SegmentReport>, Error> {
    let (mut reports, mut before) = (Vec::<SegmentReport>::new(), None::<Tail>);
    let bases = bases(disk, dir)?;
    for (number, base) in bases.iter().enumerate() {
        let is_last = number + 1 == bases.len();
        let found = forget_cached(disk, &dir.join(format::file_name(*base)))
            .and_then(|()| read_segment(disk, dir, *base, is_last));
        let Some((mut report, mut ends)) = unless_trimmed(disk, dir, *base, found)? else {
            before = None;
            continue;
        };
        let expected = stream_of(dir).or_else(|| reports.first().and_then(|first| first.stream));
        if report.damage.is_none() && expected.is_some() && report.stream != expected {
            report.damage = Some(at_head(*base, "the segment belongs to another stream"));
            ends = None;
        }
        if let (None, Some(before), Some((head, _))) = (&report.damage, &before, &ends) {
            report.damage = misfit(before, head);
        }
        if let (Some(Damage { torn: true, .. }), Some(before)) = (&report.damage, &before)
            && before.next < *base
        {
            // Torn or not: its name says that all before it had been durable.
            report.damage = Some(at_head(before.next, missing(before.next, *base)));
        }
        before = ends.map(|(_, end)| end);
        reports.push(report);
    }
    Ok(reports)
}

/// Reads again a last segment whose end looked torn, as it does while it is being written. `None` if it was trimmed since.
///
/// # Errors
/// [`Error::Io`] if it cannot be read.
pub fn verify_last(
    disk: &dyn Disk,
    dir: &Path,
    report: &SegmentReport,
) -> Result<Option<SegmentReport>, Error> {
    let read = forget_cached(disk, &report.path)
        .and_then(|()| read_segment(disk, dir, report.base, true))
        .map(|(report, _)| report);
    unless_trimmed(disk, dir, report.base, read)
}

/// Hands the records of a stream's folder from `from` on to `each`, until it returns false.
///
/// A half-written batch at the end of the last segment is the end.
///
/// # Errors
/// [`Error::Corrupt`] at the first place that is not as it was written; what is before it was handed out.
pub fn dump(
    disk: &dyn Disk,
    dir: &Path,
    mut from: Offset,
    mut each: impl FnMut(Offset, Result<Record, DecodeError>) -> bool,
) -> Result<(), Error> {
    let mut before = None::<Tail>;
    let bases = bases(disk, dir)?;
    let start = bases.partition_point(|base| *base <= from).saturating_sub(1);
    for (number, base) in bases.iter().enumerate().skip(start) {
        let Some((segment, head)) = open_held(disk, dir, *base, number + 1 == bases.len())? else {
            before = None;
            continue;
        };
        if let Some(misfit) = before.take().and_then(|before| misfit(&before, &head)) {
            return Err(segment.corrupt(misfit.at, misfit.offset, misfit.reason));
        }
        let mut goes_on = true;
        let scanned = twice(|| {
            scan_with(&segment, head.clone(), |first, records| {
                let mut next = first;
                for item in records.decode(first) {
                    let (offset, record) = match item {
                        Ok((offset, record)) => (offset, Ok(record)),
                        Err(error) => (next, Err(error)),
                    };
                    next = offset.next();
                    if offset >= from {
                        goes_on = each(offset, record);
                        from = next;
                    }
                    if !goes_on {
                        break;
                    }
                }
                goes_on
            })
        })?;
        if !goes_on {
            return Ok(());
        }
        if let (Some(reason), true) = (scanned.torn, number + 1 < bases.len()) {
            return Err(segment.corrupt(scanned.position, scanned.tail.next, reason));
        }
        before = Some(scanned.tail);
    }
    Ok(())
}

/// The tables as they were described before the record at `from`.
///
/// # Errors
/// As [`dump`].
pub fn relations_before(
    disk: &dyn Disk,
    dir: &Path,
    from: Offset,
) -> Result<BTreeMap<RelationId, Relation>, Error> {
    let bases = bases(disk, dir)?;
    let start = bases.partition_point(|base| *base <= from).saturating_sub(1);
    let Some(base) = bases.get(start) else { return Ok(BTreeMap::new()) };
    let Some((segment, mut tail)) = open_held(disk, dir, *base, start + 1 == bases.len())? else {
        return Ok(BTreeMap::new());
    };
    let head = tail.clone();
    scan_with(&segment, head, |first, records| {
        let held = records.until(from.since(first));
        tail.observe(&held).is_ok() && held.span() == records.span()
    })?;
    Ok(tail.relations)
}

/// A segment's head.
#[derive(Debug)]
enum Head {
    Whole(Box<(Segment, Tail)>),
    Damaged {
        reason: String,
        /// Whether it may have been in the making when the power went.
        may_be_unborn: bool,
    },
}

/// Has what is read of a segment come from the device, not from the cache: that may hold what the device never took, or has lost since.
fn forget_cached(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    let file = disk.open(path, false).map_err(|error| io_error("open", path, error))?;
    file.forget_cached().map_err(|error| io_error("evict from the cache", path, error))
}

/// Reads a segment to its end; of one that grows meanwhile, to an end that stood still. Returns also
/// the state at its head and behind its valid part.
fn read_segment(
    disk: &dyn Disk,
    dir: &Path,
    base: Offset,
    is_last: bool,
) -> Result<(SegmentReport, Option<(Tail, Tail)>), Error> {
    let (mut report, head) = read_head(disk, dir, base, is_last)?;
    let (segment, head) = match head {
        Head::Whole(opened) => *opened,
        Head::Damaged { reason, may_be_unborn } => {
            let torn = is_last && may_be_unborn && is_unused(disk, dir, base);
            report.damage = Some(Damage { torn, ..at_head(base, reason) });
            return Ok((report, None));
        }
    };
    loop {
        let scanned = match twice(|| scan(&segment, head.clone())) {
            Ok(scanned) => scanned,
            Err(Error::Corrupt { at, offset, reason, .. }) => {
                report.damage = Some(Damage { at, offset, reason, torn: false });
                return Ok((report, None));
            }
            Err(error) => {
                report.damage = Some(at_head(base, error.to_string()));
                return Ok((report, None));
            }
        };
        report.last = scanned.tail.next.prev();
        let length = std::mem::replace(&mut report.bytes, segment.len()?);
        match scanned.torn {
            Some(_) if report.bytes != length => continue,
            Some(reason) => {
                report.damage = Some(Damage {
                    at: scanned.position,
                    offset: scanned.tail.next,
                    reason: reason.into_owned(),
                    torn: is_last,
                });
            }
            None => {}
        }
        return Ok((report, Some((head, scanned.tail))));
    }
}

/// Reads what a segment says of itself.
///
/// # Errors
/// [`Error::Io`] if it is not there.
fn read_head(
    disk: &dyn Disk,
    dir: &Path,
    base: Offset,
    is_last: bool,
) -> Result<(SegmentReport, Head), Error> {
    let path = dir.join(format::file_name(base));
    let head = match open_listed(disk, dir, base, is_last) {
        Ok(opened) => Head::Whole(Box::new(opened)),
        Err(OpenError::Other(error)) if is_absence(&error) => return Err(error),
        Err(OpenError::Damaged(reason)) => {
            Head::Damaged { reason: reason.to_owned(), may_be_unborn: true }
        }
        Err(OpenError::Other(error)) => {
            let reason = match error {
                Error::Corrupt { reason, .. } => reason,
                error => error.to_string(),
            };
            Head::Damaged { reason, may_be_unborn: false }
        }
    };
    let bytes = match &head {
        Head::Whole(opened) => opened.0.len()?,
        Head::Damaged { .. } => disk.open(&path, false).and_then(|file| file.len()).unwrap_or(0),
    };
    let (stream, damage) = match &head {
        Head::Whole(opened) => (Some(opened.0.header.stream), None),
        Head::Damaged { reason, .. } => (None, Some(at_head(base, reason.clone()))),
    };
    let last = base.prev();
    Ok((SegmentReport { path, stream, base, last, bytes, is_last, damage }, head))
}

/// Scans again what seems corrupt: a batch that was half-written when it was looked at may be whole, and proven durable
/// by the next one, a moment later. What is corrupt stays so at the same place.
fn twice(mut scan: impl FnMut() -> Result<Scanned, Error>) -> Result<Scanned, Error> {
    let mut seen = None;
    loop {
        match scan() {
            Err(Error::Corrupt { at, .. }) if seen != Some(at) => seen = Some(at),
            scanned => return scanned,
        }
    }
}

/// Opens a segment that was listed; `None` if it was trimmed since, or is the last one and only being created.
fn open_held(
    disk: &dyn Disk,
    dir: &Path,
    base: Offset,
    is_last: bool,
) -> Result<Option<(Segment, Tail)>, Error> {
    let path = dir.join(format::file_name(base));
    match open_listed(disk, dir, base, is_last) {
        Ok(opened) => Ok(Some(opened)),
        Err(OpenError::Other(error)) => unless_trimmed(disk, dir, base, Err(error)),
        Err(OpenError::Damaged(_)) if is_last && is_unused(disk, dir, base) => Ok(None),
        Err(OpenError::Damaged(reason)) => {
            Err(Error::Corrupt { segment: path, at: 0, offset: base, reason: reason.to_owned() })
        }
    }
}

/// Opens a segment; a last one whose head was written just after it was looked at, once more.
fn open_listed(
    disk: &dyn Disk,
    dir: &Path,
    base: Offset,
    is_last: bool,
) -> Result<(Segment, Tail), OpenError> {
    let path = dir.join(format::file_name(base));
    match open(disk, &path) {
        Err(OpenError::Damaged(_)) if is_last && !is_unused(disk, dir, base) => open(disk, &path),
        opened => opened,
    }
}

/// Whether a last segment whose head cannot be read was never in use. Of a stream whose id nobody knows, no batch could
/// prove anything.
fn is_unused(disk: &dyn Disk, dir: &Path, base: Offset) -> bool {
    let path = dir.join(format::file_name(base));
    stream_of(dir).is_some_and(|id| is_unborn(disk, &path, id, base).is_ok_and(|unborn| unborn))
}

/// Opens a segment, believing what it says of which stream it is.
fn open(disk: &dyn Disk, path: &Path) -> Result<(Segment, Tail), OpenError> {
    let other = |operation, source| OpenError::Other(io_error(operation, path, source));
    let file = disk.open(path, false).map_err(|error| other("open", error))?;
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let base = base_named(path).unwrap_or_default();
    let read = file.read_at(&mut bytes, 0).map_err(|error| unread(path, (0, base), error))?;
    let stream = match SegmentHeader::decode(&bytes) {
        Ok(header) if read == bytes.len() => header.stream,
        Err(format::NotSegment::Version(version)) => {
            return Err(OpenError::Other(Error::Version {
                path: path.to_owned(),
                version,
                known: format::VERSION,
            }));
        }
        _ => return Err(OpenError::Damaged("the header is damaged or incomplete")),
    };
    Segment::open(disk, path, stream, false)
}

/// What was found of a segment that was listed; `None` if it was trimmed since.
fn unless_trimmed<T>(
    disk: &dyn Disk,
    dir: &Path,
    base: Offset,
    found: Result<T, Error>,
) -> Result<Option<T>, Error> {
    match found {
        Err(error) if is_absence(&error) => match bases(disk, dir)?.first() {
            Some(first) if *first > base => Ok(None),
            _ => Err(error),
        },
        found => found.map(Some),
    }
}

fn is_absence(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::NotFound)
}

/// Why a segment with this head does not follow one with that end.
fn misfit(end: &Tail, head: &Tail) -> Option<Damage> {
    let reason = match head.next.cmp(&end.next) {
        Ordering::Equal if end.agrees(head) => return None,
        Ordering::Equal => "the segment does not follow the one before it".to_owned(),
        Ordering::Greater => missing(end.next, head.next),
        Ordering::Less => {
            format!("the records from {} to {} are there twice", head.next, end.next.prev())
        }
    };
    Some(at_head(end.next, reason))
}

fn missing(from: Offset, until: Offset) -> String {
    format!("the records from {from} to {} are missing", until.prev())
}

fn at_head(offset: Offset, reason: impl Into<String>) -> Damage {
    Damage { at: 0, offset, reason: reason.into(), torn: false }
}

/// The stream that a folder is named after.
pub fn stream_of(dir: &Path) -> Option<StreamId> {
    name_of(dir)?.parse().ok()
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

fn paths(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut names = disk.list(dir).map_err(|error| io_error("list", dir, error))?;
    names.sort_unstable();
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

fn is_empty(disk: &dyn Disk, path: &Path) -> bool {
    disk.open(path, false).and_then(|file| file.is_empty()).unwrap_or(true)
}

const LOCK: &str = "LOCK";
const SEGMENT: &str = "seg";

#[cfg(test)]
mod tests;
