//! What a database does not take: the stream halts with code, offset, table and key, and goes on once it is mended.

use std::time::Duration;

use thinwire_apply::{Applier, Conflicts, Options, Setup, State, Tables};
use thinwire_engine::model::{Halt, Offset, Record};
use tokio::time::{Instant, sleep};

use crate::{
    database::{Database, applied, halted, idle, in_state, init, setup_of},
    feed::{Feed, Table},
};

fn table() -> Table {
    Table::new(1, "public.t", &["id*", "a", "b"])
}

const TABLE: &str = "create table t (id int primary key, a text, b int)";

/// Applies a good transaction and then one that halts; mends it, and sees everything applied.
pub async fn halts(sql: &str, table: &Table, refused: &[Record], mend: &str, retry: bool) -> Halt {
    let database = Database::new(sql).await;
    let feed = Feed::new();
    feed.append(&[table.relation()]);
    feed.append_unsynced(&feed.wrapped(&[Table::new(9, "public.fine", &["id*"]).relation()]));
    feed.append_unsynced(&feed.wrapped(&[Table::new(9, "public.fine", &["id*"]).insert("1")]));
    feed.append_unsynced(&feed.wrapped(refused));
    feed.append_unsynced(&feed.wrapped(&[Table::new(9, "public.fine", &["id*"]).insert("2")]));
    database.sql("create table fine (id int primary key)");
    feed.stream.sync().unwrap();
    let applier = database.apply(&feed);
    let halt = halted(&applier, &feed.stream).await;
    // What was before is applied, what comes after is not.
    assert_eq!(database.sql("select * from fine"), "1");
    assert_eq!(feed.stream.watermarks().applied, Offset::new(7));
    in_state(&applier, State::Halted).await;
    assert_eq!(applier.status().last_error.as_ref(), Some(&halt.detail));
    assert_eq!(applier.status().copy_errors, 0);
    // It tries again by itself meanwhile, and says the same.
    tried_again(&applier).await;
    assert_eq!(feed.stream.halted().borrow().as_ref(), Some(&halt));
    // Each try is an error, but the conflict is one.
    let status = applier.status();
    let conflicts = status.conflicts.all().filter(|(_, count)| *count > 0);
    let expected = status.conflicts.all().find(|(kind, _)| *kind == halt.code).map(|it| (it.0, 1));
    assert!(conflicts.eq(expected), "{status:?}");
    database.sql(mend);
    if retry {
        applier.retry();
    }
    applied(&applier, &feed.stream).await;
    idle(&applier).await;
    assert_eq!(*feed.stream.halted().borrow(), None);
    assert_eq!(database.sql("select * from fine"), "1\n2");
    applier.shutdown().await;
    halt
}

/// Waits until a change is refused once more. What the try held is let go of by then, and the next
/// is a second away.
async fn tried_again(applier: &Applier) {
    let (errors, deadline) =
        (applier.status().apply_errors, Instant::now() + Duration::from_secs(240));
    while applier.status().apply_errors == errors {
        assert!(Instant::now() < deadline, "not tried again: {:?}", applier.status());
        sleep(Duration::from_millis(2)).await;
    }
}

/// The refused transaction begins with offset 8.
pub fn expect(halt: &Halt, code: &str, offset: u64, table: &str, key: Option<&str>) {
    assert_eq!(halt.code, code, "{halt:?}");
    assert_eq!(halt.offset, Some(Offset::new(offset)), "{halt:?}");
    assert_eq!(halt.table.as_deref(), Some(table), "{halt:?}");
    assert_eq!(halt.key.as_deref(), key, "{halt:?}");
    assert!(!halt.detail.contains("secret"), "{halt:?}");
}

#[tokio::test]
async fn a_missing_table() {
    let t = table();
    let halt = halts("", &t, &[t.insert("1|secret|1")], TABLE, false).await;
    expect(&halt, "missing_table", 9, "public.t", None);
}

#[tokio::test]
async fn a_view_is_no_table() {
    let t = table();
    let view = "create view t as select 1 as id, ''::text as a, 2 as b";
    let halt =
        halts(view, &t, &[t.insert("1|secret|1")], &format!("drop view t; {TABLE}"), true).await;
    expect(&halt, "missing_table", 9, "public.t", None);
}

#[tokio::test]
async fn missing_columns_are_named() {
    let t = table();
    let halt = halts(
        "create table t (id int primary key)",
        &t,
        &[t.insert("1|secret|1")],
        "alter table t add a text, add b int",
        true,
    )
    .await;
    expect(&halt, "missing_column", 9, "public.t", None);
    assert!(halt.detail.contains("a, b"), "{halt:?}");
}

#[tokio::test]
async fn a_row_that_is_there_already() {
    let t = table();
    let sql = format!("{TABLE}; insert into t values (5, 'local', 5)");
    let rows = [t.insert("4|secret|4"), t.insert("5|secret|5"), t.insert("6|secret|6")];
    let halt = halts(&sql, &t, &rows, "delete from t", true).await;
    expect(&halt, "insert_exists", 10, "public.t", Some("id=5"));
}

#[tokio::test]
async fn the_right_row_of_many_is_named() {
    let t = table();
    let sql = format!("{TABLE}; insert into t values (777, 'local', 5)");
    let rows: Vec<_> = (0..1500).map(|id| t.insert(&format!("{id}|secret|4"))).collect();
    let halt = halts(&sql, &t, &rows, "delete from t", true).await;
    expect(&halt, "insert_exists", 9 + 777, "public.t", Some("id=777"));
}

#[tokio::test]
async fn a_row_to_be_changed_that_is_not_there() {
    // PostgreSQL: 001_rep_changes 18
    let t = table();
    let rows = [t.insert("1|secret|1"), t.update("2|secret|2")];
    let halt = halts(TABLE, &t, &rows, "insert into t values (2, 'x', 1)", true).await;
    expect(&halt, "update_missing", 10, "public.t", Some("id=2"));
}

#[tokio::test]
async fn a_row_to_be_removed_that_is_not_there() {
    // PostgreSQL: 001_rep_changes 20
    let t = Table::new(1, "public.t", &["id*", "a*", "b"]);
    let rows = [t.insert("1|x|1"), t.delete("2|y|~")];
    let halt = halts(TABLE, &t, &rows, "insert into t values (2, 'y', 1)", false).await;
    expect(&halt, "delete_missing", 10, "public.t", Some("id=2, a=y"));
}

#[tokio::test]
async fn a_missing_row_of_a_partition_is_told_under_the_name_it_was_sent_by() {
    let tree = "create table t (id int primary key, a text, b int) partition by list (id);
        create table t_1 (b int, a text, id int not null); alter table t attach partition t_1 for values in (1, 2, 3);
        create table t_2 partition of t for values in (4, 5, 6) partition by list (id);
        create table t_2_1 partition of t_2 for values in (5); create table t_2_2 partition of t_2 for values in (4, 6);
        create table t_rest partition of t default";
    for (name, id, code) in [
        // PostgreSQL: 013_partition 28-31
        ("public.t_2", 4, "update_missing"),
        ("public.t_1", 1, "delete_missing"),
        ("public.t_2", 4, "delete_missing"),
        ("public.t_rest", 10, "delete_missing"),
        // PostgreSQL: 013_partition 68, 69
        ("public.t", 5, "update_missing"),
        ("public.t", 1, "delete_missing"),
    ] {
        let t = Table::new(1, name, &["id*", "a", "b"]);
        let missed = match code {
            "update_missing" => t.update(&format!("{id}|secret|1")),
            _ => t.delete(&format!("{id}|~|~")),
        };
        let mend = format!("insert into t values ({id}, 'x', 1)");
        let halt = halts(tree, &t, &[missed], &mend, true).await;
        expect(&halt, code, 9, name, Some(&format!("id={id}")));
    }
}

#[tokio::test]
async fn a_row_without_a_key_that_is_not_there() {
    // PostgreSQL: 001_rep_changes 19
    let t = table().full();
    let halt = halts(
        "create table t (id int, a text, b int)",
        &t,
        &[t.update_full("1|secret|1", "2|secret|2")],
        "insert into t values (1, 'secret', 1)",
        true,
    )
    .await;
    expect(&halt, "update_missing", 9, "public.t", None);
}

#[tokio::test]
async fn a_key_that_several_rows_have() {
    let t = table();
    let sql = "create table t (id int, a text, b int); insert into t values (1), (1)";
    let mend = "delete from t where ctid = (select max(ctid) from t)";
    let halt = halts(sql, &t, &[t.update("1|secret|1")], mend, true).await;
    expect(&halt, "other", 9, "public.t", Some("id=1"));
    assert!(halt.detail.contains("2 rows"), "{halt:?}");
}

#[tokio::test]
async fn a_constraint_is_named() {
    let t = table();
    for (constraint, name) in [
        ("constraint small check (b < 10)", "small"),
        ("constraint other unique (b)", "other"),
        ("constraint apart exclude (b with =)", "apart"),
    ] {
        let sql = format!(
            "create table t (id int primary key, a text, b int, {constraint}); \
             insert into t values (1, 'x', 3)"
        );
        let rows = [t.insert("2|secret|4"), t.update("1|secret|20"), t.insert("3|secret|20")];
        let at = if name == "small" { (10, "id=1") } else { (11, "id=3") };
        let mend = format!("alter table t drop constraint {name}");
        let halt = halts(&sql, &t, &rows, &mend, true).await;
        let code = if name == "other" { "insert_exists" } else { "constraint" };
        expect(&halt, code, at.0, "public.t", Some(at.1));
        assert!(halt.detail.contains(name), "{halt:?}");
    }
    let sql = "create table t (id int primary key, a text not null, b int)";
    let mend = "alter table t alter a drop not null";
    let halt = halts(sql, &t, &[t.insert("1|~|1")], mend, true).await;
    expect(&halt, "constraint", 9, "public.t", Some("id=1"));
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_not_repeated() {
    let t = table();
    let mend = "alter table t alter b type text";
    let halt = halts(TABLE, &t, &[t.insert("1|x|my secret")], mend, true).await;
    expect(&halt, "bad_value", 9, "public.t", Some("id=1"));
    let sql = "create table t (id int primary key, a varchar(3), b int)";
    let mend = "alter table t alter a type text";
    let rows: Vec<_> = (0..200).map(|id| t.insert(&format!("{id}|secret|1"))).collect();
    let halt = halts(sql, &t, &rows, mend, true).await;
    expect(&halt, "bad_value", 9, "public.t", Some("id=0"));
}

#[tokio::test]
async fn what_a_trigger_raises_is_not_repeated() {
    let t = table();
    let sql = format!(
        "{TABLE}; create function refuse() returns trigger language plpgsql as
           $$ begin raise exception 'no %', new.a; end $$;
         create trigger refuse before insert on t for each row execute function refuse();
         alter table t enable always trigger refuse"
    );
    let halt = halts(&sql, &t, &[t.insert("1|secret|1")], "drop trigger refuse on t", true).await;
    expect(&halt, "other", 9, "public.t", Some("id=1"));
}

#[tokio::test]
async fn what_is_refused_at_the_commit_has_the_commits_offset() {
    let t = table();
    let sql = format!(
        "{TABLE}; create function refuse() returns trigger language plpgsql as
           $$ begin raise exception 'no %', new.a; end $$;
         create constraint trigger refuse after insert on t initially deferred
           for each row execute function refuse();
         alter table t enable always trigger refuse"
    );
    let rows = [t.insert("1|secret|1"), t.insert("2|secret|1")];
    let halt = halts(&sql, &t, &rows, "drop trigger refuse on t", true).await;
    assert_eq!((&*halt.code, halt.offset), ("other", Some(Offset::new(11))));
}

#[tokio::test]
async fn a_missing_privilege() {
    // PostgreSQL: 027_nosuperuser 2
    // PostgreSQL: 033_run_as_table_owner 2
    let database = Database::new(TABLE).await;
    let login = format!("login_{}", database.name);
    database.sql(&format!("create role {login} login"));
    let setup = setup_of(&login, Tables::default());
    init(&database.target(), &setup).await.unwrap();
    database.sql(&format!("revoke insert on t from {login}"));
    let (feed, t) = (Feed::new(), table());
    feed.transaction(&[t.relation(), t.insert("1|secret|1")]);
    let target = database.target_as(&login);
    let applier = Applier::start(Options { target, ..database.options(&feed) });
    let halt = halted(&applier, &feed.stream).await;
    expect(&halt, "permission_denied", 3, "public.t", Some("id=1"));
    database.sql(&format!("grant insert on t to {login}"));
    applier.retry();
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
}

#[tokio::test]
async fn a_login_that_is_no_superuser_any_more_says_what_it_lacks_and_goes_on_with_it() {
    // PostgreSQL: 027_nosuperuser 5
    let database = Database::new(TABLE).await;
    let login = format!("login_{}", database.name);
    database.sql(&format!("create role {login} login superuser"));
    let (feed, t) = (Feed::new(), table());
    feed.transaction(&[t.relation(), t.insert("1|secret|1")]);
    let target = database.target_as(&login);
    let applier = Applier::start(Options { target, ..database.options(&feed) });
    applied(&applier, &feed.stream).await;
    database.sql(&format!("alter role {login} nosuperuser"));
    feed.transaction(&[t.insert("2|secret|1")]);
    let halt = halted(&applier, &feed.stream).await;
    assert_eq!(halt.code, "permission_denied", "{halt:?}");
    assert_eq!(database.sql("select count(*) from t"), "1");
    let streams = vec![feed.id.origin];
    let setup = Setup { streams, ..setup_of(&login, Tables::default()) };
    init(&database.target(), &setup).await.unwrap();
    applier.retry();
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(database.sql("select id from t order by id"), "1\n2");
}

#[tokio::test]
async fn row_security_halts_instead_of_hiding_rows() {
    // PostgreSQL: 027_nosuperuser 4
    let database = Database::new(TABLE).await;
    let login = format!("login_{}", database.name);
    database.sql(&format!("create role {login} login"));
    let setup = setup_of(&login, Tables::default());
    init(&database.target(), &setup).await.unwrap();
    database.sql("alter table t enable row level security");
    let (feed, t) = (Feed::new(), table());
    feed.transaction(&[t.relation(), t.insert("1|secret|1")]);
    let target = database.target_as(&login);
    let applier = Applier::start(Options { target, ..database.options(&feed) });
    let halt = halted(&applier, &feed.stream).await;
    expect(&halt, "permission_denied", 3, "public.t", Some("id=1"));
    applier.shutdown().await;
}

#[tokio::test]
async fn a_database_that_was_not_prepared() {
    let database = Database::bare(Database::shared(), TABLE);
    let (feed, t) = (Feed::new(), table());
    feed.transaction(&[t.relation(), t.insert("1|x|1")]);
    let applier = database.apply(&feed);
    let halt = halted(&applier, &feed.stream).await;
    assert_eq!(halt.code, "missing_table");
    assert_eq!(halt.table.as_deref(), Some("thinwire.applied"));
    assert!(halt.detail.contains("thinwire init"));
    let streams = vec![feed.id.origin];
    let setup = Setup { streams, ..setup_of("postgres", Tables::default()) };
    init(&database.target(), &setup).await.unwrap();
    applier.retry();
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
}

#[tokio::test]
async fn one_stream_halts_and_another_flows() {
    let database = Database::new(TABLE).await;
    let (bad, good, t) = (Feed::new(), Feed::new(), table());
    bad.transaction(&[t.relation(), t.update("99|x|1")]);
    let halted_one = database.apply(&bad);
    halted(&halted_one, &bad.stream).await;
    good.transaction(&[t.relation(), t.insert("1|x|1")]);
    let flowing = database.apply(&good);
    applied(&flowing, &good.stream).await;
    assert!(bad.stream.halted().borrow().is_some());
    flowing.shutdown().await;
    halted_one.shutdown().await;
}

#[tokio::test]
async fn an_older_epoch_does_not_come_back() {
    let database = Database::new(TABLE).await;
    let (old, t) = (Feed::new(), table());
    old.transaction(&[t.relation(), t.insert("1|x|1")]);
    database.apply_all(&old).await;
    let new = old.next_epoch();
    new.copy(&t, &["1|y|1", "2|y|2"]);
    // Rows that came from this origin are replaced by its new copy.
    database.sql(&format!(
        "insert into thinwire.loaded values ('{}', 'public', 't', '', 0, 0)",
        old.id.origin
    ));
    database.apply_all(&new).await;
    assert_eq!(database.sql("select id, a from t order by id"), "1|y\n2|y");
    old.transaction(&[t.insert("3|x|3")]);
    let applier = database.apply(&old);
    let halt = halted(&applier, &old.stream).await;
    assert!(halt.detail.contains("newer stream"), "{halt:?}");
    applier.shutdown().await;
    assert_eq!(database.sql("select count(*) from t"), "2");
}

#[tokio::test]
async fn conflicts_are_resolved_as_declared() {
    for (conflicts, expected) in [
        (Conflicts::ApplyRemote, "1|remote|1\n2|remote|2\n3|remote|3"),
        (Conflicts::KeepLocal, "1|local|0\n3|remote|3"),
    ] {
        let database =
            Database::new(&format!("{TABLE}; insert into t values (1, 'local', 0)")).await;
        let (feed, t) = (Feed::new(), table());
        feed.transaction(&[t.relation(), t.insert("1|remote|1")]);
        feed.transaction(&[t.update("2|remote|2"), t.delete("9|~|~"), t.insert("3|remote|3")]);
        let applier = Applier::start(Options { conflicts, ..database.options(&feed) });
        applied(&applier, &feed.stream).await;
        assert_eq!(database.sql("select * from t order by id"), expected);
        let counts = applier.status().conflicts;
        assert_eq!((counts.update_missing(), counts.delete_missing()), (1, 1));
        assert_eq!(counts.insert_exists(), u64::from(conflicts == Conflicts::KeepLocal));
        applier.shutdown().await;
    }
}

#[tokio::test]
async fn a_row_that_was_sent_in_part_cannot_be_added() {
    let database = Database::new(TABLE).await;
    let (feed, t) = (Feed::new(), table());
    feed.transaction(&[t.relation(), t.update("2|?|2")]);
    let conflicts = Conflicts::ApplyRemote;
    let applier = Applier::start(Options { conflicts, ..database.options(&feed) });
    let halt = halted(&applier, &feed.stream).await;
    expect(&halt, "update_missing", 3, "public.t", Some("id=2"));
    applier.shutdown().await;
}

#[tokio::test]
async fn a_second_applier_of_the_same_stream_waits_for_the_first() {
    let database = Database::new(TABLE).await;
    let (feed, t) = (Feed::new(), table());
    feed.transaction(&[t.relation(), t.insert("1|x|1")]);
    let first = database.apply(&feed);
    applied(&first, &feed.stream).await;
    let second = database.apply(&feed);
    in_state(&second, State::Waiting).await;
    assert!(second.status().last_error.unwrap().contains("another session applies this stream"));
    first.shutdown().await;
    idle(&second).await;
    second.shutdown().await;
}
