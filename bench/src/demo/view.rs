//! What one sees while the demonstration runs: bars on a terminal, lines elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{DecimalBytes, HumanCount, MultiProgress, ProgressBar, ProgressStyle};

/// The demonstration at one moment.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) elapsed: Duration,
    pub(super) link_up: bool,
    pub(super) connected: bool,
    pub(super) link_bytes: u64,
    pub(super) copy_done: Option<u64>,
    pub(super) copy_total: Option<u64>,
    pub(super) transactions: u64,
    pub(super) committed: u64,
    pub(super) applied: u64,
    pub(super) pending_records: Option<u64>,
}

/// Where it is shown.
#[derive(Debug)]
pub(super) enum View {
    Bars(Box<Bars>),
    Lines { last: Mutex<Option<Duration>> },
}

#[derive(Debug)]
pub(super) struct Bars {
    all: MultiProgress,
    link: ProgressBar,
    copy: ProgressBar,
    transactions: ProgressBar,
    lag: ProgressBar,
}

impl View {
    pub(super) fn new(plain: bool) -> View {
        if plain || !std::io::stderr().is_terminal() {
            return View::Lines { last: Mutex::new(None) };
        }
        let all = MultiProgress::new();
        let add = |name: &'static str, template: &str| {
            let bar = ProgressBar::new(1).with_style(style(template)).with_prefix(name);
            all.add(bar)
        };
        let link = add("link", WORDS);
        let copy = add("first copy", BAR);
        let transactions = add("transactions", BAR);
        let lag = add("lag", WORDS);
        View::Bars(Box::new(Bars { all, link, copy, transactions, lag }))
    }

    /// Something happened.
    pub(super) fn event(&self, text: &str) {
        match self {
            View::Bars(bars) => {
                let _ = bars.all.println(text);
            }
            View::Lines { .. } => line(text),
        }
    }

    /// Time has passed.
    pub(super) fn show(&self, now: &Snapshot) {
        match self {
            View::Bars(bars) => bars.show(now),
            View::Lines { last } => {
                let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if last.is_none_or(|last| now.elapsed >= last + LINE_EVERY) {
                    *last = Some(now.elapsed);
                    line(&now.to_string());
                }
            }
        }
    }

    /// Takes the bars away.
    pub(super) fn finish(&self) {
        if let View::Bars(bars) = self {
            let _ = bars.all.clear();
        }
    }
}

impl Bars {
    fn show(&self, now: &Snapshot) {
        self.link.set_message(now.link());
        if let (Some(done), Some(total)) = (now.copy_done, now.copy_total) {
            self.copy.set_length(total);
            self.copy.set_position(done);
            self.copy.set_message("rows");
        }
        self.transactions.set_length(now.transactions);
        self.transactions.set_position(now.applied);
        self.transactions.set_message(format!("applied; {} committed", now.committed));
        self.lag.set_message(now.lag());
    }
}

impl Snapshot {
    fn link(&self) -> String {
        let state = match (self.link_up, self.connected) {
            (false, _) => "DOWN",
            (true, false) => "up, no answer yet",
            (true, true) => "up",
        };
        format!("{state}, {} carried", DecimalBytes(self.link_bytes))
    }

    fn lag(&self) -> String {
        let transactions = HumanCount(self.committed.saturating_sub(self.applied));
        match self.pending_records {
            Some(records) => {
                format!("{transactions} transactions, {} records", HumanCount(records))
            }
            None => format!("{transactions} transactions"),
        }
    }
}

impl std::fmt::Display for Snapshot {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:>3} s  link {}", self.elapsed.as_secs(), self.link())?;
        if let (Some(done), Some(total)) = (self.copy_done, self.copy_total) {
            write!(out, " | copy {} of {} rows", HumanCount(done), HumanCount(total))?;
        }
        write!(
            out,
            " | {} of {} transactions applied | lag {}",
            HumanCount(self.applied),
            HumanCount(self.transactions),
            self.lag()
        )
    }
}

/// Nobody may be listening any more; that is no reason to fail.
fn line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

const WORDS: &str = "{prefix:>12}  {msg}";
const BAR: &str = "{prefix:>12}  [{bar:32}] {human_pos} of {human_len} {msg}";
const LINE_EVERY: Duration = Duration::from_secs(5);
