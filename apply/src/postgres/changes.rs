//! What one change becomes: a row that waits with others of its kind, a statement of its own, or a step of a copy.

use std::sync::Arc;

use thinwire_engine::model::{Halt, Offset, Record, RelationId};
use tracing::warn;

use super::{About, Gathered, Load, Postgres, disconnected, gathered::Offered, lookup::ask};
use crate::{Change, Conflicts, SinkError, plan::Table, sink::Relations, sql};

impl Postgres {
    pub(super) async fn execute(&mut self, change: Change<'_>) -> Result<(), SinkError> {
        let Change { offset, record, relations, alone } = change;
        let Some(record) = self.gather(offset, record, relations, alone).await? else {
            return Ok(());
        };
        match record {
            Record::Insert { relation, new } => {
                let (table, staged) = self.insert_into(relation, relations, offset).await?;
                if !self.inserts.takes(&table) {
                    self.send_inserts().await?;
                }
                if self.inserts.push(&table, staged, offset, new) {
                    self.send_inserts().await?;
                }
                Ok(())
            }
            Record::Update { relation, .. } | Record::Delete { relation, .. } => {
                self.send_waiting().await?;
                let table = self.table(relation, relations, offset).await?;
                self.change_row(&table, offset, &record, alone).await
            }
            Record::Truncate { relations: ids, restart_identity, .. } => {
                self.send_waiting().await?;
                self.truncate(&ids, relations, offset, restart_identity).await
            }
            Record::CopyBegin(copy) => {
                self.load =
                    Some(Load::new(self.stream, self.existing, self.is_shared, offset, &copy));
                Ok(())
            }
            Record::Relation(relation) => self.enter(relation.id, relations, offset).await,
            Record::CopyEnd { .. } => self.end_load(relations, offset).await,
            Record::Schema(schema) => self.alter(schema, offset).await,
            _ => Ok(()),
        }
    }

    /// Takes a change into what is gathered; gives it back if it has to be executed by itself.
    async fn gather(
        &mut self,
        offset: Offset,
        record: Record,
        relations: &Relations,
        alone: bool,
    ) -> Result<Option<Record>, SinkError> {
        let (Record::Insert { relation, .. }
        | Record::Update { relation, .. }
        | Record::Delete { relation, .. }) = record
        else {
            return Ok(Some(record));
        };
        if alone || self.load.is_some() {
            return Ok(Some(record));
        }
        let table = self.table(relation, relations, offset).await?;
        if !Gathered::may_take(&table, &record) {
            self.send_gathered().await?;
            return Ok(Some(record));
        }
        self.send_inserts().await?;
        // Where the rows at the target win, an insert may have no effect and the update one.
        let merges = self.conflicts != Conflicts::KeepLocal;
        if let Offered::NotYet(record) = self.gathered.offer(&table, offset, record, merges) {
            let existing = self.on_existing();
            let session = self.session.as_mut().ok_or_else(disconnected)?;
            self.gathered.send_table(&table, session, existing, &self.counts).await?;
            self.gathered.offer(&table, offset, record, merges);
        }
        if self.gathered.is_full() {
            self.send_gathered().await?;
        }
        Ok(None)
    }

    /// The table that a row is added to, and whether it is staged before.
    async fn insert_into(
        &mut self,
        relation: RelationId,
        relations: &Relations,
        offset: Offset,
    ) -> Result<(Arc<Table>, bool), SinkError> {
        self.enter(relation, relations, offset).await?;
        match &mut self.load {
            None => Ok((self.table(relation, relations, offset).await?, false)),
            Some(load) if load.is_at(relation) => load.row().ok_or_else(|| misplaced(offset)),
            Some(_) => Err(misplaced(offset)),
        }
    }

    /// In a copy, begins with a table that has not had its turn.
    async fn enter(
        &mut self,
        relation: RelationId,
        relations: &Relations,
        offset: Offset,
    ) -> Result<(), SinkError> {
        let (Some(load), Some(session)) = (&mut self.load, &mut self.session) else {
            return Ok(());
        };
        if !load.awaits(relation) {
            return Ok(());
        }
        let described = relations.get(&relation).ok_or_else(|| misplaced(offset))?;
        load.leave(session, &mut self.inserts, offset, &self.counts).await?;
        load.enter(session, described, offset, &self.counts).await
    }

    async fn end_load(&mut self, relations: &Relations, offset: Offset) -> Result<(), SinkError> {
        let (Some(mut load), Some(session)) = (self.load.take(), &mut self.session) else {
            return Ok(());
        };
        load.leave(session, &mut self.inserts, offset, &self.counts).await?;
        for relation in load.unentered(relations) {
            load.enter(session, &relation, offset, &self.counts).await?;
            load.leave(session, &mut self.inserts, offset, &self.counts).await?;
        }
        Ok(())
    }

    pub(super) async fn table(
        &mut self,
        relation: RelationId,
        relations: &Relations,
        offset: Offset,
    ) -> Result<Arc<Table>, SinkError> {
        let relation = relations.get(&relation).ok_or_else(|| misplaced(offset))?;
        if !self.session.as_ref().is_some_and(|session| session.knows(relation)) {
            // What waits is for the table as it was described before.
            self.send_waiting().await?;
        }
        let session = self.session.as_mut().ok_or_else(disconnected)?;
        Ok(session.table(relation, offset, &self.counts).await?.table)
    }

    async fn truncate(
        &mut self,
        ids: &[RelationId],
        relations: &Relations,
        offset: Offset,
        restart_identity: bool,
    ) -> Result<(), SinkError> {
        let session = self.session.as_mut().ok_or_else(disconnected)?;
        let mut found = Vec::new();
        for id in ids {
            let relation = relations.get(id).ok_or_else(|| misplaced(offset))?;
            found.push(session.table(relation, offset, &self.counts).await?);
        }
        session.pipeline.drain(&self.counts).await?;
        session.command(sql::catalog::EMPTY_PATH).await?;
        let client = session.client.clone();
        let oids: Vec<_> = found.iter().map(|found| found.oid.clone()).collect();
        let oids = vec![format!("{{{}}}", oids.join(","))];
        let tables: Vec<_> = found.iter().map(|found| &*found.table).collect();
        let Some(about) = found.first().map(|found| About::table(offset, &found.table)) else {
            return Ok(());
        };
        let is_referred_to = ask(&client, sql::catalog::IS_REFERRED_TO, oids.clone()).await?;
        let restarts = restart_identity
            && !is_referred_to
            && ask(&client, sql::catalog::OWNS_SEQUENCES, oids.clone()).await?;
        if restart_identity
            && !restarts
            && !self.told_of_sequences
            && ask(&client, sql::catalog::HAVE_SEQUENCES, oids).await?
        {
            self.told_of_sequences = true;
            let table = about.table_name();
            warn!(stream = %self.stream, table, is_referred_to, "{SEQUENCES_STAY}");
        }
        let texts = match is_referred_to {
            // TRUNCATE is refused then, even where nothing checks references.
            true => tables.iter().map(|table| sql::delete_all(table)).collect(),
            false => vec![sql::truncate(&tables, restarts)],
        };
        for text in texts {
            let done = client.batch_execute(&text).await;
            done.map_err(|error| about.failed(&error))?;
        }
        Ok(())
    }
}

const SEQUENCES_STAY: &str = "a table was emptied with RESTART IDENTITY at the source; its sequences go on here, because the \
                              login does not own them all or another table refers to it";

fn misplaced(offset: Offset) -> SinkError {
    let halt = Halt::new("journal_corrupt", "a row of a table that is not being copied");
    SinkError::Refused(Box::new(Halt { offset: Some(offset), ..halt }))
}
