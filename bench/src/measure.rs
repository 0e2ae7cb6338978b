//! What a link carries: the first copy and a backlog of transactions, in time and bytes of whole IP packets.

use std::io::{self, Write};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use thinwire_cluster::digest;

use crate::ladder::Rung;
use crate::stage::{DATABASE, Stage};
use crate::stop::Stop;
use crate::verdict::Verdict;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The links, one after the other.
    pub links: Vec<Rung>,
    /// How many pgbench transactions the backlog has.
    pub transactions: u64,
    /// Names the run: its data and its losses.
    pub seed: u64,
}

/// What some work took on a link.
#[derive(Clone, Copy, Debug)]
struct Taken {
    time: Duration,
    up_bytes: u64,
    down_bytes: u64,
}

/// Measures and prints a table row for each link and work. Fails if the databases differ afterwards.
pub fn run(options: &Options, stop: &Stop) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "| link | work | seconds | bytes to the target | bytes back |")?;
    writeln!(out, "| --- | --- | --- | --- | --- |")?;
    for link in &options.links {
        let mut stage = Stage::set(link.link, options.seed, stop, &|_| {})?;
        let work = format!("first copy, {} rows", rows(&stage)?);
        let copy = first_copy(&mut stage, stop)?;
        row(&mut out, link.name, &work, copy)?;
        let backlog = backlog(&mut stage, options.transactions, stop)?;
        let work = format!("backlog, {} transactions", options.transactions);
        row(&mut out, link.name, &work, backlog)?;
        ensure!(
            Verdict::of(&stage, backlog.time)?.equal(),
            "the databases differ\n{}",
            stage.logs()
        );
    }
    Ok(())
}

fn row(out: &mut impl Write, link: &str, work: &str, taken: Taken) -> io::Result<()> {
    let Taken { time, up_bytes, down_bytes } = taken;
    writeln!(out, "| {link} | {work} | {:.1} | {up_bytes} | {down_bytes} |", time.as_secs_f64())?;
    out.flush()
}

/// How many rows the source has in all.
fn rows(stage: &Stage) -> Result<u64> {
    let mut rows = 0;
    for table in digest::tables(&stage.source, DATABASE)? {
        let count = stage.source.psql(DATABASE, &format!("select count(*) from {table}"))?;
        rows += count.parse::<u64>()?;
    }
    Ok(rows)
}

/// From the start of both sidecars until the last table is there.
fn first_copy(stage: &mut Stage, stop: &Stop) -> Result<Taken> {
    let meter = Meter::start(stage);
    stage.start_nodes()?;
    let all = "select (select count(*) from pgbench_accounts) + (select count(*) from orders)";
    let expected = stage.source.psql(DATABASE, all)?;
    meter.until(stage, stop, |stage| Ok(stage.target.psql(DATABASE, all)? == expected))
}

/// From the moment the link is back until the last of the transactions that were committed while it was down.
fn backlog(stage: &mut Stage, transactions: u64, stop: &Stop) -> Result<Taken> {
    stage.proxy.cut();
    let each = (transactions / CLIENTS).to_string();
    let status = stage
        .source
        .command("pgbench", DATABASE)
        .args(["-n", "-c", &CLIENTS.to_string(), "-t", &each])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    ensure!(status.success(), "pgbench failed");
    stage.close_shop()?;
    // What was on the wire when it was cut is over, and all is in the journal.
    thread::sleep(SETTLE);
    let meter = Meter::start(stage);
    stage.proxy.restore();
    meter.until(stage, stop, Stage::last_row_arrived)
}

/// Counts from a moment on.
struct Meter {
    since: Instant,
    up_bytes: u64,
    down_bytes: u64,
}

impl Meter {
    fn start(stage: &Stage) -> Meter {
        let stats = stage.proxy.stats();
        Meter {
            since: Instant::now(),
            up_bytes: stats.up.carried_bytes(),
            down_bytes: stats.down.carried_bytes(),
        }
    }

    fn until(
        &self,
        stage: &mut Stage,
        stop: &Stop,
        done: impl Fn(&Stage) -> Result<bool>,
    ) -> Result<Taken> {
        while !done(stage)? {
            stop.check()?;
            stage.check_nodes()?;
            if self.since.elapsed() > PATIENCE {
                bail!("not done after {PATIENCE:?}\n{}", stage.logs());
            }
            thread::sleep(LOOK_EVERY);
        }
        let stats = stage.proxy.stats();
        Ok(Taken {
            time: self.since.elapsed(),
            up_bytes: stats.up.carried_bytes() - self.up_bytes,
            down_bytes: stats.down.carried_bytes() - self.down_bytes,
        })
    }
}

const CLIENTS: u64 = 4;
const SETTLE: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(900);
