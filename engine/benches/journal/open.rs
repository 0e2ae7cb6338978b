//! Opening a large journal, cold.

use std::{path::Path, sync::Arc};

use thinwire_engine::{
    journal::inspect,
    storage::{Disk, disk::RealDisk},
};

use crate::{
    Effort,
    disk::WatchedDisk,
    journal::{SEGMENT_BYTES, commit, folder, open},
    meter::Meter,
    report::{Report, Table, milliseconds},
    workload::{Group, Rows, Workload},
};

/// How many groups there are; each is appended many times.
const DIFFERENT: usize = 8;

pub(crate) fn measure(place: &Path, effort: Effort, report: &mut Report) {
    let mut table = Table::new(
        "Opening a journal whose segments are 64 MiB and were put out of the page cache, its last segment full of \
         records.",
        &["journal", "on disk", "segments", "to open, ms"],
    );
    for (name, rows, bytes) in [
        ("small", Rows::Blobs, effort.pick(100_u64 << 20, 1 << 20)),
        ("large", Rows::Blobs, effort.pick(10_000_000_000, 70 << 20)),
        ("large, pgbench rows at its end", Rows::Pgbench, effort.pick(10_000_000_000, 70 << 20)),
    ] {
        eprintln!("opening a {name} journal");
        table.row(name, &reopened(place, rows, bytes, effort));
    }
    report.add(table);
}

fn reopened(place: &Path, end: Rows, bytes: u64, effort: Effort) -> Vec<String> {
    let dir = folder(place);
    fill(dir.path(), end, bytes);
    let mut meter = Meter::default();
    let (mut on_disk, mut segments) = (0, 0);
    for _ in 0..effort.pick(5, 2) {
        segments = forget(dir.path());
        let (journal, stream) = meter.turn(|| open(dir.path(), Arc::new(RealDisk)));
        on_disk = stream.watermarks().bytes;
        drop((stream, journal));
    }
    vec![
        format!("{:.1} GB", on_disk as f64 / 1e9),
        segments.to_string(),
        format!("**{}**", milliseconds(meter.median())),
    ]
}

/// Fills a journal with random rows, and its last segment, almost whole, with the rows wanted.
fn fill(dir: &Path, end: Rows, bytes: u64) {
    let (_journal, stream) = open(dir, Arc::new(WatchedDisk::lazy()));
    let push = |rows, upto: u64| {
        let mut workload = Workload::new(rows);
        let groups: Vec<Group> = (0..DIFFERENT).map(|_| workload.group(1 << 20)).collect();
        for group in groups.iter().cycle() {
            if stream.watermarks().bytes >= upto {
                break;
            }
            commit(&stream, group);
        }
    };
    push(Rows::Blobs, bytes.next_multiple_of(SEGMENT_BYTES) - SEGMENT_BYTES);
    push(end, bytes.next_multiple_of(SEGMENT_BYTES) - SEGMENT_BYTES / 32);
}

/// Writes what the cache holds to the device and drops it; returns the number of segments.
fn forget(dir: &Path) -> usize {
    let streams = inspect::stream_dirs(&RealDisk, dir).expect("the journal is there");
    let mut segments = 0;
    for stream in &streams {
        for name in RealDisk.list(stream).expect("the folder can be listed") {
            let file = RealDisk.open(&stream.join(name), true).expect("the segment opens");
            file.sync_data().expect("the disk takes it");
            file.forget_cached().expect("the cache can be emptied");
            segments += 1;
        }
    }
    segments
}
