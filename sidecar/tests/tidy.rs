//! The rules of the house that no lint can say; each message names the file and the rule.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

/// Which of our crates may use which, by folder. Arrows point down only.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("engine", &[]),
    ("transport", &["engine"]),
    ("capture", &["engine"]),
    ("apply", &["engine"]),
    ("sidecar", &["engine", "transport", "capture", "apply"]),
    ("bench", &["engine", "transport", "capture", "apply", "sidecar", "bench/cluster"]),
    ("bench/cluster", &[]),
    ("bench/blocks", &[]),
    ("fuzz", &["engine", "transport"]),
];

/// The most lines that a file may have before its tests.
const FILE_LINES_MAX: usize = 600;

#[test]
fn dependencies_point_down() {
    let folders = members();
    let known: Vec<&str> = MAY_USE.iter().map(|(folder, _)| *folder).collect();
    let mut complaints = Vec::new();
    for folder in &folders {
        let Some(at) = known.iter().position(|known| known == folder) else {
            complaints.push(format!("{folder}: not in the table of who may use whom"));
            continue;
        };
        for used in own_dependencies(folder) {
            if !MAY_USE[at].1.contains(&used.as_str()) {
                complaints.push(format!("{folder}/Cargo.toml: {folder} may not use {used}"));
            }
        }
    }
    report(complaints);
}

#[test]
fn the_map_in_architecture_is_the_territory() {
    let text = read("ARCHITECTURE.md");
    let map = map_paths(&text);
    let mut complaints = Vec::new();
    for path in map.iter().chain(&quoted_paths(&text, &members())) {
        if !root().join(path).exists() {
            complaints.push(format!("ARCHITECTURE.md: {path} does not exist"));
        }
    }
    for folder in members() {
        if !map.contains(&folder) {
            complaints.push(format!("ARCHITECTURE.md: the map lacks the folder {folder}/"));
        }
        for module in top_modules(&folder) {
            if !map.contains(&module) {
                complaints.push(format!("ARCHITECTURE.md: the map lacks {module}"));
            }
        }
    }
    report(complaints);
}

#[test]
fn every_file_begins_with_one_sentence() {
    let mut complaints = Vec::new();
    for (path, text) in rust_files() {
        let header: Vec<&str> = text
            .lines()
            .map_while(|line| line.strip_prefix("//! "))
            .take_while(|line| !line.is_empty())
            .collect();
        let ends = header.last().is_some_and(|line| line.ends_with(['.', ':', '!', '?']));
        if !ends || header == ["stub"] {
            complaints.push(format!(
                "{path}: the first line must be a `//!` that says in one sentence what it owns"
            ));
        }
    }
    report(complaints);
}

#[test]
fn files_are_short() {
    let mut complaints = Vec::new();
    for (path, text) in rust_files() {
        let lines = before_tests(&text).lines().count();
        if !is_test(&path) && lines > FILE_LINES_MAX {
            complaints.push(format!(
                "{path}: {lines} lines before the tests; at most {FILE_LINES_MAX} are allowed"
            ));
        }
    }
    report(complaints);
}

#[test]
fn nothing_is_left_for_later() {
    // Taken apart, so that this file passes its own rule.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let calls = [concat!("#[ig", "nore"), concat!("to", "do!"), concat!("unimple", "mented!")];
    let mut complaints = Vec::new();
    for (path, text) in text_files() {
        for (number, line) in (1..).zip(text.lines()) {
            let word = words.iter().find(|word| has_word(line, word));
            let call =
                calls.iter().filter(|_| path.ends_with(".rs")).find(|it| line.contains(**it));
            if let Some(found) = word.or(call) {
                complaints.push(format!("{path}: line {number} has `{found}`: do it now"));
            }
        }
    }
    report(complaints);
}

#[test]
fn only_one_file_of_the_engine_knows_the_file_system() {
    let mut complaints = Vec::new();
    for (path, text) in rust_files() {
        let exempt = path == "engine/src/storage/disk.rs" || is_test(&path);
        if path.starts_with("engine/") && !exempt && before_tests(&text).contains("std::fs") {
            complaints.push(format!("{path}: only engine/src/storage/disk.rs may use std::fs"));
        }
    }
    report(complaints);
}

#[test]
fn sql_is_written_where_sql_is_made() {
    let mut complaints = Vec::new();
    for (path, text) in rust_files() {
        let speaks_sql = ["apply/src/", "capture/src/", "sidecar/src/"];
        let is_meant = speaks_sql.iter().any(|folder| path.starts_with(folder)) && !is_test(&path);
        if !is_meant || path.contains("/src/sql.rs") || path.contains("/src/sql/") {
            continue;
        }
        for (line, literal) in string_literals(before_tests(&text)) {
            if is_statement(&literal) {
                complaints.push(format!("{path}: line {line} has SQL: make it in `sql`"));
            }
        }
    }
    report(complaints);
}

#[test]
fn no_file_is_named_after_nothing() {
    let refused = ["mod.rs", "utils.rs", "util.rs", "common.rs", "types.rs", "helpers.rs"];
    let mut complaints = Vec::new();
    for (path, _) in rust_files() {
        let name = path.rsplit('/').next().unwrap_or_default();
        if refused.contains(&name) {
            complaints.push(format!("{path}: name a file after what it owns, not `{name}`"));
        }
    }
    report(complaints);
}

#[test]
fn the_readme_names_the_oldest_rust_that_works() {
    let manifest = table("Cargo.toml");
    let version = manifest["workspace"]["package"]["rust-version"].as_str().unwrap();
    let named = rust_versions(&read("README.md"));
    let mut complaints = Vec::new();
    if named.is_empty() {
        complaints.push(format!("README.md: must say `Rust {version}`, the rust-version"));
    }
    for other in named.iter().filter(|named| *named != version) {
        complaints.push(format!("README.md: says Rust {other}; rust-version is {version}"));
    }
    report(complaints);
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let refused = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let mut complaints = Vec::new();
    for (path, text) in text_files() {
        for (number, line) in (1..).zip(text.lines()) {
            for found in refused.iter().filter(|refused| line.contains(**refused)) {
                complaints.push(format!("{path}: line {number} has the machine path {found}"));
            }
        }
    }
    report(complaints);
}

#[test]
fn every_test_that_a_promise_names_is_there() {
    let is_name = |word: &&str| {
        word.matches('_').count() >= 3
            && word.bytes().all(|at| at.is_ascii_lowercase() || at == b'_' || at.is_ascii_digit())
    };
    let mut complaints = Vec::new();
    for page in ["docs/promises.md", "docs/link.md", "docs/database.md"] {
        let text = read(page);
        let named: BTreeSet<&str> = text.split('`').skip(1).step_by(2).filter(is_name).collect();
        assert!(named.len() > 20, "{page}: {named:?}");
        let mut missing = named;
        for (_, code) in rust_files() {
            missing.retain(|name| {
                let test = code
                    .split(&format!("fn {name}("))
                    .next()
                    .filter(|before| before.len() < code.len());
                !test.is_some_and(|before| {
                    let attributes = before.trim_end().trim_end_matches("async").trim_end();
                    let last = attributes.lines().last().unwrap_or_default().trim();
                    last == "#[test]" || last.starts_with("#[tokio::test")
                })
            });
        }
        complaints.extend(missing.iter().map(|name| format!("{page}: no test is named {name}")));
    }
    report(complaints);
}

#[test]
fn every_code_that_halts_a_stream_is_explained() {
    let page = read("docs/halts.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let explained: BTreeSet<&str> = rows
        .flat_map(|row| row.split(" | ").next().unwrap_or_default().split(", "))
        .map(|code| code.trim_matches('`'))
        .collect();
    let code: Vec<(String, String)> =
        rust_files().into_iter().filter(|(path, _)| !is_test(path)).collect();
    let mut complaints = Vec::new();
    for (path, text) in &code {
        for said in halt_codes(before_tests(text), &code) {
            if !explained.contains(&*said) {
                complaints.push(format!("docs/halts.md: lacks `{said}` of {path}"));
            }
        }
    }
    for explained in explained {
        let quoted = format!("\"{explained}\"");
        if !code.iter().any(|(_, text)| before_tests(text).contains(&quoted)) {
            complaints.push(format!("docs/halts.md: nothing halts with `{explained}`"));
        }
    }
    report(complaints);
}

/// The codes with which halts are made, where the code is written or is a constant of any file.
fn halt_codes(text: &str, code: &[(String, String)]) -> BTreeSet<String> {
    let constant = |name: &str| {
        let line = format!("const {name}: &str = \"");
        code.iter().find_map(|(_, text)| text.split_once(&line).map(|(_, value)| value))
    };
    let makers = ["Halt::new(", "refused(", " halt("];
    let made = makers.iter().flat_map(|maker| text.split(maker).skip(1));
    made.filter_map(|made| {
        let first = made.trim_start();
        let name = first.split([',', ')']).next().unwrap_or_default();
        let value = first.strip_prefix('"').or_else(|| constant(name))?;
        value.split('"').next().filter(|code| !code.contains('.')).map(str::to_owned)
    })
    .collect()
}

#[test]
fn a_map_is_read_line_by_line() {
    let text = "x\n```text\nREADME.md  what\nengine/\n  src/{a,b}.rs   two\n  tests/  t\n\n\
                bench/cluster/  c\n```\n`engine/src/c.rs` and ```text\nnot/ a map\n```\n";
    let map = ["README.md", "bench/cluster", "engine", "engine/src/a.rs", "engine/src/b.rs"];
    let map = map.into_iter().chain(["engine/tests"]).map(str::to_owned).collect();
    assert_eq!(map_paths(text), map);
    assert_eq!(quoted_paths(text, &members()), BTreeSet::from(["engine/src/c.rs".to_owned()]));
}

#[test]
fn sql_is_told_from_prose() {
    let code = r##"
        // "SELECT 1" is a comment
        fn f<'a>(it: &'a str) -> char { g("BEGIN; {}; COMMIT", 'x'); h('"', b"ROLLBACK", '\'', '\\') }
        const A: &str = r#"UPDATE "t""#; const B: &str = "\
            DELETE FROM t"; const C: &str = "run `SELECT 1` \\"; const D: &str = "SELECTED";
        const E: &str = "LOCK"; const F: &str = "Update it"; const G: &str = r"\"; g("lock //", "DROP")
    "##;
    let found = string_literals(code).into_iter().filter(|(_, it)| is_statement(it));
    let lines: Vec<usize> = found.map(|(line, _)| line).collect();
    assert_eq!(lines, [3, 3, 4, 4, 6, 6]);
}

fn report(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn table(path: &str) -> Table {
    read(path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The folders of the workspace's crates.
fn members() -> BTreeSet<String> {
    let manifest = table("Cargo.toml");
    let members = manifest["workspace"]["members"].as_array().unwrap();
    members.iter().map(|member| member.as_str().unwrap().to_owned()).collect()
}

/// The folders of our crates among a crate's normal dependencies, for any target.
fn own_dependencies(folder: &str) -> Vec<String> {
    let packages: Vec<(String, String)> = members()
        .into_iter()
        .map(|folder| {
            let manifest = table(&format!("{folder}/Cargo.toml"));
            (manifest["package"]["name"].as_str().unwrap().to_owned(), folder)
        })
        .collect();
    let manifest = table(&format!("{folder}/Cargo.toml"));
    let targets = manifest.get("target").and_then(|it| it.as_table()).cloned().unwrap_or_default();
    let sections = [&manifest].into_iter().chain(targets.values().filter_map(|it| it.as_table()));
    sections
        .filter_map(|section| section.get("dependencies")?.as_table())
        .flat_map(|dependencies| dependencies.keys())
        .filter_map(|name| packages.iter().find(|(package, _)| package == name))
        .map(|(_, folder)| folder.clone())
        .collect()
}

/// The files directly below `src/`, without the crate roots.
fn top_modules(folder: &str) -> Vec<String> {
    let modules = fs::read_dir(root().join(folder).join("src"));
    modules
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".rs") && !matches!(name.as_str(), "lib.rs" | "main.rs"))
        .map(|name| format!("{folder}/src/{name}"))
        .collect()
}

/// The paths of the map: every fenced block that has a line like `engine/`. A line that is not
/// indented names a folder or a file at the root; an indented one is relative to the last folder.
/// Only the first word counts, and `a/{b,c}.rs` stands for both.
fn map_paths(text: &str) -> BTreeSet<String> {
    let folders = members();
    let mut paths = BTreeSet::new();
    for block in text.split("```").skip(1).step_by(2) {
        let lines: Vec<&str> = block.lines().skip(1).collect();
        let is_folder = |line: &&str| folders.contains(first_word(line).trim_end_matches('/'));
        if !lines.iter().any(|line| !line.starts_with(' ') && is_folder(line)) {
            continue;
        }
        let mut above = "";
        for line in lines.iter().filter(|line| !line.trim().is_empty()) {
            let word = first_word(line);
            if line.starts_with(' ') {
                paths.extend(expand(&format!("{above}{word}")));
            } else {
                above = if word.ends_with('/') { word } else { "" };
                paths.extend(expand(word));
            }
        }
    }
    paths.iter().map(|path| path.trim_end_matches('/').to_owned()).collect()
}

fn first_word(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

fn expand(path: &str) -> Vec<String> {
    match path.split_once('{').and_then(|(head, rest)| Some((head, rest.split_once('}')?))) {
        Some((head, (names, tail))) => {
            names.split(',').flat_map(|name| expand(&format!("{head}{name}{tail}"))).collect()
        }
        None => vec![path.to_owned()],
    }
}

/// Paths in backticks anywhere in the text that begin with the folder of a crate.
fn quoted_paths(text: &str, folders: &BTreeSet<String>) -> BTreeSet<String> {
    let prose: String = text.split("```").step_by(2).collect();
    prose
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| !word.contains(char::is_whitespace))
        .filter(|word| folders.iter().any(|folder| word.starts_with(&format!("{folder}/"))))
        .flat_map(expand)
        .collect()
}

/// The `1.x` of each `Rust 1.x`.
fn rust_versions(text: &str) -> Vec<String> {
    text.split("Rust ")
        .skip(1)
        .map(|rest| rest.chars().take_while(|it| it.is_ascii_digit() || *it == '.').collect())
        .map(|version: String| version.trim_end_matches('.').to_owned())
        .filter(|version| version.starts_with("1."))
        .collect()
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|it: char| !it.is_alphanumeric()).any(|it| it == word)
}

/// Whether a text begins as a statement does: with one of its words, in capitals as we write them.
fn is_statement(text: &str) -> bool {
    const VERBS: [&str; 30] = [
        "ALTER",
        "ANALYZE",
        "BEGIN",
        "CALL",
        "CLOSE",
        "COMMENT",
        "COMMIT",
        "COPY",
        "CREATE",
        "DEALLOCATE",
        "DECLARE",
        "DELETE",
        "DISCARD",
        "DO",
        "DROP",
        "EXECUTE",
        "EXPLAIN",
        "FETCH",
        "GRANT",
        "INSERT",
        "LOCK",
        "PREPARE",
        "RELEASE",
        "RESET",
        "REVOKE",
        "ROLLBACK",
        "SAVEPOINT",
        "SELECT",
        "SET",
        "SHOW",
    ];
    const MORE: [&str; 6] = ["START", "TRUNCATE", "UPDATE", "VACUUM", "VALUES", "WITH"];
    let word = text.trim_start().split(|it: char| !it.is_ascii_alphanumeric() && it != '_').next();
    word.is_some_and(|word| VERBS.contains(&word) || MORE.contains(&word))
}

/// The string literals of a piece of code as they are written, each with the number of the line where it begins.
fn string_literals(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = code[at..].find(['"', '\'', '/']).map(|next| at + next) {
        let rest = &code[next..];
        at = next
            + match rest.as_bytes()[0] {
                b'/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
                b'/' => 1,
                b'\'' => after_character(rest),
                _ => {
                    let hashes = code[..next].bytes().rev().take_while(|it| *it == b'#').count();
                    let is_raw = code[..next - hashes].ends_with('r');
                    let end = match is_raw {
                        true => rest[1..].find(&format!("\"{}", "#".repeat(hashes))),
                        false => end_of_text(&rest[1..]),
                    };
                    let end = end.unwrap_or(rest.len() - 1);
                    let text = rest[1..=end].trim_start_matches(['\\', '\n']);
                    found.push((code[..next].lines().count(), text.to_owned()));
                    end + 2
                }
            };
        at = at.min(code.len());
    }
    found
}

/// The length of what begins with a single quote: a character, or the quote of a lifetime.
fn after_character(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match (characters.next(), characters.next(), characters.next()) {
        (Some((_, '\\')), Some(_), Some((end, _))) => {
            end + rest[end..].find('\'').map_or(1, |end| end + 1)
        }
        (Some(_), Some((end, '\'')), _) => end + 1,
        _ => 1,
    }
}

/// Where a text with escapes ends.
fn end_of_text(rest: &str) -> Option<usize> {
    let mut is_escaped = false;
    rest.find(|it| {
        let ends = it == '"' && !is_escaped;
        is_escaped = it == '\\' && !is_escaped;
        ends
    })
}

fn before_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or_default()
}

fn is_test(path: &str) -> bool {
    ["/tests/", "/benches/"].iter().any(|it| path.contains(it)) || path.ends_with("/tests.rs")
}

fn rust_files() -> Vec<(String, String)> {
    let files =
        text_files().into_iter().filter(|(path, _)| path.ends_with(".rs")).collect::<Vec<_>>();
    assert!(files.len() > 10, "no source files were found");
    files
}

/// Every text file of the project, by its path from the root; what the build made is left out.
fn text_files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_symlink() || matches!(name.as_str(), ".git" | "target" | "Cargo.lock") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                files.push((path, text));
            }
        }
    }
    files.sort();
    files
}
