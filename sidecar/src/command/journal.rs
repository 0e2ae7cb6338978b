//! `thinwire journal`: looking into a journal, in use or copied.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use thinwire_engine::{
    journal::inspect::{self, SegmentReport},
    model::{Offset, OldRow, Record, Row, Value},
    storage::disk::RealDisk,
};

use super::print_line;
use crate::cli::Journal;

pub(super) fn run(command: &Journal) -> Result<u8> {
    match command {
        Journal::Ls { dir } => list(dir, |_| true),
        Journal::Verify { dir } => list(dir, |report| report.damage.is_some()),
        Journal::Dump { dir, from, limit, values } => {
            for stream in streams(dir)? {
                print_line(&format!("stream {}", stream.display()))?;
                dump(&stream, Offset::new(*from), limit.unwrap_or(u64::MAX), *values)?;
            }
            Ok(0)
        }
    }
}

fn streams(dir: &Path) -> Result<Vec<PathBuf>> {
    let streams = inspect::stream_dirs(&RealDisk, dir)
        .with_context(|| format!("{} is not a journal", dir.display()))?;
    if streams.is_empty() {
        bail!("{} holds no stream", dir.display());
    }
    Ok(streams)
}

fn list(dir: &Path, shown: impl Fn(&SegmentReport) -> bool) -> Result<u8> {
    let mut damaged = 0;
    let (mut segments, mut bytes) = (0, 0);
    for stream in streams(dir)? {
        for report in inspect::verify(&RealDisk, &stream)? {
            damaged += u64::from(report.damage.is_some());
            (segments, bytes) = (segments + 1, bytes + report.bytes);
            if shown(&report) {
                print_line(&line(&report))?;
            }
        }
    }
    print_line(&format!("{segments} segments, {bytes} bytes, {damaged} damaged"))?;
    Ok(u8::from(damaged > 0))
}

fn line(report: &SegmentReport) -> String {
    let range = match report.last < report.base {
        true => format!("{}..", report.base),
        false => format!("{}..={}", report.base, report.last),
    };
    let state = match &report.damage {
        None => "sound".to_owned(),
        Some(damage) => {
            let kind = if damage.torn { "torn tail" } else { "CORRUPT" };
            format!("{kind} at byte {} (offset {}): {}", damage.at, damage.offset, damage.reason)
        }
    };
    format!("{}  {range}  {} bytes  {state}", report.path.display(), report.bytes)
}

fn dump(stream: &Path, from: Offset, limit: u64, values: bool) -> Result<()> {
    let (mut left, mut failed) = (limit, None);
    inspect::dump(&RealDisk, stream, from, |offset, record| {
        if left == 0 {
            return false;
        }
        left -= 1;
        let text = match record {
            Ok(record) => format!("{offset}  {}", describe(&record, values)),
            Err(error) => format!("{offset}  {error}"),
        };
        failed = print_line(&text).err();
        failed.is_none()
    })?;
    failed.map_or(Ok(()), Err)
}

fn describe(record: &Record, values: bool) -> String {
    let row = |row: &Row| match values {
        true => format!("({})", row.0.iter().map(value).collect::<Vec<_>>().join(", ")),
        false => format!("({} columns)", row.0.len()),
    };
    let old = |old: &OldRow| match old {
        OldRow::Key(key) => format!("key {}", row(key)),
        OldRow::Full(full) => format!("old {}", row(full)),
    };
    match record {
        Record::Begin { xid, lsn, .. } => format!("begin xid {xid} lsn {lsn}"),
        Record::Commit { end } => format!("commit end {end}"),
        Record::Abort => "abort".to_owned(),
        Record::Relation(relation) => format!(
            "relation {} {}.{} ({} columns)",
            relation.id.0,
            relation.schema,
            relation.name,
            relation.columns.len()
        ),
        Record::Insert { relation, new } => format!("insert {} {}", relation.0, row(new)),
        Record::Update { relation, old: None, new } => {
            format!("update {} {}", relation.0, row(new))
        }
        Record::Update { relation, old: Some(before), new } => {
            format!("update {} {} to {}", relation.0, old(before), row(new))
        }
        Record::Delete { relation, old: before } => {
            format!("delete {} {}", relation.0, old(before))
        }
        Record::Truncate { relations, .. } => {
            format!("truncate {:?}", relations.iter().map(|id| id.0).collect::<Vec<_>>())
        }
        Record::Message { prefix, content, .. } => {
            format!("message {prefix:?} ({} bytes)", content.len())
        }
        Record::CopyBegin(copy) => {
            format!("copy of {} tables as of {}", copy.tables.len(), copy.lsn)
        }
        Record::CopyEnd { rows } => format!("copy end, {rows} rows"),
        Record::CopyAbort => "copy abort".to_owned(),
        Record::Skip { count, .. } => format!("skip {count}"),
    }
}

fn value(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Unchanged => "unchanged".to_owned(),
        Value::Bytes(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
    }
}
