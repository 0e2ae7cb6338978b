//! How far a database's certificate is verified: libpq's `sslmode`, with rustls.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio_postgres::config::SslMode;

use super::DatabaseError;

/// Whether to encrypt, and whom to trust.
pub(super) struct Policy {
    pub(super) mode: SslMode,
    pub(super) client: Option<Arc<ClientConfig>>,
    /// Whether the server proves its name.
    pub(super) proves_name: bool,
}

pub(super) fn policy(mode: Option<&str>, root: Option<&Path>) -> Result<Policy, DatabaseError> {
    let (mode, names_matter) = match mode.unwrap_or("prefer") {
        "disable" => {
            return Ok(Policy { mode: SslMode::Disable, client: None, proves_name: false });
        }
        "allow" | "prefer" => (SslMode::Prefer, None),
        "require" => (SslMode::Require, None),
        "verify-ca" => (SslMode::Require, Some(false)),
        "verify-full" => (SslMode::Require, Some(true)),
        _ => {
            return Err(DatabaseError::new(
                "sslmode is disable, allow, prefer, require, verify-ca or verify-full",
            ));
        }
    };
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match names_matter {
        None => Arc::new(Lenient { inner: None, provider: provider.clone() }),
        Some(names_matter) => {
            let path = root.ok_or_else(|| {
                DatabaseError::new("sslmode verify-ca and verify-full need sslrootcert, a file of PEM certificates")
            })?;
            let strict = strict(path, provider.clone())?;
            match names_matter {
                true => strict,
                false => Arc::new(Lenient { inner: Some(strict), provider: provider.clone() }),
            }
        }
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| DatabaseError::new(format!("TLS cannot be set up: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let proves_name = names_matter == Some(true);
    Ok(Policy { mode, client: Some(Arc::new(config)), proves_name })
}

fn strict(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, DatabaseError> {
    let unusable = |why: String| {
        DatabaseError::new(format!("sslrootcert {} cannot be used: {why}", path.display()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?
    {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| unusable(error.to_string()))
}

/// Verifies the chain but not the name (`verify-ca`), or nothing but that the server holds its key.
#[derive(Debug)]
struct Lenient {
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                NotValidForName | NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
