//! Rows to be added, gathered while they are for the same table, and sent many at a time.

use std::{pin::pin, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use thinwire_engine::model::{Offset, Row, Value};

use super::{about::About, binary, pipeline::Expect, session::Session, text::put_copy_row};
use crate::{
    SinkError,
    conflict::ConflictCounts,
    plan::{self, OnExisting, Shape, Table},
};

/// Rows for one table that were not sent yet.
#[derive(Default)]
pub(super) struct Inserts {
    table: Option<Arc<Table>>,
    staged: bool,
    rows: Vec<(Offset, Row)>,
    bytes: usize,
}

impl Inserts {
    /// Whether a row of this table may join.
    pub(super) fn takes(&self, table: &Arc<Table>) -> bool {
        self.rows.is_empty() || self.table.as_ref().is_some_and(|held| Arc::ptr_eq(held, table))
    }

    /// Adds a row; true if it is time to send them.
    pub(super) fn push(
        &mut self,
        table: &Arc<Table>,
        staged: bool,
        offset: Offset,
        row: Row,
    ) -> bool {
        self.table = Some(table.clone());
        self.staged = staged;
        self.bytes += row.0.iter().map(bytes_of).sum::<usize>();
        self.rows.push((offset, row));
        self.rows.len() >= ROWS_MAX || self.bytes >= BYTES_MAX
    }

    /// Forgets them.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Sends them: by COPY if they are many, else by statements of several rows.
    pub(super) async fn send(
        &mut self,
        session: &mut Session,
        existing: OnExisting,
        counts: &ConflictCounts,
    ) -> Result<(), SinkError> {
        let Self { table, staged, rows, .. } = std::mem::take(self);
        let Some(table) = table else { return Ok(()) };
        send(session, &table, staged, rows, existing, counts).await
    }
}

/// Sends rows for a table: by COPY if they are many, else by statements of several rows.
pub(super) async fn send(
    session: &mut Session,
    table: &Arc<Table>,
    staged: bool,
    rows: Vec<(Offset, Row)>,
    existing: OnExisting,
    counts: &ConflictCounts,
) -> Result<(), SinkError> {
    if rows.is_empty() {
        return Ok(());
    }
    let bytes = || rows.iter().flat_map(|(_, row)| &row.0).map(bytes_of).sum::<usize>();
    let many = rows.len() >= COPY_ROWS_MIN || bytes() >= COPY_BYTES_MIN;
    let copies = existing == OnExisting::Fail && many && !table.columns.is_empty();
    if staged || copies {
        return copy(session, table, staged, rows, counts).await;
    }
    let width = table.columns.len().max(1);
    let mut rest = rows.into_iter();
    while rest.len() > 0 {
        let fits = |rows: usize| rows <= rest.len() && rows * width <= PARAMETERS_MAX;
        let default = table.columns.is_empty();
        let size = SIZES.into_iter().find(|rows| !default && fits(*rows)).unwrap_or(1);
        let chunk: Vec<_> = rest.by_ref().take(size).collect();
        values(session, table, chunk, existing, counts).await?;
    }
    Ok(())
}

/// Sends rows as parameters of one statement.
async fn values(
    session: &mut Session,
    table: &Arc<Table>,
    rows: Vec<(Offset, Row)>,
    existing: OnExisting,
    counts: &ConflictCounts,
) -> Result<(), SinkError> {
    let about = about(table, &rows);
    let expect = match existing {
        OnExisting::Keep => Expect::UpTo(rows.len() as u64),
        // A trigger of the target may have left some out, as it may.
        OnExisting::Fail | OnExisting::Overwrite => Expect::Anything,
    };
    let planned = plan::insert(rows.into_iter().map(|(_, row)| row).collect(), existing)
        .map_err(|senseless| about.refused("journal_corrupt", senseless.0))?;
    let statement = session.statement(table, &planned.shape, &about, counts).await?;
    let Session { client, pipeline, .. } = session;
    pipeline.send(client, statement, planned, expect, about, counts).await
}

/// Sends rows by COPY and waits for it.
async fn copy(
    session: &mut Session,
    table: &Arc<Table>,
    staged: bool,
    rows: Vec<(Offset, Row)>,
    counts: &ConflictCounts,
) -> Result<(), SinkError> {
    let about = about(table, &rows);
    let types = binary::types(table)
        .filter(|types| !staged && rows.iter().all(|(_, row)| binary::has_row(row, types)));
    let shape = match &types {
        _ if staged => Shape::CopyStage,
        Some(_) => Shape::CopyBinary,
        None => Shape::Copy,
    };
    let statement = session.statement(table, &shape, &about, counts).await?;
    session.pipeline.drain(counts).await?;
    let mut offsets = Vec::with_capacity(rows.len());
    let failed = |error: &tokio_postgres::Error, offsets: &[Offset]| {
        let at = line(error).and_then(|line| offsets.get(line.checked_sub(1)?));
        match at.filter(|_| offsets.len() > 1) {
            Some(offset) => about.clone().at(*offset).failed(error),
            None => about.failed(error),
        }
    };
    let sink = session.client.copy_in::<_, Bytes>(&statement).await;
    let mut sink = pin!(sink.map_err(|error| about.failed(&error))?);
    let mut buffer = BytesMut::with_capacity(2 * PIECE_BYTES);
    if types.is_some() {
        buffer.put_slice(binary::COPY_BEGIN);
    }
    for (offset, row) in rows {
        offsets.push(offset);
        if row.0.contains(&Value::Unchanged) {
            return Err(about.at(offset).refused("journal_corrupt", UNCHANGED));
        }
        match &types {
            Some(types) => binary::put_copy_row(&row, types, &mut buffer),
            None => put_copy_row(&row, &mut buffer),
        }
        drop(row);
        // A long line goes in pieces, so that no buffer behind this one has to hold it.
        while buffer.len() >= PIECE_BYTES {
            let piece = buffer.split_to(PIECE_BYTES).freeze();
            sink.feed(piece).await.map_err(|error| failed(&error, &offsets))?;
        }
    }
    if types.is_some() {
        buffer.put_slice(binary::COPY_END);
    }
    let sent = sink.feed(buffer.freeze()).await;
    sent.map_err(|error| failed(&error, &offsets))?;
    sink.finish().await.map_err(|error| failed(&error, &offsets))?;
    Ok(())
}

fn about(table: &Arc<Table>, rows: &[(Offset, Row)]) -> About {
    let only = if let [(_, row)] = rows { Some(row) } else { None };
    let offset = rows.first().map_or(Offset::ZERO, |(offset, _)| *offset);
    About::added(offset, table, only)
}

/// The line of a COPY that an error is about. The rest of what PostgreSQL says there is the line's content.
fn line(error: &tokio_postgres::Error) -> Option<usize> {
    let context = error.as_db_error()?.where_()?;
    let (_, after) = context.split_once(", line ")?;
    let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

pub(super) fn bytes_of(value: &Value) -> usize {
    match value {
        Value::Bytes(bytes) => bytes.len(),
        Value::Null | Value::Unchanged => 0,
    }
}

const UNCHANGED: &str = "a new row with an unchanged column";
/// Rows that are gathered before they are sent: enough for COPY to pay, few enough to find the one that is refused.
const ROWS_MAX: usize = 2_000;
/// See [`ROWS_MAX`].
const BYTES_MAX: usize = 512 << 10;
/// COPY has to be waited for; from so many rows on it is faster all the same.
const COPY_ROWS_MIN: usize = 200;
/// Large values go by COPY because they pass through it in pieces.
const COPY_BYTES_MIN: usize = 256 << 10;
/// Rows a statement: few sizes, so that few statements have to be prepared.
const SIZES: [usize; 4] = [64, 16, 4, 1];
/// The protocol counts parameters in 16 bits.
const PARAMETERS_MAX: usize = 32_000;
/// A piece of COPY data.
const PIECE_BYTES: usize = 64 << 10;
