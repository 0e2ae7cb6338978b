//! SQL that asks what the target's objects are, in the words of definitions, and that keeps what streams told of them. What
//! asks the catalogs runs under [`super::catalog::EMPTY_PATH`], so that every name that it answers has its schema.

/// What has a name among tables, views, indexes and sequences: its object id and kind.
pub(crate) const CLASS: &str = super::catalog::TABLE;

/// Whether there is a schema.
pub(crate) const HAS_SCHEMA: &str =
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)";

/// A type by schema and name: its object id.
pub(crate) const TYPE: &str = "\
SELECT t.oid::pg_catalog.text FROM pg_catalog.pg_type t \
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname = $1 AND t.typname = $2";

/// The labels of an enumerated type in their order.
pub(crate) const LABELS: &str = "\
SELECT enumlabel::pg_catalog.text FROM pg_catalog.pg_enum WHERE enumtypid = $1::pg_catalog.oid \
ORDER BY enumsortorder";

/// Whether there is a routine: schema, name, types of its arguments.
pub(crate) const HAS_ROUTINE: &str = "\
SELECT EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
WHERE n.nspname = $1 AND p.proname = $2 \
AND pg_catalog.oidvectortypes(p.proargtypes) = $3)";

/// The columns of a table: number, name, type, collation, NOT NULL, default, identity, generated, comment.
pub(crate) const COLUMNS: &str = "\
SELECT a.attnum, a.attname::pg_catalog.text, pg_catalog.format_type(a.atttypid, a.atttypmod), \
CASE WHEN a.attcollation <> 0 AND a.attcollation <> t.typcollation \
THEN pg_catalog.format('%I.%I', n.nspname, c.collname) END, \
a.attnotnull, pg_catalog.pg_get_expr(d.adbin, d.adrelid), a.attidentity::pg_catalog.text, \
a.attgenerated::pg_catalog.text, pg_catalog.col_description(a.attrelid, a.attnum) \
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation \
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace \
WHERE a.attrelid = $1::pg_catalog.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

/// The constraints of a table: name, definition, whether it refers to another table.
pub(crate) const CONSTRAINTS: &str = "\
SELECT conname::pg_catalog.text, pg_catalog.pg_get_constraintdef(oid), contype = 'f' \
FROM pg_catalog.pg_constraint WHERE conrelid = $1::pg_catalog.oid AND contype IN ('p', 'u', 'c', 'f', 'x') \
ORDER BY conname";

/// The indexes of a table that belong to no constraint: name, definition.
pub(crate) const INDEXES: &str = "\
SELECT c.relname::pg_catalog.text, pg_catalog.pg_get_indexdef(i.indexrelid) FROM pg_catalog.pg_index i \
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1::pg_catalog.oid AND NOT EXISTS \
(SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid) \
ORDER BY c.relname";

/// The replica identity of a table: how, and by which index.
pub(crate) const IDENTITY: &str = "\
SELECT c.relreplident::pg_catalog.text, (SELECT x.relname::pg_catalog.text FROM pg_catalog.pg_index i \
JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid AND i.indisreplident LIMIT 1) \
FROM pg_catalog.pg_class c WHERE c.oid = $1::pg_catalog.oid";

/// From what a table inherits: schema, name, and which part it is of a partitioned table.
pub(crate) const PARENTS: &str = "\
SELECT n.nspname::pg_catalog.text, p.relname::pg_catalog.text, \
CASE WHEN c.relispartition THEN pg_catalog.pg_get_expr(c.relpartbound, c.oid) END \
FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = i.inhparent \
JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace \
WHERE i.inhrelid = $1::pg_catalog.oid ORDER BY i.inhseqno";

/// Whether we may give an object in a schema to a role: role, schema; of a schema itself without one.
pub(crate) const MAY_GIVE: &str = "\
SELECT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = $1 AND (\
(SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) OR \
pg_catalog.pg_has_role(r.oid, 'USAGE') AND CASE WHEN $2 = '' \
THEN pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'CREATE') \
ELSE pg_catalog.has_schema_privilege(r.oid, (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $2), 'CREATE') \
END))";

/// Whether a routine runs with the rights of its owner, who is another than told: schema, name, types of its arguments, owner.
pub(crate) const IS_ARMED: &str = "\
SELECT EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
WHERE n.nspname = $1 AND p.proname = $2 AND pg_catalog.oidvectortypes(p.proargtypes) = $3 \
AND p.prosecdef AND pg_catalog.pg_get_userbyid(p.proowner) <> $4)";

/// What a stream told of objects: origin, and a list of their ids.
pub(crate) const TOLD: &str = "\
SELECT definition FROM thinwire.definitions WHERE origin OPERATOR(pg_catalog.=) $1 \
AND id OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.int8[])";

/// Remembers it.
pub(crate) const REMEMBER: &str = "\
INSERT INTO thinwire.definitions (origin, kind, id, schema_name, object_name, definition) \
VALUES ($1, $2, $3, $4, $5, $6) \
ON CONFLICT (origin, kind, id) DO UPDATE SET schema_name = EXCLUDED.schema_name, \
object_name = EXCLUDED.object_name, definition = EXCLUDED.definition";

/// Forgets it.
pub(crate) const FORGET: &str = "\
DELETE FROM thinwire.definitions WHERE origin OPERATOR(pg_catalog.=) $1 AND kind OPERATOR(pg_catalog.=) $2 \
AND id OPERATOR(pg_catalog.=) $3::pg_catalog.int8";

/// Whether there is anything to forget.
pub(crate) const IS_KEPT: &str = "\
SELECT pg_catalog.to_regclass('thinwire.definitions') IS NOT NULL";

/// Forgets all that an origin's stream told.
pub(crate) const FORGET_ALL: &str =
    "DELETE FROM thinwire.definitions WHERE origin OPERATOR(pg_catalog.=) $1";

/// Lets the rows of a table be known under its new name: origin, old schema and name, new schema and name.
pub(crate) const MOVE_LOADED: &str = "\
WITH gone AS (DELETE FROM thinwire.loaded WHERE origin OPERATOR(pg_catalog.=) $1 \
AND schema_name OPERATOR(pg_catalog.=) $2 AND table_name OPERATOR(pg_catalog.=) $3 RETURNING *) \
INSERT INTO thinwire.loaded (origin, schema_name, table_name, epoch, \"offset\", rows) \
SELECT origin, $4, $5, epoch, \"offset\", rows FROM gone \
ON CONFLICT (origin, schema_name, table_name) DO UPDATE SET epoch = EXCLUDED.epoch, \
\"offset\" = EXCLUDED.\"offset\", rows = EXCLUDED.rows";

/// A change of the schema does not wait for long: all who come behind it wait with it.
pub(crate) const WAIT_BRIEFLY: &str = "SET LOCAL lock_timeout = '2s'";
/// Rows wait as long as they have to.
pub(crate) const WAIT: &str = "SET LOCAL lock_timeout = 0";

/// What a failure may be undone to.
pub(crate) const SAVE: &str = "SAVEPOINT thinwire_step";
/// Undoes it.
pub(crate) const UNDO: &str = "ROLLBACK TO SAVEPOINT thinwire_step";
/// Keeps it.
pub(crate) const KEEP: &str = "RELEASE SAVEPOINT thinwire_step";

/// What the making of one object may be undone to.
pub(crate) const SAVE_TURN: &str = "SAVEPOINT thinwire_turn";
/// Undoes it.
pub(crate) const UNDO_TURN: &str = "ROLLBACK TO SAVEPOINT thinwire_turn";
/// Keeps it.
pub(crate) const KEEP_TURN: &str = "RELEASE SAVEPOINT thinwire_turn";
