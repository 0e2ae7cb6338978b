//! Times of the week in which a peer is talked to.
//!
//! A window is `22:00-06:00`, on every day, or `sat,sun 00:00-24:00`, on the days on which it begins. One that ends
//! at or before the time at which it begins ends on the next day.

use std::{ops::Range, time::Duration};

use super::{Local, clock::DAY};

/// When a peer is talked to. Without any window: always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    /// Seconds of the week, in order and apart from each other; `None` is always.
    open: Option<Vec<Range<u32>>>,
}

/// What is wrong with a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// It is not written as one.
    #[error("not a window, such as \"22:00-06:00\" or \"sat,sun 00:00-24:00\"")]
    Shape,
    /// A weekday that there is not.
    #[error("a weekday is mon, tue, wed, thu, fri, sat or sun")]
    Weekday,
    /// A time that no clock shows.
    #[error("a time is 00:00 to 24:00, with two digits each")]
    Time,
    /// It begins when it ends.
    #[error("a window that begins when it ends is never open; the whole day is 00:00-24:00")]
    Empty,
}

impl Windows {
    /// Open within any of these.
    ///
    /// # Errors
    /// What is wrong with the first that cannot be meant.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, WindowError> {
        if texts.is_empty() {
            return Ok(Self::default());
        }
        let mut open = Vec::new();
        for text in texts {
            let (days, times) = parse_one(text.as_ref())?;
            for day in days {
                let (from, until) = (day * DAY + times.start, day * DAY + times.end);
                open.push(from..until.min(WEEK));
                // Sunday night goes on at the start of the week.
                if until > WEEK {
                    open.push(0..until - WEEK);
                }
            }
        }
        Ok(Self { open: Some(merged(open)) })
    }

    /// Whether it is time.
    pub fn is_open(&self, now: Local) -> bool {
        self.is_open_at(now.week_second())
    }

    /// Until the windows open or close the next time; `None` if they never do.
    pub fn changes_in(&self, now: Local) -> Option<Duration> {
        self.change_after(now.week_second()).map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// How long the window that is open stays so, or how long the next one will be; `None` if there is no end.
    pub fn span(&self, now: Local) -> Option<Duration> {
        let at = now.week_second();
        let change = self.change_after(at)?;
        let span = match self.is_open_at(at) {
            true => change,
            false => self.change_after((at + change) % WEEK)?,
        };
        Some(Duration::from_secs(span.into()))
    }

    /// Seconds within windows from now until midnight.
    pub fn seconds_today(&self, now: Local) -> u32 {
        let (from, until) = (now.week_second(), (u32::from(now.weekday) + 1) * DAY);
        let Some(open) = &self.open else { return until.saturating_sub(from) };
        let within =
            |range: &Range<u32>| range.end.min(until).saturating_sub(range.start.max(from));
        open.iter().map(within).sum()
    }

    /// How long what takes so much time within windows takes in all, the time outside of them included.
    pub fn stretched(&self, now: Local, needed: Duration) -> Duration {
        let Some(open) = &self.open else { return needed };
        let a_week: u64 = open.iter().map(|range| u64::from(range.end - range.start)).sum();
        let whole = needed.as_secs().checked_div(a_week).unwrap_or_default();
        let mut left = needed.as_secs() - whole * a_week;
        let (mut at, mut passed) = (now.week_second(), whole.saturating_mul(WEEK.into()));
        // What is left is less than a week's windows have.
        while let Some(span) = self.change_after(at) {
            if self.is_open_at(at) {
                if left <= span.into() {
                    break;
                }
                left -= u64::from(span);
            }
            passed = passed.saturating_add(span.into());
            at = (at + span) % WEEK;
        }
        Duration::from_secs(passed.saturating_add(left))
    }

    fn is_open_at(&self, at: u32) -> bool {
        self.open.as_ref().is_none_or(|open| open.iter().any(|range| range.contains(&at)))
    }

    /// Seconds until it is otherwise than at a second of the week.
    fn change_after(&self, at: u32) -> Option<u32> {
        let is_open = self.is_open_at(at);
        let edges = self.open.iter().flatten().flat_map(|range| [range.start, range.end]);
        edges
            .map(|edge| edge % WEEK)
            .filter(|edge| self.is_open_at(*edge) != is_open)
            .map(|edge| (edge + WEEK - at) % WEEK)
            .min()
    }
}

/// The days on which a window begins, and its times; one that ends on the next day ends beyond midnight.
fn parse_one(text: &str) -> Result<(Vec<u32>, Range<u32>), WindowError> {
    let (days, times) = match text.trim().rsplit_once(char::is_whitespace) {
        None => ((0..7).collect(), text.trim()),
        Some((days, times)) => {
            let days: Result<_, _> = days.split(',').map(|day| weekday(day.trim())).collect();
            (days?, times)
        }
    };
    let (from, until) = times.split_once('-').ok_or(WindowError::Shape)?;
    let (from, until) = (time(from)?, time(until)?);
    match until {
        same if same == from => Err(WindowError::Empty),
        later if later > from => Ok((days, from..later)),
        earlier => Ok((days, from..earlier + DAY)),
    }
}

fn weekday(text: &str) -> Result<u32, WindowError> {
    let known = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let place = known.iter().zip(0..).find(|(name, _)| **name == text);
    place.map(|(_, place)| place).ok_or(WindowError::Weekday)
}

/// Seconds since midnight.
fn time(text: &str) -> Result<u32, WindowError> {
    let number = |digits: &str| match digits.as_bytes() {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
            Some(u32::from(tens - b'0') * 10 + u32::from(ones - b'0'))
        }
        _ => None,
    };
    let (hours, minutes) = text.split_once(':').ok_or(WindowError::Shape)?;
    match (number(hours), number(minutes)) {
        (Some(24), Some(0)) => Ok(DAY),
        (Some(hours @ 0..=23), Some(minutes @ 0..=59)) => Ok(hours * 3_600 + minutes * 60),
        _ => Err(WindowError::Time),
    }
}

/// The same seconds, in order and apart from each other.
fn merged(mut ranges: Vec<Range<u32>>) -> Vec<Range<u32>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged = Vec::<Range<u32>>::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

const WEEK: u32 = 7 * DAY;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::access::Day;

    fn at(second: u32) -> Local {
        let weekday = u8::try_from(second / DAY).unwrap();
        let day = Day { year: 2026, month: 6, day: 1 };
        Local { day, weekday, second: second % DAY, month_days: 30 }
    }

    fn time_of(weekday: u32, hour: u32, minute: u32) -> Local {
        at(weekday * DAY + hour * 3_600 + minute * 60)
    }

    fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(minutes * 60)
    }

    #[test]
    fn a_window_may_wrap_midnight_and_the_week() {
        let windows = Windows::parse(&["22:00-06:00"]).unwrap();
        for weekday in 0..7 {
            assert!(windows.is_open(time_of(weekday, 22, 0)));
            assert!(windows.is_open(time_of(weekday, 0, 0)));
            assert!(windows.is_open(time_of(weekday, 5, 59)));
            assert!(!windows.is_open(time_of(weekday, 6, 0)));
            assert!(!windows.is_open(time_of(weekday, 21, 59)));
            assert_eq!(windows.changes_in(time_of(weekday, 23, 0)), Some(minutes(7 * 60)));
            assert_eq!(windows.changes_in(time_of(weekday, 7, 30)), Some(minutes(14 * 60 + 30)));
        }
    }

    #[test]
    fn a_weekday_is_that_on_which_a_window_begins() {
        let windows = Windows::parse(&["sat,sun 00:00-24:00", "sun 23:00-01:00"]).unwrap();
        assert!(windows.is_open(time_of(5, 0, 0)) && windows.is_open(time_of(6, 23, 59)));
        assert!(windows.is_open(time_of(0, 0, 59)) && !windows.is_open(time_of(0, 1, 0)));
        assert!(!windows.is_open(time_of(4, 23, 59)));
        assert_eq!(windows.changes_in(time_of(5, 12, 0)), Some(minutes(37 * 60)));
        assert_eq!(windows.changes_in(time_of(0, 1, 0)), Some(minutes(4 * 24 * 60 + 23 * 60)));
    }

    #[test]
    fn what_never_changes_says_so() {
        let always = Windows::parse(&["00:00-12:00", "12:00-24:00"]).unwrap();
        assert_eq!((always.is_open(at(5)), always.changes_in(at(5))), (true, None));
        let none: [&str; 0] = [];
        assert_eq!(Windows::parse(&none).unwrap(), Windows::default());
        assert!(
            Windows::default().is_open(at(0)) && Windows::default().changes_in(at(0)).is_none()
        );
    }

    #[test]
    fn what_does_not_fit_a_window_takes_until_a_later_one() {
        let windows = Windows::parse(&["22:00-06:00"]).unwrap();
        let stretched = |weekday, hour, needed| {
            windows.stretched(time_of(weekday, hour, 0), minutes(needed)).as_secs() / 60
        };
        assert_eq!(stretched(0, 23, 60), 60);
        assert_eq!(stretched(0, 12, 60), 11 * 60);
        assert_eq!(stretched(0, 5, 61), 17 * 60 + 1);
        // Eight hours a day: 56 a week, and one more.
        assert_eq!(stretched(0, 22, 57 * 60), 7 * 24 * 60 + 60);
        assert_eq!(Windows::default().stretched(at(0), minutes(9)), minutes(9));
    }

    #[test]
    fn a_day_has_the_seconds_of_its_windows_that_are_left() {
        let windows = Windows::parse(&["22:00-06:00", "sun 12:00-13:00"]).unwrap();
        let hours = |weekday, hour| windows.seconds_today(time_of(weekday, hour, 0)) / 3_600;
        assert_eq!((hours(0, 0), hours(0, 5), hours(0, 6), hours(0, 23)), (8, 3, 2, 1));
        assert_eq!((hours(6, 0), hours(6, 13)), (9, 2));
        assert_eq!(Windows::default().seconds_today(time_of(6, 20, 0)), 4 * 3_600);
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for (text, error) in [
            ("", WindowError::Shape),
            ("22:00", WindowError::Shape),
            ("22-6", WindowError::Shape),
            ("22:00-6:00", WindowError::Time),
            ("22:00-25:00", WindowError::Time),
            ("24:01-25:00", WindowError::Time),
            ("+1:00-02:00", WindowError::Time),
            ("Sat 00:00-24:00", WindowError::Weekday),
            ("sat, 00:00-24:00", WindowError::Weekday),
            ("06:00-06:00", WindowError::Empty),
        ] {
            assert_eq!(Windows::parse(&[text]), Err(error), "{text}");
        }
    }

    fn window() -> impl Strategy<Value = String> {
        (0_u32..24, 0_u32..60, 0_u32..24, 0_u32..60, 0_usize..8)
            .prop_filter("empty", |(h, m, i, n, _)| (h, m) != (i, n))
            .prop_map(|(h, m, i, n, day)| {
                let days = ["", "mon ", "tue ", "wed ", "thu ", "fri ", "sat ", "sun "];
                format!("{}{h:02}:{m:02}-{i:02}:{n:02}", days[day])
            })
    }

    proptest! {
        #[test]
        fn nothing_changes_before_it_is_said_to(
            texts in prop::collection::vec(window(), 1..4),
            second in 0..WEEK,
        ) {
            let windows = Windows::parse(&texts).unwrap();
            let is_open = windows.is_open(at(second));
            let Some(change) = windows.changes_in(at(second)) else {
                prop_assert!((0..WEEK).step_by(60).all(|at_| windows.is_open(at(at_)) == is_open));
                return Ok(());
            };
            let change = u32::try_from(change.as_secs()).unwrap();
            prop_assert!((1..=WEEK).contains(&change));
            prop_assert_ne!(windows.is_open(at((second + change) % WEEK)), is_open);
            for sooner in (0..change).step_by(30) {
                prop_assert_eq!(windows.is_open(at((second + sooner) % WEEK)), is_open);
            }
        }

        #[test]
        fn garbage_is_refused_without_a_panic(text: String) {
            let _ = Windows::parse(&[text]);
        }
    }
}
