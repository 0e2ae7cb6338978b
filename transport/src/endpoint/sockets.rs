//! What is dialled from: sockets that are made when they are needed, and made anew when they fail.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
};

use quinn::{AsyncUdpSocket, Endpoint, TokioRuntime, udp::Transmit};

use super::{
    connection::PACKET_HEADERS,
    network::{Hardy, Network, Tally, any},
    settings,
};
use crate::identity::Identity;

/// The sockets that are dialled from, one an address family, made when they are needed.
#[derive(Debug)]
pub(crate) struct Sockets {
    network: Arc<dyn Network>,
    identity: Identity,
    held: Mutex<[Option<Held>; 2]>,
}

#[derive(Clone, Debug)]
struct Held {
    endpoint: Endpoint,
    socket: Arc<Hardy>,
    tally: Arc<Tally>,
}

impl Sockets {
    pub(crate) fn new(network: Arc<dyn Network>, identity: Identity) -> Self {
        Self { network, identity, held: Mutex::default() }
    }

    /// The endpoint from which an address of this family is dialled. A socket that has reported errors is
    /// replaced: its interface may be gone.
    pub(super) fn endpoint(&self, ipv6: bool) -> io::Result<Endpoint> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = &mut held[usize::from(ipv6)];
        if let Some(Held { endpoint, socket, tally }) = held {
            if tally.errors.swap(0, Relaxed) > 0 {
                *socket = Arc::new(Hardy::new(self.bind(ipv6)?, tally.clone()));
                endpoint.rebind_abstract(socket.clone())?;
            }
            return Ok(endpoint.clone());
        }
        let tally = Arc::new(Tally::default());
        let socket = Arc::new(Hardy::new(self.bind(ipv6)?, tally.clone()));
        let config = settings::endpoint(&self.identity, self.network.seed());
        let endpoint = Endpoint::new_with_abstract_socket(
            config,
            None,
            socket.clone(),
            Arc::new(TokioRuntime),
        )?;
        *held = Some(Held { endpoint: endpoint.clone(), socket, tally });
        Ok(endpoint)
    }

    /// Sends a packet that belongs to no connection; says how many bytes have left, and through what an answer comes.
    pub(crate) fn knock(&self, to: SocketAddr, packet: &[u8]) -> Option<(u64, Arc<Tally>)> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Held { socket, tally, .. } = held[usize::from(to.is_ipv6())].as_ref()?;
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: packet,
            segment_size: None,
            src_ip: None,
        };
        // Where the socket is busy, something else leaves.
        socket.try_send(&transmit).ok()?;
        Some((packet.len() as u64 + PACKET_HEADERS, tally.clone()))
    }

    fn bind(&self, ipv6: bool) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        self.network.bind(any(ipv6))
    }

    /// Forgets an endpoint whose driver has ended.
    pub(super) fn forget(&self, ipv6: bool) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(ipv6)] = None;
    }

    /// Lets the last packets leave.
    pub(crate) async fn drain(&self) {
        let held = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        for Held { endpoint, .. } in held.into_iter().flatten() {
            endpoint.wait_idle().await;
        }
    }
}
