//! What the tests are made of: a database with its sidecar, and two of them with a link between.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use thinwire_bench::{
    emulator::socket::Proxy,
    link::Link,
    node::{Node, status::Status},
};
use thinwire_cluster::{Cluster, Options, Warden, digest};

pub(crate) const DB: &str = "app";

/// A database and the sidecar beside it.
pub(crate) struct Site {
    pub(crate) cluster: Cluster,
    pub(crate) node: Node,
    pub(crate) listen: SocketAddr,
    pub(crate) key: String,
    sections: String,
    peers: String,
    login: Option<String>,
    // Dropped last: it removes what is left if the test dies.
    _folder: TempDir,
}

/// Sections of a configuration that captures everything and applies nothing.
pub(crate) const CAPTURE: &str = "[capture]\nmode = \"slot\"\ntables = [\"public.*\"]\n";
/// Sections of a configuration that applies.
pub(crate) const APPLY: &str = "[apply]\n";

impl Site {
    /// A running database with `schema`, and a node that is configured but not initialised.
    pub(crate) fn new(name: &str, sections: &str, schema: &str) -> Self {
        Self::with(name, sections, schema, Options::default())
    }

    pub(crate) fn with(name: &str, sections: &str, schema: &str, options: Options) -> Self {
        let cluster = Cluster::start(options).unwrap();
        cluster.create_database(DB).unwrap();
        cluster.psql(DB, schema).unwrap();
        let folder = tempfile::Builder::new().prefix("tw").tempdir().unwrap();
        let warden = Arc::new(Warden::start(folder.path()).unwrap());
        let node = Node::new(folder.path(), name, warden).unwrap();
        let mut site = Self {
            cluster,
            node,
            listen: free_port(),
            key: String::new(),
            sections: sections.to_owned(),
            peers: String::new(),
            login: None,
            _folder: folder,
        };
        site.configure();
        site
    }

    /// Makes identity and database ready.
    pub(crate) fn init(&mut self) {
        self.node.init().unwrap();
        self.key = self.node.key().unwrap();
    }

    /// The same, where the login of the node may not.
    pub(crate) fn init_as_admin(&mut self) {
        let admin = self.cluster.url(DB);
        self.node.run(&["init", "--admin-url", &admin]).unwrap();
        self.key = self.node.key().unwrap();
    }

    /// Has these sections in its configuration from now on.
    pub(crate) fn sections(&mut self, sections: &str) {
        sections.clone_into(&mut self.sections);
        self.configure();
    }

    /// Adds a peer to the configuration.
    pub(crate) fn peer(&mut self, name: &str, key: &str, address: Option<SocketAddr>, more: &str) {
        writeln!(self.peers, "[[peer]]\nname = \"{name}\"\nkey = \"{key}\"").unwrap();
        if let Some(address) = address {
            writeln!(self.peers, "address = \"{address}\"").unwrap();
        }
        writeln!(self.peers, "{more}").unwrap();
        self.configure();
    }

    /// Has no peers in its configuration from now on.
    pub(crate) fn without_peers(&mut self) {
        self.peers.clear();
        self.configure();
    }

    /// Uses this login from now on.
    pub(crate) fn login(&mut self, login: &str) {
        self.login = Some(login.to_owned());
        self.configure();
    }

    fn configure(&mut self) {
        let (name, listen) = (self.node.name(), self.listen);
        let url = match &self.login {
            None => self.cluster.url(DB),
            Some(login) => self.cluster.url_as(login, DB),
        };
        let text = format!(
            "[node]\nname = \"{name}\"\nlisten = \"{listen}\"\n[database]\nurl = \"\"\"{url}\"\"\"\n{}{}",
            self.sections, self.peers
        );
        self.node.configure(&text).unwrap();
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        self.cluster.psql(DB, sql).unwrap_or_else(|error| panic!("{error}\n{sql}"))
    }

    pub(crate) fn status(&self) -> Status {
        let deadline = Instant::now() + Duration::from_secs(20) * BUSY;
        loop {
            if let Ok(Some(status)) = self.node.status() {
                return status;
            }
            assert!(Instant::now() < deadline, "no status; the log ends:\n{}", self.node.log());
            sleep(Duration::from_millis(100));
        }
    }

    /// Drops the slots of a node that has ended: the server learns that a moment later.
    pub(crate) fn drop_slots(&self) {
        wait_for("the slots to be free", Duration::from_secs(30), || {
            let held = "select count(*) from pg_replication_slots where active";
            (self.sql(held) == "0").then_some(())
        });
        self.sql("select pg_drop_replication_slot(slot_name) from pg_replication_slots");
    }

    /// Waits until nothing is halted: rows are seen before what they were halted by is over.
    pub(crate) fn goes_on(&self) {
        wait_for("the halt to be over", Duration::from_secs(30), || {
            self.status().halted().is_none().then_some(())
        });
    }

    /// Runs pgbench's own transactions.
    pub(crate) fn pgbench(&self, arguments: &[&str]) -> Command {
        let mut command = self.cluster.command("pgbench", DB);
        command.args(arguments);
        command
    }

    /// Fails if the node ever had more memory than is promised: 64 MB, and 32 MB for each peer but the first.
    pub(crate) fn check_memory(&self) {
        let Some(pid) = self.node.pid() else { return };
        let peers = self.peers.matches("[[peer]]").count() as u64;
        let limit_kb = (64 + 32 * peers.saturating_sub(1)) * 1_000_000 / 1_024;
        let peak_kb = peak_memory_kb(pid);
        assert!(peak_kb <= limit_kb, "{}: {peak_kb} kB of {limit_kb}", self.node.name());
    }
}

/// The most memory that a process ever had, in kB.
fn peak_memory_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// Two sites and a link; the first dials the second.
pub(crate) struct Pair {
    pub(crate) source: Site,
    pub(crate) target: Site,
    pub(crate) link: Proxy,
}

impl Pair {
    /// Ready to start, with the same schema at both ends.
    pub(crate) fn new(link: Link, schema: &str) -> Self {
        let source = Site::new("edge", CAPTURE, schema);
        let target = Site::new("hq", APPLY, schema);
        Self::of(source, target, link)
    }

    pub(crate) fn of(mut source: Site, mut target: Site, link: Link) -> Self {
        source.init();
        target.init();
        Self::joined(source, target, link)
    }

    /// Two sites that know each other already.
    pub(crate) fn of_initialised(source: Site, target: Site, link: Link) -> Self {
        let link = Proxy::start(target.listen, link, link, 7).unwrap();
        Self { source, target, link }
    }

    /// Two sites with their keys made, introduced to each other.
    pub(crate) fn joined(mut source: Site, mut target: Site, link: Link) -> Self {
        let link = Proxy::start(target.listen, link, link, 7).unwrap();
        let (source_key, target_key) = (source.key.clone(), target.key.clone());
        source.peer("hq", &target_key, Some(link.address()), "");
        target.peer("edge", &source_key, None, "");
        Self { source, target, link }
    }

    pub(crate) fn start(&mut self) {
        self.target.node.start().unwrap();
        self.source.node.start().unwrap();
    }

    /// Waits until every table is equal at both ends.
    pub(crate) fn wait_equal(&mut self, limit: Duration) {
        let tables = digest::tables(&self.source.cluster, DB).unwrap();
        self.wait_equal_tables(&tables, limit);
    }

    pub(crate) fn wait_equal_tables(&mut self, tables: &[String], limit: Duration) {
        let deadline = Instant::now() + limit * BUSY;
        loop {
            let source = digest::digests(&self.source.cluster, DB, tables);
            let target = digest::digests(&self.target.cluster, DB, tables);
            if let (Ok(source), Ok(target)) = (&source, &target)
                && source == target
            {
                self.source.check_memory();
                self.target.check_memory();
                return;
            }
            self.check_running();
            if Instant::now() > deadline {
                panic!(
                    "not equal after {limit:?}: {source:?} and {target:?}\nsource: {:?}\ntarget: {:?}\n{}\n{}",
                    self.source.node.status(),
                    self.target.node.status(),
                    self.source.node.log(),
                    self.target.node.log(),
                );
            }
            sleep(Duration::from_millis(250));
        }
    }

    fn check_running(&mut self) {
        for site in [&mut self.source, &mut self.target] {
            if site.node.pid().is_some() {
                site.node.check().unwrap();
            }
        }
    }
}

/// An address of the loopback interface that nobody else uses.
pub(crate) fn free_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, thinwire_cluster::free_port()).into()
}

/// How many times longer a machine may take that others keep busy than the limits say.
pub(crate) const BUSY: u32 = 4;

/// Waits until `condition` gives something.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit * BUSY;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for {what}");
        sleep(Duration::from_millis(100));
    }
}

/// A link that loses packets and has a round trip, but is not what a test waits for.
pub(crate) fn lively() -> Link {
    Link::new(20_000_000, Duration::from_millis(10)).with_loss(0.01)
}
