//! A token of one's own from a relay that lets clients register (wire contract, HTTP API).

use super::options::Trust;
use super::refusal::advice;
use super::tls::{self, TlsError};
use super::url::RelayUrl;
use coralmux_proto::token::is_token_text;
use coralmux_proxy::{Named, proxy_for, ureq_proxy_for};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use ureq::http::{HeaderMap, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// From the look-up of the name to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The longest answer.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Why there is no token.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// Too many registrations from this address.
    #[error("the relay registers no more from this address for now")]
    TooMany {
        /// When to try again, where the relay says so.
        retry_after: Option<Duration>,
    },
    /// The operator has turned registration off.
    #[error("the relay does not let clients register: ask its operator for a token")]
    Off,
    /// The relay cannot do it now, or is no relay.
    #[error("{url} answered {status}: {advice}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// What was asked for.
        url: String,
        /// What that means, and what to check.
        advice: String,
    },
    /// The proxy that the environment names does not lead there.
    #[error("through {proxy}: {error}")]
    Through {
        /// Its address, and the variable that names it.
        proxy: String,
        /// What went wrong.
        error: Box<ureq::Error>,
    },
    /// The environment names a proxy of a kind that is not supported, or none that can be read.
    #[error("{0}")]
    Proxy(String),
    /// It answered as a relay does, but with what is no token.
    #[error("the relay's answer has no token in it")]
    NoToken,
    /// No answer, or none that can be read.
    #[error("{0}")]
    Http(#[from] Box<ureq::Error>),
    /// The trusted certificates cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

#[derive(Deserialize)]
struct Answer {
    token: String,
}

/// Asks the relay for a new token. Waits for up to 20 s.
///
/// # Errors
/// Why there is none.
pub fn register(relay: &RelayUrl, trust: &Trust) -> Result<String, RegisterError> {
    let url = format!("{}/api/v1/register", relay.http());
    let proxy = proxy_of(&url).map_err(RegisterError::Proxy)?;
    let through = named_proxy(&url).map_err(RegisterError::Proxy)?.map(|named| named.to_string());
    let agent = http_agent(trust)?
        .proxy(proxy)
        .timeout_global(Some(TIMEOUT))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .build()
        .new_agent();
    let mut answer = agent.post(&url).send_empty().map_err(Box::new).map_err(|error| match through {
        Some(proxy) => RegisterError::Through { proxy, error },
        None => error.into(),
    })?;
    match answer.status().as_u16() {
        201 => {}
        403 => return Err(RegisterError::Off),
        429 => {
            return Err(RegisterError::TooMany { retry_after: retry_after(answer.headers()) });
        }
        status => {
            let advice = advice(answer.status(), answer.headers());
            return Err(RegisterError::Status { status, url, advice });
        }
    }
    let body: Answer = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_json().map_err(Box::new)?;
    // It is shown and kept: nothing else may stand there.
    if is_token_text(&body.token) { Ok(body.token) } else { Err(RegisterError::NoToken) }
}

/// What `Retry-After` asks for, in whole seconds (RFC 9110 section 10.2.3); a date is not taken.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get("retry-after")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The environment's proxy for `url`.
///
/// # Errors
/// It is of a kind that is not supported; the text names it.
pub fn proxy_of(url: &str) -> Result<Option<ureq::Proxy>, String> {
    ureq_proxy_for(&read(url)?)
}

fn named_proxy(url: &str) -> Result<Option<Named>, String> {
    proxy_for(&read(url)?)
}

fn read(url: &str) -> Result<Uri, String> {
    url.parse().map_err(|_| format!("{url} is not an address"))
}

/// HTTP with the trust that a WebSocket would have, except that a CA file stands in for the public roots. Statuses are no
/// errors; without a proxy, unless one is given.
///
/// # Errors
/// The CA file cannot be read.
pub fn http_agent(trust: &Trust) -> Result<ureq::config::ConfigBuilder<ureq::typestate::AgentScope>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
    let tls = match trust {
        Trust::PublicRoots => tls.root_certs(RootCerts::WebPki),
        Trust::InsecureAnyCertificate => tls.disable_verification(true),
        // ureq takes either the public roots or others.
        Trust::PublicRootsAnd(path) => {
            let roots = tls::ca_file(path)?.iter().map(|der| Certificate::from_der(der).to_owned()).collect::<Vec<_>>();
            tls.root_certs(RootCerts::new_with_certs(&roots))
        }
    };
    Ok(ureq::Agent::config_builder().http_status_as_error(false).proxy(None).tls_config(tls.build()))
}
