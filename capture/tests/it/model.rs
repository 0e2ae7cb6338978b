//! A stream replayed onto tables in memory, strictly: what hits no row, or a row twice, fails the test.

use std::collections::BTreeMap;

use bytes::Bytes;
use thinwire_engine::model::{OldRow, Origin, Record, Relation, RelationId, Row, Schema, Value};

type Values = Vec<Option<Bytes>>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) tables: BTreeMap<RelationId, Table>,
    /// Complete transactions that are in it.
    pub(crate) commits: u64,
    pub(crate) aborts: u64,
    pub(crate) copies: u64,
    pub(crate) messages: Vec<(String, Bytes)>,
    /// What was said of the schema, complete transactions and copies only.
    pub(crate) schemas: Vec<Schema>,
    /// Who looks; `None` for one that is in no audience.
    viewer: Option<Origin>,
    /// Records of what is open.
    open: Vec<Record>,
    is_ours: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) relation: Relation,
    /// Keyless tables may have equal rows.
    rows: BTreeMap<Values, u64>,
    by_key: BTreeMap<Values, Values>,
}

impl Model {
    pub(crate) fn of(records: impl Iterator<Item = Record>) -> Self {
        Self::seen_by(None, records)
    }

    /// What a node makes of a stream; `None` for one that is in no audience.
    pub(crate) fn seen_by(viewer: Option<Origin>, records: impl Iterator<Item = Record>) -> Self {
        let mut model = Self { viewer, ..Self::default() };
        records.for_each(|record| {
            model.feed(record);
        });
        model
    }

    /// Takes the next record; whether it completed a transaction or a copy.
    pub(crate) fn feed(&mut self, record: Record) -> bool {
        match record {
            Record::Begin { .. } => {
                assert!(self.open.is_empty());
                self.is_ours = true;
                self.open.push(record);
            }
            Record::CopyBegin(ref copy) => {
                assert!(self.open.is_empty());
                let node = self.viewer;
                self.is_ours = node.map_or(copy.audience.is_empty(), |node| copy.is_for(node));
                self.open.push(record);
            }
            Record::Commit { .. } => {
                self.commits += 1;
                self.close();
                return true;
            }
            Record::CopyEnd { rows } => {
                let inserts = self.open.iter().filter(|it| matches!(it, Record::Insert { .. }));
                assert_eq!(inserts.count() as u64, rows);
                self.copies += 1;
                self.close();
                return true;
            }
            Record::Abort | Record::CopyAbort => {
                assert!(!self.open.is_empty());
                self.aborts += 1;
                self.is_ours = false;
                self.close();
            }
            Record::Message { transactional: false, .. } => self.apply(record),
            Record::Schema(_) if self.open.is_empty() => self.apply(record),
            record if self.open.is_empty() => panic!("outside of a transaction: {record:?}"),
            record => self.open.push(record),
        }
        false
    }

    /// Applies what was open, or only its descriptions, which stay in force whoever the rest is for.
    fn close(&mut self) {
        for record in std::mem::take(&mut self.open) {
            if self.is_ours || matches!(record, Record::Relation(_)) {
                self.apply(record);
            }
        }
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Relation(relation) => match self.tables.get_mut(&relation.id) {
                Some(table) => table.describe(relation),
                None => {
                    let (rows, by_key) = (BTreeMap::new(), BTreeMap::new());
                    self.tables.insert(relation.id, Table { relation, rows, by_key });
                }
            },
            Record::Insert { relation, new } => self.table(relation).insert(values(&new)),
            Record::Update { relation, old, new } => self.table(relation).update(old, &new),
            Record::Delete { relation, old } => {
                self.table(relation).remove(&old);
            }
            Record::Truncate { relations, .. } => relations.into_iter().for_each(|id| {
                self.table(id).clear();
            }),
            Record::Message { prefix, content, .. } => self.messages.push((prefix, content)),
            Record::Schema(schema) => {
                // Their rows come anew.
                for id in &schema.stale {
                    if let Some(table) = self.tables.get_mut(id) {
                        table.clear();
                    }
                }
                self.schemas.push(schema);
            }
            Record::Begin { .. } | Record::CopyBegin(_) => {}
            other => panic!("{other:?}"),
        }
    }

    fn table(&mut self, id: RelationId) -> &mut Table {
        self.tables.get_mut(&id).expect("a row of a table that was never described")
    }

    /// Whether the stream has described a table.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<&Table> {
        self.tables
            .values()
            .rfind(|table| name == format!("{}.{}", table.relation.schema, table.relation.name))
    }

    /// The sum over a column of numbers.
    pub(crate) fn sum(&self, name: &str, column: usize) -> i64 {
        let number =
            |row: &Vec<Option<String>>| row[column].as_ref().unwrap().parse::<i64>().unwrap();
        self.rows(name).iter().map(number).sum()
    }

    /// A table's rows, in order.
    pub(crate) fn rows(&self, name: &str) -> Vec<Vec<Option<String>>> {
        let Some(table) = self.find(name) else { panic!("the stream has no table {name}") };
        let text = |value: &Option<Bytes>| {
            value.as_ref().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
        };
        let keyless = table.rows.iter().flat_map(|(row, count)| (0..*count).map(move |_| row));
        let mut rows: Vec<Vec<Option<String>>> = keyless
            .chain(table.by_key.values())
            .map(|row| row.iter().map(text).collect())
            .collect();
        rows.sort();
        rows
    }
}

impl Table {
    fn clear(&mut self) {
        self.rows.clear();
        self.by_key.clear();
    }

    fn has_key(&self) -> bool {
        use thinwire_engine::model::ReplicaIdentity::{Default, Index};
        matches!(self.relation.identity, Default | Index)
            && self.relation.columns.iter().any(|column| column.key)
    }

    fn key(&self, row: &Values) -> Values {
        let columns = self.relation.columns.iter().zip(row);
        columns.filter(|(column, _)| column.key).map(|(_, value)| value.clone()).collect()
    }

    fn describe(&mut self, relation: Relation) {
        let keyed = std::mem::take(&mut self.by_key).into_values().map(|row| (row, 1));
        let all: Vec<_> = keyed.chain(std::mem::take(&mut self.rows)).collect();
        let before = std::mem::replace(&mut self.relation, relation);
        // By name: these tests do not rename and give no defaults.
        let at = |name: &str| before.columns.iter().position(|column| column.name == name);
        let from: Vec<_> = self.relation.columns.iter().map(|column| at(&column.name)).collect();
        for (row, count) in all {
            let row: Values = from.iter().map(|at| at.and_then(|at| row[at].clone())).collect();
            (0..count).for_each(|_| self.insert(row.clone()));
        }
    }

    fn insert(&mut self, row: Values) {
        assert_eq!(row.len(), self.relation.columns.len());
        if self.has_key() {
            let key = self.key(&row);
            let before = self.by_key.insert(key, row);
            assert_eq!(before, None, "inserted twice into {}", self.relation.name);
        } else {
            *self.rows.entry(row).or_default() += 1;
        }
    }

    fn remove(&mut self, old: &OldRow) -> Values {
        let row = values(old.row());
        if self.has_key() {
            let key = self.key(&row);
            return self.by_key.remove(&key).unwrap_or_else(|| {
                panic!("no row with key {key:?} in {}", self.relation.name);
            });
        }
        let count = self.rows.get_mut(&row).expect("no such row in a keyless table");
        *count -= 1;
        if *count == 0 {
            self.rows.remove(&row);
        }
        row
    }

    fn update(&mut self, old: Option<OldRow>, new: &Row) {
        let old = old.unwrap_or_else(|| OldRow::Key(new.clone()));
        let before = self.remove(&old);
        let row = new.0.iter().zip(before).map(|(value, before)| match value {
            Value::Null => None,
            Value::Unchanged => before,
            Value::Bytes(bytes) => Some(bytes.clone()),
        });
        self.insert(row.collect());
    }
}

fn values(row: &Row) -> Values {
    let value = |value: &Value| match value {
        Value::Null => None,
        Value::Bytes(bytes) => Some(bytes.clone()),
        // Only ever in a key's row, where it is not looked at.
        Value::Unchanged => None,
    };
    row.0.iter().map(value).collect()
}
