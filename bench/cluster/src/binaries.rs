//! Where this machine keeps the PostgreSQL server programs, of one version or of several.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::template::{copy, target};
use crate::{Error, Result};

/// The installations by major version: directories that hold `initdb` and `postgres`.
///
/// Below `THINWIRE_PG_DIR` (`MAJOR/bin`), or where that is not set below `postgres` in the build's target directory,
/// and below `/usr/lib/postgresql`. The earlier place wins, and `THINWIRE_PG_BIN_MAJOR` over all.
pub fn installations() -> BTreeMap<u32, PathBuf> {
    let asked = env::var_os("THINWIRE_PG_DIR").filter(|value| !value.is_empty());
    let own = asked.map(PathBuf::from).or_else(|| Some(target()?.join("postgres")));
    let mut found: BTreeMap<u32, PathBuf> = versions(Path::new(DEBIAN)).collect();
    found.extend(own.iter().flat_map(|root| versions(root)));
    found.extend(env::vars_os().filter_map(|(name, bin)| {
        let major = name.to_str()?.strip_prefix("THINWIRE_PG_BIN_")?.parse().ok()?;
        Some((major, PathBuf::from(bin))).filter(|(_, bin)| holds_a_server(bin))
    }));
    found
}

/// The directory of the programs where the account reaches them: the same, or a copy in `home`.
pub(crate) fn within_reach(account: Account, bin: PathBuf, home: &Path) -> Result<PathBuf> {
    if !account.is_another() || bin.ancestors().all(is_passable) {
        return Ok(bin);
    }
    let Some(installation) = bin.parent() else { return Ok(bin) };
    let within = home.join("server");
    copy(installation, &within)?;
    Ok(within.join("bin"))
}

/// Whether anybody may go through a folder to what is in it.
pub(crate) fn is_passable(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
}

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
    versions(root).max().map(|(_, bin)| bin)
}

/// The servers in folders that are named after their version.
fn versions(root: &Path) -> impl Iterator<Item = (u32, PathBuf)> {
    let entries = fs::read_dir(root).into_iter().flatten();
    entries
        .filter_map(|entry| {
            let folder = entry.ok()?.path();
            let version = folder.file_name()?.to_str()?.parse().ok()?;
            Some((version, folder.join("bin")))
        })
        .filter(|(_, bin)| holds_a_server(bin))
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

    #[test]
    fn programs_that_another_user_cannot_reach_are_copied_to_where_it_can() {
        let root = tempfile::tempdir().unwrap();
        let (hidden, home) = (root.path().join("hidden/18/bin"), root.path().join("home"));
        fs::create_dir_all(&hidden).unwrap();
        fs::create_dir(&home).unwrap();
        fs::write(hidden.join("postgres"), "").unwrap();
        let reach = |account| within_reach(account, hidden.clone(), &home).unwrap();
        assert_eq!(reach(Account::ourselves()), hidden);
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(reach(Account::other(65_534)), home.join("server/bin"));
        assert!(home.join("server/bin/postgres").is_file());
    }
}
