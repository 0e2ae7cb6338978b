//! Copies that a peer asks for, for nodes behind it: gathered, so that few are ordered however often it asks. Told the
//! time; asks nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use thinwire_engine::{
    limits::AUDIENCE_MAX,
    model::{Origin, StreamId},
};
use tokio::time::Instant;

use crate::{frame::CopyRequest, session::Violation};

/// What one peer has asked for.
#[derive(Debug, Default)]
pub(crate) struct Orders(BTreeMap<StreamId, Order>);

#[derive(Clone, Debug)]
struct Order {
    audience: BTreeSet<Origin>,
    carriers: BTreeSet<Origin>,
    /// When what was gathered may be ordered.
    due: Instant,
}

impl Orders {
    /// Adds what a peer asks for to what it has asked for before and was not ordered yet.
    pub(crate) fn add(&mut self, request: CopyRequest, now: Instant) -> Result<(), Violation> {
        let CopyRequest { stream, audience, carriers } = request;
        self.0.retain(|_, order| !order.audience.is_empty() || order.due > now);
        let mut order = self.0.get(&stream).cloned().unwrap_or_else(|| Order {
            audience: BTreeSet::new(),
            carriers: BTreeSet::new(),
            due: now,
        });
        order.audience.extend(audience);
        order.carriers.extend(carriers);
        // Who loads it passes it on as well.
        order.carriers.retain(|carrier| !order.audience.contains(carrier));
        let others = self.0.iter().filter(|(id, _)| **id != stream);
        let all = order.count() + others.map(|(_, order)| order.count()).sum::<usize>();
        // What is refused is not gathered either: it would be ordered over the next connection.
        if order.count() > AUDIENCE_MAX || all > NODES_MAX {
            return Err(Violation(format!("asks for copies of {stream} for ever more nodes")));
        }
        self.0.insert(stream, order);
        Ok(())
    }

    /// What is to be ordered now. For a while nothing more is, of that stream.
    pub(crate) fn next(&mut self, now: Instant) -> Option<CopyRequest> {
        let is_due = |order: &Order| !order.audience.is_empty() && order.due <= now;
        let (stream, order) = self.0.iter_mut().find(|(_, order)| is_due(order))?;
        order.due = now + EVERY;
        Some(CopyRequest {
            stream: *stream,
            audience: std::mem::take(&mut order.audience).into_iter().collect(),
            carriers: std::mem::take(&mut order.carriers).into_iter().collect(),
        })
    }

    /// When something is to be ordered.
    pub(crate) fn due(&self) -> Option<Instant> {
        let pending = self.0.values().filter(|order| !order.audience.is_empty());
        pending.map(|order| order.due).min()
    }
}

impl Order {
    fn count(&self) -> usize {
        self.audience.len() + self.carriers.len()
    }
}

/// How often a copy of a stream is ordered for one peer. What it asks for meanwhile becomes one.
const EVERY: Duration = Duration::from_secs(10);

/// Most nodes for which copies may be pending, over all streams.
const NODES_MAX: usize = 16 * AUDIENCE_MAX;

#[cfg(test)]
mod tests {
    use thinwire_engine::model::Epoch;

    use super::*;

    fn origin(number: u16) -> Origin {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_le_bytes());
        Origin::from_bytes(bytes)
    }

    fn stream(number: u8) -> StreamId {
        StreamId { origin: Origin::from_bytes([9; 16]), epoch: Epoch::from_bytes([number; 16]) }
    }

    fn asked(number: u8, audience: &[u16], carriers: &[u16]) -> CopyRequest {
        let origins = |numbers: &[u16]| numbers.iter().map(|number| origin(*number)).collect();
        CopyRequest {
            stream: stream(number),
            audience: origins(audience),
            carriers: origins(carriers),
        }
    }

    #[test]
    fn the_first_is_ordered_at_once_and_those_behind_it_together() {
        let (mut orders, start) = (Orders::default(), Instant::now());
        orders.add(asked(1, &[10], &[1]), start).unwrap();
        assert_eq!(orders.next(start), Some(asked(1, &[10], &[1])));
        assert_eq!((orders.next(start), orders.due()), (None, None));
        for node in [12, 11, 12] {
            orders.add(asked(1, &[node], &[1, 10]), start + EVERY / 2).unwrap();
        }
        // Of another stream nothing was asked for before.
        orders.add(asked(2, &[10], &[1]), start + EVERY / 2).unwrap();
        assert_eq!(orders.next(start + EVERY / 2), Some(asked(2, &[10], &[1])));
        assert_eq!(orders.next(start + EVERY / 2), None);
        assert_eq!(orders.due(), Some(start + EVERY));
        assert_eq!(orders.next(start + EVERY), Some(asked(1, &[11, 12], &[1, 10])));
        orders.add(asked(3, &[1], &[2]), start + EVERY * 3).unwrap();
        assert_eq!(orders.0.len(), 1, "what is over is not remembered");
    }

    #[test]
    fn who_loads_a_copy_is_not_named_twice() {
        let (mut orders, start) = (Orders::default(), Instant::now());
        orders.add(asked(1, &[10], &[1]), start).unwrap();
        orders.add(asked(1, &[11], &[1, 10]), start).unwrap();
        assert_eq!(orders.next(start), Some(asked(1, &[10, 11], &[1])));
    }

    #[test]
    fn ever_more_nodes_are_no_honest_wish() {
        let (mut orders, start) = (Orders::default(), Instant::now());
        let few = u16::try_from(AUDIENCE_MAX).unwrap();
        for node in 1..few {
            orders.add(asked(1, &[node], &[0]), start).unwrap();
        }
        let error = orders.add(asked(1, &[few], &[0]), start).unwrap_err();
        assert!(error.to_string().contains("ever more nodes"), "{error}");
        let ordered = orders.next(start).unwrap();
        assert_eq!(ordered.audience.len() + ordered.carriers.len(), AUDIENCE_MAX);

        let mut orders = Orders::default();
        let half: Vec<_> = (0..few / 2).collect();
        let refused = (0..=u8::MAX).find(|it| orders.add(asked(*it, &half, &[]), start).is_err());
        assert_eq!(refused, Some(32));
    }
}
