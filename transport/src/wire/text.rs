//! Text, byte by byte: each is guessed from the bytes before it, in this value and in all before.
//!
//! The contexts are the last one to five bytes, the whole value so far in its column, and the byte that
//! followed where the last few bytes were met before. It takes a fraction of a microsecond a byte, which is less than
//! a thin link takes to carry what it saves.

use super::{
    odds::{Judge, Odds, mix},
    range::Coder,
};

/// What was written before.
#[derive(Debug)]
pub(super) struct Text {
    /// The last bytes of all values, around and around.
    past: Box<[u8]>,
    at: u32,
    /// Where a few bytes were met last, by their hash.
    met: Box<[u32]>,
}

/// Where the same bytes were met before.
#[derive(Clone, Copy, Debug, Default)]
struct Echo {
    at: u32,
    length: usize,
}

impl Text {
    pub(super) fn new() -> Self {
        Self { past: vec![0; PAST].into(), at: 0, met: vec![0; MET].into() }
    }

    /// Codes bytes in a column's context, at most `room` of them; `None` if there are more.
    pub(super) fn code<C: Coder>(
        &mut self,
        odds: &mut Odds,
        coder: &mut C,
        column: u32,
        given: &[u8],
        room: usize,
    ) -> Option<Vec<u8>> {
        let mut text = Vec::with_capacity(given.len());
        let (mut whole, mut last, mut echo) = (column, 0_u64, Echo::default());
        loop {
            let more = given.len() > text.len();
            let long = u32::try_from(text.len().min(LONG)).unwrap_or_default();
            let ends = [
                mix(whole, ENDS),
                mix(mix(hashed(last, 3), column), ENDS),
                mix(column, ENDS + long),
            ];
            if !odds.weigh(coder, JUDGE_END, ends, more) {
                return Some(text);
            }
            if text.len() == room {
                return None;
            }
            let byte = given.get(text.len()).copied().unwrap_or_default();
            let byte = self.byte(odds, coder, (column, whole, last), echo, byte);
            echo = self.follow(echo, byte);
            text.push(byte);
            last = last << 8 | u64::from(byte);
            whole = mix(whole, u32::from(byte) + 1);
            echo = self.remember(byte, last, text.len(), echo);
        }
    }

    fn byte<C: Coder>(
        &self,
        odds: &mut Odds,
        coder: &mut C,
        (column, whole, last): (u32, u32, u64),
        echo: Echo,
        byte: u8,
    ) -> u8 {
        let contexts = [
            column,
            mix(hashed(last, 1), column),
            hashed(last, 2),
            hashed(last, 3),
            hashed(last, 5),
            whole,
        ];
        let expected = (echo.length > 0).then(|| self.past[echo.at as usize % PAST]);
        let trust = u32::try_from(echo.length.min(15)).unwrap_or_default();
        let hint = match expected {
            Some(expected) => mix(MATCH + trust, expected.into()),
            None => mix(MATCH, contexts[1]),
        };
        let [a, b, c, d, e, f] = contexts;
        let judge = Judge(JUDGE_TEXT + low(trust));
        low(odds.symbol(coder, judge, [a, b, c, d, e, f, hint], 8, byte.into()))
    }

    fn follow(&self, echo: Echo, byte: u8) -> Echo {
        match echo.length > 0 && self.past[echo.at as usize % PAST] == byte {
            true => Echo { at: echo.at.wrapping_add(1), length: echo.length + 1 },
            false => Echo::default(),
        }
    }

    fn remember(&mut self, byte: u8, last: u64, length: usize, echo: Echo) -> Echo {
        self.past[self.at as usize % PAST] = byte;
        self.at = self.at.wrapping_add(1);
        if length < MATCH_BYTES {
            return echo;
        }
        let place = hashed(last, MATCH_BYTES) as usize >> (32 - MET_LOG);
        let before = std::mem::replace(&mut self.met[place], self.at);
        let back = self.at.wrapping_sub(before) as usize;
        match echo.length == 0 && before > 0 && back < PAST {
            true => Echo { at: before, length: 1 },
            false => echo,
        }
    }
}

/// The last bytes as a context.
fn hashed(last: u64, bytes: usize) -> u32 {
    let kept = last << (64 - 8 * bytes);
    let [low, high] = [kept & 0xFFFF_FFFF, kept >> 32].map(|half| u32::try_from(half).unwrap_or(0));
    mix(mix(low, high), u32::try_from(bytes).unwrap_or_default())
}

fn low(value: u32) -> u8 {
    value.to_le_bytes()[0]
}

/// How far back bytes are found again.
const PAST: usize = 1 << 18;
const MET_LOG: u32 = 16;
const MET: usize = 1 << MET_LOG;

/// So many bytes must be the same before what followed is believed.
const MATCH_BYTES: usize = 5;

/// Beyond this, how long a value is says nothing about its end.
const LONG: usize = 255;

const JUDGE_END: Judge = Judge(32);
const JUDGE_TEXT: u8 = 33;
const ENDS: u32 = 1 << 20;
const MATCH: u32 = 0x5A5A_0000;
