//! The whole path with real databases, real processes and a link that can be cut.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod bad_input;
mod budget;
mod choice_per_peer;
mod commands;
mod conflicts;
mod crossroads;
mod exact;
mod farewell;
mod harmless;
mod interfaces;
mod journal;
mod kills;
mod mend;
mod outage;
mod publication;
mod reload;
mod restarts;
mod schema;
mod site;
mod syscalls;
mod terms;
mod topology;
mod whole_path;

/// Says that a test is skipped. Where root runs the tests of a change, nothing may be missing: that would hide a hole.
fn skip(test: &str, reason: &str) {
    let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(
        !must || !rustix::process::geteuid().is_root(),
        "{test}: must not be skipped: {reason}"
    );
    let line = format!("{test}: skipped: {reason}\n");
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
}
