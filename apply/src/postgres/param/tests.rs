//! What goes in binary is what the server would have read from the text, by the server's own word.

use bytes::Bytes;
use thinwire_cluster::{Cluster, Options};
use tokio_postgres::{Client, NoTls};

use super::*;

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % end
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// The bytes of a number of as many bits as it likes.
    fn number(&mut self) -> [u8; 8] {
        let bits = self.below(64);
        (self.next() >> bits).to_le_bytes()
    }

    fn hex(&mut self, digits: usize) -> String {
        (0..digits).map(|_| format!("{:x}", self.below(16))).collect()
    }

    /// What a type may hold, as its output function writes it, and now and then not quite.
    fn text(&mut self, of: &Type) -> String {
        let all @ [a, b, c, d, ..] = self.number();
        let mut text = match *of {
            Type::BOOL => self.pick(&["t", "f"]).to_owned(),
            Type::INT2 => i16::from_le_bytes([a, b]).to_string(),
            Type::INT4 => i32::from_le_bytes([a, b, c, d]).to_string(),
            Type::INT8 => i64::from_le_bytes(all).to_string(),
            Type::OID => u32::from_le_bytes([a, b, c, d]).to_string(),
            Type::UUID => [8, 4, 4, 4, 12].map(|digits| self.hex(digits)).join("-"),
            _ => {
                let bytes = self.below(40);
                format!("\\x{}", self.hex(2 * bytes))
            }
        };
        if self.below(4) == 0 {
            let at = self.below(text.len() + 1);
            text.insert(at, self.pick(&['0', ' ', '+', '-', 'A', '\\', '_', 'e', '9', '{']));
        }
        text
    }
}

/// Texts at the edges, and others that mean the same as one that the server would write.
const EXTREMES: [(Type, &[&str], &[&str]); 7] = [
    (Type::BOOL, &["t", "f"], &["true", "T", "1", "off", " t"]),
    (Type::INT2, &["-32768", "32767", "0", "-1"], &["+1", "-0", "007", " 1", "1_0", "0x1"]),
    (Type::INT4, &["-2147483648", "2147483647", "0"], &["+1", "-0", "00", "1 "]),
    (
        Type::INT8,
        &["-9223372036854775808", "9223372036854775807", "0"],
        &["+9223372036854775807", "-0", "01", "\t1"],
    ),
    (Type::OID, &["0", "4294967295"], &["-1", "+1", "01"]),
    (
        Type::UUID,
        &["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
        &[
            "FFFFFFFF-ffff-ffff-ffff-ffffffffffff",
            "{ffffffff-ffff-ffff-ffff-ffffffffffff}",
            "ffffffffffffffffffffffffffffffff",
        ],
    ),
    (Type::BYTEA, &["\\x", "\\x00", "\\xff00"], &["", "abc", "\\xFF", "\\x0 0", "\\000"]),
];

fn param(text: &str) -> Param {
    Param(Value::Bytes(Bytes::copy_from_slice(text.as_bytes())))
}

fn is_binary(text: &str, of: &Type) -> bool {
    matches!(param(text).encode_format(of), Format::Binary)
}

/// What the server's output function makes of a parameter of a type, or of a text that is cast to it; none if it refuses.
async fn answer(client: &Client, of: &Type, text: &str, casts: bool) -> Option<String> {
    let through = if casts { "::pg_catalog.text" } else { "" };
    let sql = format!("SELECT pg_catalog.format('%s', $1{through}::pg_catalog.{})", of.name());
    let statement = client.prepare(&sql).await.unwrap();
    client.query_one(&statement, &[&param(text)]).await.ok().map(|row| row.get(0))
}

#[tokio::test]
async fn a_parameter_in_binary_is_what_the_server_reads_from_its_text() {
    let cluster = Cluster::start(Options::default()).unwrap();
    let (client, connection) =
        tokio_postgres::connect(&cluster.url("postgres"), NoTls).await.unwrap();
    tokio::spawn(connection);
    for (of, written, others) in EXTREMES {
        for text in written {
            assert!(is_binary(text, &of), "{of} {text}");
            assert_eq!(answer(&client, &of, text, false).await.as_deref(), Some(*text), "{of}");
        }
        for text in others {
            assert!(!is_binary(text, &of), "{of} {text}");
            let (direct, cast) =
                (answer(&client, &of, text, false).await, answer(&client, &of, text, true).await);
            assert_eq!(direct, cast, "{of} {text}");
        }
        let seed = 7;
        let mut random = Random(seed);
        for step in 0..200 {
            let text = random.text(&of);
            let direct = answer(&client, &of, &text, false).await;
            let what = format!("seed {seed}, step {step}: {of} {text:?}");
            assert_eq!(direct, answer(&client, &of, &text, true).await, "{what}");
            assert_eq!(is_binary(&text, &of), direct.as_ref() == Some(&text), "{what}");
        }
    }
}

#[test]
fn numbers_out_of_range_and_types_of_which_less_is_certain_go_as_text() {
    for (text, of) in [
        ("32768", Type::INT2),
        ("-2147483649", Type::INT4),
        ("9223372036854775808", Type::INT8),
        ("4294967296", Type::OID),
        ("1.5", Type::FLOAT8),
        ("1", Type::NUMERIC),
        ("1", Type::TEXT),
        ("{1}", Type::INT4_ARRAY),
        ("2000-01-01", Type::DATE),
    ] {
        assert!(!is_binary(text, &of), "{of} {text}");
        let mut out = BytesMut::new();
        param(text).to_sql(&of, &mut out).unwrap();
        assert_eq!(out, text.as_bytes());
    }
}

#[test]
fn parameters_do_not_show_in_logs() {
    assert_eq!(format!("{:?}", Param::of("secret")), "…");
}
