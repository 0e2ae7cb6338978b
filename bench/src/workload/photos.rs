//! Photos from the field: rows of bytes that nothing makes smaller, so that what a link carries shows.

use super::Workload;

pub(super) struct Photos {
    seed: u64,
    rows: u64,
    before: u64,
}

impl Photos {
    pub(super) fn new(seed: u64) -> Photos {
        Photos { seed, rows: 0, before: FEW }
    }

    pub(super) fn of_years(seed: u64) -> Photos {
        Photos { before: MANY, ..Photos::new(seed) }
    }

    /// The server makes the bytes: 64 hashes of 16 bytes are a photo.
    fn take(&mut self, photos: u64) -> String {
        let (first, last, seed) = (self.rows + 1, self.rows + photos, self.seed);
        self.rows = last;
        format!(
            "insert into photos select id, (select decode(string_agg(md5(id || '/' || part || \
             '/{seed}'), ''), 'hex') from generate_series(1, 64) part) \
             from generate_series({first}, {last}) id;"
        )
    }
}

impl Workload for Photos {
    fn schema(&self) -> String {
        "create table photos (id bigint primary key, photo bytea not null);\
         alter table photos alter photo set storage external;"
            .into()
    }

    fn fill(&mut self) -> String {
        self.take(self.before)
    }

    fn change(&mut self) -> String {
        self.take(1)
    }

    fn progress(&self) -> String {
        format!("select count(*) - {} from photos", self.before)
    }
}

const FEW: u64 = 50;
/// A megabyte and a half: more than one window of contact.
const MANY: u64 = 1_500;
