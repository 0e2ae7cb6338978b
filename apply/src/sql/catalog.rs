//! SQL that asks the target's catalogs what a table is. Runs under [`EMPTY_PATH`], so that names without a schema, such as
//! those of operators, are PostgreSQL's own.

/// Undoes what a trigger may have done to the search path in this transaction.
pub(crate) const EMPTY_PATH: &str = "SET LOCAL search_path = ''";

/// A table by schema and name: its object id and kind, whether nothing but the change itself happens when a row of it
/// changes under the replica role, how many of its indexes may let one row forbid another, and schema and name of what it
/// is part of, which is itself unless it is a partition.
pub(crate) const TABLE: &str = "\
SELECT c.oid::pg_catalog.text, c.relkind::pg_catalog.text, \
c.relkind = 'r' AND NOT c.relhasrules AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger \
WHERE tgrelid = c.oid AND tgenabled IN ('R', 'A')), \
(SELECT pg_catalog.count(*) FROM pg_catalog.pg_index WHERE indrelid = c.oid \
AND (indisunique OR indisexclusion)), rn.nspname::pg_catalog.text, r.relname::pg_catalog.text FROM pg_catalog.pg_class c \
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
JOIN pg_catalog.pg_class r ON r.oid = coalesce(pg_catalog.pg_partition_root(c.oid)::pg_catalog.oid, c.oid) \
JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace \
WHERE n.nspname::pg_catalog.text OPERATOR(pg_catalog.=) $1 AND c.relname::pg_catalog.text OPERATOR(pg_catalog.=) $2";

/// The columns of a table: name, whether it is generated, whether it is an identity column that is GENERATED ALWAYS,
/// the schema of the operator that its default operator class compares it with, whether values that this finds equal are
/// certainly the same, whether there is an array type for many of its values whose separator is a comma, schema and
/// name of that or else of its own type, and the object id of its own type.
///
/// Domains are seen through. Arrays, ranges and enums are compared by PostgreSQL's own `=`, arrays if their elements
/// can be. Two types use another's operator class by binary coercion and may be given as that type's text. The types
/// listed by number are those of whole numbers, strings, times and UUIDs.
pub(crate) const COLUMNS: &str = "\
WITH RECURSIVE layers(attnum, depth, typ, is_array) AS (\
SELECT attnum, 0, atttypid, false FROM pg_catalog.pg_attribute \
WHERE attrelid = $1::pg_catalog.oid AND attnum > 0 AND NOT attisdropped \
UNION ALL SELECT l.attnum, l.depth + 1, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END, \
l.is_array OR t.typtype <> 'd' \
FROM layers l JOIN pg_catalog.pg_type t ON t.oid = l.typ \
WHERE t.typtype = 'd' OR (t.typlen = -1 AND t.typelem <> 0 AND t.oid NOT IN (22, 30))), \
bases AS (SELECT DISTINCT ON (attnum) attnum, is_array, typ AS own, \
CASE typ WHEN 1043 THEN 25 WHEN 650 THEN 869 ELSE typ END AS typ \
FROM layers ORDER BY attnum, depth DESC), \
equal AS (SELECT b.attnum, CASE WHEN t.typtype IN ('e', 'r', 'm') THEN 'pg_catalog' \
WHEN b.is_array AND op.nspname IS NOT NULL THEN 'pg_catalog' ELSE op.nspname END AS nspname, \
t.typtype = 'e' OR b.own IN (16, 17, 18, 19, 20, 21, 23, 25, 26, 1043, 1082, 1083, 1114, 1184, 2950) AS is_identity \
FROM bases b JOIN pg_catalog.pg_type t ON t.oid = b.typ LEFT JOIN LATERAL (\
SELECT n.nspname::pg_catalog.text AS nspname FROM pg_catalog.pg_opclass c \
JOIN pg_catalog.pg_am m ON m.oid = c.opcmethod AND m.amname IN ('btree', 'hash') \
JOIN pg_catalog.pg_amop o ON o.amopfamily = c.opcfamily AND o.amoplefttype = c.opcintype \
AND o.amoprighttype = c.opcintype AND o.amopstrategy = CASE m.amname WHEN 'btree' THEN 3 ELSE 1 END \
JOIN pg_catalog.pg_operator p ON p.oid = o.amopopr AND p.oprname = '=' \
JOIN pg_catalog.pg_namespace n ON n.oid = p.oprnamespace \
WHERE c.opcdefault AND c.opcintype = b.typ ORDER BY m.amname LIMIT 1) op ON true) \
SELECT a.attname::pg_catalog.text, a.attgenerated <> '', a.attidentity = 'a', e.nspname, \
e.is_identity AND coalesce(l.collisdeterministic, true), \
own.typarray <> 0 AND own.typdelim = ',', mn.nspname::pg_catalog.text, many.typname::pg_catalog.text, own.oid \
FROM pg_catalog.pg_attribute a JOIN equal e ON e.attnum = a.attnum \
LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation \
JOIN pg_catalog.pg_type own ON own.oid = a.atttypid \
JOIN pg_catalog.pg_type many ON many.oid = \
CASE WHEN own.typarray <> 0 AND own.typdelim = ',' THEN own.typarray ELSE own.oid END \
JOIN pg_catalog.pg_namespace mn ON mn.oid = many.typnamespace \
WHERE a.attrelid = $1::pg_catalog.oid ORDER BY a.attnum";

/// The unique indexes of a table that may identify a row, the primary key first: name, whether it is the primary
/// key, column. One row a column.
pub(crate) const UNIQUE: &str = "\
SELECT c.relname::pg_catalog.text, i.indisprimary, a.attname::pg_catalog.text FROM pg_catalog.pg_index i \
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k (attnum, place) \
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
WHERE i.indrelid = $1::pg_catalog.oid AND i.indisunique AND i.indisvalid AND i.indimmediate \
AND i.indpred IS NULL AND i.indexprs IS NULL AND k.place <= i.indnkeyatts \
ORDER BY i.indisprimary DESC, i.indexrelid, k.place";

/// Whether any table but those given refers to one of them.
pub(crate) const IS_REFERRED_TO: &str = "\
SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE contype = 'f' \
AND confrelid = ANY ($1::pg_catalog.text[]::pg_catalog.oid[]) \
AND conrelid <> ALL ($1::pg_catalog.text[]::pg_catalog.oid[]))";

/// Whether any sequence belongs to one of these tables.
pub(crate) const HAVE_SEQUENCES: &str = "\
SELECT EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid = d.objid \
WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND s.relkind = 'S' AND d.deptype IN ('a', 'i') \
AND d.refobjid = ANY ($1::pg_catalog.text[]::pg_catalog.oid[]))";

/// Whether we may start the sequences of tables over: only their owner may.
pub(crate) const OWNS_SEQUENCES: &str = "\
SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid = d.objid \
WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND s.relkind = 'S' AND d.deptype IN ('a', 'i') \
AND d.refobjid = ANY ($1::pg_catalog.text[]::pg_catalog.oid[]) \
AND NOT pg_catalog.pg_has_role(s.relowner, 'USAGE'))";
