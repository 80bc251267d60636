//! Keeps a certificate for each domain: a task for each waits until one is due, orders it, and waits again.

use super::account::Accounts;
use super::challenges::ChallengeAnswers;
use super::client::RetryAfter;
use super::disk::Disk;
use super::order::{Fault, Responders, Way, order};
use super::schedule::{renew_at, renew_in, retry_delay};
use super::{Acme, DiskError};
use crate::sys::time::unix_now;
use crate::tls::certificate::Certificate;
use crate::tls::certificates::{CertificateSlot, Certificates};
use crate::tls::status::Source;
use instant_acme::{Account, CertificateIdentifier};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// Orders in progress at a time.
const ORDERS_MAX: usize = 4;
/// One attempt, both ways tried.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// The clock is looked at again after this at the latest: it may be set, and the machine may sleep.
const NAP_MAX: Duration = Duration::from_secs(60);
/// How often the CA is asked for a renewal window (ARI), whatever it says itself.
const WINDOW_EVERY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));
/// How long until it is asked again where it did not answer.
const WINDOW_RETRY: Duration = Duration::from_secs(6 * 3600);

/// All domains and what they share.
pub struct Keeper {
    accounts: Accounts,
    disk: Disk,
    responders: Responders,
    retry_after: RetryAfter,
    orders: Semaphore,
    domains: Vec<(String, CertificateSlot, Option<Certificate>)>,
}

impl Keeper {
    /// Presents what is on the disk. `tokens` answer on port 80, if that is served.
    ///
    /// # Errors
    /// [`DiskError`]: what the CA gives out could not be kept.
    pub fn open(
        acme: &Acme,
        certificates: &Arc<Certificates>,
        tokens: Option<Arc<ChallengeAnswers>>,
    ) -> Result<Self, DiskError> {
        let disk = Disk::open(&acme.dir, &acme.directory)?;
        let retry_after = RetryAfter::default();
        let mut domains = Vec::new();
        for domain in &acme.domains {
            let place = certificates.add(domain.clone(), Source::Acme);
            let kept = kept(&disk, domain);
            if let Some(certificate) = &kept {
                certificates.put(unix_now().as_secs(), place, certificate.clone());
            }
            domains.push((domain.clone(), place, kept));
        }
        let responders = Responders { certificates: Arc::clone(certificates), tokens };
        let accounts = Accounts::new(acme.clone(), disk.clone(), retry_after.clone());
        Ok(Self { accounts, disk, responders, retry_after, orders: Semaphore::new(ORDERS_MAX), domains })
    }

    /// Starts a task for each domain on the runtime that this is called on. `reloaded` makes those that failed try
    /// again without waiting.
    pub fn start(mut self, reloaded: &watch::Receiver<()>) {
        let domains = std::mem::take(&mut self.domains);
        let keeper = Arc::new(self);
        for (domain, place, certificate) in domains {
            let task = Domain {
                keeper: Arc::clone(&keeper),
                domain,
                place,
                certificate,
                way: None,
                failures: 0,
                due: 0,
                ask: 0,
            };
            tokio::spawn(task.keep(reloaded.clone()));
        }
    }
}

/// What an earlier run has kept. Unusable, it is told, and a new one is ordered.
fn kept(disk: &Disk, domain: &str) -> Option<Certificate> {
    let of_no_use = |error: &dyn std::fmt::Display| {
        let file = disk.certificate_path(domain);
        tracing::warn!(file = %file.display(), %error, "a stored certificate cannot be used; a new one is ordered");
    };
    let pem = disk.certificate(domain).inspect_err(|error| of_no_use(error)).ok()??;
    let certificate = Certificate::from_pem(&pem, &pem).inspect_err(|error| of_no_use(error)).ok()?;
    certificate.is_for(domain).then_some(certificate)
}

/// One domain.
struct Domain {
    keeper: Arc<Keeper>,
    domain: String,
    place: CertificateSlot,
    certificate: Option<Certificate>,
    /// The way that worked last.
    way: Option<Way>,
    /// Attempts that failed since the last that did not.
    failures: u32,
    /// The Unix second of the next attempt.
    due: u64,
    /// The Unix second at which the CA is asked for a renewal window.
    ask: u64,
}

impl Domain {
    /// Runs until the relay ends.
    async fn keep(mut self, mut reloaded: watch::Receiver<()>) {
        if let Some(certificate) = &self.certificate {
            self.due = renew_at(certificate.not_before, certificate.not_after, chance());
        }
        loop {
            let now = unix_now().as_secs();
            if now >= self.due {
                self.attempt().await;
            } else if self.certificate.is_some() && self.failures == 0 && now >= self.ask {
                self.ask_for_window().await;
            } else {
                let next =
                    if self.failures == 0 && self.certificate.is_some() { self.due.min(self.ask) } else { self.due };
                let nap = Duration::from_secs(next - now).min(NAP_MAX);
                match tokio::time::timeout(nap, reloaded.changed()).await {
                    Ok(Ok(())) if self.failures > 0 => self.due = 0,
                    Ok(Ok(())) | Err(_) => {}
                    Ok(Err(_)) => return,
                }
            }
        }
    }

    /// Orders a certificate, and settles when the next one is due.
    async fn attempt(&mut self) {
        let attempt = tokio::time::timeout(ATTEMPT_TIMEOUT, self.issue()).await;
        match attempt.unwrap_or(Err(Fault::Slow)) {
            Ok(certificate) => {
                self.failures = 0;
                self.due =
                    renew_at(certificate.not_before, certificate.not_after, chance()).max(unix_now().as_secs() + 1);
                self.ask = 0;
                tracing::info!(
                    domain = self.domain,
                    not_after = crate::sys::time::write_rfc3339(certificate.not_after),
                    renewal = crate::sys::time::write_rfc3339(self.due),
                    "certificate issued"
                );
                self.keeper.responders.certificates.put(unix_now().as_secs(), self.place, certificate.clone());
                self.certificate = Some(certificate);
            }
            Err(fault) => self.fail(&fault),
        }
    }

    fn fail(&mut self, fault: &Fault) {
        self.failures = self.failures.saturating_add(1);
        let trouble = fault.trouble();
        let told = fault.told(self.keeper.accounts.directory());
        let wait = retry_delay(trouble, self.failures, self.keeper.retry_after.take(), chance());
        self.due = unix_now().as_secs() + wait.as_secs().max(1);
        tracing::error!(
            domain = self.domain,
            error = told,
            failures = self.failures,
            retry_sec = wait.as_secs(),
            "no certificate could be had; it is tried again, on SIGHUP at once"
        );
        self.keeper.responders.certificates.fail(self.place, told);
    }

    /// One attempt. An account that the CA has forgotten is made anew first.
    async fn issue(&mut self) -> Result<Certificate, Fault> {
        let keeper = Arc::clone(&self.keeper);
        // Never closed.
        let _seat = keeper.orders.acquire().await;
        match self.issue_in_turn(&keeper).await {
            Err(Fault::Said(problem)) if is_account_unknown(&problem) => {
                keeper.accounts.renew().await?;
                self.issue_in_turn(&keeper).await
            }
            Err(fault @ Fault::Away(_)) => {
                keeper.accounts.close().await;
                Err(fault)
            }
            other => other,
        }
    }

    /// Each way in turn, the one that worked last first.
    async fn issue_in_turn(&mut self, keeper: &Keeper) -> Result<Certificate, Fault> {
        let account = keeper.accounts.open().await?;
        let mut ways = keeper.responders.ways();
        ways.sort_by_key(|way| Some(*way) != self.way);
        let mut refused: Option<Fault> = None;
        for way in ways {
            match self.order(&account, way).await {
                Ok(certificate) => {
                    self.way = Some(way);
                    return Ok(certificate);
                }
                Err(fault @ (Fault::Challenge { .. } | Fault::NotOffered(_))) => {
                    tracing::warn!(domain = self.domain, %fault, "one way to obtain a certificate failed");
                    refused = Some(match refused {
                        Some(before @ Fault::Challenge { .. }) => before,
                        _ => fault,
                    });
                }
                Err(fault) => return Err(fault),
            }
        }
        Err(refused.unwrap_or(Fault::Slow))
    }

    /// Orders, checks what came, and keeps it.
    async fn order(&self, account: &Account, way: Way) -> Result<Certificate, Fault> {
        let renewed = self.certificate.as_ref().and_then(identifier).filter(|_| self.ask != u64::MAX);
        let pem = order(account, &self.domain, way, &self.keeper.responders, renewed).await?;
        let useless =
            |error: &dyn std::fmt::Display| Fault::Useless(format!("what the CA issued cannot be used: {error}"));
        let certificate = Certificate::from_pem(pem.as_bytes(), pem.as_bytes()).map_err(|error| useless(&error))?;
        if !certificate.is_for(&self.domain) || certificate.not_after <= unix_now().as_secs() {
            return Err(useless(&"it is for other names or has ended"));
        }
        if let Err(error) = self.keeper.disk.keep_certificate(&self.domain, pem.as_bytes()) {
            // It is presented all the same; a restart would have to ask for another one.
            tracing::error!(%error, "a certificate was issued and cannot be stored");
        }
        Ok(certificate)
    }

    /// Asks the CA when to renew (ARI, RFC 9773). It may not know; then two thirds of the life are the time.
    async fn ask_for_window(&mut self) {
        let Some(certificate) = &self.certificate else { return };
        let answer = match (identifier(certificate), self.keeper.accounts.open().await) {
            (Some(identifier), Ok(account)) => account.renewal_info(&identifier).await,
            (None, _) => Err(instant_acme::Error::Unsupported("certificates without an authority key identifier")),
            (_, Err(fault)) => {
                tracing::debug!(domain = self.domain, %fault, "the CA was not asked when to renew");
                self.ask = unix_now().as_secs() + WINDOW_RETRY.as_secs();
                return;
            }
        };
        match answer {
            Ok((info, again)) => {
                let second = |time: i64| u64::try_from(time).unwrap_or(0);
                let window = (
                    second(info.suggested_window.start.unix_timestamp()),
                    second(info.suggested_window.end.unix_timestamp()),
                );
                self.due = renew_in(window, certificate.not_before, certificate.not_after, chance());
                self.ask = unix_now().as_secs() + again.clamp(WINDOW_EVERY.0, WINDOW_EVERY.1).as_secs();
                tracing::info!(
                    domain = self.domain,
                    renewal = crate::sys::time::write_rfc3339(self.due),
                    explanation = info.explanation_url.as_deref().unwrap_or_default(),
                    "the CA suggests when to renew"
                );
            }
            Err(instant_acme::Error::Unsupported(_)) => self.ask = u64::MAX,
            Err(error) => {
                tracing::debug!(domain = self.domain, %error, "the CA did not say when to renew");
                self.ask = unix_now().as_secs() + WINDOW_RETRY.as_secs();
            }
        }
    }
}

/// What names a certificate to the CA that issued it.
fn identifier(certificate: &Certificate) -> Option<CertificateIdentifier<'static>> {
    let leaf = certificate.key.cert.first()?;
    CertificateIdentifier::try_from(leaf).ok().map(CertificateIdentifier::into_owned)
}

fn is_account_unknown(problem: &instant_acme::Problem) -> bool {
    problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":accountDoesNotExist"))
}

/// From 0 to 1. Where the system has no randomness, the middle.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}
