//! Definitions and what is at the target by itself: what others there need, whose rights a routine has, and whose ids are told.

use thinwire_engine::model::{Body, Object};

use crate::{
    database::Database,
    feed::{Feed, Table, copy_records},
    schema::{gone, labels, object, one, schema, sequence, table, told, with},
};

#[tokio::test]
async fn what_a_table_here_still_needs_stays_when_it_goes_at_the_source() {
    let database = Database::new("").await;
    let feed = Feed::new();
    let counter = object(2, "public.counter", Body::Sequence(sequence(None, None)));
    let mood = object(3, "public.mood", labels(&["ok"]));
    let spare = object(4, "public.spare", labels(&["ok"]));
    let t = with(table(1, "public.t", &["id integer", "mood public.mood"]), |table| {
        table.columns[0].default = Some("nextval('public.counter'::regclass)".to_owned());
    });
    feed.transaction(&[told(&[counter.clone(), mood.clone(), spare.clone(), t])]);
    feed.transaction(&[schema(&[], &[], &[gone(&counter), gone(&mood)])]);
    feed.transaction(&[schema(&[], &[], &[gone(&spare)])]);
    let rows = Table::new(1, "public.t", &["id", "mood"]);
    feed.transaction(&[rows.relation(), rows.insert("1|ok")]);
    database.apply_all(&feed).await;
    assert_eq!(database.sql("insert into t (mood) values ('ok'); select * from t"), "1|ok\n1|ok");
    assert_eq!(database.sql("select to_regtype('spare') is null"), "t");
    assert_eq!(database.sql("select object_name from thinwire.definitions"), "t");
}

/// A routine that tells whose rights it has.
fn whose(kind: &str, owner: &str, body: &str) -> Object {
    let returns = if kind == "FUNCTION" { " RETURNS name" } else { "" };
    let definition = format!(
        "CREATE OR REPLACE {kind} public.whose(integer){returns}\n LANGUAGE sql\n SECURITY DEFINER\nAS $f$ {body} $f$"
    );
    let (arguments, procedure) = ("integer".to_owned(), kind == "PROCEDURE");
    let body = Body::Routine { definition, arguments, procedure };
    Object { owner: owner.to_owned(), ..object(1, "public.whose", body) }
}

#[tokio::test]
async fn a_routine_never_runs_with_rights_that_its_owner_at_the_source_has_not_got_here() {
    let database = Database::new("").await;
    // Roles belong to the cluster, which other tests share.
    let (here, other) = (format!("here_{}", database.name), format!("other_{}", database.name));
    database.sql(&format!(
        "create role {here}; create role {other}; grant create on schema public to {here}, {other}"
    ));
    let feed = Feed::new();
    let is = "select pg_get_userbyid(proowner), prosecdef from pg_proc where proname = 'whose'";
    let tell = async |routine: Object| {
        feed.transaction(&[one(&routine)]);
        database.apply_all(&feed).await;
        database.sql(is)
    };
    let body = "select current_user";
    // Nobody here has that name.
    assert_eq!(tell(whose("FUNCTION", "nobody", body)).await, "postgres|f");
    assert_eq!(tell(whose("FUNCTION", "nobody", "select current_user::name")).await, "postgres|f");
    // There is such a role: it is made anew in its place, and behind what cannot be replaced.
    assert_eq!(tell(whose("FUNCTION", &here, body)).await, format!("{here}|t"));
    let set_of = |body| {
        let mut routine = whose("FUNCTION", &here, body);
        let Body::Routine { definition, .. } = &mut routine.body else { unreachable!() };
        *definition = definition.replace("RETURNS name", "RETURNS SETOF name");
        routine
    };
    assert_eq!(tell(set_of(body)).await, format!("{here}|t"));
    // It gets an owner whom nobody knows here.
    let lost = Object { owner: "nobody".to_owned(), ..set_of(body) };
    assert_eq!(tell(lost).await, format!("{here}|f"));
    assert_eq!(tell(set_of("select current_user::name")).await, format!("{here}|t"));
    database.sql("drop function whose; delete from thinwire.definitions");
    // One that is here by itself, and somebody's.
    database.sql(&format!(
        "create function whose(integer) returns name language sql security definer as 'select null::name';
         alter function whose owner to {other}"
    ));
    assert_eq!(tell(whose("FUNCTION", "nobody", body)).await, format!("{other}|f"));
    database.sql("drop function whose");
    let procedure = Object { id: 2, ..whose("PROCEDURE", "nobody", body) };
    assert_eq!(tell(procedure).await, "postgres|f");
    database.sql(&format!(
        "drop procedure whose; drop owned by {here}, {other}; drop role {here}, {other}"
    ));
}

#[tokio::test]
async fn a_source_that_is_restored_from_a_backup_gives_old_ids_to_other_objects() {
    let database = Database::new("").await;
    let feed = Feed::new();
    let orders = table(1, "public.orders", &["id integer not null"]);
    let riders = table(2, "public.riders", &["id integer not null"]);
    feed.transaction(&[told(&[orders, riders])]);
    let rows = Table::new(1, "public.orders", &["id*"]);
    feed.transaction(&[rows.relation(), rows.insert("1")]);
    database.apply_all(&feed).await;
    let feed = feed.next_epoch();
    let horses = table(1, "public.horses", &["id integer not null"]);
    let rows = Table::new(1, "public.horses", &["id*"]);
    let mut copy = copy_records(&rows, &["7"], Vec::new());
    copy.insert(1, one(&horses));
    feed.append(&copy);
    feed.transaction(&[schema(&[], &[], &[gone(&table(2, "public.stable", &[]))])]);
    database.apply_all(&feed).await;
    let tables = "select to_regclass('orders'), to_regclass('riders'), to_regclass('horses')";
    assert_eq!(database.sql(tables), "orders|riders|horses");
    assert_eq!(database.sql("select * from orders, horses"), "1|7");
    assert_eq!(database.sql("select object_name from thinwire.definitions"), "horses");
}
