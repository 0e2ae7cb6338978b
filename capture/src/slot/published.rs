//! What is published now, and whether that is what the configuration says.

use std::collections::{BTreeMap, BTreeSet};

use thinwire_engine::model::{Lsn, RelationId};
use tokio_postgres::Client;

use super::inventory::{self, Entry};
use crate::{
    choice::{Choice, Narrowing},
    error::{Error, Result},
    sql,
};

/// What is published.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    /// The tables, as the output plugin names them, each with its name for people.
    pub(crate) tables: Vec<(RelationId, String)>,
    /// Where the slot was created, as the comment says.
    pub(crate) created: Option<Lsn>,
    /// What is not as the configuration says, a sentence each.
    pub(crate) differences: Vec<String>,
    /// The tables of which it is not: they have missed changes, or tell of some that they should not.
    pub(crate) differing: BTreeSet<RelationId>,
}

/// Conditions on rows that were found to mean what the configuration says, by their entries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accepted(BTreeMap<u32, String>);

/// A table, as much as it takes to ask about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) schema: &'a str,
    pub(super) name: &'a str,
    pub(super) is_partitioned: bool,
}

/// Looks at the publication, and compares it with what was chosen. What was found to be right before is not looked at
/// again; what differs is said once a second look has found the same, because each takes several queries, between which
/// a table may have come.
///
/// # Errors
/// [`Error::Refused`] if it is not there. What the server said.
pub(crate) async fn published(
    client: &Client,
    publication: &str,
    choice: &Choice,
    accepted: &mut Accepted,
) -> Result<Published> {
    let mut seen = look(client, publication, choice, accepted).await?;
    for _ in 0..LOOKS {
        if seen.differences.is_empty() {
            break;
        }
        let again = look(client, publication, choice, accepted).await?;
        let is_so = again.differences == seen.differences;
        seen = again;
        if is_so {
            break;
        }
    }
    Ok(seen)
}

async fn look(
    client: &Client,
    publication: &str,
    choice: &Choice,
    accepted: &mut Accepted,
) -> Result<Published> {
    let Some(found) = inventory::publication_of(client, publication).await? else {
        return Err(Error::Refused(format!(
            "the publication {publication} is not there; run `thinwire init`"
        )));
    };
    // One that `init` has not made yet says nothing of what somebody wants.
    let is_ours = found.comment.is_some();
    let mut out = Published {
        created: found.comment.and_then(|comment| comment.created),
        ..Published::default()
    };
    if found.operations != choice.operations() {
        out.differences.push(format!(
            "the publication {publication} publishes {}, and the configuration says {}",
            found.operations.list(),
            choice.operations().list()
        ));
    }
    for (is_so, what) in [
        (found.has_generated, "generated columns, which the target computes for itself"),
        (!found.is_via_root, "partitions under their own names instead of their root's"),
    ] {
        if is_so && is_ours {
            out.differences.push(format!("the publication {publication} publishes {what}"));
        }
    }
    let all_differ = is_ours && (found.has_generated || !found.is_via_root);
    if all_differ {
        // Roots among them, which are not published themselves while their partitions are.
        out.differing.extend(found.entries.iter().map(|entry| RelationId(entry.table)));
    }
    let entries: BTreeMap<u32, &Entry> = found.entries.iter().map(|it| (it.table, it)).collect();
    for row in client.query(sql::PUBLISHED, &[&publication]).await? {
        let (id, schema, name): (u32, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let place = Place { schema: &schema, name: &name, is_partitioned: row.try_get(3)? };
        // One that is published by way of its schema has no entry, and nothing narrows it.
        let whole = Entry::whole(id);
        let entry = entries.get(&id).copied().unwrap_or(&whole);
        let difference = difference(client, place, entry, choice, accepted).await?;
        if difference.is_some() || choice.operations().exceed(found.operations) {
            out.differing.insert(RelationId(id));
        }
        out.differences.extend(difference);
        out.tables.push((RelationId(id), format!("{schema}.{name}")));
    }
    Ok(out)
}

/// What is published of a table that is not what was chosen.
pub(super) async fn difference(
    client: &Client,
    place: Place<'_>,
    entry: &Entry,
    choice: &Choice,
    accepted: &mut Accepted,
) -> Result<Option<String>> {
    let (there, wanted) = (&entry.narrowing, choice.of(place.schema, place.name));
    let same = match (&there.rows, &wanted.rows) {
        (None, None) => true,
        (Some(there), Some(_)) if accepted.0.get(&entry.id) == Some(there) => true,
        (Some(there), Some(wanted)) => {
            let same = mean_the_same(client, place, there, wanted).await?;
            if same {
                accepted.0.insert(entry.id, there.clone());
            }
            same
        }
        _ => false,
    };
    if same && there.columns == wanted.columns {
        return Ok(None);
    }
    let (schema, name) = (place.schema, place.name);
    let (there, wanted) = (said(there), said(wanted));
    Ok(Some(format!("of {schema}.{name} {there} published, and the configuration says {wanted}")))
}

/// Whether a condition as the catalogs spell it means what somebody has typed.
async fn mean_the_same(
    client: &Client,
    place: Place<'_>,
    there: &str,
    wanted: &str,
) -> Result<bool> {
    let table = sql::qualified(place.schema, place.name);
    let mut meanings = Vec::with_capacity(2);
    for expression in [there, wanted] {
        // As a prepared statement, of which there is one in a text.
        let question = sql::meaning(&table, !place.is_partitioned, expression);
        let answer = match client.query(&question, &[]).await {
            Ok(rows) => {
                rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?
            }
            Err(error) if error.as_db_error().is_some_and(|it| is_about(it.code().code())) => {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        meanings.push(answer);
    }
    Ok(meanings[0] == meanings[1])
}

/// Whether an error is about the expression itself: what it says, or what it computes.
pub(super) fn is_about(code: &str) -> bool {
    ["42", "22", "0A"].iter().any(|class| code.starts_with(class))
        && code != crate::error::sqlstate::INSUFFICIENT_PRIVILEGE
}

fn said(narrowing: &Narrowing) -> String {
    let columns = narrowing.columns.as_ref().map(|names| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        format!("the columns {}", names.join(", "))
    });
    let rows = narrowing.rows.as_ref().map(|rows| format!("rows where {rows}"));
    match (columns, rows) {
        (None, None) => "everything".to_owned(),
        (columns, rows) => columns.into_iter().chain(rows).collect::<Vec<_>>().join(", "),
    }
}

/// How often it is looked again at a publication that somebody does not stop to alter.
const LOOKS: u32 = 5;
