//! The report as a table on the terminal.

use std::io::{self, Write};
use std::time::Duration;

use indicatif::DecimalBytes;

use super::{Latency, Outcome, Run, Without, share};
use crate::contender::{native, thinwire};
use crate::link::ladder;
use crate::run::scenario::{self, Work};

/// Writes a run as a table of what each contender did.
pub fn print(out: &mut impl Write, run: &Run) -> io::Result<()> {
    let Run { link, workload, scenario, size, unit, .. } = run;
    writeln!(out, "\n{scenario}, {workload} ({size} {unit}), on {link}")?;
    writeln!(
        out,
        "{:<12}{:>10}{:>12}{:>12}{:>12}{:>8}  ",
        "", "seconds", "bytes up", "bytes down", "bytes each", "in use"
    )?;
    for outcome in &run.outcomes {
        writeln!(
            out,
            "{:<12}{:>10}{:>12}{:>12}{:>12.1}{:>7.0}%  {}",
            outcome.contender,
            seconds(outcome),
            outcome.up_bytes,
            outcome.down_bytes,
            each(run, outcome),
            outcome.utilisation() * 100.0,
            remarks(run, outcome)
        )?;
    }
    if let Some(floor) = run.floor {
        writeln!(
            out,
            "{:<12}{:>10}{:>12}{:>12}{:>12.1}{:>8}  of {} of {}",
            "zstd -19",
            "",
            floor.compressed_bytes,
            "",
            share(floor.compressed_bytes, size.to_owned()),
            "",
            DecimalBytes(floor.stream_bytes),
            floored(run)
        )?;
    }
    for line in flush(run).into_iter().chain(verdict(run)) {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "again: {}", run.command)?;
    out.flush()
}

/// What the floor is of.
pub(super) fn floored(run: &Run) -> &'static str {
    let is_copy = scenario::find(&run.scenario).is_some_and(|it| it.work == Work::Copy);
    if is_copy { "rows" } else { "changes" }
}

/// Bytes on the wire for one of the run's unit.
pub(super) fn each(run: &Run, outcome: &Outcome) -> f64 {
    share(outcome.bytes(), run.size)
}

/// The time that it took, or that it had without coming to an end.
pub(crate) fn seconds(outcome: &Outcome) -> String {
    if outcome.finished {
        format!("{:.1}", outcome.seconds)
    } else {
        format!("> {:.0}", outcome.seconds)
    }
}

/// What latencies are compared with.
pub(crate) fn flush(run: &Run) -> Option<String> {
    let flush = run.flush?;
    Some(format!("fdatasync p50 {:.2} ms, p99 {:.2} ms", flush.p50_ms, flush.p99_ms))
}

/// Whether what is durable at both ends before it is applied is as quick as what is only applied, but for the two flushes
/// that this takes, of the same percentile: said where the link is no reason to wait.
pub(crate) fn verdict(run: &Run) -> Option<String> {
    let of = |name: &str| run.outcomes.iter().find(|outcome| outcome.contender == name)?.latency;
    let (ours, theirs, flush) = (of(thinwire::NAME)?, of(native::NAME)?, run.flush?);
    if run.link != ladder::FAST.name {
        return None;
    }
    let judge = |name: &str, of: fn(&Latency) -> f64| {
        let (ours, allowed) = (of(&ours), of(&theirs) + FLUSHES * of(&flush));
        let verdict = if ours <= allowed { "within" } else { "BEYOND" };
        format!("{name} {ours:.1} ms, {verdict} native's and two fdatasyncs: {allowed:.1} ms")
    };
    Some([judge("p50", |it| it.p50_ms), judge("p99", |it| it.p99_ms)].join("; "))
}

/// One in the journal of each end.
const FLUSHES: f64 = 2.0;

/// Everything else that is to be said about an outcome.
pub(crate) fn remarks(run: &Run, outcome: &Outcome) -> String {
    let mut remarks = Vec::new();
    if !outcome.finished {
        let done = outcome.points.last().map_or(0, |point| point.done);
        remarks.push(format!("not finished, {done} done"));
    }
    if let Some(latency) = outcome.latency {
        remarks.push(format!(
            "latency p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms",
            latency.p50_ms, latency.p99_ms, latency.max_ms
        ));
    }
    if !outcome.stalls_ms.is_empty() {
        let seconds = |millis: f64| format!("{:.1}", millis / 1_000.0);
        let stalls: Vec<String> = outcome.stalls_ms.iter().map(|stall| seconds(*stall)).collect();
        let mean = outcome.stalls_ms.iter().sum::<f64>() / outcome.stalls_ms.len() as f64;
        remarks.push(format!(
            "first row {} s after each outage, mean {} s",
            stalls.join(", "),
            seconds(mean)
        ));
    }
    if let Some(settled) = outcome.settled_ms {
        remarks.push(format!("everything {:.1} s after the last", settled / 1_000.0));
    }
    if let Some(beside) = run.beside.as_ref().filter(|beside| beside.is_of(outcome)) {
        let ratio = beside.ratio(outcome);
        remarks.push(match beside.without {
            Without::Outages => format!("{ratio:.2} times the bytes of an uncut run"),
            Without::Losses => format!("{:.1} % of the link carried new bytes", ratio * 100.0),
        });
    }
    if let Some(bytes) = outcome.retained_wal_bytes {
        remarks.push(format!("{} of WAL kept by the source", DecimalBytes(bytes)));
    }
    if run.unit == "seconds" && outcome.seconds > 0.0 {
        let hour =
            Duration::from_secs_f64(outcome.bytes() as f64 * 3_600.0 / outcome.seconds / 1e6);
        let bytes = u64::try_from(hour.as_micros()).unwrap_or(u64::MAX);
        remarks.push(format!("{} an hour", DecimalBytes(bytes)));
    }
    remarks.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_percentile_is_judged_by_natives_and_the_flushes_of_the_same_run() {
        let latency = |p50_ms, p99_ms| Some(Latency { p50_ms, p99_ms, ..Latency::default() });
        let run = |ours, link: &str| {
            let outcome = |name: &str, latency| Outcome {
                contender: name.into(),
                latency,
                ..Outcome::default()
            };
            let native = outcome(native::NAME, latency(11.0, 12.0));
            let outcomes = vec![outcome(thinwire::NAME, ours), native];
            Run { link: link.into(), flush: latency(0.5, 2.0), outcomes, ..Run::default() }
        };
        let judged = |p50, p99| {
            let verdict = verdict(&run(latency(p50, p99), "fast")).unwrap();
            let parts: Vec<&str> = verdict.split("; ").collect();
            assert!(parts[0].starts_with("p50 ") && parts[1].starts_with("p99 "), "{verdict}");
            [parts[0], parts[1]].map(|part| part.contains("within native's"))
        };
        assert_eq!(judged(11.9, 15.9), [true, true]);
        assert_eq!(judged(12.1, 15.9), [false, true]);
        assert_eq!(judged(11.9, 16.1), [true, false]);
        assert_eq!(verdict(&run(latency(11.9, 15.9), "sat")), None, "the link says more");
    }
}
