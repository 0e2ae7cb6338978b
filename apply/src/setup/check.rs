//! Every precondition of applying, each with what it takes to meet it.

use super::{
    GRANTABLE_PARAMETERS, Named, OLDEST, Server, Setup, SetupError, forbidden_tables,
    has_replica_role, open, role, server, surplus_tables, unsealed,
};
use crate::{
    Target,
    postgres::lookup::{ask, query, text},
    sql::setup as setup_sql,
};
use tokio_postgres::Client;

/// One precondition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Whether it is met.
    pub ok: bool,
    /// What it is.
    pub what: String,
    /// What to do if it is not; with one that is met, a warning.
    pub cure: String,
}

impl Check {
    fn new(what: &str, ok: bool, cure: &str) -> Self {
        let cure = if ok { "" } else { cure };
        Self { ok, what: what.to_owned(), cure: cure.to_owned() }
    }

    fn warning(what: &str, cure: impl Into<String>) -> Self {
        Self { ok: true, what: what.to_owned(), cure: cure.into() }
    }
}

/// Examines the database as the login that will apply.
pub async fn check(target: &Target, setup: &Setup) -> Vec<Check> {
    let what = "connection to the database that is applied to";
    let mut checks = Vec::new();
    match examine(target, setup, &mut checks).await {
        Ok(()) => {}
        Err(error) if checks.is_empty() => checks.push(Check::new(what, false, &error.to_string())),
        Err(error) => checks.push(Check::new("examining the database", false, &error.to_string())),
    }
    checks
}

/// Whether the database knows who changed a row last, which some of what can be declared about conflicts needs.
pub async fn check_commit_timestamps(target: &Target) -> Check {
    let what = "commit timestamps of the target";
    let kept = match open(target).await {
        Ok(client) => ask(&client, setup_sql::KEEPS_TIMESTAMPS, Vec::new()).await,
        Err(error) => return Check::new(what, false, &error.to_string()),
    };
    match kept {
        Ok(kept) => {
            Check::new(what, kept, "set track_commit_timestamp = on and restart the server")
        }
        Err(error) => Check::new(what, false, &error.to_string()),
    }
}

async fn examine(
    target: &Target,
    setup: &Setup,
    checks: &mut Vec<Check>,
) -> Result<(), SetupError> {
    let client = open(target).await?;
    let server = server(&client).await?;
    checks.push(Check::new("connection to the database that is applied to", true, ""));
    checks.push(Check::new(
        "PostgreSQL of the target",
        server.version >= OLDEST,
        "PostgreSQL 14 or newer is needed",
    ));
    checks.push(Check::new(
        "the target takes writes",
        !server.recovery,
        "it is a standby: connect to the primary",
    ));
    login(&client, setup, &server, checks).await?;
    let rows = query(&client, setup_sql::ORIGINS_MAX, Vec::new()).await?;
    let most: Option<i32> = rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or_default();
    let enough = usize::try_from(most.unwrap_or_default()).unwrap_or_default();
    checks.push(Check::new(
        "replication origins of the target",
        enough >= setup.streams.len(),
        "raise max_replication_slots (from PostgreSQL 18 on max_active_replication_origins) to the number of received \
         streams",
    ));
    Ok(())
}

async fn login(
    client: &Client,
    setup: &Setup,
    server: &Server,
    checks: &mut Vec<Check>,
) -> Result<(), SetupError> {
    let login = &setup.login;
    let names = || vec![login.clone()];
    let usable = server.is_prepared() && ask(client, setup_sql::MAY_USE_OURS, names()).await?;
    checks.push(Check::new("tables of the schema thinwire at the target", usable, RUN_INIT));
    if usable {
        let unsealed = unsealed(client, server, setup).await?;
        let origins: Vec<_> = unsealed.iter().map(|(origin, _)| origin.to_string()).collect();
        let cure = format!(
            "thinwire.applied says of {} what this node did not write; see that it is right, then run `thinwire init`, which \
             takes over what is there",
            origins.join(", ")
        );
        checks.push(Check::new("applied offsets of the target", origins.is_empty(), &cure));
    }
    let forbidden = query(client, setup_sql::MISSING_FUNCTIONS, names()).await?;
    checks.push(Check::new("functions of replication origins", forbidden.is_empty(), RUN_INIT));
    let replica = has_replica_role(client, login, server.version).await?;
    let superuser = role(client, login).await?.is_some_and(|role| role.superuser);
    let cure = match server.version >= GRANTABLE_PARAMETERS {
        true => setup_sql::grant_role_setting(login),
        false => RUN_INIT.to_owned(),
    };
    checks.push(Check::new("session_replication_role of the login", replica || superuser, &cure));
    if superuser {
        let cure = format!(
            "{login} is a superuser, and triggers of table owners run with its rights; use a login of its own"
        );
        checks.push(Check::warning("rights of the login that applies", cure));
    }
    let what = "rights on tables of the target";
    let tables = forbidden_tables(client, login, &setup.tables).await?;
    if !tables.is_empty() {
        let cure = format!(
            "{login} may not read and write the rows of {}; if they are to be applied, {RUN_INIT}",
            names_of(&tables)
        );
        checks.push(Check::warning(what, cure));
    }
    let tables = surplus_tables(client, login, &setup.tables).await?;
    if !tables.is_empty() {
        let cure = format!(
            "{login} may write to {}, which [apply] tables leaves out; to take that back, {RUN_INIT}",
            names_of(&tables)
        );
        checks.push(Check::warning(what, cure));
    }
    for row in query(client, setup_sql::SECURED_TABLES, names()).await? {
        let cure = format!(
            "row security of {} applies to {login}: changes of it are refused; give the login BYPASSRLS",
            text(&row, 0)?
        );
        checks.push(Check::warning("row security at the target", cure));
    }
    Ok(())
}

/// Tables for people: the first few, and how many more.
fn names_of(tables: &[Named]) -> String {
    let names = tables.iter().map(|table| format!("{}.{}", table.schema, table.name));
    let names: Vec<_> = names.take(NAMED_MAX).collect();
    let more = tables.len() - names.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names.join(", "))
}

const RUN_INIT: &str = "run `thinwire init`, with --admin-url if the login may not";
const NAMED_MAX: usize = 5;
