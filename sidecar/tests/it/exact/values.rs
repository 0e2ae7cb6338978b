//! Values of every type, in tables that a seed makes: copied and streamed, they are the same at the target.

mod literals;
mod schema;

use std::time::{Duration, Instant};

use thinwire_bench::random::Random;
use thinwire_cluster::Options;

pub(super) use self::schema::TYPES;
use self::schema::Table;
use super::{Ends, copied, equal, pair_on};
use crate::{
    schema::major,
    site::{DB, Site},
};

/// Schemas are made and compared for this long, but not fewer than these; or as many as `THINWIRE_SCHEMAS` says.
const TIME: Duration = Duration::from_secs(20);
const LEAST_SCHEMAS: u64 = 4;
const TABLES_PER_SCHEMA: usize = 12;

/// The seed of the first schema: `THINWIRE_SEED`, or always the same.
pub(super) fn first_seed() -> u64 {
    std::env::var("THINWIRE_SEED").ok().and_then(|it| it.parse().ok()).unwrap_or(1)
}

fn schemas_asked() -> Option<u64> {
    std::env::var("THINWIRE_SCHEMAS").ok().and_then(|it| it.parse().ok())
}

/// Makes the tables of a seed, and compares them.
fn one_schema(ends: &mut impl Ends, seed: u64, versions: [u32; 2]) {
    let what = format!("THINWIRE_SEED={seed} THINWIRE_SCHEMAS=1");
    let mut random = Random::new(seed);
    let tables = (0..TABLES_PER_SCHEMA)
        .map(|at| Table::random(&mut random, &format!("t{seed}_{at}"), versions))
        .collect();
    let fill = |random: &mut Random, tables: &mut [Table]| {
        let inserts = |table: &mut Table| (0..25).map(|_| table.insert(random)).collect::<String>();
        tables.iter_mut().map(inserts).collect()
    };
    // Before the copy has ended, changes are already written.
    let change = |random: &mut Random, tables: &mut [Table], is_copied| {
        let count = if is_copied { 25 } else { 5 };
        (0..count).map(|_| transaction(random, tables)).collect()
    };
    exchange(ends, &what, random, tables, fill, change);
}

fn transaction(random: &mut Random, tables: &mut [Table]) -> String {
    let mut sql = "begin;\n".to_owned();
    for _ in 0..1 + random.below(8) {
        let at = usize::try_from(random.below(tables.len() as u64)).unwrap();
        sql += &tables[at].change(random);
    }
    sql + if random.chance(0.15) { "rollback;\n" } else { "commit;\n" }
}

/// Has each kind once as a value, and once as a key if it may be one: copied, streamed and changed.
pub(super) fn each_kind(ends: &mut impl Ends) {
    let [source, target] = versions(ends);
    let fill = |random: &mut Random, tables: &mut [Table]| {
        tables.iter_mut().map(|table| table.insert_each(random)).collect()
    };
    let change = |random: &mut Random, tables: &mut [Table], is_copied| {
        let mut sql = String::new();
        for table in tables {
            sql += &table.change_each(random);
            if is_copied {
                sql += &table.insert_each(random);
            }
        }
        sql
    };
    let seed = first_seed();
    let tables = Table::of_each_kind(source.min(target));
    exchange(ends, &format!("THINWIRE_SEED={seed}"), Random::new(seed), tables, fill, change);
}

/// Makes tables, fills them, has them copied, changes them meanwhile and afterwards, and compares.
fn exchange(
    ends: &mut impl Ends,
    what: &str,
    mut random: Random,
    mut tables: Vec<Table>,
    fill: impl Fn(&mut Random, &mut [Table]) -> String,
    change: impl Fn(&mut Random, &mut [Table], bool) -> String,
) {
    let mut names = Vec::new();
    let (mut here, mut there) = (String::new(), String::new());
    for table in &tables {
        here += &table.create(&mut random, false);
        there += &table.create(&mut random, true);
        names.push(table.name());
    }
    here += &fill(&mut random, &mut tables);
    run(what, ends.source(), &here);
    for target in ends.targets() {
        run(what, target, &there);
    }
    // A node that starts looks at once for tables to copy.
    ends.source_mut().node.stop().unwrap();
    ends.source().node.init().unwrap();
    for target in ends.targets() {
        target.node.init().unwrap();
    }
    ends.source_mut().node.start().unwrap();
    run(what, ends.source(), &change(&mut random, &mut tables, false));
    copied(ends, &names, what);
    run(what, ends.source(), &change(&mut random, &mut tables, true));
    equal(ends, &names, what);
}

fn run(what: &str, site: &Site, sql: &str) {
    if let Err(error) = site.cluster.psql(DB, sql) {
        panic!("{what}: {error}\n{sql}");
    }
}

/// The version of the source, and the oldest of the targets.
fn versions(ends: &impl Ends) -> [u32; 2] {
    [major(ends.source()), ends.targets().iter().map(major).min().unwrap()]
}

/// Makes and compares so many schemas at least, and more for this long, where all runs already.
pub(super) fn schemas(ends: &mut impl Ends, first: u64, least: u64, time: Duration) {
    let versions = versions(ends);
    let begun = Instant::now();
    let mut done = 0;
    while done < least || begun.elapsed() < time {
        one_schema(ends, first + done, versions);
        done += 1;
    }
    eprintln!("{done} schemas, {} tables", done * TABLES_PER_SCHEMA as u64);
}

#[test]
fn values_of_every_type_arrive_as_they_were() {
    let mut pair = pair_on(<[Options; 2]>::default(), TYPES, TYPES);
    super::start(&mut pair);
    // PostgreSQL: 002_types 1-3
    each_kind(&mut pair);
    match schemas_asked() {
        Some(asked) => schemas(&mut pair, first_seed(), asked, Duration::ZERO),
        None => schemas(&mut pair, first_seed(), LEAST_SCHEMAS, TIME),
    }
    pair.source.node.stop().unwrap();
    pair.target.node.stop().unwrap();
}

#[test]
fn large_values_that_did_not_change_stay_as_they_are() {
    let schema = "create table keyed (id int primary key, big text, raw bytea, n int);
         alter table keyed alter raw set storage external;
         create table full_t (id int, big text, n int); alter table full_t replica identity full;
         create table big_key (k text primary key, v text, n int); alter table big_key alter k set storage external;
         create table parts (id int primary key, big text, n int) partition by range (id);
         create table parts_1 partition of parts for values from (0) to (10);
         create table parts_2 partition of parts for values from (10) to (20)";
    let mut pair = pair_on(<[Options; 2]>::default(), schema, schema);
    let noise = |bytes: u32| {
        format!(
            "(select string_agg(md5((i * 7)::text), '') from generate_series(1, {}) i)",
            bytes / 32
        )
    };
    let (large, small) = (noise(3 << 20), noise(64 << 10));
    pair.source.sql(&format!(
        "insert into keyed values (1, {large}, decode({large}, 'hex'), 1), (2, repeat('x', 5000000), '', 1), (3, {small}, null, 1);
         insert into full_t values (1, {small}, 1), (1, {small}, 1), (2, null, 1);
         insert into big_key values ({0}, {small}, 1), ('short', {small}, 1);
         insert into parts select i, {small}, 1 from generate_series(1, 11) i",
        noise(2_500)
    ));
    super::start(&mut pair);
    let tables = ["keyed", "full_t", "big_key", "parts"];
    // PostgreSQL: 001_rep_changes 21
    equal(&pair, &tables, "copied");
    pair.source.sql(&format!(
        "update keyed set n = n + 1; update keyed set id = id + 10 where id < 3; update keyed set raw = big::bytea where id = 3;
         update keyed set big = null where id = 12; insert into keyed values (4, {large}, {large}::bytea, 1);
         begin; update keyed set n = 5 where id = 4; update keyed set big = big || 'z' where id = 4;
           update keyed set n = 6 where id = 4; commit;
         update full_t set n = 2 where ctid = (select min(ctid) from full_t); update full_t set big = 'small' where id = 2;
         update big_key set n = 2; update big_key set v = 'w' where k <> 'short'; update big_key set k = k || '!', n = 3;
         update parts set n = 2; update parts set id = id + 6 where id = 6; delete from parts where id = 1"
    ));
    // PostgreSQL: 001_rep_changes 22
    equal(&pair, &tables, "streamed");
    assert_eq!(
        pair.target.sql("select length(big), length(raw), n from keyed where id = 11"),
        "3145728|1572864|2"
    );
}

const LATIN: &str = "create table t (id int primary key, \"größe\" varchar(20), c char(4)); create table k (v text)";

#[test]
fn text_is_the_same_in_databases_of_other_encodings() {
    // PostgreSQL: 005_encoding 1
    let encoded = |encoding: &str| Options { encoding: encoding.into(), ..Options::default() };
    for (from, to) in
        [("LATIN1", "UTF8"), ("UTF8", "LATIN1"), ("LATIN1", "LATIN9"), ("EUC_JP", "UTF8")]
    {
        // psql speaks UTF-8 here, whatever the database has.
        let utf8 = |sql: &str| format!("set client_encoding = 'UTF8';\n{sql}");
        let ascii = LATIN.replace("größe", "size");
        let schema = utf8(if from == "EUC_JP" { &ascii } else { LATIN });
        let mut pair = pair_on([encoded(from), encoded(to)], &schema, &schema);
        let text = if from == "EUC_JP" { "漢字かな" } else { "Straße é÷ÿ¡" };
        pair.source.sql(&utf8(&format!(
            "insert into t values (1, '{text}', left('{text}', 2)), (2, '', ''), (3, repeat(left('{text}', 1), 20), null);
             insert into k values ('{text}'), ('{text}')"
        )));
        super::start(&mut pair);
        pair.source.sql(&utf8(&format!(
            "insert into t values (11, '{text}', left('{text}', 2)); update t set c = left('{text}', 1) where id = 2;
             update k set v = v || '!' where ctid = (select min(ctid) from k); delete from t where id = 3"
        )));
        super::catch_up(&pair, from);
        for table in ["t", "k"] {
            let rows = utf8(&format!("select * from {table} order by 1"));
            let (source, target) = (pair.source.sql(&rows), pair.target.sql(&rows));
            assert!(source.contains(text.chars().next().unwrap()), "{source}");
            assert_eq!(source, target, "{from} to {to}");
        }
    }
}

#[test]
fn a_character_that_the_targets_encoding_lacks_halts_with_its_table() {
    let latin = Options { encoding: "LATIN1".into(), ..Options::default() };
    let schema = "create table t (id int primary key, v text)";
    let mut pair = pair_on([Options::default(), latin], schema, schema);
    super::start(&mut pair);
    pair.source.sql("insert into t values (1, 'ä'), (2, '漢')");
    let (code, detail) = super::halt_of(&pair.target);
    assert_eq!(code, "bad_value", "{detail}");
    assert_eq!(detail, "a value has a character that the encoding LATIN1 lacks (22P05)");
    let status = pair.target.status();
    let (_, halted) = status.halted().unwrap();
    assert_eq!(halted.table.as_deref(), Some("public.t"));
}
