//! All certificates of the relay, and which of them a client is shown. It must never make a handshake wait: those who
//! load certificates put a new table in place at once, and handshakes in progress keep the one that they began with.
//!
//! **Which one:** the certificate whose name is the one that the client asks for (SNI), exactly or by a wildcard; where
//! several have it, the first that is valid. A client that names nobody, or a name that no certificate has, is shown the first one
//! there is (RFC 6066 section 3 leaves that choice): it then says which name it missed and which it saw, which tells
//! the operator more than an alert. Where there is no certificate at all yet, rustls ends the handshake with the alert
//! `access_denied`: nobody gets used to clicking a self-signed one away.
//!
//! **ACME challenges** (TLS-ALPN-01, RFC 8737) are presented to clients that offer `acme-tls/1` and nothing else, and to
//! nobody else.

use super::certificate::Certificate;
use super::status::{CertificateStatus, Source};
use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The ALPN protocol of TLS-ALPN-01 challenges (RFC 8737 section 6.2).
pub const ACME_TLS: &[u8] = b"acme-tls/1";

/// A place for one certificate: see [`Certificates::add`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateSlot(usize);

/// The certificates, shared through an `Arc`: the shards read, the certificates' own thread writes.
#[derive(Debug, Default)]
pub struct Certificates {
    /// In the order in which they were added. Held for moments only, and never by a handshake.
    places: Mutex<Vec<Kept>>,
    /// What handshakes look at.
    table: ArcSwap<Table>,
    /// Challenges in progress, by name.
    challenges: ArcSwap<HashMap<String, Arc<CertifiedKey>>>,
}

#[derive(Debug)]
struct Kept {
    certificate: Option<Certificate>,
    status: CertificateStatus,
}

/// Made anew with each change.
#[derive(Debug, Default)]
struct Table {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    /// By what is behind `*.`.
    by_parent: HashMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Adds an empty place. `name` is what the operator named: a domain, or the path of a file.
    pub fn add(&self, name: String, source: Source) -> CertificateSlot {
        let mut places = self.places();
        places.push(Kept { certificate: None, status: CertificateStatus::new(name, source) });
        CertificateSlot(places.len() - 1)
    }

    /// Presents this certificate from now on, in place of the one that was there. `now` is a Unix second.
    pub fn put(&self, now: u64, place: CertificateSlot, certificate: Certificate) {
        let mut places = self.places();
        let Some(kept) = places.get_mut(place.0) else { return };
        (kept.status.not_before, kept.status.not_after) = (certificate.not_before, Some(certificate.not_after));
        kept.status.loaded_at = Some(now);
        kept.status.loads += 1;
        kept.status.last_error = None;
        kept.certificate = Some(certificate);
        self.table.store(Arc::new(Table::of(now, &places)));
    }

    /// Notes that no new certificate could be had; the one that is there stays.
    pub fn fail(&self, place: CertificateSlot, error: String) {
        if let Some(kept) = self.places().get_mut(place.0) {
            kept.status.failures += 1;
            kept.status.last_error = Some(error);
        }
    }

    /// Whether this place has a certificate that is valid at this Unix second.
    #[must_use]
    pub fn is_valid(&self, now: u64, place: CertificateSlot) -> bool {
        let places = self.places();
        let certificate = places.get(place.0).and_then(|kept| kept.certificate.as_ref());
        certificate.is_some_and(|certificate| certificate.check_time(now).is_ok())
    }

    /// How each certificate fares, in the order in which they were added.
    #[must_use]
    pub fn statuses(&self) -> Vec<CertificateStatus> {
        self.places().iter().map(|kept| kept.status.clone()).collect()
    }

    /// What the operator has to look at, at this Unix second; `None`: all certificates are well. For `/health`.
    #[must_use]
    pub fn fault(&self, now: u64) -> Option<String> {
        let faults: Vec<String> = self.places().iter().filter_map(|kept| kept.status.fault(now)).collect();
        (!faults.is_empty()).then(|| faults.join("; "))
    }

    /// Presents a challenge's certificate for `name` until the guard is dropped.
    #[must_use]
    pub fn challenge(self: &Arc<Self>, name: &str, key: Arc<CertifiedKey>) -> Challenge {
        let name = name.to_ascii_lowercase();
        self.challenges.rcu(|all| with(all, &name, Some(&key)));
        Challenge { certificates: Arc::clone(self), name }
    }

    fn places(&self) -> MutexGuard<'_, Vec<Kept>> {
        // Each change is whole before anything in it can panic.
        self.places.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The certificate for a client that names `name` and offers these protocols.
    fn choose<'p>(&self, name: Option<&str>, mut alpn: impl Iterator<Item = &'p [u8]>) -> Option<Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase);
        if alpn.next() == Some(ACME_TLS) && alpn.next().is_none() {
            return self.challenges.load().get(name.as_deref()?).cloned();
        }
        self.table.load().choose(name.as_deref())
    }
}

fn with(
    all: &HashMap<String, Arc<CertifiedKey>>,
    name: &str,
    key: Option<&Arc<CertifiedKey>>,
) -> HashMap<String, Arc<CertifiedKey>> {
    let mut all = all.clone();
    match key {
        Some(key) => all.insert(name.to_owned(), Arc::clone(key)),
        None => all.remove(name),
    };
    all
}

impl Table {
    /// Those that are valid at this Unix second go before those that are not.
    fn of(now: u64, places: &[Kept]) -> Self {
        let mut table = Self::default();
        let mut all: Vec<_> = places.iter().filter_map(|kept| kept.certificate.as_ref()).collect();
        all.sort_by_key(|certificate| certificate.check_time(now).is_err());
        for certificate in all {
            table.first.get_or_insert_with(|| Arc::clone(&certificate.key));
            for name in &certificate.names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut table.by_parent, parent),
                    None => (&mut table.by_name, name.as_str()),
                };
                names.entry(name.to_owned()).or_insert_with(|| Arc::clone(&certificate.key));
            }
        }
        table
    }

    fn choose(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let named = name.and_then(|name| {
            let by_parent = || name.split_once('.').and_then(|(_, parent)| self.by_parent.get(parent));
            self.by_name.get(name).or_else(by_parent)
        });
        named.or(self.first.as_ref()).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.alpn().into_iter().flatten())
    }
}

/// A challenge that is being presented.
#[derive(Debug)]
pub struct Challenge {
    certificates: Arc<Certificates>,
    name: String,
}

impl Drop for Challenge {
    fn drop(&mut self) {
        self.certificates.challenges.rcu(|all| with(all, &self.name, None));
    }
}

#[cfg(test)]
mod tests {
    use super::super::certificate::tests::certificate_for;
    use super::*;

    /// A Unix second at which the tests' certificates are valid.
    const NOW: u64 = 1_700_000_000;

    fn with_certificates(all: &[&[&str]]) -> (Arc<Certificates>, Vec<Certificate>) {
        let certificates = Arc::new(Certificates::default());
        let put = |names: &&[&str]| {
            let certificate = certificate_for(names);
            let place = certificates.add(names[0].to_owned(), Source::Files);
            certificates.put(NOW, place, certificate.clone());
            certificate
        };
        let all = all.iter().map(put).collect();
        (certificates, all)
    }

    fn shown(certificates: &Certificates, name: Option<&str>, alpn: &[&[u8]]) -> Option<Vec<u8>> {
        certificates.choose(name, alpn.iter().copied()).map(|key| key.cert[0].to_vec())
    }

    fn der(certificate: &Certificate) -> Option<Vec<u8>> {
        Some(certificate.key.cert[0].to_vec())
    }

    #[test]
    fn the_name_decides_and_the_first_is_for_all_others() {
        let (certificates, all) =
            with_certificates(&[&["a.example"], &["*.b.example", "b.example"], &["x.b.example", "a.example"]]);
        for (name, which) in [
            (Some("a.example"), 0),
            (Some("A.Example"), 0),
            (Some("b.example"), 1),
            (Some("any.b.example"), 1),
            (Some("x.b.example"), 2),
            (Some("a.any.b.example"), 0),
            (Some("example"), 0),
            (None, 0),
        ] {
            assert_eq!(shown(&certificates, name, &[b"http/1.1"]), der(&all[which]), "{name:?}");
        }
    }

    #[test]
    fn a_new_certificate_takes_the_place_of_the_old_and_a_failure_leaves_it() {
        let (certificates, all) = with_certificates(&[&["a.example"], &["b.example"]]);
        let new = certificate_for(&["c.example", "a.example"]);
        certificates.fail(CertificateSlot(0), "broken".to_owned());
        assert_eq!(shown(&certificates, Some("a.example"), &[]), der(&all[0]));
        assert!(certificates.fault(NOW).unwrap().contains("broken"));
        certificates.put(NOW + 7, CertificateSlot(0), new.clone());
        assert_eq!(shown(&certificates, Some("a.example"), &[]), der(&new));
        assert_eq!(shown(&certificates, None, &[]), der(&new));
        assert_eq!(certificates.fault(NOW), None);
        let status = &certificates.statuses()[0];
        assert_eq!((status.loads, status.failures, status.loaded_at), (2, 1, Some(NOW + 7)));
    }

    #[test]
    fn a_certificate_that_is_not_valid_is_shown_where_no_other_has_the_name() {
        let (certificates, all) = with_certificates(&[&["a.example"], &["a.example", "b.example"]]);
        let mut ended = all[0].clone();
        ended.not_after = NOW - 1;
        certificates.put(NOW, CertificateSlot(0), ended);
        assert!(!certificates.is_valid(NOW, CertificateSlot(0)) && certificates.is_valid(NOW, CertificateSlot(1)));
        assert_eq!(shown(&certificates, Some("a.example"), &[]), der(&all[1]));
        assert_eq!(shown(&certificates, None, &[]), der(&all[1]));
        let mut ended = all[1].clone();
        ended.not_after = NOW - 1;
        certificates.put(NOW, CertificateSlot(1), ended);
        assert_eq!(shown(&certificates, Some("b.example"), &[]), der(&all[1]));
        assert_eq!(shown(&certificates, Some("a.example"), &[]), der(&all[0]));
        assert_eq!(certificates.fault(NOW).unwrap().matches("ended").count(), 2);
    }

    #[test]
    fn without_a_certificate_nothing_is_shown_and_health_says_so() {
        let certificates = Certificates::default();
        certificates.add("a.example".to_owned(), Source::Acme);
        assert_eq!(shown(&certificates, Some("a.example"), &[]), None);
        assert!(certificates.fault(NOW).unwrap().contains("no certificate yet"));
    }

    #[test]
    fn a_challenge_is_shown_to_the_validator_alone_and_ends_with_its_guard() {
        let (certificates, all) = with_certificates(&[&["a.example"]]);
        let challenge = certificate_for(&["a.example"]);
        let guard = certificates.challenge("A.example", Arc::clone(&challenge.key));
        assert_eq!(shown(&certificates, Some("a.example"), &[ACME_TLS]), der(&challenge));
        assert_eq!(shown(&certificates, Some("b.example"), &[ACME_TLS]), None);
        assert_eq!(shown(&certificates, None, &[ACME_TLS]), None);
        for alpn in [&[][..], &[&b"http/1.1"[..]], &[ACME_TLS, b"http/1.1"], &[b"http/1.1", ACME_TLS]] {
            assert_eq!(shown(&certificates, Some("a.example"), alpn), der(&all[0]), "{alpn:?}");
        }
        drop(guard);
        assert_eq!(shown(&certificates, Some("a.example"), &[ACME_TLS]), None);
    }
}
