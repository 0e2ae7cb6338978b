//! What a database needs before a stream can be applied to it: made by `thinwire init`, examined by `thinwire doctor`.
//!
//! What is there already is left alone, so repeating it is safe and needs no privilege. The login that applies gets exactly
//! what it needs: our own tables, the functions of replication origins, the replica role, and the rows of the users' tables
//! that streams may write to. What was granted on others is taken back.

mod check;

use thinwire_engine::model::Origin;
use tokio_postgres::Client;

use crate::{
    Seal, SinkError, Tables, Target,
    postgres::{
        lookup::{ask, query, text},
        session::{connect, origin_name},
    },
    progress::{self, Stored},
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
    /// The tables that they may write to.
    pub tables: Tables,
    /// The origins whose streams will be applied.
    pub streams: Vec<Origin>,
    /// What tells how far they were applied by this node; none if it has no identity yet.
    pub seal: Option<Seal>,
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

/// Prepares the database, logged in as somebody who may. Returns the origins whose applied offsets it has taken over: they
/// were there, and somebody else than this node had written them.
///
/// # Errors
/// A sentence; nothing was changed then.
pub async fn init(admin: &Target, setup: &Setup) -> Result<Vec<Origin>, SetupError> {
    let client = open(admin).await?;
    let missing = missing(&client, setup).await?;
    if !missing.statements.is_empty() {
        let all = setup_sql::at_once(&missing.statements);
        client.batch_execute(&all).await.map_err(failed)?;
    }
    Ok(missing.believed)
}

/// The statements that [`init`] would run.
///
/// # Errors
/// A sentence.
pub async fn plan(admin: &Target, setup: &Setup) -> Result<Vec<String>, SetupError> {
    Ok(missing(&open(admin).await?, setup).await?.statements)
}

async fn open(target: &Target) -> Result<Client, SetupError> {
    let (client, _) = connect(target).await?;
    client.batch_execute(setup_sql::SETTINGS).await.map_err(failed)?;
    Ok(client)
}

/// What has to be done.
struct Missing {
    statements: Vec<String>,
    /// The origins whose applied offsets they take over as they are.
    believed: Vec<Origin>,
}

async fn missing(client: &Client, setup: &Setup) -> Result<Missing, SetupError> {
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
    if server.applied && !server.seals {
        statements.push(setup_sql::ADD_SEAL.to_owned());
    }
    let (believed, seals): (Vec<_>, Vec<_>) =
        unsealed(client, &server, setup).await?.into_iter().unzip();
    statements.extend(seals);
    for origin in &setup.streams {
        let name = origin_name(*origin);
        if !ask(client, sql::session::HAS_ORIGIN, vec![name.clone()]).await? {
            statements.push(setup_sql::create_origin(&name));
        }
    }
    for login in setup.owner.iter().filter(|owner| **owner != setup.login).chain([&setup.login]) {
        statements.extend(missing_of(client, &server, login, &setup.tables).await?);
    }
    Ok(Missing { statements, believed })
}

/// The origins whose applied offsets this node did not write, and what says that it believes them.
async fn unsealed(
    client: &Client,
    server: &Server,
    setup: &Setup,
) -> Result<Vec<(Origin, String)>, SetupError> {
    let mut unsealed = Vec::new();
    let Some(seal) = setup.seal.as_ref().filter(|_| server.applied) else { return Ok(unsealed) };
    for origin in &setup.streams {
        let name = origin.to_string();
        let rows = query(client, setup_sql::READ_SEALED, vec![name.clone()]).await?;
        let Some(row) = rows.first() else { continue };
        let stored = Stored {
            epoch: text(row, 0)?,
            progress: progress::parse(&text(row, 1)?, None, None)?,
            superseded: row.try_get(2).map_err(failed)?,
            seal: row.try_get(3).map_err(failed)?,
        };
        if !seal.is_on(*origin, &stored) {
            let offset = stored.progress.offset.to_string();
            let sealed = seal.of(*origin, &stored);
            unsealed.push((*origin, setup_sql::seal(&name, &stored.epoch, &offset, &sealed)));
        }
    }
    Ok(unsealed)
}

/// What a login lacks.
async fn missing_of(
    client: &Client,
    server: &Server,
    login: &str,
    tables: &Tables,
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
    statements.extend(table_grants(client, login, tables).await?);
    for row in query(client, setup_sql::FORBIDDEN_SEQUENCES, names()).await? {
        if tables.has(&text(&row, 1)?, &text(&row, 2)?) {
            statements.push(setup_sql::grant_sequence(&text(&row, 0)?, login));
        }
    }
    for table in surplus_tables(client, login, tables).await?.iter().filter(|table| table.ours) {
        statements.push(setup_sql::revoke_table(&table.schema, &table.name, login));
    }
    for row in query(client, setup_sql::GRANTED_SEQUENCES, names()).await? {
        if !tables.has(&text(&row, 1)?, &text(&row, 2)?) {
            statements.push(setup_sql::revoke_sequence(&text(&row, 0)?, login));
        }
    }
    Ok(statements)
}

/// Grants on the users' tables, as far as we may give them.
async fn table_grants(
    client: &Client,
    login: &str,
    tables: &Tables,
) -> Result<Vec<String>, SetupError> {
    let mut schemas: Vec<(String, Vec<String>)> = Vec::new();
    let forbidden = forbidden_tables(client, login, tables).await?;
    for table in forbidden.into_iter().filter(|table| table.ours) {
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
    seals: bool,
}

impl Server {
    /// Whether all of ours is there.
    fn is_prepared(&self) -> bool {
        let tables = self.applied && self.loaded && self.definitions && self.skipped;
        self.schema && tables && self.seals
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
        seals: row.try_get(7).map_err(failed)?,
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

/// A table of users.
struct Named {
    schema: String,
    name: String,
    /// Whether we may grant access, and take it back.
    ours: bool,
}

/// The tables that streams may write to and whose rows a login may not read and write.
async fn forbidden_tables(
    client: &Client,
    login: &str,
    tables: &Tables,
) -> Result<Vec<Named>, SetupError> {
    named(client, setup_sql::FORBIDDEN_TABLES, login, |schema, root| tables.has(schema, root)).await
}

/// The tables that streams may not write to and that a login was granted all the same.
async fn surplus_tables(
    client: &Client,
    login: &str,
    tables: &Tables,
) -> Result<Vec<Named>, SetupError> {
    named(client, setup_sql::GRANTED_TABLES, login, |schema, root| !tables.has(schema, root)).await
}

/// The tables that a query answers with, if those are wanted of which they are part.
async fn named(
    client: &Client,
    sql: &str,
    login: &str,
    is_wanted: impl Fn(&str, &str) -> bool,
) -> Result<Vec<Named>, SetupError> {
    let rows = query(client, sql, vec![login.to_owned()]).await?;
    let mut named = Vec::new();
    for row in &rows {
        let ours = row.try_get(2).map_err(failed)?;
        if is_wanted(&text(row, 3)?, &text(row, 4)?) {
            named.push(Named { schema: text(row, 0)?, name: text(row, 1)?, ours });
        }
    }
    Ok(named)
}

fn failed(error: tokio_postgres::Error) -> SetupError {
    crate::conflict::classify(&error).into()
}

/// The oldest PostgreSQL whose functions of replication origins may be granted.
const OLDEST: i32 = 140_000;
/// The first PostgreSQL in which a login may be allowed to set a parameter.
const GRANTABLE_PARAMETERS: i32 = 150_000;
