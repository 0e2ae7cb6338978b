//! Between servers of different versions: from each to all others.

use std::time::Duration;

use thinwire_bench::emulator::socket::Proxy;
use thinwire_cluster::Options;

use super::{Ends, FENCE, halt_of, pair_on, server, start, tables, transactions, values};
use crate::{
    schema::{self, SOON},
    site::{APPLY, CAPTURE, DB, Pair, Site, lively},
};

/// The versions that there are.
const ALL: [u32; 5] = [14, 15, 16, 17, 18];

/// Schemas are compared for so long between two versions.
const TIME: Duration = Duration::from_secs(4);

fn options(major: u32) -> Option<Options> {
    Some(Options::default().with_bin(server(major)?))
}

/// Servers of two versions, if both are there.
fn servers(source: u32, target: u32) -> Option<[Options; 2]> {
    Some([options(source)?, options(target)?])
}

/// A seed that only these versions have.
fn seed(source: u32, target: u32) -> u64 {
    values::first_seed() + u64::from(source * 100 + target) * 1_000
}

/// A source of one version, with a target of each other.
struct Fan {
    source: Site,
    targets: Vec<Site>,
    _links: Vec<Proxy>,
}

impl Fan {
    /// One with the same schema everywhere, of those versions that there are.
    fn new(source: u32, schema: &str) -> Option<Self> {
        let schema = format!("{FENCE}{schema}");
        let mut source_site = Site::with("edge", CAPTURE, &schema, options(source)?);
        source_site.init();
        let mut fan = Self { source: source_site, targets: Vec::new(), _links: Vec::new() };
        for major in ALL.into_iter().filter(|major| *major != source) {
            let Some(options) = options(major) else { continue };
            let name = format!("hq{major}");
            let mut target = Site::with(&name, APPLY, &schema, options);
            target.init();
            let link = Proxy::start(target.listen, lively(), lively(), u64::from(major)).unwrap();
            fan.source.peer(&name, &target.key, Some(link.address()), "");
            target.peer("edge", &fan.source.key, None, "");
            fan.targets.push(target);
            fan._links.push(link);
        }
        (!fan.targets.is_empty()).then_some(fan)
    }
}

impl Ends for Fan {
    fn source(&self) -> &Site {
        &self.source
    }

    fn source_mut(&mut self) -> &mut Site {
        &mut self.source
    }

    fn targets(&self) -> &[Site] {
        &self.targets
    }

    fn targets_mut(&mut self) -> &mut [Site] {
        &mut self.targets
    }
}

/// Rows that are told apart in every way, and a schema with values of every type.
fn most(source: u32) {
    let Some(mut fan) = Fan::new(source, &format!("{}{}", values::TYPES, tables::KEYS)) else {
        return;
    };
    tables::keys(&mut fan);
    values::each_kind(&mut fan);
    values::schemas(&mut fan, seed(source, 0), 1, Duration::ZERO);
}

/// More of the values, those that only later versions have among them; partitions, subtransactions and prepared transactions.
fn all(source: u32, target: u32) {
    let Some(options) = servers(source, target) else { return };
    let mut pair = pair_on(options.clone(), values::TYPES, values::TYPES);
    start(&mut pair);
    values::schemas(&mut pair, seed(source, target), 1, TIME);
    drop(pair);
    tables::partitions(options.clone());
    transactions::savepoints(options.clone());
    transactions::prepared(options);
}

#[test]
fn most_arrives_from_14_at_all_others() {
    most(14);
}

#[test]
fn most_arrives_from_15_at_all_others() {
    most(15);
}

#[test]
fn most_arrives_from_16_at_all_others() {
    most(16);
}

#[test]
fn most_arrives_from_17_at_all_others() {
    most(17);
}

#[test]
fn most_arrives_from_18_at_all_others() {
    most(18);
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
fn everything_arrives_from_17_at_18() {
    all(17, 18);
}

/// Schemas that are made and changed at the source.
fn schemas(source: u32, target: u32) {
    let Some(options) = servers(source, target) else { return };
    for follows in schema::ACROSS_VERSIONS {
        follows(options.clone());
    }
}

#[test]
fn schemas_follow_from_14_to_18() {
    schemas(14, 18);
}

#[test]
fn schemas_follow_from_18_to_14() {
    schemas(18, 14);
}

#[test]
fn schemas_follow_from_15_to_17() {
    schemas(15, 17);
}

#[test]
fn schemas_follow_from_17_to_16() {
    schemas(17, 16);
}

#[test]
fn what_only_18_has_arrives_at_14_as_it_can_be_there() {
    let Some(options) = servers(18, 14) else { return };
    let mut pair = schema::followed_on(options, "create table t (id int primary key, v int)");
    pair.source.sql("insert into t values (1, 1)");
    pair.source.sql(
        "create table n (id int primary key, v int, twice int generated always as (v * 2) virtual,
             w text constraint w_is_there not null, late int, free int constraint above check (free > 0) not enforced,
             t int constraint told references t not enforced);
         insert into n (id, v, w, free, t) values (1, 4, 'a', -1, 7);
         alter table n add constraint late_is_there not null late not valid;
         alter table n add thrice int generated always as (v * 3) virtual",
    );
    pair.source.sql(
        "insert into n (id, v, w, late) values (2, 5, 'b', 1); update n set v = 6 where id = 2",
    );
    let tables = ["public.n", "public.t"].map(str::to_owned);
    pair.wait_equal_tables(&tables, SOON);
    assert_eq!(pair.target.sql("select twice, thrice from n order by id"), "8|12\n12|18");
    let not_null = "select string_agg(attname, ',' order by attnum) from pg_attribute
                    where attrelid = 'n'::regclass and attnum > 0 and attnotnull";
    assert_eq!(pair.target.sql(not_null), "id,w");
    pair.source.sql(
        "update n set late = 0 where late is null; alter table n validate constraint late_is_there;
         update n set t = 1; alter table n alter constraint told enforced; insert into n (id, w, late) values (3, 'c', 1)",
    );
    pair.wait_equal_tables(&tables, SOON);
    assert_eq!(pair.target.sql(not_null), "id,w,late");
    let constraints = "select string_agg(conname, ',' order by conname) from pg_constraint where conrelid = 'n'::regclass";
    assert_eq!(pair.target.sql(constraints), "n_pkey,told");
}

#[test]
fn what_only_18_has_and_14_cannot_be_given_halts_until_it_is_made_by_hand() {
    let Some(options) = servers(18, 14) else { return };
    let mut pair = schema::followed_on(
        options,
        "create table t (id int primary key, v int, twice int generated always as (v * 2) stored)",
    );
    pair.wait_equal_tables(&["public.t".to_owned()], SOON);
    for (round, (change, refused, cure)) in [
        (
            "alter table t add constraint once unique nulls not distinct (v)",
            "UNIQUE NULLS NOT DISTINCT (v)",
            "alter table t add constraint once unique (v)",
        ),
        (
            "create view asked with (security_invoker = true) as select id from t",
            "security_invoker",
            "create view asked as select id from t",
        ),
        (
            "create table spans (id int4range, at daterange, primary key (id, at without overlaps))",
            "WITHOUT OVERLAPS",
            "create table spans (id int4range, at daterange, constraint spans_pkey primary key (id, at))",
        ),
        (
            "alter table t alter twice set expression as (v * 4)",
            "SET EXPRESSION",
            "alter table t drop twice, add twice int generated always as (v * 4) stored",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        pair.source.sql(&format!("insert into t values ({round}, {round}); {change}"));
        pair.source.sql(&format!("insert into t values ({round} + 10, {round} + 10)"));
        let (code, detail) = halt_of(&pair.target);
        assert!(code == "schema_refused" && detail.contains(refused), "{code}: {detail}");
        pair.target.sql(cure);
        pair.target.node.run(&["retry"]).unwrap();
        pair.wait_equal_tables(&["public.t".to_owned()], SOON);
        pair.target.goes_on();
    }
    pair.source.sql("insert into spans values ('[1,2)', '[2026-01-01,2026-02-01)'); update spans set at = '[2027-01-01,)'");
    pair.wait_equal_tables(&["public.spans".to_owned()], SOON);
    assert_eq!(
        pair.target.sql("select count(*) from asked"),
        pair.source.sql("select count(*) from t")
    );
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
         create table by_key (id int4range, valid daterange, v text, primary key (id, valid without overlaps));
         alter table by_key replica identity using index by_key_pkey;
         create table no_key (id int4range, valid daterange, v text);
         create table mixed (id int, valid tstzmultirange, v text, primary key (id, valid without overlaps));
         create table unique_only (id int4range, valid daterange, v text, unique (id, valid without overlaps))";
    let mut pair = pair_on(options, schema, schema);
    let tables = ["by_default", "by_full", "by_index", "by_key", "no_key", "mixed", "unique_only"];
    let (ranges, mixed) = tables.split_at(5);
    for table in [ranges, &mixed[1..]].concat() {
        pair.source.sql(&format!(
            "insert into {table} select int4range(i, i + 1), daterange('2000-01-01'::date + 10 * i, '2000-01-05'::date + 10 * i), 'v'
             from generate_series(1, 6) i"
        ));
    }
    pair.source.sql("insert into mixed select i, '{[2000-01-01 00:00+00,2001-01-01 00:00+00)}', 'v' from generate_series(1, 4) i");
    start(&mut pair);
    // PostgreSQL: 034_temporal 1-3, 11-13, 17, 18
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
    // PostgreSQL: 034_temporal 4-10, 14-16, 19, 20
    super::equal(&pair, &tables, "streamed");
    // Without any identity PostgreSQL itself would refuse changes: the tables get another one, and the application goes on.
    for table in ["no_key", "by_default", "unique_only"] {
        pair.source.sql(&format!(
            "alter table {table} replica identity nothing;
             insert into {table} values ('[30,31)', '[2020-01-01,2020-02-01)', 'a'), ('[31,32)', '[2020-01-01,2020-02-01)', 'b')"
        ));
        super::equal(&pair, &[table], "inserted without an identity");
        pair.source.sql(&format!(
            "update {table} set v = 'c' where id = '[30,31)'; delete from {table} where id = '[31,32)'"
        ));
        // PostgreSQL: 034_temporal 24-32
        super::equal(&pair, &[table], "changed without an identity");
    }
}

#[test]
fn tables_with_periods_and_no_identity_are_refused_by_name() {
    let Some([source, _]) = servers(18, 18) else { return };
    let shapes = [
        ("keyless", ""),
        ("keyed", ", primary key (id, valid without overlaps)"),
        ("single", ", unique (id, valid without overlaps)"),
    ];
    let mut schema = "create extension btree_gist;".to_owned();
    for (table, key) in shapes {
        schema += &format!(
            "create table {table} (id int4range, valid daterange, v text{key}); alter table {table} replica identity nothing;"
        );
    }
    let mut site = Site::with("edge", CAPTURE, &schema, source);
    for (table, _) in shapes {
        let table = format!("public.{table}");
        site.sections(&format!("[capture]\nmode = \"slot\"\ntables = [\"{table}\"]\n"));
        let refused = site.node.init().unwrap_err().to_string();
        // PostgreSQL: 034_temporal 21-23
        let why = format!("{table} has REPLICA IDENTITY NOTHING");
        assert!(refused.contains(&why), "{refused}");
    }
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
    // PostgreSQL: 100_bugs 15
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
        let slots =
            "select string_agg(slot_name, ' ') from pg_replication_slots where not temporary";
        assert_eq!(pair.source.sql(slots), "thinwire_edge");
    }
}
