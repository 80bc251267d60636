//! One certificate from the CA: order, challenge, key, chain (RFC 8555 section 7.4).

use super::super::certificate::provider;
use super::super::certificates::{Certificates, Challenge};
use super::challenges::{ChallengeAnswers, Token};
use super::schedule::Trouble;
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeHandle, ChallengeType, Error, Identifier, NewOrder,
    Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::CertificateError;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long the CA may take to verify a challenge, and to issue. Let's Encrypt takes seconds.
const PATIENCE: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(Duration::from_secs(90));

/// How a domain is shown to be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// TLS-ALPN-01 (RFC 8737): a certificate on port 443.
    Tls,
    /// HTTP-01 (RFC 8555 section 8.3): a text on port 80.
    Http,
}

impl Way {
    fn challenge(self) -> ChallengeType {
        match self {
            Self::Tls => ChallengeType::TlsAlpn01,
            Self::Http => ChallengeType::Http01,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tls => "TLS-ALPN-01",
            Self::Http => "HTTP-01",
        }
    }

    fn to_check(self) -> &'static str {
        match self {
            Self::Tls => {
                "port 443 must reach this relay from outside, without a firewall or a proxy that ends TLS in between"
            }
            Self::Http => "port 80 must reach --http-addr from outside",
        }
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The CA looked, and did not find what it looked for.
    #[error("the CA refused the {} challenge for {domain}: {said}; check that the DNS entry of {domain} leads to this machine (A and AAAA), and: {}", way.name(), way.to_check())]
    Challenge {
        /// For which name.
        domain: String,
        /// How it was asked to.
        way: Way,
        /// The CA's words.
        said: String,
    },
    /// The CA does not offer this way.
    #[error("the CA offers no {} challenge", .0.name())]
    NotOffered(Way),
    /// The CA said no to a request.
    #[error("the CA said: {}", words(.0))]
    Said(Problem),
    /// It could not be reached, or was not understood.
    #[error("{}", chain_of(.0))]
    Away(Error),
    /// What it has to be checked against cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// It took too long.
    #[error("the CA did not answer in time")]
    Slow,
    /// What it issued cannot be used, or a key could not be made.
    #[error("{0}")]
    Useless(String),
}

impl Fault {
    /// Whether trying again soon may help.
    pub(super) fn trouble(&self) -> Trouble {
        match self {
            Self::Said(problem) if problem.status.is_some_and(|status| status >= 500) => Trouble::Away,
            Self::Away(_) | Self::Unreadable(_) | Self::Slow => Trouble::Away,
            Self::Challenge { .. } | Self::NotOffered(_) | Self::Said(_) | Self::Useless(_) => Trouble::Refused,
        }
    }

    /// What the operator is told; `directory` is the URL that was asked.
    pub(super) fn told(&self, directory: &str) -> String {
        let Self::Away(error) = self else { return self.to_string() };
        match distrust(error) {
            Some(why) => format!(
                "the HTTPS certificate of the ACME directory {directory} is not trusted: {why}; check that --acme-ca \
                 has the CA certificates behind it (without that flag the system's hold)"
            ),
            None => format!("{} (ACME directory {directory})", chain_of(error)),
        }
    }
}

/// Why the CA's own certificate was not taken; `None`: that is not what is wrong.
fn distrust(error: &Error) -> Option<String> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = match error {
        Error::Other(inner) => Some(inner.as_ref()),
        other => Some(other),
    };
    while let Some(cause) = next {
        if let Some(rustls::Error::InvalidCertificate(fault)) = cause.downcast_ref() {
            return Some(in_words(fault));
        }
        // What is in an `io::Error` is not its source.
        next = match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    None
}

/// rustls has names for most of these, and no words.
fn in_words(fault: &CertificateError) -> String {
    match fault {
        CertificateError::UnknownIssuer => "its issuer is unknown".to_owned(),
        CertificateError::Expired => "it has ended".to_owned(),
        CertificateError::NotValidYet => "it is not valid yet".to_owned(),
        CertificateError::NotValidForName => "it is for another name".to_owned(),
        CertificateError::Revoked => "it is revoked".to_owned(),
        CertificateError::BadSignature => "its signature is not its issuer's".to_owned(),
        other => other.to_string(),
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::Said(problem),
            Error::Timeout(_) => Self::Slow,
            error => Self::Away(error),
        }
    }
}

/// A problem in the CA's words.
fn words(problem: &Problem) -> String {
    let detail = problem.detail.as_deref().unwrap_or("nothing more");
    match problem.r#type.as_deref() {
        Some(kind) => format!("{detail} ({})", kind.rsplit(':').next().unwrap_or(kind)),
        None => detail.to_owned(),
    }
}

/// An error with what is behind it: hyper's own text says only that something failed.
fn chain_of(error: &Error) -> String {
    let mut text = format!("the CA cannot be reached or understood: {error}");
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// What answers challenges.
pub(super) struct Responders {
    pub(super) certificates: Arc<Certificates>,
    /// `None`: port 80 is not served.
    pub(super) tokens: Option<Arc<ChallengeAnswers>>,
}

/// A challenge that is being answered until this is dropped.
enum Answered {
    Tls { _shown: Challenge },
    Http { _shown: Token },
}

impl Responders {
    /// The ways that can be gone, in the order in which they are tried.
    pub(super) fn ways(&self) -> Vec<Way> {
        match self.tokens {
            Some(_) => vec![Way::Tls, Way::Http],
            None => vec![Way::Tls],
        }
    }

    fn answer(&self, way: Way, domain: &str, challenge: &ChallengeHandle<'_>) -> Result<Answered, Fault> {
        let authorization = challenge.key_authorization();
        match (way, &self.tokens) {
            (Way::Tls, _) => {
                let key = challenge_certificate(domain, authorization.digest().as_ref())?;
                Ok(Answered::Tls { _shown: self.certificates.challenge(domain, key) })
            }
            (Way::Http, Some(tokens)) => {
                Ok(Answered::Http { _shown: tokens.present(&challenge.token, authorization.as_str()) })
            }
            (Way::Http, None) => Err(Fault::NotOffered(way)),
        }
    }
}

/// A self-signed certificate that carries the challenge's answer (RFC 8737 section 3).
fn challenge_certificate(domain: &str, digest: &[u8]) -> Result<Arc<CertifiedKey>, Fault> {
    let make = || -> Result<CertifiedKey, Box<dyn std::error::Error>> {
        let mut params = CertificateParams::new([domain.to_owned()])?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        // Not `from_der`, which reads the certificate and does not know the extension.
        let key = provider().key_provider.load_private_key(key)?;
        Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
    };
    make().map(Arc::new).map_err(|error| Fault::Useless(format!("no challenge certificate can be made: {error}")))
}

/// Orders a certificate for `domain`, shown to be ours in one way; gives key and chain as PEM. `replaces` is the one
/// that it renews, for CAs that take note of it (RFC 9773 section 5).
pub(super) async fn order(
    account: &Account,
    domain: &str,
    way: Way,
    responders: &Responders,
    replaces: Option<CertificateIdentifier<'_>>,
) -> Result<String, Fault> {
    let identifiers = [Identifier::Dns(domain.to_owned())];
    let mut order = match replaces {
        // A CA that does not know of the old certificate, or of `replaces`, issues without.
        Some(replaces) => match account.new_order(&NewOrder::new(&identifiers).replaces(replaces)).await {
            Ok(order) => order,
            Err(error) => {
                tracing::debug!(domain, %error, "ordering without naming the certificate that is renewed");
                account.new_order(&NewOrder::new(&identifiers)).await?
            }
        },
        None => account.new_order(&NewOrder::new(&identifiers)).await?,
    };
    let answered = answer_all(&mut order, domain, way, responders).await?;
    match order.poll_ready(&PATIENCE).await {
        Ok(OrderStatus::Ready) => {}
        Ok(_) | Err(Error::Api(_)) => return Err(refusal(&mut order, domain, way).await),
        Err(error) => return Err(error.into()),
    }
    drop(answered);
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&PATIENCE).await?;
    Ok(key + &chain)
}

async fn answer_all(
    order: &mut Order,
    domain: &str,
    way: Way,
    responders: &Responders,
) -> Result<Vec<Answered>, Fault> {
    let mut answered = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            // From an order before.
            continue;
        }
        let mut challenge = authorization.challenge(way.challenge()).ok_or(Fault::NotOffered(way))?;
        answered.push(responders.answer(way, domain, &challenge)?);
        challenge.set_ready().await?;
    }
    Ok(answered)
}

/// Why the order did not become ready: the challenge knows.
async fn refusal(order: &mut Order, domain: &str, way: Way) -> Fault {
    let mut said = None;
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if let Ok(state) = authorization.refresh().await {
            said = said.or_else(|| state.challenges.iter().find_map(|challenge| challenge.error.as_ref().map(words)));
        }
    }
    let said = said.or_else(|| order.state().error.as_ref().map(words));
    Fault::Challenge { domain: domain.to_owned(), way, said: said.unwrap_or_else(|| "it gave no reason".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_trusted_is_named_with_the_flag_that_mends_it() {
        let directory = "https://ca.example/dir";
        let told = |inner: io::Error| Fault::Away(Error::Other(Box::new(io::Error::other(inner)))).told(directory);
        let fault = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let text = told(io::Error::new(io::ErrorKind::InvalidData, fault));
        assert!(text.contains(directory) && text.contains("--acme-ca"), "{text}");
        assert!(text.contains("its issuer is unknown") && !text.contains("UnknownIssuer"), "{text}");
        let text = told(io::ErrorKind::ConnectionRefused.into());
        assert!(text.contains(directory) && !text.contains("--acme-ca"), "{text}");
    }
}
