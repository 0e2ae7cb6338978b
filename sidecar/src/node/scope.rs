//! What a command names: peers and streams, or everything.

use std::{sync::Arc, time::Duration};

use thinwire_apply::Outcome;
use thinwire_engine::model::{HaltedBy, Offset, Origin, StreamId};
use tokio::time::timeout;

use super::{Node, lock};
use crate::control::{Response, Scope, Skip};

impl Node {
    pub(super) fn pause(self: &Arc<Self>, scope: &Scope) -> Response {
        self.each(scope, |node, part| match part {
            Part::Peer(name) => node.pause_peer(name),
            Part::Applier(id) => {
                lock(&node.appliers).get(&id).inspect(|applier| applier.pause());
            }
            Part::Capture => {
                node.capture.get().inspect(|capture| capture.pause());
            }
        })
    }

    pub(super) fn resume(self: &Arc<Self>, scope: &Scope) -> Response {
        self.each(scope, |node, part| match part {
            Part::Peer(name) => node.resume_peer(name, scope.peer.is_some()),
            Part::Applier(id) => {
                lock(&node.appliers).get(&id).inspect(|applier| applier.resume());
            }
            Part::Capture => {
                node.capture.get().inspect(|capture| capture.resume());
            }
        })
    }

    pub(super) fn retry(self: &Arc<Self>, scope: &Scope) -> Response {
        self.each(scope, |node, part| match part {
            Part::Peer(name) => drop(node.transport.retry(name)),
            Part::Applier(id) => {
                lock(&node.appliers).get(&id).inspect(|applier| applier.retry());
            }
            Part::Capture => {
                // Whoever says so has looked at what a peer holds of ours, and decided.
                for stream in node.journal.streams() {
                    stream.set_halted(HaltedBy::Transport, None);
                }
                node.capture.get().inspect(|capture| capture.retry());
            }
        })
    }

    /// Leaves out what has halted a stream, as the system's user with this number has decided. The answer waits for it.
    pub(crate) async fn skip(self: &Arc<Self>, skip: &Skip, user: u32) -> Response {
        let outcome = match self.ask_to_skip(skip, user) {
            Ok(outcome) => outcome,
            Err(why) => return Response::Refused(why),
        };
        match timeout(SKIP_PATIENCE, outcome).await {
            Ok(Ok(Ok(()))) => Response::Done,
            Ok(Ok(Err(why))) => Response::Refused(why),
            Ok(Err(_)) => Response::Refused("the node is ending".to_owned()),
            Err(_) => Response::Refused(NOT_YET.to_owned()),
        }
    }

    fn ask_to_skip(&self, skip: &Skip, user: u32) -> Result<Outcome, String> {
        let ids = self.streams_of(&skip.origin);
        let appliers = lock(&self.appliers);
        let mut why = format!("no stream of {} is applied here", skip.origin);
        for applier in ids.iter().filter_map(|id| appliers.get(id)) {
            match applier.skip(Offset::new(skip.offset), format!("user {user}")) {
                Ok(outcome) => return Ok(outcome),
                Err(refused) => why = refused,
            }
        }
        Err(why)
    }

    /// The name that the configuration has for an origin.
    pub(super) fn name_of(&self, origin: Origin) -> Option<String> {
        if origin == self.journal.own() {
            return Some(self.config.name.clone());
        }
        let peers = self.peers();
        let known = peers.known.iter().find(|peer| peer.origin() == origin);
        known.map(|peer| peer.name.clone())
    }

    fn each(self: &Arc<Self>, scope: &Scope, act: impl Fn(&Self, Part<'_>)) -> Response {
        let peers = self.peers();
        if let Some(name) = &scope.peer
            && !peers.known.iter().any(|peer| &peer.name == name)
        {
            return Response::Refused(format!("there is no peer named {name}"));
        }
        let streams = match &scope.stream {
            None => self.journal.streams().iter().map(|stream| stream.id()).collect(),
            Some(text) => self.streams_of(text),
        };
        if let (true, Some(text)) = (streams.is_empty(), &scope.stream) {
            return Response::Refused(format!("there is no stream of {text} here"));
        }
        let everything = scope.peer.is_none() && scope.stream.is_none();
        for peer in &peers.known {
            if everything || scope.peer.as_ref() == Some(&peer.name) {
                act(self, Part::Peer(&peer.name));
            }
        }
        if everything || scope.stream.is_some() {
            for id in streams {
                match id.origin == self.journal.own() {
                    true => act(self, Part::Capture),
                    false => act(self, Part::Applier(id)),
                }
            }
        }
        Response::Done
    }

    fn streams_of(&self, text: &str) -> Vec<StreamId> {
        let named = |id: &StreamId| {
            id.origin.to_string() == text || self.name_of(id.origin).as_deref() == Some(text)
        };
        self.journal.streams().iter().map(|stream| stream.id()).filter(named).collect()
    }
}

/// The database has to commit what is left out; the command waits for longer than this.
const SKIP_PATIENCE: Duration = Duration::from_secs(8);
const NOT_YET: &str = "it is not left out yet; it will be unless the node ends before, and \
                       `thinwire status` will show it";

enum Part<'a> {
    Peer(&'a str),
    Applier(StreamId),
    Capture,
}
