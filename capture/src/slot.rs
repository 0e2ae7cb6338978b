//! The publication and the slot that a node captures through: how they are named, made, checked and dropped.
//!
//! The publication lists its tables one by one, because a list by schema would publish a keyless table the moment it
//! is created and so break its owner's UPDATEs. It publishes partitioned tables as their roots, because partitions
//! come and go and the other side may be partitioned otherwise; the price is that TRUNCATE of a single partition is
//! not published, as dropping one is not. Where schema changes are followed, triggers tell of both.
//!
//! The publication's comment says whose it is and where its slot was created. A slot whose confirmed position is
//! still there was never read from, which is the only state in which an empty journal may begin to read it.

mod check;
mod following;
mod init;
mod inventory;
mod narrow;
mod plan;
mod published;
mod rehearsal;
mod removal;

pub use check::{Check, check};
pub(crate) use following::{misjudged, secret};
pub use init::{InitOptions, Report, init, plan};
pub(crate) use inventory::{Entry, SlotState, entries, slot_state};
pub(crate) use published::{Accepted, Published, published};
pub use removal::{Removal, drop, plan_drop};

use ring::digest::{SHA256, digest};
use thinwire_engine::model::Lsn;
use tokio_postgres::Client;

use crate::{Patterns, Result};

/// The tables that the patterns mean and that are not published.
pub(crate) async fn unpublished(
    client: &Client,
    publication: &str,
    patterns: &Patterns,
) -> Result<Vec<String>> {
    let found = inventory::take(client, publication, publication, None).await?;
    Ok(plan::unpublished(&found, patterns))
}

/// The name of a node's slot and publication.
pub fn name_for(node: &str) -> String {
    let kept: String = node
        .chars()
        .map(|it| if it.is_ascii_alphanumeric() { it.to_ascii_lowercase() } else { '_' })
        .collect();
    let is_faithful = node.chars().all(|it| it.is_ascii_alphanumeric() || "_-. ".contains(it));
    if is_faithful && kept.len() <= NODE_BYTES_MAX {
        return format!("{PREFIX}{kept}");
    }
    // Too long, or of letters that a slot's name cannot have: told apart by a hash.
    let hash = digest(&SHA256, node.as_bytes());
    let hash: String = hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let kept: String = kept.chars().take(NODE_BYTES_MAX - hash.len() - 1).collect();
    format!("{PREFIX}{kept}_{hash}")
}

/// What the publication's comment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Comment {
    pub(crate) node: String,
    pub(crate) created: Option<Lsn>,
}

impl Comment {
    /// All of it but the position.
    pub(crate) fn head(node: &str) -> String {
        format!("{COMMENT}{node}{SLOT_CREATED}")
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(COMMENT)?;
        let (node, created) = rest.rsplit_once(SLOT_CREATED)?;
        Some(Self { node: node.to_owned(), created: created.parse().ok() })
    }
}

const PREFIX: &str = "thinwire_";
const COMMENT: &str = "Thinwire captures through this for node ";
const SLOT_CREATED: &str = "; slot created at ";

/// A slot's name has at most 63 bytes.
const NODE_BYTES_MAX: usize = 63 - PREFIX.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_only_what_a_slot_may_have() {
        assert_eq!(name_for("shop"), "thinwire_shop");
        assert_eq!(name_for("Shop-1.north"), "thinwire_shop_1_north");
        let long = name_for(&"x".repeat(80));
        assert_eq!(long.len(), 63);
        assert_ne!(long, name_for(&"x".repeat(81)));
        assert_ne!(name_for("köln"), name_for("kåln"));
        for node in ["", "köln", "a\"b'c", &"é".repeat(70)] {
            let name = name_for(node);
            assert!(name.len() <= 63 && !name.is_empty());
            assert!(
                name.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'_')
            );
        }
    }

    #[test]
    fn the_comment_reads_what_it_writes() {
        let text = format!("{}0/16B3748", Comment::head("a; slot created at b"));
        let comment = Comment::parse(&text).unwrap();
        assert_eq!(comment.node, "a; slot created at b");
        assert_eq!(comment.created, Some(Lsn::new(0x16B_3748)));
        assert_eq!(Comment::parse("something else"), None);
    }
}
