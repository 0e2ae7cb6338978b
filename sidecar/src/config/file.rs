//! The configuration file as it was typed: shapes and places, no meaning.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::Spanned;

use super::ConfigError;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) node: Node,
    pub(super) database: Option<Database>,
    pub(super) capture: Option<Capture>,
    pub(super) apply: Option<Apply>,
    pub(super) journal: Option<Journal>,
    #[serde(default)]
    pub(super) peer: Vec<Peer>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub(super) name: Spanned<String>,
    pub(super) dir: Option<Spanned<PathBuf>>,
    pub(super) listen: Option<Spanned<String>>,
    pub(super) status: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Database {
    pub(super) url: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Capture {
    pub(super) mode: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) tables: Vec<Spanned<String>>,
    pub(super) ddl: Option<Spanned<String>>,
    pub(super) operations: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    pub(super) rows: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    pub(super) columns: BTreeMap<String, Spanned<Vec<String>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Apply {
    pub(super) conflicts: Option<Spanned<String>>,
    pub(super) update_origin_differs: Option<Spanned<String>>,
    pub(super) delete_origin_differs: Option<Spanned<String>>,
    pub(super) existing: Option<Spanned<String>>,
    pub(super) ddl_url: Option<Spanned<String>>,
    pub(super) tables: Option<Vec<Spanned<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    pub(super) budget: Option<Spanned<String>>,
    pub(super) retention: Option<Spanned<String>>,
    pub(super) scrub: Option<Spanned<String>>,
    pub(super) segment: Option<Spanned<String>>,
    pub(super) on_full: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peer {
    pub(super) name: Spanned<String>,
    pub(super) key: Option<Spanned<String>>,
    pub(super) address: Option<Spanned<String>>,
    pub(super) send: Option<Spanned<Streams>>,
    pub(super) receive: Option<Spanned<Streams>>,
    pub(super) rate_limit: Option<Spanned<String>>,
    pub(super) congestion: Option<Spanned<String>>,
    pub(super) compression: Option<Spanned<String>>,
    pub(super) keep_alive: Option<Spanned<String>>,
    pub(super) window: Option<Spanned<Windows>>,
    pub(super) day_budget: Option<Spanned<String>>,
    pub(super) month_budget: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Streams {
    Word(String),
    List(Vec<String>),
}

/// One or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Windows {
    One(String),
    Several(Vec<String>),
}

/// The text and where it came from, to say where something in it is wrong.
pub(super) struct Document<'a> {
    path: &'a Path,
    text: &'a str,
}

impl<'a> Document<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text }
    }

    pub(super) fn read(&self) -> Result<File, ConfigError> {
        toml::from_str(self.text).map_err(|error| {
            let line = error.span().map(|span| self.line(span.start));
            let key = error.span().and_then(|span| self.key_at(span));
            ConfigError::at(self.path, line, key.as_deref(), error.message().replace('\n', ", "))
        })
    }

    /// A value that cannot be meant; a span of no length is nowhere in particular.
    pub(super) fn error(
        &self,
        key: &str,
        span: Range<usize>,
        why: impl Into<String>,
    ) -> ConfigError {
        let line = (!span.is_empty()).then(|| self.line(span.start));
        ConfigError::at(self.path, line, Some(key), why.into())
    }

    fn line(&self, at: usize) -> usize {
        self.text.as_bytes()[..at.min(self.text.len())]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count()
            + 1
    }

    /// The word in front of the equals sign in the line where the span begins.
    fn key_at(&self, span: Range<usize>) -> Option<String> {
        let start = self.text.get(..span.start)?.rfind('\n').map_or(0, |at| at + 1);
        let line = self.text.get(start..)?.lines().next()?;
        let key = line.split_once('=')?.0.trim();
        (!key.is_empty()).then(|| key.to_owned())
    }
}
