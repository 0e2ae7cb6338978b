//! Making the publication and the slot.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::Client;

use super::{
    following,
    inventory::{self, Inventory, RunAs, Table},
    name_for, plan as planning, rehearsal,
};
use crate::{
    Choice, Ddl,
    error::{Error, Result, sqlstate},
    pattern::Patterns,
    source::Source,
    sql,
};

/// What capture needs at the source.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// The node's name, from which publication and slot take theirs.
    pub node: String,
    /// The tables to capture.
    pub patterns: Patterns,
    /// What of them to capture.
    pub choice: Choice,
    /// What to do about schema changes.
    pub ddl: Ddl,
    /// The login that will run, if it is another than the one that initialises.
    pub run_as: Option<String>,
}

/// What `init` did, and what is left to somebody else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The statements that were run.
    pub done: Vec<String>,
    /// Statements that somebody with more privileges has to run: Thinwire never makes a login more powerful.
    pub needed: Vec<String>,
    /// The tables that are captured.
    pub tables: Vec<String>,
    /// The tables of which rows or columns are chosen, and that are not there at present.
    pub absent: Vec<String>,
    /// What may go wrong some day, a sentence each.
    pub doubts: Vec<String>,
}

/// Makes the source ready to be captured. Safe to repeat; what is right already is left alone.
///
/// # Errors
/// A sentence for what must be mended first: [`Error::Refused`]; nothing was changed then. Or what the server said.
pub async fn init(admin: &Source, options: &InitOptions) -> Result<Report> {
    let client = admin.connect().await?;
    let (found, statements, tables) = prepare(&client, options).await?;
    client.batch_execute(sql::SHORT_LOCK_TIMEOUT).await?;
    following::hush(&client, &name_for(&options.node)).await?;
    for (at, statement) in statements.iter().enumerate() {
        tracing::info!(statement, "init");
        match at + 1 == statements.len() && found.slot.is_none() {
            true => create_slot(&client, statement).await?,
            false => run(&client, statement).await?,
        }
    }
    let mut doubts: Vec<String> = found.server.doubt().into_iter().collect();
    if options.choice.operations().need_identity() {
        let tables = following::unguarded(&client, &name_for(&options.node)).await?;
        doubts.extend(tables.iter().map(|(table, _)| following::unguarded_says(table)));
    }
    Ok(Report {
        done: statements,
        needed: needed(found.run_as.as_ref()),
        tables,
        absent: absent(&found, &options.choice),
        doubts,
    })
}

/// The statements that [`init`] would run now, with those for somebody with more privileges at the end,
/// and behind them a comment for each name in the choice that no table has at present.
///
/// # Errors
/// As [`init`].
pub async fn plan(admin: &Source, options: &InitOptions) -> Result<Vec<String>> {
    let client = admin.connect().await?;
    let (found, mut statements, _) = prepare(&client, options).await?;
    statements.extend(needed(found.run_as.as_ref()));
    let absent = absent(&found, &options.choice);
    // On one line whatever the name is, so that all of it is a comment.
    statements.extend(absent.iter().map(|it| format!("-- there is no table {it:?} at present")));
    Ok(statements)
}

/// The tables that the choice names, and that are not there.
fn absent(found: &Inventory, choice: &Choice) -> Vec<String> {
    let is_there = |schema: &str, name: &str| {
        found.tables.iter().any(|it| it.schema == schema && it.name == name)
    };
    let names = choice.tables().map(|(name, _)| name);
    let absent = names.filter(|(schema, name)| !is_there(schema, name));
    absent.map(|(schema, name)| format!("{schema}.{name}")).collect()
}

async fn prepare(
    client: &Client,
    options: &InitOptions,
) -> Result<(Inventory, Vec<String>, Vec<String>)> {
    let name = name_for(&options.node);
    let found = inventory::take(client, &name, &name, options.run_as.as_deref()).await?;
    if found.server.wal_level != "logical" {
        return Err(Error::Refused(format!(
            "the server's wal_level is {}: run `ALTER SYSTEM SET wal_level = logical` and restart it",
            found.server.wal_level
        )));
    }
    if let Some(slot) = &found.slot
        && (!slot.is_here || slot.plugin.as_deref() != Some("pgoutput"))
    {
        return Err(Error::Refused(format!(
            "a replication slot {name} exists already, but it is not Thinwire's for this database: \
             drop it, or give the node another name"
        )));
    }
    let following = following::look(client, &found, options, &name).await?;
    let operations = options.choice.operations();
    let selected = planning::select(&found, &options.patterns, operations)?;
    let chosen = rehearsal::choose(client, &found, &selected, options).await?;
    let mut statements =
        planning::statements(&found, &selected, &chosen, operations, &name, &options.node)?;
    // What creates the slot stays the last.
    let at = statements.len() - usize::from(found.slot.is_none());
    statements.splice(at..at, following::statements(&found, &following, options, &name)?);
    let tables = selected.into_iter().map(Table::label).collect();
    Ok((found, statements, tables))
}

/// What the login that will run lacks and must not be given silently.
fn needed(run_as: Option<&RunAs>) -> Vec<String> {
    match run_as {
        Some(RunAs { name, exists: false, .. }) => vec![sql::create_login(name)],
        Some(RunAs { name, may_replicate: false, .. }) => vec![sql::allow_replication(name)],
        _ => vec![],
    }
}

/// Runs a statement, again if a lock was not to be had for a moment.
pub(super) async fn run(client: &Client, statement: &str) -> Result<()> {
    for attempt in 1.. {
        let done = client.batch_execute(statement).await.map_err(Error::from);
        if done.is_err() {
            // One that consists of several may have begun a transaction.
            client.batch_execute(sql::ROLLBACK).await?;
        }
        match done {
            Err(error)
                if error.code() == Some(sqlstate::LOCK_NOT_AVAILABLE)
                    && attempt < LOCK_ATTEMPTS =>
            {
                sleep(LOCK_PAUSE).await;
            }
            Err(Error::Server(mut said)) => {
                said.message = format!("{} (while running: {statement})", said.message);
                return Err(Error::Server(said));
            }
            done => return done,
        }
    }
    Ok(())
}

/// Runs the statement that creates the slot, which waits for the transactions that are running.
async fn create_slot(client: &Client, statement: &str) -> Result<()> {
    client.batch_execute(sql::LONG_LOCK_TIMEOUT).await?;
    let created = client.batch_execute(statement).await.map_err(Error::from);
    match created {
        Err(error) if error.code() == Some(sqlstate::LOCK_NOT_AVAILABLE) => {
            let oldest = client.query_opt(sql::OLDEST_TRANSACTION, &[]).await?;
            let who = match oldest {
                Some(row) => row.try_get(0)?,
                None => "one that has just ended".to_owned(),
            };
            Err(Error::Refused(format!(
                "the slot cannot be created while older transactions are running; the oldest is {who}: wait \
                 for it or end it, then run `thinwire init` again"
            )))
        }
        done => done,
    }
}

/// With the lock timeout, about half a minute in all.
const LOCK_ATTEMPTS: u32 = 6;
const LOCK_PAUSE: Duration = Duration::from_secs(2);
