//! Reading committed changes out of Postgres and into a journal's stream, exactly once and in commit order.
//!
//! [`slot::init`] makes what is needed at the source, [`Capture::start`] runs for ever. What is read goes through
//! `replication` (the connection), `engine::pgoutput` (what it means) and `append` (into the stream); `copy` brings
//! in what was there before; `confirm` lets the source forget what is durable here, and nothing else.
//!
//! What this code refuses to do: confirm a position that is not synced in the journal, go on with a source or a slot
//! that is not provably the one the journal knows, make SQL text outside of `sql`, or end because something is absent.
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

mod append;
mod choice;
mod confirm;
mod copy;
mod error;
mod pattern;
mod replication;
mod runner;
mod schema;
pub mod slot;
mod source;
mod sql;
mod status;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use thinwire_engine::{
    journal::Stream,
    model::{Offset, Origin},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

pub use choice::{Choice, Operations};
pub use error::{Error, Result, ServerError};
pub use pattern::{Pattern, Patterns};
pub use source::Source;
pub use status::{CaptureStatus, CopyProgress, State};

use runner::{Command, Request, Runner};
use status::Shared;

/// What to capture, from where and into what.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database.
    pub source: Source,
    /// The slot, made by [`slot::init`]; see [`slot::name_for`].
    pub slot: String,
    /// The publication, made by [`slot::init`] and of the same name.
    pub publication: String,
    /// Where changes go. Somebody must call [`Stream::sync`] whenever something is staged.
    pub stream: Arc<Stream>,
    /// The tables that are meant, to tell of those that `init` has not published yet.
    pub patterns: Patterns,
    /// What of them is captured; anything else that is published halts.
    pub choice: Choice,
    /// What to do about schema changes.
    pub ddl: Ddl,
    /// What to do while the journal is full.
    pub on_full: OnFull,
    /// How often to do what is done regularly.
    pub pace: Pace,
}

/// What to do about schema changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ddl {
    /// Nothing is said of them: one that the target cannot take stops it. What is installed at the source sees to it only
    /// that no update fails for want of an identity.
    #[default]
    Stop,
    /// They travel in their place among the rows, and new tables are captured from their birth.
    Replicate,
}

/// What to do while the journal is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// Stop reading: the source keeps its log. Goes on by itself when there is room.
    #[default]
    HoldWal,
    /// Let go of the slot, so that the source's log is free, and copy all tables again when there is room.
    Resync,
}

/// How often to do what is done regularly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How often an idle database's position is journaled, so that the source may forget its log.
    pub mark: Duration,
    /// How often the source is asked for new tables and for the log that it keeps.
    pub poll: Duration,
    /// How often a halt is looked at again.
    pub recheck: Duration,
    /// How long changes may wait for a copy's snapshot, which waits for running transactions, before it is put off.
    pub stall: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            mark: Duration::from_secs(10),
            poll: Duration::from_secs(5),
            recheck: Duration::from_secs(3),
            stall: Duration::from_secs(30),
        }
    }
}

/// A running capture. Dropping it ends it at once, which is always safe.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    pause: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Capture {
    /// Starts to capture. Must be called inside a tokio runtime. Whatever is missing or wrong is waited for; the
    /// stream's [`halted`](Stream::halted) and the [`status`](Self::status) say what.
    pub fn start(options: Options) -> Self {
        let shared = Arc::new(Shared::new(&options.slot));
        let (commands, inbox) = mpsc::unbounded_channel();
        let (pause, paused) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let runner = Runner::new(options, shared.clone(), inbox);
        let task = tokio::spawn(runner.run(stopped, paused));
        Self { shared, commands, pause, stop, task: Mutex::new(Some(task)) }
    }

    /// What it is doing.
    pub fn status(&self) -> CaptureStatus {
        self.shared.picture()
    }

    /// Brings the rows of all tables into the stream once more, for a peer that joins: `audience` loads them and
    /// `carriers` pass them on, and those of other copies that were asked for meanwhile, with which it becomes one; nobody
    /// else gets them. The answer is where the copy begins, once all of it is in the stream; a peer that starts there has
    /// everything. It never comes if the capture ends first, or if either are more than
    /// [`AUDIENCE_MAX`](thinwire_engine::limits::AUDIENCE_MAX).
    pub fn request_copy(
        &self,
        audience: Vec<Origin>,
        carriers: Vec<Origin>,
    ) -> oneshot::Receiver<Offset> {
        let (reply, answer) = oneshot::channel();
        let target = copy::Target { audience, carriers };
        let _ = self.commands.send(Command::Copy(Request { target, replies: vec![reply] }));
        answer
    }

    /// Looks at what halts it, or at a source that was away, now instead of a little later.
    pub fn retry(&self) {
        let _ = self.commands.send(Command::Retry);
    }

    /// Stops to read; the source keeps its log.
    pub fn pause(&self) {
        self.pause.send_replace(true);
    }

    /// Goes on.
    pub fn resume(&self) {
        self.pause.send_replace(false);
    }

    /// Ends, with a last word to the source about what is durable.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        let task = self.take_task();
        if let Some(task) = task {
            let _ = task.await;
        }
    }

    fn take_task(&self) -> Option<JoinHandle<()>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Some(task) = self.take_task() {
            task.abort();
        }
    }
}
