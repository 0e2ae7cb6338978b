//! Records as databases have them, the same in every run.

use bytes::Bytes;
use thinwire_engine::{
    codec::{Records, RecordsBuf},
    model::{Lsn, Record, RelationId, Row, Timestamp, Value},
};

/// What the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// pgbench's history: short text, digits mostly.
    Pgbench,
    /// An order with its lines as JSON.
    Orders,
    /// A picture in a row, or what was encrypted: bytes that no compression makes less.
    Blobs,
}

impl Rows {
    pub(crate) const ALL: [Self; 3] = [Self::Pgbench, Self::Orders, Self::Blobs];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pgbench => "pgbench, 75 B",
            Self::Orders => "orders, 500 B",
            Self::Blobs => "random, 8 KiB",
        }
    }

    /// Rows of one transaction: what an application commits at a time.
    fn in_transaction(self) -> u64 {
        match self {
            Self::Pgbench => 10,
            Self::Orders => 4,
            Self::Blobs => 1,
        }
    }

    /// Smallest group of records that holds several transactions.
    pub(crate) fn smallest_group(self) -> usize {
        match self {
            Self::Blobs => 16 << 10,
            _ => 0,
        }
    }
}

/// Transactions without end, from a seed.
#[derive(Debug)]
pub(crate) struct Workload {
    rows: Rows,
    random: u64,
    number: u64,
}

/// What is appended before the disk is waited for.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) transactions: Vec<Records>,
    /// The same in one piece.
    pub(crate) bytes: Vec<u8>,
}

impl Group {
    pub(crate) fn records(&self) -> u64 {
        self.transactions.iter().map(|it| u64::from(it.count())).sum()
    }
}

impl Workload {
    pub(crate) fn new(rows: Rows) -> Self {
        Self { rows, random: 1, number: 0 }
    }

    /// Transactions of at least `bytes` in all.
    pub(crate) fn group(&mut self, bytes: usize) -> Group {
        let mut group = Group { transactions: Vec::new(), bytes: Vec::new() };
        while group.bytes.len() < bytes {
            let transaction = self.transaction(self.rows.in_transaction());
            group.bytes.extend_from_slice(transaction.bytes());
            group.transactions.push(transaction);
        }
        group
    }

    pub(crate) fn transaction(&mut self, rows: u64) -> Records {
        let mut buf = RecordsBuf::new();
        self.number += 1;
        let lsn = 0x1_0000_0000 + self.number * 512;
        let xid = u32::try_from(self.number).expect("a run is short");
        let time = Timestamp::from_micros(817_000_000_000_000 + (self.number << 11).cast_signed());
        buf.push(&Record::Begin { xid, lsn: Lsn::new(lsn), time });
        for _ in 0..rows {
            let new = self.row();
            buf.push(&Record::Insert { relation: RelationId(16_397), new });
        }
        buf.push(&Record::Commit { end: Lsn::new(lsn + 48) });
        buf.take()
    }

    fn row(&mut self) -> Row {
        match self.rows {
            Rows::Pgbench => self.pgbench_row(),
            Rows::Orders => self.order(),
            Rows::Blobs => Row(vec![self.number_below(1 << 20), self.blob(8 << 10)]),
        }
    }

    fn pgbench_row(&mut self) -> Row {
        let micros = self.random() % 1_000_000;
        let (second, minute) = (self.number % 60, self.number / 60 % 60);
        Row(vec![
            self.number_below(10_000),
            self.number_below(1_000),
            self.number_below(100_000_000),
            self.number_below(5_000),
            text(format!("2026-11-21 09:{minute:02}:{second:02}.{micros:06}+00")),
            Value::Null,
            text(" ".repeat(8)),
        ])
    }

    fn order(&mut self) -> Row {
        const THINGS: [&str; 8] = [
            "coffee beans, dark",
            "paper cups 200 ml",
            "oat drink",
            "cleaning tablets",
            "sugar sachets",
            "wooden stirrers",
            "filter papers no. 4",
            "cocoa powder",
        ];
        let lines: Vec<String> = (0..4)
            .map(|_| {
                let (sku, count) = (self.random() % 90_000, self.random() % 20 + 1);
                let (cents, thing) = (self.random() % 10_000, self.pick(&THINGS));
                format!("{{\"sku\":\"A-{sku:05}\",\"name\":\"{thing}\",\"n\":{count},\"cents\":{cents}}}")
            })
            .collect();
        let name = format!("Customer {:04}", self.random() % 5_000);
        Row(vec![
            self.number_below(1 << 30),
            text(name),
            text("2026-11-21 09:41:07.114+00".to_owned()),
            text(
                "{\"status\":\"paid\",\"till\":\"north-2\",\"currency\":\"EUR\",\"lines\":["
                    .to_owned(),
            ),
            text(lines.join(",")),
            text("Leave it with the neighbour if nobody opens the door, please.".to_owned()),
        ])
    }

    fn pick(&mut self, things: &[&'static str]) -> &'static str {
        let at = self.random() % things.len() as u64;
        things[usize::try_from(at).expect("below the number of things")]
    }

    fn blob(&mut self, len: usize) -> Value {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.random().to_le_bytes());
        }
        Value::Bytes(Bytes::from(bytes))
    }

    fn number_below(&mut self, bound: u64) -> Value {
        text((self.random() % bound).to_string())
    }

    /// xorshift64*: no pattern that a compressor would find.
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

fn text(text: String) -> Value {
    Value::Bytes(Bytes::from(text))
}
