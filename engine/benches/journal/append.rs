//! Appending: groups of records made durable, against the system calls alone and a published log.

use std::{path::Path, sync::Arc};

use thinwire_engine::storage::disk::RealDisk;

use crate::{
    Effort,
    journal::{Temporary, commit},
    meter::Meter,
    report::{Report, Table, mega_per_second, micros, milliseconds},
    rival::{Published, Raw},
    workload::{Group, Rows, Workload},
};

const GROUPS: [(usize, &str); 4] =
    [(4 << 10, "4 KiB"), (64 << 10, "64 KiB"), (256 << 10, "256 KiB"), (1 << 20, "1 MiB")];

/// How many different groups there are, so that no compressor or cache sees the same again soon.
const DIFFERENT: usize = 16;

/// What one row of the table needs.
#[derive(Debug, Default)]
struct Turns {
    journal: Meter,
    raw: Meter,
    raw_stored: Meter,
    published: Meter,
    bytes: u64,
    stored: u64,
    records: u64,
}

pub(crate) fn measure(place: &Path, effort: Effort, report: &mut Report) {
    let mut table = Table::new(
        "Appending: `append` and `sync` of groups of records, against `pwrite` and `fdatasync` of the same bytes. \
         Where the rows compress, the journal writes less than was given to it: *raw, stored* is `pwrite` and \
         `fdatasync` of only as many bytes as the journal wrote.",
        &[
            "rows",
            "group",
            "journal MB/s",
            "raw MB/s",
            "journal / raw",
            "journal / raw, stored",
            "okaywal MB/s",
            "journal p50, p99 ms",
            "raw p50, p99 ms",
            "stored",
            "CPU µs a record (raw)",
        ],
    );
    for rows in Rows::ALL {
        for (bytes, name) in GROUPS {
            if bytes < rows.smallest_group() {
                continue;
            }
            eprintln!("appending {}, groups of {name}", rows.name());
            let turns = take_turns(place, rows, bytes, effort);
            table.row(
                rows.name(),
                &[name.to_owned()].into_iter().chain(cells(&turns)).collect::<Vec<_>>(),
            );
        }
    }
    report.add(table);
}

fn take_turns(place: &Path, rows: Rows, bytes: usize, effort: Effort) -> Turns {
    let rounds = effort.pick(300, 5);
    let mut workload = Workload::new(rows);
    let groups: Vec<Group> = (0..DIFFERENT).map(|_| workload.group(bytes)).collect();
    // Random, as what was compressed looks.
    let filler = Workload::new(Rows::Blobs).group(bytes * 2).bytes;
    let journal = Temporary::new(place, Arc::new(RealDisk));
    let (mut raw, mut raw_stored) = (Raw::new(place), Raw::new(place));
    let published = Published::new(place);
    let mut turns = Turns::default();
    for round in 0..rounds {
        let group = &groups[round % groups.len()];
        let before = journal.stream.watermarks().bytes;
        let mut stored = group.bytes.len();
        // Nobody is always first after the same other.
        let mut order = [0, 1, 2, 3];
        order.rotate_left(round % 4);
        for who in order {
            match who {
                0 => {
                    turns.journal.turn(|| commit(&journal.stream, group));
                    let grown = journal.stream.watermarks().bytes - before;
                    turns.stored += grown;
                    stored = usize::try_from(grown).expect("a group is small");
                }
                1 => turns.raw.turn(|| raw.commit(&group.bytes)),
                2 => {
                    let bytes = &filler[..stored.min(filler.len())];
                    turns.raw_stored.turn(|| raw_stored.commit(bytes));
                }
                _ => turns.published.turn(|| published.commit(group)),
            }
        }
        turns.bytes += group.bytes.len() as u64;
        turns.records += group.records();
    }
    turns
}

fn cells(turns: &Turns) -> Vec<String> {
    let rounds = turns.journal.count();
    let rate = |meter: &Meter| mega_per_second(turns.bytes / rounds, meter.median());
    let quantiles = |meter: &Meter| {
        format!("{}, {}", milliseconds(meter.median()), milliseconds(meter.quantile(0.99)))
    };
    vec![
        rate(&turns.journal),
        rate(&turns.raw),
        format!("**{:.2}**", turns.journal.speed_against(&turns.raw)),
        format!("{:.2}", turns.journal.speed_against(&turns.raw_stored)),
        rate(&turns.published),
        quantiles(&turns.journal),
        quantiles(&turns.raw),
        format!("{:.0} %", 100.0 * turns.stored as f64 / turns.bytes as f64),
        format!(
            "{} ({})",
            micros(turns.journal.cpu(), turns.records),
            micros(turns.raw.cpu(), turns.records)
        ),
    ]
}
