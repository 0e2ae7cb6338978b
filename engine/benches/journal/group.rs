//! Group commit: many producers, one write and one fdatasync a group, flat memory.

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use thinwire_engine::{codec::Records, journal::Stream};

use crate::{
    Effort,
    disk::WatchedDisk,
    journal::Temporary,
    machine::{forget_peak, peak_memory},
    meter::Meter,
    report::{Report, Table, Verdict, milliseconds},
    workload::{Rows, Workload},
};

const PRODUCERS: [u64; 4] = [1, 4, 16, 64];
/// What a run may take in memory, whatever the number of producers: half of what a whole node is promised to.
const MEMORY_MAX: u64 = 32 << 20;
/// How many different transactions are committed in turn.
const DIFFERENT: u64 = 64;

pub(crate) fn measure(place: &Path, effort: Effort, report: &mut Report) {
    let mut waiting = Table::new(
        "Group commit: so many threads, each of which appends a transaction of one pgbench row and waits until it is \
         durable. Writes and fdatasyncs are counted below the journal.",
        &[
            "producers",
            "commits/s",
            "p50, p99 ms",
            "commits a write",
            "commits an fdatasync",
            "memory",
        ],
    );
    let mut flood = Table::new(
        "The same, but a thread waits only when 1 MiB waits for the disk.",
        &["producers", "commits/s", "MB/s", "commits a write", "commits an fdatasync", "memory"],
    );
    let one_sync =
        || Verdict::new("One write and one fdatasync a group, whatever the number of producers");
    let mut verdicts = [one_sync(), one_sync()];
    for producers in PRODUCERS {
        eprintln!("{producers} producers");
        let name = producers.to_string();
        let run = Run::of(place, producers, effort, commit);
        let mut meter = Meter::default();
        meter.extend(run.times.iter().copied());
        let quantiles = [meter.median(), meter.quantile(0.99)].map(milliseconds).join(", ");
        run.judge(&name, &mut verdicts[0]);
        waiting.row(&name, &run.cells(quantiles));
        let run = Run::of(place, producers, effort, append);
        let rate = format!("{:.0}", run.bytes as f64 / 1e6 / run.took.as_secs_f64());
        run.judge(&name, &mut verdicts[1]);
        flood.row(&name, &run.cells(rate));
    }
    let [for_waiting, for_flood] = verdicts;
    waiting.verdict(for_waiting);
    flood.verdict(for_flood);
    report.add(waiting);
    report.add(flood);
}

fn commit(stream: &Stream, records: &Records) {
    stream.append(records.clone()).expect("there is room");
    stream.sync().expect("the disk takes it");
}

fn append(stream: &Stream, records: &Records) {
    stream.append(records.clone()).expect("there is room");
    if stream.is_congested() {
        stream.sync().expect("the disk takes it");
    }
}

/// Producers at work for a while.
#[derive(Debug)]
struct Run {
    times: Vec<Duration>,
    took: Duration,
    bytes: u64,
    commits: u64,
    writes: u64,
    syncs: u64,
    memory: u64,
}

impl Run {
    fn of(place: &Path, producers: u64, effort: Effort, work: fn(&Stream, &Records)) -> Self {
        let long = effort.pick(Duration::from_secs(4), Duration::from_millis(200));
        let disk = WatchedDisk::default();
        let journal = Temporary::new(place, Arc::new(disk.clone()));
        let mut workload = Workload::new(Rows::Pgbench);
        let pool: Vec<Records> = (0..DIFFERENT).map(|_| workload.transaction(1)).collect();
        let times = TIMES_MAX / usize::try_from(producers).expect("there are few");
        let before = disk.counts();
        forget_peak();
        let memory = peak_memory();
        let started = Instant::now();
        let outcomes: Vec<_> = thread::scope(|scope| {
            let spawn = |_| scope.spawn(|| produce(&journal.stream, &pool, long, times, work));
            let threads: Vec<_> = (0..producers).map(spawn).collect();
            threads.into_iter().map(|it| it.join().expect("a producer ends well")).collect()
        });
        journal.stream.sync().expect("the disk takes it");
        let (took, after) = (started.elapsed(), disk.counts());
        let memory = peak_memory().saturating_sub(memory);
        assert!(memory <= MEMORY_MAX, "{memory} bytes more for {producers} producers");
        Self {
            took,
            bytes: outcomes.iter().map(|it| it.bytes).sum(),
            commits: outcomes.iter().map(|it| it.commits).sum(),
            times: outcomes.into_iter().flat_map(|it| it.times).collect(),
            writes: after.0 - before.0,
            syncs: after.1 - before.1,
            memory,
        }
    }

    /// Nothing but groups is written here.
    fn judge(&self, producers: &str, verdict: &mut Verdict) {
        let (writes, syncs) = (self.writes, self.syncs);
        let counted = format!("{writes} writes, {syncs} fdatasyncs");
        verdict.judge(format!("{producers} producers"), counted, writes == syncs);
    }

    fn cells(&self, own: String) -> Vec<String> {
        vec![
            format!("{:.0}", self.commits as f64 / self.took.as_secs_f64()),
            own,
            format!("{:.1}", self.commits as f64 / self.writes as f64),
            format!("{:.1}", self.commits as f64 / self.syncs as f64),
            format!("+ {:.1} MB", self.memory as f64 / 1e6),
        ]
    }
}

#[derive(Debug, Default)]
struct Outcome {
    times: Vec<Duration>,
    commits: u64,
    bytes: u64,
}

/// How many times all producers keep together: what is kept is memory too.
const TIMES_MAX: usize = 1 << 16;

fn produce(
    stream: &Stream,
    pool: &[Records],
    long: Duration,
    times: usize,
    work: fn(&Stream, &Records),
) -> Outcome {
    let mut outcome = Outcome::default();
    outcome.times.reserve(times);
    let began = Instant::now();
    for records in pool.iter().cycle() {
        let started = Instant::now();
        if started.duration_since(began) >= long {
            break;
        }
        work(stream, records);
        if outcome.times.len() < times {
            outcome.times.push(started.elapsed());
        }
        outcome.commits += 1;
        outcome.bytes += records.bytes().len() as u64;
    }
    outcome
}
