//! A snapshot of the source at a known position, with the tables to copy locked against being changed in shape.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
};

use thinwire_engine::model::{Definitions, Lsn, RelationId};
use tokio::{runtime::Handle, task::JoinHandle};
use tokio_postgres::Client;

use super::{Description, describe};
use crate::{
    Ddl, Options,
    error::{Error, Result, sqlstate},
    replication::Connection,
    schema,
    slot::{Accepted, Published, published},
    source::Source,
    sql,
};

/// Tables that can be read as they were at a position.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// A session in that snapshot. The snapshot, and the locks, end with it.
    pub(crate) client: Client,
    /// The rows are those of transactions whose commit record begins before this.
    pub(crate) lsn: Lsn,
    /// The tables, with the source's estimate of their rows.
    pub(crate) tables: Vec<(Description, u64)>,
    /// Their definitions, where schema changes travel.
    pub(crate) definitions: Option<Definitions>,
}

/// A task that takes a snapshot, and ends with its owner.
#[derive(Debug)]
pub(crate) struct Preparation {
    task: JoinHandle<Result<Prepared>>,
    waiting: Arc<Waiting>,
}

/// The server process that waits for running transactions on our behalf. It does not notice that we are gone, and its
/// slot keeps the source's log until they end.
#[derive(Debug)]
struct Waiting {
    source: Source,
    pid: AtomicI32,
}

impl Preparation {
    /// Begins to take a snapshot of `tables`. Waits for the transactions that are running now.
    pub(crate) fn start(options: &Options, tables: &[RelationId]) -> Self {
        let source = options.source.clone();
        let waiting = Arc::new(Waiting { source, pid: AtomicI32::new(0) });
        let (options, tables) = (options.clone(), tables.to_vec());
        let at = waiting.clone();
        let task = tokio::spawn(async move { prepare(&at, &options, &tables).await });
        Self { task, waiting }
    }

    /// Waits for the snapshot. May be dropped and called again, until it has answered once.
    ///
    /// # Errors
    /// [`Error::Refused`] if a table was rewritten or changed its shape meanwhile: the snapshot does not show its
    /// rows. What the server said.
    pub(crate) async fn done(&mut self) -> Result<Prepared> {
        match (&mut self.task).await {
            Ok(result) => result,
            Err(_) => Err(Error::Lost("the preparation of a copy broke off".to_owned())),
        }
    }
}

impl Drop for Preparation {
    fn drop(&mut self) {
        self.task.abort();
        let pid = self.waiting.pid.load(Ordering::SeqCst);
        if let (true, Ok(runtime)) = (pid != 0, Handle::try_current()) {
            let source = self.waiting.source.clone();
            runtime.spawn(async move {
                if let Ok(client) = source.connect().await {
                    let _ = client.execute(sql::END_OWN_SENDER, &[&pid]).await;
                }
            });
        }
    }
}

async fn prepare(waiting: &Waiting, options: &Options, tables: &[RelationId]) -> Result<Prepared> {
    let (source, publication) = (&waiting.source, &options.publication);
    let looking = source.connect().await?;
    looking.batch_execute(sql::SHORT_LOCK_TIMEOUT).await?;
    // What is committed while the snapshot comes about is decoded as the table was published when it was changed: how
    // that is, must not have changed since before.
    let before = describe(&looking, publication, tables).await?;
    let mut replication = Connection::open(source).await?;
    let pid = replication.backend_pid();
    waiting.pid.store(pid, Ordering::SeqCst);
    let created = replication.create_temporary_slot(&temporary_slot(&options.slot, pid)).await;
    waiting.pid.store(0, Ordering::SeqCst);
    let (lsn, snapshot) = created?;
    let client = source.connect().await?;
    client.batch_execute(&sql::begin_in_snapshot(&snapshot)).await?;
    // The snapshot is ours now, and the slot only holds back the source's log.
    replication.close().await;
    let then = describe(&client, publication, tables).await?;
    for table in then.values() {
        let locked = client.batch_execute(&sql::lock(&table.sql(), !table.is_partitioned)).await;
        locked.map_err(|error| match Error::from(error) {
            said if said.code() == Some(sqlstate::LOCK_NOT_AVAILABLE) => {
                refused(table, "is locked by somebody else")
            }
            other => other,
        })?;
    }
    // With the locks held, no table changes its shape any more. One that did so between snapshot and lock is seen
    // by a session that looks at it now. Somebody who wants to alter a table waits for our lock, and that session waits
    // for him: whoever gives way, it has to be us.
    let (now, chosen) = match (look(&looking, options, tables).await, then.values().next()) {
        (Err(said), Some(table)) if said.code() == Some(sqlstate::LOCK_NOT_AVAILABLE) => {
            return Err(refused(table, "or another table is about to be altered"));
        }
        (now, _) => now?,
    };
    if let Some(difference) = chosen.differences.first() {
        return Err(Error::Refused(format!(
            "{difference}; no table is copied until that is mended"
        )));
    }
    let mut prepared = Vec::with_capacity(then.len());
    for (id, table) in then {
        if !now.get(&id).is_some_and(|now| now.is_as(&table)) {
            return Err(refused(&table, "was rewritten or altered just now"));
        }
        if before.get(&id).is_some_and(|before| before.entry.id != table.entry.id) {
            return Err(refused(&table, "was published in another way just now"));
        }
        // What is not published is not narrowed either, whatever was chosen of it.
        if !chosen.tables.iter().any(|(published, _)| *published == id) {
            return Err(refused(&table, "is not published"));
        }
        let estimate = estimate(&client, &table).await?;
        prepared.push((table, estimate));
    }
    let definitions = match options.ddl {
        Ddl::Stop => None,
        Ddl::Replicate => Some(definitions(&client, &options.publication, tables).await?),
    };
    Ok(Prepared { client, lsn, tables: prepared, definitions })
}

/// The tables as they are now, and what is published.
async fn look(
    client: &Client,
    options: &Options,
    tables: &[RelationId],
) -> Result<(BTreeMap<RelationId, Description>, Published)> {
    let now = describe(client, &options.publication, tables).await?;
    let accepted = &mut Accepted::default();
    let published = published(client, &options.publication, &options.choice, accepted).await?;
    Ok((now, published))
}

/// The tables with all that they need, in the session's snapshot.
async fn definitions(
    client: &Client,
    publication: &str,
    tables: &[RelationId],
) -> Result<Definitions> {
    let ids: Vec<u32> = tables.iter().map(|id| id.0).collect();
    let row = client.query_one(sql::schema::DESCRIBE, &[&publication, &ids]).await?;
    let text: String = row.try_get(0)?;
    let objects = schema::objects(&text).map_err(|error| {
        Error::Handshake(format!(
            "the source describes its tables in words that are not known: {error}"
        ))
    })?;
    Ok(Definitions { objects, dropped: vec![] })
}

/// About how many bytes a table takes, as far as it is published.
pub(crate) async fn extent(client: &Client, table: &Description) -> Result<u64> {
    if table.entry.narrowing.is_all() {
        return Ok(table.bytes);
    }
    let Planned { rows, width } = planned(client, table).await?;
    Ok(table.bytes.min(rows.saturating_mul(width + ROW_BYTES)))
}

async fn estimate(client: &Client, table: &Description) -> Result<u64> {
    Ok(planned(client, table).await?.rows)
}

/// What the planner thinks, which also holds for tables that were never analyzed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Planned {
    rows: u64,
    /// Of a row, in bytes.
    width: u64,
}

async fn planned(client: &Client, table: &Description) -> Result<Planned> {
    let plan = client.simple_query(&table.reading().explain()).await?;
    let lines = plan.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(lines.into_iter().find_map(planned_in).unwrap_or_default())
}

/// The first of a plan's lines with numbers is that of the whole.
fn planned_in(line: &str) -> Option<Planned> {
    let number = |name: &str| {
        let (_, rest) = line.split_once(name)?;
        rest.split(|it: char| !it.is_ascii_digit()).next()?.parse().ok()
    };
    Some(Planned { rows: number(" rows=")?, width: number(" width=")? })
}

/// What the source's pages take for a row beside its values.
const ROW_BYTES: u64 = 28;

/// A name that no other connection has, and of at most 63 bytes.
fn temporary_slot(slot: &str, pid: i32) -> String {
    let suffix = format!("_copy_{pid}");
    let kept: String = slot.chars().take(63 - suffix.len()).collect();
    format!("{kept}{suffix}")
}

fn refused(table: &Description, why: &str) -> Error {
    Error::Refused(format!("{} {why}; its copy is tried again", table.label()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_read_from_the_plan() {
        let line = "Seq Scan on public.t  (cost=0.00..2881.00 rows=100000 width=97)";
        assert_eq!(planned_in(line), Some(Planned { rows: 100_000, width: 97 }));
        assert_eq!(planned_in("  Output: a, b"), None);
    }

    #[test]
    fn temporary_slots_have_legal_names() {
        let name = temporary_slot(&"x".repeat(63), i32::MAX);
        assert_eq!(name.len(), 63);
        assert!(name.ends_with("_copy_2147483647"));
    }
}
