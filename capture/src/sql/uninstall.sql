DROP EVENT TRIGGER IF EXISTS thinwire_command;
DROP EVENT TRIGGER IF EXISTS thinwire_drop;
DROP EVENT TRIGGER IF EXISTS thinwire_rewrite;
-- With the triggers that run it.
DROP ROUTINE IF EXISTS thinwire.follow_truncate CASCADE;
DROP ROUTINE IF EXISTS thinwire.tell_truncate, thinwire.truncate_mark, thinwire.unwatch, thinwire.watch_all, thinwire.watch, thinwire.truncated_as,
    thinwire.follow, thinwire.keep_identified, thinwire.tell_rewrite, thinwire.tell_drop, thinwire.was_meant, thinwire.tell_command,
    thinwire.tell_all, thinwire.sequences, thinwire.publish_missing, thinwire.publish_delayed, thinwire.describe_tables, thinwire.tell,
    thinwire.has_rows, thinwire.moved_partitions, thinwire.contents, thinwire.whole, thinwire.is_carried, thinwire.settle,
    thinwire.note_parts, thinwire.identify, thinwire.grant_to_reader, thinwire.emit, thinwire.token, thinwire.definitions, thinwire.needs,
    thinwire.describe, thinwire.routine_body, thinwire.type_body, thinwire.range_definition, thinwire.view_body,
    thinwire.sequence_body, thinwire.next_value, thinwire.table_body, thinwire.indexes, thinwire.index_definition,
    thinwire.constraints, thinwire.columns, thinwire.collation_of, thinwire.is_captured, thinwire.is_wanted, thinwire.is_fit,
    thinwire.is_unpublishable, thinwire.has_key, thinwire.branch, thinwire.forebears, thinwire.is_users, thinwire.names, thinwire.matches,
    thinwire.publish, thinwire.is_too_wide, thinwire.is_narrowed, thinwire.hindrance, thinwire.clash, thinwire.speaks_of_hidden,
    thinwire.hidden, thinwire.unlisted, thinwire.has_lists, thinwire.stem, thinwire.is_identified, thinwire.withhold,
    thinwire.is_withheld, thinwire.kept_out, thinwire.is_awaited, thinwire.chosen;
DROP TABLE IF EXISTS thinwire.captures, thinwire.parts, thinwire.keyless, thinwire.withheld, thinwire.delayed
