-- What is captured of a table: rows and columns that were chosen by its name. What was not chosen is not spoken of.

-- What was chosen of a table; nothing if that is everything.
CREATE OR REPLACE FUNCTION thinwire.chosen(capture thinwire.captures, relation oid)
RETURNS jsonb LANGUAGE sql STABLE AS $function$
    SELECT t.chosen FROM pg_catalog.jsonb_array_elements(capture.choice -> 'tables') AS t (chosen)
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = t.chosen ->> 'schema'
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = t.chosen ->> 'name'
    WHERE c.oid = relation
$function$;

-- Whether a table is kept out of the publication, because it hid something under another name or as a part of a table.
CREATE OR REPLACE FUNCTION thinwire.is_withheld(capture thinwire.captures, relation oid)
RETURNS boolean LANGUAGE sql STABLE AS $function$
    SELECT EXISTS (SELECT FROM thinwire.withheld AS w WHERE w.id = relation AND w.publication = capture.publication)
$function$;

-- Keeps a table out until it is published as it was chosen, or somebody publishes it.
CREATE OR REPLACE FUNCTION thinwire.withhold(capture thinwire.captures, relation oid)
RETURNS void LANGUAGE sql AS $function$
    INSERT INTO thinwire.withheld (id, publication) SELECT relation, capture.publication
    WHERE NOT thinwire.is_withheld(capture, relation)
$function$;

-- Whether somebody who holds a publication waits for us, or for somebody who does.
CREATE OR REPLACE FUNCTION thinwire.is_awaited(captured_by name)
RETURNS boolean LANGUAGE sql AS $function$
    WITH RECURSIVE ahead (pid) AS (
        SELECT l.pid FROM pg_catalog.pg_locks AS l
        JOIN pg_catalog.pg_publication AS p ON p.oid = l.objid AND p.pubname = captured_by
        WHERE l.locktype = 'object' AND l.classid = 'pg_catalog.pg_publication'::pg_catalog.regclass
        AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())
        AND l.granted AND l.pid <> pg_catalog.pg_backend_pid()
        UNION
        SELECT b.pid FROM ahead AS a
        CROSS JOIN LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(a.pid)) AS b (pid)
    )
    SELECT EXISTS (SELECT FROM ahead AS a WHERE a.pid = pg_catalog.pg_backend_pid())
$function$;

-- Whether updates or deletes are captured, for which rows are told apart.
CREATE OR REPLACE FUNCTION thinwire.is_identified(capture thinwire.captures)
RETURNS boolean LANGUAGE sql IMMUTABLE AS $function$
    SELECT coalesce((capture.choice ->> 'identified')::boolean, true)
$function$;

-- A table and the tables of which it is a part, without locking them.
CREATE OR REPLACE FUNCTION thinwire.stem(relation oid)
RETURNS TABLE (id oid, depth int4) LANGUAGE sql STABLE AS $function$
    WITH RECURSIVE whole (id, depth) AS (
        SELECT relation, 0
        UNION ALL
        SELECT h.inhparent, w.depth + 1 FROM whole AS w
        JOIN pg_catalog.pg_class AS c ON c.oid = w.id AND c.relispartition
        JOIN pg_catalog.pg_inherits AS h ON h.inhrelid = w.id
    )
    SELECT w.id, w.depth FROM whole AS w
$function$;

-- Whether columns were chosen of any table. By way of JSON here and below, because version 14 does not know them.
CREATE OR REPLACE FUNCTION thinwire.has_lists(captured_by name)
RETURNS boolean LANGUAGE sql STABLE AS $function$
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_publication_rel AS r
        JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid
        WHERE p.pubname = captured_by AND pg_catalog.to_jsonb(r) ->> 'prattrs' IS NOT NULL)
    OR EXISTS (
        SELECT FROM thinwire.captures AS k
        CROSS JOIN LATERAL pg_catalog.jsonb_array_elements(k.choice -> 'tables') AS t (chosen)
        WHERE k.publication = captured_by AND t.chosen ->> 'columns' IS NOT NULL)
$function$;

-- The columns of a table, or of a part of one, that are not listed, by their numbers. Those of the root count, by their
-- names; of one that is not published now, those that were not chosen.
CREATE OR REPLACE FUNCTION thinwire.unlisted(captured_by name, relation oid)
RETURNS int2[] LANGUAGE sql STABLE AS $function$
    SELECT coalesce(pg_catalog.array_agg(a.attnum), '{}')
    FROM (
        SELECT it.names FROM (
            SELECT true, s.depth, (
                SELECT pg_catalog.jsonb_agg(l.attname) FROM pg_catalog.pg_attribute AS l
                WHERE l.attrelid = r.prrelid AND pg_catalog.to_jsonb(r) -> 'prattrs' @> pg_catalog.to_jsonb(l.attnum))
            FROM pg_catalog.pg_publication_rel AS r
            JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid AND p.pubname = captured_by
            JOIN thinwire.stem(relation) AS s ON s.id = r.prrelid
            UNION ALL
            SELECT false, s.depth, nullif(t.chosen -> 'columns', 'null')
            FROM thinwire.captures AS k CROSS JOIN LATERAL thinwire.stem(relation) AS s
            CROSS JOIN LATERAL thinwire.chosen(k, s.id) AS t (chosen)
            WHERE k.publication = captured_by AND t.chosen IS NOT NULL
        ) AS it (is_published, depth, names) ORDER BY it.is_published DESC, it.depth DESC LIMIT 1) AS listed (names)
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
    WHERE NOT listed.names ? a.attname::text
$function$;

-- The columns that are not spoken of: those that are not listed, and of a table that is not captured, and is told for those
-- that inherit from it, those that are not listed of any of these.
CREATE OR REPLACE FUNCTION thinwire.hidden(captured_by name, relation oid)
RETURNS int2[] LANGUAGE sql STABLE AS $function$
    WITH RECURSIVE heir (id) AS (
        SELECT h.inhrelid FROM pg_catalog.pg_inherits AS h JOIN pg_catalog.pg_class AS c ON c.oid = h.inhrelid
        WHERE h.inhparent = relation AND NOT c.relispartition AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_publication_rel AS r
            JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid AND p.pubname = captured_by
            WHERE r.prrelid = relation)
        UNION
        SELECT h.inhrelid FROM heir JOIN pg_catalog.pg_inherits AS h ON h.inhparent = heir.id
    )
    SELECT thinwire.unlisted(captured_by, relation) || coalesce(pg_catalog.array_agg(a.attnum), '{}')
    FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND EXISTS (
        SELECT FROM heir CROSS JOIN LATERAL thinwire.unlisted(captured_by, heir.id) AS u (numbers)
        JOIN pg_catalog.pg_attribute AS o ON o.attrelid = heir.id AND o.attnum = ANY (u.numbers)
        WHERE o.attname = a.attname)
$function$;

-- Whether something (an index, a constraint, a default, a sequence, a view, a function) speaks of a column that is not
-- published, by itself or as a part of a whole row.
CREATE OR REPLACE FUNCTION thinwire.speaks_of_hidden(captured_by name, class oid, object oid)
RETURNS boolean LANGUAGE sql STABLE AS $function$
    SELECT EXISTS (
        SELECT FROM (
            SELECT class, object
            UNION ALL
            SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, r.oid FROM pg_catalog.pg_rewrite AS r
            WHERE class = 'pg_catalog.pg_class'::pg_catalog.regclass AND r.ev_class = object
            UNION ALL
            -- What is owned by a column goes with it, and so does what draws its values from that.
            SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_depend AS d
            JOIN pg_catalog.pg_class AS s ON s.oid = d.refobjid AND s.relkind = 'S'
            WHERE d.classid = class AND d.objid = object AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
        ) AS it (class, object)
        JOIN pg_catalog.pg_depend AS d ON d.classid = it.class AND d.objid = it.object
            AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
        CROSS JOIN LATERAL thinwire.hidden(captured_by, d.refobjid) AS h (numbers)
        WHERE d.refobjsubid = ANY (h.numbers) OR h.numbers <> '{}' AND coalesce(
            (SELECT pg_catalog.concat(i.indexprs, i.indpred) FROM pg_catalog.pg_index AS i WHERE i.indexrelid = it.object
             AND it.class = 'pg_catalog.pg_class'::pg_catalog.regclass),
            (SELECT c.conbin::text FROM pg_catalog.pg_constraint AS c WHERE c.oid = it.object
             AND it.class = 'pg_catalog.pg_constraint'::pg_catalog.regclass),
            (SELECT r.ev_action::text FROM pg_catalog.pg_rewrite AS r WHERE r.oid = it.object
             AND it.class = 'pg_catalog.pg_rewrite'::pg_catalog.regclass),
            (SELECT p.prosqlbody::text FROM pg_catalog.pg_proc AS p WHERE p.oid = it.object
             AND it.class = 'pg_catalog.pg_proc'::pg_catalog.regclass)) ~ ':varattno 0 ')
$function$;

-- Whether some of a table only is published.
CREATE OR REPLACE FUNCTION thinwire.is_narrowed(capture thinwire.captures, relation oid)
RETURNS boolean LANGUAGE sql STABLE AS $function$
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_publication_rel AS r
        JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid AND p.pubname = capture.publication
        WHERE r.prrelid = relation AND (pg_catalog.to_jsonb(r) ->> 'prqual' IS NOT NULL
                                        OR pg_catalog.to_jsonb(r) ->> 'prattrs' IS NOT NULL))
$function$;

-- Whether more of a table is published than was chosen, as far as can be told: it has got its name only now.
CREATE OR REPLACE FUNCTION thinwire.is_too_wide(capture thinwire.captures, relation oid)
RETURNS boolean LANGUAGE sql STABLE AS $function$
    SELECT coalesce(pg_catalog.bool_or(
        c.chosen ->> 'rows' IS NOT NULL AND pg_catalog.to_jsonb(r) ->> 'prqual' IS NULL
        OR c.chosen ->> 'columns' IS NOT NULL AND pg_catalog.to_jsonb(r) ->> 'prattrs' IS NULL), false)
    FROM thinwire.chosen(capture, relation) AS c (chosen)
    JOIN pg_catalog.pg_publication_rel AS r ON r.prrelid = relation
    JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid AND p.pubname = capture.publication
$function$;

-- Publishes what was chosen of a table; returns why not, if that cannot be. No statement of the users fails for it.
CREATE OR REPLACE FUNCTION thinwire.publish(capture thinwire.captures, relation oid)
RETURNS text LANGUAGE plpgsql AS $function$
DECLARE
    chosen CONSTANT jsonb := thinwire.chosen(capture, relation);
    called text;
    list text;
    why text;
BEGIN
    SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) INTO called FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = relation;
    IF chosen IS NULL THEN
        EXECUTE pg_catalog.format('ALTER PUBLICATION %I ADD TABLE ONLY %s', capture.publication, called);
        RETURN NULL;
    END IF;
    SELECT ' (' || pg_catalog.string_agg(pg_catalog.quote_ident(l.name), ', ') || ')' INTO list
        FROM pg_catalog.jsonb_array_elements_text(nullif(chosen -> 'columns', 'null')) AS l (name);
    SELECT pg_catalog.format('it is partitioned by %I, which was not chosen', a.attname) INTO why
        FROM thinwire.branch(relation) AS b
        JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = b.id
            AND d.refclassid = d.classid AND d.refobjid = b.id AND d.refobjsubid = 0 AND d.deptype = 'i'
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = b.id AND a.attnum = d.objsubid
        WHERE list IS NOT NULL AND NOT chosen -> 'columns' ? a.attname::text LIMIT 1;
    IF why IS NOT NULL THEN
        RETURN why;
    END IF;
    BEGIN
        -- What stands within two pairs of parentheses was parsed within one by whoever wrote it down here.
        EXECUTE pg_catalog.format('ALTER PUBLICATION %I ADD TABLE ONLY %s%s%s', capture.publication, called, list,
            E' WHERE ((' || (chosen ->> 'rows') || E'\n))');
        why := thinwire.clash(capture, relation);
        IF why IS NOT NULL THEN
            -- Taken back with what was done here.
            RAISE EXCEPTION SQLSTATE 'TW001' USING MESSAGE = why;
        END IF;
    EXCEPTION
        WHEN lock_not_available THEN
            RAISE;
        WHEN OTHERS THEN
            RETURN sqlerrm;
    END;
    RETURN NULL;
END
$function$;
