//! From what there is and what is wanted to the statements that make it so; no database is asked here.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Comment,
    inventory::{Inventory, Publication, RunAs, Table},
    rehearsal::Chosen,
};
use crate::{
    choice::{Narrowing, Operations},
    error::{Error, Result},
    pattern::Patterns,
    sql,
};

/// The tables to publish.
///
/// # Errors
/// One sentence for each table that is meant and cannot be captured, and for each literal name that is not there.
pub(super) fn select<'a>(
    found: &'a Inventory,
    patterns: &Patterns,
    operations: Operations,
) -> Result<Vec<&'a Table>> {
    let (selected, mut problems) = meant(found, patterns);
    for table in selected.iter().filter(|_| operations.need_identity()) {
        let version = found.server.version;
        problems.extend(members(found, table).filter_map(|it| refused(it, table, version)));
    }
    match problems.is_empty() {
        true => Ok(selected),
        false => Err(Error::Refused(problems.join("\n"))),
    }
}

/// The tables that are meant and have changes, and what is wrong with the names.
fn meant<'a>(found: &'a Inventory, patterns: &Patterns) -> (Vec<&'a Table>, Vec<String>) {
    let by_id: BTreeMap<u32, &Table> = found.tables.iter().map(|it| (it.id, it)).collect();
    let mut problems: Vec<String> = Vec::new();
    for literal in patterns.literals() {
        if !found.tables.iter().any(|it| literal.matches(&it.schema, &it.name)) {
            problems.push(format!(
                "there is no table {literal} in the database {}: correct the name, or create it first",
                found.server.database
            ));
        }
    }
    let mut selected = Vec::new();
    for table in found.tables.iter().filter(|it| patterns.matches(&it.schema, &it.name)) {
        let is_named = patterns.names(&table.schema, &table.name);
        let root = table.root.and_then(|root| by_id.get(&root));
        let is_in_root = root.is_some_and(|it| patterns.matches(&it.schema, &it.name));
        // A partition is captured as its root; a wildcard means roots only.
        if is_in_root || (table.root.is_some() && !is_named) || (table.is_extension && !is_named) {
            continue;
        }
        match unfit(table) {
            Some(why) if is_named => problems.push(why),
            Some(_) => {}
            None => selected.push(table),
        }
    }
    (selected, problems)
}

/// The tables that are meant and are not published. A problem with one does not hide the others: `init` speaks of it.
pub(super) fn unpublished(found: &Inventory, patterns: &Patterns) -> Vec<String> {
    let published: BTreeSet<u32> =
        found.publication.iter().flat_map(|it| &it.entries).map(|it| it.table).collect();
    let (tables, _) = meant(found, patterns);
    tables.into_iter().filter(|it| !published.contains(&it.id)).map(Table::label).collect()
}

/// What is wrong with the names of tables, as `init` would say it.
pub(super) fn misnamed(found: &Inventory, patterns: &Patterns) -> Vec<String> {
    meant(found, patterns).1
}

/// Why something with rows is no table whose changes are logged.
fn unfit(table: &Table) -> Option<String> {
    let label = table.label();
    let why = match (table.kind.as_str(), table.persistence.as_str()) {
        ("v", _) => "is a view, and only tables have changes",
        ("m", _) => "is a materialized view, whose changes PostgreSQL does not publish",
        ("f", _) => "is a foreign table, whose changes this server does not see",
        (_, "u") => "is unlogged, so its changes are not in the write-ahead log",
        (_, "t") => "is temporary",
        _ => return None,
    };
    Some(format!("{label} {why}: take it off the list of tables"))
}

/// Why a table, or a partition of one, must not be published as it is. A partition gets its root's identity if that
/// has no key.
fn refused(table: &Table, root: &Table, version: i32) -> Option<String> {
    let (label, name) = (table.label(), table.sql());
    if table.kind == "f" {
        return Some(format!(
            "the partition {label} is a foreign table, whose changes this server does not see: \
             exclude the partitioned table, or detach the partition"
        ));
    }
    let is_full = table.identity == "f" || !root.has_key;
    if version >= GENERATED_REFUSED && table.has_generated && is_full {
        return Some(format!(
            "{label} has generated columns and no key, so PostgreSQL would refuse its UPDATEs and DELETEs once it is \
             published: give it a primary key and REPLICA IDENTITY DEFAULT, or exclude it with \"!{label}\""
        ));
    }
    (table.identity == "n").then(|| {
        format!(
            "{label} has REPLICA IDENTITY NOTHING, so publishing it would make its UPDATEs and DELETEs \
             fail: run `ALTER TABLE {name} REPLICA IDENTITY DEFAULT` (or FULL), or exclude it with \"!{label}\""
        )
    })
}

/// The first PostgreSQL that refuses changes of a table whose replica identity has generated columns in it that are
/// not published.
const GENERATED_REFUSED: i32 = 180_000;

/// The table itself and, if it is partitioned, its partitions.
pub(super) fn members<'a>(
    found: &'a Inventory,
    table: &'a Table,
) -> impl Iterator<Item = &'a Table> {
    let partitions = found.tables.iter().filter(|it| it.root == Some(table.id));
    std::iter::once(table).chain(partitions)
}

/// What has to be done, in its order: nothing is published before it has an identity, and the slot, from whose
/// position on everything is decoded, comes last.
pub(super) fn statements(
    found: &Inventory,
    selected: &[&Table],
    chosen: &Chosen,
    operations: Operations,
    name: &str,
    node: &str,
) -> Result<Vec<String>> {
    let mut out: Vec<String> = keyless(found, selected)
        .filter(|_| operations.need_identity())
        .map(|table| sql::replica_identity_full(&table.schema, &table.name))
        .collect();
    let wanted = Wanted { found, selected, chosen, operations };
    match &found.publication {
        None => {
            let entries: Vec<String> = selected.iter().map(|it| chosen.entry(it)).collect();
            out.push(sql::create_publication(name, &entries, operations));
        }
        Some(publication) => out.extend(wanted.alter(name, node, publication)?),
    }
    if let Some(RunAs { name: user, exists: true, .. }) = &found.run_as {
        out.extend(grants(selected, user));
    }
    let comment = found.publication.as_ref().and_then(|it| it.comment.as_ref());
    match (&found.slot, comment) {
        (None, _) => out.push(sql::create_slot(name, &Comment::head(node))),
        (Some(slot), None | Some(Comment { created: None, .. })) => {
            // Whoever runs `init` for a slot of unknown history vouches that nothing was read from it.
            let confirmed = slot.confirmed.unwrap_or_default();
            out.push(sql::comment(name, &format!("{}{confirmed}", Comment::head(node))));
        }
        _ => {}
    }
    Ok(out)
}

/// Selected tables, and all partitions of those, whose old rows nothing identifies.
fn keyless<'a>(found: &'a Inventory, selected: &'a [&'a Table]) -> impl Iterator<Item = &'a Table> {
    let keyless = selected.iter().filter(|table| !table.has_key);
    // The root's identity is what its description says, so all partitions follow it.
    let all = keyless.flat_map(|table| members(found, table));
    all.filter(|table| table.identity != "f")
}

/// What is to be published.
struct Wanted<'a> {
    found: &'a Inventory,
    selected: &'a [&'a Table],
    chosen: &'a Chosen,
    operations: Operations,
}

impl Wanted<'_> {
    /// What makes a publication that is there the one that is wanted: all of it takes effect at once, so nothing is
    /// ever published otherwise.
    fn alter(&self, name: &str, node: &str, publication: &Publication) -> Result<Option<String>> {
        if let Some(comment) = &publication.comment
            && comment.node != node
        {
            return Err(Error::Refused(format!(
                "the publication {name} belongs to the node \"{}\": give one of the two another name",
                comment.node
            )));
        }
        if publication.is_for_all {
            return Err(Error::Refused(format!(
                "the publication {name} is for all tables, which Thinwire never makes: drop it, then run \
                 `thinwire init` again"
            )));
        }
        let mut out = Vec::new();
        let off = self.off(publication);
        if !off.is_empty() {
            out.push(sql::drop_tables(name, &off));
        }
        let on = self.on(publication);
        let told = match self.operations.exceed(publication.operations) {
            // Changes were missed of every table.
            true => self.selected,
            false => &on,
        };
        if !told.is_empty() && self.found.slot.is_some() {
            let ids: Vec<u32> = told.iter().map(|it| it.id).collect();
            out.push(sql::tell_added(name, &ids));
        }
        if !on.is_empty() {
            let on: Vec<String> = on.into_iter().map(|it| self.chosen.entry(it)).collect();
            out.push(sql::add_tables(name, &on));
        }
        if publication.operations != self.operations || !publication.is_via_root {
            out.push(sql::set_publication(name, self.operations));
        }
        if publication.has_generated {
            out.push(sql::unpublish_generated(name));
        }
        Ok(match out.len() {
            0 | 1 => out.pop(),
            _ => Some(sql::at_once(&out)),
        })
    }

    /// What is published and not wanted, or not so.
    fn off(&self, publication: &Publication) -> Vec<String> {
        let wanted: BTreeSet<u32> = self.selected.iter().map(|it| it.id).collect();
        let is_right = |id| wanted.contains(&id) && !self.chosen.differing.contains(&id);
        let off = publication.entries.iter().filter(|it| !is_right(it.table));
        off.filter_map(|entry| self.found.tables.iter().find(|it| it.id == entry.table))
            .map(|table| sql::entry(&table.sql(), &Narrowing::NONE))
            .collect()
    }

    /// What is wanted and not published, or not so.
    fn on(&self, publication: &Publication) -> Vec<&Table> {
        let listed: BTreeSet<u32> = publication.entries.iter().map(|it| it.table).collect();
        let is_right = |id| listed.contains(&id) && !self.chosen.differing.contains(&id);
        self.selected.iter().copied().filter(|it| !is_right(it.id)).collect()
    }
}

impl Chosen {
    /// A table as it stands in the publication.
    fn entry(&self, table: &Table) -> String {
        sql::entry(&table.sql(), self.narrowed.get(&table.id).unwrap_or(&Narrowing::NONE))
    }
}

fn grants(selected: &[&Table], user: &str) -> Vec<String> {
    let schemas: BTreeSet<&str> =
        selected.iter().filter(|it| !it.may_use_schema).map(|it| it.schema.as_str()).collect();
    let tables: Vec<String> =
        selected.iter().filter(|it| !it.may_select).map(|it| it.sql()).collect();
    let mut out: Vec<String> =
        schemas.into_iter().map(|schema| sql::grant_usage(schema, user)).collect();
    if !tables.is_empty() {
        out.push(sql::grant_select(&tables, user));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::inventory::{Entry, Server};

    fn table(id: u32, name: &str) -> Table {
        Table {
            id,
            schema: "public".into(),
            name: name.into(),
            kind: "r".into(),
            persistence: "p".into(),
            identity: "d".into(),
            has_key: true,
            may_select: true,
            may_use_schema: true,
            ..Table::default()
        }
    }

    fn inventory(tables: Vec<Table>) -> Inventory {
        let server = Server {
            version: 150_000,
            wal_level: "logical".into(),
            database: "shop".into(),
            user: "admin".into(),
            encoding: "UTF8".into(),
        };
        Inventory { server, tables, publication: None, slot: None, run_as: None }
    }

    fn plan(found: &Inventory, patterns: &[&str]) -> Result<Vec<String>> {
        let all = Operations::default();
        let selected = select(found, &Patterns::parse(patterns)?, all)?;
        statements(found, &selected, &Chosen::default(), all, "thinwire_n", "n")
    }

    fn refusal(found: &Inventory, patterns: &[&str]) -> String {
        plan(found, patterns).unwrap_err().to_string()
    }

    #[test]
    fn a_keyless_table_gets_an_identity_before_it_is_published() {
        let keyless = Table { has_key: false, ..table(2, "k") };
        let plan = plan(&inventory(vec![table(1, "a"), keyless]), &["public.*"]).unwrap();
        assert_eq!(plan[0], "ALTER TABLE ONLY \"public\".\"k\" REPLICA IDENTITY FULL");
        assert!(plan[1].starts_with("CREATE PUBLICATION \"thinwire_n\" FOR TABLE "), "{plan:?}");
        assert!(plan[2].contains("pg_create_logical_replication_slot"), "{plan:?}");
        assert_eq!(plan.len(), 3);
    }

    #[test]
    fn a_literal_name_must_exist_and_a_pattern_may_match_nothing() {
        let found = inventory(vec![table(1, "a")]);
        assert!(refusal(&found, &["public.b"]).contains("there is no table public.b"));
        assert!(plan(&found, &["other.*", "!public.gone"]).is_ok());
    }

    #[test]
    fn what_is_no_table_is_refused_by_name_and_ignored_by_wildcard() {
        for (kind, persistence, word) in [
            ("v", "p", "a view"),
            ("m", "p", "materialized"),
            ("f", "p", "foreign"),
            ("r", "u", "unlogged"),
            ("r", "t", "temporary"),
        ] {
            let odd = Table { kind: kind.into(), persistence: persistence.into(), ..table(1, "x") };
            let found = inventory(vec![odd]);
            assert!(refusal(&found, &["public.x"]).contains(word));
            assert_eq!(plan(&found, &["public.*"]).unwrap().len(), 2);
        }
    }

    #[test]
    fn a_table_without_identity_is_refused_even_by_wildcard() {
        let nothing = Table { identity: "n".into(), has_key: false, ..table(1, "x") };
        let text = refusal(&inventory(vec![nothing]), &["public.*"]);
        assert!(text.contains("public.x has REPLICA IDENTITY NOTHING"), "{text}");
    }

    #[test]
    fn one_problem_hides_no_table_that_is_not_published() {
        let nothing = Table { identity: "n".into(), ..table(1, "x") };
        let found = inventory(vec![nothing, table(2, "y")]);
        let patterns = Patterns::parse(&["public.*", "public.gone"]).unwrap();
        assert_eq!(unpublished(&found, &patterns), ["public.x", "public.y"]);
    }

    #[test]
    fn generated_columns_need_a_key_beside_them_from_18_on() {
        let keyed = Table { has_generated: true, ..table(1, "keyed") };
        let full = Table { identity: "f".into(), ..keyed.clone() };
        let keyless = Table { has_key: false, ..keyed.clone() };
        for (table, fails) in [(keyed, false), (full, true), (keyless, true)] {
            let mut found = inventory(vec![table]);
            assert!(plan(&found, &["public.*"]).is_ok());
            found.server.version = 180_000;
            let planned = plan(&found, &["public.*"]);
            assert_eq!(planned.is_err(), fails, "{planned:?}");
        }
    }

    #[test]
    fn partitions_are_captured_as_their_root_and_follow_its_identity() {
        let root = Table { kind: "p".into(), has_key: false, ..table(1, "root") };
        let part = Table { root: Some(1), has_key: false, ..table(2, "part") };
        let found = inventory(vec![root, part]);
        let all = plan(&found, &["public.*"]).unwrap();
        assert!(all[0].contains("\"root\"") && all[1].contains("\"part\""), "{all:?}");
        assert!(!all[2].contains("\"part\""), "{all:?}");
        // Alone it is a table like any other.
        let alone = plan(&found, &["public.part"]).unwrap();
        assert!(alone[1].contains("FOR TABLE ONLY \"public\".\"part\""), "{alone:?}");
    }

    #[test]
    fn a_second_time_there_is_nothing_to_do() {
        let mut found = inventory(vec![table(1, "a")]);
        found.publication = Some(Publication {
            is_for_all: false,
            operations: Operations::default(),
            is_via_root: true,
            has_generated: false,
            comment: Comment::parse(&format!("{}0/10", Comment::head("n"))),
            entries: vec![Entry { id: 9, ..Entry::whole(1) }],
        });
        found.slot = Some(crate::slot::SlotState {
            plugin: Some("pgoutput".into()),
            is_here: true,
            is_temporary: false,
            wal_status: None,
            confirmed: None,
            active_pid: None,
            retained_bytes: 0,
        });
        assert_eq!(plan(&found, &["public.*"]).unwrap(), Vec::<String>::new());
        // Another table comes, the first goes.
        found.tables.push(table(2, "b"));
        let change = plan(&found, &["public.b"]).unwrap();
        let [change] = change.as_slice() else { panic!("{change:?}") };
        let parts: Vec<&str> = change.split("; ").collect();
        assert_eq!((parts[0], parts[4]), ("BEGIN", "COMMIT"), "{parts:?}");
        assert!(parts[1].ends_with("DROP TABLE ONLY \"public\".\"a\""), "{parts:?}");
        assert!(parts[2].ends_with("'thinwire.added', 'thinwire_n 2')"), "{parts:?}");
        assert!(parts[3].ends_with("ADD TABLE ONLY \"public\".\"b\""), "{parts:?}");
        let all = Operations::default();
        let selected = select(&found, &Patterns::parse(&["public.*"]).unwrap(), all).unwrap();
        let other = statements(&found, &selected, &Chosen::default(), all, "thinwire_n", "m");
        let other = other.unwrap_err();
        assert!(other.to_string().contains("belongs to the node \"n\""));
    }

    #[test]
    fn only_grants_that_are_missing_are_given() {
        let closed = Table { may_select: false, may_use_schema: false, ..table(2, "b") };
        let mut found = inventory(vec![table(1, "a"), closed]);
        let name = "o'brian".to_owned();
        found.run_as = Some(RunAs { name, exists: true, may_replicate: true });
        let plan = plan(&found, &["public.*"]).unwrap();
        assert_eq!(plan[1], "GRANT USAGE ON SCHEMA \"public\" TO \"o'brian\"");
        assert_eq!(plan[2], "GRANT SELECT ON TABLE \"public\".\"b\" TO \"o'brian\"");
    }
}
