//! What a database needs before a stream can be applied to it: made by `thinwire init`, examined by `thinwire doctor`.
//!
//! What is there already is left alone, so repeating it is safe and needs no privilege. The login that applies gets exactly
//! what it needs: our own tables, the functions of replication origins, the replica role, and the rows of the users' tables.

mod check;

use thinwire_engine::model::Origin;
use tokio_postgres::Client;

use crate::{
    SinkError, Target,
    postgres::{
        lookup::{ask, query, text},
        session::{connect, origin_name},
    },
    sql::{self, setup as setup_sql},
};
pub use check::{Check, check, check_commit_timestamps};

/// What to prepare for.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The login that will apply.
    pub login: String,
    /// The login that will change the schema, if it is another.
    pub owner: Option<String>,
    /// The origins whose streams will be applied.
    pub streams: Vec<Origin>,
}

/// Why a database could not be prepared, as a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(String);

impl From<SinkError> for SetupError {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Refused(halt) if halt.code == "permission_denied" => Self(format!(
                "{}; run it with --admin-url, or hand what --print-sql prints to somebody who may",
                halt.detail
            )),
            other => Self(other.to_string()),
        }
    }
}

/// Prepares the database, logged in as somebody who may.
///
/// # Errors
/// A sentence; nothing was changed then.
pub async fn init(admin: &Target, setup: &Setup) -> Result<(), SetupError> {
    let client = open(admin).await?;
    let statements = missing(&client, setup).await?;
    if statements.is_empty() {
        return Ok(());
    }
    let all = format!("BEGIN; {}; COMMIT", statements.join("; "));
    client.batch_execute(&all).await.map_err(failed)
}

/// The statements that [`init`] would run.
///
/// # Errors
/// A sentence.
pub async fn plan(admin: &Target, setup: &Setup) -> Result<Vec<String>, SetupError> {
    missing(&open(admin).await?, setup).await
}

async fn open(target: &Target) -> Result<Client, SetupError> {
    let (client, _) = connect(target).await?;
    client.batch_execute(setup_sql::SETTINGS).await.map_err(failed)?;
    Ok(client)
}

async fn missing(client: &Client, setup: &Setup) -> Result<Vec<String>, SetupError> {
    let server = server(client).await?;
    if server.version < OLDEST {
        return Err(SetupError("PostgreSQL 14 or newer is needed".to_owned()));
    }
    let mut statements = Vec::new();
    let ours = [
        (server.schema, setup_sql::CREATE_SCHEMA),
        (server.applied, setup_sql::CREATE_APPLIED),
        (server.loaded, setup_sql::CREATE_LOADED),
        (server.definitions, setup_sql::CREATE_DEFINITIONS),
        (server.skipped, sql::skipped::CREATE),
    ];
    statements.extend(ours.iter().filter(|(is, _)| !is).map(|(_, text)| (*text).to_owned()));
    for origin in &setup.streams {
        let name = origin_name(*origin);
        if !ask(client, sql::session::HAS_ORIGIN, vec![name.clone()]).await? {
            statements.push(setup_sql::create_origin(&name));
        }
    }
    for login in setup.owner.iter().filter(|owner| **owner != setup.login).chain([&setup.login]) {
        statements.extend(missing_of(client, &server, login).await?);
    }
    Ok(statements)
}

/// What a login lacks.
async fn missing_of(
    client: &Client,
    server: &Server,
    login: &str,
) -> Result<Vec<String>, SetupError> {
    let mut statements = Vec::new();
    let names = || vec![login.to_owned()];
    let Some(role) = role(client, login).await? else {
        return Err(SetupError(format!("the login {login} does not exist; create it first")));
    };
    if role.superuser {
        return Ok(statements);
    }
    let usable = match server.is_prepared() {
        true => ask(client, setup_sql::MAY_USE_OURS, names()).await?,
        // Whoever makes them owns them.
        false => role.asks,
    };
    if !usable {
        statements.extend(setup_sql::grant_ours(login));
    }
    for row in query(client, setup_sql::MISSING_FUNCTIONS, names()).await? {
        statements.push(setup_sql::grant_function(&text(&row, 0)?, login));
    }
    if !has_replica_role(client, login, server.version).await? {
        statements.push(match server.version >= GRANTABLE_PARAMETERS {
            true => setup_sql::grant_role_setting(login),
            false => {
                let rows = query(client, setup_sql::DATABASE, Vec::new()).await?;
                let database = rows.first().map(|row| text(row, 0)).transpose()?;
                setup_sql::set_role_setting(login, &database.unwrap_or_default())
            }
        });
    }
    statements.extend(table_grants(client, login).await?);
    for row in query(client, setup_sql::FORBIDDEN_SEQUENCES, names()).await? {
        statements.push(setup_sql::grant_sequence(&text(&row, 0)?, login));
    }
    Ok(statements)
}

/// Grants on the users' tables, as far as we may give them.
async fn table_grants(client: &Client, login: &str) -> Result<Vec<String>, SetupError> {
    let mut schemas: Vec<(String, Vec<String>)> = Vec::new();
    for table in forbidden_tables(client, login).await?.into_iter().filter(|table| table.ours) {
        match schemas.last_mut().filter(|(schema, _)| *schema == table.schema) {
            Some((_, tables)) => tables.push(table.name),
            None => schemas.push((table.schema, vec![table.name])),
        }
    }
    let grants = schemas.iter().flat_map(|(schema, tables)| {
        [setup_sql::grant_schema(schema, login), setup_sql::grant_tables(schema, tables, login)]
    });
    Ok(grants.collect())
}

struct Server {
    schema: bool,
    applied: bool,
    loaded: bool,
    definitions: bool,
    version: i32,
    recovery: bool,
    skipped: bool,
}

impl Server {
    /// Whether all of ours is there.
    fn is_prepared(&self) -> bool {
        self.schema && self.applied && self.loaded && self.definitions && self.skipped
    }
}

async fn server(client: &Client) -> Result<Server, SetupError> {
    let rows = query(client, setup_sql::STATE, Vec::new()).await?;
    let row = rows.first().ok_or_else(|| SetupError("an empty answer".to_owned()))?;
    Ok(Server {
        schema: row.try_get(0).map_err(failed)?,
        applied: row.try_get(1).map_err(failed)?,
        loaded: row.try_get(2).map_err(failed)?,
        definitions: row.try_get(3).map_err(failed)?,
        version: row.try_get(4).map_err(failed)?,
        recovery: row.try_get(5).map_err(failed)?,
        skipped: row.try_get(6).map_err(failed)?,
    })
}

struct Role {
    superuser: bool,
    /// Whether it is the one that is connected.
    asks: bool,
}

async fn role(client: &Client, login: &str) -> Result<Option<Role>, SetupError> {
    let rows = query(client, setup_sql::LOGIN, vec![login.to_owned()]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let of = |column| row.try_get(column).map_err(failed);
    Ok(Some(Role { superuser: of(0)?, asks: of(1)? }))
}

async fn has_replica_role(client: &Client, login: &str, version: i32) -> Result<bool, SetupError> {
    let login = vec![login.to_owned()];
    if version >= GRANTABLE_PARAMETERS
        && ask(client, setup_sql::MAY_TAKE_ROLE, login.clone()).await?
    {
        return Ok(true);
    }
    Ok(ask(client, setup_sql::HAS_ROLE_SETTING, login).await?)
}

struct Forbidden {
    schema: String,
    name: String,
    /// Whether we may grant access.
    ours: bool,
}

async fn forbidden_tables(client: &Client, login: &str) -> Result<Vec<Forbidden>, SetupError> {
    let rows = query(client, setup_sql::FORBIDDEN_TABLES, vec![login.to_owned()]).await?;
    let forbidden = rows.iter().map(|row| {
        let ours = row.try_get(2).map_err(failed)?;
        Ok(Forbidden { schema: text(row, 0)?, name: text(row, 1)?, ours })
    });
    forbidden.collect()
}

fn failed(error: tokio_postgres::Error) -> SetupError {
    crate::conflict::classify(&error).into()
}

/// The oldest PostgreSQL whose functions of replication origins may be granted.
const OLDEST: i32 = 140_000;
/// The first PostgreSQL in which a login may be allowed to set a parameter.
const GRANTABLE_PARAMETERS: i32 = 150_000;
