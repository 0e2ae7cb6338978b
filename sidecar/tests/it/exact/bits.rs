//! Values leave the source as text and reach the target as text or in binary, and are the same bits: what the target would
//! send in binary is what its source would.

use thinwire_cluster::Options;

use super::{catch_up, pair_on, start};
use crate::site::{Pair, Site};

/// Types of which the binary form says more than the text, or is easily said otherwise by it. No type of users: theirs
/// would name ids of the catalog.
const SCHEMA: &str = "create table bits (id int primary key, i2 int2, i8 int8, f4 float4, f8 float8, n numeric, nn numeric(30, 10),
         b boolean, c char(5), v varchar(20), t text, by bytea, d date, ts timestamp, tz timestamptz, ti time, tt timetz, iv interval,
         u uuid, ip inet, ci cidr, mac macaddr8, bi bit(5), vb varbit, j json, jb jsonb, m money, p point, poly polygon,
         tsv tsvector, tsq tsquery, ir int4range, nr numrange, mr datemultirange, lsn pg_lsn, i4 int4, o oid);
     create table lists (id int primary key, i int[], n numeric[], f float8[], t text[], by bytea[], tz timestamptz[], b boolean[],
         r int8range[], iv interval[], j jsonb[]);
     create table blobs (id int primary key, b boolean, i2 int2, i8 int8, o oid, u uuid, by bytea);
     create type plain;
     create function plain_in(cstring) returns plain language internal immutable strict as 'textin';
     create function plain_out(plain) returns cstring language internal immutable strict as 'textout';
     create type plain (input = plain_in, output = plain_out);
     create table own (id int primary key, v plain);";

/// Gives the type that has none a binary form.
const SENT: &str =
    "create function plain_recv(internal) returns plain language internal stable strict as 'textrecv';
     create function plain_send(plain) returns bytea language internal stable strict as 'textsend';
     alter type plain set (receive = plain_recv, send = plain_send)";

/// Rows from number `from` on: usual values and those at the edges.
fn rows(from: u32) -> String {
    let mut sql = String::new();
    for (at, values) in [
        "32767, 9223372036854775807, '3.4028235e38', '2.2250738585072014e-308', '1.10', 0.0000000001, true, 'a b', '', 'ä🦀', '\\x00ff',
         'infinity', '294276-12-31 23:59:59.999999', '-infinity', '24:00', '00:00:00.000001+15:59', '1 mon -1 day 00:00:00.000001',
         'ffffffff-ffff-ffff-ffff-ffffffffffff', '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03:04:05', B'10101', B'', '{\"b\": 1,  \"a\":1}',
         '{\"b\": 1.10, \"a\": [null]}', '-92233720368547758.08', '(-0,1e-300)', '((0,0),(1,1),(1,0))', 'a:1A b:2', 'a & !b:*', '(,5]',
         '[1.10,)', '{[2000-01-01,2001-01-01),[2005-01-01,)}', 'FFFFFFFF/FFFFFFFF'",
        "-32768, -9223372036854775808, '-0', '-0', 'NaN', -99999999999999999999.9999999999, false, '', ' ', E'\\n\\t\\\\', '', '-infinity',
         '4713-01-01 00:00:00 BC', '2000-02-29 23:59:59.999999+00', '00:00', '24:00:00-15:59', '-178000000 years', '00000000-0000-0000-0000-000000000000',
         '255.255.255.255', 'fe80::/10', 'ff:ff:ff:ff:ff:ff:ff:ff', B'00000', B'1', '[]', 'null', '0.01', '(1e300,-1e300)', '((0,0))', '',
         '', 'empty', 'empty', '{}', '0/0'",
        "0, 0, 'NaN', '1.7976931348623157e308', '-Infinity', 1, null, null, null, null, null, null, null, null, null, null, null, null,
         null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null",
        "1, 1, '1e-45', '0.1', '1e-1000', 0.1000000000, true, 'x', 'x', repeat('long', 5000), decode(repeat('00ff', 5000), 'hex'),
         '0001-01-01 BC', '1999-12-31', '1582-10-15 12:00+02', '12:00:00.5', '12:00+00', '1 year 2 mons', gen_random_uuid(), '10.1.2.3/8',
         '0.0.0.0/0', '08:00:2b:ff:fe:01:02:03', B'11111', B'0000000001', '\"\\u00e4\"', '{\"a\":1,\"a\":2}', '1', '(0,0)',
         '((0,0),(0,0))', '''a b'':3', '''a b'' <-> c', '[-2147483648,2147483647)', '(0.0,0.00]', '{[2000-01-01,)}', '16/B374D848'",
    ]
    .iter()
    .enumerate()
    {
        sql += &format!("insert into bits values ({}, {values});\n", from as usize + at);
    }
    // Those that go in binary where they are parameters.
    for (at, values) in [
        "-2147483648, 0, -32768, -9223372036854775808, true, 'ffffffff-ffff-ffff-ffff-ffffffffffff', '\\x'",
        "2147483647, 4294967295, 32767, 9223372036854775807, false, gen_random_uuid(), decode(repeat('5c78', 3000), 'hex')",
        "-1, 1, 0, 0, null, null, '\\x5c'",
    ]
    .iter()
    .enumerate()
    {
        let id = from as usize + 50 + at;
        sql += &format!("insert into bits (id, i4, o, i2, i8, b, u, by) values ({id}, {values});\n");
    }
    for (at, values) in [
        "'[0:2]={1,NULL,-3}', '{1.10,NaN,1e-100}', '{-0,Infinity,5e-324}', '{\"\",NULL,\"NULL\",\"a,b\"}', array['\\x00'::bytea, '\\x'],
         '{infinity,2000-01-01 00:00+00}', '{t,f,NULL}', '{empty,\"[1,)\"}', '{00:00:00.000001,-1 mon}', array['{\"a\":1.0}'::jsonb]",
        "'[-1:0][5:6]={{1,2},{3,4}}', '{}', '{{{0.1}}}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'",
        "null, null, null, null, null, null, null, null, null, null",
    ]
    .iter()
    .enumerate()
    {
        sql += &format!("insert into lists values ({}, {values});\n", from as usize + at);
    }
    // As many as are copied.
    sql + &format!(
        "insert into blobs select i, i % 2 = 0, -(i % 30000), -i, i, md5(i::text)::uuid, decode(repeat(md5(i::text), i % 300), 'hex')
           from generate_series({from} * 1000, {from} * 1000 + 400) i;
         insert into blobs (id) values ({from});"
    )
}

/// What a table is in binary, as a digest by the server.
fn binary(site: &Site, table: &str) -> String {
    let file = site.cluster.data_dir().join(table);
    let file = file.display();
    site.sql(&format!(
        "copy (select * from {table} order by id) to '{file}' (format binary);
         select (select count(*) from {table}), md5(pg_read_binary_file('{file}'))"
    ))
}

fn same(pair: &Pair, what: &str) {
    catch_up(pair, what);
    for table in ["bits", "lists", "blobs"] {
        let (source, target) = (binary(&pair.source, table), binary(&pair.target, table));
        assert_eq!(
            source,
            target,
            "{what}: {table}\n{}",
            super::difference(&pair.source, &pair.target, table)
        );
    }
}

#[test]
fn what_travels_as_text_is_the_same_in_binary() {
    // More than the decoder holds in memory is read from its disk.
    let options =
        [Options::default().with("logical_decoding_work_mem", "64kB"), Options::default()];
    let mut pair = pair_on(options, SCHEMA, SCHEMA);
    pair.source.sql(&rows(1));
    pair.source.sql("insert into own values (1, 'a b'), (2, ''), (3, null)");
    start(&mut pair);
    // PostgreSQL: 014_binary 1
    same(&pair, "a copy");
    let own = "select string_agg(own::text, ' ' order by id) from own";
    assert_eq!(pair.target.sql(own), r#"(1,"a b") (2,"") (3,)"#);
    for site in [&pair.source, &pair.target] {
        site.sql(SENT);
    }
    // PostgreSQL: 014_binary 7
    assert_eq!(binary(&pair.source, "own"), binary(&pair.target, "own"));
    pair.source.sql(&rows(101));
    // PostgreSQL: 014_binary 2
    same(&pair, "inserts");
    pair.source.sql(
        "update lists set i = i || 7, n = n || 0.00, t[4] = 'new', f = array[-0.0::float8], tz = tz || tz where id = 101;
         update lists set iv = '[3:3]={1 mon}' where id = 1; delete from lists where id = 2",
    );
    // PostgreSQL: 014_binary 3
    same(&pair, "updates of arrays");
    pair.source.sql(
        "update bits set i4 = i4 / -2, o = 4294967294, i2 = i2 / 2, b = not b, by = by || by where id in (51, 151);
         update bits set n = n * 1.000, nn = nn / 3, f4 = f4 / 3, f8 = f8 / 7, i8 = -(i8 / 2), iv = iv / 3, m = m / 3 where id in (1, 101);
         update bits set id = id + 1000, n = 1e100 where id = 4; delete from bits where id = 3",
    );
    // PostgreSQL: 014_binary 4
    same(&pair, "updates of numbers");
    for site in [&mut pair.source, &mut pair.target] {
        site.status();
        site.node.stop().unwrap();
        site.node.start().unwrap();
    }
    pair.source.sql(&rows(201));
    // PostgreSQL: 014_binary 5, 6
    same(&pair, "inserts by other sessions");
    pair.source.sql(
        "begin; insert into bits (id, n, f8, by, tz) select i, i / 7.0, i / 7.0::float8, decode(md5(i::text), 'hex'), 'epoch'::timestamptz + i * interval '1.000001 h'
           from generate_series(1000, 9000) i on conflict do nothing;
         insert into lists (id, i, f) select i, array[i, null, -i], array[1 / i::float8] from generate_series(1000, 9000) i;
         update bits set n = -n where id % 3 = 0; delete from lists where id % 5 = 0; commit",
    );
    // PostgreSQL: 015_stream 3
    same(&pair, "a large transaction");
}
