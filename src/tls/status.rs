//! How each certificate fares, for `/health`, the log and the metrics.

use crate::sys::time::write_rfc3339;

/// Where a certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Files that the operator keeps up to date.
    Files,
    /// An ACME directory that the relay asks itself.
    Acme,
}

impl Source {
    /// The name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Acme => "acme",
        }
    }
}

/// One place for a certificate and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateStatus {
    /// The domain, or the path of the certificate's file: what the operator named. The label in metrics.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// The Unix second from which on the certificate that is presented is valid.
    pub not_before: u64,
    /// The Unix second at which the certificate that is presented ends; `None`: there is none yet.
    pub not_after: Option<u64>,
    /// The Unix second at which it was loaded or issued.
    pub loaded_at: Option<u64>,
    /// How often one was loaded or issued, the first included.
    pub loads: u64,
    /// How often that failed.
    pub failures: u64,
    /// What went wrong last; `None` once it worked again.
    pub last_error: Option<String>,
}

impl CertificateStatus {
    /// A place that is empty.
    #[must_use]
    pub fn new(name: String, source: Source) -> Self {
        Self { name, source, not_before: 0, not_after: None, loaded_at: None, loads: 0, failures: 0, last_error: None }
    }

    /// What the operator has to look at, at this Unix second, in one line; `None`: all is well.
    #[must_use]
    pub fn fault(&self, now: u64) -> Option<String> {
        let state = self.state(now)?;
        let reason = self.last_error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
        Some(format!("certificate {}: {state}{reason}", self.name))
    }

    /// What is wrong, without the reason; it stays the same for as long as the same is wrong.
    #[must_use]
    pub fn state(&self, now: u64) -> Option<String> {
        Some(match self.not_after {
            None => "no certificate yet".to_owned(),
            Some(not_after) if not_after < now => format!("ended {}", write_rfc3339(not_after)),
            Some(_) if now < self.not_before => {
                format!("not valid before {}, or this machine's clock is wrong", write_rfc3339(self.not_before))
            }
            Some(not_after) => match self.last_error {
                None => return None,
                Some(_) => format!("not renewed, valid until {}", write_rfc3339(not_after)),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_what_is_and_why() {
        let mut status = CertificateStatus::new("a.example".to_owned(), Source::Acme);
        assert_eq!(status.fault(5).unwrap(), "certificate a.example: no certificate yet");
        status.not_after = Some(10);
        assert_eq!(status.fault(5), None);
        assert_eq!(status.fault(11).unwrap(), "certificate a.example: ended 1970-01-01T00:00:10Z");
        status.not_before = 4;
        let early = status.fault(3).unwrap();
        assert!(early.contains("not valid before 1970-01-01T00:00:04Z") && early.contains("clock"), "{early}");
        assert_eq!(status.fault(4), None);
        status.last_error = Some("CA down".to_owned());
        assert_eq!(
            status.fault(5).unwrap(),
            "certificate a.example: not renewed, valid until 1970-01-01T00:00:10Z: CA down"
        );
    }
}
