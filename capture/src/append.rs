//! Records into the stream: gathered into batches, and waiting where the journal says so.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use thinwire_engine::{
    Error as JournalError,
    codec::{Records, RecordsBuf, encode, put_varint},
    journal::Stream,
    model::{Lsn, Offset, OldRow, Record, Row, Value},
};
use tokio::time::{sleep, timeout};

use crate::{
    confirm::Confirm,
    error::Result,
    status::{Shared, State},
};

/// Gathers records and appends them.
#[derive(Debug)]
pub(crate) struct Appender {
    stream: Arc<Stream>,
    confirm: Arc<Confirm>,
    shared: Arc<Shared>,
    gathered: RecordsBuf,
    /// The last commit among them: how many offsets go up to it, and where it ends in the source's log.
    commit: Option<(u64, Lsn)>,
    /// How long a full journal is waited for.
    patience: Duration,
}

impl Appender {
    pub(crate) fn new(
        stream: Arc<Stream>,
        confirm: Arc<Confirm>,
        shared: Arc<Shared>,
        patience: Duration,
    ) -> Self {
        Self { stream, confirm, shared, gathered: RecordsBuf::new(), commit: None, patience }
    }

    /// Sets how long a full journal is waited for before giving up.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Adds a record and appends what has gathered if that is enough for a batch; says whether it did.
    pub(crate) async fn take(&mut self, record: Record) -> Result<bool> {
        if weight(&record) >= LARGE_BYTES {
            self.flush().await?;
            let records = alone(record)?;
            self.append(records, None).await?;
            return Ok(true);
        }
        self.push(&record);
        if self.gathered.bytes_len() < FLUSH_BYTES {
            return Ok(false);
        }
        self.flush().await?;
        Ok(true)
    }

    /// Adds a record.
    pub(crate) fn push(&mut self, record: &Record) {
        self.gathered.push(record);
        if let Record::Commit { end } = record {
            self.commit = Some((self.gathered.span(), *end));
        }
    }

    /// Appends what has gathered; returns where the first of it, or else the next record, has its place.
    ///
    /// # Errors
    /// [`JournalError::Full`] if there was no room for longer than our patience: nothing of it was appended. Any
    /// other means that the stream must be opened anew.
    pub(crate) async fn flush(&mut self) -> Result<Offset> {
        if self.gathered.is_empty() {
            return Ok(self.stream.watermarks().appended.next());
        }
        let (records, commit) = (self.gathered.take(), self.commit.take());
        self.append(records, commit).await
    }

    /// Forgets what has gathered.
    pub(crate) fn discard(&mut self) {
        (self.gathered, self.commit) = (RecordsBuf::new(), None);
    }

    async fn append(&self, records: Records, commit: Option<(u64, Lsn)>) -> Result<Offset> {
        let (span, started, mut before) = (records.span(), Instant::now(), None);
        let last = loop {
            match self.stream.append(records.clone()) {
                Err(JournalError::Full { .. }) if started.elapsed() < self.patience => {
                    before.get_or_insert_with(|| self.shared.set_state(State::Held));
                    sleep(FULL_POLL).await;
                }
                appended => break appended?,
            }
        };
        drop(records);
        let first = Offset::new((last.get() + 1).saturating_sub(span));
        if let Some((upto, end)) = commit {
            self.confirm.expect(first.forward(upto).prev(), end);
        }
        self.wait_for_disk(&mut before).await?;
        if let Some(state) = before {
            self.shared.set_state(state);
        }
        Ok(first)
    }

    /// Waits while too much is in memory.
    async fn wait_for_disk(&self, before: &mut Option<State>) -> Result<()> {
        if !self.stream.is_congested() {
            return Ok(());
        }
        let (mut watermarks, started) = (self.stream.watch(), Instant::now());
        while self.stream.is_congested() {
            if self.stream.is_poisoned() {
                return Err(JournalError::Poisoned { stream: self.stream.id() }.into());
            }
            if started.elapsed() > SLOW_DISK {
                before.get_or_insert_with(|| self.shared.set_state(State::Held));
            }
            let _ = timeout(FULL_POLL, watermarks.changed()).await;
        }
        Ok(())
    }
}

/// A large record by itself, encoded in one buffer of its own size, after which its values are gone.
fn alone(record: Record) -> Result<Records> {
    let mut buffer = Vec::with_capacity(weight(&record) + (64 << 10));
    // Room for the length, which is known afterwards.
    buffer.extend_from_slice(&[0; LENGTH_BYTES]);
    encode(&record, &mut buffer);
    drop(record);
    let mut length = Vec::with_capacity(LENGTH_BYTES);
    put_varint((buffer.len() - LENGTH_BYTES) as u64, &mut length);
    let start = LENGTH_BYTES - length.len();
    buffer[start..LENGTH_BYTES].copy_from_slice(&length);
    let bytes = Bytes::from(buffer).slice(start..);
    Records::parse(bytes, 1)
        .map_err(|source| JournalError::Record { offset: Offset::ZERO, source }.into())
}

/// The bytes of a record's values.
fn weight(record: &Record) -> usize {
    match record {
        Record::Insert { new, .. } => row(new),
        Record::Update { old, new, .. } => old.as_ref().map_or(0, |old| row(old.row())) + row(new),
        Record::Delete { old: OldRow::Key(old) | OldRow::Full(old), .. } => row(old),
        Record::Message { content, .. } => content.len(),
        Record::Schema(schema) => schema.definitions.len(),
        _ => 0,
    }
}

fn row(row: &Row) -> usize {
    let bytes = |value: &Value| match value {
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    };
    row.0.iter().map(bytes).sum()
}

/// A batch of the journal is about this large; fewer appends than that gain nothing.
const FLUSH_BYTES: usize = 128 << 10;

/// From here on a record is encoded by itself: gathering would copy it once more.
const LARGE_BYTES: usize = 512 << 10;

/// The longest length of a record.
const LENGTH_BYTES: usize = 5;

const FULL_POLL: Duration = Duration::from_millis(100);

/// A disk that takes longer for a batch deserves to be seen.
const SLOW_DISK: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use thinwire_engine::model::RelationId;

    use super::*;

    #[test]
    fn a_record_alone_is_encoded_as_among_others() {
        for length in [0, 1, 126, 127, 128, 20_000, 3 << 20] {
            let value = Value::Bytes(vec![b'x'; length].into());
            let record = Record::Insert { relation: RelationId(7), new: Row(vec![value]) };
            assert_eq!(alone(record.clone()).unwrap(), Records::one(&record));
        }
    }
}
