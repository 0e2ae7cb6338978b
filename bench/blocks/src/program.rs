//! The system's own programs: where they are, and what they complain of.

use std::{env, io, path::PathBuf, process::Command};

/// Runs a program to its end and returns what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> io::Result<String> {
    let path = find(program).unwrap_or_else(|| program.into());
    let output = Command::new(path).args(arguments).output();
    let output =
        output.map_err(|error| io::Error::other(format!("could not start {program}: {error}")))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let words = arguments.join(" ");
        let status = output.status;
        return Err(io::Error::other(format!(
            "`{program} {words}` failed with {status}: {}",
            complaint.trim()
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Where a program is, if it is there. Those for the administrator are found also by who does not search there.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let searched = env::var_os("PATH").unwrap_or_default();
    let administrator = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut folders = env::split_paths(&searched).chain(administrator);
    folders.find_map(|folder| Some(folder.join(program)).filter(|path| path.is_file()))
}
