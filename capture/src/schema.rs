//! What the event triggers at the source tell: whether a message is theirs, and what it says.

use std::fmt;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use serde::Deserialize;
use thinwire_engine::{
    limits::RELATIONS_MAX,
    model::{Definitions, Dropped, Object, RelationId},
};

/// The prefix of their messages.
pub(crate) const PREFIX: &str = "thinwire.schema";

/// The prefix of what `init` tells before it publishes tables that it did not publish before. Such a table may have been
/// published long ago, and have changed since. There is no proof to it: the worst that a forger brings about is a copy.
pub(crate) const ADDED: &str = "thinwire.added";

/// What proves that a message was written by the triggers: anybody may write one under any prefix.
#[derive(Clone)]
pub(crate) struct Secret(Vec<u8>);

/// What a message is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// A change.
    Change(Change),
    /// A change that the triggers could not describe, and why.
    Failed(String),
    /// Something that is no affair of this node: it is for another one at the same database.
    NotOurs,
    /// Something that the triggers did not write.
    Forged,
}

/// A change of the schema.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Objects that are as they are said, and those that are gone.
    pub(crate) definitions: Definitions,
    /// Tables that were created, and published before they held anything.
    pub(crate) born: Vec<RelationId>,
    /// Tables whose rows changed in a way that no other message tells.
    pub(crate) stale: Vec<RelationId>,
    /// Tables of which something else is published from here on, whoever changed them.
    pub(crate) republished: Vec<RelationId>,
}

#[derive(Deserialize)]
struct Message {
    publication: String,
    xid: u32,
    #[serde(default)]
    objects: Vec<Object>,
    #[serde(default)]
    dropped: Vec<Dropped>,
    #[serde(default)]
    born: Vec<u32>,
    #[serde(default)]
    stale: Vec<u32>,
    #[serde(default)]
    republished: Vec<u32>,
    failed: Option<String>,
}

#[derive(Deserialize)]
struct Address {
    publication: String,
}

impl Secret {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Twice, so that nobody can append to what was proven.
    fn proof(&self, body: &[u8]) -> impl AsRef<[u8]> {
        let with_secret = |rest: &[u8]| digest(&SHA256, &[&self.0, rest].concat());
        with_secret(with_secret(body).as_ref())
    }
}

/// Keeps it.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Reads a message in the transaction `xid`.
pub(crate) fn read(content: &[u8], secret: &Secret, publication: &str, xid: u32) -> Told {
    let Some((proof, body)) = content.split_at_checked(SHA256_OUTPUT_LEN) else {
        return Told::Forged;
    };
    if proof != secret.proof(body).as_ref() {
        let address = serde_json::from_slice::<Address>(body);
        let is_ours = address.is_ok_and(|it| it.publication == publication);
        return if is_ours { Told::Forged } else { Told::NotOurs };
    }
    let message = match serde_json::from_slice::<Message>(body) {
        Ok(message) => message,
        Err(error) => {
            return Told::Failed(format!("it is told in words that are not known: {error}"));
        }
    };
    let Message { publication: to, xid: stated, objects, dropped, .. } = message;
    let ids = |ids: Vec<u32>| ids.into_iter().map(RelationId).collect();
    match message.failed {
        _ if stated != xid => Told::Forged,
        _ if to != publication => Told::NotOurs,
        Some(why) => Told::Failed(why),
        None => Told::Change(Change {
            definitions: Definitions { objects, dropped },
            born: ids(message.born),
            stale: ids(message.stale),
            republished: ids(message.republished),
        }),
    }
}

/// Reads which tables are about to be added to `publication`; none if it is about another, or makes no sense.
pub(crate) fn added(content: &[u8], publication: &str) -> Vec<RelationId> {
    let text = std::str::from_utf8(content).ok().and_then(|text| text.split_once(' '));
    let Some((_, ids)) = text.filter(|(to, _)| *to == publication) else { return Vec::new() };
    ids.split(',').filter_map(|id| id.parse().ok()).take(RELATIONS_MAX).map(RelationId).collect()
}

/// Reads the objects that the source's functions describe.
pub(crate) fn objects(text: &str) -> serde_json::Result<Vec<Object>> {
    serde_json::from_str(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"publication": "p", "xid": 7, "objects": [], "born": [1], "stale": [2], "republished": [3]}"#;

    fn secret() -> Secret {
        Secret::new(b"secret".to_vec())
    }

    fn signed(secret: &Secret, body: &str) -> Vec<u8> {
        [secret.proof(body.as_bytes()).as_ref(), body.as_bytes()].concat()
    }

    #[test]
    fn a_message_counts_only_with_its_proof_and_in_its_transaction() {
        let content = signed(&secret(), BODY);
        let change = Change {
            definitions: Definitions::default(),
            born: vec![RelationId(1)],
            stale: vec![RelationId(2)],
            republished: vec![RelationId(3)],
        };
        assert_eq!(read(&content, &secret(), "p", 7), Told::Change(change));
        assert_eq!(read(&content, &secret(), "p", 8), Told::Forged);
        assert_eq!(read(&content, &secret(), "q", 7), Told::NotOurs);
        let other = Secret::new(b"another".to_vec());
        assert_eq!(read(&content, &other, "p", 7), Told::Forged);
        assert_eq!(read(&content, &other, "q", 7), Told::NotOurs);
        for cut in 0..content.len() {
            let told = read(&content[..cut], &secret(), "p", 7);
            assert!(matches!(told, Told::Forged | Told::NotOurs), "{cut}: {told:?}");
        }
        assert_eq!(format!("{:?}", secret()), "Secret");
    }

    #[test]
    fn tables_that_are_added_are_read_if_they_are_added_to_ours() {
        assert_eq!(added(b"p 1,23", "p"), [RelationId(1), RelationId(23)]);
        for other in [&b"q 1,23"[..], b"p", b"p ", b"p x,-1", b"\xFF 1", b""] {
            assert_eq!(added(other, "p"), [], "{other:?}");
        }
    }

    #[test]
    fn what_is_proven_and_not_understood_is_said() {
        for body in ["{}", r#"{"publication": "p", "xid": 7, "objects": [{"id": 1}]}"#, "nothing"] {
            let told = read(&signed(&secret(), body), &secret(), "p", 7);
            assert!(matches!(told, Told::Failed(_)), "{body}: {told:?}");
        }
        let failed = r#"{"publication": "p", "xid": 7, "failed": "why"}"#;
        let told = read(&signed(&secret(), failed), &secret(), "p", 7);
        assert_eq!(told, Told::Failed("why".to_owned()));
    }
}
