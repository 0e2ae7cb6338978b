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

-- What of its tables a node captures: rows, columns, operations.
ALTER TABLE thinwire.captures ADD COLUMN IF NOT EXISTS choice jsonb NOT NULL DEFAULT '{"identified": true, "tables": []}';

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

-- A function with other parameters would stand beside the one of its name.
DROP FUNCTION IF EXISTS thinwire.describe(oid, oid), thinwire.columns(oid), thinwire.constraints(oid, oid),
    thinwire.indexes(oid), thinwire.table_body(oid), thinwire.type_body(oid);

REVOKE ALL ON thinwire.captures, thinwire.parts, thinwire.keyless, thinwire.withheld FROM PUBLIC;
