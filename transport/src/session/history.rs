//! What both ends of a connection hold already: the records from which packets can learn before any is shipped.
//!
//! The sender names a range that the peer has said to hold, durably; the peer reads the same range of its own journal, and the
//! checksum over the bytes as each has them says whether both will learn the same. Before them stand the descriptions
//! of the tables that were in force, because without a table's key its rows cannot be told apart.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use thinwire_engine::{
    Error,
    codec::{Records, RecordsBuf},
    journal::Stream,
    model::{Offset, Record, Running},
};

use crate::{frame::Priming, wire::packet::RECORDS_BYTES_MAX};

/// Records that were shipped before.
#[derive(Debug)]
pub(crate) struct History {
    from: Offset,
    until: Offset,
    parts: VecDeque<Records>,
    bytes: usize,
}

impl History {
    /// The latest records from `first` on and before `until`, of at most `room` bytes; `None` if there are none, or it
    /// takes too long to find them. Reads the disk.
    pub(crate) fn latest(
        stream: &Arc<Stream>,
        first: Offset,
        until: Offset,
        room: usize,
    ) -> Result<Option<Self>, Error> {
        let marks = stream.watermarks();
        let (first, until) = (first.max(marks.first), until.min(marks.synced.next()));
        if first >= until {
            return Ok(None);
        }
        // The disk holds them compressed, so twice the room is a fair guess at where to look.
        let held = marks.synced.since(marks.first.prev()).max(1);
        let each = (marks.bytes / held).max(1);
        let count = (room as u64 / each).clamp(1, until.since(first));
        let guess = Offset::new(until.get() - count);
        let Some(mut rough) = Self::read(stream, guess, until, room * LOOKED_AT)? else {
            return Ok(None);
        };
        while rough.bytes > room
            && let Some(oldest) = rough.parts.pop_front()
        {
            rough.bytes -= oldest.bytes().len();
            rough.from = rough.from.forward(oldest.span());
        }
        // What lies before the range has changed, and with it the tables in force.
        match rough.from < until {
            true => Self::read(stream, rough.from, until, room),
            false => Ok(None),
        }
    }

    /// The records that a sender names, if this node holds exactly those. Reads the disk.
    pub(crate) fn named(stream: &Arc<Stream>, priming: &Priming) -> Result<Option<Self>, Error> {
        let Priming { from, until, bytes, sum, .. } = *priming;
        let found = Self::read(stream, from, until, bytes as usize)?;
        Ok(found.filter(|found| found.bytes == bytes as usize && found.sum() == sum))
    }

    /// What is said of it to the peer.
    pub(crate) fn priming(&self, index: u32, stream: &Stream) -> Option<Priming> {
        Some(Priming {
            index,
            stream: stream.id(),
            from: self.from,
            until: self.until,
            bytes: u32::try_from(self.bytes).ok()?,
            sum: self.sum(),
        })
    }

    /// The offset behind the last record.
    pub(crate) fn until(&self) -> Offset {
        self.until
    }

    /// How many bytes there are.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The records that may go into packets.
    pub(crate) fn records(&self) -> impl Iterator<Item = Bytes> + '_ {
        let all = self.parts.iter().flat_map(Records::iter);
        all.filter(|record| record.len() <= RECORDS_BYTES_MAX)
    }

    fn sum(&self) -> u32 {
        self.parts.iter().fold(Running::START, |sum, part| sum.extend(part.bytes())).get()
    }

    /// Exactly these, unless they are more than so many bytes or are not held.
    fn read(
        stream: &Arc<Stream>,
        from: Offset,
        until: Offset,
        limit: usize,
    ) -> Result<Option<Self>, Error> {
        if from < stream.watermarks().first {
            return Ok(None);
        }
        let mut reader = stream.read(from)?;
        let mut tables = RecordsBuf::new();
        for relation in reader.relations().values() {
            tables.push(&Record::Relation(relation.clone()));
        }
        let tables = tables.take();
        let mut history =
            Self { from, until, bytes: tables.bytes().len(), parts: VecDeque::from([tables]) };
        let mut next = from;
        while next < until && history.bytes <= limit {
            let Some(block) = reader.next_block()? else { return Ok(None) };
            let records = block.records.until(until.since(block.first));
            next = block.first.forward(records.span());
            history.bytes += records.bytes().len();
            history.parts.push_back(records);
        }
        Ok((next == until && history.bytes <= limit).then_some(history))
    }
}

/// How many times the room is looked at for what fits.
const LOOKED_AT: usize = 8;
