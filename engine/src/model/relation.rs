//! A table as the source described it.

use serde::{Deserialize, Serialize};

/// A table's number at its source (PostgreSQL's object id). Means nothing at any other node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelationId(pub u32);

/// Which columns of an old row travel with an update or delete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicaIdentity {
    /// Those of the primary key.
    #[default]
    Default,
    /// None: updates and deletes are refused by the source.
    Nothing,
    /// All.
    Full,
    /// Those of a chosen unique index.
    Index,
}

/// A table's description, valid from its record on until the next one with the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// The number by which row records name it.
    pub id: RelationId,
    /// Its schema, unquoted.
    pub schema: String,
    /// Its name, unquoted.
    pub name: String,
    /// What travels of old rows.
    pub identity: ReplicaIdentity,
    /// Its columns, in the order in which rows carry them.
    pub columns: Vec<Column>,
}

/// A column's description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name, unquoted.
    pub name: String,
    /// Whether it is part of the replica identity.
    pub key: bool,
    /// The object id of its type at the source.
    pub type_oid: u32,
    /// The type modifier, -1 for none.
    pub type_modifier: i32,
}
