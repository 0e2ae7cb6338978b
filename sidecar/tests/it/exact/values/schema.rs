//! Tables that a seed makes: columns, keys and identities, and the statements that fill and change them.

use thinwire_bench::random::Random;

use super::literals::{Kind, kinds};

/// What the types of the tables are made of; the same at both ends.
pub(in crate::exact) const TYPES: &str = r#"
    create schema ext;
    create extension hstore schema ext;
    create extension citext schema ext;
    create type mood as enum ('sad', 'a bit, "odd"', 'it''s', '', 'ÄÖ\');
    create type pair as (x int, "the Y" text, b bytea);
    create type nested as (p pair, moods mood[], n numeric[], "null" text);
    create function is_fine(int) returns boolean language sql immutable
        as 'select $1 is null or $1 > (select min(oid)::int from pg_catalog.pg_class) - 2000000000';
    create domain fine as int check (public.is_fine(value));
    create domain short as text check (length(value) < 200);
    create domain list as int[] check (cardinality(value) < 100);
    create domain deep as short check (value <> 'never');
    create domain span as int4range check (isempty(value) or lower_inc(value) or lower_inf(value));
    create domain duo as pair check ((value).x is null or (value).x < 1000);
    create type floatrange as range (subtype = float8, subtype_diff = float8mi);
    create type moodrange as range (subtype = mood);
"#;

/// How the rows of a table are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    /// A primary key.
    Primary,
    /// A unique index that is the replica identity.
    Index,
    /// A primary key, and all columns are sent nevertheless.
    FullWithKey,
    /// Nothing: all columns are sent, and rows may be equal.
    Keyless,
}

/// Of the tables that have each kind: their columns, and the fewest rows that they are filled with.
const VALUES_PER_TABLE: usize = 10;
const KEYS_PER_TABLE: usize = 4;
const LEAST_ROWS: usize = 6;

struct Column {
    name: String,
    kind: Kind,
    key: bool,
    /// A stored or virtual expression over `n`.
    generated: Option<&'static str>,
}

/// A table. Every row has a number in a column that is no key, by which the statements here find it.
pub(super) struct Table {
    name: String,
    identity: Identity,
    columns: Vec<Column>,
    partitions: [u64; 2],
    always: bool,
    last: u64,
}

impl Table {
    /// Tables that together have each kind as a value, and each that may be one as a key. Rows without a key are found by all
    /// that they hold.
    pub(super) fn of_each_kind(version: u32) -> Vec<Self> {
        let all = kinds(version);
        let keyed: Vec<Kind> = all.iter().copied().filter(|kind| kind.is_key).collect();
        let values = all.chunks(VALUES_PER_TABLE).map(|kinds| (Identity::Keyless, kinds));
        let keys = keyed.chunks(KEYS_PER_TABLE).map(|kinds| (Identity::Primary, kinds));
        let table = |(at, (identity, kinds)): (usize, (Identity, &[Kind]))| {
            let key = identity == Identity::Primary;
            let column = |(at, kind): (usize, &Kind)| Column {
                name: format!("c{at}"),
                kind: *kind,
                key,
                generated: None,
            };
            let columns = kinds.iter().enumerate().map(column).collect();
            let (name, partitions) = (format!("each{at}"), [0; 2]);
            Self { name, identity, columns, partitions, always: false, last: 0 }
        };
        values.chain(keys).enumerate().map(table).collect()
    }

    /// Adds rows with all values that the columns' kinds name.
    pub(super) fn insert_each(&mut self, random: &mut Random) -> String {
        let most = self.columns.iter().map(|column| column.kind.count()).max();
        let (first, rows) = (self.last, most.unwrap_or(1).max(LEAST_ROWS));
        self.last += rows as u64;
        (0..rows)
            .zip(first + 1..)
            .map(|(at, n)| {
                let columns = self.columns.iter();
                let (names, values): (Vec<_>, Vec<_>) =
                    columns.map(|it| (ident(&it.name), it.kind.nth(at, random))).unzip();
                let (names, values) = (comma(&names), comma(&values));
                attempt(&format!("insert into {} (n{names}) values ({n}{values});", self.name))
            })
            .collect()
    }

    /// Gives each row other values, and removes every third.
    pub(super) fn change_each(&self, random: &mut Random) -> String {
        (1..=self.last)
            .map(|n| {
                let name = &self.name;
                if n % 3 == 0 {
                    return format!("delete from {name} where n = {n};\n");
                }
                let next = usize::try_from(n).unwrap();
                let set =
                    self.columns.iter().map(|it| (ident(&it.name), it.kind.nth(next, random)));
                let set: Vec<_> = set.map(|(name, value)| format!("{name} = {value}")).collect();
                attempt(&format!("update {name} set {} where n = {n};", set.join(", ")))
            })
            .collect()
    }

    pub(super) fn random(random: &mut Random, name: &str, versions: [u32; 2]) -> Self {
        let [source, target] = versions;
        let version = source.min(target);
        let identity = *random.pick(&[
            Identity::Primary,
            Identity::Primary,
            Identity::Index,
            Identity::FullWithKey,
            Identity::Keyless,
        ]);
        let all = kinds(version);
        let keyed: Vec<Kind> = all.iter().copied().filter(|kind| kind.is_key).collect();
        let mut columns = Vec::new();
        if identity != Identity::Keyless {
            for at in 0..1 + random.below(2) {
                let kind = *random.pick(&keyed);
                columns.push(Column { name: format!("k{at}"), kind, key: true, generated: None });
            }
        }
        for at in 0..3 + random.below(9) {
            let kind = *random.pick(&all);
            let name = if at == 0 { "select \"é\"".to_owned() } else { format!("c{at}") };
            columns.push(Column { name, kind, key: false, generated: None });
        }
        // From 18 on, PostgreSQL refuses changes of a table that is told apart by what is not sent.
        let is_full = matches!(identity, Identity::FullWithKey | Identity::Keyless);
        if random.chance(0.3) && !(is_full && source >= 18) {
            let how = if version >= 18 && random.chance(0.5) { "virtual" } else { "stored" };
            let (name, kind) = ("twice".to_owned(), all[0]);
            columns.push(Column { name, kind, key: false, generated: Some(how) });
        }
        shuffle(random, &mut columns);
        let has_key = columns.iter().any(|it| it.key);
        // A unique index of a partitioned table has to contain what it is partitioned by.
        let mut count = || if random.chance(0.2) && !has_key { 1 + random.below(3) } else { 0 };
        let partitions = [count(), count()];
        let always = random.chance(0.2);
        Self { name: name.to_owned(), identity, columns, partitions, always, last: 0 }
    }

    /// `schema.table`.
    pub(super) fn name(&self) -> String {
        format!("public.{}", self.name)
    }

    /// Creates it: at the target with other partitions, and with its columns in another order.
    pub(super) fn create(&self, random: &mut Random, at_target: bool) -> String {
        let name = &self.name;
        let n = match self.always {
            true => "n bigint generated always as identity not null",
            false => "n bigint not null",
        };
        let mut lines = vec![n.to_owned()];
        lines.extend(self.columns.iter().map(|column| {
            let not_null = if column.key { " not null" } else { "" };
            let ident = ident(&column.name);
            match column.generated {
                Some(how) => format!("{ident} bigint generated always as (n * 2) {how}"),
                None => format!("{ident} {}{not_null}", column.kind.name),
            }
        }));
        if at_target {
            shuffle(random, &mut lines);
        }
        let keys: Vec<_> =
            self.columns.iter().filter(|it| it.key).map(|it| ident(&it.name)).collect();
        let keys = keys.join(", ");
        let identity = match self.identity {
            Identity::Primary => format!("alter table {name} add primary key ({keys});"),
            Identity::FullWithKey => {
                format!("alter table {name} add primary key ({keys}), replica identity full;")
            }
            Identity::Index => format!(
                "create unique index \"{name} idx\" on {name} ({keys});
                 alter table {name} replica identity using index \"{name} idx\";"
            ),
            Identity::Keyless => String::new(),
        };
        let parts = self.partitions[usize::from(at_target)];
        let (by, parts) = match parts {
            0 => ("", String::new()),
            parts => (
                " partition by hash (n)",
                (0..parts).map(|at| format!(
                    "create table {name}_p{at} partition of {name} for values with (modulus {parts}, remainder {at});\n"
                )).collect(),
            ),
        };
        format!("create table {name} ({}){by};\n{parts}{identity}\n", lines.join(", "))
    }

    /// Adds a row, or two that are equal where that may be.
    pub(super) fn insert(&mut self, random: &mut Random) -> String {
        self.last += 1;
        let names: Vec<_> = self.given().map(|column| ident(&column.name)).collect();
        let mut values: Vec<String> = Vec::new();
        for column in self.given() {
            let null = !column.key && random.chance(0.12);
            values.push(if null { "null".to_owned() } else { column.kind.literal(random) });
        }
        let (names, values) = (comma(&names), comma(&values));
        let (name, n) = (&self.name, self.last);
        let insert = |n: u64| {
            format!("insert into {name} (n{names}) overriding system value values ({n}{values});")
        };
        let twice = self.identity == Identity::Keyless && random.chance(0.3);
        // An equal row, except for how its values are written.
        let again = if twice { insert(n) } else { String::new() };
        attempt(&format!("{}{again}", insert(n)))
    }

    /// Adds, changes or removes.
    pub(super) fn change(&mut self, random: &mut Random) -> String {
        match random.below(10) {
            0..3 => self.insert(random),
            3 => {
                let which = self.which(random);
                attempt(&format!("delete from {} where {which};", self.name))
            }
            4 if random.chance(0.03) => attempt(&format!("truncate {};", self.name)),
            _ => self.update(random),
        }
    }

    fn update(&mut self, random: &mut Random) -> String {
        let mut set: Vec<String> = Vec::new();
        for column in self.given() {
            if random.chance(0.7) {
                continue;
            }
            let null = !column.key && random.chance(0.2);
            let value = if null { "null".to_owned() } else { column.kind.literal(random) };
            set.push(format!("{} = {value}", ident(&column.name)));
        }
        if self.always && random.chance(0.1) {
            set.push("n = default".to_owned());
        }
        if set.is_empty() {
            let name = self.given().map(|column| ident(&column.name)).next().unwrap_or("n".into());
            set.push(format!("{name} = {name}"));
        }
        let which = self.which(random);
        attempt(&format!("update {} set {} where {which};", self.name, set.join(", ")))
    }

    /// One row or a few; of equal ones exactly one.
    fn which(&self, random: &mut Random) -> String {
        let n = 1 + random.below(self.last.max(1));
        match random.below(4) {
            0 => format!("n between {n} and {}", n + 3),
            1 if self.partitions[0] == 0 => {
                format!("ctid = (select max(ctid) from {} where n = {n})", self.name)
            }
            _ => format!("n = {n}"),
        }
    }

    fn given(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| column.generated.is_none())
    }
}

fn comma(parts: &[String]) -> String {
    parts.iter().map(|part| format!(", {part}")).collect()
}

fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A statement that may fail, as keys that are there already make it; what it did is undone and no error.
fn attempt(statements: &str) -> String {
    format!(
        "do $do$ begin {statements} exception when integrity_constraint_violation then null; end $do$;\n"
    )
}

fn shuffle<T>(random: &mut Random, things: &mut [T]) {
    for at in (1..things.len()).rev() {
        let other = usize::try_from(random.below(at as u64 + 1)).unwrap_or_default();
        things.swap(at, other);
    }
}
