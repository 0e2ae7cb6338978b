//! A session that is asked for one number again and again, cheaper than a client for each question.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result};
use thinwire_cluster::Cluster;

/// A psql that stays. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Probe {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Probe {
    pub(crate) fn open(cluster: &Cluster, database: &str) -> Result<Probe> {
        let mut child = cluster
            .command("psql", database)
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting psql")?;
        let input = child.stdin.take().context("psql has no input")?;
        let output = BufReader::new(child.stdout.take().context("psql has no output")?);
        Ok(Probe { child, input, output })
    }

    /// The number that a query on one line gives; 0 for null.
    pub(crate) fn ask(&mut self, query: &str) -> Result<u64> {
        writeln!(self.input, "{query};").context("asking psql")?;
        let mut line = String::new();
        self.output.read_line(&mut line).context("reading from psql")?;
        let answer = line.trim();
        if answer.is_empty() && !line.is_empty() {
            return Ok(0);
        }
        answer.parse().with_context(|| format!("psql answered {line:?} to: {query}"))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thinwire_cluster::Options;

    #[test]
    fn it_answers_again_and_says_what_it_cannot_read() {
        let cluster = Cluster::start(Options::default()).unwrap();
        let mut probe = Probe::open(&cluster, "postgres").unwrap();
        assert_eq!(probe.ask("select 40 + 2").unwrap(), 42);
        assert_eq!(probe.ask("select null").unwrap(), 0);
        assert!(probe.ask("select 'a'").unwrap_err().to_string().contains("select 'a'"));
        assert_eq!(probe.ask("select 7").unwrap(), 7);
        assert!(probe.ask("select 1/0").is_err());
    }
}
