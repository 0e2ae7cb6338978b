//! PostgreSQL's own tests of logical replication, assertion by assertion: what becomes of each here, that the test that is
//! named for it is there and says so itself, and that it ran.
//!
//! `tap-matrix.tsv` has a row for each assertion in `src/test/subscription` of PostgreSQL 18, in the order of its file:
//! what it is about, the verdict, and the name of our test or the reason. The test has a mark where it states the
//! assertion, with the file and the numbers, such as `// PostgreSQL: 013_partition 28-31, 68`. `THINWIRE_TESTS_RAN` names
//! what `cargo test` has printed: then each test that is named has to be among those that passed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Its files and how many assertions each has.
const FILES: [(&str, usize); 35] = [
    ("001_rep_changes", 39),
    ("002_types", 4),
    ("003_constraints", 6),
    ("004_sync", 9),
    ("005_encoding", 1),
    ("006_rewrite", 2),
    ("007_ddl", 5),
    ("008_diff_schema", 5),
    ("010_truncate", 14),
    ("011_generated", 11),
    ("012_collation", 2),
    ("013_partition", 74),
    ("014_binary", 8),
    ("015_stream", 7),
    ("016_stream_subxact", 2),
    ("017_stream_ddl", 3),
    ("018_stream_subxact_abort", 6),
    ("019_stream_subxact_ddl_abort", 2),
    ("020_messages", 5),
    ("021_twophase", 33),
    ("022_twophase_cascade", 41),
    ("023_twophase_stream", 21),
    ("024_add_drop_pub", 4),
    ("025_rep_changes_for_schema", 13),
    ("026_stats", 12),
    ("027_nosuperuser", 5),
    ("028_row_filter", 26),
    ("029_on_error", 3),
    ("030_origin", 13),
    ("031_column_list", 36),
    ("032_subscribe_use_index", 15),
    ("033_run_as_table_owner", 2),
    ("034_temporal", 32),
    ("035_conflicts", 3),
    ("100_bugs", 20),
];

/// What stands before the file and the numbers of a mark.
const MARK: &str = "// PostgreSQL: ";

/// An assertion: its file and number.
type Assertion = (String, usize);

/// A row of the matrix that names a test.
struct Row {
    assertion: Assertion,
    test: String,
}

/// Our tests: how many there are of each name, and what their marks say.
#[derive(Default)]
struct Tests {
    names: BTreeMap<String, usize>,
    marks: BTreeSet<(Assertion, String)>,
    complaints: Vec<String>,
}

#[test]
fn every_assertion_has_a_verdict_and_every_test_it_names_is_there() {
    let (rows, mut complaints) = matrix();
    let tests = tests();
    complaints.extend(rows.iter().filter(|row| tests.names.get(&row.test) != Some(&1)).map(
        |Row { assertion: (file, number), test }| {
            format!("{file} {number}: there is not one test of the name {test}")
        },
    ));
    report(&complaints);
}

#[test]
fn every_test_says_which_assertions_it_states_and_no_other_does() {
    let (rows, _) = matrix();
    let tests = tests();
    let named: BTreeSet<_> = rows.into_iter().map(|row| (row.assertion, row.test)).collect();
    let mut complaints = tests.complaints;
    for ((file, number), test) in named.difference(&tests.marks) {
        complaints.push(format!("{file} {number}: {test} has no mark of it"));
    }
    for ((file, number), test) in tests.marks.difference(&named) {
        complaints.push(format!("{file} {number}: {test} has a mark of it, and its row another"));
    }
    report(&complaints);
}

#[test]
fn every_test_that_is_named_ran_and_passed() {
    let Some(path) = std::env::var_os("THINWIRE_TESTS_RAN") else {
        eprintln!("skipped: THINWIRE_TESTS_RAN does not name what `cargo test` has printed");
        return;
    };
    let printed = fs::read_to_string(path).unwrap();
    let passed: BTreeSet<&str> = printed.lines().filter_map(passed).collect();
    let (rows, _) = matrix();
    let missed: BTreeSet<_> =
        rows.iter().map(|row| &*row.test).filter(|test| !passed.contains(test)).collect();
    report(&missed.iter().map(|test| format!("{test} did not run")).collect::<Vec<_>>());
}

/// The name of a test of which a line says that it passed.
fn passed(line: &str) -> Option<&str> {
    let path = line.strip_prefix("test ")?.strip_suffix(" ... ok")?;
    Some(path.rsplit("::").next().unwrap_or(path))
}

/// The rows that name a test, and what is wrong with the matrix.
fn matrix() -> (Vec<Row>, Vec<String>) {
    let text = fs::read_to_string(root().join("sidecar/tests/tap-matrix.tsv")).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("file\tnumber\tbehaviour\tverdict\ttest or reason"));
    let (mut rows, mut complaints) = (Vec::new(), Vec::new());
    let mut counts = BTreeMap::<&str, usize>::new();
    for line in lines {
        let row: Vec<&str> = line.split('\t').collect();
        let &[file, number, behaviour, verdict, answer] = row.as_slice() else {
            complaints.push(format!("no row of five columns: {line}"));
            continue;
        };
        let count = counts.entry(file).or_default();
        *count += 1;
        let is_tested = matches!(verdict, "covered" | "refused");
        let is_sound = is_tested || verdict == "not applicable";
        if !is_sound || behaviour.is_empty() || answer.is_empty() || number.parse() != Ok(*count) {
            complaints.push(format!("{file} {number}: no such verdict or number: {line}"));
        }
        if is_tested {
            rows.push(Row { assertion: (file.to_owned(), *count), test: answer.to_owned() });
        }
    }
    for (file, count) in FILES {
        let found = counts.remove(file).unwrap_or_default();
        if found != count {
            complaints.push(format!("{file}: {found} rows for {count} assertions"));
        }
    }
    complaints.extend(counts.keys().map(|file| format!("{file}: not a file of PostgreSQL 18")));
    (rows, complaints)
}

fn report(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// All tests of the workspace.
fn tests() -> Tests {
    let (mut tests, mut folders) = (Tests::default(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !matches!(name.as_str(), ".git" | "target") {
                folders.push(path);
            } else if name.ends_with(".rs") {
                tests.collect(&fs::read_to_string(&path).unwrap_or_default());
            }
        }
    }
    tests
}

impl Tests {
    /// Adds those of a file. A mark is of the test that begins last before it: it may stand in what only that test calls.
    fn collect(&mut self, text: &str) {
        let (mut is_test, mut last) = (false, None);
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some(mark) = line.strip_prefix(MARK) {
                self.mark(mark, last.as_deref());
            } else if let Some((_, rest)) = line.split_once("fn ") {
                if is_test && let Some((name, _)) = rest.split_once('(') {
                    *self.names.entry(name.to_owned()).or_default() += 1;
                    last = Some(name.to_owned());
                }
                is_test = false;
            }
        }
    }

    /// Adds what a mark of a test says, which is read as `file 1, 3-5`.
    fn mark(&mut self, mark: &str, test: Option<&str>) {
        let assertions = assertions(mark);
        let (Some(test), Some(assertions)) = (test, assertions) else {
            self.complaints.push(format!("no mark of a test: {mark}"));
            return;
        };
        for assertion in assertions {
            if !self.marks.insert((assertion, test.to_owned())) {
                self.complaints.push(format!("{test}: marked twice: {mark}"));
            }
        }
    }
}

fn assertions(mark: &str) -> Option<Vec<Assertion>> {
    let (file, numbers) = mark.split_once(' ')?;
    let mut found = Vec::new();
    for part in numbers.split(", ") {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        found.extend((first..=last).map(|number| (file.to_owned(), number)));
    }
    Some(found)
}

#[test]
fn marks_and_lines_are_read_as_they_are_written() {
    let of = |numbers: &[usize]| numbers.iter().map(|it| ("a".to_owned(), *it)).collect();
    assert_eq!(assertions("a 1, 3-5"), Some(of(&[1, 3, 4, 5])));
    assert_eq!((assertions("a"), assertions("a 1,2"), assertions("a x")), (None, None, None));
    assert_eq!(passed("test a::b::c ... ok"), Some("c"));
    assert_eq!((passed("test c ... ok"), passed("test c ... ignored")), (Some("c"), None));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}
