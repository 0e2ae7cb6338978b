//! The journal's figures, and the table of them in the README: `cargo bench -p thinwire-engine`.
//!
//! What is compared is measured in the same run, turn by turn, so that a noisy disk is noisy for all.
//! `THINWIRE_BENCH=smoke` takes seconds, not minutes, and its figures mean nothing; it fails if the README's table
//! has other rows than this program makes. `-- --write FILE` puts the figures into `FILE` between its two markers.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads clocks and keeps its own files")]
#![allow(clippy::print_stdout, reason = "the table is what it is run for")]

mod append;
mod disk;
mod group;
mod journal;
mod machine;
mod meter;
mod open;
mod read;
mod report;
mod rival;
mod workload;

use std::{env, fs, path::Path};

use report::Report;

/// How much is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effort {
    /// As much as figures need that are shown to anybody.
    Full,
    /// As little as shows that everything runs.
    Smoke,
}

impl Effort {
    /// The first in a full run, the second in a short one.
    fn pick<T>(self, full: T, smoke: T) -> T {
        match self {
            Self::Full => full,
            Self::Smoke => smoke,
        }
    }
}

/// Where temporary journals are kept: on the disk of the working tree, which is rarely a RAM disk.
const PLACE: &str = env!("CARGO_TARGET_TMPDIR");
const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");

fn main() {
    let effort = match env::var("THINWIRE_BENCH").as_deref() {
        Ok("smoke") => Effort::Smoke,
        Ok(other) => panic!("THINWIRE_BENCH is {other:?}; only \"smoke\" is known"),
        Err(_) => Effort::Full,
    };
    let arguments: Vec<String> = env::args().skip(1).filter(|it| it != "--bench").collect();
    let place = Path::new(PLACE);
    let mut report = Report::default();
    let wants = |section: &str| match &arguments[..] {
        [] => true,
        [flag, ..] if flag == "--write" => true,
        names => names.iter().any(|name| name == section),
    };
    if wants("append") {
        append::measure(place, effort, &mut report);
    }
    if wants("group") {
        group::measure(place, effort, &mut report);
    }
    if wants("read") {
        read::measure(place, effort, &mut report);
    }
    if wants("open") {
        open::measure(place, effort, &mut report);
    }
    let block = report.markdown(&machine::describe(place));
    println!("{block}");
    match &arguments[..] {
        [flag, path] if flag == "--write" => {
            let text = fs::read_to_string(path).expect("the file to write to can be read");
            fs::write(path, report::replaced(&text, &block)).expect("the file can be written");
        }
        [] if effort == Effort::Smoke => {
            let readme = fs::read_to_string(README).expect("there is a README");
            report::check_shape(&readme, &block);
        }
        _ => {}
    }
}
