//! The system user that runs the server: ourselves, or a humbler one when we are root.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::error::during;
use crate::{Error, Result};

/// Who runs the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// User and group to change to; `None` to stay who we are.
    ids: Option<(u32, u32)>,
}

impl Account {
    /// PostgreSQL refuses to run as root, so root hands it to `postgres` or else to `nobody`.
    pub(crate) fn choose() -> Result<Account> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Account { ids: None });
        }
        let passwd = fs::read_to_string("/etc/passwd").map_err(during("read /etc/passwd"))?;
        let ids = ["postgres", "nobody"].iter().find_map(|name| ids_of(name, &passwd));
        ids.map(|ids| Account { ids: Some(ids) }).ok_or(Error::NoAccount)
    }

    #[cfg(test)]
    pub(crate) fn ourselves() -> Account {
        Account { ids: None }
    }

    #[cfg(test)]
    pub(crate) fn other(id: u32) -> Account {
        Account { ids: Some((id, id)) }
    }

    /// Whether this is somebody else than we are.
    pub(crate) fn is_another(self) -> bool {
        self.ids.is_some()
    }

    /// A program that will run as this user, without the `PG*` variables that would lead a client
    /// elsewhere.
    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        clean(&mut command);
        if let Some((user, group)) = self.ids {
            command.uid(user).gid(group);
        }
        command
    }

    /// Makes this user the owner of a path.
    pub(crate) fn own(self, path: &Path) -> Result<()> {
        match self.ids {
            Some((user, group)) => chown(path, Some(user), Some(group))
                .map_err(during(format!("change the owner of {}", path.display()))),
            None => Ok(()),
        }
    }
}

/// Takes the `PG*` variables away and makes messages English.
pub(crate) fn clean(command: &mut Command) {
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C");
}

fn ids_of(name: &str, passwd: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let user = fields.nth(1)?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        Some((user, group))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_the_line_of_exactly_that_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgres2:x:7:7::/:/bin/sh\n\
                      postgres:x:101:104:,,,:/:/bin/sh\n";
        assert_eq!(ids_of("postgres", passwd), Some((101, 104)));
        assert_eq!(ids_of("nobody", passwd), None);
    }
}
