//! What the journal is given to do, and what it says of it: appends, syncs and trims that follow from a seed.

use std::{fmt, path::Path, str::FromStr, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use thinwire_engine::{
    Error,
    codec::{Records, RecordsBuf},
    journal::{Journal, Mark, Mending, Options, Stream},
    model::{Epoch, Lsn, Offset, Origin, Record, RelationId, Row, StreamId, Timestamp, Value},
    storage::disk::RealDisk,
};

/// Stands at the head of every row, so that a write of the journal's bytes is known by them.
pub(crate) const MARK: &[u8; 8] = b"\xF5thinwr\xFA";
/// How many records a transaction has.
pub(crate) const RECORDS: u64 = 3;

/// What the journal told its owner, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It was opened, and holds durably all up to this offset and this mark.
    Opened { last: u64, mark: u64 },
    /// It took a transaction, which follows from this seed.
    Took { seed: u64 },
    /// All up to this offset and this mark is durable.
    Durable { last: u64, mark: u64 },
    /// It is going to let go of what is before this offset.
    Trimming { upto: u64 },
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { last, mark } => write!(f, "opened {last} {mark}"),
            Self::Took { seed } => write!(f, "took {seed} 0"),
            Self::Durable { last, mark } => write!(f, "durable {last} {mark}"),
            Self::Trimming { upto } => write!(f, "trimming {upto} 0"),
        }
    }
}

impl FromStr for Said {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let words: Vec<_> = line.split(' ').collect();
        let [verb, first, second] = words[..] else { return Err(()) };
        let (first, second) = (first.parse().map_err(drop)?, second.parse().map_err(drop)?);
        match verb {
            "opened" => Ok(Self::Opened { last: first, mark: second }),
            "took" => Ok(Self::Took { seed: first }),
            "durable" => Ok(Self::Durable { last: first, mark: second }),
            "trimming" => Ok(Self::Trimming { upto: first }),
            _ => Err(()),
        }
    }
}

/// splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("less than a usize")
    }
}

fn options() -> Options {
    // The smallest segments, so that there are many.
    Options { own: Origin::from_bytes([1; 16]), segment: 64 << 10, budget: 1 << 40 }
}

/// Opens the journal in a folder, with its one stream.
pub(crate) fn open(dir: &Path) -> Result<(Journal, Arc<Stream>), Error> {
    let mut attempts = 0..LOCK_ATTEMPTS;
    let (journal, mut unopened) = loop {
        match Journal::open(Arc::new(RealDisk), dir, options()) {
            // A program that another thread is just starting has our lock open until it runs.
            Err(Error::Locked { .. }) if attempts.next().is_some() => {
                thread::sleep(Duration::from_millis(10));
            }
            opened => break opened?,
        }
    };
    if let Some(unopened) = unopened.pop() {
        return Err(unopened.error);
    }
    let id = StreamId { origin: options().own, epoch: Epoch::from_bytes([2; 16]) };
    let stream = journal.open_stream(id)?;
    Ok((journal, stream))
}

/// What the journal holds durably after it was opened: it may be told to others, so it is as good as acknowledged.
pub(crate) fn opened(stream: &Stream) -> Said {
    Said::Opened { last: stream.watermarks().synced.get(), mark: durable_mark(stream) }
}

/// The mark that is durable; they are numbered.
pub(crate) fn durable_mark(stream: &Stream) -> u64 {
    stream.durable_mark().map_or(0, |mark| mark.lsn.get())
}

/// A transaction of one row, small or large, that nothing can be compressed of.
pub(crate) fn transaction(seed: u64) -> Records {
    let mut random = Random(seed);
    let size = if random.below(3) == 0 { 40_000 } else { 400 };
    let mut row = MARK.to_vec();
    row.extend((0..random.below(size) / 8).flat_map(|_| random.next().to_le_bytes()));
    let new = Row(vec![Value::Bytes(Bytes::from(row))]);
    let mut buf = RecordsBuf::new();
    let time = Timestamp::from_micros(0);
    buf.push(&Record::Begin { xid: 1, lsn: Lsn::new(seed), time });
    buf.push(&Record::Insert { relation: RelationId(1), new });
    buf.push(&Record::Commit { end: Lsn::new(seed) });
    buf.take()
}

/// Appends a transaction.
pub(crate) fn append(
    stream: &Stream,
    random: &mut Random,
    tell: &mut dyn FnMut(Said),
) -> Result<(), Error> {
    let seed = random.next();
    stream.append(transaction(seed))?;
    tell(Said::Took { seed });
    Ok(())
}

/// Makes all that was appended durable, mostly with a mark behind it.
pub(crate) fn sync(
    stream: &Stream,
    random: &mut Random,
    tell: &mut dyn FnMut(Said),
) -> Result<(), Error> {
    if random.below(4) > 0 {
        let lsn = Lsn::new(durable_mark(stream) + 1);
        stream.mark(Mark { lsn, timeline: 1, system: 1, released: false })?;
    }
    let last = stream.sync()?.get();
    tell(Said::Durable { last, mark: durable_mark(stream) });
    Ok(())
}

/// Lets go of whole segments up to somewhere in what is durable.
pub(crate) fn trim(
    stream: &Stream,
    random: &mut Random,
    tell: &mut dyn FnMut(Said),
) -> Result<u64, Error> {
    let held = usize::try_from(stream.watermarks().synced.get()).expect("few records");
    let upto = random.below(held + 1) as u64;
    tell(Said::Trimming { upto });
    stream.trim(Offset::new(upto), true)
}

/// Has a segment written anew: a whole one lacks nothing.
pub(crate) fn mend(stream: &Arc<Stream>, random: &mut Random) -> Result<(), Error> {
    let segments = stream.segments();
    let base = segments[random.below(segments.len())];
    match stream.mend(base).and_then(Mending::finish) {
        // It is the last one, and there is nothing in it to begin another behind.
        Ok(_) | Err(Error::Corrupt { at: 0, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Does any of these.
pub(crate) fn act(
    stream: &Arc<Stream>,
    random: &mut Random,
    tell: &mut dyn FnMut(Said),
) -> Result<(), Error> {
    match random.below(20) {
        0..=9 => append(stream, random, tell),
        10..=16 => sync(stream, random, tell),
        17 => stream.seal(),
        18 => trim(stream, random, tell).map(drop),
        _ => mend(stream, random),
    }
}

/// One minute in all.
const LOCK_ATTEMPTS: u32 = 6_000;
