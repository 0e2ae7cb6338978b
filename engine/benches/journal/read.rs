//! Reading from the page cache, with every checksum on.

use std::{path::Path, sync::Arc};

use thinwire_engine::{journal::Stream, model::Offset};

use crate::{
    Effort,
    disk::WatchedDisk,
    journal::{Temporary, commit},
    machine::{forget_peak, peak_memory},
    meter::Meter,
    report::{Report, Table, Verdict, mega_per_second, micros},
    workload::{Group, Rows, Workload},
};

/// Sizes of the groups that were appended, which are those of the batches that are read.
const GROUPS: [(usize, &str); 3] = [(4 << 10, "4 KiB"), (64 << 10, "64 KiB"), (1 << 20, "1 MiB")];

/// What reading is to reach.
const BYTES_A_SECOND: f64 = 1e9;

/// How many different groups a journal holds.
const DIFFERENT: usize = 32;

pub(crate) fn measure(place: &Path, effort: Effort, report: &mut Report) {
    let mut table = Table::new(
        "Reading a stream from the page cache, every batch checked and unpacked; in MB of records. *Decoded*: each \
         record made into values as well.",
        &[
            "rows",
            "appended in groups of",
            "MB/s",
            "decoded MB/s",
            "CPU µs a record",
            "decoded CPU µs a record",
            "memory",
        ],
    );
    let mut verdict = Verdict::new("At least 1 GB/s, checked and unpacked");
    for rows in Rows::ALL {
        for (bytes, name) in GROUPS {
            if bytes < rows.smallest_group() {
                continue;
            }
            eprintln!("reading {}, groups of {name}", rows.name());
            let (rate, cells) = read(place, rows, bytes, effort);
            let of = format!("{}, {name}", rows.name());
            verdict.judge(of, format!("{} MB/s", cells[0]), rate >= BYTES_A_SECOND);
            table.row(rows.name(), &[&[name.to_owned()], &cells[..]].concat());
        }
    }
    table.verdict(verdict);
    report.add(table);
}

fn read(place: &Path, rows: Rows, bytes: usize, effort: Effort) -> (f64, Vec<String>) {
    let total = effort.pick(256 << 20, 4 << 20);
    let journal = Temporary::new(place, Arc::new(WatchedDisk::lazy()));
    let mut workload = Workload::new(rows);
    let groups: Vec<Group> = (0..DIFFERENT).map(|_| workload.group(bytes)).collect();
    let mut written = 0;
    for group in groups.iter().cycle() {
        commit(&journal.stream, group);
        written += group.bytes.len();
        if written >= total {
            break;
        }
    }
    let (mut plain, mut decoded) = (Meter::default(), Meter::default());
    forget_peak();
    let memory = peak_memory();
    pass(&journal.stream, false);
    let memory = peak_memory().saturating_sub(memory);
    let (mut all, mut records) = (0, 0);
    let passes = effort.pick(7, 2);
    for _ in 0..passes {
        (all, records) = plain.turn(|| pass(&journal.stream, false));
        decoded.turn(|| pass(&journal.stream, true));
    }
    assert_eq!(all, written as u64, "everything is read");
    let rate = all as f64 / plain.median().as_secs_f64();
    let cells = vec![
        mega_per_second(all, plain.median()),
        mega_per_second(all, decoded.median()),
        micros(plain.cpu(), records * passes),
        micros(decoded.cpu(), records * passes),
        format!("+ {:.1} MB", memory as f64 / 1e6),
    ];
    (rate, cells)
}

/// Reads everything; returns the bytes and the records.
fn pass(stream: &Arc<Stream>, decode: bool) -> (u64, u64) {
    let mut reader = stream.read(Offset::FIRST).expect("the stream can be read");
    let (mut bytes, mut records) = (0, 0);
    while let Some(block) = reader.next_block().expect("nothing is corrupt") {
        bytes += block.records.bytes().len() as u64;
        records += u64::from(block.records.count());
        if decode {
            let whole = block.records.decode(block.first).all(|record| record.is_ok());
            assert!(whole, "every record decodes");
        }
    }
    (bytes, records)
}
