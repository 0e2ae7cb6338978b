-- What the login that captures may call. Everything here says only what concerns its own publication.

-- Tables, with all that they need, as the session's snapshot shows them.
CREATE OR REPLACE FUNCTION thinwire.describe_tables(captured_by name, tables oid[])
RETURNS text LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET jit = off
SET quote_all_identifiers = off SET standard_conforming_strings = on SET datestyle = 'ISO'
SET intervalstyle = 'postgres' SET timezone = 'UTC' SET extra_float_digits = 3 SET bytea_output = 'hex'
SET lc_monetary = 'C' SET xmlbinary = 'base64' SET xmloption = 'content'
AS $function$
    SELECT pg_catalog.jsonb_strip_nulls(thinwire.definitions(captured_by,
        coalesce(pg_catalog.array_agg('pg_catalog.pg_class'::pg_catalog.regclass::oid), '{}'),
        coalesce(pg_catalog.array_agg(m.id), '{}')))::text
    FROM (SELECT DISTINCT b.id FROM pg_catalog.unnest(tables) AS t (id) CROSS JOIN LATERAL thinwire.branch(t.id) AS b
          WHERE thinwire.is_captured(captured_by, t.id)) AS m (id)
$function$;

-- Publishes what is meant and is not published.
CREATE OR REPLACE FUNCTION thinwire.publish_missing(captured_by name)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET jit = off SET lock_timeout = '250ms'
SET quote_all_identifiers = off SET standard_conforming_strings = on SET datestyle = 'ISO'
SET intervalstyle = 'postgres' SET timezone = 'UTC' SET extra_float_digits = 3 SET bytea_output = 'hex'
SET lc_monetary = 'C' SET xmlbinary = 'base64' SET xmloption = 'content' SET row_security = off
AS $function$
DECLARE
    capture thinwire.captures;
    relation oid;
BEGIN
    SELECT c.* INTO capture FROM thinwire.captures AS c WHERE c.publication = captured_by AND c.follows;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM pg_catalog.set_config('thinwire.nested', thinwire.token(capture.secret), true);
    FOR relation IN
        SELECT c.oid FROM pg_catalog.pg_class AS c
        WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND thinwire.is_wanted(capture, c.oid)
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_rel AS r
                        JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid
                        WHERE p.pubname = captured_by AND r.prrelid = c.oid)
    LOOP
        PERFORM thinwire.settle(capture, relation);
    END LOOP;
    PERFORM thinwire.watch_all(captured_by);
    PERFORM pg_catalog.set_config('thinwire.nested', '', true);
END
$function$;

-- Publishes what was left to later as it should be.
CREATE OR REPLACE FUNCTION thinwire.publish_delayed(captured_by name)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET jit = off SET lock_timeout = '250ms'
SET quote_all_identifiers = off SET standard_conforming_strings = on SET datestyle = 'ISO'
SET intervalstyle = 'postgres' SET timezone = 'UTC' SET extra_float_digits = 3 SET bytea_output = 'hex'
SET lc_monetary = 'C' SET xmlbinary = 'base64' SET xmloption = 'content' SET row_security = off
AS $function$
DECLARE
    capture thinwire.captures;
    tables oid[];
BEGIN
    SELECT c.* INTO capture FROM thinwire.captures AS c WHERE c.publication = captured_by;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    WITH it AS (DELETE FROM thinwire.delayed AS l WHERE l.publication = captured_by RETURNING l.id)
    SELECT pg_catalog.array_agg(DISTINCT it.id) INTO tables FROM it;
    IF tables IS NULL THEN
        RETURN;
    END IF;
    PERFORM pg_catalog.set_config('thinwire.nested', thinwire.token(capture.secret), true);
    IF capture.follows THEN
        PERFORM thinwire.tell(capture, pg_catalog.array_fill('pg_catalog.pg_class'::pg_catalog.regclass::oid,
            ARRAY[pg_catalog.cardinality(tables)]), tables, '{}', '{}');
    ELSE
        PERFORM thinwire.settle(capture, t.id) FROM pg_catalog.unnest(tables) AS t (id);
    END IF;
    PERFORM pg_catalog.set_config('thinwire.nested', '', true);
END
$function$;

-- Sequences of captured tables and those that are meant themselves, as far as the next value of each is not the one
-- that is known: an array of objects.
CREATE OR REPLACE FUNCTION thinwire.sequences(captured_by name, known oid[], at int8[])
RETURNS text LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET jit = off SET lock_timeout = '1s' AS $function$
    -- By themselves, because nothing else of the catalog may be asked for its last value.
    WITH there AS MATERIALIZED (
        SELECT s.seqmin, s.seqmax, s.seqincrement, c.oid, c.relname, c.relnamespace
        FROM pg_catalog.pg_sequence AS s
        JOIN pg_catalog.pg_class AS c ON c.oid = s.seqrelid AND c.relpersistence = 'p')
    SELECT pg_catalog.jsonb_strip_nulls(coalesce(pg_catalog.jsonb_agg(d.description ORDER BY c.oid), '[]'))::text
    FROM thinwire.captures AS k
    CROSS JOIN there AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN ROWS FROM (pg_catalog.unnest(known), pg_catalog.unnest(at)) AS was (id, value) ON was.id = c.oid
    CROSS JOIN LATERAL (SELECT greatest(c.seqmin, least(c.seqmax,
        pg_catalog.pg_sequence_last_value(c.oid)::numeric + c.seqincrement))) AS now (value)
    CROSS JOIN LATERAL thinwire.describe(captured_by, 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid) AS d
    WHERE k.publication = captured_by AND thinwire.is_users(n.nspname)
    AND pg_catalog.pg_sequence_last_value(c.oid) IS NOT NULL AND now.value IS DISTINCT FROM was.value
    AND NOT ((SELECT thinwire.has_lists(captured_by)) AND thinwire.speaks_of_hidden(captured_by,
        'pg_catalog.pg_class'::pg_catalog.regclass, c.oid))
    AND (thinwire.matches(k.patterns, n.nspname, c.relname)
         OR EXISTS (SELECT FROM pg_catalog.pg_depend AS o
                    WHERE o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND o.objid = c.oid
                    AND o.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                    AND o.deptype IN ('a', 'i') AND thinwire.is_captured(captured_by, o.refobjid)))
$function$;

-- Tells of all tables that are captured: for a target that was not told of them before.
CREATE OR REPLACE FUNCTION thinwire.tell_all(captured_by name)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET jit = off
SET quote_all_identifiers = off SET standard_conforming_strings = on SET datestyle = 'ISO'
SET intervalstyle = 'postgres' SET timezone = 'UTC' SET extra_float_digits = 3 SET bytea_output = 'hex'
SET lc_monetary = 'C' SET xmlbinary = 'base64' SET xmloption = 'content'
AS $function$
DECLARE
    before CONSTANT text := pg_catalog.current_setting('thinwire.nested', true);
    capture thinwire.captures;
    tables oid[];
BEGIN
    SELECT c.* INTO STRICT capture FROM thinwire.captures AS c WHERE c.publication = captured_by;
    SELECT coalesce(pg_catalog.array_agg(DISTINCT b.id), '{}') INTO tables
        FROM pg_catalog.pg_publication_rel AS r
        JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid AND p.pubname = captured_by
        CROSS JOIN LATERAL thinwire.branch(r.prrelid) AS b;
    PERFORM thinwire.note_parts(captured_by, tables);
    PERFORM pg_catalog.set_config('thinwire.nested', thinwire.token(capture.secret), true);
    PERFORM thinwire.watch_all(captured_by);
    PERFORM pg_catalog.set_config('thinwire.nested', coalesce(before, ''), true);
    PERFORM thinwire.emit(capture, pg_catalog.jsonb_build_object(
        'objects', thinwire.definitions(captured_by, pg_catalog.array_fill(
            'pg_catalog.pg_class'::pg_catalog.regclass::oid, ARRAY[pg_catalog.cardinality(tables)]), tables),
        'born', '[]'::jsonb, 'stale', '[]'::jsonb));
END
$function$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA thinwire FROM PUBLIC;

DROP EVENT TRIGGER IF EXISTS thinwire_command;
DROP EVENT TRIGGER IF EXISTS thinwire_drop;
DROP EVENT TRIGGER IF EXISTS thinwire_rewrite;
CREATE EVENT TRIGGER thinwire_command ON ddl_command_end WHEN TAG IN (
    'ALTER DOMAIN', 'ALTER FUNCTION', 'ALTER INDEX', 'ALTER MATERIALIZED VIEW', 'ALTER PROCEDURE', 'ALTER ROUTINE',
    'ALTER SCHEMA', 'ALTER SEQUENCE', 'ALTER TABLE', 'ALTER TYPE', 'ALTER VIEW', 'COMMENT', 'CREATE DOMAIN',
    'CREATE FUNCTION', 'CREATE INDEX', 'CREATE MATERIALIZED VIEW', 'CREATE PROCEDURE', 'CREATE SCHEMA',
    'CREATE SEQUENCE', 'CREATE TABLE', 'CREATE TABLE AS', 'CREATE TYPE', 'CREATE VIEW', 'SELECT INTO')
    EXECUTE FUNCTION thinwire.follow();
CREATE EVENT TRIGGER thinwire_drop ON sql_drop EXECUTE FUNCTION thinwire.follow();
CREATE EVENT TRIGGER thinwire_rewrite ON table_rewrite EXECUTE FUNCTION thinwire.follow();
ALTER EVENT TRIGGER thinwire_command ENABLE ALWAYS;
ALTER EVENT TRIGGER thinwire_drop ENABLE ALWAYS;
ALTER EVENT TRIGGER thinwire_rewrite ENABLE ALWAYS;
