//! What was found, as values that can be written and read again.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

mod chart;
mod csv;
pub(crate) mod floor;
mod html;
pub mod readme;
pub mod table;
pub mod terminal;

pub use floor::Floor;

/// One scenario with one workload on one link, for each contender.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The link's name.
    pub link: String,
    /// The workload's name.
    pub workload: String,
    /// The scenario's name.
    pub scenario: String,
    /// What the work is counted in.
    pub unit: String,
    /// How much there was of it.
    pub size: u64,
    /// The emulator's name.
    pub emulator: String,
    /// Names the data and the losses.
    pub seed: u64,
    /// What does all of it again.
    pub command: String,
    /// The least that the stream of changes can take.
    pub floor: Option<Floor>,
    /// How long an fdatasync takes on this disk, where the work is timed by the transaction.
    pub flush: Option<Latency>,
    /// A contender each.
    pub outcomes: Vec<Outcome>,
    /// What Thinwire did on the same link without what makes it hard, if that was asked for.
    pub beside: Option<Beside>,
}

/// A run on an easier link, and what it is compared in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    /// What the link lacked there.
    pub without: Without,
    /// What Thinwire did.
    pub outcome: Outcome,
}

/// What makes a link hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Without {
    /// Its outages: how many times the bytes they cost.
    Outages,
    /// Outages and losses: which share of the link carried what had not been sent before.
    Losses,
}

/// What one contender did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Who.
    pub contender: String,
    /// Whether it came to the end; what follows is what it did until then.
    pub finished: bool,
    /// Whether both databases hold the same; unknown if it did not finish.
    pub equal: Option<bool>,
    /// What there was to do, in the run's unit.
    pub goal: u64,
    /// The time that it took.
    pub seconds: f64,
    /// When the target saw the first of it.
    pub first_seconds: Option<f64>,
    /// Whole IP packets on the wire towards the target, in bytes, lost ones included.
    pub up_bytes: u64,
    /// Those packets.
    pub up_packets: u64,
    /// The same bytes, back.
    pub down_bytes: u64,
    /// What the link could have carried towards the target in that time.
    pub capacity_bytes: u64,
    /// From commit to commit, without the flush of the latter.
    pub latency: Option<Latency>,
    /// How long after the end of each outage the target saw something new, in milliseconds.
    pub stalls_ms: Vec<f64>,
    /// How long after the end of the last one it had everything.
    pub settled_ms: Option<f64>,
    /// The log that the source kept for it at the end of the outage.
    pub retained_wal_bytes: Option<u64>,
    /// How it went.
    pub points: Vec<Point>,
}

/// How long transactions took from their commit at the source to their commit at the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of them took no longer.
    pub p50_ms: f64,
    /// 99 of a hundred took no longer.
    pub p99_ms: f64,
    /// None took longer.
    pub max_ms: f64,
    /// How many there were.
    pub count: u64,
}

/// A moment of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Since its beginning.
    pub seconds: f64,
    /// What the target had of the work.
    pub done: u64,
    /// Bytes on the wire, both directions.
    pub bytes: u64,
    /// Whether the link was up.
    pub up: bool,
}

impl Outcome {
    /// Bytes on the wire in both directions.
    pub fn bytes(&self) -> u64 {
        self.up_bytes + self.down_bytes
    }

    /// The share of the link that was in use towards the target.
    pub fn utilisation(&self) -> f64 {
        share(self.up_bytes, self.capacity_bytes)
    }
}

impl Beside {
    /// Whether it is the same contender.
    pub(crate) fn is_of(&self, outcome: &Outcome) -> bool {
        self.outcome.contender == outcome.contender
    }

    /// How an outcome on the harder link compares: the bytes of both directions as a multiple, or the new bytes of
    /// records and their frames as a share of what the link could have carried.
    pub fn ratio(&self, outcome: &Outcome) -> f64 {
        match self.without {
            Without::Outages => share(outcome.bytes(), self.outcome.bytes()),
            Without::Losses => {
                let headers = self.outcome.up_packets * HEADER_BYTES;
                let new = self.outcome.up_bytes.saturating_sub(headers);
                share(new, outcome.capacity_bytes)
            }
        }
    }
}

/// What a packet of QUIC has besides what it carries: the headers of IP and UDP, its own, and those of frames.
const HEADER_BYTES: u64 = 60;

impl Latency {
    /// Of times in any order; nothing if there are none.
    pub fn of(mut millis: Vec<f64>) -> Option<Latency> {
        millis.sort_by(f64::total_cmp);
        let rank = |hundredths: usize| {
            let at = (millis.len() * hundredths).div_ceil(100).saturating_sub(1);
            millis.get(at).copied()
        };
        Some(Latency {
            p50_ms: rank(50)?,
            p99_ms: rank(99)?,
            max_ms: rank(100)?,
            count: millis.len() as u64,
        })
    }
}

/// One number as a share of another; nothing of nothing.
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Writes every form of the report into a folder, which is made if need be.
pub fn write(folder: &Path, runs: &[Run]) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let json = serde_json::to_string_pretty(runs)?;
    for (name, text) in
        [("results.json", json), ("results.csv", csv::of(runs)), ("report.html", html::page(runs))]
    {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_occurred() {
        let times = (1..=200).rev().map(f64::from).collect();
        let latency = Latency::of(times).unwrap();
        assert_eq!((latency.p50_ms, latency.p99_ms, latency.max_ms), (100.0, 198.0, 200.0));
        assert_eq!(Latency::of(vec![7.0]).unwrap().p50_ms, 7.0);
        assert_eq!(Latency::of(Vec::new()), None);
    }
}
