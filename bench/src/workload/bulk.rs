//! An import: one transaction of many rows, and hardly anything before it.

use super::Workload;

pub(super) struct Bulk {
    seed: u64,
    rows: u64,
}

impl Bulk {
    pub(super) fn new(seed: u64) -> Bulk {
        Bulk { seed, rows: 0 }
    }

    /// One statement, because so many rows are better made by the server than sent to it.
    fn import(&mut self, rows: u64) -> String {
        let first = self.rows + 1;
        self.rows += rows;
        let (last, seed) = (self.rows, self.seed);
        format!(
            "insert into ledger select id, 4000 + x % 37, to_timestamp(1736150400 + id * 3), \
             round((x % 900000)::numeric / 100, 2), \
             (array['Invoice', 'Payment', 'Refund', 'Transfer', 'Fee'])[1 + x % 5] || ' ' || \
             upper(left(hash, 6)), case when x % 4 = 0 then 'Ref. ' || right(hash, 10) end \
             from (select id, hash, ('x' || left(hash, 7))::bit(28)::int as x from (select id, \
             md5(id || '/{seed}') as hash from generate_series({first}, {last}) id) h) r;"
        )
    }
}

impl Workload for Bulk {
    fn schema(&self) -> String {
        "create table ledger (id bigint primary key, account int not null, \
         booked timestamptz not null, amount numeric(12,2) not null, subject text not null, \
         note text);"
            .into()
    }

    fn fill(&mut self) -> String {
        self.import(ROWS_BEFORE)
    }

    fn change(&mut self) -> String {
        self.import(1)
    }

    fn progress(&self) -> String {
        format!("select count(*) - {ROWS_BEFORE} from ledger")
    }

    fn backlog(&mut self, size: u64) -> String {
        self.import(size)
    }
}

const ROWS_BEFORE: u64 = 1_000;
