//! A real `thinwire` process: its configuration file, its life and its status.

use std::env;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use thinwire_cluster::Warden;

pub mod status;

use status::Status;

/// A sidecar in a folder of its own: `NAME.toml`, `NAME/` and `NAME.log`.
#[derive(Debug)]
pub struct Node {
    binary: PathBuf,
    name: String,
    config: PathBuf,
    log: PathBuf,
    warden: Arc<Warden>,
    within: Vec<String>,
    child: Option<Child>,
}

impl Node {
    /// A node that is not running and has no configuration yet. The warden kills it if this
    /// process dies first.
    pub fn new(folder: &Path, name: &str, warden: Arc<Warden>) -> Result<Node> {
        Ok(Node {
            binary: binary()?,
            name: name.into(),
            config: folder.join(format!("{name}.toml")),
            log: folder.join(format!("{name}.log")),
            warden,
            within: Vec::new(),
            child: None,
        })
    }

    /// Runs it inside another program from now on, such as `ip netns exec NAME`.
    pub fn run_within(&mut self, program: &[&str]) {
        self.within = program.iter().map(|&word| word.to_owned()).collect();
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path of its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Writes its configuration file.
    pub fn configure(&self, text: &str) -> Result<()> {
        fs::write(&self.config, text).with_context(|| format!("writing {}", self.config.display()))
    }

    /// Makes its identity and prepares its database.
    pub fn init(&self) -> Result<()> {
        self.run(&["init"]).map(drop)
    }

    /// Its public key.
    pub fn key(&self) -> Result<String> {
        self.run(&["key"]).map(|output| output.trim().to_owned())
    }

    /// Starts it, with its log appended to a file.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the node {} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = self
            .command(&["run"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        self.warden.watch(child.id());
        self.child = Some(child);
        Ok(())
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills it with SIGKILL.
    pub fn kill9(&mut self) -> Result<()> {
        let mut child = self.take()?;
        child.kill()?;
        child.wait()?;
        self.warden.forget(child.id());
        Ok(())
    }

    /// Asks it to end with SIGTERM, and fails if it takes longer than promised or complains.
    pub fn stop(&mut self) -> Result<()> {
        let mut child = self.take()?;
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        let ended = loop {
            match child.try_wait()? {
                Some(status) => break Some(status),
                None if Instant::now() > deadline => break None,
                None => thread::sleep(Duration::from_millis(10)),
            }
        };
        if ended.is_none() {
            child.kill()?;
            child.wait()?;
        }
        self.warden.forget(child.id());
        match ended {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("the node {} ended with {status}:\n{}", self.name, self.log()),
            None => bail!("the node {} did not end in {STOP_TIMEOUT:?}", self.name),
        }
    }

    /// Fails if it has ended by itself, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
            let ended = self.take()?;
            self.warden.forget(ended.id());
            bail!("the node {} ended with {status}:\n{}", self.name, self.log());
        }
        Ok(())
    }

    /// What it says about itself; `None` when it is not there to answer.
    pub fn status(&self) -> Result<Option<Status>> {
        let output = self.command(&["status", "--json"]).stdin(Stdio::null()).output()?;
        if output.status.code() == Some(NOT_RUNNING) {
            return Ok(None);
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "asking {} for its status: {complaint}", self.name);
        let status = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("reading the status of {}", self.name))?;
        Ok(Some(status))
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        tail(&self.log)
    }

    /// Runs one of its commands to the end and returns what it prints.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("starting {}", self.binary.display()))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "thinwire {} of {} failed with {}: {}",
            arguments.join(" "),
            self.name,
            output.status,
            complaint.trim_end()
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// How it is told to another one.
    fn as_peer(&self) -> Result<String> {
        Ok(format!("\n[[peer]]\nname = \"{}\"\nkey = \"{}\"\n", self.name, self.key()?))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.within.split_first() {
            None => Command::new(&self.binary),
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words).arg(&self.binary);
                command
            }
        };
        command.args(arguments).arg("--config").arg(&self.config);
        command
    }

    fn take(&mut self) -> Result<Child> {
        self.child.take().with_context(|| format!("the node {} does not run", self.name))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.child.is_some() {
            let _ = self.kill9();
        }
    }
}

/// Prepares two nodes, each with the URL of its database: the first captures everything and dials, the second listens
/// and applies. Each makes its identity first, without a peer, and then learns the other's key. What else they are to say of
/// each other is given as lines of TOML.
pub(crate) fn introduce(
    (from, source): (&Node, &str),
    (to, target): (&Node, &str),
    listen: SocketAddr,
    dial: SocketAddr,
    peer: &str,
) -> Result<()> {
    let from_text = format!(
        "[node]\nname = \"{}\"\n\n[database]\nurl = \"{source}\"\n\n\
         [capture]\nmode = \"slot\"\ntables = [\"public.*\"]\n",
        from.name
    );
    let to_text = format!(
        "[node]\nname = \"{}\"\nlisten = \"{listen}\"\n\n[database]\nurl = \"{target}\"\n\n[apply]\n",
        to.name
    );
    for (node, text) in [(from, &from_text), (to, &to_text)] {
        node.configure(text)?;
        node.init()?;
    }
    from.configure(&format!("{from_text}{}address = \"{dial}\"\n{peer}\n", to.as_peer()?))?;
    to.configure(&format!("{to_text}{}{peer}\n", from.as_peer()?))
}

/// The `thinwire` program: `THINWIRE_BIN`, or the one that was built next to the running program.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("THINWIRE_BIN").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let program = env::current_exe().context("finding the running program")?;
    // Tests run from `deps/`, one folder below.
    let folders = program.ancestors().skip(1).take(2);
    let mut candidates = folders.map(|folder| folder.join("thinwire"));
    candidates.find(|path| path.is_file()).with_context(|| {
        format!(
            "there is no program `thinwire` next to {}: build it, or set THINWIRE_BIN",
            program.display()
        )
    })
}

/// The end of a program's log; nothing if there is none.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let tail = text.len().saturating_sub(LOG_TAIL_BYTES);
    String::from_utf8_lossy(&text[tail..]).trim_end().to_owned()
}

/// `thinwire status` ends with this when the node does not run.
const NOT_RUNNING: i32 = 3;
/// SIGTERM ends a node within 5 s; the rest is for a busy machine.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const LOG_TAIL_BYTES: usize = 4096;
