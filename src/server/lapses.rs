//! Certificates that end while the relay runs: said in the log once, and once more when they are renewed.

use crate::tls::status::CertificateStatus;
use std::collections::BTreeMap;

/// What was said of which certificate.
#[derive(Debug, Default)]
pub(super) struct Lapses(BTreeMap<String, String>);

impl Lapses {
    /// Says what has changed since it was last called, at this Unix second.
    pub(super) fn log(&mut self, statuses: &[CertificateStatus], now: u64) {
        // After a reload, what is no longer used is nobody's concern.
        self.0.retain(|name, _| statuses.iter().any(|status| status.name == *name));
        // One that has not come yet is waited for, and each failure to get it is told of by itself.
        for status in statuses.iter().filter(|status| status.not_after.is_some()) {
            self.log_one(status, now);
        }
    }

    fn log_one(&mut self, status: &CertificateStatus, now: u64) {
        let name = &status.name;
        match status.state(now) {
            Some(state) if self.0.get(name) == Some(&state) => {}
            Some(state) => {
                let reason = status.last_error.as_deref();
                tracing::warn!(certificate = %name, state, reason, "a certificate in use has a problem: /health is degraded");
                self.0.insert(name.clone(), state);
            }
            None => {
                if self.0.remove(name).is_some() {
                    tracing::info!(certificate = %name, "the certificate is in order again");
                }
            }
        }
    }
}
