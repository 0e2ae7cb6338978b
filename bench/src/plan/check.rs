//! Whether forecasts come true: the same work forecast and measured, on each rung.

use std::time::Duration;

use anyhow::{Context, Result};

use super::flow::{PROBE_EVERY, transfer};
use super::{HEADERS, wire_bytes};
use crate::link::ladder::{self, GEO, LAN, Rung};
use crate::progress::Progress;
use crate::report::{Outcome, terminal};
use crate::run::{Spec, outcomes};
use crate::stop::Stop;

/// A forecast beside what was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The link.
    pub link: &'static str,
    /// In seconds.
    pub forecast: f64,
    /// In seconds.
    pub measured: f64,
    /// What PostgreSQL's own logical replication took in the same run, if it was measured.
    pub native: Option<Outcome>,
    /// Bytes towards the target.
    pub forecast_bytes: f64,
    /// Bytes towards the target.
    pub measured_bytes: u64,
    /// Names the data and the losses.
    pub seed: u64,
}

/// What the work costs by itself, measured where no link is in its way or losses add to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// What the machines take for a transaction.
    machine: Duration,
    /// Bytes for a transaction in packets.
    packed: f64,
    /// The same as they are sent where packets take longer to make than the link takes to carry them.
    streamed: f64,
}

impl Costs {
    /// Measures it, with as much work as the fastest of the links gets.
    pub fn measure(spec: &Spec, links: &[Rung], stop: &Stop, progress: &Progress) -> Result<Costs> {
        let alone = Spec { native: false, ..spec.clone() };
        let size = links.iter().map(|link| sized(spec, *link).size).max();
        let fast = Spec { link: LAN, size: size.unwrap_or(SIZE_MIN), ..alone.clone() };
        let (streamed, _) = outcomes(&fast, stop, progress)?;
        let clean = Spec { link: Rung { link: GEO.link.with_loss(0.0), ..GEO }, ..alone };
        let (packed, _) = outcomes(&clean, stop, progress)?;
        let worked = streamed.seconds - (PROBE_EVERY / 2).as_secs_f64();
        let payload = |outcome: &Outcome, size| outcome.up_bytes as f64 / HEADERS / size as f64;
        Ok(Costs {
            machine: Duration::from_secs_f64(worked.max(0.0)) / whole(fast.size),
            packed: payload(&packed, clean.size),
            streamed: payload(&streamed, fast.size),
        })
    }
}

/// Forecasts the spec's backlog on a link, and measures it there.
pub fn line(
    spec: &Spec,
    link: Rung,
    costs: Costs,
    stop: &Stop,
    progress: &Progress,
) -> Result<Line> {
    let spec = sized(spec, link);
    let (outcome, native) = outcomes(&spec, stop, progress)?;
    let carried = |payload| {
        let bytes = wire_bytes(&link.link, payload * spec.size as f64);
        let time = transfer(&link.link, spec.seed, bytes).context("the link never carries it")?;
        anyhow::Ok((bytes, time))
    };
    let work = PROBE_EVERY / 2 + costs.machine * whole(spec.size);
    let (mut bytes, mut time) = carried(costs.packed)?;
    if time < work * PACKING {
        (bytes, time) = carried(costs.streamed)?;
    }
    // The far end works while more is on its way, and its journal lies between: the slower of the two says.
    Ok(Line {
        link: link.name,
        forecast: time.max(work).as_secs_f64(),
        measured: outcome.seconds,
        native,
        forecast_bytes: bytes,
        measured_bytes: outcome.up_bytes,
        seed: spec.seed,
    })
}

/// The backlog that keeps a link busy for a while, within reason: in a few seconds, chance says
/// more than the link, if only by when the first probe leaves.
fn sized(spec: &Spec, link: Rung) -> Spec {
    let bytes = link.link.rate_bps / 8 * BUSY.as_secs();
    Spec { link, size: (bytes / BYTES_EACH).clamp(SIZE_MIN, SIZE_MAX), ..spec.clone() }
}

fn whole(size: u64) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

impl Line {
    /// How far the forecast is off, as a share of what was measured.
    pub fn off(&self) -> f64 {
        self.forecast / self.measured - 1.0
    }

    /// The same for bytes.
    pub fn bytes_off(&self) -> f64 {
        self.forecast_bytes / self.measured_bytes as f64 - 1.0
    }

    /// A line of a table in Markdown.
    pub fn row(&self) -> String {
        let native = self.native.as_ref().map(terminal::seconds).unwrap_or_default();
        format!(
            "| {} | {:.1} | {:.1} | {:+.0} % | {native} | {:.0} | {} | {:+.0} % | {} |",
            self.link,
            self.forecast,
            self.measured,
            self.off() * 100.0,
            self.forecast_bytes,
            self.measured_bytes,
            self.bytes_off() * 100.0,
            self.seed
        )
    }
}

/// The heading of that table.
pub const HEADING: &str = "| link | forecast: s | measured: s | off | native: s | forecast: bytes | \
    measured: bytes | off | seed |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |";

/// What the lines of the whole table begin with, in their order.
pub fn names() -> Vec<String> {
    ladder::ALL.map(|rung| format!("| {} |", rung.name)).to_vec()
}

const BUSY: Duration = Duration::from_secs(20);
/// How many times as long as all else packets take to make, roughly.
const PACKING: u32 = 2;
/// About what a photo takes on the wire.
const BYTES_EACH: u64 = 1_150;
const SIZE_MIN: u64 = 200;
const SIZE_MAX: u64 = 100_000;
/// How far a forecast may be off and still be called true.
pub const TOLERANCE: f64 = 0.1;
