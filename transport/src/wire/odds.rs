//! How likely a bit is, learnt from the bits that were coded in the same contexts before.
//!
//! A context is a number that says all that is known when the bit is coded. What was seen in each is kept in one
//! table of fixed size, found by hash: memory does not depend on the schema, and contexts that fall together only
//! cost compression. Where several contexts speak of a bit, what they say is weighed by how right each was
//! lately (logistic mixing). Integers only, so that all machines agree.

use super::range::Coder;

/// All that was learnt.
#[derive(Debug)]
pub(super) struct Odds {
    /// 22 bits of probability, its top bit inverted, and 10 bits of how often the context was met: zero is an
    /// even chance that was never met, so that untouched memory is a table without experience.
    seen: Box<[u32]>,
    mask: u32,
    weights: Box<[[i32; INPUTS_MAX]]>,
    stretch: Box<[i16]>,
}

/// Which weights are used: decisions of different kinds trust different contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judge(pub(super) u8);

impl Odds {
    /// Without experience; the table has 2 to the power of `log` entries of four bytes.
    pub(super) fn new(log: u32) -> Self {
        let entries = 1_usize << log;
        Self {
            seen: vec![0; entries].into(),
            mask: u32::MAX >> (32 - log),
            weights: vec![[WEIGHT_INITIAL; INPUTS_MAX]; JUDGES].into(),
            stretch: stretches(),
        }
    }

    /// Codes a bit of which several contexts speak.
    pub(super) fn weigh<C: Coder, const N: usize>(
        &mut self,
        coder: &mut C,
        judge: Judge,
        contexts: [u32; N],
        bit: bool,
    ) -> bool {
        self.weigh_in(coder, judge, contexts.map(scatter), 1, bit)
    }

    /// The same for one of the bits of a symbol, whose contexts lie beside each other in memory.
    fn weigh_in<C: Coder, const N: usize>(
        &mut self,
        coder: &mut C,
        judge: Judge,
        lines: [u32; N],
        node: u32,
        bit: bool,
    ) -> bool {
        const { assert!(N <= INPUTS_MAX) }
        let at = lines.map(|line| ((line ^ node) & self.mask) as usize);
        let says = at.map(|at| {
            let seen = self.seen[at] ^ HALF;
            i32::from(self.stretch[(seen >> 20) as usize])
        });
        let weights = &mut self.weights[usize::from(judge.0)];
        let sum: i32 = says.iter().zip(weights.iter()).map(|(say, w)| (say * w) >> 8).sum();
        let odds = squash(sum >> 8);
        let bit = coder.code(bit, clamp(odds.cast_unsigned() << 4 | 8));
        let missed = (i32::from(bit) * 4_095 - odds) * RATE;
        for (weight, say) in weights.iter_mut().zip(says) {
            let better = *weight + ((say * missed + (1 << 13)) >> 14);
            *weight = better.clamp(-WEIGHT_MAX, WEIGHT_MAX);
        }
        for at in at {
            self.seen[at] = learn(self.seen[at], bit);
        }
        bit
    }

    /// Codes a number below 2 to the power of `bits`.
    pub(super) fn symbol<C: Coder, const N: usize>(
        &mut self,
        coder: &mut C,
        judge: Judge,
        contexts: [u32; N],
        bits: u32,
        symbol: u32,
    ) -> u32 {
        let (mut lines, mut whole, mut node) = (contexts.map(scatter), 1_u32, 1_u32);
        for place in (0..bits).rev() {
            if node > LINE_NODES {
                lines = contexts.map(|context| scatter(mix(context, whole)));
                node = 1;
            }
            let bit = symbol >> place & 1 == 1;
            let bit = u32::from(self.weigh_in(coder, judge, lines, node, bit));
            (node, whole) = (node << 1 | bit, whole << 1 | bit);
        }
        whole ^ (1 << bits)
    }

    /// Codes any number: first how long it is, then its digits, those of short numbers all learnt, of long ones
    /// the first.
    pub(super) fn number<C: Coder, const N: usize>(
        &mut self,
        coder: &mut C,
        judge: Judge,
        contexts: [u32; N],
        number: i64,
    ) -> i64 {
        let size = number.unsigned_abs();
        let length = self.symbol(coder, judge, contexts, 7, 64 - size.leading_zeros()).min(64);
        if length == 0 {
            return 0;
        }
        let sign = contexts.map(|context| mix(context, SIGN + length));
        let negative = self.weigh(coder, judge, sign, number < 0);
        let (mut read, mut node) = (1_u64, 1_u32);
        for place in (0..length - 1).rev() {
            let bit = size >> place & 1 == 1;
            let depth = length - 1 - place;
            let bit = if length <= LEARNT_LENGTH || depth <= LEARNT_DIGITS {
                let contexts = contexts.map(|context| mix(context, DIGITS + (length << 16) + node));
                node <<= 1;
                self.weigh(coder, judge, contexts, bit)
            } else {
                coder.code(bit, 1 << 15)
            };
            node |= u32::from(bit);
            read = read << 1 | u64::from(bit);
        }
        match negative {
            true => read.cast_signed().wrapping_neg(),
            false => read.cast_signed(),
        }
    }
}

/// A context made of two.
pub(super) fn mix(one: u32, other: u32) -> u32 {
    (one ^ other.wrapping_mul(0x9E37_79B1)).rotate_left(13).wrapping_mul(0x85EB_CA77)
}

/// Where a context's first bit is in the table; those of the next three are in the same line of memory.
fn scatter(context: u32) -> u32 {
    let spread = context.wrapping_mul(0xC2B2_AE35);
    spread ^ (spread >> 15)
}

fn clamp(odds: u32) -> u16 {
    u16::try_from(odds.clamp(ODDS_MIN, 65_536 - ODDS_MIN)).unwrap_or(1 << 15)
}

/// What is known after one more bit: the more often a context was met, the less a single bit says.
fn learn(seen: u32, bit: bool) -> u32 {
    let seen = seen ^ HALF;
    let (odds, met) = (i64::from(seen >> 10), seen & 0x3FF);
    let target = if bit { (1 << 22) - 1 } else { 0 };
    let odds = odds + (((target - odds) * PACES[met as usize & (PACES.len() - 1)]) >> 16);
    let odds = u32::try_from(odds).unwrap_or(1 << 21);
    ((odds << 10) | (met + 1).min(MET_MAX)) ^ HALF
}

/// 4096 / (1 + e^(-x/256)), from 33 points.
fn squash(x: i32) -> i32 {
    const POINTS: [i32; 33] = [
        1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1_101, 1_546, 2_047, 2_549, 2_994,
        3_348, 3_607, 3_785, 3_901, 3_975, 4_022, 4_050, 4_068, 4_079, 4_085, 4_089, 4_092, 4_093,
        4_094,
    ];
    let x = x.clamp(-LIMIT, LIMIT) + 2_048;
    let (at, between) = ((x >> 7) as usize, x & 127);
    (POINTS[at] * (128 - between) + POINTS[at + 1] * between + 64) >> 7
}

/// The inverse of [`squash`].
fn stretches() -> Box<[i16]> {
    let mut table = vec![0_i16; 4_096];
    let mut next = 0;
    for x in -LIMIT..=LIMIT {
        let top = squash(x);
        while next <= top {
            table[next as usize] = i16::try_from(x).unwrap_or_default();
            next += 1;
        }
    }
    table[next as usize..].fill(i16::try_from(LIMIT).unwrap_or_default());
    table.into()
}

/// Most contexts of one bit.
const INPUTS_MAX: usize = 8;

/// How many sets of weights there are.
const JUDGES: usize = 256;

/// Of 65,536: a little more than an equal share for three contexts.
const WEIGHT_INITIAL: i32 = 26_000;

/// So that a long run of the same cannot make a judge blind to what comes after, and sums fit 32 bits.
const WEIGHT_MAX: i32 = 1 << 18;

/// Nodes of a symbol that are found in one line.
const LINE_NODES: u32 = 15;

/// How fast weights follow.
const RATE: i32 = 6;

/// Beyond this, likelihoods are not told apart.
const LIMIT: i32 = 2_047;

/// Nothing is so certain that its opposite could not be coded at an affordable price.
const ODDS_MIN: u32 = 16;

/// After how many meetings a context stops to settle. It goes on to follow what changes.
const MET_MAX: u32 = 250;

/// Numbers of so many digits are learnt as a whole; of longer ones the first digits are.
const LEARNT_LENGTH: u32 = 11;
const LEARNT_DIGITS: u32 = 3;

/// How far a context moves after so many meetings, of 65,536.
static PACES: [i64; 256] = {
    let (mut paces, mut at, mut divisor) = ([0; 256], 0, 3);
    while at < paces.len() {
        paces[at] = (2 << 16) / divisor;
        (at, divisor) = (at + 1, divisor + 2);
    }
    paces
};

const HALF: u32 = 1 << 31;

const SIGN: u32 = 1 << 28;
const DIGITS: u32 = 1 << 29;
