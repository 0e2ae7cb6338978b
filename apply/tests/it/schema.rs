//! Schema changes that streams tell of, on a real database.

use thinwire_apply::{Applier, Options, Setup, State, init};
use thinwire_engine::model::{
    Attribute, Body, Constraint, Definitions, Dropped, Generated, Index, Kind, Object, Partition,
    Record, RelationId, ReplicaIdentity, Schema, Sequence, Table as TableBody, TableColumn,
};

use crate::{
    database::{Database, applied, halted, in_state},
    feed::{Feed, Table, copy_records},
};

/// A column such as `id int4 not null`: its name, its type, and whether null is refused.
fn column(number: i16, text: &str) -> TableColumn {
    let (text, not_null) = match text.strip_suffix(" not null") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (name, data_type) = text.split_once(' ').unwrap();
    TableColumn {
        number,
        name: name.to_owned(),
        data_type: data_type.to_owned(),
        collation: None,
        not_null,
        default: None,
        missing: None,
        generated: None,
        comment: None,
    }
}

fn object(id: u32, name: &str, body: Body) -> Object {
    let (schema, name) = name.split_once('.').unwrap_or(("", name));
    Object {
        id,
        schema: schema.to_owned(),
        name: name.to_owned(),
        owner: "postgres".to_owned(),
        comment: None,
        body,
    }
}

/// A table with columns that are numbered from one.
fn table(id: u32, name: &str, columns: &[&str]) -> Object {
    let numbered = columns.iter().zip(1..).map(|(text, number)| column(number, text));
    object(id, name, Body::Table(TableBody { columns: numbered.collect(), ..empty() }))
}

fn empty() -> TableBody {
    TableBody {
        columns: Vec::new(),
        constraints: Vec::new(),
        indexes: Vec::new(),
        identity: ReplicaIdentity::Default,
        identity_index: None,
        partition_key: None,
        partition_of: None,
        inherits: Vec::new(),
    }
}

fn constraint(name: &str, definition: &str) -> Constraint {
    let foreign = definition.starts_with("FOREIGN");
    Constraint { name: name.to_owned(), definition: definition.to_owned(), foreign }
}

fn with(mut object: Object, change: impl FnOnce(&mut TableBody)) -> Object {
    let Body::Table(table) = &mut object.body else { panic!("not a table") };
    change(table);
    object
}

fn told(objects: &[Object]) -> Record {
    schema(&[], objects, &[])
}

fn schema(stale: &[u32], objects: &[Object], dropped: &[Dropped]) -> Record {
    let definitions = Definitions { objects: objects.to_vec(), dropped: dropped.to_vec() };
    Record::Schema(Schema {
        born: Vec::new(),
        stale: stale.iter().copied().map(RelationId).collect(),
        definitions: definitions.encode(),
    })
}

fn gone(object: &Object) -> Dropped {
    let (schema, name) = (object.schema.clone(), object.name.clone());
    Dropped { id: object.id, kind: object.body.kind(), schema, name }
}

/// What psql would show of a table's columns.
fn columns(database: &Database, table: &str) -> String {
    database.sql(&format!(
        "select string_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod), \
         case when attnotnull then 'not null' end, 'default ' || pg_get_expr(adbin, adrelid)), ', ' order by attnum) \
         from pg_attribute a left join pg_attrdef d on adrelid = attrelid and adnum = attnum \
         where attrelid = '{table}'::regclass and attnum > 0 and not attisdropped"
    ))
}

#[tokio::test]
async fn a_table_is_created_filled_changed_and_dropped_in_its_place_among_the_rows() {
    let database = Database::new("").await;
    let feed = Feed::new();
    let made = with(table(7, "public.riders", &["id integer not null", "name text"]), |table| {
        table.constraints.push(constraint("riders_pkey", "PRIMARY KEY (id)"));
    });
    let riders = Table::new(7, "public.riders", &["id*", "name"]);
    feed.transaction(&[
        told(&[made.clone()]),
        riders.relation(),
        riders.insert("1|Ann"),
        riders.insert("2|Bob"),
    ]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select * from riders order by id"), "1|Ann\n2|Bob");

    // A column is renamed, one is added with a value for the rows that are there, and one gets another type.
    let changed = with(made.clone(), |table| {
        table.columns[1].name = "rider".to_owned();
        table.columns[0].data_type = "bigint".to_owned();
        let mut age = column(3, "age integer not null");
        (age.default, age.missing) = (Some("0".to_owned()), Some("18".to_owned()));
        table.columns.push(age);
    });
    let wider = Table::new(7, "public.riders", &["id*", "rider", "age"]);
    feed.transaction(&[
        riders.insert("3|Cid"),
        told(&[changed.clone()]),
        wider.relation(),
        wider.update("2|Bea|20"),
        wider.insert("4|Dan|30"),
    ]);
    database.apply_all(&feed).await;
    let rows = "1|Ann|18\n2|Bea|20\n3|Cid|18\n4|Dan|30";
    assert_eq!(database.sql("select * from riders order by id"), rows);
    let shape = "id bigint not null, rider text, age integer not null default 0";
    assert_eq!(columns(&database, "riders"), shape);

    let shorter = with(changed, |table| drop(table.columns.remove(1)));
    let narrow = Table::new(7, "public.riders", &["id*", "age"]);
    feed.transaction(&[told(&[shorter.clone()]), narrow.relation(), narrow.delete("1|~")]);
    database.apply_all(&feed).await;
    assert_eq!(columns(&database, "riders"), "id bigint not null, age integer not null default 0");
    assert_eq!(database.sql("select count(*) from riders"), "3");
    assert_eq!(database.sql("select count(*) from thinwire.definitions"), "1");

    // Told again, nothing happens.
    let before = database.sql("select max(xmin::text::int8) from pg_attribute");
    feed.transaction(&[told(&[shorter.clone()])]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select max(xmin::text::int8) from pg_attribute"), before);

    feed.transaction(&[schema(&[], &[], &[gone(&shorter)])]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select to_regclass('riders') is null"), "t");
    assert_eq!(database.sql("select count(*) from thinwire.definitions"), "0");
}
