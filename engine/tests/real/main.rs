//! The journal on real file systems and under real system calls: power cuts, failing blocks, full disks, kills.
//!
//! Each test says what it skips and why where the machine lacks something. Work and faults follow from seeds, which
//! are printed on failure and replay as exactly as the kernel's own timing allows.
#![allow(clippy::disallowed_methods, reason = "tests keep their own files")]

mod calls;
mod failing;
mod full;
mod model;
mod power;
mod work;

use std::{
    env,
    fmt::Display,
    io::{Write, stderr},
};

use thinwire_blocks::FileSystem;

/// The number in an environment variable, or the one that keeps the suite short.
fn setting(name: &str, usual: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Says something to whoever runs the tests, also when they pass: what is printed otherwise is kept from them.
fn say(text: impl Display) {
    stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

/// Whether a test can run on this file system; if not, says why.
fn possible(test: &str, file_system: FileSystem) -> bool {
    let missing = thinwire_blocks::missing(file_system);
    if let Some(reason) = &missing {
        say(format!("{test}: skipped on {}: {reason}", file_system.name()));
    }
    missing.is_none()
}
