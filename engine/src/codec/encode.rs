//! Records to their canonical bytes.

use super::{Tag, put_varint};
use crate::model::{
    Column, Copy, OldRow, Origin, Record, Relation, RelationId, ReplicaIdentity, Row, Schema, Value,
};

/// Appends the canonical bytes of `record`.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::Begin { xid, lsn, time } => {
            out.push(Tag::Begin as u8);
            put_varint(u64::from(*xid), out);
            put_varint(lsn.get(), out);
            put_signed(time.micros(), out);
        }
        Record::Commit { end } => {
            out.push(Tag::Commit as u8);
            put_varint(end.get(), out);
        }
        Record::Abort => out.push(Tag::Abort as u8),
        Record::Relation(relation) => put_relation(relation, out),
        Record::Insert { relation, new } => {
            out.push(Tag::Insert as u8);
            put_varint(u64::from(relation.0), out);
            put_row(new, out);
        }
        Record::Update { relation, old, new } => {
            out.push(Tag::Update as u8);
            put_varint(u64::from(relation.0), out);
            match old {
                None => out.push(OLD_NONE),
                Some(old) => put_old(old, out),
            }
            put_row(new, out);
        }
        Record::Delete { relation, old } => {
            out.push(Tag::Delete as u8);
            put_varint(u64::from(relation.0), out);
            put_old(old, out);
        }
        other => encode_rare(other, out),
    }
}

fn encode_rare(record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::Truncate { relations, cascade, restart_identity } => {
            out.push(Tag::Truncate as u8);
            out.push(u8::from(*cascade) | (u8::from(*restart_identity) << 1));
            put_ids(relations, out);
        }
        Record::Message { transactional, lsn, prefix, content } => {
            out.push(Tag::Message as u8);
            out.push(u8::from(*transactional));
            put_varint(lsn.get(), out);
            put_bytes(prefix.as_bytes(), out);
            put_bytes(content, out);
        }
        Record::Schema(schema) => put_schema(schema, out),
        Record::CopyBegin(copy) => put_copy(copy, out),
        Record::CopyEnd { rows } => {
            out.push(Tag::CopyEnd as u8);
            put_varint(*rows, out);
        }
        Record::CopyAbort => out.push(Tag::CopyAbort as u8),
        Record::Skip { count, running } => {
            out.push(Tag::Skip as u8);
            put_varint(*count, out);
            put_varint(u64::from(running.get()), out);
        }
        _ => {}
    }
}

fn put_copy(copy: &Copy, out: &mut Vec<u8>) {
    out.push(Tag::CopyBegin as u8);
    put_varint(copy.lsn.get(), out);
    put_origins(&copy.audience, out);
    put_origins(&copy.carriers, out);
    put_varint(copy.tables.len() as u64, out);
    for table in &copy.tables {
        put_varint(u64::from(table.relation.0), out);
        put_varint(table.rows_estimate, out);
    }
}

fn put_schema(schema: &Schema, out: &mut Vec<u8>) {
    out.push(Tag::Schema as u8);
    put_ids(&schema.born, out);
    put_ids(&schema.stale, out);
    put_bytes(&schema.definitions, out);
}

fn put_ids(ids: &[RelationId], out: &mut Vec<u8>) {
    put_varint(ids.len() as u64, out);
    ids.iter().for_each(|id| put_varint(u64::from(id.0), out));
}

fn put_origins(origins: &[Origin], out: &mut Vec<u8>) {
    put_varint(origins.len() as u64, out);
    origins.iter().for_each(|origin| out.extend_from_slice(origin.as_bytes()));
}

fn put_relation(relation: &Relation, out: &mut Vec<u8>) {
    out.push(Tag::Relation as u8);
    put_varint(u64::from(relation.id.0), out);
    put_bytes(relation.schema.as_bytes(), out);
    put_bytes(relation.name.as_bytes(), out);
    out.push(match relation.identity {
        ReplicaIdentity::Default => b'd',
        ReplicaIdentity::Nothing => b'n',
        ReplicaIdentity::Full => b'f',
        ReplicaIdentity::Index => b'i',
    });
    put_varint(relation.columns.len() as u64, out);
    for Column { name, key, type_oid, type_modifier } in &relation.columns {
        out.push(u8::from(*key));
        put_bytes(name.as_bytes(), out);
        put_varint(u64::from(*type_oid), out);
        put_signed(i64::from(*type_modifier), out);
    }
}

fn put_old(old: &OldRow, out: &mut Vec<u8>) {
    out.push(match old {
        OldRow::Key(_) => OLD_KEY,
        OldRow::Full(_) => OLD_FULL,
    });
    put_row(old.row(), out);
}

fn put_row(row: &Row, out: &mut Vec<u8>) {
    put_varint(row.0.len() as u64, out);
    for value in &row.0 {
        match value {
            Value::Null => out.push(0),
            Value::Unchanged => out.push(1),
            Value::Bytes(bytes) => {
                put_varint(bytes.len() as u64 + 2, out);
                out.extend_from_slice(bytes);
            }
        }
    }
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_signed(value: i64, out: &mut Vec<u8>) {
    put_varint(((value << 1) ^ (value >> 63)).cast_unsigned(), out);
}

pub(super) const OLD_NONE: u8 = 0;
pub(super) const OLD_KEY: u8 = 1;
pub(super) const OLD_FULL: u8 = 2;
