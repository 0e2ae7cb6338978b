//! Housekeeping: trimming what everybody has, and remembering what peers said they have.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use thinwire_engine::{
    journal::{Journal, Pressure, Stream},
    model::{HaltedBy, Offset, Origin},
};
use thinwire_transport::{PeerStatus, PeerStream};
use tokio::{sync::watch, time::sleep};
use tracing::{debug, warn};

use super::{Node, lock};
use crate::{drain::Pending, retention::Retention, state::Ack};

/// A full journal holds up its writers until it is trimmed, so this is also how long they wait at most.
const PAUSE: Duration = Duration::from_secs(1);
/// Positions are remembered less often: an old one only costs asking.
const REMEMBER_EVERY: u32 = 10;

impl Node {
    pub(super) async fn keep(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let mut retention = Retention::new(self.config.journal.retention);
        for round in 0_u32.. {
            tokio::select! {
                () = sleep(PAUSE) => {}
                _ = stopped.changed() => return,
            }
            self.trim(&mut retention).await;
            self.foresee();
            self.clock_peers();
            if round % REMEMBER_EVERY == 0 {
                self.remember();
            }
        }
    }

    /// Remembers what peers said they have, and what links to them have cost.
    pub(super) fn remember(&self) {
        self.remember_costs();
        for peer in self.transport.peers() {
            for at in &peer.streams {
                let stream = self.journal.stream(at.id);
                if stream.is_some_and(|stream| stream.halted_by(HaltedBy::Transport).is_some()) {
                    // What was acknowledged before tells a later life why it stands still.
                    continue;
                }
                let ack =
                    Ack { peer: peer.origin, stream: at.id, acked: at.acked, applied: at.applied };
                self.state.put(&ack);
            }
        }
    }

    async fn trim(&self, retention: &mut Retention) {
        let pressed = self.journal.pressure() >= Pressure::Retention;
        let peers: BTreeMap<_, _> =
            self.transport.peers().into_iter().map(|peer| (peer.origin, peer)).collect();
        for stream in self.journal.streams() {
            let consumers = self.consumers(&stream, &peers);
            let upto = retention.decide(stream.id(), consumers, pressed, Instant::now());
            if upto < stream.watermarks().first {
                continue;
            }
            let trimmed = stream.clone();
            let outcome = tokio::task::spawn_blocking(move || trimmed.trim(upto, pressed)).await;
            match outcome {
                Ok(Ok(0)) | Err(_) => {}
                Ok(Ok(bytes)) => debug!(stream = %stream.id(), bytes, "trimmed"),
                Ok(Err(error)) => warn!(stream = %stream.id(), %error, "cannot trim"),
            }
        }
    }

    fn foresee(&self) {
        let streams = self.journal.streams();
        let usages: Vec<_> =
            streams.iter().map(|stream| (stream.id(), stream.allowance())).collect();
        lock(&self.forecast).observe(&usages, Instant::now());
    }

    /// Follows the pace at which peers take what is pending.
    fn clock_peers(&self) {
        let now = Instant::now();
        let mut drains = lock(&self.drains);
        for peer in self.transport.peers() {
            let pending: Vec<_> =
                peer.streams.iter().filter_map(|at| pending(&self.journal, at)).collect();
            let carried = peer.bytes_sent.saturating_add(peer.bytes_received);
            let drain = drains.entry(peer.origin).or_default();
            drain.observe(&pending, carried, peer.connected, now);
        }
    }

    /// What each of those who need the stream has of it.
    fn consumers(&self, stream: &Stream, peers: &BTreeMap<Origin, PeerStatus>) -> Vec<Offset> {
        let (id, own) = (stream.id(), self.journal.own());
        let mut consumers = Vec::new();
        if self.config.apply.is_some() && id.origin != own {
            consumers.push(stream.watermarks().applied);
        }
        let fellows = self.peers();
        for peer in &fellows.known {
            if peer.ships(own, id) {
                let status = peers.get(&peer.origin());
                // A peer that was never here may want it.
                let wants = status.and_then(|peer| peer.wants.as_ref());
                if wants.is_some_and(|wants| !wants.include(own, id.origin)) {
                    continue;
                }
                let at = status.and_then(|peer| peer.streams.iter().find(|at| at.id == id));
                consumers.push(at.map_or(Offset::ZERO, |at| at.acked));
            }
        }
        if id.origin == own && fellows.has_keyless {
            // It will need everything once its key is known.
            consumers.push(Offset::ZERO);
        }
        consumers
    }
}

/// What a peer lacks of a stream that is held here.
#[expect(clippy::cast_precision_loss, reason = "an average needs no more than 52 bits")]
pub(super) fn pending(journal: &Journal, at: &PeerStream) -> Option<Pending> {
    let marks = journal.stream(at.id)?.watermarks();
    let held = marks.synced.since(marks.first.prev()).max(1);
    Some(Pending {
        id: at.id,
        acked: at.acked,
        records: marks.synced.since(at.acked),
        record_bytes: marks.bytes as f64 / held as f64,
    })
}
