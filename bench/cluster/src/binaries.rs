//! Where this machine keeps the PostgreSQL server programs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The directory that holds `initdb` and `postgres`.
pub(crate) fn find(asked: Option<&Path>) -> Result<PathBuf> {
    let named = asked.map(Path::to_path_buf).or_else(|| {
        env::var_os("THINWIRE_PG_BIN").filter(|value| !value.is_empty()).map(PathBuf::from)
    });
    if let Some(bin) = named {
        return if holds_a_server(&bin) {
            Ok(bin)
        } else {
            Err(Error::NoServer { searched: format!("in {}", bin.display()) })
        };
    }
    newest(Path::new(DEBIAN))
        .or_else(on_path)
        .ok_or_else(|| Error::NoServer { searched: format!("below {DEBIAN} or in PATH") })
}

fn newest(root: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(root).ok()?;
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let version = name.to_str()?.parse().ok()?;
            Some((version, root.join(&name).join("bin")))
        })
        .filter(|(_, bin)| holds_a_server(bin))
        .collect();
    versions.sort();
    versions.pop().map(|(_, bin)| bin)
}

fn on_path() -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).find(|bin| holds_a_server(bin))
}

fn holds_a_server(bin: &Path) -> bool {
    bin.join("initdb").is_file() && bin.join("postgres").is_file()
}

const DEBIAN: &str = "/usr/lib/postgresql";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_taken_by_number_and_only_if_it_is_a_server() {
        let root = tempfile::tempdir().unwrap();
        for (version, programs) in [("9", 2), ("10", 2), ("11", 1), ("none", 2)] {
            let bin = root.path().join(version).join("bin");
            fs::create_dir_all(&bin).unwrap();
            for program in ["initdb", "postgres"].iter().take(programs) {
                fs::write(bin.join(program), "").unwrap();
            }
        }
        assert_eq!(newest(root.path()), Some(root.path().join("10/bin")));
    }
}
