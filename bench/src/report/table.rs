//! A table in Markdown in the other forms that reports have: CSV, JSON and a page.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::chart::escape;
use super::csv::quoted;
use super::html::STYLE;

/// A table, and what makes it again.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// What it and its files are called.
    pub name: &'a str,
    /// Its first line, and what else Markdown wants before the others.
    pub heading: &'a str,
    /// Its lines.
    pub rows: &'a [String],
    /// As it is typed.
    pub command: &'a str,
}

/// Writes `NAME.csv`, `NAME.json` and `NAME.html` into a folder, which is made if need be.
pub fn write(folder: &Path, table: &Table<'_>) -> Result<()> {
    let Table { name, heading, rows, command } = *table;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let heading = fields(heading.lines().next().unwrap_or_default());
    let rows: Vec<Vec<&str>> = rows.iter().map(|row| fields(row)).collect();
    for (form, text) in [
        ("csv", csv(&heading, &rows, command)),
        (
            "json",
            serde_json::to_string_pretty(
                &json!({ "heading": heading, "rows": rows, "command": command }),
            )?,
        ),
        ("html", html(name, &heading, &rows, command)),
    ] {
        let path = folder.join(format!("{name}.{form}"));
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn fields(row: &str) -> Vec<&str> {
    let row = row.trim();
    let row = row.strip_prefix('|').unwrap_or(row);
    row.strip_suffix('|').unwrap_or(row).split('|').map(str::trim).collect()
}

/// As in the other CSV, each line ends with what makes it again.
fn csv(heading: &[&str], rows: &[Vec<&str>], command: &str) -> String {
    let line = |fields: &[&str], last: &str| {
        let fields: Vec<String> = fields.iter().chain([&last]).map(|field| quoted(field)).collect();
        fields.join(",") + "\n"
    };
    line(heading, "command") + &rows.iter().map(|row| line(row, command)).collect::<String>()
}

fn html(name: &str, heading: &[&str], rows: &[Vec<&str>], command: &str) -> String {
    let line = |tag: &str, fields: &[&str]| {
        let field = |field: &&str| format!("<{tag}>{}</{tag}>", escape(field));
        format!("<tr>{}</tr>\n", fields.iter().map(field).collect::<String>())
    };
    let body: String = rows.iter().map(|row| line("td", row)).collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{0}</title><style>{STYLE}\
         </style><main><h1>{0}</h1><table>\n{1}{body}</table><p>Again: <code>{2}</code></p></main>\
         </html>\n",
        escape(name),
        line("th", heading),
        escape(command)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_has_all_fields() {
        let folder = tempfile::tempdir().unwrap();
        let rows = ["| a | | 1 |".to_owned(), "| <b> | \"c\" | 2 |".to_owned()];
        let (heading, command) = ("| x | y | y |\n| --- |", "do --url \"$URL\"");
        write(folder.path(), &Table { name: "some", heading, rows: &rows, command }).unwrap();
        let read =
            |form: &str| fs::read_to_string(folder.path().join(format!("some.{form}"))).unwrap();
        let csv = "'x','y','y','command'\n'a','','1','do --url !!$URL!!'\n\
             '<b>','!!c!!','2','do --url !!$URL!!'\n";
        assert_eq!(read("csv"), csv.replace(['\'', '!'], "\""));
        let json: serde_json::Value = serde_json::from_str(&read("json")).unwrap();
        let expected = serde_json::json!({
            "heading": ["x", "y", "y"], "rows": [["a", "", "1"], ["<b>", "\"c\"", "2"]],
            "command": command
        });
        assert_eq!(json, expected);
        let html = read("html");
        assert!(html.contains("<td>&lt;b&gt;</td>") && html.matches("<tr>").count() == 3, "{html}");
        assert!(html.contains("<code>do --url &quot;$URL&quot;</code>"), "{html}");
    }
}
