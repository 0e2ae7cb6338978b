//! The workload of the demonstration: pgbench, and the shop's day through one psql.

use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use thinwire_cluster::Cluster;

use super::Options;
use crate::demo::stage::{CUSTOMERS, DATABASE, ORDERS};
use crate::workload::load;
use crate::workload::shop::Shop;

/// Clients that write to the source, out of reach of a Ctrl-C at our terminal. Dropping it ends
/// them.
#[derive(Debug)]
pub(super) struct Load {
    pgbench: Pgbench,
    day: load::Load,
}

impl Load {
    /// Starts writing.
    pub(super) fn start(source: &Cluster, options: &Options) -> Result<Load> {
        let pgbench = Pgbench::start(source, options.transactions)?;
        let mut shop = Shop::new(options.seed);
        // The same history again, so that the day goes on where the database stands.
        shop.history(CUSTOMERS, ORDERS);
        let day = (0..options.transactions / 4)
            .map(|_| shop.transaction().trim_end().to_owned())
            .collect();
        Ok(Load { pgbench, day: load::Load::start(source, DATABASE, day, SHOP_PAUSE)? })
    }

    /// Whether all is written; fails if a client did.
    pub(super) fn finished(&mut self) -> Result<bool> {
        Ok(self.day.finished()? & self.pgbench.finished()?)
    }
}

#[derive(Debug)]
struct Pgbench(Child);

impl Pgbench {
    fn start(source: &Cluster, transactions: u64) -> Result<Pgbench> {
        let each = transactions.div_ceil(PGBENCH_CLIENTS).max(1);
        let child = source
            .command("pgbench", DATABASE)
            .args(["-n", "-j", "1", "-c", &PGBENCH_CLIENTS.to_string(), "-t", &each.to_string()])
            .args(["-R", &PGBENCH_RATE.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting pgbench")?;
        Ok(Pgbench(child))
    }

    fn finished(&mut self) -> Result<bool> {
        let Some(status) = self.0.try_wait()? else { return Ok(false) };
        ensure!(status.success(), "pgbench ended with {status}");
        Ok(true)
    }
}

impl Drop for Pgbench {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const PGBENCH_CLIENTS: u64 = 4;
/// Transactions a second: with the default number, the load ends shortly after the weather.
const PGBENCH_RATE: u64 = 45;
const SHOP_PAUSE: Duration = Duration::from_millis(88);
