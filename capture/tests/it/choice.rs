//! Some rows, columns and operations of tables: what is refused, what is published, and when it is copied again.

use thinwire_capture::{
    Choice, Ddl, Operations, Patterns,
    slot::{self, InitOptions},
};
use thinwire_engine::model::{Record, RelationId};

use crate::{
    rig::{NODE, Node, Rig, init_options},
    schema::definitions,
};

const SCHEMA: &str = "
create table orders (id int primary key, site int, note text);
create table whole (id int primary key, site int);
alter table whole replica identity full;
create table people (id int primary key, name text, secret text, twice int generated always as (id * 2) stored);
create table keyless (id int, site int);
create table parts (id int, site int, v text, primary key (id, site)) partition by list (site);
create table parts_7 partition of parts for values in (7);
create table parts_8 (v text, site int, id int, primary key (id, site));
alter table parts attach partition parts_8 for values in (8);
create table split (a int, b int not null, c int) partition by list (a);
create table split_1 partition of split for values in (1); alter table split_1 add primary key (a);
create function mine(int) returns boolean language sql immutable as 'select $1 > 0';
";

pub(crate) fn rows(table: &str, rows: &str) -> Choice {
    let mut choice = Choice::default();
    choice.filter(table, rows).unwrap();
    choice
}

pub(crate) fn columns(table: &str, columns: &[&str]) -> Choice {
    let mut choice = Choice::default();
    choice.list(table, columns).unwrap();
    choice
}

fn operations(words: &[&str]) -> Choice {
    let mut choice = Choice::default();
    choice.operate(Operations::parse(words).unwrap());
    choice
}

pub(crate) fn choosing(choice: &Choice) -> InitOptions {
    InitOptions { choice: choice.clone(), ..init_options(&["public.*"]) }
}

async fn init(rig: &Rig, choice: &Choice) -> Vec<String> {
    slot::init(&rig.source(), &choosing(choice)).await.unwrap().done
}

async fn refusal(rig: &Rig, options: &InitOptions) -> String {
    let error = slot::init(&rig.source(), options).await.unwrap_err().to_string();
    let changed = "select (select count(*) from pg_publication) + (select count(*) from pg_class where relreplident = 'f')";
    assert_eq!(rig.sql(changed), "1", "{error}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_make_updates_or_deletes_fail_is_refused_with_table_and_columns() {
    // PostgreSQL: 028_row_filter 9, 10
    // PostgreSQL: 031_column_list 21, 30, 32
    let Some(rig) = Rig::narrowing(SCHEMA) else { return };
    for (choice, expected) in [
        (
            rows("public.orders", "site = 7"),
            "rows of public.orders looks at site, beyond the replica identity",
        ),
        (
            rows("public.parts", "v = 'x'"),
            "rows of public.parts looks at v, beyond the replica identity of public.parts_8",
        ),
        (rows("public.parts_7", "id = 7"), "captured as a part of public.parts"),
        (
            columns("public.people", &["id", "nam"]),
            "columns of public.people are chosen that it does not have: nam",
        ),
        (
            columns("public.people", &["id", "twice"]),
            "generated columns of public.people are chosen",
        ),
        (
            columns("public.people", &["name"]),
            "leave out id of the replica identity of public.people",
        ),
        (
            columns("public.parts", &["id", "v"]),
            "leave out site of the replica identity of public.parts",
        ),
        (
            columns("public.keyless", &["id"]),
            "rows of public.keyless are told apart by all their columns",
        ),
        (
            columns("public.split", &["a", "b"]),
            "rows of public.split_1 are told apart by all their columns",
        ),
        (
            columns("public.parts_7", &["id", "site"]),
            "public.parts_7 are chosen, but it is captured as a part of public.parts",
        ),
        (
            columns("public.whole", &["id"]),
            "rows of public.whole are told apart by all their columns",
        ),
    ] {
        is_refused(&rig, &choice, expected).await;
    }
}

/// By `init` and by what it plans.
async fn is_refused(rig: &Rig, choice: &Choice, expected: &str) {
    let error = refusal(rig, &choosing(choice)).await;
    assert!(error.contains(expected), "{error}");
    let planned = slot::plan(&rig.source(), &choosing(choice)).await.unwrap_err().to_string();
    assert_eq!(planned, error);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_or_condition_that_the_database_does_not_know_is_refused() {
    let Some(rig) = Rig::narrowing(SCHEMA) else { return };
    for (choice, expected) in [
        (
            rows("public.order", "site = 7"),
            "rows or columns of public.order are chosen, but there is no such table",
        ),
        (rows("other.orders", "site = 7"), "there is no such table"),
        (
            rows("public.orders", "place = 7"),
            "rows of public.orders cannot be used: column \"place\" does not exist",
        ),
        (rows("public.orders", "id"), "must be type boolean"),
        (
            rows("public.orders", "public.mine(id)"),
            "User-defined or built-in mutable functions are not allowed",
        ),
        (
            rows("public.orders", "id < random()"),
            "User-defined or built-in mutable functions are not allowed",
        ),
        (rows("public.orders", "exists (select 1)"), "Only columns, constants"),
        (rows("public.orders", "id ="), "rows of public.orders is no expression: syntax error"),
    ] {
        is_refused(&rig, &choice, expected).await;
    }
    let narrow = Patterns::parse(&["public.people"]).unwrap();
    let elsewhere = InitOptions { patterns: narrow, ..choosing(&rows("public.orders", "id > 1")) };
    assert!(
        refusal(&rig, &elsewhere)
            .await
            .contains("public.orders are chosen, but it is not captured")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_can_only_be_one() {
    let Some(rig) = Rig::narrowing(SCHEMA) else { return };
    for bad in [
        "true); drop table orders; --",
        "true)); drop table orders; --",
        "true), whole where (true",
        "true)), only whole where ((true",
        "true) or (true",
        "true)) with (publish = 'insert') --",
        "id = 1; drop table orders",
        "id = 1 --\n; drop table orders",
        "note = 'open",
        "note = $a$open",
        "id = 1 /* open",
        "note = E'\\'",
        "\"id = 1",
        "id = $1",
        "true\\gexec",
    ] {
        let error = refusal(&rig, &choosing(&rows("public.orders", bad))).await;
        assert!(error.contains("rows of public.orders"), "{bad}: {error}");
    }
    assert_eq!(rig.sql("select count(*) from orders"), "0");
    // Odd ones that are.
    for good in [
        "((id) > (1)) -- why",
        "id /* ; */ > 1",
        "'); drop table x --' <> '' and id > 1",
        "id in (1, 2)",
    ] {
        init(&rig, &rows("public.orders", good)).await;
        assert_eq!(init(&rig, &rows("public.orders", good)).await, Vec::<String>::new(), "{good}");
    }
}

/// Every statement of the users that worked before.
const STATEMENTS: &str = "insert into orders values (1, 7, 'a'); update orders set site = 8; delete from orders;
    insert into whole values (1, 7); update whole set site = 8; delete from whole;
    insert into people values (1, 'a', 'b'); update people set secret = 'c', name = 'd', id = 2; delete from people;
    insert into keyless values (1, 7); update keyless set site = 8; delete from keyless;
    insert into parts values (1, 7, 'a'); update parts set site = 8; update parts set v = 'b'; delete from parts_8;
    truncate orders, parts";

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_published_leaves_every_statement_working() {
    let Some(rig) = Rig::narrowing(SCHEMA) else { return };
    let mut all = columns("public.people", &["id", "name"]);
    for (table, condition) in [
        ("public.orders", "id % 2 = 0"),
        ("public.whole", "site = 7"),
        ("public.people", "id > 3"),
        ("public.keyless", "site = 7 and id is not null"),
        ("public.parts", "site = 7"),
    ] {
        all.filter(table, condition).unwrap();
    }
    all.list("public.parts", &["id", "site"]).unwrap();
    let mut inserts = operations(&["insert"]);
    inserts.list("public.keyless", &["id"]).unwrap();
    inserts.filter("public.orders", "site = 7").unwrap();
    let updates = operations(&["insert", "update"]);
    let deletes = operations(&["delete", "truncate"]);
    for choice in [all, inserts, updates, deletes, Choice::default()] {
        assert_ne!(init(&rig, &choice).await, Vec::<String>::new());
        rig.sql(STATEMENTS);
        assert_eq!(init(&rig, &choice).await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_updates_and_deletes_no_table_needs_an_identity() {
    let rig = Rig::new(SCHEMA);
    rig.sql("create table nothing (a int); alter table nothing replica identity nothing");
    init(&rig, &operations(&["insert", "truncate"])).await;
    assert_eq!(
        rig.sql("select string_agg(relname, ',') from pg_class where relreplident = 'f'"),
        "whole"
    );
    assert_eq!(
        rig.sql("select pubinsert, pubupdate, pubdelete, pubtruncate from pg_publication"),
        "t|f|f|t"
    );
    rig.sql("update nothing set a = 1; delete from keyless");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_that_changes_takes_effect_at_once_and_its_table_is_copied_again() {
    let Some(rig) = Rig::narrowing(SCHEMA) else { return };
    rig.sql("insert into orders select i, i, 'x' from generate_series(1, 10) i; insert into keyless values (1, 7)");
    let choice = rows("public.orders", "id <= 3");
    init(&rig, &choice).await;
    let node = Node::choosing(&rig, &choice, Ddl::Stop);
    node.until("all is copied", Node::has_copied).await;
    rig.sql("insert into orders values (0, 0, 'x'), (11, 11, 'x')");
    let model = rig.check(&node, &[]).await;
    assert_eq!((model.rows("public.orders").len(), model.copies), (4, 1));
    // The database says something else than the node's configuration.
    let wider = rows("public.orders", "id <= 5");
    // What is published, and what is said of it.
    assert_eq!(init(&rig, &wider).await.len(), 2);
    let halt = node.halts_with("publication_differs").await;
    assert!(halt.detail.contains("of public.orders rows where (id <= 5) published"), "{halt:?}");
    node.shutdown().await;
    let node = Node::choosing(&rig, &wider, Ddl::Stop);
    node.until("it is copied again", |node| node.model().copies == 2).await;
    rig.sql("insert into orders values (-1, 0, 'x'), (12, 0, 'x')");
    let model = rig.check(&node, &["public.keyless"]).await;
    assert_eq!(model.rows("public.orders").len(), 7);
    node.shutdown().await;
    // Columns, and then everything: each is one copy of that table.
    for (copies, choice, width) in
        [(3, columns("public.orders", &["id", "note"]), 2), (4, Choice::default(), 3)]
    {
        init(&rig, &choice).await;
        let node = Node::choosing(&rig, &choice, Ddl::Stop);
        node.until("it is copied again", |node| node.model().copies == copies).await;
        let model = rig.check(&node, &[]).await;
        assert_eq!(model.rows("public.orders")[0].len(), width);
        assert_eq!(model.rows("public.orders").len(), 14);
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_that_come_back_bring_a_copy_of_every_table() {
    let rig = Rig::new("create table t (id int primary key, v int)");
    rig.sql("insert into t select i, i from generate_series(1, 3) i");
    let inserts = operations(&["insert"]);
    init(&rig, &inserts).await;
    let node = Node::choosing(&rig, &inserts, Ddl::Stop);
    node.until("all is copied", Node::has_copied).await;
    rig.sql("insert into t values (4, 4); update t set v = 0; delete from t where id = 2; truncate t; insert into t values (5, 5)");
    node.caught_up(&rig.source()).await;
    // PostgreSQL: 001_rep_changes 3
    // PostgreSQL: 010_truncate 4
    assert_eq!(node.model().rows("public.t").len(), 5);
    node.shutdown().await;
    init(&rig, &Choice::default()).await;
    let node = Node::choosing(&rig, &Choice::default(), Ddl::Stop);
    node.until("it is copied again", |node| node.model().copies == 2).await;
    rig.check(&node, &["public.t"]).await;
    // All of them are sent now.
    // PostgreSQL: 001_rep_changes 29
    rig.sql("insert into t values (6, 6), (7, 7), (8, 8); update t set v = 0 where id = 6; delete from t where id = 7");
    rig.check(&node, &["public.t"]).await;
    // PostgreSQL: 010_truncate 5
    rig.sql("truncate t; insert into t values (5, 5)");
    rig.check(&node, &["public.t"]).await;
    node.shutdown().await;
    // Fewer need none.
    init(&rig, &inserts).await;
    let node = Node::choosing(&rig, &inserts, Ddl::Stop);
    rig.sql("insert into t values (6, 6)");
    let model = rig.check(&node, &["public.t"]).await;
    assert_eq!(model.copies, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_by_hand_is_refused_by_name_while_it_streams_and_before() {
    // PostgreSQL: 031_column_list 35, 36
    let Some(rig) = Rig::narrowing(SCHEMA) else { return };
    let choice = rows("public.orders", "id <= 3");
    init(&rig, &choice).await;
    let node = Node::choosing(&rig, &choice, Ddl::Stop);
    node.until("all is copied", Node::has_copied).await;
    for (sql, expected) in [
        (
            "alter publication thinwire_shop set table only orders where (id <= 4), only people",
            "of public.orders rows where (id <= 4) published, and the configuration says rows where id <= 3",
        ),
        (
            "alter publication thinwire_shop set table only orders where (id <= 3), only people (id, secret)",
            "of public.people the columns id, secret published, and the configuration says everything",
        ),
        (
            "alter publication thinwire_shop set table only orders, only people",
            "of public.orders everything published, and the configuration says rows where id <= 3",
        ),
        ("alter publication thinwire_shop set (publish = 'insert')", "publishes insert, and"),
    ] {
        rig.sql(sql);
        node.until(expected, |node| {
            let halt = node.halted().filter(|halt| halt.code == "publication_differs");
            halt.is_some_and(|halt| halt.detail.contains(expected))
        })
        .await;
        let checks = slot::check(&rig.source(), &choosing(&choice)).await;
        assert!(checks.iter().any(|it| !it.ok && it.what.contains(expected)), "{checks:?}");
        init(&rig, &choice).await;
        node.until("it goes on", |node| node.halted().is_none()).await;
        rig.sql("insert into orders select coalesce(max(id), 0) + 1, 1, 'x' from orders");
        rig.check(&node, &["public.people"]).await;
    }
    // One that is spelled otherwise and means the same is right.
    rig.sql("alter publication thinwire_shop set table only orders where (not (id > 3) and true), only people");
    let checks = slot::check(&rig.source(), &choosing(&rows("public.orders", " (id)<=  3"))).await;
    assert!(checks.iter().all(|it| it.ok || !it.what.contains("public.orders")), "{checks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_comes_without_what_its_update_left_is_copied() {
    let Some(rig) = Rig::narrowing(
        "create table big (id int primary key, v text); alter table big alter v set storage external",
    ) else {
        return;
    };
    rig.sql("insert into big select i, repeat(i::text, 5000) from generate_series(1, 4) i");
    let choice = rows("public.big", "id > 2");
    init(&rig, &choice).await;
    let node = Node::choosing(&rig, &choice, Ddl::Stop);
    node.until("all is copied", Node::has_copied).await;
    rig.sql(
        "begin; update big set id = 11 where id = 1; insert into big values (9, 'new'); commit",
    );
    node.until("it is copied again", |node| node.model().copies == 2).await;
    rig.sql("update big set id = 13 where id = 3; update big set id = 0 where id = 4");
    rig.sql("delete from big where id <= 2");
    let model = rig.check(&node, &["public.big"]).await;
    assert_eq!((model.rows("public.big").len(), model.copies), (3, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_fails_halts_capture_and_no_statement() {
    // PostgreSQL: 100_bugs 19, 20
    let Some(rig) = Rig::narrowing("create table t (id int primary key); insert into t values (1)")
    else {
        return;
    };
    let choice = rows("public.t", "10 / id > 1");
    init(&rig, &choice).await;
    let node = Node::choosing(&rig, &choice, Ddl::Stop);
    node.until("all is copied", Node::has_copied).await;
    rig.sql("insert into t values (2), (0); delete from t where id = 1");
    let halt = node.halts_with("condition_fails").await;
    assert!(halt.detail.contains("division by zero"), "{halt:?}");
}

/// A node that follows schema changes and captures what was chosen.
pub(crate) async fn following(rig: &Rig, choice: &Choice) -> Node {
    let options = InitOptions { ddl: Ddl::Replicate, ..choosing(choice) };
    slot::init(&rig.source(), &options).await.unwrap();
    let node = Node::choosing(rig, choice, Ddl::Replicate);
    node.until("all is copied", Node::has_copied).await;
    node
}

/// All that was told of the schema, as text.
pub(crate) fn all_told(node: &Node) -> String {
    node.model().schemas.iter().map(|it| format!("{:?}\n", definitions(it))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_the_schema_never_mentions_a_hidden_column() {
    let Some(rig) = Rig::narrowing(
        "create type shade as enum ('umbra', 'penumbra');
         create function veiled(text) returns int language sql immutable as 'select 1';
         create table people (id int primary key, hush_note text default 'hush', name text, hush_shade shade,
             hush_n serial, sum int generated always as (id + 1) stored, unique (name, hush_n),
             constraint hush_check check (hush_n > 0), constraint name_check check (name <> ''));
         create table others (id int primary key, people int);
         create index hush_index on people (veiled(hush_note)); create index hush_partial on people (name) where hush_n > 3;
         create index name_index on people (name); create statistics hush_statistics on id, hush_n from people;
         create view hush_view as select id, hush_note from people; create view hush_row as select p from people p;
         create view name_view as select id, name from people;
         create unique index on people (hush_n); alter table others add constraint hush_key foreign key (people) references people (hush_n);
         comment on column people.hush_note is 'hush hush';
         create table tree (k int, hush_v text, v int, primary key (k)) partition by range (k);
         create table tree_1 (hush_v text, v int, k int primary key); alter table tree attach partition tree_1 for values from (0) to (9)",
    ) else { return };
    let mut choice = columns("public.people", &["id", "name"]);
    choice.list("public.tree", &["k", "v"]).unwrap();
    let node = following(&rig, &choice).await;
    rig.sql("insert into people (id, name) values (1, 'Ann'); insert into tree values (1, 'x', 2)");
    for sql in [
        "alter table people add column hush_late int default 5",
        "alter table people alter hush_note set default 'hush too'",
        "alter table people rename hush_late to hush_later",
        "create index hush_second on people (lower(hush_note))",
        "create or replace view hush_view as select id, hush_note, hush_n from people",
        "create view late_view as select hush_later from people",
        "alter table people add constraint hush_second_check check (hush_later > 0)",
        "alter table people drop column hush_later cascade",
        "create table tree_2 partition of tree for values from (10) to (20)",
        "alter table tree add column hush_w int",
        "alter table tree detach partition tree_1",
        "alter table tree_1 add column hush_x int; insert into tree_1 (k, hush_v) values (3, 'x')",
        "create index second_index on people (name, id)",
        "create or replace view name_view as select id, name from people",
    ] {
        rig.sql(sql);
    }
    // A part that no update could be told of with what is listed takes the whole with it.
    rig.sql(
        "create schema far; create table far.tree_9 (hush_v text not null unique, v int, k int primary key, hush_w int)",
    );
    rig.sql("alter table far.tree_9 replica identity using index tree_9_hush_v_key");
    rig.sql("alter table tree attach partition far.tree_9 for values from (90) to (99)");
    rig.sql("insert into tree values (91, 'x', 1); update tree set v = 2; delete from tree where k = 91");
    let published =
        "select prrelid::regclass from pg_publication_rel where prrelid = 'tree'::regclass";
    assert_eq!(rig.sql(published), "");
    let model = rig.check(&node, &[]).await;
    let told = all_told(&node);
    for hidden in ["hush", "shade", "umbra", "veiled", "sum"] {
        let at = told.find(hidden).map(|at| &told[at.saturating_sub(200)..at + 200]);
        assert_eq!(at, None, "{hidden}");
    }
    for shown in ["name_index", "second_index", "name_check", "name_view", "people_pkey", "tree_2"]
    {
        assert!(told.contains(shown), "{shown} not in {told}");
    }
    assert_eq!(model.rows("public.people").len(), 1);
    assert_eq!(model.rows("public.people")[0].len(), 2);
}

fn id_of(rig: &Rig, table: &str) -> RelationId {
    RelationId(rig.sql(&format!("select '{table}'::regclass::oid")).parse().unwrap())
}

/// Whether a copy of a table was begun.
fn was_copied(node: &Node, table: RelationId) -> bool {
    node.records().iter().any(|(_, record)| match record {
        Record::CopyBegin(copy) => copy.tables.iter().any(|it| it.relation == table),
        _ => false,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_made_has_what_was_chosen_from_its_birth() {
    let Some(rig) = Rig::narrowing("create table old (id int primary key)") else { return };
    rig.sql("insert into old values (1)");
    let mut choice = rows("public.made", "site = 7 -- ours");
    choice.list("public.made", &["id", "site"]).unwrap();
    choice.filter("public.lacking", "nothing > 3").unwrap();
    choice.list("public.split", &["id"]).unwrap();
    let node = following(&rig, &choice).await;
    rig.sql(
        "create table made (id int, hidden text, site int, primary key (id, site));
         insert into made values (1, 'hush', 7), (2, 'hush', 8)",
    );
    // What cannot be published as it was chosen is not published, and breaks nothing.
    rig.sql("create table lacking (id int primary key); insert into lacking values (1); update lacking set id = 2");
    rig.sql("create table split (id int, v int) partition by list (v); create table split_1 partition of split default");
    rig.sql("insert into split values (1, 2); update split set id = 3; delete from split; alter table split add x int");
    let (made, lacking, split) =
        (id_of(&rig, "made"), id_of(&rig, "lacking"), id_of(&rig, "split"));
    node.until("it is captured", |node| {
        let model = node.model();
        let expected = [[Some("1".to_owned()), Some("7".to_owned())]];
        model.has("public.made") && model.rows("public.made") == expected
    })
    .await;
    let model = rig.check(&node, &["public.old"]).await;
    assert!(model.schemas.iter().any(|it| it.born.contains(&made)), "{}", all_told(&node));
    assert!(!was_copied(&node, lacking) && !was_copied(&node, split));
    let options = InitOptions { ddl: Ddl::Replicate, ..choosing(&choice) };
    let checks = slot::check(&rig.source(), &options).await;
    for table in ["public.lacking", "public.split"] {
        assert!(checks.iter().any(|it| it.ok && it.what.contains(table)), "{table}: {checks:?}");
    }
    // With what it lacks it is captured.
    rig.sql("delete from lacking; alter table lacking add nothing int, drop constraint lacking_pkey; alter table lacking add primary key (id, nothing)");
    rig.sql("insert into lacking values (3, 3), (4, 4)");
    node.until("it is copied", |node| node.stream.tail().copied.contains(&lacking)).await;
    let model = rig.check(&node, &["public.old"]).await;
    assert_eq!(model.rows("public.lacking"), [[Some("4".to_owned()), Some("4".to_owned())]]);
    assert!(node.records().iter().all(|(_, it)| !format!("{it:?}").contains("hush")));
}

const PUBLISHED: &str = "select coalesce(string_agg(relname, ',' order by relname), '')
    from pg_publication_rel join pg_class c on c.oid = prrelid";

/// Waits until just these tables are published: at once, or a little later if somebody held the
/// publication just then.
async fn is_published_again(rig: &Rig, node: &Node, tables: &str) {
    let is_so = format!("({PUBLISHED}) = '{tables}'");
    let is_noted = format!("select {is_so} or exists (select from thinwire.delayed)");
    assert_eq!(rig.sql(&is_noted), "t", "{tables}");
    node.until(tables, |_| rig.sql(&format!("select {is_so}")) == "t").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_changes_takes_a_table_off_before_any_update_fails() {
    let Some(rig) = Rig::narrowing(
        "create table orders (id int, site int, note text, primary key (id, site));
         create table people (id int primary key, name text not null, hush text not null)",
    ) else {
        return;
    };
    rig.sql("insert into orders values (1, 7, 'x'), (2, 8, 'y'); insert into people values (1, 'Ann', 'z')");
    let mut choice = rows("public.orders", "site = 7");
    choice.list("public.people", &["id", "name"]).unwrap();
    let node = following(&rig, &choice).await;
    rig.sql("alter table people drop constraint people_pkey");
    assert_eq!(rig.sql(PUBLISHED), "orders");
    rig.sql("update people set hush = 'w'; alter table people add primary key (name)");
    is_published_again(&rig, &node, "orders,people").await;
    rig.sql("update people set name = 'Bea'; alter table people drop constraint people_pkey, add primary key (hush)");
    assert_eq!(rig.sql(PUBLISHED), "orders");
    rig.sql("update people set hush = 'v'; delete from people; alter table people drop constraint people_pkey, add primary key (id)");
    rig.sql("alter table orders drop constraint orders_pkey, add primary key (id); update orders set note = 'w'");
    is_published_again(&rig, &node, "people").await;
    rig.sql("alter table orders replica identity full; update orders set note = 'v'; insert into people values (2, 'Cy', 'u')");
    is_published_again(&rig, &node, "orders,people").await;
    // Before it has read all of this, both count as copied as well.
    node.caught_up(&rig.source()).await;
    node.until("both are copied again", |node| node.stream.tail().copied.len() == 2).await;
    rig.sql("insert into orders values (3, 7, 'n'), (4, 8, 'n'); update people set hush = 't', name = 'Di'");
    let model = rig.check(&node, &[]).await;
    assert_eq!(model.rows("public.orders").len(), 2);
    assert_eq!(model.rows("public.people"), [[Some("2".to_owned()), Some("Di".to_owned())]]);
    assert!(!all_told(&node).contains("hush"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_chosen_of_a_name_holds_for_a_table_that_gets_it() {
    let Some(rig) = Rig::narrowing(
        "create table a (id int primary key, v text); create table b (id int primary key, v text)",
    ) else {
        return;
    };
    rig.sql("insert into a select i, 'x' from generate_series(1, 5) i; insert into b select i, 'y' from generate_series(1, 5) i");
    let choice = rows("public.a", "id > 3");
    let node = following(&rig, &choice).await;
    rig.sql("drop table a; alter table b rename to a; insert into a values (6, 'z'), (0, 'z')");
    node.until("it is copied again", |node| node.model().copies == 2).await;
    let model = rig.check(&node, &[]).await;
    assert_eq!(model.rows("public.a").len(), 3);
    // What a name hid stays hidden under another one, until somebody has decided.
    rig.sql("alter table a rename to c; insert into c values (1000, 'z'), (-1, 'z')");
    let halt = node.halts_with("publication_differs").await;
    assert!(halt.detail.contains("of public.c rows where (id > 3) published"), "{halt:?}");
    assert!(node.records().iter().all(|(_, it)| !format!("{it:?}").contains("\"-1\"")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_chosen_of_tables_to_come_is_compared_as_well() {
    let Some(rig) =
        Rig::narrowing("create table old (id int primary key); insert into old values (1)")
    else {
        return;
    };
    let choice = rows("public.made", "id > 3");
    let node = following(&rig, &choice).await;
    node.shutdown().await;
    let other = rows("public.made", "id > 4");
    let node = Node::choosing(&rig, &other, Ddl::Replicate);
    assert!(node.halts_with("publication_differs").await.detail.contains("made from now on"));
    let options = InitOptions { ddl: Ddl::Replicate, ..choosing(&other) };
    let plan = slot::plan(&rig.source(), &options).await.unwrap();
    assert_eq!(plan.last().unwrap(), "-- there is no table \"public.made\" at present");
    let checks = slot::check(&rig.source(), &options).await;
    assert!(checks.iter().any(|it| !it.ok && it.what.contains("made from now on")), "{checks:?}");
    let report = slot::init(&rig.source(), &options).await.unwrap();
    assert_eq!(report.absent, ["public.made"]);
    node.until("it goes on", |node| node.halted().is_none()).await;
    node.shutdown().await;
    rig.slot_is_free().await;
    slot::drop(&rig.source(), NODE).await.unwrap();
    assert_eq!(
        rig.sql("select count(*) from pg_proc where pronamespace = to_regnamespace('thinwire')"),
        "0"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_off_is_not_captured_whole_under_another_name() {
    let Some(rig) = Rig::narrowing(
        "create table people (id int primary key, name text, hush text);
         create table tree (k int, v int, hush text, primary key (k)) partition by range (k);
         create table tree_1 partition of tree for values from (0) to (9);
         create table tree_2 partition of tree for values from (10) to (19)",
    ) else {
        return;
    };
    rig.sql("insert into people values (1, 'Ann', 'x'); insert into tree values (1, 1, 'x')");
    let mut choice = columns("public.people", &["id", "name"]);
    choice.list("public.tree", &["k", "v"]).unwrap();
    choice.list("public.never", &["id", "nothing"]).unwrap();
    let node = following(&rig, &choice).await;
    rig.sql("alter table people drop constraint people_pkey; alter table tree drop constraint tree_pkey");
    rig.sql("create table never (id int primary key, hush text)");
    assert_eq!(rig.sql(PUBLISHED), "");
    rig.sql("alter table people rename to people_old; alter table never rename to never_old");
    rig.sql("alter table tree detach partition tree_1; alter table tree_1 add column hush_x int");
    rig.sql("select thinwire.publish_missing('thinwire_shop')");
    assert_eq!(rig.sql(PUBLISHED), "");
    // Under its name it is captured again, as it was chosen; and what somebody publishes himself is his decision.
    rig.sql("alter table people_old rename to people; alter table people add primary key (id)");
    rig.sql("alter publication thinwire_shop add table only never_old; alter table never_old add column late int");
    is_published_again(&rig, &node, "never_old,people").await;
    assert_eq!(
        rig.sql("select count(*) from thinwire.withheld where id = 'people'::regclass"),
        "0"
    );
    node.shutdown().await;
}
