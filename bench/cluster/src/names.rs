//! Names that somebody may give to things in a database, from a seed, and what is read of them once they are quoted.

use std::fmt::Write;

use crate::{Cluster, Result};

/// A name has at most as many bytes.
const BYTES_MAX: usize = 63;

/// What names are made of here: what quoting is about, and characters of one to four bytes.
const CHARACTERS: [char; 22] = [
    '"',
    '\'',
    '\\',
    '$',
    ';',
    '-',
    '/',
    '*',
    ':',
    '%',
    '\n',
    '\t',
    '\u{1}',
    ' ',
    'a',
    'E',
    'ü',
    'ß',
    '\u{FFFD}',
    '語',
    '🦀',
    '\u{10FFFF}',
];

/// Different names, never empty.
pub fn any(seed: u64) -> impl Iterator<Item = String> {
    let mut state = seed;
    let mut below = move |end: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or_default() % end
    };
    (0_u32..).map(move |number| {
        // The number makes it another one than all others, wherever it stands.
        let (before, length) = (below(BYTES_MAX), below(BYTES_MAX));
        let mut name = String::new();
        for at in 0..=length {
            if at == before.min(length) {
                let _ = write!(name, "{number}");
            }
            name.push(CHARACTERS[below(CHARACTERS.len())]);
        }
        let mut end = BYTES_MAX.min(name.len());
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name.truncate(end);
        name
    })
}

/// What a server's lexer makes of a text that is one quoted token and nothing else: a name, a constant, or a constant with
/// escapes. `is_standard` is `standard_conforming_strings`.
pub fn unquoted(text: &str, is_standard: bool) -> Option<String> {
    let escaped = text.strip_prefix('E').filter(|rest| rest.starts_with('\''));
    let mut rest = escaped.unwrap_or(text).chars();
    let quote = rest.next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let escapes = quote == '\'' && (escaped.is_some() || !is_standard);
    let mut out = String::new();
    while let Some(character) = rest.next() {
        match character {
            '\\' if escapes => out.push(rest.next().filter(|escaped| "\\'".contains(*escaped))?),
            _ if character != quote => out.push(character),
            _ if rest.as_str().is_empty() => return Some(out),
            _ => out.push(rest.next().filter(|doubled| *doubled == quote)?),
        }
    }
    None
}

/// How many of the names a server reads as they are, through psql, both as the name of a column and as a constant.
///
/// # Errors
/// What the server said, for instance that a name got out of its quotes.
pub fn read_back(
    cluster: &Cluster,
    names: &[String],
    is_standard: bool,
    ident: impl Fn(&str) -> String,
    literal: impl Fn(&str) -> String,
) -> Result<usize> {
    let standard = if is_standard { "on" } else { "off" };
    let mut sql =
        format!("set client_encoding = 'UTF8'; set standard_conforming_strings = {standard};\n");
    for (first, names) in (0..).step_by(COLUMNS).zip(names.chunks(COLUMNS)) {
        let (mut columns, mut values) = (Vec::new(), Vec::new());
        for (number, name) in (first..).zip(names) {
            let bytes: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
            columns.push(format!("{number} as {}", ident(name)));
            values.push(format!("({number}, {}, decode('{bytes}', 'hex'))", literal(name)));
        }
        let (columns, values) = (columns.join(", "), values.join(", "));
        let _ = writeln!(
            sql,
            "select count(*) from (select to_jsonb(r) from (select {columns}) as r) as q (read), \
             (values {values}) as v (number, constant, bytes) \
             where convert_to(v.constant, 'UTF8') = v.bytes \
             and (q.read ->> convert_from(v.bytes, 'UTF8'))::int8 = v.number;"
        );
    }
    let counts = cluster.psql("postgres", &sql)?;
    Ok(counts.lines().filter_map(|count| count.parse::<usize>().ok()).sum())
}

/// A query has at most some more columns.
const COLUMNS: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_odd_as_names_can_be() {
        let names: Vec<String> = any(1).take(5_000).collect();
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
        assert!(names.iter().all(|name| (1..=BYTES_MAX).contains(&name.len())));
        assert!(names.iter().any(|name| name.len() == BYTES_MAX));
    }

    #[test]
    fn only_a_text_that_is_one_token_is_read() {
        for (text, is_standard, read) in [
            (r#""a""b""#, true, Some(r#"a"b"#)),
            (r"'a''b\'", true, Some(r"a'b\")),
            (r"'a\'", false, None),
            (r"E'a\\''b'", true, Some(r"a\'b")),
            (r"E'a\\''b'", false, Some(r"a\'b")),
            ("'a'; b", true, None),
            (r#""a"b""#, true, None),
            ("a", true, None),
            ("'a", true, None),
        ] {
            assert_eq!(unquoted(text, is_standard).as_deref(), read, "{text}");
        }
    }
}
