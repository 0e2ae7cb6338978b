//! Capture as a whole: session after session, and what to do when one cannot go on.

mod admission;
mod copies;
mod left;
mod look;
mod poll;
mod proof;
mod release;
mod report;
mod sequences;
mod session;

use std::{
    collections::BTreeSet,
    convert::Infallible,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use thinwire_engine::{
    Error as JournalError,
    journal::{Pressure, Stream},
    limits::AUDIENCE_MAX,
    model::{Halt, HaltedBy, Offset, RelationId},
    pgoutput::Translator,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_postgres::Client;

use self::{
    admission::{Admitted, admit},
    copies::Copies,
    look::Look,
    poll::Poller,
    proof::Proof,
    report::Reporter,
    sequences::Sequences,
    session::Session,
};
use crate::{
    Choice, OnFull, Options,
    append::Appender,
    confirm::Confirm,
    copy::Target,
    error::{Error, ServerError, sqlstate},
    replication::Connection,
    sql,
    status::{Shared, State},
};

/// What the handle asks for.
#[derive(Debug)]
pub(crate) enum Command {
    /// A copy for somebody.
    Copy(Request),
    /// Not to wait any longer.
    Retry,
}

/// A copy for somebody, and who want to know where it begins.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) target: Target,
    pub(crate) replies: Vec<oneshot::Sender<Offset>>,
}

impl Request {
    /// Whether anybody still wants to know.
    fn is_wanted(&self) -> bool {
        self.replies.iter().any(|reply| !reply.is_closed())
    }

    /// Makes one copy of two, if that is not for more nodes than one may be for; else the other one is given back.
    fn join(&mut self, mut other: Self) -> Result<(), Self> {
        let Target { audience, carriers } = &self.target;
        other.target.audience.retain(|node| !audience.contains(node));
        other.target.carriers.retain(|node| !carriers.contains(node));
        if audience.len() + other.target.audience.len() > AUDIENCE_MAX
            || carriers.len() + other.target.carriers.len() > AUDIENCE_MAX
        {
            return Err(other);
        }
        self.target.audience.append(&mut other.target.audience);
        self.target.carriers.append(&mut other.target.carriers);
        self.replies.retain(|reply| !reply.is_closed());
        self.replies.append(&mut other.replies);
        Ok(())
    }
}

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Something is absent or broken and may come back by itself.
    Weather(Error),
    /// The source has to send a transaction again.
    Again,
    /// Somebody has to mend something.
    Halt(Halt),
    /// The same, because what is published of these tables is not what was to be captured.
    Differs(Box<(Halt, BTreeSet<RelationId>)>),
    /// The journal has no room.
    Full,
}

/// What becomes of the next schema change that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It halts.
    #[default]
    Halts,
    /// It has halted already, and does so again until somebody says `retry`, be it while we look at it again.
    Halted,
    /// It is passed over.
    Forgiven,
}

impl Unreadable {
    fn halted(&mut self, code: &str) {
        *self = if code == SCHEMA_UNREADABLE { Self::Halted } else { Self::Halts };
    }

    fn forgive(&mut self) {
        if *self == Self::Halted {
            *self = Self::Forgiven;
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::Journal(JournalError::Full { .. }) => Self::Full,
            Error::Journal(error @ JournalError::TooLarge { .. }) => {
                Self::Halt(Halt::new(RECORD_TOO_LARGE, error.to_string()))
            }
            Error::Unpublished(_) => {
                Self::Halt(Halt::new("publication_missing", error.to_string()))
            }
            Error::Journal(error) => Self::Halt(Halt::new(
                "journal_io",
                format!("the journal takes nothing more: {error}; mend it and restart the node"),
            )),
            error => Self::Weather(error),
        }
    }
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        Error::from(error).into()
    }
}

/// Runs sessions for ever.
#[derive(Debug)]
pub(crate) struct Runner {
    options: Options,
    shared: Arc<Shared>,
    confirm: Arc<Confirm>,
    commands: mpsc::UnboundedReceiver<Command>,
    copies: Copies,
    sequences: Sequences,
    poller: Poller,
    reporter: Option<Reporter>,
    unreadable: Unreadable,
    /// Since when the slot has been found in use.
    occupied: Option<Instant>,
    /// Failures in a row.
    failures: u32,
}

impl Runner {
    pub(crate) fn new(
        options: Options,
        shared: Arc<Shared>,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        Self {
            confirm: Arc::new(Confirm::new(options.stream.clone())),
            poller: Poller::start(&options, shared.clone()),
            copies: Copies::new(options.pace.stall),
            sequences: Sequences::default(),
            options,
            shared,
            commands,
            reporter: None,
            unreadable: Unreadable::default(),
            occupied: None,
            failures: 0,
        }
    }

    pub(crate) async fn run(
        mut self,
        mut stop: watch::Receiver<bool>,
        mut pause: watch::Receiver<bool>,
    ) {
        while !*stop.borrow_and_update() {
            let is_paused = *pause.borrow_and_update();
            if is_paused {
                self.shared.set_state(State::Paused);
            }
            tokio::select! {
                () = self.once(), if !is_paused => continue,
                _ = pause.changed() => {}
                // A handle that is gone is a stop as well.
                stopped = stop.changed() => if stopped.is_err() { break },
            }
            self.end_session().await;
            self.copies.rest();
        }
    }

    /// A session, and the rest that its end asks for.
    async fn once(&mut self) {
        let Err(trouble) = self.session().await;
        self.end_session().await;
        let trouble = match trouble {
            Trouble::Weather(Error::Server(said))
                if is_of_condition(&said, &self.options.choice) =>
            {
                Trouble::Halt(condition_fails(&said))
            }
            Trouble::Weather(Error::Server(said))
                if sqlstate::OF_ENCODING.contains(&said.code.as_str()) =>
            {
                Trouble::Halt(not_utf8(&said))
            }
            Trouble::Differs(differs) => match self.leave(&differs.1).await {
                Ok(()) => Trouble::Halt(differs.0),
                Err(trouble) => trouble,
            },
            other => other,
        };
        self.digest(trouble).await;
    }

    async fn end_session(&mut self) {
        if let Some(reporter) = self.reporter.take() {
            reporter.finish().await;
        }
    }

    async fn session(&mut self) -> Result<Infallible, Trouble> {
        let stream = self.options.stream.clone();
        check_writable(&stream)?;
        self.shared.set_state(State::Connecting);
        let control = self.options.source.connect().await?;
        self.copies.note(&stream);
        let mut replication = Connection::open(&self.options.source).await?;
        if stream.tail().mark.is_some_and(|mark| mark.released) {
            self.reopen(&control, &mut replication).await?;
        }
        let Admitted { from, mark, identity, silence, tables, secret } =
            admit(&control, &mut replication, &self.options, &self.confirm).await?;
        let started = replication.start(&self.options.slot, from, &self.options.publication).await;
        let (incoming, outgoing) = match started {
            Ok(halves) => halves,
            Err(error) => return Err(self.not_started(error, &control, silence).await),
        };
        self.occupied = None;
        if let Some(mark) = mark {
            stream.mark(mark).map_err(Error::from)?;
        }
        let appender = self.appender().await?;
        let confirm = self.confirm.clone();
        let reporter = self.reporter.insert(Reporter::start(
            outgoing,
            stream.clone(),
            confirm,
            self.shared.clone(),
            silence,
        ));
        let mut translator = Translator::new(&stream.tail());
        self.copies.follow(&stream, &tables);
        translator.forget(self.copies.left());
        tracing::info!(slot = self.options.slot, %from, "streaming");
        self.shared.set_state(State::Streaming);
        self.shared.set_error(None);
        self.failures = 0;
        let barred = barred(&stream);
        let is_barred = barred.is_some();
        stream.set_halted(HaltedBy::Capture, barred.or_else(|| self.copies.halt()));
        self.copies.begin(&self.options, &tables).await;
        let session = Session {
            options: &self.options,
            shared: &self.shared,
            commands: &mut self.commands,
            copies: &mut self.copies,
            sequences: &mut self.sequences,
            look: Look::default(),
            inserted: 0,
            reporter,
            incoming,
            appender,
            translator,
            poller: &mut self.poller,
            halts: stream.halted(),
            identity,
            proof: secret.map(Proof::new),
            records: Vec::new(),
            stalled: None,
            seen: from,
            covered: from,
            marked: Instant::now(),
            is_barred,
            unreadable: &mut self.unreadable,
        };
        session.run().await
    }

    /// What appends, behind what a reader that did not live to finish has left open.
    async fn appender(&self) -> Result<Appender, Trouble> {
        let stream = &self.options.stream;
        let (confirm, shared) = (self.confirm.clone(), self.shared.clone());
        let mut appender = Appender::new(stream.clone(), confirm, shared, session::PATIENCE);
        if let Some(record) = Translator::opening(&stream.tail()) {
            appender.push(&record);
            appender.flush().await?;
        }
        Ok(appender)
    }

    /// Why the slot does not stream. One that is in use may be used by our own ghost, which the server gives up by
    /// itself; if it does not, somebody else has it.
    async fn not_started(&mut self, error: Error, control: &Client, silence: Duration) -> Trouble {
        if error.code() != Some(sqlstate::OBJECT_IN_USE) {
            return error.into();
        }
        let since = *self.occupied.get_or_insert_with(Instant::now);
        if since.elapsed() < silence * 2 {
            return error.into();
        }
        match holder(control, &self.options.slot).await {
            Ok(holder) => Trouble::Halt(Halt::new(
                "slot_in_use",
                format!(
                    "the slot {} is in use by {holder}: stop that, or give one of the two nodes another name",
                    self.options.slot
                ),
            )),
            Err(error) => error.into(),
        }
    }

    /// Says what is wrong, and waits as long as it makes sense.
    async fn digest(&mut self, trouble: Trouble) {
        let wait = match trouble {
            Trouble::Again => {
                tracing::info!("a transaction is read again from its beginning");
                return;
            }
            Trouble::Full if self.copies.take_overflow() => {
                tracing::warn!("a copy does not fit into the journal; changes go on without it");
                ROOM_POLL
            }
            Trouble::Full => {
                self.shared.set_state(State::Held);
                self.copies.rest();
                if self.options.on_full == OnFull::Resync {
                    return self.release().await;
                }
                tracing::warn!("the journal is full; the source keeps its log");
                return self.rest_until_room(ROOM_SHARE).await;
            }
            Trouble::Weather(error) => {
                let text = error.to_string();
                tracing::warn!(error = text, "capture waits for the source");
                self.shared.set_error(Some(text));
                self.shared.set_state(State::Connecting);
                self.failures += 1;
                backoff(self.failures)
            }
            Trouble::Halt(halt) => self.halt(halt),
            Trouble::Differs(differs) => self.halt(differs.0),
        };
        self.rest(wait).await;
    }

    /// Stands still until somebody has mended something; returns when to look at it again.
    fn halt(&mut self, halt: Halt) -> Duration {
        tracing::error!(code = halt.code, detail = halt.detail, "capture is halted");
        self.shared.set_error(Some(halt.detail.clone()));
        self.shared.set_state(State::Halted);
        self.unreadable.halted(&halt.code);
        self.copies.rest();
        self.options.stream.set_halted(HaltedBy::Capture, Some(halt));
        self.options.pace.recheck
    }

    /// Waits, but not longer than until somebody says `retry`.
    async fn rest(&mut self, wait: Duration) {
        let deadline = Instant::now() + wait;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return,
                Some(command) = self.commands.recv() => match command {
                    Command::Copy(request) => self.copies.request(request),
                    Command::Retry => return self.unreadable.forgive(),
                },
            }
        }
    }

    /// Waits until a fair part of the budget is free, so that a session is worth its start.
    async fn rest_until_room(&mut self, share: u64) {
        loop {
            let fair = self.options.stream.allowance().budget / share;
            if self.options.stream.await_room(fair, Pressure::Capture) {
                return;
            }
            self.rest(ROOM_POLL).await;
        }
    }
}

/// Whether a condition on rows fails: while it streams, the server computes nothing else with values, but it converts
/// text and reads the settings of the session.
fn is_of_condition(said: &ServerError, choice: &Choice) -> bool {
    choice.tables().any(|(_, it)| it.rows.is_some())
        && said.code.starts_with(sqlstate::DATA_EXCEPTION_CLASS)
        && !sqlstate::OF_NO_CONDITION.contains(&said.code.as_str())
}

fn condition_fails(said: &ServerError) -> Halt {
    Halt::new(
        "condition_fails",
        format!(
            "a condition in [capture.rows] fails for a row that was changed: {said}; what is logged is read \
             with the condition of its time, so begin anew with one that holds or does not for every row: drop \
             the slot, correct it, run `thinwire init`, and start with another `dir`"
        ),
    )
}

fn not_utf8(said: &ServerError) -> Halt {
    Halt::new(
        "not_utf8",
        format!(
            "a row was changed whose text is no UTF-8, which PostgreSQL does not send: {said}; what is logged is read as it \
             was written, so begin anew: give its table text in one encoding, drop the slot, run `thinwire init`, and \
             start with another `dir`"
        ),
    )
}

/// Whether anything may be appended.
fn check_writable(stream: &Stream) -> Result<(), Trouble> {
    if stream.is_poisoned() {
        return Err(Error::Journal(JournalError::Poisoned { stream: stream.id() }).into());
    }
    match rolled_back(stream) {
        Some(halt) => Err(Trouble::Halt(halt)),
        None => Ok(()),
    }
}

/// Why nothing may be numbered on: a peer holds records of this stream that its own journal does not have.
fn rolled_back(stream: &Stream) -> Option<Halt> {
    stream.halted_by(HaltedBy::Transport).filter(|halt| halt.code == PEER_AHEAD)
}

/// The code of a record that the journal's budget has no room for, ever.
const RECORD_TOO_LARGE: &str = "record_too_large";

/// What was said of a record that did not fit. Whether it is still in the way is known when something behind it was
/// taken.
fn barred(stream: &Stream) -> Option<Halt> {
    stream.halted_by(HaltedBy::Capture).filter(|halt| halt.code == RECORD_TOO_LARGE)
}

/// The code of a schema change that the source could not describe.
const SCHEMA_UNREADABLE: &str = "schema_unreadable";

/// The code by which the exchange with peers says so.
const PEER_AHEAD: &str = "peer_ahead";

/// Who streams from a slot, for people.
async fn holder(control: &Client, slot: &str) -> Result<String, Error> {
    let state = crate::slot::slot_state(control, slot).await?;
    let Some(pid) = state.and_then(|state| state.active_pid) else {
        return Ok("somebody who has just left".to_owned());
    };
    Ok(match control.query_opt(sql::SLOT_HOLDER, &[&pid]).await? {
        Some(row) => {
            let (application, address, user): (String, String, String) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            format!("process {pid} (application \"{application}\", user {user}, from {address})")
        }
        None => format!("process {pid}"),
    })
}

/// Doubles from a fifth of a second up to five, with jitter so that many nodes do not come back as one.
fn backoff(failures: u32) -> Duration {
    let full = BACKOFF_MIN.saturating_mul(1 << failures.clamp(1, 6).saturating_sub(1));
    let full = full.min(BACKOFF_MAX);
    let random = u32::try_from(RandomState::new().hash_one(failures) % 1_000).unwrap_or(0);
    full / 2 + full * random / 2_000
}

const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A full journal is left alone until this part of it is free.
const ROOM_SHARE: u64 = 16;
const ROOM_POLL: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_blamed_for_what_it_computes_only() {
        let mut rows = Choice::default();
        rows.filter("public.t", "1 / id > 0").unwrap();
        let said = |code: &str| ServerError {
            code: code.to_owned(),
            message: String::new(),
            detail: None,
            hint: None,
        };
        assert!(is_of_condition(&said("22012"), &rows));
        assert!(!is_of_condition(&said("22012"), &Choice::default()));
        for code in ["22021", "22P05", "22023", "55000"] {
            assert!(!is_of_condition(&said(code), &rows), "{code}");
        }
    }

    #[test]
    fn only_what_has_halted_us_is_forgiven() {
        let mut unreadable = Unreadable::default();
        unreadable.forgive();
        assert_eq!(unreadable, Unreadable::Halts);
        unreadable.halted(SCHEMA_UNREADABLE);
        unreadable.halted("publication_differs");
        unreadable.forgive();
        assert_eq!(unreadable, Unreadable::Halts);
        unreadable.halted(SCHEMA_UNREADABLE);
        unreadable.forgive();
        unreadable.forgive();
        assert_eq!(unreadable, Unreadable::Forgiven);
    }

    #[test]
    fn waits_grow_to_five_seconds_and_differ() {
        for failures in 0..40 {
            let wait = backoff(failures);
            assert!(wait >= BACKOFF_MIN / 2 && wait <= BACKOFF_MAX, "{failures}: {wait:?}");
        }
        assert!(backoff(10) >= BACKOFF_MAX / 2);
        let waits: BTreeSet<_> = (0..20).map(|_| backoff(10)).collect();
        assert!(waits.len() > 10);
    }
}
