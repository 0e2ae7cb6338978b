//! What a node says about itself: the answer of `thinwire status --json`.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A node's state. Fields that a node does not tell are empty, and unknown ones are ignored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// Its public key.
    pub key: String,
    /// Since when it counts, in seconds since 1970.
    pub since: u64,
    /// The streams that it holds.
    pub streams: Vec<Stream>,
    /// The nodes that it exchanges streams with.
    pub peers: Vec<Peer>,
    /// The copies that are under way, a table each.
    pub copy: Vec<Copy>,
    /// The replication slot, on a node that captures.
    pub slot: Option<Slot>,
    /// The journal's size.
    pub journal: Journal,
}

/// A stream that a node holds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Stream {
    /// The fingerprint of the node that wrote it.
    pub origin: String,
    /// That node's name.
    pub name: String,
    /// The stream's epoch.
    pub epoch: String,
    /// The first offset held.
    pub first: Option<u64>,
    /// The last offset in memory.
    pub appended: Option<u64>,
    /// The last durable offset.
    pub synced: Option<u64>,
    /// The last offset in the local database.
    pub applied: Option<u64>,
    /// Bytes on disk.
    pub journal_bytes: u64,
    /// Why it does not go on, if so.
    pub halted: Option<Halted>,
    /// What was counted while it was applied.
    pub counts: Option<Counts>,
    /// Whose rows a copy of it holds too.
    pub copied_with: Vec<String>,
    /// How many transactions and copies were left out.
    pub skipped: Option<u64>,
}

/// What was counted while a stream was applied.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// How often a change was refused.
    pub apply_errors: u64,
    /// How often a copy was.
    pub copy_errors: u64,
    /// Conflicts by kind.
    pub conflicts: BTreeMap<String, u64>,
}

/// Why a stream does not go on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Halted {
    /// The code.
    pub code: String,
    /// The offset of the record that it stands at.
    pub offset: Option<u64>,
    /// The table.
    pub table: Option<String>,
    /// The row's key.
    pub key: Option<String>,
    /// What happened.
    pub detail: String,
}

/// Another node, as this one sees it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Whether there is a connection.
    pub connected: bool,
    /// The round-trip time.
    pub rtt_ms: Option<f64>,
    /// New bytes a second, in bits.
    pub goodput_bps: Option<f64>,
    /// The streams sent to it.
    pub streams: Vec<PeerStream>,
    /// Bytes sent to it.
    pub bytes_sent: u64,
    /// Bytes received from it.
    pub bytes_received: u64,
    /// When it will have everything.
    pub eta_seconds: Option<f64>,
}

/// How far a peer has a stream.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PeerStream {
    /// The stream's origin.
    pub origin: String,
    /// The last offset sent.
    pub shipped: Option<u64>,
    /// The last offset durable there.
    pub acked: Option<u64>,
    /// The last offset in its database.
    pub applied: Option<u64>,
    /// Records that it does not have yet.
    pub pending_records: u64,
    /// Their bytes.
    pub pending_bytes: u64,
}

/// How far the copy of a table is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Copy {
    /// The table.
    pub table: String,
    /// Rows done.
    pub rows_done: u64,
    /// Rows altogether, as far as known.
    pub rows_total: Option<u64>,
}

/// The replication slot.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// The WAL that the server keeps for it.
    pub retained_wal_bytes: u64,
}

/// The journal's size.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Journal {
    /// Bytes on disk.
    pub bytes: u64,
    /// The most that it may take.
    pub budget_bytes: u64,
    /// Damaged segments that were mended.
    pub mended_segments: u64,
    /// Since when all of it had been read in the background.
    pub scrubbed_seconds_ago: Option<u64>,
}

impl Status {
    /// The first stream that does not go on, and why.
    pub fn halted(&self) -> Option<(&Stream, &Halted)> {
        self.streams.iter().find_map(|stream| Some((stream, stream.halted.as_ref()?)))
    }

    /// The records that some peer does not have yet.
    pub fn pending_records(&self) -> u64 {
        let streams = self.peers.iter().flat_map(|peer| &peer.streams);
        streams.map(|stream| stream.pending_records).sum()
    }

    /// Rows copied, and rows to copy altogether.
    pub fn copied(&self) -> (u64, u64) {
        self.copy.iter().fold((0, 0), |(done, total), copy| {
            (done + copy.rows_done, total + copy.rows_total.unwrap_or(copy.rows_done))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_null_or_new_is_tolerated() {
        let text = r#"{"node":"shop","new":1,"streams":[{"origin":"a","applied":null,
            "halted":{"code":"apply","offset":7,"table":null,"detail":"no table"}}],
            "peers":[{"name":"hq","rtt_ms":null,"streams":[{"pending_records":5}]}],
            "copy":[{"table":"t","rows_done":3,"rows_total":null}],"slot":null}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert_eq!((status.pending_records(), status.copied()), (5, (3, 3)));
        assert_eq!(status.halted().unwrap().1.offset, Some(7));
    }
}
