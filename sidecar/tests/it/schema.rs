//! Schema changes at the source are made at the target too, in their place among the rows, without anybody's doing.

use std::{path::Path, thread::sleep, time::Duration};

use thinwire_cluster::{Options, digest};

use crate::site::{APPLY, BUSY, DB, Pair, Site, lively, wait_for};

const REPLICATE: &str =
    "[capture]\nmode = \"slot\"\ntables = [\"public.*\", \"app*.*\"]\nddl = \"replicate\"\n";

/// A source and a target on servers of some kind.
pub(crate) type Servers = [Options; 2];

/// What holds between servers of any versions.
pub(crate) const ACROSS_VERSIONS: [fn(Servers); 8] = [
    made_and_changed,
    copied_with_all_that_is_needed,
    copied_whatever_is_younger,
    partitions_come_and_go,
    partitions_of_a_table_that_numbers_its_rows,
    copied_again,
    objects_of_all_kinds,
    parts_and_heirs,
];

/// A source whose schema is followed, and a target that holds nothing.
fn followed(schema: &str) -> Pair {
    followed_on(Servers::default(), schema)
}

/// The same on servers of some kind.
pub(crate) fn followed_on([source, target]: Servers, schema: &str) -> Pair {
    let source = Site::with("edge", REPLICATE, schema, source);
    let target = Site::with("hq", APPLY, "", target);
    let mut pair = Pair::of(source, target, lively());
    pair.start();
    pair
}

/// What a `pg_dump` says of a site's schema, but for what is Thinwire's own; an error if it changed meanwhile.
fn shape(site: &Site, pg_dump: &Path) -> Result<String, String> {
    let mut dump = site.cluster.command(pg_dump.to_str().unwrap(), DB);
    let output = dump.args(["-s", "-n", "public", "-n", "app*", "--no-publications"]).output();
    let output = output.unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    // Whose a schema is, and what others may do there, is each server's own; so is the number that some minor versions give columns.
    let apart = [" TRIGGER thinwire_", " SCHEMA public ", " SET (pg_attver="];
    let said = |line: &&str| {
        let is_apart = apart.iter().any(|it| line.contains(it));
        !line.starts_with("--") && !line.starts_with('\\') && !line.is_empty() && !is_apart
    };
    let not_null = site.cluster.psql(DB, NOT_NULL).map_err(|error| error.to_string())?;
    let lines = text.lines().filter(said).filter_map(nullable);
    Ok(lines.chain([not_null]).collect::<Vec<_>>().join("\n"))
}

/// The shapes of both ends in the words of the newer one's `pg_dump`, which knows the older server too.
fn shapes(pair: &Pair) -> [Result<String, String>; 2] {
    let ends = [&pair.source, &pair.target];
    let [source, target] = ends.map(major);
    let newer = if source > target { &pair.source } else { &pair.target };
    let pg_dump = newer.cluster.bin().join("pg_dump");
    let shapes = ends.map(|site| shape(site, &pg_dump));
    match (source < BARE_COLUMNS) == (target < BARE_COLUMNS) {
        true => shapes,
        false => shapes.map(|shape| Ok(shape?.lines().map(unqualified).collect())),
    }
}

pub(crate) fn major(site: &Site) -> u32 {
    site.sql("show server_version_num").parse::<u32>().unwrap() / 10_000
}

/// From this version on, a query that reads one table does not say which one its columns are of.
const BARE_COLUMNS: u32 = 16;

/// A line of a query without the names before dots. Those of objects that are made or altered stay.
fn unqualified(line: &str) -> String {
    if !line.starts_with(' ') {
        return format!("{line}\n");
    }
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let parts: Vec<&str> = line.split('.').collect();
    let (last, rest) = parts.split_last().unwrap();
    let rest: String = rest.iter().map(|part| part.trim_end_matches(is_name)).collect();
    format!("{rest}{last}\n")
}

/// A line without what it says of NOT NULL; none if it says nothing else. Since PostgreSQL 18 dumps have its name, that of a
/// partition being the target's own, and say whether it was inherited.
fn nullable(line: &str) -> Option<String> {
    // Whether another line follows.
    let line = line.trim_end_matches(',');
    let found = line.split_once(" NOT NULL").filter(|(before, _)| !before.ends_with(" IS"));
    let Some((before, rest)) = found else { return Some(line.to_owned()) };
    let (before, _) = before.split_once(" CONSTRAINT ").unwrap_or((before, ""));
    let says_more = !before.trim().is_empty();
    says_more.then(|| format!("{before}{rest}"))
}

/// What has no null, as the catalogs know it.
const NOT_NULL: &str = "
    select string_agg(it, ', ' order by it) from (
        select format('%s.%s', attrelid::regclass, attname) from pg_attribute
        where attnotnull and not attisdropped and attnum > 0 and attrelid in (
            select oid from pg_class where relkind in ('r', 'p') and relnamespace::regnamespace::text ~ '^(public|app)')
        union all select typname from pg_type where typtype = 'd' and typnotnull
    ) as every (it)";

/// Waits until rows and schema are equal at both ends.
pub(crate) fn wait_alike(pair: &mut Pair, limit: Duration) {
    let halted = |site: &Site| site.status().streams.iter().find_map(|it| it.halted.clone());
    let limit = wait_until(limit);
    loop {
        let [source, target] = shapes(pair);
        let tables = digest::tables(&pair.source.cluster, DB).unwrap();
        let rows = |site: &Site| digest::digests(&site.cluster, DB, &tables).ok();
        if source.is_ok() && source == target && rows(&pair.source) == rows(&pair.target) {
            return;
        }
        assert!(
            std::time::Instant::now() < limit,
            "source:\n{source:#?}\ntarget:\n{target:#?}\n{:?} {:?}\n{:?} {:?}\n{}\n{}",
            rows(&pair.source),
            rows(&pair.target),
            halted(&pair.source),
            halted(&pair.target),
            pair.source.node.log(),
            pair.target.node.log(),
        );
        sleep(Duration::from_millis(300));
    }
}

fn wait_until(limit: Duration) -> std::time::Instant {
    std::time::Instant::now() + limit * BUSY
}

pub(crate) const SOON: Duration = Duration::from_secs(180);

#[test]
fn a_table_that_is_made_and_changed_at_the_source_is_made_and_changed_at_the_target() {
    made_and_changed(Servers::default());
}

fn made_and_changed(servers: Servers) {
    let mut pair = followed_on(servers, "");
    // Two statements in one string are one transaction.
    pair.source.sql("CREATE TABLE riders (id int); INSERT INTO riders VALUES (1);");
    pair.source.sql("CREATE TABLE horses (id int primary key, name text)");
    pair.source.sql("INSERT INTO horses VALUES (1, 'Ash'), (2, 'Bay')");
    wait_alike(&mut pair, SOON);
    assert_eq!(pair.target.sql("select * from riders"), "1");
    // A keyless table can be changed at once, and rows stand on both sides of a change.
    pair.source.sql("UPDATE riders SET id = 2");
    pair.source.sql(
        "BEGIN; INSERT INTO horses VALUES (3, 'Cob');
         ALTER TABLE horses ADD COLUMN born date NOT NULL DEFAULT '2020-01-02';
         UPDATE horses SET born = '2019-01-01' WHERE id = 1;
         ALTER TABLE horses RENAME name TO called;
         INSERT INTO horses VALUES (4, 'Dun', '2021-01-01');
         SAVEPOINT s; ALTER TABLE horses DROP COLUMN born; ROLLBACK TO s;
         COMMIT",
    );
    pair.source.sql("ALTER TABLE horses ALTER born DROP DEFAULT, ADD COLUMN height numeric(4,1)");
    pair.source.sql("UPDATE horses SET height = 150.5 WHERE id > 1");
    pair.source.sql("ALTER TABLE horses DROP COLUMN called");
    pair.source.sql("DELETE FROM horses WHERE id = 2; ALTER TABLE riders RENAME TO knights");
    pair.source.sql("INSERT INTO knights VALUES (7)");
    wait_alike(&mut pair, SOON);
    pair.source.sql("DROP TABLE knights; CREATE TABLE knights (id int, v text)");
    pair.source.sql("INSERT INTO knights VALUES (1, 'again')");
    wait_alike(&mut pair, SOON);
    pair.source.sql("DROP TABLE knights, horses");
    wait_alike(&mut pair, SOON);
    assert_eq!(pair.target.sql("select to_regclass('knights'), to_regclass('horses')"), "|");
}

#[test]
fn the_first_copy_fills_a_database_that_was_empty_with_all_that_its_tables_need() {
    copied_with_all_that_is_needed(Servers::default());
}

fn copied_with_all_that_is_needed(servers: Servers) {
    let mut pair = followed_on(
        servers,
        "create schema app;
         create type app.mood as enum ('sad', 'ok');
         create domain app.name as text check (length(value) < 50);
         create function app.half(int) returns int language sql immutable as 'select $1 / 2';
         create table people (id serial primary key, name app.name not null unique, mood app.mood default 'ok',
             age int check (age > 0), half int generated always as (app.half(age)) stored);
         create table app.pets (id int generated by default as identity (start with 100) primary key,
             owner int references people on delete cascade, tags text[] default '{}');
         create index on app.pets using gin (tags);
         comment on table people is 'who''s who'; comment on column people.age is 'in years';
         create table log (day date not null, text text, primary key (day)) partition by range (day);
         create table log_1 partition of log for values from ('2026-01-01') to ('2026-02-01');
         create table log_rest partition of log default;
         insert into people (name, age) select 'p' || i, i from generate_series(1, 3000) i;
         insert into app.pets (owner) select i from generate_series(1, 500) i;
         insert into log values ('2026-01-05', 'a'), ('2027-01-01', 'b')",
    );
    wait_alike(&mut pair, SOON);
    pair.source.sql("insert into people (name, age) values ('late', 7); insert into app.pets (owner) values (3001)");
    pair.source.sql("alter type app.mood add value 'great' before 'ok'");
    pair.source.sql("update people set mood = 'great' where id < 10");
    pair.source.sql(
        "create table log_2 partition of log for values from ('2026-02-01') to ('2026-03-01')",
    );
    pair.source.sql("insert into log values ('2026-02-05', 'c')");
    wait_alike(&mut pair, SOON);
}

#[test]
fn the_first_copy_makes_what_was_changed_to_need_something_younger() {
    copied_whatever_is_younger(Servers::default());
}

fn copied_whatever_is_younger(servers: Servers) {
    let mut pair = followed_on(
        servers,
        "create schema app;
         create domain app.word as text;
         create function app.is_word(text) returns boolean language sql immutable as 'select length($1) < 9';
         alter domain app.word add check (app.is_word(value));
         create type app.pair as (a int);
         create type app.half as (a int);
         alter type app.pair add attribute b app.half;
         create function app.first(app.pair) returns int language sql immutable as 'select $1.a';
         create table old (id int primary key, p app.pair, first int generated always as (app.first(p)) stored);
         create table newer (id int not null);
         alter table old inherit newer;
         create table people (id int primary key, first app.word, last app.word);
         create function full_name(people) returns text language sql immutable as 'select $1.first || $1.last';
         create index by_name on people (full_name(people));
         alter table people add constraint named check (full_name(people) <> '');
         create table orders (id int primary key, n int);
         create function app.most() returns int language sql begin atomic select coalesce(max(id), 0) from people; end;
         alter table orders alter n set default app.most();
         insert into old (id, p) values (1, '(7,)'); insert into newer values (2);
         insert into people values (1, 'Ann', 'Lee'); insert into orders values (1)",
    );
    wait_alike(&mut pair, SOON);
    pair.source.sql("insert into old (id, p) values (3, '(8,)'); insert into orders values (2)");
    wait_alike(&mut pair, SOON);
    assert_eq!(pair.target.sql("select string_agg(first::text, ',' order by id) from old"), "7,8");
}

#[test]
fn a_domain_whose_check_is_a_function_arrives_whoever_makes_its_schema() {
    // The function looks at a table, for which a session needs a snapshot whatever it does besides.
    let schema = "create function above(int) returns boolean language sql immutable
           as 'select $1 > (select count(*) from pg_catalog.pg_class where oid = 0)';
         create domain high as int check (public.above(value));
         create table t (id int primary key, v high)";
    let replicated = || {
        let source = Site::new("edge", REPLICATE, schema);
        Pair::of(source, Site::new("hq", APPLY, ""), lively())
    };
    for mut pair in [Pair::new(lively(), schema), replicated()] {
        pair.source.sql("insert into t values (1, 10)");
        pair.start();
        wait_alike(&mut pair, SOON);
        pair.source.sql("insert into t values (2, 12); update t set v = v - 1 where id = 2");
        wait_alike(&mut pair, SOON);
        // PostgreSQL: 002_types 4
        assert_eq!(pair.target.sql("select sum(v) from t"), "21");
        assert!(pair.target.cluster.psql(DB, "insert into t values (3, 0)").is_err());
    }
}

#[test]
fn partitions_of_a_table_that_numbers_its_rows_come_and_go() {
    partitions_of_a_table_that_numbers_its_rows(Servers::default());
}

#[test]
fn partitions_come_and_go_and_their_table_is_changed_with_them() {
    partitions_come_and_go(Servers::default());
}

fn partitions_come_and_go(servers: Servers) {
    let mut pair = followed_on(
        servers,
        "create table log (day int primary key, text text) partition by range (day);
         create table log_1 partition of log for values from (0) to (10);
         insert into log values (1, 'a')",
    );
    wait_alike(&mut pair, SOON);
    // Empty ones, full ones, and one that is partitioned itself.
    pair.source.sql(
        "create table log_2 (like log including all); create table log_3 (like log including all)",
    );
    pair.source.sql("alter table log attach partition log_2 for values from (10) to (20)");
    pair.source.sql("insert into log_3 values (21, 'b'); insert into log values (11, 'c')");
    pair.source.sql("alter table log attach partition log_3 for values from (20) to (30)");
    pair.source.sql(
        "create table mid (like log including all) partition by range (day);
         create table leaf partition of mid for values from (30) to (40);
         alter table log attach partition mid for values from (30) to (50)",
    );
    pair.source.sql("insert into log values (31, 'd')");
    wait_alike(&mut pair, SOON);
    // Old rows get a value that no expression gives a second time.
    pair.source.sql("alter table log add column at timestamptz default now()");
    pair.source.sql("insert into log values (2, 'e')");
    wait_alike(&mut pair, SOON);
    pair.source.sql("delete from log where day = 11; alter table log detach partition log_2");
    pair.source.sql("alter table log detach partition log_3 concurrently");
    pair.source.sql("insert into log_2 values (12, 'f'); drop table log_1");
    pair.source.sql("create table log_4 partition of log for values from (0) to (20)");
    pair.source.sql("insert into log values (12, 'g')");
    wait_alike(&mut pair, SOON);
}

fn partitions_of_a_table_that_numbers_its_rows(servers: Servers) {
    let mut pair = followed_on(
        servers,
        "create table log (id int generated always as identity, day int not null) partition by range (day);
         create table log_1 partition of log for values from (0) to (10); insert into log (day) values (1)",
    );
    wait_same_columns(&mut pair);
    pair.source.sql("create table log_2 (day int not null, id int not null)");
    pair.source.sql("alter table log attach partition log_2 for values from (10) to (20)");
    pair.source.sql("insert into log (day) values (2), (11)");
    pair.source.sql("create table log_3 partition of log for values from (20) to (30)");
    pair.source
        .sql("alter table log detach partition log_1; insert into log_1 (id, day) values (7, 3)");
    pair.source.sql(
        "insert into log (day) values (21); alter table log alter id set generated by default",
    );
    pair.source.sql("insert into log values (100, 22); alter table log alter id drop identity");
    pair.source.sql("insert into log values (101, 23)");
    wait_same_columns(&mut pair);
}

#[test]
fn a_partition_that_is_emptied_alone_is_emptied_at_the_target_too() {
    let mut pair = followed(
        "create table log (day int primary key, text text) partition by range (day);
         create table log_1 partition of log for values from (0) to (10);
         create table log_2 partition of log for values from (10) to (30) partition by range (day);
         create table log_21 partition of log_2 for values from (10) to (20);
         create table log_22 partition of log_2 default;
         insert into log select i, 'a' from generate_series(1, 29) i",
    );
    wait_alike(&mut pair, SOON);
    pair.source.sql("truncate log_1; insert into log values (5, 'b')");
    wait_alike(&mut pair, SOON);
    pair.source.sql("begin; truncate log_2; insert into log values (15, 'c'), (25, 'd'); commit");
    wait_alike(&mut pair, SOON);
    assert_eq!(
        pair.target.sql("select string_agg(day::text, ' ' order by day) from log"),
        "5 15 25"
    );
    let copies = "select max(\"offset\") from thinwire.loaded where table_name = 'log'";
    let before = pair.target.sql(copies);
    pair.source.sql("truncate log; insert into log values (7, 'e')");
    wait_alike(&mut pair, SOON);
    assert_eq!(pair.target.sql(copies), before);
    // A partition that is born, filled and emptied in one transaction.
    pair.source.sql(
        "begin; create table log_3 partition of log for values from (30) to (40); insert into log values (31, 'f'), (8, 'g');
         truncate log_3; insert into log values (32, 'h'); commit",
    );
    wait_alike(&mut pair, SOON);
}

#[test]
fn what_a_definition_does_not_determine_is_copied_again() {
    copied_again(Servers::default());
}

fn copied_again(servers: Servers) {
    let mut pair = followed_on(servers, "create table t (id int primary key, v text)");
    pair.source.sql("insert into t select i, i::text from generate_series(1, 1000) i");
    // Once with rows that a copy has brought, once with those of a table that was born here.
    for table in ["t", "u"] {
        let shape = "(id int primary key, v text)";
        pair.source.sql(&format!("create table if not exists {table} {shape}"));
        pair.source.sql(&format!("insert into {table} (id, v) values (1500, '12345')"));
        if table == "t" {
            wait_alike(&mut pair, SOON);
        }
        change_beyond_definitions(&pair.source, table);
        wait_alike(&mut pair, SOON);
    }
    pair.source.sql("select id into other from t; update t set r = 1 where id = 1");
    pair.source
        .sql("alter table t alter r set data type numeric using 2 * r, alter r set not null");
    wait_alike(&mut pair, SOON);
}

/// Changes values in ways that nobody can repeat who has only the definition, and holds them to what they are since.
fn change_beyond_definitions(source: &Site, table: &str) {
    for text in [
        "create table made_# as select id, md5(v) as hash from #",
        "insert into made_# values (5000, 'x')",
        "alter table # add column r float8 default random()",
        "alter table # alter v type int using length(v)",
        "alter table # add check (v < 10)",
        "insert into # (id, v) values (2000, 7)",
        "alter table # drop constraint #_v_check",
        "alter table # alter v type boolean using v > 2",
        "alter table # add column u uuid not null default gen_random_uuid()",
        "alter table # add unique (u, v)",
        "insert into # (id, v) values (3000, true)",
    ] {
        source.sql(&text.replace('#', table));
    }
}

#[test]
fn objects_of_every_kind_follow() {
    objects_of_all_kinds(Servers::default());
}

fn objects_of_all_kinds(servers: Servers) {
    let mut pair = followed_on(servers, "create table t (id int primary key, a int, b text)");
    pair.source.sql("insert into t values (1, 1, 'x'), (2, 2, 'y')");
    for text in [
        "create schema app",
        "create type app.pair as (a int, b text)",
        "create type app.span as range (subtype = float8)",
        "create sequence app.numbers start 10 increment 5",
        "create function app.twice(n int) returns int language sql as 'select $1 * 2'",
        "create or replace function app.twice(n int) returns int language sql as 'select $1 + $1'",
        "create procedure app.nothing() language plpgsql as $$ begin null; end $$",
        "create view app.v as select id, app.twice(a) as twice from t",
        "create or replace view app.v as select id, app.twice(a) as twice, b from t",
        "create materialized view app.stored as select count(*) from t",
        "create index by_a on t (a) where a > 0",
        "create unique index by_b on t (lower(b))",
        "alter index by_a rename to on_a",
        "alter table t add constraint positive check (a > 0)",
        "alter table t rename constraint positive to above_zero",
        "create table u (t int references t, n int generated always as identity, p app.pair)",
        "alter table u add unique (n)",
        "insert into u (t, p) values (1, row(1, 'x'))",
        "alter type app.pair add attribute c date",
        "alter type app.pair rename attribute a to aa",
        "alter table t rename id to key",
        "alter table u drop constraint u_t_fkey",
        "drop view app.v; alter table t alter key type bigint",
        "create view app.v as select key from t",
        "alter table u replica identity full",
        "alter table u alter n set generated by default",
        "alter sequence app.numbers increment 7",
        "alter table t set schema app",
        "alter schema app rename to app2",
        "drop view app2.v",
        "drop materialized view app2.stored",
        "drop function app2.twice; drop procedure app2.nothing",
        "create type app2.mood as enum ('good', 'bad')",
        "drop sequence app2.numbers; drop type app2.span; drop type app2.mood",
    ] {
        pair.source.sql(text);
    }
    wait_alike(&mut pair, SOON);
}

#[test]
fn a_table_that_leaves_the_schemas_that_are_meant_is_sent_no_more() {
    // PostgreSQL: 025_rep_changes_for_schema 8
    let mut pair =
        followed("create schema app; create schema far; create table app.t (id int primary key)");
    pair.source.sql("insert into app.t values (1)");
    wait_alike(&mut pair, SOON);
    pair.source.sql("alter table app.t set schema far; insert into far.t values (2)");
    pair.source.sql("insert into far.t values (3); drop table far.t; create table app.u (id int)");
    pair.source.sql("insert into app.u values (4)");
    wait_alike(&mut pair, SOON);
    // It went with its name, and is the target's own since.
    assert_eq!(pair.target.sql("select * from far.t"), "1");
    assert_eq!(pair.target.sql("select to_regclass('app.t') is null"), "t");
}

#[test]
fn one_login_writes_rows_and_another_changes_the_schema() {
    // As it is since PostgreSQL 15.
    let schema = "create role scribe login; create role builder login; revoke create on schema public from public";
    let mut target = Site::new("hq", APPLY, schema);
    let url = target.cluster.url_as("builder", DB);
    target.cluster.psql(DB, "grant create on schema public to builder").unwrap();
    target.cluster.psql(DB, &format!("grant create on database {DB} to builder")).unwrap();
    target.sections(&format!("[apply]\nddl_url = \"\"\"{url}\"\"\"\n"));
    target.login("scribe");
    let mut source = Site::new("edge", REPLICATE, "create table t (id serial primary key, v text)");
    source.sql("insert into t (v) select 'v' from generate_series(1, 100)");
    source.init();
    target.init_as_admin();
    let mut pair = Pair::joined(source, target, lively());
    pair.start();
    pair.source.sql("create table u (id int); insert into u values (1)");
    pair.source.sql("alter table t add w int; update t set w = id");
    pair.source.sql("insert into t (v) values ('x'); truncate u; insert into u values (2)");
    pair.source
        .sql("create schema app; create table app.x (id serial); insert into app.x default values");
    let tables = ["public.t", "public.u", "app.x"].map(str::to_owned);
    pair.wait_equal_tables(&tables, SOON);
    let rights = "select string_agg(distinct tableowner, ',') from pg_tables where schemaname in ('public', 'app')";
    assert_eq!(pair.target.sql(rights), "builder");
    let may = "select has_schema_privilege('scribe', 'public', 'create'), has_schema_privilege('scribe', 'app', 'create')";
    assert_eq!(pair.target.sql(may), "f|f");
}

#[test]
fn both_sides_of_a_two_way_exchange_may_change_the_schema() {
    let both = format!("{REPLICATE}[apply]\nexisting = \"merge\"\n");
    let source = Site::new("left", &both, "");
    let target = Site::new("right", &both, "");
    let mut pair = Pair::of(source, target, lively());
    pair.start();
    pair.source
        .sql("create table a (id int primary key, v text); insert into a values (1, 'left')");
    pair.target
        .sql("create table b (id int primary key, v text); insert into b values (1, 'right')");
    wait_alike(&mut pair, SOON);
    pair.target.sql("insert into a values (2, 'right'); update a set v = 'both' where id = 1");
    pair.source.sql("insert into b values (2, 'left')");
    wait_alike(&mut pair, SOON);
    // Each changes what the other has made.
    pair.target.sql("alter table a add column n int default 3");
    wait_for("the column to arrive", SOON, || {
        let there =
            "select count(*) from pg_attribute where attrelid = 'a'::regclass and attname = 'n'";
        (pair.source.sql(there) == "1").then_some(())
    });
    pair.source.sql("insert into a values (3, 'left', 4)");
    pair.target.sql("insert into a values (4, 'right', 5)");
    wait_alike(&mut pair, SOON);
}

#[test]
fn a_target_that_takes_over_repeats_no_value_of_a_sequence_however_many_were_used() {
    let mut pair = followed(
        "create sequence loose;
         create table t (id serial primary key, other bigint generated by default as identity,
                         n bigint default nextval('loose'))",
    );
    wait_alike(&mut pair, SOON);
    let fill =
        |from: u32, to: u32| format!("insert into t select from generate_series({from}, {to})");
    let in_one = fill(1, 100_000);
    let in_new = "begin; create table u (id serial primary key); insert into u select from generate_series(1, 50000);
                  insert into t default values; commit";
    // Many small ones are many as well.
    let in_many =
        format!("do $$ begin for i in 1..600 loop {}; commit; end loop; end $$", fill(1, 3));
    for text in [in_one.as_str(), in_new, in_many.as_str()] {
        pair.source.sql(text);
        let rows = pair.source.sql("select count(*) from t");
        wait_for("its rows to arrive", SOON, || {
            (pair.target.sql("select count(*) from t") == rows).then_some(())
        });
        // As if the source were gone with its last commit.
        pair.source.node.kill9().unwrap();
        let tables: &[_] = if text == in_one { &["t"] } else { &["t", "u"] };
        for table in tables {
            let next = format!(
                "select nextval(pg_get_serial_sequence('{table}', 'id')) > (select max(id) from {table})"
            );
            assert_eq!(pair.target.sql(&next), "t", "{table} after {text}");
        }
        let next = "select nextval(pg_get_serial_sequence('t', 'other')) > max(other), nextval('loose') > max(n) from t";
        assert_eq!(pair.target.sql(next), "t|t", "after {text}");
        // The next look in turn tells all that a node that begins has not told yet.
        pair.target
            .sql("select setval('t_id_seq', 1), setval('t_other_seq', 1), setval('loose', 1)");
        pair.source.node.start().unwrap();
        pair.source.sql("insert into t default values");
        pair.wait_equal(SOON);
        wait_for("its sequences to be told", SOON, || {
            let least = "select least(a.last_value, b.last_value, c.last_value) > 1 from t_id_seq a, t_other_seq b, loose c";
            (pair.target.sql(least) == "t").then_some(())
        });
    }
}

#[test]
fn what_a_whole_loses_its_parts_and_heirs_lose_with_it() {
    parts_and_heirs(Servers::default());
}

fn parts_and_heirs(servers: Servers) {
    let mut pair = followed_on(
        servers,
        "create table log (day int not null, a int not null check (a > 0), b text, c int default 7, primary key (day))
             partition by range (day);
         create table log_1 partition of log for values from (0) to (10);
         create table log_2 partition of log for values from (10) to (20) partition by range (day);
         create table log_2a partition of log_2 for values from (10) to (20);
         insert into log values (1, 1, 'a', 1), (11, 1, 'b', 2);
         create table heir (id int primary key, a int not null constraint root_a_check check (a > 0), b text, c int);
         create table root (id int primary key, a int not null constraint root_a_check check (a > 0), b text, c int);
         alter table heir inherit root;
         create table late (id int primary key) inherits (heir);
         create table child () inherits (root); create table grand (own int) inherits (child);
         insert into root values (1, 1, 'r', 1); insert into heir values (2, 1, 'h', 1);
         insert into child values (4, 1, 'c', 1); insert into grand values (5, 1, 'g', 1, 1);
         insert into late values (3, 1, 'l', 1)",
    );
    wait_same_columns(&mut pair);
    if major(&pair.source) < STRICT_HEIRS && major(&pair.target) >= STRICT_HEIRS {
        pair.source.sql("alter table heir alter b set not null");
    }
    for text in [
        "alter table # drop column b",
        "alter table # add column b text not null default 'n'",
        "alter table # alter a drop not null, drop constraint #_a_check",
        "alter table # rename c to d; alter table # add column c text default 'x'",
        "alter table # drop column d, alter c set not null, add column e int",
    ] {
        for table in ["log", "root"] {
            pair.source.sql(&text.replace('#', table));
        }
        pair.source.sql(
            "update log set a = null where a > 5; update log set a = a + 1; update late set a = 9",
        );
        wait_same_columns(&mut pair);
    }
    // Each part is told of by itself as well.
    pair.source
        .sql("create index on log_1 (c); create index on log_2a (b); create index on late (b)");
    pair.source.sql("alter table log_2 detach partition log_2a; alter table late no inherit heir");
    pair.source.sql("alter table log_2a drop column b; alter table late drop column c");
    pair.source.sql("alter table log drop constraint log_pkey; update log set a = 3");
    wait_same_columns(&mut pair);
}

/// From this version on, a column that is merged with one that is NOT NULL becomes so too.
const STRICT_HEIRS: u32 = 18;

/// Waits until all tables have the same columns and rows at both ends, however they came by them.
fn wait_same_columns(pair: &mut Pair) {
    let columns = |site: &Site| {
        site.sql(
            "select string_agg(format('%s.%s %s %s', c.relname, a.attname, a.atttypid::regtype, a.attnotnull), ', '
                               order by c.relname, a.attname)
             from pg_attribute as a join pg_class as c on c.oid = a.attrelid
             where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
             and a.attnum > 0 and not a.attisdropped",
        )
    };
    let halted = |site: &Site| site.status().streams.iter().find_map(|it| it.halted.clone());
    let limit = wait_until(SOON);
    while columns(&pair.source) != columns(&pair.target) {
        assert_eq!(halted(&pair.target).map(|it| it.detail), None, "{}", pair.target.node.log());
        assert!(
            std::time::Instant::now() < limit,
            "source: {}\ntarget: {}",
            columns(&pair.source),
            columns(&pair.target)
        );
        sleep(Duration::from_millis(200));
    }
    pair.wait_equal(SOON);
}

#[test]
fn nodes_that_are_killed_amid_changes_lose_and_repeat_nothing() {
    let mut pair = followed("create table t (id int primary key, v int)");
    for round in 0..12 {
        pair.source.sql(&format!(
            "begin; insert into t (id, v) values ({round}, 0);
             alter table t add column c{round} int not null default {round};
             update t set v = v + 1, c{round} = c{round} + 1;
             create table n{round} (id serial, t text); insert into n{round} (t) values ('a'), ('b'); commit"
        ));
        if round % 3 == 2 {
            pair.source
                .sql(&format!("drop table n{}; alter table t drop column c{round}", round - 1));
        }
        match round % 4 {
            0 => pair.source.node.kill9().unwrap(),
            1 => pair.target.node.kill9().unwrap(),
            2 => {
                pair.source.node.kill9().unwrap();
                pair.target.node.kill9().unwrap();
            }
            _ => sleep(Duration::from_millis(700)),
        }
        for node in [&mut pair.source.node, &mut pair.target.node] {
            if node.pid().is_none() {
                node.start().unwrap();
            }
        }
    }
    wait_alike(&mut pair, SOON);
}
