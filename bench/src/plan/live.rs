//! What a live database asks of a link, measured for a while without changing anything in it.
//!
//! A temporary replication slot with PostgreSQL's `test_decoding` reads what is committed; it needs
//! `wal_level = logical` and the right to replicate, and goes with its session. Unlike a
//! publication it cannot make anybody's update fail.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Demand;
use crate::squeeze::Squeeze;

/// Watches the database of a libpq URL for this long. Psql is found in `PATH`.
pub fn measure(url: &str, time: Duration) -> Result<Demand> {
    let mut transactions = 0_u64;
    let mut squeeze = Squeeze::new()?;
    let script = format!(
        "select 'slot' from pg_create_logical_replication_slot('{SLOT}', 'test_decoding', true);\n\
         select 'slept' from pg_sleep({});\n\
         select data from pg_logical_slot_get_changes('{SLOT}', null, null, \
         'include-xids', '0', 'skip-empty-xacts', '1');\n",
        time.as_secs_f64()
    );
    each_line(url, &script, |line| {
        transactions += u64::from(line == "COMMIT");
        squeeze.take_in(line.as_bytes())
    })?;
    let (_, bytes) = squeeze.finish()?;
    let bytes_each = bytes as f64 * DECODING_SHARE / transactions.max(1) as f64;
    let rate = transactions as f64 / time.as_secs_f64();
    Ok(Demand { rate, bytes_each, copy_bytes: copy_bytes(url)? })
}

/// What the rows of all tables take, from a sample of each.
fn copy_bytes(url: &str) -> Result<u64> {
    let mut tables = Vec::new();
    each_line(url, TABLES, |line| {
        let (rows, name) = line.split_once(' ').context("a table has no name")?;
        tables.push((rows.parse::<f64>().unwrap_or_default(), name.to_owned()));
        Ok(())
    })?;
    let mut total = 0.0;
    for (rows, name) in tables {
        let mut squeeze = Squeeze::new()?;
        let mut sampled = 0_u64;
        let copy = format!("copy (select * from {name} limit {SAMPLE_ROWS}) to stdout;\n");
        each_line(url, &copy, |line| {
            sampled += 1;
            squeeze.take_in(line.as_bytes())
        })?;
        let bytes = squeeze.finish()?.1 as f64;
        total += bytes * (rows / sampled.max(1) as f64).max(1.0);
    }
    format!("{total:.0}").parse().context("adding up the tables")
}

/// What psql prints for a script, line by line.
fn each_line(url: &str, script: &str, mut act: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let mut psql = Psql::start(url, script)?;
    let output = BufReader::new(psql.0.stdout.take().context("psql has no output")?);
    for line in output.lines() {
        act(&line?)?;
    }
    let mut complaint = String::new();
    if let Some(errors) = psql.0.stderr.as_mut() {
        errors.read_to_string(&mut complaint)?;
    }
    let status = psql.0.wait()?;
    ensure!(status.success(), "asking the database: {}", complaint.trim_end());
    Ok(())
}

/// A client that is ended with whoever asked it.
struct Psql(Child);

impl Psql {
    fn start(url: &str, script: &str) -> Result<Psql> {
        let mut command = Command::new("psql");
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", url]);
        // Each statement for itself: a slot is not made in a transaction that has done something.
        for statement in script.split_inclusive(";\n") {
            command.args(["-c", statement]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting psql, which must be in PATH")?;
        Ok(Psql(child))
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const SLOT: &str = "thinwire_plan";
/// What pgoutput's stream takes of the same changes as text, both compressed.
const DECODING_SHARE: f64 = 0.95;
const SAMPLE_ROWS: u32 = 20_000;
const TABLES: &str = "select greatest(reltuples, 0)::bigint || ' ' || oid::regclass \
    from pg_class where relkind = 'r' and relpersistence = 'p' \
    and relnamespace::regnamespace::text !~ '^(pg_|information_schema$|thinwire)';\n";

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use thinwire_cluster::{Cluster, Options};

    #[test]
    fn a_database_is_measured_while_it_works_and_keeps_nothing_of_it() {
        let cluster = Cluster::start(Options::default()).unwrap();
        let table = "create table t (id int primary key, t text); \
             insert into t select i, md5(i::text) from generate_series(1, 5000) i; analyze t";
        cluster.psql("postgres", table).unwrap();
        let work: String =
            (0..100).map(|id| format!("update t set t = md5(t) where id = {id} + 1;\n")).collect();
        let demand = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(1_500));
                cluster.psql("postgres", &work).unwrap();
            });
            measure(&cluster.url("postgres"), Duration::from_secs(4)).unwrap()
        });
        assert_eq!(demand.rate, 25.0, "{demand:?}");
        // A digest of 16 bytes, written as twice as many digits.
        assert!((16.0..60.0).contains(&demand.bytes_each), "{demand:?}");
        assert!((80_000..130_000).contains(&demand.copy_bytes), "{demand:?}");
        let slots = "select count(*) from pg_replication_slots";
        assert_eq!(cluster.psql("postgres", slots).unwrap(), "0");
    }

    #[test]
    fn a_database_that_is_not_there_is_an_error_with_its_reason() {
        let error = measure("host=/nowhere", Duration::from_secs(1)).unwrap_err();
        assert!(format!("{error:#}").contains("/nowhere"), "{error:#}");
    }
}
