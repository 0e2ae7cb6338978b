//! What there is at the source: tables, the publication, the slot.

use std::collections::BTreeMap;

use thinwire_engine::model::Lsn;
use tokio_postgres::{Client, Row};

use super::Comment;
use crate::{
    choice::{Narrowing, Operations},
    error::{Error, Result},
    sql,
};

/// All that `init` decides from.
#[derive(Clone, Debug)]
pub(super) struct Inventory {
    pub(super) server: Server,
    pub(super) tables: Vec<Table>,
    pub(super) publication: Option<Publication>,
    pub(super) slot: Option<SlotState>,
    pub(super) run_as: Option<RunAs>,
}

/// The server and who we are there.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) version: i32,
    pub(super) wal_level: String,
    pub(super) database: String,
    pub(super) user: String,
    pub(super) encoding: String,
}

/// Something with rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) id: u32,
    pub(super) schema: String,
    pub(super) name: String,
    /// `relkind`: `r`, `p`, `v`, `m`, `f`.
    pub(super) kind: String,
    /// `relpersistence`: `p`, `u`, `t`.
    pub(super) persistence: String,
    /// `relreplident`: `d`, `n`, `f`, `i`.
    pub(super) identity: String,
    /// Whether that identity really identifies: the index it names is there and usable, and all of it is published.
    pub(super) has_key: bool,
    pub(super) is_extension: bool,
    /// The table of which it is a partition, at the top.
    pub(super) root: Option<u32>,
    /// Whether the login that runs may read it.
    pub(super) may_select: bool,
    /// Whether that login may use its schema.
    pub(super) may_use_schema: bool,
    /// Whether it has generated columns.
    pub(super) has_generated: bool,
}

/// The login that will run, if it is another than the one that initialises.
#[derive(Clone, Debug)]
pub(super) struct RunAs {
    pub(super) name: String,
    pub(super) exists: bool,
    pub(super) may_replicate: bool,
}

/// A publication.
#[derive(Clone, Debug)]
pub(super) struct Publication {
    pub(super) is_for_all: bool,
    pub(super) operations: Operations,
    pub(super) is_via_root: bool,
    pub(super) has_generated: bool,
    pub(super) comment: Option<Comment>,
    pub(super) entries: Vec<Entry>,
}

/// A table in a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The entry's own id: one that is made anew has another.
    pub(crate) id: u32,
    pub(crate) table: u32,
    /// What of it is published; the rows as the catalogs spell it.
    pub(crate) narrowing: Narrowing,
}

/// The names of a table's columns.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns {
    pub(super) all: Vec<String>,
    pub(super) generated: Vec<String>,
    /// Those of the replica identity.
    pub(super) identity: Vec<String>,
    /// Those that its partitions are told apart by.
    pub(super) partition_key: Vec<String>,
}

/// A slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotState {
    pub(crate) plugin: Option<String>,
    /// Of this database.
    pub(crate) is_here: bool,
    pub(crate) is_temporary: bool,
    pub(crate) wal_status: Option<String>,
    pub(crate) confirmed: Option<Lsn>,
    pub(crate) active_pid: Option<i32>,
    /// Log that the server keeps for it.
    pub(crate) retained_bytes: u64,
}

impl Server {
    /// What the encoding of its text leaves open, if anything: every other one can be told in UTF-8.
    pub(super) fn doubt(&self) -> Option<String> {
        (self.encoding == "SQL_ASCII").then(|| {
            format!(
                "the encoding of the database {} is SQL_ASCII, so its text may be bytes that are no UTF-8: capture halts at a \
                 row that has some",
                self.database
            )
        })
    }
}

impl Entry {
    /// One that is nowhere: all of the table.
    pub(crate) fn whole(table: u32) -> Self {
        Self { id: 0, table, narrowing: Narrowing::default() }
    }
}

impl Table {
    /// Its name for people, quoted where it must be.
    pub(super) fn label(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// Its name in SQL.
    pub(super) fn sql(&self) -> String {
        sql::qualified(&self.schema, &self.name)
    }
}

/// Looks at everything.
pub(super) async fn take(
    client: &Client,
    publication: &str,
    slot: &str,
    run_as: Option<&str>,
) -> Result<Inventory> {
    let server = server(client).await?;
    if server.version < VERSION_MIN {
        return Err(Error::Refused(format!(
            "the server is PostgreSQL {}; Thinwire needs 14 or later",
            server.version / 10_000
        )));
    }
    let run_as = match run_as {
        Some(name) if name != server.user => Some(run_as_of(client, name).await?),
        _ => None,
    };
    let reader = match &run_as {
        Some(RunAs { name, exists: true, .. }) => name,
        _ => &server.user,
    };
    let tables = client.query(sql::TABLES, &[reader]).await?;
    Ok(Inventory {
        tables: tables.iter().map(table).collect::<Result<_>>()?,
        publication: publication_of(client, publication).await?,
        slot: slot_state(client, slot).await?,
        run_as,
        server,
    })
}

pub(super) async fn server(client: &Client) -> Result<Server> {
    let row = client.query_one(sql::SERVER, &[]).await?;
    Ok(Server {
        version: row.try_get(0)?,
        wal_level: row.try_get(1)?,
        database: row.try_get(2)?,
        user: row.try_get(3)?,
        encoding: row.try_get(4)?,
    })
}

async fn run_as_of(client: &Client, name: &str) -> Result<RunAs> {
    let row = client.query_opt(sql::ROLE, &[&name]).await?;
    let may_replicate = match &row {
        Some(row) => row.try_get(0)?,
        None => false,
    };
    Ok(RunAs { name: name.to_owned(), exists: row.is_some(), may_replicate })
}

fn table(row: &Row) -> Result<Table> {
    Ok(Table {
        id: row.try_get(0)?,
        schema: row.try_get(1)?,
        name: row.try_get(2)?,
        kind: row.try_get(3)?,
        persistence: row.try_get(4)?,
        identity: row.try_get(5)?,
        has_key: row.try_get(6)?,
        is_extension: row.try_get(7)?,
        root: row.try_get(8)?,
        may_select: row.try_get(9)?,
        may_use_schema: row.try_get(10)?,
        has_generated: row.try_get(11)?,
    })
}

/// The publication of that name, if there is one.
pub(super) async fn publication_of(client: &Client, name: &str) -> Result<Option<Publication>> {
    let Some(row) = client.query_opt(sql::PUBLICATION, &[&name]).await? else { return Ok(None) };
    let comment: Option<String> = row.try_get(6)?;
    Ok(Some(Publication {
        is_for_all: row.try_get(0)?,
        operations: Operations {
            insert: row.try_get(1)?,
            update: row.try_get(2)?,
            delete: row.try_get(3)?,
            truncate: row.try_get(4)?,
        },
        is_via_root: row.try_get(5)?,
        has_generated: row.try_get(7)?,
        comment: comment.as_deref().and_then(Comment::parse),
        entries: entries(client, name).await?,
    }))
}

/// The tables that are in a publication, as the session's snapshot shows them.
pub(crate) async fn entries(client: &Client, publication: &str) -> Result<Vec<Entry>> {
    let (mut entries, mut is_narrowed) = (Vec::new(), false);
    for row in client.query(sql::PUBLICATION_TABLES, &[&publication]).await? {
        is_narrowed |= row.try_get::<_, bool>(2)?;
        let (id, table) = (row.try_get(0)?, row.try_get(1)?);
        entries.push(Entry { id, table, narrowing: Narrowing::default() });
    }
    if !is_narrowed {
        return Ok(entries);
    }
    let mut narrowed = BTreeMap::<u32, Narrowing>::new();
    for row in client.query(sql::NARROWED, &[&publication]).await? {
        let columns: Option<Vec<String>> = row.try_get(2)?;
        let columns = columns.map(|names| names.into_iter().collect());
        narrowed.insert(row.try_get(0)?, Narrowing { rows: row.try_get(1)?, columns });
    }
    for entry in &mut entries {
        entry.narrowing = narrowed.remove(&entry.id).unwrap_or_default();
    }
    Ok(entries)
}

/// The columns of tables.
pub(super) async fn columns(client: &Client, tables: &[u32]) -> Result<BTreeMap<u32, Columns>> {
    let mut found = BTreeMap::new();
    for row in client.query(sql::COLUMNS, &[&tables]).await? {
        let columns = Columns {
            all: row.try_get(1)?,
            generated: row.try_get(2)?,
            identity: row.try_get(3)?,
            partition_key: row.try_get(4)?,
        };
        found.insert(row.try_get(0)?, columns);
    }
    Ok(found)
}

/// The slot of that name, if there is one.
pub(crate) async fn slot_state(client: &Client, name: &str) -> Result<Option<SlotState>> {
    let Some(row) = client.query_opt(sql::SLOT, &[&name]).await? else { return Ok(None) };
    let confirmed: Option<String> = row.try_get(4)?;
    let retained: i64 = row.try_get(6)?;
    Ok(Some(SlotState {
        plugin: row.try_get(0)?,
        is_here: row.try_get(1)?,
        is_temporary: row.try_get(2)?,
        wal_status: row.try_get(3)?,
        confirmed: confirmed.and_then(|lsn| lsn.parse().ok()),
        active_pid: row.try_get(5)?,
        retained_bytes: u64::try_from(retained).unwrap_or(0),
    }))
}

/// PostgreSQL 14 is the first with logical messages in pgoutput.
pub(super) const VERSION_MIN: i32 = 140_000;
