//! The nouns: positions, streams, relations, values, records.

mod halt;
mod position;
mod record;
mod relation;
mod schema;
mod stream;
mod value;

pub use halt::{Halt, HaltedBy};
pub use position::{Lsn, Offset, Timestamp};
pub use record::{Copy, CopyTable, OldRow, Record};
pub use relation::{Column, Relation, RelationId, ReplicaIdentity};
pub use schema::{
    Attribute, Body, Constraint, Definitions, Dropped, Generated, Index, Kind, Object, Partition,
    Schema, Sequence, Table, TableColumn,
};
pub use stream::{Epoch, Origin, ParseIdError, Running, StreamId, View};
pub use value::{Row, Value};
