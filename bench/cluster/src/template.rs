//! Data directories: made by `initdb` once, then copied.
//!
//! The originals live in the build's target directory (found by cargo's `CACHEDIR.TAG` above the
//! running program), one for each server version and set of options, so that they go with `cargo
//! clean`. A program that runs from anywhere else leaves no cache behind and pays for `initdb` each
//! time.

use std::env;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::account::Account;
use crate::error::during;
use crate::{Error, Options, Result};

/// Makes the data directory `home/data`; `home` belongs to the account.
pub(crate) fn create(
    account: Account,
    bin: &Path,
    options: &Options,
    home: &Path,
) -> Result<PathBuf> {
    let data = home.join("data");
    match cache() {
        Some(cache) => {
            let original = original(account, bin, options, home, &cache)?;
            copy(&original, &data)?;
        }
        None => initdb(account, bin, options, home, &data)?,
    }
    Ok(data)
}

/// Runs a program to its end and turns a failure into what it said.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let program = Path::new(command.get_program()).display().to_string();
    let output = command.output().map_err(during(format!("start {program}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Failed {
        program,
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&output.stderr).trim_end().into(),
    })
}

fn original(
    account: Account,
    bin: &Path,
    options: &Options,
    home: &Path,
    cache: &Path,
) -> Result<PathBuf> {
    let key = key(account, bin, options)?;
    let original = cache.join(&key);
    let lock_path = cache.join(format!("{key}.lock"));
    let lock =
        File::create(&lock_path).map_err(during(format!("create {}", lock_path.display())))?;
    lock.lock().map_err(during(format!("lock {}", lock_path.display())))?;
    if !original.exists() {
        let (made, partial) = (home.join("original"), cache.join(format!("{key}.partial")));
        initdb(account, bin, options, home, &made)?;
        let _ = fs::remove_dir_all(&partial);
        copy(&made, &partial)?;
        fs::rename(&partial, &original)
            .map_err(during(format!("create {}", original.display())))?;
        let _ = fs::remove_dir_all(&made);
    }
    Ok(original)
}

fn initdb(account: Account, bin: &Path, options: &Options, home: &Path, data: &Path) -> Result<()> {
    let mut command = account.command(bin.join("initdb"));
    command.current_dir(home).arg("--pgdata").arg(data).args([
        "--username",
        "postgres",
        "--no-locale",
        "--no-sync",
        "--encoding",
        &options.encoding,
    ]);
    match &options.password {
        None => command.args(["--auth", "trust"]),
        Some(password) => {
            let path = home.join("password");
            write_private(account, &path, password.as_bytes())?;
            command.args(["--auth", "scram-sha-256", "--pwfile"]).arg(path)
        }
    };
    run(&mut command).map(drop)
}

/// Writes a file that only the account may read.
pub(crate) fn write_private(account: Account, path: &Path, content: &[u8]) -> Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .map_err(during(format!("write {}", path.display())))?;
    account.own(path)
}

/// Copies a folder as it is.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to)).map(drop)
}

/// The server's version and everything that `initdb` was told, in a file name.
fn key(account: Account, bin: &Path, options: &Options) -> Result<String> {
    let version = run(account.command(bin.join("postgres")).arg("--version"))?;
    let mut hasher = DefaultHasher::new();
    (LAYOUT, &version, &options.encoding, &options.password).hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

/// The build's target directory; `None` for a program that runs from anywhere else.
pub(crate) fn target() -> Option<PathBuf> {
    let program = env::current_exe().ok()?;
    let target = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file())?;
    Some(target.to_path_buf())
}

/// The folder of the originals, made if need be; `None` where there is none or it is not ours.
fn cache() -> Option<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let cache = target()?.join(format!("thinwire-clusters-{user}"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&cache).ok()?;
    Some(cache)
}

/// Part of the key: raise it when the arguments of `initdb` change.
const LAYOUT: u32 = 2;
