//! What records cost on the wire: packets, and zstd over the records as they are, for rows of different kinds and
//! batches of different sizes. Bytes a transaction, chunk heads and checksums included.
//!
//! A second table has the first hundred transactions of a connection: each way cold, and packets that both ends
//! have primed with the latest transactions before them.
//!
//! The rows are made from a seed and shaped like pgbench's TPC-B, orders with JSON and partial updates, telemetry,
//! and a table of states. Files named on the command line (records with their lengths before them, as a journal's
//! batches hold them) are measured instead.

use std::{
    collections::BTreeMap,
    error::Error,
    io::{self, Write},
    time::Instant,
};

use bytes::Bytes;
use thinwire_engine::{
    codec::{Cursor, Records, RecordsBuf, Tag},
    limits::RECORD_BYTES_MAX,
    model::{Lsn, Offset, Record, RelationId, Row, Timestamp, Value},
};
use thinwire_transport::wire::{Inlet, Outlet};
use zstd::stream::raw::{CParameter, Encoder, Operation, OutBuffer};

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    writeln!(out, "| rows | in a batch | raw | zstd 3 | 6 | 9 | 19 | packets | MB/s |")?;
    writeln!(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
    let files: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for file in &files {
        table(&mut out, file, &split(&Bytes::from(std::fs::read(file)?))?)?;
    }
    if files.is_empty() {
        let makers = [
            ("pgbench", Maker::pgbench as Make),
            ("orders", Maker::order),
            ("telemetry", Maker::telemetry),
            ("states", Maker::state),
        ];
        for (name, make) in makers {
            let mut maker = Maker::new();
            (0..TRANSACTIONS).for_each(|_| maker.transaction(make));
            table(&mut out, name, &maker.done)?;
        }
        writeln!(
            out,
            "\n| rows | raw | rows, zstd 9 | columns, zstd 9 | packets, cold | packets, primed | primed in ms |"
        )?;
        writeln!(out, "| --- | --- | --- | --- | --- | --- | --- |")?;
        for (name, make) in makers {
            let mut maker = Maker::new();
            (0..TRANSACTIONS).for_each(|_| maker.transaction(make));
            reconnected(&mut out, name, &maker.done)?;
        }
    }
    Ok(())
}

/// The row of the second table for one kind of data: bytes of the last hundred transactions.
fn reconnected(out: &mut impl Write, name: &str, all: &[Records]) -> Result<(), Box<dyn Error>> {
    let (before, fresh) = all.split_at(all.len().saturating_sub(100));
    let mut start = before.len();
    let mut room = LEARNT_BYTES;
    while start > 0 && before[start - 1].bytes().len() <= room {
        start -= 1;
        room -= before[start].bytes().len();
    }
    let batches = frames(fresh);
    let raw: usize = batches.iter().map(|records| records.bytes().len()).sum();
    let (rows, columns) =
        (zstd(batches.iter().map(Records::bytes), 9)?, zstd(transposed(&batches)?, 9)?);
    let (cold, _) = packets_after(&[], &batches)?;
    let (primed, took) = packets_after(&before[start..], &batches)?;
    writeln!(out, "| {name} | {raw} | {rows} | {columns} | {cold} | {primed} | {took:.0} |")?;
    Ok(())
}

/// Bytes of packets, read again as they are written, when both ends have learnt from `known`; and the milliseconds
/// that one end took for that.
fn packets_after(known: &[Records], batches: &[Records]) -> Result<(usize, f64), Box<dyn Error>> {
    let (mut outlet, mut inlet) = (Outlet::default(), Inlet::default());
    let (mut first, mut size) = (Offset::FIRST, 0);
    let began = Instant::now();
    outlet.learn(0, first, known.iter().flat_map(Records::iter));
    let took = began.elapsed().as_secs_f64() * 1e3;
    inlet.learn(0, first, known.iter().flat_map(Records::iter));
    for records in batches {
        let mut wire = Vec::new();
        outlet.pack(0, first, records, &mut wire)?;
        first = first.forward(records.span());
        size += wire.len();
        inlet.push(&wire);
        inlet.next_frame()?.ok_or("a packet that cannot be read")?;
    }
    Ok((size, took))
}

/// The same values, those of one column of a batch beside each other.
fn transposed(batches: &[Records]) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut all = Vec::new();
    for records in batches {
        let mut columns: BTreeMap<(u8, u32, usize), Vec<u8>> = BTreeMap::new();
        let mut put = |kind, table, at, text: &[u8]| {
            let column = columns.entry((kind, table, at)).or_default();
            column.extend_from_slice(text);
            column.push(0);
        };
        for record in records.decode(Offset::FIRST) {
            let (kind, relation, row) = match record?.1 {
                Record::Begin { xid, lsn, time } => {
                    for (at, number) in [i64::from(xid), lsn.get().cast_signed(), time.micros()]
                        .into_iter()
                        .enumerate()
                    {
                        put(0, 0, at, number.to_string().as_bytes());
                    }
                    continue;
                }
                Record::Insert { relation, new } => (1, relation, new),
                Record::Update { relation, new, .. } => (2, relation, new),
                _ => continue,
            };
            for (at, value) in row.0.iter().enumerate() {
                put(
                    kind,
                    relation.0,
                    at,
                    if let Value::Bytes(bytes) = value { bytes } else { b"" },
                );
            }
        }
        all.push(columns.into_values().flatten().collect());
    }
    Ok(all)
}

/// The rows of the table for one kind of data; for each transaction its records.
fn table(out: &mut impl Write, name: &str, transactions: &[Records]) -> Result<(), Box<dyn Error>> {
    for batch in [1, 10, 100, transactions.len()] {
        let batches: Vec<Records> = transactions.chunks(batch).flat_map(frames).collect();
        let each = |bytes: usize| bytes as f64 / transactions.len() as f64;
        let raw = batches.iter().map(|records| records.bytes().len()).sum();
        write!(out, "| {name} | {batch} | {:.0} |", each(raw))?;
        for level in [3, 6, 9, 19] {
            write!(out, " {:.1} |", each(zstd(batches.iter().map(Records::bytes), level)?))?;
        }
        let began = Instant::now();
        let packed = packets(&batches)?;
        let speed = raw as f64 / began.elapsed().as_secs_f64() / 1e6;
        writeln!(out, " {:.1} | {speed:.1} |", each(packed))?;
    }
    Ok(())
}

/// Transactions put together, up to the size of a frame.
fn frames(transactions: &[Records]) -> Vec<Records> {
    let (mut frames, mut buf) = (Vec::new(), RecordsBuf::new());
    for records in transactions {
        buf.append(records);
        if buf.bytes_len() >= FRAME_BYTES {
            frames.push(buf.take());
        }
    }
    if !buf.is_empty() {
        frames.push(buf.take());
    }
    frames
}

/// One zstd stream, flushed a batch.
fn zstd<B: AsRef<[u8]>>(batches: impl IntoIterator<Item = B>, level: i32) -> io::Result<usize> {
    let mut encoder = Encoder::new(level)?;
    encoder.set_parameter(CParameter::WindowLog(20))?;
    let (mut size, mut piece) = (0, vec![0; 1 << 20]);
    for batch in batches {
        let mut input = zstd::stream::raw::InBuffer::around(batch.as_ref());
        let mut output = OutBuffer::around(&mut piece[..]);
        encoder.run(&mut input, &mut output)?;
        while encoder.flush(&mut output)? > 0 {}
        size += output.as_slice().len();
    }
    Ok(size)
}

/// Packets, read again as they are written.
fn packets(batches: &[Records]) -> Result<usize, Box<dyn Error>> {
    let (mut outlet, mut inlet) = (Outlet::default(), Inlet::default());
    let (mut first, mut size) = (Offset::FIRST, 0);
    for records in batches {
        let mut wire = Vec::new();
        outlet.pack(0, first, records, &mut wire)?;
        first = first.forward(records.span());
        size += wire.len();
        inlet.push(&wire);
        inlet.next_frame()?.ok_or("a packet that cannot be read")?;
    }
    Ok(size)
}

/// The transactions of a recorded stream.
fn split(bytes: &Bytes) -> Result<Vec<Records>, Box<dyn Error>> {
    let (mut cursor, mut buf, mut all) = (Cursor::new(bytes), RecordsBuf::new(), Vec::new());
    while cursor.remaining() > 0 {
        let length = cursor.length(RECORD_BYTES_MAX)?;
        let record = cursor.take(length)?;
        buf.push_encoded(&record, 1);
        if Tag::of(&record)? == Tag::Commit {
            all.push(buf.take());
        }
    }
    Ok(all)
}

/// Makes the rows of a transaction.
type Make = fn(&mut Maker);

/// Makes transactions.
struct Maker {
    seed: u64,
    buf: RecordsBuf,
    done: Vec<Records>,
    xid: u32,
    lsn: u64,
    micros: i64,
    ids: usize,
    balances: Vec<i64>,
    states: Vec<[usize; 4]>,
}

impl Maker {
    fn new() -> Self {
        Self {
            seed: 1,
            buf: RecordsBuf::new(),
            done: Vec::new(),
            xid: 700,
            lsn: 0x1_5A3C_0000,
            micros: 800_000_000_000_000,
            ids: 0,
            balances: vec![0; ACCOUNTS + 11],
            states: vec![[0, 100, 0, 0]; DEVICES],
        }
    }

    /// A number below `end`, and the next place of the sequence (splitmix64).
    fn below(&mut self, end: usize) -> usize {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        usize::try_from((mixed ^ (mixed >> 29)) % end as u64).unwrap_or_default()
    }

    fn transaction(&mut self, make: Make) {
        self.xid += 1;
        self.lsn += 400 + 8 * self.below(600) as u64;
        self.micros += 500 + i64::try_from(self.below(6_000)).unwrap_or_default();
        let time = Timestamp::from_micros(self.micros);
        self.buf.push(&Record::Begin { xid: self.xid, lsn: Lsn::new(self.lsn), time });
        make(self);
        self.lsn += 48;
        self.buf.push(&Record::Commit { end: Lsn::new(self.lsn) });
        self.done.push(self.buf.take());
    }

    fn insert(&mut self, table: u32, values: Vec<String>) {
        self.buf.push(&Record::Insert { relation: RelationId(table), new: row(values) });
    }

    fn update(&mut self, table: u32, values: Vec<String>) {
        let relation = RelationId(table);
        self.buf.push(&Record::Update { relation, old: None, new: row(values) });
    }

    fn pgbench(&mut self) {
        let account = self.below(ACCOUNTS);
        let teller = ACCOUNTS + self.below(10);
        let delta = i64::try_from(self.below(10_000)).unwrap_or_default() - 5_000;
        for (table, at, key) in
            [(1, account, account), (2, teller, teller - ACCOUNTS), (3, ACCOUNTS + 10, 0)]
        {
            self.balances[at] += delta;
            let (key, balance) = ((key + 1).to_string(), self.balances[at].to_string());
            let values = match table {
                3 => vec![key, balance, "null".into()],
                1 => vec![key, "1".into(), balance, " ".repeat(84)],
                _ => vec![key, "1".into(), balance, "null".into()],
            };
            self.update(table, values);
        }
        let (teller, account) = ((teller - ACCOUNTS + 1).to_string(), (account + 1).to_string());
        let at = self.time(6);
        self.insert(4, vec![teller, "1".into(), account, delta.to_string(), at, "null".into()]);
    }

    fn order(&mut self) {
        if self.ids > 10 && self.below(2) == 0 {
            let id = self.ids - self.below(10);
            let status = ["paid", "packed", "shipped"][self.below(3)];
            let details = self.details(id, &format!(", \"grams\": {}", self.seed % 20_000));
            self.update(5, vec![id.to_string(), status.into(), details, note(id)]);
        } else {
            self.ids += 1;
            let details = self.details(self.ids, "");
            let id = self.ids;
            self.insert(5, vec![id.to_string(), "new".into(), details, note(id)]);
            for line in 1..2 + self.below(3) {
                let product = self.below(14);
                let name =
                    format!("Product number {product}, the {} one", ["red", "blue"][product % 2]);
                let price = format!("{}.{:02}", product * 7, product * 13 % 100);
                let quantity = (1 + self.below(6)).to_string();
                self.insert(6, vec![id.to_string(), line.to_string(), name, quantity, price]);
            }
        }
    }

    fn details(&mut self, id: usize, more: &str) -> String {
        let channel = ["web", "phone", "counter"][id % 3];
        format!(
            "{{\"gift\": {}, \"slot\": \"{:02}:00\", \"channel\": \"{channel}\", \"voucher\": \"{:08X}\"{more}}}",
            id.is_multiple_of(7),
            8 + id % 9,
            id.wrapping_mul(2_654_435_761) & 0xFFFF_FFFF
        )
    }

    fn telemetry(&mut self) {
        for _ in 0..1 + self.below(5) {
            self.ids += 1;
            let (sensor, at) = (self.below(50), self.time(3));
            let celsius = format!("{}.{:03}", 20 + sensor % 5, 400 + self.below(200));
            let humidity = format!("{}.{:02}", 38 + self.below(5), self.below(100));
            let site = format!("{:08x}-1234-4abc-9def-0123456789ab", sensor % 5);
            let values =
                vec![self.ids.to_string(), sensor.to_string(), at, celsius, humidity, site];
            self.insert(7, values);
        }
    }

    fn state(&mut self) {
        let at = self.below(DEVICES);
        match self.below(3) {
            0 => self.states[at][0] = self.below(4),
            1 => self.states[at][1] = self.states[at][1].saturating_sub(1),
            _ => self.states[at][2] += self.below(20),
        }
        let [state, battery, counter, _] = self.states[at];
        let state = ["idle", "moving", "charging", "fault"][state];
        let config = format!("{{\"interval\": {}, \"mode\": \"auto\"}}", at % 60);
        let (battery, counter, seen) = (battery.to_string(), counter.to_string(), self.time(3));
        let id = at.to_string();
        self.update(
            8,
            vec![id, format!("device-{at}"), state.into(), battery, seen, config, counter],
        );
    }

    /// A moment of today, with so many digits behind the second.
    fn time(&self, digits: u32) -> String {
        let micros = self.micros - 300;
        let second = micros / 1_000_000 % 86_400;
        let behind = micros % 1_000_000 / 10_i64.pow(6 - digits);
        let behind = format!("{behind:0width$}", width = digits as usize);
        let (hours, minutes, seconds) = (second / 3_600, second / 60 % 60, second % 60);
        let text = format!("2025-05-08 {hours:02}:{minutes:02}:{seconds:02}.{behind}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// A row of texts; `null` is one.
fn row(values: Vec<String>) -> Row {
    let value = |text: String| match text.as_str() {
        "null" => Value::Null,
        _ => Value::Bytes(text.into_bytes().into()),
    };
    Row(values.into_iter().map(value).collect())
}

fn note(id: usize) -> String {
    const NOTES: [&str; 5] = [
        "Leave it with the harbour master.",
        "null",
        "Same as last month. Needed before we sail on Thursday!",
        "null",
        "Substitute if out of stock.",
    ];
    NOTES[id % NOTES.len()].into()
}

/// As a sender primes.
const LEARNT_BYTES: usize = 256 << 10;

const TRANSACTIONS: usize = 2_000;
const ACCOUNTS: usize = 100_000;
const DEVICES: usize = 2_000;

/// As the sender cuts them.
const FRAME_BYTES: usize = 16 << 10;
