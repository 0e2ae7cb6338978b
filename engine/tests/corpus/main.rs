//! The inputs that are kept for the fuzzer, through the same lines as there: damaged journals, and journals' lives.
#![allow(clippy::disallowed_methods, reason = "tests keep their own files")]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the fuzzer's own modules, of which this is another root"
)]

#[path = "../../../fuzz/src/damage.rs"]
mod damage;
#[path = "../../../fuzz/src/disk.rs"]
mod disk;
#[path = "../../../fuzz/src/life.rs"]
mod life;

use std::{fs, panic::catch_unwind, path::Path};

/// Has each input of a corpus tried; says which fails.
fn each_input(corpus: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(corpus);
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let input = fs::read(&path).unwrap();
        assert!(catch_unwind(|| target(&input)).is_ok(), "{} fails", path.display());
        count += 1;
    }
    assert!(count > 0, "{corpus} has no inputs");
}

#[test]
fn a_damaged_journal_of_the_corpus_gives_what_was_written_or_an_error() {
    each_input("recovery", damage::harm_and_read);
}

#[test]
fn a_journal_of_the_corpus_keeps_what_it_acknowledged() {
    each_input("journal", life::live);
}
