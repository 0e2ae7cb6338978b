//! Asking the source regularly what its replication stream does not tell: which tables are published, and how much log
//! it keeps for us.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use thinwire_engine::model::{Body, Lsn, Object, RelationId, Sequence};
use tokio::{sync::watch, task::JoinHandle, time::sleep};
use tokio_postgres::Client;

use crate::{
    Ddl, Options,
    error::{Error, Result, sqlstate},
    schema,
    slot::{Accepted, Published, published, slot_state, unpublished},
    sql,
    status::Shared,
};

/// The published tables, with their names for people.
pub(super) type Tables = BTreeMap<RelationId, String>;

/// What the source said last.
#[derive(Clone, Debug, Default)]
struct Found {
    tables: Option<Tables>,
    /// Why what is published is not what is to be captured.
    differences: Vec<String>,
    /// Of which tables it is not.
    differing: BTreeSet<RelationId>,
    /// All sequences that have moved, as they were told last, and where the source was when it had been asked for them;
    /// nothing if it could not say.
    sequences: Option<(Vec<Object>, Lsn)>,
}

/// A session that asks, and what it was told.
#[derive(Default)]
struct Asking {
    client: Option<Client>,
    accepted: Accepted,
    /// All sequences that have moved.
    known: BTreeMap<u32, Object>,
}

/// The task that asks.
#[derive(Debug)]
pub(super) struct Poller {
    found: watch::Receiver<Found>,
    task: JoinHandle<()>,
}

impl Poller {
    /// Begins to ask, whatever else goes on.
    pub(super) fn start(options: &Options, shared: Arc<Shared>) -> Self {
        let (found, answers) = watch::channel(Found::default());
        let options = options.clone();
        let task = tokio::spawn(async move {
            let mut asking = Asking::default();
            for round in 0_u32.. {
                if let Err(error) = asking.ask(&options, round, &shared, &found).await {
                    // A new session at the next try.
                    asking.client = None;
                    tracing::debug!(%error, "asking the source failed");
                }
                sleep(options.pace.poll).await;
            }
        });
        Self { found: answers, task }
    }

    /// Waits until the source was asked again.
    pub(super) async fn asked(&mut self) {
        // The task ends only with us.
        let _ = self.found.changed().await;
    }

    /// The tables, once they are known.
    pub(super) fn tables(&self) -> Option<Tables> {
        self.found.borrow().tables.clone()
    }

    /// What is not published as the configuration says, a sentence each.
    pub(super) fn differences(&self) -> Vec<String> {
        self.found.borrow().differences.clone()
    }

    /// Of which tables it is not.
    pub(super) fn differing(&self) -> BTreeSet<RelationId> {
        self.found.borrow().differing.clone()
    }

    /// The sequences that have moved, and where the source was when it was asked for them, if it said so.
    pub(super) fn sequences(&self) -> Option<(Vec<Object>, Lsn)> {
        self.found.borrow().sequences.clone()
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Asking {
    async fn ask(
        &mut self,
        options: &Options,
        round: u32,
        shared: &Shared,
        answers: &watch::Sender<Found>,
    ) -> Result<()> {
        let client = match &self.client {
            Some(client) => client,
            None => self.client.insert(options.source.connect().await?),
        };
        if let Some(slot) = slot_state(client, &options.slot).await? {
            shared.set_retained(slot.retained_bytes);
        }
        let follows = options.ddl == Ddl::Replicate;
        publish_delayed(client, &options.publication).await?;
        if follows && round.is_multiple_of(ROUNDS) {
            client.execute(sql::schema::PUBLISH_MISSING, &[&options.publication]).await?;
        }
        let seen = published(client, &options.publication, &options.choice, &mut self.accepted);
        let seen = seen.await?;
        let Published { tables, differences, differing, .. } = seen;
        let tables = Some(tables.into_iter().collect());
        let mut found = Found { tables, differences, differing, ..Found::default() };
        if follows
            && let Some((moved, as_of)) =
                moved(client, &options.publication, self.known.values()).await?
        {
            self.known.extend(moved.into_iter().map(|object| (object.id, object)));
            // Whatever is not there behind that was dropped.
            let ids: Vec<u32> = self.known.keys().copied().collect();
            let there = client.query_one(sql::SEQUENCES_THERE, &[&ids]).await?;
            let there: BTreeSet<u32> = there.try_get::<_, Vec<u32>>(0)?.into_iter().collect();
            self.known.retain(|id, _| there.contains(id));
            found.sequences = Some((self.known.values().cloned().collect(), as_of));
        }
        answers.send_replace(found);
        if round.is_multiple_of(ROUNDS) {
            // Looks at all tables there are, so not every time.
            let tables = unpublished(client, &options.publication, &options.patterns).await?;
            if !tables.is_empty() && shared.picture().unpublished != tables {
                tracing::warn!(?tables, "meant and not captured");
            }
            shared.set_unpublished(tables);
        }
        Ok(())
    }
}

/// Publishes what was left to later, or identifies it where nothing is followed, if that is installed.
async fn publish_delayed(client: &Client, publication: &str) -> Result<()> {
    if client.query_one(sql::schema::MAY_PUBLISH_DELAYED, &[]).await?.try_get(0)? {
        client.execute(sql::schema::PUBLISH_DELAYED, &[&publication]).await?;
    }
    Ok(())
}

/// The sequences that moved from where they are known to be, and where the source was after that; nothing if somebody
/// holds one of them.
pub(super) async fn moved(
    client: &Client,
    publication: &str,
    known: impl Iterator<Item = &Object>,
) -> Result<Option<(Vec<Object>, Lsn)>> {
    let at = known.filter_map(|object| match &object.body {
        Body::Sequence(Sequence { value: Some(next), .. }) => Some((object.id, *next)),
        _ => None,
    });
    let (ids, at): (Vec<u32>, Vec<i64>) = at.unzip();
    let row = client.query_one(sql::schema::SEQUENCES, &[&publication, &ids, &at]).await;
    let text: String = match row.map_err(Error::from) {
        Ok(row) => row.try_get(0)?,
        // Somebody alters one.
        Err(error) if error.code() == Some(sqlstate::LOCK_NOT_AVAILABLE) => return Ok(None),
        Err(error) => return Err(error),
    };
    // Whatever made them is before this.
    let flushed: String = client.query_one(sql::FLUSHED, &[]).await?.try_get(0)?;
    let moved = schema::objects(&text).map_err(|error| Error::Handshake(error.to_string()))?;
    Ok(Some((moved, flushed.parse().unwrap_or(Lsn::ZERO))))
}

/// In which of several rounds it is looked at what is not urgent.
const ROUNDS: u32 = 12;
