//! Several relays that share their tokens through NATS.

use super::error::ConfigError;
use crate::cluster::{NatsUrl, Reach, Tls};
use std::path::PathBuf;

/// Whether and how tokens are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The NATS servers; empty: tokens are this relay's alone.
    pub servers: Vec<NatsUrl>,
    /// What the buckets are named after.
    pub name: String,
    /// On how many NATS servers each bucket is kept: 1, 3 or 5.
    pub replicas: u8,
    /// The file with the credentials for NATS.
    pub creds: Option<PathBuf>,
    /// Certificates of the authorities that NATS servers are checked against; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The certificate that is shown to NATS.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// Whether NATS on other machines may be reached without TLS.
    pub is_plain_allowed: bool,
}

impl Cluster {
    /// Whether tokens are shared.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.servers.is_empty()
    }

    /// Where NATS is, and how it is reached.
    #[must_use]
    pub fn reach(&self) -> Reach {
        let Self { servers, name, replicas, creds, ca, cert, key, is_plain_allowed: _ } = self.clone();
        Reach { servers, name, replicas, creds, tls: Tls { ca, pair: cert.zip(key) } }
    }

    pub(super) fn check(&self, has_admin_key: bool) -> Result<(), ConfigError> {
        let conflict = |text: &str| Err(ConfigError::Conflict(text.to_owned()));
        if self.cert.is_some() != self.key.is_some() {
            return conflict("--nats-cert and --nats-key go together: here is one of them");
        }
        if !self.is_on() {
            return Ok(());
        }
        if !has_admin_key {
            return conflict(
                "--cluster needs --admin-key, or the credential admin-key: each relay would make a key of its own, and \
                 the operator's programs could not talk to all of them",
            );
        }
        let plain = self.servers.iter().find(|url| !url.is_tls() && !url.is_loopback());
        match plain.filter(|_| !self.is_plain_allowed) {
            Some(url) => Err(ConfigError::Conflict(format!(
                "--cluster: {url} would be reached without TLS, on another machine: name it tls://…, or allow that with \
                 --nats-plain on"
            ))),
            None => Ok(()),
        }
    }
}
