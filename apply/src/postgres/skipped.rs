//! Transactions and copies that somebody has decided to leave out: noted with the progress that passes them, and read
//! back for whoever asks.

use std::sync::{Mutex, PoisonError};

use super::{
    Postgres, disconnected,
    lookup::{ask, failed, query, text},
    param::Param,
    session::Session,
};
use crate::{SinkError, Skip, sql::skipped as sql};

/// What was left out of a stream, as the target remembers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many transactions and copies.
    pub count: u64,
    /// The last of them.
    pub last: Option<LastSkipped>,
}

/// The last transaction or copy that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastSkipped {
    /// The record that was refused.
    pub offset: u64,
    /// Why.
    pub code: String,
    /// When, by the target's clock, as RFC 3339 has it.
    pub at: String,
    /// Who decided so.
    pub by: String,
}

/// What a sink has read, for everybody to see; none before it has.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<Option<Skipped>>);

impl Seen {
    pub(crate) fn get(&self) -> Option<Skipped> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, skipped: Skipped) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(skipped);
    }
}

impl Postgres {
    /// Notes in the open target transaction what it passes over.
    pub(super) async fn note(&mut self, skip: &Skip) -> Result<(), SinkError> {
        let stream = self.stream;
        let session = self.session.as_mut().ok_or_else(disconnected)?;
        session.pipeline.drain(&self.counts).await?;
        let halted_at = skip.halt.offset.unwrap_or(skip.first);
        let params = vec![
            Param::of(stream.origin.to_string()),
            Param::of(stream.epoch.to_string()),
            Param::of(halted_at.to_string()),
            Param::of(skip.first.to_string()),
            Param::of(skip.last.to_string()),
            Param::maybe(skip.lsn.map(|lsn| lsn.to_string())),
            Param::maybe(skip.xid.map(|xid| xid.to_string())),
            Param::maybe(skip.time.map(|time| time.micros().to_string())),
            Param::of(skip.halt.code.clone()),
            Param::maybe(skip.halt.table.clone()),
            Param::of(skip.halt.detail.clone()),
            Param::of(skip.by.clone()),
        ];
        let noted = session.client.execute_raw(sql::NOTE, params).await;
        noted.map(drop).map_err(|error| match failed(error) {
            SinkError::Refused(halt) if halt.code == "missing_table" => SinkError::refused(
                "missing_table",
                "the database has no table thinwire.skipped to note in what is left out; run `thinwire init`",
            ),
            other => other,
        })
    }

    /// Reads what was left out. A database that was prepared before there was such a list has left out nothing.
    pub(super) async fn read_skipped(&mut self) -> Result<(), SinkError> {
        let stream = vec![self.stream.origin.to_string(), self.stream.epoch.to_string()];
        let Session { client, .. } = self.session.as_mut().ok_or_else(disconnected)?;
        if !ask(client, sql::MAY_READ, Vec::new()).await? {
            return Ok(());
        }
        let rows = query(client, sql::READ, stream).await?;
        let Some(row) = rows.first() else {
            self.tally.skipped.set(Skipped::default());
            return Ok(());
        };
        let number = |column| text(row, column).map(|text| text.parse().unwrap_or_default());
        self.tally.skipped.set(Skipped {
            count: number(0)?,
            last: Some(LastSkipped {
                offset: number(1)?,
                code: text(row, 2)?,
                at: text(row, 3)?,
                by: text(row, 4)?,
            }),
        });
        Ok(())
    }
}
