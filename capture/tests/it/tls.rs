//! Ways into a server: TLS with channel binding, md5, a password in the clear, several hosts.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, pem::PemObject};
use thinwire_capture::{Error, Source};
use tokio_postgres::config::{ChannelBinding, SslMode};

use crate::rig::{Node, Rig, options};

/// Trusts the authority that signed the certificate in `tls/`, which is for `localhost`.
fn tls() -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(include_bytes!("tls/ca.crt")).unwrap();
    roots.add(authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn with_hba(method: &str, password_encryption: &str) -> Rig {
    let mut options = options().with_password("sec'ret");
    options.hba = Some(format!("local all all trust\n{method}\n"));
    let rig = Rig::with(options, "create table t (id int primary key)");
    rig.sql(&format!(
        "set password_encryption = '{password_encryption}'; alter role postgres password 'sec''ret'"
    ));
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_and_binds_the_password_to_the_server() {
    let rig = with_hba("hostssl all all 127.0.0.1/32 scram-sha-256", "scram-sha-256");
    rig.cluster.install("server.crt", include_bytes!("tls/server.crt")).unwrap();
    rig.cluster.install("server.key", include_bytes!("tls/server.key")).unwrap();
    rig.cluster.set("ssl", "on").unwrap();
    let url = format!(
        "host=localhost hostaddr=127.0.0.1 port={} user=postgres dbname=shop password='sec\\'ret'",
        rig.cluster.port()
    );
    let mut source = Source { config: url.parse().unwrap(), tls: Some(tls()) };
    source.config.ssl_mode(SslMode::Require).channel_binding(ChannelBinding::Require);
    rig.init(&["public.*"]).await;
    let node = Node::start(source.clone(), rig.dir.path(), &rig.cluster);
    rig.sql("insert into t values (1)");
    rig.check(&node, &["public.t"]).await;
    let encrypted = "select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) \
                     where application_name = 'thinwire' and client_addr is not null";
    assert_eq!(rig.sql(encrypted), "t");
    node.shutdown().await;
    // In the clear the server does not let us in, and another name is not the certificate's.
    let mut plain = source.clone();
    plain.config.ssl_mode(SslMode::Disable).channel_binding(ChannelBinding::Prefer);
    let node = Node::start(plain, rig.dir.path(), &rig.cluster);
    node.until("it is refused", |node| {
        node.status().last_error.is_some_and(|error| error.contains("pg_hba.conf"))
    })
    .await;
    node.shutdown().await;
    let url = url.replace("host=localhost", "host=example.com");
    let other = Source { config: url.parse().unwrap(), tls: source.tls };
    let Err(Error::Unreachable { source, .. }) = other.connect().await else { panic!() };
    assert!(source.to_string().contains("certificate"), "{source}");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_ways_to_send_a_password_work() {
    for method in ["md5", "password"] {
        let rig = with_hba(&format!("host all all 127.0.0.1/32 {method}"), "md5");
        let mut source = Source::new(rig.cluster.tcp_url("shop").parse().unwrap());
        rig.init(&["public.*"]).await;
        let node = Node::start(source.clone(), rig.dir.path(), &rig.cluster);
        rig.sql("insert into t values (1)");
        rig.check(&node, &["public.t"]).await;
        node.shutdown().await;
        // A server that would take it so is not one that binds.
        source.config.channel_binding(ChannelBinding::Require);
        assert!(source.connect().await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_tried_in_their_order() {
    let rig = Rig::new("create table t (id int primary key)");
    rig.init(&["public.*"]).await;
    let url = format!(
        "host=127.0.0.1,/nowhere,{} port=1,2,{port} user=postgres dbname=shop \
         target_session_attrs=read-write",
        rig.cluster.socket_dir().display(),
        port = rig.cluster.port()
    );
    let node = Node::start(Source::new(url.parse().unwrap()), rig.dir.path(), &rig.cluster);
    rig.sql("insert into t values (1)");
    rig.check(&node, &["public.t"]).await;
}
