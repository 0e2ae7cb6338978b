//! The identity key on disk: made once, read only if nobody else could have.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use thinwire_transport::Identity;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// None was made.
    #[error("there is no identity key at {0}; `thinwire init` makes one")]
    Missing(String),
    /// Somebody else may know it, or have put it there.
    #[error(
        "the identity key {path} {why}; mend that, or remove the file and run `thinwire init` for a new one"
    )]
    Exposed {
        /// The file.
        path: String,
        /// In what way.
        why: String,
    },
    /// There is nothing in it.
    #[error(
        "the identity key {0} is empty, so it was never used: remove it, and `thinwire init` makes one"
    )]
    Empty(String),
    /// It is not one.
    #[error(
        "{path} does not hold a whole identity key ({why}): bring it back from a copy, or remove it and run \
         `thinwire init` for a new one, which every peer has to be told"
    )]
    Malformed {
        /// The file.
        path: String,
        /// In what way.
        why: String,
    },
    /// It cannot be read or written.
    #[error("cannot {operation} {path}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads the identity at `path`.
///
/// # Errors
/// See [`KeyError`].
pub fn load(path: &Path) -> Result<Identity, KeyError> {
    let shown = path.display().to_string();
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(KeyError::Missing(shown));
        }
        Err(source) => return Err(KeyError::Io { operation: "read", path: shown, source }),
    };
    let mode = metadata.mode() & 0o777;
    let exposed = |why: String| Err(KeyError::Exposed { path: shown.clone(), why });
    if !metadata.is_file() {
        return exposed("is not a plain file".to_owned());
    }
    if mode & 0o077 != 0 {
        return exposed(format!("can be read by others: its mode is {mode:04o}, not 0600"));
    }
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own {
        return exposed(format!("belongs to user {}, not to user {own}", metadata.uid()));
    }
    let bytes = fs::read(path).map_err(|source| KeyError::Io {
        operation: "read",
        path: shown.clone(),
        source,
    })?;
    if bytes.is_empty() {
        return Err(KeyError::Empty(shown));
    }
    Identity::from_bytes(&bytes)
        .map_err(|error| KeyError::Malformed { path: shown, why: error.to_string() })
}

/// Reads the identity at `path`, or makes one there, durably.
///
/// # Errors
/// See [`KeyError`].
pub fn load_or_create(path: &Path) -> Result<Identity, KeyError> {
    match load(path) {
        Err(KeyError::Missing(_)) => create(path),
        outcome => outcome,
    }
}

fn create(path: &Path) -> Result<Identity, KeyError> {
    let shown = path.display().to_string();
    let failed = |operation| {
        let path = shown.clone();
        move |source| KeyError::Io { operation, path, source }
    };
    let identity = Identity::generate()
        .map_err(|error| KeyError::Malformed { path: shown.clone(), why: error.to_string() })?;
    // Written whole beside its place and linked into it, which fails if another is there by now: at no moment is there
    // half a key, or one in place of another.
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let written = write_new(&draft, &identity.to_bytes());
    let placed = written.map_err(failed("write")).and_then(|()| {
        fs::hard_link(&draft, path).map_err(failed("create"))?;
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync the folder of"))
    });
    let _ = fs::remove_file(&draft);
    placed.map(|()| identity)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Left by a process of this number that was killed.
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_refused_when_others_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        assert!(matches!(load(&path), Err(KeyError::Missing(_))));
        let made = load_or_create(&path).unwrap().public();
        assert_eq!(load_or_create(&path).unwrap().public(), made);
        for mode in [0o644, 0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(load(&path), Err(KeyError::Exposed { .. })), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(load(&link), Err(KeyError::Exposed { .. })));
        fs::write(&path, b"not a key").unwrap();
        assert!(matches!(load(&path), Err(KeyError::Malformed { .. })));
        fs::write(&path, b"").unwrap();
        assert!(matches!(load_or_create(&path), Err(KeyError::Empty(_))));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no draft is left");
    }

    #[test]
    fn of_two_that_are_made_at_once_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        let made = create(&path).unwrap().public();
        assert!(matches!(create(&path), Err(KeyError::Io { .. })));
        assert_eq!(load(&path).unwrap().public(), made);
    }
}
