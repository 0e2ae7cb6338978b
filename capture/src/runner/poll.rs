//! Asking the source regularly what its replication stream does not tell: which tables are published, and how much log
//! it keeps for us.

use std::{collections::BTreeMap, sync::Arc};

use thinwire_engine::model::RelationId;
use tokio::{sync::watch, task::JoinHandle, time::sleep};
use tokio_postgres::Client;

use crate::{
    Ddl, Options,
    error::Result,
    slot::{published, slot_state, unpublished},
    sql,
    status::Shared,
};

/// The published tables, with their names for people.
pub(super) type Tables = BTreeMap<RelationId, String>;

/// The task that asks.
#[derive(Debug)]
pub(super) struct Poller {
    tables: watch::Receiver<Option<Tables>>,
    task: JoinHandle<()>,
}

impl Poller {
    /// Begins to ask, whatever else goes on.
    pub(super) fn start(options: &Options, shared: Arc<Shared>) -> Self {
        let (found, tables) = watch::channel(None);
        let options = options.clone();
        let task = tokio::spawn(async move {
            let mut client = None;
            for round in 0_u32.. {
                if let Err(error) = ask(&options, round, &mut client, &shared, &found).await {
                    // A new session at the next try.
                    client = None;
                    tracing::debug!(%error, "asking the source failed");
                }
                sleep(options.pace.poll).await;
            }
        });
        Self { tables, task }
    }

    /// Waits until the source was asked again.
    pub(super) async fn asked(&mut self) {
        // The task ends only with us.
        let _ = self.tables.changed().await;
    }

    /// The tables, once they are known.
    pub(super) fn tables(&self) -> Option<Tables> {
        self.tables.borrow().clone()
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn ask(
    options: &Options,
    round: u32,
    client: &mut Option<Client>,
    shared: &Shared,
    found: &watch::Sender<Option<Tables>>,
) -> Result<()> {
    let client = match client {
        Some(client) => client,
        None => client.insert(options.source.connect().await?),
    };
    if let Some(slot) = slot_state(client, &options.slot).await? {
        shared.set_retained(slot.retained_bytes);
    }
    if options.ddl == Ddl::Replicate && round.is_multiple_of(ROUNDS) {
        client.execute(sql::schema::PUBLISH_MISSING, &[&options.publication]).await?;
    }
    let (tables, _) = published(client, &options.publication).await?;
    found.send_replace(Some(tables.into_iter().collect()));
    if round.is_multiple_of(ROUNDS) {
        // Looks at all tables there are, so not every time.
        shared.set_unpublished(unpublished(client, &options.publication, &options.patterns).await?);
    }
    Ok(())
}

/// In which of several rounds it is looked at what is not urgent.
const ROUNDS: u32 = 12;
