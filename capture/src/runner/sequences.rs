//! Values of sequences ahead of what is given out, so that a target that takes over gives out none twice.
//!
//! What is told of a sequence lies a head start beyond its next value, and is told again when half of that is used up.
//! The head start is twice what was given out between the last two looks in turn, and at least [`HEAD_MIN`] values: a
//! target is never further ahead than that.
//!
//! A transaction that inserts more rows than half of the least head start, or with which as many were inserted since
//! the last look, is not told before it was looked again, and brings what it used up with it. As more and more is
//! inserted between two looks in turn, and head starts grow with it, it is looked less often in between.

use std::collections::{BTreeMap, BTreeSet};

use thinwire_engine::model::{Body, Dropped, Lsn, Object, Sequence};

/// The sequences that have moved, and what was told of each.
#[derive(Debug, Default)]
pub(super) struct Sequences {
    known: BTreeMap<u32, Known>,
    /// Those that were there at the last look in turn.
    listed: BTreeSet<u32>,
    /// Those that the stream told to be dropped, and where: whoever had looked before may still say where they are.
    dropped: BTreeMap<u32, Lsn>,
    /// What is known held here: only behind it does the stream know all of them.
    as_of: Lsn,
    /// Rows that were inserted in the stream since the last look.
    inserted: u64,
    /// The same since the last look in turn.
    inserted_in_turn: u64,
}

#[derive(Debug)]
struct Known {
    /// As it was when it was looked at last.
    object: Object,
    /// As it was at the last look in turn.
    in_turn: Object,
    /// How many values were given out between the last two looks in turn, or since then, if that is more.
    given: i64,
    /// As the stream tells of it; with no value if none that is ahead was told.
    told: Option<Object>,
}

impl Sequences {
    /// Notes where those are that have ever moved, as of `as_of`, when it is their turn to be looked at.
    pub(super) fn note(&mut self, moved: Vec<Object>, as_of: Lsn) {
        // It was looked at later than that already.
        if as_of < self.as_of {
            return;
        }
        self.inserted_in_turn = 0;
        let listed: BTreeSet<u32> = moved.iter().map(|it| it.id).collect();
        for gone in self.listed.difference(&listed) {
            self.known.remove(gone);
        }
        self.listed = listed;
        let moved = self.moved(moved, as_of);
        self.dropped.retain(|_, at| *at > as_of);
        for object in moved {
            let Some(known) = self.known.get_mut(&object.id) else { continue };
            known.given = distance(&known.in_turn, &object).unwrap_or(0).max(0);
            known.in_turn = object;
        }
    }

    /// Notes where those are that have moved since the last look, as of `as_of`.
    pub(super) fn note_early(&mut self, moved: Vec<Object>, as_of: Lsn) {
        for object in self.moved(moved, as_of) {
            let Some(known) = self.known.get_mut(&object.id) else { continue };
            known.given = known.given.max(distance(&known.in_turn, &object).unwrap_or(0));
        }
    }

    fn moved(&mut self, mut moved: Vec<Object>, as_of: Lsn) -> Vec<Object> {
        moved.retain(|it| self.dropped.get(&it.id).is_none_or(|at| *at <= as_of));
        self.as_of = self.as_of.max(as_of);
        self.inserted = 0;
        for object in &moved {
            match self.known.get_mut(&object.id) {
                Some(known) => known.object.clone_from(object),
                None => drop(self.known.insert(object.id, Known::new(object.clone()))),
            }
        }
        moved
    }

    /// Notes what a schema change in the stream tells of.
    pub(super) fn learn(&mut self, objects: &[Object]) {
        for object in objects.iter().filter(|it| sequence(it).is_some()) {
            let known = self.known.entry(object.id).or_insert_with(|| Known::new(object.clone()));
            known.told = Some(object.clone());
        }
    }

    /// Notes what the stream tells, at `lsn`, to be dropped: nothing more is told of it.
    pub(super) fn forget(&mut self, dropped: &[Dropped], lsn: Lsn) {
        for it in dropped {
            if self.known.remove(&it.id).is_some() {
                self.dropped.insert(it.id, lsn);
            }
        }
    }

    /// Counts rows that a transaction inserts; says whether they may have used up what was told ahead.
    pub(super) fn is_used_up(&mut self, inserted: u64) -> bool {
        self.inserted += inserted;
        self.inserted_in_turn += inserted;
        let half = HEAD_MIN.unsigned_abs() / 2;
        let is_much = inserted > half || self.inserted > half.max(self.inserted_in_turn / 2);
        is_much && self.known.values().any(|it| it.told.is_some())
    }

    /// Whether all that was used up to `lsn` is known.
    pub(super) fn are_known(&self, lsn: Lsn) -> bool {
        self.as_of >= lsn
    }

    /// As they were when they were looked at last.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Object> {
        self.known.values().map(|it| &it.object)
    }

    /// What is to be told where the stream is, although it has not come to where it was looked: of those that it has
    /// told of as they are now, but for their values.
    pub(super) fn due_early(&self) -> Vec<Object> {
        let is_told = |it: &&Known| {
            it.told.as_ref().is_some_and(|told| valueless(told) == valueless(&it.object))
        };
        self.known.values().filter(is_told).filter_map(Known::due).collect()
    }

    /// Whether there is something to tell once the stream has come so far.
    pub(super) fn is_waiting(&self) -> bool {
        self.known.values().any(|it| it.due().is_some())
    }

    /// What is to be told to a stream that has been read up to `seen`.
    pub(super) fn due(&self, seen: Lsn) -> Vec<Object> {
        match seen >= self.as_of {
            true => self.known.values().filter_map(Known::due).collect(),
            false => vec![],
        }
    }

    /// A copy told of them once more, without a head start.
    pub(super) fn tell_again(&mut self) {
        for told in self.known.values_mut().filter_map(|it| it.told.as_mut()) {
            *told = valueless(told);
        }
    }

    /// These were told.
    pub(super) fn told(&mut self, objects: &[Object]) {
        for object in objects {
            if let Some(known) = self.known.get_mut(&object.id) {
                known.told = Some(object.clone());
            }
        }
    }
}

impl Known {
    fn new(object: Object) -> Self {
        Self { in_turn: object.clone(), object, given: 0, told: None }
    }

    fn due(&self) -> Option<Object> {
        let now = sequence(&self.object)?;
        let (next, step) = (now.value?, now.increment);
        let head = self.given.saturating_mul(2).max(HEAD_MIN);
        let ahead = next.saturating_add(head.saturating_mul(step)).clamp(now.min, now.max);
        if let Some(told) = self.told.as_ref().and_then(|it| sequence(it)?.value) {
            let left = told.saturating_sub(next).saturating_div(step);
            if left >= head / 2 || told == ahead {
                return None;
            }
        }
        let body = Body::Sequence(Sequence { value: Some(ahead), ..now.clone() });
        Some(Object { body, ..self.object.clone() })
    }
}

/// A sequence, unless its step is none, which no server has.
fn sequence(object: &Object) -> Option<&Sequence> {
    match &object.body {
        Body::Sequence(sequence) if sequence.increment != 0 && sequence.min <= sequence.max => {
            Some(sequence)
        }
        _ => None,
    }
}

/// A sequence as it is, but for its value.
fn valueless(object: &Object) -> Object {
    let mut object = object.clone();
    if let Body::Sequence(sequence) = &mut object.body {
        sequence.value = None;
    }
    object
}

/// How many values lie between two states of a sequence.
fn distance(from: &Object, to: &Object) -> Option<i64> {
    let (from, to) = (sequence(from)?, sequence(to)?);
    Some(to.value?.saturating_sub(from.value?).saturating_div(to.increment))
}

/// A head start that no gap in numbers hurts, and that is not used up at once.
const HEAD_MIN: i64 = 128;

#[cfg(test)]
mod tests {
    use thinwire_engine::model::Kind;

    use super::*;

    fn at(value: i64, increment: i64) -> Object {
        let body = Body::Sequence(Sequence {
            data_type: "bigint".into(),
            start: 1,
            increment,
            min: -10_000,
            max: 10_000,
            cache: 1,
            cycle: false,
            owned_by: None,
            identity: false,
            value: Some(value),
        });
        let (schema, name, owner) = ("s".into(), "n".into(), "o".into());
        Object { id: 1, schema, name, owner, comment: None, body }
    }

    fn tell(sequences: &mut Sequences, object: Object) -> Option<i64> {
        sequences.note(vec![object], Lsn::ZERO);
        let due = sequences.due(Lsn::ZERO);
        sequences.told(&due);
        due.first().and_then(|it| sequence(it)?.value)
    }

    #[test]
    fn a_sequence_is_told_ahead_and_again_when_half_of_that_is_used_up() {
        let mut sequences = Sequences::default();
        assert_eq!(tell(&mut sequences, at(1, 1)), Some(129));
        assert_eq!(tell(&mut sequences, at(50, 1)), None);
        assert_eq!(tell(&mut sequences, at(65, 1)), None);
        assert_eq!(tell(&mut sequences, at(66, 1)), Some(194));
        // A burst is followed by a longer head start.
        assert_eq!(tell(&mut sequences, at(1_066, 1)), Some(3_066));
        assert_eq!(tell(&mut sequences, at(9_999, 1)), Some(10_000));
        assert_eq!(tell(&mut sequences, at(10_000, 1)), None);
        assert!(!sequences.is_waiting());
    }

    #[test]
    fn one_that_descends_is_told_below() {
        let mut sequences = Sequences::default();
        assert_eq!(tell(&mut sequences, at(-2, -2)), Some(-258));
        assert_eq!(tell(&mut sequences, at(-100, -2)), None);
        assert_eq!(tell(&mut sequences, at(-200, -2)), Some(-456));
    }

    #[test]
    fn many_rows_ask_for_a_look_and_less_often_as_head_starts_grow() {
        let mut sequences = Sequences::default();
        assert!(!sequences.is_used_up(1_000), "there is none");
        assert_eq!(tell(&mut sequences, at(1, 1)), Some(129));
        assert!(!sequences.is_used_up(64) && sequences.is_used_up(1));
        sequences.note_early(vec![at(66, 1)], Lsn::new(5));
        assert!(sequences.are_known(Lsn::new(5)) && !sequences.are_known(Lsn::new(6)));
        // The stream is not there yet, but knows it.
        assert!(sequences.due(Lsn::ZERO).is_empty());
        let due = sequences.due_early();
        assert_eq!(sequence(&due[0]).unwrap().value, Some(196));
        sequences.told(&due);
        let (mut looks, mut next) = (0, 66);
        for _ in 0..2_000 {
            next += 1;
            if sequences.is_used_up(1) {
                looks += 1;
                let left = sequences.known[&1].told.as_ref().and_then(|it| sequence(it)?.value);
                assert!(left.unwrap() > next, "used up at {next}");
                sequences.note_early(vec![at(next, 1)], Lsn::new(5));
                let due = sequences.due_early();
                sequences.told(&due);
            }
        }
        assert!(looks < 20, "{looks}");
        assert!(sequences.is_used_up(65), "one transaction with many rows");
    }

    #[test]
    fn what_the_stream_has_not_told_of_or_otherwise_waits() {
        let mut sequences = Sequences::default();
        let renamed = Object { name: "other".into(), ..at(500, 1) };
        sequences.note_early(vec![at(500, 1)], Lsn::new(5));
        assert!(sequences.due_early().is_empty());
        sequences.learn(&[renamed]);
        assert!(sequences.due_early().is_empty());
        sequences.learn(&[at(1, 1)]);
        assert_eq!(sequences.due_early().len(), 1);
        // A look in turn that was older than that changes nothing.
        sequences.note(vec![at(2, 1)], Lsn::new(4));
        assert_eq!(sequence(&sequences.due_early()[0]).unwrap().value, Some(628));
    }

    #[test]
    fn one_that_is_dropped_is_not_told_again() {
        let gone = Dropped { id: 1, kind: Kind::Sequence, schema: "s".into(), name: "n".into() };
        let mut sequences = Sequences::default();
        assert_eq!(tell(&mut sequences, at(1, 1)), Some(129));
        sequences.tell_again();
        assert!(sequences.is_waiting());
        sequences.forget(&[gone], Lsn::new(5));
        assert!(!sequences.is_waiting());
        // Somebody had looked before.
        sequences.note(vec![at(9, 1)], Lsn::new(4));
        sequences.note_early(vec![at(9, 1)], Lsn::new(4));
        assert!(!sequences.is_waiting());
        // Another one that has got its number.
        assert_eq!(tell(&mut sequences, at(3, 1)), None);
        sequences.note(vec![at(3, 1)], Lsn::new(5));
        assert!(sequences.is_waiting());
        // One that nobody has told to be dropped.
        sequences.note(vec![], Lsn::new(6));
        assert!(!sequences.is_waiting());
    }

    #[test]
    fn nothing_is_told_before_the_stream_has_come_so_far() {
        let mut sequences = Sequences::default();
        sequences.note(vec![at(1, 1)], Lsn::new(10));
        assert!(sequences.due(Lsn::new(9)).is_empty() && sequences.is_waiting());
        assert_eq!(sequences.due(Lsn::new(10)).len(), 1);
    }
}
