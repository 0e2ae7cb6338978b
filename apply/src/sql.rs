//! The only place where SQL text is made: one quoter for names, no value ever in a text.
//!
//! Every name is qualified by its schema, operators too, so that nothing depends on a search path. The one exception is
//! what PostgreSQL itself names, such as `ctid`.

pub(crate) mod catalog;
pub(crate) mod objects;
pub(crate) mod origins;
pub(crate) mod rivals;
pub(crate) mod schema;
pub(crate) mod session;
pub(crate) mod setup;
pub(crate) mod skipped;

use std::fmt::Write;

use crate::plan::{self, Condition, Equality, Find, Many, OnExisting, Shape, Table};

/// A name as SQL reads it back.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string constant. Only for what an operator may read before it runs, such as the names in a grant; values of
/// rows are parameters.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    match quoted.contains('\\') {
        true => format!("E'{}'", quoted.replace('\\', "\\\\")),
        false => format!("'{quoted}'"),
    }
}

/// A qualified name.
pub(crate) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// The text of a statement on a table.
pub(crate) fn statement(table: &Table, shape: &Shape) -> String {
    match shape {
        Shape::Insert { rows, existing } => insert(table, *rows, *existing),
        Shape::Update { set, find } => update(table, set, find),
        Shape::UpdateMany { set } => update_many(table, set),
        Shape::Replace { set, find } => replace(table, set, find),
        Shape::DeleteMany => delete_many(table),
        Shape::Delete { find } => {
            format!("DELETE FROM {} WHERE {}", rows_of(table), condition(table, find, 1))
        }
        Shape::Find { find } => {
            let conditions = conditions(table, find, 1);
            format!("SELECT 1 FROM {} WHERE {conditions} LIMIT 1", rows_of(table))
        }
        Shape::Whose { find, lock } => origins::of_row(table, find, *lock),
        Shape::WhoseMany { lock } => {
            let key = table.key();
            let source = format!(
                "{} AS here, {} WHERE {}",
                rows_of(table),
                lists(table, &key),
                same_key(table)
            );
            origins::of_rows(table, &source, *lock, key.len() + 1)
        }
        Shape::Copy => format!("COPY {} ({}) FROM STDIN", name_of(table), columns(table)),
        Shape::CopyBinary => {
            format!("COPY {} ({}) FROM STDIN (FORMAT binary)", name_of(table), columns(table))
        }
        Shape::CopyStage => format!("COPY {STAGE} ({}) FROM STDIN", columns(table)),
    }
}

/// Removes all rows of a table itself.
pub(crate) fn delete_all(table: &Table) -> String {
    format!("DELETE FROM {}", rows_of(table))
}

/// Whether a table itself has rows: one row of one boolean.
pub(crate) fn has_rows(table: &Table) -> String {
    format!("SELECT EXISTS (SELECT FROM {})", rows_of(table))
}

/// Empties tables. What refers to them is not emptied: the source has named all that was.
pub(crate) fn truncate(tables: &[&Table], restart_identity: bool) -> String {
    let names: Vec<_> = tables.iter().map(|table| rows_of(table)).collect();
    let identity = if restart_identity { " RESTART IDENTITY" } else { "" };
    format!("TRUNCATE {}{identity}", names.join(", "))
}

/// Makes the staging table for a table's rows.
pub(crate) fn create_stage(table: &Table) -> String {
    let (columns, rows) = (columns(table), rows_of(table));
    format!(
        "CREATE TEMPORARY TABLE thinwire_stage ON COMMIT DROP AS SELECT {columns} FROM {rows} WITH NO DATA"
    )
}

/// Moves the staged rows into their table; rows that are there become like them.
pub(crate) fn merge_stage(table: &Table) -> String {
    let (name, columns) = (name_of(table), columns(table));
    let overwrite = on_conflict(table, OnExisting::Overwrite);
    format!(
        "INSERT INTO {name} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {STAGE}{overwrite}"
    )
}

/// Ends the staging table.
pub(crate) const DROP_STAGE: &str = "DROP TABLE pg_temp.thinwire_stage";
const STAGE: &str = "pg_temp.thinwire_stage";

fn insert(table: &Table, rows: usize, existing: OnExisting) -> String {
    let (name, width) = (name_of(table), table.relation.columns.len());
    if width == 0 {
        return format!("INSERT INTO {name} DEFAULT VALUES");
    }
    let mut text =
        format!("INSERT INTO {name} ({}) OVERRIDING SYSTEM VALUE VALUES ", columns(table));
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for column in 0..width {
            let comma = if column == 0 { "" } else { ", " };
            let _ = write!(text, "{comma}${}", row * width + column + 1);
        }
        text.push(')');
    }
    text + &on_conflict(table, existing)
}

fn on_conflict(table: &Table, existing: OnExisting) -> String {
    match existing {
        OnExisting::Fail => return String::new(),
        OnExisting::Keep => return " ON CONFLICT DO NOTHING".to_owned(),
        OnExisting::Overwrite => {}
    }
    let Some(identity) = table.identity() else { return String::new() };
    let names = |positions: &[usize]| -> Vec<String> {
        positions.iter().map(|at| ident(&table.relation.columns[*at].name)).collect()
    };
    let others: Vec<_> = (0..table.columns.len())
        .filter(|at| !identity.contains(at) && !table.columns[*at].identity_always)
        .collect();
    let key = names(&identity).join(", ");
    if others.is_empty() {
        return format!(" ON CONFLICT ({key}) DO NOTHING");
    }
    let set: Vec<_> =
        names(&others).iter().map(|name| format!("{name} = EXCLUDED.{name}")).collect();
    format!(" ON CONFLICT ({key}) DO UPDATE SET {}", set.join(", "))
}

fn update(table: &Table, set: &[bool], find: &Find) -> String {
    let mut text = format!("UPDATE {} SET ", rows_of(table));
    let mut next = 1;
    for (column, _) in table.relation.columns.iter().zip(set).filter(|(_, set)| **set) {
        let comma = if next == 1 { "" } else { ", " };
        let _ = write!(text, "{comma}{} = ${next}", ident(&column.name));
        next += 1;
    }
    let _ = write!(text, " WHERE {}", condition(table, find, next));
    text
}

fn update_many(table: &Table, set: &[bool]) -> String {
    let names = |at: &usize| {
        let name = ident(&table.relation.columns[*at].name);
        format!("{name} = {}", listed(table, *at))
    };
    let set_columns: Vec<_> = (0..set.len()).filter(|at| set[*at]).collect();
    let assignments: Vec<_> = set_columns.iter().map(names).collect();
    format!(
        "UPDATE {} AS here SET {} FROM {} WHERE {}",
        rows_of(table),
        assignments.join(", "),
        lists(table, &plan::set_or_key(table, set)),
        same_key(table)
    )
}

fn delete_many(table: &Table) -> String {
    let lists = lists(table, &table.key());
    format!("DELETE FROM {} AS here USING {lists} WHERE {}", rows_of(table), same_key(table))
}

/// Arrays as rows, one parameter a column.
fn lists(table: &Table, columns: &[usize]) -> String {
    let (mut arrays, mut names) = (Vec::new(), Vec::new());
    for (number, at) in columns.iter().enumerate() {
        let array = match &table.columns[*at].many {
            Many::Array(schema, name) => qualified(schema, name),
            Many::Texts(..) => "pg_catalog._text".to_owned(),
        };
        arrays.push(format!("pg_catalog.unnest(${}::{array})", number + 1));
        names.push(format!("c{at}"));
    }
    format!("ROWS FROM ({}) AS many ({})", arrays.join(", "), names.join(", "))
}

/// A column's value in such a row.
fn listed(table: &Table, at: usize) -> String {
    match &table.columns[at].many {
        Many::Array(..) => format!("many.c{at}"),
        Many::Texts(schema, name) => format!("many.c{at}::{}", qualified(schema, name)),
    }
}

fn same_key(table: &Table) -> String {
    let same = |at: &usize| {
        let name = ident(&table.relation.columns[*at].name);
        let value = listed(table, *at);
        match &table.columns[*at].equality {
            Equality::Operator { schema, .. } => {
                format!("here.{name} OPERATOR({}.=) {value}", ident(schema))
            }
            // No key has such a column.
            Equality::Text => "false".to_owned(),
        }
    };
    table.key().iter().map(same).collect::<Vec<_>>().join(" AND ")
}

fn replace(table: &Table, set: &[bool], find: &Find) -> String {
    let (mut names, mut values, mut next) = (Vec::new(), Vec::new(), 1);
    for (column, set) in table.relation.columns.iter().zip(set) {
        let name = ident(&column.name);
        if *set {
            values.push(format!("${next}"));
            next += 1;
        } else {
            values.push(format!("gone.{name}"));
        }
        names.push(name);
    }
    for name in &table.extra {
        names.push(ident(name));
        values.push(format!("gone.{}", ident(name)));
    }
    format!(
        "WITH gone AS (DELETE FROM {} WHERE {} RETURNING *) \
         INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM gone",
        rows_of(table),
        condition(table, find, next),
        name_of(table),
        names.join(", "),
        values.join(", ")
    )
}

/// The condition that holds for exactly the rows that are meant.
fn condition(table: &Table, find: &Find, first: usize) -> String {
    let conditions = conditions(table, find, first);
    if !find.one {
        return conditions;
    }
    // A row's place is unique in one table only.
    let (place, columns) = match table.partitioned {
        true => ("(tableoid, ctid)", "tableoid, ctid"),
        false => ("ctid", "ctid"),
    };
    let (rows, order) = (rows_of(table), nearest(table, find, first));
    format!(
        "{place} OPERATOR(pg_catalog.=) (SELECT {columns} FROM {rows} WHERE {conditions}{order} LIMIT 1)"
    )
}

/// Of rows that are equal, the one that also looks the same comes first: 1.0 equals 1.00, and is another value.
fn nearest(table: &Table, find: &Find, first: usize) -> String {
    let equal = find.conditions.iter().enumerate().filter(|(_, it)| **it == Condition::Equal);
    let same: Vec<_> = equal
        .zip(first..)
        .filter(|((at, _), _)| {
            matches!(table.columns[*at].equality, Equality::Operator { is_identity: false, .. })
        })
        .map(|((at, _), parameter)| {
            let name = ident(&table.relation.columns[at].name);
            format!(
                "pg_catalog.format('%s', {name}) COLLATE pg_catalog.\"C\" OPERATOR(pg_catalog.=) \
                 pg_catalog.format('%s', ${parameter})"
            )
        })
        .collect();
    match same.is_empty() {
        true => String::new(),
        false => format!(" ORDER BY {} DESC", same.join(" AND ")),
    }
}

fn conditions(table: &Table, find: &Find, first: usize) -> String {
    let (mut all, mut next) = (Vec::new(), first);
    for (at, condition) in find.conditions.iter().enumerate() {
        let name = ident(&table.relation.columns[at].name);
        match (condition, &table.columns[at].equality) {
            (Condition::Any, _) => continue,
            // A composite value of nothing but nulls IS NULL, and yet is a value.
            (Condition::Null, _) => all.push(format!("{name} IS NOT DISTINCT FROM NULL")),
            (Condition::Equal, Equality::Operator { schema, .. }) => {
                all.push(format!("{name} OPERATOR({}.=) ${next}", ident(schema)));
                next += 1;
            }
            // `format` uses the type's output function, as the source did; a null would become ''.
            (Condition::Equal, Equality::Text) => {
                all.push(format!(
                    "{name} IS DISTINCT FROM NULL AND pg_catalog.format('%s', {name}) OPERATOR(pg_catalog.=) ${next}"
                ));
                next += 1;
            }
        }
    }
    if all.is_empty() { "true".to_owned() } else { all.join(" AND ") }
}

fn name_of(table: &Table) -> String {
    qualified(&table.relation.schema, &table.relation.name)
}

/// The table's own rows: not those of tables that inherit from it, which are tables of their own at the source too.
fn rows_of(table: &Table) -> String {
    match table.partitioned {
        true => name_of(table),
        false => format!("ONLY {}", name_of(table)),
    }
}

fn columns(table: &Table) -> String {
    let names: Vec<_> = table.relation.columns.iter().map(|column| ident(&column.name)).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests;
