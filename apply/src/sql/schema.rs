//! SQL that changes the target's schema: one statement a text, so that no expression can bring another along.

use thinwire_engine::model::{
    Attribute, Body, Constraint, Generated, Kind, Object, ReplicaIdentity, Sequence, Table,
    TableColumn,
};

use super::{ident, literal, qualified};
use crate::schema::{
    Alter, Named, Step,
    step::{AlterDomain, AlterType},
};

/// One way to do a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// The statements.
    pub(crate) texts: Vec<String>,
    /// The states with which the attempt before it must have failed, or how they begin.
    pub(crate) behind: &'static [&'static str],
    /// Whether it removes the table's rows, which may only be done if they are this stream's and are copied again.
    pub(crate) empties: bool,
    /// A value that rows get: not for people's eyes.
    pub(crate) value: Option<String>,
}

/// The ways to do a step, the best first. None if there is nothing to do.
pub(crate) fn attempts(step: &Step<'_>, login: Option<&str>) -> Vec<Attempt> {
    let one = |text: String| vec![Attempt { texts: vec![text], ..Attempt::default() }];
    match step {
        Step::Create { object, identities } => ways_to_create(object, identities),
        Step::Replace(object) => replace(object),
        Step::Adopt(object) => {
            let kept = Attempt { behind: &NOT_UNDERSTOOD, ..Attempt::default() };
            [replace(object), vec![kept]].concat()
        }
        Step::Drop(objects) => drop_all(objects),
        Step::Rename { object, to } => {
            one(format!("ALTER {} RENAME TO {}", named(object), ident(to)))
        }
        Step::Move { object, to } => {
            one(format!("ALTER {} SET SCHEMA {}", named(object), ident(to)))
        }
        Step::Own(object) => {
            one(format!("ALTER {} OWNER TO {}", named(&Named::of(object)), ident(&object.owner)))
        }
        Step::Disarm(object) => {
            one(format!("ALTER {} SECURITY INVOKER", named(&Named::of(object))))
        }
        Step::Grant(object) => login.and_then(|login| grant(object, login)).map_or(Vec::new(), one),
        Step::Comment(object) => one(format!(
            "COMMENT ON {} IS {}",
            named(&Named::of(object)),
            object.comment.as_deref().map_or("NULL".into(), literal)
        )),
        Step::Alter { table, alter } => self::alter(table, alter),
        Step::AlterType { object, alter } => one(alter_type(object, alter)),
        Step::AlterDomain { object, alter } => one(alter_domain(object, alter)),
        Step::AddLabel { object, label, behind, ahead } => {
            one(add_label(object, label, *behind, *ahead))
        }
        Step::RenameLabel { object, from, to } => one(format!(
            "ALTER TYPE {} RENAME VALUE {} TO {}",
            name_of(object),
            literal(from),
            literal(to)
        )),
        Step::AlterSequence(object) => sequence_of(object).map_or(Vec::new(), |sequence| {
            one(format!("ALTER SEQUENCE {}{}", name_of(object), options(sequence)))
        }),
        Step::Belongs { sequence, to } => one(belongs(sequence, *to)),
        Step::Value { sequence, value, falls } => one(advance(sequence, *value, *falls)),
    }
}

/// What kind of thing an object is, in words of SQL.
fn kind(object: &Named<'_>) -> &'static str {
    match object.kind {
        Kind::Schema => "SCHEMA",
        Kind::Enum | Kind::Composite | Kind::Range => "TYPE",
        Kind::Domain => "DOMAIN",
        Kind::Sequence => "SEQUENCE",
        Kind::Table => "TABLE",
        Kind::View if object.materialized => "MATERIALIZED VIEW",
        Kind::View => "VIEW",
        Kind::Routine => "ROUTINE",
    }
}

fn named(object: &Named<'_>) -> String {
    format!("{} {}", kind(object), bare(object))
}

/// A name without what it is.
pub(crate) fn bare(object: &Named<'_>) -> String {
    match (object.kind, object.arguments) {
        (Kind::Schema, _) => ident(object.name),
        (_, Some(arguments)) => format!("{}({arguments})", qualified(object.schema, object.name)),
        _ => qualified(object.schema, object.name),
    }
}

fn name_of(object: &Object) -> String {
    bare(&Named { arguments: None, ..Named::of(object) })
}

/// A table whose defaults need what is not there yet, and which may itself be needed by that, is made without them.
fn ways_to_create(object: &Object, identities: &[(i16, &Object)]) -> Vec<Attempt> {
    let made = |object: &Object| vec![create(object, identities)];
    let mut ways = vec![Attempt { texts: made(object), ..Attempt::default() }];
    let mut bare = object.clone();
    if let Body::Table(table) = &mut bare.body {
        let plain = table.columns.iter_mut().filter(|column| column.generated.is_none());
        plain.for_each(|column| column.default = None);
    }
    if bare != *object {
        ways.push(Attempt { texts: made(&bare), behind: &LACKS_ANOTHER, ..Attempt::default() });
    }
    let mut plainer = object.clone();
    if let Body::Table(table) = &mut plainer.body {
        table.columns.iter_mut().for_each(|column| *column = stored(column));
    }
    if plainer != *object {
        ways.push(Attempt {
            texts: made(&plainer),
            behind: &[NO_SUCH_SYNTAX],
            ..Attempt::default()
        });
    }
    ways
}

/// A column whose values are stored where they would be made anew for each reader: for servers that know no other way.
fn stored(column: &TableColumn) -> TableColumn {
    let generated = match column.generated {
        Some(Generated::Virtual) => Some(Generated::Stored),
        other => other,
    };
    TableColumn { generated, ..column.clone() }
}

/// What is missing when another object is, or a column of it: type or collation, function, table, column, schema.
pub(crate) const LACKS_ANOTHER: [&str; 5] = ["42704", "42883", "42P01", "42703", "3F000"];

/// What an older server says to the words of a newer one.
const NO_SUCH_SYNTAX: &str = "42601";
/// And to its options.
const NOT_UNDERSTOOD: [&str; 3] = [NO_SUCH_SYNTAX, "22023", "0A000"];

fn create(object: &Object, identities: &[(i16, &Object)]) -> String {
    let name = name_of(object);
    match &object.body {
        Body::Schema {} => format!("CREATE SCHEMA {name}"),
        Body::Enum { labels } => {
            let labels: Vec<_> = labels.iter().map(|label| literal(label)).collect();
            format!("CREATE TYPE {name} AS ENUM ({})", labels.join(", "))
        }
        Body::Composite { attributes } => {
            let attributes: Vec<_> = attributes.iter().map(attribute).collect();
            format!("CREATE TYPE {name} AS ({})", attributes.join(", "))
        }
        Body::Domain { base, collation, not_null, default, constraints } => {
            let mut text = format!("CREATE DOMAIN {name} AS {base}{}", collate(collation));
            if let Some(default) = default {
                text += &format!(" DEFAULT {default}");
            }
            if *not_null {
                text += " NOT NULL";
            }
            for constraint in constraints {
                text +=
                    &format!(" CONSTRAINT {} {}", ident(&constraint.name), constraint.definition);
            }
            text
        }
        Body::Range { definition } => format!("CREATE TYPE {name} AS RANGE ({definition})"),
        Body::Sequence(sequence) => format!("CREATE SEQUENCE {name}{}", options(sequence)),
        Body::Table(table) => create_table(&name, table, identities),
        Body::View { .. } | Body::Routine { .. } => String::new(),
    }
}

fn create_table(name: &str, table: &Table, identities: &[(i16, &Object)]) -> String {
    let by = match &table.partition_key {
        Some(key) => format!(" PARTITION BY {key}"),
        None => String::new(),
    };
    if let Some(of) = &table.partition_of {
        // Everything but defaults and nulls is its root's.
        let own = table.columns.iter().filter(|it| it.generated.is_none());
        let own: Vec<_> = own.filter_map(of_partition).collect();
        let own = if own.is_empty() { String::new() } else { format!(" ({})", own.join(", ")) };
        let root = qualified(&of.schema, &of.name);
        return format!("CREATE TABLE {name} PARTITION OF {root}{own} {}{by}", of.bound);
    }
    let columns = table.columns.iter().map(|column| {
        let sequence = identities.iter().find(|(number, _)| *number == column.number);
        self::column(column, column.default.as_deref(), sequence.map(|(_, sequence)| *sequence))
    });
    let columns: Vec<_> = columns.collect();
    let parents: Vec<_> =
        table.inherits.iter().map(|(schema, name)| qualified(schema, name)).collect();
    let inherits = match parents.is_empty() {
        true => String::new(),
        false => format!(" INHERITS ({})", parents.join(", ")),
    };
    format!("CREATE TABLE {name} ({}){inherits}{by}", columns.join(", "))
}

fn of_partition(column: &TableColumn) -> Option<String> {
    let default = column.default.as_ref().map(|it| format!(" DEFAULT {it}")).unwrap_or_default();
    let not_null = if column.not_null { " NOT NULL" } else { "" };
    let options = format!("{default}{not_null}");
    (!options.is_empty()).then(|| format!("{}{options}", ident(&column.name)))
}

fn column(column: &TableColumn, default: Option<&str>, sequence: Option<&Object>) -> String {
    let (name, collate) = (ident(&column.name), collate(&column.collation));
    let mut text = format!("{name} {}{collate}", column.data_type);
    match (column.generated, &column.default, default) {
        (Some(Generated::Stored), Some(expression), _) => {
            text += &format!(" GENERATED ALWAYS AS ({expression}) STORED");
        }
        (Some(Generated::Virtual), Some(expression), _) => {
            text += &format!(" GENERATED ALWAYS AS ({expression}) VIRTUAL");
        }
        (Some(Generated::IdentityAlways | Generated::IdentityByDefault), ..) => {
            text += &format!(" {}", identity(column, sequence));
        }
        (_, _, Some(default)) => text += &format!(" DEFAULT {default}"),
        _ => {}
    }
    if column.not_null {
        text += " NOT NULL";
    }
    text
}

fn identity(column: &TableColumn, sequence: Option<&Object>) -> String {
    let options = match sequence.map(|object| (object, sequence_of(object))) {
        Some((object, Some(sequence))) => {
            let name = name_of(object);
            let sequence = Sequence { owned_by: None, ..sequence.clone() };
            let options = options(&sequence);
            // Its type follows from the column's.
            let rest = options.split_once(" INCREMENT").map_or("", |(_, rest)| rest);
            format!(" (SEQUENCE NAME {name} INCREMENT{rest})")
        }
        _ => String::new(),
    };
    format!("GENERATED {} AS IDENTITY{options}", when(column))
}

fn when(column: &TableColumn) -> &'static str {
    match column.generated {
        Some(Generated::IdentityAlways) => "ALWAYS",
        _ => "BY DEFAULT",
    }
}

fn options(sequence: &Sequence) -> String {
    let Sequence { data_type, start, increment, min, max, cache, cycle, .. } = sequence;
    let cycle = if *cycle { "CYCLE" } else { "NO CYCLE" };
    format!(
        " AS {data_type} INCREMENT BY {increment} MINVALUE {min} MAXVALUE {max} START WITH {start} CACHE {cache} {cycle}"
    )
}

fn sequence_of(object: &Object) -> Option<&Sequence> {
    match &object.body {
        Body::Sequence(sequence) => Some(sequence),
        _ => None,
    }
}

fn attribute(attribute: &Attribute) -> String {
    let Attribute { name, data_type, collation, .. } = attribute;
    format!("{} {data_type}{}", ident(name), collate(collation))
}

fn collate(collation: &Option<String>) -> String {
    collation.as_ref().map(|collation| format!(" COLLATE {collation}")).unwrap_or_default()
}

fn replace(object: &Object) -> Vec<Attempt> {
    let name = name_of(object);
    let gone = format!("DROP {} {}", kind(&Named::of(object)), bare(&Named::of(object)));
    let (made, behind): (String, &[&str]) = match &object.body {
        Body::View { materialized, query, columns, options } => {
            let columns: Vec<_> = columns.iter().map(|column| ident(column)).collect();
            let options = if options.is_empty() {
                String::new()
            } else {
                format!(" WITH ({})", options.join(", "))
            };
            let what = if *materialized { "MATERIALIZED VIEW" } else { "OR REPLACE VIEW" };
            let query = query.trim_end().trim_end_matches(';');
            let columns = columns.join(", ");
            let text = format!("CREATE {what} {name} ({columns}){options} AS {query}");
            // Columns that differ; a stored view cannot be replaced at all.
            (text, &["42P16", "42P07"])
        }
        // What it returns differs, or the names of its arguments do.
        Body::Routine { definition, .. } => (definition.clone(), &["42P13", "42P16"]),
        _ => return Vec::new(),
    };
    let first = Attempt { texts: vec![made.clone()], ..Attempt::default() };
    vec![first, Attempt { texts: vec![gone, made], behind, ..Attempt::default() }]
}

/// Tables and views go or somebody has to say what becomes of them. The rest stays as long as something here needs it: the
/// source dropped it with a table that is not captured any more.
fn drop_all(objects: &[Named<'_>]) -> Vec<Attempt> {
    let names: Vec<_> = objects.iter().map(bare).collect();
    let kind = objects.first().map_or("TABLE", kind);
    let text = format!("DROP {kind} IF EXISTS {}", names.join(", "));
    let mut attempts = vec![Attempt { texts: vec![text], ..Attempt::default() }];
    if objects.iter().all(|object| !matches!(object.kind, Kind::Table | Kind::View)) {
        attempts.push(Attempt { behind: &["2BP01"], ..Attempt::default() });
    }
    attempts
}

/// Lets whoever applies rows use what another login has made.
fn grant(object: &Object, login: &str) -> Option<String> {
    let (name, login) = (name_of(object), ident(login));
    let rights = match object.body.kind() {
        Kind::Schema => format!("USAGE ON SCHEMA {name}"),
        Kind::Table => format!("SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON {name}"),
        Kind::Sequence => format!("SELECT, USAGE, UPDATE ON SEQUENCE {name}"),
        _ => return None,
    };
    Some(format!("GRANT {rights} TO {login}"))
}

fn alter_type(object: &Object, alter: &AlterType<'_>) -> String {
    let what = match alter {
        AlterType::Add(new) => format!("ADD ATTRIBUTE {}", attribute(new)),
        AlterType::Drop(gone) => format!("DROP ATTRIBUTE IF EXISTS {}", ident(gone)),
        AlterType::Rename { from, to } => {
            format!("RENAME ATTRIBUTE {} TO {}", ident(from), ident(to))
        }
        AlterType::Type(Attribute { name, data_type, collation, .. }) => {
            format!("ALTER ATTRIBUTE {} TYPE {data_type}{}", ident(name), collate(collation))
        }
    };
    format!("ALTER TYPE {} {what}", name_of(object))
}

fn alter_domain(object: &Object, alter: &AlterDomain<'_>) -> String {
    let what = match alter {
        AlterDomain::Default(Some(default)) => format!("SET DEFAULT {default}"),
        AlterDomain::Default(None) => "DROP DEFAULT".to_owned(),
        AlterDomain::NotNull(true) => "SET NOT NULL".to_owned(),
        AlterDomain::NotNull(false) => "DROP NOT NULL".to_owned(),
        AlterDomain::Add(new) => {
            format!("ADD CONSTRAINT {} {}", ident(&new.name), new.definition)
        }
        AlterDomain::Drop(gone) => format!("DROP CONSTRAINT IF EXISTS {}", ident(gone)),
    };
    format!("ALTER DOMAIN {} {what}", name_of(object))
}

fn add_label(object: &Object, label: &str, behind: Option<&str>, ahead: Option<&str>) -> String {
    let place = match (behind, ahead) {
        (Some(behind), _) => format!(" AFTER {}", literal(behind)),
        (None, Some(ahead)) => format!(" BEFORE {}", literal(ahead)),
        (None, None) => String::new(),
    };
    let name = name_of(object);
    format!("ALTER TYPE {name} ADD VALUE IF NOT EXISTS {}{place}", literal(label))
}

fn belongs(sequence: &Object, to: Option<(&Object, &str)>) -> String {
    let to = match to {
        Some((table, column)) => format!("{}.{}", name_of(table), ident(column)),
        None => "NONE".to_owned(),
    };
    format!("ALTER SEQUENCE {} OWNED BY {to}", name_of(sequence))
}

/// Moves a sequence on, never back.
fn advance(sequence: &Object, value: i64, falls: bool) -> String {
    let name = name_of(sequence);
    let lies_behind = if falls { ">" } else { "<" };
    format!(
        "SELECT pg_catalog.setval({}::pg_catalog.regclass, {value}, false) FROM {name} \
         WHERE last_value OPERATOR(pg_catalog.{lies_behind}) {value} \
         OR (last_value OPERATOR(pg_catalog.=) {value} AND is_called)",
        literal(&name)
    )
}

/// The ways to change a table. Rows that are to be copied again may be of an earlier time than the change, and stand in
/// its way: the last way goes without them.
fn alter(table: &Named<'_>, alter: &Alter<'_>) -> Vec<Attempt> {
    let mut ways = ways(table, alter);
    if alter.is_held_against_rows()
        && let Some(way) = ways.first()
    {
        let texts = [vec![empty(&bare(table))], way.texts.clone()].concat();
        let value = way.value.clone();
        ways.push(Attempt { texts, behind: &["22", "23"], empties: true, value });
    }
    ways
}

/// Removes the rows of a table or of all its partitions, but not those of tables that inherit from it.
fn empty(table: &str) -> String {
    let id = format!("{}::pg_catalog.regclass", literal(table));
    format!(
        "DELETE FROM {table} WHERE tableoid OPERATOR(pg_catalog.=) {id} \
         OR tableoid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT relid FROM pg_catalog.pg_partition_tree({id})))"
    )
}

fn ways(table: &Named<'_>, alter: &Alter<'_>) -> Vec<Attempt> {
    let name = bare(table);
    let one = |text: String| vec![Attempt { texts: vec![text], ..Attempt::default() }];
    let on = |what: String| one(format!("ALTER TABLE {name} {what}"));
    let set = |column: &str, what: &str| on(format!("ALTER COLUMN {} {what}", ident(column)));
    match alter {
        Alter::AddColumn { column, identity } => add_column(&name, column, *identity),
        Alter::DropColumn(gone) => on(format!("DROP COLUMN IF EXISTS {}", ident(gone))),
        Alter::RenameColumn { from, to } => {
            on(format!("RENAME COLUMN {} TO {}", ident(from), ident(to)))
        }
        Alter::Type(column) => recast(&name, column),
        Alter::Default(column) => match &column.default {
            Some(default) => set(&column.name, &format!("SET DEFAULT {default}")),
            None => set(&column.name, "DROP DEFAULT"),
        },
        Alter::NoDefault(column) => set(column, "DROP DEFAULT"),
        Alter::NotNull(column) => {
            set(&column.name, if column.not_null { "SET NOT NULL" } else { "DROP NOT NULL" })
        }
        Alter::Nullable(column) => {
            one(format!("ALTER TABLE ONLY {name} ALTER COLUMN {} DROP NOT NULL", ident(column)))
        }
        Alter::Expression(column) => {
            let expression = column.default.as_deref().unwrap_or("NULL");
            set(&column.name, &format!("SET EXPRESSION AS ({expression})"))
        }
        Alter::NoExpression(column) => set(column, "DROP EXPRESSION IF EXISTS"),
        Alter::AddIdentity { column, identity } => {
            set(&column.name, &format!("ADD {}", self::identity(column, *identity)))
        }
        Alter::SetIdentity(column) => set(&column.name, &format!("SET GENERATED {}", when(column))),
        Alter::NoIdentity(column) => set(column, "DROP IDENTITY IF EXISTS"),
        Alter::ColumnComment(column) => {
            let comment = column.comment.as_deref().map_or("NULL".into(), literal);
            one(format!("COMMENT ON COLUMN {name}.{} IS {comment}", ident(&column.name)))
        }
        Alter::AddConstraint(new) => constrain(&name, new),
        Alter::DropConstraint(gone) => on(format!("DROP CONSTRAINT IF EXISTS {}", ident(gone))),
        Alter::RenameConstraint { from, to } => {
            on(format!("RENAME CONSTRAINT {} TO {}", ident(from), ident(to)))
        }
        Alter::AddIndex(new) => one(new.definition.clone()),
        Alter::DropIndex(gone) => {
            one(format!("DROP INDEX IF EXISTS {}", qualified(table.schema, gone)))
        }
        Alter::RenameIndex { from, to } => {
            one(format!("ALTER INDEX {} RENAME TO {}", qualified(table.schema, from), ident(to)))
        }
        Alter::Identity(table) => on(format!("REPLICA IDENTITY {}", replica_identity(table))),
        Alter::Attach(of) => one(format!(
            "ALTER TABLE {} ATTACH PARTITION {name} {}",
            qualified(&of.schema, &of.name),
            of.bound
        )),
        Alter::Detach(of) => {
            one(format!("ALTER TABLE {} DETACH PARTITION {name}", qualified(&of.schema, &of.name)))
        }
        Alter::Inherit((schema, parent)) => on(format!("INHERIT {}", qualified(schema, parent))),
        Alter::NoInherit((schema, parent)) => {
            on(format!("NO INHERIT {}", qualified(schema, parent)))
        }
    }
}

/// Adds a column, first with the value that older rows have.
fn add_column(table: &str, column: &TableColumn, identity: Option<&Object>) -> Vec<Attempt> {
    let missing = column.missing.as_ref().filter(|_| column.generated.is_none());
    let missing = missing.map(|text| format!("{}::{}", literal(text), column.data_type));
    let default = missing.as_deref().or(column.default.as_deref());
    let add = |column: &TableColumn| {
        let new = self::column(column, default, identity);
        vec![format!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {new}")]
    };
    let value = missing.clone();
    let mut ways = vec![Attempt { texts: add(column), value, ..Attempt::default() }];
    let plainer = stored(column);
    if plainer != *column {
        let behind = &[NO_SUCH_SYNTAX];
        ways.push(Attempt { texts: add(&plainer), behind, ..Attempt::default() });
    }
    ways
}

fn constrain(table: &str, new: &Constraint) -> Vec<Attempt> {
    let attempt = |more, behind| {
        let (name, definition) = (ident(&new.name), &new.definition);
        let text = format!("ALTER TABLE {table} ADD CONSTRAINT {name} {definition}{more}");
        Attempt { texts: vec![text], behind, ..Attempt::default() }
    };
    let mut attempts = vec![attempt("", &[])];
    if new.foreign {
        // Rows that were copied at different times are not held against it; nor is a table that is not here.
        attempts.push(attempt(" NOT VALID", &["23503"]));
        attempts.push(Attempt { behind: &["42P01", "3F000"], ..Attempt::default() });
    }
    if new.definition.ends_with(" NOT ENFORCED") {
        // It keeps out no row, so a server that knows no such constraint does without.
        attempts.push(Attempt { behind: &[NO_SUCH_SYNTAX], ..Attempt::default() });
    }
    attempts
}

/// A column gets another type: by assignment, else by what its values look like. If neither goes and the rows are copied
/// again anyway, without them.
fn recast(table: &str, column: &TableColumn) -> Vec<Attempt> {
    let (name, of) = (ident(&column.name), &column.data_type);
    let to =
        format!("ALTER TABLE {table} ALTER COLUMN {name} TYPE {of}{}", collate(&column.collation));
    let attempt = |texts: Vec<String>| Attempt {
        texts,
        behind: &["42804", "42846", "42883", "22", "23"],
        ..Attempt::default()
    };
    vec![
        Attempt { texts: vec![to.clone()], ..Attempt::default() },
        attempt(vec![format!("{to} USING {name}::pg_catalog.text::{of}")]),
        Attempt {
            empties: true,
            ..attempt(vec![
                format!("DELETE FROM {table}"),
                format!("{to} USING NULL::pg_catalog.text::{of}"),
            ])
        },
    ]
}

fn replica_identity(table: &Table) -> String {
    match (table.identity, &table.identity_index) {
        (ReplicaIdentity::Index, Some(index)) => format!("USING INDEX {}", ident(index)),
        (ReplicaIdentity::Full, _) => "FULL".to_owned(),
        (ReplicaIdentity::Nothing, _) => "NOTHING".to_owned(),
        _ => "DEFAULT".to_owned(),
    }
}
