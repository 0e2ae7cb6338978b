//! Photos from the field: rows of bytes that nothing makes smaller, so that what a link carries shows.

use super::Workload;

pub(super) struct Photos {
    seed: u64,
    rows: u64,
}

impl Photos {
    pub(super) fn new(seed: u64) -> Photos {
        Photos { seed, rows: 0 }
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
        self.take(ROWS_BEFORE)
    }

    fn change(&mut self) -> String {
        self.take(1)
    }

    fn progress(&self) -> String {
        format!("select count(*) - {ROWS_BEFORE} from photos")
    }
}

/// A megabyte and a half: more than one window of contact.
const ROWS_BEFORE: u64 = 1_500;
