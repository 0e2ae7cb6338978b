//! Telling the source how far we are: a task of its own, so that however busy or patient the reader is, the server
//! never takes us for dead.

use std::{sync::Arc, time::Duration};

use thinwire_engine::{Error as JournalError, journal::Stream, model::Lsn};
use tokio::{
    sync::{Notify, oneshot},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    confirm::Confirm,
    error::{Error, Result},
    replication::Outgoing,
    status::Shared,
};

/// The task that reports.
#[derive(Debug)]
pub(super) struct Reporter {
    signals: Arc<Signals>,
    close: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<()>>,
}

#[derive(Debug, Default)]
struct Signals {
    /// The server wants to know.
    asked: Notify,
    /// We want to know how far the server is.
    probe: Notify,
}

impl Reporter {
    /// Begins to report, at least three times in the `silence` that the server tolerates.
    pub(super) fn start(
        outgoing: Outgoing,
        stream: Arc<Stream>,
        confirm: Arc<Confirm>,
        shared: Arc<Shared>,
        silence: Duration,
    ) -> Self {
        let signals = Arc::new(Signals::default());
        let (close, closing) = oneshot::channel();
        let period = (silence / 3).clamp(PERIOD_MIN, PERIOD_MAX);
        let report = Report { outgoing, confirm, shared, signals: signals.clone(), period };
        let task = tokio::spawn(report.run(stream, closing));
        Self { signals, close: Some(close), task }
    }

    /// Answers the server now.
    pub(super) fn answer(&self) {
        self.signals.asked.notify_one();
    }

    /// Asks the server for a keepalive.
    pub(super) fn probe(&self) {
        self.signals.probe.notify_one();
    }

    /// Waits until reporting fails, which is when the connection is broken, or the journal is.
    pub(super) async fn failed(&mut self) -> Error {
        match (&mut self.task).await {
            Ok(Err(error)) => error,
            _ => Error::Lost("reporting to the server ended".to_owned()),
        }
    }

    /// Says a last word and goodbye.
    pub(super) async fn finish(mut self) {
        drop(self.close.take());
        if !self.task.is_finished() {
            let _ = timeout(GOODBYE, &mut self.task).await;
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Report {
    outgoing: Outgoing,
    confirm: Arc<Confirm>,
    shared: Arc<Shared>,
    signals: Arc<Signals>,
    period: Duration,
}

impl Report {
    async fn run(mut self, stream: Arc<Stream>, mut closing: oneshot::Receiver<()>) -> Result<()> {
        let mut watermarks = stream.watch();
        let mut sent = self.send(false).await?;
        let mut sent_at = Instant::now();
        loop {
            let due = sent_at + self.period;
            let wants_answer = tokio::select! {
                _ = watermarks.changed() => {
                    // Nobody else looks while nothing is committed.
                    if stream.is_poisoned() {
                        return Err(JournalError::Poisoned { stream: stream.id() }.into());
                    }
                    if self.confirm.advance() == sent {
                        continue;
                    }
                    // Many commits are often synced one after the other.
                    sleep_until(sent_at + GAP).await;
                    false
                }
                () = self.signals.asked.notified() => false,
                () = self.signals.probe.notified() => true,
                () = sleep_until(due) => true,
                _ = &mut closing => {
                    self.send(false).await?;
                    self.outgoing.close().await;
                    return Ok(());
                }
            };
            sent = self.send(wants_answer).await?;
            sent_at = Instant::now();
        }
    }

    async fn send(&mut self, wants_answer: bool) -> Result<Lsn> {
        let confirmed = self.confirm.advance();
        self.outgoing.status(confirmed, wants_answer).await?;
        self.shared.set_confirmed(confirmed);
        Ok(confirmed)
    }
}

const PERIOD_MIN: Duration = Duration::from_millis(100);
const PERIOD_MAX: Duration = Duration::from_secs(10);

/// Between two reports that nobody asked for.
const GAP: Duration = Duration::from_millis(10);

/// For the last word.
const GOODBYE: Duration = Duration::from_secs(1);
