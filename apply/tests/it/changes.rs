//! Every kind of change, on real tables.

use thinwire_apply::{Applier, Options};
use thinwire_engine::model::{Record, Running};

use crate::{
    database::{Database, applied},
    feed::{Feed, Table},
};

fn table() -> Table {
    Table::new(1, "public.t", &["id*", "a", "b"])
}

#[tokio::test]
async fn rows_are_added_changed_and_removed() {
    let database = Database::new("create table t (id int primary key, a text, b int)").await;
    let (feed, t) = (Feed::new(), table());
    feed.append(&[t.relation()]);
    feed.transaction(&[t.insert("1|one|1"), t.insert("2|~|2"), t.insert("3|three|~")]);
    feed.transaction(&[t.update("2|two|~"), t.update("1|ONE|?"), t.delete("3|~|~")]);
    // The key changes; a value that was not sent stays.
    feed.transaction(&[t.update_key("1|~|~", "10|?|100")]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select * from t order by id"), "2|two|\n10|ONE|100");
    assert_eq!(database.offset(&feed), feed.last().to_string());
    let lsn = "select lsn, extract(epoch from commit_time) from thinwire.applied";
    assert_eq!(database.sql(lsn), "0/12C|946684800.003000");
}

#[tokio::test]
async fn what_was_applied_is_not_applied_again() {
    let database = Database::new(
        "create table t (id int primary key, a text, b int); create table log (n int)",
    )
    .await;
    let (feed, t) = (Feed::new(), table());
    let log = Table::new(2, "public.log", &["n"]).full();
    feed.append(&[t.relation(), log.relation()]);
    for number in 0..20 {
        feed.transaction(&[t.insert(&format!("{number}|x|0")), log.insert(&number.to_string())]);
        // Each time a new applier that knows nothing.
        database.apply_all(&feed).await;
        database.apply_all(&feed).await;
    }
    let counts = "select (select count(*) from t), count(*), count(distinct n) from log";
    assert_eq!(database.sql(counts), "20|20|20");
}

#[tokio::test]
async fn several_tables_are_emptied_even_if_one_refers_to_another() {
    let database = Database::new(
        "create table t (id int primary key, a text, b int);
         create table child (id int primary key, t int references t);
         create table other (id int generated always as identity primary key, t int references t);
         insert into t values (1); insert into child values (1, 1);
         insert into other (t) values (1)",
    )
    .await;
    let (feed, t) = (Feed::new(), table());
    let child = Table::new(2, "public.child", &["id*", "t"]);
    feed.append(&[t.relation(), child.relation()]);
    // `other` is not replicated and refers to the table, so it is emptied row by row.
    feed.transaction(&[t.insert("2|~|~"), t.truncate()]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select count(*) from t"), "0");
    assert_eq!(database.sql("select count(*) from other"), "1");
    database.sql("drop table other");
    feed.transaction(&[
        t.insert("3|~|~"),
        Record::Truncate {
            relations: vec![t.id(), child.id()],
            cascade: true,
            restart_identity: true,
        },
        t.insert("4|~|~"),
    ]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select id, (select count(*) from child) from t"), "4|0");
}

#[tokio::test]
async fn a_keyless_table_changes_exactly_one_of_equal_rows() {
    let database = Database::new("create table k (a int, b text)").await;
    let (feed, k) = (Feed::new(), Table::new(1, "public.k", &["a", "b"]).full());
    feed.append(&[k.relation()]);
    feed.transaction(&[k.insert("1|x"), k.insert("1|x"), k.insert("1|x"), k.insert("1|~")]);
    feed.transaction(&[k.update_full("1|x", "2|y"), k.delete_full("1|x")]);
    feed.transaction(&[k.update_full("1|~", "3|~")]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select * from k order by a"), "1|x\n2|y\n3|");
}

#[tokio::test]
async fn types_without_equality_serve_in_keyless_tables() {
    let database = Database::new(
        "create type mood as enum ('sad', 'happy');
         create type pair as (x int, y text);
         create domain email as text check (value like '%@%');
         create table k (j json, x xml, p point, b box, a int[], m mood, c pair, e email,
                         f float8, n numeric, ts timestamptz, jb jsonb, pa point[], va varchar(9)[],
                         ci cidr, ch char(4), r int4range, by bytea, mo money, iv interval, bo bool,
                         em email[], cb circle)",
    )
    .await;
    let names = [
        "j", "x", "p", "b", "a", "m", "c", "e", "f", "n", "ts", "jb", "pa", "va", "ci", "ch", "r",
        "by", "mo", "iv", "bo", "em", "cb",
    ];
    let (feed, k) = (Feed::new(), Table::new(1, "public.k", &names).full());
    let values = |mood: &str, json: &str| {
        format!(
            "{json}|<a>b</a>|(1,2)|(3,4),(1,2)|{{1,NULL,3}}|{mood}|(1,\"a b\")|a@b|0.1|1.50|\
             2024-02-29 12:00:00.123456+00|{{\"a\": 1}}|{{\"(1,2)\",\"(3,4)\"}}|{{a,\"b c\"}}|10.0.0.0/8|ab  |[1,5)|\
             \\x00ff|$1,234.50|1 mon 2 days 03:04:05|t|{{x@y}}|<(1,2),3>"
        )
    };
    let first = values("sad", "{\"b\":1,  \"a\":2}");
    feed.append(&[k.relation()]);
    feed.transaction(&[k.insert(&first), k.insert(&first), k.insert(&values("sad", "{}"))]);
    let second = values("happy", "[1]");
    feed.transaction(&[k.update_full(&first, &second), k.delete_full(&first)]);
    // What was not sent of the old row is not compared.
    let partly = second.replacen("[1]", "?", 1);
    feed.transaction(&[k.update_full(&partly, &partly.replace("<(1,2),3>", "<(9,9),1>"))]);
    database.apply_all(&feed).await;
    assert_eq!(
        database.sql("select j, m, cb, count(*) over () from k order by m"),
        "{}|sad|<(1,2),3>|2\n[1]|happy|<(9,9),1>|2"
    );
    let text =
        "select x, p, b, a, c, e, f, n, jb, pa, va, ci, ch, r, by, mo, iv, bo, em from k limit 1";
    assert_eq!(
        database.sql(text),
        "<a>b</a>|(1,2)|(3,4),(1,2)|{1,NULL,3}|(1,\"a b\")|a@b|0.1|1.50|{\"a\": 1}|{\"(1,2)\",\"(3,4)\"}|\
         {a,\"b c\"}|10.0.0.0/8|ab  |[1,5)|\\x00ff|$1,234.50|1 mon 2 days 03:04:05|t|{x@y}"
    );
}

#[tokio::test]
async fn identity_and_generated_columns_and_columns_of_the_targets_own() {
    let database = Database::new(
        "create table i (id int generated always as identity primary key, v int,
                         twice int generated always as (v * 2) stored, here text default 'local');
         create table j (k int primary key, always int generated always as identity, v int,
                         here text default 'local')",
    )
    .await;
    let feed = Feed::new();
    let i = Table::new(1, "public.i", &["id*", "v"]);
    let j = Table::new(2, "public.j", &["k*", "always", "v"]);
    feed.append(&[i.relation(), j.relation()]);
    feed.transaction(&[i.insert("7|1"), i.insert("8|1"), j.insert("1|100|1"), j.insert("2|200|1")]);
    database.apply_all(&feed).await;
    database.sql("update i set here = 'changed here'; update j set here = 'changed here'");
    feed.transaction(&[
        i.update("7|2"),
        // An identity column changes only by DEFAULT at the source; the row keeps what is the target's own.
        i.update_key("8|~", "9|?"),
        j.update("1|300|2"),
    ]);
    database.apply_all(&feed).await;
    let all = "select * from i order by id; select * from j order by k";
    assert_eq!(
        database.sql(all),
        "7|2|4|changed here\n9|1|2|changed here\n1|300|2|changed here\n2|200|1|changed here"
    );
}

#[tokio::test]
async fn what_was_aborted_has_no_effect_and_is_passed() {
    let database = Database::new("create table t (id int primary key, a text, b int)").await;
    let (feed, t) = (Feed::new(), table());
    let mut records = vec![feed.begin(), t.relation()];
    records.extend((0..50).map(|id| t.insert(&format!("{id}|void|0"))));
    records.push(Record::Abort);
    // One that is too large to be held back.
    records.push(feed.begin());
    records.extend((0..5000).map(|id| t.insert(&format!("{id}|void|0"))));
    records.push(Record::Abort);
    records.push(Record::Skip { count: 12, running: Running::new(7) });
    records.extend(feed.wrapped(&[t.insert("1|real|0")]));
    records.push(feed.begin());
    records.push(t.insert("2|void|0"));
    records.push(Record::Abort);
    feed.append(&records);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select * from t"), "1|real|0");
    assert_eq!(database.offset(&feed), feed.last().to_string());
}

#[tokio::test]
async fn nothing_of_an_unfinished_transaction_is_applied() {
    let database = Database::new("create table t (id int primary key, a text, b int)").await;
    let (feed, t) = (Feed::new(), table());
    let first = feed.transaction(&[t.relation(), t.insert("1|x|1")]);
    let applier = database.apply(&feed);
    applied(&applier, &feed.stream).await;
    let mut records = vec![feed.begin()];
    records.extend((2..5000).map(|id| t.insert(&format!("{id}|x|1"))));
    feed.append(&records);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(feed.stream.watermarks().applied, first);
    let open = "select count(*) from pg_stat_activity where application_name = 'thinwire apply' \
                and state <> 'idle' and datname = current_database()";
    assert_eq!(database.sql(open), "0");
    feed.append(&[Record::Commit { end: thinwire_engine::model::Lsn::new(9) }]);
    applied(&applier, &feed.stream).await;
    assert_eq!(database.sql("select count(*) from t"), "4999");
    applier.shutdown().await;
}

#[tokio::test]
async fn a_table_that_is_described_anew_is_used_as_it_is_now() {
    let database = Database::new("create table t (id int primary key, a text)").await;
    let feed = Feed::new();
    let before = Table::new(1, "public.t", &["id*", "a"]);
    let after = Table::new(1, "public.t", &["a", "c", "id*"]);
    feed.transaction(&[before.relation(), before.insert("1|x")]);
    database.apply_all(&feed).await;
    database.sql("alter table t add c int");
    feed.transaction(&[after.relation(), after.insert("y|2|2"), after.update("x|1|1")]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select id, a, c from t order by id"), "1|x|1\n2|y|2");
}

#[tokio::test]
async fn partitioned_and_inherited_tables_are_their_own() {
    let database = Database::new(
        "create table p (id int, region text, primary key (id, region)) partition by list (region);
         create table p_a partition of p for values in ('a');
         create table p_b partition of p for values in ('b');
         create table parent (id int); create table child () inherits (parent);
         create table keyless (v int, region text) partition by list (region);
         create table keyless_a partition of keyless for values in ('a');
         create table keyless_b partition of keyless for values in ('b');
         insert into child values (1)",
    )
    .await;
    let feed = Feed::new();
    let p = Table::new(1, "public.p", &["id*", "region*"]);
    let parent = Table::new(2, "public.parent", &["id"]).full();
    let keyless = Table::new(3, "public.keyless", &["v", "region"]).full();
    feed.append(&[p.relation(), parent.relation(), keyless.relation()]);
    feed.transaction(&[
        p.insert("1|a"),
        p.update_key("1|a", "1|b"),
        p.insert("2|a"),
        parent.insert("1"),
        parent.delete_full("1"),
        keyless.insert("1|a"),
        keyless.insert("1|b"),
        keyless.insert("1|b"),
        keyless.update_full("1|b", "1|a"),
        keyless.delete_full("1|b"),
    ]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select tableoid::regclass, * from p order by id"), "p_b|1|b\np_a|2|a");
    assert_eq!(database.sql("select tableoid::regclass, * from parent"), "child|1");
    assert_eq!(
        database.sql("select tableoid::regclass, * from keyless"),
        "keyless_a|1|a\nkeyless_a|1|a"
    );
    feed.transaction(&[p.truncate(), parent.truncate(), keyless.truncate()]);
    database.apply_all(&feed).await;
    let counts = "select (select count(*) from p), (select count(*) from parent), \
                  (select count(*) from keyless)";
    assert_eq!(database.sql(counts), "0|1|0");
}

#[tokio::test]
async fn hostile_names_are_names() {
    let schema = "s\"; drop table canary; --";
    let name = "a'b\\c$$\"\n;ü€";
    let column = "x\"), ($1); drop table canary; --";
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let long = "ü".repeat(31);
    let database = Database::new(&format!(
        "create table canary (); create schema {0};
         create table {0}.{1} ({2} int primary key, \"select\" text, {3} int);",
        quoted(schema),
        quoted(name),
        quoted(column),
        quoted(&long)
    ))
    .await;
    let feed = Feed::new();
    let columns = [format!("{column}*"), "select".to_owned(), long];
    let columns: Vec<_> = columns.iter().map(String::as_str).collect();
    let t = Table::new(1, &format!("{schema}.{name}"), &columns);
    let full = Table::new(2, &format!("{schema}.{name}"), &columns).full();
    feed.copy(&t, &["1|it's \\ $1|1", "2|\"|2"]);
    feed.append(&[full.relation()]);
    feed.transaction(&[
        t.insert("3|'; drop table canary; --|3"),
        t.update_key("1|~|~", "4|?|5"),
        t.delete("2|~|~"),
        full.update_full("4|it's \\ $1|5", "4|$2|6"),
    ]);
    database.apply_all(&feed).await;
    let all = format!("select * from {}.{} order by 1", quoted(schema), quoted(name));
    assert_eq!(database.sql(&all), "3|'; drop table canary; --|3\n4|$2|6");
    assert_eq!(database.sql("select count(*) from canary"), "0");
}

#[tokio::test]
async fn triggers_do_not_run_unless_they_are_meant_for_replicas() {
    let database = Database::new(
        "create table t (id int primary key, a text, b int); create table fired (what text);
         create function note() returns trigger language plpgsql as
           $$ begin insert into public.fired values (tg_name); return new; end $$;
         create function refuse() returns trigger language plpgsql as
           $$ begin if new.a = 'unwanted' then return null; end if; return new; end $$;
         create trigger ordinary before insert on t for each row execute function note();
         create trigger replica before insert on t for each row execute function note();
         create trigger filter before insert or update on t for each row execute function refuse();
         alter table t enable replica trigger replica; alter table t enable replica trigger filter;
         create table parent (id int primary key);
         create table child (id int primary key, parent int references parent)",
    )
    .await;
    let (feed, t) = (Feed::new(), table());
    let child = Table::new(2, "public.child", &["id*", "parent"]);
    feed.append(&[t.relation(), child.relation()]);
    // The trigger may leave rows and changes out; references are not checked.
    feed.transaction(&[t.insert("1|x|1"), t.insert("2|unwanted|1"), child.insert("1|99")]);
    feed.transaction(&[t.update("1|unwanted|2"), t.insert("3|y|3")]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select * from t order by id"), "1|x|1\n3|y|3");
    assert_eq!(database.sql("select distinct what from fired"), "replica");
    assert_eq!(database.sql("select * from child"), "1|99");
}

#[tokio::test]
async fn the_origin_and_its_time_are_on_every_transaction() {
    let database = Database::new("create table t (id int primary key, a text, b int)").await;
    let (feed, t) = (Feed::new(), table());
    feed.transaction(&[t.relation(), t.insert("1|x|1")]);
    database.apply_all(&feed).await;
    let remote = format!(
        "select remote_lsn from pg_replication_origin_status where external_id = 'thinwire_{}'",
        feed.id.origin
    );
    assert_eq!(database.sql(&remote), "0/64");
}

#[tokio::test]
async fn a_large_transaction_is_one_transaction() {
    let database = Database::new("create table t (id int primary key, a text, b int)").await;
    let (feed, t) = (Feed::new(), table());
    let mut rows = vec![t.relation()];
    rows.extend((0..20_000).map(|id| t.insert(&format!("{id}|some text of the row|{id}"))));
    rows.extend((0..3_000).map(|id| t.update(&format!("{id}|?|{}", id + 1))));
    rows.extend((10_000..12_000).map(|id| t.delete(&format!("{id}|~|~"))));
    feed.transaction(&rows);
    database.apply_all(&feed).await;
    assert_eq!(
        database.sql("select count(*), sum(b), count(distinct xmin::text) from t"),
        "18000|177994000|1"
    );
}

#[tokio::test]
async fn large_values_arrive_whole() {
    let database = Database::new("create table t (id int primary key, a text, b int)").await;
    let (feed, t) = (Feed::new(), table());
    let large = "x\\\ty".repeat(1 << 19);
    feed.transaction(&[t.relation(), t.insert(&format!("1|{large}|1")), t.insert("2|s|2")]);
    feed.transaction(&[t.update(&format!("2|{large}|2"))]);
    database.apply_all(&feed).await;
    let expected = format!("select count(*) from t where a = repeat(e'x\\\\\\ty', {})", 1 << 19);
    assert_eq!(database.sql(&expected), "2");
}

#[tokio::test]
async fn settings_in_the_connection_string_hold_where_rows_are_applied_and_may_be_changed() {
    let database = Database::new(
        "create table t (id int primary key, mark text);
         create function mark() returns trigger language plpgsql as
           $$ begin new.mark := current_setting('test.mark', true); return new; end $$;
         create trigger mark before insert on t for each row execute function mark();
         alter table t enable always trigger mark",
    )
    .await;
    let (feed, t) = (Feed::new(), Table::new(1, "public.t", &["id*", "mark"]));
    feed.append(&[t.relation()]);
    for (id, mark) in [(1, "one"), (2, "two")] {
        let mut target = database.target();
        target.config.options(format!("-c test.mark={mark} -c DateStyle=German"));
        let applier = Applier::start(Options { target, ..database.options(&feed) });
        for id in [id, id + 10] {
            feed.transaction(&[t.insert(&format!("{id}|~"))]);
            applied(&applier, &feed.stream).await;
        }
        applier.shutdown().await;
    }
    assert_eq!(database.sql("select * from t order by id"), "1|one\n2|two\n11|one\n12|two");
}

#[tokio::test]
async fn a_trigger_that_changes_settings_misleads_nobody() {
    let database = Database::new(
        "create table t (id int primary key, a interval, b int); create table canary ();
         create table k (v tid) partition by list (v); create table k_d partition of k default;
         create table plain (v int); create table list (v text[]);
         create schema evil; create table evil.applied ();
         create function evil.equal(int, int) returns bool language plpgsql as
           $$ begin alter table public.canary add caught int; return true; end $$;
         create function evil.equal(tid, tid) returns bool language plpgsql as
           $$ begin alter table public.canary add caught int; return true; end $$;
         create operator evil.= (function = evil.equal, leftarg = int, rightarg = int);
         create operator evil.= (function = evil.equal, leftarg = tid, rightarg = tid);
         create function mislead() returns trigger language plpgsql as $$ begin
           perform set_config('search_path', 'evil, public, pg_catalog', false);
           perform set_config('array_nulls', 'off', false);
           perform set_config('session_replication_role', 'origin', false);
           perform set_config('synchronous_commit', 'off', false);
           return new; end $$;
         create trigger mislead before insert or update on t for each row execute function mislead();
         alter table t enable always trigger mislead;
         create table ordinary (id int primary key);
         create function fail() returns trigger language plpgsql as
           $$ begin raise exception 'fired'; end $$;
         create trigger fail before insert on ordinary for each row execute function fail()",
    )
    .await;
    let (feed, t) = (Feed::new(), table());
    let plain = Table::new(2, "public.plain", &["v"]).full();
    let ordinary = Table::new(3, "public.ordinary", &["id*"]);
    let list = Table::new(4, "public.list", &["v"]).full();
    let applier = database.apply(&feed);
    feed.append(&[t.relation(), plain.relation(), ordinary.relation(), list.relation()]);
    feed.transaction(&[
        t.insert("1|-1 mons +2 days|1"),
        t.insert("2|~|1"),
        t.update("2|~|2"),
        plain.insert("7"),
        plain.insert("7"),
        plain.update_full("7", "8"),
        plain.truncate(),
        plain.insert("9"),
    ]);
    applied(&applier, &feed.stream).await;
    // The next transaction, on the same session.
    feed.transaction(&[ordinary.insert("1"), list.insert("{NULL}"), t.delete("2|~|~")]);
    feed.transaction(&[t.insert("3|-1 mons +2 days|1"), plain.delete_full("9")]);
    feed.transaction(&[t.insert("4|-1 mons +2 days|1")]);
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(
        database.sql("select id, a from t order by id"),
        "1|-1 mons +2 days\n3|-1 mons +2 days\n4|-1 mons +2 days"
    );
    assert_eq!(database.sql("select v[1] is null from list"), "t");
    let caught =
        "select count(*) from pg_attribute where attrelid = 'canary'::regclass and attnum > 0";
    assert_eq!(database.sql(caught), "0");
    assert_eq!(database.offset(&feed), feed.last().to_string());
}
