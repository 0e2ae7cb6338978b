//! A fleet's live picture: few rows, each updated again and again.

use std::fmt::Write as _;

use super::Workload;
use crate::random::Random;

pub(super) struct State {
    random: Random,
    now_ms: u64,
}

impl State {
    pub(super) fn new(seed: u64) -> State {
        State { random: Random::new(seed), now_ms: START_MS }
    }

    fn status(&mut self) -> &'static str {
        let status: &&str = self.random.pick(&STATUSES);
        status
    }
}

impl Workload for State {
    fn schema(&self) -> String {
        SCHEMA.into()
    }

    fn fill(&mut self) -> String {
        let mut sql = String::new();
        for id in 1..=UNITS {
            let driver = *self.random.pick(&DRIVERS);
            let (status, tyres) = (self.status(), self.random.below(1 << 32));
            let _ = writeln!(
                sql,
                "insert into units values ({id}, 'Truck {id:03}', '{driver}', '{status}', 69.64, \
                 18.95, 0, 0, 82.5, {}, '{{\"model\": \"T-284\", \"tyres\": \"{tyres:08x}\", \
                 \"alarms\": []}}', to_timestamp({}), 0);",
                40_000 + id * 731,
                START_MS / 1_000
            );
        }
        sql
    }

    fn change(&mut self) -> String {
        let unit = 1 + self.random.below(UNITS);
        self.now_ms += 1 + self.random.below(300);
        let at = format!("to_timestamp({}.{:03})", self.now_ms / 1_000, self.now_ms % 1_000);
        let [north, east] = [0, 1].map(|_| self.random.unit() / 1_000.0 - 0.0005);
        let (speed, heading) = (self.random.below(46), self.random.below(360));
        let mut sql = format!(
            "update units set lat = round((lat + {north:.6})::numeric, 6), \
             lon = round((lon + {east:.6})::numeric, 6), speed = {speed}, heading = {heading}, \
             seen = {at}, version = version + 1"
        );
        if self.random.chance(0.15) {
            let status = self.status();
            let _ = write!(sql, ", status = '{status}', fuel = greatest(5, fuel - 0.5)");
        }
        if self.random.chance(0.03) {
            let code = 100 + self.random.below(40);
            let _ = write!(sql, ", detail = jsonb_set(detail, '{{alarms,0}}', '{code}', true)");
        }
        let _ = write!(sql, " where id = {unit};");
        sql
    }

    fn progress(&self) -> String {
        "select sum(version) from units".into()
    }
}

const UNITS: u64 = 60;
const STATUSES: [&str; 6] = ["loading", "hauling", "dumping", "returning", "idle", "refuelling"];
/// 2025-01-06 08:00 UTC.
const START_MS: u64 = 1_736_150_400_000;
const DRIVERS: [&str; 6] =
    ["Kari Moe", "João Silva", "Siti Wijaya", "Nikos Vlahos", "Anne Berg", "Tomás Duarte"];
const SCHEMA: &str = "
create table units (
    id int primary key, name text not null, driver text, status text not null,
    lat numeric(9,6) not null, lon numeric(9,6) not null, speed int not null, heading int not null,
    fuel numeric(5,1) not null, odometer bigint not null, detail jsonb not null,
    seen timestamptz not null, version bigint not null);
";
