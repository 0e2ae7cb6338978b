//! Between servers of different versions: neighbours, and the oldest and the newest in both directions.

use std::time::Duration;

use thinwire_cluster::Options;

use super::{server, tables, transactions, values};

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
