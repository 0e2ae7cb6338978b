//! Rows that are changed or removed: the statement, whether it hit what it had to, and what is done if not.

use std::sync::Arc;

use thinwire_engine::model::{Offset, Record};
use tracing::warn;

use super::{
    Postgres,
    about::About,
    disconnected,
    param::Param,
    pipeline::{Expect, MISSING},
    session::Session,
};
use crate::{
    Conflicts, SinkError,
    conflict::Conflict,
    plan::{self, OnExisting, Planned, Table},
};

impl Postgres {
    /// Executes an update or delete. Alone, it is known then whether it hit its row, and what is declared is done if not.
    pub(super) async fn change_row(
        &mut self,
        table: &Arc<Table>,
        offset: Offset,
        record: &Record,
        alone: bool,
    ) -> Result<(), SinkError> {
        let about = About::record(offset, table, record);
        let (planned, conflict) = match record {
            Record::Update { old, new, .. } => {
                (plan::update(table, old.as_ref(), new), Conflict::UpdateMissing)
            }
            Record::Delete { old, .. } => {
                (plan::delete(table, old).map(Some), Conflict::DeleteMissing)
            }
            _ => return Ok(()),
        };
        let planned = planned.map_err(|senseless| about.refused("journal_corrupt", senseless.0))?;
        let Some(planned) = planned else { return Ok(()) };
        if !alone {
            let session = self.session.as_mut().ok_or_else(disconnected)?;
            let question = |lock| plan::whose(&planned, lock);
            session.ask_whose(table, question, conflict, &about, &self.counts).await?;
            return self.send(table, planned, Expect::One(conflict), about).await;
        }
        if !self.may_change(table, &planned, conflict, &about).await? {
            return Ok(());
        }
        match self.count(table, planned.clone(), &about).await? {
            1 => Ok(()),
            0 if self.suppressed(table, &planned, &about).await? => Ok(()),
            0 => self.resolve(table, record, conflict, about).await,
            rows => Err(about.refused("other", format!("{rows} rows have this key"))),
        }
    }

    /// Sends a statement.
    async fn send(
        &mut self,
        table: &Arc<Table>,
        planned: Planned,
        expect: Expect,
        about: About,
    ) -> Result<(), SinkError> {
        let session = self.session.as_mut().ok_or_else(disconnected)?;
        let statement = session.statement(table, &planned.shape, &about, &self.counts).await?;
        let Session { client, pipeline, .. } = session;
        pipeline.send(client, statement, planned, expect, about, &self.counts).await
    }

    /// Runs a statement by itself and returns how many rows it hit.
    async fn count(
        &mut self,
        table: &Arc<Table>,
        planned: Planned,
        about: &About,
    ) -> Result<u64, SinkError> {
        let session = self.session.as_mut().ok_or_else(disconnected)?;
        session.pipeline.drain(&self.counts).await?;
        let statement = session.statement(table, &planned.shape, about, &self.counts).await?;
        let params: Vec<_> = planned.params.into_iter().map(Param).collect();
        let hit = session.client.execute_raw(&statement, params).await;
        hit.map_err(|error| about.failed(&error))
    }

    /// Whether a row that was not changed is there all the same: then a trigger of the target has refused the change, as
    /// it may.
    async fn suppressed(
        &mut self,
        table: &Arc<Table>,
        planned: &Planned,
        about: &About,
    ) -> Result<bool, SinkError> {
        let Some(probe) = plan::probe(planned) else { return Ok(false) };
        Ok(self.count(table, probe, about).await? > 0)
    }

    /// Does what is declared about a row that is missing.
    async fn resolve(
        &mut self,
        table: &Arc<Table>,
        record: &Record,
        conflict: Conflict,
        about: About,
    ) -> Result<(), SinkError> {
        let adds = match (self.conflicts, record) {
            (Conflicts::Stop | Conflicts::LastUpdateWins, _) => {
                return Err(about.refused(conflict.code(), MISSING));
            }
            (Conflicts::ApplyRemote, Record::Update { new, .. }) => Some(new.clone()),
            (Conflicts::ApplyRemote | Conflicts::KeepLocal, _) => None,
        };
        if let Some(row) = adds {
            // Without its unchanged values the row cannot be added.
            let added = plan::insert(vec![row], OnExisting::Overwrite)
                .map_err(|_| about.refused(conflict.code(), MISSING_IN_PART))?;
            self.count(table, added, &about).await?;
        }
        self.counts.count(conflict, 1);
        warn!(
            stream = %self.stream, offset = about.offset().map(Offset::get), table = about.table_name(),
            key = about.key(), conflict = conflict.code(), "a conflict was resolved as declared"
        );
        Ok(())
    }
}

const MISSING_IN_PART: &str =
    "the row is not there, and cannot be added because values that did not change were not sent";
