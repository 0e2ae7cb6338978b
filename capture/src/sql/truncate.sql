-- TRUNCATE of a table is sent, and that of a part of one is not, because rows are sent as those of the whole. So triggers on
-- what is partitioned and on its parts tell that the whole is to be copied again. They make no statement of the users fail.

-- As which table TRUNCATE of a table would be sent; none if it is not captured, or TRUNCATE is not.
CREATE OR REPLACE FUNCTION thinwire.truncated_as(captured_by name, relation oid)
RETURNS oid LANGUAGE sql STABLE AS $function$
    SELECT s.id FROM pg_catalog.pg_publication AS p
    JOIN pg_catalog.pg_publication_rel AS r ON r.prpubid = p.oid
    JOIN thinwire.stem(relation) AS s ON s.id = r.prrelid
    WHERE p.pubname = captured_by AND p.pubtruncate ORDER BY s.depth DESC LIMIT 1
$function$;

-- Sees to it that these triggers are there, for a table and all its parts. Whoever writes to one for longer than a moment is
-- not waited for: it is tried again within a minute.
CREATE OR REPLACE FUNCTION thinwire.watch(relation oid)
RETURNS void LANGUAGE plpgsql SET lock_timeout = '50ms' AS $function$
DECLARE
    until CONSTANT timestamptz := pg_catalog.clock_timestamp() + '100ms';
    it record;
BEGIN
    FOR it IN
        SELECT c.oid::pg_catalog.regclass AS called, t.name, t.moment
        FROM thinwire.branch(relation) AS b
        JOIN pg_catalog.pg_class AS c ON c.oid = b.id AND c.relkind IN ('r', 'p')
        JOIN (VALUES ('thinwire_before_truncate', 'BEFORE'), ('thinwire_after_truncate', 'AFTER')) AS t (name, moment)
            ON CASE t.moment WHEN 'BEFORE' THEN c.relkind = 'p' ELSE c.relispartition END
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS g WHERE g.tgrelid = c.oid AND g.tgname = t.name)
    LOOP
        BEGIN
            EXECUTE pg_catalog.format(
                'CREATE TRIGGER %I %s TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION thinwire.follow_truncate()',
                it.name, it.moment, it.called);
            EXECUTE pg_catalog.format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER %I', it.called, it.name);
        EXCEPTION
            WHEN lock_not_available THEN
                EXIT WHEN pg_catalog.clock_timestamp() > until;
            WHEN OTHERS THEN
                RAISE WARNING 'thinwire cannot see when % is emptied: %', it.called, sqlerrm;
        END;
    END LOOP;
END
$function$;

-- The same for all tables that are captured.
CREATE OR REPLACE FUNCTION thinwire.watch_all(captured_by name)
RETURNS void LANGUAGE sql AS $function$
    SELECT thinwire.watch(r.prrelid) FROM pg_catalog.pg_publication_rel AS r
    JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid WHERE p.pubname = captured_by
$function$;

-- Takes it off a table that is no part any more.
CREATE OR REPLACE FUNCTION thinwire.unwatch(relation oid)
RETURNS void LANGUAGE plpgsql SET lock_timeout = '50ms' AS $function$
BEGIN
    EXECUTE pg_catalog.format('DROP TRIGGER IF EXISTS thinwire_after_truncate ON %s', relation::pg_catalog.regclass);
EXCEPTION WHEN OTHERS THEN
    -- There it does nothing.
    NULL;
END
$function$;

-- What is remembered of a TRUNCATE until the transaction ends, sealed so that nobody can hide one from us.
CREATE OR REPLACE FUNCTION thinwire.truncate_mark(secret bytea, whole oid, expected int4)
RETURNS text LANGUAGE sql AS $function$
    SELECT pg_catalog.format('%s %s', expected, pg_catalog.encode(pg_catalog.sha256(secret || pg_catalog.convert_to(
        pg_catalog.format('thinwire.truncate %s %s %s', pg_catalog.pg_current_xact_id(), whole, expected), 'UTF8')), 'hex'))
$function$;

-- TRUNCATE of the whole fires the triggers of its parts as well, once each: it says beforehand how many will be silent.
CREATE OR REPLACE FUNCTION thinwire.tell_truncate(capture thinwire.captures, relation oid, moment text)
RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
    told CONSTANT int4 := -1;
    whole CONSTANT oid := thinwire.truncated_as(capture.publication, relation);
    setting CONSTANT text := pg_catalog.format('thinwire.truncate_%s_%s', capture.publication, whole);
    mark CONSTANT text := pg_catalog.current_setting(setting, true);
    expected int4 := pg_catalog.substring(mark, '^(-?[0-9]{1,9}) ');
BEGIN
    IF whole IS NULL THEN
        RETURN;
    END IF;
    IF expected IS NULL OR mark <> thinwire.truncate_mark(capture.secret, whole, expected) THEN
        expected := 0;
    END IF;
    IF moment = 'BEFORE' AND whole = relation THEN
        SELECT pg_catalog.count(*) INTO expected FROM thinwire.branch(whole) AS b
        JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = b.id
            AND t.tgname = 'thinwire_after_truncate' AND t.tgenabled = 'A'
        WHERE b.id <> whole;
    ELSIF moment = 'BEFORE' OR whole = relation OR expected = told THEN
        RETURN;
    ELSIF expected > 0 THEN
        expected := expected - 1;
    ELSE
        PERFORM thinwire.emit(capture, pg_catalog.jsonb_build_object(
            'objects', '[]'::jsonb, 'born', '[]'::jsonb, 'stale', pg_catalog.jsonb_build_array(whole::int8)));
        expected := told;
    END IF;
    PERFORM pg_catalog.set_config(setting, thinwire.truncate_mark(capture.secret, whole, expected), true);
END
$function$;

-- Entered before and after. Whatever goes wrong inside is told instead, and the statement stands.
CREATE OR REPLACE FUNCTION thinwire.follow_truncate()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET jit = off SET lock_timeout = '250ms' AS $function$
DECLARE
    -- No type of ours: this must be understood even if somebody has dropped it.
    it record;
    problem text;
BEGIN
    FOR it IN SELECT c AS capture FROM thinwire.captures AS c WHERE c.follows LOOP
        BEGIN
            PERFORM thinwire.tell_truncate(it.capture, tg_relid, tg_when);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT;
            PERFORM thinwire.emit(it.capture, pg_catalog.jsonb_build_object(
                'objects', '[]'::jsonb, 'born', '[]'::jsonb, 'stale', '[]'::jsonb,
                'failed', pg_catalog.format('%s: %s', tg_op, problem)));
        END;
    END LOOP;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'thinwire does not follow this %: %', tg_op, sqlerrm;
    RETURN NULL;
END
$function$;
