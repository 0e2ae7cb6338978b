-- What follows the users' own statements: new tables are published in the transaction that makes them, and what changed
-- is told in a message that stands among the rows. None of it may make a statement of the users fail.

CREATE OR REPLACE FUNCTION thinwire.emit(capture thinwire.captures, content jsonb)
RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
    body bytea := pg_catalog.convert_to((pg_catalog.jsonb_strip_nulls(content) || pg_catalog.jsonb_build_object(
        'publication', capture.publication,
        -- A message that somebody repeats in another transaction is none.
        'xid', pg_catalog.pg_current_xact_id()::xid::text::int8))::text, 'UTF8');
    proof bytea := pg_catalog.sha256(capture.secret || pg_catalog.sha256(capture.secret || body));
BEGIN
    PERFORM pg_catalog.pg_logical_emit_message(true, 'thinwire.schema', proof || body);
    -- In a subtransaction a message counts as written where it ends, and the row behind it could be taken for the
    -- earlier one. An empty message keeps them apart.
    PERFORM pg_catalog.pg_logical_emit_message(true, 'thinwire.schema', '');
END
$function$;

-- What silences us for what we do ourselves: it is told with the command that we do it for. Only we know the secret, so
-- nobody else can.
CREATE OR REPLACE FUNCTION thinwire.token(secret bytea)
RETURNS text LANGUAGE sql IMMUTABLE AS $function$
    SELECT pg_catalog.encode(pg_catalog.sha256(secret || pg_catalog.convert_to('thinwire.nested', 'UTF8')), 'hex')
$function$;

-- Lets the login that captures read a table.
CREATE OR REPLACE FUNCTION thinwire.grant_to_reader(capture thinwire.captures, relation oid)
RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
    c record;
BEGIN
    SELECT r.relname, n.nspname, n.oid INTO c FROM pg_catalog.pg_class AS r
    JOIN pg_catalog.pg_namespace AS n ON n.oid = r.relnamespace WHERE r.oid = relation;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.rolname = capture.reader) THEN
        RETURN;
    END IF;
    IF NOT pg_catalog.has_schema_privilege(capture.reader, c.oid, 'USAGE') THEN
        EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', c.nspname, capture.reader);
    END IF;
    IF NOT pg_catalog.has_table_privilege(capture.reader, relation, 'SELECT') THEN
        EXECUTE pg_catalog.format('GRANT SELECT ON TABLE %I.%I TO %I', c.nspname, c.relname, capture.reader);
    END IF;
END
$function$;

-- Gives a table and its partitions an identity, so that publishing them breaks no update. One that has got a key
-- since is told by it again.
CREATE OR REPLACE FUNCTION thinwire.identify(relation oid)
RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
    member record;
    root_is_full boolean;
BEGIN
    SELECT r.relreplident = 'f' AND NOT EXISTS (SELECT FROM thinwire.keyless AS k WHERE k.id = r.oid)
        INTO root_is_full FROM pg_catalog.pg_class AS r WHERE r.oid = relation;
    FOR member IN
        SELECT c.oid, n.nspname, c.relname, c.relreplident,
               EXISTS (SELECT FROM thinwire.keyless AS k WHERE k.id = c.oid) AS is_ours,
               EXISTS (SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid
                       AND i.indisprimary AND i.indimmediate AND i.indisvalid) AS has_primary
        FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND c.oid IN (SELECT b.id FROM thinwire.branch(relation) AS b)
    LOOP
        IF member.relreplident = 'f' THEN
            IF member.is_ours AND member.has_primary AND NOT root_is_full THEN
                EXECUTE pg_catalog.format('ALTER TABLE ONLY %I.%I REPLICA IDENTITY DEFAULT',
                    member.nspname, member.relname);
                DELETE FROM thinwire.keyless AS k WHERE k.id = member.oid;
            END IF;
        ELSIF root_is_full OR NOT thinwire.has_key(member.oid) THEN
            EXECUTE pg_catalog.format('ALTER TABLE ONLY %I.%I REPLICA IDENTITY FULL',
                member.nspname, member.relname);
            INSERT INTO thinwire.keyless VALUES (member.oid);
        END IF;
    END LOOP;
END
$function$;

-- Remembers what tables consist of.
CREATE OR REPLACE FUNCTION thinwire.note_parts(captured_by name, tables oid[])
RETURNS void LANGUAGE sql AS $function$
    INSERT INTO thinwire.parts (id, part_of, publication)
    SELECT it.id, it.part_of, captured_by FROM (
        SELECT i.indexrelid, i.indrelid FROM pg_catalog.pg_index AS i WHERE i.indrelid = ANY (tables)
        UNION ALL
        SELECT h.inhrelid, h.inhparent FROM pg_catalog.pg_inherits AS h
        JOIN pg_catalog.pg_class AS c ON c.oid = h.inhrelid AND c.relispartition WHERE h.inhparent = ANY (tables)
    ) AS it (id, part_of)
    WHERE NOT EXISTS (SELECT FROM thinwire.parts AS k WHERE k.id = it.id AND k.publication = captured_by)
$function$;

-- Why updates or deletes fail of a table of which some only is published, from the catalogs alone: nothing that users
-- wrote is even planned with our rights.
CREATE OR REPLACE FUNCTION thinwire.clash(capture thinwire.captures, relation oid)
RETURNS text LANGUAGE sql STABLE AS $function$
    SELECT pg_catalog.format('what is published of it does not go with the replica identity of %s', c.oid::pg_catalog.regclass)
    FROM pg_catalog.pg_publication_rel AS r
    JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid AND p.pubname = capture.publication
    CROSS JOIN LATERAL thinwire.branch(r.prrelid) AS b
    JOIN pg_catalog.pg_class AS c ON c.oid = b.id AND c.relkind = 'r'
    CROSS JOIN LATERAL (
        SELECT coalesce(pg_catalog.array_agg(a.attname), '{}') FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid
            AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
        WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND i.indisunique
        AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident)) AS key (names)
    CROSS JOIN LATERAL (
        SELECT coalesce(pg_catalog.array_agg(a.attname) FILTER (
                   WHERE pg_catalog.to_jsonb(r) -> 'prattrs' @> pg_catalog.to_jsonb(a.attnum)), '{}'),
               coalesce(pg_catalog.array_agg(a.attname) FILTER (
                   WHERE pg_catalog.to_jsonb(r) ->> 'prqual' ~ pg_catalog.format(':varattno %s ', a.attnum)), '{}')
        FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = r.prrelid AND a.attnum > 0) AS of_it (listed, used)
    WHERE r.prrelid = relation AND thinwire.is_identified(capture)
    AND (c.relreplident <> 'f' AND (key.names = '{}' OR NOT of_it.used <@ key.names)
         OR of_it.listed <> '{}' AND (c.relreplident = 'f' OR key.names = '{}' OR NOT key.names <@ of_it.listed))
    LIMIT 1
$function$;

-- Puts a table into the publication or takes it out, as patterns and choice say; returns what was done. The publication is
-- locked for it until the transaction ends, so a transaction that has to wait for another leaves it to later: users who
-- make tables at the same time wait for each other a moment at most. It is shorter than what deadlocks are looked for
-- after, so none of them ever fails. Only what is published wrongly, so that statements would fail or too much be told, is
-- worth some moments more, as long as nobody waits for us. What cannot be published as it was chosen is not published at
-- all.
CREATE OR REPLACE FUNCTION thinwire.settle(capture thinwire.captures, relation oid)
RETURNS text LANGUAGE plpgsql AS $function$
DECLARE
    patience CONSTANT interval := coalesce(nullif(pg_catalog.current_setting('thinwire.patience', true), ''), '0');
    -- One for all tables of a statement; one that may not take long is not made to wait for long.
    until CONSTANT timestamptz := pg_catalog.statement_timestamp() + least(
        patience, nullif(pg_catalog.current_setting('statement_timeout')::interval, '0') / 2);
    is_listed CONSTANT boolean := EXISTS (
        SELECT FROM pg_catalog.pg_publication_rel AS r
        JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid
        WHERE p.pubname = capture.publication AND r.prrelid = relation);
    chosen CONSTANT jsonb := thinwire.chosen(capture, relation);
    is_narrowed CONSTANT boolean := thinwire.is_narrowed(capture, relation);
    -- Where nothing is followed, what is published stays so unless statements would fail; that of which some is published
    -- only stays in any case, because nothing would put it back as it was.
    is_wanted CONSTANT boolean := CASE WHEN capture.follows THEN thinwire.is_wanted(capture, relation)
        ELSE is_listed AND (is_narrowed
            OR NOT (thinwire.is_identified(capture) AND thinwire.is_unpublishable(relation))) END;
    -- Whole rows as identity do not go with chosen columns.
    has_list CONSTANT boolean := chosen ->> 'columns' IS NOT NULL OR EXISTS (
        SELECT FROM pg_catalog.pg_publication_rel AS r
        JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid AND p.pubname = capture.publication
        WHERE r.prrelid = relation AND pg_catalog.to_jsonb(r) ->> 'prattrs' IS NOT NULL AND NOT capture.follows);
    is_partial CONSTANT boolean := chosen IS NOT NULL OR is_narrowed;
    called text;
    why text;
    is_wrong boolean := false;
    is_identifying boolean := false;
BEGIN
    IF NOT (is_listed OR capture.follows) THEN
        RETURN 'out';
    END IF;
    IF NOT is_listed AND (NOT is_wanted OR chosen IS NULL AND thinwire.is_withheld(capture, relation)) THEN
        IF chosen IS NOT NULL THEN
            PERFORM thinwire.withhold(capture, relation);
        END IF;
        RETURN 'out';
    END IF;
    SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) INTO called FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = relation;
    LOOP
        BEGIN
            IF is_wanted AND thinwire.is_identified(capture) AND NOT has_list THEN
                is_identifying := true;
                PERFORM thinwire.identify(relation);
                is_identifying := false;
            END IF;
            IF is_listed AND NOT is_partial AND thinwire.is_withheld(capture, relation) THEN
                -- Somebody has decided to publish it, with all of its parts.
                DELETE FROM thinwire.withheld AS w WHERE w.publication = capture.publication
                AND w.id IN (SELECT b.id FROM thinwire.branch(relation) AS b);
            END IF;
            IF is_listed AND is_narrowed AND capture.follows THEN
                why := thinwire.clash(capture, relation);
            ELSIF is_wanted AND chosen IS NULL AND capture.follows THEN
                why := thinwire.kept_out(capture, relation);
            ELSIF NOT (is_wanted OR capture.follows) THEN
                why := 'without a key, its generated columns would make its updates fail';
            END IF;
            IF is_listed THEN
                IF is_wanted AND why IS NULL AND NOT (capture.follows AND thinwire.is_too_wide(capture, relation)) THEN
                    DELETE FROM thinwire.withheld AS w WHERE w.id = relation AND w.publication = capture.publication;
                    RETURN 'kept';
                END IF;
                is_wrong := true;
                EXECUTE pg_catalog.format('ALTER PUBLICATION %I DROP TABLE ONLY %s', capture.publication, called);
            END IF;
            IF is_wanted AND why IS NULL THEN
                why := thinwire.publish(capture, relation);
            END IF;
            IF is_wanted AND why IS NULL THEN
                DELETE FROM thinwire.withheld AS w WHERE w.id = relation AND w.publication = capture.publication;
                PERFORM thinwire.grant_to_reader(capture, relation);
                -- Its copy tells of all that it consists of.
                PERFORM thinwire.note_parts(capture.publication, ARRAY(SELECT b.id FROM thinwire.branch(relation) AS b));
            END IF;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            CONTINUE WHEN is_wrong AND pg_catalog.clock_timestamp() < until
                AND NOT thinwire.is_awaited(capture.publication);
            IF is_partial THEN
                PERFORM thinwire.withhold(capture, relation);
            END IF;
            INSERT INTO thinwire.delayed (id, publication) VALUES (relation, capture.publication);
            IF is_wrong AND patience > '0' THEN
                RAISE WARNING 'thinwire cannot change yet how % is published, and its updates and deletes may fail until then: somebody holds the publication %',
                    called, capture.publication;
            ELSIF is_listed AND is_identifying AND patience > '0' THEN
                RAISE WARNING 'thinwire cannot see to the replica identity of % yet, and its updates and deletes may fail until then: somebody holds it or a partition of it',
                    called;
            END IF;
            RETURN 'later';
        END;
    END LOOP;
    -- What its name hid stays hidden under another one.
    IF why IS NOT NULL OR is_partial AND NOT is_wanted THEN
        PERFORM thinwire.withhold(capture, relation);
    END IF;
    IF why IS NOT NULL THEN
        RAISE WARNING 'thinwire does not capture %: %', called, why;
    END IF;
    RETURN CASE WHEN NOT is_listed THEN CASE WHEN why IS NULL THEN 'added' ELSE 'out' END
                WHEN is_wanted THEN CASE WHEN why IS NULL THEN 'changed' ELSE 'withdrawn' END
                WHEN is_narrowed AND NOT thinwire.is_captured(capture.publication, relation) THEN 'withdrawn'
                ELSE 'removed' END;
END
$function$;

-- Whether an object that is no table travels: by its name if all that it needs does, or because a captured table
-- needs it.
CREATE OR REPLACE FUNCTION thinwire.is_carried(capture thinwire.captures, class oid, object oid)
RETURNS boolean LANGUAGE plpgsql STABLE AS $function$
DECLARE
    at record;
BEGIN
    IF class = 'pg_catalog.pg_namespace'::pg_catalog.regclass THEN
        SELECT ''::text AS called, n.nspname::text AS in_schema, true AS is_kind INTO at
        FROM pg_catalog.pg_namespace AS n WHERE n.oid = object;
    ELSIF class = 'pg_catalog.pg_class'::pg_catalog.regclass THEN
        SELECT c.relname::text AS called, n.nspname::text AS in_schema,
               c.relkind IN ('v', 'm', 'S') AND c.relpersistence <> 't' AS is_kind INTO at
        FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.oid = object;
    ELSIF class = 'pg_catalog.pg_type'::pg_catalog.regclass THEN
        SELECT t.typname::text AS called, n.nspname::text AS in_schema, t.typtype IN ('e', 'd', 'r') OR EXISTS (
                   SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = t.typrelid AND c.relkind = 'c') AS is_kind INTO at
        FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
        WHERE t.oid = object;
    ELSIF class = 'pg_catalog.pg_proc'::pg_catalog.regclass THEN
        SELECT p.proname::text AS called, n.nspname::text AS in_schema, p.prokind IN ('f', 'p', 'w') AS is_kind INTO at
        FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
        WHERE p.oid = object;
    END IF;
    IF NOT coalesce(at.is_kind AND thinwire.is_users(at.in_schema), false) THEN
        RETURN false;
    END IF;
    IF thinwire.matches(capture.patterns, at.in_schema, at.called) THEN
        -- One that speaks of a table or column that is not captured has no place at the target.
        RETURN NOT (thinwire.has_lists(capture.publication)
                    AND thinwire.speaks_of_hidden(capture.publication, class, object)) AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_depend AS d
            JOIN pg_catalog.pg_class AS c ON c.oid = d.refobjid
            JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'n'
            AND thinwire.is_users(n.nspname)
            AND (d.classid = class AND d.objid = object
                 OR d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                 AND d.objid IN (SELECT r.oid FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class = object
                                 AND class = 'pg_catalog.pg_class'::pg_catalog.regclass))
            AND NOT CASE WHEN c.relkind IN ('r', 'p') THEN thinwire.is_captured(capture.publication, c.oid)
                         WHEN c.relkind IN ('v', 'm') AND c.oid <> object THEN thinwire.is_carried(capture, d.refclassid, c.oid)
                         ELSE c.relkind <> 'f' END);
    END IF;
    RETURN EXISTS (
        SELECT FROM (
            SELECT pg_catalog.array_agg(d.refclassid) AS classes, pg_catalog.array_agg(r.prrelid) AS tables
            FROM pg_catalog.pg_publication_rel AS r
            JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid AND p.pubname = capture.publication
            CROSS JOIN (SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid) AS d (refclassid)) AS all_tables,
        LATERAL thinwire.needs(capture.publication, all_tables.classes, all_tables.tables) AS n
        WHERE n.class = is_carried.class AND n.object = is_carried.object);
END
$function$;

-- What an object of a command belongs to: a table for its indexes and constraints, itself otherwise.
CREATE OR REPLACE FUNCTION thinwire.whole(class oid, object oid)
RETURNS TABLE (class oid, object oid) LANGUAGE sql STABLE AS $function$
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, coalesce(
               (SELECT i.indrelid FROM pg_catalog.pg_index AS i WHERE i.indexrelid = c.oid), c.oid)
    FROM pg_catalog.pg_class AS c
    WHERE $1 = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = $2 AND c.relkind <> 'c'
    UNION ALL
    SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, c.reltype FROM pg_catalog.pg_class AS c
    WHERE $1 = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = $2 AND c.relkind = 'c'
    UNION ALL
    SELECT CASE WHEN c.conrelid <> 0 THEN 'pg_catalog.pg_class'::pg_catalog.regclass
                ELSE 'pg_catalog.pg_type'::pg_catalog.regclass END,
           CASE WHEN c.conrelid <> 0 THEN c.conrelid ELSE c.contypid END
    FROM pg_catalog.pg_constraint AS c
    WHERE $1 = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND c.oid = $2
    UNION ALL
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, d.adrelid FROM pg_catalog.pg_attrdef AS d
    WHERE $1 = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.oid = $2
    UNION ALL
    SELECT $1, $2 WHERE $1 IN ('pg_catalog.pg_type'::pg_catalog.regclass,
        'pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_namespace'::pg_catalog.regclass)
$function$;

-- All that is in a schema, because it has the schema's name.
CREATE OR REPLACE FUNCTION thinwire.contents(in_schema oid)
RETURNS TABLE (class oid, object oid) LANGUAGE sql STABLE AS $function$
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, c.oid FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = in_schema AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
    UNION ALL
    SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid FROM pg_catalog.pg_type AS t
    WHERE t.typnamespace = in_schema AND t.typtype IN ('e', 'd', 'r', 'c')
    UNION ALL
    SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid FROM pg_catalog.pg_proc AS p
    WHERE p.pronamespace = in_schema
$function$;

-- Remembers what a table consists of; returns partitions that came or went since this was done last, but for those that
-- are created here.
CREATE OR REPLACE FUNCTION thinwire.moved_partitions(captured_by name, relation oid, created oid[])
RETURNS oid[] LANGUAGE plpgsql AS $function$
DECLARE
    moved oid[] := '{}';
    part record;
BEGIN
    INSERT INTO thinwire.parts (id, part_of, publication)
    SELECT i.indexrelid, relation, captured_by FROM pg_catalog.pg_index AS i
    WHERE i.indrelid = relation
    AND NOT EXISTS (SELECT FROM thinwire.parts AS k WHERE k.id = i.indexrelid AND k.publication = captured_by);
    FOR part IN
        SELECT c.oid, now.id IS NOT NULL AS is_here
        FROM (SELECT p.id FROM thinwire.parts AS p
              WHERE p.part_of = relation AND p.publication = captured_by) AS was (id)
        FULL JOIN (SELECT h.inhrelid FROM pg_catalog.pg_inherits AS h
                   JOIN pg_catalog.pg_class AS c ON c.oid = h.inhrelid AND c.relispartition
                   WHERE h.inhparent = relation) AS now (id) ON now.id = was.id
        JOIN pg_catalog.pg_class AS c ON c.oid = coalesce(now.id, was.id) AND c.relkind IN ('r', 'p', 'f')
        WHERE was.id IS NULL OR now.id IS NULL
    LOOP
        IF part.is_here THEN
            INSERT INTO thinwire.parts (id, part_of, publication) VALUES (part.oid, relation, captured_by);
        ELSE
            DELETE FROM thinwire.parts AS k WHERE k.id = part.oid AND k.publication = captured_by;
        END IF;
        IF part.oid <> ALL (created) THEN
            -- One that is partitioned itself brings its own.
            moved := moved || part.oid || thinwire.moved_partitions(captured_by, part.oid, created);
        END IF;
    END LOOP;
    RETURN moved;
END
$function$;

-- Whether a table may hold anything: it has pages, or is a foreign one. Nobody looks for rows: to plan that, the server
-- would run what the owner of the table wrote for its indexes.
CREATE OR REPLACE FUNCTION thinwire.has_rows(relation oid)
RETURNS boolean LANGUAGE sql STABLE AS $function$
    -- By itself, so that no relation but these is measured: each is locked for it.
    WITH part AS MATERIALIZED (
        SELECT b.id, c.relkind FROM thinwire.branch(relation) AS b JOIN pg_catalog.pg_class AS c ON c.oid = b.id)
    SELECT EXISTS (SELECT FROM part WHERE part.relkind = 'f' OR pg_catalog.pg_relation_size(part.id) > 0)
$function$;

-- Tells of objects: settles the tables among them, and describes what travels. `created` are tables that held nothing
-- before this command and got nothing in it.
CREATE OR REPLACE FUNCTION thinwire.tell(
    capture thinwire.captures, classes oid[], objects oid[], created oid[], content jsonb)
RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
    relations CONSTANT oid := 'pg_catalog.pg_class'::pg_catalog.regclass;
    it record;
    done text;
    root oid;
    is_told boolean;
    is_partial boolean;
    told_classes oid[] := '{}';
    told oid[] := '{}';
    born oid[] := '{}';
    stale oid[] := '{}';
    republished oid[] := '{}';
    moved oid[];
    part oid;
BEGIN
    -- Tables first: what else travels depends on which are captured. Roots come before their partitions.
    FOR it IN
        SELECT DISTINCT u.object, c.relispartition FROM ROWS FROM (pg_catalog.unnest(classes), pg_catalog.unnest(objects)) AS u (class, object)
        JOIN pg_catalog.pg_class AS c ON c.oid = u.object AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace AND thinwire.is_users(n.nspname)
        WHERE u.class = relations ORDER BY c.relispartition, u.object
    LOOP
        done := thinwire.settle(capture, it.object);
        root := CASE WHEN it.relispartition THEN pg_catalog.pg_partition_root(it.object) ELSE it.object END;
        IF done = 'added' AND it.object = ANY (created) THEN
            born := born || it.object;
        ELSIF done IN ('removed', 'withdrawn', 'changed') THEN
            republished := republished || it.object;
        END IF;
        is_told := done = 'removed' OR thinwire.is_captured(capture.publication, it.object);
        IF is_told THEN
            told_classes := told_classes || relations;
            told := told || it.object;
            -- What identifies rows of a part counts for the whole.
            IF root <> it.object AND thinwire.settle(capture, root) IN ('removed', 'withdrawn', 'changed') THEN
                republished := republished || root;
            END IF;
            IF done NOT IN ('removed', 'later') THEN
                PERFORM thinwire.watch(it.object);
            END IF;
        END IF;
        -- What was a part of one that is not captured at present hides as much as that does.
        is_partial := thinwire.is_narrowed(capture, root) OR thinwire.chosen(capture, root) IS NOT NULL
            OR thinwire.is_withheld(capture, root);
        IF is_told OR is_partial THEN
            moved := thinwire.moved_partitions(capture.publication, it.object, created);
            IF it.relispartition AND NOT EXISTS (SELECT FROM thinwire.parts AS p
                                                 WHERE p.id = it.object AND p.publication = capture.publication)
            THEN
                INSERT INTO thinwire.parts (id, part_of, publication)
                SELECT it.object, h.inhparent, capture.publication FROM pg_catalog.pg_inherits AS h
                WHERE h.inhrelid = it.object;
            END IF;
            FOREACH part IN ARRAY moved LOOP
                PERFORM thinwire.unwatch(part) FROM pg_catalog.pg_class AS c WHERE c.oid = part AND NOT c.relispartition;
                IF is_told AND NOT (root = ANY (stale || republished)) AND thinwire.has_rows(part) THEN
                    stale := stale || root;
                END IF;
                IF is_partial AND NOT EXISTS (
                    SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = part AND c.relispartition)
                THEN
                    PERFORM thinwire.withhold(capture, part);
                    RAISE WARNING 'thinwire does not capture % any more: only some of the table that it was a part of is captured',
                        part::pg_catalog.regclass;
                END IF;
                IF thinwire.settle(capture, part) IN ('removed', 'withdrawn', 'changed') THEN
                    republished := republished || part;
                END IF;
                -- Of a part that went, hidden columns are not told either.
                IF thinwire.is_captured(capture.publication, part)
                    OR is_told AND thinwire.hidden(capture.publication, it.object) = '{}'
                THEN
                    told_classes := told_classes || relations;
                    told := told || part;
                END IF;
            END LOOP;
        END IF;
    END LOOP;
    FOR it IN
        SELECT DISTINCT u.class, u.object FROM ROWS FROM (pg_catalog.unnest(classes), pg_catalog.unnest(objects)) AS u (class, object)
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c
                          WHERE c.oid = u.object AND u.class = relations AND c.relkind NOT IN ('v', 'm', 'S'))
    LOOP
        IF NOT (it.object = ANY (told)) AND thinwire.is_carried(capture, it.class, it.object) THEN
            told_classes := told_classes || it.class;
            told := told || it.object;
        END IF;
    END LOOP;
    IF told <> '{}' OR stale || republished <> '{}' OR content <> '{}' THEN
        PERFORM thinwire.emit(capture, pg_catalog.jsonb_build_object(
            'objects', thinwire.definitions(capture.publication, told_classes, told),
            'born', pg_catalog.to_jsonb(born::int8[]), 'stale', pg_catalog.to_jsonb(stale::int8[]),
            'republished', pg_catalog.to_jsonb(republished::int8[])) || content);
    END IF;
END
$function$;

CREATE OR REPLACE FUNCTION thinwire.tell_command(capture thinwire.captures)
RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
    classes oid[];
    objects oid[];
    created oid[];
BEGIN
    WITH RECURSIVE reported AS (
        SELECT w.class, w.object, c.command_tag, c.objsubid <> 0 AS is_column
        FROM pg_catalog.pg_event_trigger_ddl_commands() AS c
        CROSS JOIN LATERAL thinwire.whole(c.classid, c.objid) AS w
        WHERE NOT c.in_extension AND c.schema_name IS DISTINCT FROM 'pg_temp'
    ), command AS (
        SELECT r.class, r.object, r.command_tag, r.is_column FROM reported AS r
        UNION ALL
        -- What a command did to a type it did to the tables of that type.
        SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 'ALTER TABLE', r.is_column FROM reported AS r
        JOIN pg_catalog.pg_class AS c ON c.reloftype = r.object
        WHERE r.class = 'pg_catalog.pg_type'::pg_catalog.regclass AND r.command_tag = 'ALTER TYPE'
    ), heir (id, is_column) AS (
        SELECT h.inhrelid, c.is_column FROM command AS c JOIN pg_catalog.pg_inherits AS h ON h.inhparent = c.object
        WHERE c.class = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.command_tag = 'ALTER TABLE'
        UNION
        SELECT h.inhrelid, r.is_column FROM heir AS r JOIN pg_catalog.pg_inherits AS h ON h.inhparent = r.id
    ), all_of_them AS (
        SELECT c.class, c.object, c.command_tag FROM command AS c
        UNION
        -- What a command did to columns it did to those that inherit them. Of most of that partitions need no word, but a
        -- name that a column has left may be another one's next.
        SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 'ALTER TABLE' FROM heir AS r
        JOIN pg_catalog.pg_class AS c ON c.oid = r.id
        WHERE r.is_column OR NOT c.relispartition AND EXISTS (
            SELECT FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND pg_catalog.age(a.xmin) <= 0)
        UNION
        SELECT s.class, s.object, c.command_tag FROM command AS c
        CROSS JOIN LATERAL thinwire.contents(c.object) AS s
        WHERE c.class = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND c.command_tag = 'ALTER SCHEMA'
    )
    SELECT pg_catalog.array_agg(a.class), pg_catalog.array_agg(a.object),
           coalesce(pg_catalog.array_agg(a.object) FILTER (
               WHERE a.class = 'pg_catalog.pg_class'::pg_catalog.regclass AND a.command_tag = 'CREATE TABLE'), '{}')
        INTO classes, objects, created FROM all_of_them AS a;
    IF classes IS NOT NULL THEN
        PERFORM thinwire.tell(capture, classes, objects, created, '{}');
    END IF;
END
$function$;

-- Whether a table that was dropped is one that the target follows: by its name, or as a part of one. Another one may have
-- been captured once, and is the target's own since.
CREATE OR REPLACE FUNCTION thinwire.was_meant(capture thinwire.captures, relation oid, in_schema text, called text)
RETURNS boolean LANGUAGE sql AS $function$
    WITH RECURSIVE whole (id) AS (
        SELECT p.part_of FROM thinwire.parts AS p WHERE p.id = relation AND p.publication = capture.publication
        UNION
        SELECT p.part_of FROM whole AS w
        JOIN thinwire.parts AS p ON p.id = w.id AND p.publication = capture.publication
    )
    SELECT thinwire.matches(capture.patterns, in_schema, called) OR EXISTS (
        SELECT FROM whole AS w WHERE thinwire.is_captured(capture.publication, w.id)
        OR EXISTS (
            SELECT FROM pg_catalog.pg_event_trigger_dropped_objects() AS d
            WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = w.id AND d.objsubid = 0
            AND thinwire.matches(capture.patterns, d.schema_name, d.object_name)))
$function$;

-- What a command dropped, and the tables that lost something with it.
CREATE OR REPLACE FUNCTION thinwire.tell_drop(capture thinwire.captures)
RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
    gone jsonb;
    tables oid[];
    unpublished int8[];
BEGIN
    -- Somebody takes tables out of the publication by hand: what is changed in them until they are back is not seen.
    SELECT pg_catalog.array_agg(c.oid::int8) INTO unpublished
        FROM pg_catalog.pg_event_trigger_dropped_objects() AS d
        JOIN pg_catalog.pg_class AS c ON c.oid = pg_catalog.to_regclass(
            pg_catalog.format('%I.%I', d.address_names[1], d.address_names[2]))
        WHERE d.object_type = 'publication relation' AND d.address_args[1] = capture.publication;
    IF unpublished IS NOT NULL THEN
        PERFORM thinwire.emit(capture, pg_catalog.jsonb_build_object(
            'objects', '[]'::jsonb, 'born', '[]'::jsonb, 'stale', '[]'::jsonb,
            'republished', pg_catalog.to_jsonb(unpublished)));
    END IF;
    SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
               'id', d.objid::int8, 'kind', k.kind, 'schema', coalesce(d.schema_name, ''),
               -- What may be overloaded has its name in its address only.
               'name', coalesce(d.object_name, d.address_names[pg_catalog.cardinality(d.address_names)]))
               ORDER BY pg_catalog.array_position('{view,routine,table,sequence}', k.kind), k.kind, d.objid)
        INTO gone
        FROM pg_catalog.pg_event_trigger_dropped_objects() AS d
        CROSS JOIN LATERAL (SELECT CASE d.object_type
            WHEN 'table' THEN 'table' WHEN 'view' THEN 'view' WHEN 'materialized view' THEN 'view'
            WHEN 'sequence' THEN 'sequence' WHEN 'schema' THEN 'schema' WHEN 'function' THEN 'routine'
            WHEN 'procedure' THEN 'routine' WHEN 'type' THEN 'composite' WHEN 'domain' THEN 'domain' END) AS k (kind)
        WHERE k.kind IS NOT NULL AND NOT d.is_temporary AND d.objsubid = 0
        AND (d.object_type <> 'type' OR d.original OR d.normal)
        AND thinwire.is_users(coalesce(d.schema_name, d.object_name))
        AND CASE WHEN k.kind = 'table' THEN thinwire.was_meant(capture, d.objid, d.schema_name, d.object_name)
                 ELSE EXISTS (
                     SELECT FROM pg_catalog.jsonb_to_recordset(capture.patterns) AS p (excluded boolean, schema text)
                     WHERE NOT p.excluded AND coalesce(d.schema_name, d.object_name) ~ p.schema) END;
    SELECT coalesce(pg_catalog.array_agg(DISTINCT c.oid), '{}') INTO tables FROM (
        SELECT p.part_of FROM pg_catalog.pg_event_trigger_dropped_objects() AS d
        JOIN thinwire.parts AS p ON p.id = d.objid AND p.publication = capture.publication
        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objsubid = 0
        UNION ALL
        -- An index that nobody knows may be one that got another number unseen, as REINDEX CONCURRENTLY gives it, or another
        -- type of a column to what partitions have for themselves. It was one of a table of which a known one is missing.
        SELECT p.part_of FROM thinwire.parts AS p
        WHERE p.publication = capture.publication
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = p.id)
        AND EXISTS (
            SELECT FROM pg_catalog.pg_event_trigger_dropped_objects() AS d
            WHERE d.object_type = 'index' AND (d.original OR d.normal) AND NOT d.is_temporary
            AND NOT EXISTS (SELECT FROM thinwire.parts AS k WHERE k.id = d.objid AND k.publication = capture.publication))
        UNION ALL
        SELECT pg_catalog.to_regclass(pg_catalog.format('%I.%I', d.address_names[1], d.address_names[2]))
        FROM pg_catalog.pg_event_trigger_dropped_objects() AS d
        WHERE d.object_type IN ('table column', 'table constraint', 'default value') AND NOT d.is_temporary
    ) AS t (id) JOIN pg_catalog.pg_class AS c ON c.oid = t.id
    -- Those that the command was about are told of at its end; here too if others may have lost something with them, so
    -- that nothing is told of these before.
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger_ddl_commands() AS e WHERE e.objid = c.oid)
    OR EXISTS (SELECT FROM pg_catalog.pg_inherits AS h WHERE h.inhparent = c.oid);
    DELETE FROM thinwire.parts AS p USING pg_catalog.pg_event_trigger_dropped_objects() AS d
    WHERE (p.id = d.objid OR p.part_of = d.objid) AND p.publication = capture.publication
    AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objsubid = 0;
    DELETE FROM thinwire.keyless AS k USING pg_catalog.pg_event_trigger_dropped_objects() AS d
    WHERE k.id = d.objid AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objsubid = 0;
    DELETE FROM thinwire.withheld AS w USING pg_catalog.pg_event_trigger_dropped_objects() AS d
    WHERE w.id = d.objid AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objsubid = 0;
    IF gone IS NOT NULL OR tables <> '{}' THEN
        PERFORM thinwire.tell(capture, pg_catalog.array_fill('pg_catalog.pg_class'::pg_catalog.regclass::oid,
                    ARRAY[pg_catalog.cardinality(tables)]), tables, '{}',
            CASE WHEN gone IS NULL THEN '{}' ELSE pg_catalog.jsonb_build_object('dropped', gone) END);
    END IF;
END
$function$;

-- The rows of a table are made anew, in a way that its definition does not say.
CREATE OR REPLACE FUNCTION thinwire.tell_rewrite(capture thinwire.captures)
RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
    relation oid := pg_catalog.pg_event_trigger_table_rewrite_oid();
    root oid := coalesce(pg_catalog.pg_partition_root(relation)::oid, relation);
BEGIN
    -- 2: a default for old rows, 4: another type; all others keep the values.
    IF pg_catalog.pg_event_trigger_table_rewrite_reason() & 6 <> 0
        AND thinwire.is_captured(capture.publication, relation)
    THEN
        PERFORM thinwire.emit(capture, pg_catalog.jsonb_build_object(
            'objects', '[]'::jsonb, 'born', '[]'::jsonb, 'stale', pg_catalog.jsonb_build_array(root::int8)));
    END IF;
END
$function$;

-- Where schema changes are not followed: whatever has become of the keys of what is published, and whatever partitions
-- have come to it, its updates and deletes go on working.
CREATE OR REPLACE FUNCTION thinwire.keep_identified(capture thinwire.captures, event text)
RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
    relation oid;
BEGIN
    IF NOT thinwire.is_identified(capture) THEN
        RETURN;
    ELSIF event = 'ddl_command_end' THEN
        FOR relation IN
            SELECT DISTINCT r.prrelid FROM pg_catalog.pg_event_trigger_ddl_commands() AS c
            CROSS JOIN LATERAL thinwire.whole(c.classid, c.objid) AS w
            CROSS JOIN LATERAL thinwire.stem(w.object) AS s
            JOIN pg_catalog.pg_publication_rel AS r ON r.prrelid = s.id
            JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid AND p.pubname = capture.publication
            WHERE w.class = 'pg_catalog.pg_class'::pg_catalog.regclass
        LOOP
            PERFORM thinwire.settle(capture, relation);
        END LOOP;
    -- Which table an index was one of that is gone nobody says, so it is seen which of them lack one.
    ELSIF event = 'sql_drop' AND EXISTS (
        SELECT FROM pg_catalog.pg_event_trigger_dropped_objects() AS d
        WHERE d.object_type IN ('table column', 'table constraint')
        OR d.object_type = 'index' AND (d.original OR d.normal))
    THEN
        FOR relation IN
            SELECT r.prrelid FROM pg_catalog.pg_publication_rel AS r
            JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid AND p.pubname = capture.publication
            WHERE EXISTS (SELECT FROM thinwire.branch(r.prrelid) AS b JOIN pg_catalog.pg_class AS c ON c.oid = b.id
                          WHERE c.relkind IN ('r', 'p') AND c.relreplident <> 'f' AND NOT thinwire.has_key(c.oid))
        LOOP
            PERFORM thinwire.settle(capture, relation);
        END LOOP;
    END IF;
END
$function$;

-- Entered for every statement. Whatever goes wrong inside is told instead of what was to be told, and the statement
-- stands. To compile the queries would take longer than to run them.
CREATE OR REPLACE FUNCTION thinwire.follow()
RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET jit = off SET lock_timeout = '250ms' SET thinwire.patience = '10s'
SET quote_all_identifiers = off SET standard_conforming_strings = on SET datestyle = 'ISO'
SET intervalstyle = 'postgres' SET timezone = 'UTC' SET extra_float_digits = 3 SET bytea_output = 'hex'
SET lc_monetary = 'C' SET xmlbinary = 'base64' SET xmloption = 'content' SET row_security = off
AS $function$
DECLARE
    -- No type of ours: this must be understood even if somebody has dropped it.
    it record;
    problem text;
    nested CONSTANT text := 'thinwire.nested';
    before CONSTANT text := pg_catalog.current_setting(nested, true);
BEGIN
    FOR it IN SELECT c AS capture, c.follows, thinwire.token(c.secret) AS token FROM thinwire.captures AS c LOOP
        CONTINUE WHEN before = it.token;
        BEGIN
            PERFORM pg_catalog.set_config(nested, it.token, true);
            IF NOT it.follows THEN
                PERFORM thinwire.keep_identified(it.capture, tg_event);
            ELSIF tg_event = 'ddl_command_end' THEN
                PERFORM thinwire.tell_command(it.capture);
            ELSIF tg_event = 'sql_drop' THEN
                PERFORM thinwire.tell_drop(it.capture);
            ELSE
                PERFORM thinwire.tell_rewrite(it.capture);
            END IF;
            PERFORM pg_catalog.set_config(nested, coalesce(before, ''), true);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT;
            IF NOT it.follows THEN
                RAISE WARNING 'thinwire could not see to it that updates go on working after this %: %', tg_tag, problem;
                CONTINUE;
            END IF;
            PERFORM thinwire.emit(it.capture, pg_catalog.jsonb_build_object(
                'objects', '[]'::jsonb, 'born', '[]'::jsonb, 'stale', '[]'::jsonb,
                'failed', pg_catalog.format('%s: %s', tg_tag, problem)));
        END;
    END LOOP;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'thinwire does not follow this %: %', tg_tag, sqlerrm;
END
$function$;
