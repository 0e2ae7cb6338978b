//! Taking away what `init` has made for a node, and nothing else: rows stay, and so do the identities of keyless tables.

use super::{following, init::run, inventory, name_for};
use crate::{
    error::{Error, Result},
    source::Source,
    sql,
};

/// Something that is taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// What it is, with its name.
    pub what: String,
    /// What takes it away.
    pub statement: String,
}

/// Takes away slot and publication of a node, and what follows schema changes for it. What is not there is no error.
/// Returns what was taken away.
///
/// # Errors
/// [`Error::Refused`] as long as somebody streams from the slot, or if slot or publication are not the node's; nothing was
/// changed then. Or what the server said.
pub async fn drop(admin: &Source, node: &str) -> Result<Vec<Removal>> {
    let client = admin.connect().await?;
    let removals = removals(&client, node).await?;
    client.batch_execute(sql::SHORT_LOCK_TIMEOUT).await?;
    for Removal { what, statement } in &removals {
        tracing::info!(what, "drop");
        run(&client, statement).await?;
    }
    Ok(removals)
}

/// What [`drop`] would take away.
///
/// # Errors
/// As [`drop`].
pub async fn plan_drop(admin: &Source, node: &str) -> Result<Vec<Removal>> {
    removals(&admin.connect().await?, node).await
}

async fn removals(client: &tokio_postgres::Client, node: &str) -> Result<Vec<Removal>> {
    let name = name_for(node);
    let found = inventory::take(client, &name, &name, None).await?;
    let comment = found.publication.as_ref().and_then(|it| it.comment.as_ref());
    if let Some(other) = comment.filter(|comment| comment.node != node) {
        return Err(Error::Refused(format!(
            "the publication {name} belongs to the node \"{}\": nothing was changed",
            other.node
        )));
    }
    if let Some(slot) = &found.slot {
        if !slot.is_here || slot.plugin.as_deref() != Some("pgoutput") {
            return Err(Error::Refused(format!(
                "the replication slot {name} is not Thinwire's for this database: nothing was changed"
            )));
        }
        if let Some(pid) = slot.active_pid {
            return Err(Error::Refused(format!(
                "a node streams from the slot {name} (process {pid} of the server): stop it first; nothing was changed"
            )));
        }
    }
    // First what may need the most privileges, so that nothing is done without them.
    let mut removals = following::removals(client, &name).await?;
    if found.slot.is_some() {
        let statement = sql::drop_slot(&name);
        removals.push(Removal { what: format!("the replication slot {name}"), statement });
    }
    if found.publication.is_some() {
        let statement = sql::drop_publication(&name);
        removals.push(Removal { what: format!("the publication {name}"), statement });
    }
    Ok(removals)
}
