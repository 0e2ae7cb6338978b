//! A measurement as it is asked for, and what does it.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::emulator;
use crate::ladder::Rung;
use crate::native;
use crate::progress::Progress;
use crate::report::Run;
use crate::scenario::Scenario;
use crate::stop::Stop;
use crate::thinwire;
use crate::trial::Trial;
use crate::workload;

/// One scenario with one workload on one link.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The link.
    pub link: Rung,
    /// The workload.
    pub workload: workload::Kind,
    /// The scenario.
    pub scenario: Scenario,
    /// How much of the workload, in its unit.
    pub size: u64,
    /// Transactions a second, when they come at a pace.
    pub rate: f64,
    /// How long they come, or how long nothing happens.
    pub seconds: Duration,
    /// How often the link is cut, if not as the scenario says.
    pub cut_every: Option<Duration>,
    /// Whether PostgreSQL's own logical replication is measured too.
    pub native: bool,
    /// How the link is put between them.
    pub emulator: emulator::Kind,
    /// Names the data and the losses.
    pub seed: u64,
    /// How long each contender may take.
    pub patience: Duration,
    /// What does all of it again.
    pub command: String,
}

/// Measures each contender on a bed of its own, with the same data and the same losses.
pub fn run(spec: &Spec, stop: &Stop, progress: &Progress) -> Result<Run> {
    let can_native = spec.emulator == emulator::Kind::Tun;
    ensure!(can_native || !spec.native, "logical replication is TCP and needs the tunnel: be root");
    let contenders: &[&str] =
        if spec.native { &[thinwire::NAME, native::NAME] } else { &[thinwire::NAME] };
    let mut run = Run {
        link: spec.link.name.into(),
        workload: spec.workload.name.into(),
        scenario: spec.scenario.name.into(),
        unit: spec.workload.unit.into(),
        size: spec.size,
        emulator: spec.emulator.name().into(),
        seed: spec.seed,
        command: spec.command.clone(),
        ..Run::default()
    };
    for (number, contender) in contenders.iter().enumerate() {
        stop.check()?;
        let trial = Trial::prepare(spec, contender, stop, progress)?;
        let (outcome, floor) = trial.play(number == 0)?;
        run.floor = run.floor.or(floor);
        run.outcomes.push(outcome);
    }
    Ok(run)
}

impl Spec {
    /// What is going on, in a few words.
    pub(crate) fn title(&self, contender: &str) -> String {
        format!("{} {} {} {contender}", self.link.name, self.workload.name, self.scenario.name)
    }
}
