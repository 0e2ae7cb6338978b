-- Partitions that are emptied one by one: PostgreSQL publishes that of whole tables only, so it is told by triggers.

-- Tells which whole loses something, to each node that captures it by that. Whether the whole is emptied as well is seen in
-- what follows.
CREATE OR REPLACE FUNCTION thinwire.emptied()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET jit = off AS $function$
DECLARE
    it record;
BEGIN
    -- What is not there for a snapshot goes as well.
    IF pg_catalog.pg_relation_size(tg_relid) > 0 THEN
        FOR it IN
            SELECT c AS capture, (
                SELECT s.id FROM thinwire.stem(tg_relid) AS s
                JOIN pg_catalog.pg_publication_rel AS r ON r.prrelid = s.id
                JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid AND p.pubname = c.publication
                ORDER BY s.depth DESC LIMIT 1) AS whole
            FROM thinwire.captures AS c
        LOOP
            CONTINUE WHEN it.whole IS NULL OR it.whole = tg_relid;
            PERFORM thinwire.emit(it.capture, pg_catalog.jsonb_build_object(
                'objects', '[]'::jsonb, 'born', '[]'::jsonb, 'stale', '[]'::jsonb,
                'emptied', pg_catalog.jsonb_build_array(it.whole::int8)));
        END LOOP;
    END IF;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'thinwire does not tell that % is emptied: %', tg_relid::pg_catalog.regclass, sqlerrm;
    RETURN NULL;
END
$function$;

-- Watches the partitions of a table for that. They are locked for it until the transaction ends, so behind the first one
-- that somebody works on the rest is left to later, in another order.
CREATE OR REPLACE FUNCTION thinwire.watch(capture thinwire.captures, relation oid)
RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
    part record;
BEGIN
    FOR part IN
        SELECT n.nspname, c.relname FROM thinwire.branch(relation) AS b
        JOIN pg_catalog.pg_class AS c ON c.oid = b.id AND c.relkind = 'r' AND c.relispartition
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = b.id AND t.tgname = 'thinwire_emptied')
        ORDER BY pg_catalog.random()
    LOOP
        BEGIN
            EXECUTE pg_catalog.format('CREATE OR REPLACE TRIGGER thinwire_emptied BEFORE TRUNCATE ON %I.%I
                FOR EACH STATEMENT EXECUTE FUNCTION thinwire.emptied()', part.nspname, part.relname);
        EXCEPTION WHEN lock_not_available OR object_in_use THEN
            PERFORM thinwire.delay(capture.publication, relation);
            EXIT;
        END;
    END LOOP;
END
$function$;
