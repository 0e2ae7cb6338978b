//! The node's local time, as people write windows and pay bills in it. Only this file asks for it.

use std::time::Duration;

use jiff::{Timestamp, Zoned, civil::Date};

/// A date. Years beyond those of the calendar are no concern here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "a date says what it is")]
pub struct Day {
    pub year: i16,
    pub month: i8,
    pub day: i8,
}

/// A moment of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// The date.
    pub day: Day,
    /// Monday is 0.
    pub weekday: u8,
    /// Since midnight, as a clock on the wall shows it.
    pub second: u32,
    /// How many days the month has.
    pub month_days: u8,
}

impl Local {
    /// What the clock on the node's wall shows.
    pub fn now() -> Self {
        let now = Zoned::now();
        let seconds = |number: i8| u32::from(number.unsigned_abs());
        Self {
            day: Day { year: now.year(), month: now.month(), day: now.day() },
            weekday: now.weekday().to_monday_zero_offset().unsigned_abs(),
            second: seconds(now.hour()) * 3_600
                + seconds(now.minute()) * 60
                + seconds(now.second()).min(59),
            month_days: now.days_in_month().unsigned_abs(),
        }
    }

    /// Since Monday's midnight.
    pub fn week_second(self) -> u32 {
        u32::from(self.weekday) * DAY + self.second
    }

    /// Until midnight, on the wall: a night in which clocks are set is an hour shorter or longer.
    pub fn until_tomorrow(self) -> Duration {
        Duration::from_secs(u64::from(DAY - self.second.min(DAY)))
    }

    /// The midnight at which the next day begins; `None` where the calendar ends.
    pub fn tomorrow(self) -> Option<Self> {
        let Day { year, month, day } = self.day;
        let next = Date::new(year, month, day).ok()?.tomorrow().ok()?;
        Some(Self {
            day: Day { year: next.year(), month: next.month(), day: next.day() },
            weekday: next.weekday().to_monday_zero_offset().unsigned_abs(),
            second: 0,
            month_days: next.days_in_month().unsigned_abs(),
        })
    }

    /// Until the first midnight of the next month.
    pub fn until_next_month(self) -> Duration {
        let days = self.month_days.saturating_sub(self.day.day.unsigned_abs());
        self.until_tomorrow() + Duration::from_secs(u64::from(days) * u64::from(DAY))
    }
}

/// Seconds of a day.
pub(super) const DAY: u32 = 86_400;

/// Seconds since 1970.
pub fn now() -> u64 {
    Timestamp::now().as_second().unsigned_abs()
}

/// A moment in seconds since 1970, for people.
pub fn written(seconds: u64) -> String {
    let moment = i64::try_from(seconds).ok().and_then(|it| Timestamp::from_second(it).ok());
    moment.unwrap_or(Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_on_the_wall_is_within_its_bounds() {
        let now = Local::now();
        assert!(now.second < DAY && now.weekday < 7 && (28..=31).contains(&now.month_days));
        assert!(now.until_next_month() >= now.until_tomorrow());
        assert!((1..=12).contains(&now.day.month) && now.day.year > 2_000);
    }

    #[test]
    fn the_day_after_the_last_of_a_month_is_the_first_of_the_next() {
        let at = |year, month, day, weekday, month_days| Local {
            day: Day { year, month, day },
            weekday,
            second: 0,
            month_days,
        };
        let noon = Local { second: DAY / 2, ..at(2026, 12, 31, 3, 31) };
        assert_eq!(noon.tomorrow(), Some(at(2027, 1, 1, 4, 31)));
        assert_eq!(at(2028, 2, 28, 0, 29).tomorrow(), Some(at(2028, 2, 29, 1, 29)));
        assert_eq!(at(2028, 2, 29, 1, 29).tomorrow(), Some(at(2028, 3, 1, 2, 31)));
        assert_eq!(at(9_999, 12, 31, 4, 31).tomorrow(), None);
    }
}
