//! SQL that looks for the rows that unique indexes find in the way of a new one.
//!
//! What an index says of its columns, expressions and condition is text that PostgreSQL wrote, in which columns have their
//! bare names. It is read once over the table's rows and once over the new one, and what it yields there is compared.

use super::{ident, qualified};
use crate::plan::{Find, Table};

/// Whatever looking does or fails at is undone: it must not change what becomes of the change itself.
pub(crate) const MARK: &str = "SAVEPOINT thinwire_rivals";
/// See [`MARK`].
pub(crate) const BACK: &str =
    "ROLLBACK TO SAVEPOINT thinwire_rivals; RELEASE SAVEPOINT thinwire_rivals";

/// Of a table and its partitions, the one with a name as messages have it: object id, schema, name.
pub(crate) const TABLE: &str = "\
SELECT c.oid::pg_catalog.text, n.nspname::pg_catalog.text, c.relname::pg_catalog.text \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE c.oid IN (SELECT $1::pg_catalog.oid UNION ALL SELECT relid FROM pg_catalog.pg_partition_tree($1::pg_catalog.oid)) \
AND pg_catalog.format('%s.%s', n.nspname, c.relname) OPERATOR(pg_catalog.=) $2";

/// The columns of a table: name, type, and the expression of one that is generated.
pub(crate) const COLUMNS: &str = "\
SELECT a.attname::pg_catalog.text, pg_catalog.format_type(a.atttypid, a.atttypmod), \
pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attribute a \
LEFT JOIN pg_catalog.pg_attrdef d ON a.attgenerated <> '' AND d.adrelid = a.attrelid AND d.adnum = a.attnum \
WHERE a.attrelid = $1::pg_catalog.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

/// The unique indexes of a table, one row a column: name, condition, whether nulls are equal, the column or expression, the
/// schema of its equality, and schema and name of its collation.
pub(crate) const INDEXES: &str = "\
SELECT x.relname::pg_catalog.text, pg_catalog.pg_get_expr(i.indpred, i.indrelid), \
coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::pg_catalog.bool, false), \
pg_catalog.pg_get_indexdef(i.indexrelid, k.place::pg_catalog.int4, false), on_.nspname::pg_catalog.text, \
ln.nspname::pg_catalog.text, l.collname::pg_catalog.text \
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid \
CROSS JOIN LATERAL pg_catalog.generate_series(1, i.indnkeyatts) AS k (place) \
JOIN pg_catalog.pg_opclass c ON c.oid = i.indclass[k.place - 1] \
JOIN pg_catalog.pg_am m ON m.oid = c.opcmethod AND m.amname = 'btree' \
JOIN pg_catalog.pg_amop o ON o.amopfamily = c.opcfamily AND o.amoplefttype = c.opcintype \
AND o.amoprighttype = c.opcintype AND o.amopstrategy = 3 \
JOIN pg_catalog.pg_operator p ON p.oid = o.amopopr AND p.oprname = '=' \
JOIN pg_catalog.pg_namespace on_ ON on_.oid = p.oprnamespace \
LEFT JOIN pg_catalog.pg_collation l ON l.oid = i.indcollation[k.place - 1] AND l.collname <> 'default' \
LEFT JOIN pg_catalog.pg_namespace ln ON ln.oid = l.collnamespace \
WHERE i.indrelid = $1::pg_catalog.oid AND i.indisunique AND i.indisready AND NOT i.indisexclusion \
ORDER BY i.indisprimary DESC, i.indexrelid, k.place";

/// A column of the table whose row is refused.
#[derive(Debug)]
pub(crate) struct Column {
    /// Its name.
    pub(crate) name: String,
    /// Its type, as PostgreSQL writes it.
    pub(crate) of: String,
    /// What it is computed by, if it is.
    pub(crate) generated: Option<String>,
}

/// A unique index.
#[derive(Debug)]
pub(crate) struct Index {
    /// Its name.
    pub(crate) name: String,
    /// Which rows it has; all if there is no condition.
    pub(crate) condition: Option<String>,
    /// Whether nulls are equal to each other.
    pub(crate) nulls_equal: bool,
    /// What it compares.
    pub(crate) parts: Vec<Part>,
}

/// A column or expression of an index.
#[derive(Debug)]
pub(crate) struct Part {
    /// The text.
    pub(crate) text: String,
    /// The schema of its equality.
    pub(crate) equality: String,
    /// Its collation, schema and name, if it is not the usual one.
    pub(crate) collation: Option<(String, String)>,
}

/// The new row: of an insert, or what an update makes of the row that it finds. The parameters are those of its
/// statement.
pub(crate) fn new_row(
    table: &Table,
    columns: &[Column],
    changed: Option<(&[bool], &Find)>,
) -> String {
    let given = |name: &str| {
        let mut sent = 0;
        for (at, column) in table.relation.columns.iter().enumerate() {
            let is_set = changed.is_none_or(|(set, _)| set[at]);
            sent += usize::from(is_set);
            if column.name == name {
                return is_set.then_some(sent);
            }
        }
        None
    };
    let value = |column: &Column| {
        let name = ident(&column.name);
        match (given(&column.name), changed) {
            (Some(parameter), _) => format!("${parameter}::{} AS {name}", column.of),
            (None, Some(_)) => name,
            (None, None) => format!("NULL::{} AS {name}", column.of),
        }
    };
    let stored = columns.iter().filter(|column| column.generated.is_none());
    let values: String = stored.map(|column| format!("{}, ", value(column))).collect();
    let given = match changed {
        None => format!(
            "SELECT {values}NULL::pg_catalog.oid AS {TABLE_ID}, NULL::pg_catalog.tid AS {PLACE}"
        ),
        Some((set, find)) => {
            let first = set.iter().filter(|set| **set).count() + 1;
            let condition = super::condition(table, find, first);
            let rows = super::rows_of(table);
            format!(
                "SELECT {values}tableoid AS {TABLE_ID}, ctid AS {PLACE} FROM {rows} WHERE {condition}"
            )
        }
    };
    let computed = columns.iter().filter_map(|column| {
        Some(format!(", ({}) AS {}", column.generated.as_ref()?, ident(&column.name)))
    });
    format!("SELECT given.*{} FROM ({given}) AS given", computed.collect::<String>())
}

/// The row of a table, by schema and name, that an index finds in the way of a new row: the values of these columns.
pub(crate) fn rival(
    schema: &str,
    name: &str,
    index: &Index,
    new: &str,
    named_by: &[String],
) -> String {
    let condition = index.condition.as_ref();
    let condition = condition.map_or(String::new(), |text| format!(" WHERE ({text})"));
    let parts: String =
        (0..).zip(&index.parts).map(|(at, part)| format!(", ({}) AS p{at}", part.text)).collect();
    let key: String =
        (0..).zip(named_by).map(|(at, name)| format!(", {} AS k{at}", ident(name))).collect();
    let shown: Vec<_> =
        (0..named_by.len()).map(|at| format!("pg_catalog.format('%s', here.k{at})")).collect();
    let same = (0..).zip(&index.parts).map(|(at, part)| {
        let (schema, null) = (ident(&part.equality), "IS NOT DISTINCT FROM NULL");
        let collation = part.collation.as_ref();
        let collation = collation.map_or(String::new(), |(schema, name)| {
            format!(" COLLATE {}", qualified(schema, name))
        });
        let equal = format!("here.p{at} OPERATOR({schema}.=) made.p{at}{collation}");
        match index.nulls_equal {
            true => format!(" AND ({equal} OR here.p{at} {null} AND made.p{at} {null})"),
            false => format!(" AND {equal}"),
        }
    });
    format!(
        "WITH new AS ({new}), made AS MATERIALIZED (SELECT {TABLE_ID}, {PLACE}{parts} FROM new{condition}) \
         SELECT ARRAY[{}]::pg_catalog._text FROM made, \
         (SELECT tableoid AS {TABLE_ID}, ctid AS {PLACE}{parts}{key} FROM ONLY {}{condition}) AS here \
         WHERE (made.{TABLE_ID} OPERATOR(pg_catalog.=) here.{TABLE_ID} \
         AND made.{PLACE} OPERATOR(pg_catalog.=) here.{PLACE}) IS NOT TRUE{} LIMIT 1",
        shown.join(", "),
        qualified(schema, name),
        same.collect::<String>()
    )
}

/// Where the new row is now. No expression of a table's owner uses these names.
const TABLE_ID: &str = "\"thinwire table\"";
const PLACE: &str = "\"thinwire place\"";
