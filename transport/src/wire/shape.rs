//! The shapes that values take as text, and the numbers in them.
//!
//! A value has a shape only if writing its number in that shape gives back every byte; whatever else it looks
//! like, it is text. Nothing depends on what a column is declared as: a number in a text column is a number too.

use super::odds::mix;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// SQL's null.
    Null,
    /// Not sent by the source.
    Unchanged,
    /// Bytes without a form.
    Text,
    /// `\x` and hexadecimal digits.
    Hex,
    /// 32 hexadecimal digits with four dashes.
    Uuid,
    /// A day.
    Date,
    /// A moment, with so many digits behind the second (0, 3 or 6) and perhaps `+00` behind it.
    Moment { digits: u8, zone: bool },
    /// A number, with so many digits behind the point, which is not there if they are none.
    Decimal { digits: u8 },
}

/// What can be compared: days, moments, and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) shape: Shape,
    /// In units of the last digit.
    pub(super) value: i64,
}

impl Shape {
    /// All shapes have numbers below this.
    pub(super) const BITS: u32 = 5;

    pub(super) fn code(self) -> u32 {
        match self {
            Self::Null => 0,
            Self::Unchanged => 1,
            Self::Text => 2,
            Self::Hex => 3,
            Self::Uuid => 4,
            Self::Date => 5,
            Self::Moment { digits, zone } => 6 + u32::from(digits / 3) * 2 + u32::from(zone),
            Self::Decimal { digits } => 12 + u32::from(digits),
        }
    }

    pub(super) fn from_code(code: u32) -> Self {
        match code {
            0 => Self::Null,
            1 => Self::Unchanged,
            3 => Self::Hex,
            4 => Self::Uuid,
            5 => Self::Date,
            6..12 => Self::Moment { digits: low_byte((code - 6) / 2 * 3), zone: code & 1 == 1 },
            12.. => Self::Decimal { digits: low_byte(code - 12) },
            _ => Self::Text,
        }
    }

    /// What bytes are.
    pub(super) fn of(bytes: &[u8]) -> (Self, i64) {
        if bytes.starts_with(b"\\x") {
            return (if unhex(&bytes[2..]).is_some() { Self::Hex } else { Self::Text }, 0);
        }
        let may_be = (1..=NUMBER_BYTES_MAX).contains(&bytes.len());
        if may_be && let Some(number) = guess(bytes) {
            let mut again = Vec::with_capacity(NUMBER_BYTES_MAX);
            number.write(&mut again);
            if again == bytes {
                return (number.shape, number.value);
            }
        }
        match uuid(bytes) {
            Some(_) => (Self::Uuid, 0),
            None => (Self::Text, 0),
        }
    }
}

impl Number {
    /// What bytes say, if it is a number.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        match Shape::of(bytes) {
            (shape @ (Shape::Date | Shape::Moment { .. } | Shape::Decimal { .. }), value) => {
                Some(Self { shape, value })
            }
            _ => None,
        }
    }

    /// The same, as far as it can be said in another shape's units.
    pub(super) fn seen_as(self, shape: Shape) -> Option<i64> {
        let (from, to) = match (self.shape, shape) {
            (Shape::Date, Shape::Date) => (0, 0),
            (Shape::Moment { digits: from, .. }, Shape::Moment { digits: to, .. })
            | (Shape::Decimal { digits: from }, Shape::Decimal { digits: to }) => (from, to),
            _ => return None,
        };
        let power = 10_i64.checked_pow(u32::from(from.abs_diff(to)))?;
        if from <= to { self.value.checked_mul(power) } else { Some(self.value.div_euclid(power)) }
    }

    /// Appends it as text.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        match self.shape {
            Shape::Date => write_day(self.value, out),
            Shape::Moment { digits, zone } => {
                write_moment(self.value, digits, out);
                if zone {
                    out.extend_from_slice(b"+00");
                }
            }
            Shape::Decimal { digits } => write_decimal(self.value, digits.into(), out),
            _ => {}
        }
    }
}

/// What a number could be; it is only if it is written the same.
fn guess(bytes: &[u8]) -> Option<Number> {
    let first = *bytes.first()?;
    if !first.is_ascii_digit() && first != b'-' {
        return None;
    }
    if bytes.len() >= DAY_BYTES && bytes[4] == b'-' && bytes[7] == b'-' {
        return guess_time(bytes);
    }
    let (negative, digits) = match bytes.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, bytes),
    };
    let point = digits.iter().position(|&byte| byte == b'.');
    let behind = point.map_or(0, |point| digits.len() - point - 1);
    let mut value = 0_i64;
    for &byte in digits.iter().filter(|&&byte| byte != b'.') {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i64::from(digit))?;
    }
    let digits = u8::try_from(behind).ok().filter(|&digits| digits <= DECIMALS_MAX)?;
    let value = if negative { -value } else { value };
    Some(Number { shape: Shape::Decimal { digits }, value })
}

fn write_decimal(value: i64, behind: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let (mut left, mut at) = (value.unsigned_abs(), digits.len());
    while left > 0 {
        at -= 1;
        digits[at] = b'0' + (left % 10).to_le_bytes()[0];
        left /= 10;
    }
    let at = at.min(digits.len() - behind.min(18) - 1);
    if value < 0 {
        out.push(b'-');
    }
    let point = digits.len() - behind.min(18);
    out.extend_from_slice(&digits[at..point]);
    if behind > 0 {
        out.push(b'.');
        out.extend_from_slice(&digits[point..]);
    }
}

fn guess_time(bytes: &[u8]) -> Option<Number> {
    let two = |at: usize| -> Option<i64> {
        match bytes.get(at..at + 2)? {
            [a @ b'0'..=b'9', b @ b'0'..=b'9'] => {
                Some(i64::from(a - b'0') * 10 + i64::from(b - b'0'))
            }
            _ => None,
        }
    };
    let (month, day) = (two(5)?, two(8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = days(two(0)? * 100 + two(2)?, month, day);
    if bytes.len() == DAY_BYTES {
        return Some(Number { shape: Shape::Date, value: days });
    }
    let seconds = two(11)? * 3_600 + two(14)? * 60 + two(17)?;
    let rest = &bytes[19..];
    let (rest, zone) = rest.strip_suffix(b"+00").map_or((rest, false), |rest| (rest, true));
    let behind = rest.strip_prefix(b".").unwrap_or_default();
    let digits: u8 = match behind.len() {
        0 => 0,
        1..=3 => 3,
        4..=6 => 6,
        _ => return None,
    };
    let mut value = days * 86_400 + seconds;
    for at in 0..usize::from(digits) {
        let digit = behind.get(at).map_or(0, |byte| byte.wrapping_sub(b'0'));
        value = value * 10 + i64::from(digit);
    }
    Some(Number { shape: Shape::Moment { digits, zone }, value })
}

fn write_moment(value: i64, digits: u8, out: &mut Vec<u8>) {
    let unit = 10_i64.pow(u32::from(digits.min(6)));
    let (seconds, mut behind) = (value.div_euclid(unit), value.rem_euclid(unit));
    write_day(seconds.div_euclid(86_400), out);
    let second = seconds.rem_euclid(86_400);
    for (mark, part) in [(b' ', second / 3_600), (b':', second / 60 % 60), (b':', second % 60)] {
        out.push(mark);
        write_padded(part, 2, out);
    }
    let mut width = usize::from(digits.min(6));
    while behind > 0 && behind % 10 == 0 {
        behind /= 10;
        width -= 1;
    }
    if behind > 0 {
        out.push(b'.');
        write_padded(behind, width, out);
    }
}

fn write_padded(number: i64, width: usize, out: &mut Vec<u8>) {
    for place in (0..width).rev() {
        let place = u32::try_from(place).unwrap_or_default();
        out.push(b'0' + (number / 10_i64.pow(place) % 10).to_le_bytes()[0]);
    }
}

/// Days since 1970-01-01 in the Gregorian calendar; years are counted from March, so that the leap day is last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn write_day(days: i64, out: &mut Vec<u8>) {
    // Foreign numbers may be anything; far from our time they are written as some day or other.
    let days = days.clamp(-4_000_000, 4_000_000) + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    write_padded(year.rem_euclid(10_000), 4, out);
    out.push(b'-');
    write_padded(month, 2, out);
    out.push(b'-');
    write_padded(day, 2, out);
}

/// The bytes that lower-case hexadecimal digits stand for.
pub(super) fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks_exact(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
}

pub(super) fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.extend([byte >> 4, byte & 15].map(|nibble| b"0123456789abcdef"[usize::from(nibble)]));
    }
}

/// The bytes of a UUID.
pub(super) fn uuid(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() != 36 || UUID_DASHES.iter().any(|&at| text[at] != b'-') {
        return None;
    }
    let digits: Vec<u8> = text.iter().copied().filter(|&byte| byte != b'-').collect();
    unhex(&digits).filter(|bytes| bytes.len() == 16)
}

pub(super) fn write_uuid(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    for (at, length) in [4, 2, 2, 2, 6].into_iter().enumerate() {
        if at > 0 {
            out.push(b'-');
        }
        let (part, behind) = rest.split_at(length.min(rest.len()));
        hex(part, out);
        rest = behind;
    }
}

/// A context that says what a value was.
pub(super) fn digest(bytes: &[u8]) -> u32 {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    bytes.iter().take(DIGEST_BYTES).fold(length, |digest, &byte| mix(digest, byte.into()))
}

fn low_byte(value: u32) -> u8 {
    value.to_le_bytes()[0]
}

/// Longest text that may be a number, or a moment.
const NUMBER_BYTES_MAX: usize = 32;

/// 2000-01-01.
const DAY_BYTES: usize = 10;

/// Most digits behind the point of what is taken for a number.
const DECIMALS_MAX: u8 = 18;

const UUID_DASHES: [usize; 4] = [8, 13, 18, 23];

/// More of a value says nothing more.
const DIGEST_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shape(text: &str) -> Shape {
        Shape::of(text.as_bytes()).0
    }

    #[test]
    fn what_servers_write_has_a_shape() {
        let decimal = |digits| Shape::Decimal { digits };
        let moment = |digits, zone| Shape::Moment { digits, zone };
        for (text, expected) in [
            ("0", decimal(0)),
            ("-9223372036854775807", decimal(0)),
            ("-0.05", decimal(2)),
            ("1234.50", decimal(2)),
            ("2024-02-29", Shape::Date),
            ("2024-02-29 23:59:59", moment(0, false)),
            ("2024-02-29 23:59:59.5+00", moment(3, true)),
            ("1999-12-31 00:00:00.123456", moment(6, false)),
            ("\\x00ff", Shape::Hex),
            ("00112233-4455-6677-8899-aabbccddeeff", Shape::Uuid),
        ] {
            assert_eq!(shape(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_written_differently_is_text() {
        for text in [
            "",
            "-",
            "-0",
            "-0.00",
            "00",
            "+1",
            ".5",
            "1.",
            "1e5",
            "9223372036854775808",
            "NaN",
            "2023-02-29",
            "2024-13-01",
            "2024-01-01 24:00:00",
            "2024-01-01 12:00:00.50",
            "2024-01-01 12:00:00+05",
            "0044-03-15 BC",
            "\\x0",
            "\\xAB",
            "00112233-4455-6677-8899-AABBCCDDEEFF",
            "1.0000000000000000000",
            "12:00:00",
        ] {
            assert_eq!(shape(text), Shape::Text, "{text}");
        }
    }

    #[test]
    fn codes_name_shapes() {
        for code in 0..1 << Shape::BITS {
            assert_eq!(Shape::from_code(code).code(), code);
        }
    }

    proptest! {
        #[test]
        fn numbers_are_read_as_they_are_written(value: i64, digits in 0_u8..=18) {
            let number = Number { shape: Shape::Decimal { digits }, value };
            let mut text = Vec::new();
            number.write(&mut text);
            let found = Number::of(&text);
            prop_assert!(value == i64::MIN || found == Some(number), "{number:?} {text:?} {found:?}");
        }

        #[test]
        fn any_bytes_and_any_number_are_survived(bytes: Vec<u8>, code in 0_u32..32, value: i64) {
            let _ = Shape::of(&bytes);
            Number { shape: Shape::from_code(code), value }.write(&mut Vec::new());
        }
    }
}
