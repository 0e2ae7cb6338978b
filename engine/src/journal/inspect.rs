//! Looking at a journal without opening it: for people, on one in use, or on a copy. Changes nothing, locks nothing.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    Tail, format,
    format::{Kind, SEGMENT_HEADER_BYTES, SegmentHeader},
    recovery::{list, scan},
    segment::{Found, OpenError, Segment, io_error, records_of},
};
use crate::{
    Error,
    codec::DecodeError,
    model::{Offset, Record, StreamId},
    storage::Disk,
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

/// The folders of the streams in `dir`, which is a journal, one stream's folder, or a copy of either.
///
/// # Errors
/// [`Error::Io`] if a folder cannot be listed.
pub fn stream_dirs(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, Error> {
    if !list(disk, dir)?.is_empty() {
        return Ok(vec![dir.to_owned()]);
    }
    let mut names = disk.list(dir).map_err(|error| io_error("list", dir, error))?;
    names.retain(|name| name.parse::<StreamId>().is_ok());
    names.sort_unstable();
    Ok(names.iter().map(|name| dir.join(name)).collect())
}

/// Reads every byte of every segment in a stream's folder.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read. Damage is not an error but part of the report.
pub fn verify(disk: &dyn Disk, dir: &Path) -> Result<Vec<SegmentReport>, Error> {
    let (mut reports, mut before) = (Vec::<SegmentReport>::new(), None::<Tail>);
    let bases = list(disk, dir)?;
    for (number, base) in bases.iter().enumerate() {
        let path = dir.join(format::file_name(*base));
        let is_last = number + 1 == bases.len();
        let (mut report, tail) = verify_segment(disk, &path, *base, is_last)?;
        let expected = reports.first().and_then(|first| first.stream);
        if report.damage.is_none() && expected.is_some() && report.stream != expected {
            report.damage = Some(at_head(*base, "the segment belongs to another stream"));
        }
        if let (None, Some(before), Some((head, _))) = (&report.damage, &before, &tail)
            && !before.agrees(head)
        {
            report.damage = Some(at_head(*base, "the segment does not follow the one before it"));
        }
        before = tail.map(|(_, end)| end);
        reports.push(report);
    }
    Ok(reports)
}

/// Hands the records of a stream's folder from `from` on to `each`, until it returns false.
///
/// # Errors
/// [`Error::Corrupt`] at the first place that cannot be read; what is before it was handed out.
pub fn dump(
    disk: &dyn Disk,
    dir: &Path,
    from: Offset,
    mut each: impl FnMut(Offset, Result<Record, DecodeError>) -> bool,
) -> Result<(), Error> {
    let bases = list(disk, dir)?;
    let start = bases.partition_point(|base| *base <= from).saturating_sub(1);
    for base in &bases[start..] {
        let path = dir.join(format::file_name(*base));
        let (segment, _) = open(disk, &path).map_err(|error| match error {
            OpenError::Other(error) => error,
            OpenError::Damaged(reason) => corrupt(&path, 0, *base, reason),
        })?;
        let (mut at, mut next_offset) = (segment.body(), *base);
        loop {
            let (header, payload, next) = match segment.batch_at(at)? {
                Found::End => break,
                Found::Bad(reason) => return Err(corrupt(&path, at, next_offset, reason)),
                Found::Batch { header, payload, next, .. } => (header, payload, next),
            };
            at = next;
            if header.kind == Kind::Mark {
                continue;
            }
            let malformed = || corrupt(&path, at, header.first, "the records are malformed");
            let records = records_of(&header, payload).ok_or_else(malformed)?;
            next_offset = header.first.forward(records.span());
            for item in records.decode(header.first) {
                let (offset, record) = match item {
                    Ok((offset, record)) => (offset, Ok(record)),
                    Err(error) => (header.first, Err(error)),
                };
                if offset >= from && !each(offset, record) {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Reads a segment to its end; of one that grows meanwhile, to an end that stood still. Returns also
/// the state at its head and behind its valid part.
fn verify_segment(
    disk: &dyn Disk,
    path: &Path,
    base: Offset,
    is_last: bool,
) -> Result<(SegmentReport, Option<(Tail, Tail)>), Error> {
    let mut report = SegmentReport {
        path: path.to_owned(),
        stream: None,
        base,
        last: base.prev(),
        bytes: 0,
        damage: None,
    };
    let (segment, head) = match open(disk, path) {
        Ok(opened) => opened,
        Err(OpenError::Damaged(reason)) => {
            report.damage = Some(at_head(base, reason));
            return Ok((report, None));
        }
        Err(OpenError::Other(Error::Corrupt { reason, .. })) => {
            report.damage = Some(at_head(base, &reason));
            return Ok((report, None));
        }
        Err(OpenError::Other(Error::Version { version, .. })) => {
            report.damage = Some(at_head(base, &format!("unknown format version {version}")));
            return Ok((report, None));
        }
        Err(OpenError::Other(error)) => return Err(error),
    };
    report.stream = Some(segment.header.stream);
    loop {
        report.bytes = segment.len()?;
        let scanned = match scan(&segment, head.clone()) {
            Ok(scanned) => scanned,
            Err(Error::Corrupt { at, offset, reason, .. }) => {
                report.damage = Some(Damage { at, offset, reason, torn: false });
                return Ok((report, None));
            }
            Err(error) => return Err(error),
        };
        report.last = scanned.tail.next.prev();
        let grew = segment.len()? != report.bytes;
        match scanned.torn {
            Some(_) if grew => continue,
            Some(reason) => {
                report.damage = Some(Damage {
                    at: scanned.position,
                    offset: scanned.tail.next,
                    reason: reason.to_owned(),
                    torn: is_last,
                });
            }
            None => {}
        }
        return Ok((report, Some((head, scanned.tail))));
    }
}

/// Opens a segment, believing what it says of which stream it is.
fn open(disk: &dyn Disk, path: &Path) -> Result<(Segment, Tail), OpenError> {
    let other = |operation, source: io::Error| OpenError::Other(io_error(operation, path, source));
    let file = disk.open(path, false).map_err(|error| other("open", error))?;
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let read = file.read_at(&mut bytes, 0).map_err(|error| other("read", error))?;
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

fn at_head(offset: Offset, reason: &str) -> Damage {
    Damage { at: 0, offset, reason: reason.to_owned(), torn: false }
}

fn corrupt(path: &Path, at: u64, offset: Offset, reason: &str) -> Error {
    Error::Corrupt { segment: path.to_owned(), at, offset, reason: reason.to_owned() }
}
