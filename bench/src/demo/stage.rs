//! What the demonstration runs on: two clusters, two sidecars, the link, and their folder.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use thinwire_cluster::{Cluster, Options as ClusterOptions, Warden};

use crate::emulator::free_address;
use crate::emulator::socket::Proxy;
use crate::link::Link;
use crate::node::{self, Node};
use crate::stop::Stop;
use crate::workload::shop::{SCHEMA, Shop};

/// The order of the fields is the order in which they go.
#[derive(Debug)]
pub(crate) struct Stage {
    shop: Node,
    hq: Node,
    pub(crate) proxy: Proxy,
    pub(crate) source: Cluster,
    pub(crate) target: Cluster,
    _folder: TempDir,
    _warden: Arc<Warden>,
}

impl Stage {
    /// Makes the databases, fills the source, and introduces the sidecars to each other.
    pub(crate) fn set(link: Link, seed: u64, stop: &Stop, say: &dyn Fn(&str)) -> Result<Stage> {
        let folder = tempfile::Builder::new().prefix("thinwire-demo-").tempdir()?;
        let warden = Arc::new(Warden::start(folder.path())?);
        let shop = Node::new(folder.path(), "shop", Arc::clone(&warden))?;
        let hq = Node::new(folder.path(), "hq", Arc::clone(&warden))?;
        let source = Cluster::start(ClusterOptions::default())?;
        stop.check()?;
        let target = Cluster::start(ClusterOptions::default())?;
        for cluster in [&source, &target] {
            stop.check()?;
            cluster.create_database(DATABASE)?;
            cluster.psql(DATABASE, SCHEMA)?;
            pgbench_init(cluster, "dtp")?;
        }
        say("filling the source: pgbench (100,000 accounts) and a shop (2,000 orders)");
        pgbench_init(&source, "g")?;
        source.psql(DATABASE, &Shop::new(seed).history(CUSTOMERS, ORDERS))?;
        stop.check()?;
        let listen = free_address();
        let proxy = Proxy::start(listen, link, link, seed)?;
        let ends = [source.url(DATABASE), target.url(DATABASE)];
        node::introduce((&shop, &ends[0]), (&hq, &ends[1]), listen, proxy.address(), "")?;
        say("both sidecars have their identity, publication, slot and schema");
        Ok(Stage { shop, hq, proxy, source, target, _folder: folder, _warden: warden })
    }

    pub(crate) fn start_nodes(&mut self) -> Result<()> {
        self.hq.start()?;
        self.shop.start()
    }

    /// The source's sidecar and the target's.
    pub(crate) fn nodes(&self) -> [&Node; 2] {
        [&self.shop, &self.hq]
    }

    pub(crate) fn shop(&mut self) -> &mut Node {
        &mut self.shop
    }

    pub(crate) fn hq(&mut self) -> &mut Node {
        &mut self.hq
    }

    /// Fails if a sidecar has ended by itself.
    pub(crate) fn check_nodes(&mut self) -> Result<()> {
        self.shop.check()?;
        self.hq.check()
    }

    /// What the sidecars said last.
    pub(crate) fn logs(&self) -> String {
        self.nodes().map(|node| format!("{}:\n{}", node.name(), node.log())).join("\n")
    }

    /// Commits the last row of all.
    pub(crate) fn close_shop(&self) -> Result<()> {
        self.source.psql(DATABASE, LAST_ROW)?;
        Ok(())
    }

    /// Whether the last row is in the target, and with it all before it.
    pub(crate) fn last_row_arrived(&self) -> Result<bool> {
        Ok(self.target.psql(DATABASE, HAS_LAST_ROW)? == "t")
    }
}

/// How many transactions of the workload a database has seen.
pub(crate) fn transactions(cluster: &Cluster) -> Result<u64> {
    let answer = cluster.psql(
        DATABASE,
        &format!(
            "select (select count(*) from pgbench_history) + (select count(*) from order_events \
             where id > {ORDERS} and kind <> 'closed')"
        ),
    )?;
    answer.parse().context("counting transactions")
}

fn pgbench_init(cluster: &Cluster, steps: &str) -> Result<()> {
    let mut pgbench = cluster.command("pgbench", DATABASE);
    let output = pgbench.args(["-i", "-q", "-s", "1", "-I", steps]).output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pgbench -i -I {steps} failed: {complaint}");
    Ok(())
}

pub(crate) const DATABASE: &str = "shop";
/// The shop's history; each order has left one event.
pub(crate) const CUSTOMERS: u64 = 500;
pub(crate) const ORDERS: u64 = 2_000;
const LAST_ROW: &str = "insert into order_events values (0, null, 'closed', to_timestamp(0))";
const HAS_LAST_ROW: &str = "select exists (select from order_events where kind = 'closed')";
