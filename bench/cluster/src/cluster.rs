//! One temporary cluster: its directory, its server, and what tests do to them.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::account::{Account, clean};
use crate::error::during;
use crate::server::{Place, Server, log_tail};
use crate::warden::Warden;
use crate::{Error, Options, Result, binaries, template};

/// A temporary PostgreSQL cluster. Dropping it ends the server and removes the directory.
///
/// All methods take `&self`, so that writers in other threads may go on while the server is killed
/// under them.
#[derive(Debug)]
pub struct Cluster {
    place: Place,
    password: Option<String>,
    port: u16,
    server: Mutex<Option<Server>>,
    // The directory goes before the warden that would otherwise have to remove it.
    _home: TempDir,
    warden: Warden,
}

impl Cluster {
    /// Makes a cluster and starts its server.
    pub fn start(options: Options) -> Result<Cluster> {
        let account = Account::choose()?;
        let bin = binaries::find(options.bin.as_deref())?;
        let home = home()?;
        let warden = Warden::start(home.path())?;
        account.own(home.path())?;
        let bin = binaries::within_reach(account, bin, home.path())?;
        let data = template::create(account, &bin, &options, home.path())?;
        append(&data.join("postgresql.conf"), &options.configuration(major(&data)?))?;
        if let Some(hba) = &options.hba {
            template::write_private(account, &data.join("pg_hba.conf"), hba.as_bytes())?;
        }
        let place = Place {
            account,
            bin,
            data,
            sockets: home.path().to_path_buf(),
            log: home.path().join("log"),
        };
        let (server, port) = first_start(&place, &warden)?;
        let server = Mutex::new(Some(server));
        Ok(Cluster { place, password: options.password, port, server, _home: home, warden })
    }

    /// How to connect to a database as the superuser, in libpq's keyword form, through the unix
    /// socket.
    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", database)
    }

    /// The same as another user. Carries the superuser's password, if the cluster has one, only for
    /// the superuser.
    pub fn url_as(&self, user: &str, database: &str) -> String {
        self.keywords(&self.place.sockets.display().to_string(), user, database)
    }

    /// How to connect as the superuser through TCP.
    pub fn tcp_url(&self, database: &str) -> String {
        self.tcp_url_as("postgres", database)
    }

    /// How to connect as another user through TCP.
    pub fn tcp_url_as(&self, user: &str, database: &str) -> String {
        self.keywords("127.0.0.1", user, database)
    }

    fn keywords(&self, host: &str, user: &str, database: &str) -> String {
        let mut url = format!("host={host} port={} user={user} dbname={database}", self.port);
        if let (Some(password), "postgres") = (&self.password, user) {
            let _ =
                write!(url, " password='{}'", password.replace('\\', r"\\").replace('\'', r"\'"));
        }
        url
    }

    /// The port, of the TCP socket and in the name of the unix socket. It stays the same over
    /// restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of the unix socket.
    pub fn socket_dir(&self) -> &Path {
        &self.place.sockets
    }

    /// The directory of the server's programs.
    pub fn bin(&self) -> &Path {
        &self.place.bin
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.place.data
    }

    /// The postmaster's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server().as_ref().map(Server::pid)
    }

    /// The end of the server's log.
    pub fn log_tail(&self) -> String {
        log_tail(&self.place.log)
    }

    /// One of PostgreSQL's client programs, told by its environment to connect to a database as the
    /// superuser.
    pub fn command(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.place.bin.join(program));
        clean(&mut command);
        command
            .env("PGHOST", &self.place.sockets)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", database);
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", password);
        }
        command
    }

    /// Runs SQL through psql, each statement in a transaction of its own, and returns the unaligned
    /// rows without the last newline. Stops at the first error. Any size.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        let mut child = self
            .command("psql", database)
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(during("start psql"))?;
        let stdin = child.stdin.take();
        let output = thread::scope(|scope| {
            // psql answers while it reads, so both have to flow at once. It stops reading at an
            // error.
            scope.spawn(|| stdin.map(|mut stdin| stdin.write_all(sql.as_bytes())));
            child.wait_with_output()
        })
        .map_err(during("read from psql"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').into());
        }
        Err(Error::Failed {
            program: "psql".into(),
            status: output.status.to_string(),
            output: String::from_utf8_lossy(&output.stderr).trim_end().into(),
        })
    }

    /// Creates a database.
    pub fn create_database(&self, name: &str) -> Result<()> {
        self.psql("postgres", &format!("create database \"{}\"", name.replace('"', "\"\"")))
            .map(drop)
    }

    /// Changes a setting (`ALTER SYSTEM`) and returns when new connections see it. Settings that
    /// need a restart take effect at the next [`restart`](Cluster::restart).
    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        let loaded = self.psql("postgres", "select pg_conf_load_time()")?;
        let value = value.replace('\'', "''");
        self.psql(
            "postgres",
            &format!("alter system set {name} = '{value}';\nselect pg_reload_conf()"),
        )?;
        let deadline = Instant::now() + RELOAD_TIMEOUT;
        while self.psql("postgres", "select pg_conf_load_time()")? == loaded {
            if Instant::now() > deadline {
                let seconds = RELOAD_TIMEOUT.as_secs();
                return Err(Error::Slow { state: "reloaded", seconds, log: self.log_tail() });
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Puts a file, such as a TLS key, into the data directory, readable for the server alone.
    pub fn install(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.place.data.join(name);
        template::write_private(self.place.account, &path, content)?;
        Ok(path)
    }

    /// Kills the server and all its children with SIGKILL at one instant, and leaves the data as
    /// they are.
    pub fn kill9(&self) -> Result<()> {
        let server = self.take()?;
        let pid = server.pid();
        server.kill(&self.place);
        self.warden.forget(pid);
        Ok(())
    }

    /// Shuts the server down, without waiting for clients.
    pub fn stop(&self) -> Result<()> {
        let server = self.take()?;
        let pid = server.pid();
        let stopped = server.stop(&self.place);
        self.warden.forget(pid);
        stopped
    }

    /// Starts the server again after [`kill9`](Cluster::kill9) or [`stop`](Cluster::stop), and
    /// waits until it has recovered.
    pub fn start_again(&self) -> Result<()> {
        let mut held = self.server();
        if held.as_mut().is_some_and(|server| !server.ended()) {
            return Err(Error::State("running"));
        }
        if let Some(ended) = held.take() {
            self.warden.forget(ended.pid());
        }
        let mut attempts = 0;
        loop {
            match start_on(&self.place, &self.warden, self.port) {
                Ok(server) => {
                    *held = Some(server);
                    return Ok(());
                }
                Err(Error::Ended { log }) if port_is_taken(&log) && attempts < PORT_ATTEMPTS => {
                    attempts += 1;
                    thread::sleep(Duration::from_millis(200));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Stops the server and starts it again.
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    fn take(&self) -> Result<Server> {
        self.server().take().ok_or(Error::State("stopped"))
    }

    fn server(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Ok(server) = self.take() {
            let pid = server.pid();
            server.abandon(&self.place);
            self.warden.forget(pid);
        }
    }
}

/// A directory whose name is short enough for a unix socket (108 bytes) and which another user may
/// reach.
fn home() -> Result<TempDir> {
    let base = env::temp_dir();
    let fits = base.as_os_str().len() <= 60 && base.ancestors().all(binaries::is_passable);
    let base = if fits { base } else { PathBuf::from("/tmp") };
    tempfile::Builder::new()
        .prefix("tw-")
        .tempdir_in(&base)
        .map_err(during(format!("create a directory in {}", base.display())))
}

/// The major version of a data directory.
fn major(data: &Path) -> Result<u32> {
    let path = data.join("PG_VERSION");
    fs::read_to_string(&path)
        .and_then(|text| text.trim().parse().map_err(io::Error::other))
        .map_err(during(format!("read {}", path.display())))
}

fn append(path: &Path, text: &str) -> Result<()> {
    fs::OpenOptions::new()
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(during(format!("write {}", path.display())))
}

fn first_start(place: &Place, warden: &Warden) -> Result<(Server, u16)> {
    let mut attempts = 0;
    loop {
        let port = free_port();
        match start_on(place, warden, port) {
            Ok(server) => return Ok((server, port)),
            Err(Error::Ended { log }) if port_is_taken(&log) && attempts < PORT_ATTEMPTS => {
                attempts += 1
            }
            Err(error) => return Err(error),
        }
    }
}

fn start_on(place: &Place, warden: &Warden, port: u16) -> Result<Server> {
    let mut server = Server::spawn(place, port)?;
    let pid = server.pid();
    warden.watch(pid);
    match server.wait_ready(place) {
        Ok(()) => Ok(server),
        Err(error) => {
            server.abandon(place);
            warden.forget(pid);
            Err(error)
        }
    }
}

/// A port of the loopback interface that nobody holds, neither for TCP nor for UDP. It lies below
/// the range that systems hand out by themselves, and this process is given each only once, so that
/// it is there still when whoever asked for it begins, and begins again.
pub fn free_port() -> u16 {
    // Processes begin at different ports: what they found free may not be held yet.
    static NEXT: LazyLock<AtomicU64> =
        LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one(()) >> 1));
    let is_free = |port: &u16| {
        let address = ("127.0.0.1", *port);
        TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
    };
    (0..PORTS)
        .map(|_| NEXT.fetch_add(1, Ordering::Relaxed) % u64::from(PORTS))
        .map(|number| PORT_FIRST + u16::try_from(number).unwrap_or_default())
        .find(is_free)
        .unwrap_or(PORT_FIRST)
}

fn port_is_taken(log: &str) -> bool {
    log.contains("could not create any TCP/IP sockets") || log.contains("Address already in use")
}

const PORT_FIRST: u16 = 15_000;
const PORTS: u16 = 17_000;
const PORT_ATTEMPTS: u32 = 20;
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
