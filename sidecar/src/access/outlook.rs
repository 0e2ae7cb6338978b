//! What is to be expected of a peer under its terms, as the status shows it.

use std::time::Duration;

use super::{Access, Cause, Local};
use crate::status::{Budget, Stopped, Window};

/// What the status says of a peer's terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// When the peer will have everything, time in which it is not talked to included; `None` if that is unknown, or
    /// beyond all that anybody waits for.
    pub eta_seconds: Option<u64>,
    /// Whether what is pending fits into what is left of its budget now.
    pub fits_budget: Option<bool>,
    /// Whether it fits into the window that is open, or else the next one.
    pub fits_window: Option<bool>,
    /// Whether its window is open.
    pub window: Option<Window>,
    /// What it has cost.
    pub budget: Budget,
    /// Why it is not talked to.
    pub stopped: Option<Stopped>,
}

impl Access {
    /// What is to be expected if what is pending takes so many seconds of a link in use, and so many bytes.
    pub fn outlook(&self, now: Local, seconds: Option<u64>, bytes: Option<u64>) -> Outlook {
        let (spent, stop) = (self.spent(now), self.stop(now));
        let is_set_aside = self.is_set_aside(now);
        let left = spent.left().filter(|_| !is_set_aside);
        let fits_budget = left.zip(bytes).map(|(left, bytes)| bytes <= left);
        let windows = self.windows();
        let has_window = *windows != Default::default();
        let eta = seconds.and_then(|seconds| match is_set_aside {
            true => Some(Duration::from_secs(seconds)),
            false => self.spread(now, seconds, bytes),
        });
        Outlook {
            eta_seconds: eta.map(|eta| eta.as_secs()),
            fits_budget,
            fits_window: seconds.filter(|_| has_window && !is_set_aside).map(|seconds| {
                let span = windows.span(now);
                span.is_none_or(|span| Duration::from_secs(seconds) <= span)
            }),
            window: has_window.then(|| Window {
                open: windows.is_open(now),
                changes_in_seconds: windows.changes_in(now).map(|change| change.as_secs()),
            }),
            budget: Budget {
                day_bytes: spent.day,
                day_limit: spent.budget.day,
                month_bytes: spent.month,
                month_limit: spent.budget.month,
                warning: spent.is_nearly_over(),
                stopped: stop.is_some_and(|stop| stop.cause != Cause::Window),
                set_aside: is_set_aside,
            },
            stopped: stop.map(|stop| Stopped {
                code: stop.cause.code().to_owned(),
                detail: stop.cause.sentence().to_owned(),
                lifts_in_seconds: stop.lifts_in.as_secs(),
            }),
        }
    }

    /// How long it takes until what is pending has found its place in windows and budgets, days without any included.
    fn spread(&self, now: Local, seconds: u64, bytes: Option<u64>) -> Option<Duration> {
        let (windows, mut spent) = (self.windows(), self.spent(now));
        // Nothing that is pending is nothing to wait for.
        if bytes == Some(0) || (bytes.is_none() && seconds == 0) {
            return Some(Duration::ZERO);
        }
        if spent.left().is_none() {
            return Some(windows.stretched(now, Duration::from_secs(seconds)));
        }
        // In bytes times seconds, so that nothing is lost by rounding, however few there are of either.
        let (each_byte, each_second) = (u128::from(seconds.max(1)), u128::from(bytes.unwrap_or(1)));
        let mut pending = each_byte * each_second;
        let (mut at, mut passed) = (now, Duration::ZERO);
        for _ in 0..DAYS_AHEAD {
            // What is not known to be much finds its place wherever any is left.
            let room = match spent.left() {
                Some(left) if left == 0 || bytes.is_some() => u128::from(left) * each_byte,
                _ => pending,
            };
            let time = u128::from(windows.seconds_today(at)) * each_second;
            let today = pending.min(room).min(time);
            pending -= today;
            if pending == 0 {
                let needed = u64::try_from(today.div_ceil(each_second)).ok()?;
                return Some(passed + windows.stretched(at, Duration::from_secs(needed)));
            }
            passed += at.until_tomorrow();
            at = at.tomorrow()?;
            spent = spent.on(at.day, u64::try_from(today.div_ceil(each_byte)).ok()?);
        }
        None
    }
}

/// How far it is looked: ten years. What takes longer will never be.
const DAYS_AHEAD: u32 = 3_653;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Day, Ledger, Terms, Windows};

    fn at(hour: u32) -> Local {
        let day = Day { year: 2026, month: 6, day: 1 };
        Local { day, weekday: 0, second: hour * 3_600, month_days: 30 }
    }

    fn access(windows: &[&str], day: Option<u64>) -> Access {
        under(windows, day, None)
    }

    fn under(windows: &[&str], day: Option<u64>, month: Option<u64>) -> Access {
        let budget = crate::access::Budget { day, month };
        let terms = Terms { windows: Windows::parse(windows).unwrap(), budget };
        Access::new(terms, Ledger::default())
    }

    #[test]
    fn without_terms_there_is_nothing_but_the_pace() {
        let outlook = access(&[], None).outlook(at(3), Some(70), Some(1_000));
        let expected = Outlook { eta_seconds: Some(70), ..Outlook::default() };
        assert_eq!(outlook, expected);
    }

    #[test]
    fn what_a_window_does_not_hold_takes_until_a_later_one() {
        let access = access(&["22:00-23:00"], None);
        let closed = access.outlook(at(20), Some(600), None);
        assert_eq!((closed.eta_seconds, closed.fits_window), (Some(7_800), Some(true)));
        assert_eq!(closed.window, Some(Window { open: false, changes_in_seconds: Some(7_200) }));
        assert_eq!(closed.stopped.unwrap().code, "outside_window");
        assert!(!closed.budget.stopped);
        let open = access.outlook(at(22), Some(3_700), None);
        assert_eq!((open.eta_seconds, open.fits_window), (Some(86_500), Some(false)));
        assert_eq!(access.outlook(at(20), Some(0), None).eta_seconds, Some(0));
    }

    #[test]
    fn what_a_budget_does_not_hold_takes_until_a_later_day() {
        let mut access = access(&[], Some(1_000));
        access.count(at(1), 900);
        let tight = access.outlook(at(1), Some(50), Some(101));
        // The last byte takes its half a second on the next day.
        assert_eq!((tight.eta_seconds, tight.fits_budget), (Some(23 * 3_600 + 1), Some(false)));
        assert!(tight.budget.warning && !tight.budget.stopped);
        assert_eq!(access.outlook(at(1), Some(50), Some(100)).eta_seconds, Some(50));
        let days = access.outlook(at(1), Some(50), Some(3_100));
        assert_eq!(days.eta_seconds, Some((23 + 2 * 24) * 3_600 + 17));
        access.count(at(1), 1_000);
        let over = access.outlook(at(1), Some(50), None);
        assert!(over.budget.stopped);
        assert_eq!(over.stopped.unwrap().lifts_in_seconds, 23 * 3_600);
        assert_eq!(over.eta_seconds, Some(23 * 3_600 + 50));
        access.set_aside(at(1));
        let outlook = access.outlook(at(1), Some(50), Some(101));
        assert_eq!((outlook.eta_seconds, outlook.fits_budget), (Some(50), None));
        assert!(outlook.budget.set_aside && outlook.stopped.is_none());
    }

    #[test]
    fn what_a_month_does_not_hold_waits_for_the_next_one() {
        let mut access = under(&[], Some(1_000), Some(2_500));
        access.count(at(1), 500);
        // 500 today, a thousand on the second, 500 on the third, and the last on the first of July.
        let outlook = access.outlook(at(12), Some(0), Some(2_001));
        assert_eq!(outlook.eta_seconds, Some((30 * 24 - 12) * 3_600 + 1));
        let outlook = access.outlook(at(12), Some(0), Some(2_000));
        assert_eq!(outlook.eta_seconds, Some((2 * 24 - 12) * 3_600 + 1));
    }

    #[test]
    fn on_each_day_there_is_no_more_than_fits_into_both_its_window_and_its_budget() {
        let access = access(&["22:00-23:00"], Some(1_000));
        // Two thousand bytes of an hour's two are what the windows hold; the budget holds half of them.
        let outlook = access.outlook(at(20), Some(7_200), Some(4_000));
        assert_eq!(outlook.eta_seconds, Some((2 + 3 * 24) * 3_600 + 1_800));
        let slow = access.outlook(at(20), Some(7_200), Some(1_000));
        assert_eq!((slow.eta_seconds, slow.fits_budget), (Some(27 * 3_600), Some(true)));
        let first = access.outlook(at(20), Some(600), Some(1_000));
        assert_eq!(first.eta_seconds, Some(2 * 3_600 + 600));
    }

    #[test]
    fn what_takes_more_than_ten_years_has_no_end() {
        let outlook = access(&[], Some(1)).outlook(at(1), Some(50), Some(1_000_000));
        assert_eq!((outlook.eta_seconds, outlook.fits_budget), (None, Some(false)));
        let most = access(&[], Some(u64::MAX)).outlook(at(1), Some(u64::MAX), Some(u64::MAX));
        assert_eq!(most.eta_seconds, None);
    }
}
