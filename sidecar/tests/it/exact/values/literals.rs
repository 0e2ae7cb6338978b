//! Values of every built-in type as SQL writes them: ordinary ones, and those at the edges.

use thinwire_bench::random::Random;

/// A column's type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// Its name in SQL.
    pub(super) name: &'static str,
    /// Whether it may be a key: it has an order, and its values are short.
    pub(super) is_key: bool,
    how: How,
}

#[derive(Clone, Copy, Debug)]
enum How {
    /// One of these, in quotes.
    Of(&'static [&'static str]),
    /// One of these expressions.
    Sql(&'static [&'static str]),
    /// Any whole number of so many bytes.
    Whole(u32),
    /// Any text of so many characters at most.
    Text(u64),
    /// Text that is kept outside of its row, and hardly compresses.
    Long,
    /// The same as bytes.
    LongBytes,
    /// Any bytes.
    Bytes,
    /// A UUID.
    Uuid,
    /// An array of one of these in quotes.
    Array(&'static [&'static str]),
}

impl Kind {
    /// How many values there are to name, if they are named and not made.
    pub(super) fn count(self) -> usize {
        match self.how {
            How::Of(values) | How::Sql(values) => values.len(),
            _ => 1,
        }
    }

    /// The value of this number, beginning anew behind the last; any, where they are made.
    pub(super) fn nth(self, at: usize, random: &mut Random) -> String {
        let named = |values: &[&'static str]| values[at % values.len()];
        match self.how {
            How::Of(values) => format!("{}::{}", quoted(named(values)), self.name),
            How::Sql(values) => format!("({})::{}", named(values), self.name),
            _ => self.literal(random),
        }
    }

    /// A value, as an expression of this type.
    pub(super) fn literal(self, random: &mut Random) -> String {
        let name = self.name;
        match self.how {
            How::Of(values) => format!("{}::{name}", quoted(random.pick::<&str>(values))),
            How::Sql(values) => format!("({})::{name}", random.pick(values)),
            How::Whole(bytes) => {
                let shift = random.below(u64::from(bytes) * 8);
                let value = random.bits().cast_signed() >> (64 - u64::from(bytes) * 8) >> shift;
                format!("'{value}'::{name}")
            }
            How::Text(most) => {
                let count = random.below(most + 1);
                let text: String = (0..count).map(|_| *random.pick(PIECES)).collect();
                let text: String = text.chars().take(usize::try_from(most).unwrap()).collect();
                format!("{}::{name}", quoted(&text))
            }
            How::Long => long(random),
            How::LongBytes => format!("convert_to({}, 'UTF8')", long(random)),
            How::Bytes => {
                let bytes: String =
                    (0..random.below(40)).map(|_| format!("{:02x}", random.below(256))).collect();
                format!("'\\x{bytes}'::bytea")
            }
            How::Uuid => {
                let high = random.bits() >> random.below(64);
                format!("'{:032x}'::uuid", u128::from(high) << 64 | u128::from(random.bits()))
            }
            How::Array(values) => array(random, name, values),
        }
    }
}

/// What text is made of; what COPY, arrays, JSON and SQL treat apart is among it.
const PIECES: &[&str] = &[
    "a", "Z", "ß", "é", "e\u{301}", "漢字", "🦀", "\u{feff}", " ", "  ", "\t", "\n", "\r\n", "\r",
    "\\", "\\N", "\\.", "\n\\.\n", "'", "''", "\"", ",", "{", "}", "(", ")", "NULL", "null", "$1",
    "%s", "\u{1}", "\u{7f}", "\u{8}", "\u{b}", "\u{c}", "0", "\u{2028}", "&amp;", "<", ";", "--",
    "/*",
];

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn long(random: &mut Random) -> String {
    // 32 characters each: from what stays in the row to what fills many pages of its own.
    let (count, seed) = (*random.pick(&[1, 30, 70, 100, 300, 2_000]), random.below(1_000));
    format!("(select string_agg(md5((i * {seed})::text), '') from generate_series(1, {count}) i)")
}

fn array(random: &mut Random, name: &str, values: &[&str]) -> String {
    let mut element = || match random.chance(0.15) {
        true => "null".to_owned(),
        false => quoted(random.pick::<&str>(values)),
    };
    let some: Vec<String> = (0..3).map(|_| element()).collect();
    let row = some.join(", ");
    let base = name.strip_suffix("[]").unwrap_or(name);
    match random.below(5) {
        0 => format!("'{{}}'::{name}"),
        1 => format!("array[array[{row}], array[{row}]]::{name}"),
        // An array that does not begin at 1.
        2 => format!("(select (array_fill({0}::{base}, array[2], array[-3])))::{name}", some[0]),
        _ => format!("array[{row}]::{name}"),
    }
}

const fn of(name: &'static str, is_key: bool, values: &'static [&'static str]) -> Kind {
    Kind { name, is_key, how: How::Of(values) }
}

const fn array_of(name: &'static str, values: &'static [&'static str]) -> Kind {
    Kind { name, is_key: false, how: How::Array(values) }
}

const fn made(name: &'static str, is_key: bool, how: How) -> Kind {
    Kind { name, is_key, how }
}

/// All types that a server of this version and all later ones have.
pub(super) fn kinds(version: u32) -> Vec<Kind> {
    let mut all = KINDS.to_vec();
    if version >= 15 {
        all.push(of("numeric(5,-2)", true, &["12345", "-99999", "1e6", "NaN"]));
    }
    if version >= 17 {
        all.push(of("interval", true, &["infinity", "-infinity", "1 day", "24 hours"]));
    }
    all
}

const NUMERICS: &[&str] = &[
    "0",
    "1",
    "1.0",
    "1.00",
    "-1.5",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e-1000",
    "1e1000",
    "0.00000",
    "123456789012345678901234567890.123456789012345678901234567890",
    "-0.1",
    "10",
    "1e1",
];
const FLOATS: &[&str] = &[
    "0",
    "-0",
    "1",
    "0.1",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e30",
    "-1e-30",
    "3.4028235e38",
    "1e-45",
    "1.17549435e-38",
    "123456.789",
    "16777217",
];
const DOUBLES: &[&str] = &[
    "0",
    "-0",
    "1",
    "0.1",
    "NaN",
    "Infinity",
    "-Infinity",
    "1.7976931348623157e308",
    "5e-324",
    "2.2250738585072014e-308",
    "0.30000000000000004",
    "9007199254740993",
    "1e15",
    "1e16",
];
const DATES: &[&str] = &[
    "infinity",
    "-infinity",
    "4714-11-24 BC",
    "5874897-12-31",
    "0044-03-15 BC",
    "2024-02-29",
    "1999-12-31",
    "0001-01-01",
];
const TIMESTAMPS: &[&str] = &[
    "infinity",
    "-infinity",
    "4714-11-24 00:00:00 BC",
    "294276-12-31 23:59:59.999999",
    "0044-03-15 12:00:00 BC",
    "2024-02-29 12:34:56.000001",
    "1970-01-01 00:00:00",
    "2000-01-01 00:00:00.1",
    "1883-11-18 12:03:58",
];
const ZONED: &[&str] = &[
    "infinity",
    "-infinity",
    "4714-11-24 00:00:00+00 BC",
    "294276-12-31 23:59:59.999999+00",
    "2024-03-31 02:30:00+02",
    "2024-02-29 12:34:56.000001-11:30",
    "1800-01-01 00:00:00+00:19:32",
];
const INTERVALS: &[&str] = &[
    "1 day",
    "24 hours",
    "1 mon",
    "30 days",
    "0",
    "-1 mon +2 days -03:04:05.678901",
    "178000000 years",
    "-178000000 years",
    "00:00:00.000001",
    "1 year -11 mons",
];
const INETS: &[&str] = &[
    "10.1.2.3",
    "10.1.2.3/24",
    "::1",
    "fe80::1/10",
    "0.0.0.0/0",
    "::ffff:1.2.3.4/128",
    "1.2.3.4/32",
];
const JSONB: &[&str] = &[
    "{}",
    "[]",
    "null",
    "1",
    "1.0",
    "1.00",
    "-0",
    "1e5",
    "100000",
    "\"\"",
    "\"a\\u0000b\\\\\"",
    r#"{"b": 1, "a": [1, null, {"": "é\n\""}], "a": 2}"#,
    r#"[1, "1", true]"#,
    r#""\ud83e\udd80""#,
];
const MOODS: &[&str] = &["sad", "a bit, \"odd\"", "it's", "", "ÄÖ\\"];
const PAIRS: &[&str] = &[
    "(,,)",
    "(1,a,)",
    r#"(1,"a ""b"" \\ (c), d","\\x00ff")"#,
    r#"(-2147483648,"",)"#,
    "(2,\"é\n\t\",\"\\\\x\")",
];
const POINTS: &[&str] = &["(1,2)", "(-0,0)", "(1e300,-1e-300)", "(NaN,Infinity)", "(0.1,0.2)"];

const KINDS: &[Kind] = &[
    made("bigint", true, How::Whole(8)),
    made("integer", true, How::Whole(4)),
    made("smallint", true, How::Whole(2)),
    of("boolean", false, &["t", "f"]),
    of("oid", true, &["0", "1", "4294967295", "2147483648"]),
    of("real", true, FLOATS),
    of("double precision", true, DOUBLES),
    of("numeric", true, NUMERICS),
    of("numeric(10,3)", true, &["0", "1", "-1234567.891", "NaN", "0.0005"]),
    of("numeric(1000,500)", false, &["0", "1", "NaN", "-1e-499", "1e499"]),
    of(
        "money",
        true,
        &["0", "-0.01", "92233720368547758.07", "-92233720368547758.08", "$1,234.56"],
    ),
    made("text", true, How::Text(12)),
    made("text", false, How::Text(200)),
    made("text", false, How::Long),
    made("text", false, How::Long),
    made("bytea", true, How::Bytes),
    made("bytea", false, How::LongBytes),
    made("varchar", false, How::Text(60)),
    made("varchar(20)", true, How::Text(20)),
    made("char(8)", true, How::Text(8)),
    made("bpchar", false, How::Text(8)),
    made("\"char\"", true, How::Of(&["a", "", "\\", "\""])),
    of(
        "name",
        true,
        &[
            "a",
            "",
            "Ünïcödé",
            "\"quoted\"",
            "sixty-three-bytes-of-a-name-are-as-many-as-there-can-be-in-one-aa",
        ],
    ),
    of("date", true, DATES),
    of("time", true, &["00:00", "24:00:00", "23:59:59.999999", "12:00:00.1"]),
    of("time(2)", true, &["00:00", "24:00:00", "12:00:00.1"]),
    of("timetz", true, &["00:00+15:59", "24:00:00-15:59:59", "12:00:00.1+00"]),
    of("timestamp", true, TIMESTAMPS),
    of("timestamptz", true, ZONED),
    of("timestamptz(3)", true, &["infinity", "2024-03-31 02:30:00.1235+02"]),
    of("interval", true, INTERVALS),
    of("interval day to second(3)", false, &["1 day", "1 12:00:00.1235"]),
    made("uuid", true, How::Uuid),
    of("inet", true, INETS),
    of("cidr", true, &["10.0.0.0/8", "::/0", "1.2.3.4/32", "2001:db8::/32"]),
    of("macaddr", true, &["08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"]),
    of("macaddr8", true, &["08:00:2b:01:02:03:04:05", "00:00:00:00:00:00:00:00"]),
    of("bit(7)", true, &["0000000", "1010101"]),
    of(
        "bit varying",
        true,
        &["", "1", "0", "1010101010101010101010101010101010101010101010101010101010101010101"],
    ),
    of("json", false, JSONB),
    of("json", false, &["{\"b\":1,  \"a\":\n2, \"b\":1}", " [ ] ", "\"\\u00e9\""]),
    of("jsonb", false, JSONB_PLAIN),
    of(
        "jsonpath",
        false,
        &["$", "$.a[*] ? (@.b > 1)", "strict $.\"x y\"", "$.* ? (@ like_regex \"^a\")"],
    ),
    of(
        "xml",
        false,
        &["<a>b</a>", "", "text &amp; <b c=\"d\"/>", "<?xml version=\"1.0\"?><a/>", "<é>\n</é>"],
    ),
    of("tsvector", true, &["", "a b c", "'it''s':1A 'b':2,3B", "'é':65535"]),
    of("tsquery", true, &["", "a & !b | (c <-> d)", "'it''s':*AB", "a <5> b"]),
    of("point", false, POINTS),
    of("line", false, &["{1,2,3}", "{-0.5,0,1e10}"]),
    of("lseg", false, &["[(1,2),(3,4)]", "[(0,0),(0,0)]"]),
    of("box", false, &["(1,2),(3,4)", "(0,0),(-1,-1)"]),
    of("path", false, &["[(1,2),(3,4)]", "((1,2),(3,4),(5,0.1))"]),
    of("polygon", false, &["((1,2),(3,4),(5,0.1))", "((0,0))"]),
    of("circle", false, &["<(1,2),3>", "<(0,0),0>"]),
    of("int4range", true, &["empty", "(,)", "[1,10]", "(,5)", "[2147483646,)"]),
    of("int8range", true, &["empty", "[-9223372036854775808,1)"]),
    of("numrange", true, &["empty", "[1.0,2)", "[1,2.00)", "(,NaN]"]),
    of("tsrange", true, &["empty", "[2024-01-01,infinity]", "(,\"2024-02-29 12:00:00.1\")"]),
    of("tstzrange", true, &["empty", "[2024-01-01 00:00+02,)", "(,)"]),
    of("daterange", true, &["empty", "[2024-01-01,infinity)", "[0044-03-15 BC,2024-02-29]"]),
    of("int4multirange", true, &["{}", "{[1,2),[5,)}", "{(,)}"]),
    of("nummultirange", true, &["{}", "{[1.0,2),[3,3]}"]),
    of("int8multirange", true, &["{}", "{[-9223372036854775808,1),[7,8)}"]),
    of(
        "tsmultirange",
        true,
        &["{}", "{[2024-01-01,2024-01-02),[\"2024-02-29 12:00:00.1\",infinity]}"],
    ),
    of("tstzmultirange", true, &["{}", "{[2024-01-01 00:00+00,2024-01-02 00:00+00)}"]),
    of("datemultirange", true, &["{}", "{[2024-01-01,2024-01-02),[2024-02-29,)}"]),
    of("floatmultirange", true, &["{}", "{[-0,0],[0.1,Infinity]}"]),
    of("moodmultirange", true, &["{}", r#"{[sad,sad],["a bit, \"odd\"",)}"#]),
    of("floatrange", true, &["empty", "[-0,0]", "[0.1,Infinity]"]),
    of("moodrange", true, &["empty", "[sad,\"\"]", r#"["a bit, \"odd\"",)"#]),
    of("pg_lsn", true, &["0/0", "FFFFFFFF/FFFFFFFF", "1/2A"]),
    of("xid", false, &["0", "4294967295"]),
    of("xid8", true, &["0", "18446744073709551615"]),
    of("cid", false, &["0", "4294967295"]),
    of("tid", true, &["(0,1)", "(4294967295,65535)"]),
    of("regclass", false, &["pg_class", "-", "4294967295"]),
    of("regtype", false, &["int4", "text[]", "public.mood", "public.pair[]"]),
    of("regproc", false, &["pg_catalog.now", "-"]),
    of("regprocedure", false, &["pg_catalog.now()", "public.is_fine(integer)", "-"]),
    of("regoper", false, &["pg_catalog.||/", "0"]),
    of("regoperator", false, &["pg_catalog.+(integer,integer)", "-(NONE,integer)", "0"]),
    of("regcollation", false, &["\"C\"", "pg_catalog.default", "-"]),
    of("regrole", false, &["postgres", "-", "4294967295"]),
    of("regnamespace", false, &["pg_catalog", "public", "ext", "-"]),
    of("regconfig", false, &["simple", "english", "-"]),
    of("regdictionary", false, &["simple", "english_stem", "-"]),
    of("oidvector", true, &["", "1 2 3"]),
    of("int2vector", false, &["", "-1 2 3"]),
    of("pg_snapshot", false, &["10:20:10,14,15", "1:1:"]),
    of("txid_snapshot", false, &["10:20:10,14,15", "1:1:"]),
    of("refcursor", false, &["a cursor", ""]),
    of("aclitem", false, &["postgres=r/postgres", "=arw*/postgres"]),
    of(
        "ext.hstore",
        false,
        &["", "a=>1", "\"a b\"=>NULL, c=>\"\", \"é\"=>\"\\\"\"", "NULL=>\"NULL\""],
    ),
    of("ext.citext", true, &["A", "a", "ÄÖ", "äö", "", "a b"]),
    of("mood", true, MOODS),
    of("pair", true, PAIRS),
    of("fine", true, &["1", "-1", "2147483647"]),
    of("short", true, &["", "a", "é'\"\\"]),
    of("deep", true, &["", "a", "é'\"\\"]),
    of("list", false, &["{}", "{1,NULL,3}", "{{1,2},{3,4}}"]),
    of("span", true, &["empty", "[1,2)", "(,)"]),
    of("duo", true, PAIRS),
    made(
        "nested",
        true,
        How::Sql(&[
            "row(null, null, null, null)",
            "row(row(1, 'a \"b\" \\ ''c''', '\\x00'), array['sad', 'it''s', '', null]::mood[], array[1.0, 'NaN'], '')",
            "row(row(null, null, null), '{}', null, 'null')",
        ]),
    ),
    array_of("bigint[]", &["1", "-9223372036854775808"]),
    array_of("numeric[]", NUMERICS),
    array_of("smallint[]", &["0", "-32768"]),
    array_of("integer[]", &["0", "2147483647"]),
    array_of("oid[]", &["0", "4294967295"]),
    array_of("real[]", FLOATS),
    array_of("double precision[]", DOUBLES),
    array_of("text[]", &["", "a", "NULL", "null", "{}", "\"", "\\", ",", " ", "é\n\t"]),
    array_of("varchar(5)[]", &["", "a", "ab,c"]),
    array_of("bytea[]", &["\\x", "\\x00ff5c22"]),
    array_of("boolean[]", &["t", "f"]),
    array_of("timestamptz[]", ZONED),
    array_of("timestamp[]", TIMESTAMPS),
    array_of("time[]", &["00:00", "24:00:00", "12:00:00.1"]),
    array_of("timetz[]", &["00:00+15:59", "12:00:00.1+00"]),
    array_of("bpchar[]", &["", "a", "a ,b"]),
    array_of("cidr[]", &["10.0.0.0/8", "::/0"]),
    array_of("macaddr[]", &["08:00:2b:01:02:03"]),
    array_of("polygon[]", &["((1,2),(3,4),(5,0.1))", "((0,0))"]),
    array_of("circle[]", &["<(1,2),3>"]),
    array_of("tsquery[]", &["a & !b", "'it''s':*AB"]),
    array_of("jsonpath[]", &["$.\"x y\"", "$.a[*] ? (@.b > 1)"]),
    array_of("numrange[]", &["empty", "[1.0,2)"]),
    array_of("int4multirange[]", &["{}", "{[1,2),[5,)}"]),
    array_of("pg_lsn[]", &["0/0", "1/2A"]),
    array_of("regtype[]", &["int4", "public.mood"]),
    array_of("nested[]", &["(,,,)", "(\"(1,a,)\",\"{sad,\"\"it's\"\"}\",{1.0},x)"]),
    array_of("span[]", &["empty", "[1,2)"]),
    array_of("duo[]", PAIRS),
    array_of("interval[]", INTERVALS),
    array_of("jsonb[]", JSONB_PLAIN),
    array_of("json[]", &["{}", "{\"a\": [1, 2]}"]),
    array_of("xml[]", &["<a>b,\"c\"</a>", ""]),
    array_of("point[]", POINTS),
    array_of("box[]", &["(1,2),(3,4)", "(0,0),(-1,-1)"]),
    array_of("inet[]", INETS),
    array_of("mood[]", MOODS),
    array_of("pair[]", PAIRS),
    array_of("fine[]", &["1", "2"]),
    array_of("list[]", &["{1,2}", "{}"]),
    array_of("int4range[]", &["empty", "[1,2)", "(,)"]),
    array_of("ext.hstore[]", &["", "a=>\"1,2\""]),
    array_of("ext.citext[]", &["A", "a"]),
    array_of("date[]", DATES),
    array_of("uuid[]", &["00000000-0000-0000-0000-000000000000"]),
    array_of("\"char\"[]", &["a", "", "\\"]),
    array_of("bit(3)[]", &["000", "101"]),
    array_of("money[]", &["0", "-1234.56"]),
    array_of("tsvector[]", &["a b", ""]),
    array_of("name[]", &["a", "b c"]),
];

/// Those that the type takes: no zero character.
const JSONB_PLAIN: &[&str] = &[
    "{}",
    "[]",
    "null",
    "1",
    "1.0",
    "1.00",
    "-0",
    "1e5",
    "100000",
    "\"\"",
    r#"{"b": 1, "a": [1, null, {"": "é\n\""}], "a": 2}"#,
    r#"[1, "1", true]"#,
    r#""\ud83e\udd80""#,
];
