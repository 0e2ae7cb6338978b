//! Asking PostgreSQL what it thinks of what was chosen, before anything is changed: all of it in transactions that are
//! rolled back.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;

use super::{
    InitOptions,
    inventory::{self, Columns, Inventory, Table},
    narrow::{self, Member},
    plan as planning,
    published::{Accepted, Place, difference, is_about},
};
use crate::{
    choice::Narrowing,
    error::{Error, Result},
    sql,
};

/// What is to be published of the selected tables.
#[derive(Clone, Debug, Default)]
pub(super) struct Chosen {
    /// Of those of which not everything is, with the condition as the catalogs spell it.
    pub(super) narrowed: BTreeMap<u32, Narrowing>,
    /// Those of which something else is published now.
    pub(super) differing: BTreeSet<u32>,
}

/// Finds out what is to be published, and makes sure that it can be.
///
/// # Errors
/// [`Error::Refused`] with a sentence for each choice that cannot be published, or would make a statement fail.
pub(super) async fn choose(
    client: &Client,
    found: &Inventory,
    selected: &[&Table],
    options: &InitOptions,
) -> Result<Chosen> {
    let mut problems = narrow::names(found, selected, options);
    if problems.is_empty() {
        for ((schema, name), narrowing) in options.choice.tables() {
            problems.extend(unparsed(client, &format!("{schema}.{name}"), narrowing).await?);
        }
    }
    refuse(&problems)?;
    let mut chosen = Chosen::default();
    for table in selected {
        let publication = found.publication.as_ref();
        let entry = publication.and_then(|it| it.entries.iter().find(|it| it.table == table.id));
        let place =
            Place { schema: &table.schema, name: &table.name, is_partitioned: table.kind == "p" };
        if let Some(entry) = entry
            && let Some(_) =
                difference(client, place, entry, &options.choice, &mut Accepted::default()).await?
        {
            chosen.differing.insert(table.id);
        }
        if options.choice.of(&table.schema, &table.name).is_all() {
            continue;
        }
        match rehearse(client, found, table, options).await? {
            Ok(narrowing) => drop(chosen.narrowed.insert(table.id, narrowing)),
            Err(reasons) => problems.extend(reasons),
        }
    }
    refuse(&problems)?;
    Ok(chosen)
}

fn refuse(problems: &[String]) -> Result<()> {
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Error::Refused(problems.join("\n"))),
    }
}

/// Why a condition is no expression, if it is not. What it says is not looked at: its table may not be there yet.
async fn unparsed(client: &Client, label: &str, narrowing: &Narrowing) -> Result<Option<String>> {
    let Some(rows) = &narrowing.rows else { return Ok(None) };
    for statement in sql::parsed(rows) {
        match client.prepare(&statement).await.map_err(Error::from) {
            Ok(_) => {}
            Err(Error::Server(said)) if is_about(&said.code) => {
                let why = said.message;
                return Ok(Some(format!(
                    "the condition on rows of {label} is no expression: {why}"
                )));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// What would be published of a table; or why it cannot be.
async fn rehearse(
    client: &Client,
    found: &Inventory,
    table: &Table,
    options: &InitOptions,
) -> Result<Result<Narrowing, Vec<String>>> {
    let (operations, wanted) =
        (options.choice.operations(), options.choice.of(&table.schema, &table.name));
    let members: Vec<&Table> = planning::members(found, table).collect();
    let ids: Vec<u32> = members.iter().map(|it| it.id).collect();
    let columns = inventory::columns(client, &ids).await?;
    let none = Columns::default();
    let members: Vec<Member<'_>> = members
        .into_iter()
        .map(|it| Member {
            table: it,
            columns: columns.get(&it.id).unwrap_or(&none),
            is_keyless: !table.has_key,
        })
        .collect();
    let mut narrowing = wanted.clone();
    let mut used = Vec::new();
    if wanted.rows.is_some() {
        let condition = Narrowing { columns: None, ..wanted.clone() };
        let entry = sql::entry(&table.sql(), &condition);
        let asked = match client.batch_execute(&sql::rehearse(&entry, operations)).await {
            Ok(()) => client.query_one(sql::CONDITION, &[&sql::REHEARSED]).await,
            Err(error) => Err(error),
        };
        client.batch_execute(sql::ROLLBACK).await?;
        match said(asked)? {
            Ok(row) => (narrowing.rows, used) = (row.try_get(0)?, row.try_get(1)?),
            Err(why) => {
                let label = table.label();
                return Ok(Err(vec![format!(
                    "the condition on rows of {label} cannot be used: {why}"
                )]));
            }
        }
    }
    let problems = narrow::choice(&members, wanted, &used, operations, options.ddl);
    if !problems.is_empty() {
        return Ok(Err(problems));
    }
    let entry = sql::entry(&table.sql(), &narrowing);
    let fails = fails(client, &sql::rehearse(&entry, operations), &members, options).await;
    client.batch_execute(sql::ROLLBACK).await?;
    Ok(match fails? {
        Some(why) => {
            Err(vec![format!("what is chosen of {} cannot be published: {why}", table.label())])
        }
        None => Ok(narrowing),
    })
}

/// Why the entry could not be made, or a statement of the users would fail with it.
async fn fails(
    client: &Client,
    rehearsal: &str,
    members: &[Member<'_>],
    options: &InitOptions,
) -> Result<Option<String>> {
    if let Err(why) = said(client.batch_execute(rehearsal).await)? {
        return Ok(Some(why));
    }
    if !options.choice.operations().need_identity() {
        return Ok(None);
    }
    // What gets its identity from us has none yet.
    for member in members.iter().filter(|it| !it.is_keyless && it.table.kind == "r") {
        let name = member.table.sql();
        let update = member.columns.all.first().map(|column| sql::would_update(&name, column));
        for statement in update.into_iter().chain([sql::would_delete(&name)]) {
            match client.batch_execute(&statement).await.map_err(Error::from) {
                Ok(()) => {}
                // Whoever initialises may own a table whose rows somebody else writes.
                Err(error)
                    if error.code() == Some(crate::error::sqlstate::INSUFFICIENT_PRIVILEGE) =>
                {
                    return Ok(None);
                }
                Err(Error::Server(it)) => return Ok(Some(explained(&it))),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(None)
}

/// What the server said of an expression, apart from what else may go wrong.
fn said<T>(answer: Result<T, tokio_postgres::Error>) -> Result<Result<T, String>> {
    match answer.map_err(Error::from) {
        Ok(it) => Ok(Ok(it)),
        Err(Error::Server(it)) if is_about(&it.code) => Ok(Err(explained(&it))),
        Err(error) => Err(error),
    }
}

/// The details speak of the expression; no row was looked at.
fn explained(said: &crate::ServerError) -> String {
    match &said.detail {
        Some(detail) => format!("{}: {detail}", said.message),
        None => said.message.clone(),
    }
}
