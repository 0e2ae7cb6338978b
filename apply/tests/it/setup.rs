//! Preparing a database for a login that may do nothing else, and examining it.

use thinwire_apply::{Applier, Check, Options, Setup, check, init, plan};

use crate::{
    database::{Database, applied},
    feed::{Feed, Table},
};

fn failed(checks: &[Check]) -> Vec<&str> {
    checks.iter().filter(|check| !check.ok).map(|check| &*check.what).collect()
}

#[tokio::test]
async fn an_ordinary_login_applies_after_init_and_can_do_nothing_else() {
    let database = Database::bare(
        Database::shared(),
        "create schema \"Odd\"; revoke create on schema public from public;
         create table t (id int primary key, a text, b int);
         create table \"Odd\".\"T 2\" (id int generated always as identity primary key, v text);
         create table keyless (v point)",
    );
    let login = format!("app \"{}\"", database.name);
    let quoted = format!("\"{}\"", login.replace('"', "\"\""));
    database.sql(&format!("create role {quoted} login"));
    let (feed, origin) = (Feed::new(), Feed::new().id.origin);
    let setup = Setup { login: login.clone(), owner: None, streams: vec![feed.id.origin, origin] };
    let mut target = database.target();
    target.config.user(&login);

    let before = check(&target, &setup).await;
    assert_eq!(
        failed(&before),
        [
            "tables of the schema thinwire at the target",
            "functions of replication origins",
            "session_replication_role of the login"
        ]
    );
    assert!(before.iter().all(|check| check.ok || !check.cure.is_empty()));

    let planned = plan(&database.target(), &setup).await.unwrap();
    // On PostgreSQL 14 the role is not granted but given for good.
    let role = |text: &String| text.contains("session_replication_role");
    assert!(planned.iter().any(role), "{planned:#?}");
    assert_eq!(database.sql("select to_regnamespace('thinwire') is null"), "t");
    init(&database.target(), &setup).await.unwrap();
    assert_eq!(plan(&database.target(), &setup).await.unwrap(), Vec::<String>::new());
    init(&database.target(), &setup).await.unwrap();
    init(&target, &setup).await.unwrap();
    assert_eq!(failed(&check(&target, &setup).await), Vec::<&str>::new());

    let t = Table::new(1, "public.t", &["id*", "a", "b"]);
    let odd = Table::new(2, "Odd.T 2", &["id*", "v"]);
    let keyless = Table::new(3, "public.keyless", &["v"]).full();
    feed.append(&[odd.relation(), keyless.relation()]);
    feed.copy(&t, &["1|x|1", "2|x|2"]);
    feed.transaction(&[
        t.update("1|y|1"),
        t.delete("2|~|~"),
        odd.insert("5|five"),
        odd.update("5|six"),
        keyless.insert("(1,2)"),
        keyless.update_full("(1,2)", "(3,4)"),
    ]);
    let applier = Applier::start(Options { target: target.clone(), ..database.options(&feed) });
    applied(&applier, &feed.stream).await;
    feed.transaction(&[keyless.truncate()]);
    applied(&applier, &feed.stream).await;
    applier.shutdown().await;
    assert_eq!(database.sql("select *, (select v from \"Odd\".\"T 2\") from t"), "1|y|1|six");

    let rights = format!(
        "select rolsuper, rolcreatedb, rolcreaterole, rolbypassrls, \
         has_schema_privilege(rolname, 'public', 'CREATE'), \
         has_schema_privilege(rolname, 'thinwire', 'CREATE'), \
         exists (select from pg_auth_members where member = oid) \
         from pg_roles where rolname = '{}'",
        login.replace('\'', "''")
    );
    assert_eq!(database.sql(&rights), "f|f|f|f|f|f|f");
}

#[tokio::test]
async fn a_login_that_may_not_prepare_is_told_what_to_do() {
    let database = Database::bare(Database::shared(), "");
    let login = format!("plain_{}", database.name);
    database.sql(&format!("create role {login} login"));
    let setup = Setup { login: login.clone(), owner: None, streams: Vec::new() };
    let error = init(&database.target_as(&login), &setup).await.unwrap_err().to_string();
    assert!(error.contains("permission denied") && error.contains("--admin-url"), "{error}");
    let setup = Setup { login: "nobody here".into(), owner: None, streams: Vec::new() };
    let error = init(&database.target(), &setup).await.unwrap_err().to_string();
    assert_eq!(error, "the login nobody here does not exist; create it first");
}

#[tokio::test]
async fn a_superuser_works_and_is_warned_of() {
    let database = Database::new("").await;
    let setup = Setup { login: "postgres".into(), owner: None, streams: Vec::new() };
    let checks = check(&database.target(), &setup).await;
    assert_eq!(failed(&checks), Vec::<&str>::new());
    assert!(checks.iter().any(|check| check.ok && check.cure.contains("superuser")));
}

#[tokio::test]
async fn a_database_that_is_away_is_one_failed_check() {
    let database = Database::new("").await;
    let mut target = database.target();
    target.config.dbname("not there");
    let setup = Setup { login: "postgres".into(), owner: None, streams: Vec::new() };
    let checks = check(&target, &setup).await;
    assert_eq!(checks.len(), 1);
    assert!(!checks[0].ok && checks[0].cure.contains("not there"), "{checks:?}");
}
