//! Changes that are gathered and change places leave what they would have left in their order.

use std::collections::BTreeMap;

use thinwire_engine::model::Record;

use crate::{
    database::{Database, applied},
    feed::{Feed, Table},
};

/// A small generator of our own, so that a seed names a run.
struct Random(u64);

impl Random {
    fn place(&mut self, of: usize) -> usize {
        usize::try_from(self.below(of as u64)).unwrap()
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// Text with everything in it that an array in text form has to quote.
    fn text(&mut self) -> String {
        let pieces = ["a", "\"", "\\", ",", "{", "}", " ", "NULL", "ü", "'", ";"];
        let count = self.below(5);
        (0..count).map(|_| pieces[self.place(pieces.len())]).collect()
    }
}

/// What a table has to hold: rows by key, as a feed writes them.
type Rows = BTreeMap<String, [String; 3]>;

/// The next change of a table whose columns are a key, a text, an array and a box, and what it does to the rows.
fn change(random: &mut Random, table: &Table, rows: &mut Rows) -> Record {
    let text = match random.below(5) {
        0 => "~".to_owned(),
        _ => random.text(),
    };
    let values = [text, format!("{{{},NULL}}", random.below(9)), "(3,4),(1,2)".to_owned()];
    let written = |key: &str, values: &[String; 3]| format!("{key}|{}", values.join("|"));
    let some = rows.keys().nth(random.place(rows.len().max(1))).cloned();
    // Few, so that a key comes again after its row is gone.
    let first = random.below(40);
    let mut free = (first..).map(|key| key.to_string());
    let fresh = free.find(|key| !rows.contains_key(key)).unwrap();
    match (random.below(10), some) {
        (0..=4, Some(key)) => {
            // What was not sent stays.
            let text = values[0].clone();
            let kept = rows.get_mut(&key).unwrap();
            kept[0] = text.clone();
            if random.below(4) == 0 {
                return table.update(&format!("{key}|{text}|?|{}", kept[2]));
            }
            kept[1] = values[1].clone();
            table.update(&format!("{key}|{text}|{}|{}", values[1], kept[2]))
        }
        (5, Some(key)) => {
            rows.remove(&key);
            rows.insert(fresh.clone(), values.clone());
            table.update_key(&format!("{key}|~|~|~"), &written(&fresh, &values))
        }
        (6..=7, Some(key)) => {
            rows.remove(&key);
            table.delete(&format!("{key}|~|~|~"))
        }
        _ => {
            rows.insert(fresh.clone(), values.clone());
            table.insert(&written(&fresh, &values))
        }
    }
}

#[tokio::test]
async fn what_changes_places_leaves_the_same_rows() {
    let columns = "(id int8 primary key, a text, n int[], b box)";
    let schema = format!(
        "create table plain {columns}; create table also {columns};
         create table watched {columns}; create table narrow {columns};
         create unique index on narrow (a, id); create table seen (n int);
         create function see() returns trigger language plpgsql as
         $$ begin insert into public.seen values (1); return null; end $$;
         create trigger see after insert or update or delete on watched
         for each row execute function see();
         alter table watched enable always trigger see;"
    );
    for seed in 1..=6 {
        let database = Database::new(&schema).await;
        let (feed, mut random) = (Feed::new(), Random(seed));
        let names = ["plain", "also", "watched", "narrow"];
        let tables: Vec<_> = (1..)
            .zip(names)
            .map(|(id, name)| Table::new(id, &format!("public.{name}"), &["id*", "a", "n", "b"]))
            .collect();
        let mut rows = vec![Rows::new(); tables.len()];
        feed.append(&tables.iter().map(Table::relation).collect::<Vec<_>>());
        let mut watched = 0;
        for _ in 0..300 {
            let changes: Vec<_> = (0..1 + random.below(8))
                .map(|_| {
                    let at = random.place(tables.len());
                    watched += u64::from(names[at] == "watched");
                    change(&mut random, &tables[at], &mut rows[at])
                })
                .collect();
            feed.append_unsynced(&feed.wrapped(&changes));
        }
        feed.stream.sync().unwrap();
        let applier = database.apply(&feed);
        applied(&applier, &feed.stream).await;
        let status = applier.status();
        applier.shutdown().await;
        assert_eq!(status.last_error, None, "seed {seed}");
        for (name, rows) in names.iter().zip(&rows) {
            let query = format!(
                "select string_agg(concat_ws('|', id, coalesce(a, '~'), n, b), E'\n' order by id) \
                 from {name}"
            );
            let mut expected: Vec<_> = rows.iter().collect();
            expected.sort_by_key(|(key, _)| key.parse::<u64>().unwrap());
            let expected: Vec<_> = expected
                .iter()
                .map(|(key, values)| format!("{key}|{}", values.join("|")))
                .collect();
            assert_eq!(database.sql(&query), expected.join("\n"), "{name}, seed {seed}");
        }
        // Whoever watches sees each change.
        assert_eq!(database.sql("select count(*) from seen"), watched.to_string(), "seed {seed}");
    }
}

#[tokio::test]
async fn a_row_that_is_missing_among_many_is_named() {
    let database = Database::new("create table t (id int primary key, a text)").await;
    let (feed, t) = (Feed::new(), Table::new(1, "public.t", &["id*", "a"]));
    feed.append_unsynced(&[t.relation()]);
    for id in 0..100 {
        feed.append_unsynced(&feed.wrapped(&[t.insert(&format!("{id}|x"))]));
    }
    feed.stream.sync().unwrap();
    let applier = database.apply(&feed);
    applied(&applier, &feed.stream).await;
    database.sql("delete from t where id = 57");
    for id in 0..100 {
        feed.append_unsynced(&feed.wrapped(&[t.update(&format!("{id}|y"))]));
    }
    let last = feed.stream.sync().unwrap();
    let halt = crate::database::halted(&applier, &feed.stream).await;
    assert_eq!((&*halt.code, halt.key.as_deref()), ("update_missing", Some("id=57")));
    assert_eq!(database.sql("select count(*) from t where a = 'y'"), "57");
    database.sql("insert into t values (57, 'x')");
    applier.retry();
    crate::database::applied_to(&applier, &feed.stream, last).await;
    assert_eq!(database.sql("select count(*) from t where a = 'y'"), "100");
    applier.shutdown().await;
}
