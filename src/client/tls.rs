//! TLS of the client: rustls, with the public roots, a CA of one's own, or, for tests, without any check.

use super::event::Reason;
use super::options::Trust;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error as ThisError;

/// Why TLS cannot be set up.
#[derive(Debug, ThisError)]
pub enum TlsError {
    /// The CA file cannot be read, or has no certificate in it.
    #[error("{path}: {text}", path = .path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        text: String,
    },
    /// rustls does not take the settings.
    #[error("TLS: {0}")]
    Settings(#[from] Error),
}

/// The certificates of a PEM file.
///
/// # Errors
/// [`TlsError::CaFile`], also where there is none in it.
pub(super) fn ca_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refused = |text: String| TlsError::CaFile { path: path.to_owned(), text };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| refused(error.to_string()))?;
    if certificates.is_empty() {
        return Err(refused("there is no certificate in it".to_owned()));
    }
    Ok(certificates)
}

/// The settings for all connections of a client: sessions are resumed among them.
pub(super) fn config(trust: &Trust) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let config = match trust {
        Trust::InsecureAnyCertificate => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate { provider }))
        }
        Trust::PublicRoots => builder.with_root_certificates(roots),
        Trust::PublicRootsAnd(path) => {
            for certificate in ca_file(path)? {
                roots.add(certificate)?;
            }
            builder.with_root_certificates(roots)
        }
    };
    Ok(Arc::new(config.with_no_client_auth()))
}

/// The name that the certificate must have.
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, Reason> {
    ServerName::try_from(host.to_owned()).map_err(|_| Reason::Tls(format!("{host} is no name for a certificate")))
}

/// Accepts anyone's certificate; signatures are still checked, so that the connection is private to whoever it is.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
