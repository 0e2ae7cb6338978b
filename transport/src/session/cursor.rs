//! Reads a stream for one peer: cut into frames, and without the copies that are not meant for it.
//!
//! What is withheld becomes `Skip` runs that carry the origin's running checksum, so that the peer has the same
//! checksum at every offset as everybody else. Descriptions of tables and messages inside
//! a withheld copy are not part of it and are passed on: later transactions may rely on them.
//!
//! A withheld copy costs the peer nothing, because up to there it has the rows already: what it holds is always enough to
//! make the tables anew. Two rules keep that so whatever paths a stream takes. A run that stands for what was trimmed
//! travels in one frame, and so into one batch of the peer's journal, with the beginning of the copy that
//! makes up for it: nobody holds it alone, and who holds the beginning refuses to skip the rest. And a run
//! that this node got like that is not passed on without the copy: it is, to the peer, trimmed here.

use std::sync::Arc;

use bytes::Bytes;
use thinwire_engine::{
    Error,
    codec::{Cursor as Bytewise, DecodeError, Records, RecordsBuf, Tag, decode},
    journal::{Reader, Stream},
    limits::RECORD_BYTES_MAX,
    model::{Copy, Offset, Origin, Record, Running},
};

/// A place in a stream, and what lies between it and the disk.
#[derive(Debug)]
pub(crate) struct Cursor {
    reader: Reader,
    ends: Ends,
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

/// Who holds a stream, and for whom it is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) node: Origin,
    pub(crate) peer: Origin,
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
    pub(crate) fn open(stream: &Arc<Stream>, start: Start, ends: Ends) -> Result<Self, Error> {
        let reader = stream.read(start.gap.unwrap_or(start.next))?;
        let inside_copy = reader.opened_inside().is_some_and(|open| open.xid.is_none());
        let held = start.in_copy && start.gap.is_none();
        Ok(Self {
            ends,
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
        let before = self.withholding;
        // What was passed over is not given out yet: it is read again from where `next` is.
        let found = match self.gap {
            Some(gap) => self.find_behind(gap),
            None => self.find_run(),
        };
        if found.is_err() {
            (self.withholding, self.rest) = (before, Bytes::new());
        }
        found
    }

    /// Goes on behind the last record that was given out, after a failure to read was mended. Reads the disk.
    pub(crate) fn reopen(&mut self) -> Result<(), Error> {
        self.reader = self.reader.stream().clone().read(self.gap.unwrap_or(self.next))?;
        Ok(())
    }

    /// Skips what lies before a copy that was made for the peer. Reads the disk.
    pub(crate) fn skip_to(&mut self, copy: Offset) -> Result<(), Error> {
        let start = Start {
            next: self.next,
            in_copy: false,
            gap: Some(copy).filter(|copy| *copy > self.next),
        };
        *self = Self::open(&self.reader.stream().clone(), start, self.ends)?;
        Ok(())
    }

    /// What was trimmed, skipped, and in the same frame the first records of what makes up for it.
    fn find_behind(&mut self, gap: Offset) -> Result<Option<Run>, Error> {
        let first = self.next;
        let skip = self.skip(gap.since(first), self.running);
        let behind = self.find_copy(first);
        let Ok(Some(run)) = behind else {
            self.next = first;
            return behind;
        };
        self.gap = None;
        let mut records = RecordsBuf::new();
        records.append(&skip.records);
        records.append(&run.records);
        Ok(Some(Run { first, records: records.take(), ..run }))
    }

    /// The beginning of a copy that the peer gets; nothing else makes up for what it lacks from `wanted` on.
    fn find_copy(&mut self, wanted: Offset) -> Result<Option<Run>, Error> {
        if self.rest.is_empty() && !self.fill(0)? {
            return Ok(None);
        }
        match self.copy_of(&self.front()?)? {
            Some(copy) if copy.passes(self.ends.peer) => self.find_run(),
            _ => Err(Error::Trimmed { first: self.next, wanted }),
        }
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
            let is_gap = front.tag == Tag::Skip && self.precedes_own_copy(&front)?;
            if is_gap && at == 0 {
                return Err(Error::Trimmed { first: self.next, wanted: self.next });
            }
            if !passes || full || is_gap {
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
        self.front_of(&self.rest)
    }

    fn front_of(&self, rest: &Bytes) -> Result<Front, Error> {
        let read = || -> Result<Front, DecodeError> {
            let mut bytewise = Bytewise::new(rest);
            let length = bytewise.length(RECORD_BYTES_MAX)?;
            let record = bytewise.take(length)?;
            let framed = rest.slice(..bytewise.position());
            Ok(Front { tag: Tag::of(&record)?, framed, record })
        };
        read().map_err(|source| Error::Record { offset: self.next, source })
    }

    fn begins_foreign_copy(&self, front: &Front) -> Result<bool, Error> {
        Ok(self.copy_of(front)?.is_some_and(|copy| !copy.passes(self.ends.peer)))
    }

    /// Whether the skipped run at the front stands for what this node lacked when a copy was made for it, which the peer
    /// would not get. Both came in one frame, and are in one batch.
    fn precedes_own_copy(&self, skip: &Front) -> Result<bool, Error> {
        let behind = self.rest.slice(skip.framed.len()..);
        if behind.is_empty() {
            return Ok(false);
        }
        let Ends { node, peer } = self.ends;
        let copy = self.copy_of(&self.front_of(&behind)?)?;
        Ok(copy.is_some_and(|copy| copy.audience.contains(&node) && !copy.passes(peer)))
    }

    fn copy_of(&self, front: &Front) -> Result<Option<Copy>, Error> {
        if front.tag != Tag::CopyBegin {
            return Ok(None);
        }
        match decode(&front.record) {
            Ok(Record::CopyBegin(copy)) => Ok(Some(copy)),
            Ok(_) => Ok(None),
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
