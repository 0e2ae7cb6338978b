//! What a contender is measured on: two databases with a link between, made anew for each.

use std::sync::Arc;

use anyhow::{Context, Result};
use tempfile::TempDir;
use thinwire_cluster::{Cluster, Options, Warden, digest};

use crate::emulator::{Emulator, Kind};
use crate::link::Link;
use crate::stop::Stop;
use crate::workload::Workload;

/// The source is at the nearer end of the link, the target at the farther. The order of the fields
/// is the order in which they go.
#[derive(Debug)]
pub(crate) struct Bed {
    pub(crate) source: Cluster,
    pub(crate) target: Cluster,
    pub(crate) emulator: Emulator,
    pub(crate) folder: TempDir,
    pub(crate) warden: Arc<Warden>,
}

impl Bed {
    /// Both databases have the tables, the source has its rows.
    pub(crate) fn make(
        kind: Kind,
        servers: &Options,
        link: Link,
        seed: u64,
        workload: &mut dyn Workload,
        stop: &Stop,
    ) -> Result<Bed> {
        let folder = tempfile::Builder::new().prefix("thinwire-bench-").tempdir()?;
        let warden = Arc::new(Warden::start(folder.path())?);
        let emulator = Emulator::start(kind, link, seed)?;
        let source = emulator.near(|| Ok(Cluster::start(servers.clone())?))?;
        stop.check()?;
        let target = emulator.far(|| Ok(Cluster::start(servers.clone())?))?;
        let schema = workload.schema() + BEACON;
        for cluster in [&source, &target] {
            stop.check()?;
            cluster.create_database(DATABASE)?;
            cluster.psql(DATABASE, &schema)?;
        }
        let fill = format!("begin;\n{}\ncommit;\nvacuum analyze;\n", workload.fill());
        source.psql(DATABASE, &fill)?;
        Ok(Bed { source, target, emulator, folder, warden })
    }

    /// A query for the number of all rows.
    pub(crate) fn rows_query(&self) -> Result<String> {
        let tables = digest::tables(&self.source, DATABASE)?;
        let counts: Vec<String> =
            tables.iter().map(|table| format!("(select count(*) from {table})")).collect();
        Ok(format!("select {}", counts.join(" + ")))
    }

    /// The answer of the source to a query for a number.
    pub(crate) fn ask_source(&self, query: &str) -> Result<u64> {
        let answer = self.source.psql(DATABASE, query)?;
        answer.parse().with_context(|| format!("{query}: {answer}"))
    }

    /// Does something at the target that has no answer.
    pub(crate) fn at_target(&self, sql: &str) -> Result<()> {
        self.target.psql(DATABASE, sql)?;
        Ok(())
    }

    /// Whether both databases hold the same rows in every table.
    pub(crate) fn equal(&self) -> Result<bool> {
        let names = digest::tables(&self.source, DATABASE)?;
        let source = digest::digests(&self.source, DATABASE, &names)?;
        Ok(!names.is_empty() && source == digest::digests(&self.target, DATABASE, &names)?)
    }
}

/// The servers of a bed. Commit times tell latency; a server in a namespace of its own may listen everywhere in it.
pub(crate) fn options(kind: Kind, preload: Option<&str>) -> Options {
    let mut options = Options::default().with("track_commit_timestamp", "on");
    if let Some(library) = preload {
        options = options.with("shared_preload_libraries", library);
    }
    if kind == Kind::Udp {
        return options;
    }
    let hba = ["local all", "local replication", "host all", "host replication"].map(|it| {
        let address = if it.starts_with("host") { "all" } else { "" };
        format!("{it} all {address} trust\n")
    });
    Options { hba: Some(hba.concat()), ..options.with("listen_addresses", "*") }
}

/// What tells when a transaction is there.
const BEACON: &str = "create table beacon (id bigint primary key);";
pub(crate) const DATABASE: &str = "bench";
