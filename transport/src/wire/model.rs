//! Records as bits: which record probably comes next, and what is in it.
//!
//! The same code writes and reads (see [`super::range`]): it is given a record and returns it, or is given anything and
//! returns the record that was written. What it learns depends on what it returned alone, so both
//! ends always know the same. Records that are not rows or the ends of transactions pass as text.

use std::collections::HashMap;

use bytes::Bytes;
use thinwire_engine::{
    codec::{Tag, decode, encode, put_varint},
    limits::COLUMNS_MAX,
    model::{Lsn, OldRow, Record, Relation, RelationId, ReplicaIdentity, Row, Timestamp, Value},
};

use super::{
    column::{Column, Mind, Numbers, Place},
    memory::{Memory, bytes_of},
    odds::{Judge, Odds, mix},
    range::Coder,
    shape::{Number, Shape, digest},
    text::Text,
};

/// All that is known of the records that passed over a connection in one direction.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) mind: Mind,
    memory: Memory,
    tables: HashMap<Name, Table>,
    columns: usize,
    /// The tables that rows are about, by the numbers that stand for them.
    names: Vec<Name>,
    next_name: usize,
    flows: HashMap<u32, Flow>,
    /// What the last records were: the last one, and the last two.
    last: u32,
    last_two: u32,
}

/// A stream's number, and a table's in it.
type Name = (u32, RelationId);

/// What is known of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flow {
    /// The offset behind the last record.
    pub(super) next: u64,
    xid: i64,
    lsn: i64,
    end: i64,
    time: i64,
}

/// What is known of a table.
#[derive(Debug, Default)]
struct Table {
    width: usize,
    /// The columns that tell rows apart.
    keys: Vec<usize>,
    roles: [Vec<Column>; ROLES],
}

/// What a row is in its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Inserted = 0,
    Updated = 1,
    Old = 2,
}

/// The row that a row was before.
enum Before {
    Nothing,
    Known(Row),
    /// Remembered under the key of the row itself.
    Remembered,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            mind: Mind {
                odds: Odds::new(TABLE_LOG),
                text: Text::new(),
                numbers: Numbers::default(),
                time: None,
                room: 0,
                recent: 0,
            },
            memory: Memory::default(),
            tables: HashMap::new(),
            columns: 0,
            names: Vec::new(),
            next_name: 0,
            flows: HashMap::new(),
            last: 0,
            last_two: 0,
        }
    }

    /// What is known of a stream.
    pub(super) fn flow(&mut self, stream: u32) -> &mut Flow {
        self.flows.entry(stream).or_default()
    }

    /// Codes a record and appends it, with its length before it. `None` if it is too long.
    pub(super) fn record<C: Coder>(
        &mut self,
        coder: &mut C,
        stream: u32,
        given: &Bytes,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let parsed = decode(given).ok().filter(|record| kind(record) != VERBATIM);
        let given_kind = parsed.as_ref().map_or(VERBATIM, kind);
        let contexts = [mix(KIND, self.last), mix(KIND, self.last_two)];
        let symbol = self.mind.odds.symbol(coder, JUDGE_KIND, contexts, 4, given_kind);
        let mut bytes = Vec::new();
        let record = match symbol {
            BEGIN => self.begin(coder, stream, parsed.as_ref()),
            COMMIT => self.commit(coder, stream, parsed.as_ref()),
            INSERT | UPDATE | DELETE => self.change(coder, stream, symbol, parsed)?,
            _ => {
                self.step(VERBATIM);
                bytes = self.verbatim(coder, stream, given)?;
                put_varint(bytes.len() as u64, out);
                out.append(&mut bytes);
                return Some(());
            }
        };
        encode(&record, &mut bytes);
        put_varint(bytes.len() as u64, out);
        out.append(&mut bytes);
        Some(())
    }

    fn step(&mut self, what: u32) {
        self.last_two = mix(self.last, what);
        self.last = what;
    }

    /// Codes a number that has a context of its own.
    pub(super) fn count<C: Coder>(&mut self, coder: &mut C, context: u32, number: i64) -> i64 {
        self.mind.odds.number(coder, JUDGE_COUNT, [mix(COUNT, context)], number)
    }

    fn begin<C: Coder>(&mut self, coder: &mut C, stream: u32, given: Option<&Record>) -> Record {
        let was = *self.flow(stream);
        let (xid, lsn, time) = match given {
            Some(Record::Begin { xid, lsn, time }) => {
                (i64::from(*xid), lsn.get().cast_signed(), time.micros())
            }
            _ => (0, 0, 0),
        };
        let xid = was.xid.wrapping_add(self.count(coder, 0, xid.wrapping_sub(was.xid)));
        let lsn = was.end.wrapping_add(self.count(coder, 1, lsn.wrapping_sub(was.end)));
        let time = was.time.wrapping_add(self.count(coder, 2, time.wrapping_sub(was.time)));
        // Whatever a foreign number is, it is told to nobody before its checksum was compared.
        let xid = u32::try_from(xid & 0xFFFF_FFFF).unwrap_or_default();
        let flow = self.flow(stream);
        (flow.xid, flow.lsn, flow.time) = (xid.into(), lsn, time);
        let digits = Shape::Moment { digits: 6, zone: true };
        let unix = time.saturating_add(EPOCH_MICROS);
        self.mind.time = Some(Number { shape: digits, value: unix });
        self.mind.numbers.clear();
        self.step(BEGIN);
        Record::Begin {
            xid,
            lsn: Lsn::new(lsn.cast_unsigned()),
            time: Timestamp::from_micros(time),
        }
    }

    fn commit<C: Coder>(&mut self, coder: &mut C, stream: u32, given: Option<&Record>) -> Record {
        let from = self.flow(stream).lsn;
        let end = match given {
            Some(Record::Commit { end }) => end.get().cast_signed(),
            _ => 0,
        };
        let end = from.wrapping_add(self.count(coder, 3, end.wrapping_sub(from)));
        self.flow(stream).end = end;
        self.step(COMMIT);
        Record::Commit { end: Lsn::new(end.cast_unsigned()) }
    }

    /// Codes what is neither a row nor the end of a transaction.
    fn verbatim<C: Coder>(&mut self, coder: &mut C, stream: u32, given: &Bytes) -> Option<Vec<u8>> {
        let Mind { odds, text, room, .. } = &mut self.mind;
        let bytes = text.code(odds, coder, VERBATIM, given, *room)?;
        *room -= bytes.len();
        if bytes.first() == Some(&(Tag::Relation as u8))
            && let Ok(Record::Relation(relation)) = decode(&Bytes::copy_from_slice(&bytes))
        {
            self.describe(stream, &relation);
        }
        Some(bytes)
    }

    fn describe(&mut self, stream: u32, relation: &Relation) {
        let keys = relation.columns.iter().enumerate().filter(|(_, column)| column.key);
        let keys: Vec<usize> = match relation.identity {
            ReplicaIdentity::Default | ReplicaIdentity::Index => {
                keys.map(|(at, _)| at).take(KEYS_MAX).collect()
            }
            ReplicaIdentity::Full | ReplicaIdentity::Nothing => Vec::new(),
        };
        if self.tables.len() >= TABLES_MAX {
            self.forget_tables();
        }
        self.tables.entry((stream, relation.id)).or_default().keys = keys;
    }

    fn change<C: Coder>(
        &mut self,
        coder: &mut C,
        stream: u32,
        kind: u32,
        given: Option<Record>,
    ) -> Option<Record> {
        let (relation, old, new) = match given {
            Some(Record::Insert { relation, new }) => (relation, None, new),
            Some(Record::Update { relation, old, new }) => (relation, old, new),
            Some(Record::Delete { relation, old }) => (relation, Some(old), Row::default()),
            _ => (RelationId(0), None, Row::default()),
        };
        let name = (stream, self.relation(coder, stream, kind, relation));
        let relation = name.1;
        self.step(mix(kind, relation.0) | 1 << 31);
        if kind == INSERT {
            let new = self.row(coder, name, Role::Inserted, Before::Nothing, &new)?;
            return Some(Record::Insert { relation, new });
        }
        let old = self.old(coder, name, old)?;
        if kind == DELETE {
            return Some(Record::Delete { relation, old: old? });
        }
        let before = match &old {
            Some(OldRow::Full(row)) => Before::Known(row.clone()),
            Some(OldRow::Key(row)) => {
                let key = self.key(name, &row.0);
                self.memory.find(key).map_or(Before::Nothing, Before::Known)
            }
            None => Before::Remembered,
        };
        let new = self.row(coder, name, Role::Updated, before, &new)?;
        Some(Record::Update { relation, old, new })
    }

    fn old<C: Coder>(
        &mut self,
        coder: &mut C,
        name: Name,
        given: Option<OldRow>,
    ) -> Option<Option<OldRow>> {
        let form = match &given {
            None => 0,
            Some(OldRow::Key(_)) => 1,
            Some(OldRow::Full(_)) => 2,
        };
        let contexts = [mix(OLD, self.last), mix(OLD, name.1.0)];
        let form = self.mind.odds.symbol(coder, JUDGE_OLD, contexts, 2, form);
        let given = given.map(|old| match old {
            OldRow::Key(row) | OldRow::Full(row) => row,
        });
        let given = given.unwrap_or_default();
        let before = match form {
            0 => return Some(None),
            1 => Before::Nothing,
            _ => Before::Remembered,
        };
        let row = self.row(coder, name, Role::Old, before, &given)?;
        Some(Some(if form == 1 { OldRow::Key(row) } else { OldRow::Full(row) }))
    }

    /// Codes which table a row is of.
    fn relation<C: Coder>(
        &mut self,
        coder: &mut C,
        stream: u32,
        kind: u32,
        given: RelationId,
    ) -> RelationId {
        let found = self.names.iter().position(|name| *name == (stream, given));
        let number = found.and_then(|at| u32::try_from(at).ok()).unwrap_or(UNNAMED);
        let at = mix(NAME, kind);
        let contexts = [mix(at, self.last), mix(at, self.last_two)];
        let number = self.mind.odds.symbol(coder, JUDGE_NAME, contexts, NAMES_LOG, number);
        if let Some(name) = self.names.get(number as usize) {
            return name.1;
        }
        let id = self.count(coder, 4, given.0.into()) & 0xFFFF_FFFF;
        let id = RelationId(u32::try_from(id).unwrap_or_default());
        match self.names.get_mut(self.next_name) {
            Some(place) => *place = (stream, id),
            None => self.names.push((stream, id)),
        }
        self.next_name = (self.next_name + 1) % UNNAMED as usize;
        id
    }

    /// Codes a row: its key first, because that tells what it was before.
    fn row<C: Coder>(
        &mut self,
        coder: &mut C,
        name: Name,
        role: Role,
        mut before: Before,
        given: &Row,
    ) -> Option<Row> {
        let mut table = self.tables.remove(&name).unwrap_or_default();
        let width = self.width(coder, &mut table, name, given.0.len())?;
        self.make_room(&mut table, role, width);
        let keys: Vec<usize> = table.keys().filter(|key| *key < width).collect();
        let others = (0..width).filter(|at| !keys.contains(at));
        let mut row = vec![Value::Null; width];
        let mut place = Place { column: 0, beside: 0, pattern: 0 };
        for (turn, at) in keys.iter().copied().chain(others).enumerate() {
            if turn == keys.len() && matches!(before, Before::Remembered) {
                let found = self.memory.find(key_of(name, &table, &row));
                before = found.map_or(Before::Nothing, Before::Known);
            }
            let old = match &before {
                Before::Known(old) => old.0.get(at),
                Before::Nothing | Before::Remembered => None,
            };
            place.column = column_of(name, role, at);
            let given = given.0.get(at).unwrap_or(&Value::Null);
            self.mind.room = self.mind.room.checked_sub(1)?;
            let column = &mut table.roles[role as usize][at];
            let value = column.code(coder, &mut self.mind, place, old, given)?;
            place.beside = digest(bytes_of(&value));
            place.pattern = place.pattern << 1 | u32::from(old == Some(&value));
            row[at] = value;
        }
        let row = Row(row);
        let key = key_of(name, &table, &row.0);
        match (role, before) {
            (Role::Old, _) => self.memory.forget(key),
            (_, Before::Known(old)) => self.memory.keep(key, &whole(&row, &old)),
            _ => self.memory.keep(key, &row),
        }
        self.tables.insert(name, table);
        Some(row)
    }

    /// Codes how many columns a row has; `None` for more than there may be.
    fn width<C: Coder>(
        &mut self,
        coder: &mut C,
        table: &mut Table,
        name: Name,
        given: usize,
    ) -> Option<usize> {
        let known = i64::try_from(table.width).unwrap_or_default();
        let off = i64::try_from(given).unwrap_or_default() - known;
        let off = self.count(coder, mix(5, name.1.0), off);
        let width = usize::try_from(known.checked_add(off)?).ok()?;
        table.width = width;
        (width <= COLUMNS_MAX).then_some(width)
    }

    /// Makes place for what is learnt of a row's columns. When too much would be known of tables, all is forgotten.
    fn make_room(&mut self, table: &mut Table, role: Role, width: usize) {
        let missing = |table: &Table| width.saturating_sub(table.roles[role as usize].len());
        if self.columns + missing(table) > COLUMNS_HELD_MAX
            || self.tables.len() >= TABLES_MAX
            || self.mind.recent > RECENT_BYTES_HELD_MAX
        {
            self.forget_tables();
            table.roles = Default::default();
        }
        self.columns += missing(table);
        let columns = &mut table.roles[role as usize];
        columns.resize_with(columns.len().max(width), Column::default);
    }

    fn forget_tables(&mut self) {
        self.tables.clear();
        (self.columns, self.mind.recent) = (0, 0);
    }

    fn key(&self, name: Name, row: &[Value]) -> u64 {
        self.tables.get(&name).map_or(0, |table| key_of(name, table, row))
    }
}

impl Table {
    /// The columns that tell rows apart; the first one, as far as is known.
    fn keys(&self) -> impl Iterator<Item = usize> + '_ {
        let unknown = self.keys.is_empty().then_some(0);
        self.keys.iter().copied().chain(unknown)
    }
}

/// A row's key among all rows of all tables.
fn key_of(name: Name, table: &Table, row: &[Value]) -> u64 {
    let start = KEY_START ^ u64::from(name.0) ^ u64::from(name.1.0) << 32;
    table.keys().fold(start, |key, at| {
        let bytes = row.get(at).map(bytes_of).unwrap_or_default();
        let key = (key ^ bytes.len() as u64).wrapping_mul(KEY_PRIME);
        bytes.iter().fold(key, |key, byte| (key ^ u64::from(*byte)).wrapping_mul(KEY_PRIME))
    })
}

fn column_of((stream, relation): Name, role: Role, at: usize) -> u32 {
    let at = u32::try_from(at).unwrap_or_default();
    mix(mix(mix(stream, relation.0), at), role as u32 + 1)
}

/// A row with what was not sent of it, as far as that is known.
fn whole(row: &Row, old: &Row) -> Row {
    let values = row.0.iter().enumerate().map(|(at, value)| match (value, old.0.get(at)) {
        (Value::Unchanged, Some(old)) => old.clone(),
        _ => value.clone(),
    });
    Row(values.collect())
}

fn kind(record: &Record) -> u32 {
    match record {
        Record::Begin { .. } => BEGIN,
        Record::Commit { .. } => COMMIT,
        Record::Insert { .. } => INSERT,
        Record::Update { .. } => UPDATE,
        Record::Delete { .. } => DELETE,
        _ => VERBATIM,
    }
}

/// One megabyte of contexts.
const TABLE_LOG: u32 = 18;

/// Most columns of which anything is known, each role counted. The widest table has room.
const COLUMNS_HELD_MAX: usize = 5_120;
const _: () = assert!(COLUMNS_HELD_MAX > ROLES * COLUMNS_MAX);

/// What the recent texts of all columns may take; a row more at most.
const RECENT_BYTES_HELD_MAX: usize = 1 << 19;

/// Most tables of which anything is known.
const TABLES_MAX: usize = 2_048;

/// More columns of a key than these tell few rows apart.
const KEYS_MAX: usize = 8;

const ROLES: usize = 3;

/// So many tables less one have short names at a time.
const NAMES_LOG: u32 = 7;
const UNNAMED: u32 = (1 << NAMES_LOG) - 1;

/// 2000-01-01, from which PostgreSQL counts, after 1970-01-01, from which texts are counted.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// FNV-1a.
const KEY_START: u64 = 0xCBF2_9CE4_8422_2325;
const KEY_PRIME: u64 = 0x0000_0100_0000_01B3;

const VERBATIM: u32 = 0;
const BEGIN: u32 = 1;
const COMMIT: u32 = 2;
const INSERT: u32 = 3;
const UPDATE: u32 = 4;
const DELETE: u32 = 5;

const JUDGE_KIND: Judge = Judge(8);
const JUDGE_NAME: Judge = Judge(9);
const JUDGE_OLD: Judge = Judge(10);
const JUDGE_COUNT: Judge = Judge(11);

const KIND: u32 = 0x4B00_0000;
const NAME: u32 = 0x4E00_0000;
const OLD: u32 = 0x4F00_0000;
const COUNT: u32 = 0x4300_0000;
