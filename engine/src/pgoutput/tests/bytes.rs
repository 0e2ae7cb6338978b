//! Messages as a server writes them: read as they were written, cut, lengthened and damaged.

use ::bytes::{BufMut, Bytes};
use proptest::prelude::*;

use super::{begin, copied, described, every_kind, small};
use crate::{
    model::{OldRow, Relation, Row, Value},
    pgoutput::{Message, Misread, Translator, decode},
};

/// A message's bytes, as a server writes them.
fn encode(message: &Message) -> Bytes {
    let mut out = Vec::new();
    match message {
        Message::Begin { final_lsn, time, xid } => {
            out.put_u8(b'B');
            out.put_u64(final_lsn.get());
            out.put_i64(time.micros());
            out.put_u32(*xid);
        }
        Message::Commit { lsn, end } => {
            out.put_u16(u16::from(b'C') << 8);
            out.put_u64(lsn.get());
            out.put_u64(end.get());
            out.put_i64(7);
        }
        Message::Origin { name } => {
            out.put_u8(b'O');
            out.put_u64(1);
            put_text(&mut out, name);
        }
        Message::Relation(relation) => put_relation(&mut out, relation),
        Message::Type => {
            out.put_u8(b'Y');
            out.put_u32(1);
            put_text(&mut out, "public");
            put_text(&mut out, "mood");
        }
        Message::Insert { relation, new } => {
            out.put_u8(b'I');
            out.put_u32(relation.0);
            put_row(&mut out, b'N', new);
        }
        Message::Update { relation, old, new } => {
            out.put_u8(b'U');
            out.put_u32(relation.0);
            old.iter().for_each(|old| put_old(&mut out, old));
            put_row(&mut out, b'N', new);
        }
        Message::Delete { relation, old } => {
            out.put_u8(b'D');
            out.put_u32(relation.0);
            put_old(&mut out, old);
        }
        Message::Truncate { relations, cascade, restart_identity } => {
            out.put_u8(b'T');
            out.put_u32(small(relations.len()));
            out.put_u8(u8::from(*cascade) | (u8::from(*restart_identity) << 1));
            relations.iter().for_each(|id| out.put_u32(id.0));
        }
        Message::Logical { transactional, lsn, prefix, content } => {
            out.put_u8(b'M');
            out.put_u8(u8::from(*transactional));
            out.put_u64(lsn.get());
            put_text(&mut out, prefix);
            out.put_u32(small(content.len()));
            out.put_slice(content);
        }
    }
    out.into()
}

fn put_relation(out: &mut Vec<u8>, relation: &Relation) {
    out.put_u8(b'R');
    out.put_u32(relation.id.0);
    put_text(out, &relation.schema);
    put_text(out, &relation.name);
    out.put_u8(b'd');
    out.put_u16(small(relation.columns.len()));
    for column in &relation.columns {
        out.put_u8(u8::from(column.key));
        put_text(out, &column.name);
        out.put_u32(column.type_oid);
        out.put_i32(column.type_modifier);
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_slice(text.as_bytes());
    out.put_u8(0);
}

fn put_old(out: &mut Vec<u8>, old: &OldRow) {
    let kind = if matches!(old, OldRow::Key(_)) { b'K' } else { b'O' };
    put_row(out, kind, old.row());
}

fn put_row(out: &mut Vec<u8>, kind: u8, row: &Row) {
    out.put_u8(kind);
    out.put_u16(small(row.0.len()));
    for value in &row.0 {
        match value {
            Value::Null => out.put_u8(b'n'),
            Value::Unchanged => out.put_u8(b'u'),
            Value::Bytes(bytes) => {
                out.put_u8(b't');
                out.put_u32(small(bytes.len()));
                out.put_slice(bytes);
            }
        }
    }
}

#[test]
fn every_kind_of_message_is_read_as_it_was_written() {
    for message in every_kind() {
        assert_eq!(decode(&encode(&message)).unwrap(), message);
    }
}

#[test]
fn a_message_cut_short_or_too_long_is_an_error() {
    for message in every_kind() {
        let bytes = encode(&message);
        for length in 0..bytes.len() {
            assert!(decode(&bytes.slice(..length)).is_err(), "{message:?} cut to {length}");
        }
        let longer: Bytes = [&bytes[..], b"\0"].concat().into();
        assert!(decode(&longer).is_err(), "{message:?}");
    }
    for kind in 0..=u8::MAX {
        if !b"BCORYIUDTM".contains(&kind) {
            assert_eq!(decode(&Bytes::from(vec![kind])), Err(Misread::Kind(kind)));
        }
    }
}

#[test]
fn claimed_lengths_are_not_believed() {
    let huge = [b"I\0\0\0\x01N\0\x01t".as_slice(), &u32::MAX.to_be_bytes()].concat();
    assert!(matches!(decode(&huge.into()), Err(Misread::TooLong { .. })));
    let columns = [b"I\0\0\0\x01N".as_slice(), &[0xFF, 0xFF]].concat();
    assert!(matches!(decode(&columns.into()), Err(Misread::TooLong { .. })));
    let truncate = [b"T".as_slice(), &u32::MAX.to_be_bytes(), &[0]].concat();
    assert!(matches!(decode(&truncate.into()), Err(Misread::TooLong { .. })));
    let binary = Bytes::from_static(b"I\0\0\0\x01N\0\x01b\0\0\0\0");
    assert!(matches!(decode(&binary), Err(Misread::Malformed(_))));
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes.into());
    }

    #[test]
    fn damaged_messages_never_panic(
        which in 0..14_usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = encode(&every_kind()[which]).to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(message) = decode(&bytes.into()) {
            let mut translator = Translator::new(&copied(&[1]));
            let mut out = Vec::new();
            translator.take(begin(100), &mut out).unwrap();
            translator.take(described(1, &["a", "b"]), &mut out).unwrap();
            let _ = translator.take(message, &mut out);
        }
    }
}
