//! Transactions that are written to the source, at once or at a pace.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use thinwire_cluster::Cluster;

/// A client that writes, out of reach of a Ctrl-C at our terminal. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Load {
    psql: Child,
    writer: Option<JoinHandle<io::Result<()>>>,
    over: Arc<AtomicBool>,
}

impl Load {
    /// Begins to write these lines, one each `pause`.
    pub(crate) fn start(
        cluster: &Cluster,
        database: &str,
        lines: Vec<String>,
        pause: Duration,
    ) -> Result<Load> {
        let mut psql = cluster
            .command("psql", database)
            .args(["-Xq", "-v", "ON_ERROR_STOP=1", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting psql")?;
        let input = psql.stdin.take().context("psql has no input")?;
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let writer = thread::spawn(move || write(&lines, pause, input, &ends));
        Ok(Load { psql, writer: Some(writer), over })
    }

    /// Whether all is written; fails if the client did.
    pub(crate) fn finished(&mut self) -> Result<bool> {
        if self.writer.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(writer) = self.writer.take()
        {
            writer.join().map_err(|_| anyhow!("the writer panicked"))??;
        }
        match self.psql.try_wait()? {
            Some(status) => ensure!(status.success(), "psql ended with {status}"),
            None => return Ok(false),
        }
        Ok(self.writer.is_none())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.psql.kill();
        let _ = self.psql.wait();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write(
    lines: &[String],
    pause: Duration,
    mut input: ChildStdin,
    over: &AtomicBool,
) -> io::Result<()> {
    let started = Instant::now();
    let mut due = Duration::ZERO;
    for line in lines {
        if over.load(Ordering::Relaxed) {
            break;
        }
        writeln!(input, "{line}")?;
        due += pause;
        thread::sleep(due.saturating_sub(started.elapsed()));
    }
    Ok(())
}
