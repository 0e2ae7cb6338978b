//! Exactness: whatever PostgreSQL's own logical replication carries arrives as it was, between all versions.

mod bits;
mod branches;
mod choice;
mod prepared;
mod published;
mod tables;
mod transactions;
mod values;
mod versions;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    slice,
    thread::sleep,
    time::{Duration, Instant},
};

use thinwire_cluster::{Options, digest, installations};

pub(crate) use self::choice::narrows;
use crate::site::{APPLY, CAPTURE, DB, Pair, Site, lively, wait_for};

/// How long anything may take that is not slow by itself, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(240);

/// How long a halt may stay after what it was about is mended.
const HEALING: Duration = Duration::from_secs(60);

/// A source, and those that apply its stream.
trait Ends {
    fn source(&self) -> &Site;
    fn source_mut(&mut self) -> &mut Site;
    fn targets(&self) -> &[Site];
    fn targets_mut(&mut self) -> &mut [Site];
}

impl Ends for Pair {
    fn source(&self) -> &Site {
        &self.source
    }

    fn source_mut(&mut self) -> &mut Site {
        &mut self.source
    }

    fn targets(&self) -> &[Site] {
        slice::from_ref(&self.target)
    }

    fn targets_mut(&mut self) -> &mut [Site] {
        slice::from_mut(&mut self.target)
    }
}

/// A table that is part of every schema: what a row of it has reached, all that was committed before has.
const FENCE: &str = "create table fence (n bigint primary key);\n";

/// Two sites with schemas of their own, ready to start.
fn pair_of(source_schema: &str, target_schema: &str) -> Pair {
    pair_on([Options::default(), Options::default()], source_schema, target_schema)
}

/// The same on servers of some kind.
fn pair_on(options: [Options; 2], source_schema: &str, target_schema: &str) -> Pair {
    let [source, target] = options;
    let source = Site::with("edge", CAPTURE, &format!("{FENCE}{source_schema}"), source);
    let target = Site::with("hq", APPLY, &format!("{FENCE}{target_schema}"), target);
    Pair::of(source, target, lively())
}

/// A pair whose source captures tables of all schemas, but not `public.unwanted`.
fn pair_of_all(schema: &str) -> Pair {
    let capture = "[capture]\nmode = \"slot\"\ntables = [\"*.*\", \"!public.unwanted\"]\n";
    let schema = format!("{FENCE}{schema}");
    let source = Site::with("edge", capture, &schema, Options::default());
    let target = Site::with("hq", APPLY, &schema, Options::default());
    Pair::of(source, target, lively())
}

/// Waits until all that is committed at the source now is committed at the target.
fn catch_up(ends: &impl Ends, what: &str) {
    let n = ends.source().sql(
        "insert into public.fence select coalesce(max(n), 0) + 1 from public.fence returning n",
    );
    let arrived = format!("select 1 from public.fence where n = {n}");
    let begun = Instant::now();
    for target in ends.targets() {
        for round in 0_u32.. {
            if target.sql(&arrived) == "1" {
                break;
            }
            // Asking is dear, and mostly in vain.
            if round % 10 == 9 && begun.elapsed() > HEALING {
                not_halted(ends.source(), target, what);
            }
            let logs = || logs(ends.source(), target);
            assert!(begun.elapsed() < PATIENCE, "{what}: nothing arrives\n{}", logs());
            sleep(Duration::from_millis(50));
        }
    }
}

fn not_halted(source: &Site, target: &Site, what: &str) {
    for site in [source, target] {
        if let Some((stream, halted)) = site.status().halted() {
            let (node, of) = (site.node.name(), &stream.name);
            let table = halted.table.as_deref().unwrap_or("public.fence");
            let difference = difference(source, target, table);
            let logs = logs(source, target);
            panic!("{what}: {node} halted {of}: {halted:?}\n{difference}\n{logs}");
        }
    }
}

fn logs(source: &Site, target: &Site) -> String {
    format!("{}\n{}", source.node.log(), target.node.log())
}

/// Waits until all has arrived, and fails unless these tables are the same at both ends then.
fn equal<T: AsRef<str>>(ends: &impl Ends, tables: &[T], what: &str) {
    catch_up(ends, what);
    for table in tables {
        let table = table.as_ref();
        let source = digest::digest(&ends.source().cluster, DB, table).unwrap();
        for site in ends.targets() {
            let target = digest::digest(&site.cluster, DB, table).unwrap();
            if source != target {
                let (node, difference) = (site.node.name(), difference(ends.source(), site, table));
                panic!("{what}: {table} differs at {node}: {source} and {target}\n{difference}");
            }
        }
    }
}

/// Waits until a first copy has arrived: these tables are the same at both ends, all the others are there.
fn copied<T: AsRef<str>>(ends: &impl Ends, tables: &[T], what: &str) {
    let begun = Instant::now();
    let source = ends.source();
    for (target, table) in ends.targets().iter().flat_map(|it| tables.iter().map(move |t| (it, t)))
    {
        let table = table.as_ref();
        let of = |site: &Site| digest::digest(&site.cluster, DB, table).unwrap();
        while of(source) != of(target) {
            if begun.elapsed() > HEALING {
                not_halted(source, target, what);
            }
            if begun.elapsed() > PATIENCE {
                let (difference, logs) = (difference(source, target, table), logs(source, target));
                panic!("{what}: the copy of {table} differs\n{difference}\n{logs}");
            }
            sleep(Duration::from_millis(100));
        }
    }
}

/// Some rows that only one of the ends has.
fn difference(source: &Site, target: &Site, table: &str) -> String {
    let columns = format!(
        "select string_agg(format('%I', attname), ', ' order by attname) from pg_attribute \
         where attrelid = '{}'::regclass and attnum > 0 and not attisdropped",
        table.replace('\'', "''")
    );
    let columns = source.sql(&columns);
    let rows = format!("select replace(row({columns})::text, E'\\n', '\\n') from {table}");
    let lines = |site: &Site| {
        let mut counts = BTreeMap::<String, i64>::new();
        for line in site.sql(&rows).lines() {
            *counts.entry(line.chars().take(2_000).collect()).or_default() += 1;
        }
        counts
    };
    let (here, mut there) = (lines(source), lines(target));
    let mut only = Vec::new();
    for (line, count) in here {
        match there.remove(&line) {
            Some(same) if same == count => {}
            other => only.push(format!("source {count}, target {}: {line}", other.unwrap_or(0))),
        }
    }
    only.extend(there.iter().map(|(line, count)| format!("target {count}: {line}")));
    only.truncate(6);
    format!("columns {columns}\n{}", only.join("\n"))
}

/// Starts all and waits until the first copy has arrived.
fn start(ends: &mut impl Ends) {
    for target in ends.targets_mut() {
        target.node.start().unwrap();
    }
    ends.source_mut().node.start().unwrap();
    catch_up(ends, "the first copy");
}

/// Waits until the target's stream has halted, and returns its code and reason.
fn halt_of(site: &Site) -> (String, String) {
    wait_for("the stream to halt", PATIENCE, || {
        let status = site.status();
        let (_, halted) = status.halted()?;
        Some((halted.code.clone(), halted.detail.clone()))
    })
}

/// The server programs of a major version. Without them a test is skipped, unless `THINWIRE_PG_REQUIRED` lists them.
fn server(major: u32) -> Option<PathBuf> {
    let bin = installations().remove(&major);
    let is_required = is_required(major);
    assert!(bin.is_some() || !is_required, "PostgreSQL {major} is required and not installed");
    if bin.is_none() {
        eprintln!("skipped: PostgreSQL {major} is not installed (`make postgres-versions`)");
    }
    bin
}

/// Whether a test may not be skipped for want of something in this version.
fn is_required(major: u32) -> bool {
    let required = std::env::var("THINWIRE_PG_REQUIRED").unwrap_or_default();
    required.split_whitespace().any(|it| it.parse() == Ok(major))
}
