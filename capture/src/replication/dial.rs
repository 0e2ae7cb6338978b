//! Sockets to the source: unix and TCP, hosts in their order, TLS where it is asked for.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UnixStream, lookup_host},
    time::timeout,
};
use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use tokio_rustls::TlsConnector;

use super::channel_binding::server_end_point;
use crate::{
    error::{Error, Result},
    source::{DEFAULT_PORT, Source},
};

/// Anything that bytes go through.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A socket on which nothing of PostgreSQL was said yet.
pub(crate) struct Dialled {
    pub(super) io: Box<dyn Io>,
    /// Whether TLS protects it.
    pub(super) is_encrypted: bool,
    /// What ties a password exchange to this very server, where TLS gives it.
    pub(super) server_end_point: Option<Vec<u8>>,
}

/// Where one of the configured hosts is.
pub(crate) struct Place {
    host: Option<Host>,
    address: Option<std::net::IpAddr>,
    port: u16,
}

/// The configured hosts, in their order.
pub(crate) fn places(source: &Source) -> Vec<Place> {
    let config = &source.config;
    let (hosts, addresses, ports) =
        (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    (0..hosts.len().max(addresses.len()))
        .map(|at| Place {
            host: hosts.get(at).cloned(),
            address: addresses.get(at).copied(),
            port: ports.get(at).or(ports.first()).copied().unwrap_or(DEFAULT_PORT),
        })
        .collect()
}

impl Place {
    /// Opens a socket to this host.
    pub(crate) async fn dial(&self, source: &Source) -> Result<Dialled> {
        let limit = source.connect_timeout();
        match timeout(limit, self.open(source)).await {
            Ok(opened) => opened,
            Err(_) => Err(self.unreachable(io::ErrorKind::TimedOut.into())),
        }
    }

    /// The host and port, for people.
    pub(crate) fn name(&self) -> String {
        match (&self.host, self.address) {
            (Some(Host::Tcp(name)), _) => format!("{name}:{}", self.port),
            (Some(Host::Unix(dir)), _) => format!("{}:{}", dir.display(), self.port),
            (None, Some(address)) => format!("{}", SocketAddr::new(address, self.port)),
            (None, None) => "nowhere".to_owned(),
        }
    }

    async fn open(&self, source: &Source) -> Result<Dialled> {
        let name = match (&self.host, self.address) {
            (Some(Host::Unix(dir)), _) => {
                let socket = unix(dir, self.port).await.map_err(|error| self.unreachable(error))?;
                return Ok(Dialled::plain(socket));
            }
            (Some(Host::Tcp(name)), _) => Some(name.as_str()),
            (None, _) => None,
        };
        let socket = self.tcp(name).await.map_err(|error| self.unreachable(error))?;
        encrypt(socket, name, source).await
    }

    async fn tcp(&self, name: Option<&str>) -> io::Result<TcpStream> {
        let addresses: Vec<SocketAddr> = match (self.address, name) {
            (Some(address), _) => vec![SocketAddr::new(address, self.port)],
            (None, Some(name)) => lookup_host((name, self.port)).await?.collect(),
            (None, None) => vec![],
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match timeout(ADDRESS_TIMEOUT, connect(address)).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }

    fn unreachable(&self, source: io::Error) -> Error {
        Error::Unreachable { host: self.name(), source }
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_keepalive(true)?;
    socket.set_nodelay(true)?;
    socket.connect(address).await
}

async fn unix(dir: &Path, port: u16) -> io::Result<UnixStream> {
    UnixStream::connect(dir.join(format!(".s.PGSQL.{port}"))).await
}

/// Begins TLS as `sslmode` has it.
async fn encrypt(mut socket: TcpStream, name: Option<&str>, source: &Source) -> Result<Dialled> {
    let mode = source.config.get_ssl_mode();
    let tls = match (mode, &source.tls) {
        (SslMode::Disable, _) => return Ok(Dialled::plain(socket)),
        (_, Some(tls)) => tls,
        (SslMode::Prefer, None) => return Ok(Dialled::plain(socket)),
        (_, None) => return Err(handshake("sslmode asks for TLS, but none is configured")),
    };
    if source.config.get_ssl_negotiation() == SslNegotiation::Postgres
        && !server_wants_tls(&mut socket).await.map_err(broken)?
    {
        return match mode {
            SslMode::Prefer => Ok(Dialled::plain(socket)),
            _ => Err(handshake("sslmode asks for TLS, but the server does not offer it")),
        };
    }
    let name =
        name.ok_or_else(|| handshake("TLS needs a host name to check, not only hostaddr"))?;
    let server = rustls::pki_types::ServerName::try_from(name.to_owned())
        .map_err(|_| handshake("the host's name is none that a certificate can have"))?;
    let stream = TlsConnector::from(alpn(tls, source)).connect(server, socket).await;
    let stream =
        stream.map_err(|error| handshake(&format!("TLS with the server failed: {error}")))?;
    let certificates = stream.get_ref().1.peer_certificates();
    let server_end_point =
        certificates.and_then(|all| all.first()).and_then(|it| server_end_point(it));
    Ok(Dialled { io: Box::new(stream), is_encrypted: true, server_end_point })
}

/// TLS without asking first must say which protocol it is for.
fn alpn(tls: &Arc<rustls::ClientConfig>, source: &Source) -> Arc<rustls::ClientConfig> {
    if source.config.get_ssl_negotiation() == SslNegotiation::Postgres {
        return tls.clone();
    }
    let mut tls = rustls::ClientConfig::clone(tls);
    tls.alpn_protocols = vec![b"postgresql".to_vec()];
    Arc::new(tls)
}

/// The answer is read as one byte, so that nothing that follows it in the clear is taken for TLS's content.
async fn server_wants_tls(socket: &mut TcpStream) -> io::Result<bool> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    socket.write_all(&request).await?;
    Ok(socket.read_u8().await? == b'S')
}

impl Dialled {
    fn plain(io: impl Io + 'static) -> Self {
        Self { io: Box::new(io), is_encrypted: false, server_end_point: None }
    }
}

fn handshake(text: &str) -> Error {
    Error::Handshake(text.to_owned())
}

fn broken(error: io::Error) -> Error {
    Error::Lost(error.to_string())
}

/// For one of several addresses of a host.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(5);
