//! Reading a stream from any offset, batch by batch, each verified.

use std::{collections::BTreeMap, io::ErrorKind, sync::Arc};

use super::{
    Open, Stream, Tail,
    format::Kind,
    recovery::follows_last,
    segment::{Found, OpenError, Segment, UNREADABLE, records_of},
};
use crate::{
    Error,
    codec::Records,
    model::{Offset, Relation, RelationId, Running},
    mutant::{self, Mutant},
};

/// Reads a stream forward. Holds one batch at a time.
#[derive(Debug)]
pub struct Reader {
    stream: Arc<Stream>,
    segment: Segment,
    position: u64,
    next: Offset,
    running: Running,
    from: Offset,
    relations: BTreeMap<RelationId, Relation>,
    before: Option<Running>,
    opened: Option<Open>,
}

/// Consecutive records.
#[derive(Clone, Debug)]
pub struct Block {
    /// The first one's offset.
    pub first: Offset,
    /// The running checksum before it.
    pub running: Running,
    /// The records.
    pub records: Records,
}

impl Block {
    /// The last record's offset.
    pub fn last(&self) -> Offset {
        self.first.forward(self.records.span()).prev()
    }

    /// Without what is before `from`.
    #[must_use]
    pub fn starting_at(self, from: Offset) -> Self {
        let span = from.since(self.first);
        if span == 0 {
            return self;
        }
        let running = self.records.until(span).running(self.running);
        Self { first: from, running, records: self.records.after(span) }
    }
}

impl Reader {
    pub(super) fn open(stream: Arc<Stream>, from: Offset) -> Result<Self, Error> {
        let from = from.max(Offset::FIRST);
        let trimmed =
            |stream: &Stream| Error::Trimmed { first: stream.watermarks().first, wanted: from };
        let base = stream.segment_with(from).ok_or_else(|| trimmed(&stream))?;
        let noted = stream.clone();
        let noted = |error| noting(&noted, error);
        let (segment, tail) = open_segment(&stream, base).map_err(&noted)?;
        let mut reader = Self {
            position: segment.body(),
            next: tail.next,
            running: tail.running,
            from,
            relations: BTreeMap::new(),
            before: None,
            opened: None,
            stream,
            segment,
        };
        reader.advance_to(from, tail).map_err(noted)?;
        Ok(reader)
    }

    /// The offset of the record that is read next.
    pub fn next_offset(&self) -> Offset {
        self.next.max(self.from)
    }

    /// The tables as described before the record that the reader was opened at.
    pub fn relations(&self) -> &BTreeMap<RelationId, Relation> {
        &self.relations
    }

    /// The running checksum before the record that the reader was opened at; `None` if that lies inside a
    /// skipped run.
    pub fn running_before(&self) -> Option<Running> {
        self.before
    }

    /// The transaction or copy that the record the reader was opened at lies in.
    pub fn opened_inside(&self) -> Option<Open> {
        self.opened
    }

    /// The stream that is read.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Has what is read next come from the device.
    pub(super) fn forget_cached(&self) -> Result<(), Error> {
        self.segment.file.forget_cached().map_err(|error| self.segment.io("evict", error))
    }

    /// The next batch of records; `None` at the *synced* watermark. Reads the disk.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for what is not as it was written, [`Error::Trimmed`] if the stream was trimmed
    /// beyond this reader.
    pub fn next_block(&mut self) -> Result<Option<Block>, Error> {
        self.find_block().map_err(|error| noting(&self.stream, error))
    }

    fn find_block(&mut self) -> Result<Option<Block>, Error> {
        loop {
            if self.next > self.stream.watermarks().synced {
                return Ok(None);
            }
            if self.enter_next_segment()? {
                continue;
            }
            let Some(block) = self.read_batch()? else {
                continue;
            };
            return Ok(Some(block.starting_at(self.from)));
        }
    }

    /// Moves on to the segment that begins with the next record, if there is one.
    fn enter_next_segment(&mut self) -> Result<bool, Error> {
        let base = self.stream.segment_with(self.next).ok_or_else(|| Error::Trimmed {
            first: self.stream.watermarks().first,
            wanted: self.next,
        })?;
        if base == self.segment.header.base {
            return Ok(false);
        }
        if base != self.next {
            let at = self.position;
            return Err(self.segment.corrupt(at, self.next, "the segment ends too early"));
        }
        let (segment, _) = open_segment(&self.stream, base)?;
        self.position = segment.body();
        self.segment = segment;
        Ok(true)
    }

    /// The batch at the position; `None` for one without records.
    fn read_batch(&mut self) -> Result<Option<Block>, Error> {
        let bad = |reason: &str| self.segment.corrupt(self.position, self.next, reason);
        let (header, payload, next) = match self.segment.batch_at(self.position)? {
            Found::Batch { header, payload, next, .. } => (header, payload, next),
            Found::End => return Err(bad("the segment ends too early")),
            Found::Bad(reason) => return Err(bad(&reason)),
            Found::Unreadable => return Err(bad(UNREADABLE)),
        };
        let running = match mutant::on(Mutant::RunningUnchecked) {
            true => header.running,
            false => self.running,
        };
        follows_last((header.first, header.running), (self.next, running))
            .map_err(|reason| bad(&reason))?;
        if header.kind == Kind::Mark || header.is_seal() {
            self.position = next;
            return Ok(None);
        }
        let records =
            records_of(&header, payload).ok_or_else(|| bad("the batch's records are malformed"))?;
        let block = Block { first: self.next, running: self.running, records };
        self.position = next;
        self.running = block.records.running(block.running);
        self.next = block.last().next();
        Ok(Some(block))
    }

    /// Reads on to the batch that holds `from`, keeping the relations in force, and stands before it.
    fn advance_to(&mut self, from: Offset, mut tail: Tail) -> Result<(), Error> {
        while self.next < from {
            let before = (self.position, self.next, self.running);
            if self.next > self.stream.watermarks().synced {
                return Err(Error::Hole { expected: self.next, got: from });
            }
            let Some(block) = self.read_batch()? else {
                continue;
            };
            if block.last() >= from {
                (self.position, self.next, self.running) = before;
                let held = block.records.until(from.since(block.first));
                tail.observe(&held)?;
                break;
            }
            tail.observe(&block.records)?;
        }
        self.before = (tail.next == from).then_some(tail.running);
        self.opened = tail.open;
        self.relations = tail.relations;
        Ok(())
    }
}

/// The running checksum behind the record at `offset`, which is durable and held or the one before the
/// first that is.
pub(super) fn running_at(stream: &Arc<Stream>, offset: Offset) -> Result<Option<Running>, Error> {
    let next = offset.next();
    if let Some(base) = stream.segment_with(next)
        && base == next
    {
        return Ok(Some(open_segment(stream, base)?.0.header.running));
    }
    let mut reader = stream.read(offset)?;
    loop {
        let Some(block) = reader.next_block()? else {
            return Ok(None);
        };
        if block.last() >= offset {
            let wanted = next.since(block.first);
            let held = block.records.until(wanted);
            // Inside a skipped run there is no checksum to compare.
            return Ok((held.span() == wanted).then(|| held.running(block.running)));
        }
    }
}

/// Lets the stream know of damage that was met.
fn noting(stream: &Stream, error: Error) -> Error {
    if let Error::Corrupt { offset, .. } = &error {
        stream.note_damage(*offset);
    }
    error
}

fn open_segment(stream: &Stream, base: Offset) -> Result<(Segment, Tail), Error> {
    let path = stream.segment_path(base);
    match Segment::open(stream.disk(), &path, stream.id(), false) {
        Ok(opened) => Ok(opened),
        Err(OpenError::Other(Error::Io { source, .. })) if source.kind() == ErrorKind::NotFound => {
            Err(Error::Trimmed { first: stream.watermarks().first, wanted: base })
        }
        Err(OpenError::Other(error)) => Err(error),
        Err(OpenError::Damaged(reason)) => {
            Err(Error::Corrupt { segment: path, at: 0, offset: base, reason: reason.into() })
        }
    }
}
