//! What somebody has decided to leave out: asked for while the stream is halted there, and of what halts it only.

use thinwire_engine::model::{Halt, Offset};
use tokio::sync::oneshot;

/// Where the stream stands, and what is wished about it.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// The halt, and the first record of the transaction or copy that it is about; none if it is about none.
    halt: Option<(Halt, Option<Offset>)>,
    wish: Option<Wish>,
}

/// The wish to go on behind what has halted the stream.
#[derive(Debug)]
pub(super) struct Wish {
    /// The first record of the transaction or copy.
    pub(super) first: Offset,
    pub(super) halt: Halt,
    /// Who wishes it.
    pub(super) by: String,
    /// Whether the answer to its commit was lost.
    pub(super) unanswered: bool,
    told: oneshot::Sender<Result<(), String>>,
}

/// Becomes the outcome of a wish. An error is a sentence.
pub type Outcome = oneshot::Receiver<Result<(), String>>;

impl Standing {
    /// The stream is halted by what begins at `first`, or was and goes on. A wish about the same halt stays: it may have
    /// come while a try was under way.
    pub(super) fn stand(&mut self, halt: Option<(Halt, Option<Offset>)>) {
        let ends = |wish: &mut Wish| {
            let same = (wish.halt.offset, Some(wish.first));
            halt.as_ref().is_none_or(|(halt, first)| (halt.offset, *first) != same)
        };
        if let Some(wish) = self.wish.take_if(ends) {
            let why = halt.as_ref().map_or(WENT_ON, |(halt, _)| &halt.detail);
            let told = match wish.unanswered {
                true => NOT_KNOWN.to_owned(),
                false => format!("it was not left out: {why}"),
            };
            wish.over(Err(told));
        }
        self.halt = halt;
    }

    /// Wishes that what has halted the stream at `offset` is left out.
    pub(super) fn ask(&mut self, offset: Offset, by: String) -> Result<Outcome, String> {
        let Some((halt, first)) = &self.halt else {
            return Err("the stream is not halted by what it applies".to_owned());
        };
        let (Some(at), Some(first)) = (halt.offset, *first) else {
            let code = &halt.code;
            return Err(format!("the stream is halted by {code}, which is about no transaction"));
        };
        if at != offset {
            let code = &halt.code;
            return Err(format!("the stream is halted at {at} ({code}), not at {offset}"));
        }
        if self.wish.is_some() {
            return Err(format!("what begins at {first} is being left out already"));
        }
        let (told, outcome) = oneshot::channel();
        self.wish = Some(Wish { first, halt: halt.clone(), by, unanswered: false, told });
        Ok(outcome)
    }

    /// The wish about what begins at `first`.
    pub(super) fn take(&mut self, first: Offset) -> Option<Wish> {
        self.wish.take_if(|wish| wish.first == first)
    }

    /// It could not be done now, and still can.
    pub(super) fn put_back(&mut self, wish: Wish) {
        self.wish = Some(wish);
    }
}

impl Wish {
    /// Tells what became of it.
    pub(super) fn over(self, outcome: Result<(), String>) {
        // Whoever wished it may have stopped waiting.
        let _ = self.told.send(outcome);
    }
}

const WENT_ON: &str = "the stream went on by itself";
const NOT_KNOWN: &str = "the database did not answer, so it is not known whether it was left out; \
                         `thinwire status` shows it";

#[cfg(test)]
mod tests {
    use super::*;

    fn halt(at: u64) -> Halt {
        Halt { offset: Some(Offset::new(at)), ..Halt::new("constraint", "refused") }
    }

    fn ask(standing: &mut Standing, at: u64) -> Result<Outcome, String> {
        standing.ask(Offset::new(at), "somebody".to_owned())
    }

    #[test]
    fn only_what_halts_the_stream_can_be_left_out_and_only_once() {
        let mut standing = Standing::default();
        assert!(ask(&mut standing, 7).is_err());
        standing.stand(Some((halt(7), None)));
        assert!(ask(&mut standing, 7).unwrap_err().contains("about no transaction"));
        standing.stand(Some((halt(7), Some(Offset::new(5)))));
        assert!(ask(&mut standing, 5).unwrap_err().contains("halted at 7 (constraint), not at 5"));
        let mut outcome = ask(&mut standing, 7).unwrap();
        assert!(ask(&mut standing, 7).unwrap_err().contains("already"));
        assert!(standing.take(Offset::new(7)).is_none());
        let wish = standing.take(Offset::new(5)).unwrap();
        standing.put_back(wish);
        standing.take(Offset::new(5)).unwrap().over(Ok(()));
        assert_eq!(outcome.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn a_wish_ends_with_the_halt_that_it_is_about() {
        let mut standing = Standing::default();
        for (next, expected) in [(None, WENT_ON), (Some((halt(9), None)), "refused")] {
            standing.stand(Some((halt(7), Some(Offset::new(5)))));
            let mut outcome = ask(&mut standing, 7).unwrap();
            standing.stand(next);
            assert_eq!(outcome.try_recv(), Ok(Err(format!("it was not left out: {expected}"))));
        }
    }

    #[test]
    fn a_wish_stays_while_the_same_halts_the_stream_again() {
        let mut standing = Standing::default();
        standing.stand(Some((halt(7), Some(Offset::new(5)))));
        let mut outcome = ask(&mut standing, 7).unwrap();
        standing.stand(Some((halt(7), Some(Offset::new(5)))));
        assert!(outcome.try_recv().is_err());
        standing.take(Offset::new(5)).unwrap().over(Ok(()));
        assert_eq!(outcome.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn what_became_of_a_commit_without_an_answer_is_not_claimed() {
        let mut standing = Standing::default();
        standing.stand(Some((halt(7), Some(Offset::new(5)))));
        let mut outcome = ask(&mut standing, 7).unwrap();
        let mut wish = standing.take(Offset::new(5)).unwrap();
        wish.unanswered = true;
        standing.put_back(wish);
        standing.stand(None);
        assert_eq!(outcome.try_recv(), Ok(Err(NOT_KNOWN.to_owned())));
    }
}
