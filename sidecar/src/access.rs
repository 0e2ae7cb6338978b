//! When a peer may be talked to, and how much: the windows and budgets that a user has set.
//!
//! Told the local time and how many bytes went over the link, it says whether to go on; it asks nothing, and nothing but
//! this depends on what the clock says. A clock that jumps opens or shuts a window, and counts on under
//! another date; a date that comes back finds what was counted under it.

mod budget;
pub mod clock;
mod outlook;
mod window;

use std::time::Duration;

pub use budget::{Budget, Ledger, Spent};
pub use clock::{Day, Local};
pub use outlook::Outlook;
pub use window::{WindowError, Windows};

/// What a user has said about when to talk to a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// When.
    pub windows: Windows,
    /// How much.
    pub budget: Budget,
}

impl Terms {
    /// Whether there is anything to keep to.
    pub fn bind(&self) -> bool {
        self.windows != Windows::default() || self.budget != Budget::default()
    }
}

/// Why a peer is not talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It is not the time.
    Window,
    /// The day's bytes are spent.
    Day,
    /// The month's bytes are spent.
    Month,
}

impl Cause {
    /// A stable word for it.
    pub fn code(self) -> &'static str {
        match self {
            Self::Window => "outside_window",
            Self::Day => "day_budget_spent",
            Self::Month => "month_budget_spent",
        }
    }

    /// A part of a sentence for people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Window => "outside of its window",
            Self::Day => "its budget of the day is spent",
            Self::Month => "its budget of the month is spent",
        }
    }
}

/// What is in the way, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// What.
    pub cause: Cause,
    /// Until it is not any more.
    pub lifts_in: Duration,
}

/// The terms of one peer, and what it has cost.
#[derive(Clone, Debug, Default)]
pub struct Access {
    terms: Terms,
    ledger: Ledger,
    /// Bytes since the start of the process, as far as they are in the ledger.
    counted: u64,
    /// The day on which somebody has set the terms aside.
    set_aside: Option<Day>,
}

impl Access {
    /// Under `terms`, with what was counted before.
    pub fn new(terms: Terms, ledger: Ledger) -> Self {
        Self { terms, ledger, counted: 0, set_aside: None }
    }

    /// Other terms hold from here on.
    pub fn agree(&mut self, terms: Terms) {
        self.terms = terms;
    }

    /// What was agreed.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Counts what went over the link since the start of the process, in all.
    pub fn count(&mut self, now: Local, total: u64) {
        let more = total.saturating_sub(self.counted);
        self.counted = total;
        self.ledger.add(now.day, more);
    }

    /// What keeps the peer from being talked to. Of several causes the one that lasts longest.
    pub fn stop(&self, now: Local) -> Option<Stop> {
        if self.set_aside == Some(now.day) {
            return None;
        }
        let spent = self.spent(now);
        let window = (!self.terms.windows.is_open(now))
            .then(|| self.terms.windows.changes_in(now))
            .flatten()
            .map(|lifts_in| Stop { cause: Cause::Window, lifts_in });
        let day =
            spent.is_day_over().then(|| Stop { cause: Cause::Day, lifts_in: now.until_tomorrow() });
        let month = spent
            .is_month_over()
            .then(|| Stop { cause: Cause::Month, lifts_in: now.until_next_month() });
        [window, day, month].into_iter().flatten().max_by_key(|stop| stop.lifts_in)
    }

    /// What was spent of the day's and the month's budget.
    pub fn spent(&self, now: Local) -> Spent {
        Spent {
            day: self.ledger.day(now.day),
            month: self.ledger.month(now.day),
            budget: self.terms.budget,
        }
    }

    /// What is in the ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// When the peer is talked to.
    pub fn windows(&self) -> &Windows {
        &self.terms.windows
    }

    /// Sets the terms aside until the day is over.
    pub fn set_aside(&mut self, now: Local) {
        self.set_aside = Some(now.day);
    }

    /// Keeps to the terms again.
    pub fn keep(&mut self) {
        self.set_aside = None;
    }

    /// Whether the terms are set aside.
    pub fn is_set_aside(&self, now: Local) -> bool {
        self.set_aside == Some(now.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i8, hour: u32) -> Local {
        // The first of June 2026 is a Monday.
        let day = Day { year: 2026, month: 6, day };
        Local {
            day,
            weekday: u8::try_from((day.day - 1) % 7).unwrap(),
            second: hour * 3_600,
            month_days: 30,
        }
    }

    fn hours(hours: u64) -> Duration {
        Duration::from_secs(hours * 3_600)
    }

    fn access(windows: &[&str], day: u64, month: u64) -> Access {
        let budget = Budget { day: Some(day), month: Some(month) };
        let windows = Windows::parse(windows).unwrap();
        Access::new(Terms { windows, budget }, Ledger::default())
    }

    #[test]
    fn what_is_spent_stops_the_peer_until_the_next_day_or_month() {
        let mut access = access(&[], 100, 250);
        access.count(at(1, 8), 99);
        assert_eq!(access.stop(at(1, 8)), None);
        access.count(at(1, 9), 130);
        let stop = Stop { cause: Cause::Day, lifts_in: hours(15) };
        assert_eq!(access.stop(at(1, 9)), Some(stop));
        assert_eq!(access.stop(at(2, 0)), None);
        access.count(at(2, 1), 260);
        let stop = Stop { cause: Cause::Month, lifts_in: hours(23 + 28 * 24) };
        assert_eq!(access.stop(at(2, 1)), Some(stop));
        let july = Local { day: Day { year: 2026, month: 7, day: 1 }, ..at(1, 0) };
        assert_eq!(access.stop(july), None);
    }

    #[test]
    fn of_window_and_budget_the_longer_stop_counts() {
        let mut access = access(&["22:00-06:00"], 100, 1_000);
        let stop = Stop { cause: Cause::Window, lifts_in: hours(12) };
        assert_eq!(access.stop(at(3, 10)), Some(stop));
        access.count(at(3, 23), 100);
        let stop = Stop { cause: Cause::Day, lifts_in: hours(1) };
        assert_eq!(access.stop(at(3, 23)), Some(stop));
    }

    #[test]
    fn terms_that_are_set_aside_count_again_on_the_next_day() {
        let mut access = access(&["22:00-23:00"], 10, 1_000);
        access.set_aside(at(5, 1));
        access.count(at(5, 2), 500);
        assert_eq!(access.stop(at(5, 23)), None);
        assert!(access.is_set_aside(at(5, 23)) && !access.is_set_aside(at(6, 0)));
        assert_eq!(access.stop(at(6, 0)).unwrap().cause, Cause::Window);
        access.set_aside(at(6, 1));
        access.keep();
        assert!(access.stop(at(6, 1)).is_some());
    }

    #[test]
    fn a_clock_that_jumps_and_returns_has_forgotten_nothing() {
        let mut access = access(&[], 1_000, 5_000);
        access.count(at(9, 1), 700);
        let far = |year| Local { day: Day { year, month: 1, day: 1 }, ..at(1, 1) };
        access.count(far(2016), 800);
        access.count(far(2036), 900);
        access.count(at(9, 2), 950);
        assert_eq!(access.spent(at(9, 2)).day, 750);
        assert_eq!(access.spent(far(2036)).month, 100);
    }
}
