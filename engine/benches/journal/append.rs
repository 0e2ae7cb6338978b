//! Appending: groups of records made durable, against the system calls alone and a published log.
//!
//! The journal is used as a node uses it: one thread appends the records of a group while another one makes the group
//! before durable.

use std::{
    path::Path,
    sync::{Arc, mpsc::sync_channel},
    thread,
    time::Instant,
};

use thinwire_engine::{journal::Stream, storage::disk::RealDisk};

use crate::{
    Effort,
    journal::{Temporary, append, commit},
    meter::Meter,
    report::{Report, Table, Verdict, mega_per_second, micros, milliseconds},
    rival::{Published, Raw},
    workload::{Group, Rows, Workload},
};

/// What the journal is to reach of the raw system calls, for groups of at least so many bytes.
const OF_RAW: f64 = 0.8;
const OF_RAW_FROM: usize = 64 << 10;

const GROUPS: [(usize, &str); 4] =
    [(4 << 10, "4 KiB"), (64 << 10, "64 KiB"), (256 << 10, "256 KiB"), (1 << 20, "1 MiB")];

/// How many groups a turn has, each of them different, so that no compressor or cache sees the same again soon.
const GROUPS_A_TURN: usize = 16;

/// What one row of the table needs.
#[derive(Debug, Default)]
struct Turns {
    journal: Meter,
    alone: Meter,
    raw: Meter,
    raw_stored: Meter,
    published: Meter,
    /// The syncs of the journal's groups, those of the raw ones with their writes, and whole commits of the published log.
    syncs: Meter,
    raw_syncs: Meter,
    published_commits: Meter,
    bytes: u64,
    stored: u64,
    records: u64,
}

pub(crate) fn measure(place: &Path, effort: Effort, report: &mut Report) {
    let mut table = Table::new(
        "Appending groups of records: one thread gives them to the journal (`append`) while another one makes the group \
         before durable (`sync`), as in a node. *Raw* is one thread that does nothing but `pwrite` and `fdatasync` of \
         the same groups, as they are given to the journal. Where the rows compress, the journal writes less than that: \
         *raw, stored* is `pwrite` and `fdatasync` of only as many bytes as the journal wrote. *One thread* is the \
         journal with `append` and `sync` in turn.",
        &[
            "rows",
            "group",
            "journal MB/s",
            "raw MB/s",
            "journal / raw",
            "journal / raw, stored",
            "one thread / raw",
            "okaywal MB/s",
            "`sync` p50, p99 ms",
            "raw p50, p99 ms",
            "okaywal p50, p99 ms",
            "stored",
            "CPU µs a record (raw)",
        ],
    );
    let mut verdict = Verdict::new("At least 0.8 of raw for groups of 64 KiB and more");
    for rows in Rows::ALL {
        for (bytes, name) in GROUPS {
            if bytes < rows.smallest_group() {
                continue;
            }
            eprintln!("appending {}, groups of {name}", rows.name());
            let turns = take_turns(place, rows, bytes, effort);
            if bytes >= OF_RAW_FROM {
                let of_raw = turns.journal.speed_against(&turns.raw);
                let of = format!("{}, {name}", rows.name());
                verdict.judge(of, format!("{of_raw:.2}"), of_raw >= OF_RAW);
            }
            table.row(
                rows.name(),
                &[name.to_owned()].into_iter().chain(cells(&turns)).collect::<Vec<_>>(),
            );
        }
    }
    table.verdict(verdict);
    report.add(table);
}

fn take_turns(place: &Path, rows: Rows, bytes: usize, effort: Effort) -> Turns {
    let rounds = effort.pick(40, 2);
    let mut workload = Workload::new(rows);
    let groups: Vec<Group> = (0..GROUPS_A_TURN).map(|_| workload.group(bytes)).collect();
    // Random, as what was compressed looks.
    let filler = Workload::new(Rows::Blobs).group(bytes * 2).bytes;
    let journals = [(); 2].map(|()| Temporary::new(place, Arc::new(RealDisk)));
    let [journal, alone] = [&journals[0].stream, &journals[1].stream];
    let (mut raw, mut raw_stored) = (Raw::new(place), Raw::new(place));
    let published = Published::new(place);
    let mut turns = Turns::default();
    let mut stored = bytes;
    for round in 0..rounds {
        // Nobody is always first after the same other.
        let mut order = [0, 1, 2, 3, 4];
        order.rotate_left(round % 5);
        for who in order {
            match who {
                0 => {
                    let before = journal.watermarks().bytes;
                    turns.journal.turn(|| in_step(journal, &groups, &mut turns.syncs));
                    let grown = journal.watermarks().bytes - before;
                    turns.stored += grown;
                    stored = usize::try_from(grown).expect("a turn is small") / GROUPS_A_TURN;
                }
                1 => turns.alone.turn(|| groups.iter().for_each(|group| commit(alone, group))),
                2 => turns.raw.turn(|| {
                    groups.iter().for_each(|it| turns.raw_syncs.turn(|| raw.commit(&it.bytes)));
                }),
                3 => {
                    let bytes = &filler[..stored.min(filler.len())];
                    turns.raw_stored.turn(|| groups.iter().for_each(|_| raw_stored.commit(bytes)));
                }
                _ => turns.published.turn(|| {
                    let commits = &mut turns.published_commits;
                    groups.iter().for_each(|it| commits.turn(|| published.commit(it)));
                }),
            }
        }
        turns.bytes += groups.iter().map(|it| it.bytes.len() as u64).sum::<u64>();
        turns.records += groups.iter().map(Group::records).sum::<u64>();
    }
    turns
}

/// Appends group after group while each one before is made durable: one sync a group.
fn in_step(stream: &Stream, groups: &[Group], syncs: &mut Meter) {
    let (appended, due) = sync_channel(0);
    thread::scope(|scope| {
        scope.spawn(move || {
            for group in groups {
                append(stream, group);
                appended.send(()).expect("the other thread takes each group");
            }
        });
        while due.recv().is_ok() {
            let started = Instant::now();
            stream.sync().expect("the disk takes it");
            syncs.extend([started.elapsed()]);
        }
    });
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
        format!("{:.2}", turns.alone.speed_against(&turns.raw)),
        rate(&turns.published),
        quantiles(&turns.syncs),
        quantiles(&turns.raw_syncs),
        quantiles(&turns.published_commits),
        format!("{:.0} %", 100.0 * turns.stored as f64 / turns.bytes as f64),
        format!(
            "{} ({})",
            micros(turns.journal.cpu(), turns.records),
            micros(turns.raw.cpu(), turns.records)
        ),
    ]
}
