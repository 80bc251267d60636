//! Certificates from a CA by ACME (RFC 8555): got at the first start, kept on the disk, renewed in time.
//!
//! Each domain has a certificate of its own and a task of its own. So a domain whose DNS entry is wrong holds up no
//! other, adding one asks for no new certificate of the others, and no certificate tells a client what else the relay
//! answers to. What is on the disk is presented before the CA is asked for anything, and the CA may be away as long as
//! the certificates last. Where there is none yet, handshakes end with an alert (see [`super::certificates`]).
//!
//! It must never ask the CA in a circle: every failure is followed by a wait (see `schedule`).

mod account;
mod challenges;
mod client;
mod disk;
mod keeper;
mod order;
mod schedule;

pub use challenges::ChallengeAnswers;
pub use disk::DiskError;
pub use keeper::Keeper;

use super::certificate::pem_fault;
use super::files::FILE_BYTES_MAX;
use crate::sys::file;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::fmt;
use std::path::{Path, PathBuf};

/// How certificates are obtained by ACME (RFC 8555).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// At least one name, in lower case. Each gets a certificate of its own.
    pub domains: Vec<String>,
    /// The directory's https URL.
    pub directory: String,
    /// Certificates (PEM) that the directory's own TLS is checked against; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Whom the CA may write to.
    pub email: Option<String>,
    /// The account at the CA that this one is bound to (RFC 8555 section 7.3.4).
    pub binding: Option<Binding>,
    /// Where the account's key and the certificates are kept.
    pub dir: PathBuf,
}

/// External account binding.
#[derive(Clone, PartialEq, Eq)]
pub struct Binding {
    /// The key's identifier.
    pub kid: String,
    /// The key itself, decoded.
    pub key: Vec<u8>,
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binding").field("kid", &self.kid).field("key", &"***").finish()
    }
}

/// What the directory's own TLS is checked against. Read each time the CA is asked anew, so that a mended file is taken.
fn read_roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |what: String| {
        format!(
            "--acme-ca {}: {what}; expected a PEM file of the CA certificates of the ACME directory",
            path.display()
        )
    };
    let pem = file::read(path, FILE_BYTES_MAX).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(roots) if roots.is_empty() => Err(wrong("there is no certificate in it".to_owned())),
        Ok(roots) => Ok(roots),
        Err(error) => Err(wrong(pem_fault(&error))),
    }
}
