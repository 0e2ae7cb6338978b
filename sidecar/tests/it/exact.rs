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
    thread::sleep,
    time::{Duration, Instant},
};

use thinwire_cluster::{Options, digest, installations};

use crate::site::{APPLY, CAPTURE, DB, Pair, Site, lively, wait_for};

/// How long anything may take that is not slow by itself, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(240);

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
fn catch_up(pair: &Pair, what: &str) {
    let n = pair.source.sql(
        "insert into public.fence select coalesce(max(n), 0) + 1 from public.fence returning n",
    );
    let arrived = format!("select 1 from public.fence where n = {n}");
    let deadline = Instant::now() + PATIENCE;
    for round in 0_u32.. {
        if pair.target.sql(&arrived) == "1" {
            return;
        }
        // Asking is dear, and mostly in vain.
        if round % 10 == 9 {
            not_halted(pair, what);
        }
        assert!(Instant::now() < deadline, "{what}: nothing arrives\n{}", logs(pair));
        sleep(Duration::from_millis(50));
    }
}

fn not_halted(pair: &Pair, what: &str) {
    for site in [&pair.source, &pair.target] {
        if let Some((stream, halted)) = site.status().halted() {
            let (node, of) = (site.node.name(), &stream.name);
            let table = halted.table.as_deref().unwrap_or("public.fence");
            let difference = difference(pair, table);
            panic!("{what}: {node} halted {of}: {halted:?}\n{difference}\n{}", logs(pair));
        }
    }
}

fn logs(pair: &Pair) -> String {
    format!("{}\n{}", pair.source.node.log(), pair.target.node.log())
}

/// Waits until all has arrived, and fails unless these tables are the same at both ends then.
fn equal<T: AsRef<str>>(pair: &Pair, tables: &[T], what: &str) {
    catch_up(pair, what);
    for table in tables {
        let table = table.as_ref();
        let source = digest::digest(&pair.source.cluster, DB, table).unwrap();
        let target = digest::digest(&pair.target.cluster, DB, table).unwrap();
        if source != target {
            panic!("{what}: {table} differs: {source} and {target}\n{}", difference(pair, table));
        }
    }
}

/// Waits until a first copy has arrived: these tables are the same at both ends, all the others are there.
fn copied<T: AsRef<str>>(pair: &Pair, tables: &[T], what: &str) {
    let deadline = Instant::now() + PATIENCE;
    let same = |table: &T| {
        let of = |site: &Site| digest::digest(&site.cluster, DB, table.as_ref()).unwrap();
        of(&pair.source) == of(&pair.target)
    };
    for table in tables {
        while !same(table) {
            not_halted(pair, what);
            if Instant::now() > deadline {
                let table = table.as_ref();
                let difference = difference(pair, table);
                panic!("{what}: the copy of {table} differs\n{difference}\n{}", logs(pair));
            }
            sleep(Duration::from_millis(100));
        }
    }
}

/// Some rows that only one of the ends has.
fn difference(pair: &Pair, table: &str) -> String {
    let columns = format!(
        "select string_agg(format('%I', attname), ', ' order by attname) from pg_attribute \
         where attrelid = '{}'::regclass and attnum > 0 and not attisdropped",
        table.replace('\'', "''")
    );
    let columns = pair.source.sql(&columns);
    let rows = format!("select replace(row({columns})::text, E'\\n', '\\n') from {table}");
    let lines = |site: &Site| {
        let mut counts = BTreeMap::<String, i64>::new();
        for line in site.sql(&rows).lines() {
            *counts.entry(line.chars().take(2_000).collect()).or_default() += 1;
        }
        counts
    };
    let (source, mut target) = (lines(&pair.source), lines(&pair.target));
    let mut only = Vec::new();
    for (line, count) in source {
        match target.remove(&line) {
            Some(there) if there == count => {}
            there => only.push(format!("source {count}, target {}: {line}", there.unwrap_or(0))),
        }
    }
    only.extend(target.iter().map(|(line, count)| format!("target {count}: {line}")));
    only.truncate(6);
    format!("columns {columns}\n{}", only.join("\n"))
}

/// Starts both and waits until the first copy has arrived.
fn start(pair: &mut Pair) {
    pair.start();
    catch_up(pair, "the first copy");
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
    let required = std::env::var("THINWIRE_PG_REQUIRED").unwrap_or_default();
    let is_required = required.split_whitespace().any(|it| it.parse() == Ok(major));
    assert!(bin.is_some() || !is_required, "PostgreSQL {major} is required and not installed");
    if bin.is_none() {
        eprintln!("skipped: PostgreSQL {major} is not installed (`make postgres-versions`)");
    }
    bin
}
