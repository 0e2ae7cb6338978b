//! What a command names: peers and streams, or everything.

use std::sync::Arc;

use thinwire_engine::model::{HaltedBy, Origin, StreamId};

use super::{Node, lock};
use crate::control::{Response, Scope};

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

    /// The name that the configuration has for an origin.
    pub(super) fn name_of(&self, origin: Origin) -> Option<String> {
        if origin == self.journal.own() {
            return Some(self.config.name.clone());
        }
        let known = self.config.peers.iter().find(|peer| peer.key.origin() == origin);
        known.map(|peer| peer.name.clone())
    }

    fn each(self: &Arc<Self>, scope: &Scope, act: impl Fn(&Self, Part<'_>)) -> Response {
        if let Some(name) = &scope.peer
            && !self.config.peers.iter().any(|peer| &peer.name == name)
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
        for peer in &self.config.peers {
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

enum Part<'a> {
    Peer(&'a str),
    Applier(StreamId),
    Capture,
}
