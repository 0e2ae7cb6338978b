//! SQL about what was left out on somebody's decision.

/// What was left out: the record that was refused, the first and the last of what went with it, where and when it was
/// committed at the source, why it was refused, and who has left it out and when. The key lets nothing be left out twice.
pub(crate) const CREATE: &str = "\
CREATE TABLE IF NOT EXISTS thinwire.skipped (\
origin pg_catalog.text, \
epoch pg_catalog.text, \
\"offset\" pg_catalog.int8, \
first_offset pg_catalog.int8 NOT NULL, \
last_offset pg_catalog.int8 NOT NULL, \
lsn pg_catalog.pg_lsn, \
xid pg_catalog.int8, \
commit_time pg_catalog.timestamptz, \
code pg_catalog.text NOT NULL, \
table_name pg_catalog.text, \
detail pg_catalog.text NOT NULL, \
asked_by pg_catalog.text NOT NULL, \
login pg_catalog.text NOT NULL DEFAULT session_user, \
skipped_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(), \
PRIMARY KEY (origin, epoch, \"offset\"))";

/// Notes one.
pub(crate) const NOTE: &str = "\
INSERT INTO thinwire.skipped (origin, epoch, \"offset\", first_offset, last_offset, lsn, xid, commit_time, code, \
table_name, detail, asked_by) VALUES ($1, $2, $3, $4, $5, $6, $7, pg_catalog.timestamptz '2000-01-01 00:00:00+00' \
OPERATOR(pg_catalog.+) ($8::pg_catalog.int8 OPERATOR(pg_catalog.*) pg_catalog.interval '1 microsecond'), \
$9, $10, $11, $12)";

/// Whether the list is there and we may read it.
pub(crate) const MAY_READ: &str = "\
SELECT coalesce(pg_catalog.has_table_privilege(pg_catalog.to_regclass('thinwire.skipped'), 'SELECT'), false)";

/// How many are noted of a stream, and of the last one the offset, code, time and who has left it out.
pub(crate) const READ: &str = "\
SELECT pg_catalog.count(*) OVER ()::pg_catalog.text, \"offset\"::pg_catalog.text, code, \
pg_catalog.to_char(skipped_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), asked_by \
FROM thinwire.skipped WHERE origin OPERATOR(pg_catalog.=) $1 AND epoch OPERATOR(pg_catalog.=) $2 \
ORDER BY skipped_at DESC, \"offset\" DESC LIMIT 1";
