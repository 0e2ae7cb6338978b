//! The values of one column: what each probably is, given the ones before it and beside it.
//!
//! A value is the same as in the row's old self; or a number, told as the difference from whatever was closest
//! lately (the old value, the column's last one, the transaction's time, zero), or as one that the transaction
//! has had elsewhere; or one of the column's last few texts; or new text.

use bytes::Bytes;
use thinwire_engine::model::Value;

use super::{
    memory::bytes_of,
    odds::{Judge, Odds, mix},
    range::Coder,
    shape::{self, Number, Shape},
    text::Text,
};

/// What all columns share.
#[derive(Debug)]
pub(super) struct Mind {
    pub(super) odds: Odds,
    pub(super) text: Text,
    pub(super) numbers: Numbers,
    /// When the transaction was committed, as its source says.
    pub(super) time: Option<Number>,
    /// How many bytes may still come of what is being read.
    pub(super) room: usize,
    /// What the recent texts of all columns take.
    pub(super) recent: usize,
}

/// The numbers of a transaction, so that they are found again: a key, an amount that was added.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    seen: Vec<Seen>,
    next: usize,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    column: u32,
    number: Number,
    /// By how much it grew.
    growth: i64,
}

/// Where a column's numbers come from: another column's, or by how much that one grew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    column: u32,
    growth: bool,
}

impl Numbers {
    pub(super) fn clear(&mut self) {
        self.seen.clear();
        self.next = 0;
    }

    fn push(&mut self, seen: Seen) {
        match self.seen.get_mut(self.next) {
            Some(place) => *place = seen,
            None => self.seen.push(seen),
        }
        self.next = (self.next + 1) % NUMBERS_MAX;
    }

    /// The latest first.
    fn latest(&self) -> impl Iterator<Item = &Seen> {
        let (newer, older) = self.seen.split_at(self.next.min(self.seen.len()));
        newer.iter().rev().chain(older.iter().rev())
    }

    fn guess(&self, source: Source, shape: Shape, old: i64) -> Option<i64> {
        let seen = self.latest().find(|seen| seen.column == source.column)?;
        if seen.number.shape != shape {
            return None;
        }
        Some(match source.growth {
            true => old.wrapping_add(seen.growth),
            false => seen.number.value,
        })
    }

    fn source_of(&self, number: Number, growth: i64) -> Option<Source> {
        let fits = |seen: &&Seen| {
            seen.number.shape == number.shape
                && (seen.number.value == number.value || (seen.growth == growth && growth != 0))
        };
        let seen = self.latest().find(fits)?;
        Some(Source { column: seen.column, growth: seen.number.value != number.value })
    }
}

/// What is known of one column, in one role: of new rows, of changed ones, of old ones.
#[derive(Debug, Default)]
pub(super) struct Column {
    shape: u32,
    last: Option<Number>,
    /// How many digits the differences from each base had lately.
    costs: [u32; BASES],
    source: Option<Source>,
    trust: u32,
    recent: Vec<Bytes>,
    next: usize,
    latest: u32,
}

/// Where a value stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The column, as a context.
    pub(super) column: u32,
    /// The value before it in its row.
    pub(super) beside: u32,
    /// Which of the values before it in its row were the same as in the old row.
    pub(super) pattern: u32,
}

impl Column {
    /// Codes a value; `None` if it is too long.
    pub(super) fn code<C: Coder>(
        &mut self,
        coder: &mut C,
        mind: &mut Mind,
        place: Place,
        old: Option<&Value>,
        given: &Value,
    ) -> Option<Value> {
        if let Some(old) = old {
            let at = mix(place.column, SAME);
            let contexts = [mix(at, place.pattern & 7), mix(at, place.pattern & 1), at];
            if mind.odds.weigh(coder, JUDGE_SAME, contexts, given == old) {
                mind.room = mind.room.checked_sub(bytes_of(old).len())?;
                return Some(old.clone());
            }
        }
        let (found, value) = match given {
            Value::Null => (Shape::Null, 0),
            Value::Unchanged => (Shape::Unchanged, 0),
            Value::Bytes(bytes) => Shape::of(bytes),
        };
        let at = mix(place.column, SHAPE);
        let contexts = [mix(at, self.shape), mix(mix(at, place.beside), 1), at];
        let code = mind.odds.symbol(coder, JUDGE_SHAPE, contexts, Shape::BITS, found.code());
        self.shape = code;
        let shape = Shape::from_code(code);
        match shape {
            Shape::Null => Some(Value::Null),
            Shape::Unchanged => Some(Value::Unchanged),
            Shape::Text | Shape::Hex | Shape::Uuid => {
                let old = old.map(bytes_of).filter(|_| shape == Shape::Text).unwrap_or_default();
                self.words(coder, mind, place, shape, old, bytes_of(given)).map(Value::Bytes)
            }
            _ => {
                let old = old.map(bytes_of).and_then(Number::of);
                let old = old.and_then(|old| old.seen_as(shape));
                let number = self.number(coder, mind, place, old, Number { shape, value });
                let mut text = Vec::with_capacity(24);
                number.write(&mut text);
                mind.room = mind.room.checked_sub(text.len())?;
                Some(Value::Bytes(text.into()))
            }
        }
    }

    fn number<C: Coder>(
        &mut self,
        coder: &mut C,
        mind: &mut Mind,
        place: Place,
        old: Option<i64>,
        given: Number,
    ) -> Number {
        let shape = given.shape;
        let from = old.unwrap_or_default();
        let guess = self.source.and_then(|source| mind.numbers.guess(source, shape, from));
        let hit = guess.filter(|guess| {
            let at = mix(place.column, GUESS);
            let contexts = [mix(at, self.trust), at];
            mind.odds.weigh(coder, JUDGE_GUESS, contexts, *guess == given.value)
        });
        let seen_as = |number: Option<Number>| number.and_then(|number| number.seen_as(shape));
        let bases = [old, seen_as(self.last), seen_as(mind.time), Some(0)];
        let value = match hit {
            Some(value) => value,
            None => {
                let base = (0..BASES).filter(|&base| bases[base].is_some());
                let base = base.min_by_key(|&base| self.costs[base]).unwrap_or_default();
                let from = bases[base].unwrap_or_default();
                let at = mix(place.column, NUMBER + u32::try_from(base).unwrap_or_default());
                let contexts = [at, mix(at, place.beside)];
                let judge = Judge(JUDGE_NUMBERS | (place.column >> 25).to_le_bytes()[0]);
                let off = mind.odds.number(coder, judge, contexts, given.value.wrapping_sub(from));
                from.wrapping_add(off)
            }
        };
        for (cost, base) in self.costs.iter_mut().zip(bases) {
            let Some(base) = base else { continue };
            let digits = 64 - value.wrapping_sub(base).unsigned_abs().leading_zeros();
            *cost = *cost - *cost / 8 + digits * 16;
        }
        let number = Number { shape, value };
        let growth = value.wrapping_sub(from);
        self.learn_source(&mind.numbers, number, growth, hit.is_some());
        mind.numbers.push(Seen { column: place.column, number, growth });
        self.last = Some(number);
        number
    }

    fn learn_source(&mut self, numbers: &Numbers, number: Number, growth: i64, hit: bool) {
        if hit {
            self.trust = (self.trust + 1).min(TRUST_MAX);
            return;
        }
        self.trust = self.trust.saturating_sub(1);
        if self.trust == 0 && !(0..2).contains(&number.value) {
            self.source = numbers.source_of(number, growth).or(self.source);
        }
    }

    /// Codes text, or what is written as text.
    fn words<C: Coder>(
        &mut self,
        coder: &mut C,
        mind: &mut Mind,
        place: Place,
        shape: Shape,
        old: &[u8],
        given: &[u8],
    ) -> Option<Bytes> {
        let found = self.recent.iter().position(|recent| recent == given);
        let at = mix(place.column, RECENT);
        let contexts = [at, mix(at, place.beside), mix(at, self.latest + 1)];
        if mind.odds.weigh(coder, JUDGE_RECENT, contexts, found.is_some()) {
            let index = u32::try_from(found.unwrap_or_default()).unwrap_or_default();
            let contexts = contexts.map(|context| mix(context, RECENT));
            let index = mind.odds.symbol(coder, JUDGE_INDEX, contexts, RECENT_LOG, index);
            self.latest = index;
            let value = self.recent.get(index as usize).cloned().unwrap_or_default();
            mind.room = mind.room.checked_sub(value.len())?;
            return Some(value);
        }
        self.latest = RECENT_MAX;
        let text = match shape {
            Shape::Hex => {
                let raw = shape::unhex(given.get(2..).unwrap_or_default()).unwrap_or_default();
                let raw = raw_bytes(coder, mind, place.column, &raw)?;
                let mut text = b"\\x".to_vec();
                shape::hex(&raw, &mut text);
                text
            }
            Shape::Uuid => {
                let raw = shape::uuid(given).unwrap_or_default();
                let raw = raw_bytes(coder, mind, place.column, &raw)?;
                let mut text = Vec::with_capacity(36);
                shape::write_uuid(&raw, &mut text);
                text
            }
            _ if is_noise(coder, mind, place.column, given) => {
                noise(coder, mind, place.column, given)?
            }
            _ => written(coder, mind, place, old, given)?,
        };
        mind.room = mind.room.checked_sub(text.len())?;
        let text = Bytes::from(text);
        if text.len() <= RECENT_BYTES_MAX {
            mind.recent += RECENT_COST + text.len();
            mind.recent = mind.recent.saturating_sub(self.keep(&text));
        }
        Some(text)
    }

    /// Keeps a text; returns what the one took that is forgotten for it.
    fn keep(&mut self, text: &Bytes) -> usize {
        let mut forgotten = 0;
        match self.recent.get_mut(self.next) {
            Some(place) => {
                forgotten = RECENT_COST + place.len();
                *place = text.clone();
            }
            None => self.recent.push(text.clone()),
        }
        self.latest = u32::try_from(self.next).unwrap_or_default();
        self.next = (self.next + 1) % RECENT_MAX as usize;
        forgotten
    }
}

/// New text: what it shares with the old at both ends, and what is between.
fn written<C: Coder>(
    coder: &mut C,
    mind: &mut Mind,
    place: Place,
    old: &[u8],
    given: &[u8],
) -> Option<Vec<u8>> {
    let mut column = place.column;
    let room = mind.room;
    if old.len() < SHARED_BYTES_MIN {
        return mind.text.code(&mut mind.odds, coder, column, given, room);
    }
    let head = old.iter().zip(given).take_while(|(old, new)| old == new).count();
    let head = length(coder, mind, mix(column, HEAD), head).min(old.len());
    let (old_rest, rest) = (&old[head..], given.get(head..).unwrap_or_default());
    let same = |(old, new): &(&u8, &u8)| old == new;
    let tail = old_rest.iter().rev().zip(rest.iter().rev()).take_while(same).count();
    let tail = length(coder, mind, mix(column, TAIL), tail).min(old_rest.len());
    column = mix(column, HEAD);
    let between = rest.get(..rest.len().saturating_sub(tail)).unwrap_or_default();
    let between = mind.text.code(&mut mind.odds, coder, column, between, room)?;
    Some([&old[..head], &between, &old_rest[old_rest.len() - tail..]].concat())
}

fn length<C: Coder>(coder: &mut C, mind: &mut Mind, context: u32, length: usize) -> usize {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let length = mind.odds.number(coder, Judge(JUDGE_NUMBER), [context], length);
    usize::try_from(length).unwrap_or(0)
}

/// Bytes that are not text: little is expected of them.
fn raw_bytes<C: Coder>(
    coder: &mut C,
    mind: &mut Mind,
    column: u32,
    given: &[u8],
) -> Option<Vec<u8>> {
    if is_noise(coder, mind, column, given) {
        return noise(coder, mind, column, given);
    }
    let count = length(coder, mind, mix(column, RAW), given.len());
    if count > mind.room / 2 {
        return None;
    }
    let (mut raw, mut last) = (Vec::with_capacity(count), 0);
    for at in 0..count {
        let byte = u32::from(given.get(at).copied().unwrap_or_default());
        let near = mix(column, RAW + u32::try_from(at.min(15)).unwrap_or_default());
        last = mind.odds.symbol(coder, JUDGE_RAW, [near, mix(near, last + 1)], 8, byte);
        raw.push(last.to_le_bytes()[0]);
    }
    Some(raw)
}

/// Codes whether nothing can be expected of bytes: all of them are about equally frequent.
fn is_noise<C: Coder>(coder: &mut C, mind: &mut Mind, column: u32, given: &[u8]) -> bool {
    let mut counts = [0_u64; 256];
    given.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let (count, meetings) =
        (given.len() as u64, counts.iter().map(|count| count * count).sum::<u64>());
    let chance = count + count * count * 3 / (2 * 256);
    let noise = given.len() >= NOISE_BYTES_MIN && meetings < chance;
    mind.odds.weigh(coder, JUDGE_NOISE, [mix(column, NOISE)], noise)
}

/// Bytes of which nothing is expected, and from which nothing is learnt.
fn noise<C: Coder>(coder: &mut C, mind: &mut Mind, column: u32, given: &[u8]) -> Option<Vec<u8>> {
    let count = length(coder, mind, mix(column, NOISE), given.len());
    if count > mind.room {
        return None;
    }
    let byte = |at: usize| {
        let byte = given.get(at).copied().unwrap_or_default();
        (0..8_u32).rev().fold(0_u8, |read, place| {
            read << 1 | u8::from(coder.code(byte >> place & 1 == 1, 1 << 15))
        })
    };
    Some((0..count).map(byte).collect())
}

/// Old value, last value, the transaction's time, nothing.
const BASES: usize = 4;

/// How many numbers of a transaction are found again.
const NUMBERS_MAX: usize = 64;

/// How often a source may fail before another one is looked for.
const TRUST_MAX: u32 = 7;

/// A column's last texts, of at most so many bytes each.
const RECENT_LOG: u32 = 5;
const RECENT_MAX: u32 = 1 << RECENT_LOG;
const RECENT_BYTES_MAX: usize = 90;

/// What such a text takes beside its bytes.
const RECENT_COST: usize = 56;

/// Shorter texts share nothing with their old selves that is worth saying.
const SHARED_BYTES_MIN: usize = 12;

/// Of fewer bytes it cannot be said that they are noise.
const NOISE_BYTES_MIN: usize = 48;

const JUDGE_SAME: Judge = Judge(1);
const JUDGE_SHAPE: Judge = Judge(2);
const JUDGE_GUESS: Judge = Judge(3);
const JUDGE_NUMBER: u8 = 4;
const JUDGE_NUMBERS: u8 = 128;
const JUDGE_RECENT: Judge = Judge(5);
const JUDGE_INDEX: Judge = Judge(6);
const JUDGE_RAW: Judge = Judge(7);
const JUDGE_NOISE: Judge = Judge(12);

const SAME: u32 = 1;
const SHAPE: u32 = 2;
const GUESS: u32 = 3;
const RECENT: u32 = 4;
const HEAD: u32 = 5;
const TAIL: u32 = 6;
const NOISE: u32 = 7;
const NUMBER: u32 = 16;
const RAW: u32 = 32;
