//! What a target must promise, so that a stream has its effect there exactly once.
//!
//! **Durable** means: it survives a power cut at the target. A **target transaction** is what becomes durable as one:
//! everything taken since [`Sink::begin`], together with the progress given to [`Sink::commit`], or nothing of it.
//!
//! - **Order.** Calls come one after the other, changes in the order of their offsets. An offset is never given twice
//!   to a target transaction that commits.
//! - **Whole.** A target transaction holds one or more whole source transactions, or one whole copy: from `Begin` to
//!   `Commit`, from `CopyBegin` to `CopyEnd`. What was aborted at the source, copies for other nodes, skipped runs and
//!   what somebody has decided to leave out are not given at all, except that a transaction too large to be held back is given, and then rolled back when it
//!   turns out to be aborted. A commit may also hold no change: its progress alone moves.
//! - **A lost answer.** When a call fails, the sink need not know what became of the target transaction. It is asked
//!   [`Sink::applied`] before anything else, and its answer decides. A sink whose earlier session may still be
//!   committing must not answer before that is over.
//! - **Restart.** Nothing in the sink's memory matters: a new one over the same target answers the same.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use thinwire_engine::model::{
    Halt, Lsn, Offset, Record, Relation, RelationId, StreamId, Timestamp,
};

/// The tables of a stream as last described.
pub type Relations = BTreeMap<RelationId, Arc<Relation>>;

/// How far a stream has been applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last record whose effect, if it has any, is in the target.
    pub offset: Offset,
    /// Where the last source transaction was committed, if there was one.
    pub lsn: Option<Lsn>,
    /// When that was, by the source's clock.
    pub time: Option<Timestamp>,
}

/// One record for the target.
#[derive(Debug)]
pub struct Change<'a> {
    /// Its place in the stream.
    pub offset: Offset,
    /// The record: every kind but `Abort`, `CopyAbort` and `Skip`. Rows have as many values as their table has
    /// columns, and their table is in `relations`.
    pub record: Record,
    /// The tables as described up to here, a `Relation` that is this record included.
    pub relations: &'a Relations,
    /// The answer must be about this record alone: whatever it will fail with before the commit, it fails with now. An
    /// error about an earlier record has that one's offset in its halt.
    pub alone: bool,
}

/// A source transaction or copy that somebody has decided to leave out, because the target refuses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// Its first record.
    pub first: Offset,
    /// Its last record.
    pub last: Offset,
    /// Where it was committed, or what a copy is as of.
    pub lsn: Option<Lsn>,
    /// When it was committed, by the source's clock.
    pub time: Option<Timestamp>,
    /// Its number at the source; a copy has none.
    pub xid: Option<u32>,
    /// Why it was refused.
    pub halt: Halt,
    /// Who has decided so.
    pub by: String,
}

/// Why a sink did not do what it was asked. Whichever it is, nothing of the open target transaction may become durable
/// any more, unless the call was a commit: then only [`Sink::applied`] can tell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// It is away, busy or interrupted us. Try again, soon and for ever.
    #[error("{0}")]
    Weather(String),
    /// It does not take a record, and will not before somebody has changed something. The halt's offset is the first
    /// record that the failure may be about.
    #[error("{}", .0.detail)]
    Refused(Box<Halt>),
    /// It has to be given the open target transaction again from its beginning: it does it another way then.
    #[error("the target transaction begins again")]
    Again,
}

impl SinkError {
    /// A refusal that is about no record.
    pub fn refused(code: &str, detail: impl Into<String>) -> Self {
        Self::Refused(Box::new(Halt::new(code, detail)))
    }
}

/// A target for one stream. See the module for what it promises.
pub trait Sink: Send + 'static {
    /// How far `stream` has been applied: all zero before its first commit. Connects if need be; ends whatever target
    /// transaction this sink had open without a trace.
    fn applied(
        &mut self,
        stream: StreamId,
    ) -> impl Future<Output = Result<Progress, SinkError>> + Send;

    /// Opens a target transaction. None is open.
    fn begin(&mut self) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Takes a change into the open target transaction. It may be executed later, but in order and before the commit
    /// returns; so the error may be about an earlier change, unless this one is [`alone`](Change::alone).
    fn take(&mut self, change: Change<'_>) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Notes in the open target transaction that the progress with which it is committed passes something over.
    fn skip(&mut self, skip: &Skip) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Makes the open target transaction durable together with `progress`, or fails. Success means that both are
    /// durable.
    fn commit(&mut self, progress: Progress) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Undoes the open target transaction, if there is one.
    fn rollback(&mut self) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Lets go of whatever keeps another stream of the same origin from being applied. The next call is
    /// [`Sink::applied`].
    fn rest(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
}
