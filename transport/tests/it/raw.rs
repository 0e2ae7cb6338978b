//! A peer that has the right key and says what it likes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn::{
    ApplicationClose, ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig,
    SendStream, ServerConfig, TokioRuntime, TransportConfig, WriteError,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::{
        ClientHello, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use thinwire_transport::{
    Identity, Network, Streams,
    frame::{Control, Hello, Holding},
};

use crate::site::until;

pub struct Raw {
    pub connection: Connection,
    pub control: SendStream,
    _endpoint: Endpoint,
}

impl Raw {
    /// Connects as `identity` and opens a control stream.
    pub async fn connect(network: &dyn Network, identity: &Identity, to: SocketAddr) -> Self {
        let endpoint = endpoint(network);
        let config = client(tls(ALPN, Arc::new(Own(own_key(identity, identity)))));
        let connecting = endpoint.connect_with(config, to, "thinwire").unwrap();
        let connection = connecting.await.unwrap();
        let control = connection.open_uni().await.unwrap();
        Self { connection, control, _endpoint: endpoint }
    }

    pub async fn say(&mut self, frame: &Control) {
        self.try_say(frame).await.unwrap();
    }

    /// The same where the other side may have had enough.
    pub async fn try_say(&mut self, frame: &Control) -> Result<(), WriteError> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).unwrap();
        self.control.write_all(&bytes).await
    }

    pub async fn say_hello(&mut self, holds: Vec<Holding>) {
        self.say_hello_as(1, holds).await;
    }

    /// The same as one of several processes of a node.
    pub async fn say_hello_as(&mut self, instance: u64, holds: Vec<Holding>) {
        let hello = Hello {
            name: "raw".into(),
            instance,
            replaces: false,
            paused: false,
            wants: Streams::All,
            holds,
        };
        self.say(&Control::Hello(hello)).await;
    }

    /// What the other side closes the connection with.
    pub async fn closed(&self) -> ApplicationClose {
        closed(&self.connection).await
    }
}

/// What the other side closes a connection with.
pub async fn closed(connection: &Connection) -> ApplicationClose {
    until("closed", Duration::from_secs(120), || connection.close_reason().is_some()).await;
    match connection.close_reason() {
        Some(ConnectionError::ApplicationClosed(close)) => close,
        other => panic!("{other:?}"),
    }
}

/// What peers speak.
pub const ALPN: &[u8] = b"thinwire";

/// Something to dial from.
pub fn endpoint(network: &dyn Network) -> Endpoint {
    let socket = network.bind("0.0.0.0:0".parse().unwrap()).unwrap();
    let (config, runtime) = (EndpointConfig::default(), Arc::new(TokioRuntime));
    Endpoint::new_with_abstract_socket(config, None, socket, runtime).unwrap()
}

/// Something to be dialled at, with a node's key, that lets in whoever dials.
pub fn listener(network: &dyn Network, identity: &Identity, at: SocketAddr) -> Endpoint {
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(Anybody))
            .with_cert_resolver(Arc::new(Own(own_key(identity, identity))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicServerConfig::try_from(config).unwrap();
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(None);
    config.transport_config(Arc::new(transport));
    let (socket, runtime) = (network.bind(at).unwrap(), Arc::new(TokioRuntime));
    let endpoint = EndpointConfig::default();
    Endpoint::new_with_abstract_socket(endpoint, Some(config), socket, runtime).unwrap()
}

/// Trusts everybody, and shows what it is told to show.
pub fn tls(alpn: &[u8], shown: Arc<dyn ResolvesClientCert>) -> rustls::ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_cert_resolver(shown);
    config.alpn_protocols =
        [alpn].into_iter().filter(|it| !it.is_empty()).map(<[u8]>::to_vec).collect();
    config
}

pub fn client(config: rustls::ClientConfig) -> ClientConfig {
    let crypto = QuicClientConfig::try_from(config).unwrap();
    let mut config = ClientConfig::new(Arc::new(crypto));
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(None);
    config.transport_config(Arc::new(transport));
    config
}

/// A client with a node's key that goes on where it was, if a listener lets it.
pub fn resuming(identity: &Identity) -> ClientConfig {
    let mut config = tls(ALPN, Arc::new(Own(own_key(identity, identity))));
    config.enable_early_data = true;
    client(config)
}

/// The public key of one node, with the signature of another.
pub fn own_key(identity: &Identity, signer: &Identity) -> Arc<CertifiedKey> {
    let bytes = signer.to_bytes();
    let signer = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(bytes.as_slice())).unwrap();
    let prefix = [0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00];
    let spki = [prefix.as_slice(), identity.public().as_bytes()].concat();
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer))
}

#[derive(Debug)]
pub struct Own(pub Arc<CertifiedKey>);

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
