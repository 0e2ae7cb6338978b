//! The order in which objects are made: as they are told, which is by kind and age. One that was changed may need a
//! younger one, so what lacks another has its turn again behind the rest, as long as anything is made in between.

use std::collections::{BTreeMap, VecDeque};

use thinwire_engine::model::{Definitions, Object};

use super::{Failure, Subject, Work, failed, remembered};
use crate::{
    SinkError,
    schema::{self, Known},
    sql::{
        objects as sql,
        schema::{Attempt, LACKS_ANOTHER},
    },
};

/// What has become of an object.
#[derive(Default)]
pub(super) struct Made {
    /// What it was told to be before.
    pub(super) was: Option<Object>,
    /// Whether it was not here.
    pub(super) is_new: bool,
    /// What it lacks, if it is a table whose columns are there: steps, each with its ways.
    pub(super) rest: VecDeque<Vec<Attempt>>,
    /// What it lacks that refers to other tables.
    pub(super) references: Vec<Vec<Attempt>>,
}

/// What has its turn.
enum Turn {
    /// An object, by its place among those that are told.
    Object(usize),
    /// What a table lacks: the first step of it.
    Rest(Subject, VecDeque<Vec<Attempt>>),
}

/// Who has its turn when.
struct Turns<T> {
    queue: VecDeque<T>,
    /// How many have waited since the last that had not to.
    waiting: usize,
    /// What the first of these lacked: the likely reason of the others.
    why: Option<SinkError>,
}

impl<T> Turns<T> {
    fn new(all: impl Iterator<Item = T>) -> Self {
        Self { queue: all.collect(), waiting: 0, why: None }
    }

    fn next(&mut self) -> Option<T> {
        self.queue.pop_front()
    }

    /// One has had its turn, and this is what is left of it.
    fn done(&mut self, left: Option<T>) {
        (self.waiting, self.why) = (0, None);
        if let Some(left) = left {
            self.queue.push_front(left);
        }
    }

    /// One waits for another. An error if all others do.
    fn wait(&mut self, turn: T, why: SinkError) -> Result<(), SinkError> {
        let why = self.why.get_or_insert(why);
        if self.waiting >= self.queue.len() {
            return Err(why.clone());
        }
        self.waiting += 1;
        self.queue.push_back(turn);
        Ok(())
    }
}

impl Work {
    /// Makes all objects what they are told to be, each when what it needs is there.
    pub(super) async fn make(
        &self,
        known: &mut Known,
        definitions: &Definitions,
    ) -> Result<BTreeMap<usize, Made>, SinkError> {
        let told = definitions.objects.iter().enumerate();
        let told = told.filter(|(_, told)| !schema::awaits_table(told, known, definitions));
        let mut turns = Turns::new(told.map(|(at, _)| Turn::Object(at)));
        let mut all = BTreeMap::new();
        while let Some(mut turn) = turns.next() {
            self.client.batch_execute(sql::SAVE_TURN).await.map_err(failed)?;
            match self.turn(&mut turn, known, definitions, &mut all).await {
                Ok(left) => {
                    self.client.batch_execute(sql::KEEP_TURN).await.map_err(failed)?;
                    turns.done(left);
                }
                Err(failure) if failure.is_one_of(&LACKS_ANOTHER) => {
                    turns.wait(turn, failure.error)?;
                    self.client.batch_execute(sql::UNDO_TURN).await.map_err(failed)?;
                }
                Err(failure) => return Err(failure.error),
            }
        }
        Ok(all)
    }

    /// Takes a turn and returns what is left of it. If it fails, nothing has become of it.
    async fn turn(
        &self,
        turn: &mut Turn,
        known: &mut Known,
        definitions: &Definitions,
        all: &mut BTreeMap<usize, Made>,
    ) -> Result<Option<Turn>, Failure> {
        let (subject, rest) = match turn {
            Turn::Object(at) => {
                let told = &definitions.objects[*at];
                let was = known.get(told.body.kind(), told.id).cloned();
                let mut made = self.object(was, told, known, definitions).await?;
                self.remember(made.was.as_ref(), told).await?;
                known.insert(remembered(told));
                let rest = std::mem::take(&mut made.rest);
                all.insert(*at, made);
                (Subject::of(told), rest)
            }
            Turn::Rest(subject, rest) => {
                if let Some(step) = rest.front() {
                    self.attempt(subject, step).await?;
                }
                rest.pop_front();
                (subject.clone(), std::mem::take(rest))
            }
        };
        Ok((!rest.is_empty()).then_some(Turn::Rest(subject, rest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each has a name, and the name of what it needs, if it needs anything.
    fn order(all: &[(&'static str, &'static str)]) -> Result<Vec<&'static str>, SinkError> {
        let (mut turns, mut made) = (Turns::new(all.iter()), Vec::new());
        while let Some(turn @ (name, needs)) = turns.next() {
            match needs.is_empty() || made.contains(needs) {
                true => {
                    made.push(*name);
                    turns.done(None);
                }
                false => turns.wait(turn, SinkError::Weather(format!("{name} lacks {needs}")))?,
            }
        }
        Ok(made)
    }

    #[test]
    fn what_lacks_another_comes_behind_it_and_the_rest_keeps_its_order() {
        let told = [("a", "d"), ("b", ""), ("c", "a"), ("d", "e"), ("e", ""), ("f", "")];
        assert_eq!(order(&told), Ok(vec!["b", "e", "f", "d", "a", "c"]));
    }

    #[test]
    fn what_nobody_makes_is_the_reason_and_not_what_waits_for_it() {
        let why = |text: &str| Err(SinkError::Weather(text.to_owned()));
        assert_eq!(order(&[("a", ""), ("b", "x"), ("c", "b")]), why("b lacks x"));
        assert_eq!(order(&[("b", "c"), ("c", "b")]), why("b lacks c"));
        assert_eq!(order(&[("a", "x")]), why("a lacks x"));
    }

    #[test]
    fn what_is_left_of_a_turn_comes_next() {
        let mut turns = Turns::new(["a", "b"].into_iter());
        assert_eq!(turns.next(), Some("a"));
        turns.done(Some("rest of a"));
        assert_eq!(turns.next(), Some("rest of a"));
        assert_eq!(turns.wait("rest of a", SinkError::Again), Ok(()));
        assert_eq!((turns.next(), turns.next()), (Some("b"), Some("rest of a")));
    }
}
