//! What a journal must hold, from all that it has said.

use std::sync::Arc;

use bytes::Bytes;
use thinwire_engine::journal::Stream;

use crate::work::{RECORDS, Said, durable_mark, transaction};

/// What was taken, and how much of it was acknowledged or let go of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// The seeds of all transactions, in order.
    taken: Vec<u64>,
    acked: u64,
    mark: u64,
    trimmed: u64,
}

impl Model {
    /// Takes note of what the journal said.
    pub(crate) fn hear(&mut self, said: Said) {
        match said {
            Said::Opened { last, mark } => {
                self.taken.truncate(usize::try_from(last / RECORDS).unwrap());
                (self.acked, self.mark) = (last, mark);
            }
            Said::Took { seed } => self.taken.push(seed),
            Said::Durable { last, mark } => (self.acked, self.mark) = (last, mark),
            Said::Trimming { upto } => self.trimmed = self.trimmed.max(upto),
        }
    }

    /// How many records were acknowledged.
    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    /// Whether all that was taken was acknowledged.
    pub(crate) fn is_settled(&self) -> bool {
        self.acked == self.taken.len() as u64 * RECORDS
    }

    /// The same, but for what was taken meanwhile, of which any part may be there.
    pub(crate) fn but_taken(&self, later: &Self) -> Self {
        Self { taken: later.taken.clone(), ..*self }
    }

    /// Fails unless what was acknowledged is there, and what is there was taken.
    pub(crate) fn check(&self, stream: &Arc<Stream>) {
        let marks = stream.watermarks();
        let (first, held) = (marks.first.get(), marks.synced.get());
        assert!(held >= self.acked, "{} acknowledged, {held} held", self.acked);
        assert!(durable_mark(stream) >= self.mark, "a mark was lost");
        assert!(held <= self.taken.len() as u64 * RECORDS, "{held} held, more than taken");
        assert!(first <= self.trimmed + 1, "trimmed to {first}, allowed was {}", self.trimmed);
        let mut expected = self.expected(first);
        let (mut at, mut reader) = (first, stream.read(marks.first).unwrap());
        while let Some(block) = reader.next_block().unwrap() {
            for record in block.records.iter() {
                assert!(Some(record) == expected.next(), "record {at} is not the one taken");
                at += 1;
            }
        }
        assert_eq!(at, held + 1);
    }

    fn expected(&self, first: u64) -> impl Iterator<Item = Bytes> {
        let (whole, rest) = ((first - 1) / RECORDS, (first - 1) % RECORDS);
        let taken = &self.taken[usize::try_from(whole).unwrap()..];
        let records = taken.iter().flat_map(|&seed| transaction(seed).iter().collect::<Vec<_>>());
        records.skip(usize::try_from(rest).unwrap())
    }
}
