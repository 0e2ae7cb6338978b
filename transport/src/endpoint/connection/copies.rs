//! Copies that the peer needs itself, or asks for on behalf of nodes behind it: told to the program, one after the other.

use std::convert::Infallible;

use thinwire_engine::model::StreamId;
use tokio::time::{Instant, sleep_until};

use super::{Conversation, End};
use crate::{endpoint::node::Event, frame::CopyRequest, session::Violation};

impl Conversation {
    /// What the peer needs of a stream was trimmed.
    pub(super) fn copy_needed(&self, stream: StreamId) {
        let peer = &self.link.peer;
        tracing::info!(peer = peer.name, %stream, "a copy is needed: what the peer lacks was trimmed");
        self.needs().insert(stream);
        self.copies.notify_one();
    }

    /// The peer asks for a copy, which it must be among those to carry.
    pub(super) fn copy_requested(&self, request: CopyRequest) -> Result<(), Violation> {
        let (own, peer, stream) = (self.node.journal.own(), &self.link.peer, request.stream);
        if !peer.ships(own, stream)
            || request.audience.is_empty()
            || !request.carriers.contains(&peer.origin())
        {
            return Err(Violation(format!(
                "asks for a copy of {stream} that is not its to ask for"
            )));
        }
        let mut named = request.audience.iter().chain(&request.carriers);
        if named.any(|node| *node == own || *node == stream.origin) {
            return Err(Violation(format!("asks for a copy of {stream} for who cannot need it")));
        }
        // Of what is not held nothing was trimmed.
        if self.node.journal.stream(stream).is_some() {
            self.link.order(request)?;
            self.copies.notify_one();
        }
        Ok(())
    }

    /// Has the program make copies, at the pace at which it listens.
    pub(super) async fn tell_of_copies(&self) -> Result<Infallible, End> {
        let peer = &self.link.peer;
        loop {
            let needed = self.needs().pop_first();
            if let Some(stream) = needed {
                let (peer, origin) = (peer.name.clone(), peer.origin());
                self.node.emit(Event::CopyNeeded { peer, origin, stream }).await;
                continue;
            }
            let (ordered, due) = self.link.next_order(Instant::now());
            if let Some(CopyRequest { stream, audience, carriers }) = ordered {
                let (peer, origin) = (peer.name.clone(), peer.origin());
                let event = Event::CopyRequested { peer, origin, stream, audience, carriers };
                self.node.emit(event).await;
                continue;
            }
            let is_due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.copies.notified() => {}
                () = is_due => {}
            }
        }
    }
}
