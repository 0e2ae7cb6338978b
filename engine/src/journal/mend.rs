//! Mending a damaged segment with the records that another holder of the stream has.
//!
//! What is damaged is never skipped, cut or deleted. All of the segment that is whole is kept; of each gap it is said
//! which records are wanted, and what is given is believed only if it leads to the running checksum with which the next
//! whole batch, or the next segment, begins. Only once something was given the whole is written to a file beside the
//! segment, made durable, and put in its place by one rename, so that an interruption at any point leaves either.
//!
//! Where the head of the next segment is damaged too, the first batch in it that is whole says which checksum is to come
//! out: what is given beyond the end of the segment then proves it and is not kept.
//!
//! What this code refuses to do: guess where a stream ended. A last segment is mended only up to a batch that is whole;
//! what stands behind it was never proven durable, and is cut as recovery cuts it.

use std::{
    collections::BTreeSet,
    io::IoSlice,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use super::{
    Stream, Tail,
    format::{self, BatchHeader, Kind},
    recovery::{Headers, headless, is_unborn, list, scan},
    segment::{Found, OpenError, Segment, head_of, io_error, pack},
};
use crate::{
    Error,
    codec::{Records, decode},
    model::{Offset, Running, StreamId},
    mutant::{self, Mutant},
    storage::Disk,
};

/// A damaged segment that is being written anew. Dropped unfinished, it leaves the segment as it was.
#[derive(Debug)]
pub struct Mending {
    site: Site,
    damaged: Segment,
    /// The state at its base.
    head: Tail,
    /// Where the part of the damaged segment begins that was not looked at yet.
    at: u64,
    /// What takes its place, once there is a reason to write it.
    new: Option<New>,
    written: Written,
    /// What is wanted next.
    gap: Option<Gap>,
    /// What was wanted at first.
    found: Option<Range<Offset>>,
    /// Where the segment ends; not known if there is none behind it.
    end: Option<Bound>,
    fetched: u64,
}

/// Where the segment stands, and in which stream.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) id: StreamId,
    pub(super) base: Offset,
    pub(super) owner: Owner,
}

/// Whose the segment is meanwhile.
#[derive(Clone, Debug)]
pub(super) enum Owner {
    /// The stream is open, and is told of the new segment.
    Stream(Arc<Stream>),
    /// It is not, and stays so.
    Nobody(#[expect(dead_code, reason = "held, not read")] Arc<Closed>),
}

/// Keeps a stream from being opened as long as it lives.
#[derive(Debug)]
pub(super) struct Closed {
    all: Arc<Mutex<BTreeSet<StreamId>>>,
    id: StreamId,
}

impl Closed {
    /// `None` if somebody else keeps it closed.
    pub(super) fn keep(all: &Arc<Mutex<BTreeSet<StreamId>>>, id: StreamId) -> Option<Self> {
        let is_new = all.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        is_new.then(|| Self { all: all.clone(), id })
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// What was mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// The file.
    pub segment: PathBuf,
    /// How many offsets had to come from elsewhere.
    pub fetched: u64,
}

/// A place where whole parts meet: an offset, and the running checksum before it.
#[derive(Clone, Copy, Debug)]
struct Join {
    offset: Offset,
    running: Running,
}

/// The end of a segment that another one follows.
#[derive(Clone, Copy, Debug)]
struct Bound {
    /// Where the next one begins.
    base: Offset,
    /// The first place there whose checksum is known: its beginning, if its head is whole.
    known: Join,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    until: Join,
    /// Which records are not written any more, and only prove those before them.
    limit: Offset,
    /// Where in the damaged segment what follows the gap stands; none if the segment ends with it.
    resume: Option<u64>,
    /// What stood in the new file before it.
    before: Written,
    /// How far it was given.
    given: Join,
}

/// A file that is of no use any more once its owner is gone.
#[derive(Debug)]
struct New {
    segment: Segment,
    disk: Arc<dyn Disk>,
}

impl Drop for New {
    fn drop(&mut self) {
        // Once it was put in place there is nothing by this name. What stays is removed when the stream is opened.
        let _ = self.disk.remove(&self.segment.path);
    }
}

/// The end of the new segment, or of what it will be: a chain and a position only once there is one.
#[derive(Clone, Copy, Debug)]
struct Written {
    position: u64,
    chain: u32,
    next: Offset,
    running: Running,
}

impl Mending {
    /// Finds the first gap. Touches the disk, and changes nothing on it.
    pub(super) fn begin(site: Site) -> Result<Self, Error> {
        let bases = list(site.disk.as_ref(), &site.dir)?;
        let end = site.end(&bases)?;
        let (damaged, head) = site.damaged(&bases)?;
        let written = Written { position: 0, chain: 0, next: head.next, running: head.running };
        let at = damaged.body();
        let (new, gap, found) = (None, None, None);
        let mut mending =
            Self { site, damaged, head, at, new, written, gap, found, end, fetched: 0 };
        mending.advance()?;
        mending.found = mending.wanted();
        Ok(mending)
    }

    /// Looks at the segment anew after some time, in which somebody may have put a sound one in its place. What was given is
    /// kept if the same is missing as at first. Touches the disk.
    ///
    /// # Errors
    /// As [`Stream::mend`].
    pub fn again(self) -> Result<Self, Error> {
        let base = self.site.base;
        if let Owner::Stream(stream) = &self.site.owner
            && stream.segment_with(base) != Some(base)
        {
            return Err(Error::Trimmed { first: stream.watermarks().first, wanted: base });
        }
        let anew = Self::begin(self.site.clone())?;
        Ok(if anew.found == self.found { self } else { anew })
    }

    /// Whether anything was given.
    pub fn has_begun(&self) -> bool {
        self.new.is_some()
    }

    /// Writes all that is whole in front of the first gap, if that was not done yet.
    fn write(&mut self) -> Result<(), Error> {
        if self.new.is_some() {
            return Ok(());
        }
        let found = self.wanted();
        let segment = self.site.create(&self.head)?;
        self.written = Written {
            position: segment.body(),
            chain: segment.header.crc(),
            next: self.head.next,
            running: self.head.running,
        };
        self.new = Some(New { segment, disk: self.site.disk.clone() });
        (self.at, self.gap) = (self.damaged.body(), None);
        self.advance()?;
        match self.wanted() == found {
            true => Ok(()),
            // Somebody changed the file meanwhile.
            false => {
                Err(self.damaged.corrupt(self.at, self.written.next, "it changes all the time"))
            }
        }
    }

    /// The records that are wanted next; `None` if nothing is missing any more. A gap is given from its beginning
    /// to its end, in as many parts as one likes.
    pub fn wanted(&self) -> Option<Range<Offset>> {
        self.gap.map(|gap| gap.given.offset..gap.until.offset)
    }

    /// Takes records for the beginning of what is wanted. Touches the disk.
    ///
    /// # Errors
    /// [`Error::Unproven`] if they do not lead to what follows them: all that was given for this gap is wanted
    /// again. [`Error::Hole`] for more than is wanted, [`Error::Record`] for what cannot be decoded.
    pub fn give(&mut self, records: &Records) -> Result<(), Error> {
        self.write()?;
        let Some(gap) = self.gap else { return Ok(()) };
        let first = gap.given.offset;
        let after = first.forward(records.span());
        if after > gap.until.offset {
            return Err(Error::Hole { expected: gap.until.offset, got: after });
        }
        if let Some(source) = records.iter().find_map(|record| decode(&record).err()) {
            return Err(Error::Record { offset: first, source });
        }
        let kept = match after <= gap.limit {
            true => records.clone(),
            false => records.until(gap.limit.since(first)),
        };
        if !kept.is_empty() {
            let running = kept.running(self.written.running);
            self.put(Kind::Records, kept.count(), kept.bytes(), running, kept.span())?;
        }
        let given = Join { offset: after, running: records.running(gap.given.running) };
        self.gap = Some(Gap { given, ..gap });
        if after < gap.until.offset {
            return Ok(());
        }
        let is_proven = (self.written.next, given.running) == (gap.limit, gap.until.running);
        if !is_proven && !mutant::on(Mutant::MendedUnproven) {
            self.written = gap.before;
            self.gap = Some(Gap { given: gap.before.join(), ..gap });
            return Err(Error::Unproven { from: gap.before.next, until: gap.until.offset });
        }
        self.fetched += gap.limit.since(gap.before.next);
        self.gap = None;
        match gap.resume {
            Some(at) => {
                self.at = at;
                self.advance()
            }
            None => Ok(()),
        }
    }

    /// Puts the new segment in the place of the damaged one, durably.
    ///
    /// # Errors
    /// [`Error::Unproven`] if something is still wanted; [`Error::Io`] if the disk refuses: either the damaged segment
    /// or the mended one is there then.
    pub fn finish(mut self) -> Result<Mended, Error> {
        if let Some(wanted) = self.wanted() {
            return Err(Error::Unproven { from: wanted.start, until: wanted.end });
        }
        self.write()?;
        let Self { site, new, written, fetched, .. } = &self;
        let new = &new.as_ref().expect("it was written").segment;
        // What an attempt that was not believed has left behind the end.
        new.file.set_len(written.position).map_err(|source| new.io("cut", source))?;
        if !mutant::on(Mutant::MendedUnsynced) {
            new.file.sync_data().map_err(|source| new.io("sync", source))?;
        }
        let segment = site.path();
        let rename = || {
            let renamed = site.disk.rename(&new.path, &segment);
            renamed.map_err(|source| io_error("put in place", &segment, source))
        };
        match &site.owner {
            Owner::Stream(stream) => stream.put_in_place(site.base, written.position, rename)?,
            Owner::Nobody(_) => {
                rename()?;
                let synced = site.disk.sync_dir(&site.dir);
                synced.map_err(|source| io_error("sync the folder of", &segment, source))?;
            }
        }
        Ok(Mended { segment, fetched: *fetched })
    }

    /// Takes over what is whole, up to the next gap or the end.
    fn advance(&mut self) -> Result<(), Error> {
        loop {
            match self.damaged.batch_at(self.at)? {
                Found::Batch { header, payload, next, .. } if self.continues(&header) => {
                    self.take_over(&header, payload)?;
                    self.at = next;
                }
                Found::End => return self.open_gap(None),
                _ => match self.whole_after()? {
                    Some((at, header)) if self.continues(&header) => self.at = at,
                    follows => return self.open_gap(follows),
                },
            }
        }
    }

    fn continues(&self, header: &BatchHeader) -> bool {
        (header.first, header.running) == (self.written.next, self.written.running)
    }

    fn take_over(&mut self, header: &BatchHeader, payload: Bytes) -> Result<(), Error> {
        if header.kind == Kind::Mark {
            return self.put(Kind::Mark, 0, &payload, self.written.running, 0);
        }
        let records = Records::parse(payload, header.records)
            .map_err(|source| Error::Record { offset: header.first, source })?;
        let running = records.running(self.written.running);
        self.put(Kind::Records, records.count(), records.bytes(), running, records.span())
    }

    /// Says what is missing between what was written and what follows it whole: a batch, the next segment, or nothing.
    fn open_gap(&mut self, follows: Option<(u64, BatchHeader)>) -> Result<(), Error> {
        let Written { next, running, .. } = self.written;
        let (until, limit, resume) = match (follows, self.end) {
            (Some((at, header)), _) => {
                let until = Join { offset: header.first, running: header.running };
                (until, until.offset, Some(at))
            }
            (None, Some(end)) if end.base > next => (end.known, end.base, None),
            (None, Some(end))
                if end.base < next || end.known.offset == next && end.known.running != running =>
            {
                let reason = "beyond repair: its end does not meet the next segment";
                return Err(self.damaged.corrupt(self.at, next, reason));
            }
            (None, _) => return Ok(()),
        };
        let (before, given) = (self.written, self.written.join());
        self.gap = Some(Gap { until, limit, resume, before, given });
        Ok(())
    }

    /// The next batch header that continues the stream, here or further on, its records whole or not.
    fn whole_after(&self) -> Result<Option<(u64, BatchHeader)>, Error> {
        let mut headers = Headers::behind(&self.damaged, self.at + 1);
        while let Some((at, header)) = headers.next()? {
            if header.first > self.written.next || self.continues(&header) {
                return Ok(Some((at, header)));
            }
        }
        Ok(None)
    }

    fn put(
        &mut self,
        kind: Kind,
        records: u32,
        payload: &Bytes,
        running: Running,
        span: u64,
    ) -> Result<(), Error> {
        let Written { position, chain, next, running: before } = self.written;
        let after = Written { next: next.forward(span), running, ..self.written };
        let Some(New { segment: new, .. }) = &self.new else {
            self.written = after;
            return Ok(());
        };
        // All that is written here was durable before, or is so before anybody sees it.
        let header = BatchHeader::new(kind, (next, before), records, next.prev(), chain);
        let packed = pack(payload);
        let (head, chain) = packed.head(header, new.place(position));
        let mut parts = [IoSlice::new(&head), IoSlice::new(&packed.stored)];
        let written = new.file.write_parts_at(&mut parts, position);
        written.map_err(|source| new.io("write", source))?;
        let bytes = head.len() + packed.stored.len();
        self.written = Written { position: position + bytes as u64, chain, ..after };
        Ok(())
    }
}

impl Written {
    fn join(&self) -> Join {
        Join { offset: self.next, running: self.running }
    }
}

/// The segment to begin with in a stream that cannot be opened: the last one, unless its head is damaged and so is the end
/// of the one before it, from which the head would follow. `None` if there is no segment.
pub(super) fn first_to_mend(
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
    fn path(&self) -> PathBuf {
        self.dir.join(format::file_name(self.base))
    }

    /// Where the segment ends, in the words of those behind it; none if nobody says, because it is the last one, or those
    /// behind it were being created.
    fn end(&self, bases: &[Offset]) -> Result<Option<Bound>, Error> {
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
    fn damaged(&self, bases: &[Offset]) -> Result<(Segment, Tail), Error> {
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
    fn create(&self, tail: &Tail) -> Result<Segment, Error> {
        let path = self.path().with_extension(format::MENDING);
        if self.disk.open(&path, false).is_ok() {
            self.disk.remove(&path).map_err(|error| io_error("remove", &path, error))?;
        }
        Segment::draft(self.disk.as_ref(), path, self.id, tail)
    }
}
