//! `on_full = "resync"`: letting go of the slot when the journal is full, and beginning anew when there is room.
//!
//! A *released* mark in the journal says, before the slot goes, that what comes next has a gap; from then on no
//! table counts as copied. Whatever interrupts this, the next session finds that mark and goes on here: it drops the slot
//! if that is there still, waits for room, makes a new one and marks its position. Then the tables are copied again
//! like any that are new.

use std::time::Duration;

use thinwire_engine::{
    Error as JournalError,
    journal::Mark,
    model::{Halt, Lsn},
};
use tokio::time::timeout;
use tokio_postgres::Client;

use super::{Runner, Trouble, admission};
use crate::{
    error::{Error, Result},
    replication::{Connection, System},
    slot::slot_state,
    sql,
    status::State,
};

impl Runner {
    /// Notes that the slot is let go of. The next session does it.
    pub(super) async fn release(&mut self) {
        let Some(mark) = self.options.stream.tail().mark else { return };
        tracing::warn!(
            slot = self.options.slot,
            "the journal is full; the slot is let go of, and the tables are copied again when there is room"
        );
        if let Err(error) = self.journal(Mark { released: true, ..mark }).await {
            tracing::warn!(%error, "the slot is kept");
            self.rest(super::ROOM_POLL).await;
        }
    }

    /// Replaces the slot by a new one, once there is room for what it will bring.
    pub(super) async fn reopen(
        &mut self,
        control: &Client,
        replication: &mut Connection,
    ) -> Result<(), Trouble> {
        let Some(mark) = self.options.stream.tail().mark else { return Ok(()) };
        let slot = self.options.slot.clone();
        same_cluster(mark, replication.identify_system().await?.id).map_err(Trouble::Halt)?;
        if let Some(state) = slot_state(control, &slot).await? {
            admission::usable(Some(&state), &slot).map_err(Trouble::Halt)?;
        }
        control.execute(sql::DROP_SLOT, &[&slot]).await?;
        self.shared.set_state(State::Held);
        self.shared.set_error(Some(
            "the journal was full, so the slot was let go of; the tables are copied again when there is room".to_owned(),
        ));
        self.rest_until_room(ROOM_SHARE).await;
        let row = control.query_one(sql::CREATE_SLOT, &[&slot]).await?;
        let text: String = row.try_get(0).map_err(Error::from)?;
        let lsn: Lsn = text.parse().map_err(|_| {
            Trouble::Halt(Halt::new("slot_foreign", format!("the new slot begins at \"{text}\"")))
        })?;
        // The wait may have been long enough for a failover.
        let System { id, timeline, .. } = replication.identify_system().await?;
        same_cluster(mark, id).map_err(Trouble::Halt)?;
        tracing::info!(slot, %lsn, "a new slot; the tables are copied again");
        self.journal(Mark { lsn, timeline, system: id, released: false }).await?;
        Ok(())
    }

    /// Journals a mark and waits until it is durable.
    async fn journal(&self, mark: Mark) -> Result<()> {
        let stream = &self.options.stream;
        let mut watermarks = stream.watch();
        stream.mark(mark)?;
        while stream.durable_mark() != Some(mark) {
            if stream.is_poisoned() {
                return Err(JournalError::Poisoned { stream: stream.id() }.into());
            }
            let _ = timeout(DURABLE_POLL, watermarks.changed()).await;
        }
        Ok(())
    }
}

/// Nothing is dropped or made at another cluster than the journal knows.
fn same_cluster(mark: Mark, system: u64) -> Result<(), Halt> {
    match system == mark.system {
        true => Ok(()),
        false => Err(admission::wrong_system(system, mark.system)),
    }
}

/// As much of the budget as this must be free for a copy to be worth its start.
const ROOM_SHARE: u64 = 2;

const DURABLE_POLL: Duration = Duration::from_millis(100);
