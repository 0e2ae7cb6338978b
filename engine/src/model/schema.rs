//! What the source's catalogs say of its objects: how a schema change travels, and a table that the target lacks.
//!
//! What travels is what an object *is*, never the statement that made it so: a statement's text holds whatever stood
//! beside it, and means what its session's settings say. Expressions and types are written as the catalogs' own
//! functions write them with an empty search path, so every name in them that is not in `pg_catalog` has its schema.
//! Columns are told apart by their number, which a rename does not change.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{RelationId, ReplicaIdentity};
use crate::{codec::DecodeError, limits::DEPTH_MAX};

/// A change of the source's schema, or what it is where a copy needs it. In a transaction it holds for what comes behind
/// it there; behind a `CopyBegin` it describes the copied tables; between transactions it tells values of sequences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    /// Tables that are created here and held nothing when they were published: with the transaction's `Commit` they
    /// count as copied.
    pub born: Vec<RelationId>,
    /// Tables that are gone, whose rows changed in a way that no record tells, or that are told of here while their copy is
    /// still to come: they do not count as copied.
    pub stale: Vec<RelationId>,
    /// The encoded [`Definitions`].
    pub definitions: Bytes,
}

/// Objects of the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definitions {
    /// Objects as they are from here on, in an order in which they can be made.
    pub objects: Vec<Object>,
    /// Objects that are gone.
    pub dropped: Vec<Dropped>,
}

/// An object of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its object id at the source: what it keeps when it is renamed or moved. Means nothing at any other node.
    pub id: u32,
    /// Its schema, unquoted; empty for a schema.
    pub schema: String,
    /// Its name, unquoted.
    pub name: String,
    /// The role that owns it at the source, unquoted.
    pub owner: String,
    /// What `COMMENT ON` said of it.
    pub comment: Option<String>,
    /// What it is.
    pub body: Body,
}

/// An object that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Its object id at the source.
    pub id: u32,
    /// What it was.
    pub kind: Kind,
    /// Its schema, unquoted; empty for a schema.
    pub schema: String,
    /// Its name, unquoted.
    pub name: String,
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "one a variant of Body, which says what each is")]
pub enum Kind {
    Schema,
    Enum,
    Composite,
    Domain,
    Range,
    Sequence,
    Table,
    View,
    Routine,
}

/// What an object is, with all that makes it so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// A schema.
    Schema {},
    /// An enumerated type.
    Enum {
        /// Its labels in their order.
        labels: Vec<String>,
    },
    /// A composite type.
    Composite {
        /// Its attributes in their order.
        attributes: Vec<Attribute>,
    },
    /// A domain.
    Domain {
        /// The type that it narrows.
        base: String,
        /// Its collation, if it is not the base's: quoted, with schema.
        collation: Option<String>,
        /// Whether null is refused.
        not_null: bool,
        /// Its default, an expression.
        default: Option<String>,
        /// Its CHECK constraints.
        constraints: Vec<Constraint>,
    },
    /// A range type.
    Range {
        /// What stands in the parentheses of its `CREATE TYPE … AS RANGE (…)`.
        definition: String,
    },
    /// A sequence.
    Sequence(Sequence),
    /// A table, partitioned or not.
    Table(Table),
    /// A view.
    View {
        /// Whether its rows are stored.
        materialized: bool,
        /// Its query.
        query: String,
        /// The names of its columns.
        columns: Vec<String>,
        /// Its options, as `name=value`.
        options: Vec<String>,
    },
    /// A function, procedure, or aggregate's part.
    Routine {
        /// Its whole `CREATE OR REPLACE` statement, as the catalogs write it.
        definition: String,
        /// The types of its arguments, which together with its name identify it.
        arguments: String,
        /// Whether it is a procedure.
        procedure: bool,
    },
}

/// An attribute of a composite type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// Its number: what it keeps when it is renamed.
    pub number: i16,
    /// Its name, unquoted.
    pub name: String,
    /// Its type.
    pub data_type: String,
    /// Its collation, if it is not the type's: quoted, with schema.
    pub collation: Option<String>,
}

/// A sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// The type of its values.
    pub data_type: String,
    /// Its first value.
    pub start: i64,
    /// The step.
    pub increment: i64,
    /// The least value.
    pub min: i64,
    /// The greatest value.
    pub max: i64,
    /// How many values a session takes at once.
    pub cache: i64,
    /// Whether it begins anew at its end.
    pub cycle: bool,
    /// The table's id and the column's number to which it belongs.
    pub owned_by: Option<(u32, i16)>,
    /// Whether it is an identity column's own.
    pub identity: bool,
    /// A value that no session at the source has been given yet; what it is set to at the target lies at or beyond it.
    pub value: Option<i64>,
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its columns in their order, dropped ones left out.
    pub columns: Vec<TableColumn>,
    /// Its constraints, NOT NULL and those of partitions' roots left out.
    pub constraints: Vec<Constraint>,
    /// Its indexes that belong to no constraint.
    pub indexes: Vec<Index>,
    /// What travels of old rows, by the user's own choice.
    pub identity: ReplicaIdentity,
    /// The index by which rows are identified, if one was chosen: its name, unquoted.
    pub identity_index: Option<String>,
    /// How it is partitioned: what stands behind PARTITION BY.
    pub partition_key: Option<String>,
    /// The table of which it is a partition.
    pub partition_of: Option<Partition>,
    /// The tables from which it inherits: schema and name, unquoted.
    pub inherits: Vec<(String, String)>,
}

/// Of what a table is a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// That table's schema, unquoted.
    pub schema: String,
    /// Its name, unquoted.
    pub name: String,
    /// Which part: `FOR VALUES …` or `DEFAULT`.
    pub bound: String,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableColumn {
    /// Its number: what it keeps when it is renamed.
    pub number: i16,
    /// Its name, unquoted.
    pub name: String,
    /// Its type.
    pub data_type: String,
    /// Its collation, if it is not the type's: quoted, with schema.
    pub collation: Option<String>,
    /// Whether null is refused.
    pub not_null: bool,
    /// Its default, an expression; for a generated column what generates it.
    pub default: Option<String>,
    /// The value that rows have which were there before it, in text form: what a default gave when it was added. None
    /// if the rows are stored with it, or there is none.
    pub missing: Option<String>,
    /// Whether and how its values are made.
    pub generated: Option<Generated>,
    /// What `COMMENT ON` said of it.
    pub comment: Option<String>,
}

/// Who makes a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Generated {
    /// Its expression, and the value is stored.
    Stored,
    /// Its expression, whenever it is read.
    Virtual,
    /// Its own sequence, always.
    IdentityAlways,
    /// Its own sequence, unless a value is given.
    IdentityByDefault,
}

/// A constraint of a table or domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    /// Its name, unquoted.
    pub name: String,
    /// As the catalogs define it: `PRIMARY KEY (a)`, `CHECK (…)`, `FOREIGN KEY …`.
    pub definition: String,
    /// Whether it refers to another table.
    pub foreign: bool,
}

/// An index that belongs to no constraint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Its name, unquoted.
    pub name: String,
    /// Its whole `CREATE INDEX` statement, as the catalogs write it.
    pub definition: String,
}

impl Body {
    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Schema {} => Kind::Schema,
            Self::Enum { .. } => Kind::Enum,
            Self::Composite { .. } => Kind::Composite,
            Self::Domain { .. } => Kind::Domain,
            Self::Range { .. } => Kind::Range,
            Self::Sequence(_) => Kind::Sequence,
            Self::Table(_) => Kind::Table,
            Self::View { .. } => Kind::View,
            Self::Routine { .. } => Kind::Routine,
        }
    }
}

impl Definitions {
    /// Its bytes: MessagePack, structs as arrays.
    pub fn encode(&self) -> Bytes {
        let bytes = rmp_serde::to_vec(self);
        Bytes::from(bytes.expect("definitions have no unserialisable part"))
    }

    /// What `bytes` say, all of them.
    ///
    /// # Errors
    /// They are not what [`Definitions::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let malformed = DecodeError::Malformed("definitions that no encoder writes");
        let mut rest = bytes;
        let mut decoder = rmp_serde::Deserializer::new(&mut rest);
        decoder.set_max_depth(DEPTH_MAX);
        let definitions = Self::deserialize(&mut decoder).map_err(|_| malformed.clone())?;
        match rest.is_empty() {
            true => Ok(definitions),
            false => Err(malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_read_as_they_were_written() {
        let column = TableColumn {
            number: 1,
            name: "a".into(),
            data_type: "integer".into(),
            collation: None,
            not_null: true,
            default: Some("1".into()),
            missing: None,
            generated: Some(Generated::IdentityAlways),
            comment: None,
        };
        let table = Table {
            columns: vec![column],
            constraints: vec![],
            indexes: vec![Index { name: "i".into(), definition: "CREATE INDEX".into() }],
            identity: ReplicaIdentity::Full,
            identity_index: None,
            partition_key: None,
            partition_of: None,
            inherits: vec![("s".into(), "t".into())],
        };
        let sequence = Sequence {
            data_type: "bigint".into(),
            start: 1,
            increment: 1,
            min: 1,
            max: i64::MAX,
            cache: 1,
            cycle: false,
            owned_by: Some((u32::MAX, 1)),
            identity: false,
            value: Some(7),
        };
        let bodies = [
            Body::Schema {},
            Body::Enum { labels: vec!["x".into()] },
            Body::Sequence(sequence),
            Body::Table(table),
        ];
        let object = |body| Object {
            id: 1,
            schema: "s".into(),
            name: "n".into(),
            owner: "o".into(),
            comment: None,
            body,
        };
        let objects = bodies.into_iter().map(object).collect();
        let dropped = Dropped { id: 2, kind: Kind::Table, schema: "s".into(), name: "d".into() };
        let definitions = Definitions { objects, dropped: vec![dropped] };
        let bytes = definitions.encode();
        assert_eq!(Definitions::decode(&bytes), Ok(definitions));
        for cut in 0..bytes.len() {
            assert!(Definitions::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        assert!(Definitions::decode(&[&bytes[..], b"x"].concat()).is_err());
    }
}
