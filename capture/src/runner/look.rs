//! Looking where the source's sequences are when a transaction cannot wait for the next look in turn.

use std::time::Duration;

use thinwire_engine::model::{Lsn, Object};
use tokio::time::{Instant, timeout};
use tokio_postgres::Client;

use super::{poll::moved, sequences::Sequences};
use crate::{Options, error::Result};

/// A session that looks, once there was a reason to.
#[derive(Default)]
pub(super) struct Look {
    client: Option<Client>,
    /// When it was looked in vain.
    failed: Option<Instant>,
}

impl Look {
    /// The sequences that have moved since they were looked at last, and where the source was after that. Nothing if it
    /// does not answer: the next look in turn catches up, and until then what is read does not wait for another one.
    pub(super) async fn look(
        &mut self,
        options: &Options,
        sequences: &Sequences,
    ) -> Option<(Vec<Object>, Lsn)> {
        if self.failed.is_some_and(|at| at.elapsed() < options.pace.poll) {
            return None;
        }
        match timeout(PATIENCE, self.ask(options, sequences)).await {
            Ok(Ok(Some(found))) => {
                self.failed = None;
                return Some(found);
            }
            Ok(Ok(None)) => tracing::debug!("somebody holds a sequence, so none was looked at"),
            Ok(Err(error)) => {
                self.client = None;
                tracing::debug!(%error, "sequences could not be looked at");
            }
            Err(_) => {
                self.client = None;
                tracing::debug!("sequences could not be looked at in time");
            }
        }
        self.failed = Some(Instant::now());
        None
    }

    async fn ask(
        &mut self,
        options: &Options,
        sequences: &Sequences,
    ) -> Result<Option<(Vec<Object>, Lsn)>> {
        let client = match &self.client {
            Some(client) => client,
            None => self.client.insert(options.source.connect().await?),
        };
        moved(client, &options.publication, sequences.objects()).await
    }
}

/// Longer than a lock on a sequence is waited for; what is read waits with it.
const PATIENCE: Duration = Duration::from_secs(3);
