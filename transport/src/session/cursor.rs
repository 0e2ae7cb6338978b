//! Reads a stream for one peer: cut into frames, and without the copies that are not meant for it.
//!
//! What is withheld becomes `Skip` runs that carry the origin's running checksum, so that the peer has the same
//! checksum at every offset as everybody else. Descriptions of tables and messages inside
//! a withheld copy are not part of it and are passed on: later transactions may rely on them.

use std::sync::Arc;

use bytes::Bytes;
use thinwire_engine::{
    Error,
    codec::{Cursor as Bytewise, DecodeError, Records, Tag, decode},
    journal::{Reader, Stream},
    limits::RECORD_BYTES_MAX,
    model::{Offset, Origin, Record, Running},
};

/// A place in a stream, and what lies between it and the disk.
#[derive(Debug)]
pub(crate) struct Cursor {
    reader: Reader,
    /// Whom it is read for.
    peer: Origin,
    /// The next record that is given out, and the running checksum before it.
    next: Offset,
    running: Running,
    /// Records that were read and not given out.
    rest: Bytes,
    /// Whether the next record lies in a copy that is not for the peer.
    withholding: bool,
    /// Where reading begins, if what lies before it is skipped.
    gap: Option<Offset>,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// The first record that the peer does not hold.
    pub(crate) next: Offset,
    /// Whether the peer holds the beginning of the copy that it lies in, if it does.
    pub(crate) in_copy: bool,
    /// Whether all before another place is skipped.
    pub(crate) gap: Option<Offset>,
}

/// What goes into one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first record's offset.
    pub(crate) first: Offset,
    /// The records.
    pub(crate) records: Records,
    /// The running checksum behind them.
    pub(crate) running: Running,
    /// Whether they stand for what is withheld from the peer.
    pub(crate) withheld: bool,
}

/// The record at the front of encoded ones.
struct Front {
    tag: Tag,
    /// With its length before it.
    framed: Bytes,
    record: Bytes,
}

impl Cursor {
    /// Reads the disk.
    pub(crate) fn open(stream: &Arc<Stream>, start: Start, peer: Origin) -> Result<Self, Error> {
        let reader = stream.read(start.gap.unwrap_or(start.next))?;
        let inside_copy = reader.opened_inside().is_some_and(|open| open.xid.is_none());
        let held = start.in_copy && start.gap.is_none();
        Ok(Self {
            peer,
            next: start.next,
            running: reader.running_before().unwrap_or_default(),
            rest: Bytes::new(),
            withholding: inside_copy && !held,
            gap: start.gap,
            reader,
        })
    }

    /// The running checksum before the place where reading began; `None` inside a run that was
    /// withheld from this node.
    pub(crate) fn running_before(&self) -> Option<Running> {
        self.reader.running_before()
    }

    /// Whether the place where reading began lies inside a copy.
    pub(crate) fn began_inside_copy(&self) -> bool {
        self.reader.opened_inside().is_some_and(|open| open.xid.is_none())
    }

    /// The next record that is given out.
    pub(crate) fn next_offset(&self) -> Offset {
        self.next
    }

    /// Records for one frame; `None` when all that is durable was given out. Reads the disk.
    pub(crate) fn next_run(&mut self) -> Result<Option<Run>, Error> {
        if let Some(gap) = self.gap.take() {
            return Ok(Some(self.skip(gap.since(self.next), self.running)));
        }
        let before = self.withholding;
        // What was passed over is not given out yet: it is read again from where `next` is.
        let found = self.find_run();
        if found.is_err() {
            (self.withholding, self.rest) = (before, Bytes::new());
        }
        found
    }

    /// Goes on behind the last record that was given out, after a failure to read was mended. Reads the disk.
    pub(crate) fn reopen(&mut self) -> Result<(), Error> {
        self.reader = self.reader.stream().clone().read(self.next)?;
        Ok(())
    }

    fn find_run(&mut self) -> Result<Option<Run>, Error> {
        let (mut withheld, mut running, mut bytes) = (0, self.running, 0);
        loop {
            if self.rest.is_empty() && !self.fill(withheld)? {
                break;
            }
            let front = self.front()?;
            self.withholding |= self.begins_foreign_copy(&front)?;
            if !self.withholding || matches!(front.tag, Tag::Relation | Tag::Message) {
                break;
            }
            let span;
            (span, running) = after(&front, running)?;
            withheld += span;
            bytes += front.framed.len();
            self.rest = self.rest.slice(front.framed.len()..);
            self.withholding = !matches!(front.tag, Tag::CopyEnd | Tag::CopyAbort);
            if bytes >= WITHHELD_BYTES {
                break;
            }
        }
        match withheld {
            0 if self.rest.is_empty() => Ok(None),
            0 => self.take_run().map(Some),
            count => Ok(Some(self.skip(count, running))),
        }
    }

    /// Reads the next block, if there is one. What was withheld so far is not part of `next` yet.
    fn fill(&mut self, withheld: u64) -> Result<bool, Error> {
        let Some(block) = self.reader.next_block()? else { return Ok(false) };
        let expected = self.next.forward(withheld);
        if block.first != expected {
            return Err(Error::Hole { expected, got: block.first });
        }
        self.rest = block.records.bytes().clone();
        Ok(true)
    }

    /// The records up to the size of a frame, or up to the next that is withheld.
    fn take_run(&mut self) -> Result<Run, Error> {
        let (mut at, mut count, mut span, mut running) = (0, 0, 0, self.running);
        let whole = self.rest.clone();
        while at < whole.len() {
            self.rest = whole.slice(at..);
            let front = self.front()?;
            let passes = matches!(front.tag, Tag::Relation | Tag::Message)
                || !(self.withholding || self.begins_foreign_copy(&front)?);
            let full = at > 0 && at + front.framed.len() > FRAME_BYTES;
            if !passes || full {
                break;
            }
            let spans;
            (spans, running) = after(&front, running)?;
            (at, count, span) = (at + front.framed.len(), count + 1, span + spans);
        }
        self.rest = whole.slice(at..);
        let records = Records::parse(whole.slice(..at), count)
            .map_err(|source| Error::Record { offset: self.next, source })?;
        let run = Run { first: self.next, records, running, withheld: false };
        (self.next, self.running) = (self.next.forward(span), running);
        Ok(run)
    }

    fn skip(&mut self, count: u64, running: Running) -> Run {
        let run = Run {
            first: self.next,
            records: Records::one(&Record::Skip { count, running }),
            running,
            withheld: true,
        };
        (self.next, self.running) = (self.next.forward(count), running);
        run
    }

    fn front(&self) -> Result<Front, Error> {
        let read = || -> Result<Front, DecodeError> {
            let mut bytewise = Bytewise::new(&self.rest);
            let length = bytewise.length(RECORD_BYTES_MAX)?;
            let record = bytewise.take(length)?;
            let framed = self.rest.slice(..bytewise.position());
            Ok(Front { tag: Tag::of(&record)?, framed, record })
        };
        read().map_err(|source| Error::Record { offset: self.next, source })
    }

    fn begins_foreign_copy(&self, front: &Front) -> Result<bool, Error> {
        if front.tag != Tag::CopyBegin {
            return Ok(false);
        }
        match decode(&front.record) {
            Ok(Record::CopyBegin(copy)) => Ok(!copy.passes(self.peer)),
            Ok(_) => Ok(false),
            Err(source) => Err(Error::Record { offset: self.next, source }),
        }
    }
}

/// How many offsets the record takes, and the running checksum behind it.
fn after(front: &Front, before: Running) -> Result<(u64, Running), Error> {
    if front.tag != Tag::Skip {
        return Ok((1, before.extend(&front.framed)));
    }
    match decode(&front.record) {
        Ok(Record::Skip { count, running }) => Ok((count, running)),
        Ok(_) => Ok((1, before.extend(&front.framed))),
        Err(source) => Err(Error::Record { offset: Offset::ZERO, source }),
    }
}

/// Records in a frame, unless a single one is larger: what a cut costs beyond the unacknowledged window.
pub(crate) const FRAME_BYTES: usize = 16 << 10;

/// How much is read at most for one run of withheld records.
const WITHHELD_BYTES: usize = 4 << 20;
