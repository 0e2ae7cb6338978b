//! SQL that asks who changed a row last, of a target that keeps commit timestamps.

use super::{condition, ident, rows_of};
use crate::plan::{Condition, Find, Table};

/// The number of a replication origin, if commit timestamps are kept.
pub(crate) const OWN: &str = "\
SELECT roident::pg_catalog.text FROM pg_catalog.pg_replication_origin WHERE roname OPERATOR(pg_catalog.=) $1 \
AND pg_catalog.current_setting('track_commit_timestamp') OPERATOR(pg_catalog.=) 'on'";

/// Of the row that a change finds, see [`of_rows`].
pub(crate) fn of_row(table: &Table, find: &Find, lock: bool) -> String {
    let condition = condition(table, find, 1);
    let parameters = find.conditions.iter().filter(|it| **it == Condition::Equal).count();
    of_rows(table, &format!("{} AS here WHERE {condition}", rows_of(table)), lock, parameters + 1)
}

/// Of the rows of a source, those that anybody but the origin in a parameter changed last: the key, the microseconds since
/// 2000 when that was committed, and the origin's name, empty for this database's own users. A row whose commit is not
/// known any more, or is the open one, is nobody's.
pub(crate) fn of_rows(table: &Table, source: &str, lock: bool, parameter: usize) -> String {
    let named_by = table.named_by();
    let keys: String = named_by
        .iter()
        .map(|at| format!(", here.{} AS k{at}", ident(&table.relation.columns[*at].name)))
        .collect();
    let shown: Vec<_> =
        named_by.iter().map(|at| format!("pg_catalog.format('%s', found.k{at})")).collect();
    let lock = if lock { " FOR UPDATE OF here" } else { "" };
    format!(
        "SELECT ARRAY[{}]::pg_catalog._text, pg_catalog.trunc(EXTRACT(EPOCH FROM (found.c).\"timestamp\" \
         OPERATOR(pg_catalog.-) pg_catalog.timestamptz '2000-01-01 00:00:00+00') \
         OPERATOR(pg_catalog.*) 1000000)::pg_catalog.text, coalesce(o.roname, '') \
         FROM (SELECT pg_catalog.pg_xact_commit_timestamp_origin(here.xmin) AS c{keys} FROM {source}{lock}) AS found \
         LEFT JOIN pg_catalog.pg_replication_origin AS o ON o.roident OPERATOR(pg_catalog.=) (found.c).roident \
         WHERE (found.c).roident OPERATOR(pg_catalog.<>) ${parameter}::pg_catalog.oid",
        shown.join(", ")
    )
}
