//! Whether forecasts come true: the same work forecast and measured, on each rung.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{payload, transfer, wire_bytes};
use crate::ladder::{LAN, Rung};
use crate::progress::Progress;
use crate::report::Run;
use crate::run::{Spec, run};
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
    /// Bytes towards the target.
    pub forecast_bytes: f64,
    /// Bytes towards the target.
    pub measured_bytes: u64,
    /// What measures it again.
    pub command: String,
}

/// What the machine takes for a transaction when the link is no reason to wait.
pub fn machine(spec: &Spec, stop: &Stop, progress: &Progress) -> Result<Duration> {
    let spec = sized(spec, LAN);
    let run = run(&spec, stop, progress)?;
    Ok(Duration::from_secs_f64(run.outcomes[0].seconds / spec.size as f64))
}

/// Forecasts the spec's backlog on a link, and measures it there.
pub fn line(
    spec: &Spec,
    link: Rung,
    machine: Duration,
    stop: &Stop,
    progress: &Progress,
) -> Result<Line> {
    let spec = sized(spec, link);
    let run: Run = run(&spec, stop, progress)?;
    let floor = run.floor.context("a backlog has a floor")?;
    let outcome = &run.outcomes[0];
    let bytes = wire_bytes(&link.link, payload(floor.compressed_bytes));
    let time = transfer(&link.link, spec.seed, bytes).context("the link never carries it")?;
    // The far end works while more is on its way.
    let work = machine.mul_f64(spec.size as f64);
    Ok(Line {
        link: link.name,
        forecast: time.max(work).as_secs_f64(),
        measured: outcome.seconds,
        forecast_bytes: bytes,
        measured_bytes: outcome.up_bytes,
        command: run.command,
    })
}

/// The backlog that keeps a link busy for a while, within reason: in a few seconds, chance says
/// more
/// than the link.
fn sized(spec: &Spec, link: Rung) -> Spec {
    let bytes = link.link.rate_bps / 8 * BUSY.as_secs();
    let size = (bytes / BYTES_EACH).clamp(spec.size, spec.size * LARGER_MAX);
    Spec { link, size, ..spec.clone() }
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
        format!(
            "| {} | {:.1} | {:.1} | {:+.0} % | {:.0} | {} | {:+.0} % |",
            self.link,
            self.forecast,
            self.measured,
            self.off() * 100.0,
            self.forecast_bytes,
            self.measured_bytes,
            self.bytes_off() * 100.0
        )
    }
}

/// The heading of that table.
pub const HEADING: &str = "| link | forecast: s | measured: s | off | forecast: bytes | \
    measured: bytes | off |\n| --- | --- | --- | --- | --- | --- | --- |";
const BUSY: Duration = Duration::from_secs(15);
/// About what one of pgbench's transactions takes on the wire.
const BYTES_EACH: u64 = 60;
/// How much larger than asked for a backlog may become.
const LARGER_MAX: u64 = 5;
/// How far a forecast may be off and still be called true.
pub const TOLERANCE: f64 = 0.1;
