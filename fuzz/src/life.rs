//! A journal's life against a model: appends, syncs, trims, faults of the disk, and power cuts, also while it recovers.
//!
//! What was acknowledged is there, what is there was appended, and a disk that was only cut off or refused never
//! halts a stream.

use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use thinwire_engine::{
    Error,
    journal::{Mark, Stream},
    model::Offset,
    storage::memory::{Fault, MemoryDisk},
};

use crate::disk::{holds, mark, open, transaction};

/// What happens next.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Action {
    Append { rows: u8, size: u8 },
    AppendAgain { back: u8, rows: u8 },
    Mark { released: bool },
    Sync,
    Trim { upto: u16 },
    Read { from: u16 },
    Fail { after: u8, lossy: bool, sticky: bool },
    Full { bytes: u16 },
    Room,
    Killed,
    PowerCut { interruptions: u8 },
}

/// What the journal must hold.
#[derive(Default)]
struct Model {
    records: Vec<Bytes>,
    acked: usize,
    trimmed: usize,
    /// Marks since the last that was acknowledged, which is the first.
    marks: Vec<Option<Mark>>,
    number: u64,
}

/// Lives as the input says.
pub fn live(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let (mut disk, mut model) = (MemoryDisk::new(), Model::new());
    for _ in 0..LIVES_MAX {
        let (journal, stream) = open(&disk).expect("no fault of these halts a stream");
        model.check(&stream);
        let end = model.live(&disk, &stream, &mut input);
        drop((journal, stream));
        disk.heal();
        disk.limit(None);
        match end {
            None => return,
            Some(Action::PowerCut { interruptions }) => {
                disk = cut(&disk, &mut input);
                for number in 0..interruptions % INTERRUPTIONS_MAX {
                    disk.fail(u64::from(number), Fault::Error, true);
                    drop(open(&disk));
                    disk.heal();
                    disk = cut(&disk, &mut input);
                }
            }
            // Only the process was killed: the next one finds what the cache holds.
            Some(_) => {}
        }
    }
}

/// As a power cut leaves the disk; the input chooses.
fn cut(disk: &MemoryDisk, input: &mut Unstructured<'_>) -> MemoryDisk {
    disk.power_cut(&mut |n| input.choose_index(n).unwrap_or_default())
}

impl Model {
    fn new() -> Self {
        Self { marks: vec![None], ..Self::default() }
    }

    /// Acts until the process ends; returns how it does.
    fn live(
        &mut self,
        disk: &MemoryDisk,
        stream: &Arc<Stream>,
        input: &mut Unstructured<'_>,
    ) -> Option<Action> {
        for _ in 0..ACTIONS_MAX {
            if input.is_empty() {
                break;
            }
            match input.arbitrary().ok()? {
                end @ (Action::Killed | Action::PowerCut { .. }) => return Some(end),
                Action::Fail { after, lossy, sticky } => {
                    disk.fail(
                        after.into(),
                        if lossy { Fault::Lossy } else { Fault::Error },
                        sticky,
                    );
                }
                Action::Full { bytes } => disk.limit(Some(usize::from(bytes) * FULL_UNIT)),
                Action::Room => disk.limit(None),
                action => match self.act(stream, action) {
                    Ok(()) | Err(Error::NoSpace { .. }) => {}
                    Err(Error::Io { .. } | Error::Poisoned { .. }) => {}
                    Err(error) => panic!("{error}"),
                },
            }
            if stream.is_poisoned() {
                assert!(stream.sync().is_err(), "acknowledges on top of a failed write");
            }
        }
        (!input.is_empty()).then_some(Action::Killed)
    }

    fn act(&mut self, stream: &Arc<Stream>, action: Action) -> Result<(), Error> {
        match action {
            Action::Append { rows, size } => {
                self.number += 1;
                let records = transaction(self.number, rows, size);
                let appended: Vec<Bytes> = records.iter().collect();
                stream.append(records)?;
                self.records.extend(appended);
            }
            Action::AppendAgain { back, rows } => {
                self.number += 1;
                let held = usize::from(back).min(self.records.len());
                let first = Offset::new((self.records.len() - held) as u64 + 1);
                let records = transaction(self.number, rows, 1);
                let appended: Vec<Bytes> = records.iter().skip(held).collect();
                stream.append_at(first, records)?;
                self.records.extend(appended);
            }
            Action::Mark { released } => {
                self.number += 1;
                let mark = mark(self.number, released);
                stream.mark(mark)?;
                self.marks.push(Some(mark));
            }
            Action::Sync => {
                self.acked = count(stream.sync()?);
                self.marks.drain(..self.marks.len() - 1);
                assert_eq!(self.acked, self.records.len());
                assert_eq!(stream.durable_mark(), self.marks[0]);
                if self.number.is_multiple_of(SEALED_EVERY) {
                    stream.seal()?;
                    assert!(stream.is_sealed());
                }
            }
            Action::Trim { upto } => {
                self.trimmed = self.trimmed.max(usize::from(upto).min(self.acked));
                stream.trim(Offset::new(self.trimmed as u64), true)?;
            }
            Action::Read { from } => {
                let marks = stream.watermarks();
                let from = Offset::new(u64::from(from)).clamp(marks.first, marks.synced.next());
                holds(stream, from, &self.records)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// What was found is what was acknowledged, and perhaps more of what was appended.
    fn check(&mut self, stream: &Arc<Stream>) {
        let marks = stream.watermarks();
        let held = count(marks.synced);
        assert!(held >= self.acked, "{} acknowledged, {held} held", self.acked);
        assert!(held <= self.records.len(), "{held} held, {} appended", self.records.len());
        let first = count(marks.first);
        assert!(first <= self.trimmed + 1, "trimmed to {first}, allowed was {}", self.trimmed);
        holds(stream, marks.first, &self.records).expect("all that is held can be read");
        let mark = stream.durable_mark();
        assert!(self.marks.contains(&mark), "{mark:?} is none of {:?}", self.marks);
        // What was recovered is durable from here on.
        self.records.truncate(held);
        self.acked = held;
        self.marks = vec![mark];
    }
}

fn count(offset: Offset) -> usize {
    usize::try_from(offset.get()).unwrap_or(usize::MAX)
}

/// So that one input does not take for ever.
const LIVES_MAX: usize = 16;
const ACTIONS_MAX: usize = 32;
const INTERRUPTIONS_MAX: u8 = 6;

/// A stream is idle behind one of so many records that it is made durable behind.
const SEALED_EVERY: u64 = 3;

/// What a unit of room on a small disk is, in bytes.
const FULL_UNIT: usize = 16;
