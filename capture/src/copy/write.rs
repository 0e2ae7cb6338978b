//! A prepared copy into the stream: row by row, never more in memory than a batch.

use std::pin::pin;

use futures_util::TryStreamExt;
use thinwire_engine::model::{Copy, CopyTable, Offset, Origin, Record, Schema};

use super::{Description, Prepared, text};
use crate::{
    append::Appender,
    error::Result,
    status::{CopyProgress, Shared},
};

/// For whom a copy is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// Who loads it; empty for everybody.
    pub(crate) audience: Vec<Origin>,
    /// Who carries it to them.
    pub(crate) carriers: Vec<Origin>,
}

/// Writes the copy and returns where it begins. If it fails, the copy is left open in the stream.
pub(crate) async fn write(
    prepared: &Prepared,
    target: &Target,
    appender: &mut Appender,
    shared: &Shared,
) -> Result<Offset> {
    shared.set_copy(prepared.tables.iter().map(|(table, rows)| CopyProgress {
        table: table.label(),
        rows_done: 0,
        rows_total: *rows,
        bytes_done: 0,
    }));
    let tables = prepared
        .tables
        .iter()
        .map(|(table, rows)| CopyTable { relation: table.relation.id, rows_estimate: *rows });
    appender.push(&Record::CopyBegin(Copy {
        lsn: prepared.lsn,
        audience: target.audience.clone(),
        carriers: target.carriers.clone(),
        tables: tables.collect(),
    }));
    let begin = appender.flush().await?;
    if let Some(definitions) = &prepared.definitions {
        let definitions = definitions.encode();
        appender.take(Record::Schema(Schema { definitions, ..Schema::default() })).await?;
    }
    let mut rows = 0;
    for (at, (table, _)) in prepared.tables.iter().enumerate() {
        rows += write_table(prepared, table, at, appender, shared).await?;
    }
    appender.push(&Record::CopyEnd { rows });
    appender.flush().await?;
    Ok(begin)
}

async fn write_table(
    prepared: &Prepared,
    table: &Description,
    at: usize,
    appender: &mut Appender,
    shared: &Shared,
) -> Result<u64> {
    appender.push(&Record::Relation(table.relation.clone()));
    let (relation, columns) = (table.relation.id, table.relation.columns.len());
    let mut lines = pin!(prepared.client.copy_out(&table.reading().copy_out()).await?);
    let (mut rows, mut bytes) = (0, 0);
    while let Some(line) = lines.try_next().await? {
        (rows, bytes) = (rows + 1, bytes + line.len() as u64);
        let new = text::parse(line, columns)?;
        if appender.take(Record::Insert { relation, new }).await? {
            shared.advance_copy(at, rows, bytes);
        }
    }
    shared.advance_copy(at, rows, bytes);
    shared.end_copy(at);
    tracing::info!(table = table.label(), rows, bytes, "a table was copied");
    Ok(rows)
}
