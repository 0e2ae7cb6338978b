//! Messages of one session to the records that continue a stream: nothing twice, nothing void, nothing empty.
//!
//! - A `Begin` is written before the first record of its transaction, so a transaction that changes nothing captured
//!   leaves no trace.
//! - A `Relation` is written before a row exactly when the session's description differs from the one in force in
//!   the stream. What a transaction becomes therefore depends on the stream's tail and the transaction alone, not
//!   on what the session sent before, and a transaction that is sent again becomes the same records.
//! - Rows of tables that no copy has brought into the stream are dropped: their copy will hold them.
//! - A row that comes without all its values makes its table stale: a filter let it in by an update, which does not send
//!   what it left where it was.
//! - Rows of tables that a schema change in the same transaction says are born here pass; those of stale ones are dropped.
//!   Every change of a table that is stale or was never copied says so again.
//! - Transactions replayed from another node (an origin named `thinwire_…`) are dropped, and so are those before the
//!   stream's last commit or mark, which it holds or was not to capture. Of a foreign one stays which tables were born
//!   and which are gone or stale: what is changed in them here from then on is our own.
//! - A session that starts inside a transaction of which the stream holds a part drops exactly that part, and only
//!   if its hash is the one the stream recorded. Otherwise the part is aborted, and the session must start over.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Message, Misread};
use crate::{
    codec::{encode, put_varint},
    journal::{Open, Tail},
    model::{
        Body, Definitions, Kind, Lsn, Object, Record, Relation, RelationId, Row, Running, Schema,
        Timestamp, Value,
    },
};

/// Replication origins whose names begin with this are Thinwire's own: what they replay was captured elsewhere.
pub const OWN_ORIGIN_PREFIX: &str = "thinwire_";

/// Turns messages into records. One lives as long as one session, and must be told of copies.
#[derive(Debug)]
pub struct Translator {
    known: HashMap<RelationId, Known>,
    in_force: BTreeMap<RelationId, Relation>,
    copied: BTreeSet<RelationId>,
    /// Transactions whose commit record begins before this are held, or were not captured.
    held: Lsn,
    /// Messages outside of transactions that were written before this are held.
    floor: Lsn,
    /// The transaction of which the stream holds a part, until its rest has begun.
    resume: Option<Open>,
    transaction: Option<Transaction>,
    broken: bool,
    scratch: Vec<u8>,
}

/// What came of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on.
    Next,
    /// A transaction is over.
    Ended {
        /// Where its commit record ends.
        end: Lsn,
        /// Whether anything of it is in the stream.
        emitted: bool,
    },
    /// The part of a transaction that the stream holds is not what the source sends now. It was aborted; the
    /// session must be started over, so that the source sends it again from its beginning.
    Restart,
}

/// The transaction that the last message stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InTransaction {
    /// Its id at the source.
    pub xid: u32,
    /// Where its commit record begins.
    pub lsn: Lsn,
    /// Whether a part of it is in the stream.
    pub emitted: bool,
}

/// A table as the session described it last.
#[derive(Debug)]
struct Known {
    relation: Relation,
    copied: bool,
    /// Whether it is known to be the one in force in the stream.
    in_force: bool,
}

#[derive(Debug)]
struct Transaction {
    xid: u32,
    lsn: Lsn,
    time: Timestamp,
    fate: Fate,
    /// What a foreign transaction leaves behind: tables that were born in it, and tables that are gone.
    left: Schema,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The stream holds all of it.
    Held,
    /// Another node's, replayed here.
    Foreign,
    /// Nothing of it is in the stream yet.
    Fresh,
    /// It is being compared with the part that the stream holds.
    Compared { records: u64, hash: Running },
    /// Its records go to the stream.
    Emitted,
}

impl Translator {
    /// A translator for a session that continues the stream with this tail.
    pub fn new(tail: &Tail) -> Self {
        let resume = tail.open.filter(|open| open.xid.is_some());
        let ends = [
            tail.mark.map(|mark| mark.lsn),
            tail.last_commit.map(|(_, end)| end),
            // All that was written before a transaction's commit was sent before the transaction.
            resume.map(|open| open.lsn),
        ];
        Self {
            known: HashMap::new(),
            in_force: tail.relations.clone(),
            copied: tail.copied.clone(),
            held: ends[..2].iter().copied().flatten().max().unwrap_or_default(),
            floor: ends.into_iter().flatten().max().unwrap_or_default(),
            resume,
            transaction: None,
            broken: false,
            scratch: Vec::new(),
        }
    }

    /// What must be appended before anything else: the end of a copy that its reader did not live to finish.
    pub fn opening(tail: &Tail) -> Option<Record> {
        let open = tail.open?;
        open.xid.is_none().then_some(Record::CopyAbort)
    }

    /// Follows what was appended by somebody else, between transactions: a copy.
    pub fn refresh(&mut self, tail: &Tail) {
        self.in_force.clone_from(&tail.relations);
        self.copied.clone_from(&tail.copied);
        for (id, known) in &mut self.known {
            known.copied = self.copied.contains(id);
            known.in_force = false;
        }
    }

    /// Drops rows of these tables from here on, until a copy brings them in anew.
    pub fn forget(&mut self, tables: &BTreeSet<RelationId>) {
        for id in tables {
            self.copied.remove(id);
            if let Some(known) = self.known.get_mut(id) {
                known.copied = false;
            }
        }
    }

    /// The transaction that the last message stands in; none between two.
    pub fn transaction(&self) -> Option<InTransaction> {
        self.transaction.as_ref().map(|it| InTransaction {
            xid: it.xid,
            lsn: it.lsn,
            emitted: matches!(it.fate, Fate::Emitted | Fate::Compared { .. }),
        })
    }

    /// Whether a part of a transaction is in the stream whose rest has not come yet.
    pub fn is_resuming(&self) -> bool {
        self.resume.is_some()
    }

    /// Where in the source's log the change that `message` is takes effect, if it is one of those tables (any change
    /// at all for `None`) and neither held nor another node's.
    pub fn touches(&self, message: &Message, tables: Option<&BTreeSet<RelationId>>) -> Option<Lsn> {
        let is_wanted = |id: &RelationId| tables.is_none_or(|tables| tables.contains(id));
        match message {
            Message::Insert { relation, .. }
            | Message::Update { relation, .. }
            | Message::Delete { relation, .. } => is_wanted(relation).then_some(())?,
            Message::Truncate { relations, .. } => {
                relations.iter().find(|id| is_wanted(id)).map(drop)?
            }
            Message::Logical { transactional: false, lsn, .. } => {
                return (tables.is_none() && *lsn >= self.floor).then_some(*lsn);
            }
            Message::Logical { .. } if tables.is_none() => {}
            _ => return None,
        }
        let transaction = self.transaction.as_ref()?;
        matches!(transaction.fate, Fate::Fresh | Fate::Emitted).then_some(transaction.lsn)
    }

    /// Takes notice that all transactions that were committed before `lsn` have been sent, between two of them. One
    /// of which a part is held and that did not come by then will not come any more.
    pub fn passed(&mut self, lsn: Lsn, out: &mut Vec<Record>) -> Step {
        match self.resume {
            Some(open) if open.lsn < lsn && self.transaction.is_none() => self.abort(out),
            _ => Step::Next,
        }
    }

    /// Gives up the current transaction: what the stream holds of it is void. The session must be started over.
    pub fn abandon(&mut self, out: &mut Vec<Record>) -> Step {
        match self.transaction() {
            Some(InTransaction { emitted: true, .. }) => self.abort(out),
            _ => {
                self.broken = true;
                Step::Restart
            }
        }
    }

    /// Takes the next message of the session; the records that it becomes are pushed to `out`.
    ///
    /// # Errors
    /// [`Misread`] for a message where none of its kind can stand.
    pub fn take(&mut self, message: Message, out: &mut Vec<Record>) -> Result<Step, Misread> {
        if self.broken {
            return Ok(Step::Restart);
        }
        match message {
            Message::Begin { final_lsn, time, xid } => self.begin(final_lsn, time, xid),
            Message::Commit { end, .. } => self.commit(end, out),
            Message::Origin { name } => self.origin(&name),
            Message::Relation(relation) => {
                let copied = self.copied.contains(&relation.id);
                self.known.insert(relation.id, Known { relation, copied, in_force: false });
                Ok(Step::Next)
            }
            Message::Type => Ok(Step::Next),
            Message::Insert { relation, new } if new.0.contains(&Value::Unchanged) => {
                self.incomplete(relation, &new, out)
            }
            Message::Insert { relation, new } => {
                let gate = self.change(relation, &[&new], out)?;
                Ok(self.put(gate, Record::Insert { relation, new }, out))
            }
            Message::Update { relation, old, new } => {
                let gate = match &old {
                    Some(row) => self.change(relation, &[row.row(), &new], out)?,
                    None => self.change(relation, &[&new], out)?,
                };
                Ok(self.put(gate, Record::Update { relation, old, new }, out))
            }
            Message::Delete { relation, old } => {
                let gate = self.change(relation, &[old.row()], out)?;
                Ok(self.put(gate, Record::Delete { relation, old }, out))
            }
            Message::Truncate { relations, cascade, restart_identity } => {
                self.truncate(relations, cascade, restart_identity, out)
            }
            Message::Logical { transactional, lsn, prefix, content } => {
                let record = Record::Message { transactional, lsn, prefix, content };
                self.logical(transactional, lsn, record, out)
            }
        }
    }

    /// Takes a change of the source's schema that stands here in the current transaction: objects, tables that are
    /// born, and tables whose rows changed untold.
    ///
    /// # Errors
    /// [`Misread`] between transactions.
    pub fn schema(
        &mut self,
        definitions: &Definitions,
        born: Vec<RelationId>,
        mut stale: Vec<RelationId>,
        out: &mut Vec<Record>,
    ) -> Result<Step, Misread> {
        if self.broken {
            return Ok(Step::Restart);
        }
        let gone = definitions.dropped.iter().filter(|it| it.kind == Kind::Table);
        let gone: Vec<RelationId> = gone.map(|it| RelationId(it.id)).collect();
        self.in_transaction()?;
        if let Some(Transaction { fate: Fate::Foreign, left, .. }) = &mut self.transaction {
            left.born.retain(|id| !gone.contains(id));
            left.born.extend(born);
            left.stale.extend(stale);
            left.stale.extend(gone);
            return Ok(Step::Next);
        }
        stale.extend(gone);
        for id in self.uncopied(definitions) {
            if !born.contains(&id) && !stale.contains(&id) {
                stale.push(id);
            }
        }
        self.put_schema(Schema { born, stale, definitions: definitions.encode() }, out)
    }

    /// Tables that are told of while their rows at the target are not those of here: their copy is still to come. Rows
    /// of partitions are their root's. One that is told of for the sake of those that inherit from it need not be captured.
    fn uncopied(&self, definitions: &Definitions) -> Vec<RelationId> {
        let tables = || {
            definitions.objects.iter().filter_map(|object| match &object.body {
                Body::Table(table) => Some((object, table)),
                _ => None,
            })
        };
        let has_heirs = |object: &Object| {
            let is = |(schema, name): &(String, String)| {
                (schema, name) == (&object.schema, &object.name)
            };
            tables().any(|(_, table)| table.inherits.iter().any(is))
        };
        let ids = tables()
            .filter(|(object, table)| table.partition_of.is_none() && !has_heirs(object))
            .map(|(object, _)| RelationId(object.id));
        ids.filter(|id| !self.copied.contains(id)).collect()
    }

    /// Whether what stands here in the current transaction goes to the stream, or is compared with what it holds.
    pub fn is_heeded(&self) -> bool {
        let ignored = |it: &Transaction| matches!(it.fate, Fate::Held | Fate::Foreign);
        self.transaction.as_ref().is_some_and(|it| !ignored(it))
    }

    fn begin(&mut self, lsn: Lsn, time: Timestamp, xid: u32) -> Result<Step, Misread> {
        if self.transaction.is_some() {
            return Err(Misread::OutOfPlace("a transaction inside another"));
        }
        let fate = if lsn < self.held { Fate::Held } else { Fate::Fresh };
        self.transaction = Some(Transaction { xid, lsn, time, fate, left: Schema::default() });
        Ok(Step::Next)
    }

    fn origin(&mut self, name: &str) -> Result<Step, Misread> {
        let transaction = self.transaction.as_mut();
        let transaction =
            transaction.ok_or(Misread::OutOfPlace("an origin without a transaction"))?;
        if name.starts_with(OWN_ORIGIN_PREFIX) && transaction.fate == Fate::Fresh {
            transaction.fate = Fate::Foreign;
        }
        Ok(Step::Next)
    }

    fn commit(&mut self, end: Lsn, out: &mut Vec<Record>) -> Result<Step, Misread> {
        match self.leave_behind(out)? {
            Step::Next => {}
            step => return Ok(step),
        }
        let transaction = self.transaction.take();
        let transaction = transaction.ok_or(Misread::OutOfPlace("a commit without a begin"))?;
        match transaction.fate {
            Fate::Emitted => {
                out.push(Record::Commit { end });
                Ok(Step::Ended { end, emitted: true })
            }
            Fate::Compared { .. } => Ok(self.abort(out)),
            // It is another one now: nothing of it is captured any more.
            _ if self.is_resumed_by(&transaction) => Ok(self.abort(out)),
            _ => Ok(Step::Ended { end, emitted: false }),
        }
    }

    /// Writes what a foreign transaction leaves behind, if it does.
    fn leave_behind(&mut self, out: &mut Vec<Record>) -> Result<Step, Misread> {
        let Some(transaction) = &mut self.transaction else { return Ok(Step::Next) };
        let mut left = std::mem::take(&mut transaction.left);
        if transaction.fate != Fate::Foreign || left.born.is_empty() && left.stale.is_empty() {
            return Ok(Step::Next);
        }
        transaction.fate = Fate::Fresh;
        left.definitions = Definitions::default().encode();
        self.put_schema(left, out)
    }

    /// A row that a filter let in by an update of its key: what the update left where it was is not sent with it, and
    /// nobody who has not the row knows it. Its table is copied anew.
    fn incomplete(
        &mut self,
        relation: RelationId,
        new: &Row,
        out: &mut Vec<Record>,
    ) -> Result<Step, Misread> {
        let known = self.known.get(&relation).ok_or(NOT_DESCRIBED)?;
        if new.0.len() != known.relation.columns.len() {
            return Err(Misread::OutOfPlace("a row that is not as its table was described"));
        }
        if !known.copied {
            return self.in_transaction().map(|_| Step::Next);
        }
        let definitions = Definitions::default().encode();
        self.put_schema(Schema { born: vec![], stale: vec![relation], definitions }, out)
    }

    fn put_schema(&mut self, schema: Schema, out: &mut Vec<Record>) -> Result<Step, Misread> {
        let gate = self.gate(out)?;
        if !matches!(gate, Gate::Shut(_)) {
            self.forget(&schema.stale.iter().copied().collect());
            self.copied.extend(&schema.born);
        }
        Ok(self.put(gate, Record::Schema(schema), out))
    }

    fn truncate(
        &mut self,
        mut relations: Vec<RelationId>,
        cascade: bool,
        restart_identity: bool,
        out: &mut Vec<Record>,
    ) -> Result<Step, Misread> {
        let mut gate = Gate::Shut(Step::Next);
        for &id in &relations {
            match self.change(id, &[], out)? {
                Gate::Shut(Step::Next) => {}
                Gate::Shut(step) => return Ok(step),
                open => gate = open,
            }
        }
        relations.retain(|id| self.copied.contains(id));
        Ok(self.put(gate, Record::Truncate { relations, cascade, restart_identity }, out))
    }

    fn logical(
        &mut self,
        transactional: bool,
        lsn: Lsn,
        record: Record,
        out: &mut Vec<Record>,
    ) -> Result<Step, Misread> {
        if transactional {
            let gate = self.gate(out)?;
            return Ok(self.put(gate, record, out));
        }
        if self.transaction.is_some() {
            return Err(Misread::OutOfPlace("a message outside of transactions inside of one"));
        }
        if lsn < self.floor {
            return Ok(Step::Next);
        }
        if self.resume.is_some() {
            return Ok(self.abort(out));
        }
        out.push(record);
        Ok(Step::Next)
    }

    /// Prepares for a change of one table: the transaction has begun and the table is described.
    fn change(
        &mut self,
        id: RelationId,
        rows: &[&Row],
        out: &mut Vec<Record>,
    ) -> Result<Gate, Misread> {
        let known = self.known.get(&id).ok_or(NOT_DESCRIBED)?;
        if rows.iter().any(|row| row.0.len() != known.relation.columns.len()) {
            return Err(Misread::OutOfPlace("a row that is not as its table was described"));
        }
        if !known.copied {
            return self.in_transaction().map(|_| Gate::Shut(Step::Next));
        }
        let in_force = known.in_force;
        let gate = self.gate(out)?;
        // What is compared was described when it was written.
        if gate == Gate::Open && !in_force {
            self.describe(id, out);
        }
        Ok(gate)
    }

    /// Writes the table's description, unless it is the one in force.
    fn describe(&mut self, id: RelationId, out: &mut Vec<Record>) {
        let Some(known) = self.known.get_mut(&id) else { return };
        known.in_force = true;
        if self.in_force.get(&id) != Some(&known.relation) {
            self.in_force.insert(id, known.relation.clone());
            out.push(Record::Relation(known.relation.clone()));
        }
    }

    fn in_transaction(&self) -> Result<&Transaction, Misread> {
        self.transaction.as_ref().ok_or(Misread::OutOfPlace("a change without a transaction"))
    }

    /// Where a record of the current transaction goes. Begins the transaction if this is its first.
    fn gate(&mut self, out: &mut Vec<Record>) -> Result<Gate, Misread> {
        let &Transaction { xid, lsn, time, fate, .. } = self.in_transaction()?;
        match fate {
            Fate::Held | Fate::Foreign => return Ok(Gate::Shut(Step::Next)),
            Fate::Emitted => return Ok(Gate::Open),
            Fate::Compared { .. } => return Ok(Gate::Compare),
            Fate::Fresh => {}
        }
        let begin = Record::Begin { xid, lsn, time };
        match self.resume {
            None => {
                self.set_fate(Fate::Emitted);
                out.push(begin);
                Ok(Gate::Open)
            }
            Some(open) if open.xid == Some(xid) && open.lsn == lsn => {
                self.set_fate(Fate::Compared { records: 0, hash: Running::START });
                match self.compare(&begin, out) {
                    Step::Next => self.gate(out),
                    step => Ok(Gate::Shut(step)),
                }
            }
            Some(_) => Ok(Gate::Shut(self.abort(out))),
        }
    }

    fn put(&mut self, gate: Gate, record: Record, out: &mut Vec<Record>) -> Step {
        match gate {
            Gate::Open => {
                out.push(record);
                Step::Next
            }
            Gate::Compare => self.compare(&record, out),
            Gate::Shut(step) => step,
        }
    }

    /// Counts a record among those that the stream holds already.
    fn compare(&mut self, record: &Record, out: &mut Vec<Record>) -> Step {
        let (Some(open), Some(transaction)) = (self.resume, &mut self.transaction) else {
            return self.abort(out);
        };
        let Fate::Compared { records, hash } = transaction.fate else { return self.abort(out) };
        self.scratch.clear();
        encode(record, &mut self.scratch);
        let mut length = Vec::with_capacity(10);
        put_varint(self.scratch.len() as u64, &mut length);
        let (records, hash) = (records + 1, hash.extend(&length).extend(&self.scratch));
        self.scratch.shrink_to(SCRATCH_BYTES);
        if records < open.records {
            transaction.fate = Fate::Compared { records, hash };
            return Step::Next;
        }
        if hash != open.hash {
            return self.abort(out);
        }
        transaction.fate = Fate::Emitted;
        self.resume = None;
        Step::Next
    }

    fn is_resumed_by(&self, transaction: &Transaction) -> bool {
        self.resume
            .is_some_and(|open| open.xid == Some(transaction.xid) && open.lsn == transaction.lsn)
    }

    fn set_fate(&mut self, fate: Fate) {
        if let Some(transaction) = &mut self.transaction {
            transaction.fate = fate;
        }
    }

    fn abort(&mut self, out: &mut Vec<Record>) -> Step {
        out.push(Record::Abort);
        self.resume = None;
        self.broken = true;
        Step::Restart
    }
}

/// Where a record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// To the stream.
    Open,
    /// To the comparison with what the stream holds.
    Compare,
    /// Nowhere.
    Shut(Step),
}

const NOT_DESCRIBED: Misread = Misread::OutOfPlace("a row of a table that was not described");

/// What is kept of the buffer for comparing, so that one large row does not occupy memory for ever.
const SCRATCH_BYTES: usize = 64 << 10;
