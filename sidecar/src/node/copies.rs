//! Copies for peers that need records which are held no more: made here for the node's own stream, asked for on the
//! way to its origin for any other.
//!
//! A copy travels as part of its stream to the nodes named in it and those that carry it. A node that had to ask
//! watches the stream for it, and serves its peer from there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use thinwire_engine::{
    journal::{Block, Stream},
    limits::AUDIENCE_MAX,
    model::{Offset, Origin, Record, StreamId},
};
use thinwire_transport::{Event, Peer};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{Node, lock};

/// The copies that are on their way: one a peer and stream for the peer itself, and one for all nodes behind it.
pub(super) type Waiting = BTreeMap<Wanted, Order>;

/// By whom a copy of which stream is wanted, and for whom. The name of a peer may be another node's while it is made.
type Wanted = (Origin, StreamId, For);

/// For whom a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum For {
    /// The peer, which is served from it.
    Peer,
    /// Nodes behind it.
    Others,
}

/// A copy that is on its way, and the one that is made when it is there.
#[derive(Debug, Default)]
pub(super) struct Order {
    audience: BTreeSet<Origin>,
    next: Option<Target>,
}

/// Who loads a copy, and who carries it to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Target {
    audience: BTreeSet<Origin>,
    carriers: BTreeSet<Origin>,
}

impl Order {
    /// Adds what is asked for, unless it is on its way, to what comes next; not if it is too much to be gathered.
    fn add(&mut self, target: Target) -> bool {
        if target.audience.is_subset(&self.audience) {
            return true;
        }
        let mut next = self.next.clone().unwrap_or_default();
        next.audience.extend(target.audience);
        next.carriers.extend(target.carriers);
        let fits = next.audience.len() <= GATHERED_MAX && next.carriers.len() <= CARRIERS_MAX;
        if fits {
            self.next = Some(next);
        }
        fits
    }

    /// What comes next is on its way from here on: as much as can be asked for at once, and the rest after it.
    fn go_on(&mut self) -> Option<Target> {
        let mut next = self.next.take()?;
        // We pass it on as well.
        let most = AUDIENCE_MAX - next.carriers.len() - 1;
        if let Some(first) = next.audience.iter().nth(most).copied() {
            let audience = next.audience.split_off(&first);
            self.next = Some(Target { audience, carriers: next.carriers.clone() });
        }
        // Who loads it passes it on as well.
        next.carriers.retain(|carrier| !next.audience.contains(carrier));
        self.audience.clone_from(&next.audience);
        Some(next)
    }
}

/// For how many nodes copies are gathered behind the one that is on its way.
const GATHERED_MAX: usize = 16 * AUDIENCE_MAX;
/// How many may pass them on, so that there is room beside them for who loads them.
const CARRIERS_MAX: usize = AUDIENCE_MAX / 2;
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
                Event::CopyNeeded { origin, stream, .. } => {
                    let target = Target { audience: [origin].into(), ..Target::default() };
                    self.provide((origin, stream, For::Peer), target);
                }
                Event::CopyRequested { peer, origin, stream, audience, carriers } => {
                    info!(%peer, %stream, "nodes behind the peer need a copy");
                    let (audience, carriers) =
                        (audience.into_iter().collect(), carriers.into_iter().collect());
                    self.provide((origin, stream, For::Others), Target { audience, carriers });
                }
                Event::ListenFailed { reason } => drop(self.fatal.send(reason)),
            }
        }
    }

    /// Has a copy made, after the one that is on its way for the same if there is one.
    fn provide(self: &Arc<Self>, wanted: Wanted, target: Target) {
        {
            let mut waiting = lock(&self.waiting);
            let is_busy = waiting.contains_key(&wanted);
            if !waiting.entry(wanted).or_default().add(target) {
                warn!(stream = %wanted.1, "a copy for too many nodes is not made");
            }
            if is_busy {
                return;
            }
        }
        let this = self.clone();
        tokio::spawn(async move {
            while let Some(target) = this.next_copy(wanted) {
                this.provide_one(wanted, target).await;
            }
        });
    }

    /// What is to be made next; once there is nothing, it is not waited for any more.
    fn next_copy(&self, wanted: Wanted) -> Option<Target> {
        let mut waiting = lock(&self.waiting);
        let next = waiting.get_mut(&wanted).and_then(Order::go_on);
        if next.is_none() {
            waiting.remove(&wanted);
        }
        next
    }

    async fn provide_one(&self, (peer, stream, whom): Wanted, target: Target) {
        let audience = target.audience.into_iter().collect();
        let carriers = target.carriers.into_iter().collect();
        let serves = whom == For::Peer;
        let begin = match stream.origin == self.journal.own() {
            true => self.copy_here(stream, audience, carriers).await,
            false => self.copy_elsewhere((peer, stream, whom), audience, carriers).await,
        };
        if let Some(begin) = begin.filter(|_| serves) {
            self.transport.serve_from(peer, stream, begin);
        }
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
        (peer, id, whom): Wanted,
        audience: Vec<Origin>,
        mut carriers: Vec<Origin>,
    ) -> Option<Offset> {
        let stream = self.journal.stream(id)?;
        carriers.push(self.journal.own());
        let mut from = stream.watermarks().synced.next();
        loop {
            let asked = self.ask_somebody((peer, id, whom), &audience, &carriers).await;
            if !asked || whom == For::Others {
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

    /// Asks the origin if it is a peer, else somebody else from whom the stream comes, as soon as one is there. Not any
    /// longer than the copy's peer is one; and what is for others, which they ask for again, keeps what they ask for
    /// later waiting no longer than they wait, and not at all if nobody can be asked.
    async fn ask_somebody(
        &self,
        (peer, id, whom): Wanted,
        audience: &[Origin],
        carriers: &[Origin],
    ) -> bool {
        let is_named = |origin: Origin| audience.contains(&origin) || carriers.contains(&origin);
        let begun = Instant::now();
        loop {
            let peers = self.peers();
            let sources = sources(&peers.known, self.journal.own(), id, is_named);
            let is_over = sources.is_empty() || begun.elapsed() > COPY_PATIENCE;
            let asks = |source: &Peer| {
                let (audience, carriers) = (audience.to_vec(), carriers.to_vec());
                self.transport.request_copy(&source.name, id, audience, carriers)
            };
            if sources.into_iter().any(asks) {
                return true;
            }
            if whom == For::Others && is_over {
                warn!(stream = %id, "there is nobody to ask for a copy that others need");
                return false;
            }
            sleep(ASK_AGAIN).await;
            if !self.peers().known.iter().any(|known| known.origin() == peer) {
                return false;
            }
        }
    }
}

/// From whom the stream comes, its origin first, without those that wait for the copy or pass it on.
fn sources(
    peers: &[Peer],
    own: Origin,
    id: StreamId,
    is_named: impl Fn(Origin) -> bool,
) -> Vec<&Peer> {
    let is_source = |peer: &&Peer| peer.takes(own, id) && !is_named(peer.origin());
    let mut sources: Vec<_> = peers.iter().filter(is_source).collect();
    sources.sort_by_key(|peer| peer.origin() != id.origin);
    sources
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
                // It may be one with a copy that others have asked for.
                Record::CopyBegin(copy) => {
                    let all = self.audience.iter().all(|node| copy.audience.contains(node));
                    self.begun = Some(offset).filter(|_| all);
                }
                Record::CopyAbort => self.begun = None,
                Record::CopyEnd { .. } if self.begun.is_some() => return self.begun,
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use thinwire_engine::model::Epoch;
    use thinwire_transport::{PublicKey, Rules, Streams};

    use super::*;

    fn target(audience: &[u8], carriers: &[u8]) -> Target {
        let origins =
            |numbers: &[u8]| numbers.iter().map(|it| Origin::from_bytes([*it; 16])).collect();
        Target { audience: origins(audience), carriers: origins(carriers) }
    }

    #[test]
    fn what_is_asked_for_while_a_copy_is_on_its_way_becomes_one_more() {
        let mut order = Order::default();
        order.add(target(&[1], &[9]));
        assert_eq!(order.go_on(), Some(target(&[1], &[9])));
        for node in 1..=100 {
            order.add(target(&[node], &[9, 5]));
        }
        let rest: Vec<_> = (2..=100).collect();
        let next = order.go_on().unwrap();
        assert_eq!(next.audience, target(&rest, &[]).audience);
        assert!(next.carriers.is_disjoint(&next.audience));
        assert_eq!(order.go_on(), None);
    }

    fn many(range: Range<u32>) -> BTreeSet<Origin> {
        let origin = |number: u32| {
            let mut bytes = [7; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            Origin::from_bytes(bytes)
        };
        range.map(origin).collect()
    }

    #[test]
    fn no_more_is_asked_for_at_once_than_can_be_and_the_rest_comes_after_it() {
        let mut order = Order::default();
        let carriers = many(0..3);
        for first in (0..4_000).step_by(1_000) {
            let audience = many(first..first + 1_000);
            assert!(order.add(Target { audience, carriers: carriers.clone() }));
        }
        let mut audience = BTreeSet::new();
        while let Some(next) = order.go_on() {
            assert!(next.audience.len() + next.carriers.len() < AUDIENCE_MAX);
            // Whoever has loaded another part passes this one on.
            let passes =
                |node: &Origin| next.audience.contains(node) || next.carriers.contains(node);
            assert!(carriers.iter().all(passes));
            audience.extend(next.audience);
        }
        assert_eq!(audience, many(0..4_000));
    }

    #[test]
    fn what_is_too_much_is_not_gathered() {
        let mut order = Order::default();
        let add = |order: &mut Order, audience, carriers| order.add(Target { audience, carriers });
        assert!(add(&mut order, many(0..1), many(0..10)));
        assert!(!add(&mut order, many(0..1), many(0..1_000)));
        assert!(!add(&mut order, many(0..20_000), many(0..1)));
        assert_eq!(order.go_on().map(|next| next.audience), Some(many(0..1)));
        assert_eq!(order.go_on(), None);
    }

    fn peer(number: u8) -> Peer {
        Peer {
            name: number.to_string(),
            key: PublicKey::from_bytes([number; 32]),
            address: None,
            send: Streams::All,
            receive: Streams::All,
            rules: Rules::default(),
        }
    }

    #[test]
    fn nobody_is_asked_who_is_named_and_the_origin_is_asked_first() {
        let (peers, own) = ([peer(1), peer(2)], peer(9).origin());
        let origins = [peers[0].origin(), peers[1].origin()];
        let id = StreamId { origin: origins[1], epoch: Epoch::from_bytes([0; 16]) };
        let asked = |named: &[Origin]| {
            let found = sources(&peers, own, id, |origin| named.contains(&origin));
            found.into_iter().map(|peer| peer.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(asked(&[]), ["2", "1"]);
        assert_eq!(asked(&origins[1..]), ["1"]);
        assert!(asked(&origins).is_empty());
    }
}
