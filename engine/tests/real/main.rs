//! The journal on real file systems and under real system calls: power cuts, failing blocks, full disks, kills.
//!
//! Each test says what it skips and why where the machine lacks something, which is a failure where `CI=true` and we are root. Work and faults follow from seeds, which
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

/// Says that a test is skipped. Where root runs the tests of a change, nothing may be missing: that would hide a hole.
fn skip(test: &str, reason: &str) {
    let must = env::var("CI").is_ok_and(|ci| ci == "true") && rustix::process::geteuid().is_root();
    assert!(!must, "{test}: must not be skipped: {reason}");
    say(format!("{test}: skipped: {reason}"));
}

/// Whether a test can run on this file system; if not, says why.
fn possible(test: &str, file_system: FileSystem) -> bool {
    let missing = thinwire_blocks::missing(file_system);
    if let Some(reason) = &missing {
        skip(&format!("{test} on {}", file_system.name()), reason);
    }
    missing.is_none()
}
