//! `thinwire journal dump`: records in words, one line each.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use thinwire_engine::{
    journal::inspect,
    model::{Definitions, Kind, Offset, OldRow, Record, Relation, RelationId, Row, Schema, Value},
    storage::disk::RealDisk,
};

use crate::command::print_line;

/// Which records are wanted, and how much of them.
pub(super) struct Wanted {
    pub(super) from: u64,
    pub(super) limit: Option<u64>,
    pub(super) values: bool,
}

pub(super) fn run(streams: &[PathBuf], chosen: Option<&str>, wanted: &Wanted) -> Result<u8> {
    let is_chosen = |dir: &&PathBuf| {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        chosen.is_none_or(|chosen| name.starts_with(chosen))
    };
    let streams: Vec<_> = streams.iter().filter(is_chosen).collect();
    if let (true, Some(chosen)) = (streams.is_empty(), chosen) {
        bail!("there is no stream {chosen} here");
    }
    let mut failed = false;
    for stream in streams {
        print_line(&format!("stream {}", stream.display()))?;
        if let Err(error) = dump(stream, wanted) {
            // Commands have no log; what they have to say beside their result goes to stderr.
            eprintln!("thinwire: {error:#}");
            failed = true;
        }
    }
    Ok(u8::from(failed))
}

fn dump(stream: &Path, wanted: &Wanted) -> Result<()> {
    let from = Offset::new(wanted.from);
    let relations = inspect::relations_before(&RealDisk, stream, from)?;
    let mut teller = Teller { relations, values: wanted.values };
    let (mut left, mut outcome) = (wanted.limit.unwrap_or(u64::MAX), Ok(()));
    inspect::dump(&RealDisk, stream, from, |offset, record| {
        if left == 0 {
            return false;
        }
        left -= 1;
        let text = match record {
            Ok(record) => teller.tell(&record),
            Err(error) => error.to_string(),
        };
        outcome = print_line(&format!("{offset}  {text}"));
        outcome.is_ok() && left > 0
    })?;
    outcome
}

/// Puts records into words, with the tables' names as they were last described.
struct Teller {
    relations: BTreeMap<RelationId, Relation>,
    values: bool,
}

impl Teller {
    fn tell(&mut self, record: &Record) -> String {
        if let Record::Relation(relation) = record {
            self.relations.insert(relation.id, relation.clone());
        }
        match record {
            Record::Begin { xid, lsn, .. } => format!("begin xid {xid} lsn {lsn}"),
            Record::Commit { end } => format!("commit end {end}"),
            Record::Abort => "abort".to_owned(),
            Record::Relation(relation) => {
                let columns: Vec<_> = relation.columns.iter().map(|it| shown(&it.name)).collect();
                format!("relation {} ({})", self.table(relation.id), columns.join(", "))
            }
            Record::Insert { relation, new } => {
                format!("insert {} {}", self.table(*relation), self.row(*relation, new))
            }
            Record::Update { relation, old, new } => {
                let new = self.row(*relation, new);
                match old {
                    None => format!("update {} to {new}", self.table(*relation)),
                    Some(old) => {
                        let old = self.old(*relation, old);
                        format!("update {} {old} to {new}", self.table(*relation))
                    }
                }
            }
            Record::Delete { relation, old } => {
                format!("delete {} {}", self.table(*relation), self.old(*relation, old))
            }
            Record::Truncate { relations, .. } => {
                let tables: Vec<_> = relations.iter().map(|id| self.table(*id)).collect();
                format!("truncate {}", tables.join(", "))
            }
            Record::Message { prefix, content, .. } => {
                format!("message {prefix:?} ({} bytes)", content.len())
            }
            Record::Schema(schema) => schema_text(schema),
            Record::CopyBegin(copy) => {
                format!("copy of {} tables as of {}", copy.tables.len(), copy.lsn)
            }
            Record::CopyEnd { rows } => format!("copy end, {rows} rows"),
            Record::CopyAbort => "copy abort".to_owned(),
            Record::Skip { count, .. } => format!("skip {count}"),
        }
    }

    fn table(&self, id: RelationId) -> String {
        match self.relations.get(&id) {
            Some(relation) => format!("{}.{}", shown(&relation.schema), shown(&relation.name)),
            None => format!("relation {}", id.0),
        }
    }

    fn old(&self, relation: RelationId, old: &OldRow) -> String {
        match old {
            OldRow::Key(key) => format!("key {}", self.row(relation, key)),
            OldRow::Full(full) => format!("old {}", self.row(relation, full)),
        }
    }

    fn row(&self, relation: RelationId, row: &Row) -> String {
        if !self.values {
            return format!("({} columns)", row.0.len());
        }
        let columns = self.relations.get(&relation).map_or(&[][..], |it| &it.columns);
        let mut out = "(".to_owned();
        for (number, value) in row.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            let name = columns.get(number).map(|it| shown(&it.name) + "=").unwrap_or_default();
            // Writing to a string cannot fail.
            let _ = write!(out, "{comma}{name}{}", shown_value(value));
        }
        out + ")"
    }
}

/// A schema change in words.
fn schema_text(schema: &Schema) -> String {
    let Ok(definitions) = Definitions::decode(&schema.definitions) else {
        return format!("schema, unreadable ({} bytes)", schema.definitions.len());
    };
    let objects = definitions.objects.iter().map(|it| (it.body.kind(), &it.schema, &it.name));
    let dropped = definitions.dropped.iter().map(|it| (it.kind, &it.schema, &it.name));
    let words = |(kind, schema, name): (Kind, &String, &String)| {
        format!("{kind:?} {}.{}", shown(schema), shown(name)).to_lowercase()
    };
    let mut out: Vec<_> = objects.map(words).collect();
    out.extend(dropped.map(words).map(|gone| format!("drop {gone}")));
    format!("schema {}", out.join(", "))
}

/// A name on one line, whatever is in it.
fn shown(name: &str) -> String {
    name.escape_debug().to_string()
}

fn shown_value(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Unchanged => "unchanged".to_owned(),
        Value::Bytes(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
    }
}
