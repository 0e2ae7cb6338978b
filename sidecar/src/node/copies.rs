//! Copies for peers that need records which are held no more: made here for the node's own stream, asked for on the
//! way to its origin for any other.
//!
//! A copy travels as part of its stream to the nodes named in it and those that carry it. A node that had to ask
//! watches the stream for it, and serves its peer from there.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use thinwire_engine::{
    journal::{Block, Stream},
    model::{Offset, Origin, Record, StreamId},
};
use thinwire_transport::Event;
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{Node, lock};

/// Who waits for a copy of which stream.
pub(super) type Waiting = BTreeSet<(Vec<Origin>, StreamId)>;

/// Between two attempts to ask somebody who is not connected.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How long a copy may be on its way before it is asked for again. Asked for twice, it is made twice.
const COPY_PATIENCE: Duration = Duration::from_secs(1_800);
/// How often the stream is looked at for a copy that was asked for, if nothing else wakes us.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Node {
    /// Does what the transport cannot do itself.
    pub(super) async fn attend_events(self: Arc<Self>, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            match event {
                Event::CopyNeeded { peer, origin, stream } => {
                    self.clone().provide(Some(peer), stream, vec![origin], Vec::new());
                }
                Event::CopyRequested { peer, stream, audience, carriers } => {
                    info!(%peer, %stream, "nodes behind the peer need a copy");
                    self.clone().provide(None, stream, audience, carriers);
                }
                Event::ListenFailed { reason } => drop(self.fatal.send(reason)),
            }
        }
    }

    /// Has a copy made, unless one for the same audience is on its way. A peer of ours is served from it.
    fn provide(
        self: Arc<Self>,
        peer: Option<String>,
        stream: StreamId,
        audience: Vec<Origin>,
        carriers: Vec<Origin>,
    ) {
        let wanted = (audience.clone(), stream);
        if !lock(&self.waiting).insert(wanted.clone()) {
            return;
        }
        tokio::spawn(async move {
            let begin = match stream.origin == self.journal.own() {
                true => self.copy_here(stream, audience, carriers).await,
                false => self.copy_elsewhere(stream, audience, carriers, peer.is_some()).await,
            };
            if let (Some(peer), Some(begin)) = (peer, begin) {
                self.transport.serve_from(&peer, stream, begin);
            }
            lock(&self.waiting).remove(&wanted);
        });
    }

    async fn copy_here(
        &self,
        stream: StreamId,
        audience: Vec<Origin>,
        carriers: Vec<Origin>,
    ) -> Option<Offset> {
        // An earlier life of the stream gets no copies any more.
        self.journal.stream(stream)?;
        info!("a peer needs records that are held no more; copying the tables for it");
        let copied = self.capture.get()?.request_copy(audience, carriers).await;
        if copied.is_err() {
            warn!("the tables were not copied; the peer is served when it connects again");
        }
        copied.ok()
    }

    /// Asks on the way to the stream's origin, and waits for the copy in the stream if we are the one to serve it. What
    /// was asked for may be lost on the way, so it is asked for again.
    async fn copy_elsewhere(
        &self,
        id: StreamId,
        audience: Vec<Origin>,
        mut carriers: Vec<Origin>,
        serves: bool,
    ) -> Option<Offset> {
        let stream = self.journal.stream(id)?;
        carriers.push(self.journal.own());
        let mut from = stream.watermarks().synced.next();
        loop {
            while !self.ask(id, &audience, &carriers) {
                sleep(ASK_AGAIN).await;
            }
            if !serves {
                return None;
            }
            let mut search = Search::new(stream.clone(), from, audience.clone());
            if let Ok(found) = timeout(COPY_PATIENCE, search.run()).await {
                return found;
            }
            warn!(stream = %id, "the copy that was asked for did not come; asking again");
            from = search.from;
        }
    }

    /// Asks the origin if it is a peer, else somebody else from whom the stream comes.
    fn ask(&self, id: StreamId, audience: &[Origin], carriers: &[Origin]) -> bool {
        let own = self.journal.own();
        let is_elsewhere =
            |origin: Origin| !audience.contains(&origin) && !carriers.contains(&origin);
        let mut sources: Vec<_> = self.config.peers.iter().collect();
        sources.sort_by_key(|peer| peer.origin() != id.origin);
        sources.into_iter().any(|peer| {
            peer.takes(own, id)
                && is_elsewhere(peer.origin())
                && self.transport.request_copy(&peer.name, id, audience.to_vec(), carriers.to_vec())
        })
    }
}

/// Looks for a whole copy for an audience in a stream.
struct Search {
    stream: Arc<Stream>,
    from: Offset,
    audience: Vec<Origin>,
    begun: Option<Offset>,
}

impl Search {
    fn new(stream: Arc<Stream>, from: Offset, audience: Vec<Origin>) -> Self {
        Self { stream, from, audience, begun: None }
    }

    /// Where it begins, once all of it is in the stream.
    async fn run(&mut self) -> Option<Offset> {
        let mut marks = self.stream.watch();
        let stream = self.stream.clone();
        let from = self.from;
        let mut reader = spawn_blocking(move || stream.read(from)).await.ok()?.ok()?;
        loop {
            let read = spawn_blocking(move || {
                let block = reader.next_block();
                (reader, block)
            });
            let block;
            (reader, block) = read.await.ok()?;
            match block {
                Ok(Some(block)) => {
                    if let Some(found) = self.look(&block) {
                        return Some(found);
                    }
                    self.from = self.begun.unwrap_or(block.last().next());
                }
                Ok(None) => drop(timeout(LOOK_AGAIN, marks.changed()).await),
                Err(error) => {
                    warn!(stream = %self.stream.id(), %error, "cannot look for the copy");
                    return None;
                }
            }
        }
    }

    fn look(&mut self, block: &Block) -> Option<Offset> {
        for (offset, record) in block.records.decode(block.first).map_while(Result::ok) {
            match record {
                Record::CopyBegin(copy) if copy.audience == self.audience => {
                    self.begun = Some(offset);
                }
                Record::CopyAbort => self.begun = None,
                Record::CopyEnd { .. } if self.begun.is_some() => return self.begun,
                _ => {}
            }
        }
        None
    }
}
