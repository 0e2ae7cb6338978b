//! Schema changes that streams tell of, on a real database.

use thinwire_apply::{Applier, Options, Setup, State, Tables};
use thinwire_engine::model::{
    Attribute, Body, Constraint, Definitions, Dropped, Generated, Index, Object, Partition, Record,
    RelationId, ReplicaIdentity, Schema, Sequence, Table as TableBody, TableColumn,
};

use crate::{
    database::{Database, applied, halted, in_state, init, said, setup_of},
    feed::{Feed, Table, copy_records},
};

/// A column such as `id int4 not null`: its name, its type, and whether null is refused.
pub(crate) fn column(number: i16, text: &str) -> TableColumn {
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

pub(crate) fn object(id: u32, name: &str, body: Body) -> Object {
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
pub(crate) fn table(id: u32, name: &str, columns: &[&str]) -> Object {
    let numbered = columns.iter().zip(1..).map(|(text, number)| column(number, text));
    object(id, name, Body::Table(TableBody { columns: numbered.collect(), ..TableBody::default() }))
}

pub(crate) fn constraint(name: &str, definition: &str) -> Constraint {
    let foreign = definition.starts_with("FOREIGN");
    Constraint { name: name.to_owned(), definition: definition.to_owned(), foreign }
}

pub(crate) fn with(mut object: Object, change: impl FnOnce(&mut TableBody)) -> Object {
    let Body::Table(table) = &mut object.body else { panic!("not a table") };
    change(table);
    object
}

pub(crate) fn told(objects: &[Object]) -> Record {
    schema(&[], objects, &[])
}

pub(crate) fn one(object: &Object) -> Record {
    told(std::slice::from_ref(object))
}

pub(crate) fn schema(stale: &[u32], objects: &[Object], dropped: &[Dropped]) -> Record {
    let definitions = Definitions { objects: objects.to_vec(), dropped: dropped.to_vec() };
    Record::Schema(Schema {
        born: Vec::new(),
        stale: stale.iter().copied().map(RelationId).collect(),
        definitions: definitions.encode(),
    })
}

pub(crate) fn gone(object: &Object) -> Dropped {
    let (schema, name) = (object.schema.clone(), object.name.clone());
    Dropped { id: object.id, kind: object.body.kind(), schema, name }
}

/// What psql would show of a table's columns.
pub(crate) fn columns(database: &Database, table: &str) -> String {
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
        one(&made),
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
        one(&changed),
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
    feed.transaction(&[one(&shorter), narrow.relation(), narrow.delete("1|~")]);
    database.apply_all(&feed).await;
    assert_eq!(columns(&database, "riders"), "id bigint not null, age integer not null default 0");
    assert_eq!(database.sql("select count(*) from riders"), "3");
    assert_eq!(database.sql("select count(*) from thinwire.definitions"), "1");

    // Told again, nothing happens.
    let before = database.sql("select max(xmin::text::int8) from pg_attribute");
    feed.transaction(&[one(&shorter)]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select max(xmin::text::int8) from pg_attribute"), before);

    feed.transaction(&[schema(&[], &[], &[gone(&shorter)])]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select to_regclass('riders') is null"), "t");
    assert_eq!(database.sql("select count(*) from thinwire.definitions"), "0");
}

pub(crate) fn sequence(value: Option<i64>, owned_by: Option<(u32, i16)>) -> Sequence {
    Sequence {
        data_type: "bigint".to_owned(),
        start: 1,
        increment: 1,
        min: 1,
        max: i64::MAX,
        cache: 1,
        cycle: false,
        owned_by,
        identity: false,
        value,
    }
}

pub(crate) fn labels(labels: &[&str]) -> Body {
    Body::Enum { labels: labels.iter().map(|label| (*label).to_owned()).collect() }
}

#[tokio::test]
async fn types_are_made_and_changed_and_a_new_label_can_be_used_at_once() {
    let database = Database::new("").await;
    let feed = Feed::new();
    let namespace = object(1, "app", Body::Schema {});
    let mood = object(2, "app.mood", labels(&["sad", "it's ok"]));
    let attribute = |number, name: &str, data_type: &str| Attribute {
        number,
        name: name.to_owned(),
        data_type: data_type.to_owned(),
        collation: None,
    };
    let pair = |attributes| object(3, "app.pair", Body::Composite { attributes });
    let positive = |default: &str, check: &str| {
        let body = Body::Domain {
            base: "integer".to_owned(),
            collation: None,
            not_null: false,
            default: Some(default.to_owned()),
            constraints: vec![constraint("positive_check", check)],
        };
        object(4, "app.positive", body)
    };
    let definition = "SUBTYPE = double precision".to_owned();
    let range = object(5, "app.span", Body::Range { definition });
    let t = table(6, "app.t", &["id integer not null", "mood app.mood", "pair app.pair"]);
    let rows = Table::new(6, "app.t", &["id*", "mood", "pair"]);
    feed.transaction(&[
        told(&[
            namespace,
            mood,
            pair(vec![attribute(1, "a", "integer"), attribute(2, "b", "text")]),
            positive("1", "CHECK ((VALUE > 0))"),
            range,
            t,
        ]),
        rows.relation(),
        rows.insert("1|it's ok|(1,x)"),
    ]);
    // Each of these would be one target transaction with what uses the label.
    let more = labels(&["awful", "sad", "so\\so", "it's ok"]);
    feed.append_unsynced(&feed.wrapped(&[told(&[object(2, "app.mood", more)])]));
    feed.append_unsynced(&feed.wrapped(&[rows.insert("2|so\\so|~"), rows.insert("3|awful|~")]));
    let renamed = labels(&["awful", "low", "so\\so", "it's ok"]);
    feed.append_unsynced(&feed.wrapped(&[told(&[object(2, "app.mood", renamed)])]));
    feed.append_unsynced(&feed.wrapped(&[rows.insert("4|low|~")]));
    let other = pair(vec![attribute(2, "bee", "text"), attribute(3, "c", "boolean")]);
    feed.append_unsynced(&feed.wrapped(&[told(&[other])]));
    let changed = positive("7", "CHECK ((VALUE > 5))");
    feed.transaction(&[told(&[changed])]);
    database.apply_all(&feed).await;
    let moods = "select string_agg(mood::text, ',' order by mood) from app.t";
    assert_eq!(database.sql(moods), "awful,low,so\\so,it's ok");
    assert_eq!(database.sql("select (pair).bee, (pair).c is null from app.t where id = 1"), "x|t");
    let domain = "select typdefault, (select pg_get_constraintdef(oid) from pg_constraint \
                  where contypid = t.oid) from pg_type t where typname = 'positive'";
    assert_eq!(database.sql(domain), "7|CHECK ((VALUE > 5))");
    assert_eq!(database.sql("select app.span(1, 2)"), "[1,2)");
}

#[tokio::test]
async fn sequences_belong_to_their_columns_and_never_go_back() {
    let database = Database::new("").await;
    let feed = Feed::new();
    let own = |value, by| object(1, "public.t_id_seq", Body::Sequence(sequence(value, by)));
    let identity = |value| {
        let body = Sequence { identity: true, start: 5, ..sequence(value, Some((2, 2))) };
        object(3, "public.numbers", Body::Sequence(body))
    };
    let t = with(table(2, "public.t", &["id bigint not null", "n bigint not null"]), |table| {
        table.columns[0].default = Some("nextval('public.t_id_seq'::regclass)".to_owned());
        table.columns[1].generated = Some(Generated::IdentityAlways);
    });
    // Before their table is told of, there is no place for them.
    feed.append(&[told(&[own(Some(20), Some((2, 1))), identity(Some(20))])]);
    feed.transaction(&[told(&[own(None, Some((2, 1))), identity(Some(30)), t])]);
    database.apply_all(&feed).await;
    let next = "insert into t default values returning id, n";
    assert_eq!(database.sql(next).lines().next(), Some("1|30"));
    let of = "select pg_get_serial_sequence('t', 'id'), pg_get_serial_sequence('t', 'n')";
    assert_eq!(database.sql(of), "public.t_id_seq|public.numbers");
    feed.append(&[told(&[own(Some(100), Some((2, 1))), identity(Some(70))])]);
    feed.append(&[told(&[own(Some(50), Some((2, 1)))])]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql(next).lines().next(), Some("100|70"));
    // It counts down, and by more.
    let falls = |value| {
        let body =
            Sequence { increment: -10, min: -1000, max: 1000, start: 900, ..sequence(value, None) };
        object(4, "public.falls", Body::Sequence(body))
    };
    feed.transaction(&[told(&[falls(None)])]);
    feed.append(&[told(&[falls(Some(500))])]);
    feed.append(&[told(&[falls(Some(700))])]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select nextval('falls')"), "500");
}

#[tokio::test]
async fn partitions_are_born_with_their_root_detached_and_dropped() {
    let database = Database::new("").await;
    let feed = Feed::new();
    let root = with(table(1, "public.log", &["day date not null", "text text"]), |table| {
        table.partition_key = Some("RANGE (day)".to_owned());
        table.constraints.push(constraint("log_pkey", "PRIMARY KEY (day)"));
        table.constraints.push(constraint("log_text_check", "CHECK ((text <> ''::text))"));
    });
    let part = |id, name: &str, bound: &str| {
        with(table(id, name, &["day date not null", "text text"]), |table| {
            table.columns[1].default = Some("'none'::text".to_owned());
            let (schema, name) = ("public".to_owned(), "log".to_owned());
            table.partition_of = Some(Partition { schema, name, bound: bound.to_owned() });
        })
    };
    let first = part(2, "public.log_1", "FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')");
    let rest = part(3, "public.log_rest", "DEFAULT");
    let log = Table::new(1, "public.log", &["day*", "text"]);
    feed.transaction(&[
        told(&[root]),
        one(&first),
        one(&rest),
        log.relation(),
        log.insert("2026-01-05|a"),
        log.insert("2027-01-05|b"),
    ]);
    database.apply_all(&feed).await;
    let counts = "select (select count(*) from log_1), (select count(*) from log_rest)";
    assert_eq!(database.sql(counts), "1|1");
    assert_eq!(
        database.sql("insert into log_1 (day) values ('2026-01-07') returning text").lines().next(),
        Some("none")
    );
    let alone = with(first, |table| {
        table.partition_of = None;
        table.constraints.push(constraint("log_1_pkey", "PRIMARY KEY (day)"));
        table.constraints.push(constraint("log_text_check", "CHECK ((text <> ''::text))"));
    });
    feed.transaction(&[told(&[alone]), schema(&[], &[], &[gone(&rest)])]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select count(*), to_regclass('log_rest') from log"), "0|");
    assert_eq!(database.sql("select count(*) from log_1"), "2");
}

#[tokio::test]
async fn views_and_routines_are_replaced_and_go_with_what_they_need() {
    let database = Database::new("").await;
    let feed = Feed::new();
    let view = |columns: &[&str], query: &str| {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        let (query, options) = (query.to_owned(), vec!["security_barrier=true".to_owned()]);
        object(2, "public.v", Body::View { materialized: false, query, columns, options })
    };
    let routine = |returns: &str, body: &str| {
        let definition = format!(
            "CREATE OR REPLACE FUNCTION public.double(integer)\n RETURNS {returns}\n LANGUAGE sql\nAS $f$ {body} $f$"
        );
        let arguments = "integer".to_owned();
        object(3, "public.double", Body::Routine { definition, arguments, procedure: false })
    };
    let t = table(1, "public.t", &["id integer not null"]);
    let stored = Body::View {
        materialized: true,
        query: " SELECT 1 AS one;".to_owned(),
        columns: vec!["one".to_owned()],
        options: Vec::new(),
    };
    let stored = object(4, "public.stored", stored);
    let first = view(&["id"], " SELECT t.id FROM public.t;");
    feed.transaction(&[told(&[t.clone(), first, routine("integer", "SELECT $1 * 2"), stored])]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select public.double(4), one from public.stored"), "8|1");
    // Neither can be replaced in place.
    let second = view(&["twice", "id"], " SELECT public.double(t.id) AS twice, t.id FROM public.t");
    feed.transaction(&[told(&[routine("bigint", "SELECT $1 * 2::bigint")]), one(&second)]);
    let rows = Table::new(1, "public.t", &["id*"]);
    feed.transaction(&[rows.relation(), rows.insert("21")]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select * from v"), "42|21");
    let routine = routine("bigint", "");
    feed.transaction(&[schema(&[], &[], &[gone(&t), gone(&routine), gone(&second)])]);
    database.apply_all(&feed).await;
    assert_eq!(
        database.sql("select to_regclass('t'), to_regclass('v'), to_regproc('double')"),
        "||"
    );
}

#[tokio::test]
async fn constraints_and_indexes_follow_and_renames_cost_nothing() {
    let database = Database::new("").await;
    let feed = Feed::new();
    let index = |name: &str, rest: &str| Index {
        name: name.to_owned(),
        definition: format!("CREATE INDEX {name} ON public.{rest}"),
    };
    let parent = with(table(1, "public.parent", &["id integer not null", "a text"]), |table| {
        table.constraints.push(constraint("parent_pkey", "PRIMARY KEY (id)"));
        table.indexes.push(index("by_a", "parent USING btree (a)"));
    });
    let child = with(table(2, "public.child", &["parent integer"]), |table| {
        let foreign = "FOREIGN KEY (parent) REFERENCES public.parent(id)";
        table.constraints.push(constraint("child_fkey", foreign));
        let missing = "FOREIGN KEY (parent) REFERENCES public.elsewhere(id)";
        table.constraints.push(constraint("missing_fkey", missing));
    });
    // The reference is told before what it refers to.
    feed.transaction(&[told(&[child.clone(), parent.clone()])]);
    database.apply_all(&feed).await;
    let names = "select string_agg(conname || ' ' || pg_get_constraintdef(oid), '; ' order by conname) \
                 from pg_constraint where conrelid in ('parent'::regclass, 'child'::regclass) and contype <> 'n'";
    assert_eq!(
        database.sql(names),
        "child_fkey FOREIGN KEY (parent) REFERENCES parent(id); parent_pkey PRIMARY KEY (id)"
    );
    let indexed = "select indexrelid, indexrelid::regclass from pg_index where indexrelid::regclass::text like 'by%'";
    let before = database.sql(indexed);
    let oid = before.split('|').next().unwrap();
    // The key's column has another name now, and the index.
    let renamed = with(parent, |table| {
        table.columns[0].name = "number".to_owned();
        table.constraints[0].definition = "PRIMARY KEY (number)".to_owned();
        table.indexes[0] = index("by_name", "parent USING btree (a)");
    });
    let follows = with(child, |table| {
        table.constraints[0].definition =
            "FOREIGN KEY (parent) REFERENCES public.parent(number)".to_owned();
    });
    feed.transaction(&[one(&renamed), one(&follows)]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql(indexed), format!("{oid}|by_name"));
    // Both go, the reference with what it refers to.
    let keyless = with(renamed, |table| {
        table.constraints.clear();
        table.columns[0].not_null = false;
        table.indexes[0] = index("by_name", "parent USING hash (a)");
        table.identity = ReplicaIdentity::Full;
    });
    let free = with(follows, |table| table.constraints.clear());
    feed.transaction(&[told(&[keyless, free])]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql(names), "");
    let hash = "select indexdef like '%USING hash%', (select relreplident from pg_class where relname = 'parent') \
                from pg_indexes where indexname = 'by_name'";
    assert_eq!(database.sql(hash), "t|f");
}

#[tokio::test]
async fn a_table_that_was_here_keeps_its_shape_and_gets_what_is_added() {
    let database = Database::new("create table t (extra int, id int primary key)").await;
    let feed = Feed::new();
    let first = with(table(1, "public.t", &["id integer not null"]), |table| {
        table.constraints.push(constraint("other_name", "PRIMARY KEY (id)"));
    });
    feed.transaction(&[one(&first)]);
    database.apply_all(&feed).await;
    assert_eq!(columns(&database, "t"), "extra integer, id integer not null");
    // Somebody has done it here already.
    database.sql("alter table t add b text; alter table t rename id to key");
    let second = with(first, |table| {
        table.columns[0].name = "key".to_owned();
        table.columns.push(column(2, "b text"));
        table.columns.push(column(3, "c text"));
    });
    feed.transaction(&[told(&[second])]);
    database.apply_all(&feed).await;
    assert_eq!(columns(&database, "t"), "extra integer, key integer not null, b text, c text");

    // Whether the one column is the other cannot be known.
    database.sql("create table u (old int)");
    feed.transaction(&[told(&[table(2, "public.u", &["new integer"])])]);
    let applier = database.apply(&feed);
    let halt = halted(&applier, &feed.stream).await;
    assert_eq!((&*halt.code, halt.table.as_deref()), ("schema_refused", Some("public.u")));
    assert!(halt.detail.contains("lacks the column new and has old"), "{}", halt.detail);
    database.sql("alter table u rename old to new");
    applier.retry();
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
}

#[tokio::test]
async fn a_type_that_no_cast_leads_to_is_taken_if_the_rows_are_copied_again() {
    let database = Database::new("").await;
    let feed = Feed::new();
    let t = table(1, "public.t", &["id integer not null", "v text not null"]);
    let rows = Table::new(1, "public.t", &["id*", "v"]);
    feed.transaction(&[one(&t), rows.relation(), rows.insert("1|12"), rows.insert("2|7")]);
    // Text to integer has no assignment cast, but these values look like integers.
    let number = with(t, |table| table.columns[1].data_type = "integer".to_owned());
    feed.transaction(&[one(&number)]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select * from t order by id"), "1|12\n2|7");
    let truth = with(number, |table| table.columns[1].data_type = "uuid".to_owned());
    feed.transaction(&[one(&truth)]);
    let applier = database.apply(&feed);
    let halt = halted(&applier, &feed.stream).await;
    assert_eq!(halt.code, "schema_refused");
    assert!(halt.detail.contains("ALTER COLUMN \"v\" TYPE uuid"), "{}", halt.detail);
    applier.shutdown().await;

    // Rows that are copied again make way, as long as they are the stream's.
    for (own, stale, goes) in [("", &[1][..], true), ("", &[], false), ("(9, 9)", &[1], false)] {
        let feed = Feed::new();
        let database = Database::new("create table t (id int primary key, v int not null)").await;
        let number = table(1, "public.t", &["id integer not null", "v integer not null"]);
        if own.is_empty() {
            feed.copy(&rows, &["1|1"]);
        } else {
            database.sql(&format!("insert into t values {own}"));
        }
        feed.transaction(&[one(&number)]);
        feed.transaction(&[schema(stale, std::slice::from_ref(&truth), &[])]);
        if goes {
            feed.copy(&rows, &["1|00000000-0000-0000-0000-000000000001"]);
            database.apply_all(&feed).await;
            assert_eq!(database.sql("select v from t"), "00000000-0000-0000-0000-000000000001");
            continue;
        }
        let applier = database.apply(&feed);
        assert_eq!(halted(&applier, &feed.stream).await.code, "schema_refused");
        applier.shutdown().await;
        assert_eq!(database.sql("select count(*) from t"), "1");
    }
}

#[tokio::test]
async fn rows_of_an_earlier_time_do_not_stand_in_the_way_of_a_change_if_they_are_copied_again() {
    let rows = Table::new(1, "public.t", &["id*", "v"]);
    let made = table(1, "public.t", &["id integer not null", "v integer"]);
    type Change = fn(&mut TableBody);
    let changes: [Change; 5] = [
        |table| table.constraints.push(constraint("t_v_key", "UNIQUE (v)")),
        |table| table.constraints.push(constraint("few", "CHECK (v < 5)")),
        |table| table.columns[1].not_null = true,
        |table| {
            let (name, on) = ("i".to_owned(), "ON public.t USING btree (v)");
            table.indexes.push(Index { name, definition: format!("CREATE UNIQUE INDEX i {on}") });
        },
        |table| {
            let mut third = column(3, "w integer");
            (third.default, third.generated) =
                (Some("1 / (v - 5)".into()), Some(Generated::Stored));
            table.columns.push(third);
        },
    ];
    for change in changes {
        let changed = with(made.clone(), change);
        // The change stands behind what makes the rows old, or in the copy itself.
        for behind in [true, false] {
            let database = Database::new("").await;
            let feed = Feed::new();
            feed.transaction(&[one(&made), rows.relation()]);
            feed.copy(&rows, &["1|5", "2|5", "3|~"]);
            if behind {
                feed.transaction(&[schema(&[1], &[], &[])]);
                feed.transaction(&[schema(&[1], std::slice::from_ref(&changed), &[])]);
                feed.copy(&rows, &["1|1", "2|2"]);
            } else {
                let mut records = copy_records(&rows, &["1|1", "2|2"], Vec::new());
                records.insert(1, one(&changed));
                feed.append(&records);
            }
            database.apply_all(&feed).await;
            assert_eq!(database.sql("select id, v from t order by id"), "1|1\n2|2");
            let is_changed = "select string_agg(pg_get_constraintdef(oid), '') is not null \
                 or to_regclass('i') is not null from pg_constraint where conrelid = 't'::regclass";
            let shape = columns(&database, "t");
            assert!(
                shape != "id integer not null, v integer" || database.sql(is_changed) == "t",
                "{shape}"
            );
        }
    }
}

#[tokio::test]
async fn a_copy_creates_tables_that_are_missing_and_leaves_the_others() {
    let database = Database::new("create table here (note text, id int primary key)").await;
    let feed = Feed::new();
    let new = with(table(1, "app.new", &["id integer not null", "v text"]), |table| {
        table.constraints.push(constraint("new_pkey", "PRIMARY KEY (id)"));
    });
    let here = with(table(2, "public.here", &["id integer not null"]), |table| {
        table.indexes.push(Index {
            name: "i".to_owned(),
            definition: "CREATE INDEX i ON public.here USING btree (id)".to_owned(),
        });
    });
    let rows = Table::new(1, "app.new", &["id*", "v"]);
    let mut records = copy_records(&rows, &["1|a", "2|b"], Vec::new());
    records.insert(1, told(&[object(9, "app", Body::Schema {}), new, here]));
    feed.append(&records);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select * from app.new order by id"), "1|a\n2|b");
    assert_eq!(columns(&database, "here"), "note text, id integer not null");
    assert_eq!(database.sql("select to_regclass('i') is null"), "t");
    assert_eq!(database.sql("select count(*) from thinwire.definitions"), "3");
    // One that somebody has removed since comes whole, as if it had never been told of.
    database.sql("drop table app.new");
    feed.append(&records);
    feed.transaction(&[rows.update("1|c")]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select * from app.new order by id"), "1|c\n2|b");
    assert_eq!(database.sql("select to_regclass('app.new_pkey') is null"), "f");
}

#[tokio::test]
async fn what_the_target_cannot_take_halts_and_what_was_done_by_hand_is_not_done_again() {
    let database = Database::new(
        "create table t (id int primary key, v text); create view v as select v from t",
    )
    .await;
    let feed = Feed::new();
    let t = table(1, "public.t", &["id integer not null", "v text"]);
    feed.transaction(&[one(&t)]);
    let changed = with(t, |table| {
        table.columns.pop();
        table.columns.push(column(3, "w text"));
    });
    let rows = Table::new(1, "public.t", &["id*", "w"]);
    let last = feed.transaction(&[told(&[changed]), rows.relation(), rows.insert("1|x")]);
    let applier = database.apply(&feed);
    let halt = halted(&applier, &feed.stream).await;
    assert_eq!((&*halt.code, halt.table.as_deref()), ("schema_refused", Some("public.t")));
    assert_eq!(halt.offset.map(|offset| offset.get()), Some(last.get() - 3));
    assert!(halt.detail.contains("DROP COLUMN IF EXISTS \"v\""), "{}", halt.detail);
    assert!(halt.detail.contains("other objects depend on it"), "{}", halt.detail);
    database.sql("drop view v; alter table t add w text");
    applier.retry();
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(database.sql("select * from t"), "1|x");
}

#[tokio::test]
async fn what_only_newer_servers_know_is_made_as_it_can_be_or_by_hand() {
    let database = Database::new("").await;
    let feed = Feed::new();
    let doubled = |number, name: &str| TableColumn {
        default: Some("(id * 2)".to_owned()),
        generated: Some(Generated::Virtual),
        ..column(number, &format!("{name} integer"))
    };
    let t = with(table(1, "public.t", &["id integer not null"]), |table| {
        table.columns.push(doubled(2, "twice"));
        table.constraints.push(constraint("above", "CHECK ((id > 5)) NOT ENFORCED"));
    });
    let more = with(t.clone(), |table| table.columns.push(doubled(3, "again")));
    let rows = Table::new(1, "public.t", &["id*"]);
    feed.transaction(&[one(&t), rows.relation(), rows.insert("1")]);
    feed.transaction(&[one(&more), rows.relation(), rows.insert("2")]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select * from t order by id"), "1|2|2\n2|4|4");
    let view = Body::View {
        materialized: false,
        query: " SELECT t.id FROM public.t".to_owned(),
        columns: vec!["id".to_owned()],
        options: vec!["unheard_of=true".to_owned()],
    };
    let last =
        feed.transaction(&[one(&object(2, "public.v", view)), rows.relation(), rows.insert("3")]);
    let applier = database.apply(&feed);
    let halt = halted(&applier, &feed.stream).await;
    assert_eq!((&*halt.code, halt.table.as_deref()), ("schema_refused", Some("public.v")));
    assert_eq!(halt.offset.map(|offset| offset.get()), Some(last.get() - 3));
    assert!(halt.detail.contains("unheard_of"), "{}", halt.detail);
    database.sql("create view v as select 7 as id");
    applier.retry();
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(database.sql("select id, (select count(*) from t) from v"), "7|3");
}

#[tokio::test]
async fn a_definition_is_one_statement_or_none() {
    let database = Database::new("create table victim (id int)").await;
    let feed = Feed::new();
    let evil = with(table(1, "public.t", &["id integer"]), |table| {
        table.columns[0].default = Some("1); DROP TABLE public.victim; --".to_owned());
    });
    feed.transaction(&[told(&[evil])]);
    let applier = database.apply(&feed);
    assert_eq!(halted(&applier, &feed.stream).await.code, "schema_refused");
    applier.shutdown().await;
    assert_eq!(database.sql("select to_regclass('victim') is not null"), "t");
    for name in ["thinwire.applied", "pg_catalog.pg_class", "information_schema.tables"] {
        let feed = Feed::new();
        feed.transaction(&[told(&[table(1, name, &["id integer"])])]);
        let applier = database.apply(&feed);
        let halt = halted(&applier, &feed.stream).await;
        assert_eq!((&*halt.code, halt.table.as_deref()), ("schema_refused", Some(name)));
        applier.shutdown().await;
    }
    let feed = Feed::new();
    let odd = table(1, "public.a\"b'; $$\n--", &["\"q integer"]);
    feed.transaction(&[told(&[odd])]);
    database.apply_all(&feed).await;
    let named = "select count(*) from pg_class where relname = E'a\"b''; $$\\n--'";
    assert_eq!(database.sql(named), "1");
}

#[tokio::test]
async fn a_reader_who_stays_is_waited_for_and_named_as_the_reason() {
    let database = Database::new("create table t (id int primary key)").await;
    let feed = Feed::new();
    let t = table(1, "public.t", &["id integer not null"]);
    feed.transaction(&[one(&t)]);
    database.apply_all(&feed).await;
    let target = database.target();
    let (reader, connection) = target.config.connect(tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    reader.batch_execute("begin; select * from t").await.unwrap();
    feed.transaction(&[told(&[with(t, |table| table.columns.push(column(2, "v text")))])]);
    let applier = database.apply(&feed);
    in_state(&applier, State::Waiting).await;
    said(&applier, "the schema of public.t is to be changed").await;
    reader.batch_execute("commit").await.unwrap();
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    drop(reader);
    connection.await.unwrap().unwrap();
    assert_eq!(columns(&database, "t"), "id integer not null, v text");
}

#[tokio::test]
async fn another_login_changes_the_schema_for_one_that_may_only_write_rows() {
    let database = Database::bare(Database::shared(), "create table t (id int primary key)");
    let (rows, owner) = (format!("rows_{}", database.name), format!("owner_{}", database.name));
    database.sql(&format!(
        "create role {rows} login; create role {owner} login; alter table t owner to {owner}; \
         grant create on schema public to {owner}; grant create on database {} to {owner}",
        database.name
    ));
    let feed = Feed::new();
    let setup = Setup {
        owner: Some(owner.clone()),
        streams: vec![feed.id.origin],
        ..setup_of(&rows, Tables::default())
    };
    init(&database.target(), &setup).await.unwrap();
    let t = table(1, "public.t", &["id integer not null"]);
    let narrow = Table::new(1, "public.t", &["id*"]);
    // It is told of before: that alone changes nothing here, and needs nobody.
    feed.transaction(&[one(&t), narrow.relation(), narrow.insert("1")]);
    let target = database.target_as(&rows);
    let alone = Options { target: target.clone(), ..database.options(&feed) };
    let applier = Applier::start(alone.clone());
    applied(&applier, &feed.stream).await;

    let wide = Table::new(1, "public.t", &["id*", "v"]);
    let wider = with(t, |table| table.columns.push(column(2, "v text")));
    let own = object(3, "app.n", Body::Sequence(sequence(None, None)));
    let new = table(2, "app.new", &["id integer not null"]);
    let in_it = Table::new(2, "app.new", &["id*"]);
    let namespace = object(4, "app", Body::Schema {});
    feed.transaction(&[
        narrow.insert("2"),
        told(&[wider, namespace, own.clone(), new]),
        wide.relation(),
        wide.insert("3|x"),
    ]);
    feed.transaction(&[in_it.relation(), in_it.insert("7"), wide.update("3|y")]);
    feed.append(&[told(&[Object { body: Body::Sequence(sequence(Some(40), None)), ..own }])]);
    let halt = halted(&applier, &feed.stream).await;
    assert_eq!(halt.code, "schema_refused");
    assert!(halt.detail.contains("must be owner of table t"), "{}", halt.detail);
    assert!(halt.detail.contains("ddl_url"), "{}", halt.detail);
    applier.shutdown().await;
    let applier = Applier::start(Options { owner: Some(database.target_as(&owner)), ..alone });
    applied(&applier, &feed.stream).await;
    feed.transaction(&[in_it.truncate(), in_it.insert("8")]);
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(database.sql("select * from t order by id"), "1|\n2|\n3|y");
    assert_eq!(database.sql("select id, nextval('app.n') from app.new"), "8|40");
    let owners = "select distinct tableowner from pg_tables where schemaname in ('app', 'public')";
    assert_eq!(database.sql(owners), owner);
    assert_eq!(database.offset(&feed), feed.last().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_at_any_step_leaves_all_of_a_change_or_nothing() {
    let database = Database::new("create table ledger (n int)").await;
    let cutter = crate::crashes::Cutter::start(database.cluster.port()).await;
    let feed = Feed::new();
    let mut options = database.options(&feed);
    let url = database.cluster.tcp_url(&database.name);
    let own = format!("port={}", database.cluster.port());
    options.target.config = url.replace(&own, &format!("port={}", cutter.port)).parse().unwrap();
    options.target.config.ssl_mode(tokio_postgres::config::SslMode::Disable);
    let applier = Applier::start(options);
    let ledger = Table::new(1, "public.ledger", &["n"]).full();
    feed.append(&[ledger.relation()]);
    let mut t = table(2, "public.t", &["c0 integer"]);
    for step in 1..=16_u32 {
        t = with(t, |table| {
            let number = i16::try_from(step).unwrap() + 1;
            let mut new = column(number, &format!("c{step} integer not null"));
            (new.default, new.missing) = (Some("0".to_owned()), Some("7".to_owned()));
            table.columns.push(new);
            if step > 1 {
                let last = table.columns.len() - 2;
                table.columns[last].name = format!("d{}", step - 1);
                table.columns[last].default = None;
            }
        });
        let cuts = cutter.cuts.load(std::sync::atomic::Ordering::SeqCst);
        let left = u64::from(step) * 167 % 3000;
        cutter.left.store(left, std::sync::atomic::Ordering::SeqCst);
        feed.transaction(&[
            ledger.insert(&step.to_string()),
            one(&t),
            ledger.insert(&step.to_string()),
        ]);
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        cutter.has_cut(cuts, &feed).await;
        let held = database.sql(
            "select count(*), coalesce(max(n), 0), (select count(*) from pg_attribute where attnum > 1 \
             and attrelid = to_regclass('t')) from ledger",
        );
        let numbers: Vec<u32> = held.split('|').map(|it| it.parse().unwrap()).collect();
        assert_eq!((numbers[0], numbers[1]), (numbers[2] * 2, numbers[2]), "{held}");
        cutter.left.store(u64::MAX, std::sync::atomic::Ordering::SeqCst);
        applied(&applier, &feed.stream).await;
    }
    assert!(cutter.cuts.load(std::sync::atomic::Ordering::SeqCst) > 5);
    applier.shutdown().await;
    let shape = columns(&database, "t");
    assert!(shape.ends_with("d15 integer not null, c16 integer not null default 0"), "{shape}");
}

#[tokio::test]
async fn a_table_that_the_stream_made_or_renamed_is_copied_again_without_a_question() {
    let database = Database::new("").await;
    let feed = Feed::new();
    let made = table(1, "public.t", &["id integer not null"]);
    let rows = Table::new(1, "public.t", &["id*"]);
    feed.transaction(&[one(&made), rows.relation(), rows.insert("1")]);
    feed.copy(&rows, &["2", "3"]);
    let renamed = Object { name: "u".to_owned(), ..made };
    feed.transaction(&[one(&renamed)]);
    feed.copy(&Table::new(1, "public.u", &["id*"]), &["4"]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("select * from u"), "4");
}

/// A function with these arguments, as types only.
fn function(id: u32, name: &str, arguments: &str, rest: &str) -> Object {
    let definition = format!("CREATE OR REPLACE FUNCTION {name}({arguments})\n {rest}");
    let arguments = arguments.to_owned();
    object(id, name, Body::Routine { definition, arguments, procedure: false })
}

/// Objects of every kind, in the order of their ids, each of which needs another: most of them one that comes later.
fn tangle() -> Vec<Object> {
    let attribute = |number, name: &str, data_type: &str| Attribute {
        number,
        name: name.to_owned(),
        data_type: data_type.to_owned(),
        collation: None,
    };
    let pair = vec![attribute(1, "a", "integer"), attribute(2, "b", "public.mood")];
    let short = Body::Domain {
        base: "text".to_owned(),
        collation: None,
        not_null: false,
        default: None,
        constraints: vec![constraint("short_check", "CHECK (public.is_short(VALUE))")],
    };
    let view = |id, name: &str, query: &str| {
        let (query, columns) = (query.to_owned(), vec!["id".to_owned()]);
        object(id, name, Body::View { materialized: false, query, columns, options: Vec::new() })
    };
    let old = with(table(5, "public.old", &["id integer not null", "p public.pair"]), |table| {
        table.inherits.push(("public".to_owned(), "young".to_owned()));
        table.columns[0].default = Some("public.most()".to_owned());
        let mut first = column(3, "first integer");
        first.default = Some("public.first(p)".to_owned());
        first.generated = Some(Generated::Stored);
        table.columns.push(first);
    });
    let names = ["id integer not null", "name public.short"];
    let people = with(table(6, "public.people", &names), |table| {
        table.constraints.push(constraint("people_pkey", "PRIMARY KEY (id)"));
        // It counts the rows of this very table.
        table.columns[0].default = Some("public.most()".to_owned());
        let check = "CHECK ((public.label(people.*) <> ''::text))";
        table.constraints.push(constraint("named", check));
        let on = "ON public.people USING btree (public.label(people.*))";
        let definition = format!("CREATE UNIQUE INDEX by_label {on}");
        table.indexes.push(Index { name: "by_label".to_owned(), definition });
    });
    let immutable = "LANGUAGE sql IMMUTABLE AS";
    let label = format!("RETURNS text {immutable} $f$ SELECT $1.id || $1.name $f$");
    let is_short = format!("RETURNS boolean {immutable} $f$ SELECT length($1) < 9 $f$");
    let first = format!("RETURNS integer {immutable} $f$ SELECT $1.a $f$");
    let most = "RETURNS integer LANGUAGE sql BEGIN ATOMIC SELECT count(*)::integer FROM public.people; END";
    vec![
        object(1, "public.pair", Body::Composite { attributes: pair }),
        object(2, "public.short", short),
        view(3, "public.view", " SELECT newer.id FROM public.newer"),
        view(4, "public.newer", " SELECT people.id FROM public.people GROUP BY people.id"),
        old,
        people,
        function(7, "public.label", "public.people", &label),
        function(8, "public.is_short", "text", &is_short),
        function(9, "public.first", "public.pair", &first),
        function(10, "public.most", "", most),
        object(11, "public.mood", labels(&["ok"])),
        table(12, "public.young", &["id integer not null"]),
    ]
}

#[tokio::test]
async fn objects_are_made_whatever_the_order_in_which_they_are_told() {
    let rows = Table::new(6, "public.people", &["id*", "name"]);
    let mut all = tangle();
    for _ in 0..2 {
        let database = Database::new("").await;
        let feed = Feed::new();
        feed.transaction(&[told(&all), rows.relation(), rows.insert("1|Ann")]);
        database.apply_all(&feed).await;
        assert_eq!(database.sql("select id, public.label(p) from people p"), "1|1Ann");
        assert!(columns(&database, "people").starts_with("id integer not null default most()"));
        let made = database.sql("insert into old (p) values ('(7,ok)') returning id, first");
        assert_eq!(made.lines().next(), Some("1|7"));
        assert_eq!(database.sql("select id from view union all select id from young"), "1\n1");
        let held = "select count(*), to_regclass('by_label') is not null from pg_constraint \
                    where conrelid = 'people'::regclass and contype in ('p', 'c')";
        assert_eq!(database.sql(held), "2|t");
        all.reverse();
    }
}

#[tokio::test]
async fn what_nobody_makes_halts_and_not_what_waits_for_it() {
    let database = Database::new("").await;
    let feed = Feed::new();
    let heir = |id, name: &str, of: &str| {
        with(table(id, name, &["id integer not null"]), |table| {
            table.inherits.push(("public".to_owned(), of.to_owned()));
        })
    };
    let all = [heir(1, "public.a", "b"), heir(2, "public.b", "nowhere"), heir(3, "public.c", "a")];
    feed.transaction(&[told(&all)]);
    let applier = database.apply(&feed);
    let halt = halted(&applier, &feed.stream).await;
    assert_eq!((&*halt.code, halt.table.as_deref()), ("schema_refused", Some("public.a")));
    database.sql("create table nowhere (id int not null)");
    applier.retry();
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    let made =
        "select count(*) from pg_inherits where inhparent::regclass::text in ('a', 'b', 'nowhere')";
    assert_eq!(database.sql(made), "3");
}

#[tokio::test]
async fn a_label_that_is_used_in_the_transaction_that_adds_it_halts_with_the_cure() {
    let database =
        Database::new("create type mood as enum ('sad'); create table t (mood mood)").await;
    let feed = Feed::new();
    feed.transaction(&[told(&[object(1, "public.mood", labels(&["sad"]))])]);
    let t = Table::new(2, "public.t", &["mood"]).full();
    let more = object(1, "public.mood", labels(&["sad", "ok"]));
    feed.transaction(&[told(&[more]), t.relation(), t.insert("ok")]);
    let applier = database.apply(&feed);
    let halt = halted(&applier, &feed.stream).await;
    assert!(halt.detail.contains("(55P04); add the label here by hand"), "{}", halt.detail);
    database.sql("alter type mood add value 'ok'");
    applier.retry();
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(database.sql("select * from t"), "ok");
}
