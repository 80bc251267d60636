//! TLS of the clients: what they check, and whether their sessions resume.

use anyhow::{Context as _, Result};
use clap::Args;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue, WebPkiServerVerifier,
};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, NamedGroup, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// How clients speak TLS to `wss://` relays.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "TLS (wss://)")]
pub(crate) struct TlsArgs {
    /// Certificates that the relay's is checked against, PEM [default: those that browsers trust]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub(crate) ca: Option<PathBuf>,
    /// Do not check the relay's certificate, nor that the relay has its key
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Resume sessions; otherwise each handshake is a full one
    #[arg(long)]
    pub(crate) resume: bool,
    /// Offer X25519 alone, without the post-quantum key exchange that goes with it
    #[arg(long)]
    pub(crate) classic: bool,
}

impl TlsArgs {
    /// The same, for another process of this program.
    pub(crate) fn to_args(&self) -> Vec<String> {
        let flag = |name: &str, is_set: bool| is_set.then(|| name.to_owned());
        let ca = self.ca.iter().flat_map(|path| ["--ca".to_owned(), path.display().to_string()]);
        let flags = [flag("--insecure", self.insecure), flag("--resume", self.resume), flag("--classic", self.classic)];
        ca.chain(flags.into_iter().flatten()).collect()
    }

    /// What all connections to a relay share.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>> {
        // As fast at records as a relay is: ring uses vector AES where aws-lc wants AVX-512 as well.
        let cipher_suites = ring::DEFAULT_CIPHER_SUITES.to_vec();
        let mut provider = CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() };
        if self.classic {
            provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
        }
        let algorithms = provider.signature_verification_algorithms;
        let provider = Arc::new(provider);
        let verifier: Arc<dyn ServerCertVerifier> = match self.insecure {
            true => Arc::new(Anyone(algorithms)),
            false => verifier(self.ca.as_deref(), &provider)?,
        };
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = match self.resume {
            true => Resumption::store(Arc::new(Tickets::default())),
            false => Resumption::disabled(),
        };
        Ok(Arc::new(config))
    }
}

fn verifier(ca: Option<&Path>, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>> {
    let mut roots = RootCertStore::empty();
    match ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            for certificate in CertificateDer::pem_file_iter(path).with_context(|| path.display().to_string())? {
                roots.add(certificate.with_context(|| path.display().to_string())?)?;
            }
        }
    }
    Ok(WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build()?)
}

/// Tickets of TLS 1.3, as many as there are clients: rustls' own store keeps eight for a server.
#[derive(Debug, Default)]
struct Tickets(Mutex<Vec<Tls13ClientSessionValue>>);

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        if let Ok(mut tickets) = self.0.lock() {
            tickets.push(ticket);
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().ok()?.pop()
    }
}

/// Takes any certificate, whoever signed the handshake: a relay has more to do for a handshake than this client.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
