//! The only place where SQL and replication commands are made: one quoter, values as parameters.

pub(crate) mod schema;

use thinwire_engine::model::Lsn;

use crate::choice::{Narrowing, Operations};

/// What every session of ours is set to, at its start. The text form of values depends on them, so copied rows and
/// streamed rows look the same; names are never looked up along a path that somebody else may write to; and
/// row-level security is an error instead of missing rows.
pub(crate) const SETTINGS: [(&str, &str); 17] = [
    ("search_path", ""),
    ("synchronous_commit", "local"),
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    // Any value above 0 means the shortest text that reads back exactly; 3 is the largest that all versions take.
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("xmlbinary", "base64"),
    ("lc_monetary", "C"),
    ("timezone", "UTC"),
    ("client_encoding", "UTF8"),
    ("row_security", "off"),
    ("standard_conforming_strings", "on"),
    ("quote_all_identifiers", "off"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
];

/// Settings that some minor versions lack, and that are an error to name there.
pub(crate) const SETTINGS_WHERE_THEY_EXIST: &str = "\
    SELECT pg_catalog.set_config(s.name, v.value, false) \
    FROM (VALUES ('restrict_nonsystem_relation_kind', 'view, foreign-table'), \
                 ('transaction_timeout', '0')) AS v (name, value) \
    JOIN pg_catalog.pg_settings AS s ON s.name = v.name";

/// A server that shuts down waits for a sender whose client does not answer as long as this setting says, and for ever if it
/// says 0. So ours is short, unless somebody has asked for another one in the connection string.
pub(crate) const LIMIT_SENDER_TIMEOUT: &str = "\
    SELECT pg_catalog.set_config(s.name, '8s', false) FROM pg_catalog.pg_settings AS s \
    WHERE s.name = 'wal_sender_timeout' AND s.source <> 'client' \
    AND s.setting::pg_catalog.int8 NOT BETWEEN 1 AND 8000";

/// Whether the session may write.
pub(crate) const SHOW_READ_ONLY: &str = "SHOW transaction_read_only";

/// A name as an identifier.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name as an identifier.
pub(crate) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// Text as a literal, for the few places that take no parameters: the same whether or not backslashes mean something to
/// whoever's session it is.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    match quoted.contains('\\') {
        true => format!("E'{}'", quoted.replace('\\', "\\\\")),
        false => format!("'{quoted}'"),
    }
}

/// The server and who we are: version, level of its log, database, user, and the encoding of text.
pub(crate) const SERVER: &str = "\
    SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4, \
           pg_catalog.current_setting('wal_level'), \
           pg_catalog.current_database()::pg_catalog.text, \
           CURRENT_USER::pg_catalog.text, \
           pg_catalog.current_setting('server_encoding')";

/// Whether a role may replicate; `rds_replication` is how a hosted service says it.
pub(crate) const ROLE: &str = "\
    SELECT r.rolreplication OR r.rolsuper OR EXISTS ( \
               SELECT FROM pg_catalog.pg_auth_members AS m \
               JOIN pg_catalog.pg_roles AS g ON g.oid = m.roleid \
               WHERE m.member = r.oid AND g.rolname = 'rds_replication'), \
           r.rolsuper, r.rolbypassrls \
    FROM pg_catalog.pg_roles AS r WHERE r.rolname = $1";

/// Everything with rows that is nobody's own machinery, and what a login may do with it. Generated columns are not
/// published, so an index that has one among its keys identifies nothing.
pub(crate) const TABLES: &str = "\
    SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, \
           c.relkind::pg_catalog.text, c.relpersistence::pg_catalog.text, \
           c.relreplident::pg_catalog.text, \
           c.relreplident = 'f' OR EXISTS ( \
               SELECT FROM pg_catalog.pg_index AS i \
               WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND i.indisunique \
               AND (c.relreplident = 'd' AND i.indisprimary \
                    OR c.relreplident = 'i' AND i.indisreplident) \
               AND NOT EXISTS ( \
                   SELECT FROM pg_catalog.pg_attribute AS a \
                   WHERE a.attrelid = c.oid AND a.attgenerated <> '' \
                   AND a.attnum = ANY ((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1]))), \
           EXISTS ( \
               SELECT FROM pg_catalog.pg_depend AS d \
               WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
               AND d.objid = c.oid AND d.deptype = 'e'), \
           CASE WHEN c.relispartition \
                THEN pg_catalog.pg_partition_root(c.oid)::pg_catalog.oid END, \
           pg_catalog.has_table_privilege($1::pg_catalog.name, c.oid, 'SELECT'), \
           pg_catalog.has_schema_privilege($1::pg_catalog.name, n.oid, 'USAGE'), \
           EXISTS ( \
               SELECT FROM pg_catalog.pg_attribute AS a \
               WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped) \
    FROM pg_catalog.pg_class AS c \
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') \
    AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'thinwire') \
    ORDER BY n.nspname, c.relname";

/// A publication: for all tables, its operations, by roots, its comment, and whether it publishes generated columns, which only
/// 18 and later can. By way of JSON for that.
pub(crate) const PUBLICATION: &str = "\
    SELECT p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot, pg_catalog.obj_description(p.oid, 'pg_publication'), \
           coalesce(pg_catalog.to_jsonb(p) ->> 'pubgencols', 'n') <> 'n' \
    FROM pg_catalog.pg_publication AS p WHERE p.pubname = $1";

/// Its entries: each one's id and table, and whether it is narrowed. By way of JSON, because version 14 has no column
/// that says it.
pub(crate) const PUBLICATION_TABLES: &str = "\
    SELECT r.oid, r.prrelid, \
           pg_catalog.to_jsonb(r) ->> 'prqual' IS NOT NULL \
           OR pg_catalog.to_jsonb(r) ->> 'prattrs' IS NOT NULL \
    FROM pg_catalog.pg_publication_rel AS r \
    JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid WHERE p.pubname = $1";

/// What narrowed entries let through: the condition on rows as the catalogs spell it, and the columns. From version 15 on.
pub(crate) const NARROWED: &str = "\
    SELECT r.oid, pg_catalog.pg_get_expr(r.prqual, r.prrelid), \
           CASE WHEN r.prattrs IS NOT NULL THEN ( \
               SELECT pg_catalog.array_agg(a.attname::pg_catalog.text) \
               FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = r.prrelid \
               AND a.attnum = ANY (r.prattrs::pg_catalog.int2[])) END \
    FROM pg_catalog.pg_publication_rel AS r \
    JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid WHERE p.pubname = $1";

/// Tables with the names of their columns: all, those that are generated, those of the replica identity, if it has
/// any, and those that partitions are told apart by.
pub(crate) const COLUMNS: &str = "\
    SELECT c.oid, \
           coalesce(pg_catalog.array_agg(a.name ORDER BY a.number), '{}'), \
           coalesce(pg_catalog.array_agg(a.name) FILTER (WHERE a.is_generated), '{}'), \
           coalesce(pg_catalog.array_agg(a.name) FILTER (WHERE a.is_key), '{}'), \
           coalesce(pg_catalog.array_agg(a.name) FILTER (WHERE a.is_partition_key), '{}') \
    FROM pg_catalog.pg_class AS c LEFT JOIN LATERAL ( \
        SELECT a.attname::pg_catalog.text, a.attnum, a.attgenerated <> '', \
               c.relreplident = 'f' OR EXISTS ( \
                   SELECT FROM pg_catalog.pg_index AS i \
                   WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND i.indisunique \
                   AND (c.relreplident = 'd' AND i.indisprimary \
                        OR c.relreplident = 'i' AND i.indisreplident) \
                   AND a.attnum = ANY ((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1])), \
               EXISTS ( \
                   SELECT FROM pg_catalog.pg_depend AS d \
                   WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid \
                   AND d.objsubid = a.attnum AND d.refclassid = d.classid \
                   AND d.refobjid = c.oid AND d.refobjsubid = 0 AND d.deptype = 'i') \
        FROM pg_catalog.pg_attribute AS a \
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
    ) AS a (name, number, is_generated, is_key, is_partition_key) ON true \
    WHERE c.oid = ANY ($1::pg_catalog.oid[]) GROUP BY c.oid";

/// The condition of a table in a publication as the catalogs spell it, and the columns that it looks at.
pub(crate) const CONDITION: &str = "\
    SELECT pg_catalog.pg_get_expr(r.prqual, r.prrelid), coalesce(( \
               SELECT pg_catalog.array_agg(DISTINCT a.attname::pg_catalog.text) \
               FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_attribute AS a \
                   ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid \
               WHERE d.classid = 'pg_catalog.pg_publication_rel'::pg_catalog.regclass \
               AND d.objid = r.oid AND d.refobjid = r.prrelid AND d.refobjsubid > 0), '{}') \
    FROM pg_catalog.pg_publication_rel AS r \
    JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid WHERE p.pubname = $1";

/// Tables of a publication in which no index identifies a row.
pub(crate) const KEYLESS: &str = "\
    SELECT pg_catalog.format('%s.%s', n.nspname, c.relname), c.relkind = 'p' OR c.relreplident <> 'f' \
    FROM pg_catalog.pg_publication_rel AS r \
    JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid \
    JOIN pg_catalog.pg_class AS c ON c.oid = r.prrelid \
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    WHERE p.pubname = $1 AND NOT EXISTS ( \
        SELECT FROM pg_catalog.pg_index AS i \
        WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND i.indisunique \
        AND (i.indisprimary OR i.indisreplident)) ORDER BY 1";

/// The tables as which changes are published.
pub(crate) const PUBLISHED: &str = "\
    SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind = 'p' \
    FROM pg_catalog.pg_get_publication_tables($1::pg_catalog.text) AS t \
    JOIN pg_catalog.pg_class AS c ON c.oid = t.relid \
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace ORDER BY c.oid";

/// A slot.
pub(crate) const SLOT: &str = "\
    SELECT s.plugin::pg_catalog.text, \
           coalesce(s.database = pg_catalog.current_database(), false), s.temporary, \
           s.wal_status, s.confirmed_flush_lsn::pg_catalog.text, s.active_pid, \
           coalesce(pg_catalog.pg_wal_lsn_diff( \
               CASE WHEN pg_catalog.pg_is_in_recovery() \
                    THEN pg_catalog.pg_last_wal_receive_lsn() \
                    ELSE pg_catalog.pg_current_wal_lsn() END, s.restart_lsn), 0)::pg_catalog.int8 \
    FROM pg_catalog.pg_replication_slots AS s WHERE s.slot_name = $1";

/// Who streams from a slot: application, address, user.
pub(crate) const SLOT_HOLDER: &str = "\
    SELECT coalesce(a.application_name, ''), coalesce(a.client_addr::pg_catalog.text, 'local'), \
           coalesce(a.usename::pg_catalog.text, '?') \
    FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = $1";

/// Ends a replication session of our own that waits for others.
pub(crate) const END_OWN_SENDER: &str = "\
    SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity AS a \
    WHERE a.pid = $1 AND a.usename = CURRENT_USER AND a.backend_type = 'walsender'";

/// What is free: slots, and senders.
pub(crate) const FREE: &str = "\
    SELECT pg_catalog.current_setting('max_replication_slots')::pg_catalog.int8 \
               - (SELECT count(*) FROM pg_catalog.pg_replication_slots), \
           pg_catalog.current_setting('max_wal_senders')::pg_catalog.int8 \
               - (SELECT count(*) FROM pg_catalog.pg_stat_activity \
                  WHERE backend_type = 'walsender')";

/// Which standbys commits wait for.
pub(crate) const SYNCHRONOUS_STANDBYS: &str =
    "SELECT pg_catalog.current_setting('synchronous_standby_names')";

/// After how many milliseconds of silence the server gives a replication session up; 0 is never.
pub(crate) const WAL_SENDER_TIMEOUT: &str = "\
    SELECT setting::pg_catalog.int8 FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'";

/// How far the log is flushed.
pub(crate) const FLUSHED: &str = "\
    SELECT CASE WHEN pg_catalog.pg_is_in_recovery() \
                THEN pg_catalog.pg_last_wal_replay_lsn() \
                ELSE pg_catalog.pg_current_wal_flush_lsn() END::pg_catalog.text";

/// Published tables whose rows a login does not see all of, or may not read.
pub(crate) const UNREADABLE: &str = "\
    SELECT pg_catalog.format('%s.%s', n.nspname, c.relname), \
           pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
               AND pg_catalog.has_table_privilege(c.oid, 'SELECT'), \
           pg_catalog.row_security_active(c.oid) \
    FROM pg_catalog.pg_get_publication_tables($1::pg_catalog.text) AS t \
    JOIN pg_catalog.pg_class AS c ON c.oid = t.relid \
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace ORDER BY 1";

/// How many sequences the tables of a publication and their partitions have: their columns', and others that defaults ask.
pub(crate) const OWN_SEQUENCES: &str = "\
    WITH captured (id) AS ( \
        SELECT coalesce(t.relid::pg_catalog.oid, r.prrelid) \
        FROM pg_catalog.pg_publication_rel AS r \
        JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid \
        LEFT JOIN LATERAL pg_catalog.pg_partition_tree(r.prrelid) AS t ON true \
        WHERE p.pubname = $1) \
    SELECT count(DISTINCT s.oid) FROM pg_catalog.pg_depend AS d \
    LEFT JOIN pg_catalog.pg_attrdef AS a \
        ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND a.oid = d.objid \
    JOIN pg_catalog.pg_class AS s ON s.relkind = 'S' \
        AND s.oid = CASE WHEN a.oid IS NULL THEN d.objid ELSE d.refobjid END \
    WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
    AND (a.oid IS NOT NULL \
         OR d.classid = d.refclassid AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')) \
    AND coalesce(a.adrelid, d.refobjid) IN (SELECT c.id FROM captured AS c)";

/// Those of some sequences that are there.
pub(crate) const SEQUENCES_THERE: &str = "\
    SELECT coalesce(pg_catalog.array_agg(c.oid), '{}') FROM pg_catalog.pg_class AS c \
    WHERE c.oid = ANY ($1::pg_catalog.oid[]) AND c.relkind = 'S'";

/// A statement that waits for a lock holds up all that come after it, so ours wait only a moment.
pub(crate) const SHORT_LOCK_TIMEOUT: &str = "SET lock_timeout = '3s'";

pub(crate) const CREATE_SLOT: &str = "\
    SELECT lsn::pg_catalog.text \
    FROM pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')";

/// For what waits for transactions instead of tables, and holds nobody up.
pub(crate) const LONG_LOCK_TIMEOUT: &str = "SET lock_timeout = '60s'";

/// The oldest transaction that a slot's creation waits for, for people.
pub(crate) const OLDEST_TRANSACTION: &str = "\
    SELECT t.who FROM ( \
        SELECT pg_catalog.format('process %s (application \"%s\", user %s, since %s)', \
                   a.pid, a.application_name, a.usename, a.xact_start) AS who, a.xact_start AS since \
        FROM pg_catalog.pg_stat_activity AS a \
        WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid() \
        UNION ALL \
        SELECT pg_catalog.format('the prepared transaction %L', p.gid), p.prepared \
        FROM pg_catalog.pg_prepared_xacts AS p) AS t \
    ORDER BY t.since LIMIT 1";

pub(crate) const DROP_SLOT: &str = "\
    SELECT pg_catalog.pg_drop_replication_slot(slot_name) \
    FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";

pub(crate) fn drop_slot(name: &str) -> String {
    format!("SELECT pg_catalog.pg_drop_replication_slot({})", literal(name))
}

pub(crate) fn drop_publication(name: &str) -> String {
    format!("DROP PUBLICATION IF EXISTS {}", ident(name))
}

pub(crate) fn replica_identity_full(schema: &str, table: &str) -> String {
    format!("ALTER TABLE ONLY {} REPLICA IDENTITY FULL", qualified(schema, table))
}

/// A table in a publication: alone, because what inherits from it is listed by itself. `table` is quoted already.
pub(crate) fn entry(table: &str, narrowing: &Narrowing) -> String {
    let mut out = format!("ONLY {table}");
    if let Some(columns) = &narrowing.columns {
        let columns: Vec<String> = columns.iter().map(|name| ident(name)).collect();
        out.push_str(&format!(" ({})", columns.join(", ")));
    }
    if let Some(rows) = &narrowing.rows {
        out.push_str(&format!(" WHERE {}", enclosed(rows)));
    }
    out
}

/// Somebody's expression where one is expected. What parses within one pair of parentheses (see [`parsed`]) cannot
/// leave two, and no comment in it goes beyond its line.
fn enclosed(expression: &str) -> String {
    match expression.contains("--") {
        true => format!("(({expression}\n))"),
        false => format!("(({expression}))"),
    }
}

/// Two statements that are parsed, and not run, to see that an expression is one: only a balanced one stands in the
/// first, and the second has the very form in which it is used. With nothing behind it but a parenthesis, it leaves
/// neither a quote nor a comment open.
pub(crate) fn parsed(expression: &str) -> [String; 2] {
    let [once, twice] = [format!("({expression}\n)"), format!("(({expression}\n))")];
    [once, twice].map(|it| format!("CREATE PUBLICATION p FOR TABLE ONLY t WHERE {it}"))
}

/// Makes a publication that is never committed, to ask PostgreSQL what it thinks of an entry.
pub(crate) fn rehearse(entry: &str, operations: Operations) -> String {
    format!(
        "BEGIN; SET LOCAL lock_timeout = '3s'; CREATE PUBLICATION {} FOR TABLE {entry} WITH ({})",
        ident(REHEARSED),
        publish(operations)
    )
}

/// Makes PostgreSQL say whether an update of a table would fail. `table` is quoted already.
pub(crate) fn would_update(table: &str, column: &str) -> String {
    format!("EXPLAIN UPDATE ONLY {table} SET {} = DEFAULT", ident(column))
}

/// The same of a delete.
pub(crate) fn would_delete(table: &str) -> String {
    format!("EXPLAIN DELETE FROM ONLY {table}")
}

pub(crate) const ROLLBACK: &str = "ROLLBACK";

/// What the planner makes of an expression over a table's columns: the same for two that are spelled differently and
/// mean the same. `table` is quoted already.
pub(crate) fn meaning(table: &str, is_alone: bool, expression: &str) -> String {
    let from = from(table, is_alone);
    format!("EXPLAIN (VERBOSE, COSTS OFF) SELECT {} FROM {from}", enclosed(expression))
}

/// `entries` are made by [`entry`].
pub(crate) fn create_publication(name: &str, entries: &[String], operations: Operations) -> String {
    let list = match entries.is_empty() {
        true => String::new(),
        false => format!(" FOR TABLE {}", entries.join(", ")),
    };
    format!("CREATE PUBLICATION {}{list} WITH ({})", ident(name), publish(operations))
}

/// `entries` are made by [`entry`].
pub(crate) fn add_tables(publication: &str, entries: &[String]) -> String {
    format!("ALTER PUBLICATION {} ADD TABLE {}", ident(publication), entries.join(", "))
}

/// `entries` are made by [`entry`].
pub(crate) fn drop_tables(publication: &str, entries: &[String]) -> String {
    format!("ALTER PUBLICATION {} DROP TABLE {}", ident(publication), entries.join(", "))
}

/// Statements that take effect together.
pub(crate) fn at_once(statements: &[String]) -> String {
    format!("BEGIN; {}; COMMIT", statements.join("; "))
}

/// Tells, in the log and so to whoever reads it then, that tables are about to be published: as `name` and their ids.
pub(crate) fn tell_added(name: &str, tables: &[u32]) -> String {
    let ids: Vec<String> = tables.iter().map(u32::to_string).collect();
    let content = literal(&format!("{name} {}", ids.join(",")));
    let prefix = literal(crate::schema::ADDED);
    format!("SELECT pg_catalog.pg_logical_emit_message(true, {prefix}, {content})")
}

pub(crate) fn set_publication(name: &str, operations: Operations) -> String {
    format!("ALTER PUBLICATION {} SET ({})", ident(name), publish(operations))
}

/// Leaves generated columns out again, as a publication does that nobody has changed.
pub(crate) fn unpublish_generated(name: &str) -> String {
    format!("ALTER PUBLICATION {} SET (publish_generated_columns = none)", ident(name))
}

pub(crate) fn comment(publication: &str, text: &str) -> String {
    format!("COMMENT ON PUBLICATION {} IS {}", ident(publication), literal(text))
}

/// Creates the slot and notes in the publication's comment where, as `head` and the position.
pub(crate) fn create_slot(name: &str, head: &str) -> String {
    let (slot, head) = (literal(name), literal(head));
    let body = format!(
        "DECLARE made pg_catalog.pg_lsn; BEGIN \
         SELECT lsn INTO made FROM pg_catalog.pg_create_logical_replication_slot({slot}, 'pgoutput'); \
         EXECUTE pg_catalog.format('COMMENT ON PUBLICATION %I IS %L', {slot}, {head} || made); END"
    );
    format!("DO {}", literal(&body))
}

pub(crate) fn grant_usage(schema: &str, user: &str) -> String {
    format!("GRANT USAGE ON SCHEMA {} TO {}", ident(schema), ident(user))
}

/// `tables` are quoted already.
pub(crate) fn grant_select(tables: &[String], user: &str) -> String {
    format!("GRANT SELECT ON TABLE {} TO {}", tables.join(", "), ident(user))
}

/// What lets a login replicate.
pub(crate) fn allow_replication(user: &str) -> String {
    format!("ALTER ROLE {} REPLICATION", ident(user))
}

/// A login that may replicate.
pub(crate) fn create_login(user: &str) -> String {
    format!("CREATE ROLE {} LOGIN REPLICATION", ident(user))
}

/// Tables to copy: name, kind, replica identity, the files that hold their rows (one for each partition), size.
pub(crate) const COPY_TABLES: &str = "\
    SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, \
           c.relkind::pg_catalog.text, c.relreplident::pg_catalog.text, parts.files, parts.bytes \
    FROM pg_catalog.pg_class AS c \
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    CROSS JOIN LATERAL ( \
        WITH RECURSIVE part (id) AS ( \
            SELECT c.oid UNION ALL \
            SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i JOIN part AS p ON i.inhparent = p.id \
            WHERE c.relkind = 'p') \
        SELECT pg_catalog.string_agg( \
                   pg_catalog.format('%s:%s:%s', k.oid, k.relkind, k.relfilenode), ',' \
                   ORDER BY k.oid) AS files, \
               coalesce(pg_catalog.sum(pg_catalog.pg_table_size(k.oid)), 0)::pg_catalog.int8 AS bytes \
        FROM part JOIN pg_catalog.pg_class AS k ON k.oid = part.id) AS parts \
    WHERE c.oid = ANY ($1::pg_catalog.oid[]) AND c.relkind IN ('r', 'p') ORDER BY c.oid";

/// Their published columns, and whether each is part of the replica identity: the index's key columns, or all.
pub(crate) const COPY_COLUMNS: &str = "\
    SELECT c.oid, a.attname::pg_catalog.text, a.atttypid, a.atttypmod, \
           c.relreplident = 'f' OR EXISTS ( \
               SELECT FROM pg_catalog.pg_index AS i \
               WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND i.indisunique \
               AND (c.relreplident = 'd' AND i.indisprimary \
                    OR c.relreplident = 'i' AND i.indisreplident) \
               AND a.attnum = ANY ((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1])) \
    FROM pg_catalog.pg_class AS c \
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid \
    WHERE c.oid = ANY ($1::pg_catalog.oid[]) AND c.relkind IN ('r', 'p') \
    AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY c.oid, a.attnum";

/// Begins to see the database as an exported snapshot does. Queries that come after one of ours that waits for a lock
/// may have to wait with it, so it does not wait long.
pub(crate) fn begin_in_snapshot(snapshot: &str) -> String {
    format!(
        "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; \
         SET TRANSACTION SNAPSHOT {}; SET LOCAL lock_timeout = '5s'",
        literal(snapshot)
    )
}

/// Keeps a table's shape. `table` is quoted already.
pub(crate) fn lock(table: &str, is_alone: bool) -> String {
    format!("LOCK TABLE {} IN ACCESS SHARE MODE", from(table, is_alone))
}

/// Rows of a table to copy. `table` is quoted already.
#[derive(Clone, Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) table: String,
    pub(crate) columns: Vec<&'a str>,
    /// Whether what inherits from it, or is a part of it, is left out.
    pub(crate) is_alone: bool,
    /// The condition on rows, as the catalogs spell it.
    pub(crate) rows: Option<&'a str>,
}

impl Reading<'_> {
    /// Asks the planner how much that is.
    pub(crate) fn explain(&self) -> String {
        format!("EXPLAIN {}", self.select())
    }

    /// Reads them.
    pub(crate) fn copy_out(&self) -> String {
        let columns = self.columns();
        match self.is_alone && !columns.is_empty() && self.rows.is_none() {
            // This form is the faster one, and refuses anything that is no table.
            true => format!("COPY {} ({columns}) TO STDOUT", self.table),
            false => format!("COPY ({}) TO STDOUT", self.select()),
        }
    }

    fn select(&self) -> String {
        let select = format!("SELECT {} FROM {}", self.columns(), from(&self.table, self.is_alone));
        match self.rows {
            Some(rows) => format!("{select} WHERE {}", enclosed(rows)),
            None => select,
        }
    }

    fn columns(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|name| ident(name)).collect();
        columns.join(", ")
    }
}

fn from(table: &str, is_alone: bool) -> String {
    match is_alone {
        true => format!("ONLY {table}"),
        false => table.to_owned(),
    }
}

fn publish(operations: Operations) -> String {
    format!("publish = {}, publish_via_partition_root = true", literal(&operations.list()))
}

/// The name of the publication that is never committed. No node's has a space in it.
pub(crate) const REHEARSED: &str = "thinwire rehearsal";

/// Commands of the replication protocol.
pub(crate) mod replication {
    use super::{Lsn, ident};

    pub(crate) const IDENTIFY_SYSTEM: &str = "IDENTIFY_SYSTEM";

    pub(crate) fn timeline_history(timeline: u32) -> String {
        format!("TIMELINE_HISTORY {timeline}")
    }

    /// The slot goes when its connection ends, and its snapshot with the next command on it.
    pub(crate) fn create_temporary_slot(slot: &str) -> String {
        format!(
            "CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT",
            ident(slot)
        )
    }

    pub(crate) fn start(slot: &str, from: Lsn, publication: &str) -> String {
        // The option's value is a list of identifiers inside a literal.
        format!(
            "START_REPLICATION SLOT {} LOGICAL {from} \
             (proto_version '1', publication_names {}, messages 'true')",
            ident(slot),
            plain(&ident(publication)),
        )
    }

    /// Text as a literal. The protocol's own commands know no escapes.
    fn plain(text: &str) -> String {
        format!("'{}'", text.replace('\'', "''"))
    }
}

#[cfg(test)]
mod tests {
    use thinwire_cluster::names;

    use super::*;

    #[test]
    fn names_cannot_end_their_quotes() {
        assert_eq!(ident("a\"; DROP TABLE x; --"), "\"a\"\"; DROP TABLE x; --\"");
        assert_eq!(qualified("s.t", "b'c"), "\"s.t\".\"b'c\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("it's \\"), "E'it''s \\\\'");
        assert!(
            replication::start("thinwire_a", Lsn::new(0x1_0000_0002), "thinwire_'a")
                .contains("LOGICAL 1/2 (proto_version '1', publication_names '\"thinwire_''a\"'")
        );
    }

    #[test]
    fn any_name_is_one_token_whatever_backslashes_mean() {
        let seed = 3;
        for (at, name) in names::any(seed).take(100_000).enumerate() {
            for is_standard in [true, false] {
                for text in [ident(&name), literal(&name)] {
                    let read = names::unquoted(&text, is_standard);
                    assert_eq!(read.as_ref(), Some(&name), "seed {seed}, name {at}: {text}");
                }
            }
        }
    }

    #[tokio::test]
    async fn any_name_is_read_as_it_is_by_a_server_and_a_nul_is_refused() {
        let cluster = thinwire_cluster::Cluster::start(Default::default()).unwrap();
        let seed = 4;
        let all: Vec<String> = names::any(seed).take(5_000).collect();
        for is_standard in [true, false] {
            let read = names::read_back(&cluster, &all, is_standard, ident, literal);
            assert_eq!(read.unwrap(), all.len(), "seed {seed}, standard strings {is_standard}");
        }
        let source = crate::Source::new(cluster.url("postgres").parse().unwrap());
        let client = source.connect().await.unwrap();
        for text in [ident("a\0b"), literal("a\0b")] {
            let refused = client.batch_execute(&format!("SELECT 1 AS a, {text} AS b")).await;
            assert!(refused.unwrap_err().as_db_error().is_none(), "not even sent");
        }
    }

    #[tokio::test]
    async fn the_server_understands_every_query() {
        let cluster = thinwire_cluster::Cluster::start(Default::default()).unwrap();
        let source = crate::Source::new(cluster.url("postgres").parse().unwrap());
        let client = source.connect().await.unwrap();
        for query in [
            SETTINGS_WHERE_THEY_EXIST,
            LIMIT_SENDER_TIMEOUT,
            SHOW_READ_ONLY,
            SERVER,
            ROLE,
            TABLES,
            PUBLICATION,
            PUBLICATION_TABLES,
            PUBLISHED,
            COLUMNS,
            KEYLESS,
            SLOT,
            SLOT_HOLDER,
            END_OWN_SENDER,
            FREE,
            SYNCHRONOUS_STANDBYS,
            WAL_SENDER_TIMEOUT,
            FLUSHED,
            UNREADABLE,
            OLDEST_TRANSACTION,
            OWN_SEQUENCES,
            SEQUENCES_THERE,
            DROP_SLOT,
            CREATE_SLOT,
            COPY_TABLES,
            COPY_COLUMNS,
        ] {
            assert!(client.prepare(query).await.is_ok(), "{query}");
        }
        // Those that say what was chosen are asked of servers where it can be.
        let version = client.query_one("show server_version_num", &[]).await.unwrap();
        if version.get::<_, &str>(0).parse::<u32>().unwrap() >= 150_000 {
            for query in [NARROWED, CONDITION] {
                assert!(client.prepare(query).await.is_ok(), "{query}");
            }
        }
        client.batch_execute(&schema::install()).await.unwrap();
        for query in [
            schema::IS_INSTALLED,
            schema::EDITION,
            schema::REGISTERED,
            schema::IS_REGISTERED,
            schema::MAY_ASK,
            schema::CHOSEN,
            schema::SECRET,
            schema::HUSH,
            schema::LEFT_OUT,
            schema::DESCRIBE,
            schema::PUBLISH_MISSING,
            schema::MAY_PUBLISH_DELAYED,
            schema::PUBLISH_DELAYED,
            schema::SEQUENCES,
        ] {
            assert!(client.prepare(query).await.is_ok(), "{query}");
        }
        client.batch_execute(schema::UNINSTALL).await.unwrap();
        for (name, value) in SETTINGS {
            let set = client.query_one("SELECT current_setting($1)", &[&name]).await.unwrap();
            let set: String = set.get(0);
            assert!(set.starts_with(value), "{name} is {set}");
        }
    }
}
