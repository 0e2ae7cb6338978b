//! A database whose owners of tables mean harm: their code runs with the rights of the login that applies, which has none
//! to speak of, and nothing that they plant is ever found.

use thinwire_apply::{Applier, Check, Options, Setup, State, Tables, check, plan};

use crate::{
    database::{Database, applied, halted, in_state, init, seal, setup_of},
    feed::{Feed, Table},
};

/// What each would be worth to somebody who may not do it.
const ATTEMPTS: [&str; 15] = [
    "set session authorization postgres",
    "set role postgres",
    "set local role pg_write_server_files",
    "alter role current_user superuser",
    "alter role current_user bypassrls",
    "create role accomplice superuser",
    "grant pg_execute_server_program to current_user",
    "copy public.t to program 'true'",
    "copy public.t to '/tmp/thinwire-hostile'",
    "select pg_catalog.pg_read_file('PG_VERSION')",
    "select * from private.diary",
    "create table public.mine ()",
    "alter system set archive_command = 'true'",
    "alter table public.t disable trigger all",
    "drop table thinwire.applied",
];

/// Functions that try all of it, and note what they could do. What has to be immutable is so by name only.
fn attack() -> String {
    let attempts = ATTEMPTS.map(|text| format!("'{}'", text.replace('\'', "''"))).join(", ");
    format!(
        "create function attack(place text) returns int language plpgsql as $$
         declare attempt text; begin
           foreach attempt in array array[{attempts}] loop
             begin
               execute attempt;
               insert into public.gains values (place, attempt);
               reset role;
             exception when others then null; end;
           end loop;
           insert into public.reached values (place) on conflict do nothing;
           return 1;
         end $$;
         create function quiet_attack(place text, value int) returns int language plpgsql immutable as $$
           begin perform public.attack(place); return value; end $$;
         create function fire() returns trigger language plpgsql as $$ begin perform public.attack(tg_name); return new; end $$;"
    )
}

/// A table with such code wherever PostgreSQL runs any.
const PLACES: &str = "
    create domain checked as int check (public.quiet_attack('domain', value) > 0);
    create table t (id int primary key, v checked, own int default public.attack('default'),
        made int generated always as (public.quiet_attack('generated', id)) stored,
        check (public.quiet_attack('constraint', id) > 0));
    create index on t (public.quiet_attack('index', id));
    create trigger always before insert or update on t for each row execute function fire();
    alter table t enable always trigger always;
    create trigger replica after insert or update on t for each row execute function fire();
    alter table t enable replica trigger replica;
    create constraint trigger deferred after insert on t initially deferred for each row execute function fire();
    alter table t enable always trigger deferred;";

/// A login of its own for applying, prepared as documented.
async fn prepared(database: &Database) -> (String, Setup) {
    prepared_for(database, "applier", Tables::default()).await
}

/// The same, for some tables only.
async fn prepared_for(database: &Database, name: &str, tables: Tables) -> (String, Setup) {
    let login = format!("{name}_{}", database.name);
    database.sql(&format!("create role {login} login"));
    let setup = setup_of(&login, tables);
    init(&database.target(), &setup).await.unwrap();
    (login, setup)
}

#[tokio::test]
async fn code_of_the_owners_of_tables_gains_nothing_wherever_it_runs() {
    let places = "create table gains (place text, attempt text); create table reached (place text primary key);";
    let database = Database::bare(
        Database::shared(),
        &format!("revoke create on schema public from public; {places} {} {PLACES}", attack()),
    );
    // What is not replicated is nothing that the login has to read.
    database.sql("create schema private; create table private.diary (v text)");
    let tables = Tables::only(|schema, _| schema == "public");
    let (login, _) = prepared_for(&database, "applier", tables).await;
    let (feed, t) = (Feed::new(), Table::new(1, "public.t", &["id*", "v"]));
    feed.copy(&t, &["1|1", "2|2"]);
    let target = database.target_as(&login);
    let applier = Applier::start(Options { target: target.clone(), ..database.options(&feed) });
    applied(&applier, &feed.stream).await;
    feed.transaction(&[t.insert("3|3"), t.update("1|7"), t.delete("2|~")]);
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(database.sql("select place, attempt from gains order by 1, 2"), "");
    let reached = "always\nconstraint\ndefault\ndeferred\ndomain\ngenerated\nindex\nreplica";
    assert_eq!(database.sql("select place from reached order by 1"), reached);
    assert_eq!(database.sql("select id, v, made from t order by id"), "1|7|1\n3|3|3");
    let rights = "select rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls, \
         exists (select from pg_auth_members where member = oid) from pg_roles";
    assert_eq!(database.sql(&format!("{rights} where rolname = '{login}'")), "f|f");
    assert_eq!(database.sql("select count(*) from pg_roles where rolname = 'accomplice'"), "0");
    assert_eq!(database.offset(&feed), feed.last().to_string());
}

#[tokio::test]
async fn code_of_one_owner_does_not_reach_the_tables_of_another_who_has_a_login_of_its_own() {
    let database = Database::bare(
        Database::shared(),
        "create schema a; create table a.t (id int primary key); create table a.gains (attempt text);
         create schema b; create table b.t (id int primary key)",
    );
    let (one, _) = prepared_for(&database, "one", Tables::only(|schema, _| schema == "a")).await;
    let (other, _) =
        prepared_for(&database, "other", Tables::only(|schema, _| schema == "b")).await;
    database.sql(&format!(
        "create function a.reach() returns trigger language plpgsql as $$
         declare attempt text; begin
           foreach attempt in array array['select * from b.t', 'insert into b.t values (7)', 'update b.t set id = 8',
             'delete from b.t', 'truncate b.t', 'drop table b.t', 'copy b.t to stdout', 'set role {other}',
             'set session authorization {other}', 'create trigger a before insert on b.t execute function a.reach()']
           loop begin
             execute attempt; insert into a.gains values (attempt);
           exception when others then null; end; end loop;
           insert into a.gains values ('tried'); return new; end $$;
         create trigger reach before insert on a.t for each row execute function a.reach();
         alter table a.t enable always trigger reach"
    ));
    for (login, schema) in [(&other, "b"), (&one, "a"), (&other, "b")] {
        let (feed, t) = (Feed::new(), Table::new(1, &format!("{schema}.t"), &["id*"]));
        let id = database.sql(&format!("select count(*) from {schema}.t"));
        feed.transaction(&[t.relation(), t.insert(&id)]);
        let target = database.target_as(login);
        let applier = Applier::start(Options { target, ..database.options(&feed) });
        applied(&applier, &feed.stream).await;
        applier.shutdown().await;
    }
    assert_eq!(database.sql("select * from a.gains"), "tried");
    assert_eq!(database.sql("select string_agg(id::text, ',' order by id) from b.t"), "0,1");
}

#[tokio::test]
async fn what_is_left_behind_in_the_session_misleads_no_later_transaction() {
    let cluster = Database::shared();
    let version: u32 =
        cluster.psql("postgres", "show server_version_num").unwrap().parse().unwrap();
    // The privilege that lets the login do this is there since 15; before, the trigger fails.
    let role = match version >= 150_000 {
        true => "perform pg_catalog.set_config('session_replication_role', 'origin', false);",
        false => "",
    };
    let database = Database::bare(
        cluster,
        &format!("create table t (id int primary key, v text); create table u (id int primary key, at timestamptz, v text);
         create function litter() returns trigger language plpgsql as $$ begin
           set session characteristics as transaction read only;
           perform pg_catalog.set_config('statement_timeout', '1', false);
           perform pg_catalog.set_config('lock_timeout', '1', false);
           perform pg_catalog.set_config('idle_in_transaction_session_timeout', '1', false);
           perform pg_catalog.set_config('row_security', 'on', false);
           perform pg_catalog.set_config('DateStyle', 'SQL, DMY', false);
           {role}
           perform pg_catalog.set_config('synchronous_commit', 'off', false);
           create temporary table if not exists u (id int, at text, v text);
           create temporary table if not exists applied ();
           execute 'deallocate all';
           return new; end $$;
         create constraint trigger litter after insert or update on t initially deferred for each row execute function litter();
         alter table t enable always trigger litter;
         create function fail() returns trigger language plpgsql as $$ begin raise exception 'fired'; end $$;
         create trigger fail before insert on u for each row execute function fail()"),
    );
    let (login, _) = prepared(&database).await;
    let t = Table::new(1, "public.t", &["id*", "v"]);
    let u = Table::new(2, "public.u", &["id*", "at", "v"]);
    let feed = Feed::new();
    let target = database.target_as(&login);
    feed.append(&[t.relation(), u.relation()]);
    let applier = Applier::start(Options { target, ..database.options(&feed) });
    for round in 1..=5 {
        feed.transaction(&[t.insert(&format!("{round}|x"))]);
        feed.transaction(&[u.insert(&format!("{round}|2024-02-03 00:00:00+00|x"))]);
        feed.transaction(&[
            t.update(&format!("{round}|y")),
            u.update(&format!("{round}|2024-02-03 00:00:00+00|y")),
        ]);
        applied(&applier, &feed.stream).await;
    }
    applier.shutdown().await;
    assert_eq!(*feed.stream.halted().borrow(), None);
    assert_eq!(database.sql("select count(*), min(v), max(v) from t"), "5|y|y");
    assert_eq!(
        database.sql("select count(*), min(at), max(v) from u"),
        "5|2024-02-03 00:00:00+00|y"
    );
}

#[tokio::test]
async fn a_trigger_that_takes_the_statements_of_the_session_each_time_stops_the_stream() {
    let database = Database::bare(
        Database::shared(),
        "create table t (id int primary key, v text);
         create function take() returns trigger language plpgsql as $$ begin
           if new.v = 'taken' then execute 'deallocate all'; end if; return new; end $$;
         create trigger take before insert on t for each row execute function take();
         alter table t enable always trigger take",
    );
    let (login, _) = prepared(&database).await;
    let (feed, t) = (Feed::new(), Table::new(1, "public.t", &["id*", "v"]));
    feed.append(&[t.relation()]);
    feed.transaction(&[t.insert("1|x"), t.delete("1|~"), t.insert("2|taken"), t.delete("2|~")]);
    let applier =
        Applier::start(Options { target: database.target_as(&login), ..database.options(&feed) });
    assert_eq!(halted(&applier, &feed.stream).await.code, "statements_gone");
    database.sql("alter table t disable trigger take");
    applier.retry();
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(database.sql("select count(*) from t"), "0");
}

#[tokio::test]
async fn a_trigger_that_limits_how_long_statements_may_take_stops_the_stream() {
    let database = Database::bare(
        Database::shared(),
        "create table t (id int primary key, v text);
         create function hurry() returns trigger language plpgsql as $$ begin
           if new.id > 1 then perform pg_catalog.pg_sleep(5); end if;
           perform pg_catalog.set_config('statement_timeout', '20', true); return new; end $$;
         create trigger hurry before insert on t for each row execute function hurry();
         alter table t enable always trigger hurry",
    );
    let (login, _) = prepared(&database).await;
    let (feed, t) = (Feed::new(), Table::new(1, "public.t", &["id*", "v"]));
    feed.append(&[t.relation()]);
    feed.transaction(&[t.insert("1|x"), t.delete("1|~"), t.insert("2|x")]);
    let applier =
        Applier::start(Options { target: database.target_as(&login), ..database.options(&feed) });
    let halt = halted(&applier, &feed.stream).await;
    assert!(halt.detail.contains("statement timeout"), "{halt:?}");
    database.sql("alter table t disable trigger hurry");
    applier.retry();
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(database.sql("select id from t"), "2");
}

#[tokio::test]
async fn a_trigger_that_moves_the_progress_stops_the_stream() {
    let database = Database::bare(
        Database::shared(),
        "create table t (id int primary key, v text);
         create function move() returns trigger language plpgsql as $$ begin
           execute 'update thinwire.applied set \"offset\" = \"offset\" ' || new.v; return new; end $$;
         create trigger move before insert on t for each row execute function move();
         alter table t enable always trigger move",
    );
    let (login, _) = prepared(&database).await;
    let t = Table::new(1, "public.t", &["id*", "v"]);
    for step in ["+ 3", "- 1"] {
        let feed = Feed::new();
        feed.append(&[t.relation()]);
        feed.transaction(&[t.delete("9|~")]);
        let target = database.target_as(&login);
        database.sql("insert into t values (9, '+ 0')");
        let applier = Applier::start(Options { target, ..database.options(&feed) });
        applied(&applier, &feed.stream).await;
        let before = database.offset(&feed);
        feed.transaction(&[t.insert(&format!("1|{step}"))]);
        feed.transaction(&[t.insert("2|+ 0")]);
        let halt = halted(&applier, &feed.stream).await;
        assert_eq!(halt.code, "progress_moved", "{halt:?}");
        applier.shutdown().await;
        // Nothing of the transaction is there, its progress neither.
        assert_eq!(database.sql("select count(*) from t"), "0", "{step}");
        assert_eq!(database.offset(&feed), before, "{step}");
    }
}

/// What brings every origin's stream forward by as many records as each new row says.
const FORWARD: &str = "
    create function forward() returns trigger language plpgsql as $$ begin
      execute 'update thinwire.applied set \"offset\" = \"offset\" + ' || new.v; return new; end $$;
    create constraint trigger forward after insert on t initially deferred for each row execute function forward();
    alter table t enable always trigger forward;";

#[tokio::test]
async fn a_trigger_that_moves_the_progress_once_it_is_written_has_nothing_skipped() {
    let table = "create table t (id int primary key, v text);";
    let database = Database::bare(Database::shared(), &format!("{table} {FORWARD}"));
    let (login, setup) = prepared(&database).await;
    let (feed, t) = (Feed::new(), Table::new(1, "public.t", &["id*", "v"]));
    feed.append(&[t.relation()]);
    let options = || Options { target: database.target_as(&login), ..database.options(&feed) };
    let applier = Applier::start(options());
    let reached = feed.transaction(&[t.insert("1|3")]);
    applied(&applier, &feed.stream).await;
    let moved = reached.get() + 3;
    assert_eq!(database.offset(&feed), moved.to_string());
    feed.transaction(&[t.insert("2|0")]);
    feed.transaction(&[t.insert("3|0")]);
    let halt = halted(&applier, &feed.stream).await;
    assert_eq!((&*halt.code, halt.table.as_deref()), ("progress_moved", Some("thinwire.applied")));
    let told =
        |known| format!("record {moved} as the last that is applied, and this node{known} did");
    let was = told(format!(", which was at record {reached},"));
    assert!(halt.detail.contains(&was), "{halt:?}");
    applier.shutdown().await;
    // Nor by one that knows nothing but what the database says.
    let applier = Applier::start(options());
    in_state(&applier, State::Halted).await;
    let halt = halted(&applier, &feed.stream).await;
    assert!(halt.detail.contains(&told(String::new())), "{halt:?}");
    assert_eq!(database.sql("select id from t"), "1");

    database.sql(&format!("update thinwire.applied set \"offset\" = {reached}"));
    applier.retry();
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(*feed.stream.halted().borrow(), None);
    assert_eq!(database.sql("select id from t order by id"), "1\n2\n3");
    // What it holds elsewhere is for a person to believe.
    database.sql("update thinwire.applied set seal = null");
    let setup = Setup { streams: vec![feed.id.origin], seal: Some(seal()), ..setup };
    let doubts = |checks: Vec<Check>| checks.iter().filter(|check| !check.ok).count();
    assert_eq!(doubts(check(&database.target_as(&login), &setup).await), 1);
    for taken_over in [vec![feed.id.origin], vec![]] {
        assert_eq!(init(&database.target(), &setup).await.unwrap(), taken_over);
    }
    assert_eq!(plan(&database.target(), &setup).await.unwrap(), Vec::<String>::new());
    assert_eq!(doubts(check(&database.target_as(&login), &setup).await), 0);
    feed.transaction(&[t.insert("4|0")]);
    let applier = Applier::start(options());
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(database.sql("select max(id) from t"), "4");
}

#[tokio::test]
async fn a_trigger_that_one_stream_fires_has_nothing_of_another_skipped() {
    let tables =
        "create table t (id int primary key, v text); create table u (id int primary key);";
    let database = Database::bare(Database::shared(), &format!("{tables} {FORWARD}"));
    let (login, _) = prepared(&database).await;
    let (t, u) = (Table::new(1, "public.t", &["id*", "v"]), Table::new(1, "public.u", &["id*"]));
    let (one, other) = (Feed::new(), Feed::new());
    let start = |feed: &Feed| {
        let target = database.target_as(&login);
        Applier::start(Options { target, ..database.options(feed) })
    };
    let reached = other.transaction(&[u.relation(), u.insert("1")]);
    let running = start(&other);
    applied(&running, &other.stream).await;
    one.transaction(&[t.relation(), t.insert("1|3")]);
    let applier = start(&one);
    applied(&applier, &one.stream).await;
    applier.shutdown().await;
    assert_eq!(database.offset(&other), (reached.get() + 3).to_string());
    other.transaction(&[u.insert("2")]);
    other.transaction(&[u.insert("3")]);
    assert_eq!(halted(&running, &other.stream).await.code, "progress_moved");
    running.shutdown().await;
    database.sql(&format!(
        "update thinwire.applied set \"offset\" = {reached} where origin = '{}'",
        other.id.origin
    ));
    let running = start(&other);
    applied(&running, &other.stream).await;
    running.shutdown().await;
    assert_eq!(database.sql("select id from u order by id"), "1\n2\n3");
}

#[tokio::test]
async fn planted_functions_operators_and_tables_are_never_found() {
    let database = Database::bare(
        Database::shared(),
        "create table t (id int primary key, v text, n numeric); create table keyless (v text, n numeric);
         create table hits (what text);
         create function hit(text, text) returns bool language plpgsql as
           $$ begin insert into public.hits values ('='); return true; end $$;
         create operator public.= (function = public.hit, leftarg = text, rightarg = text);
         create function hit(int8, int8) returns bool language plpgsql as
           $$ begin insert into public.hits values ('= of numbers'); return true; end $$;
         create operator public.= (function = public.hit, leftarg = int8, rightarg = int8);
         create function lower(text) returns text language plpgsql as
           $$ begin insert into public.hits values ('lower'); return $1; end $$;
         create function now() returns timestamptz language plpgsql as
           $$ begin insert into public.hits values ('now'); return null; end $$;
         create function current_setting(text) returns text language plpgsql as
           $$ begin insert into public.hits values ('current_setting'); return 'x'; end $$;
         create table pg_class (oid oid, relname name); create table applied (origin text); create table loaded (origin text)",
    );
    let path = "set search_path = public, pg_catalog";
    database.sql(&format!(
        "alter database {} {path}; alter role postgres in database {} {path}",
        database.name, database.name
    ));
    let (login, setup) = prepared(&database).await;
    database.sql(&format!("alter role {login} {path}"));
    let target = database.target_as(&login);
    assert!(check(&target, &setup).await.iter().all(|check| check.ok));
    let (feed, t) = (Feed::new(), Table::new(1, "public.t", &["id*", "v", "n"]));
    let keyless = Table::new(2, "public.keyless", &["v", "n"]).full();
    feed.append(&[keyless.relation()]);
    feed.copy(&t, &["1|a|1.0", "2|b|2"]);
    let applier = Applier::start(Options { target, ..database.options(&feed) });
    applied(&applier, &feed.stream).await;
    feed.transaction(&[
        t.insert("3|c|3"),
        t.update_key("1|~|~", "4|d|4"),
        t.delete("2|~|~"),
        keyless.insert("a|1.0"),
        keyless.insert("a|1.00"),
        keyless.update_full("a|1.0", "b|2"),
        keyless.delete_full("a|1.00"),
    ]);
    applied(&applier, &feed.stream).await;
    // What is asked when a row is in the way, too.
    feed.transaction(&[t.insert("3|again|3")]);
    let halt = halted(&applier, &feed.stream).await;
    assert_eq!((&*halt.code, halt.key.as_deref()), ("insert_exists", Some("id=3")));
    applier.shutdown().await;
    assert_eq!(database.sql("select * from public.hits"), "");
    assert_eq!(database.sql("select id, v, n from t order by id"), "3|c|3\n4|d|4");
    assert_eq!(database.sql("select v, n from keyless"), "b|2");
}
