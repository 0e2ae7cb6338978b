//! Records to statements: which columns are set, how a row is found, and what the parameters are. Pure.
//!
//! A statement is described by its [`Shape`]; two records of one shape use the same prepared statement with other
//! parameters. Values are the text that the source's output function wrote, whatever their type; how they go to the
//! target, so that it reads the same value, is no affair of a plan.
//!
//! How a row is found:
//! - by the key, if the source sent one: the columns of its replica identity, `=` where the value is not null, so that
//!   an index serves;
//! - else by all columns that were sent, and exactly one of the rows that are equal in them, because a source without
//!   a key changed exactly one. Columns whose type has no equality of its own are compared in their text form.
//!
//! What is set: all columns that were sent. "Unchanged" is not a value, so such a column is left out; so is an identity
//! column that is GENERATED ALWAYS and keeps its value, because PostgreSQL refuses to set it even to what it is. When
//! such a column does change, the row is replaced instead, in one statement.

use std::sync::Arc;

use thinwire_engine::model::{OldRow, Relation, ReplicaIdentity, Row, Value};

/// A table of the source and what it is at the target.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// As the source described it.
    pub(crate) relation: Arc<Relation>,
    /// Its columns at the target, in the source's order.
    pub(crate) columns: Vec<Column>,
    /// Columns that only the target has and that are stored, not generated.
    pub(crate) extra: Vec<String>,
    /// Whether it is partitioned, so that its rows are in other tables.
    pub(crate) partitioned: bool,
    /// What may identify a row at the target; the primary key first.
    pub(crate) unique: Vec<Unique>,
    /// Whether nothing happens when its rows change but that: no trigger fires under the replica role and no rule
    /// applies, so that its changes may overtake those of other tables within a target transaction.
    pub(crate) is_independent: bool,
    /// Indexes and constraints of any kind by which one row may forbid another.
    pub(crate) exclusions: u64,
}

/// A column of a target table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    /// How two of its values are compared.
    pub(crate) equality: Equality,
    /// Whether it is GENERATED ALWAYS AS IDENTITY.
    pub(crate) identity_always: bool,
    /// How many of its values travel in one parameter.
    pub(crate) many: Many,
    /// The object id of its type.
    pub(crate) type_oid: u32,
}

/// How many values of a column travel in one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Many {
    /// In an array of this type, schema and name, whose elements are read by the column's own input function.
    Array(String, String),
    /// As texts that are cast to this type, because it has no array type, or one with a separator of its own.
    Texts(String, String),
}

/// How two values of a column are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Equality {
    /// By the `=` of the type's default operator class.
    Operator {
        /// The operator's schema.
        schema: String,
        /// Whether values that are equal are always the same. Numbers of another scale are not, nor is text under a
        /// collation that looks away.
        is_identity: bool,
    },
    /// By their text form: the type has none.
    Text,
}

/// A unique index without conditions or expressions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unique {
    /// The index, and the constraint if it belongs to one.
    pub(crate) name: String,
    /// Whether it is the primary key.
    pub(crate) primary: bool,
    /// Its columns.
    pub(crate) columns: Vec<String>,
}

/// What a statement looks like, but for its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    /// Adds rows, each with all columns.
    Insert {
        /// How many.
        rows: usize,
        /// What to do about a row that is there.
        existing: OnExisting,
    },
    /// Changes columns of a row.
    Update {
        /// Which columns are set.
        set: Columns,
        /// How the row is found.
        find: Find,
    },
    /// Removes a row and adds it anew, with the columns that are not set as they were.
    Replace {
        /// Which columns are set.
        set: Columns,
        /// How the row is found.
        find: Find,
    },
    /// Changes columns of many rows, each found by its key. The parameters are arrays, one a column that is set or in
    /// the key.
    UpdateMany {
        /// Which columns are set.
        set: Columns,
    },
    /// Removes a row.
    Delete {
        /// How it is found.
        find: Find,
    },
    /// Removes many rows, each found by its key. The parameters are arrays, one a column of the key.
    DeleteMany,
    /// Counts the rows that would be found.
    Find {
        /// How.
        find: Find,
    },
    /// Asks who changed a row last.
    Whose {
        /// How it is found.
        find: Find,
        /// Whether nobody may change it until the transaction is over.
        lock: bool,
    },
    /// Asks who changed many rows last, each found by its key. The parameters are arrays, one a column of the key.
    WhoseMany {
        /// Whether nobody may change them until the transaction is over.
        lock: bool,
    },
    /// Takes rows in COPY's text format.
    Copy,
    /// Takes rows in COPY's binary format.
    CopyBinary,
    /// Takes rows in COPY's text format into the staging table.
    CopyStage,
}

/// What an insert does about a row that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum OnExisting {
    /// Fails.
    Fail,
    /// Leaves that row as it is.
    Keep,
    /// Makes that row like the new one.
    Overwrite,
}

/// A choice of columns: one flag a column.
pub(crate) type Columns = Box<[bool]>;

/// How a row is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Find {
    /// What each column must be.
    pub(crate) conditions: Box<[Condition]>,
    /// Whether only one of several rows that are found is meant.
    pub(crate) one: bool,
}

/// What a column must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Condition {
    /// Anything.
    Any,
    /// Null.
    Null,
    /// Equal to the next parameter.
    Equal,
}

/// A statement to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// What it looks like.
    pub(crate) shape: Shape,
    /// Its parameters in order.
    pub(crate) params: Vec<Value>,
}

/// Why a record is not one that PostgreSQL would send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Senseless(pub(crate) &'static str);

impl Table {
    /// `schema.name`, for people.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.relation.schema, self.relation.name)
    }

    /// What identifies a row at the target: the columns of the source's key if they are unique there, else of the primary
    /// key, else of any unique index whose columns the source sends. The positions of its columns.
    pub(crate) fn identity(&self) -> Option<Vec<usize>> {
        let key = self.key();
        let of = |unique: &Unique| -> Option<Vec<usize>> {
            unique.columns.iter().map(|name| self.position(name)).collect()
        };
        let mut candidates = self.unique.iter().filter_map(of);
        let same = |columns: &Vec<usize>| {
            columns.len() == key.len() && columns.iter().all(|column| key.contains(column))
        };
        candidates.clone().find(same).or_else(|| candidates.next())
    }

    /// The positions of the columns of the source's key; none for a table without.
    pub(crate) fn key(&self) -> Vec<usize> {
        if self.relation.identity == ReplicaIdentity::Full {
            return Vec::new();
        }
        let columns = self.relation.columns.iter().enumerate();
        columns.filter(|(_, column)| column.key).map(|(at, _)| at).collect()
    }

    /// Whether changes of rows with different keys may change places, and those of one row may become one: nothing
    /// but the key, which is the source's too, can bring two rows into conflict.
    pub(crate) fn is_keyed(&self) -> bool {
        let key = self.key();
        let [unique] = &self.unique[..] else { return false };
        let covers = |name: &String| self.position(name).is_some_and(|at| key.contains(&at));
        let is_compared = |at: &usize| self.columns[*at].equality != Equality::Text;
        self.is_independent
            && key.iter().all(is_compared)
            && self.exclusions == 1
            && unique.columns.len() == key.len()
            && unique.columns.iter().all(covers)
    }

    /// The positions of the columns by which a row is named to people.
    pub(crate) fn named_by(&self) -> Vec<usize> {
        match self.key() {
            key if key.is_empty() => self.identity().unwrap_or_default(),
            key => key,
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.relation.columns.iter().position(|column| column.name == name)
    }
}

/// Rows to add. All have all columns.
pub(crate) fn insert(rows: Vec<Row>, existing: OnExisting) -> Result<Planned, Senseless> {
    let shape = Shape::Insert { rows: rows.len(), existing };
    let params: Vec<_> = rows.into_iter().flat_map(|row| row.0).collect();
    match params.contains(&Value::Unchanged) {
        true => Err(Senseless("a new row with an unchanged column")),
        false => Ok(Planned { shape, params }),
    }
}

/// A row to change. None if nothing of it is set.
pub(crate) fn update(
    table: &Table,
    old: Option<&OldRow>,
    new: &Row,
) -> Result<Option<Planned>, Senseless> {
    let mut replaces = false;
    let mut set = vec![false; new.0.len()].into_boxed_slice();
    for (at, value) in new.0.iter().enumerate() {
        if *value == Value::Unchanged {
            continue;
        }
        if table.columns[at].identity_always {
            replaces |= !keeps(table, at, old, value);
            continue;
        }
        set[at] = true;
    }
    if replaces {
        let always = |at: usize| table.columns[at].identity_always;
        let sent = |at: usize| new.0[at] != Value::Unchanged;
        (0..set.len()).filter(|at| always(*at) && sent(*at)).for_each(|at| set[at] = true);
    }
    if !set.contains(&true) {
        return Ok(None);
    }
    let mut params: Vec<_> =
        new.0.iter().zip(&set).filter(|(_, set)| **set).map(|(value, _)| value.clone()).collect();
    let find = match old {
        Some(old) => find(table, old, &mut params)?,
        None => by_key(table, new, &mut params)?,
    };
    let shape = if replaces { Shape::Replace { set, find } } else { Shape::Update { set, find } };
    Ok(Some(Planned { shape, params }))
}

/// The columns that an update of a row whose key stays sets, if it can be made together with others: none if the row
/// has to be made anew, or nothing of it is set.
pub(crate) fn set_by_key(table: &Table, new: &Row) -> Option<Columns> {
    let planned = update(table, None, new).ok().flatten()?;
    match planned.shape {
        Shape::Update { set, .. } => Some(set),
        _ => None,
    }
}

/// The positions of the columns of which an [`Shape::UpdateMany`] takes values, in order.
pub(crate) fn set_or_key(table: &Table, set: &[bool]) -> Vec<usize> {
    let key = table.key();
    (0..set.len()).filter(|at| set[*at] || key.contains(at)).collect()
}

/// A row to remove.
pub(crate) fn delete(table: &Table, old: &OldRow) -> Result<Planned, Senseless> {
    let mut params = Vec::new();
    let find = find(table, old, &mut params)?;
    Ok(Planned { shape: Shape::Delete { find }, params })
}

/// Looks for the row that an update or delete is about, without changing it.
pub(crate) fn probe(planned: &Planned) -> Option<Planned> {
    let (find, params) = found_by(planned)?;
    Some(Planned { shape: Shape::Find { find }, params })
}

/// Asks who changed the row last that an update or delete is about.
pub(crate) fn whose(planned: &Planned, lock: bool) -> Option<Planned> {
    let (find, params) = found_by(planned)?;
    Some(Planned { shape: Shape::Whose { find, lock }, params })
}

/// How an update or delete finds its row, and the parameters for that.
fn found_by(planned: &Planned) -> Option<(Find, Vec<Value>)> {
    let (find, skipped) = match &planned.shape {
        Shape::Update { set, find } | Shape::Replace { set, find } => {
            (find, set.iter().filter(|set| **set).count())
        }
        Shape::Delete { find } => (find, 0),
        _ => return None,
    };
    Some((find.clone(), planned.params[skipped..].to_vec()))
}

/// Whether a column certainly keeps its value.
fn keeps(table: &Table, at: usize, old: Option<&OldRow>, new: &Value) -> bool {
    match old {
        // The source sends an old key whenever a column of it has changed.
        None => table.relation.columns[at].key,
        Some(OldRow::Key(old)) => table.relation.columns[at].key && old.0[at] == *new,
        Some(OldRow::Full(old)) => old.0[at] == *new,
    }
}

fn find(table: &Table, old: &OldRow, params: &mut Vec<Value>) -> Result<Find, Senseless> {
    match old {
        OldRow::Key(row) => by_key(table, row, params),
        OldRow::Full(row) => Ok(by(row, |_| true, true, params)),
    }
}

fn by_key(table: &Table, row: &Row, params: &mut Vec<Value>) -> Result<Find, Senseless> {
    let key = table.key();
    if key.is_empty() {
        return Err(Senseless("a change that does not say which row it is about"));
    }
    if key.iter().any(|at| row.0[*at] == Value::Unchanged) {
        return Err(Senseless("a key that was not sent"));
    }
    Ok(by(row, |at| key.contains(&at), false, params))
}

fn by(row: &Row, chosen: impl Fn(usize) -> bool, one: bool, params: &mut Vec<Value>) -> Find {
    let condition = |(at, value): (usize, &Value)| match value {
        _ if !chosen(at) => Condition::Any,
        Value::Unchanged => Condition::Any,
        Value::Null => Condition::Null,
        Value::Bytes(_) => {
            params.push(value.clone());
            Condition::Equal
        }
    };
    Find { conditions: row.0.iter().enumerate().map(condition).collect(), one }
}

#[cfg(test)]
pub(crate) mod tests;
