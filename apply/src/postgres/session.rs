//! One connection that applies one stream: how it is made, and what it is set to.

use std::{collections::HashMap, sync::Arc, time::Duration};

use thinwire_engine::model::{Offset, Origin, Relation, RelationId};
use tokio::{task::AbortHandle, time::sleep};
use tokio_postgres::{Client, Error, NoTls, Statement, error::SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::debug;

use super::{
    Target,
    about::About,
    lookup::{self, Found, ask, failed, query, text},
    origins::{Declared, ORIGIN_PREFIX, Origins},
    pipeline::Pipeline,
    statements::Statements,
};
use crate::{
    SinkError, Tables,
    conflict::{ConflictCounts, classify, sentence},
    plan::{Shape, Table},
    progress::{self, Stored},
    sql::{objects, origins as origins_sql, session as sql},
};

/// A connection and what is known on it.
pub(super) struct Session {
    pub(super) client: Arc<Client>,
    pub(super) pipeline: Pipeline,
    pub(super) statements: Statements,
    tables: HashMap<RelationId, Found>,
    accepted: Tables,
    begin: String,
    /// Who changed which row last; none if the target does not know.
    pub(super) origins: Option<Origins>,
    /// Whether its login is the one that changes the schema and another applies rows.
    pub(super) is_owner: bool,
    /// Whether a target transaction is open.
    pub(super) open: bool,
    connection: AbortHandle,
}

/// An open transaction ends with its connection, which must not wait for what is still under way.
impl Drop for Session {
    fn drop(&mut self) {
        if self.open {
            self.connection.abort();
        }
    }
}

/// Connects, with the settings of a session that applies.
pub(crate) async fn connect(target: &Target) -> Result<(Client, AbortHandle), SinkError> {
    dial(target, sql::options()).await.map_err(unreachable)
}

/// The same under the replica role, which the session begins with: taken later, and anew in each target transaction, it would
/// each time cost the server the plans of all statements.
async fn connect_as_replica(target: &Target) -> Result<(Client, AbortHandle), SinkError> {
    match dial(target, sql::replica_options()).await {
        // It may have been given for good.
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            connect(target).await
        }
        dialled => dialled.map_err(unreachable),
    }
}

fn unreachable(error: Error) -> SinkError {
    match classify(&error) {
        SinkError::Weather(_) => SinkError::Weather(sentence(&error)),
        refused => refused,
    }
}

async fn dial(target: &Target, options: String) -> Result<(Client, AbortHandle), Error> {
    let mut config = target.config.clone();
    // Later options win.
    let own = config.get_options().map(|own| format!("{own} ")).unwrap_or_default();
    config.options(format!("{own}{options}"));
    config.application_name("thinwire apply");
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    // A server that vanished without a word must not be waited for longer than a new try takes.
    config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE).keepalives_retries(3);
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(TCP_TIMEOUT);
    }
    match &target.tls {
        Some(tls) => {
            let tls = MakeRustlsConnect::new((**tls).clone());
            config.connect(tls).await.map(|(client, connection)| (client, run(connection)))
        }
        None => config.connect(NoTls).await.map(|(client, connection)| (client, run(connection))),
    }
}

fn run<S, T>(connection: tokio_postgres::Connection<S, T>) -> AbortHandle
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, "the connection to the database has ended");
        }
    });
    task.abort_handle()
}

impl Session {
    /// Connects and becomes the one session that applies an origin's stream. When this has succeeded, no earlier session
    /// that did is left.
    pub(super) async fn open(
        target: &Target,
        accepted: &Tables,
        origin: Origin,
        declared: Declared,
        is_owner: bool,
    ) -> Result<Self, SinkError> {
        let (client, connection) = connect_as_replica(target).await?;
        let begin = prepare(&client).await?;
        hold_origin_of_another(&client, origin).await?;
        let own = query(&client, origins_sql::OWN, vec![origin_name(origin)]).await?;
        let own = own.first().map(|row| text(row, 0)).transpose()?;
        Ok(Self {
            origins: own.map(|own| Origins { own, declared }),
            client: Arc::new(client),
            pipeline: Pipeline::default(),
            statements: Statements::default(),
            tables: HashMap::new(),
            accepted: accepted.clone(),
            begin,
            is_owner,
            open: false,
            connection,
        })
    }

    /// What the database says of an origin's stream. No statement may be under way.
    pub(super) async fn stored(&mut self, origin: Origin) -> Result<Stored, SinkError> {
        let rows = query(&self.client, sql::READ_PROGRESS, vec![origin.to_string()]).await;
        let rows = rows.map_err(|error| match error {
            SinkError::Refused(halt) if halt.code == "missing_table" => progress::refused(
                "missing_table",
                "the database is not prepared for applying; run `thinwire init`",
            ),
            // It was prepared by a Thinwire that did not seal what it wrote.
            SinkError::Refused(halt) if halt.code == "missing_column" => progress::refused(
                "missing_column",
                "the table has no column seal; run `thinwire init`",
            ),
            other => other,
        })?;
        // Whoever committed it may not have waited for the disk.
        self.command(sql::SETTLE).await?;
        let Some(row) = rows.first() else { return Ok(Stored::nothing()) };
        let of = |column| row.try_get::<_, Option<&str>>(column).map_err(failed);
        Ok(Stored {
            epoch: text(row, 0)?,
            progress: progress::parse(&text(row, 1)?, of(3)?, of(4)?)?,
            superseded: row.try_get(2).map_err(failed)?,
            seal: row.try_get(5).map_err(failed)?,
        })
    }

    /// Opens a target transaction. It is waited for: if it failed, what is sent after it would be committed by itself.
    pub(super) async fn begin(&mut self) -> Result<(), SinkError> {
        self.open = true;
        self.client.batch_execute(&self.begin).await.map_err(failed)
    }

    /// Forgets what an origin's stream told of objects, if that is kept here at all.
    pub(super) async fn forget_definitions(&mut self, origin: Origin) -> Result<(), SinkError> {
        if ask(&self.client, objects::IS_KEPT, Vec::new()).await? {
            query(&self.client, objects::FORGET_ALL, vec![origin.to_string()]).await?;
        }
        Ok(())
    }

    /// Runs one of our commands, when nothing else is under way.
    pub(super) async fn command(&mut self, text: &str) -> Result<(), SinkError> {
        self.client.batch_execute(text).await.map_err(failed)
    }

    /// Whether a table was looked up as it is described.
    pub(super) fn knows(&self, relation: &Arc<Relation>) -> bool {
        let known = self.tables.get(&relation.id);
        known.is_some_and(|found| Arc::ptr_eq(&found.table.relation, relation))
    }

    /// What a table is, looked up once while it is described the same.
    pub(super) async fn table(
        &mut self,
        relation: &Arc<Relation>,
        offset: Offset,
        counts: &ConflictCounts,
    ) -> Result<Found, SinkError> {
        let known = self.tables.get(&relation.id);
        if let Some(found) = known.filter(|found| Arc::ptr_eq(&found.table.relation, relation)) {
            return Ok(found.clone());
        }
        self.pipeline.drain(counts).await?;
        self.statements.forget(relation.id);
        let found = lookup::table(&self.client, relation, &self.accepted, offset).await?;
        self.tables.insert(relation.id, found.clone());
        Ok(found)
    }

    /// A prepared statement on a table.
    pub(super) async fn statement(
        &mut self,
        table: &Arc<Table>,
        shape: &Shape,
        about: &About,
        counts: &ConflictCounts,
    ) -> Result<Statement, SinkError> {
        if let Some(statement) = self.statements.known(table, shape) {
            return Ok(statement);
        }
        self.pipeline.drain(counts).await?;
        self.statements.prepare(&self.client, table, shape.clone(), about).await
    }

    /// Forgets what tables are like: somebody may be changing them.
    pub(super) fn forget_tables(&mut self) {
        self.tables.clear();
        self.statements.forget_all();
    }
}

/// Sees that the session has the replica role, and returns the command that opens a target transaction.
async fn prepare(client: &Client) -> Result<String, SinkError> {
    let rows = query(client, sql::VERSION, Vec::new()).await?;
    let version = rows.first().map(|row| row.try_get(0)).transpose().map_err(failed)?;
    if ask(client, sql::HAS_REPLICA_ROLE, Vec::new()).await? {
        return Ok(sql::begin(version.unwrap_or_default()));
    }
    let detail =
        "the login may not set session_replication_role; run `thinwire init` with --admin-url";
    Err(SinkError::refused("permission_denied", detail))
}

/// The same, with patience: a session of ours that was just closed takes a moment to end.
async fn hold_origin_of_another(client: &Client, origin: Origin) -> Result<(), SinkError> {
    for _ in 0..HANDOVER_TRIES {
        match hold_origin(client, origin).await {
            Err(SinkError::Weather(_)) if !client.is_closed() => sleep(HANDOVER_PAUSE).await,
            held => return held,
        }
    }
    hold_origin(client, origin).await
}

/// Takes the replication origin. Whoever had it is gone then, and all that it committed is visible.
async fn hold_origin(client: &Client, origin: Origin) -> Result<(), SinkError> {
    let name = origin_name(origin);
    if !ask(client, sql::HAS_ORIGIN, vec![name.clone()]).await? {
        query(client, sql::CREATE_ORIGIN, vec![name.clone()]).await?;
    }
    match query(client, sql::HOLD_ORIGIN, vec![name.clone()]).await {
        Ok(_) => Ok(()),
        Err(SinkError::Weather(why)) if why.contains(SqlState::OBJECT_IN_USE.code()) => {
            Err(SinkError::Weather(format!(
                "another session applies this stream, or one of ours that is not over yet: {why}"
            )))
        }
        Err(error) => Err(error),
    }
}

/// The replication origin under which an origin's changes are written.
pub(crate) fn origin_name(origin: Origin) -> String {
    format!("{ORIGIN_PREFIX}{origin}")
}

/// How often and how long a session waits for its predecessor: together half a second.
const HANDOVER_TRIES: u32 = 25;
/// See [`HANDOVER_TRIES`].
const HANDOVER_PAUSE: Duration = Duration::from_millis(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(10);
const TCP_TIMEOUT: Duration = Duration::from_secs(30);
