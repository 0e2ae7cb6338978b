//! Some rows, columns and operations of tables: what was not chosen never leaves its database, copied or streamed.

use thinwire_cluster::Options;

use super::{FENCE, catch_up, start};
use crate::site::{APPLY, CAPTURE, Pair, Site, lively};

/// A pair whose source captures what `more` says of all tables.
fn chosen(more: &str, source_schema: &str, target_schema: &str) -> Pair {
    let options = [Options::default(), Options::default()];
    chosen_on(options, more, source_schema, target_schema)
}

/// The same on servers of some kind.
fn chosen_on(options: [Options; 2], more: &str, source_schema: &str, target_schema: &str) -> Pair {
    let [source, target] = options;
    let capture = format!("{CAPTURE}{more}");
    let source = Site::with("edge", &capture, &format!("{FENCE}{source_schema}"), source);
    let target = Site::with("hq", APPLY, &format!("{FENCE}{target_schema}"), target);
    Pair::of(source, target, lively())
}

/// The target's rows, as text, in their order.
fn there(pair: &Pair, table: &str) -> String {
    let rows = pair.target.sql(&format!("select t::text from {table} as t order by 1"));
    rows.lines().collect::<Vec<_>>().join(" ")
}

#[test]
fn only_rows_that_fulfil_a_condition_are_copied_and_streamed() {
    let schema = "create table orders (id int, site int, note text, primary key (id, site));";
    let mut pair =
        chosen("[capture.rows]\n\"public.orders\" = \"site = 7 -- ours\"\n", schema, schema);
    pair.source
        .sql("insert into orders select i, 6 + i % 2, 'copied' from generate_series(1, 4) i");
    start(&mut pair);
    assert_eq!(there(&pair, "orders"), "(1,7,copied) (3,7,copied)");
    pair.source.sql(
        "insert into orders values (5, 7, 'new'), (6, 8, 'new');
         update orders set note = 'changed' where id in (1, 2);
         delete from orders where id in (3, 4)",
    );
    catch_up(&pair, "changes");
    assert_eq!(there(&pair, "orders"), "(1,7,changed) (5,7,new)");
    // Those that cross the line come and go.
    pair.source.sql(
        "update orders set site = 8 where id = 1; update orders set site = 7 where id = 2;
         update orders set site = 9 where id = 6",
    );
    catch_up(&pair, "crossing");
    assert_eq!(there(&pair, "orders"), "(2,7,changed) (5,7,new)");
}

#[test]
fn only_columns_that_are_listed_are_copied_and_streamed() {
    let source =
        "create table people (secret text, id int primary key, \"the name\" text, age int);";
    let target = "create table people (id int primary key, \"the name\" text);";
    let list = "[capture.columns]\n\"public.people\" = [\"the name\", \"id\"]\n";
    let mut pair = chosen(list, source, target);
    pair.source.sql("insert into people values ('x', 1, 'Ann', 30), ('y', 2, 'Bob', 40)");
    start(&mut pair);
    assert_eq!(there(&pair, "people"), "(1,Ann) (2,Bob)");
    pair.source.sql(
        "insert into people values ('z', 3, 'Cy', 50); update people set age = 41 where id = 2;
         update people set \"the name\" = 'Anna' where id = 1; delete from people where id = 2",
    );
    catch_up(&pair, "changes");
    assert_eq!(there(&pair, "people"), "(1,Anna) (3,Cy)");
}
