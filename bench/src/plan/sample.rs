//! What rows and changes become on the wire: a sample of them goes through the packets that Thinwire would make of it.

use std::io;

use thinwire_engine::codec::{Records, RecordsBuf};
use thinwire_engine::model::{Offset, Record, Relation, Row};
use thinwire_transport::wire::Outlet;

use super::Demand;

/// What was looked at of a database.
#[derive(Debug, Default)]
pub(super) struct Sample {
    pub(super) tables: Vec<Extent>,
    /// Transactions in the order of their commits, as far as they were kept.
    pub(super) transactions: Vec<Records>,
    /// How many there were.
    pub(super) count: u64,
    /// How many times more was changed in them than was kept.
    pub(super) times: f64,
}

/// Some of a table's rows.
#[derive(Debug)]
pub(super) struct Extent {
    pub(super) relation: Relation,
    pub(super) rows: Vec<Row>,
    /// How many it has.
    pub(super) total: f64,
}

impl Sample {
    /// What it asks of a link, if the transactions took so many seconds.
    pub(super) fn demand(&self, seconds: f64) -> io::Result<Demand> {
        let (copy, copied) = self.copy()?;
        let [together, alone] = [false, true].map(|alone| self.changes(copied.clone(), alone));
        Ok(Demand {
            rate: self.count as f64 / seconds,
            bytes_each: together?,
            alone_each: alone?,
            copy_bytes: copy,
        })
    }

    /// What the first copy takes; and the copied rows, which the changes build on.
    fn copy(&self) -> io::Result<(f64, Vec<Records>)> {
        let (mut gauge, mut bytes) = (Gauge::default(), 0.0);
        for Extent { relation, rows, total } in &self.tables {
            gauge.begin();
            gauge.push(&Record::Relation(relation.clone()))?;
            for new in rows {
                gauge.push(&Record::Insert { relation: relation.id, new: new.clone() })?;
            }
            gauge.flush()?;
            let more = (total / rows.len().max(1) as f64 - 1.0).max(0.0);
            bytes += gauge.wire as f64 + gauge.late() * gauge.raw as f64 * more;
        }
        Ok((bytes, gauge.sent))
    }

    /// Bytes of a transaction among many, or alone.
    fn changes(&self, copied: Vec<Records>, alone: bool) -> io::Result<f64> {
        let mut gauge = Gauge::default();
        for records in &copied {
            gauge.pack(records)?;
        }
        gauge.begin();
        for transaction in &self.transactions {
            let records = transaction.decode(Offset::FIRST);
            for record in records.map_while(Result::ok) {
                gauge.push(&record.1)?;
            }
            if alone {
                gauge.flush()?;
            }
        }
        gauge.flush()?;
        let raw = gauge.raw as f64 * self.times.max(1.0);
        Ok(gauge.late() * raw / self.count.max(1) as f64)
    }
}

/// Counts what records take as packets, and as they are.
#[derive(Default)]
struct Gauge {
    outlet: Outlet,
    next: Offset,
    waiting: RecordsBuf,
    packet: Vec<u8>,
    raw: u64,
    wire: u64,
    /// Both behind each packet.
    marks: Vec<(u64, u64)>,
    sent: Vec<Records>,
}

impl Gauge {
    /// Counts from nothing again; what was learnt stays.
    fn begin(&mut self) {
        (self.raw, self.wire) = (0, 0);
        self.marks.clear();
    }

    fn push(&mut self, record: &Record) -> io::Result<()> {
        self.waiting.push(record);
        if self.waiting.bytes_len() >= FRAME_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let records = self.waiting.take();
        self.pack(&records)?;
        self.sent.push(records);
        Ok(())
    }

    fn pack(&mut self, records: &Records) -> io::Result<()> {
        self.packet.clear();
        if self.outlet.fits(records) {
            self.outlet.pack(0, self.next, records, &mut self.packet)?;
        } else {
            self.outlet.stream(records.bytes(), &mut self.packet)?;
            self.outlet.flush(&mut self.packet)?;
        }
        self.next = self.next.forward(records.span());
        self.raw += records.bytes().len() as u64;
        self.wire += self.packet.len() as u64;
        self.marks.push((self.raw, self.wire));
        Ok(())
    }

    /// Bytes in packets for each byte as it is, in the later half of what was counted: the first teaches the packets.
    fn late(&self) -> f64 {
        let half = self.marks.iter().find(|(raw, _)| raw * 2 >= self.raw);
        let (raw, wire) = half.copied().filter(|(raw, _)| *raw < self.raw).unwrap_or_default();
        (self.wire - wire) as f64 / (self.raw - raw).max(1) as f64
    }
}

/// What the sender puts into one packet of a backlog.
const FRAME_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::decoding::{column, relation};
    use crate::random::Random;
    use thinwire_engine::model::{Lsn, Timestamp, Value};

    fn rows(count: u64, seed: u64) -> Vec<Row> {
        let mut random = Random::new(seed);
        let value = |text: String| Value::Bytes(text.into_bytes().into());
        (0..count)
            .map(|id| {
                let digest = format!("{:016x}{:016x}", random.bits(), random.bits());
                Row(vec![value(id.to_string()), value(digest)])
            })
            .collect()
    }

    fn table() -> Relation {
        let mut table = relation("7", "public", "t", "d").unwrap();
        table.columns.push(column("id", true, "20", "-1").unwrap());
        table.columns.push(column("digest", false, "25", "-1").unwrap());
        table
    }

    fn demand(rows: Vec<Row>, total: f64, changes: &[Row]) -> Demand {
        let mut buf = RecordsBuf::new();
        let mut transaction = |(new, at): (&Row, u32)| {
            let (lsn, time) = (Lsn::new(u64::from(at) * 500), Timestamp::from_micros(at.into()));
            buf.push(&Record::Begin { xid: at, lsn, time });
            buf.push(&Record::Update { relation: table().id, old: None, new: new.clone() });
            buf.push(&Record::Commit { end: Lsn::new(lsn.get() + 48) });
            buf.take()
        };
        let transactions: Vec<Records> = changes.iter().zip(1..).map(&mut transaction).collect();
        let count = transactions.len() as u64;
        let tables = vec![Extent { relation: table(), rows, total }];
        Sample { tables, transactions, count, times: 1.0 }.demand(10.0).unwrap()
    }

    #[test]
    fn rows_cost_what_is_new_in_them_and_changes_that_travel_alone_more() {
        let Demand { rate, bytes_each, alone_each, copy_bytes } =
            demand(rows(2_000, 1), 2_000.0, &rows(500, 2));
        assert_eq!(rate, 50.0);
        // 32 random digits are 16 bytes; ids and the rest hardly take any.
        assert!((16.0 * 2_000.0..20.0 * 2_000.0).contains(&copy_bytes), "{copy_bytes}");
        assert!((16.0..20.0).contains(&bytes_each), "{bytes_each}");
        assert!((bytes_each + 2.0..bytes_each + 20.0).contains(&alone_each), "{alone_each}");
    }

    #[test]
    fn what_was_not_looked_at_is_like_what_was() {
        let few = demand(rows(1_000, 1), 10_000.0, &[]);
        let all = demand(rows(10_000, 1), 10_000.0, &[]);
        let off = few.copy_bytes / all.copy_bytes - 1.0;
        assert!(off.abs() < 0.05, "{} for {}", few.copy_bytes, all.copy_bytes);
    }

    #[test]
    fn an_empty_database_asks_for_nothing() {
        let Demand { rate, bytes_each, copy_bytes, .. } = demand(Vec::new(), 0.0, &[]);
        assert_eq!((rate, bytes_each), (0.0, 0.0));
        assert!(copy_bytes < 200.0, "a description of the table: {copy_bytes}");
    }
}
