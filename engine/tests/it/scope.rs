//! Every short life of a journal, with every outcome of a power cut at every operation of it.
//!
//! Seeds find what is likely; this finds what is small. `THINWIRE_SCOPE` sets how many things a life does.

use std::sync::Arc;

use thinwire_engine::{
    Error,
    codec::Records,
    journal::Stream,
    model::Offset,
    storage::memory::{Fault, MemoryDisk},
};

use crate::world::{Model, Random, count, each_seed, insert, mark, open, say};

/// What a life may do.
#[derive(Clone, Copy, Debug)]
enum Action {
    AppendSmall,
    AppendLarge,
    Mark,
    Sync,
    Trim,
    /// The power goes, and comes back.
    Crash,
}

const ACTIONS: [Action; 6] = [
    Action::AppendSmall,
    Action::AppendLarge,
    Action::Mark,
    Action::Sync,
    Action::Trim,
    Action::Crash,
];

/// How much of a segment is full when a life begins: any large record that is synced ends it.
const FILLED: usize = 900;

/// Seven sectors, of which a power cut may take any.
const LARGE: usize = 3_300;

/// All sequences of choices, one after the other.
#[derive(Default)]
struct Choices {
    /// What was chosen, and out of how many.
    taken: Vec<(usize, usize)>,
    at: usize,
}

impl Choices {
    fn choose(&mut self, n: usize) -> usize {
        if self.at == self.taken.len() {
            self.taken.push((0, n));
        }
        let (chosen, of) = self.taken[self.at];
        assert_eq!(of, n, "the same answers lead to the same questions");
        self.at += 1;
        chosen
    }

    /// Turns to the next sequence, if there is one.
    fn advance(&mut self) -> bool {
        self.at = 0;
        while let Some((chosen, of)) = self.taken.pop() {
            if chosen + 1 < of {
                self.taken.push((chosen + 1, of));
                return true;
            }
        }
        false
    }
}

/// A journal with a segment that is gone, one that is whole, and one that is nearly full.
fn beginning() -> (MemoryDisk, Model) {
    let (disk, mut model, mut random) = (MemoryDisk::new(), Model::default(), Random(0));
    let (_journal, stream) = open(&disk).unwrap();
    while disk.files().len() < 3 {
        append(&stream, &mut model, 2_000, &mut random).unwrap();
        model.synced(stream.sync().unwrap());
    }
    append(&stream, &mut model, FILLED, &mut random).unwrap();
    model.synced(stream.sync().unwrap());
    assert_eq!(disk.files().len(), 3);
    (disk, model)
}

fn append(
    stream: &Stream,
    model: &mut Model,
    size: usize,
    random: &mut Random,
) -> Result<(), Error> {
    let records = Records::one(&insert(size, random));
    stream.append(records.clone())?;
    model.append(&records);
    Ok(())
}

fn act(
    stream: &Arc<Stream>,
    model: &mut Model,
    random: &mut Random,
    action: Action,
) -> Result<(), Error> {
    match action {
        Action::AppendSmall => append(stream, model, 20, random)?,
        Action::AppendLarge => append(stream, model, LARGE, random)?,
        Action::Mark => {
            stream.mark(mark(model.mark + 1))?;
            model.mark += 1;
        }
        Action::Sync => model.synced(stream.sync()?),
        Action::Trim => {
            model.trimmed = model.acked;
            stream.trim(Offset::new(model.acked as u64), true)?;
        }
        Action::Crash => unreachable!("the power goes between actions"),
    }
    Ok(())
}

/// Lives through the rest, and through every outcome of every power cut in it; returns how many states there were.
fn live(disk: &MemoryDisk, mut model: Model, actions: &[Action]) -> u64 {
    {
        let (_journal, stream) = open(disk).expect("a power cut alone never halts a stream");
        model.recovered(&stream);
        model.read(&stream);
    }
    let end = actions.iter().position(|action| matches!(action, Action::Crash));
    let (now, later) = actions.split_at(end.unwrap_or(actions.len()));
    if now.is_empty() {
        return 1 + if later.is_empty() { 0 } else { live(disk, model, &later[1..]) };
    }
    let before = disk.operations();
    let mut states = 1;
    // At every operation, the first of the opening included, and behind the last one.
    for number in 0.. {
        let (interrupted, mut then, mut random) = (disk.copy(), model.clone(), Random(number));
        interrupted.fail(number, Fault::Error, true);
        if let Ok((_journal, stream)) = open(&interrupted) {
            for action in now {
                if act(&stream, &mut then, &mut random, *action).is_err() {
                    break;
                }
            }
        }
        interrupted.heal();
        let mut choices = Choices::default();
        loop {
            let cut = interrupted.power_cut(&mut |n| choices.choose(n));
            states += live(&cut, then.clone(), later.get(1..).unwrap_or_default());
            if !choices.advance() {
                break;
            }
        }
        if interrupted.operations() - before <= number {
            return states;
        }
    }
    states
}

/// The life of this number among all of a length.
fn numbered(mut number: u64, length: u32) -> Vec<Action> {
    let mut actions = Vec::new();
    for _ in 0..length {
        actions.push(ACTIONS[number as usize % ACTIONS.len()]);
        number /= ACTIONS.len() as u64;
    }
    actions
}

#[test]
fn every_outcome_of_every_short_life_is_right() {
    let length = count("THINWIRE_SCOPE", 3) as u32;
    let (disk, model) = beginning();
    let lives = (ACTIONS.len() as u64).pow(length);
    let tally = each_seed("every_outcome_of_every_short_life", lives, |number| {
        live(&disk.copy(), model.clone(), &numbered(number, length))
    });
    say(&format!(
        "all lives of length {length}: {lives}, in {} states, in {:.0} s",
        tally.total,
        tally.took.as_secs_f64()
    ));
}
