//! Streams between nodes, over links that are slow, lossy, metered, or mostly down.
//!
//! Participants: two *nodes*, each with an ed25519 identity and a journal. Each has the other's public key and
//! says which streams it ships and which it takes. One exchange:
//!
//! ```text
//!  edge (dials)                                          hub (listens)
//!    | ── QUIC handshake, raw public keys, pinned ──────────▶ |
//!    | ── hello: version, what I want, what I hold ─────────▶ |
//!    | ◀───────── hello ────────────────────────────────────  |   each side starts to ship at once,
//!    | ◀══ open stream 0 at record 1201 · records · … ══════  |   behind what the other holds
//!    | ══ open stream 0 at record 77 · records · … ═════════▶ |
//!    | ── ack: durable 1400, applied 1395, checksum ────────▶ |
//!    |      ✂ link down for an hour: probes, 85 bytes each    |   the connection lives on
//!    | ◀══ records 1401 … ══════════════════════════════════  |
//! ```
//!
//! Goals: after any cut at most what was in flight is sent again; nothing is skipped, taken twice, or taken
//! from who may not send it; a mismatch of the two copies is found and named; memory is bounded whatever the peer
//! does; no user action is ever needed for a link to come back.
//!
//! Non-goals: reading what rows say, ordering between streams, hiding who talks to whom.
//!
//! The map: [`identity`] who we are, [`peer`] whom we trust with what, [`frame`] the bytes, [`session`]
//! the two halves of the conversation without any socket or clock, [`wire`] compression, [`congestion`] and [`backoff`]
//! the arithmetic of when to send, [`endpoint`] the driver with all tokio and quinn in it.
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod backoff;
pub mod congestion;
pub mod endpoint;
pub mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod identity;
pub mod peer;
pub mod session;
pub mod wire;

pub use endpoint::{
    Bar, Event, FetchError, Fetching, Network, Options, PeerStatus, PeerStream, StartError,
    Transport, Unwelcome,
};
pub use identity::{Identity, PublicKey};
pub use peer::{Compression, Congestion, Peer, Rules, Streams};
