//! The least that a stream of changes, or a copy, can take: all of it under `zstd -19 --long`, which no link
//! sees.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Stdio};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use thinwire_cluster::{Cluster, digest};

use crate::squeeze::Squeeze;

/// A stream's size as PostgreSQL's output plugin says it, or that of rows as COPY writes them, and compressed as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// Bytes of all messages, or lines.
    pub stream_bytes: u64,
    /// The same under zstd.
    pub compressed_bytes: u64,
}

/// Begins to collect what happens in a database.
pub(crate) fn open(cluster: &Cluster, database: &str) -> Result<()> {
    cluster.psql(
        database,
        "create publication floor for all tables;\n\
         select from pg_create_logical_replication_slot('floor', 'pgoutput')",
    )?;
    Ok(())
}

/// What happened since.
pub(crate) fn take(cluster: &Cluster, database: &str) -> Result<Floor> {
    let floor = squeezed(cluster, database, &[CHANGES], |said, squeeze| {
        said.lines().try_for_each(|line| squeeze.take_in(&bytes(&line?)?))
    })
    .context("reading the stream of changes")?;
    cluster.psql(database, "select pg_drop_replication_slot('floor'); drop publication floor")?;
    Ok(floor)
}

/// All rows that there are.
pub(crate) fn of_rows(cluster: &Cluster, database: &str) -> Result<Floor> {
    let tables = digest::tables(cluster, database)?;
    let copies: Vec<String> =
        tables.iter().map(|table| format!("copy {table} to stdout")).collect();
    squeezed(cluster, database, &copies, |mut said, squeeze| {
        let mut part = vec![0; PART];
        loop {
            match said.read(&mut part)? {
                0 => return Ok(()),
                read => squeeze.take_in(&part[..read])?,
            }
        }
    })
    .context("reading all rows")
}

/// What psql says to some statements, as it is taken in.
fn squeezed<T: AsRef<str>>(
    cluster: &Cluster,
    database: &str,
    statements: &[T],
    take_in: impl FnOnce(BufReader<ChildStdout>, &mut Squeeze) -> Result<()>,
) -> Result<Floor> {
    let mut psql = cluster
        .command("psql", database)
        .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-v", "FETCH_COUNT=1000"])
        .args(statements.iter().flat_map(|sql| ["-c", sql.as_ref()]))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .process_group(0)
        .spawn()
        .context("starting psql")?;
    let said = BufReader::new(psql.stdout.take().context("psql has no output")?);
    let mut squeeze = Squeeze::new()?;
    take_in(said, &mut squeeze)?;
    let status = psql.wait()?;
    ensure!(status.success(), "psql ended with {status}");
    let (stream_bytes, compressed_bytes) = squeeze.finish()?;
    Ok(Floor { stream_bytes, compressed_bytes })
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let digit = |at: usize| {
        let digits = hex.get(at..at + 2).context("a message ends in the middle of a byte")?;
        u8::from_str_radix(digits, 16).context("a message is not in hexadecimal digits")
    };
    (0..hex.len()).step_by(2).map(digit).collect()
}

const CHANGES: &str = "select encode(data, 'hex') from pg_logical_slot_get_binary_changes(\
    'floor', null, null, 'proto_version', '1', 'publication_names', 'floor')";

/// What is read at once.
const PART: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use thinwire_cluster::Options;

    #[test]
    fn the_floor_is_far_below_a_stream_that_repeats_itself() {
        let cluster = Cluster::start(Options::default()).unwrap();
        cluster.psql("postgres", "create table t (id int primary key, t text)").unwrap();
        open(&cluster, "postgres").unwrap();
        let rows = "insert into t select i, repeat('the same', 100) from generate_series(1, 500) i";
        cluster.psql("postgres", rows).unwrap();
        let floor = take(&cluster, "postgres").unwrap();
        assert!(floor.stream_bytes > 500 * 800, "{floor:?}");
        assert!((100..floor.stream_bytes / 50).contains(&floor.compressed_bytes), "{floor:?}");

        let text = cluster.psql("postgres", "copy t to stdout").unwrap();
        cluster.psql("postgres", "create table \"two words\" (); create table u (i int)").unwrap();
        cluster.psql("postgres", "insert into u values (7)").unwrap();
        let floor = of_rows(&cluster, "postgres").unwrap();
        // The last newline, and the line of the other table.
        assert_eq!(floor.stream_bytes, text.len() as u64 + 1 + 2);
        assert!((100..floor.stream_bytes / 50).contains(&floor.compressed_bytes), "{floor:?}");
    }
}
