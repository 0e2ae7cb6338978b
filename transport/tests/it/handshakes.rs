//! Who is let in: the holder of a pinned key over TLS 1.3, and nobody else, in both directions.

use std::{sync::Arc, time::Duration};

use quinn::{
    Endpoint, EndpointConfig, ServerConfig, TokioRuntime, crypto::rustls::QuicServerConfig,
};
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use thinwire_transport::{Identity, Network};
use tokio::time::timeout;

use crate::{
    raw::{ALPN, Own, client, endpoint, own_key, resuming, tls},
    sim::{SATELLITE, Sim},
    site::{Site, identity, simulate, until},
};

const LONG: Duration = Duration::from_secs(60);

/// Shows no key, or one as if it were an ordinary certificate.
#[derive(Debug)]
struct Shown(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

#[derive(Debug)]
struct Serves(Arc<CertifiedKey>, bool);

impl ResolvesServerCert for Serves {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn only_raw_public_keys(&self) -> bool {
        self.1
    }
}

#[test]
fn who_dials_without_a_pinned_key_and_its_secret_is_not_let_in() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 1);
        let (edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        let (known, stranger) = (&edge.identity, &identity(9));
        let own = |shown: &Identity, signer| Arc::new(Own(own_key(shown, signer)));
        let attempts = [
            ("no key", tls(ALPN, Arc::new(Shown(None)))),
            ("a certificate", tls(ALPN, Arc::new(Shown(Some(own_key(known, known)))))),
            ("a stranger's key", tls(ALPN, own(stranger, stranger))),
            ("the key without its secret", tls(ALPN, own(known, stranger))),
            ("the hub's own key", tls(ALPN, own(&hub.identity, stranger))),
            ("another protocol", tls(b"h3", own(known, known))),
            ("no protocol", tls(b"", own(known, known))),
        ];
        for (what, config) in attempts {
            let from = endpoint(&*sim.host(9));
            let to = hub.address().parse().unwrap();
            let connecting = from.connect_with(client(config), to, "thinwire").unwrap();
            let refused = match timeout(LONG, connecting).await.expect(what) {
                Err(_) => true,
                // Who dials is through before who listens has seen its key.
                Ok(connection) => timeout(LONG, connection.closed()).await.is_ok(),
            };
            assert!(refused, "{what}");
            assert!(!hub.status(&edge).connected, "{what}");
        }
        assert_eq!(hub.transport().unwelcome().failed_handshakes, 7);
        assert_eq!(hub.transport().unwelcome().strangers, 2);
    });
}

#[test]
fn who_listens_without_the_pinned_key_and_its_secret_is_not_talked_to() {
    simulate(async {
        let (known, stranger) = (identity(2), identity(9));
        let attempts = [
            ("a stranger's key", own_key(&stranger, &stranger), true, ALPN),
            ("the key without its secret", own_key(&known, &stranger), true, ALPN),
            ("a certificate", own_key(&known, &known), false, ALPN),
            ("another protocol", own_key(&known, &known), true, b"h3"),
        ];
        for (number, (what, key, raw, alpn)) in attempts.into_iter().enumerate() {
            let sim = Sim::new(SATELLITE, number as u64);
            let (mut edge, hub) = (Site::new(1), Site::new(2));
            let provider = Arc::new(ring::default_provider());
            let mut config = rustls::ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(Serves(key, raw)));
            config.alpn_protocols = vec![alpn.to_vec()];
            let crypto = Arc::new(QuicServerConfig::try_from(config).unwrap());
            let socket = sim.host(2).bind(hub.address().parse().unwrap()).unwrap();
            let (config, server) = (EndpointConfig::default(), ServerConfig::with_crypto(crypto));
            let runtime = Arc::new(TokioRuntime);
            let listens =
                Endpoint::new_with_abstract_socket(config, Some(server), socket, runtime).unwrap();
            let accepting = tokio::spawn(async move {
                while let Some(incoming) = listens.accept().await {
                    let _ = incoming.await;
                }
            });
            edge.start(&sim, vec![hub.as_dialled()]);
            until(what, LONG, || edge.status(&hub).last_error.is_some()).await;
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert!(!edge.status(&hub).connected, "{what}");
            assert_eq!(edge.status(&hub).bytes_received, 0, "{what}");
            accepting.abort();
        }
    });
}

#[test]
fn no_ticket_brings_a_key_back_and_nothing_is_said_before_the_handshake() {
    simulate(async {
        let sim = Sim::new(SATELLITE, 3);
        let (edge, mut hub) = (Site::new(1), Site::new(2));
        hub.start(&sim, vec![edge.as_peer()]);
        let (config, to) = (resuming(&edge.identity), hub.address().parse().unwrap());
        let from = endpoint(&*sim.host(9));
        let first = from.connect_with(config.clone(), to, "thinwire").unwrap().await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        first.close(0_u32.into(), b"");
        // Early data needs a ticket, and the listener gives none.
        let second = from.connect_with(config.clone(), to, "thinwire").unwrap();
        assert!(second.into_0rtt().is_err());

        // The key is taken out of the configuration.
        hub.kill().await;
        hub.start(&sim, vec![Site::new(5).as_peer()]);
        let third = from.connect_with(config, to, "thinwire").unwrap();
        let refused = match timeout(LONG, third).await.unwrap() {
            Err(_) => true,
            Ok(connection) => timeout(LONG, connection.closed()).await.is_ok(),
        };
        assert!(refused && hub.transport().unwelcome().strangers > 0);
    });
}
