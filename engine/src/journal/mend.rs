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
//! what stands behind it was never proven durable, and is cut as recovery cuts it; unless some of it cannot be read, so that
//! nobody can say what it was.

mod site;

use std::{io::IoSlice, ops::Range, path::PathBuf};

use bytes::Bytes;

use super::{
    Tail,
    format::{BatchHeader, Kind},
    recovery::{Headers, list},
    segment::{Found, Segment, io_error, pack, sync_names},
};
use crate::{
    Error,
    codec::{Records, decode},
    model::{Offset, Running},
    mutant::{self, Mutant},
};
use site::{Bound, Join};
pub(super) use site::{Closed, Owner, Site, first_to_mend};

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
    /// Whether all that is whole was taken over up to there, or to the end.
    is_level: bool,
    /// What was wanted at first.
    found: Option<Range<Offset>>,
    /// Where the segment ends; not known if there is none behind it.
    end: Option<Bound>,
    fetched: u64,
}

/// What was mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// The file.
    pub segment: PathBuf,
    /// How many offsets had to come from elsewhere.
    pub fetched: u64,
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

/// A file that is of no use any more once its owner is gone. What it takes counts in the budget, and is never refused: as
/// long as the stream is damaged, nothing of it may be trimmed.
#[derive(Debug)]
struct New {
    segment: Segment,
    site: Site,
    bytes: u64,
}

impl New {
    fn create(site: &Site, tail: &Tail) -> Result<Self, Error> {
        let segment = site.create(tail)?;
        let mut new = Self { segment, site: site.clone(), bytes: 0 };
        new.reaches(new.segment.body());
        Ok(new)
    }

    /// Takes note of how long the file has become.
    fn reaches(&mut self, end: u64) {
        let more = end.saturating_sub(self.bytes);
        self.site.budget.force(self.site.id, more);
        self.bytes += more;
    }
}

impl Drop for New {
    fn drop(&mut self) {
        // Once it was put in place there is nothing by this name. What stays is removed when the stream is opened.
        let _ = self.site.disk.remove(&self.segment.path);
        self.site.budget.give(self.site.id, self.bytes);
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
        let mut mending = Self {
            site,
            damaged,
            head,
            at,
            new: None,
            written,
            gap: None,
            is_level: false,
            found: None,
            end,
            fetched: 0,
        };
        mending.advance()?;
        mending.found = mending.wanted();
        Ok(mending)
    }

    /// Looks at the segment anew after some time, in which somebody may have put a sound one in its place. What was given is
    /// kept if the same is missing as at first. Touches the disk.
    ///
    /// # Errors
    /// As [`Stream::mend`](super::Stream::mend).
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

    /// Goes on where there was no room for what is whole behind something that was given. Touches the disk.
    ///
    /// # Errors
    /// [`Error::NoSpace`] and [`Error::Io`]; nothing of what was given is lost.
    pub fn go_on(&mut self) -> Result<(), Error> {
        match self.is_level {
            true => Ok(()),
            false => self.advance(),
        }
    }

    /// Writes all that is whole in front of the first gap, if that was not done yet; all of it, or nothing.
    fn write(&mut self) -> Result<(), Error> {
        if self.new.is_some() {
            return self.go_on();
        }
        let before = (self.at, self.gap, self.written);
        let written = self.write_first();
        if written.is_err() {
            (self.at, self.gap, self.written) = before;
            (self.new, self.is_level) = (None, true);
        }
        written
    }

    fn write_first(&mut self) -> Result<(), Error> {
        let found = self.wanted();
        let new = New::create(&self.site, &self.head)?;
        self.written = Written {
            position: new.segment.body(),
            chain: new.segment.header.crc(),
            next: self.head.next,
            running: self.head.running,
        };
        self.new = Some(new);
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

    /// The records that are wanted next; `None` if nothing is missing any more, unless it has to [go on](Self::go_on)
    /// first. A gap is given from its beginning to its end, in as many parts as one likes.
    pub fn wanted(&self) -> Option<Range<Offset>> {
        self.gap.map(|gap| gap.given.offset..gap.until.offset)
    }

    /// Takes records for the beginning of what is wanted. Touches the disk.
    ///
    /// # Errors
    /// [`Error::NoSpace`]: what was given before is kept. [`Error::Unproven`] if they do not lead to what follows them: all
    /// that was given for this gap is wanted again. [`Error::Hole`] for more than is wanted, [`Error::Record`] for what
    /// cannot be decoded.
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
        self.go_on()?;
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
                sync_names(site.disk.as_ref(), &site.dir)?;
            }
        }
        Ok(Mended { segment, fetched: *fetched })
    }

    /// Takes over what is whole, up to the next gap or the end.
    fn advance(&mut self) -> Result<(), Error> {
        self.is_level = false;
        self.take_over_whole()?;
        self.is_level = true;
        Ok(())
    }

    fn take_over_whole(&mut self) -> Result<(), Error> {
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
        let mut headers = Headers::behind(&self.damaged, self.at);
        while let Some((at, header)) = headers.next()? {
            let continues = header.first > self.written.next || self.continues(&header);
            if at > self.at && continues {
                return Ok(Some((at, header)));
            }
        }
        if self.end.is_none() && headers.has_skipped() {
            let reason = "the device cannot read where the stream ended";
            return Err(self.damaged.corrupt(self.at, self.written.next, reason));
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
        let Some(new) = &mut self.new else {
            self.written = after;
            return Ok(());
        };
        // All that is written here was durable before, or is so before anybody sees it.
        let header = BatchHeader::new(kind, (next, before), records, next.prev(), chain);
        let packed = pack(payload);
        let (head, chain) = packed.head(header, new.segment.place(position));
        let mut parts = [IoSlice::new(&head), IoSlice::new(&packed.stored)];
        let end = position + (head.len() + packed.stored.len()) as u64;
        let written = new.segment.file.write_parts_at(&mut parts, position);
        new.reaches(end);
        written.map_err(|source| new.segment.io("write", source))?;
        self.written = Written { position: end, chain, ..after };
        Ok(())
    }
}

impl Written {
    fn join(&self) -> Join {
        Join { offset: self.next, running: self.running }
    }
}
