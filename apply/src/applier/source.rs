//! Records out of the relay journal, one after the other, no further than what is complete.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use thinwire_engine::{
    Error,
    codec::decode,
    journal::{Reader, Stream},
    model::{Halt, Offset, Record},
};
use tokio::task::spawn_blocking;

use crate::{SinkError, sink::Relations};

/// Reads a stream forward. Holds one batch of the journal at a time, and decodes each record when it is its turn.
#[derive(Debug)]
pub(super) struct Source {
    stream: Arc<Stream>,
    reader: Option<Reader>,
    next: Offset,
    held: VecDeque<Bytes>,
}

/// A record and where it stands.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) offset: Offset,
    /// The last offset that it takes.
    pub(super) last: Offset,
    pub(super) record: Record,
    /// Its encoded length.
    pub(super) bytes: usize,
}

impl Source {
    /// Begins at `from`; also returns the tables in force there.
    pub(super) async fn open(
        stream: Arc<Stream>,
        from: Offset,
    ) -> Result<(Self, Relations), SinkError> {
        let opening = stream.clone();
        let reader = blocking(move || opening.read(from)).await?.map_err(|error| halt(&error))?;
        let relations = reader
            .relations()
            .iter()
            .map(|(id, relation)| (*id, Arc::new(relation.clone())))
            .collect();
        let next = reader.next_offset();
        Ok((Self { stream, reader: Some(reader), next, held: VecDeque::new() }, relations))
    }

    /// The offset of the record that comes next.
    pub(super) fn next_offset(&self) -> Offset {
        self.next
    }

    /// Whether the next record belongs to something complete.
    pub(super) fn is_ready(&self) -> bool {
        self.next <= self.stream.watermarks().complete
    }

    /// The next record, if it belongs to something complete.
    pub(super) async fn next(&mut self) -> Result<Option<Item>, SinkError> {
        if !self.is_ready() {
            return Ok(None);
        }
        if self.held.is_empty() {
            self.refill().await?;
        }
        let Some(bytes) = self.held.pop_front() else {
            let detail = format!("record {} should be in the journal, and is not", self.next);
            return Err(SinkError::refused("journal_corrupt", detail));
        };
        let offset = self.next;
        let record = decode(&bytes).map_err(|source| halt(&Error::Record { offset, source }))?;
        let last = record.last(offset);
        self.next = last.next();
        Ok(Some(Item { offset, last, record, bytes: bytes.len() }))
    }

    async fn refill(&mut self) -> Result<(), SinkError> {
        let Some(mut reader) = self.reader.take() else { return Ok(()) };
        let (reader, block) = blocking(move || {
            let block = reader.next_block();
            (reader, block)
        })
        .await?;
        self.reader = Some(reader);
        let Some(block) = block.map_err(|error| halt(&error))? else { return Ok(()) };
        if block.first != self.next {
            let error = Error::Hole { expected: self.next, got: block.first };
            return Err(halt(&error));
        }
        self.held = block.records.iter().collect();
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SinkError> {
    spawn_blocking(work).await.map_err(|_| SinkError::Weather("the program is ending".to_owned()))
}

/// A journal that cannot be read stops its stream; so does one that has been trimmed beyond what the target needs.
fn halt(error: &Error) -> SinkError {
    let (code, offset) = match error {
        Error::Trimmed { wanted, .. } => ("target_behind", Some(*wanted)),
        Error::Corrupt { offset, .. } | Error::Record { offset, .. } => {
            ("journal_corrupt", Some(*offset))
        }
        Error::Hole { expected, .. } => ("journal_corrupt", Some(*expected)),
        Error::Version { .. } => ("journal_corrupt", None),
        _ => ("other", None),
    };
    let detail = match error {
        Error::Trimmed { first, wanted } => format!(
            "the database needs the stream from record {wanted} on, but this node holds it from record {first} on only; \
             the tables have to be copied again"
        ),
        _ => error.to_string(),
    };
    SinkError::Refused(Box::new(Halt { offset, ..Halt::new(code, detail) }))
}
