//! Whether what was chosen of a table can be published without making its updates and deletes fail; no database is
//! asked here.

use std::collections::BTreeSet;

use super::{
    InitOptions,
    inventory::{Columns, Inventory, Table},
};
use crate::{
    Ddl,
    choice::{Narrowing, Operations},
};

/// The first PostgreSQL that can publish some rows and columns of a table only.
const NARROWED: i32 = 150_000;

/// What is wrong with the tables that were chosen by name, a sentence each.
pub(super) fn names(found: &Inventory, selected: &[&Table], options: &InitOptions) -> Vec<String> {
    let mut problems = Vec::new();
    for ((schema, name), _) in options.choice.tables() {
        let label = format!("{schema}.{name}");
        let at = |it: &Table| &it.schema == schema && &it.name == name;
        let table = found.tables.iter().find(|it| at(it));
        let root = table.and_then(|it| selected.iter().find(|root| it.root == Some(root.id)));
        let may_come = options.ddl == Ddl::Replicate && options.patterns.matches(schema, name);
        if found.server.version < NARROWED {
            problems.push(format!(
                "rows or columns of {label} are chosen, which needs PostgreSQL 15 or later; the server is PostgreSQL {}",
                found.server.version / 10_000
            ));
        } else if let Some(root) = root {
            problems.push(format!(
                "rows or columns of {label} are chosen, but it is captured as a part of {}: choose those of that",
                root.label()
            ));
        } else if table.is_none() && !may_come {
            problems.push(format!(
                "rows or columns of {label} are chosen, but there is no such table: correct the name, or create it first"
            ));
        } else if table.is_some() && !selected.iter().any(|it| at(it)) {
            problems.push(format!(
                "rows or columns of {label} are chosen, but it is not captured: add it to `tables`, or take it off"
            ));
        }
    }
    problems
}

/// A table, or a partition of one, with what its changes are told by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'a> {
    pub(super) table: &'a Table,
    pub(super) columns: &'a Columns,
    /// Whether it gets its whole rows as replica identity, because its root has no key.
    pub(super) is_keyless: bool,
}

/// What is wrong with a choice for a table and its partitions, of which the table itself is the first; `used` are the
/// columns that its condition looks at.
pub(super) fn choice(
    members: &[Member<'_>],
    narrowing: &Narrowing,
    used: &[String],
    operations: Operations,
    ddl: Ddl,
) -> Vec<String> {
    let Some(root) = members.first() else { return Vec::new() };
    let mut problems = Vec::new();
    if let Some(list) = &narrowing.columns {
        problems.extend(list_itself(*root, list));
        for member in members.iter().filter(|_| ddl == Ddl::Replicate) {
            let lacking = beyond(&member.columns.partition_key, list);
            problems.extend(lacking.map(|names| {
                format!(
                    "the columns that are chosen of {} leave out {names}, by which {} is partitioned, and with schema \
                     changes it is partitioned so at the target: add them to the list",
                    root.table.label(),
                    member.table.label()
                )
            }));
        }
    }
    // Where no old rows are told, nothing can fail for want of them.
    if problems.is_empty() && operations.need_identity() {
        problems.extend(members.iter().filter_map(|it| listed(*root, *it, narrowing)));
        problems.extend(members.iter().filter_map(|it| filtered(*root, *it, used)));
    }
    problems
}

fn list_itself(root: Member<'_>, list: &BTreeSet<String>) -> Option<String> {
    let label = root.table.label();
    let all: BTreeSet<&String> = root.columns.all.iter().collect();
    let unknown: Vec<&str> =
        list.iter().filter(|it| !all.contains(it)).map(String::as_str).collect();
    if !unknown.is_empty() {
        let unknown = unknown.join(", ");
        return Some(format!("columns of {label} are chosen that it does not have: {unknown}"));
    }
    let generated: Vec<&str> = root.columns.generated.iter().map(String::as_str).collect();
    let generated: Vec<&str> = generated.into_iter().filter(|it| list.contains(*it)).collect();
    (!generated.is_empty()).then(|| {
        format!(
            "generated columns of {label} are chosen, which the target computes itself: take {} off the list",
            generated.join(", ")
        )
    })
}

/// Why updates and deletes would fail because of the list.
fn listed(root: Member<'_>, member: Member<'_>, narrowing: &Narrowing) -> Option<String> {
    let list = narrowing.columns.as_ref()?;
    let (label, name) = (member.table.label(), root.table.label());
    if member.is_keyless || member.table.identity == "f" {
        return Some(format!(
            "columns of {name} are chosen, but rows of {label} are told apart by all their columns, so its UPDATEs and \
             DELETEs would fail: give it a primary key and REPLICA IDENTITY DEFAULT, or capture inserts only"
        ));
    }
    beyond(&member.columns.identity, list).map(|names| {
        format!(
            "the columns that are chosen of {name} leave out {names} of the replica identity of {label}, so its UPDATEs \
             and DELETEs would fail: add them to the list"
        )
    })
}

/// Why updates and deletes would fail because of the condition.
fn filtered(root: Member<'_>, member: Member<'_>, used: &[String]) -> Option<String> {
    if member.is_keyless || member.table.identity == "f" {
        return None;
    }
    let identity: BTreeSet<String> = member.columns.identity.iter().cloned().collect();
    beyond(used, &identity).map(|names| {
        format!(
            "the condition on rows of {} looks at {names}, beyond the replica identity of {}, so its UPDATEs and DELETEs \
             would fail: run `ALTER TABLE {} REPLICA IDENTITY FULL`, or capture inserts only",
            root.table.label(),
            member.table.label(),
            member.table.sql()
        )
    })
}

/// Those that are not in a set, for people.
fn beyond(names: &[String], set: &BTreeSet<String>) -> Option<String> {
    let beyond: Vec<&str> =
        names.iter().filter(|it| !set.contains(*it)).map(String::as_str).collect();
    (!beyond.is_empty()).then(|| beyond.join(", "))
}
