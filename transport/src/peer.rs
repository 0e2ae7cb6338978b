//! Whom we exchange streams with, as the program's configuration says.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thinwire_engine::model::{Origin, StreamId};

use crate::identity::PublicKey;

/// Another node, and which streams go to it and come from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it is called here. A label; its key is what counts.
    pub name: String,
    /// Who it is.
    pub key: PublicKey,
    /// Where to dial it, `host:port`; without it the peer must dial us.
    pub address: Option<String>,
    /// Which streams are shipped to it: [`Streams::Own`] is ours.
    pub send: Streams,
    /// Which streams are taken from it: [`Streams::Own`] is its.
    pub receive: Streams,
    /// How the link to it is used.
    pub rules: Rules,
}

/// How the link to a peer is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Bits a second of whole packets that leave for it at most.
    pub rate_limit: Option<u64>,
    /// How much may be under way.
    pub congestion: Congestion,
    /// How records become few bytes.
    pub compression: Compression,
    /// How often a silent connection to it is used, if we dialled it; half a minute is what address translation remembers.
    pub keep_alive: Option<Duration>,
    /// Whether nothing is exchanged with it until [`Transport::bar`](crate::Transport::bar) says that it may be.
    pub starts_barred: bool,
}

/// What says how much may be under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// Our own controller, which takes no loss for a full link. Right where the link is ours.
    #[default]
    Thin,
    /// Cubic, which yields at each loss, as TCP does. Right where a link is shared with what would suffer otherwise.
    Cubic,
}

/// How records that are shipped become few bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Packets that know what rows are, and zstd where the link is faster than they can be made.
    #[default]
    Packets,
    /// Zstd over all that was shipped before.
    Zstd,
    /// LZ4 over the last 64 KiB: less work than zstd, and more bytes.
    Lz4,
    /// None, for links that compress by themselves, or to look at what is shipped.
    None,
}

/// A choice of streams that a node ships.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Streams {
    /// The one of the node that ships.
    #[default]
    Own,
    /// All that it holds.
    All,
    /// Those of these origins.
    Listed(Vec<Origin>),
}

impl Streams {
    /// Whether a stream of `origin` is among those that `shipper` may ship.
    pub fn include(&self, shipper: Origin, origin: Origin) -> bool {
        match self {
            Self::Own => origin == shipper,
            Self::All => true,
            Self::Listed(origins) => origins.contains(&origin),
        }
    }
}

impl Peer {
    /// The name that the peer's own streams bear.
    pub fn origin(&self) -> Origin {
        self.key.origin()
    }

    /// Whether the node `own` ships this stream to the peer, as far as the configuration here goes. Never the
    /// peer's own back to it.
    pub fn ships(&self, own: Origin, stream: StreamId) -> bool {
        stream.origin != self.origin() && self.send.include(own, stream.origin)
    }

    /// Whether the node `own` takes this stream from the peer. Never its own.
    pub fn takes(&self, own: Origin, stream: StreamId) -> bool {
        stream.origin != own && self.receive.include(self.origin(), stream.origin)
    }
}

#[cfg(test)]
mod tests {
    use thinwire_engine::model::Epoch;

    use super::*;

    fn stream(origin: Origin) -> StreamId {
        StreamId { origin, epoch: Epoch::from_bytes([0; 16]) }
    }

    #[test]
    fn nobody_is_sent_its_own_stream_and_nobody_takes_its_own() {
        let own = Origin::from_bytes([1; 16]);
        let third = Origin::from_bytes([2; 16]);
        let key = PublicKey::from_bytes([9; 32]);
        let mut peer = Peer {
            name: "p".into(),
            key,
            address: None,
            send: Streams::All,
            receive: Streams::All,
            rules: Rules::default(),
        };
        assert!(!peer.ships(own, stream(key.origin())));
        assert!(peer.ships(own, stream(own)) && peer.ships(own, stream(third)));
        assert!(!peer.takes(own, stream(own)));
        assert!(peer.takes(own, stream(key.origin())) && peer.takes(own, stream(third)));

        (peer.send, peer.receive) = (Streams::Own, Streams::Own);
        assert!(peer.ships(own, stream(own)) && !peer.ships(own, stream(third)));
        assert!(peer.takes(own, stream(key.origin())) && !peer.takes(own, stream(third)));

        peer.send = Streams::Listed(vec![third]);
        assert!(!peer.ships(own, stream(own)) && peer.ships(own, stream(third)));
    }
}
