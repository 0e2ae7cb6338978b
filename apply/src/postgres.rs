//! The sink for PostgreSQL: one session a stream, under a replication origin and the replica role.
//!
//! The session that holds the stream's replication origin is the only one that applies it; it is taken before the progress is
//! read, so an earlier session of ours that may still be committing has come to its end by then. Statements are sent
//! without waiting for each other's answers; all answers are in, and are what they have to be, before COMMIT is sent.

mod about;
mod binary;
mod changes;
mod gathered;
mod inserts;
mod load;
pub(crate) mod lookup;
mod objects;
mod origins;
mod param;
mod pipeline;
mod rivals;
mod rows;
mod schema;
pub(crate) mod session;
mod skipped;
mod statements;
pub(crate) mod text;

use std::{fmt, sync::Arc};

use thinwire_engine::model::{Offset, Origin, Record, StreamId, Timestamp};

use crate::{
    Change, Conflicts, Existing, Options, Progress, Seal, Sink, SinkError, Skip, Tables,
    conflict::{ConflictCounts, is_robbed},
    plan::OnExisting,
    progress::Stored,
    sql::session as session_sql,
};
use about::About;
use gathered::Gathered;
use inserts::Inserts;
use load::Load;
use origins::Declared;
use param::Param;
use pipeline::Expect;
use rivals::Suspect;
use session::Session;
use skipped::Seen;
pub use skipped::{LastSkipped, Skipped};

/// A database and how to authenticate to it.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host, login, database.
    pub config: tokio_postgres::Config,
    /// How to encrypt; none if that is not wanted.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// What committed transactions have resolved and left out, for everybody to see.
#[derive(Debug, Default)]
pub struct Tally {
    pub(crate) conflicts: ConflictCounts,
    pub(crate) skipped: Seen,
}

/// Applies one stream to a PostgreSQL database.
pub struct Postgres {
    target: Target,
    /// The tables that the stream may write to.
    accepted: Tables,
    stream: StreamId,
    conflicts: Conflicts,
    existing: Existing,
    is_shared: bool,
    tally: Arc<Tally>,
    /// Whether the open target transaction leaves something out.
    skips: bool,
    /// Whether it was said that sequences are not started over.
    told_of_sequences: bool,
    /// Conflicts of the open target transaction.
    counts: ConflictCounts,
    session: Option<Session>,
    /// Whether code at the target has taken a session's statements, so that no session outlives a transaction.
    robbed: bool,
    /// The login that changes the schema, if it is another.
    owner: Option<Target>,
    /// The beginning of a transaction that is for that login.
    owner_from: Option<Offset>,
    /// Who we are.
    node: Origin,
    seal: Seal,
    declared: Declared,
    /// When the open source transaction was committed.
    source_time: Option<Timestamp>,
    /// Where the open source transaction or copy begins.
    began: Option<Offset>,
    suspect: Option<Suspect>,
    stored: Stored,
    inserts: Inserts,
    gathered: Gathered,
    load: Option<Load>,
}

impl Postgres {
    /// A sink that connects when it is first asked how far it is. Transactions that change the schema are run by the owner, if
    /// that is another login. What becomes of it is told in `tally`.
    pub fn new(options: Options, tally: Arc<Tally>) -> Self {
        Self {
            target: options.target,
            accepted: options.tables,
            stream: options.stream.id(),
            conflicts: options.conflicts,
            existing: options.existing,
            is_shared: options.is_shared,
            owner: options.owner,
            node: options.node,
            seal: options.seal,
            declared: Declared {
                update: options.update_origin_differs,
                delete: options.delete_origin_differs,
            },
            source_time: None,
            tally,
            skips: false,
            told_of_sequences: false,
            counts: ConflictCounts::default(),
            session: None,
            robbed: false,
            owner_from: None,
            began: None,
            suspect: None,
            stored: Stored::nothing(),
            inserts: Inserts::default(),
            gathered: Gathered::default(),
            load: None,
        }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Sink for Postgres {
    async fn applied(&mut self, stream: StreamId) -> Result<Progress, SinkError> {
        if self.conflicts == Conflicts::LastUpdateWins {
            let detail = "conflicts = \"last_update_wins\" is not available yet";
            return Err(SinkError::refused("other", detail));
        }
        // Without an answer the connection is of no use.
        let _ = self.rollback().await;
        self.log_in().await?;
        let session = self.session.as_mut().ok_or_else(disconnected)?;
        if session.origins.is_none() && self.declared.needs_timestamps() {
            return Err(SinkError::refused("commit_timestamps_off", TIMESTAMPS_OFF));
        }
        session.forget_tables();
        let stored = session.stored(stream.origin).await;
        match stored.and_then(|stored| self.seal.believe(stream.origin, stored, &self.stored)) {
            Ok(stored) => self.stored = stored,
            Err(error) => {
                self.session = None;
                return Err(error);
            }
        }
        self.read_skipped().await?;
        self.stored.progress_of(stream)
    }

    async fn begin(&mut self) -> Result<(), SinkError> {
        self.log_in().await?;
        self.open().await
    }

    async fn take(&mut self, change: Change<'_>) -> Result<(), SinkError> {
        let taken = self.take_on(change).await;
        self.heed(taken)
    }

    async fn skip(&mut self, skip: &Skip) -> Result<(), SinkError> {
        self.skips = true;
        self.note(skip).await
    }

    async fn commit(&mut self, progress: Progress) -> Result<(), SinkError> {
        let done = self.finish(progress).await;
        self.heed(done)
    }

    async fn rest(&mut self) {
        // The replication origin is held by the session.
        self.session = None;
    }

    async fn rollback(&mut self) -> Result<(), SinkError> {
        self.inserts.clear();
        self.gathered.clear();
        self.load = None;
        (self.began, self.skips) = (None, false);
        self.counts = ConflictCounts::default();
        let Some(session) = &mut self.session else { return Ok(()) };
        session.pipeline.clear();
        if session.client.is_closed() {
            self.session = None;
            return Ok(());
        }
        if !session.open {
            return Ok(());
        }
        let undone = session.command(session_sql::ROLLBACK).await;
        match undone {
            Ok(()) => session.open = false,
            Err(_) => self.session = None,
        }
        undone
    }
}

impl Postgres {
    async fn take_on(&mut self, change: Change<'_>) -> Result<(), SinkError> {
        if matches!(change.record, Record::Begin { .. } | Record::CopyBegin(_)) {
            self.began = Some(change.offset);
            self.source_time = match change.record {
                Record::Begin { time, .. } => Some(time),
                _ => None,
            };
        }
        if self.owner_from == Some(change.offset) {
            self.log_in_as_owner().await?;
        }
        if !change.alone {
            return self.execute(change).await;
        }
        // What was taken before must not be mistaken for it.
        self.flush().await?;
        let (offset, rivals) = (change.offset, self.rivals(&change).await?);
        let done = match self.execute(change).await {
            Ok(()) => self.flush().await,
            failed => failed,
        };
        done.map_err(|error| self.blame(offset, error, rivals))
    }

    async fn finish(&mut self, progress: Progress) -> Result<(), SinkError> {
        self.send_waiting().await?;
        self.send_progress(progress).await?;
        let session = self.session.as_mut().ok_or_else(disconnected)?;
        session.pipeline.drain(&self.counts).await?;
        session.command(&session_sql::commit()).await?;
        session.open = false;
        (self.began, self.suspect) = (None, None);
        self.stored.moved(self.stream.epoch, progress);
        self.tally.conflicts.take_over(&self.counts);
        if std::mem::take(&mut self.skips) {
            // It is committed, whatever becomes of this: what is read then is read again with the next session.
            let _ = self.read_skipped().await;
        }
        if self.robbed {
            self.session = None;
        }
        Ok(())
    }

    /// A session without its statements is of no use, and neither is the next one behind the same code.
    fn heed(&mut self, done: Result<(), SinkError>) -> Result<(), SinkError> {
        if done.as_ref().is_err_and(is_robbed) {
            (self.robbed, self.session) = (true, None);
        }
        done
    }

    /// Connects as the login that applies rows, unless it is connected.
    async fn log_in(&mut self) -> Result<(), SinkError> {
        if self.session.as_ref().is_some_and(|session| session.is_owner) {
            self.session = None;
        }
        if self.session.is_none() {
            self.session = Some(
                Session::open(
                    &self.target,
                    &self.accepted,
                    self.stream.origin,
                    self.declared,
                    false,
                )
                .await?,
            );
        }
        Ok(())
    }

    /// Begins the open target transaction again as the login that changes the schema. Nothing is in it.
    async fn log_in_as_owner(&mut self) -> Result<(), SinkError> {
        let Some(owner) = self.owner.clone() else { return Ok(()) };
        if self.session.as_ref().is_some_and(|session| session.is_owner) {
            return Ok(());
        }
        // The replication origin is held by the session.
        self.session = None;
        self.session = Some(
            Session::open(&owner, &self.accepted, self.stream.origin, self.declared, true).await?,
        );
        self.open().await
    }

    /// Opens a target transaction. With the first of an epoch, what the one before told is forgotten: its ids may mean other
    /// objects.
    async fn open(&mut self) -> Result<(), SinkError> {
        let session = self.session.as_mut().ok_or_else(disconnected)?;
        if let Err(error) = session.begin().await {
            // A session found out at its start what its login may, and that is not so any more.
            self.session = None;
            return Err(error);
        }
        if self.stored.epoch != self.stream.epoch.to_string() {
            session.forget_definitions(self.stream.origin).await?;
        }
        Ok(())
    }

    /// Sends all that was taken and not sent.
    async fn send_waiting(&mut self) -> Result<(), SinkError> {
        self.send_inserts().await?;
        self.send_gathered().await
    }

    async fn send_inserts(&mut self) -> Result<(), SinkError> {
        let existing = self.on_existing();
        let session = self.session.as_mut().ok_or_else(disconnected)?;
        self.inserts.send(session, existing, &self.counts).await
    }

    async fn send_gathered(&mut self) -> Result<(), SinkError> {
        let existing = self.on_existing();
        let session = self.session.as_mut().ok_or_else(disconnected)?;
        self.gathered.send(session, existing, &self.counts).await
    }

    fn on_existing(&self) -> OnExisting {
        match self.conflicts {
            // What a copy adds was decided when its table was entered.
            _ if self.load.is_some() => OnExisting::Fail,
            Conflicts::Stop | Conflicts::LastUpdateWins => OnExisting::Fail,
            Conflicts::ApplyRemote => OnExisting::Overwrite,
            Conflicts::KeepLocal => OnExisting::Keep,
        }
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        self.send_waiting().await?;
        let session = self.session.as_mut().ok_or_else(disconnected)?;
        session.pipeline.drain(&self.counts).await
    }

    /// Sends the progress, and where and when the source committed.
    async fn send_progress(&mut self, progress: Progress) -> Result<(), SinkError> {
        let session = self.session.as_mut().ok_or_else(disconnected)?;
        let (mark, marked) = match (progress.lsn, progress.time) {
            (Some(lsn), Some(time)) => {
                let params = vec![Param::of(lsn.to_string()), Param::of(time.micros().to_string())];
                (session_sql::MARK_SOURCE, params)
            }
            _ => (session_sql::MARK_NOTHING, Vec::new()),
        };
        for text in [mark, session_sql::MOVE_PROGRESS] {
            if session.statements.fixed(text).is_none() {
                session.pipeline.drain(&self.counts).await?;
                session.statements.prepare_fixed(&session.client, text).await?;
            }
        }
        let offset = i64::try_from(progress.offset.get()).map_err(|_| {
            SinkError::refused("journal_corrupt", "an offset that no stream reaches")
        })?;
        let mut next = self.stored.clone();
        next.moved(self.stream.epoch, progress);
        let moved = vec![
            Param::of(self.stream.origin.to_string()),
            Param::of(self.stream.epoch.to_string()),
            Param::of(offset.to_string()),
            Param::maybe(progress.lsn.map(|lsn| lsn.to_string())),
            Param::maybe(progress.time.map(|time| time.micros().to_string())),
            Param::of(self.stored.epoch.clone()),
            Param::of(self.stored.progress.offset.to_string()),
            Param::of(self.seal.of(self.stream.origin, &next)),
        ];
        let Session { client, pipeline, statements, .. } = session;
        let expectations = [Expect::Anything, Expect::Moved];
        for ((text, params), expect) in
            [(mark, marked), (session_sql::MOVE_PROGRESS, moved)].into_iter().zip(expectations)
        {
            let statement = statements.fixed(text).ok_or_else(disconnected)?;
            pipeline.send_text(client, statement, params, expect, About::default());
        }
        Ok(())
    }
}

const TIMESTAMPS_OFF: &str = "update_origin_differs or delete_origin_differs is set under [apply] to something else than \"apply\", which needs \
     track_commit_timestamp = on in the database's server";

fn disconnected() -> SinkError {
    SinkError::Weather("not connected to the database".to_owned())
}
