//! Statements under way: sent in order without waiting, answered in order, each answer checked.

use std::{collections::VecDeque, pin::Pin, sync::Arc};

use futures_util::{FutureExt, TryStreamExt};
use tokio_postgres::{Client, Error, Statement};

use super::{
    about::About,
    origins::{DIFFERS, key_of, tell},
    param::Param,
};
use crate::{
    SinkError,
    conflict::{Conflict, ConflictCounts},
    plan::Planned,
};

/// What the answer has to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expect {
    /// Anything but an error.
    Anything,
    /// One row; none is this conflict.
    One(Conflict),
    /// So many rows; fewer are this conflict.
    All(u64, Conflict),
    /// So many rows; each that lacks was kept as it was.
    UpTo(u64),
    /// No row; each is one that somebody else changed last, which is told, or stops the stream.
    Ours { conflict: Conflict, stops: bool },
    /// One row; otherwise somebody else has moved the progress.
    Moved,
}

/// Statements that were sent and not answered.
#[derive(Default)]
pub(super) struct Pipeline {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

/// How many rows a statement hit, and their keys if it is a question.
struct Answer {
    rows: u64,
    keys: Vec<String>,
}

type Awaited = Pin<Box<dyn Future<Output = Result<Answer, Error>> + Send>>;

struct Waiting {
    answer: Awaited,
    expect: Expect,
    about: About,
    bytes: usize,
}

impl Pipeline {
    /// Sends a statement. It is not waited for, unless too much is under way.
    pub(super) async fn send(
        &mut self,
        client: &Arc<Client>,
        statement: Statement,
        planned: Planned,
        expect: Expect,
        about: About,
        counts: &ConflictCounts,
    ) -> Result<(), SinkError> {
        let params: Vec<_> = planned.params.into_iter().map(Param).collect();
        self.send_text(client, statement, params, expect, about);
        if self.waiting.len() >= STATEMENTS_MAX || self.bytes >= BYTES_MAX {
            self.drain_to(STATEMENTS_MAX / 2, BYTES_MAX / 2, counts).await?;
        }
        Ok(())
    }

    /// Sends a statement with parameters of ours.
    pub(super) fn send_text(
        &mut self,
        client: &Arc<Client>,
        statement: Statement,
        params: Vec<Param>,
        expect: Expect,
        about: About,
    ) {
        let bytes = params.iter().map(Param::bytes_len).sum();
        let client = client.clone();
        let (asks, of) = (matches!(expect, Expect::Ours { .. }), about.clone());
        let mut answer: Awaited = match asks {
            false => Box::pin(async move {
                let rows = client.execute_raw(&statement, params).await?;
                Ok(Answer { rows, keys: Vec::new() })
            }),
            true => Box::pin(async move {
                let rows: Vec<_> =
                    client.query_raw(&statement, params).await?.try_collect().await?;
                let keys: Vec<_> = rows.iter().map(|row| key_of(row, &of)).collect();
                Ok(Answer { rows: keys.len() as u64, keys })
            }),
        };
        // The first poll sends it.
        if let Some(answered) = (&mut answer).now_or_never() {
            answer = Box::pin(std::future::ready(answered));
        }
        self.bytes += bytes;
        self.waiting.push_back(Waiting { answer, expect, about, bytes });
    }

    /// Waits for all answers. The first that is not as it has to be is the result.
    pub(super) async fn drain(&mut self, counts: &ConflictCounts) -> Result<(), SinkError> {
        self.drain_to(0, 0, counts).await
    }

    /// Forgets what is under way.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.bytes = 0;
    }

    async fn drain_to(
        &mut self,
        statements: usize,
        bytes: usize,
        counts: &ConflictCounts,
    ) -> Result<(), SinkError> {
        while self.waiting.len() > statements || self.bytes > bytes {
            let Some(Waiting { answer, expect, about, bytes: of_it }) = self.waiting.pop_front()
            else {
                break;
            };
            self.bytes -= of_it;
            let checked = match answer.await {
                Ok(answer) => examine(answer, expect, &about, counts),
                Err(error) => Err(about.failed(&error)),
            };
            if checked.is_err() {
                self.clear();
                return checked;
            }
        }
        Ok(())
    }
}

fn examine(
    Answer { rows, keys }: Answer,
    expect: Expect,
    about: &About,
    counts: &ConflictCounts,
) -> Result<(), SinkError> {
    match (expect, rows) {
        (Expect::Ours { .. }, 0) => Ok(()),
        (Expect::Ours { conflict, stops: true }, _) => Err(about.refused(conflict.code(), DIFFERS)),
        (Expect::Ours { conflict, .. }, rows) => {
            counts.count(conflict, rows);
            tell(about, conflict, &keys);
            Ok(())
        }
        (Expect::Anything, _) | (Expect::One(_) | Expect::Moved, 1) => Ok(()),
        (Expect::All(all, _), rows) if rows == all => Ok(()),
        (Expect::All(_, conflict), _) => Err(about.refused(conflict.code(), MISSING)),
        (Expect::One(conflict), 0) => Err(about.refused(conflict.code(), MISSING)),
        (Expect::One(_), rows) => Err(about.refused("other", format!("{rows} rows have this key"))),
        (Expect::UpTo(all), rows) => {
            counts.count(Conflict::InsertExists, all.saturating_sub(rows));
            Ok(())
        }
        (Expect::Moved, _) => {
            // It is tried again with the offset that is there now, so what halts is what moves it each time.
            Err(about.refused("progress_moved", "the applied offset was moved by somebody else"))
        }
    }
}

/// Said of an update or delete that hits no row.
pub(super) const MISSING: &str = "the row is not there";

/// Statements under way at most; the answers of earlier ones are waited for when there are more,
const STATEMENTS_MAX: usize = 256;
/// or when they have more bytes of parameters.
const BYTES_MAX: usize = 1 << 20;
