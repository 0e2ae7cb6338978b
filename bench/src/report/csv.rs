//! The report as CSV: a line for each contender in each run.

use std::fmt::Write as _;

use super::{Run, terminal};

/// All runs, with a heading.
pub(super) fn of(runs: &[Run]) -> String {
    let mut text = HEADING.to_owned();
    for run in runs {
        for outcome in &run.outcomes {
            let latency = outcome.latency.unwrap_or_default();
            let floor = run.floor.unwrap_or_default();
            let _ = writeln!(
                text,
                "{},{},{},{},{},{},{},{},{},{:.3},{},{},{:.2},{},{:.4},{:.2},{:.2},{},{},{},{}",
                quoted(&run.link),
                run.workload,
                run.scenario,
                run.size,
                run.unit,
                run.emulator,
                run.seed,
                outcome.contender,
                outcome.finished,
                outcome.seconds,
                outcome.up_bytes,
                outcome.down_bytes,
                terminal::each(run, outcome),
                outcome.capacity_bytes,
                outcome.utilisation(),
                latency.p50_ms,
                latency.p99_ms,
                outcome.retained_wal_bytes.unwrap_or_default(),
                floor.stream_bytes,
                floor.compressed_bytes,
                quoted(&run.command)
            );
        }
    }
    text
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

const HEADING: &str = "link,workload,scenario,size,unit,emulator,seed,contender,finished,seconds,\
    bytes_up,bytes_down,bytes_each,capacity_bytes,utilisation,latency_p50_ms,latency_p99_ms,\
    retained_wal_bytes,stream_bytes,zstd_19_bytes,command\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;

    #[test]
    fn every_line_has_a_field_for_each_heading() {
        let mut run = Run { link: "a \"link\"".into(), ..Run::default() };
        run.outcomes = vec![Outcome::default(); 2];
        let text = of(&[run]);
        let columns: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(columns, [columns[0]; 3]);
        assert!(text.contains("\"a \"\"link\"\"\","));
    }
}
