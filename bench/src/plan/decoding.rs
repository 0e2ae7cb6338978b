//! What a database tells as text, in `COPY` and by PostgreSQL's `test_decoding`, as the records that capture makes of it.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use thinwire_engine::codec::{Records, RecordsBuf};
use thinwire_engine::model::{
    Column, Lsn, OldRow, Record, Relation, RelationId, ReplicaIdentity, Row, Timestamp, Value,
};

/// The fields of a line of `COPY … TO STDOUT`.
pub(super) fn fields(line: &str) -> Vec<Value> {
    let value = |field: &str| match field {
        "\\N" => Value::Null,
        field => Value::Bytes(unescaped(field).into()),
    };
    line.split('\t').map(value).collect()
}

fn unescaped(field: &str) -> String {
    let (mut text, mut rest) = (String::with_capacity(field.len()), field.chars());
    while let Some(letter) = rest.next() {
        text.push(match letter {
            '\\' => match rest.next() {
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('v') => '\u{b}',
                Some(other) => other,
                None => break,
            },
            other => other,
        });
    }
    text
}

/// The text of a field that is not null.
pub(super) fn text(value: &Value) -> Result<&str> {
    match value {
        Value::Bytes(bytes) => Ok(std::str::from_utf8(bytes)?),
        Value::Null | Value::Unchanged => bail!("a field is null that never is"),
    }
}

/// Transactions from their lines, one after the other.
#[derive(Debug)]
pub(super) struct Decoding {
    /// By their names, as the server quotes them.
    tables: HashMap<String, Relation>,
    rows: Vec<Record>,
}

impl Decoding {
    pub(super) fn new(tables: HashMap<String, Relation>) -> Decoding {
        Decoding { tables, rows: Vec::new() }
    }

    /// Whether a line says that a row of one of the tables was changed.
    pub(super) fn concerns(&self, line: &str) -> bool {
        let change = line.strip_prefix("table ").and_then(|change| until(change, ':'));
        change.is_some_and(|(table, _)| self.tables.contains_key(table))
    }

    /// Takes a line; with the last of a transaction it gives the transaction, if that has changed any of the tables.
    pub(super) fn take(&mut self, lsn: Lsn, xid: u32, line: &str) -> Result<Option<Records>> {
        if let Some(end) = line.strip_prefix("COMMIT") {
            return Ok(self.end(lsn, xid, timestamp(end).unwrap_or_default()));
        }
        if let Some(change) = line.strip_prefix("table ") {
            let record = self.change(change).with_context(|| format!("reading: {line}"))?;
            self.rows.extend(record);
        }
        Ok(None)
    }

    fn end(&mut self, end: Lsn, xid: u32, time: Timestamp) -> Option<Records> {
        if self.rows.is_empty() {
            return None;
        }
        let lsn = Lsn::new(end.get().saturating_sub(COMMIT_BYTES));
        let mut records = RecordsBuf::new();
        records.push(&Record::Begin { xid, lsn, time });
        self.rows.drain(..).for_each(|row| records.push(&row));
        records.push(&Record::Commit { end });
        Some(records.take())
    }

    /// Nothing of a table that is not to be captured, or is gone, and of what is no row.
    fn change(&self, change: &str) -> Result<Option<Record>> {
        let (table, rest) = until(change, ':').context("there is no table")?;
        let (kind, rest) = rest.trim_start().split_once(':').context("there is no kind")?;
        let Some(table) = self.tables.get(table) else { return Ok(None) };
        let relation = table.id;
        let tuple = rest.trim_start();
        if tuple == "(no-tuple-data)" {
            return Ok(None);
        }
        let row = |tuple, absent| row(table, tuple, absent);
        let old = |tuple| {
            let old = row(tuple, Value::Null)?;
            let whole = table.identity == ReplicaIdentity::Full;
            Ok::<_, anyhow::Error>(if whole { OldRow::Full(old) } else { OldRow::Key(old) })
        };
        Ok(match kind {
            "INSERT" => Some(Record::Insert { relation, new: row(tuple, Value::Null)? }),
            "UPDATE" => {
                let (before, new) = match tuple.strip_prefix("old-key: ") {
                    Some(both) => {
                        let (before, new) = parted(both)?;
                        (Some(old(before)?), new)
                    }
                    None => (None, tuple),
                };
                Some(Record::Update { relation, old: before, new: row(new, Value::Unchanged)? })
            }
            "DELETE" => Some(Record::Delete { relation, old: old(tuple)? }),
            _ => None,
        })
    }
}

/// The values of a relation's columns in a tuple, and something else for those that are not in it.
fn row(relation: &Relation, tuple: &str, absent: Value) -> Result<Row> {
    let mut values = vec![absent; relation.columns.len()];
    let mut rest = tuple;
    while !rest.is_empty() {
        let (name, value, after) = item(rest)?;
        if let Some(at) = relation.columns.iter().position(|column| column.name == name) {
            values[at] = value;
        }
        rest = after;
    }
    Ok(Row(values))
}

/// The old tuple of an update and its new one: what stands between them may stand in a value too.
fn parted(both: &str) -> Result<(&str, &str)> {
    let mut rest = both;
    loop {
        if let Some(new) = rest.strip_prefix(NEW_TUPLE) {
            return Ok((both[..both.len() - rest.len()].trim_end(), new));
        }
        ensure!(!rest.is_empty(), "there is no new tuple");
        rest = item(rest)?.2;
    }
}

/// The next `name[type]:value` of a tuple, and what stands behind it.
fn item(tuple: &str) -> Result<(String, Value, &str)> {
    let (name, rest) = until(tuple, '[').context("a value has no name")?;
    let (kind, rest) = closed(rest).context("a value has no type")?;
    let rest = rest.strip_prefix(':').context("a name has no value")?;
    let quoted = rest.strip_prefix('B').filter(|bits| bits.starts_with('\'')).unwrap_or(rest);
    let (value, rest) = if quoted.starts_with('\'') {
        let (text, rest) = enclosed(quoted, '\'').context("a value has no end")?;
        (Value::Bytes(text.into()), rest)
    } else {
        let (word, rest) = rest.split_at(rest.find(' ').unwrap_or(rest.len()));
        (bare(word, kind), rest)
    };
    let name = match name.starts_with('"') {
        true => enclosed(name, '"').context("a name has no end")?.0,
        false => name.to_owned(),
    };
    Ok((name, value, rest.strip_prefix(' ').unwrap_or(rest)))
}

fn bare(word: &str, kind: &str) -> Value {
    match (word, kind) {
        ("null", _) => Value::Null,
        ("unchanged-toast-datum", _) => Value::Unchanged,
        ("true", "boolean") => Value::Bytes(Bytes::from_static(b"t")),
        ("false", "boolean") => Value::Bytes(Bytes::from_static(b"f")),
        _ => Value::Bytes(word.to_owned().into()),
    }
}

/// What stands before a sign and behind it, where the sign is not within double quotes.
fn until(text: &str, sign: char) -> Option<(&str, &str)> {
    let mut quoted = false;
    let at = text.char_indices().find(|&(_, letter)| {
        quoted ^= letter == '"';
        letter == sign && !quoted
    });
    at.map(|(at, sign)| (&text[..at], &text[at + sign.len_utf8()..]))
}

/// What stands before the bracket that closes, with the brackets of arrays in it, and behind it.
fn closed(text: &str) -> Option<(&str, &str)> {
    let (mut open, mut quoted) = (1_u32, false);
    for (at, letter) in text.char_indices() {
        quoted ^= letter == '"';
        match letter {
            '[' if !quoted => open += 1,
            ']' if !quoted && open == 1 => return Some((&text[..at], &text[at + 1..])),
            ']' if !quoted => open -= 1,
            _ => {}
        }
    }
    None
}

/// What a quoted text says, whose quotes are doubled within it, and what stands behind it.
fn enclosed(text: &str, quote: char) -> Option<(String, &str)> {
    let (mut said, mut rest) = (String::new(), text.strip_prefix(quote)?);
    loop {
        let (piece, after) = rest.split_once(quote)?;
        said += piece;
        match after.strip_prefix(quote) {
            Some(more) => rest = more,
            None => return Some((said, after)),
        }
        said.push(quote);
    }
}

/// From ` (at 2025-01-06 08:00:00.123456+00)`: microseconds since 2000.
fn timestamp(text: &str) -> Option<Timestamp> {
    let text = text.trim().strip_prefix("(at ")?.split('+').next()?;
    let (date, time) = text.split_once(' ')?;
    let [year, month, day] = numbers(date, '-')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let [hours, minutes, seconds] = numbers(time, ':')?;
    let micros: i64 = format!("{fraction:0<6}").parse().ok()?;
    // Years that begin in March have their odd day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year / 4 - year / 100 + year / 400;
    let days = year * 365 + leaps + (month * 153 + 2) / 5 + day - DAYS_BEFORE_2000;
    let time = (hours * 60 + minutes) * 60 + seconds;
    Some(Timestamp::from_micros((days * 86_400 + time) * 1_000_000 + micros))
}

fn numbers(text: &str, between: char) -> Option<[i64; 3]> {
    let numbers: Option<Vec<i64>> = text.split(between).map(|it| it.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// A relation as the catalog describes it, without its columns.
pub(super) fn relation(id: &str, schema: &str, name: &str, identity: &str) -> Result<Relation> {
    let identity = match identity {
        "f" => ReplicaIdentity::Full,
        "n" => ReplicaIdentity::Nothing,
        "i" => ReplicaIdentity::Index,
        _ => ReplicaIdentity::Default,
    };
    let id = RelationId(id.parse()?);
    Ok(Relation { id, schema: schema.into(), name: name.into(), identity, columns: Vec::new() })
}

/// A column of it.
pub(super) fn column(name: &str, key: bool, type_oid: &str, modifier: &str) -> Result<Column> {
    let (type_oid, type_modifier) = (type_oid.parse()?, modifier.parse()?);
    Ok(Column { name: name.into(), key, type_oid, type_modifier })
}

const NEW_TUPLE: &str = "new-tuple: ";
/// About how long a commit's record in the log is.
const COMMIT_BYTES: u64 = 48;
/// From the March that began the year 0 to the first day of 2000, and the one with which days of a month begin.
const DAYS_BEFORE_2000: i64 = 730_426;

#[cfg(test)]
mod tests {
    use super::*;

    fn decoding() -> Decoding {
        let mut table = relation("7", "public", "a: \"b\"", "d").unwrap();
        for (name, key) in [("id", true), ("my [name]", false), ("tags", false), ("ok", false)] {
            table.columns.push(column(name, key, "25", "-1").unwrap());
        }
        Decoding::new([("public.\"a: \"\"b\"\"\"".to_owned(), table)].into())
    }

    fn bytes(text: &str) -> Value {
        Value::Bytes(text.to_owned().into())
    }

    #[test]
    fn a_transaction_of_text_becomes_the_records_that_capture_would_make() {
        let mut decoding = decoding();
        let lines = [
            "BEGIN",
            "table public.other: INSERT: id[integer]:1",
            "table public.\"a: \"\"b\"\"\": INSERT: id[integer]:1 \"my [name]\"[text]:'it''s ]:' \
             tags[text[]]:'{a,b}' ok[boolean]:true",
            "table public.\"a: \"\"b\"\"\": UPDATE: old-key: id[integer]:1 new-tuple: \
             id[integer]:2 \"my [name]\"[text]:unchanged-toast-datum tags[text[]]:null \
             ok[boolean]:false",
            "table public.\"a: \"\"b\"\"\": DELETE: id[integer]:2",
        ];
        for line in lines {
            assert_eq!(decoding.take(Lsn::new(5), 9, line).unwrap(), None, "{line}");
        }
        let end = "COMMIT (at 2000-01-02 00:00:01.5+00)";
        let records = decoding.take(Lsn::new(1_000), 9, end).unwrap().unwrap();
        let relation = RelationId(7);
        let key = |id| OldRow::Key(Row(vec![bytes(id), Value::Null, Value::Null, Value::Null]));
        let rows = [vec![bytes("1"), bytes("it's ]:"), bytes("{a,b}"), bytes("t")]]
            .map(|values| Record::Insert { relation, new: Row(values) });
        let new = Row(vec![bytes("2"), Value::Unchanged, Value::Null, bytes("f")]);
        let expected = [
            Record::Begin {
                xid: 9,
                lsn: Lsn::new(1_000 - COMMIT_BYTES),
                time: Timestamp::from_micros(86_401_500_000),
            },
            rows[0].clone(),
            Record::Update { relation, old: Some(key("1")), new },
            Record::Delete { relation, old: key("2") },
            Record::Commit { end: Lsn::new(1_000) },
        ];
        let found: Vec<Record> = records
            .decode(thinwire_engine::model::Offset::FIRST)
            .map(|record| record.unwrap().1)
            .collect();
        assert_eq!(found, expected);
        let of_others = ["table public.other: DELETE: (no-tuple-data)", "COMMIT"];
        assert!(of_others.iter().all(|line| decoding.take(Lsn::ZERO, 1, line).unwrap().is_none()));
    }

    #[test]
    fn what_cannot_be_read_is_an_error_with_its_line() {
        for tuple in ["id[integer", "id[integer]1", "id[text]:'a", "nothing"] {
            let line = format!("table public.\"a: \"\"b\"\"\": INSERT: {tuple}");
            let error = decoding().take(Lsn::ZERO, 1, &line).unwrap_err();
            assert!(format!("{error:#}").contains(tuple), "{error:#}");
        }
    }

    #[test]
    fn days_are_counted_over_leap_years() {
        let days = |date: &str| {
            let micros = timestamp(&format!("(at {date} 00:00:00+00)")).unwrap().micros();
            micros / 86_400_000_000
        };
        assert_eq!([days("2000-01-01"), days("2000-02-29"), days("2000-03-01")], [0, 59, 60]);
        assert_eq!([days("2001-01-01"), days("1999-12-31"), days("2026-11-22")], [366, -1, 9_822]);
    }

    #[test]
    fn a_copied_line_is_a_row_again() {
        let row = fields("1\t\\N\ta\\tb\\\\c\\nd\t");
        assert_eq!(row, [bytes("1"), Value::Null, bytes("a\tb\\c\nd"), bytes("")]);
    }
}
