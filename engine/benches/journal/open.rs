//! Opening a large journal, cold.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use thinwire_engine::{
    journal::inspect,
    storage::{Disk, disk::RealDisk},
};

use crate::{
    Effort,
    disk::WatchedDisk,
    journal::{SEGMENT_BYTES, commit, folder, open},
    meter::Meter,
    report::{Report, Table, Verdict, milliseconds},
    workload::{Group, Rows, Workload},
};

/// What opening may take.
const OPEN_MAX: Duration = Duration::from_secs(1);

/// How many groups there are; each is appended many times.
const DIFFERENT: usize = 8;

pub(crate) fn measure(place: &Path, effort: Effort, report: &mut Report) {
    let mut table = Table::new(
        "Opening a journal of segments of 64 MiB that were put out of the page cache, the last one almost full of pgbench \
         rows. All of that one is read, checked and unpacked; of the others the lengths.",
        &["journal", "on disk", "segments", "to open, ms"],
    );
    let mut verdict = Verdict::new("Open within 1 s");
    for (name, bytes) in
        [("of one segment", 1), ("of 10 GB", effort.pick(10_000_000_000, SEGMENT_BYTES + 1))]
    {
        eprintln!("opening a journal {name}");
        let (took, cells) = reopened(place, bytes, effort);
        verdict.judge(name.to_owned(), format!("{} ms", milliseconds(took)), took <= OPEN_MAX);
        table.row(name, &cells);
    }
    table.verdict(verdict);
    report.add(table);
}

fn reopened(place: &Path, bytes: u64, effort: Effort) -> (Duration, Vec<String>) {
    let dir = folder(place);
    fill(dir.path(), bytes);
    let mut meter = Meter::default();
    let (mut on_disk, mut segments) = (0, 0);
    for _ in 0..effort.pick(5, 2) {
        segments = forget(dir.path());
        let (journal, stream) = meter.turn(|| open(dir.path(), Arc::new(RealDisk)));
        on_disk = stream.watermarks().bytes;
        drop((stream, journal));
    }
    let cells = vec![
        format!("{:.1} GB", on_disk as f64 / 1e9),
        segments.to_string(),
        format!("**{}**", milliseconds(meter.median())),
    ];
    (meter.median(), cells)
}

/// Makes a journal of at least `bytes`: random rows, and in its last segment, almost full, those of pgbench, which are
/// the most records.
fn fill(dir: &Path, bytes: u64) {
    let (_journal, stream) = open(dir, Arc::new(WatchedDisk::lazy()));
    let push = |rows, is_enough: &dyn Fn() -> bool| {
        let mut workload = Workload::new(rows);
        let groups: Vec<Group> = (0..DIFFERENT).map(|_| workload.group(1 << 20)).collect();
        groups.iter().cycle().take_while(|_| !is_enough()).for_each(|group| commit(&stream, group));
    };
    let others = bytes.div_ceil(SEGMENT_BYTES) - 1;
    push(Rows::Blobs, &|| segments(dir).len() as u64 > others);
    push(Rows::Pgbench, &|| last_length(dir) >= SEGMENT_BYTES - SEGMENT_BYTES / 32);
}

/// The segments in a journal, in their order.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let streams = inspect::stream_dirs(&RealDisk, dir).expect("the journal is there");
    let names = |dir: &PathBuf| RealDisk.list(dir).expect("the folder can be listed");
    let streams = streams.expect("it is a journal");
    let mut paths: Vec<_> =
        streams.iter().flat_map(|dir| names(dir).into_iter().map(|name| dir.join(name))).collect();
    paths.sort_unstable();
    paths
}

fn last_length(dir: &Path) -> u64 {
    let last = segments(dir).pop().expect("a stream has a segment");
    let file = RealDisk.open(&last, false).expect("the segment opens");
    file.len().expect("it has a length")
}

/// Writes what the cache holds to the device and drops it; returns the number of segments.
fn forget(dir: &Path) -> usize {
    let segments = segments(dir);
    for segment in &segments {
        let file = RealDisk.open(segment, true).expect("the segment opens");
        file.sync_data().expect("the disk takes it");
        file.forget_cached().expect("the cache can be emptied");
    }
    segments.len()
}
