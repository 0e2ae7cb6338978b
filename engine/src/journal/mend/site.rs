//! Where a damaged segment stands: which one comes first, the state at its base, and where it ends, by what is whole in it and
//! around it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    Error,
    journal::{
        Stream, Tail,
        budget::Budget,
        format,
        recovery::{Headers, headless, is_unborn, list, scan},
        segment::{OpenError, Segment, head_of, io_error},
    },
    model::{Offset, Running, StreamId},
    storage::Disk,
};

/// Where the segment stands, and in which stream.
#[derive(Clone, Debug)]
pub(in crate::journal) struct Site {
    pub(in crate::journal) disk: Arc<dyn Disk>,
    pub(in crate::journal) dir: PathBuf,
    pub(in crate::journal) id: StreamId,
    pub(in crate::journal) base: Offset,
    pub(in crate::journal) budget: Arc<Budget>,
    pub(in crate::journal) owner: Owner,
}

/// Whose the segment is meanwhile.
#[derive(Clone, Debug)]
pub(in crate::journal) enum Owner {
    /// The stream is open, and is told of the new segment.
    Stream(Arc<Stream>),
    /// It is not, and stays so.
    Nobody(#[expect(dead_code, reason = "held, not read")] Arc<Closed>),
}

/// Keeps a stream from being opened as long as it lives.
#[derive(Debug)]
pub(in crate::journal) struct Closed {
    all: Arc<Mutex<BTreeSet<StreamId>>>,
    id: StreamId,
}

impl Closed {
    /// `None` if somebody else keeps it closed.
    pub(in crate::journal) fn keep(
        all: &Arc<Mutex<BTreeSet<StreamId>>>,
        id: StreamId,
    ) -> Option<Self> {
        let is_new = all.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        is_new.then(|| Self { all: all.clone(), id })
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// A place where whole parts meet: an offset, and the running checksum before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Join {
    pub(super) offset: Offset,
    pub(super) running: Running,
}

/// The end of a segment that another one follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// Where the next one begins.
    pub(super) base: Offset,
    /// The first place there whose checksum is known: its beginning, if its head is whole.
    pub(super) known: Join,
}

/// The segment to begin with in a stream that cannot be opened: the last one, unless its head is damaged and so is the end
/// of the one before it, from which the head would follow. `None` if there is no segment.
pub(in crate::journal) fn first_to_mend(
    disk: &dyn Disk,
    dir: &Path,
    id: StreamId,
) -> Result<Option<Offset>, Error> {
    let is_damage = |error: &Error| matches!(error, Error::Corrupt { .. });
    let mut bases = list(disk, dir)?;
    while let [.., before, base] = bases[..] {
        let open = |base| Segment::open(disk, &dir.join(format::file_name(base)), id, false);
        match open(base) {
            Ok(_) => break,
            Err(OpenError::Other(error)) if !is_damage(&error) => return Err(error),
            Err(_) => {}
        }
        let end = match open(before) {
            Ok((segment, tail)) => scan(&segment, tail).map(|scanned| Some(scanned.tail.next)),
            Err(OpenError::Other(error)) => Err(error),
            Err(OpenError::Damaged(_)) => Ok(None),
        };
        match end {
            Ok(end) if end == Some(base) => break,
            Err(error) if !is_damage(&error) => return Err(error),
            _ => bases.pop(),
        };
    }
    Ok(bases.last().copied())
}

impl Site {
    pub(super) fn path(&self) -> PathBuf {
        self.dir.join(format::file_name(self.base))
    }

    /// Where the segment ends, in the words of those behind it; none if nobody says, because it is the last one, or those
    /// behind it were being created.
    pub(super) fn end(&self, bases: &[Offset]) -> Result<Option<Bound>, Error> {
        let mut behind = bases.iter().copied().filter(|base| *base > self.base).peekable();
        let Some(&base) = behind.peek() else { return Ok(None) };
        let mut unborn = true;
        for other in behind {
            if let Some(known) = self.known_in(other)? {
                return Ok(Some(Bound { base, known }));
            }
            let path = self.dir.join(format::file_name(other));
            unborn = unborn && is_unborn(self.disk.as_ref(), &path, self.id, other)?;
        }
        if unborn {
            return Ok(None);
        }
        let reason = "nothing that is whole stands in it or behind it".to_owned();
        let segment = self.dir.join(format::file_name(base));
        Err(Error::Corrupt { segment, at: 0, offset: base, reason })
    }

    /// The first place in a segment of which the checksum is known.
    fn known_in(&self, base: Offset) -> Result<Option<Join>, Error> {
        let path = self.dir.join(format::file_name(base));
        match Segment::open(self.disk.as_ref(), &path, self.id, false) {
            Ok((segment, _)) => {
                return Ok(Some(Join { offset: base, running: segment.header.running }));
            }
            Err(OpenError::Damaged(_) | OpenError::Other(Error::Corrupt { .. })) => {}
            Err(OpenError::Other(error)) => return Err(error),
        }
        if let Some(header) = Segment::head_at(self.disk.as_ref(), &path, self.id, base)? {
            return Ok(Some(Join { offset: base, running: header.running }));
        }
        let segment = headless(self.disk.as_ref(), &path, self.id, base)?;
        let whole = Headers::behind(&segment, 0).next()?.filter(|(_, it)| it.first >= base);
        Ok(whole.map(|(_, it)| Join { offset: it.first, running: it.running }))
    }

    /// The damaged segment with the state at its base: its own if its head is whole, else that at the end of the one
    /// before it.
    pub(super) fn damaged(&self, bases: &[Offset]) -> Result<(Segment, Tail), Error> {
        let path = self.path();
        let reason = match Segment::open(self.disk.as_ref(), &path, self.id, false) {
            Ok(opened) => return Ok(opened),
            Err(OpenError::Damaged(reason)) => reason.to_owned(),
            // A head that is whole and of elsewhere is no better.
            Err(OpenError::Other(Error::Corrupt { reason, .. })) => reason,
            Err(OpenError::Other(error)) => return Err(error),
        };
        let corrupt = |reason: &str| Error::Corrupt {
            segment: path.clone(),
            at: 0,
            offset: self.base,
            reason: reason.to_owned(),
        };
        let before = bases.iter().rev().find(|base| **base < self.base);
        let tail = match before {
            None if self.base == Offset::FIRST => Tail::default(),
            None => return Err(corrupt(&reason)),
            Some(before) => {
                let path = self.dir.join(format::file_name(*before));
                match Segment::open(self.disk.as_ref(), &path, self.id, false) {
                    Ok((segment, tail)) => scan(&segment, tail)?.tail,
                    Err(OpenError::Other(error)) => return Err(error),
                    Err(OpenError::Damaged(_)) => return Err(corrupt(&reason)),
                }
            }
        };
        if tail.next != self.base {
            return Err(corrupt("the segment before it ends elsewhere"));
        }
        let file = self.disk.open(&path, false).map_err(|error| io_error("open", &path, error))?;
        let header = head_of(self.id, &tail)?.0;
        let mut segment = Segment { path: path.clone(), header, file: file.into() };
        if bases.last() == Some(&self.base) && Headers::behind(&segment, 0).next()?.is_none() {
            return Err(corrupt(&reason));
        }
        // Where its batches begin is not known: the search begins right at its start.
        segment.header.preamble_len = 0;
        Ok((segment, tail))
    }

    /// The file that is to take the place of the damaged one.
    pub(super) fn create(&self, tail: &Tail) -> Result<Segment, Error> {
        let path = self.path().with_extension(format::MENDING);
        if self.disk.open(&path, false).is_ok() {
            self.disk.remove(&path).map_err(|error| io_error("remove", &path, error))?;
        }
        let drafted = Segment::draft(self.disk.as_ref(), path.clone(), self.id, tail);
        // What a full disk took of it is room that others need.
        drafted.inspect_err(|_| drop(self.disk.remove(&path)))
    }
}
