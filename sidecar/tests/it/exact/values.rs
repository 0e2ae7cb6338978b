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
