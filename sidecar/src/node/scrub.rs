//! Reading all of the journal in the background, a segment now and then: damage is found while a peer has what it hit.
//!
//! What is found counts as met by any reader, and is mended like that. A segment is read at once and then none for
//! long, so that a day's reading of a large journal is a few minutes of a processor.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use thinwire_engine::{Error, journal::Stream, model::Offset};
use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tracing::{debug, warn};

use super::{Node, lock};

/// At most that often, however small the journal is.
const PAUSE_MIN: Duration = Duration::from_millis(100);

impl Node {
    pub(super) async fn scrub(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let every = self.config.journal.scrub;
        if every.is_zero() {
            return;
        }
        tokio::select! {
            () = self.scrub_for_ever(every) => {}
            _ = stopped.changed() => {}
        }
    }

    async fn scrub_for_ever(&self, every: Duration) {
        loop {
            let segments: Vec<_> = self.journal.streams().into_iter().flat_map(segments).collect();
            let count = u32::try_from(segments.len()).unwrap_or(u32::MAX);
            let pause = (every / count.saturating_add(1)).max(PAUSE_MIN);
            for (stream, base) in segments {
                sleep(pause).await;
                scrub(stream, base).await;
            }
            // Also when there is nothing to read yet.
            sleep(pause).await;
            *lock(&self.scrubbed) = Some(Instant::now());
        }
    }

    /// How long ago the whole journal was last found to be read.
    pub(super) fn scrubbed_seconds_ago(&self) -> Option<u64> {
        lock(&self.scrubbed).map(|at| at.elapsed().as_secs())
    }
}

fn segments(stream: Arc<Stream>) -> impl Iterator<Item = (Arc<Stream>, Offset)> {
    let bases = stream.segments();
    bases.into_iter().map(move |base| (stream.clone(), base))
}

async fn scrub(stream: Arc<Stream>, base: Offset) {
    let id = stream.id();
    match spawn_blocking(move || stream.scrub(base)).await {
        Ok(Ok(())) => debug!(stream = %id, segment = %base, "read in the background"),
        Ok(Err(Error::Trimmed { .. })) | Err(_) => {}
        Ok(Err(error)) => warn!(stream = %id, %error, "found in the background"),
    }
}
