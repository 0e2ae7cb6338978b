//! Figures in a file that people read: what is measured takes the place of what was between two markers.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// A place for figures.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    begin: &'static str,
    end: &'static str,
}

/// Where the table of links is.
pub const LINKS: Place = Place {
    begin: "<!-- figures of links: `thinwire-bench table --write README.md` writes what is between these lines -->",
    end: "<!-- end of the figures of links -->",
};

/// Where forecasts are beside what came true.
pub const FORECASTS: Place = Place {
    begin: "<!-- forecasts: `thinwire-bench plan --check --write README.md` writes what is between these lines -->",
    end: "<!-- end of the forecasts -->",
};

/// Where what a sample promises is beside what came true.
pub const PROMISES: Place = Place {
    begin: "<!-- samples: `thinwire-bench plan --check --write README.md` writes what is between these lines -->",
    end: "<!-- end of the samples -->",
};

impl Place {
    /// Fails if a file has no such place: before an hour is spent on what would go there.
    pub fn check(&self, file: &Path) -> Result<()> {
        self.split(&read(file)?).map(drop).with_context(|| file.display().to_string())
    }

    /// Puts lines into the table there. Each name is what a line begins with, in the order of the table; a line that is
    /// not given stays as it is, if the table has had the same columns.
    pub fn join(
        &self,
        file: &Path,
        heading: &str,
        lines: &[String],
        names: &[String],
    ) -> Result<()> {
        let joined = self.joined(&read(file)?, heading, lines, names)?;
        fs::write(file, joined).with_context(|| format!("writing {}", file.display()))
    }

    fn joined(
        &self,
        file: &str,
        heading: &str,
        lines: &[String],
        names: &[String],
    ) -> Result<String> {
        let [before, old, after] = self.split(file)?;
        let old: Vec<&str> = match old.trim().strip_prefix(heading) {
            Some(rows) => rows.lines().collect(),
            None => Vec::new(),
        };
        let lines = || lines.iter().map(String::as_str).chain(old.iter().copied());
        let named = |name: &String| lines().find(|line| line.starts_with(name.as_str()));
        let table: String =
            names.iter().filter_map(named).map(|line| format!("{line}\n")).collect();
        Ok(format!("{before}{}\n{heading}\n{table}{}{after}", self.begin, self.end))
    }

    /// What is before the place, in it and after it.
    fn split<'a>(&self, file: &'a str) -> Result<[&'a str; 3]> {
        let (before, rest) = file.split_once(self.begin).context("a marker is missing")?;
        let (inside, after) = rest.split_once(self.end).context("a marker is missing")?;
        Ok([before, inside, after])
    }
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{check, promise};
    use crate::run::table;

    #[test]
    fn lines_that_were_measured_replace_their_like_and_others_stay() {
        let place = Place { begin: "<a>", end: "<b>" };
        let heading = "| h |\n| --- |";
        let join = |file: &str, lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
            place.joined(file, heading, &lines, &["| x |", "| y |"].map(str::to_owned)).unwrap()
        };
        let first = join("1 <a>old<b> 2", &["| y | 1 |"]);
        assert_eq!(first, "1 <a>\n| h |\n| --- |\n| y | 1 |\n<b> 2");
        let both = join(&first, &["| x | 2 |"]);
        assert_eq!(both, "1 <a>\n| h |\n| --- |\n| x | 2 |\n| y | 1 |\n<b> 2");
        let again = join(&both, &["| y | 3 |"]);
        assert_eq!(again, both.replace("| y | 1 |", "| y | 3 |"));
        let wider = both.replace("| h |", "| h | i |");
        assert_eq!(join(&wider, &["| y | 3 |"]), first.replace("| 1 |", "| 3 |"), "other columns");
        assert!(place.joined("<b><a>", heading, &[], &[]).is_err());
    }

    /// Who changes what is measured, measures it.
    #[test]
    fn the_readme_has_a_line_for_whatever_is_measured_and_no_other() {
        let readme = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
        for (place, heading, names) in [
            (LINKS, table::heading(), table::names()),
            (FORECASTS, check::HEADING.into(), check::names()),
            (PROMISES, promise::HEADING.into(), promise::names()),
        ] {
            let [_, table, _] = place.split(&readme).unwrap();
            let rows = table.trim().strip_prefix(&heading).expect(&heading);
            let rows: Vec<&str> = rows.trim().lines().collect();
            let has = |name: &String| rows.iter().any(|row| row.starts_with(name));
            let missing: Vec<&String> = names.iter().filter(|name| !has(name)).collect();
            assert!(missing.is_empty(), "not measured: {missing:#?}");
            assert_eq!(rows.len(), names.len(), "lines that nobody measures: {rows:#?}");
        }
    }

    #[test]
    fn the_readme_has_every_place() {
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
        LINKS.check(&readme).unwrap();
        FORECASTS.check(&readme).unwrap();
        PROMISES.check(&readme).unwrap();
    }
}
