//! Values of every type, in tables that a seed makes: copied and streamed, they are the same at the target.

mod literals;
mod schema;

use std::time::{Duration, Instant};

use thinwire_bench::random::Random;
use thinwire_cluster::Options;

use self::schema::{TYPES, Table};
use super::{copied, equal, pair_on};
use crate::site::{DB, Pair, Site};

/// Schemas are made and compared for this long, or as many as `THINWIRE_SCHEMAS` says.
const TIME: Duration = Duration::from_secs(20);
const TABLES_PER_SCHEMA: usize = 12;

/// The seed of the first schema: `THINWIRE_SEED`, or always the same.
pub(super) fn first_seed() -> u64 {
    std::env::var("THINWIRE_SEED").ok().and_then(|it| it.parse().ok()).unwrap_or(1)
}

fn schemas_asked() -> Option<u64> {
    std::env::var("THINWIRE_SCHEMAS").ok().and_then(|it| it.parse().ok())
}

/// Makes the tables of a seed, fills them, has them copied, changes them, and compares.
fn one_schema(pair: &mut Pair, seed: u64, versions: [u32; 2]) {
    let what = format!("THINWIRE_SEED={seed} THINWIRE_SCHEMAS=1");
    let mut random = Random::new(seed);
    let mut tables: Vec<Table> = (0..TABLES_PER_SCHEMA)
        .map(|at| Table::random(&mut random, &format!("t{seed}_{at}"), versions))
        .collect();
    let mut names = Vec::new();
    let (mut here, mut there) = (String::new(), String::new());
    for table in &mut tables {
        here += &table.create(&mut random, false);
        there += &table.create(&mut random, true);
        names.push(table.name());
    }
    for table in &mut tables {
        for _ in 0..25 {
            here += &table.insert(&mut random);
        }
    }
    run(&what, &pair.source.cluster, &here);
    run(&what, &pair.target.cluster, &there);
    // A node that starts looks at once for tables to copy.
    pair.source.node.stop().unwrap();
    pair.source.node.init().unwrap();
    pair.target.node.init().unwrap();
    pair.source.node.start().unwrap();
    // Before the copy has ended, changes are already written.
    let changes = |random: &mut Random, tables: &mut [Table], count: u64| {
        let mut sql = String::new();
        for _ in 0..count {
            sql += "begin;\n";
            for _ in 0..1 + random.below(8) {
                let at = usize::try_from(random.below(tables.len() as u64)).unwrap();
                sql += &tables[at].change(random);
            }
            sql += if random.chance(0.15) { "rollback;\n" } else { "commit;\n" };
        }
        run(&what, &pair.source.cluster, &sql);
    };
    changes(&mut random, &mut tables, 5);
    copied(pair, &names, &what);
    changes(&mut random, &mut tables, 25);
    equal(pair, &names, &what);
}

fn run(what: &str, cluster: &thinwire_cluster::Cluster, sql: &str) {
    if let Err(error) = cluster.psql(DB, sql) {
        panic!("{what}: {error}\n{sql}");
    }
}

fn schemas(mut pair: Pair, seeds: impl Iterator<Item = u64>, time: Duration) {
    let version = |site: &Site| -> u32 {
        let number: u32 = site.sql("show server_version_num").parse().unwrap();
        number / 10_000
    };
    let versions = [version(&pair.source), version(&pair.target)];
    super::start(&mut pair);
    let (begun, asked) = (Instant::now(), schemas_asked());
    let mut done = 0;
    for seed in seeds {
        if asked.map_or(begun.elapsed() > time, |asked| done >= asked) {
            break;
        }
        one_schema(&mut pair, seed, versions);
        done += 1;
    }
    eprintln!("{done} schemas, {} tables", done * TABLES_PER_SCHEMA as u64);
    pair.source.node.stop().unwrap();
    pair.target.node.stop().unwrap();
}

#[test]
fn values_of_every_type_arrive_as_they_were() {
    on(<[Options; 2]>::default(), first_seed(), TIME);
}

/// Schemas on servers of some kind.
pub(super) fn on(options: [Options; 2], seed: u64, time: Duration) {
    schemas(pair_on(options, TYPES, TYPES), seed.., time);
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
    equal(&pair, &tables, "streamed");
    assert_eq!(
        pair.target.sql("select length(big), length(raw), n from keyed where id = 11"),
        "3145728|1572864|2"
    );
}

const LATIN: &str = "create table t (id int primary key, \"größe\" varchar(20), c char(4)); create table k (v text)";

#[test]
fn text_is_the_same_in_databases_of_other_encodings() {
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
