//! Between servers of different versions: neighbours, and the oldest and the newest in both directions.

use std::time::Duration;

use thinwire_cluster::Options;

use super::{pair_on, server, tables, transactions, values};
use crate::site::{APPLY, CAPTURE, DB, Pair, Site, lively};

/// Schemas are compared for so long between each two versions.
const TIME: Duration = Duration::from_secs(4);

/// Servers of two versions, if both are there.
fn servers(source: u32, target: u32) -> Option<[Options; 2]> {
    let bins = [server(source)?, server(target)?];
    Some(bins.map(|bin| Options::default().with_bin(bin)))
}

/// Values of every type, and rows that are told apart in every way.
fn most(source: u32, target: u32) {
    let Some(options) = servers(source, target) else { return };
    let seed = values::first_seed() + u64::from(source * 100 + target) * 1_000;
    values::on(options.clone(), seed, TIME);
    tables::keys(options);
}

/// Partitions, subtransactions and prepared transactions too.
fn all(source: u32, target: u32) {
    most(source, target);
    let Some(options) = servers(source, target) else { return };
    tables::partitions(options.clone());
    transactions::savepoints(options.clone());
    transactions::prepared(options);
}

#[test]
fn everything_arrives_from_14_at_18() {
    all(14, 18);
}

#[test]
fn everything_arrives_from_18_at_14() {
    all(18, 14);
}

#[test]
fn everything_arrives_from_16_at_17() {
    all(16, 17);
}

#[test]
fn most_arrives_from_14_at_15() {
    most(14, 15);
}

#[test]
fn most_arrives_from_15_at_16() {
    most(15, 16);
}

#[test]
fn most_arrives_from_17_at_15() {
    most(17, 15);
}

#[test]
fn most_arrives_from_17_at_18() {
    most(17, 18);
}

#[test]
fn most_arrives_from_18_at_16() {
    most(18, 16);
}

#[test]
fn keys_without_overlaps_tell_rows_apart() {
    let Some(options) = servers(18, 18) else { return };
    // Each named after its replica identity; keys over periods, alone and of several columns.
    let schema = "create extension btree_gist;
         create table by_default (id int4range, valid daterange, v text, primary key (id, valid without overlaps));
         create table by_full (id int4range, valid daterange, v text, primary key (id, valid without overlaps));
         alter table by_full replica identity full;
         create table by_index (id int4range not null, valid daterange not null, v text,
             constraint by_index_key unique (id, valid without overlaps));
         alter table by_index replica identity using index by_index_key;
         create table no_key (id int4range, valid daterange, v text);
         create table mixed (id int, valid tstzmultirange, v text, primary key (id, valid without overlaps));
         create table unique_only (id int4range, valid daterange, v text, unique (id, valid without overlaps))";
    let mut pair = pair_on(options, schema, schema);
    let tables = ["by_default", "by_full", "by_index", "no_key", "mixed", "unique_only"];
    let (ranges, mixed) = tables.split_at(4);
    for table in [ranges, &mixed[1..]].concat() {
        pair.source.sql(&format!(
            "insert into {table} select int4range(i, i + 1), daterange('2000-01-01'::date + 10 * i, '2000-01-05'::date + 10 * i), 'v'
             from generate_series(1, 6) i"
        ));
    }
    pair.source.sql("insert into mixed select i, '{[2000-01-01 00:00+00,2001-01-01 00:00+00)}', 'v' from generate_series(1, 4) i");
    super::start(&mut pair);
    super::equal(&pair, &tables, "copied");
    for table in [ranges, &mixed[1..]].concat() {
        pair.source.sql(&format!(
            "update {table} set v = 'w' where id = '[2,3)'; update {table} set id = '[12,13)', v = 'x' where id = '[3,4)';
             update {table} set valid = '[2010-01-01,2011-01-01)' where id = '[4,5)'; delete from {table} where id = '[5,6)';
             insert into {table} values ('[2,3)', '[2015-01-01,2016-01-01)', 'another period')"
        ));
    }
    pair.source.sql(
        "update mixed set v = 'w' where id = 1; update mixed set valid = '{[1999-01-01 00:00+00,2000-01-01 00:00+00),[2005-01-01 00:00+00,)}' where id = 2;
         delete from mixed where id = 3; insert into mixed values (1, '{[2003-01-01 00:00+00,2004-01-01 00:00+00)}', 'later')",
    );
    super::equal(&pair, &tables, "streamed");
}

#[test]
fn a_table_of_18_that_its_publication_would_lock_is_refused_by_name() {
    let Some(options) = servers(18, 18) else { return };
    let schema =
        "create table fine (id int primary key, twice int generated always as (id * 2) stored,
             more int generated always as (id * 3) virtual);
         create table keyless (id int, twice int generated always as (id * 2) stored)";
    let [source, _] = options;
    let site = Site::with("edge", CAPTURE, schema, source);
    let refused = site.node.init().unwrap_err().to_string();
    assert!(refused.contains("public.keyless has generated columns and no key"), "{refused}");
    site.sql("alter table keyless add primary key (id)");
    site.node.init().unwrap();
    site.sql("insert into fine values (1); update fine set id = 2; insert into keyless values (1); update keyless set id = 2");
}

#[test]
fn a_server_that_loads_one_output_plugin_is_captured_and_no_login_loads_another() {
    // The setting came with minor releases of these.
    for major in [17, 18] {
        let Some(bin) = server(major) else { return };
        let schema = "create table t (id int primary key, v text)";
        let closed = Options::default().with_bin(&bin).with("output_plugin_libraries", "pgoutput");
        let mut source = Site::with("edge", CAPTURE, schema, closed);
        let mut target = Site::with("hq", APPLY, schema, Options::default().with_bin(&bin));
        source.sql("create role capturer login replication");
        source.login("capturer");
        source.init_as_admin();
        target.init();
        let mut pair = Pair::joined(source, target, lively());
        pair.source.sql("insert into t values (1, 'copied')");
        pair.start();
        pair.source.sql("insert into t values (2, 'streamed')");
        pair.wait_equal(Duration::from_secs(30));
        let other = "set role capturer; select pg_create_logical_replication_slot('other', 'test_decoding')";
        let refused = pair.source.cluster.psql(DB, other).unwrap_err().to_string();
        assert!(refused.contains("test_decoding"), "{refused}");
        let slots = pair.source.sql("select string_agg(slot_name, ' ') from pg_replication_slots");
        assert_eq!(slots, "thinwire_edge");
    }
}
