//! SQL that prepares a database for applying, and that asks whether it is prepared.

use super::{ident, literal};

/// A session that prepares does not wait for locks for ever: somebody watches it.
pub(crate) const SETTINGS: &str = "SET lock_timeout = '10s'; SET enable_seqscan = on";

/// Statements that take effect together.
pub(crate) fn at_once(statements: &[String]) -> String {
    format!("BEGIN; {}; COMMIT", statements.join("; "))
}

/// The schema of our own tables.
pub(crate) const CREATE_SCHEMA: &str = "CREATE SCHEMA IF NOT EXISTS thinwire";

/// How far each origin's stream has been applied.
pub(crate) const CREATE_APPLIED: &str = "\
CREATE TABLE IF NOT EXISTS thinwire.applied (\
origin pg_catalog.text PRIMARY KEY, \
epoch pg_catalog.text NOT NULL, \
\"offset\" pg_catalog.int8 NOT NULL, \
lsn pg_catalog.pg_lsn, \
commit_time pg_catalog.timestamptz, \
superseded pg_catalog.text[] NOT NULL DEFAULT '{}', \
updated_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(), \
seal pg_catalog.text) WITH (fillfactor = 50)";

/// The same of a table that was made without.
pub(crate) const ADD_SEAL: &str = "ALTER TABLE thinwire.applied ADD COLUMN seal pg_catalog.text";

/// What is known of an origin's stream: epoch, offset, replaced epochs, and the seal if there is such a column.
pub(crate) const READ_SEALED: &str = "\
SELECT epoch, \"offset\"::pg_catalog.text, superseded, pg_catalog.to_jsonb(a) ->> 'seal' \
FROM thinwire.applied a WHERE origin OPERATOR(pg_catalog.=) $1";

/// Seals what is known of an origin's stream, if it still is that.
pub(crate) fn seal(origin: &str, epoch: &str, offset: &str, seal: &str) -> String {
    format!(
        "UPDATE thinwire.applied SET seal = {} WHERE origin OPERATOR(pg_catalog.=) {} \
         AND epoch OPERATOR(pg_catalog.=) {} AND \"offset\" OPERATOR(pg_catalog.=) {offset}::pg_catalog.int8",
        literal(seal),
        literal(origin),
        literal(epoch)
    )
}

/// Which tables' rows came from which stream.
pub(crate) const CREATE_LOADED: &str = "\
CREATE TABLE IF NOT EXISTS thinwire.loaded (\
origin pg_catalog.text, \
schema_name pg_catalog.text, \
table_name pg_catalog.text, \
epoch pg_catalog.text NOT NULL, \
\"offset\" pg_catalog.int8 NOT NULL, \
rows pg_catalog.int8 NOT NULL, \
loaded_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(), \
PRIMARY KEY (origin, schema_name, table_name))";

/// What each origin's stream told of its source's objects.
pub(crate) const CREATE_DEFINITIONS: &str = "\
CREATE TABLE IF NOT EXISTS thinwire.definitions (\
origin pg_catalog.text, \
kind pg_catalog.text, \
id pg_catalog.int8, \
schema_name pg_catalog.text NOT NULL, \
object_name pg_catalog.text NOT NULL, \
definition pg_catalog.bytea NOT NULL, \
PRIMARY KEY (origin, kind, id))";

/// Which of our objects are there, and what the server is: schema, applied, loaded, definitions, version, recovery, skipped,
/// column for seals.
pub(crate) const STATE: &str = "\
SELECT pg_catalog.to_regnamespace('thinwire') IS NOT NULL, \
pg_catalog.to_regclass('thinwire.applied') IS NOT NULL, \
pg_catalog.to_regclass('thinwire.loaded') IS NOT NULL, \
pg_catalog.to_regclass('thinwire.definitions') IS NOT NULL, \
pg_catalog.current_setting('server_version_num')::pg_catalog.int4, \
pg_catalog.pg_is_in_recovery(), \
pg_catalog.to_regclass('thinwire.skipped') IS NOT NULL, \
EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass('thinwire.applied') \
AND attname = 'seal' AND NOT attisdropped)";

/// What a login is: superuser, and the very one that asks.
pub(crate) const LOGIN: &str = "\
SELECT rolsuper, rolname = current_user FROM pg_catalog.pg_roles WHERE rolname = $1";

/// Whether a login may do all that is needed in our schema, which is there.
pub(crate) const MAY_USE_OURS: &str = "\
SELECT pg_catalog.has_schema_privilege($1, 'thinwire', 'USAGE') AND \
(SELECT pg_catalog.bool_and(pg_catalog.has_table_privilege($1, t, p)) \
FROM pg_catalog.unnest(ARRAY['thinwire.applied', 'thinwire.loaded', 'thinwire.definitions', 'thinwire.skipped']) t, \
pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p)";

/// The functions of replication origins, and the one that waits for the disk, that a login may not execute, as a grant names them.
pub(crate) const MISSING_FUNCTIONS: &str = "\
SELECT pg_catalog.format('pg_catalog.%I(%s)', proname, pg_catalog.pg_get_function_identity_arguments(oid)) \
FROM pg_catalog.pg_proc WHERE pronamespace = 'pg_catalog'::pg_catalog.regnamespace \
AND proname IN ('pg_replication_origin_create', 'pg_replication_origin_session_setup', \
'pg_replication_origin_xact_setup', 'pg_replication_origin_xact_reset', 'pg_logical_emit_message') \
AND NOT pg_catalog.has_function_privilege($1, oid, 'EXECUTE') ORDER BY 1";

/// Whether a login may take the replica role: PostgreSQL 15 and later.
pub(crate) const MAY_TAKE_ROLE: &str =
    "SELECT pg_catalog.has_parameter_privilege($1, 'session_replication_role', 'SET')";

/// Whether a login has the replica role for good.
pub(crate) const HAS_ROLE_SETTING: &str = "\
SELECT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_roles r ON r.oid = s.setrole \
WHERE r.rolname = $1 AND 'session_replication_role=replica' = ANY (s.setconfig) AND s.setdatabase IN \
(0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())))";

/// The tables of users of which something holds: schema, table, whether we may grant rights on it and take them back, and
/// schema and name of what it is part of, which is itself unless it is a partition.
macro_rules! tables_where {
    ($condition:literal) => {
        concat!(
            "\
SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, pg_catalog.pg_has_role(c.relowner, 'USAGE'), \
rn.nspname::pg_catalog.text, t.relname::pg_catalog.text \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
JOIN pg_catalog.pg_class t ON t.oid = coalesce(pg_catalog.pg_partition_root(c.oid)::pg_catalog.oid, c.oid) \
JOIN pg_catalog.pg_namespace rn ON rn.oid = t.relnamespace \
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' \
AND n.nspname !~ '^(pg_|thinwire)' AND ",
            $condition,
            " ORDER BY 1, 2"
        )
    };
}

/// The sequences of users of which something holds and whose rights we may grant and take back: as a grant names them, and
/// the table to which each belongs, or of which that is part, or else itself, schema and name.
macro_rules! sequences_where {
    ($condition:literal) => {
        concat!(
            "\
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), \
coalesce(o.nspname, n.nspname)::pg_catalog.text, coalesce(t.relname, c.relname)::pg_catalog.text \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid \
AND d.refclassid = d.classid AND d.deptype IN ('a', 'i') \
LEFT JOIN pg_catalog.pg_class t \
ON t.oid = coalesce(pg_catalog.pg_partition_root(d.refobjid)::pg_catalog.oid, d.refobjid) \
LEFT JOIN pg_catalog.pg_namespace o ON o.oid = t.relnamespace \
WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' \
AND n.nspname !~ '^(pg_|thinwire)' AND pg_catalog.pg_has_role(c.relowner, 'USAGE') AND ",
            $condition,
            " ORDER BY 1"
        )
    };
}

/// Those whose rows a login may not read and write.
pub(crate) const FORBIDDEN_TABLES: &str = tables_where!(
    "NOT (pg_catalog.has_schema_privilege($1, n.oid, 'USAGE') AND \
(SELECT pg_catalog.bool_and(pg_catalog.has_table_privilege($1, c.oid, p)) \
FROM pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) p))"
);

/// Those whose rows a login was allowed to read and write, by itself and in all ways.
pub(crate) const GRANTED_TABLES: &str = tables_where!(
    "5 = (SELECT pg_catalog.count(DISTINCT a.privilege_type) \
FROM pg_catalog.aclexplode(c.relacl) a JOIN pg_catalog.pg_roles r ON r.oid = a.grantee \
WHERE r.rolname = $1 AND r.oid <> c.relowner \
AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE'))"
);

/// Those that a login may not move on.
pub(crate) const FORBIDDEN_SEQUENCES: &str = sequences_where!(
    "NOT (pg_catalog.has_sequence_privilege($1, c.oid, 'SELECT') \
AND pg_catalog.has_sequence_privilege($1, c.oid, 'UPDATE'))"
);

/// Those that a login was allowed to move on.
pub(crate) const GRANTED_SEQUENCES: &str = sequences_where!(
    "3 = (SELECT pg_catalog.count(DISTINCT a.privilege_type) \
FROM pg_catalog.aclexplode(c.relacl) a JOIN pg_catalog.pg_roles r ON r.oid = a.grantee \
WHERE r.rolname = $1 AND r.oid <> c.relowner AND a.privilege_type IN ('SELECT', 'USAGE', 'UPDATE'))"
);

/// The tables whose row security applies to a login.
pub(crate) const SECURED_TABLES: &str = "\
SELECT pg_catalog.format('%s.%s', n.nspname, c.relname) FROM pg_catalog.pg_class c \
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
JOIN pg_catalog.pg_roles r ON r.rolname = $1 WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity \
AND NOT r.rolsuper AND NOT r.rolbypassrls \
AND (c.relforcerowsecurity OR NOT pg_catalog.pg_has_role($1, c.relowner, 'USAGE')) ORDER BY 1";

/// Whether it is known who changed a row last.
pub(crate) const KEEPS_TIMESTAMPS: &str =
    "SELECT pg_catalog.current_setting('track_commit_timestamp') OPERATOR(pg_catalog.=) 'on'";

/// How many replication origins sessions may hold at once.
pub(crate) const ORIGINS_MAX: &str = "\
SELECT pg_catalog.max(setting::pg_catalog.int4) FROM pg_catalog.pg_settings WHERE name = \
CASE WHEN pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 180000 \
THEN 'max_active_replication_origins' ELSE 'max_replication_slots' END";

/// Creates a replication origin.
pub(crate) fn create_origin(name: &str) -> String {
    format!("SELECT pg_catalog.pg_replication_origin_create({})", literal(name))
}

/// Lets a login use our schema.
pub(crate) fn grant_ours(login: &str) -> [String; 2] {
    let login = ident(login);
    [
        format!("GRANT USAGE ON SCHEMA thinwire TO {login}"),
        format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON thinwire.applied, thinwire.loaded, thinwire.definitions, \
             thinwire.skipped TO {login}"
        ),
    ]
}

/// Lets a login execute a function; the function as the catalog wrote it.
pub(crate) fn grant_function(function: &str, login: &str) -> String {
    format!("GRANT EXECUTE ON FUNCTION {function} TO {}", ident(login))
}

/// Lets a login take the replica role, from PostgreSQL 15 on.
pub(crate) fn grant_role_setting(login: &str) -> String {
    format!("GRANT SET ON PARAMETER session_replication_role TO {}", ident(login))
}

/// Gives a login the replica role for good, as PostgreSQL 14 needs it.
pub(crate) fn set_role_setting(login: &str, database: &str) -> String {
    format!(
        "ALTER ROLE {} IN DATABASE {} SET session_replication_role = replica",
        ident(login),
        ident(database)
    )
}

/// Lets a login move a sequence on; the sequence as the catalog wrote it.
pub(crate) fn grant_sequence(sequence: &str, login: &str) -> String {
    format!("GRANT SELECT, USAGE, UPDATE ON SEQUENCE {sequence} TO {}", ident(login))
}

/// Takes back what lets a login move a sequence on.
pub(crate) fn revoke_sequence(sequence: &str, login: &str) -> String {
    format!("REVOKE SELECT, USAGE, UPDATE ON SEQUENCE {sequence} FROM {}", ident(login))
}

/// Takes back what lets a login write the rows of a table. It may still read them: the same login may capture the table.
pub(crate) fn revoke_table(schema: &str, table: &str, login: &str) -> String {
    format!(
        "REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {} FROM {}",
        super::qualified(schema, table),
        ident(login)
    )
}

/// The database that we are connected to.
pub(crate) const DATABASE: &str = "SELECT pg_catalog.current_database()::pg_catalog.text";

/// Lets a login into a schema.
pub(crate) fn grant_schema(schema: &str, login: &str) -> String {
    format!("GRANT USAGE ON SCHEMA {} TO {}", ident(schema), ident(login))
}

/// Lets a login read and write the rows of tables of a schema.
pub(crate) fn grant_tables(schema: &str, tables: &[String], login: &str) -> String {
    let names: Vec<_> = tables.iter().map(|table| super::qualified(schema, table)).collect();
    format!(
        "GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON {} TO {}",
        names.join(", "),
        ident(login)
    )
}
