//! Which tables are meant: patterns such as `public.*`, `!public.audit`, `app_*.log_*`.

use std::fmt;

use crate::error::{Error, Result};

/// A list of patterns. A table is meant if one of them names it and none with a `!` does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    included: Vec<Pattern>,
    excluded: Vec<Pattern>,
}

/// A schema and a table, each of which may have `*` for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    schema: Part,
    table: Part,
    text: String,
}

/// Runs of literal text; between each two may stand anything.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part(Vec<String>);

impl Patterns {
    /// Reads patterns as the configuration has them.
    ///
    /// # Errors
    /// A sentence about the first that is none.
    pub fn parse<T: AsRef<str>>(patterns: &[T]) -> Result<Self> {
        let mut all = Self::default();
        for text in patterns {
            let text = text.as_ref().trim();
            match text.strip_prefix('!') {
                Some(rest) => all.excluded.push(Pattern::parse(rest.trim())?),
                None => all.included.push(Pattern::parse(text)?),
            }
        }
        Ok(all)
    }

    /// Whether this table is meant.
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        let hits = |patterns: &[Pattern]| patterns.iter().any(|it| it.matches(schema, table));
        hits(&self.included) && !hits(&self.excluded)
    }

    /// Whether a pattern without wildcards names this table.
    pub(crate) fn names(&self, schema: &str, table: &str) -> bool {
        self.literals().any(|it| it.matches(schema, table))
    }

    /// The same for the source's own functions: JSON, each part a regular expression.
    pub(crate) fn to_json(&self) -> String {
        let excluded = self.excluded.iter().map(|it| it.to_json(true));
        let all: Vec<_> =
            self.included.iter().map(|it| it.to_json(false)).chain(excluded).collect();
        serde_json::Value::from(all).to_string()
    }

    /// The patterns without wildcards that include a table.
    pub(crate) fn literals(&self) -> impl Iterator<Item = &Pattern> {
        self.included.iter().filter(|it| it.is_literal())
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self> {
        let malformed = |why: &str| {
            Error::Refused(format!("the table pattern \"{text}\" {why}; write it as schema.table"))
        };
        let (schema, rest) = Part::parse(text).map_err(malformed)?;
        let rest = rest.strip_prefix('.').ok_or_else(|| malformed("has no schema"))?;
        let (table, rest) = Part::parse(rest).map_err(malformed)?;
        if !rest.is_empty() {
            return Err(malformed("has more than two parts"));
        }
        Ok(Self { schema, table, text: text.to_owned() })
    }

    /// The schema and the name of the only table that a text without wildcards names.
    pub(crate) fn literal(text: &str) -> Result<(String, String)> {
        let pattern = Self::parse(text)?;
        match (pattern.schema.0.as_slice(), pattern.table.0.as_slice()) {
            ([schema], [table]) if !text.starts_with('!') => Ok((schema.clone(), table.clone())),
            _ => {
                Err(Error::Refused(format!("\"{text}\" does not name one table, as schema.table")))
            }
        }
    }

    /// Whether it names this table.
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        self.schema.matches(schema) && self.table.matches(table)
    }

    fn to_json(&self, excluded: bool) -> serde_json::Value {
        let (schema, name) = (self.schema.to_regex(), self.table.to_regex());
        let literal = self.is_literal();
        serde_json::json!({ "excluded": excluded, "literal": literal, "schema": schema, "name": name })
    }

    fn is_literal(&self) -> bool {
        self.schema.0.len() == 1 && self.table.0.len() == 1
    }
}

/// As it was written.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Part {
    /// Reads a part from the front: plain up to the next dot, or in double quotes, where nothing is a wildcard and
    /// a doubled quote stands for one.
    fn parse(text: &str) -> std::result::Result<(Self, &str), &'static str> {
        let Some(quoted) = text.strip_prefix('"') else {
            let end = text.find('.').unwrap_or(text.len());
            let (part, rest) = text.split_at(end);
            if part.is_empty() {
                return Err("has an empty part");
            }
            return Ok((Self(part.split('*').map(str::to_owned).collect()), rest));
        };
        let (mut name, mut rest) = (String::new(), quoted);
        loop {
            let (before, after) = rest.split_once('"').ok_or("has a quote that is not closed")?;
            name.push_str(before);
            match after.strip_prefix('"') {
                Some(more) => {
                    name.push('"');
                    rest = more;
                }
                None if name.is_empty() => return Err("has an empty part"),
                None => return Ok((Self(vec![name]), after)),
            }
        }
    }

    /// A regular expression as PostgreSQL has them.
    fn to_regex(&self) -> String {
        let escaped = |piece: &String| {
            let mut out = String::with_capacity(piece.len());
            for it in piece.chars() {
                // Behind a backslash, any character but a letter or digit stands for itself.
                if it.is_ascii() && !it.is_ascii_alphanumeric() {
                    out.push('\\');
                }
                out.push(it);
            }
            out
        };
        let pieces: Vec<String> = self.0.iter().map(escaped).collect();
        format!("^{}$", pieces.join(".*"))
    }

    fn matches(&self, name: &str) -> bool {
        let [first, middle @ .., last] = self.0.as_slice() else {
            return self.0.first().is_some_and(|only| only == name);
        };
        let Some(mut rest) = name.strip_prefix(first.as_str()) else { return false };
        for piece in middle {
            match rest.find(piece.as_str()) {
                Some(at) => rest = &rest[at + piece.len()..],
                None => return false,
            }
        }
        rest.ends_with(last.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(patterns: &[&str], schema: &str, table: &str) -> bool {
        Patterns::parse(patterns).unwrap().matches(schema, table)
    }

    #[test]
    fn wildcards_stand_for_any_characters_in_both_parts() {
        assert!(matches(&["public.*"], "public", "orders"));
        assert!(!matches(&["public.*"], "public2", "orders"));
        assert!(matches(&["*.*"], "a", "b"));
        assert!(matches(&["app_*.log_*_old"], "app_1", "log_2_3_old"));
        assert!(!matches(&["app_*.log_*_old"], "app_1", "log_old"));
        assert!(matches(&["s.a*a"], "s", "aa"));
        assert!(!matches(&["s.a*a"], "s", "a"));
        assert!(matches(&["s.*b*c*"], "s", "xbxcx"));
        assert!(!matches(&["s.*b*c*"], "s", "xcxb"));
        assert!(!matches(&["public.orders"], "public", "Orders"));
        assert!(!matches(&[], "public", "orders"));
    }

    #[test]
    fn an_exclusion_wins_wherever_it_stands() {
        let patterns = ["!public.audit", "public.*", "!*.tmp_*"];
        assert!(matches(&patterns, "public", "orders"));
        assert!(!matches(&patterns, "public", "audit"));
        assert!(!matches(&patterns, "public", "tmp_1"));
    }

    #[test]
    fn quoted_parts_are_taken_as_they_are() {
        assert!(matches(&[r#""my.schema"."a*b""#], "my.schema", "a*b"));
        assert!(!matches(&[r#""my.schema"."a*b""#], "my.schema", "axb"));
        assert!(matches(&[r#"s."a""b""#], "s", "a\"b"));
        assert!(Patterns::parse(&[r#"s."a*""#]).unwrap().names("s", "a*"));
    }

    #[test]
    fn literals_are_told_from_wildcards() {
        let patterns = Patterns::parse(&["public.a", "public.b*", "!public.c"]).unwrap();
        let literals: Vec<_> = patterns.literals().map(ToString::to_string).collect();
        assert_eq!(literals, ["public.a"]);
        assert!(patterns.names("public", "a"));
        assert!(!patterns.names("public", "bb"));
    }

    #[test]
    fn what_is_no_pattern_gets_a_sentence() {
        for bad in ["orders", "", ".", "a.", ".b", "a.b.c", "\"a.b", "a.\"\"", "!x"] {
            let error = Patterns::parse(&[bad]).unwrap_err().to_string();
            assert!(error.contains("schema.table"), "{bad}: {error}");
        }
    }
}
