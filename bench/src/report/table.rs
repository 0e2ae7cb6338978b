//! A table in Markdown in the other forms that reports have: CSV, JSON and a page.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::chart::escape;
use super::csv::quoted;
use super::html::STYLE;

/// Writes `NAME.csv`, `NAME.json` and `NAME.html` into a folder, which is made if need be.
pub fn write(folder: &Path, name: &str, heading: &str, rows: &[String]) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let heading = fields(heading.lines().next().unwrap_or_default());
    let rows: Vec<Vec<&str>> = rows.iter().map(|row| fields(row)).collect();
    for (form, text) in [
        ("csv", csv(&heading, &rows)),
        ("json", serde_json::to_string_pretty(&json!({ "heading": heading, "rows": rows }))?),
        ("html", html(name, &heading, &rows)),
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

fn csv(heading: &[&str], rows: &[Vec<&str>]) -> String {
    let line = |fields: &[&str]| {
        let fields: Vec<String> = fields.iter().map(|field| quoted(field)).collect();
        fields.join(",") + "\n"
    };
    line(heading) + &rows.iter().map(|row| line(row)).collect::<String>()
}

fn html(name: &str, heading: &[&str], rows: &[Vec<&str>]) -> String {
    let line = |tag: &str, fields: &[&str]| {
        let field = |field: &&str| format!("<{tag}>{}</{tag}>", escape(field));
        format!("<tr>{}</tr>\n", fields.iter().map(field).collect::<String>())
    };
    let body: String = rows.iter().map(|row| line("td", row)).collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{0}</title><style>{STYLE}\
         </style><main><h1>{0}</h1><table>\n{1}{body}</table></main></html>\n",
        escape(name),
        line("th", heading)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_has_all_fields() {
        let folder = tempfile::tempdir().unwrap();
        let rows = ["| a | | 1 |".to_owned(), "| <b> | \"c\" | 2 |".to_owned()];
        write(folder.path(), "some", "| x | y | y |\n| --- |", &rows).unwrap();
        let read =
            |form: &str| fs::read_to_string(folder.path().join(format!("some.{form}"))).unwrap();
        let csv = "\"x\",\"y\",\"y\"\n\"a\",\"\",\"1\"\n\"<b>\",\"\"\"c\"\"\",\"2\"\n";
        assert_eq!(read("csv"), csv);
        let json: serde_json::Value = serde_json::from_str(&read("json")).unwrap();
        let expected = serde_json::json!({
            "heading": ["x", "y", "y"], "rows": [["a", "", "1"], ["<b>", "\"c\"", "2"]]
        });
        assert_eq!(json, expected);
        let html = read("html");
        assert!(html.contains("<td>&lt;b&gt;</td>") && html.matches("<tr>").count() == 3, "{html}");
    }
}
