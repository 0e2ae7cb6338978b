-- What the catalogs say of an object, in the form that travels (the engine's `Definitions` as JSON). Nothing here
-- writes, and nothing runs what users wrote: the catalogs' own functions only spell it.

CREATE OR REPLACE FUNCTION thinwire.matches(patterns jsonb, in_schema text, called text)
RETURNS boolean LANGUAGE sql IMMUTABLE AS $function$
    SELECT coalesce(pg_catalog.bool_or(it.hit AND NOT it.excluded), false)
       AND NOT coalesce(pg_catalog.bool_or(it.hit AND it.excluded), false)
    FROM (SELECT p.excluded, in_schema ~ p.schema AND called ~ p.name AS hit
          FROM pg_catalog.jsonb_to_recordset(patterns)
              AS p (excluded boolean, schema text, name text)) AS it
$function$;

CREATE OR REPLACE FUNCTION thinwire.names(patterns jsonb, in_schema text, called text)
RETURNS boolean LANGUAGE sql IMMUTABLE AS $function$
    SELECT EXISTS (
        SELECT FROM pg_catalog.jsonb_to_recordset(patterns)
            AS p (excluded boolean, literal boolean, schema text, name text)
        WHERE p.literal AND NOT p.excluded AND in_schema ~ p.schema AND called ~ p.name)
$function$;

-- Schemas that are nobody's own machinery.
CREATE OR REPLACE FUNCTION thinwire.is_users(in_schema text)
RETURNS boolean LANGUAGE sql IMMUTABLE AS $function$
    SELECT in_schema !~ '^pg_' AND in_schema NOT IN ('information_schema', 'thinwire')
$function$;

-- A table with its partitions and theirs. Unlike pg_partition_tree this locks none of them, so nobody waits here for
-- somebody who works on another partition.
CREATE OR REPLACE FUNCTION thinwire.branch(relation oid)
RETURNS TABLE (id oid) LANGUAGE sql STABLE AS $function$
    WITH RECURSIVE part (id) AS (
        SELECT relation
        UNION
        SELECT h.inhrelid FROM part JOIN pg_catalog.pg_inherits AS h ON h.inhparent = part.id
        JOIN pg_catalog.pg_class AS c ON c.oid = h.inhrelid AND c.relispartition
    )
    SELECT part.id FROM part
$function$;

-- All tables that a table inherits from or is a part of: more of them than any one of these has.
CREATE OR REPLACE FUNCTION thinwire.forebears(relation oid)
RETURNS TABLE (id oid) LANGUAGE sql STABLE AS $function$
    WITH RECURSIVE above (id) AS (
        SELECT h.inhparent FROM pg_catalog.pg_inherits AS h WHERE h.inhrelid = relation
        UNION
        SELECT h.inhparent FROM above AS a JOIN pg_catalog.pg_inherits AS h ON h.inhrelid = a.id
    )
    SELECT a.id FROM above AS a
$function$;

-- Whether an index identifies the old rows of a table.
CREATE OR REPLACE FUNCTION thinwire.has_key(relation oid)
RETURNS boolean LANGUAGE sql STABLE AS $function$
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_index AS i ON i.indrelid = c.oid
        WHERE c.oid = relation AND i.indisvalid AND i.indimmediate AND i.indisunique
        AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident))
$function$;

-- Whether publishing a table by its whole rows would make its updates fail: from PostgreSQL 18 on, generated columns do.
CREATE OR REPLACE FUNCTION thinwire.is_unpublishable(relation oid)
RETURNS boolean LANGUAGE sql STABLE AS $function$
    SELECT pg_catalog.current_setting('server_version_num')::int4 >= 180000
       AND NOT thinwire.has_key(relation)
       AND EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
                   WHERE a.attrelid = relation AND a.attgenerated <> '' AND NOT a.attisdropped)
$function$;

-- Whether a table is meant, and one that can be published.
CREATE OR REPLACE FUNCTION thinwire.is_fit(patterns jsonb, relation oid)
RETURNS boolean LANGUAGE sql STABLE AS $function$
    SELECT coalesce((
        SELECT thinwire.is_users(n.nspname) AND thinwire.matches(patterns, n.nspname, c.relname)
           AND (thinwire.names(patterns, n.nspname, c.relname)
                OR NOT c.relispartition
                   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                                   WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                                   AND d.objid = c.oid AND d.deptype = 'e'))
           AND NOT coalesce((
               SELECT thinwire.matches(patterns, rn.nspname, r.relname)
               FROM pg_catalog.pg_class AS r
               JOIN pg_catalog.pg_namespace AS rn ON rn.oid = r.relnamespace
               WHERE c.relispartition AND r.oid = pg_catalog.pg_partition_root(c.oid)), false)
        FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.oid = relation AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'), false)
$function$;

-- Whether a table is to be published by itself.
CREATE OR REPLACE FUNCTION thinwire.is_wanted(capture thinwire.captures, relation oid)
RETURNS boolean LANGUAGE sql STABLE AS $function$
    SELECT thinwire.is_fit(capture.patterns, relation)
       AND NOT (thinwire.is_identified(capture) AND thinwire.is_unpublishable(relation))
$function$;

-- Whether a table is in the publication, itself or as a part of one that is.
CREATE OR REPLACE FUNCTION thinwire.is_captured(captured_by name, relation oid)
RETURNS boolean LANGUAGE sql STABLE AS $function$
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_publication_rel AS r
        JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid
        WHERE p.pubname = captured_by
        AND (r.prrelid = relation
             OR r.prrelid IN (SELECT a.relid FROM pg_catalog.pg_partition_ancestors(relation) AS a)))
$function$;

-- Why a table cannot be captured whole: a part of it is kept out, and PostgreSQL publishes all of them or none.
CREATE OR REPLACE FUNCTION thinwire.kept_out(capture thinwire.captures, relation oid)
RETURNS text LANGUAGE sql STABLE AS $function$
    SELECT pg_catalog.format('its part %s is kept out', b.id::pg_catalog.regclass)
    FROM thinwire.branch(relation) AS b
    WHERE b.id <> relation AND thinwire.is_withheld(capture, b.id) AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_publication_rel AS r
        JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid AND p.pubname = capture.publication
        WHERE r.prrelid = b.id)
    LIMIT 1
$function$;

CREATE OR REPLACE FUNCTION thinwire.collation_of(wanted oid, usual oid)
RETURNS text LANGUAGE sql STABLE AS $function$
    SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.collname)
    FROM pg_catalog.pg_collation AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.collnamespace
    WHERE c.oid = wanted AND wanted <> usual
$function$;

CREATE OR REPLACE FUNCTION thinwire.columns(captured_by name, relation oid)
RETURNS jsonb LANGUAGE sql STABLE AS $function$
    SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'number', a.attnum, 'name', a.attname,
        'data_type', pg_catalog.format_type(a.atttypid, a.atttypmod),
        'collation', thinwire.collation_of(a.attcollation, t.typcollation),
        -- Rows may lack what PostgreSQL 18 has not looked at yet, or does not ask of heirs.
        'not_null', a.attnotnull AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_constraint AS k
            WHERE k.conrelid = a.attrelid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum]
            AND (NOT k.convalidated OR k.connoinherit)),
        'default', CASE WHEN (SELECT thinwire.has_lists(captured_by)) AND thinwire.speaks_of_hidden(captured_by,
                                'pg_catalog.pg_attrdef'::pg_catalog.regclass, d.oid) THEN NULL
                        ELSE pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
        'missing', m.value,
        'generated', CASE WHEN a.attgenerated = 's' THEN 'stored' WHEN a.attgenerated = 'v' THEN 'virtual'
                          -- From PostgreSQL 17 on, partitions have that of their root, and no sequence of their own.
                          WHEN a.attidentity <> '' AND NOT EXISTS (
                              SELECT FROM pg_catalog.pg_depend AS s
                              WHERE s.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND s.deptype = 'i'
                              AND s.refclassid = s.classid AND s.refobjid = a.attrelid AND s.refobjsubid = a.attnum)
                          THEN NULL
                          WHEN a.attidentity = 'a' THEN 'identity_always'
                          WHEN a.attidentity = 'd' THEN 'identity_by_default' END,
        'comment', pg_catalog.col_description(a.attrelid, a.attnum)) ORDER BY a.attnum), '[]')
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    -- What rows have that are older than the column. A partitioned table has none of its own: its partitions say it. It is an
    -- array of one element, whatever type and separator that has.
    LEFT JOIN (
        SELECT DISTINCT ON (o.attname) o.attname, pg_catalog.array_to_string(o.attmissingval, '')
        FROM thinwire.branch(relation) AS b
        JOIN pg_catalog.pg_attribute AS o ON o.attrelid = b.id AND o.atthasmissing AND NOT o.attisdropped
        ORDER BY o.attname, b.id
    ) AS m (name, value) ON m.name = a.attname
    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
    AND a.attnum <> ALL ((SELECT thinwire.hidden(captured_by, relation))::int2[])
$function$;

CREATE OR REPLACE FUNCTION thinwire.constraints(captured_by name, relation oid, of_type oid)
RETURNS jsonb LANGUAGE sql STABLE AS $function$
    SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'name', c.conname, 'definition', pg_catalog.pg_get_constraintdef(c.oid),
        'foreign', c.contype = 'f')
        ORDER BY pg_catalog.strpos('puxcf', c.contype::text), c.conname), '[]')
    FROM pg_catalog.pg_constraint AS c
    WHERE c.conrelid = relation AND c.contypid = of_type
    AND c.contype IN ('p', 'u', 'x', 'c', 'f') AND c.conparentid = 0 AND c.conislocal
    AND NOT ((SELECT thinwire.has_lists(captured_by)) AND thinwire.speaks_of_hidden(captured_by,
        'pg_catalog.pg_constraint'::pg_catalog.regclass, c.oid))
$function$;

-- An index of a partitioned table is one of all its partitions as well.
CREATE OR REPLACE FUNCTION thinwire.index_definition(index oid, called name)
RETURNS text LANGUAGE sql STABLE AS $function$
    SELECT CASE WHEN pg_catalog.starts_with(d.text, h.head || 'ONLY ')
                THEN h.head || pg_catalog.substr(d.text, pg_catalog.length(h.head) + 6)
                ELSE d.text END
    FROM (SELECT pg_catalog.pg_get_indexdef(index)) AS d (text),
    LATERAL (SELECT CASE WHEN pg_catalog.starts_with(d.text, 'CREATE UNIQUE ') THEN 'CREATE UNIQUE INDEX '
                         ELSE 'CREATE INDEX ' END || pg_catalog.quote_ident(called) || ' ON ') AS h (head)
$function$;

CREATE OR REPLACE FUNCTION thinwire.indexes(captured_by name, relation oid)
RETURNS jsonb LANGUAGE sql STABLE AS $function$
    SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'name', c.relname, 'definition', thinwire.index_definition(c.oid, c.relname))
        ORDER BY c.relname), '[]')
    FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
    WHERE i.indrelid = relation AND NOT c.relispartition AND i.indisvalid
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS k
                    WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
    AND NOT ((SELECT thinwire.has_lists(captured_by)) AND thinwire.speaks_of_hidden(captured_by,
        'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid))
$function$;

CREATE OR REPLACE FUNCTION thinwire.table_body(captured_by name, relation oid)
RETURNS jsonb LANGUAGE sql STABLE AS $function$
    SELECT pg_catalog.jsonb_build_object('table', pg_catalog.jsonb_build_object(
        'columns', thinwire.columns(captured_by, c.oid),
        'constraints', thinwire.constraints(captured_by, c.oid, 0),
        'indexes', thinwire.indexes(captured_by, c.oid),
        'identity', CASE CASE WHEN c.relreplident = 'i' AND k.name IS NULL THEN 'd' ELSE c.relreplident END WHEN 'd' THEN 'Default' WHEN 'f' THEN 'Full'
                                        WHEN 'i' THEN 'Index' ELSE 'Nothing' END,
        'identity_index', k.name,
        'partition_key', CASE WHEN c.relkind = 'p' THEN pg_catalog.pg_get_partkeydef(c.oid) END,
        'partition_of', (SELECT pg_catalog.jsonb_build_object(
                'schema', n.nspname, 'name', p.relname,
                'bound', pg_catalog.pg_get_expr(c.relpartbound, c.oid))
            FROM pg_catalog.pg_inherits AS h JOIN pg_catalog.pg_class AS p ON p.oid = h.inhparent
            JOIN pg_catalog.pg_namespace AS n ON n.oid = p.relnamespace
            WHERE h.inhrelid = c.oid AND c.relispartition),
        'inherits', (SELECT coalesce(pg_catalog.jsonb_agg(
                pg_catalog.jsonb_build_array(n.nspname, p.relname) ORDER BY h.inhseqno), '[]')
            FROM pg_catalog.pg_inherits AS h JOIN pg_catalog.pg_class AS p ON p.oid = h.inhparent
            JOIN pg_catalog.pg_namespace AS n ON n.oid = p.relnamespace
            WHERE h.inhrelid = c.oid AND NOT c.relispartition)))
    FROM pg_catalog.pg_class AS c LEFT JOIN (
        SELECT i.indrelid, k.relname FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_class AS k ON k.oid = i.indexrelid
        WHERE i.indrelid = relation AND i.indisreplident
        AND NOT ((SELECT thinwire.has_lists(captured_by)) AND thinwire.speaks_of_hidden(captured_by,
            'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid))
    ) AS k (id, name) ON k.id = c.oid AND c.relreplident = 'i'
    WHERE c.oid = relation
$function$;

-- A value that nobody was given yet; none as long as a sequence is at its start.
CREATE OR REPLACE FUNCTION thinwire.next_value(relation oid)
RETURNS int8 LANGUAGE plpgsql AS $function$
DECLARE
    at record;
BEGIN
    EXECUTE pg_catalog.format('SELECT last_value, is_called FROM %s', relation::pg_catalog.regclass) INTO at;
    RETURN (SELECT CASE
        WHEN NOT at.is_called THEN nullif(at.last_value, s.seqstart)
        ELSE greatest(s.seqmin, least(s.seqmax, at.last_value::numeric + s.seqincrement)) END::int8
        FROM pg_catalog.pg_sequence AS s WHERE s.seqrelid = relation);
END
$function$;

CREATE OR REPLACE FUNCTION thinwire.sequence_body(relation oid)
RETURNS jsonb LANGUAGE sql AS $function$
    SELECT pg_catalog.jsonb_build_object('sequence', pg_catalog.jsonb_build_object(
        'data_type', pg_catalog.format_type(s.seqtypid, NULL),
        'start', s.seqstart, 'increment', s.seqincrement, 'min', s.seqmin, 'max', s.seqmax,
        'cache', s.seqcache, 'cycle', s.seqcycle,
        'owned_by', CASE WHEN d.refobjid IS NOT NULL
                         THEN pg_catalog.jsonb_build_array(d.refobjid::int8, d.refobjsubid) END,
        'identity', coalesce(d.deptype = 'i', false),
        'value', thinwire.next_value(s.seqrelid)))
    FROM pg_catalog.pg_sequence AS s
    LEFT JOIN pg_catalog.pg_depend AS d
        ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = s.seqrelid
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
        AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
    WHERE s.seqrelid = relation
$function$;

CREATE OR REPLACE FUNCTION thinwire.view_body(relation oid)
RETURNS jsonb LANGUAGE sql STABLE AS $function$
    SELECT pg_catalog.jsonb_build_object('view', pg_catalog.jsonb_build_object(
        'materialized', c.relkind = 'm',
        'query', pg_catalog.rtrim(pg_catalog.pg_get_viewdef(c.oid), ';'),
        'columns', (SELECT coalesce(pg_catalog.jsonb_agg(a.attname ORDER BY a.attnum), '[]')
                    FROM pg_catalog.pg_attribute AS a
                    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
        'options', pg_catalog.to_jsonb(coalesce(c.reloptions, '{}'))))
    FROM pg_catalog.pg_class AS c WHERE c.oid = relation
$function$;

CREATE OR REPLACE FUNCTION thinwire.range_definition(range oid)
RETURNS text LANGUAGE sql STABLE AS $function$
    SELECT pg_catalog.concat_ws(', ',
        'SUBTYPE = ' || pg_catalog.format_type(r.rngsubtype, NULL),
        (SELECT pg_catalog.format('SUBTYPE_OPCLASS = %I.%I', n.nspname, o.opcname)
         FROM pg_catalog.pg_opclass AS o JOIN pg_catalog.pg_namespace AS n ON n.oid = o.opcnamespace
         WHERE o.oid = r.rngsubopc),
        'COLLATION = ' || thinwire.collation_of(r.rngcollation, t.typcollation),
        'SUBTYPE_DIFF = ' || nullif(r.rngsubdiff, 0)::pg_catalog.regproc::text,
        (SELECT pg_catalog.format('MULTIRANGE_TYPE_NAME = %I.%I', n.nspname, m.typname)
         FROM pg_catalog.pg_type AS m JOIN pg_catalog.pg_namespace AS n ON n.oid = m.typnamespace
         WHERE m.oid = r.rngmultitypid))
    FROM pg_catalog.pg_range AS r JOIN pg_catalog.pg_type AS t ON t.oid = r.rngsubtype
    WHERE r.rngtypid = range
$function$;

CREATE OR REPLACE FUNCTION thinwire.type_body(captured_by name, type oid)
RETURNS jsonb LANGUAGE sql STABLE AS $function$
    SELECT CASE t.typtype
        WHEN 'e' THEN pg_catalog.jsonb_build_object('enum', pg_catalog.jsonb_build_object('labels', (
            SELECT coalesce(pg_catalog.jsonb_agg(e.enumlabel ORDER BY e.enumsortorder), '[]')
            FROM pg_catalog.pg_enum AS e WHERE e.enumtypid = t.oid)))
        WHEN 'c' THEN (SELECT pg_catalog.jsonb_build_object('composite', pg_catalog.jsonb_build_object(
                'attributes', thinwire.columns(captured_by, c.oid)))
            FROM pg_catalog.pg_class AS c WHERE c.oid = t.typrelid AND c.relkind = 'c')
        WHEN 'd' THEN pg_catalog.jsonb_build_object('domain', pg_catalog.jsonb_build_object(
            'base', pg_catalog.format_type(t.typbasetype, t.typtypmod),
            'collation', (SELECT thinwire.collation_of(t.typcollation, b.typcollation)
                          FROM pg_catalog.pg_type AS b WHERE b.oid = t.typbasetype),
            'not_null', t.typnotnull,
            'default', CASE WHEN t.typdefaultbin IS NOT NULL
                            THEN pg_catalog.pg_get_expr(t.typdefaultbin, 0) END,
            'constraints', thinwire.constraints(captured_by, 0, t.oid)))
        WHEN 'r' THEN pg_catalog.jsonb_build_object('range', pg_catalog.jsonb_build_object(
            'definition', thinwire.range_definition(t.oid)))
        END
    FROM pg_catalog.pg_type AS t WHERE t.oid = type
$function$;

CREATE OR REPLACE FUNCTION thinwire.routine_body(routine oid)
RETURNS jsonb LANGUAGE sql STABLE AS $function$
    SELECT pg_catalog.jsonb_build_object('routine', pg_catalog.jsonb_build_object(
        'definition', pg_catalog.rtrim(pg_catalog.pg_get_functiondef(p.oid), E'\n'),
        'arguments', (SELECT coalesce(pg_catalog.string_agg(
                pg_catalog.format_type(a.type, NULL), ', ' ORDER BY a.at), '')
            FROM pg_catalog.unnest(p.proargtypes::oid[]) WITH ORDINALITY AS a (type, at)),
        'procedure', p.prokind = 'p'))
    FROM pg_catalog.pg_proc AS p WHERE p.oid = routine AND p.prokind IN ('f', 'p', 'w')
    -- A range type makes functions of its own.
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.objid = p.oid AND d.deptype = 'i'
                    AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass)
$function$;

-- An object, with its rank among those that are made before others; nothing if it is none that travels.
CREATE OR REPLACE FUNCTION thinwire.describe(captured_by name, class oid, object oid)
RETURNS TABLE (rank int4, description jsonb) LANGUAGE sql AS $function$
    SELECT it.rank, pg_catalog.jsonb_build_object('id', object::int8, 'schema', it.schema, 'name', it.name,
        'owner', pg_catalog.pg_get_userbyid(it.owner), 'comment', pg_catalog.obj_description(object, it.catalog),
        'body', it.body)
    FROM (
        SELECT 0, 'pg_namespace', '', n.nspname, n.nspowner, '{"schema": {}}'::jsonb
        FROM pg_catalog.pg_namespace AS n
        WHERE n.oid = object AND class = 'pg_catalog.pg_namespace'::pg_catalog.regclass
        UNION ALL
        SELECT CASE t.typtype WHEN 'e' THEN 1 ELSE 2 END, 'pg_type', n.nspname, t.typname, t.typowner,
               thinwire.type_body(captured_by, t.oid)
        FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
        WHERE t.oid = object AND class = 'pg_catalog.pg_type'::pg_catalog.regclass
        UNION ALL
        SELECT CASE WHEN c.relkind = 'S' THEN 3 WHEN c.relkind IN ('v', 'm') THEN 1000
                    -- A table that is a part of no other any more comes before the one that it was a part of.
                    ELSE 5 + 2 * (SELECT pg_catalog.count(*)::int4 FROM thinwire.forebears(c.oid))
                         + (c.relkind = 'p')::int4 END,
               'pg_class', n.nspname, c.relname, c.relowner,
               CASE WHEN c.relkind IN ('r', 'p') THEN thinwire.table_body(captured_by, c.oid)
                    WHEN c.relkind IN ('v', 'm') THEN thinwire.view_body(c.oid)
                    WHEN c.relkind = 'S' THEN thinwire.sequence_body(c.oid) END
        FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.oid = object AND class = 'pg_catalog.pg_class'::pg_catalog.regclass
        UNION ALL
        -- Those that speak of tables' rows come behind the tables.
        SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_type AS t
                                 WHERE t.oid = ANY (p.proargtypes::oid[] || p.prorettype || p.proallargtypes)
                                 AND t.typtype = 'c') THEN 999
                    -- Those that a domain or range calls come before it, but behind the domains and ranges that they take.
                    WHEN EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                                 LEFT JOIN pg_catalog.pg_constraint AS k
                                     ON k.oid = d.objid AND d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
                                 WHERE d.refclassid = class AND d.refobjid = object
                                 AND (k.contypid <> 0 OR d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass))
                    THEN CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_type AS t
                                           WHERE t.oid = ANY (p.proargtypes::oid[] || p.prorettype || p.proallargtypes)
                                           AND t.typtype IN ('d', 'r', 'm')) THEN 2 ELSE 1 END
                    ELSE 4 END,
               'pg_proc', n.nspname, p.proname, p.proowner, thinwire.routine_body(p.oid)
        FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
        WHERE p.oid = object AND class = 'pg_catalog.pg_proc'::pg_catalog.regclass
        -- Those that a type brings with it come with it.
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS i
                        WHERE i.classid = class AND i.objid = object AND i.deptype = 'i')
    ) AS it (rank, catalog, schema, name, owner, body)
    WHERE it.body IS NOT NULL
$function$;

-- Objects and all that they need, by the catalogs' own book of dependencies. Foreign keys are left out of it: what they
-- refer to is captured by itself or not at all.
CREATE OR REPLACE FUNCTION thinwire.needs(captured_by name, classes oid[], objects oid[])
RETURNS TABLE (class oid, object oid) LANGUAGE sql STABLE AS $function$
    WITH RECURSIVE need (class, object) AS (
        SELECT it.class, it.object FROM ROWS FROM (pg_catalog.unnest(classes), pg_catalog.unnest(objects)) AS it (class, object)
        UNION
        SELECT it.class, it.object FROM need AS n CROSS JOIN LATERAL (
            SELECT CASE WHEN (SELECT thinwire.has_lists(captured_by)) AND n.class = 'pg_catalog.pg_class'::pg_catalog.regclass
                        THEN thinwire.hidden(captured_by, n.object) ELSE '{}' END) AS h (numbers)
        CROSS JOIN LATERAL (
            SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_depend AS d
            WHERE d.classid = n.class AND d.objid = n.object AND d.deptype IN ('n', 'a', 'i', 'P')
            AND NOT (d.objsubid = ANY (h.numbers))
            UNION ALL
            SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, a.oid FROM pg_catalog.pg_attrdef AS a
            WHERE a.adrelid = n.object AND n.class = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND NOT (a.adnum = ANY (h.numbers))
            UNION ALL
            SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, c.oid FROM pg_catalog.pg_constraint AS c
            WHERE c.contype IN ('c', 'x') AND c.conrelid = n.object AND c.conrelid <> 0
            AND n.class = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND NOT (h.numbers <> '{}' AND thinwire.speaks_of_hidden(captured_by, 'pg_catalog.pg_constraint'::pg_catalog.regclass, c.oid))
            UNION ALL
            SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, c.oid FROM pg_catalog.pg_constraint AS c
            WHERE c.contype = 'c' AND c.contypid = n.object AND c.contypid <> 0
            AND n.class = 'pg_catalog.pg_type'::pg_catalog.regclass
            UNION ALL
            SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid FROM pg_catalog.pg_index AS i
            WHERE i.indrelid = n.object AND n.class = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND NOT (h.numbers <> '{}' AND thinwire.speaks_of_hidden(captured_by, n.class, i.indexrelid))
            UNION ALL
            SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, d.objid FROM pg_catalog.pg_depend AS d
            JOIN pg_catalog.pg_class AS s ON s.oid = d.objid AND s.relkind = 'S'
            WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
            AND d.refclassid = n.class AND d.refobjid = n.object AND NOT (d.refobjsubid = ANY (h.numbers))
            UNION ALL
            SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, r.oid FROM pg_catalog.pg_rewrite AS r
            JOIN pg_catalog.pg_class AS v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm')
            WHERE r.ev_class = n.object AND n.class = 'pg_catalog.pg_class'::pg_catalog.regclass
            UNION ALL
            SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, t.typrelid FROM pg_catalog.pg_type AS t
            WHERE t.oid = n.object AND t.typrelid <> 0 AND n.class = 'pg_catalog.pg_type'::pg_catalog.regclass
            UNION ALL
            SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, c.reltype FROM pg_catalog.pg_class AS c
            WHERE c.oid = n.object AND c.relkind = 'c' AND n.class = 'pg_catalog.pg_class'::pg_catalog.regclass
        ) AS it (class, object)
        -- Extensions are the target's own affair, with all that belongs to them.
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e
                          WHERE e.classid = it.class AND e.objid = it.object AND e.deptype = 'e')
        -- A captured table is told of by itself; one that is not is needed only by those that inherit from it.
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c
                        WHERE c.oid = it.object AND it.class = 'pg_catalog.pg_class'::pg_catalog.regclass
                        AND c.relkind IN ('r', 'p') AND c.oid <> ALL (objects)
                        AND (thinwire.is_captured(captured_by, c.oid) OR c.relkind = 'p' OR NOT c.relhassubclass))
    )
    SELECT need.class, need.object FROM need
    LEFT JOIN pg_catalog.pg_class AS c
        ON c.oid = need.object AND need.class = 'pg_catalog.pg_class'::pg_catalog.regclass
    LEFT JOIN pg_catalog.pg_type AS t
        ON t.oid = need.object AND need.class = 'pg_catalog.pg_type'::pg_catalog.regclass
    LEFT JOIN pg_catalog.pg_proc AS p
        ON p.oid = need.object AND need.class = 'pg_catalog.pg_proc'::pg_catalog.regclass
    LEFT JOIN pg_catalog.pg_namespace AS n
        ON need.class = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND n.oid = need.object
        OR n.oid = coalesce(c.relnamespace, t.typnamespace, p.pronamespace)
    WHERE thinwire.is_users(n.nspname) AND (need.class <> 'pg_catalog.pg_namespace'::pg_catalog.regclass
                                            OR n.nspname <> 'public')
$function$;

-- Objects with all that they need, in an order in which they can be made.
CREATE OR REPLACE FUNCTION thinwire.definitions(captured_by name, classes oid[], objects oid[])
RETURNS jsonb LANGUAGE sql AS $function$
    SELECT coalesce(pg_catalog.jsonb_agg(d.description ORDER BY d.rank, n.object), '[]')
    FROM thinwire.needs(captured_by, classes, objects) AS n,
    LATERAL thinwire.describe(captured_by, n.class, n.object) AS d
$function$;
