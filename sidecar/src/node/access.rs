//! Keeps to what a user has said about when each peer is talked to, and how much.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use thinwire_engine::model::Origin;
use thinwire_transport::{Bar, PeerStatus};
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use super::{Node, lock};
use crate::{
    access::{Access, Ledger, Local, Stop},
    config::Config,
    state::State,
};

/// How often it is looked: what a link carries meanwhile may be too much.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A peer's terms, and what was last found.
#[derive(Debug, Default)]
pub(super) struct Door {
    pub(super) access: Access,
    /// What keeps it shut.
    stop: Option<Stop>,
    warned: bool,
}

/// The doors of all peers, with what their links have cost before.
pub(super) fn doors(config: &Config, state: &State) -> BTreeMap<Origin, Door> {
    let door = |name: &str, origin: Origin| {
        let mut ledger = Ledger::default();
        state.usage().iter().filter(|usage| usage.peer == origin).for_each(|usage| {
            ledger.add(usage.day, usage.bytes);
        });
        let terms = config.terms.get(name).cloned().unwrap_or_default();
        (origin, Door { access: Access::new(terms, ledger), ..Door::default() })
    };
    config.peers.iter().map(|peer| door(&peer.name, peer.origin())).collect()
}

/// Gives the doors the terms of another configuration. What links have cost, and who has set terms aside, stays, also of peers
/// that are gone: they may come back.
pub(super) fn exchange(held: &mut BTreeMap<Origin, Door>, config: &Config, state: &State) {
    for (origin, new) in doors(config, state) {
        match held.get_mut(&origin) {
            Some(door) => door.access.agree(new.access.terms().clone()),
            None => drop(held.insert(origin, new)),
        }
    }
}

impl Node {
    pub(super) async fn keep_doors(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        loop {
            self.look_at_doors(Local::now());
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                _ = stopped.changed() => return,
            }
        }
    }

    /// Counts what links have cost, and opens and shuts doors.
    pub(super) fn look_at_doors(&self, now: Local) {
        let mut doors = lock(&self.doors);
        for peer in self.transport.peers() {
            let Some(door) = doors.get_mut(&peer.origin) else { continue };
            let bar = door.look(&peer, now);
            self.transport.bar(&peer.name, bar);
        }
    }

    /// Remembers what links have cost.
    pub(super) fn remember_costs(&self) {
        for (peer, door) in &*lock(&self.doors) {
            self.state.put_usage(*peer, door.access.ledger());
        }
    }

    /// Somebody says that a peer is to be talked to: ends a pause, or else sets its terms aside for today.
    pub(super) fn resume_peer(&self, name: &str, is_named: bool) {
        let Some(peer) = self.transport.peers().into_iter().find(|peer| peer.name == name) else {
            return;
        };
        if is_named && !peer.paused {
            let now = Local::now();
            if let Some(door) = lock(&self.doors).get_mut(&peer.origin) {
                door.access.set_aside(now);
            }
            info!(peer = name, "its window and budget do not count until the day is over");
            self.look_at_doors(now);
        }
        self.transport.resume(name);
    }

    /// Somebody says that a peer is not to be talked to. Its terms count again afterwards.
    pub(super) fn pause_peer(&self, name: &str) {
        if let Some(peer) = self.peers().known.iter().find(|peer| peer.name == name)
            && let Some(door) = lock(&self.doors).get_mut(&peer.origin())
        {
            door.access.keep();
        }
        self.transport.pause(name);
    }
}

impl Door {
    fn look(&mut self, peer: &PeerStatus, now: Local) -> Option<Bar> {
        self.access.count(now, peer.bytes_sent.saturating_add(peer.bytes_received));
        let stop = self.access.stop(now);
        let (before, after) = (self.stop.map(|stop| stop.cause), stop.map(|stop| stop.cause));
        match stop {
            Some(stop) if before != after => {
                let (code, seconds) = (stop.cause.code(), stop.lifts_in.as_secs());
                info!(peer = peer.name, code, seconds, "{}", stop.cause.sentence());
            }
            None if before.is_some() => info!(peer = peer.name, "may be talked to again"),
            _ => {}
        }
        let spent = self.access.spent(now);
        let warns = spent.is_nearly_over();
        if warns && !std::mem::replace(&mut self.warned, warns) {
            let (day_bytes, month_bytes) = (spent.day, spent.month);
            warn!(peer = peer.name, day_bytes, month_bytes, "most of its budget is spent");
        }
        self.warned = warns;
        self.stop = stop;
        stop.map(|stop| Bar { reason: stop.cause.sentence().to_owned(), lifts_in: stop.lifts_in })
    }
}
