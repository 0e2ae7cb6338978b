//! All peers that there are, and how that changes while the node runs.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock},
};

use thinwire_engine::model::Origin;
use tokio::sync::watch;

use super::{
    StartError,
    link::{Link, Over},
    node::Strangers,
};
use crate::{
    identity::{PublicKey, tls::Guests},
    peer::Peer,
};

/// The links to all configured peers, in the order of the configuration.
#[derive(Debug)]
pub(crate) struct Links {
    own: PublicKey,
    strangers: Arc<Strangers>,
    changed: watch::Sender<u64>,
    all: RwLock<Vec<Arc<Link>>>,
}

impl Links {
    pub(crate) fn new(
        own: PublicKey,
        strangers: Arc<Strangers>,
        changed: watch::Sender<u64>,
    ) -> Self {
        Self { own, strangers, changed, all: RwLock::default() }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Link>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn named(&self, name: &str) -> Option<Arc<Link>> {
        self.find(|link| link.peer.name == name)
    }

    pub(crate) fn with_key(&self, key: PublicKey) -> Option<Arc<Link>> {
        self.find(|link| link.peer.key == key)
    }

    pub(crate) fn with_origin(&self, origin: Origin) -> Option<Arc<Link>> {
        self.find(|link| link.peer.origin() == origin)
    }

    /// Exchanges the peers for others. Those that are as they were keep what they have; the links of others end. One to a
    /// node that was a peer before knows what was known of it. Returns those that are new.
    pub(crate) fn set(&self, peers: Vec<Peer>) -> Result<Vec<Arc<Link>>, StartError> {
        self.check(&peers)?;
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let (mut next, mut new) = (Vec::with_capacity(peers.len()), Vec::new());
        for peer in peers {
            let before = all.iter().find(|link| link.peer.key == peer.key);
            if let Some(same) = before.filter(|link| link.peer == peer) {
                next.push(same.clone());
                continue;
            }
            let link = Arc::new(Link::new(peer, self.own.origin(), self.changed.clone()));
            if let Some(before) = before {
                link.inherit(before);
            }
            next.push(link.clone());
            new.push(link);
        }
        let before = std::mem::replace(&mut *all, next.clone());
        drop(all);
        for link in before {
            match next.iter().find(|other| other.peer.key == link.peer.key) {
                Some(same) if Arc::ptr_eq(same, &link) => {}
                Some(_) => link.end(Over::Changed),
                None => link.end(Over::Removed),
            }
        }
        self.changed.send_modify(|generation| *generation += 1);
        Ok(new)
    }

    fn check(&self, peers: &[Peer]) -> Result<(), StartError> {
        let (mut keys, mut names) = (BTreeSet::from([self.own]), BTreeSet::new());
        for peer in peers {
            if !keys.insert(peer.key) || !names.insert(&peer.name) {
                return Err(StartError::DuplicatePeer { name: peer.name.clone() });
            }
        }
        Ok(())
    }

    fn find(&self, is_it: impl Fn(&Link) -> bool) -> Option<Arc<Link>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|link| is_it(link)).cloned()
    }
}

impl Guests for Links {
    fn admit(&self, key: PublicKey) -> bool {
        let is_known = self.with_key(key).is_some();
        if !is_known {
            self.strangers.came(key);
        }
        is_known
    }
}
