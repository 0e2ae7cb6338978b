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

impl Place {
    /// Fails if a file has no such place: before an hour is spent on what would go there.
    pub fn check(&self, file: &Path) -> Result<()> {
        self.replaced(&read(file)?, "").map(drop).with_context(|| file.display().to_string())
    }

    /// Puts a text there.
    pub fn write(&self, file: &Path, text: &str) -> Result<()> {
        let replaced = self.replaced(&read(file)?, text)?;
        fs::write(file, replaced).with_context(|| format!("writing {}", file.display()))
    }

    fn replaced(&self, file: &str, text: &str) -> Result<String> {
        let (before, rest) = file.split_once(self.begin).context("a marker is missing")?;
        let (_, after) = rest.split_once(self.end).context("a marker is missing")?;
        Ok(format!("{before}{}\n{}\n{}{after}", self.begin, text.trim_end(), self.end))
    }
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_the_markers_is_replaced_and_nothing_else() {
        let place = Place { begin: "<a>", end: "<b>" };
        assert_eq!(place.replaced("1 <a>old<b> 2", "new\n").unwrap(), "1 <a>\nnew\n<b> 2");
        let again = place.replaced(&place.replaced("<a>\n<b>", "x").unwrap(), "y").unwrap();
        assert_eq!(again, "<a>\ny\n<b>");
        assert!(place.replaced("<b><a>", "x").is_err());
    }

    #[test]
    fn the_readme_has_both_places() {
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
        LINKS.check(&readme).unwrap();
        FORECASTS.check(&readme).unwrap();
    }
}
