//! Bytes by day and month, and how many there may be.

use std::collections::BTreeMap;

use super::Day;

/// How many bytes may go over a link, both directions and headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// On one day.
    pub day: Option<u64>,
    /// In one month.
    pub month: Option<u64>,
}

/// Bytes by date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger(BTreeMap<Day, u64>);

impl Ledger {
    /// Counts bytes on a day.
    pub fn add(&mut self, day: Day, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let count = self.0.entry(day).or_default();
        *count = count.saturating_add(bytes);
        while self.0.len() > DAYS_MAX {
            // Never the one that is counted on now, whatever the clock takes it for.
            let Some(oldest) = self.0.keys().find(|held| **held != day).copied() else { return };
            self.0.remove(&oldest);
        }
    }

    /// What was counted on a day.
    pub fn day(&self, day: Day) -> u64 {
        self.0.get(&day).copied().unwrap_or_default()
    }

    /// What was counted in a day's month.
    pub fn month(&self, of: Day) -> u64 {
        let (first, last) = (Day { day: 1, ..of }, Day { day: i8::MAX, ..of });
        self.0.range(first..=last).fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// All days.
    pub fn days(&self) -> impl Iterator<Item = (Day, u64)> + '_ {
        self.0.iter().map(|(day, bytes)| (*day, *bytes))
    }
}

/// What is spent of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// On this day.
    pub day: u64,
    /// In this month.
    pub month: u64,
    /// Of so many.
    pub budget: Budget,
}

impl Spent {
    /// Whether the day's bytes are spent.
    pub fn is_day_over(self) -> bool {
        self.budget.day.is_some_and(|limit| self.day >= limit)
    }

    /// Whether the month's bytes are spent.
    pub fn is_month_over(self) -> bool {
        self.budget.month.is_some_and(|limit| self.month >= limit)
    }

    /// Whether so much of either is spent that somebody should know.
    pub fn is_nearly_over(self) -> bool {
        let nearly = |spent: u64, limit: Option<u64>| {
            limit
                .is_some_and(|limit| u128::from(spent) * 100 >= u128::from(limit) * WARNING_PERCENT)
        };
        nearly(self.day, self.budget.day) || nearly(self.month, self.budget.month)
    }

    /// What may still go over the link today; `None` if there is no limit.
    pub fn left(self) -> Option<u64> {
        let day = self.budget.day.map(|limit| limit.saturating_sub(self.day));
        let month = self.budget.month.map(|limit| limit.saturating_sub(self.month));
        day.into_iter().chain(month).min()
    }

    /// What will be spent when `day` begins, if so many bytes more go over the link on the one before.
    pub fn on(self, day: Day, before: u64) -> Self {
        let month = if day.day == 1 { 0 } else { self.month.saturating_add(before) };
        Self { day: 0, month, ..self }
    }
}

/// How much is spent when somebody is warned.
const WARNING_PERCENT: u128 = 80;

/// Two months, and some days of clocks that were wrong.
pub(crate) const DAYS_MAX: usize = 70;

#[cfg(test)]
mod tests {
    use super::*;

    fn day(month: i8, day: i8) -> Day {
        Day { year: 2026, month, day }
    }

    #[test]
    fn a_month_is_the_sum_of_its_days() {
        let mut ledger = Ledger::default();
        for (on, bytes) in [(day(5, 31), 1), (day(6, 1), 10), (day(6, 30), 100), (day(7, 1), 1_000)]
        {
            ledger.add(on, bytes);
        }
        assert_eq!((ledger.month(day(6, 15)), ledger.day(day(6, 30))), (110, 100));
        ledger.add(day(6, 30), u64::MAX);
        assert_eq!(ledger.month(day(6, 15)), u64::MAX);
    }

    #[test]
    fn old_days_are_forgotten_and_the_present_one_never() {
        let mut ledger = Ledger::default();
        for month in 1..=12 {
            (1..=28).for_each(|on| ledger.add(day(month, on), 1));
        }
        assert_eq!((ledger.days().count(), ledger.month(day(12, 1))), (DAYS_MAX, 28));
        // A clock that was never set.
        let never = Day { year: 1970, month: 1, day: 1 };
        (0..3).for_each(|_| ledger.add(never, 5));
        assert_eq!(ledger.day(never), 15);
    }

    #[test]
    fn warnings_begin_at_four_fifths() {
        let spent = |day, month| Spent {
            day,
            month,
            budget: Budget { day: Some(100), month: Some(u64::MAX) },
        };
        assert!(!spent(79, 79).is_nearly_over() && spent(80, 80).is_nearly_over());
        assert!(spent(0, u64::MAX - 1).is_nearly_over());
        assert_eq!((spent(30, 0).left(), spent(130, 0).left()), (Some(70), Some(0)));
        assert!(!spent(99, 0).is_day_over() && spent(100, 0).is_day_over());
        let unlimited = Spent { budget: Budget::default(), ..spent(u64::MAX, u64::MAX) };
        assert!(!unlimited.is_nearly_over() && unlimited.left().is_none());
    }
}
