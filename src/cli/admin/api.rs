//! The relay's HTTP API, called.

use crate::console;
use crate::proxy;
use crate::sys::file;
use crate::tls::certificate::provider;
use crate::tls::files::FILE_BYTES_MAX;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::{Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The file that a relay without a given key keeps one in.
const KEPT_KEY: &str = "relay.db.admin-key";

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// There is no key.
    #[error("no admin key: name its file with --key-file, or put it into RELAY_ADMIN_KEY")]
    NoKey,
    /// A file cannot be read.
    #[error("{}: {detail}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The relay does not answer.
    #[error("{url}: {detail}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why nothing came.
        detail: String,
    },
    /// The relay refuses.
    #[error("{0}")]
    Refused(String),
}

/// The admin key: of the named file, the environment, or the file that the relay keeps.
pub(super) fn key(file: Option<&Path>, env: impl Fn(&str) -> Option<String>) -> Result<String, ApiError> {
    let read = |path: &Path| {
        let failed = |error: std::io::Error| ApiError::File { path: path.to_owned(), detail: error.to_string() };
        let key = std::fs::read_to_string(path).map_err(failed)?.trim().to_owned();
        let well = !key.is_empty() && !key.contains(char::is_control);
        let odd =
            || ApiError::File { path: path.to_owned(), detail: "holds no admin key, which is one line".to_owned() };
        well.then_some(key).ok_or_else(odd)
    };
    if let Some(file) = file {
        return read(file);
    }
    if let Some(key) = env("CORALMUX_ADMIN_KEY").or_else(|| env("RELAY_ADMIN_KEY")) {
        return Ok(key);
    }
    let kept = Path::new(KEPT_KEY);
    if kept.exists() { read(kept) } else { Err(ApiError::NoKey) }
}

/// The URL of a relay, perhaps with a path in front of the API's.
fn read_base(text: &str) -> Option<Uri> {
    let url: Uri = text.parse().ok()?;
    let known = matches!(url.scheme_str(), Some("http" | "https"));
    let well = url.query().is_none() && !url.authority()?.as_str().contains('@') && !url.host()?.is_empty();
    (known && well).then_some(url)
}

/// A relay, and the key to it.
pub(super) struct Api {
    agent: Agent,
    base: String,
    key: String,
    /// What is said in front of errors where a proxy is on the way.
    through: String,
}

impl Api {
    /// The relay at `base`; `ca`: what its certificate is checked against.
    pub(super) fn new(base: &str, key: String, ca: Option<&Path>) -> Result<Self, ApiError> {
        let url = read_base(base).ok_or_else(|| {
            ApiError::Usage(format!(
                "{base:?} is not the URL of a relay, such as https://relay.example.com, without a user name"
            ))
        })?;
        if url.scheme_str() == Some("http") && !proxy::leads_here(&url) {
            let host = url.host().unwrap_or_default();
            console::warn(format_args!(
                "coralmux-relay admin: {host} is contacted without TLS: anyone on the way can read the admin key"
            ));
        }
        let roots = match ca {
            None => RootCerts::WebPki,
            Some(path) => {
                let failed = |detail: String| ApiError::File { path: path.to_owned(), detail };
                let pem = file::read(path, FILE_BYTES_MAX).map_err(|error| failed(error.to_string()))?;
                let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
                let all = all.map_err(|error| failed(error.to_string()))?;
                if all.is_empty() {
                    return Err(failed("holds no certificate".to_owned()));
                }
                let owned: Vec<Certificate<'static>> =
                    all.iter().map(|der| Certificate::from_der(der.as_ref()).to_owned()).collect();
                RootCerts::new_with_certs(&owned)
            }
        };
        let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider()).root_certs(roots).build();
        let proxy = proxy::proxy_for(&url).map_err(ApiError::Usage)?;
        let through = proxy.map(|named| format!("through {named}: ")).unwrap_or_default();
        let agent = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            // The key is for this relay, and not for wherever an answer points.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy::ureq_proxy_for(&url).map_err(ApiError::Usage)?)
            .tls_config(tls)
            .build()
            .new_agent();
        Ok(Self { agent, base: base.trim_end_matches('/').to_owned(), key, through })
    }

    /// One call; the answer's JSON, null where there is none.
    pub(super) fn call(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value, ApiError> {
        let url = format!("{}{path}", self.base);
        let unreachable =
            |error: ureq::Error| ApiError::Unreachable { url: url.clone(), detail: format!("{}{error}", self.through) };
        let mut answer = self.send(method, &url, body).map_err(unreachable)?;
        let text = answer.body_mut().read_to_string().map_err(unreachable)?;
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        let status = answer.status();
        if status.is_success() {
            return Ok(json);
        }
        if let Some(place) = answer.headers().get("location").and_then(|place| place.to_str().ok()) {
            return Err(ApiError::Refused(format!("{url} leads to {place}; name that relay with --relay")));
        }
        let error = &json["error"];
        Err(ApiError::Refused(match (error["code"].as_str(), error["message"].as_str()) {
            (Some(code), Some(message)) => format!("{message} ({code})"),
            _ => format!("{url}: {status}"),
        }))
    }

    fn send(&self, method: &str, url: &str, body: Option<Value>) -> Result<Response<Body>, ureq::Error> {
        let key = ("X-Admin-Key", self.key.as_str());
        let with_body = match method {
            "GET" => return self.agent.get(url).header(key.0, key.1).call(),
            "DELETE" => return self.agent.delete(url).header(key.0, key.1).call(),
            "PATCH" => self.agent.patch(url),
            "PUT" => self.agent.put(url),
            _ => self.agent.post(url),
        };
        let request = with_body.header(key.0, key.1);
        match body {
            Some(body) => request.send_json(body),
            None => request.send_empty(),
        }
    }
}
