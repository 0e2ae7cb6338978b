//! The workload of the demonstration: pgbench, and the shop's day through one psql.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use thinwire_cluster::Cluster;

use super::Options;
use crate::demo::stage::{CUSTOMERS, DATABASE, ORDERS};
use crate::workload::shop::Shop;

/// Clients that write to the source, out of reach of a Ctrl-C at our terminal. Dropping it ends
/// them.
#[derive(Debug)]
pub(super) struct Load {
    pgbench: Child,
    psql: Child,
    day: Option<JoinHandle<io::Result<()>>>,
    over: Arc<AtomicBool>,
}

impl Load {
    /// Starts writing.
    pub(super) fn start(source: &Cluster, options: &Options) -> Result<Load> {
        let each = options.transactions.div_ceil(PGBENCH_CLIENTS).max(1);
        let pgbench = source
            .command("pgbench", DATABASE)
            .args(["-n", "-j", "1", "-c", &PGBENCH_CLIENTS.to_string(), "-t", &each.to_string()])
            .args(["-R", &PGBENCH_RATE.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting pgbench")?;
        let mut psql = source
            .command("psql", DATABASE)
            .args(["-Xq", "-v", "ON_ERROR_STOP=1", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting psql")?;
        let input = psql.stdin.take().context("psql has no input")?;
        let over = Arc::new(AtomicBool::new(false));
        let mut shop = Shop::new(options.seed);
        // The same history again, so that the day goes on where the database stands.
        shop.history(CUSTOMERS, ORDERS);
        let (count, ends) = (options.transactions / 4, Arc::clone(&over));
        let day = thread::spawn(move || write_day(shop, count, input, &ends));
        Ok(Load { pgbench, psql, day: Some(day), over })
    }

    /// Whether all is written; fails if a client did.
    pub(super) fn finished(&mut self) -> Result<bool> {
        if self.day.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(day) = self.day.take()
        {
            day.join().map_err(|_| anyhow!("the shop's thread panicked"))??;
        }
        let ended = [("pgbench", &mut self.pgbench), ("psql", &mut self.psql)]
            .map(|(name, child)| child.try_wait().map(|status| (name, status)));
        for result in ended {
            match result? {
                (name, Some(status)) => ensure!(status.success(), "{name} ended with {status}"),
                (_, None) => return Ok(false),
            }
        }
        Ok(self.day.is_none())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for child in [&mut self.pgbench, &mut self.psql] {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(day) = self.day.take() {
            let _ = day.join();
        }
    }
}

fn write_day(
    mut shop: Shop,
    count: u64,
    mut input: ChildStdin,
    over: &AtomicBool,
) -> io::Result<()> {
    let started = Instant::now();
    let mut due = Duration::ZERO;
    for _ in 0..count {
        if over.load(Ordering::Relaxed) {
            return Ok(());
        }
        input.write_all(shop.transaction().as_bytes())?;
        due += SHOP_PAUSE;
        thread::sleep(due.saturating_sub(started.elapsed()));
    }
    Ok(())
}

const PGBENCH_CLIENTS: u64 = 4;
/// Transactions a second: with the default number, the load ends shortly after the weather.
const PGBENCH_RATE: u64 = 45;
const SHOP_PAUSE: Duration = Duration::from_millis(88);
