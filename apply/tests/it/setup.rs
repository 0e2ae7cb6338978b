//! Preparing a database for a login that may do nothing else, and examining it.

use thinwire_apply::{Applier, Check, Options, Setup, Tables, check, plan};
use thinwire_engine::model::Partition;

use crate::{
    database::{Database, applied, halted, init, seal, setup_of},
    feed::{Feed, Table},
    schema::{gone, one, schema, table, told, with},
};

fn failed(checks: &[Check]) -> Vec<&str> {
    checks.iter().filter(|check| !check.ok).map(|check| &*check.what).collect()
}

#[tokio::test]
async fn an_ordinary_login_applies_after_init_and_can_do_nothing_else() {
    // PostgreSQL: 027_nosuperuser 1
    // PostgreSQL: 033_run_as_table_owner 1
    let database = Database::bare(
        Database::shared(),
        "create schema \"Odd\"; revoke create on schema public from public;
         create table t (id int primary key, a text, b int);
         create table \"Odd\".\"T 2\" (id int generated always as identity primary key, v text);
         create table keyless (v point)",
    );
    let login = format!("app \"{}\"", database.name);
    let quoted = format!("\"{}\"", login.replace('"', "\"\""));
    database.sql(&format!("create role {quoted} login"));
    let (feed, origin) = (Feed::new(), Feed::new().id.origin);
    let streams = vec![feed.id.origin, origin];
    let setup = Setup { streams, ..setup_of(&login, Tables::default()) };
    let mut target = database.target();
    target.config.user(&login);

    let before = check(&target, &setup).await;
    assert_eq!(
        failed(&before),
        [
            "tables of the schema thinwire at the target",
            "functions of replication origins",
            "session_replication_role of the login"
        ]
    );
    assert!(before.iter().all(|check| check.ok || !check.cure.is_empty()));

    let planned = plan(&database.target(), &setup).await.unwrap();
    // On PostgreSQL 14 the role is not granted but given for good.
    let role = |text: &String| text.contains("session_replication_role");
    assert!(planned.iter().any(role), "{planned:#?}");
    assert_eq!(database.sql("select to_regnamespace('thinwire') is null"), "t");
    init(&database.target(), &setup).await.unwrap();
    assert_eq!(plan(&database.target(), &setup).await.unwrap(), Vec::<String>::new());
    init(&database.target(), &setup).await.unwrap();
    init(&target, &setup).await.unwrap();
    assert_eq!(failed(&check(&target, &setup).await), Vec::<&str>::new());

    let t = Table::new(1, "public.t", &["id*", "a", "b"]);
    let odd = Table::new(2, "Odd.T 2", &["id*", "v"]);
    let keyless = Table::new(3, "public.keyless", &["v"]).full();
    feed.append(&[odd.relation(), keyless.relation()]);
    feed.copy(&t, &["1|x|1", "2|x|2"]);
    feed.transaction(&[
        t.update("1|y|1"),
        t.delete("2|~|~"),
        odd.insert("5|five"),
        odd.update("5|six"),
        keyless.insert("(1,2)"),
        keyless.update_full("(1,2)", "(3,4)"),
    ]);
    let applier = Applier::start(Options { target: target.clone(), ..database.options(&feed) });
    applied(&applier, &feed.stream).await;
    feed.transaction(&[keyless.truncate()]);
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(database.sql("select *, (select v from \"Odd\".\"T 2\") from t"), "1|y|1|six");

    let rights = format!(
        "select rolsuper, rolcreatedb, rolcreaterole, rolbypassrls, \
         has_schema_privilege(rolname, 'public', 'CREATE'), \
         has_schema_privilege(rolname, 'thinwire', 'CREATE'), \
         exists (select from pg_auth_members where member = oid) \
         from pg_roles where rolname = '{}'",
        login.replace('\'', "''")
    );
    assert_eq!(database.sql(&rights), "f|f|f|f|f|f|f");
}

#[tokio::test]
async fn a_login_that_may_not_prepare_is_told_what_to_do() {
    let database = Database::bare(Database::shared(), "");
    let login = format!("plain_{}", database.name);
    database.sql(&format!("create role {login} login"));
    let setup = setup_of(&login, Tables::default());
    let error = init(&database.target_as(&login), &setup).await.unwrap_err().to_string();
    assert!(error.contains("permission denied") && error.contains("--admin-url"), "{error}");
    let setup = setup_of("nobody here", Tables::default());
    let error = init(&database.target(), &setup).await.unwrap_err().to_string();
    assert_eq!(error, "the login nobody here does not exist; create it first");
}

#[tokio::test]
async fn a_database_that_was_prepared_before_offsets_were_sealed_is_prepared_anew() {
    let database = Database::new("create table t (id int primary key)").await;
    let (feed, t) = (Feed::new(), Table::new(1, "public.t", &["id*"]));
    feed.transaction(&[t.relation(), t.insert("1")]);
    database.apply_all(&feed).await;
    database.sql("alter table thinwire.applied drop column seal");
    feed.transaction(&[t.insert("2")]);
    let applier = database.apply(&feed);
    let halt = halted(&applier, &feed.stream).await;
    assert!(halt.code == "missing_column" && halt.detail.contains("thinwire init"), "{halt:?}");
    let setup = Setup {
        streams: vec![feed.id.origin],
        seal: Some(seal()),
        ..setup_of("postgres", Tables::default())
    };
    assert_eq!(failed(&check(&database.target(), &setup).await).len(), 1);
    init(&database.target(), &setup).await.unwrap();
    assert_eq!(failed(&check(&database.target(), &setup).await), Vec::<&str>::new());
    assert_eq!(plan(&database.target(), &setup).await.unwrap(), Vec::<String>::new());
    applier.retry();
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(database.sql("select id from t order by id"), "1\n2");
}

#[tokio::test]
async fn a_superuser_works_and_is_warned_of() {
    let database = Database::new("").await;
    let setup = setup_of("postgres", Tables::default());
    let checks = check(&database.target(), &setup).await;
    assert_eq!(failed(&checks), Vec::<&str>::new());
    assert!(checks.iter().any(|check| check.ok && check.cure.contains("superuser")));
}

#[tokio::test]
async fn a_database_that_is_away_is_one_failed_check() {
    let database = Database::new("").await;
    let mut target = database.target();
    target.config.dbname("not there");
    let setup = setup_of("postgres", Tables::default());
    let checks = check(&target, &setup).await;
    assert_eq!(checks.len(), 1);
    assert!(!checks[0].ok && checks[0].cure.contains("not there"), "{checks:?}");
}

/// Whether a login may write to the tables and move on the sequences of a schema, by their names.
fn may(database: &Database, login: &str, all: &[&str]) -> Vec<bool> {
    let right = |name: &&str| {
        let (of, right) =
            if name.ends_with("_seq") { ("sequence", "UPDATE") } else { ("table", "INSERT") };
        database.sql(&format!("select has_{of}_privilege('{login}', '{name}', '{right}')")) == "t"
    };
    all.iter().map(right).collect()
}

#[tokio::test]
async fn a_login_gets_the_rows_of_chosen_tables_alone_and_others_are_taken_back() {
    let database = Database::bare(
        Database::shared(),
        "create table orders (id serial primary key); create table staff (id serial primary key);
         create schema private; create table private.diary (id serial primary key)",
    );
    let login = format!("chosen_{}", database.name);
    database.sql(&format!("create role {login} login"));
    let all = [
        "orders",
        "orders_id_seq",
        "staff",
        "staff_id_seq",
        "private.diary",
        "private.diary_id_seq",
    ];
    let setup = |tables| setup_of(&login, tables);
    let chosen = setup(Tables::only(|schema, name| (schema, name) == ("public", "orders")));
    init(&database.target(), &chosen).await.unwrap();
    assert_eq!(may(&database, &login, &all), [true, true, false, false, false, false]);
    assert_eq!(plan(&database.target(), &chosen).await.unwrap(), Vec::<String>::new());

    let whole = setup(Tables::default());
    init(&database.target(), &whole).await.unwrap();
    assert_eq!(may(&database, &login, &all), [true; 6]);
    let target = database.target_as(&login);
    let warned = |checks: Vec<Check>| {
        let cures: Vec<_> = checks.into_iter().map(|check| check.cure).collect();
        cures.iter().any(|cure| cure.contains("private.diary, public.staff, which [apply] tables"))
    };
    assert!(!warned(check(&target, &whole).await));
    assert!(warned(check(&target, &chosen).await));
    init(&database.target(), &chosen).await.unwrap();
    assert_eq!(may(&database, &login, &all), [true, true, false, false, false, false]);
    assert!(!warned(check(&target, &chosen).await));
    // The same login may capture what it may not write to.
    let reads = format!("select has_table_privilege('{login}', 'private.diary', 'SELECT')");
    assert_eq!(database.sql(&reads), "t");
    assert_eq!(plan(&database.target(), &chosen).await.unwrap(), Vec::<String>::new());
    // What somebody else granted stays.
    database.sql(&format!("grant select, insert on staff to {login}"));
    init(&database.target(), &chosen).await.unwrap();
    assert_eq!(may(&database, &login, &["staff"]), [true]);
}

#[tokio::test]
async fn a_stream_that_names_another_table_is_halted_whatever_the_login_may() {
    let database = Database::new(
        "create table orders (id int primary key); create table staff (id int primary key)",
    )
    .await;
    let tables = Tables::only(|_, name| name == "orders");
    let (orders, staff) =
        (Table::new(1, "public.orders", &["id*"]), Table::new(2, "public.staff", &["id*"]));
    let loaded = Table::new(3, "thinwire.loaded", &["origin*"]);
    let changes = [
        (vec![staff.relation(), staff.insert("1")], "public.staff"),
        (vec![staff.relation(), staff.update("1")], "public.staff"),
        (vec![staff.relation(), staff.truncate()], "public.staff"),
        (vec![one(&table(9, "public.new", &["id integer"]))], "public.new"),
        (vec![loaded.relation(), loaded.delete("x")], "thinwire.loaded"),
    ];
    for (records, name) in changes {
        let feed = Feed::new();
        feed.transaction(&[orders.relation(), orders.delete("1")]);
        feed.transaction(&records);
        database.sql("insert into orders values (1)");
        let applier = Applier::start(Options { tables: tables.clone(), ..database.options(&feed) });
        let halt = halted(&applier, &feed.stream).await;
        assert_eq!((&*halt.code, halt.table.as_deref()), ("table_not_accepted", Some(name)));
        applier.shutdown().await;
        assert_eq!(database.sql("select count(*) from orders"), "0", "{name}");
    }
    // Nobody has to choose for what is Thinwire's own to be out of reach.
    let feed = Feed::new();
    feed.transaction(&[loaded.relation(), loaded.delete("x")]);
    let applier = database.apply(&feed);
    assert_eq!(halted(&applier, &feed.stream).await.code, "table_not_accepted");
    applier.shutdown().await;
    let feed = Feed::new();
    feed.copy(&staff, &["1"]);
    let applier = Applier::start(Options { tables, ..database.options(&feed) });
    assert_eq!(halted(&applier, &feed.stream).await.code, "table_not_accepted");
    applier.shutdown().await;
}

#[tokio::test]
async fn a_partition_is_chosen_with_what_it_is_part_of() {
    let database = Database::new(
        "create schema part;
         create table orders (id int primary key) partition by range (id);
         create table staff (id int primary key) partition by range (id);
         create table part.one partition of orders for values from (0) to (10);
         create table staff_2026 partition of staff for values from (0) to (10);
         create table alone (id int primary key)",
    )
    .await;
    let login = format!("partial_{}", database.name);
    database.sql(&format!("create role {login} login"));
    let chosen =
        |schema: &str, name: &str| schema == "public" && !matches!(name, "staff" | "alone");
    let setup = |tables| setup_of(&login, tables);
    let all = ["orders", "part.one", "staff", "staff_2026"];
    init(&database.target(), &setup(Tables::default())).await.unwrap();
    assert_eq!(may(&database, &login, &all), [true; 4]);
    init(&database.target(), &setup(Tables::only(chosen))).await.unwrap();
    assert_eq!(may(&database, &login, &all), [true, true, false, false]);

    let part = |id, name: &str, root: &str, bound: &str| {
        with(table(id, name, &["id integer not null"]), |table| {
            let (schema, name) = root.split_once('.').unwrap();
            let (schema, name) = (schema.to_owned(), name.to_owned());
            table.partition_of = Some(Partition { schema, name, bound: bound.to_owned() });
        })
    };
    let (from_10, from_20) = ("FOR VALUES FROM (10) TO (20)", "FOR VALUES FROM (20) TO (30)");
    let one = Table::new(1, "part.one", &["id*"]);
    let staff = Table::new(2, "public.staff_2026", &["id*"]);
    // A part of a part that is told with it, and one of what is here.
    let middle = with(part(3, "part.two", "public.orders", from_10), |table| {
        table.partition_key = Some("RANGE (id)".to_owned());
    });
    let leaf = part(4, "part.leaf", "part.two", from_10);
    let later = part(5, "part.later", "part.two", "DEFAULT");
    let feed = Feed::new();
    let options = |feed: &Feed| Options { tables: Tables::only(chosen), ..database.options(feed) };
    feed.transaction(&[one.relation(), one.insert("1"), told(&[middle, leaf])]);
    feed.transaction(&[told(&[later])]);
    let applier = Applier::start(options(&feed));
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    let found =
        "select string_agg(relid::text, ',' order by relid::text) from pg_partition_tree('orders')";
    assert_eq!(database.sql(found), "orders,part.later,part.leaf,part.one,part.two");
    assert_eq!(database.sql("select id from part.one"), "1");

    let heir = with(table(8, "public.heir", &["id integer not null"]), |table| {
        table.inherits.push(("public".to_owned(), "alone".to_owned()));
    });
    let hidden = with(part(9, "public.hidden", "public.staff", from_10), |table| {
        table.partition_key = Some("RANGE (id)".to_owned());
    });
    let refused = [
        (vec![staff.relation(), staff.insert("1")], "public.staff_2026"),
        (vec![told(&[part(6, "public.more", "public.staff", from_10)])], "public.more"),
        (vec![told(&[part(7, "public.deep", "public.hidden", from_10), hidden])], "public.deep"),
        (vec![told(&[heir])], "public.heir"),
        // What is excluded is not got hold of as a part of what is not, nor let go.
        (vec![told(&[part(6, "public.alone", "public.orders", from_20)])], "public.alone"),
        (
            vec![told(&[table(6, "public.staff_2026", &["id integer not null"])])],
            "public.staff_2026",
        ),
    ];
    for (records, name) in refused {
        let feed = Feed::new();
        feed.transaction(&records);
        let applier = Applier::start(options(&feed));
        let halt = halted(&applier, &feed.stream).await;
        assert_eq!((&*halt.code, halt.table.as_deref()), ("table_not_accepted", Some(name)));
        applier.shutdown().await;
    }
}

#[tokio::test]
async fn a_stream_neither_drops_nor_renames_what_it_made_and_may_not_write_to_any_more() {
    let database = Database::new("").await;
    let feed = Feed::new();
    let mut staff = table(1, "public.staff", &["id integer not null"]);
    let orders = table(2, "public.orders", &["id integer not null"]);
    feed.transaction(&[told(&[staff.clone(), orders.clone()])]);
    database.apply_all(&feed).await;

    let tables = || Tables::only(|schema, name| schema == "public" && name != "staff");
    let options = || Options { tables: tables(), ..database.options(&feed) };
    // One that is left out is left alone, one that is not goes, and both are forgotten.
    feed.transaction(&[schema(&[], &[], &[gone(&staff), gone(&orders)])]);
    let applier = Applier::start(options());
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    let there = "select to_regclass('staff'), to_regclass('orders')";
    assert_eq!(database.sql(there), "staff|");
    assert_eq!(database.sql("select count(*) from thinwire.definitions"), "0");

    staff.id = 3;
    feed.transaction(&[one(&staff)]);
    database.apply_all(&feed).await;
    staff.name = "people".to_owned();
    feed.transaction(&[one(&staff)]);
    let applier = Applier::start(options());
    let halt = halted(&applier, &feed.stream).await;
    assert_eq!((&*halt.code, halt.table.as_deref()), ("table_not_accepted", Some("public.staff")));
    applier.shutdown().await;
    assert_eq!(database.sql(there), "staff|");
}
