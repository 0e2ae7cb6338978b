//! What one write holds: staged records gathered into batches, behind what is on disk.

use super::{
    Mark,
    format::{BatchHeader, Kind},
    segment::{Segment, encode_state, put_batch},
};
use crate::{
    codec::{Records, RecordsBuf},
    limits::BATCH_BYTES,
    model::{Offset, Running},
    mutant::{self, Mutant},
};

/// What waits for the disk.
#[derive(Debug)]
pub(super) enum Staged {
    Records(Records),
    Mark(Mark),
}

/// What the next batch continues.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) position: u64,
    pub(super) chain: u32,
    pub(super) next: Offset,
    pub(super) running: Running,
}

/// Appends the batches that hold what is staged to `out`; returns the end behind them. Small runs of records are
/// gathered into batches of the usual size, and none is split.
pub(super) fn put_group(
    segment: &Segment,
    end: End,
    synced: Offset,
    staged: &[Staged],
    out: &mut Vec<u8>,
) -> End {
    let mut group = Group { segment, synced, end, out };
    let (mut run, mut bytes) = (Vec::new(), 0);
    for item in staged {
        match item {
            Staged::Mark(mark) => {
                group.put_run(&mut run);
                if !mutant::on(Mutant::MarkForgotten) {
                    group.put(Kind::Mark, &encode_state(mark), 0);
                }
                bytes = 0;
            }
            Staged::Records(records) => {
                let more = records.bytes().len();
                if more >= BATCH_BYTES {
                    group.put_run(&mut run);
                    bytes = 0;
                }
                run.push(records);
                bytes += more;
                if bytes >= BATCH_BYTES {
                    group.put_run(&mut run);
                    bytes = 0;
                }
            }
        }
    }
    group.put_run(&mut run);
    group.end
}

struct Group<'a> {
    segment: &'a Segment,
    synced: Offset,
    end: End,
    out: &'a mut Vec<u8>,
}

impl Group<'_> {
    /// Makes one batch of what was gathered; none remains.
    fn put_run(&mut self, run: &mut Vec<&Records>) {
        match run[..] {
            [] => {}
            [records] => self.put_records(records),
            _ => self.put_records(&RecordsBuf::concat(run)),
        }
        run.clear();
    }

    fn put_records(&mut self, records: &Records) {
        self.put(Kind::Records, records.bytes(), records.count());
        self.end.next = self.end.next.forward(records.span());
        self.end.running = records.running(self.end.running);
    }

    fn put(&mut self, kind: Kind, payload: &[u8], records: u32) {
        let End { next, running, chain, .. } = self.end;
        let header = BatchHeader::new(kind, (next, running), records, self.synced, chain);
        let before = self.out.len();
        self.end.chain = put_batch(self.segment, self.end.position, header, payload, self.out);
        self.end.position += (self.out.len() - before) as u64;
    }
}
