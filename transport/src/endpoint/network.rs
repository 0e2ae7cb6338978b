//! Where sockets and addresses come from: the machine's network, or a simulated one.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::sync::Notify;

/// The addresses that a name stands for, when they are known.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// A network.
pub trait Network: fmt::Debug + Send + Sync {
    /// A socket bound to `local`; port 0 means any.
    ///
    /// # Errors
    /// Those of `bind`. [`io::ErrorKind::AddrInUse`] and [`io::ErrorKind::PermissionDenied`] are for the user; all
    /// others are weather.
    fn bind(&self, local: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>>;

    /// Looks up `host:port`.
    fn resolve(&self, address: &str) -> Resolving;

    /// The address of ours from which packets to `to` leave, if there is a way to it. When it changes, the way has.
    fn route(&self, _to: SocketAddr) -> Option<IpAddr> {
        None
    }

    /// What makes all random choices repeatable, in a simulation.
    fn seed(&self) -> Option<[u8; 32]> {
        None
    }
}

/// The machine's network.
#[derive(Clone, Copy, Debug, Default)]
pub struct Udp;

impl Network for Udp {
    fn bind(&self, local: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(std::net::UdpSocket::bind(local)?)
    }

    fn resolve(&self, address: &str) -> Resolving {
        let address = address.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host(address).await?.collect()) })
    }

    fn route(&self, to: SocketAddr) -> Option<IpAddr> {
        // Connecting a datagram socket sends nothing: the system only looks up the route.
        let socket = std::net::UdpSocket::bind(any(to.is_ipv6())).ok()?;
        socket.connect(to).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    }
}

/// Any address of ours, any port.
pub(crate) fn any(ipv6: bool) -> SocketAddr {
    match ipv6 {
        true => (Ipv6Addr::UNSPECIFIED, 0).into(),
        false => (Ipv4Addr::UNSPECIFIED, 0).into(),
    }
}

/// A socket whose failures are weather: what cannot be sent is lost, what cannot be received is tried again. Quinn
/// would end all connections at the first error.
#[derive(Debug)]
pub(crate) struct Hardy {
    inner: Arc<dyn AsyncUdpSocket>,
    tally: Arc<Tally>,
}

/// What happened at a socket.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Errors of the socket since it was bound.
    pub(crate) errors: AtomicU64,
    /// Datagrams that are not QUIC.
    pub(crate) garbage: AtomicU64,
    /// Who waits for something to come from where.
    awaited: Mutex<BTreeMap<SocketAddr, Arc<Notify>>>,
}

impl Tally {
    /// Listens for something to come from there.
    pub(crate) fn await_from(self: &Arc<Self>, from: SocketAddr) -> Awaited {
        let come = self.awaited().entry(from).or_default().clone();
        Awaited { tally: self.clone(), from, come }
    }

    fn came_from(&self, address: SocketAddr) {
        if let Some(waiting) = self.awaited().get(&address) {
            waiting.notify_one();
        }
    }

    fn awaited(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Arc<Notify>>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that may come from an address. Dropping it ends the wait.
#[derive(Debug)]
pub(crate) struct Awaited {
    tally: Arc<Tally>,
    from: SocketAddr,
    come: Arc<Notify>,
}

impl Awaited {
    /// Waits until something has come since.
    pub(crate) async fn come(&self) {
        self.come.notified().await;
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.tally.awaited().remove(&self.from);
    }
}

impl Hardy {
    pub(crate) fn new(inner: Arc<dyn AsyncUdpSocket>, tally: Arc<Tally>) -> Self {
        Self { inner, tally }
    }
}

impl AsyncUdpSocket for Hardy {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.inner.try_send(transmit) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.tally.errors.fetch_add(1, Relaxed);
                Ok(())
            }
            result => result,
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        match self.inner.poll_recv(cx, bufs, meta) {
            Poll::Ready(Ok(count)) => {
                let garbage = bufs.iter().zip(meta.iter()).take(count).filter(|(buf, meta)| {
                    meta.len == 0 || buf.first().is_none_or(|first| first & QUIC_BIT == 0)
                });
                self.tally.garbage.fetch_add(garbage.count() as u64, Relaxed);
                meta.iter().take(count).for_each(|meta| self.tally.came_from(meta.addr));
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(_)) => {
                self.tally.errors.fetch_add(1, Relaxed);
                let waker = cx.waker().clone();
                tokio::spawn(async move {
                    tokio::time::sleep(RECEIVE_RETRY).await;
                    waker.wake();
                });
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// Set in the first byte of each QUIC packet (RFC 9000), which this program never greases.
const QUIC_BIT: u8 = 0x40;

/// How long after a failure receiving is tried again.
const RECEIVE_RETRY: Duration = Duration::from_millis(500);
