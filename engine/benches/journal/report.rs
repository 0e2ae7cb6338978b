//! The figures as Markdown, and their place in the README.

use std::{fmt::Write as _, time::Duration};

/// What stands around the figures in a file.
const BEGIN: &str =
    "<!-- figures of the journal: `make bench` writes what is between these lines -->";
const END: &str = "<!-- end of the figures of the journal -->";

/// All tables of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    tables: Vec<Table>,
}

/// A table, with a sentence above it.
#[derive(Debug)]
pub(crate) struct Table {
    says: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    verdicts: Vec<Verdict>,
}

/// Whether a figure that is to be reached is reached in each row that it is asked of.
#[derive(Debug)]
pub(crate) struct Verdict {
    wanted: String,
    /// What each of those rows is of, what it reached, and whether that is enough.
    reached: Vec<(String, String, bool)>,
}

impl Verdict {
    pub(crate) fn new(wanted: &str) -> Self {
        Self { wanted: wanted.to_owned(), reached: Vec::new() }
    }

    pub(crate) fn judge(&mut self, of: String, reached: String, is_enough: bool) {
        self.reached.push((of, reached, is_enough));
    }

    fn sentence(&self) -> String {
        let missed: Vec<_> = self.reached.iter().filter(|(_, _, is_enough)| !is_enough).collect();
        let (all, wanted) = (self.reached.len(), &self.wanted);
        let met = format!("*{wanted}:* reached by {} of {all}", all - missed.len());
        let named: Vec<_> = missed.iter().map(|(of, by, _)| format!("{of}: {by}")).collect();
        match named[..] {
            [] => format!("{met}."),
            _ => format!("{met}; **not by** {}.", named.join("; ")),
        }
    }
}

impl Table {
    pub(crate) fn new(says: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { says: says.to_owned(), columns, rows: Vec::new(), verdicts: Vec::new() }
    }

    /// Adds a row: what it is of, and its cells.
    pub(crate) fn row(&mut self, name: &str, cells: &[String]) {
        assert_eq!(cells.len() + 1, self.columns.len(), "a row has a cell for each column");
        eprintln!("  {name} | {}", cells.join(" | "));
        self.rows.push([&[name.to_owned()], cells].concat());
    }

    /// Says behind the table whether it reaches what it is to reach.
    pub(crate) fn verdict(&mut self, verdict: Verdict) {
        eprintln!("{}", verdict.sentence());
        self.verdicts.push(verdict);
    }
}

impl Report {
    pub(crate) fn add(&mut self, table: Table) {
        self.tables.push(table);
    }

    /// Everything, with what it was measured on.
    pub(crate) fn markdown(&self, machine: &str) -> String {
        let mut text = format!("{machine}\n");
        for Table { says, columns, rows, verdicts } in &self.tables {
            let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
            let rule = vec!["---".to_owned(); columns.len()];
            let rows: String = rows.iter().map(|row| line(row)).collect();
            let _ = write!(text, "\n{says}\n\n{}{}{rows}", line(columns), line(&rule));
            let verdicts: String =
                verdicts.iter().map(|it| format!("\n{}\n", it.sentence())).collect();
            text.push_str(&verdicts);
        }
        text
    }
}

/// The file with the figures in it replaced.
pub(crate) fn replaced(file: &str, block: &str) -> String {
    let (before, _, after) = parts(file);
    format!("{before}{BEGIN}\n{block}{END}{after}")
}

/// Fails if the tables in the file are not those that are made here: other columns, or other rows.
pub(crate) fn check_shape(file: &str, block: &str) {
    let (_, held, _) = parts(file);
    assert_eq!(shape(held), shape(block), "the README's table is an old one: run `make bench`");
}

/// What is before the markers, between them, and after.
fn parts(file: &str) -> (&str, &str, &str) {
    let (before, rest) = file.split_once(BEGIN).expect("the file has the marker of the beginning");
    let (held, after) = rest.split_once(END).expect("the file has the marker of the end");
    (before, held, after)
}

/// The columns of each table, and the rows' names.
fn shape(block: &str) -> Vec<&str> {
    let lines: Vec<&str> = block.lines().collect();
    let is_head = |at: usize| lines.get(at + 1).is_some_and(|line| line.starts_with("| ---"));
    let rows = lines.iter().enumerate().filter(|(_, line)| line.starts_with('|'));
    rows.map(|(at, line)| if is_head(at) { line } else { first_cell(line) }).collect()
}

fn first_cell(line: &str) -> &str {
    line.trim_start_matches('|').split('|').next().unwrap_or_default().trim()
}

pub(crate) fn mega_per_second(bytes: u64, time: Duration) -> String {
    format!("{:.0}", bytes as f64 / 1e6 / time.as_secs_f64())
}

pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}

/// The share of each of `many` in microseconds.
pub(crate) fn micros(time: Duration, many: u64) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e6 / many as f64)
}
