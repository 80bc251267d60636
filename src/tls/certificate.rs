//! One certificate chain with its private key, read and checked. Pure.

use crate::sys::time::write_rfc3339;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::IpAddr;
use std::sync::Arc;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Certificates in a chain that are looked at; real ones have three.
const CHAIN_MAX: usize = 16;

/// Why a chain and a key cannot be presented to clients. The text says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The chain has no certificate, or a broken one.
    #[error("{0}; expected PEM, the server's certificate first and then those that lead to the root")]
    Chain(String),
    /// There is no private key, or one that cannot be used.
    #[error("{0}; expected the certificate's private key in PEM (PKCS #8, PKCS #1 or SEC 1), without a passphrase")]
    Key(String),
    /// The key is that of another certificate.
    #[error("the key does not belong to the certificate ({names}); expected the pair that was made together")]
    KeyMismatch {
        /// What the certificate is for.
        names: String,
    },
    /// The certificate is not valid any more.
    #[error("the certificate ({names}) expired on {}; expected one that is valid now", write_rfc3339(*.not_after))]
    Expired {
        /// What the certificate is for.
        names: String,
        /// The Unix second at which it ended.
        not_after: u64,
    },
    /// The certificate is not valid yet.
    #[error("the certificate ({names}) is not valid before {}; check this machine's clock", write_rfc3339(*.not_before))]
    NotYetValid {
        /// What the certificate is for.
        names: String,
        /// The Unix second at which it begins.
        not_before: u64,
    },
}

/// A certificate that can be presented: its chain reads, and the key is its own.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// Chain and key.
    pub key: Arc<CertifiedKey>,
    /// The names that it is for, in lower case, such as `relay.example.com` and `*.example.com`; also IP addresses.
    pub names: Vec<String>,
    /// The Unix second from which it is valid.
    pub not_before: u64,
    /// The Unix second at which it ends.
    pub not_after: u64,
}

impl Certificate {
    /// Reads a chain (the server's own certificate first) and its key, both PEM. Whether it is valid now is
    /// [`Self::check_time`]'s business.
    ///
    /// # Errors
    /// [`CertificateError`], all but the two that are about time.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain = read_chain(chain)?;
        let key = read_key(key)?;
        let unreadable = |error: &dyn std::fmt::Display| {
            CertificateError::Chain(format!("the first certificate cannot be read: {error}"))
        };
        let leaf = chain.first().ok_or_else(|| CertificateError::Chain("there is no certificate".to_owned()))?;
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| unreadable(&error))?;
        let names = names_of(&leaf);
        let second = |time: i64| u64::try_from(time).unwrap_or(0);
        let validity = leaf.validity();
        let (not_before, not_after) = (second(validity.not_before.timestamp()), second(validity.not_after.timestamp()));
        let key = CertifiedKey::from_der(chain.clone(), key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::KeyMismatch { names: names.join(", ") },
            rustls::Error::InvalidCertificate(error) => unreadable(&format_args!("{error:?}")),
            error => CertificateError::Key(format!("the private key cannot be used: {error}")),
        })?;
        Ok(Self { key: Arc::new(key), names, not_before, not_after })
    }

    /// Whether it is valid at this Unix second.
    ///
    /// # Errors
    /// [`CertificateError::Expired`] or [`CertificateError::NotYetValid`].
    pub fn check_time(&self, now: u64) -> Result<(), CertificateError> {
        let names = || self.names.join(", ");
        if now > self.not_after {
            return Err(CertificateError::Expired { names: names(), not_after: self.not_after });
        }
        if now < self.not_before {
            return Err(CertificateError::NotYetValid { names: names(), not_before: self.not_before });
        }
        Ok(())
    }

    /// Whether a client that asks for this name, in lower case, may be shown it. A wildcard stands for one label
    /// (RFC 9525 section 6.3).
    #[must_use]
    pub fn is_for(&self, name: &str) -> bool {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|own| own == name || own.strip_prefix("*.").is_some_and(|own| Some(own) == parent))
    }
}

/// The cryptography of all TLS here.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let broken = |error: pem::Error| CertificateError::Chain(pem_fault(&error));
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem).take(CHAIN_MAX).collect::<Result<_, _>>().map_err(broken)?;
    match chain.len() {
        0 => Err(CertificateError::Chain("there is no certificate in it".to_owned())),
        _ => Ok(chain),
    }
}

fn read_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        _ if is_encrypted(pem) => CertificateError::Key("the private key is encrypted with a passphrase".to_owned()),
        pem::Error::NoItemsFound => CertificateError::Key("there is no private key in it".to_owned()),
        error => CertificateError::Key(pem_fault(&error)),
    })
}

/// Whether it has a key in one of the two forms with a passphrase: PKCS #8, and the older one of OpenSSL.
fn is_encrypted(pem: &[u8]) -> bool {
    let has = |mark: &[u8]| pem.windows(mark.len()).any(|bytes| bytes == mark);
    has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED")
}

/// What is wrong with a PEM file. Not the reader's own text: it shows bytes as numbers, and may repeat what it read.
pub(super) fn pem_fault(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("the file ends inside its {} section", String::from_utf8_lossy(end_marker))
        }
        pem::Error::IllegalSectionStart { .. } => "a line that begins a PEM section is broken".to_owned(),
        pem::Error::Base64Decode(_) => "a PEM section is broken: it is not base64".to_owned(),
        pem::Error::SectionTooLarge => "a PEM section is too long".to_owned(),
        _ => "not readable as PEM".to_owned(),
    }
}

fn names_of(leaf: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternatives)) = leaf.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    };
    alternatives.value.general_names.iter().filter_map(name).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A self-signed certificate for `names`, as PEM: chain and key.
    pub(crate) fn pem_for(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    /// The same, read.
    pub(crate) fn certificate_for(names: &[&str]) -> Certificate {
        let (chain, key) = pem_for(names);
        Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
    }

    #[test]
    fn names_and_times_are_read() {
        let (_, key) = pem_for(&["x"]);
        let key = rcgen::KeyPair::from_pem(&key).unwrap();
        let names = ["Relay.Example.com", "*.example.com", "192.0.2.1", "2001:db8::1"].map(str::to_owned);
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(2024, 2, 8);
        params.not_after = rcgen::date_time_ymd(2024, 2, 9);
        let chain = params.self_signed(&key).unwrap().pem();
        let certificate = Certificate::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        assert_eq!(certificate.names, ["relay.example.com", "*.example.com", "192.0.2.1", "2001:db8::1"]);
        assert_eq!((certificate.not_before, certificate.not_after), (1_707_350_400, 1_707_436_800));
        assert_eq!(certificate.check_time(1_707_436_800), Ok(()));
        let late = certificate.check_time(1_707_436_801).unwrap_err().to_string();
        assert!(late.contains("relay.example.com") && late.contains("expired on 2024-02-09T00:00:00Z"), "{late}");
        let early = certificate.check_time(1_707_350_399).unwrap_err().to_string();
        assert!(early.contains("not valid before 2024-02-08T00:00:00Z"), "{early}");
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let certificate = certificate_for(&["*.example.com", "a.b.example.org"]);
        for (name, is) in [
            ("relay.example.com", true),
            ("a.b.example.com", false),
            ("example.com", false),
            ("a.b.example.org", true),
            ("b.example.org", false),
        ] {
            assert_eq!(certificate.is_for(name), is, "{name}");
        }
    }

    #[test]
    fn what_is_no_pair_says_why_and_shows_no_key() {
        let (chain, key) = pem_for(&["a.example"]);
        let (_, other) = pem_for(&["b.example"]);
        let broken = chain.replacen("MII", "MI*", 1);
        let cut: String = chain.lines().take(3).chain(["-----END CERTIFICATE-----"]).collect::<Vec<_>>().join("\n");
        let (cut_chain, cut_key) = (&chain[..chain.len() - 40], &key[..key.len() - 40]);
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let old_encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        for (chain, key, says) in [
            ("", key.as_str(), "no certificate"),
            (key.as_str(), &key, "no certificate"),
            (&broken, &key, "PEM"),
            (cut_chain, &key, "the file ends inside its CERTIFICATE section"),
            (&chain, cut_key, "the file ends inside its PRIVATE KEY section"),
            (&chain, &encrypted, "encrypted with a passphrase"),
            (&chain, old_encrypted, "encrypted with a passphrase"),
            (&cut, &key, "cannot be read"),
            (&chain, "", "no private key"),
            (&chain, &chain, "no private key"),
            (&chain, &other, "does not belong to the certificate (a.example)"),
            (&chain, &key.replacen("MI", "MJ", 1), "private key"),
        ] {
            let error = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("; expected "), "{says}: {error}");
            let secret = key.lines().nth(1).unwrap_or("no such line");
            assert!(!error.contains(secret), "{error}");
        }
    }
}
