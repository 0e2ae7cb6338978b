//! One element of a stream.

use bytes::Bytes;

use super::{Lsn, Offset, Origin, Relation, RelationId, Row, Running, Schema, Timestamp};

/// One element of a stream. A transaction is contiguous: `Begin`, rows, `Commit` or `Abort`; a copy
/// likewise: `CopyBegin`, for each table its `Relation` and its rows as `Insert`s, `CopyEnd` or
/// `CopyAbort`. `Relation`, `Message`, `Schema` and `Skip` may also stand between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A transaction begins.
    Begin {
        /// The transaction's id at the source.
        xid: u32,
        /// Where its commit record begins in the source's log. Orders transactions.
        lsn: Lsn,
        /// When it was committed, by the source's clock.
        time: Timestamp,
    },
    /// It is complete.
    Commit {
        /// Where its commit record ends in the source's log: what may be confirmed to the source.
        end: Lsn,
    },
    /// What was sent of it is void; it starts over, or never happened.
    Abort,
    /// A table as the source described it, valid from here on.
    Relation(Relation),
    /// A row was added.
    Insert {
        /// To which table.
        relation: RelationId,
        /// The row.
        new: Row,
    },
    /// A row was changed.
    Update {
        /// In which table.
        relation: RelationId,
        /// What identifies the old row, where that is not the key of the new one.
        old: Option<OldRow>,
        /// The row as it is now.
        new: Row,
    },
    /// A row was removed.
    Delete {
        /// From which table.
        relation: RelationId,
        /// What identifies it.
        old: OldRow,
    },
    /// Tables were emptied.
    Truncate {
        /// Which.
        relations: Vec<RelationId>,
        /// Tables that refer to them too.
        cascade: bool,
        /// Sequences owned by their columns started over.
        restart_identity: bool,
    },
    /// A logical message of an application.
    Message {
        /// Whether it belongs to the transaction that it stands in.
        transactional: bool,
        /// Where it was written in the source's log.
        lsn: Lsn,
        /// Its sender's mark.
        prefix: String,
        /// Its content.
        content: Bytes,
    },
    /// The source's objects changed, or are told because a copy needs them.
    Schema(Schema),
    /// A copy begins: the rows of tables as of one position of the source's log.
    CopyBegin(Copy),
    /// It is complete.
    CopyEnd {
        /// How many rows it had.
        rows: u64,
    },
    /// What was sent of it is void.
    CopyAbort,
    /// Records that were withheld from this holder.
    Skip {
        /// How many offsets it stands for; at least one.
        count: u64,
        /// The origin's running checksum after the last of them.
        running: Running,
    },
}

/// What identifies the row that an update or delete is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldRow {
    /// The replica identity's columns are set, all others null.
    Key(Row),
    /// All columns.
    Full(Row),
}

impl OldRow {
    /// Its values.
    pub fn row(&self) -> &Row {
        match self {
            Self::Key(row) | Self::Full(row) => row,
        }
    }
}

/// What a copy holds and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The rows are those that transactions whose commit lies before this position left.
    pub lsn: Lsn,
    /// Who applies it; empty for everybody.
    pub audience: Vec<Origin>,
    /// Who carries it to them without applying it.
    pub carriers: Vec<Origin>,
    /// Its tables, in their order.
    pub tables: Vec<CopyTable>,
}

/// A table in a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyTable {
    /// Which.
    pub relation: RelationId,
    /// How many rows it had by the source's own estimate.
    pub rows_estimate: u64,
}

impl Copy {
    /// Whether `node` loads it.
    pub fn is_for(&self, node: Origin) -> bool {
        self.audience.is_empty() || self.audience.contains(&node)
    }

    /// Whether it is sent to `node`.
    pub fn passes(&self, node: Origin) -> bool {
        self.is_for(node) || self.carriers.contains(&node)
    }
}

impl Record {
    /// How many offsets it takes: one, or a skipped run's count.
    pub fn span(&self) -> u64 {
        match self {
            Self::Skip { count, .. } => *count,
            _ => 1,
        }
    }

    /// The last offset that it takes, if it begins at `first`.
    pub fn last(&self, first: Offset) -> Offset {
        first.forward(self.span() - 1)
    }
}
