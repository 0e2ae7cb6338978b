//! The messages of `pgoutput`, and why bytes or an order of messages are not believed.

use bytes::Bytes;

use crate::model::{Lsn, OldRow, Relation, RelationId, Row, Timestamp};

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A transaction begins. All that belongs to it follows until its `Commit`.
    Begin {
        /// Where its commit record begins.
        final_lsn: Lsn,
        /// When it was committed.
        time: Timestamp,
        /// Its id.
        xid: u32,
    },
    /// It is complete.
    Commit {
        /// Where its commit record begins.
        lsn: Lsn,
        /// Where its commit record ends.
        end: Lsn,
    },
    /// The transaction was replayed from another server under this replication origin.
    Origin {
        /// The origin's name.
        name: String,
    },
    /// A table's description, valid for the rest of the session until the next one.
    Relation(Relation),
    /// A type's description; the oid in the relation says all that is needed of it.
    Type,
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
        /// The old key or row, where it was sent.
        old: Option<OldRow>,
        /// The row as it is now.
        new: Row,
    },
    /// A row was removed.
    Delete {
        /// From which table.
        relation: RelationId,
        /// The old key or row.
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
    Logical {
        /// Whether it belongs to the transaction that it stands in.
        transactional: bool,
        /// Where it was written.
        lsn: Lsn,
        /// Its sender's mark.
        prefix: String,
        /// Its content.
        content: Bytes,
    },
}

/// Why a message, or its place among the others, is not believed. The session that sent it is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misread {
    /// It ends too early.
    #[error("a pgoutput message ends too early")]
    Truncated,
    /// A kind that protocol version 1 does not have.
    #[error("unknown kind of pgoutput message {0:#04x}")]
    Kind(u8),
    /// A length or count beyond its limit.
    #[error("a pgoutput message claims a length of {length}; the limit is {max}")]
    TooLong {
        /// What was claimed.
        length: usize,
        /// What is allowed.
        max: usize,
    },
    /// Anything else that no server writes.
    #[error("malformed pgoutput message: {0}")]
    Malformed(&'static str),
    /// A whole message where it cannot stand.
    #[error("a pgoutput message out of place: {0}")]
    OutOfPlace(&'static str),
}
