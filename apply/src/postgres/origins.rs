//! Rows that somebody else changed last: recognised by the commit timestamps of the target, where it keeps them.
//!
//! Whose a row is is asked before it is changed, in the same order of statements, so that an answer need not be waited for
//! unless something follows from it. Where it does, the row is locked by the question, so that nobody gets in between.

use std::sync::Arc;

use futures_util::TryStreamExt;
use thinwire_engine::model::{Offset, Timestamp, Value};
use tokio_postgres::Row;
use tracing::warn;

use super::{
    Postgres,
    about::{About, shortened},
    disconnected,
    lookup::text,
    param::Param,
    pipeline::Expect,
    session::Session,
};
use crate::{
    OriginDiffers, SinkError,
    conflict::{Conflict, ConflictCounts},
    plan::{self, Planned, Table},
};

/// Who we are to the target, and what is declared about rows of others.
pub(super) struct Origins {
    /// The number of the replication origin under which we write.
    pub(super) own: String,
    pub(super) declared: Declared,
}

/// What is declared about rows that somebody else changed last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Declared {
    pub(super) update: OriginDiffers,
    pub(super) delete: OriginDiffers,
}

impl Declared {
    /// Whether rows have to be told apart.
    pub(super) fn needs_timestamps(self) -> bool {
        [self.update, self.delete].iter().any(|it| *it != OriginDiffers::Apply)
    }

    /// The conflict with others of a change that would have the other one if its row was missing.
    fn of(self, missing: Conflict) -> (Conflict, OriginDiffers) {
        match missing {
            Conflict::DeleteMissing => (Conflict::DeleteOriginDiffers, self.delete),
            _ => (Conflict::UpdateOriginDiffers, self.update),
        }
    }
}

impl Session {
    /// Asks whose the rows are that are about to be changed, if the target knows; it is not waited for.
    pub(super) async fn ask_whose(
        &mut self,
        table: &Arc<Table>,
        question: impl FnOnce(bool) -> Option<Planned>,
        missing: Conflict,
        about: &About,
        counts: &ConflictCounts,
    ) -> Result<(), SinkError> {
        let Some(Origins { own, declared }) = &self.origins else { return Ok(()) };
        let (conflict, declared) = declared.of(missing);
        let stops = declared != OriginDiffers::Apply;
        let Some(mut planned) = question(stops) else { return Ok(()) };
        planned.params.push(Value::Bytes(own.clone().into()));
        let statement = self.statement(table, &planned.shape, about, counts).await?;
        let Self { client, pipeline, .. } = self;
        let expect = Expect::Ours { conflict, stops };
        pipeline.send(client, statement, planned, expect, about.clone(), counts).await
    }
}

impl Postgres {
    /// Whether a change may be made, as declared, if somebody else changed its row last.
    pub(super) async fn may_change(
        &mut self,
        table: &Arc<Table>,
        planned: &Planned,
        missing: Conflict,
        about: &About,
    ) -> Result<bool, SinkError> {
        let session = self.session.as_mut().ok_or_else(disconnected)?;
        let Some(Origins { own, declared }) = &session.origins else { return Ok(true) };
        let (conflict, declared) = declared.of(missing);
        let Some(mut asked) = plan::whose(planned, declared != OriginDiffers::Apply) else {
            return Ok(true);
        };
        asked.params.push(Value::Bytes(own.clone().into()));
        session.pipeline.drain(&self.counts).await?;
        let statement = session.statement(table, &asked.shape, about, &self.counts).await?;
        let params: Vec<_> = asked.params.into_iter().map(Param).collect();
        let rows = session.client.query_raw(&statement, params).await;
        let rows: Vec<Row> = match rows {
            Ok(rows) => rows.try_collect().await.map_err(|error| about.failed(&error))?,
            Err(error) => return Err(about.failed(&error)),
        };
        let Some(row) = rows.first() else { return Ok(true) };
        let applies = match declared {
            OriginDiffers::Apply => true,
            OriginDiffers::Skip => false,
            OriginDiffers::Stop => return Err(about.refused(conflict.code(), DIFFERS)),
            OriginDiffers::LastUpdateWins => self.is_later(&text(row, 1)?, &text(row, 2)?),
        };
        self.counts.count(conflict, 1);
        warn!(
            stream = %self.stream, offset = about.offset().map(Offset::get), table = about.table_name(),
            key = about.key(), conflict = conflict.code(), applies,
            "somebody else changed the row last; it was treated as declared"
        );
        Ok(applies)
    }

    /// Whether the open source transaction was committed after a row was changed, at a time and by an origin. At one and the same
    /// time, the larger fingerprint wins at every node.
    fn is_later(&self, time: &str, by: &str) -> bool {
        let theirs = Timestamp::from_micros(time.parse().unwrap_or(i64::MIN));
        let local = self.node.to_string();
        let them = match by {
            "" => &local,
            name => name.strip_prefix(ORIGIN_PREFIX).unwrap_or(name),
        };
        (self.source_time, &*self.stream.origin.to_string()) > (Some(theirs), them)
    }
}

/// Tells of rows that were changed although somebody else had changed them last.
pub(super) fn tell(about: &About, conflict: Conflict, keys: &[String]) {
    for key in keys {
        warn!(
            offset = about.offset().map(Offset::get),
            table = about.table_name(),
            key,
            conflict = conflict.code(),
            "somebody else changed the row last; the change is made"
        );
    }
}

/// The key in an answer, for people.
pub(super) fn key_of(row: &Row, about: &About) -> String {
    let values: Vec<String> = row.try_get(0).unwrap_or_default();
    let pairs = about.key_columns().into_iter().zip(values);
    let pairs = pairs.map(|(name, value)| format!("{name}={}", shortened(value.as_bytes())));
    pairs.collect::<Vec<_>>().join(", ")
}

/// How the replication origins of streams begin.
pub(super) const ORIGIN_PREFIX: &str = "thinwire_";
/// Said of a row that somebody else changed last, where that stops the stream.
pub(super) const DIFFERS: &str = "somebody else changed the row last";
