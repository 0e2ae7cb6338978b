//! SQL of a session that applies: its settings, its replication origin, its transactions and its progress.

/// What a session is set to: everything that decides how text becomes a value, as capture has it too; nothing that could
/// end the session or find a name anywhere but where it is said to be.
const SETTINGS: [(&str, &str); 29] = [
    ("search_path", ""),
    ("row_security", "off"),
    ("synchronous_commit", "on"),
    ("client_min_messages", "error"),
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("xmloption", "content"),
    ("xmlbinary", "base64"),
    ("array_nulls", "on"),
    ("transform_null_equals", "off"),
    ("standard_conforming_strings", "on"),
    ("check_function_bodies", "off"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_deferrable", "off"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    // Plans are made once a statement. They must not suit only a table that was small then.
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    // Many rows at a time are each found by their key as well.
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_material", "off"),
    ("jit", "off"),
];

/// The settings as command-line options of the server, with which the session begins: so they are what RESET goes back to.
pub(crate) fn options() -> String {
    let option = |(name, value): &(&str, &str)| format!("-c {name}={}", value.replace(' ', "\\ "));
    SETTINGS.iter().map(option).collect::<Vec<_>>().join(" ")
}

/// The same with the replica role. Only with PostgreSQL 15 may an ordinary login be allowed to take it; before that the
/// login must have been given it for good.
pub(crate) fn replica_options() -> String {
    format!("{} -c session_replication_role=replica", options())
}

/// Gives a target transaction up.
pub(crate) const ROLLBACK: &str = "ROLLBACK";

/// Opens a target transaction. A trigger of somebody's may have left settings behind that change how the next transaction is
/// read, so all of them go back to what they were. What it changes is visible before it is durable, as with PostgreSQL's
/// own logical replication: nobody has to wait for the disk who only wants to see.
pub(crate) fn begin(version: i32) -> String {
    // BEGIN stands alone: with options, it could fail and leave what follows outside of a transaction.
    let mut text = "BEGIN; SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE; RESET ALL; \
         SET LOCAL synchronous_commit = off"
        .to_owned();
    if version >= TRANSACTION_TIMEOUT {
        text.push_str("; SET LOCAL transaction_timeout = 0");
    }
    text
}

/// Makes durable all that was committed before: a message that nobody reads is the least that the server waits with for its
/// log, in a transaction that does wait.
pub(crate) const SETTLE: &str = "\
SET LOCAL synchronous_commit = on; SELECT pg_catalog.pg_logical_emit_message(true, 'thinwire', '')";

/// Commits, and then makes it durable.
pub(crate) fn commit() -> String {
    format!("COMMIT; {SETTLE}")
}

/// The first PostgreSQL that can end a long transaction.
const TRANSACTION_TIMEOUT: i32 = 170_000;

/// The server's version.
pub(crate) const VERSION: &str =
    "SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4";

/// Whether the session has the replica role.
pub(crate) const HAS_REPLICA_ROLE: &str = "\
SELECT pg_catalog.current_setting('session_replication_role') OPERATOR(pg_catalog.=) 'replica'";

/// Makes an origin durable in the catalog, if it is not.
pub(crate) const CREATE_ORIGIN: &str = "\
SELECT pg_catalog.pg_replication_origin_create($1) WHERE NOT EXISTS \
(SELECT FROM pg_catalog.pg_replication_origin WHERE roname OPERATOR(pg_catalog.=) $1)";

/// Whether there is an origin of that name.
pub(crate) const HAS_ORIGIN: &str = "\
SELECT EXISTS (SELECT FROM pg_catalog.pg_replication_origin WHERE roname OPERATOR(pg_catalog.=) $1)";

/// Makes the session the one that replays an origin, or fails if another does.
pub(crate) const HOLD_ORIGIN: &str = "SELECT pg_catalog.pg_replication_origin_session_setup($1)";

/// Marks the target transaction with where and when the source committed.
pub(crate) const MARK_SOURCE: &str = "\
SELECT pg_catalog.pg_replication_origin_xact_setup($1, pg_catalog.timestamptz '2000-01-01 00:00:00+00' \
OPERATOR(pg_catalog.+) ($2::pg_catalog.int8 OPERATOR(pg_catalog.*) pg_catalog.interval '1 microsecond'))";

/// Marks it with nothing.
pub(crate) const MARK_NOTHING: &str = "SELECT pg_catalog.pg_replication_origin_xact_reset()";

/// What is known of an origin's stream.
pub(crate) const READ_PROGRESS: &str = "\
SELECT epoch, \"offset\"::pg_catalog.text, superseded, lsn::pg_catalog.text, \
pg_catalog.trunc(EXTRACT(EPOCH FROM commit_time) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.text, seal \
FROM thinwire.applied WHERE origin OPERATOR(pg_catalog.=) $1";

/// Moves an origin's stream from where we believe it is: no row if it is not there.
pub(crate) const MOVE_PROGRESS: &str = "\
INSERT INTO thinwire.applied AS known (origin, epoch, \"offset\", lsn, commit_time, seal) \
VALUES ($1, $2, $3, $4, pg_catalog.timestamptz '2000-01-01 00:00:00+00' \
OPERATOR(pg_catalog.+) ($5::pg_catalog.int8 OPERATOR(pg_catalog.*) pg_catalog.interval '1 microsecond'), $8) \
ON CONFLICT (origin) DO UPDATE SET epoch = EXCLUDED.epoch, \"offset\" = EXCLUDED.\"offset\", \
lsn = coalesce(EXCLUDED.lsn, known.lsn), commit_time = coalesce(EXCLUDED.commit_time, known.commit_time), \
seal = EXCLUDED.seal, updated_at = pg_catalog.now(), superseded = CASE WHEN known.epoch OPERATOR(pg_catalog.=) EXCLUDED.epoch \
THEN known.superseded ELSE pg_catalog.array_append(known.superseded, known.epoch) END \
WHERE known.epoch OPERATOR(pg_catalog.=) $6 AND known.\"offset\" OPERATOR(pg_catalog.=) $7";

/// Whether a table's rows came from an origin's stream, and from no other's.
pub(crate) const WAS_LOADED: &str = "\
SELECT EXISTS (SELECT FROM thinwire.loaded WHERE origin OPERATOR(pg_catalog.=) $1 \
AND schema_name OPERATOR(pg_catalog.=) $2 AND table_name OPERATOR(pg_catalog.=) $3) \
AND NOT EXISTS (SELECT FROM thinwire.loaded WHERE origin OPERATOR(pg_catalog.<>) $1 \
AND schema_name OPERATOR(pg_catalog.=) $2 AND table_name OPERATOR(pg_catalog.=) $3)";

/// Remembers that.
pub(crate) const NOTE_LOADED: &str = "\
INSERT INTO thinwire.loaded (origin, schema_name, table_name, epoch, \"offset\", rows) \
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (origin, schema_name, table_name) DO UPDATE SET \
epoch = EXCLUDED.epoch, \"offset\" = EXCLUDED.\"offset\", rows = EXCLUDED.rows, loaded_at = pg_catalog.now()";
