//! Sensors of a plant: each transaction stores what a gateway has read from ten of them.

use std::fmt::Write as _;

use super::Workload;
use crate::random::Random;

pub(super) struct Telemetry {
    random: Random,
    /// What each sensor showed last, in hundredths of its unit.
    values: Vec<u64>,
    next: usize,
    now_ms: u64,
}

impl Telemetry {
    pub(super) fn new(seed: u64) -> Telemetry {
        let mut random = Random::new(seed);
        let values = (0..SENSORS).map(|_| 1_000 + random.below(8_000)).collect();
        Telemetry { random, values, next: 0, now_ms: START_MS }
    }

    /// One row of `readings` as values: most sensors hardly move, a few are out of order.
    fn reading(&mut self) -> String {
        let sensor = self.next;
        self.next = (self.next + 1) % self.values.len();
        let value = &mut self.values[sensor];
        if self.random.chance(0.7) {
            *value = (*value + self.random.below(41)).saturating_sub(20).max(1);
        }
        let quality = if self.random.chance(0.01) { 64 } else { 192 };
        let at = self.now_ms + self.random.below(900);
        format!(
            "({sensor}, to_timestamp({}.{:03}), {}.{:02}, {quality})",
            at / 1_000,
            at % 1_000,
            *value / 100,
            *value % 100
        )
    }

    fn insert(&mut self, readings: u64) -> String {
        let mut sql = String::from("insert into readings values ");
        for number in 0..readings {
            let comma = if number == 0 { "" } else { ", " };
            let reading = self.reading();
            let _ = write!(sql, "{comma}{reading}");
        }
        sql.push(';');
        self.now_ms += 1_000;
        sql
    }
}

impl Workload for Telemetry {
    fn schema(&self) -> String {
        SCHEMA.into()
    }

    fn fill(&mut self) -> String {
        let mut sql = String::new();
        for sensor in 0..SENSORS {
            let kind = self.random.pick(&KINDS);
            let (name, unit) = kind;
            let area = self.random.pick(&["crusher", "mill", "flotation", "pit 2", "shaft"]);
            let serial = self.random.below(1 << 32);
            let _ = writeln!(
                sql,
                "insert into sensors values ({sensor}, '{area} {name} {sensor}', '{unit}', \
                 'SN-{serial:08X}');"
            );
        }
        for _ in 0..HISTORY {
            sql += &self.insert(READINGS);
            sql.push('\n');
        }
        sql
    }

    fn change(&mut self) -> String {
        self.insert(READINGS)
    }

    fn progress(&self) -> String {
        format!("select count(*) / {READINGS} - {HISTORY} from readings")
    }
}

const SENSORS: u64 = 400;
/// Readings a transaction.
const READINGS: u64 = 10;
/// Transactions that were there before.
const HISTORY: u64 = 1_500;
/// 2025-01-06 08:00 UTC.
const START_MS: u64 = 1_736_150_400_000;
const KINDS: [(&str, &str); 5] = [
    ("bearing temperature", "°C"),
    ("vibration", "mm/s"),
    ("flow", "m³/h"),
    ("pressure", "kPa"),
    ("motor current", "A"),
];
const SCHEMA: &str = "
create table sensors (id int primary key, name text not null, unit text not null, serial text);
create table readings (
    sensor int not null, at timestamptz not null, value float8 not null, quality smallint not null,
    primary key (sensor, at));
";
