//! What is wrong with a configuration, in one sentence.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    file: PathBuf,
    line: Option<usize>,
    key: Option<String>,
    why: String,
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    pub(super) fn unread(file: &Path, error: &io::Error) -> Self {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "there is no such configuration file".to_owned(),
            _ => format!("the configuration file cannot be read: {error}"),
        };
        Self { file: file.to_owned(), line: None, key: None, why }
    }

    pub(super) fn at(file: &Path, line: Option<usize>, key: Option<&str>, why: String) -> Self {
        Self { file: file.to_owned(), line, key: key.map(str::to_owned), why }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ", {key}")?;
        }
        write!(f, ": {}", self.why)
    }
}
