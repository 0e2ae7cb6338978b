//! When a peer will have everything, at the pace at which it took what was pending before.
//!
//! What goes over the wire is compressed together with what went before, so how many bytes the pending records will take
//! there is known only when they have gone. Both sides of the division are therefore counted in one unit, in which
//! pending records are known and acknowledged ones were measured: their share of this node's disk. With the wire bytes
//! that such a share takes, by which both would be multiplied, the quotient is the same.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use thinwire_engine::model::{Offset, StreamId};

/// Over how long the pace is averaged: several round trips of a slow link, and short beside a contact.
const AVERAGED: Duration = Duration::from_secs(10);

/// How far a peer has a stream, and what it lacks of it.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// Which stream.
    pub id: StreamId,
    /// The last record that is durable there.
    pub acked: Offset,
    /// How many records that are durable here it lacks.
    pub records: u64,
    /// What a record takes on this node's disk, on average.
    pub record_bytes: f64,
}

impl Pending {
    /// What the peer lacks, as it is on this node's disk.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of the bytes on a disk is neither negative nor beyond 64 bits"
    )]
    pub fn bytes(&self) -> u64 {
        (as_float(self.records) * self.record_bytes) as u64
    }
}

/// The pace of one peer.
#[derive(Debug, Default)]
pub struct Drain {
    before: Option<(Instant, BTreeMap<StreamId, Offset>)>,
    bytes_per_second: f64,
}

impl Drain {
    /// Told from time to time how far the peer has each stream. Time without a connection, and time in which nothing
    /// was pending, says nothing.
    pub fn observe(&mut self, streams: &[Pending], connected: bool, now: Instant) {
        let at = streams.iter().map(|stream| (stream.id, stream.acked)).collect();
        let Some((then, before)) = self.before.replace((now, at)) else { return };
        let acked: f64 = streams
            .iter()
            // What a peer had before it was first heard of was not shipped to it now.
            .filter_map(|stream| {
                let records = stream.acked.since(*before.get(&stream.id)?);
                Some(as_float(records) * stream.record_bytes)
            })
            .sum();
        let was_busy = acked > 0.0 || streams.iter().any(|stream| stream.records > 0);
        let seconds = (now - then).as_secs_f64();
        if connected && was_busy && seconds > 0.0 {
            let weight = 1.0 - (-seconds / AVERAGED.as_secs_f64()).exp();
            self.bytes_per_second += (acked / seconds - self.bytes_per_second) * weight;
        }
    }

    /// Until nothing is pending; `None` if nothing was ever taken.
    pub fn eta_seconds(&self, pending_bytes: u64) -> Option<u64> {
        if pending_bytes == 0 {
            return Some(0);
        }
        let seconds = as_float(pending_bytes) / self.bytes_per_second;
        // A pace that has sunk to nothing would make it a number that no clock can show.
        (seconds < FOREVER_SECONDS).then(|| Duration::from_secs_f64(seconds).as_secs())
    }
}

/// A hundred years.
const FOREVER_SECONDS: f64 = 3.2e9;

#[expect(clippy::cast_precision_loss, reason = "an estimate needs no more than 52 bits")]
fn as_float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use thinwire_engine::model::{Epoch, Origin};

    use super::*;

    fn at(acked: u64, records: u64) -> [Pending; 1] {
        let id =
            StreamId { origin: Origin::from_bytes([1; 16]), epoch: Epoch::from_bytes([0; 16]) };
        [Pending { id, acked: Offset::new(acked), records, record_bytes: 50.0 }]
    }

    #[test]
    fn what_is_pending_takes_as_long_as_what_was_taken_did() {
        let (mut drain, start) = (Drain::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!((drain.eta_seconds(0), drain.eta_seconds(1)), (Some(0), None));
        // Had before it was heard of: no pace.
        drain.observe(&at(1_000_000, 9_000), true, after(0));
        assert_eq!(drain.eta_seconds(450_000), None);
        for second in 1..=60 {
            drain.observe(&at(1_000_000 + second * 100, 9_000 - second * 100), true, after(second));
        }
        // 3,000 records at 100 a second.
        assert!((29..=31).contains(&drain.eta_seconds(150_000).unwrap()));
        let pace = drain.bytes_per_second;
        // Neither a link that is down nor idleness changes it.
        for second in 61..=600 {
            drain.observe(&at(1_006_000, 3_000), false, after(second));
        }
        drain.observe(&at(1_006_000, 0), true, after(601));
        assert_eq!(drain.bytes_per_second, pace);
        // A link that is up and takes nothing does.
        for second in 602..=5_000 {
            drain.observe(&at(1_006_000, 3_000), true, after(second));
        }
        assert_eq!(drain.eta_seconds(150_000), None);
    }
}
