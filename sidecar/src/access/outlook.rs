//! What is to be expected of a peer under its terms, as the status shows it.

use std::time::Duration;

use super::{Access, Cause, Local};
use crate::status::{Budget, Stopped, Window};

/// What the status says of a peer's terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// When the peer will have everything, time in which it is not talked to included.
    pub eta_seconds: Option<u64>,
    /// Whether what is pending fits into what is left of its budget.
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
        let eta = seconds.filter(|_| fits_budget != Some(false)).map(|seconds| {
            let needed = Duration::from_secs(seconds);
            // Nothing that is pending is nothing to wait for.
            match (seconds, is_set_aside) {
                (0, _) | (_, true) => needed,
                _ => windows.stretched(now, needed),
            }
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Day, Ledger, Terms, Windows};

    fn at(hour: u32) -> Local {
        let day = Day { year: 2026, month: 6, day: 1 };
        Local { day, weekday: 0, second: hour * 3_600, month_days: 30 }
    }

    fn access(windows: &[&str], day: Option<u64>) -> Access {
        let budget = crate::access::Budget { day, month: None };
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
    fn what_a_budget_does_not_hold_has_no_end_until_somebody_sets_it_aside() {
        let mut access = access(&[], Some(1_000));
        access.count(at(1), 900);
        let tight = access.outlook(at(1), Some(50), Some(101));
        assert_eq!((tight.eta_seconds, tight.fits_budget), (None, Some(false)));
        assert!(tight.budget.warning && !tight.budget.stopped);
        assert_eq!(access.outlook(at(1), Some(50), Some(100)).eta_seconds, Some(50));
        access.count(at(1), 1_000);
        let over = access.outlook(at(1), Some(50), None);
        assert!(over.budget.stopped);
        assert_eq!(over.stopped.unwrap().lifts_in_seconds, 23 * 3_600);
        access.set_aside(at(1));
        let outlook = access.outlook(at(1), Some(50), Some(101));
        assert_eq!((outlook.eta_seconds, outlook.fits_budget), (Some(50), None));
        assert!(outlook.budget.set_aside && outlook.stopped.is_none());
    }
}
