//! The end of a run: what it took, and whether both databases hold the same rows.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;
use indicatif::{DecimalBytes, HumanCount};
use thinwire_cluster::digest::{digests, tables};

use crate::demo::stage::{DATABASE, Stage, transactions};
use crate::emulator::socket::Stats;

/// What was found.
#[derive(Debug)]
pub(crate) struct Verdict {
    tables: Vec<Table>,
    transactions: u64,
    link: Stats,
    took: Duration,
}

#[derive(Debug)]
struct Table {
    name: String,
    source: String,
    target: String,
}

impl Verdict {
    /// Compares the two databases by digests of every table that the source has.
    pub(crate) fn of(stage: &Stage, took: Duration) -> Result<Verdict> {
        let link = stage.proxy.stats();
        let names = tables(&stage.source, DATABASE)?;
        let source = digests(&stage.source, DATABASE, &names)?;
        let target = digests(&stage.target, DATABASE, &names)?;
        let tables = names
            .into_iter()
            .zip(source.into_iter().zip(target))
            .map(|(name, (source, target))| Table { name, source, target })
            .collect();
        Ok(Verdict { tables, transactions: transactions(&stage.target)?, link, took })
    }

    /// Whether every table is equal, and there is something to be equal.
    pub(crate) fn equal(&self) -> bool {
        !self.tables.is_empty() && self.tables.iter().all(Table::equal)
    }

    /// The table that ends the demonstration, on standard output.
    pub(crate) fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "\n{:<28}{:>12}{:>12}", "table", "rows", "")?;
        for table in &self.tables {
            let word = if table.equal() { "equal" } else { "DIFFERENT" };
            writeln!(
                out,
                "{:<28}{:>12}{word:>12}",
                table.name,
                HumanCount(table.rows()).to_string()
            )?;
        }
        let rows = self.tables.iter().map(Table::rows).sum();
        let link = self.link;
        let carried = |bytes: u64| DecimalBytes(bytes).to_string();
        writeln!(out)?;
        for (name, value) in [
            ("rows", HumanCount(rows).to_string()),
            ("transactions", HumanCount(self.transactions).to_string()),
            ("bytes on the link", carried(link.carried_bytes())),
            ("  to the target", carried(link.up.carried_bytes())),
            ("  back", carried(link.down.carried_bytes())),
            ("time", format!("{:.0} s", self.took.as_secs_f64())),
            ("verdict", self.words()),
        ] {
            writeln!(out, "{name:<28}{value:>12}")?;
        }
        out.flush()
    }

    fn words(&self) -> String {
        if self.equal() {
            return "equal".into();
        }
        let different: Vec<&str> = self
            .tables
            .iter()
            .filter(|table| !table.equal())
            .map(|table| table.name.as_str())
            .collect();
        match different.as_slice() {
            [] => "DIFFERENT: there are no tables".into(),
            [name] => format!("DIFFERENT: table {name}"),
            names => format!("DIFFERENT: tables {}", names.join(", ")),
        }
    }
}

impl Table {
    fn equal(&self) -> bool {
        self.source == self.target
    }

    /// A digest begins with the number of rows.
    fn rows(&self) -> u64 {
        let count = self.target.split(':').next().and_then(|count| count.parse().ok());
        count.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(targets: &[&str]) -> Verdict {
        let tables = targets
            .iter()
            .zip(["a", "b", "c"])
            .map(|(target, name)| Table {
                name: name.into(),
                source: "7:1".into(),
                target: (*target).into(),
            })
            .collect();
        Verdict { tables, transactions: 0, link: Stats::default(), took: Duration::ZERO }
    }

    #[test]
    fn the_verdict_can_fail() {
        assert_eq!(verdict(&["7:1", "7:1"]).words(), "equal");
        assert_eq!(verdict(&["7:1", "7:2"]).words(), "DIFFERENT: table b");
        assert_eq!(verdict(&["6:1", "7:1", "7:2"]).words(), "DIFFERENT: tables a, c");
        assert!(!verdict(&[]).equal());
    }
}
