//! The tables and the TPC-B-like transaction of PostgreSQL's own pgbench, at scale 1.

use super::Workload;
use crate::random::Random;

pub(super) struct Pgbench {
    random: Random,
    /// Since the first transaction.
    now_us: u64,
}

impl Pgbench {
    pub(super) fn new(seed: u64) -> Pgbench {
        Pgbench { random: Random::new(seed), now_us: 0 }
    }
}

impl Workload for Pgbench {
    fn schema(&self) -> String {
        SCHEMA.into()
    }

    fn fill(&mut self) -> String {
        format!(
            "insert into pgbench_branches values (1, 0); \
             insert into pgbench_tellers select id, 1, 0 from generate_series(1, {TELLERS}) id; \
             insert into pgbench_accounts \
             select id, 1, 0, '' from generate_series(1, {ACCOUNTS}) id;"
        )
    }

    fn change(&mut self) -> String {
        let account = 1 + self.random.below(ACCOUNTS);
        let teller = 1 + self.random.below(TELLERS);
        let delta = i64::try_from(self.random.below(10_001)).unwrap_or_default() - 5_000;
        self.now_us += 500 + self.random.below(6_000);
        let now_us = self.now_us;
        format!(
            "update pgbench_accounts set abalance = abalance + {delta} where aid = {account}; \
             update pgbench_tellers set tbalance = tbalance + {delta} where tid = {teller}; \
             update pgbench_branches set bbalance = bbalance + {delta} where bid = 1; \
             insert into pgbench_history (tid, bid, aid, delta, mtime) \
             values ({teller}, 1, {account}, {delta}, \
             timestamp '2025-01-06 08:00' + {now_us} * interval '1 microsecond');"
        )
    }

    fn progress(&self) -> String {
        "select count(*) from pgbench_history".into()
    }
}

const TELLERS: u64 = 10;
const ACCOUNTS: u64 = 100_000;
const SCHEMA: &str = "
create table pgbench_branches (bid int primary key, bbalance int, filler char(88));
create table pgbench_tellers (tid int primary key, bid int, tbalance int, filler char(84));
create table pgbench_accounts (aid int primary key, bid int, abalance int, filler char(84));
create table pgbench_history (
    tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
";
