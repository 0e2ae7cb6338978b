//! A session with somebody's database: one psql that answers one statement after the other, and ends when it is told to.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::stop::Stop;

/// Dropping it cancels what runs and ends the session.
pub(super) struct Psql<'a> {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<io::Result<String>>,
    stop: &'a Stop,
}

impl Psql<'_> {
    pub(super) fn start<'a>(url: &str, stop: &'a Stop) -> Result<Psql<'a>> {
        let mut child = Command::new("psql")
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("starting psql, which must be in PATH")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("psql has no output")?);
        let (send, lines) = sync_channel(LINES_AHEAD);
        thread::spawn(move || output.lines().try_for_each(|line| send.send(line)));
        Ok(Psql { child, input, lines, stop })
    }

    /// Runs statements that answer nothing.
    pub(super) fn run(&mut self, sql: &str) -> Result<()> {
        self.ask(sql, |_| Ok(()))
    }

    /// Runs statements, and hands over each line that they answer.
    pub(super) fn ask(&mut self, sql: &str, mut act: impl FnMut(&str) -> Result<()>) -> Result<()> {
        let input = self.input.as_mut().context("psql has no input")?;
        // Who has ended already says why when it is asked for its answer.
        let _ = writeln!(input, "{sql}\n\\echo '\\\\{END}'").and_then(|()| input.flush());
        loop {
            self.stop.check()?;
            match self.lines.recv_timeout(LOOK_EVERY) {
                Ok(line) => match line?.as_str() {
                    line if line.strip_prefix('\\') == Some(END) => return Ok(()),
                    line => act(line)?,
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.complain(),
            }
        }
    }

    fn complain(&mut self) -> Result<()> {
        let mut complaint = String::new();
        if let Some(errors) = self.child.stderr.as_mut() {
            errors.read_to_string(&mut complaint)?;
        }
        let status = self.child.wait()?;
        bail!("asking the database: psql ended with {status}: {}", complaint.trim_end())
    }
}

impl Drop for Psql<'_> {
    fn drop(&mut self) {
        self.input = None;
        // A signal of this kind has it cancel its query. If it were only killed, the server would go on.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::INT);
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.lines.recv_timeout(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Begins with a backslash that neither `COPY` nor anything else writes before a sign like this one.
const END: &str = "=end";
const LINES_AHEAD: usize = 1_024;
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long it may take to cancel a query.
const PATIENCE: Duration = Duration::from_secs(2);
