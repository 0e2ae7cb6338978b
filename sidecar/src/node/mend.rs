//! Mending what the disk has damaged, with what peers hold of it.
//!
//! Each damage that was met in a stream, or a stream that the disk did not let be opened, is a patient until it is well.
//! One that could not be opened is opened again first: a full disk, or one that failed once, mends itself. Of what is
//! damaged any peer that carries the stream is asked; what it gives is believed only if it is proven. Where nobody has
//! the records, the stream stays halted with the place in its status, and is tried again for ever.

use std::{
    ops::Range,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use thinwire_engine::{
    Error,
    journal::{Mended, Mending},
    model::{HaltedBy, Offset, StreamId},
};
use thinwire_transport::session::JOURNAL_CORRUPT;
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{Node, lock, start_capture};

/// A stream and a record in it that cannot be read; none of a stream that cannot be opened.
pub(super) type Patient = (StreamId, Option<Offset>);

/// How often it is looked for damage that was met.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two attempts: doubled from the first to the second.
const TRY_AGAIN: Duration = Duration::from_secs(1);
const TRY_AGAIN_MAX: Duration = Duration::from_secs(600);
/// How long a peer may say nothing before another one is asked. Thin links are slow, and may be down.
const PATIENCE: Duration = Duration::from_secs(600);

impl Node {
    pub(super) async fn look_for_damage(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        loop {
            for (id, damage) in self.damaged() {
                if lock(&self.patients).insert((id, damage)) {
                    tokio::spawn(self.clone().treat(id, damage, stopped.clone()));
                }
            }
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                _ = stopped.changed() => return,
            }
        }
    }

    /// All that is to be mended.
    fn damaged(&self) -> Vec<Patient> {
        let met = self.journal.streams().into_iter().flat_map(|stream| {
            let damage = stream.damage().borrow().clone();
            damage.into_iter().map(move |offset| (stream.id(), Some(offset)))
        });
        let unopened = lock(&self.unopened);
        let closed = unopened.iter().filter(|unopened| may_pass(&unopened.error));
        met.chain(closed.map(|unopened| (unopened.id, None))).collect()
    }

    async fn treat(
        self: Arc<Self>,
        id: StreamId,
        damage: Option<Offset>,
        mut stopped: watch::Receiver<bool>,
    ) {
        let mended = async {
            let (mut pause, mut begun) = (TRY_AGAIN, None);
            // Each attempt looks at the file anew: somebody may have put a sound one in its place. If it is as it was, what
            // came over a thin link for one gap is not fetched again because nobody has another.
            while !self.mend(id, damage, &mut begun).await {
                sleep(pause).await;
                pause = (pause * 2).min(TRY_AGAIN_MAX);
            }
        };
        tokio::select! {
            () = mended => {}
            _ = stopped.changed() => {}
        }
        lock(&self.patients).remove(&(id, damage));
    }

    /// Mends one segment; says whether nothing is left to do. What was `begun` by an attempt before is gone on with, and
    /// left for the next.
    async fn mend(
        &self,
        id: StreamId,
        damage: Option<Offset>,
        begun: &mut Option<Mending>,
    ) -> bool {
        if damage.is_none() && begun.is_none() {
            match self.reopen(id).await {
                Ok(()) => return self.discharge(id),
                Err(is_damaged) if !is_damaged => return false,
                Err(_) => {}
            }
        }
        let attempt = match self.begin(id, damage, begun.take()).await {
            Ok(Some(mending)) => self.fill(id, mending).await,
            Ok(None) => return self.reopen(id).await.is_ok() && self.discharge(id),
            Err(error) => Err(error),
        };
        match attempt {
            Ok(Ok(mended)) => {
                self.mended.fetch_add(1, Relaxed);
                let (segment, fetched) = (mended.segment.display(), mended.fetched);
                info!(stream = %id, %segment, fetched, "mended a damaged segment");
                (damage.is_some() || self.reopen(id).await.is_ok()) && self.discharge(id)
            }
            Ok(Err(unfinished)) => {
                *begun = Some(unfinished).filter(Mending::has_begun);
                false
            }
            Err(Error::Trimmed { .. }) => true,
            Err(error) => {
                warn!(stream = %id, %error, "the damage cannot be mended");
                false
            }
        }
    }

    /// `None` if there is nothing to mend.
    async fn begin(
        &self,
        id: StreamId,
        damage: Option<Offset>,
        begun: Option<Mending>,
    ) -> Result<Option<Mending>, Error> {
        let journal = self.journal.clone();
        blocking(move || match (begun, damage, journal.stream(id)) {
            (Some(begun), ..) => begun.again().map(Some),
            (None, Some(offset), Some(stream)) => stream.mend(offset).map(Some),
            _ => journal.mend_unopened(id),
        })
        .await
    }

    /// Asks everybody for what is missing; returns what is not finished if nobody gives it, or there is no room for it.
    async fn fill(
        &self,
        id: StreamId,
        mut mending: Mending,
    ) -> Result<Result<Mended, Mending>, Error> {
        let no_room = |mending, path: PathBuf| {
            let path = path.display();
            warn!(stream = %id, %path, "no room for what is mended; what came so far is kept");
            Ok(Err(mending))
        };
        let went_on;
        (mending, went_on) = at_disk(mending, Mending::go_on).await;
        match went_on {
            Err(Error::NoSpace { path }) => return no_room(mending, path),
            went_on => went_on?,
        }
        while let Some(wanted) = mending.wanted() {
            let (from, until) = (wanted.start, wanted.end);
            for peer in self.holders(id) {
                let Some(still) = mending.wanted() else { break };
                let given;
                (mending, given) = self.take_from(&peer, id, mending, still).await;
                match given {
                    Ok(()) => info!(stream = %id, peer, %from, %until, "got lost records back"),
                    Err(Why::Peer(why)) => {
                        info!(stream = %id, peer, %from, %until, why, "lost records not given")
                    }
                    Err(Why::Disk(Error::NoSpace { path })) => return no_room(mending, path),
                    Err(Why::Disk(error)) => return Err(error),
                }
            }
            if mending.wanted().is_some_and(|still| still.start <= from) {
                warn!(stream = %id, %from, %until, "lost records are with no peer that can be reached");
                return Ok(Err(mending));
            }
        }
        blocking(move || mending.finish()).await.map(Ok)
    }

    /// Who may have records of a stream, the most likely first.
    fn holders(&self, id: StreamId) -> Vec<String> {
        let own = self.journal.own();
        let mut peers = self.peers().known.clone();
        peers.sort_by_key(|peer| !(peer.takes(own, id) || peer.ships(own, id)));
        peers.into_iter().map(|peer| peer.name).collect()
    }

    /// Takes what one peer gives.
    async fn take_from(
        &self,
        peer: &str,
        id: StreamId,
        mut mending: Mending,
        wanted: Range<Offset>,
    ) -> (Mending, Result<(), Why>) {
        let silent = || Err(Why::Peer(format!("nothing came for {} s", PATIENCE.as_secs())));
        let mut records = match timeout(PATIENCE, self.transport.fetch(peer, id, wanted)).await {
            Ok(Ok(records)) => records,
            Ok(Err(error)) => return (mending, Err(Why::Peer(error.to_string()))),
            Err(_) => return (mending, silent()),
        };
        loop {
            let records = match timeout(PATIENCE, records.next()).await {
                Ok(Ok(Some(records))) => records,
                Ok(Ok(None)) => return (mending, Ok(())),
                Ok(Err(error)) => return (mending, Err(Why::Peer(error.to_string()))),
                Err(_) => return (mending, silent()),
            };
            let given;
            (mending, given) = at_disk(mending, move |mending| mending.give(&records)).await;
            match given {
                Ok(()) => {}
                Err(error @ (Error::Io { .. } | Error::NoSpace { .. })) => {
                    return (mending, Err(Why::Disk(error)));
                }
                Err(error) => return (mending, Err(Why::Peer(error.to_string()))),
            }
        }
    }

    /// Opens a stream that could not be opened; says whether it is damaged if it still cannot. What is in the way is what
    /// its status shows.
    async fn reopen(&self, id: StreamId) -> Result<(), bool> {
        let journal = self.journal.clone();
        match blocking(move || journal.open_stream(id)).await {
            Ok(stream) => {
                lock(&self.unopened).retain(|unopened| unopened.id != id);
                if id.origin == self.journal.own()
                    && let Some(capture) = start_capture(&self.config, &self.state, stream)
                {
                    let _ = self.capture.set(capture);
                }
                Ok(())
            }
            Err(error) => {
                warn!(stream = %id, %error, "the stream still cannot be opened");
                let is_damaged = is_damage(&error);
                let mut unopened = lock(&self.unopened);
                if let Some(unopened) = unopened.iter_mut().find(|unopened| unopened.id == id) {
                    unopened.error = error;
                }
                Err(is_damaged)
            }
        }
    }

    /// Lets everybody go on with a stream that is sound again.
    fn discharge(&self, id: StreamId) -> bool {
        // Whoever met the damage while shipping may be gone for long.
        if let Some(stream) = self.journal.stream(id) {
            let said = stream.halted_by(HaltedBy::Transport);
            if said.is_some_and(|halt| halt.code == JOURNAL_CORRUPT) {
                stream.set_halted(HaltedBy::Transport, None);
            }
        }
        lock(&self.appliers).get(&id).inspect(|applier| applier.retry());
        true
    }
}

/// Why a peer gave no more.
enum Why {
    /// It, or the way to it.
    Peer(String),
    /// Our own disk.
    Disk(Error),
}

/// Whether bytes are not what was written, and nothing else is wrong.
fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Corrupt { .. })
}

/// Whether what keeps a stream from being opened may be mended, or go by itself.
pub(super) fn may_pass(error: &Error) -> bool {
    is_damage(error) || matches!(error, Error::Io { .. } | Error::NoSpace { .. })
}

/// Does something with a mending that touches the disk.
async fn at_disk(
    mut mending: Mending,
    work: impl FnOnce(&mut Mending) -> Result<(), Error> + Send + 'static,
) -> (Mending, Result<(), Error>) {
    finished(spawn_blocking(move || {
        let done = work(&mut mending);
        (mending, done)
    }))
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    finished(spawn_blocking(work)).await
}

async fn finished<T>(work: JoinHandle<T>) -> T {
    match work.await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The program ends.
            Err(_) => std::future::pending().await,
        },
    }
}
