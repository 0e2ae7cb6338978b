-- Who captures what from this database.
CREATE SCHEMA IF NOT EXISTS thinwire;

-- The secret proves that a message was written here: anybody may write one under any prefix.
CREATE TABLE IF NOT EXISTS thinwire.captures (
    publication name PRIMARY KEY,
    node text NOT NULL,
    reader name,
    patterns jsonb NOT NULL,
    secret bytea NOT NULL
);

-- What of its tables a node captures: rows, columns, operations. One that says nothing means everything.
ALTER TABLE thinwire.captures ADD COLUMN IF NOT EXISTS choice jsonb NOT NULL DEFAULT '{"identified": true, "tables": []}';
ALTER TABLE thinwire.captures ALTER COLUMN choice SET DEFAULT '{"identified": true, "tables": []}';
UPDATE thinwire.captures SET choice = DEFAULT WHERE choice = '{}';

-- Whether schema changes are told and new tables published. Where they are not, it is only seen to that no update fails.
ALTER TABLE thinwire.captures ADD COLUMN IF NOT EXISTS follows boolean NOT NULL DEFAULT true;

-- Indexes and partitions, each with the table that it is a part of: of what is gone or was detached the catalogs do
-- not say it any more. Not unique, so that nobody waits for anybody.
CREATE TABLE IF NOT EXISTS thinwire.parts (id oid NOT NULL, part_of oid NOT NULL);
CREATE INDEX IF NOT EXISTS parts_id ON thinwire.parts (id);
CREATE INDEX IF NOT EXISTS parts_part_of ON thinwire.parts (part_of);

-- Tables that got their replica identity from us because they had no key.
CREATE TABLE IF NOT EXISTS thinwire.keyless (id oid NOT NULL);

-- Tables that are kept out of the publication: they could not be published as they were chosen, or were parts of one of
-- which some is captured only. What was hidden there stays so.
CREATE TABLE IF NOT EXISTS thinwire.withheld (id oid NOT NULL);

-- Tables that are not in the publication as they should be, because somebody held it for too long.
CREATE TABLE IF NOT EXISTS thinwire.delayed (
    id oid NOT NULL,
    publication name REFERENCES thinwire.captures ON DELETE CASCADE
);

-- Each node at this database knows these for itself. What was known before that is known to all.
ALTER TABLE thinwire.parts ADD COLUMN IF NOT EXISTS publication name REFERENCES thinwire.captures ON DELETE CASCADE;
ALTER TABLE thinwire.withheld ADD COLUMN IF NOT EXISTS publication name REFERENCES thinwire.captures ON DELETE CASCADE;
INSERT INTO thinwire.parts (id, part_of, publication) SELECT p.id, p.part_of, k.publication
    FROM thinwire.parts AS p CROSS JOIN thinwire.captures AS k WHERE p.publication IS NULL;
INSERT INTO thinwire.withheld (id, publication) SELECT w.id, k.publication
    FROM thinwire.withheld AS w CROSS JOIN thinwire.captures AS k WHERE w.publication IS NULL;
DELETE FROM thinwire.parts WHERE publication IS NULL;
DELETE FROM thinwire.withheld WHERE publication IS NULL;

-- A function with other parameters would stand beside the one of its name.
DROP FUNCTION IF EXISTS thinwire.describe(oid, oid), thinwire.columns(oid), thinwire.constraints(oid, oid),
    thinwire.indexes(oid), thinwire.table_body(oid), thinwire.type_body(oid), thinwire.is_withheld(oid),
    thinwire.withhold(oid), thinwire.note_parts(oid[]), thinwire.moved_partitions(oid, oid[]),
    thinwire.hindrance(thinwire.captures, oid);

REVOKE ALL ON thinwire.captures, thinwire.parts, thinwire.keyless, thinwire.withheld, thinwire.delayed FROM PUBLIC;
