//! What is installed at the source to follow schema changes, and what is asked of it.

use ring::digest::{SHA256, digest};

use super::{ident, literal};

/// All that is installed, in the order in which it must be.
const PARTS: [&str; 5] = [
    include_str!("tables.sql"),
    include_str!("choice.sql"),
    include_str!("describe.sql"),
    include_str!("changes.sql"),
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

/// Says what a node captures and who reads it.
pub(crate) fn register(
    publication: &str,
    node: &str,
    reader: &str,
    patterns: &str,
    choice: &str,
) -> String {
    format!(
        "INSERT INTO thinwire.captures (publication, node, reader, patterns, choice, secret) \
         VALUES ({}, {}, {}, {}, {}, pg_catalog.decode(pg_catalog.replace(pg_catalog.concat(\
             pg_catalog.gen_random_uuid(), pg_catalog.gen_random_uuid()), '-', ''), 'hex')) \
         ON CONFLICT (publication) DO UPDATE SET node = EXCLUDED.node, reader = EXCLUDED.reader, \
             patterns = EXCLUDED.patterns, choice = EXCLUDED.choice",
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

/// What is said of a node: its name, its reader, whether its patterns and its choice are as two JSON texts have them, and
/// whether it is that of a publication. What an earlier edition does not know is read by way of JSON.
pub(crate) const REGISTERED: &str = "\
    SELECT c.node, c.reader::pg_catalog.text, \
           c.patterns = $2::pg_catalog.text::pg_catalog.jsonb \
           AND coalesce(pg_catalog.to_jsonb(c) -> 'choice' = $3::pg_catalog.text::pg_catalog.jsonb, false), \
           c.publication = $1 \
    FROM thinwire.captures AS c ORDER BY c.publication = $1 DESC";

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

/// Kinds of things at captured tables that do not travel, with how many there are of each.
pub(crate) const LEFT_OUT: &str = "\
    WITH captured (id) AS ( \
        SELECT t.relid FROM pg_catalog.pg_get_publication_tables($1::pg_catalog.text) AS t) \
    SELECT pg_catalog.string_agg(pg_catalog.format('%s %s', k.many, k.kind), ', ' ORDER BY k.kind) \
    FROM ( \
        SELECT 'triggers', pg_catalog.count(*) FROM pg_catalog.pg_trigger AS t \
        WHERE NOT t.tgisinternal AND t.tgrelid IN (SELECT c.id FROM captured AS c) \
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
        SELECT 'aggregates', pg_catalog.count(*) FROM pg_catalog.pg_proc AS p \
        JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace \
        WHERE p.prokind = 'a' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
    ) AS k (kind, many) WHERE k.many > 0";

/// Whether a node's choice is as a JSON text has it. An edition that does not know choices, or says nothing, knows the one
/// for everything.
pub(crate) const CHOSEN: &str = "\
    SELECT coalesce(nullif(pg_catalog.to_jsonb(c) -> 'choice', '{}'), '{\"identified\": true, \"tables\": []}') \
               = $2::pg_catalog.text::pg_catalog.jsonb \
    FROM thinwire.captures AS c WHERE c.publication = $1";

/// What proves a node's messages.
pub(crate) const SECRET: &str =
    "SELECT c.secret FROM thinwire.captures AS c WHERE c.publication = $1";

/// Tables with all that they need.
pub(crate) const DESCRIBE: &str = "SELECT thinwire.describe_tables($1::pg_catalog.name, $2)";

/// Publishes what is meant and is not published.
pub(crate) const PUBLISH_MISSING: &str = "SELECT thinwire.publish_missing($1::pg_catalog.name)";

/// Publishes what was left to later as it should be.
pub(crate) const PUBLISH_DELAYED: &str = "SELECT thinwire.publish_delayed($1::pg_catalog.name)";

/// Sequences, where they are now, but for those that are known to be there.
pub(crate) const SEQUENCES: &str = "SELECT thinwire.sequences($1::pg_catalog.name, $2, $3)";
