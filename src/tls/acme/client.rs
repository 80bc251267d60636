//! How the CA is talked to: HTTPS with a deadline and a bound on what it answers.
//!
//! `instant-acme` has a client of its own, which waits without end, reads without end, and does not show `Retry-After`.

use super::super::certificate::provider;
use crate::proxy::{Named, proxy_for};
use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One request and its whole answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer that is read: a directory, an order or a chain has some KiB.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What a CA asked to be left alone for, last.
#[derive(Clone, Debug, Default)]
pub(super) struct RetryAfter(Arc<Mutex<Option<SystemTime>>>);

impl RetryAfter {
    /// How long that still is, once.
    pub(super) fn take(&self) -> Option<Duration> {
        let until = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()?;
        until.duration_since(SystemTime::now()).ok()
    }

    fn note(&self, response: &http::response::Parts) {
        if response.status.is_success() {
            return;
        }
        let text = response.headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        if let Some(until) = text.and_then(|text| until(text.trim(), SystemTime::now())) {
            *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(until);
        }
    }
}

/// Seconds or a date (RFC 9110 section 10.2.3).
fn until(text: &str, now: SystemTime) -> Option<SystemTime> {
    match text.parse::<u32>() {
        Ok(seconds) => Some(now + Duration::from_secs(seconds.into())),
        Err(_) => httpdate::parse_http_date(text).ok(),
    }
}

/// The client.
#[derive(Clone)]
pub(super) struct Client {
    http: HyperClient<HttpsConnector<Way>, BodyWrapper<Bytes>>,
    retry_after: RetryAfter,
}

impl Client {
    /// `roots` are what the directory's own TLS is checked against; `None`: the system's certificates.
    pub(super) fn new(roots: Option<&[CertificateDer<'static>]>, retry_after: RetryAfter) -> Result<Self, Error> {
        let other = |error: rustls::Error| Error::Other(Box::new(error));
        let connector = match roots {
            Some(roots) => {
                let mut store = RootCertStore::empty();
                store.add_parsable_certificates(roots.iter().cloned());
                let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
                let config = config.map_err(other)?.with_root_certificates(store).with_no_client_auth();
                HttpsConnectorBuilder::new().with_tls_config(config)
            }
            None => HttpsConnectorBuilder::new()
                .with_provider_and_platform_verifier(provider())
                .map_err(|error| Error::Other(Box::new(error)))?,
        };
        let mut direct = HttpConnector::new();
        direct.enforce_http(false);
        let connector = connector.https_only().enable_http1().wrap_connector(Way { direct });
        Ok(Self { http: HyperClient::builder(TokioExecutor::new()).build(connector), retry_after })
    }
}

/// The way to a server of the CA: direct, or through the environment's proxy.
#[derive(Clone)]
struct Way {
    direct: HttpConnector,
}

impl Service<Uri> for Way {
    type Response = <HttpConnector as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.direct.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let named = match proxy_for(&url).and_then(|named| named.map(Named::plain).transpose()) {
            Ok(Some(named)) => named,
            Ok(None) => {
                let connecting = self.direct.call(url);
                return Box::pin(async move { Ok(connecting.await?) });
            }
            Err(text) => return Box::pin(async move { Err(text.into()) }),
        };
        let mut tunnel = Tunnel::new(named.proxy.uri().clone(), self.direct.clone());
        if let Some(login) = named.proxy.basic_auth() {
            tunnel = tunnel.with_auth(login.clone());
        }
        let connecting = tunnel.call(url);
        let failed = move |error| format!("through {named}: {error}");
        Box::pin(async move { connecting.await.map_err(|error| failed(error).into()) })
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (http, retry_after) = (self.http.clone(), self.retry_after.clone());
        Box::pin(async move {
            let exchange = async {
                let (parts, body) = http.request(request).await.map_err(|e| Error::Other(Box::new(e)))?.into_parts();
                retry_after.note(&parts);
                let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(Error::Other)?;
                Ok(BytesResponse { parts, body: Box::new(body.to_bytes()) })
            };
            tokio::time::timeout(REQUEST_TIMEOUT, exchange).await.unwrap_or(Err(Error::Timeout(None)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_only_of_failures() {
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(until("120", epoch), Some(epoch + Duration::from_secs(120)));
        assert_eq!(until("Thu, 01 Jan 1970 00:02:00 GMT", epoch), Some(epoch + Duration::from_secs(120)));
        assert!(until("soon", epoch).is_none() && until("-1", epoch).is_none());
        let answer = |status| http::Response::builder().status(status).header("Retry-After", "60").body(()).unwrap();
        let noted = RetryAfter::default();
        noted.note(&answer(200).into_parts().0);
        assert_eq!(noted.take(), None);
        noted.note(&answer(429).into_parts().0);
        assert!(noted.take().is_some_and(|wait| wait > Duration::from_secs(50)));
        assert_eq!(noted.take(), None, "once");
    }
}
