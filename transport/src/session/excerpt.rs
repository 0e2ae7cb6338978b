//! A range of records for somebody who has lost it: what it may see of it, exactly as it was shipped before.

use std::sync::Arc;

use thinwire_engine::{
    Error,
    journal::{Reader, Stream},
    model::{Offset, Origin, Record},
};

use super::cursor::{Cursor, Ends, Start};
use crate::frame::Excerpt as Wanted;

/// Reads one range of a stream for one peer.
#[derive(Debug)]
pub(crate) struct Excerpt {
    source: Source,
    until: Offset,
}

#[derive(Debug)]
enum Source {
    /// The origin itself asks: nothing of its own is withheld from it.
    Whole(Reader),
    /// Anybody else gets what it would be shipped.
    Cut(Box<Cursor>),
}

/// Consecutive records of it.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) first: Offset,
    pub(crate) records: thinwire_engine::codec::Records,
    /// Whether they stand for records that the peer is not to have, and never had.
    pub(crate) withheld: bool,
}

impl Excerpt {
    /// Reads the disk. `None` if not all of it is held here, durably.
    pub(crate) fn open(
        stream: &Arc<Stream>,
        wanted: &Wanted,
        ends: Ends,
    ) -> Result<Option<Self>, Error> {
        let marks = stream.watermarks();
        let Wanted { from, until, .. } = *wanted;
        if from < marks.first || until > marks.synced.next() || from >= until {
            return Ok(None);
        }
        let source = if stream.id().origin == ends.peer {
            Source::Whole(stream.read(from)?)
        } else {
            let Some(in_copy) = in_copy_for(stream, from, ends.peer)? else { return Ok(None) };
            let start = Start { next: from, in_copy, gap: None };
            Source::Cut(Box::new(Cursor::open(stream, start, ends)?))
        };
        Ok(Some(Self { source, until }))
    }

    /// The next records; `None` behind the last. Reads the disk.
    pub(crate) fn next_part(&mut self) -> Result<Option<Part>, Error> {
        let part = match &mut self.source {
            Source::Whole(reader) => reader.next_block()?.map(|block| Part {
                first: block.first,
                records: block.records,
                withheld: false,
            }),
            Source::Cut(cursor) => cursor.next_run()?.map(|run| Part {
                first: run.first,
                records: run.records,
                withheld: run.withheld,
            }),
        };
        let Some(mut part) = part.filter(|part| part.first < self.until) else { return Ok(None) };
        let left = self.until.since(part.first);
        if part.records.span() > left {
            part.records = part.records.until(left);
        }
        Ok(Some(part).filter(|part| !part.records.is_empty()))
    }
}

/// Whether the record at `from` lies in a copy that the peer has; `None` if that cannot be told any more.
fn in_copy_for(stream: &Arc<Stream>, from: Offset, peer: Origin) -> Result<Option<bool>, Error> {
    let reader = stream.read(from)?;
    let Some(open) = reader.opened_inside().filter(|open| open.xid.is_none()) else {
        return Ok(Some(false));
    };
    if open.begin < stream.watermarks().first {
        return Ok(None);
    }
    let Some(block) = stream.read(open.begin)?.next_block()? else { return Ok(None) };
    Ok(match block.records.decode(block.first).next() {
        Some(Ok((_, Record::CopyBegin(copy)))) => Some(copy.passes(peer)),
        _ => None,
    })
}
