//! The certificates that the relay starts with, and how TLS is spoken with them.

use super::{Failure, exit};
use crate::config::{self, PairFiles};
use crate::tls::certificate::{Certificate, CertificateError};
use crate::tls::certificates::Certificates;
use crate::tls::settings::server_config;
use crate::tls::status::Source;
use rustls::ServerConfig;
use std::path::Path;
use std::sync::Arc;

/// How TLS is spoken with the certificates of these files; `None`: not at all.
pub(super) fn settings(tls: &config::Tls, unix_sec: u64) -> Result<Option<Arc<ServerConfig>>, Failure> {
    if !tls.is_on() {
        return Ok(None);
    }
    let certificates = Arc::new(Certificates::default());
    for pair in &tls.pairs {
        let certificate = load(pair, unix_sec)?;
        let place = certificates.add(pair.cert.display().to_string(), Source::Files);
        certificates.put(unix_sec, place, certificate);
    }
    server_config(certificates).map(Some).map_err(|error| Failure::new(exit::FAILURE, error))
}

fn load(pair: &PairFiles, unix_sec: u64) -> Result<Certificate, Failure> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| Failure::new(exit::CONFIG, format_args!("{}: {error}", path.display())))
    };
    let wrong = |error: CertificateError| Failure::new(exit::CONFIG, format_args!("{}: {error}", pair.cert.display()));
    let certificate = Certificate::from_pem(&read(&pair.cert)?, &read(&pair.key)?).map_err(wrong)?;
    certificate.check_time(unix_sec).map_err(wrong)?;
    Ok(certificate)
}
