//! Values of sequences ahead of what is given out, so that a target that takes over gives out none twice.
//!
//! What is told of a sequence lies a head start beyond its next value, and is told again when half of that is used up.
//! The head start is twice what was given out between the last two looks, and at least [`HEAD_MIN`] values: a target
//! is never further ahead than that, and behind only while more than twice as much is given out as just before.

use std::collections::BTreeMap;

use thinwire_engine::model::{Body, Lsn, Object, Sequence};

/// The sequences that have moved, and what was told of each.
#[derive(Debug, Default)]
pub(super) struct Sequences {
    known: BTreeMap<u32, Known>,
    /// What is known held here: only behind it does the stream know all of them.
    as_of: Lsn,
}

#[derive(Debug)]
struct Known {
    /// As it was when it was looked at last.
    object: Object,
    /// How many values were given out between the last two looks.
    given: i64,
    /// What was told.
    ahead: Option<i64>,
}

impl Sequences {
    /// Notes where those are that have ever moved, as of `as_of`.
    pub(super) fn note(&mut self, moved: Vec<Object>, as_of: Lsn) {
        self.as_of = self.as_of.max(as_of);
        for object in moved {
            let given = self.known.get(&object.id).and_then(|it| distance(&it.object, &object));
            let ahead = self.known.get(&object.id).and_then(|it| it.ahead);
            let given = given.unwrap_or(0).max(0);
            self.known.insert(object.id, Known { object, given, ahead });
        }
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
        for known in self.known.values_mut() {
            known.ahead = None;
        }
    }

    /// These were told.
    pub(super) fn told(&mut self, objects: &[Object]) {
        for object in objects {
            if let Some(known) = self.known.get_mut(&object.id) {
                known.ahead = sequence(object).and_then(|it| it.value);
            }
        }
    }
}

impl Known {
    fn due(&self) -> Option<Object> {
        let now = sequence(&self.object)?;
        let (next, step) = (now.value?, now.increment);
        let head = self.given.saturating_mul(2).max(HEAD_MIN);
        let ahead = next.saturating_add(head.saturating_mul(step)).clamp(now.min, now.max);
        if let Some(told) = self.ahead {
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

/// How many values lie between two states of a sequence.
fn distance(from: &Object, to: &Object) -> Option<i64> {
    let (from, to) = (sequence(from)?, sequence(to)?);
    Some(to.value?.saturating_sub(from.value?).saturating_div(to.increment))
}

/// A head start that no gap in numbers hurts, and that is not used up at once.
const HEAD_MIN: i64 = 128;

#[cfg(test)]
mod tests {
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
    fn nothing_is_told_before_the_stream_has_come_so_far() {
        let mut sequences = Sequences::default();
        sequences.note(vec![at(1, 1)], Lsn::new(10));
        assert!(sequences.due(Lsn::new(9)).is_empty() && sequences.is_waiting());
        assert_eq!(sequences.due(Lsn::new(10)).len(), 1);
    }
}
