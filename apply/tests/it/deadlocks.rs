//! Streams that wait for each other in the database: one of them is run again, and both get through.

use crate::{
    database::{Database, applied},
    feed::{Feed, Table},
};

/// Rows whose first change in a transaction lasts until the other stream holds what comes next. What
/// a sequence says is seen at once, and stays when a transaction is undone, so that one that is run
/// again waits for nobody.
const MEETING: &str = "
    create table a (id int primary key, v text); create table b (id int primary key, v text);
    insert into a select i, 'old' from generate_series(1, 2) i; insert into b select i, 'old' from generate_series(1, 2) i;
    create sequence a_held; create sequence b_held;
    create function meet() returns trigger language plpgsql as $$ begin
      perform pg_catalog.nextval(('public.' || tg_table_name::text || '_held')::regclass);
      while not (select a.is_called and b.is_called from public.a_held a, public.b_held b) loop
        perform pg_catalog.pg_sleep(0.01);
      end loop;
      return new; end $$;
    create trigger meet after insert or update on a for each row execute function meet();
    create trigger meet after insert or update on b for each row execute function meet();
    alter table a enable always trigger meet; alter table b enable always trigger meet";

fn tables() -> [Table; 2] {
    [Table::new(1, "public.a", &["id*", "v"]), Table::new(2, "public.b", &["id*", "v"])]
}

/// How many deadlocks the server has met in a database.
fn deadlocks(database: &Database) -> u64 {
    let name = &database.name;
    let text =
        database.sql(&format!("select deadlocks from pg_stat_database where datname = '{name}'"));
    text.parse().unwrap()
}

/// Applies two streams at once until both are through, and sees that they have been in each other's way.
async fn both(database: &Database, one: &Feed, two: &Feed) {
    database.sql(&format!("alter database {} set deadlock_timeout = '50ms'", database.name));
    let appliers = [database.apply(one), database.apply(two)];
    for (applier, feed) in appliers.iter().zip([one, two]) {
        applied(applier, &feed.stream).await;
        assert_eq!(*feed.stream.halted().borrow(), None);
    }
    for applier in appliers {
        applier.shutdown().await;
    }
    for feed in [one, two] {
        assert_eq!(database.offset(feed), feed.last().to_string());
    }
    // A session's counts are told when it ends, if not before.
    for _ in 0..2_400 {
        if deadlocks(database) > 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("there was no deadlock");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_streams_that_wait_for_rows_of_each_other_both_get_through() {
    // PostgreSQL: 015_stream 5
    let database = Database::new(MEETING).await;
    let (one, two, [a, b]) = (Feed::new(), Feed::new(), tables());
    one.transaction(&[a.relation(), b.relation(), a.update("1|one"), b.update("1|one")]);
    two.transaction(&[a.relation(), b.relation(), b.update("1|two"), a.update("1|two")]);
    both(&database, &one, &two).await;
    // Whichever was run again: it is all of one transaction that came last.
    let rows =
        database.sql("select (select v from a where id = 1), (select v from b where id = 1)");
    assert!(matches!(&*rows, "one|one" | "two|two"), "{rows}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_empties_tables_and_one_that_writes_to_them_both_get_through() {
    // PostgreSQL: 015_stream 6
    let database = Database::new(MEETING).await;
    let (one, two, [a, b]) = (Feed::new(), Feed::new(), tables());
    // Truncating waits for whoever has added a row, and the other for whoever truncates.
    one.transaction(&[a.relation(), b.relation(), a.insert("8|one"), b.truncate()]);
    two.transaction(&[a.relation(), b.relation(), b.insert("9|two"), a.truncate()]);
    both(&database, &one, &two).await;
    let rows =
        database.sql("select (select string_agg(v, '') from a), (select string_agg(v, '') from b)");
    assert!(matches!(&*rows, "one|" | "|two"), "{rows}");
}
