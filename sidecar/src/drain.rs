//! When a peer will have everything, at the pace at which it took what was pending before, and what that will cost.
//!
//! What goes over the wire is compressed together with what went before, so how many bytes the pending records will take
//! there is known only when they have gone. Both sides of the division are therefore counted in one unit, in which
//! pending records are known and acknowledged ones were measured: their share of this node's disk. With the wire bytes
//! that such a share takes, by which both would be multiplied, the quotient is the same. Those are measured too, whole
//! packets in both directions, because a budget is counted in them.

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
    before: Option<Before>,
    bytes_per_second: f64,
    /// Bytes of this node's disk that were taken lately, and of the link that took them.
    taken: f64,
    carried: f64,
}

#[derive(Debug)]
struct Before {
    at: Instant,
    acked: BTreeMap<StreamId, Offset>,
    carried: u64,
}

impl Drain {
    /// Told from time to time how far the peer has each stream, and how many bytes the link to it has carried since the
    /// start. Time without a connection, and time in which nothing was pending, says nothing.
    pub fn observe(&mut self, streams: &[Pending], carried: u64, connected: bool, now: Instant) {
        let acked = streams.iter().map(|stream| (stream.id, stream.acked)).collect();
        let new = Before { at: now, acked, carried };
        let Some(Before { at: then, acked: before, carried: carried_before }) =
            self.before.replace(new)
        else {
            return;
        };
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
            self.taken = self.taken * SHARE_KEPT.powf(seconds) + acked;
            self.carried = self.carried * SHARE_KEPT.powf(seconds)
                + as_float(carried.saturating_sub(carried_before));
        }
    }

    /// What the link will carry until nothing is pending, packets' headers and acknowledgements included; `None` if
    /// too little was taken to tell.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it saturates, and nothing that is counted is negative"
    )]
    pub fn wire_bytes(&self, pending_bytes: u64) -> Option<u64> {
        match pending_bytes {
            0 => Some(0),
            _ if self.taken < TAKEN_MIN => None,
            pending => Some((as_float(pending) * self.carried / self.taken) as u64),
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

/// What of a second's measure still counts a second later: half of it after five minutes of work.
const SHARE_KEPT: f64 = 0.997_692;

/// Less says more about greetings and acknowledgements than about records.
const TAKEN_MIN: f64 = 4_096.0;

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
        assert_eq!((drain.wire_bytes(0), drain.wire_bytes(1)), (Some(0), None));
        // Had before it was heard of: no pace.
        drain.observe(&at(1_000_000, 9_000), 0, true, after(0));
        assert_eq!(drain.eta_seconds(450_000), None);
        for second in 1..=60 {
            let (acked, left) = (1_000_000 + second * 100, 9_000 - second * 100);
            drain.observe(&at(acked, left), second * 500, true, after(second));
        }
        // 3,000 records at 100 a second.
        assert!((29..=31).contains(&drain.eta_seconds(150_000).unwrap()));
        // Of each 5,000 bytes on disk the link carried 500.
        assert!((14_900..=15_100).contains(&drain.wire_bytes(150_000).unwrap()));
        let pace = drain.bytes_per_second;
        // Neither a link that is down nor idleness changes it.
        for second in 61..=600 {
            drain.observe(&at(1_006_000, 3_000), 99_999, false, after(second));
        }
        drain.observe(&at(1_006_000, 0), 99_999, true, after(601));
        assert_eq!(drain.bytes_per_second, pace);
        // A link that is up and takes nothing does.
        for second in 602..=5_000 {
            drain.observe(&at(1_006_000, 3_000), 99_999, true, after(second));
        }
        assert_eq!(drain.eta_seconds(150_000), None);
    }
}
