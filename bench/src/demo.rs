//! The demonstration: two databases, two sidecars, a thin link that drops, and a verdict.
//!
//! Everything is real and temporary: servers, `thinwire` processes, their journals. Only the link
//! is simulated, between real sockets. The story is a plan of cuts and kills (`weather`) during
//! which a workload runs (`load`); it ends when the last row has arrived, with digests of all
//! tables (`verdict`), which can fail.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::link::ladder::Rung;
use crate::stop::Stop;

mod load;
mod stage;
mod verdict;
mod view;
mod weather;

use load::Load;
use stage::Stage;
use verdict::Verdict;
use view::{Snapshot, View};
use weather::Weather;

/// What to play.
#[derive(Clone, Debug)]
pub struct Options {
    /// The link between the sidecars.
    pub link: Rung,
    /// How many pgbench transactions; the shop adds a quarter of that.
    pub transactions: u64,
    /// Names the run: its data and its losses.
    pub seed: u64,
    /// Lines instead of bars.
    pub plain: bool,
}

/// Plays the demonstration and returns whether both databases were equal at the end.
pub fn run(options: &Options, stop: &Stop) -> Result<bool> {
    let view = View::new(options.plain);
    view.event("starting two temporary Postgres clusters");
    let mut stage = Stage::set(options.link.link, options.seed, stop, &|text| view.event(text))?;
    stop.check()?;
    let started = Instant::now();
    stage.start_nodes()?;
    let load = Load::start(&stage.source, options)?;
    view.event(&format!(
        "both sidecars run; the link is `{}`: {}",
        options.link.name, options.link.stands_for
    ));
    let play = Play { options, stop, view: &view, started };
    play.through(&mut stage, load)?;
    let took = started.elapsed();
    view.finish();
    let verdict = Verdict::of(&stage, took)?;
    verdict.print()?;
    Ok(verdict.equal())
}

struct Play<'a> {
    options: &'a Options,
    stop: &'a Stop,
    view: &'a View,
    started: Instant,
}

impl Play<'_> {
    /// Until the plan is over, the load is done, and the last row has arrived.
    fn through(&self, stage: &mut Stage, mut load: Load) -> Result<()> {
        let mut weather = Weather::new();
        let mut last_look = None;
        let mut closed: Option<Instant> = None;
        loop {
            self.stop.check()?;
            weather.pass(self.started.elapsed(), stage, self.view)?;
            stage.check_nodes()?;
            if closed.is_none() && load.finished()? && weather.is_over() {
                stage.close_shop()?;
                closed = Some(Instant::now());
                self.view.event("the workload is done; waiting for the last row to arrive");
            }
            if last_look.is_none_or(|at: Instant| at.elapsed() > LOOK_EVERY) {
                last_look = Some(Instant::now());
                self.view.show(&self.look(stage)?);
                if closed.is_some() && stage.last_row_arrived()? {
                    return Ok(());
                }
            }
            if closed.is_some_and(|at| at.elapsed() > PATIENCE) {
                bail!("the last row did not arrive in {PATIENCE:?}\n{}", stage.logs());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn look(&self, stage: &Stage) -> Result<Snapshot> {
        // A node that is being killed or started does not answer; the next look will tell.
        let [source, target] = stage.nodes().map(|node| node.status().ok().flatten());
        for status in [&source, &target].into_iter().flatten() {
            if let Some((stream, halted)) = status.halted() {
                bail!(
                    "{}: the stream of {} stands still ({}): {}",
                    status.node,
                    stream.name,
                    halted.code,
                    halted.detail
                );
            }
        }
        let told = |status: &Option<crate::node::status::Status>| {
            status.as_ref().map(crate::node::status::Status::copied).filter(|copied| copied.1 > 0)
        };
        let (copy_done, copy_total) = told(&target).or_else(|| told(&source)).unzip();
        Ok(Snapshot {
            elapsed: self.started.elapsed(),
            link_up: stage.proxy.is_up(),
            connected: source.as_ref().is_some_and(|it| it.peers.iter().any(|peer| peer.connected)),
            link_bytes: stage.proxy.stats().carried_bytes(),
            copy_done,
            copy_total,
            transactions: self.options.transactions + self.options.transactions / 4,
            committed: stage::transactions(&stage.source)?,
            applied: stage::transactions(&stage.target)?,
            pending_records: source.map(|status| status.pending_records()),
        })
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(800);
/// How long the last row may take after the end of the workload.
const PATIENCE: Duration = Duration::from_secs(300);
