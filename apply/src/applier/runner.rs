//! The loop: ask the target how far it is, apply what is complete, say how far that got; for ever.
//!
//! - Several small source transactions share a target transaction; as many as are there, within bounds. Nothing is
//!   waited for, and no target transaction is open while anything but the target is waited for.
//! - What changes the schema has a target transaction of its own: what comes behind it may need it to be committed.
//! - After any failure the target is asked again before anything else happens.
//! - A refused record makes the loop *careful*: everything is rolled back and run again, one source transaction a target
//!   transaction, and from the first suspected record on each record alone. What comes before it is committed, and the
//!   halt names exactly the record that cannot be taken.

use std::{sync::Arc, time::Duration};

use thinwire_engine::{
    journal::Stream,
    model::{Halt, HaltedBy, Offset, Origin, Record, Relation},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{error, info, warn};

use super::{
    Control, Shared, State,
    batch::Batch,
    skip::Wish,
    source::{Item, Source},
    unit::{self, End, Unit},
};
use crate::{
    Change, Progress, Sink, SinkError, Skip, backoff::Backoff, conflict::Conflict, sink::Relations,
};

/// What the task owns.
pub(super) struct Runner<S> {
    sink: S,
    stream: Arc<Stream>,
    node: Origin,
    shared: Arc<Shared>,
    told: watch::Receiver<Control>,
    relations: Relations,
    /// Whether each source transaction has a target transaction of its own.
    one_by_one: bool,
    /// How far the target was when we last knew.
    known: Option<Offset>,
    /// The first record that must be given alone.
    careful: Option<Offset>,
    /// How far what was refused went: up to there, each source transaction has a target transaction of its own.
    careful_to: Offset,
    /// The first record of what is being applied.
    begun: Option<Offset>,
    /// Whether that is a copy.
    copying: bool,
    /// Whether anything was committed since the last trouble.
    moved: bool,
    /// The halt that we have declared, if it is not over.
    halted: Option<Halt>,
    /// How often a retry had been asked for when the last try began.
    retries: u64,
}

/// Why the loop was left.
enum Trouble {
    Stop,
    Weather(String),
    /// The same once more: which record was refused is not certain yet, or the target does it another way.
    Again,
    Halt(Box<Halt>),
}

impl From<SinkError> for Trouble {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Weather(why) => Self::Weather(why),
            SinkError::Refused(halt) => Self::Halt(halt),
            SinkError::Again => Self::Again,
        }
    }
}

impl<S: Sink> Runner<S> {
    pub(super) fn new(sink: S, stream: Arc<Stream>, node: Origin, shared: Arc<Shared>) -> Self {
        let (_, told) = watch::channel(Control::default());
        Self {
            sink,
            stream,
            node,
            shared,
            told,
            relations: Relations::new(),
            known: None,
            one_by_one: false,
            careful: None,
            careful_to: Offset::ZERO,
            begun: None,
            copying: false,
            moved: false,
            halted: None,
            retries: 0,
        }
    }

    /// Has each source transaction in a target transaction of its own, or not.
    pub(super) fn one_by_one(self, one_by_one: bool) -> Self {
        Self { one_by_one, ..self }
    }

    pub(super) async fn run(mut self, told: watch::Receiver<Control>) {
        self.told = told;
        let mut soon = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut seldom = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        loop {
            let Err(trouble) = self.follow().await;
            if std::mem::take(&mut self.moved) {
                soon.reset();
                seldom.reset();
            }
            // No lock may be held while we wait: somebody may want to mend what we halted for. If the connection is gone,
            // there is nothing to undo.
            let _ = self.sink.rollback().await;
            if self.told.borrow().yields {
                self.sink.rest().await;
            }
            let pause = match trouble {
                Trouble::Stop => break,
                Trouble::Again => continue,
                Trouble::Weather(why) => {
                    self.weather(why);
                    soon.next()
                }
                Trouble::Halt(halt) => {
                    self.halt(*halt);
                    seldom.next()
                }
            };
            match self.pause(pause).await {
                Err(_) => break,
                Ok(true) => seldom.reset(),
                Ok(false) => {}
            }
        }
        self.shared.enter(State::Stopped);
    }

    /// Applies from where the target is, until something goes wrong.
    async fn follow(&mut self) -> Result<std::convert::Infallible, Trouble> {
        self.check_stop()?;
        (self.begun, self.copying) = (None, false);
        self.retries = self.told.borrow().retries;
        let progress = self.sink.applied(self.stream.id()).await?;
        self.check_target(progress)?;
        self.known = Some(progress.offset);
        self.stream.set_applied(progress.offset);
        let mut source = None;
        loop {
            self.wait_for_work().await?;
            if source.is_none() {
                let from = progress.offset.next();
                let (opened, relations) = Source::open(self.stream.clone(), from).await?;
                self.relations = relations;
                source = Some(opened);
            }
            if let Some(source) = &mut source {
                self.shared.enter(self.halted.as_ref().map_or(State::Applying, |_| State::Halted));
                self.batch(source).await?;
            }
        }
    }

    /// Compares what the target says with what the journal holds and what we knew.
    fn check_target(&self, progress: Progress) -> Result<(), Trouble> {
        let marks = self.stream.watermarks();
        let applied = progress.offset;
        if applied > marks.synced {
            let synced = marks.synced;
            let detail = format!(
                "the database has applied this stream up to record {applied}, but the journal holds it up to {synced} \
                 only; it goes on once the journal has caught up"
            );
            return Err(Trouble::Halt(Box::new(Halt::new("target_ahead", detail))));
        }
        if applied.next() < marks.first {
            let first = marks.first;
            let detail = format!(
                "the database has applied this stream up to record {applied} only, and the journal begins with record \
                 {first}; the tables have to be copied again"
            );
            return Err(Trouble::Halt(Box::new(Halt::new("target_behind", detail))));
        }
        if let Some(known) = self.known.filter(|known| applied < *known) {
            warn!(
                stream = %self.stream.id(), %known, %applied,
                "the database has gone back to an earlier state; applying again from there"
            );
        }
        Ok(())
    }

    /// Returns when something complete is there and we are not paused.
    async fn wait_for_work(&mut self) -> Result<(), Trouble> {
        let (mut marks, mut rests) = (self.stream.watch(), false);
        loop {
            self.check_stop()?;
            let paused = self.told.borrow_and_update().paused;
            let ready = marks.borrow_and_update().complete > self.known.unwrap_or_default();
            match (paused, ready) {
                // The target is asked anew whether this stream still counts.
                (false, true) if rests => return Err(Trouble::Again),
                (false, true) => return Ok(()),
                (true, _) => self.shared.enter(State::Paused),
                (false, false) => {
                    self.unhalt();
                    self.shared.enter(State::Idle);
                }
            }
            if self.told.borrow().yields && !rests {
                self.sink.rest().await;
                rests = true;
            }
            tokio::select! {
                changed = marks.changed() => changed.map_err(|_| Trouble::Stop)?,
                changed = self.told.changed() => changed.map_err(|_| Trouble::Stop)?,
            }
        }
    }

    /// Fills one target transaction with what is there, and commits it.
    async fn batch(&mut self, source: &mut Source) -> Result<(), Trouble> {
        let (mut batch, started) = (Batch::default(), Instant::now());
        while batch.has_room(started) {
            (self.begun, self.copying) = (None, false);
            let unit = match unit::next(source, self.node).await {
                Ok(unit) => {
                    self.copying = unit.as_ref().is_some_and(Unit::is_copy);
                    self.begun = unit.as_ref().and_then(Unit::first);
                    unit
                }
                Err(error) => {
                    // What comes before a place that cannot be read is sound.
                    self.commit(batch).await?;
                    return Err(error.into());
                }
            };
            let wish = self.begun.and_then(|first| self.shared.standing().take(first));
            match unit {
                Some(Unit::Whole(items) | Unit::Long(items)) if wish.is_some() => {
                    self.commit(batch).await?;
                    return self.leave_out(source, items, wish).await;
                }
                None => break,
                Some(Unit::Void { relations, last }) => {
                    relations.into_iter().for_each(|relation| self.describe(relation));
                    batch.reach(last);
                }
                Some(Unit::Whole(items)) => {
                    let alters = unit::alters(&items);
                    if alters {
                        self.commit(std::mem::take(&mut batch)).await?;
                    }
                    for item in items {
                        self.take(&mut batch, item).await?;
                    }
                    if alters {
                        break;
                    }
                }
                Some(Unit::Foreign) => {
                    // It may be long, and no target transaction is to wait for the disk.
                    self.commit(std::mem::take(&mut batch)).await?;
                    batch.reach(self.pass_over(source).await?);
                }
                Some(Unit::Long(items)) => {
                    self.commit(batch).await?;
                    return self.long(source, items).await;
                }
            }
            if self.one_by_one || self.careful.is_some() || self.is_told_to_leave() {
                break;
            }
        }
        self.commit(batch).await
    }

    /// Applies something large in a target transaction of its own.
    async fn long(&mut self, source: &mut Source, begun: Vec<Item>) -> Result<(), Trouble> {
        let mut batch = Batch::default();
        for item in begun {
            self.take(&mut batch, item).await?;
        }
        loop {
            if batch.records.is_multiple_of(STOP_CHECK_RECORDS) {
                self.check_stop()?;
            }
            let item = unit::following(source).await?;
            match unit::end_of(&item)? {
                Some(End::Aborted) => {
                    self.sink.rollback().await?;
                    let mut void = Batch::default();
                    void.reach(item.last);
                    return self.commit(void).await;
                }
                Some(End::Complete) => {
                    self.take(&mut batch, item).await?;
                    return self.commit(batch).await;
                }
                None => self.take(&mut batch, item).await?,
            }
        }
    }

    /// Leaves out what begins with these records, as somebody wishes.
    async fn leave_out(
        &mut self,
        source: &mut Source,
        begun: Vec<Item>,
        wish: Option<Wish>,
    ) -> Result<(), Trouble> {
        let Some(mut wish) = wish else { return Ok(()) };
        match self.note_skip(source, begun, &mut wish).await {
            Ok(()) => {
                wish.over(Ok(()));
                Ok(())
            }
            // It is refused as it is halted: of a single record, the one looks like the other.
            Err(Trouble::Halt(halt)) => {
                wish.over(Err(format!("it was not left out: {}", halt.detail)));
                Err(Trouble::Halt(halt))
            }
            Err(trouble) => {
                self.shared.standing().put_back(wish);
                Err(trouble)
            }
        }
    }

    async fn note_skip(
        &mut self,
        source: &mut Source,
        begun: Vec<Item>,
        wish: &mut Wish,
    ) -> Result<(), Trouble> {
        let (mut batch, mut xid, mut end) = (Batch::default(), None, None);
        let mut begun = begun.into_iter();
        while end.is_none() {
            let item = match begun.next() {
                Some(item) => item,
                // A record by itself has no end but its own.
                None if xid.is_none() && !self.copying => break,
                None => unit::following(source).await?,
            };
            if let Record::Begin { xid: number, .. } = item.record {
                xid = Some(number);
            }
            batch.locate(&item.record);
            batch.reach(item.last);
            let starts = matches!(item.record, Record::Begin { .. } | Record::CopyBegin(_));
            end = if starts { None } else { unit::end_of(&item)? };
            if let Record::Relation(relation) = item.record {
                self.describe(relation);
            }
            self.check_stop()?;
        }
        let Progress { offset: last, lsn, time } = batch.progress.unwrap_or_default();
        let (halt, by) = (wish.halt.clone(), wish.by.clone());
        self.sink.begin().await?;
        batch.open = true;
        warn!(stream = %self.stream.id(), first = %wish.first, %last, xid, code = halt.code, by, "leaving out");
        self.sink.skip(&Skip { first: wish.first, last, lsn, time, xid, halt, by }).await?;
        let done = self.commit(batch).await;
        wish.unanswered |= matches!(done, Err(Trouble::Weather(_)));
        done
    }

    /// Reads over a copy that is for somebody else, and returns its last offset.
    async fn pass_over(&mut self, source: &mut Source) -> Result<Offset, Trouble> {
        for read in 0_usize.. {
            if read.is_multiple_of(STOP_CHECK_RECORDS) {
                self.check_stop()?;
            }
            let item = unit::following(source).await?;
            if unit::end_of(&item)?.is_some() {
                return Ok(item.last);
            }
            if let Record::Relation(relation) = item.record {
                self.describe(relation);
            }
        }
        Err(Trouble::Again)
    }

    fn describe(&mut self, relation: Relation) {
        // Said again, it is the same to the sink too.
        if self.relations.get(&relation.id).is_none_or(|known| **known != relation) {
            self.relations.insert(relation.id, Arc::new(relation));
        }
    }

    /// Gives a record to the sink.
    async fn take(&mut self, batch: &mut Batch, item: Item) -> Result<(), Trouble> {
        if let Err(error) = unit::check(&item, &self.relations) {
            return Err(self.trouble(error, item.offset, item.last));
        }
        if !batch.open {
            self.sink.begin().await?;
            batch.open = true;
        }
        batch.count(&item);
        batch.reach(item.last);
        match &item.record {
            Record::Skip { .. } => return Ok(()),
            Record::Relation(relation) => self.describe(relation.clone()),
            _ => {}
        }
        let alone = self.careful.is_some_and(|from| item.offset >= from);
        let change =
            Change { offset: item.offset, record: item.record, relations: &self.relations, alone };
        let taken = self.sink.take(change).await;
        let first = if alone { item.offset } else { batch.first.unwrap_or(item.offset) };
        taken.map_err(|error| self.trouble(error, first, item.last))
    }

    /// Commits a batch and tells everybody.
    async fn commit(&mut self, batch: Batch) -> Result<(), Trouble> {
        let Some(progress) = batch.progress else { return Ok(()) };
        if !batch.open {
            self.sink.begin().await?;
        }
        if let Err(error) = self.sink.commit(progress).await {
            // A careful batch holds one source transaction, so what it fails with only now is about that.
            let first = match self.careful {
                Some(_) => progress.offset,
                None => batch.first.unwrap_or_default(),
            };
            return Err(self.trouble(error, first, progress.offset));
        }
        self.moved = true;
        self.known = Some(progress.offset);
        self.shared.applied(batch.transactions, batch.rows);
        if self.careful.is_some() && self.careful_to <= progress.offset {
            self.careful = None;
        }
        let over = |halt: &Halt| halt.offset.is_none_or(|offset| offset <= progress.offset);
        if self.halted.as_ref().is_some_and(over) {
            self.unhalt();
        }
        // Who waits for this finds the rest told.
        self.stream.set_applied(progress.offset);
        Ok(())
    }

    /// What follows from an error of a batch that goes up to `last`, which is about `first` if it does not say. About a
    /// record that was given alone it is certain; else more care is needed, with all of the batch: one that ended
    /// sooner would have the rest of it be refused and given again for each transaction in it.
    fn trouble(&mut self, error: SinkError, first: Offset, last: Offset) -> Trouble {
        match error {
            SinkError::Weather(why) => Trouble::Weather(why),
            SinkError::Again => Trouble::Again,
            SinkError::Refused(mut halt) => {
                let offset = *halt.offset.get_or_insert(first);
                if self.careful.is_some_and(|from| offset >= from) {
                    return Trouble::Halt(halt);
                }
                self.careful_to = last.max(offset).max(match self.careful {
                    Some(_) => self.careful_to,
                    None => Offset::ZERO,
                });
                self.careful = Some(offset);
                Trouble::Again
            }
        }
    }

    fn weather(&self, why: String) {
        if self.shared.lock().1.as_ref() != Some(&why) {
            warn!(stream = %self.stream.id(), why, "cannot apply now; trying again");
        }
        let state = self.halted.as_ref().map_or(State::Waiting, |_| State::Halted);
        self.shared.failed(state, why);
    }

    fn halt(&mut self, halt: Halt) {
        // Other halts are about no change.
        if halt.offset.is_some() && self.begun.is_some() {
            self.shared.refused(self.copying);
        }
        if self.halted.as_ref() != Some(&halt) {
            if let Some(conflict) = Conflict::of(&halt.code) {
                self.shared.tally.conflicts.count(conflict, 1);
            }
            error!(
                stream = %self.stream.id(), code = halt.code, offset = halt.offset.map(Offset::get),
                table = halt.table, key = halt.key, detail = halt.detail, "the stream is halted"
            );
        }
        self.shared.failed(State::Halted, halt.detail.clone());
        self.shared.standing().stand(Some((halt.clone(), self.begun)));
        self.halted = Some(halt.clone());
        self.stream.set_halted(HaltedBy::Apply, Some(halt));
    }

    fn unhalt(&mut self) {
        if self.halted.take().is_none() {
            return;
        }
        self.shared.standing().stand(None);
        info!(stream = %self.stream.id(), "the stream goes on");
        self.stream.set_halted(HaltedBy::Apply, None);
    }

    /// Waits until it is time for another try; true if somebody asked for it.
    async fn pause(&mut self, pause: Duration) -> Result<bool, Trouble> {
        let over = sleep(pause);
        tokio::pin!(over);
        loop {
            self.check_stop()?;
            if self.told.borrow_and_update().retries != self.retries {
                return Ok(true);
            }
            tokio::select! {
                () = &mut over => return Ok(false),
                changed = self.told.changed() => changed.map_err(|_| Trouble::Stop)?,
            }
        }
    }

    fn check_stop(&self) -> Result<(), Trouble> {
        match self.told.borrow().stop {
            true => Err(Trouble::Stop),
            false => Ok(()),
        }
    }

    fn is_told_to_leave(&self) -> bool {
        let told = self.told.borrow();
        told.stop || told.paused
    }
}

/// How often a long transaction looks whether it should end.
const STOP_CHECK_RECORDS: usize = 256;
