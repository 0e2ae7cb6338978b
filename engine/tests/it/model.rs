//! Whatever is done to a stream in whatever order, it is what a list of records would be; what fails is shrunk to
//! the least that does.

use std::sync::Arc;

use proptest::{prelude::*, test_runner::Config};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use thinwire_engine::{
    Error,
    journal::{Journal, Stream},
    model::Offset,
    storage::memory::MemoryDisk,
};

use crate::world::{Model, Random, mark, open, transaction};

/// What can be done. Places are parts of a thousand of what there is.
#[derive(Clone, Debug)]
enum Action {
    Append {
        sizes: Vec<usize>,
        seed: u64,
    },
    /// A sender that begins before the end of what is held.
    AppendAgain {
        place: usize,
        sizes: Vec<usize>,
        seed: u64,
    },
    /// A sender that begins behind it.
    AppendBehind {
        gap: u64,
    },
    Mark,
    Sync,
    Seal,
    Trim {
        place: usize,
        pressed: bool,
    },
    Read {
        place: usize,
    },
    RunningAt {
        place: usize,
    },
    /// The process ends, or is killed: nothing tells the two apart.
    Reopen,
    PowerCut {
        seed: u64,
    },
}

/// The order of things: any.
struct Anything;

impl ReferenceStateMachine for Anything {
    type State = ();
    type Transition = Action;

    fn init_state() -> BoxedStrategy<()> {
        Just(()).boxed()
    }

    fn transitions((): &()) -> BoxedStrategy<Action> {
        let sizes = || {
            let size = prop_oneof![6 => 0..60_usize, 3 => 60..900_usize, 1 => 2_000..6_000_usize];
            prop::collection::vec(size, 0..4)
        };
        let place = || 0..1_000_usize;
        prop_oneof![
            6 => (sizes(), any::<u64>()).prop_map(|(sizes, seed)| Action::Append { sizes, seed }),
            2 => (place(), sizes(), any::<u64>())
                .prop_map(|(place, sizes, seed)| Action::AppendAgain { place, sizes, seed }),
            1 => (1..9_u64).prop_map(|gap| Action::AppendBehind { gap }),
            2 => Just(Action::Mark),
            6 => Just(Action::Sync),
            2 => Just(Action::Seal),
            2 => (place(), any::<bool>())
                .prop_map(|(place, pressed)| Action::Trim { place, pressed }),
            3 => place().prop_map(|place| Action::Read { place }),
            2 => place().prop_map(|place| Action::RunningAt { place }),
            1 => Just(Action::Reopen),
            2 => any::<u64>().prop_map(|seed| Action::PowerCut { seed }),
        ]
        .boxed()
    }

    fn apply((): (), _: &Action) {}
}

/// A stream, and what it must be.
struct Held {
    disk: MemoryDisk,
    journal: Option<(Journal, Arc<Stream>)>,
    model: Model,
}

impl Held {
    fn stream(&self) -> &Arc<Stream> {
        &self.journal.as_ref().expect("open between actions").1
    }

    fn reopen(&mut self, disk: MemoryDisk) {
        self.journal = None;
        self.disk = disk;
        self.journal = Some(open(&self.disk).unwrap());
        let (_, stream) = self.journal.as_ref().unwrap();
        self.model.recovered(stream);
    }

    /// A place among the records up to `last`, from one.
    fn at(place: usize, last: usize) -> usize {
        1 + place * last / 1_000
    }

    fn append_again(&mut self, place: usize, sizes: &[usize], seed: u64) {
        let new = transaction(sizes, &mut Random(seed));
        let first = Self::at(place, self.model.len());
        let held = self.model.len();
        self.model.append(&new);
        let stream = self.stream();
        let sent = self.model.records_from(first);
        // Once without anything new, once with.
        let known = sent.until((held + 1 - first) as u64);
        let first = Offset::new(first as u64);
        if !known.is_empty() {
            assert_eq!(stream.append_at(first, known).unwrap().get() as usize, held);
        }
        assert_eq!(stream.append_at(first, sent).unwrap().get() as usize, self.model.len());
    }

    fn read(&self, place: usize) {
        let (stream, marks) = (self.stream(), self.stream().watermarks());
        let from = Self::at(place, self.model.len());
        match stream.read(Offset::new(from as u64)) {
            Err(Error::Trimmed { .. }) => assert!((from as u64) < marks.first.get()),
            // What is not durable yet cannot be read towards.
            Err(Error::Hole { .. }) => assert!(from > self.model.acked + 1),
            Err(error) => panic!("{error}"),
            Ok(mut reader) => {
                let (mut at, expected) = (from, self.model.records_from(from));
                let mut expected = expected.iter();
                while let Some(block) = reader.next_block().unwrap() {
                    assert_eq!(block.first.get() as usize, at);
                    for record in block.records.iter() {
                        assert_eq!(Some(record), expected.next(), "record {at}");
                        at += 1;
                    }
                }
                assert_eq!(at, from.max(self.model.acked + 1));
            }
        }
    }

    fn running_at(&self, place: usize) {
        let (at, marks) = (Self::at(place, self.model.len()) - 1, self.stream().watermarks());
        let running = self.stream().running_at(Offset::new(at as u64)).unwrap();
        let known = at == 0 || (at <= self.model.acked && at + 1 >= marks.first.get() as usize);
        assert_eq!(running, known.then(|| self.model.running(at)), "behind record {at}");
    }
}

impl StateMachineTest for Held {
    type SystemUnderTest = Self;
    type Reference = Anything;

    fn init_test((): &()) -> Self {
        let mut held = Self { disk: MemoryDisk::new(), journal: None, model: Model::default() };
        held.reopen(MemoryDisk::new());
        held
    }

    fn apply(mut held: Self, (): &(), action: Action) -> Self {
        let stream = held.stream().clone();
        match action {
            Action::Append { sizes, seed } => {
                let records = transaction(&sizes, &mut Random(seed));
                held.model.append(&records);
                assert_eq!(stream.append(records).unwrap().get() as usize, held.model.len());
            }
            Action::AppendAgain { place, sizes, seed } => held.append_again(place, &sizes, seed),
            Action::AppendBehind { gap } => {
                let first = Offset::new(held.model.len() as u64 + 1 + gap);
                let hole = stream.append_at(first, transaction(&[], &mut Random(gap)));
                assert!(matches!(hole, Err(Error::Hole { .. })));
            }
            Action::Mark => {
                held.model.mark += 1;
                stream.mark(mark(held.model.mark)).unwrap();
            }
            Action::Sync => {
                held.model.synced(stream.sync().unwrap());
                assert_eq!(held.model.acked, held.model.len());
            }
            Action::Seal => {
                stream.seal().unwrap();
                assert!(stream.has_staged() || stream.is_sealed());
            }
            Action::Trim { place, pressed } => {
                let upto = Held::at(place, held.model.acked) - 1;
                held.model.trimmed = held.model.trimmed.max(upto);
                stream.trim(Offset::new(upto as u64), pressed).unwrap();
            }
            Action::Read { place } => held.read(place),
            Action::RunningAt { place } => held.running_at(place),
            Action::Reopen => {
                drop(stream);
                held.reopen(held.disk.clone());
            }
            Action::PowerCut { seed } => {
                drop(stream);
                let mut random = Random(seed);
                held.reopen(held.disk.power_cut(&mut |n| random.below(n)));
            }
        }
        held
    }

    fn check_invariants(held: &Self, (): &()) {
        let marks = held.stream().watermarks();
        assert_eq!(marks.appended.get() as usize, held.model.len());
        assert_eq!(marks.synced.get() as usize, held.model.acked);
        assert!(marks.first <= marks.synced.next() && marks.complete <= marks.synced);
        assert!(marks.first.get() as usize <= held.model.trimmed + 1);
        held.model.accounted(&held.disk, held.stream());
    }
}

prop_state_machine! {
    #![proptest_config(Config { cases: 2_000, ..Config::default() })]

    #[test]
    fn a_stream_is_what_a_list_of_records_would_be(sequential 1..64 => Held);
}
