//! When a copy is made and where it goes in the stream.
//!
//! The position of a copy is known only when its snapshot is there, and the stream goes on meanwhile. What is committed
//! before the preparation began lies before any snapshot. From then on a change of a table that is going to be copied
//! is *in doubt*: it may belong before the copy or behind it, so reading stops at it. Changes of other tables pass. If
//! none of the copied tables changed between the snapshot and the place where the copy stands, the rows are those of
//! that place as well, so the copy is exact. If a transaction that is already begun in the stream turns out to belong
//! behind the copy, it is aborted, and the source sends it again.
//!
//! A table that leaves the publication and comes back has missed changes, so it is copied again. `init` says in the log
//! which tables it adds; that others were away, or published otherwise, is journaled as soon as it is seen.
//!
//! Changes of the schema are in doubt whatever they are about: a copy that holds a table as it was before must not stand
//! behind what tells that it is another one since.
//!
//! A copy for a peer that joins stands in the middle of tables that are live, so every change is in doubt.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use thinwire_engine::{
    Error as JournalError,
    journal::{Pressure, Stream},
    limits::AUDIENCE_MAX,
    model::{Halt, HaltedBy, Lsn, Offset, RelationId},
    pgoutput::{InTransaction, Message, Translator},
};
use tokio::time::Instant;

use super::{Request, backoff, poll::Tables};
use crate::{
    Options,
    copy::{Preparation, Prepared, Target, describe, extent},
    error::Error,
    schema, sql,
};

/// The copies that are to be made, one after the other.
#[derive(Debug, Default)]
pub(super) struct Copies {
    requests: VecDeque<Request>,
    job: Option<Job>,
    not_before: Option<Instant>,
    failures: u32,
    /// How often in a row reading was held up for too long.
    impatience: u32,
    stall: Duration,
    halt: Option<Halt>,
    error: Option<String>,
    /// Tables that were copied and are not, or were not all the time, published.
    left: BTreeSet<RelationId>,
    /// Tables that were copied when it was last looked at which are published.
    known: BTreeSet<RelationId>,
    /// The room that there was for the copy that was begun last.
    room: u64,
    /// What a copy needs at the least, because one did not fit that the estimate said would.
    needs: u64,
    overflowed: bool,
}

#[derive(Debug)]
struct Job {
    wanted: Wanted,
    /// What is committed before this lies before the copy.
    from: Lsn,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Preparing(Preparation),
    Ready(Box<Prepared>),
}

/// What a copy is of and for.
#[derive(Debug)]
pub(super) struct Wanted {
    tables: Vec<RelationId>,
    /// Which tables' changes are in doubt; all for `None`.
    doubted: Option<BTreeSet<RelationId>>,
    request: Option<Request>,
}

impl Wanted {
    /// Whether somebody waits for it.
    pub(super) fn is_requested(&self) -> bool {
        self.request.is_some()
    }

    pub(super) fn target(&self) -> Target {
        self.request.as_ref().map(|request| request.target.clone()).unwrap_or_default()
    }
}

/// What is to be done about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is not concerned.
    Pass,
    /// It must wait for the snapshot.
    Wait,
    /// The copy goes before it.
    Place,
    /// The copy goes before the transaction that it stands in, of which a part is in the stream.
    Abandon,
}

impl Copies {
    /// None yet. Reading is held up for a snapshot for `stall` at first, then longer.
    pub(super) fn new(stall: Duration) -> Self {
        Self { stall, ..Self::default() }
    }

    /// Adds a copy for somebody. What waits becomes one: each costs as much as all tables.
    /// One for more nodes than can be named is refused: it could not be written.
    pub(super) fn request(&mut self, request: Request) {
        let Target { audience, carriers } = &request.target;
        if audience.len().max(carriers.len()) > AUDIENCE_MAX {
            tracing::warn!("a copy for more than {AUDIENCE_MAX} nodes is not made");
            return;
        }
        let refused = match self.requests.back_mut() {
            Some(last) => last.join(request).err(),
            None => Some(request),
        };
        self.requests.extend(refused);
    }

    /// Why a copy cannot be made, for the stream to show.
    pub(super) fn halt(&self) -> Option<Halt> {
        self.halt.clone()
    }

    /// Why the last copy did not come about, until one does.
    pub(super) fn error(&self) -> Option<String> {
        self.error.clone()
    }

    /// Notes which tables are copied, before it is looked at which are published: whoever looks may see less than was
    /// read already, and a table that came in between has left nothing.
    pub(super) fn note(&mut self, stream: &Stream) {
        self.known = stream.tail().copied;
    }

    /// Follows which tables are published.
    pub(super) fn follow(&mut self, stream: &Stream, tables: &Tables) {
        let copied = stream.tail().copied;
        let known = std::mem::replace(&mut self.known, copied.clone());
        let gone = known.into_iter().filter(|id| copied.contains(id) && !tables.contains_key(id));
        self.left.extend(gone);
        // What does not count as copied is copied anyway.
        self.left.retain(|id| copied.contains(id));
    }

    /// Those of the copied tables whose changes were not all seen.
    pub(super) fn left(&self) -> &BTreeSet<RelationId> {
        &self.left
    }

    /// The stream says it of all of them by now.
    pub(super) fn remembered(&mut self) {
        self.left.clear();
    }

    /// Takes out of a copy for everybody what is in the stream by now: tables that were born in it.
    pub(super) fn spare(&self, stream: &Stream, wanted: &Wanted, prepared: &mut Prepared) {
        let copied = stream.tail().copied;
        let is_needed = |id: &RelationId| {
            wanted.request.is_some() || !copied.contains(id) || self.left.contains(id)
        };
        prepared.tables.retain(|(table, _)| is_needed(&table.relation.id));
    }

    /// A copy turned out to be of nothing.
    pub(super) fn spared(&mut self) {
        (self.failures, self.impatience, self.not_before) = (0, 0, None);
    }

    /// Whether it was a copy that did not fit since this was asked last: changes may.
    pub(super) fn take_overflow(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }

    /// Somebody says that what a copy waits for is there.
    pub(super) fn hurry(&mut self) {
        self.not_before = None;
    }

    /// Lets go of a snapshot, which costs the source, while nothing can be done with it.
    pub(super) fn rest(&mut self) {
        if let Some(job) = self.job.take() {
            self.put_back(job.wanted);
        }
    }

    /// Begins the next copy if there is one to be made, it is time, and none is on its way.
    pub(super) async fn begin(&mut self, options: &Options, tables: &Tables) {
        if self.job.is_some() || self.not_before.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let Some(wanted) = self.next(&options.stream, tables) else {
            options.stream.await_room(0, Pressure::None);
            return;
        };
        match start(options, &wanted.tables, self.needs).await {
            Ok((from, preparation)) => {
                self.room = options.stream.copy_allowance().room();
                let stage = Stage::Preparing(preparation);
                self.job = Some(Job { wanted, from, stage });
            }
            Err(refusal) => {
                self.put_back(wanted);
                match refusal {
                    Refusal::Halt(halt) => {
                        self.not_before = Some(Instant::now() + TOO_LARGE_RECHECK);
                        tracing::error!(
                            code = halt.code,
                            detail = halt.detail,
                            "a copy is refused"
                        );
                        options.stream.set_halted(HaltedBy::Capture, Some(halt.clone()));
                        self.halt = Some(halt);
                    }
                    Refusal::Later(why) => {
                        self.error = Some(why);
                        self.not_before = Some(Instant::now() + ROOM_RECHECK);
                    }
                    Refusal::Error(error) => self.postpone(&error),
                }
            }
        }
    }

    /// Tables that no copy has brought into the stream come first, for everybody.
    fn next(&mut self, stream: &Stream, tables: &Tables) -> Option<Wanted> {
        let copied = stream.tail().copied;
        let missing: Vec<RelationId> = tables
            .keys()
            .copied()
            .filter(|id| !copied.contains(id) || self.left.contains(id))
            .collect();
        if !missing.is_empty() {
            let doubted = Some(missing.iter().copied().collect());
            return Some(Wanted { tables: missing, doubted, request: None });
        }
        while let Some(request) = self.requests.pop_front() {
            if request.is_wanted() {
                let tables = tables.keys().copied().collect();
                return Some(Wanted { tables, doubted: None, request: Some(request) });
            }
        }
        None
    }

    /// Whether a snapshot is being waited for.
    pub(super) fn is_preparing(&self) -> bool {
        matches!(self.job, Some(Job { stage: Stage::Preparing(_), .. }))
    }

    /// The position of a copy that waits for its place.
    pub(super) fn ready(&self) -> Option<Lsn> {
        match &self.job {
            Some(Job { stage: Stage::Ready(prepared), .. }) => Some(prepared.lsn),
            _ => None,
        }
    }

    /// Waits for the snapshot. May be dropped and called again; never ends if there is none to wait for.
    pub(super) async fn prepared(&mut self) {
        let Some(Job { stage: Stage::Preparing(preparation), .. }) = &mut self.job else {
            return std::future::pending().await;
        };
        let result = preparation.done().await;
        let Some(job) = self.job.take() else { return };
        match result {
            Ok(prepared) => {
                tracing::info!(lsn = %prepared.lsn, tables = prepared.tables.len(), "a copy is ready");
                self.job = Some(Job { stage: Stage::Ready(Box::new(prepared)), ..job });
            }
            Err(error) => {
                self.put_back(job.wanted);
                self.postpone(&error);
            }
        }
    }

    /// What is to be done about the next message.
    pub(super) fn judge(&self, translator: &Translator, message: &Message) -> Verdict {
        let Some(job) = &self.job else { return Verdict::Pass };
        let place = match &job.stage {
            Stage::Preparing(_) => Place::NotBefore(job.from),
            Stage::Ready(prepared) => Place::At(prepared.lsn),
        };
        judge(place, job.wanted.doubted.as_ref(), translator, message)
    }

    /// How long reading may be held up for a snapshot. Longer and longer, because the transactions that the
    /// snapshot waits for may take their time.
    pub(super) fn patience(&self) -> Duration {
        self.stall.saturating_mul(1 << self.impatience.min(5))
    }

    /// Gives up a snapshot that takes too long, to try again later.
    pub(super) fn give_up(&mut self) {
        if let Some(job) = self.job.take() {
            tracing::info!(
                "a snapshot waits too long for running transactions; it is tried again later"
            );
            self.put_back(job.wanted);
            // As long as changes have waited for it, they now flow.
            self.not_before = Some(Instant::now() + self.patience());
            self.impatience += 1;
        }
    }

    /// Takes the copy that is ready, to be written.
    pub(super) fn take(&mut self) -> Option<(Wanted, Box<Prepared>)> {
        match self.job.take()? {
            Job { wanted, stage: Stage::Ready(prepared), .. } => Some((wanted, prepared)),
            preparing => {
                self.job = Some(preparing);
                None
            }
        }
    }

    /// It is in the stream.
    pub(super) fn done(&mut self, wanted: Wanted, begin: Offset) {
        (self.failures, self.impatience, self.halt, self.not_before) = (0, 0, None, None);
        (self.error, self.needs) = (None, 0);
        if wanted.request.is_none() {
            wanted.tables.iter().for_each(|id| {
                self.left.remove(id);
            });
        }
        if let Some(request) = wanted.request {
            // Who asked may have gone.
            for reply in request.replies {
                let _ = reply.send(begin);
            }
        }
    }

    /// It is not. One that did not fit needs more than there was: each further try asks for more room, until there is
    /// enough or the budget is known to be too small.
    pub(super) fn failed(&mut self, wanted: Wanted, error: &Error) {
        self.put_back(wanted);
        if let Error::Journal(JournalError::Full { .. }) = error {
            self.needs = self.needs.max(self.room + self.room / NEEDS_MORE);
            self.overflowed = true;
        }
        self.postpone(error);
    }

    fn put_back(&mut self, wanted: Wanted) {
        if let Some(request) = wanted.request {
            self.requests.push_front(request);
        }
    }

    fn postpone(&mut self, error: &Error) {
        self.failures += 1;
        let wait = backoff(self.failures);
        self.error = Some(format!("a copy is tried again: {error}"));
        tracing::warn!(%error, ?wait, "a copy is tried again");
        self.not_before = Some(Instant::now() + wait);
    }
}

/// Where a copy goes, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    NotBefore(Lsn),
    At(Lsn),
}

fn judge(
    place: Place,
    doubted: Option<&BTreeSet<RelationId>>,
    translator: &Translator,
    message: &Message,
) -> Verdict {
    let touches = translator.touches(message, doubted.filter(|_| !is_told_by_schema(message)));
    let at = match place {
        Place::NotBefore(from) => {
            return if touches.is_some_and(|lsn| lsn >= from) {
                Verdict::Wait
            } else {
                Verdict::Pass
            };
        }
        Place::At(at) => at,
    };
    // Any transaction that is not in the snapshot goes behind the copy, if it has not begun.
    let lsn = match message {
        Message::Begin { final_lsn, .. } => Some(*final_lsn),
        _ => touches,
    };
    let is_behind = lsn.is_some_and(|lsn| lsn >= at) && !translator.is_resuming();
    match (is_behind, translator.transaction()) {
        (false, _) => Verdict::Pass,
        (true, Some(InTransaction { emitted: true, .. })) => Verdict::Abandon,
        (true, _) => Verdict::Place,
    }
}

/// Whether a message may tell that a table in doubt is another one since: before a copy that holds it as it was, that would
/// be lost.
fn is_told_by_schema(message: &Message) -> bool {
    matches!(message, Message::Logical { prefix, .. } if [schema::PREFIX, schema::ADDED].contains(&&**prefix))
}

enum Refusal {
    Halt(Halt),
    Later(String),
    Error(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Notes where the source is, makes sure that the copy will have room, and begins to prepare it.
async fn start(
    options: &Options,
    tables: &[RelationId],
    needs: u64,
) -> Result<(Lsn, Preparation), Refusal> {
    let client = options.source.connect().await?;
    let row = client.query_one(sql::FLUSHED, &[]).await.map_err(Error::from)?;
    let from: String = row.try_get(0).map_err(Error::from)?;
    let from = from.parse().unwrap_or(Lsn::ZERO);
    let described = describe(&client, &options.publication, tables).await?;
    let mut bytes: u64 = 0;
    for table in described.values() {
        bytes = bytes.saturating_add(extent(&client, table).await?);
    }
    let bytes = bytes.max(needs);
    let (usage, count) = (options.stream.copy_allowance(), tables.len());
    if bytes > usage.budget {
        return Err(Refusal::Halt(Halt::new(
            "copy_too_large",
            format!(
                "copying {count} tables takes about {bytes} bytes, but the journal's budget leaves {} for them: \
                 raise [journal] budget, or capture fewer tables",
                usage.budget
            ),
        )));
    }
    let margin = options.stream.allowance().budget.saturating_sub(usage.budget);
    if !options.stream.await_room(bytes + margin, Pressure::Copies) {
        let why = format!(
            "copying {count} tables takes about {bytes} bytes and waits until the journal has room: there are {}",
            usage.room()
        );
        tracing::info!("{why}");
        return Err(Refusal::Later(why));
    }
    Ok((from, Preparation::start(options, tables)))
}

/// The part by which the next try asks for more room than the last one had.
const NEEDS_MORE: u64 = 4;
const ROOM_RECHECK: Duration = Duration::from_secs(5);
const TOO_LARGE_RECHECK: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use thinwire_engine::{
        codec::Records,
        journal::Tail,
        model::{
            Column, Copy, CopyTable, Origin, Record, Relation, ReplicaIdentity, Row, Timestamp,
            Value,
        },
    };

    use tokio::sync::oneshot;

    use super::*;

    fn wanted() -> Wanted {
        Wanted { tables: vec![RelationId(1)], doubted: None, request: None }
    }

    fn asked(audience: u16, carrier: u16) -> (Request, oneshot::Receiver<Offset>) {
        let origin = |number: u16| Origin::from_bytes([number.to_le_bytes()[0]; 16]);
        let (reply, answer) = oneshot::channel();
        let (audience, carriers) = (vec![origin(audience)], vec![origin(carrier)]);
        (Request { target: Target { audience, carriers }, replies: vec![reply] }, answer)
    }

    #[test]
    fn copies_that_wait_become_one_and_everybody_is_answered() {
        let mut copies = Copies::new(Duration::ZERO);
        let mut answers = Vec::new();
        for (audience, carrier) in [(1, 9), (2, 9), (1, 8), (3, 9)] {
            let (request, answer) = asked(audience, carrier);
            copies.request(request);
            answers.push(answer);
        }
        let request = copies.requests.pop_front().unwrap();
        assert!(copies.requests.is_empty());
        let first =
            |origins: &[Origin]| origins.iter().map(|it| it.as_bytes()[0]).collect::<Vec<_>>();
        assert_eq!(first(&request.target.audience), [1, 2, 3]);
        assert_eq!(first(&request.target.carriers), [9, 8]);
        copies.done(Wanted { request: Some(request), ..wanted() }, Offset::FIRST);
        for mut answer in answers {
            assert_eq!(answer.try_recv(), Ok(Offset::FIRST));
        }
    }

    #[test]
    fn a_copy_is_for_no_more_nodes_than_can_be_named() {
        let (mut request, _answer) = asked(1, 9);
        let many = (0..u16::MAX).take(AUDIENCE_MAX).map(|number| {
            let mut bytes = [7; 16];
            bytes[..2].copy_from_slice(&number.to_le_bytes());
            Origin::from_bytes(bytes)
        });
        request.target.audience = many.collect();
        let mut copies = Copies::new(Duration::ZERO);
        copies.request(request);
        copies.request(asked(200, 9).0);
        assert_eq!(copies.requests.len(), 2);
        let nobody = Origin::from_bytes([0; 16]);
        let (mut one_more, mut answer) = asked(1, 9);
        one_more.target.audience = vec![nobody; AUDIENCE_MAX + 1];
        copies.request(one_more);
        assert_eq!(copies.requests.len(), 2);
        assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn a_copy_that_did_not_fit_asks_for_more_room_each_time_until_one_does() {
        let mut copies = Copies { room: 1_000, ..Copies::new(Duration::ZERO) };
        let full = Error::Journal(JournalError::Full { used: 1_000, budget: 1_000 });
        assert!(!copies.take_overflow());
        copies.failed(wanted(), &full);
        assert!(copies.take_overflow() && !copies.take_overflow());
        assert_eq!(copies.needs, 1_250);
        copies.room = copies.needs;
        copies.failed(wanted(), &full);
        assert_eq!(copies.needs, 1_562);
        copies.failed(wanted(), &Error::Lost("gone".to_owned()));
        assert_eq!(copies.needs, 1_562);
        copies.done(wanted(), Offset::FIRST);
        assert_eq!(copies.needs, 0);
    }

    fn table(id: u32) -> Relation {
        let column = Column { name: "a".into(), key: true, type_oid: 25, type_modifier: -1 };
        Relation {
            id: RelationId(id),
            schema: "s".into(),
            name: format!("t{id}"),
            identity: ReplicaIdentity::Default,
            columns: vec![column],
        }
    }

    fn begin(lsn: u64) -> Message {
        let time = Timestamp::from_micros(0);
        Message::Begin { final_lsn: Lsn::new(lsn), time, xid: 1 }
    }

    fn insert(id: u32) -> Message {
        let new = Row(vec![Value::Bytes(Bytes::from_static(b"x"))]);
        Message::Insert { relation: RelationId(id), new }
    }

    /// Table 1 is captured, table 2 is going to be copied.
    fn translator(messages: &[Message]) -> Translator {
        let mut tail = Tail::default();
        let tables = vec![CopyTable { relation: RelationId(1), rows_estimate: 0 }];
        let copy = Copy { lsn: Lsn::new(1), audience: vec![], carriers: vec![], tables };
        for record in [Record::CopyBegin(copy), Record::CopyEnd { rows: 0 }] {
            tail.observe(&Records::one(&record)).unwrap();
        }
        let mut translator = Translator::new(&tail);
        for table in [table(1), table(2)] {
            translator.take(Message::Relation(table), &mut vec![]).unwrap();
        }
        for message in messages {
            translator.take(message.clone(), &mut vec![]).unwrap();
        }
        translator
    }

    fn verdict(place: Place, before: &[Message], message: &Message) -> Verdict {
        judge(place, Some(&[RelationId(2)].into()), &translator(before), message)
    }

    #[test]
    fn until_the_snapshot_is_there_changes_of_its_tables_wait() {
        let from = Place::NotBefore(Lsn::new(100));
        assert_eq!(verdict(from, &[begin(99)], &insert(2)), Verdict::Pass);
        assert_eq!(verdict(from, &[begin(100)], &insert(2)), Verdict::Wait);
        assert_eq!(verdict(from, &[begin(100), insert(1)], &insert(2)), Verdict::Wait);
        assert_eq!(verdict(from, &[begin(100)], &insert(1)), Verdict::Pass);
        assert_eq!(verdict(from, &[], &begin(100)), Verdict::Pass);
    }

    #[test]
    fn the_copy_goes_before_the_first_transaction_that_is_not_in_its_snapshot() {
        let at = Place::At(Lsn::new(100));
        assert_eq!(verdict(at, &[], &begin(99)), Verdict::Pass);
        assert_eq!(verdict(at, &[begin(99)], &insert(2)), Verdict::Pass);
        assert_eq!(verdict(at, &[], &begin(100)), Verdict::Place);
    }

    #[test]
    fn a_transaction_that_waited_is_put_behind_the_copy_and_aborted_only_if_it_has_begun() {
        let at = Place::At(Lsn::new(100));
        assert_eq!(verdict(at, &[begin(100)], &insert(2)), Verdict::Place);
        assert_eq!(verdict(at, &[begin(100), insert(1)], &insert(2)), Verdict::Abandon);
        // It may go on as long as it does not touch what is copied.
        assert_eq!(verdict(at, &[begin(100), insert(1)], &insert(1)), Verdict::Pass);
    }

    #[test]
    fn a_change_of_the_schema_waits_for_a_snapshot_as_a_change_of_a_copied_table_does() {
        let told = |prefix: &str| Message::Logical {
            transactional: true,
            lsn: Lsn::new(90),
            prefix: prefix.to_owned(),
            content: Bytes::new(),
        };
        let (from, at) = (Place::NotBefore(Lsn::new(100)), Place::At(Lsn::new(100)));
        for prefix in [schema::PREFIX, schema::ADDED] {
            assert_eq!(verdict(from, &[begin(100)], &told(prefix)), Verdict::Wait);
            assert_eq!(verdict(from, &[begin(99)], &told(prefix)), Verdict::Pass);
            assert_eq!(verdict(at, &[begin(100), insert(1)], &told(prefix)), Verdict::Abandon);
        }
        assert_eq!(verdict(from, &[begin(100)], &told("app")), Verdict::Pass);
    }

    #[test]
    fn for_a_peer_that_joins_every_change_waits() {
        let (from, at) = (Place::NotBefore(Lsn::new(100)), Place::At(Lsn::new(100)));
        let lone = |lsn| Message::Logical {
            transactional: false,
            lsn: Lsn::new(lsn),
            prefix: String::new(),
            content: Bytes::new(),
        };
        assert_eq!(judge(from, None, &translator(&[begin(100)]), &insert(1)), Verdict::Wait);
        assert_eq!(judge(from, None, &translator(&[begin(99)]), &insert(1)), Verdict::Pass);
        assert_eq!(judge(from, None, &translator(&[]), &lone(100)), Verdict::Wait);
        assert_eq!(judge(at, None, &translator(&[]), &lone(100)), Verdict::Place);
        assert_eq!(judge(at, None, &translator(&[]), &lone(99)), Verdict::Pass);
    }
}
