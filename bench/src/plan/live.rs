//! What a live database asks of a link, measured for a while without changing anything in it.
//!
//! A temporary replication slot with PostgreSQL's `test_decoding` reads what is committed; it needs
//! `wal_level = logical` and the right to replicate, and goes with its session. Unlike a
//! publication it cannot make anybody's update fail.

use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use thinwire_engine::model::{Lsn, Relation, Row};

use super::Demand;
use super::decoding::{Decoding, column, fields, relation, text};
use super::psql::Psql;
use super::sample::{Extent, Sample};
use crate::progress::Progress;
use crate::stop::Stop;

/// A database that is looked at.
pub(super) struct Live<'a> {
    psql: Psql<'a>,
    slot: String,
    tables: Vec<Table>,
    sample: Sample,
    stop: &'a Stop,
    progress: &'a Progress,
}

/// Watches the database of a libpq URL for this long. Psql is found in `PATH`.
pub fn measure(url: &str, time: Duration, stop: &Stop, progress: &Progress) -> Result<Demand> {
    Live::begin(url, stop, progress)?.watch(time)
}

impl Live<'_> {
    /// Looks at the rows. From then on what is committed will be counted.
    pub(super) fn begin<'a>(url: &str, stop: &'a Stop, progress: &'a Progress) -> Result<Live<'a>> {
        let mut psql = Psql::start(url, stop)?;
        psql.run(SETTINGS)?;
        let tables = tables(&mut psql)?;
        let mut sample = Sample::default();
        // As they are before the changes: what changes is new to who has the rows.
        for (number, table) in (1..).zip(&tables) {
            progress.step("tables looked at", number, tables.len() as u64);
            sample.tables.push(table.sample(&mut psql)?);
        }
        let slot = format!("thinwire_plan_{}", process::id());
        psql.run(&format!(
            "select from pg_create_logical_replication_slot('{slot}', 'test_decoding', true);"
        ))?;
        Ok(Live { psql, slot, tables, sample, stop, progress })
    }

    /// What it asks of a link, by what is committed in this time.
    pub(super) fn watch(mut self, time: Duration) -> Result<Demand> {
        let begun = Instant::now();
        self.progress.begin(&format!("measuring the database for {} s", time.as_secs()));
        while begun.elapsed() < time {
            self.stop.check()?;
            self.progress.step("seconds measured", begun.elapsed().as_secs(), time.as_secs());
            thread::sleep(LOOK_EVERY.min(time.saturating_sub(begun.elapsed())));
        }
        changes(&mut self.psql, &self.slot, &self.tables, &mut self.sample)?;
        Ok(self.sample.demand(time.as_secs_f64())?)
    }
}

/// What was committed since the slot is there. Of a lot the beginning is kept, and the rest counted.
fn changes(psql: &mut Psql<'_>, slot: &str, tables: &[Table], sample: &mut Sample) -> Result<()> {
    let named = |table: &Table| (table.name.clone(), table.relation.clone());
    let mut decoding = Decoding::new(tables.iter().map(named).collect::<HashMap<_, _>>());
    let (mut heard, mut kept, mut changed) = (0, 0, false);
    let changes = format!(
        "copy (select lsn - '0/0', xid, data from pg_logical_slot_get_changes('{slot}', null, \
         null, 'include-xids', '0', 'include-timestamp', '1', 'skip-empty-xacts', '1')) to stdout;"
    );
    psql.ask(&changes, |line| {
        let fields = fields(line);
        let [lsn, xid, data] = &fields[..] else { return Ok(()) };
        let data = text(data)?;
        if decoding.concerns(data) {
            changed = true;
            heard += data.len();
            if kept >= KEPT_BYTES_MAX {
                return Ok(());
            }
            kept += data.len();
        }
        let (lsn, xid) = (Lsn::new(text(lsn)?.parse()?), text(xid)?.parse()?);
        sample.transactions.extend(decoding.take(lsn, xid, data)?);
        sample.count += u64::from(data.starts_with("COMMIT") && mem::take(&mut changed));
        Ok(())
    })?;
    sample.times = heard as f64 / kept.max(1) as f64;
    Ok(())
}

/// A table as the catalog describes it.
#[derive(Debug)]
struct Table {
    /// As the server quotes it.
    name: String,
    relation: Relation,
    /// How many rows a page has, as far as the server has ever counted them.
    density: Option<f64>,
    /// How many pages there are.
    pages: f64,
}

fn tables(psql: &mut Psql<'_>) -> Result<Vec<Table>> {
    let mut tables: Vec<Table> = Vec::new();
    psql.ask(TABLES, |line| {
        let fields = fields(line);
        let fields = fields.iter().map(text).collect::<Result<Vec<&str>>>()?;
        let [id, quoted, schema, name, identity, rows, old_pages, pages, rest @ ..] = &fields[..]
        else {
            return Ok(());
        };
        let [column_name, type_oid, modifier, key] = rest else { return Ok(()) };
        if tables.last().is_none_or(|table| table.name != *quoted) {
            let (rows, old_pages) = (rows.parse::<f64>()?, old_pages.parse::<f64>()?);
            let counted = rows > 0.0 && old_pages > 0.0;
            tables.push(Table {
                name: (*quoted).to_owned(),
                relation: relation(id, schema, name, identity)?,
                density: counted.then(|| rows / old_pages),
                pages: pages.parse()?,
            });
        }
        let table = tables.last_mut().context("a column has no table")?;
        table.relation.columns.push(column(column_name, *key == "t", type_oid, modifier)?);
        Ok(())
    })?;
    Ok(tables)
}

impl Table {
    /// Its first rows, and how many there are: as many as its pages hold at the density that was counted, or that these
    /// rows have.
    fn sample(&self, psql: &mut Psql<'_>) -> Result<Extent> {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let columns = self.relation.columns.iter().map(|column| quoted(&column.name));
        let columns = columns.collect::<Vec<String>>().join(", ");
        let copy = format!(
            "copy (select (ctid::text::point)[0]::bigint, {columns} from only {} \
             limit {ROWS_MAX}) to stdout;",
            self.name
        );
        let (mut rows, mut pages) = (Vec::new(), BTreeSet::new());
        psql.ask(&copy, |line| {
            let mut fields = fields(line);
            pages.insert(text(&fields.remove(0))?.to_owned());
            rows.push(Row(fields));
            Ok(())
        })?;
        let seen = rows.len() as f64;
        let density = self.density.unwrap_or(seen / pages.len().max(1) as f64);
        let total = if rows.len() < ROWS_MAX { seen } else { (density * self.pages).max(seen) };
        Ok(Extent { relation: self.relation.clone(), rows, total })
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Of changes as text: enough to learn what they are like.
const KEPT_BYTES_MAX: usize = 8 << 20;
/// The same of a table's rows.
const ROWS_MAX: usize = 20_000;
/// Values are written as capture has them written.
const SETTINGS: &str = "set client_min_messages = error; set datestyle = 'ISO'; \
    set intervalstyle = 'postgres'; set extra_float_digits = 3; set bytea_output = 'hex'; \
    set xmlbinary = 'base64'; set timezone = 'UTC'; set client_encoding = 'UTF8'; \
    set statement_timeout = 0; set idle_session_timeout = 0;";
/// A line for each column. A table that was never analysed has -1 rows.
const TABLES: &str = "copy (\
    select c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname), n.nspname, c.relname, \
        c.relreplident, c.reltuples, c.relpages, \
        pg_relation_size(c.oid) / current_setting('block_size')::bigint, \
        a.attname, a.atttypid, a.atttypmod, c.relreplident = 'f' or exists (\
            select from pg_index i where i.indrelid = c.oid and a.attnum = any (i.indkey::int2[]) \
            and (c.relreplident = 'd' and i.indisprimary or c.relreplident = 'i' and i.indisreplident)) \
    from pg_class c join pg_namespace n on n.oid = c.relnamespace \
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
        and a.attgenerated = '' \
    where c.relkind = 'r' and c.relpersistence = 'p' \
    and n.nspname !~ '^(pg_|information_schema$|thinwire)' \
    order by c.oid, a.attnum) to stdout;";

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use thinwire_cluster::{Cluster, Options};

    fn measured(cluster: &Cluster, seconds: u64) -> Result<Demand> {
        let time = Duration::from_secs(seconds);
        measure(&cluster.url("postgres"), time, &Stop::default(), &Progress::new(true))
    }

    /// The server drops a slot a moment after its session has ended.
    fn keeps_no_slot(cluster: &Cluster) {
        let left = "select count(*) from pg_replication_slots";
        let deadline = Instant::now() + Duration::from_secs(60);
        while cluster.psql("postgres", left).unwrap() != "0" {
            assert!(Instant::now() < deadline, "the slot is still there");
            thread::sleep(Duration::from_millis(50));
        }
    }

    #[test]
    fn a_database_is_measured_while_it_works_and_keeps_nothing_of_it() {
        let cluster = Cluster::start(Options::default()).unwrap();
        let table = "create table t (id int primary key, t text); \
             insert into t select i, md5(i::text) from generate_series(1, 5000) i; analyze t";
        cluster.psql("postgres", table).unwrap();
        let work: String =
            (0..100).map(|id| format!("update t set t = md5(t) where id = {id} + 1;\n")).collect();
        let (stop, progress) = (Stop::default(), Progress::new(true));
        let live = Live::begin(&cluster.url("postgres"), &stop, &progress).unwrap();
        cluster.psql("postgres", &work).unwrap();
        let demand = live.watch(Duration::from_secs(4)).unwrap();
        assert_eq!(demand.rate, 25.0, "{demand:?}");
        // A digest of 16 bytes, written as twice as many digits.
        assert!((16.0..26.0).contains(&demand.bytes_each), "{demand:?}");
        assert!(demand.alone_each > demand.bytes_each, "{demand:?}");
        assert!((80_000.0..100_000.0).contains(&demand.copy_bytes), "{demand:?}");
        keeps_no_slot(&cluster);
    }

    #[test]
    fn a_table_that_was_never_analysed_counts_as_what_its_pages_hold() {
        let cluster = Cluster::start(Options::default()).unwrap();
        let sql = "create table \"my t\" (id int primary key, \"a b\" text, \
             double int generated always as (id * 2) stored) with (autovacuum_enabled = off); \
             insert into \"my t\" select i, md5(i::text) from generate_series(1, 60000) i";
        cluster.psql("postgres", sql).unwrap();
        let rows = "select reltuples from pg_class where relname = 'my t'";
        assert_eq!(cluster.psql("postgres", rows).unwrap(), "-1");
        let demand = measured(&cluster, 1).unwrap();
        assert!((900_000.0..1_050_000.0).contains(&demand.copy_bytes), "{demand:?}");
    }

    #[test]
    fn who_stops_it_ends_its_session_and_its_slot() {
        let cluster = Cluster::start(Options::default()).unwrap();
        let (stop, url) = (Stop::default(), cluster.url("postgres"));
        let begun = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(700));
                stop.ask();
            });
            let hour = Duration::from_secs(3_600);
            measure(&url, hour, &stop, &Progress::new(true)).unwrap_err();
        });
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        keeps_no_slot(&cluster);
    }

    #[test]
    fn a_database_that_is_not_there_is_an_error_with_its_reason() {
        let (stop, progress) = (Stop::default(), Progress::new(true));
        let second = Duration::from_secs(1);
        let error = measure("host=/nowhere", second, &stop, &progress).unwrap_err();
        assert!(format!("{error:#}").contains("/nowhere"), "{error:#}");
    }
}
