//! The report as CSV: a line for each contender in each run.

use super::{Latency, Outcome, Run, Without, terminal};

/// All runs, with a heading. What was not measured is empty.
pub(super) fn of(runs: &[Run]) -> String {
    let mut text = HEADING.join(",") + "\n";
    for run in runs {
        for outcome in &run.outcomes {
            let fields =
                [scene(run), work(run, outcome), quality(run, outcome), against(run, outcome)];
            text += &fields.concat().join(",");
            text.push('\n');
        }
    }
    text
}

/// What it was about.
fn scene(run: &Run) -> Vec<String> {
    vec![
        quoted(&run.link),
        run.workload.clone(),
        run.scenario.clone(),
        run.size.to_string(),
        run.unit.clone(),
        run.emulator.clone(),
        run.seed.to_string(),
    ]
}

/// What was done.
fn work(run: &Run, outcome: &Outcome) -> Vec<String> {
    vec![
        outcome.contender.clone(),
        outcome.finished.to_string(),
        format!("{:.3}", outcome.seconds),
        outcome.up_bytes.to_string(),
        outcome.down_bytes.to_string(),
        format!("{:.2}", terminal::each(run, outcome)),
        outcome.capacity_bytes.to_string(),
        format!("{:.4}", outcome.utilisation()),
    ]
}

/// How it was to those who waited.
fn quality(run: &Run, outcome: &Outcome) -> Vec<String> {
    let latency = |part: fn(&Latency) -> f64| told(outcome.latency.as_ref().map(part));
    let flush = |part: fn(&Latency) -> f64| told(run.flush.as_ref().map(part));
    let stalls: Vec<String> = outcome.stalls_ms.iter().map(|stall| format!("{stall:.0}")).collect();
    vec![
        latency(|it| it.p50_ms),
        latency(|it| it.p99_ms),
        latency(|it| it.max_ms),
        flush(|it| it.p50_ms),
        flush(|it| it.p99_ms),
        stalls.join(" "),
        told(outcome.settled_ms),
    ]
}

/// What it is compared with, and what does it again.
fn against(run: &Run, outcome: &Outcome) -> Vec<String> {
    let beside = run.beside.as_ref().filter(|beside| beside.is_of(outcome));
    let ratio = |without| {
        let beside = beside.filter(|beside| beside.without == without);
        beside.map(|it| format!("{:.4}", it.ratio(outcome))).unwrap_or_default()
    };
    let number = |number: Option<u64>| number.map(|it| it.to_string()).unwrap_or_default();
    vec![
        ratio(Without::Outages),
        ratio(Without::Losses),
        number(outcome.retained_wal_bytes),
        number(run.floor.map(|floor| floor.stream_bytes)),
        number(run.floor.map(|floor| floor.compressed_bytes)),
        quoted(&run.command),
    ]
}

fn told(millis: Option<f64>) -> String {
    millis.map(|millis| format!("{millis:.2}")).unwrap_or_default()
}

pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

const HEADING: [&str; 28] = [
    "link",
    "workload",
    "scenario",
    "size",
    "unit",
    "emulator",
    "seed",
    "contender",
    "finished",
    "seconds",
    "bytes_up",
    "bytes_down",
    "bytes_each",
    "capacity_bytes",
    "utilisation",
    "latency_p50_ms",
    "latency_p99_ms",
    "latency_max_ms",
    "fdatasync_p50_ms",
    "fdatasync_p99_ms",
    "stalls_ms",
    "settled_ms",
    "bytes_to_uncut",
    "share_of_new_bytes",
    "retained_wal_bytes",
    "stream_bytes",
    "zstd_19_bytes",
    "command",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Beside;

    #[test]
    fn every_line_has_a_field_for_each_heading() {
        let mut run = Run { link: "a \"link\"".into(), ..Run::default() };
        run.outcomes = vec![Outcome::default(); 2];
        let text = of(&[run]);
        let columns: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(columns, [columns[0]; 3]);
        assert!(text.contains("\"a \"\"link\"\"\","));
    }

    #[test]
    fn what_was_not_measured_is_empty_and_what_was_is_there() {
        let outcome = |up_bytes| Outcome { up_bytes, ..Outcome::default() };
        let field = |run: &Run, name: &str| {
            let at = HEADING.iter().position(|it| *it == name).unwrap();
            let text = of(std::slice::from_ref(run));
            text.lines().nth(1).unwrap().split(',').nth(at).unwrap().to_owned()
        };
        let mut run = Run { outcomes: vec![outcome(110)], ..Run::default() };
        for name in ["latency_p50_ms", "stalls_ms", "bytes_to_uncut", "retained_wal_bytes"] {
            assert_eq!(field(&run, name), "", "{name}");
        }
        run.outcomes[0].stalls_ms = vec![1_200.0, 900.4];
        run.flush = Latency::of(vec![0.5]);
        run.beside = Some(Beside { without: Without::Outages, outcome: outcome(100) });
        assert_eq!(field(&run, "stalls_ms"), "1200 900");
        assert_eq!(field(&run, "fdatasync_p50_ms"), "0.50");
        assert_eq!(field(&run, "bytes_to_uncut"), "1.1000");
        assert_eq!(field(&run, "share_of_new_bytes"), "");
    }
}
