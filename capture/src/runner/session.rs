//! One streaming session: frames to records to the journal, and copies put in their place.

use std::{convert::Infallible, time::Duration};

use thinwire_engine::{
    journal::Stream,
    model::{Definitions, Halt, HaltedBy, Lsn, Offset, Record, Schema},
    pgoutput::{InTransaction, Message, Step, Translator, decode},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{
    Command, SCHEMA_UNREADABLE, Trouble, Unreadable,
    admission::{Identity, differs},
    copies::{Copies, Verdict},
    left::missed,
    look::Look,
    poll::Poller,
    proof::Proof,
    report::Reporter,
    rolled_back,
    sequences::Sequences,
};
use crate::{
    Options,
    append::Appender,
    copy,
    error::Error,
    replication::{Frame, Incoming},
    schema::{self, Change, Told},
    status::{Shared, State},
};

/// What a session works with.
pub(super) struct Session<'a> {
    pub(super) options: &'a Options,
    pub(super) shared: &'a Shared,
    pub(super) commands: &'a mut mpsc::UnboundedReceiver<Command>,
    pub(super) copies: &'a mut Copies,
    pub(super) sequences: &'a mut Sequences,
    /// What looks where they are.
    pub(super) look: Look,
    /// Rows that the transaction that is read has inserted.
    pub(super) inserted: u64,
    pub(super) reporter: &'a mut Reporter,
    pub(super) incoming: Incoming,
    pub(super) appender: Appender,
    pub(super) translator: Translator,
    pub(super) poller: &'a mut Poller,
    /// Why the stream stands still, whoever says so.
    pub(super) halts: watch::Receiver<Option<Halt>>,
    pub(super) identity: Identity,
    /// What proves messages about the schema, if they are wanted.
    pub(super) proof: Option<Proof>,
    pub(super) records: Vec<Record>,
    /// A message that waits for a copy, and since when.
    pub(super) stalled: Option<(Message, Instant)>,
    /// All that was committed before this has been read.
    pub(super) seen: Lsn,
    /// What will be confirmed when all that is appended is synced.
    pub(super) covered: Lsn,
    /// When the last mark was made.
    pub(super) marked: Instant,
    /// Whether a record that did not fit may still be in the way.
    pub(super) is_barred: bool,
    /// What becomes of a schema change that cannot be read.
    pub(super) unreadable: &'a mut Unreadable,
}

/// What ended a run through what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drained {
    /// There is no more.
    All,
    /// A copy has its place here.
    Place,
}

impl Session<'_> {
    /// Works until it cannot.
    pub(super) async fn run(mut self) -> Result<Infallible, Trouble> {
        loop {
            let drained = self.drain().await?;
            self.appender.flush().await?;
            if drained == Drained::Place {
                self.place().await?;
                continue;
            }
            self.tell_left().await?;
            self.tell_sequences().await?;
            self.wait().await?;
        }
    }

    /// Waits for whatever comes first.
    async fn wait(&mut self) -> Result<(), Trouble> {
        let is_stalled = self.stalled.is_some();
        let mark_due = (self.seen > self.covered && self.is_between())
            .then(|| self.marked + self.options.pace.mark);
        let gives_up = match (&self.stalled, self.copies.is_preparing()) {
            // With nothing captured yet there is nothing that waits.
            (Some((_, since)), true) if !self.is_new() => Some(*since + self.copies.patience()),
            _ => None,
        };
        tokio::select! {
            filled = self.incoming.fill(), if !is_stalled => filled?,
            () = self.copies.prepared() => self.show_copies(),
            () = self.poller.asked() => {
                if let Some(halt) = differs(&self.poller.differences()) {
                    return Err(Trouble::Differs(Box::new((halt, self.poller.differing()))));
                }
                if let Some(tables) = self.poller.tables() {
                    self.copies.follow(&self.options.stream, &tables);
                }
                if let Some((moved, as_of)) = self.poller.sequences() {
                    self.sequences.note(moved, as_of);
                }
                self.begin_copy().await;
            }
            Some(command) = self.commands.recv() => {
                match command {
                    Command::Copy(request) => self.copies.request(request),
                    // What it is about may not have been met again yet.
                    Command::Retry => {
                        self.unreadable.forgive();
                        self.copies.hurry();
                    }
                }
                self.begin_copy().await;
            }
            error = self.reporter.failed() => return Err(error.into()),
            _ = self.halts.changed() => if let Some(halt) = rolled_back(self.stream()) {
                return Err(Trouble::Halt(halt));
            },
            () = until(mark_due) => self.mark()?,
            () = until(gives_up) => self.copies.give_up(),
            // The server tells how far it is only now and then, unless it is asked.
            () = sleep(PROBE), if self.is_impatient() => self.reporter.probe(),
        }
        Ok(())
    }

    /// Whether something waits for the server to say how far it is.
    fn is_impatient(&self) -> bool {
        self.copies.ready().is_some() || !self.is_new() && self.sequences.is_waiting()
    }

    /// Writes where sequences are, between two transactions.
    async fn tell_sequences(&mut self) -> Result<(), Trouble> {
        // What the target does not know yet, a copy brings.
        let due = match self.is_between() && !self.is_new() {
            true => self.sequences.due(self.seen),
            false => return Ok(()),
        };
        if due.is_empty() {
            return Ok(());
        }
        let definitions = Definitions { objects: due.clone(), dropped: vec![] }.encode();
        self.appender.push(&Record::Schema(Schema { definitions, ..Schema::default() }));
        self.appender.flush().await?;
        self.sequences.told(&due);
        Ok(())
    }

    /// Writes how much of sequences a transaction has used up, before its commit, which is at `end`: if a target takes over
    /// right behind it, it gives out none of that again.
    async fn tell_used(&mut self, end: Lsn) -> Result<(), Trouble> {
        let inserted = std::mem::take(&mut self.inserted);
        let is_emitted = self.translator.transaction().is_some_and(|it| it.emitted);
        // What is compared with what the stream holds cannot have more than that.
        let is_told = self.proof.is_some() && is_emitted && !self.translator.is_resuming();
        if !self.sequences.is_used_up(inserted) || !is_told {
            return Ok(());
        }
        if !self.sequences.are_known(end)
            && let Some((moved, as_of)) = self.look.look(self.options, self.sequences).await
        {
            self.sequences.note_early(moved, as_of);
        }
        let objects = self.sequences.due_early();
        if objects.is_empty() {
            return Ok(());
        }
        // In one batch with the commit: a part that ended between the two would not come again.
        self.appender.flush().await?;
        let definitions = Definitions { objects, dropped: vec![] };
        let taken = self.translator.schema(&definitions, vec![], vec![], &mut self.records);
        self.follow(taken.map_err(Error::from)?).await?;
        self.sequences.told(&definitions.objects);
        Ok(())
    }

    /// Writes which tables were away, between two transactions. Where schema changes are followed, the source tells it in
    /// its place.
    async fn tell_left(&mut self) -> Result<(), Trouble> {
        if self.copies.left().is_empty() || self.proof.is_some() || !self.is_between() {
            return Ok(());
        }
        self.appender.push(&missed(&self.stream().tail().copied, self.copies.left()));
        self.appender.flush().await?;
        self.translator.refresh(&self.stream().tail());
        self.copies.remembered();
        Ok(())
    }

    async fn begin_copy(&mut self) {
        if let Some(tables) = self.poller.tables() {
            self.translator.forget(self.copies.left());
            self.copies.begin(self.options, &tables).await;
            self.show_copies();
        }
    }

    fn show_copies(&self) {
        if let Some(error) = self.copies.error() {
            self.shared.set_error(Some(error));
        }
    }

    /// Works through all that was read already.
    async fn drain(&mut self) -> Result<Drained, Trouble> {
        loop {
            if self.is_placeable() {
                return Ok(Drained::Place);
            }
            let (message, since) = match self.stalled.take() {
                Some(stalled) => stalled,
                None => match self.incoming.buffered()? {
                    None => return Ok(Drained::All),
                    Some(Frame::End) => {
                        return Err(Error::Lost("the server shuts down".to_owned()).into());
                    }
                    Some(Frame::Keepalive { wal_end, is_urgent }) => {
                        self.keepalive(wal_end, is_urgent).await?;
                        continue;
                    }
                    Some(Frame::Data(bytes)) => {
                        (decode(&bytes).map_err(Error::from)?, Instant::now())
                    }
                },
            };
            match self.copies.judge(&self.translator, &message) {
                Verdict::Pass => self.take(message).await?,
                Verdict::Wait => {
                    self.stalled = Some((message, since));
                    return Ok(Drained::All);
                }
                Verdict::Place => {
                    self.stalled = Some((message, since));
                    return Ok(Drained::Place);
                }
                Verdict::Abandon => {
                    let step = self.translator.abandon(&mut self.records);
                    self.follow(step).await?;
                }
            }
        }
    }

    async fn take(&mut self, message: Message) -> Result<(), Trouble> {
        if let Message::Logical { prefix, content, .. } = &message
            && prefix == schema::PREFIX
        {
            return self.take_schema(content).await;
        }
        if let Message::Logical { transactional: true, prefix, content, .. } = &message
            && prefix == schema::ADDED
        {
            let copied = self.stream().tail().copied;
            let mut stale = schema::added(content, &self.options.publication);
            stale.retain(|id| copied.contains(id));
            if stale.is_empty() {
                return Ok(());
            }
            return self.change(Change { stale, ..Change::default() }).await;
        }
        match &message {
            Message::Begin { .. } => self.inserted = 0,
            Message::Insert { .. } => self.inserted += 1,
            Message::Commit { end, .. } => self.tell_used(*end).await?,
            _ => {}
        }
        let lone = match &message {
            Message::Logical { transactional: false, lsn, .. } => Some(*lsn),
            _ => None,
        };
        let step = self.translator.take(message, &mut self.records).map_err(Error::from)?;
        let is_new = !self.records.is_empty();
        self.follow(step).await?;
        if let (Some(lsn), true) = (lone, is_new) {
            // No commit will cover it, and it would be sent again.
            self.seen = self.seen.max(Lsn::new(lsn.get() + 1));
            self.appender.flush().await?;
            self.mark()?;
        }
        Ok(())
    }

    /// Takes a message under the prefix of the source's triggers, which anybody may have written.
    async fn take_schema(&mut self, content: &[u8]) -> Result<(), Trouble> {
        let (Some(proof), Some(transaction)) = (&mut self.proof, self.translator.transaction())
        else {
            return Ok(());
        };
        // It only keeps the message before it apart from what follows.
        if content.is_empty() {
            return Ok(());
        }
        let InTransaction { xid, lsn, .. } = transaction;
        let change = match proof.read(content, self.options, xid, lsn).await? {
            Told::Change(change) => change,
            Told::NotOurs => return Ok(()),
            Told::Forged => {
                tracing::warn!(xid, "a message about the schema is forged");
                self.shared.count_forged();
                return Ok(());
            }
            Told::Failed(_) if !self.translator.is_heeded() => return Ok(()),
            Told::Failed(_) if *self.unreadable == Unreadable::Forgiven => self.all_anew(),
            Told::Failed(why) => return Err(Trouble::Halt(unreadable(&why))),
        };
        self.change(change).await
    }

    async fn change(&mut self, change: Change) -> Result<(), Trouble> {
        let Change { definitions, born, mut stale, republished } = change;
        if let Some(transaction) = self.translator.transaction()
            && self.translator.is_heeded()
        {
            self.sequences.forget(&definitions.dropped, transaction.lsn);
            self.sequences.learn(&definitions.objects);
        }
        // Where another node changed the rows, it says so itself; it does not know what is published here.
        if !self.translator.is_heeded() {
            stale.clear();
        }
        stale.extend(republished);
        let taken = self.translator.schema(&definitions, born, stale, &mut self.records);
        self.follow(taken.map_err(Error::from)?).await
    }

    /// What stands for a change that nobody could describe: all tables are copied again, with their definitions.
    fn all_anew(&self) -> Change {
        let stale = self.stream().tail().copied.into_iter().collect();
        Change { stale, ..Change::default() }
    }

    /// Appends what the translator made, and goes where it says.
    async fn follow(&mut self, step: Step) -> Result<(), Trouble> {
        for record in self.records.drain(..) {
            self.appender.take(record).await?;
        }
        match step {
            Step::Next => {}
            Step::Ended { end, emitted } => {
                self.seen = self.seen.max(end);
                if emitted && std::mem::take(&mut self.is_barred) {
                    self.appender.flush().await?;
                    self.stream().set_halted(HaltedBy::Capture, self.copies.halt());
                }
                if emitted {
                    self.covered = self.covered.max(end);
                    // What was forgiven was in it.
                    *self.unreadable = Unreadable::Halts;
                }
            }
            Step::Restart => {
                self.appender.flush().await?;
                return Err(Trouble::Again);
            }
        }
        Ok(())
    }

    async fn keepalive(&mut self, wal_end: Lsn, is_urgent: bool) -> Result<(), Trouble> {
        if is_urgent {
            self.reporter.answer();
        }
        // Inside a transaction it says how far the server was before.
        if self.translator.transaction().is_some() {
            return Ok(());
        }
        let step = self.translator.passed(wal_end, &mut self.records);
        self.follow(step).await?;
        self.seen = self.seen.max(wal_end);
        if is_urgent && self.seen > self.covered && self.is_between() {
            self.appender.flush().await?;
            self.mark()?;
        }
        Ok(())
    }

    /// Journals how far the source has been read, so that it can be confirmed without a transaction.
    fn mark(&mut self) -> Result<(), Trouble> {
        self.stream().mark(self.identity.mark(self.seen)).map_err(Error::from)?;
        self.covered = self.covered.max(self.seen);
        self.marked = Instant::now();
        Ok(())
    }

    /// Whether no transaction is open, neither in what is read nor in the stream.
    fn is_between(&self) -> bool {
        self.translator.transaction().is_none() && !self.translator.is_resuming()
    }

    /// Whether a copy is ready whose place is before whatever comes next.
    fn is_placeable(&self) -> bool {
        self.copies.ready().is_some_and(|lsn| self.seen >= lsn) && self.is_between()
    }

    /// Whether no table was copied yet, so that nothing is captured.
    fn is_new(&self) -> bool {
        self.stream().end().0 == Offset::FIRST
    }

    fn stream(&self) -> &Stream {
        &self.options.stream
    }

    /// Writes the copy that is ready. Nothing else is read meanwhile; reporting goes on.
    async fn place(&mut self) -> Result<(), Trouble> {
        let Some((wanted, mut prepared)) = self.copies.take() else { return Ok(()) };
        self.copies.spare(&self.options.stream, &wanted, &mut prepared);
        if prepared.tables.is_empty() && !wanted.is_requested() {
            self.copies.spared();
            return Ok(());
        }
        let before = self.shared.set_state(State::Copying);
        // All before the copy has been read, and rows of its tables were dropped. If the source sent them again once
        // the copy is in the stream, they would count twice; the mark, which is durable if the copy is, says not to.
        self.seen = self.seen.max(prepared.lsn);
        self.mark()?;
        self.appender.set_patience(COPY_PATIENCE);
        let target = wanted.target();
        let written = copy::write(&prepared, &target, &mut self.appender, self.shared).await;
        self.appender.set_patience(PATIENCE);
        let definitions = prepared.definitions.take().unwrap_or_default();
        drop(prepared);
        match written {
            Ok(begin) => {
                tracing::info!(offset = %begin, "a copy is in the stream");
                self.translator.refresh(&self.stream().tail());
                self.copies.done(wanted, begin);
                self.sequences.learn(&definitions.objects);
                self.sequences.tell_again();
                self.stream().set_halted(HaltedBy::Capture, None);
                self.shared.set_error(None);
                self.begin_copy().await;
            }
            Err(error) => {
                self.copies.failed(wanted, &error);
                self.show_copies();
                if let Error::Journal(_) = error {
                    return Err(error.into());
                }
                self.abort_copy().await?;
            }
        }
        self.shared.set_state(before);
        Ok(())
    }

    async fn abort_copy(&mut self) -> Result<(), Trouble> {
        self.appender.discard();
        let tail = self.stream().tail();
        if let Some(record) = Translator::opening(&tail) {
            self.appender.push(&record);
            self.appender.flush().await?;
            // The tables' descriptions in it are in force.
            self.translator.refresh(&self.stream().tail());
        }
        Ok(())
    }
}

fn unreadable(why: &str) -> Halt {
    Halt::new(
        SCHEMA_UNREADABLE,
        format!(
            "a schema change could not be followed: {why}; bring the target into the same shape by hand if it is not, \
             then `thinwire retry` goes on and copies all tables again"
        ),
    )
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// A full journal is often emptied soon. After this long, the connection is worth more to the server than to us: one
/// that nobody reads from keeps it from shutting down.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A copy costs more to begin again, but its snapshot keeps the source from cleaning up.
const COPY_PATIENCE: Duration = Duration::from_secs(600);

/// Between two questions how far the server is.
const PROBE: Duration = Duration::from_millis(100);
