//! What is installed at the source to follow schema changes, and what is asked of it.

use ring::digest::{SHA256, digest};

use super::{ident, literal};

/// All that is installed, in the order in which it must be.
const PARTS: [&str; 6] = [
    include_str!("tables.sql"),
    include_str!("choice.sql"),
    include_str!("describe.sql"),
    include_str!("changes.sql"),
    include_str!("truncate.sql"),
    include_str!("access.sql"),
];

/// Installs everything, in one transaction, with a mark that says which edition it is.
pub(crate) fn install() -> String {
    let mark = literal(&edition());
    format!("{}COMMENT ON EVENT TRIGGER thinwire_command IS {mark}", PARTS.concat())
}

/// What the mark says: it differs whenever what is installed does.
pub(crate) fn edition() -> String {
    let hash = digest(&SHA256, PARTS.concat().as_bytes());
    let hash: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("Thinwire follows schema changes with this, edition {hash}")
}

/// Takes everything away again.
pub(crate) const UNINSTALL: &str = include_str!("uninstall.sql");

/// Takes the schema away, unless there is something else in it.
pub(crate) const DROP_EMPTY_SCHEMA: &str = "\
    DO $$ BEGIN DROP SCHEMA IF EXISTS thinwire; \
    EXCEPTION WHEN dependent_objects_still_exist THEN NULL; END $$";

/// What is said of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registration<'a> {
    pub(crate) publication: &'a str,
    pub(crate) node: &'a str,
    pub(crate) reader: &'a str,
    pub(crate) patterns: &'a str,
    pub(crate) choice: &'a str,
    /// Whether schema changes are told, or it is only seen to that no update fails.
    pub(crate) follows: bool,
}

/// Says what a node captures and who reads it.
pub(crate) fn register(it: Registration<'_>) -> String {
    let Registration { publication, node, reader, patterns, choice, follows } = it;
    format!(
        "INSERT INTO thinwire.captures (publication, node, reader, patterns, choice, follows, secret) \
         VALUES ({}, {}, {}, {}, {}, {follows}, pg_catalog.decode(pg_catalog.replace(pg_catalog.concat(\
             pg_catalog.gen_random_uuid(), pg_catalog.gen_random_uuid()), '-', ''), 'hex')) \
         ON CONFLICT (publication) DO UPDATE SET node = EXCLUDED.node, reader = EXCLUDED.reader, \
             patterns = EXCLUDED.patterns, choice = EXCLUDED.choice, follows = EXCLUDED.follows",
        literal(publication),
        literal(node),
        literal(reader),
        literal(patterns),
        literal(choice),
    )
}

/// Forgets a node.
pub(crate) fn unregister(publication: &str) -> String {
    format!("DELETE FROM thinwire.captures WHERE publication = {}", literal(publication))
}

/// Lets the login that captures ask.
pub(crate) fn grant_asking(user: &str) -> String {
    let user = ident(user);
    format!(
        "GRANT USAGE ON SCHEMA thinwire TO {user}; GRANT SELECT ON thinwire.captures TO {user}; \
         GRANT EXECUTE ON FUNCTION thinwire.describe_tables(name, oid[]), \
         thinwire.publish_missing(name), thinwire.publish_delayed(name), \
         thinwire.sequences(name, oid[], int8[]) TO {user}"
    )
}

/// Tells of all captured tables.
pub(crate) fn tell_all(publication: &str) -> String {
    format!("SELECT thinwire.tell_all({})", literal(publication))
}

/// Lets a session of an administrator do what is not to be followed, because it is told of all tables afterwards.
pub(crate) const HUSH: &str = "\
    SELECT pg_catalog.set_config('thinwire.nested', thinwire.token(c.secret), false) \
    FROM thinwire.captures AS c WHERE c.publication = $1";

/// Whether the functions are there at all.
pub(crate) const IS_INSTALLED: &str = "\
    SELECT pg_catalog.to_regclass('thinwire.captures') IS NOT NULL";

/// The mark, if all triggers are there and always fire; and who owns what they run.
pub(crate) const EDITION: &str = "\
    SELECT (SELECT pg_catalog.obj_description(c.oid, 'pg_event_trigger') \
            FROM pg_catalog.pg_event_trigger AS c WHERE c.evtname = 'thinwire_command' \
            AND 3 = (SELECT pg_catalog.count(*) FROM pg_catalog.pg_event_trigger AS t \
                     WHERE t.evtname IN ('thinwire_command', 'thinwire_drop', 'thinwire_rewrite') \
                     AND t.evtenabled = 'A')), \
           (SELECT pg_catalog.pg_get_userbyid(n.nspowner)::pg_catalog.text \
            FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_roles AS r ON r.oid = n.nspowner \
            WHERE n.nspname = 'thinwire' AND NOT r.rolsuper)";

/// What is said of a node: its name, its reader, whether its patterns and its choice are as two JSON texts have them,
/// whether it is that of a publication, and whether it follows. What an earlier edition does not know is read by way of JSON.
pub(crate) const REGISTERED: &str = "\
    SELECT c.node, c.reader::pg_catalog.text, \
           c.patterns = $2::pg_catalog.text::pg_catalog.jsonb \
           AND coalesce(pg_catalog.to_jsonb(c) -> 'choice' = $3::pg_catalog.text::pg_catalog.jsonb, false), \
           c.publication = $1, \
           coalesce((pg_catalog.to_jsonb(c) ->> 'follows')::pg_catalog.bool, true) \
    FROM thinwire.captures AS c ORDER BY c.publication = $1 DESC";

/// Whether anything is said of a node.
pub(crate) const IS_REGISTERED: &str = "\
    SELECT EXISTS (SELECT FROM thinwire.captures AS c WHERE c.publication = $1)";

/// Whether a login may ask all that it has to.
pub(crate) const MAY_ASK: &str = "\
    SELECT pg_catalog.has_schema_privilege($1::pg_catalog.name, 'thinwire', 'USAGE') \
       AND pg_catalog.has_table_privilege($1::pg_catalog.name, 'thinwire.captures', 'SELECT') \
       AND pg_catalog.has_function_privilege($1::pg_catalog.name, \
               'thinwire.describe_tables(name, oid[])', 'EXECUTE') \
       AND pg_catalog.has_function_privilege($1::pg_catalog.name, \
               'thinwire.publish_missing(name)', 'EXECUTE') \
       AND pg_catalog.has_function_privilege($1::pg_catalog.name, \
               'thinwire.publish_delayed(name)', 'EXECUTE') \
       AND pg_catalog.has_function_privilege($1::pg_catalog.name, \
               'thinwire.sequences(name, oid[], int8[])', 'EXECUTE')";

/// Kinds of things that do not travel, with how many there are of each, at captured tables and their partitions where they
/// are at tables. What `initdb` has made has an id below 16384.
pub(crate) const LEFT_OUT: &str = "\
    WITH RECURSIVE captured (id) AS ( \
        SELECT t.relid FROM pg_catalog.pg_get_publication_tables($1::pg_catalog.text) AS t \
        UNION \
        SELECT h.inhrelid FROM captured AS c \
        JOIN pg_catalog.pg_inherits AS h ON h.inhparent = c.id \
        JOIN pg_catalog.pg_class AS p ON p.oid = h.inhrelid AND p.relispartition) \
    SELECT pg_catalog.string_agg(pg_catalog.format('%s %s', k.many, k.kind), ', ' ORDER BY k.kind) \
    FROM ( \
        SELECT 'triggers', pg_catalog.count(*) FROM pg_catalog.pg_trigger AS t \
        WHERE NOT t.tgisinternal AND t.tgparentid = 0 \
        AND t.tgname NOT IN ('thinwire_before_truncate', 'thinwire_after_truncate') AND t.tgrelid IN (SELECT c.id FROM captured AS c) \
        UNION ALL \
        SELECT 'row-level policies', pg_catalog.count(*) FROM pg_catalog.pg_policy AS p \
        WHERE p.polrelid IN (SELECT c.id FROM captured AS c) \
        UNION ALL \
        SELECT 'rules', pg_catalog.count(*) FROM pg_catalog.pg_rewrite AS r \
        WHERE r.ev_class IN (SELECT c.id FROM captured AS c) \
        UNION ALL \
        SELECT 'extended statistics', pg_catalog.count(*) FROM pg_catalog.pg_statistic_ext AS s \
        WHERE s.stxrelid IN (SELECT c.id FROM captured AS c) \
        UNION ALL \
        SELECT 'extensions', pg_catalog.count(*) FROM pg_catalog.pg_extension AS e \
        WHERE e.extname <> 'plpgsql' \
        UNION ALL \
        SELECT 'privileges of others', pg_catalog.count(*) FROM captured AS t \
        JOIN pg_catalog.pg_class AS c ON c.oid = t.id \
        CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS a \
        WHERE a.grantee <> c.relowner AND a.grantee NOT IN ( \
            SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname = CURRENT_USER) \
        UNION ALL \
        SELECT 'large objects', pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata \
        UNION ALL \
        SELECT 'casts', pg_catalog.count(*) FROM pg_catalog.pg_cast AS c \
        WHERE c.oid >= 16384 AND NOT EXISTS ( \
            SELECT FROM pg_catalog.pg_depend AS e WHERE e.objid = c.oid AND e.deptype = 'e' \
            AND e.classid = 'pg_catalog.pg_cast'::pg_catalog.regclass) \
        UNION ALL \
        SELECT o.kind, pg_catalog.count(*) FROM ( \
            SELECT 'aggregates', 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, p.pronamespace \
            FROM pg_catalog.pg_proc AS p WHERE p.prokind = 'a' \
            UNION ALL \
            SELECT 'collations', 'pg_catalog.pg_collation'::pg_catalog.regclass, c.oid, c.collnamespace \
            FROM pg_catalog.pg_collation AS c \
            UNION ALL \
            SELECT 'operators', 'pg_catalog.pg_operator'::pg_catalog.regclass, o.oid, o.oprnamespace \
            FROM pg_catalog.pg_operator AS o \
            UNION ALL \
            SELECT 'operator classes', 'pg_catalog.pg_opclass'::pg_catalog.regclass, o.oid, o.opcnamespace \
            FROM pg_catalog.pg_opclass AS o \
            UNION ALL \
            SELECT 'text search objects', 'pg_catalog.pg_ts_config'::pg_catalog.regclass, c.oid, c.cfgnamespace \
            FROM pg_catalog.pg_ts_config AS c \
            UNION ALL \
            SELECT 'text search objects', 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, d.oid, d.dictnamespace \
            FROM pg_catalog.pg_ts_dict AS d \
            UNION ALL \
            SELECT CASE c.relkind WHEN 'f' THEN 'foreign tables' ELSE 'unlogged tables' END, \
                   'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, c.relnamespace \
            FROM pg_catalog.pg_class AS c \
            WHERE c.relkind = 'f' OR c.relkind IN ('r', 'p') AND c.relpersistence = 'u' \
        ) AS o (kind, class, id, in_schema) \
        JOIN pg_catalog.pg_namespace AS n ON n.oid = o.in_schema \
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND NOT EXISTS ( \
            SELECT FROM pg_catalog.pg_depend AS e \
            WHERE e.classid = o.class AND e.objid = o.id AND e.deptype = 'e') \
        GROUP BY o.kind \
    ) AS k (kind, many) WHERE k.many > 0";

/// Whether a node's choice is as a JSON text has it. An edition that does not know choices, or says nothing, knows the one
/// for everything.
pub(crate) const CHOSEN: &str = "\
    SELECT coalesce(nullif(pg_catalog.to_jsonb(c) -> 'choice', '{}'), '{\"identified\": true, \"tables\": []}') \
               = $2::pg_catalog.text::pg_catalog.jsonb \
    FROM thinwire.captures AS c WHERE c.publication = $1";

/// What proves a node's messages, if it follows schema changes.
pub(crate) const SECRET: &str = "\
    SELECT c.secret FROM thinwire.captures AS c WHERE c.publication = $1 \
    AND coalesce((pg_catalog.to_jsonb(c) ->> 'follows')::pg_catalog.bool, true)";

/// Tables with all that they need.
pub(crate) const DESCRIBE: &str = "SELECT thinwire.describe_tables($1::pg_catalog.name, $2)";

/// Publishes what is meant and is not published.
pub(crate) const PUBLISH_MISSING: &str = "SELECT thinwire.publish_missing($1::pg_catalog.name)";

/// Whether somebody who asks may have published what was left to later. Not where everything is only read.
pub(crate) const MAY_PUBLISH_DELAYED: &str = "\
    SELECT pg_catalog.current_setting('transaction_read_only') = 'off' AND EXISTS ( \
        SELECT FROM pg_catalog.pg_proc AS p \
        JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace \
        WHERE n.nspname = 'thinwire' AND p.proname = 'publish_delayed' \
        AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
        AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE'))";

/// Publishes what was left to later as it should be.
pub(crate) const PUBLISH_DELAYED: &str = "SELECT thinwire.publish_delayed($1::pg_catalog.name)";

/// Sequences, where they are now, but for those that are known to be there.
pub(crate) const SEQUENCES: &str = "SELECT thinwire.sequences($1::pg_catalog.name, $2, $3)";
