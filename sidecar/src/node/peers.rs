//! With whom a node exchanges streams: taken from its configuration, also anew while it runs.

use std::sync::Arc;

use thinwire_transport::Peer;
use tracing::info;

use super::{Node, access, lock};
use crate::{access::Local, config::Config};

/// The peers, as the configuration has them.
#[derive(Debug)]
pub(super) struct Peers {
    pub(super) known: Vec<Peer>,
    /// Whether there are some whose key is not known yet.
    pub(super) has_keyless: bool,
}

impl Peers {
    pub(super) fn of(config: &Config) -> Self {
        Self { known: config.peers.clone(), has_keyless: !config.keyless_peers.is_empty() }
    }
}

impl Node {
    /// With whom it exchanges streams at this moment.
    pub(super) fn peers(&self) -> Arc<Peers> {
        lock(&self.peers).clone()
    }

    /// Reads the configuration anew and takes its peers. Who is not among them any more, or has another key, loses its
    /// connection; the others do not notice. All else of the file counts from the next start on.
    ///
    /// # Errors
    /// What is wrong with the file; then nothing has changed.
    pub fn reload(&self) -> Result<(), String> {
        // Held throughout: of two who say so at once the second finds all as the first has left it.
        let mut peers = lock(&self.peers);
        let config = Config::load(&self.config.file).map_err(|error| error.to_string())?;
        self.transport.set_peers(config.peers.clone()).map_err(|error| error.to_string())?;
        *peers = Arc::new(Peers::of(&config));
        access::exchange(&mut lock(&self.doors), &config, &self.state);
        drop(peers);
        self.look_at_doors(Local::now());
        info!(peers = config.peers.len(), "the peers are those of the configuration as it is now");
        Ok(())
    }

    /// Tells the transport what peers were remembered to hold at the start. Only before they are heard: later they may hold
    /// less. Of one that comes later nothing is known until it says so itself.
    pub(super) fn remind_of_acks(&self) {
        let peers = self.peers();
        for ack in self.state.acks() {
            if let Some(peer) = peers.known.iter().find(|peer| peer.origin() == ack.peer) {
                self.transport.known_ack(&peer.name, ack.stream, ack.acked, ack.applied);
            }
        }
    }
}
