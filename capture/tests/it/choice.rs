//! Some rows, columns and operations of tables: what is refused, what is published, and when it is copied again.

use thinwire_capture::{
    Choice, Ddl, Operations, Patterns,
    slot::{self, InitOptions},
};

use crate::rig::{Node, Rig, init_options};

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
create function mine(int) returns boolean language sql immutable as 'select $1 > 0';
";

fn rows(table: &str, rows: &str) -> Choice {
    let mut choice = Choice::default();
    choice.filter(table, rows).unwrap();
    choice
}

fn columns(table: &str, columns: &[&str]) -> Choice {
    let mut choice = Choice::default();
    choice.list(table, columns).unwrap();
    choice
}

fn operations(words: &[&str]) -> Choice {
    let mut choice = Choice::default();
    choice.operate(Operations::parse(words).unwrap());
    choice
}

fn choosing(choice: &Choice) -> InitOptions {
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
    let rig = Rig::new(SCHEMA);
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
            columns("public.whole", &["id"]),
            "rows of public.whole are told apart by all their columns",
        ),
    ] {
        let error = refusal(&rig, &choosing(&choice)).await;
        assert!(error.contains(expected), "{error}");
        let planned = slot::plan(&rig.source(), &choosing(&choice)).await.unwrap_err().to_string();
        assert_eq!(planned, error);
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
    let rig = Rig::new(SCHEMA);
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
    let rig = Rig::new(SCHEMA);
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
    let rig = Rig::new(SCHEMA);
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
    assert_eq!(init(&rig, &wider).await.len(), 1);
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
    let mut copies = 2;
    for (choice, width, len) in
        [(columns("public.orders", &["id", "note"]), 2, 14), (Choice::default(), 3, 14)]
    {
        init(&rig, &choice).await;
        let node = Node::choosing(&rig, &choice, Ddl::Stop);
        copies += 1;
        node.until("it is copied again", |node| node.model().copies == copies).await;
        let model = rig.check(&node, &[]).await;
        assert_eq!(model.rows("public.orders")[0].len(), width);
        assert_eq!(model.rows("public.orders").len(), len);
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
    assert_eq!(node.model().rows("public.t").len(), 5);
    node.shutdown().await;
    init(&rig, &Choice::default()).await;
    let node = Node::choosing(&rig, &Choice::default(), Ddl::Stop);
    node.until("it is copied again", |node| node.model().copies == 2).await;
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
    let rig = Rig::new(SCHEMA);
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
        let halt = node.halts_with("publication_differs").await;
        assert!(halt.detail.contains(expected), "{halt:?}");
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
    assert!(checks.iter().all(|it| it.ok || it.what.contains("orders")), "{checks:?}");
}
