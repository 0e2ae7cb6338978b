//! PostgreSQL's own tests of logical replication, assertion by assertion: what becomes of each here, and that the test
//! that is named for it is there.
//!
//! `tap-matrix.tsv` has a row for each assertion in `src/test/subscription` of PostgreSQL 18, in the order of its file:
//! what it is about, the verdict, and the name of our test or the reason.

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

#[test]
fn every_assertion_has_a_verdict_and_every_test_it_names_is_there() {
    let text = fs::read_to_string(root().join("sidecar/tests/tap-matrix.tsv")).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("file\tnumber\tbehaviour\tverdict\ttest or reason"));
    let tests = tests();
    let (mut complaints, mut counts) = (Vec::new(), BTreeMap::<&str, usize>::new());
    let mut verdicts = BTreeMap::<&str, usize>::new();
    for line in lines {
        let row: Vec<&str> = line.split('\t').collect();
        let &[file, number, behaviour, verdict, answer] = row.as_slice() else {
            complaints.push(format!("no row of five columns: {line}"));
            continue;
        };
        let count = counts.entry(file).or_default();
        *count += 1;
        *verdicts.entry(verdict).or_default() += 1;
        let is_sound = match verdict {
            "covered" | "refused" => tests.contains(answer),
            "not applicable" | "open" => !answer.is_empty(),
            _ => false,
        };
        if !is_sound || behaviour.is_empty() || number.parse() != Ok(*count) {
            complaints.push(format!("{file} {number}: no such test, verdict or number: {line}"));
        }
    }
    for (file, count) in FILES {
        let found = counts.remove(file).unwrap_or_default();
        if found != count {
            complaints.push(format!("{file}: {found} rows for {count} assertions"));
        }
    }
    complaints.extend(counts.keys().map(|file| format!("{file}: not a file of PostgreSQL 18")));
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    let open = verdicts.get("open").copied().unwrap_or_default();
    eprintln!("{verdicts:?}");
    assert_eq!(open, 0, "rows wait for an answer");
}

/// The names of all tests of the workspace.
fn tests() -> BTreeSet<String> {
    let (mut names, mut folders) = (BTreeSet::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !matches!(name.as_str(), ".git" | "target") {
                folders.push(path);
            } else if name.ends_with(".rs") {
                collect(&fs::read_to_string(&path).unwrap_or_default(), &mut names);
            }
        }
    }
    names
}

fn collect(text: &str, names: &mut BTreeSet<String>) {
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ") {
            if is_test && let Some((name, _)) = rest.split_once('(') {
                names.insert(name.to_owned());
            }
            is_test = false;
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}
