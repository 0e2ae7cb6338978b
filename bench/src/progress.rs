//! What one sees while something is measured: a bar on a terminal, lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};

/// Where it is shown. Dropping it takes the bar away.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) elapsed: Duration,
    pub(crate) done: u64,
    pub(crate) goal: u64,
    pub(crate) bytes: u64,
    pub(crate) up: bool,
}

impl Progress {
    /// A bar if there is a terminal and nobody wants lines.
    pub fn new(plain: bool) -> Progress {
        if plain || !std::io::stderr().is_terminal() {
            return Progress { bar: None };
        }
        let style = ProgressStyle::with_template(TEMPLATE);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        Progress { bar: Some(ProgressBar::new(1).with_style(style)) }
    }

    /// Something begins.
    pub(crate) fn begin(&self, what: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_prefix(what.to_owned());
                bar.set_length(1);
                bar.set_position(0);
                bar.set_message("");
            }
            None => line(what),
        }
    }

    /// Something goes on for which no link is needed.
    pub(crate) fn step(&self, what: &str, done: u64, goal: u64) {
        if let Some(bar) = &self.bar {
            bar.set_prefix(what.to_owned());
            bar.set_length(goal);
            bar.set_position(done);
        }
    }

    /// Time has passed.
    pub(crate) fn show(&self, look: &Look) {
        if let Some(bar) = &self.bar {
            bar.set_length(look.goal);
            bar.set_position(look.done);
            let link = if look.up { "up" } else { "DOWN" };
            let bytes = DecimalBytes(look.bytes);
            bar.set_message(format!("{:.0} s, {bytes}, link {link}", look.elapsed.as_secs_f64()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Nobody may be listening any more; that is no reason to fail.
fn line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

const TEMPLATE: &str = "{prefix}  [{bar:24}] {human_pos} of {human_len}  {msg}";
