//! A measurement as it is asked for, and what does it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::contender::native;
use crate::contender::pglogical;
use crate::contender::recvlogical;
use crate::contender::thinwire;
use crate::emulator;
use crate::link::course::Course;
use crate::link::ladder::Rung;
use crate::progress::Progress;
use crate::report::{Beside, Outcome, Run, Without};
use crate::stop::Stop;
use crate::workload;

mod flush;
mod probe;
pub mod scenario;
pub mod table;
mod trial;
mod watch;

use scenario::{Disturbance, Scenario, Work};
use trial::Trial;

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
    /// Whether Thinwire is measured on an easier link too.
    pub beside: Option<Without>,
    /// How the link is put between them.
    pub emulator: emulator::Kind,
    /// Names the data and the losses.
    pub seed: u64,
    /// How long each contender may take.
    pub patience: Duration,
    /// The file that the link was read from, if it was.
    pub trace: Option<PathBuf>,
    /// What each node's configuration says of the other besides what it must, if not what the scenario says.
    pub peer: Option<String>,
    /// Whether pglogical is measured too, where it is installed.
    pub pglogical: bool,
}

/// Measures only what each contender does: Thinwire, and PostgreSQL's own logical replication if that is asked for.
pub(crate) fn outcomes(
    spec: &Spec,
    stop: &Stop,
    progress: &Progress,
) -> Result<(Outcome, Option<Outcome>)> {
    let outcome = |contender| {
        stop.check()?;
        Ok::<_, anyhow::Error>(Trial::prepare(spec, contender, stop, progress)?.play(false)?.0)
    };
    let ours = outcome(thinwire::NAME)?;
    Ok((ours, spec.native.then(|| outcome(native::NAME)).transpose()?))
}

/// Measures each contender on a bed of its own, with the same data and the same losses.
pub fn run(spec: &Spec, stop: &Stop, progress: &Progress) -> Result<Run> {
    let has_tcp = spec.emulator == emulator::Kind::Tun;
    let captures = spec.scenario.work == Work::Capture;
    let needs_tcp = (spec.native || spec.pglogical) && !captures;
    ensure!(has_tcp || !needs_tcp, "logical replication is TCP and needs the tunnel: be root");
    let other = if captures { recvlogical::NAME } else { native::NAME };
    let mut contenders = vec![thinwire::NAME];
    contenders.extend(spec.native.then_some(other));
    if spec.pglogical && !captures {
        match pglogical::is_installed()? {
            true => contenders.push(pglogical::NAME),
            false => progress.begin("pglogical is not installed here, and is left out"),
        }
    }
    let mut run = Run {
        link: spec.link.name.into(),
        workload: spec.workload.name.into(),
        scenario: spec.scenario.name.into(),
        unit: spec.unit().into(),
        emulator: spec.emulator.name().into(),
        seed: spec.seed,
        command: spec.command(),
        ..Run::default()
    };
    for (number, contender) in contenders.iter().enumerate() {
        stop.check()?;
        let trial = Trial::prepare(spec, contender, stop, progress)?;
        let (outcome, floor) = trial.play(number == 0)?;
        run.floor = run.floor.or(floor);
        run.size = outcome.goal;
        run.outcomes.push(outcome);
    }
    if spec.scenario.work == Work::Trickle {
        run.flush = flush::measure()?;
    }
    if let Some(without) = spec.beside {
        stop.check()?;
        let easier = spec.easier(without);
        let trial = Trial::prepare(&easier, thinwire::NAME, stop, progress)?;
        run.beside = Some(Beside { without, outcome: trial.play(false)?.0 });
    }
    Ok(run)
}

impl Spec {
    /// What measures it again, as it is typed.
    pub fn command(&self) -> String {
        let mut words = vec!["thinwire-bench run".to_owned()];
        words.push(match &self.trace {
            Some(path) => format!("--trace {}", path.display()),
            None => format!("--link {}", self.link.name),
        });
        words.push(format!("--workload {}", self.workload.name));
        words.push(format!("--scenario {}", self.scenario.name));
        let seconds = self.seconds.as_secs();
        match self.scenario.work {
            Work::Copy => {}
            Work::Backlog | Work::Week | Work::Apply | Work::Capture => {
                words.push(format!("--size {}", self.size));
            }
            Work::Outages => words.push(format!("--rate {}", self.rate)),
            Work::Trickle => words.push(format!("--rate {} --seconds {seconds}", self.rate)),
            Work::Idle => words.push(format!("--seconds {seconds}")),
        }
        words.extend(self.cut_every.map(|every| format!("--cut-every {}", every.as_secs())));
        words.extend(self.beside.map(|without| match without {
            Without::Outages => "--beside uncut".to_owned(),
            Without::Losses => "--beside clean".to_owned(),
        }));
        let is_alone = !self.native && self.emulator == emulator::Kind::Tun;
        words.extend(is_alone.then(|| "--alone".to_owned()));
        words.extend(self.pglogical.then(|| "--pglogical".to_owned()));
        words.extend(self.peer.as_ref().map(|lines| format!("--peer '{lines}'")));
        words.push(format!("--emulator {} --seed {}", self.emulator.name(), self.seed));
        words.push(format!("--patience {}", self.patience.as_secs()));
        words.join(" ")
    }

    /// What each node's configuration says of the other besides what it must.
    pub(crate) fn peer(&self) -> &str {
        self.peer.as_deref().unwrap_or(self.scenario.peer)
    }

    /// The same without what makes the link hard.
    fn easier(&self, without: Without) -> Spec {
        let mut easier = self.clone();
        easier.link.link = easier.link.link.with_course(Course::Steady);
        if without == Without::Losses {
            easier.link.link = easier.link.link.with_loss(0.0);
        }
        easier.link.readdress = None;
        if self.scenario.work == Work::Outages {
            easier.seconds = self.scenario.disturbance.length();
        }
        easier.scenario.disturbance = Disturbance::NONE;
        easier.cut_every = None;
        easier
    }

    /// What the work is counted in.
    fn unit(&self) -> &'static str {
        match self.scenario.work {
            Work::Copy => "rows",
            Work::Backlog | Work::Week | Work::Apply | Work::Capture => self.workload.unit,
            Work::Trickle | Work::Outages => "transactions",
            Work::Idle => "seconds",
        }
    }

    /// What is going on, in a few words.
    pub(crate) fn title(&self, contender: &str) -> String {
        format!("{} {} {} {contender}", self.link.name, self.workload.name, self.scenario.name)
    }
}
