//! Requests to push services and to the operator's hook: each has ten seconds, its redirects are not followed, and its
//! answer's body is not read.

use super::resolver::PublicOnly;
use super::{Notifier, Rules};
use crate::push::{Answer, RETRY_AFTER, Subscription, TTL_SECONDS, answer_of, encrypt, hook_body, hook_signature};
use crate::sys::time::unix_now;
use crate::tls::certificate::provider;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER as RETRY_AFTER_HEADER, USER_AGENT};
use http::{HeaderMap, Method, Request};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::GaiResolver;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use ring::rand::SystemRandom;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests at a time.
const REQUESTS_MAX: usize = 64;
/// Requests at a time to one host, so that a slow one does not hold up the others.
const REQUESTS_PER_HOST_MAX: usize = 8;
/// One request, from the connection to the head of the answer.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How long a connection is kept for the next request.
const IDLE: Duration = Duration::from_secs(30);

type Body = Full<Bytes>;

/// What requests go through.
pub(super) struct Sender {
    /// To push services, which devices choose.
    push: Client<HttpsConnector<HttpConnector<PublicOnly<GaiResolver>>>, Body>,
    /// To the hook, which the operator has chosen.
    hook: Client<HttpsConnector<HttpConnector>, Body>,
    requests: Arc<Semaphore>,
    hosts: Mutex<HashMap<Box<str>, Arc<Semaphore>>>,
}

/// A request, and where it goes.
pub(super) struct Outgoing {
    request: Request<Body>,
    pub(super) host: Box<str>,
    is_hook: bool,
}

/// What has come of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply {
    pub(super) answer: Answer,
    /// `None`: there was no answer in time.
    pub(super) status: Option<u16>,
}

impl Sender {
    pub(super) fn new(notifier: &Arc<Notifier>) -> io::Result<Self> {
        let mut push =
            HttpConnector::new_with_resolver(PublicOnly { notifier: Arc::clone(notifier), inner: GaiResolver::new() });
        push.enforce_http(false);
        let mut hook = HttpConnector::new();
        hook.enforce_http(false);
        let tls = || HttpsConnectorBuilder::new().with_provider_and_platform_verifier(provider());
        let push = tls()?.https_only().enable_http1().wrap_connector(push);
        let hook = tls()?.https_or_http().enable_http1().wrap_connector(hook);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).pool_max_idle_per_host(1);
        builder.http1_max_buf_size(HEAD_BYTES_MAX).retry_canceled_requests(false);
        Ok(Self {
            push: builder.build(push),
            hook: builder.build(hook),
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            hosts: Mutex::default(),
        })
    }

    /// Sends a request in its turn.
    pub(super) async fn send(&self, outgoing: Outgoing) -> Reply {
        let Outgoing { request, host, is_hook } = outgoing;
        let _turns = self.take_turn(&host).await;
        let client_answer = async {
            match is_hook {
                true => self.hook.request(request).await,
                false => self.push.request(request).await,
            }
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, client_answer).await {
            Ok(Ok(response)) => {
                let (status, wait) = (response.status().as_u16(), retry_after(response.headers()));
                Reply { answer: answer_of(status, wait), status: Some(status) }
            }
            Ok(Err(error)) => {
                tracing::debug!(%host, error = chain(&error), "a push service cannot be reached");
                Reply { answer: Answer::Later(RETRY_AFTER), status: None }
            }
            Err(_) => {
                tracing::debug!(%host, "a push service does not answer");
                Reply { answer: Answer::Later(RETRY_AFTER), status: None }
            }
        }
    }

    /// Waits until a request to this host may begin.
    async fn take_turn(&self, host: &str) -> (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>) {
        let of_host = {
            let mut hosts = self.hosts.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            // Nobody waits for those that only the table has.
            hosts.retain(|_, turns| Arc::strong_count(turns) > 1);
            let turns = hosts.entry(host.into()).or_insert_with(|| Arc::new(Semaphore::new(REQUESTS_PER_HOST_MAX)));
            Arc::clone(turns)
        };
        // Neither is ever closed. The permit keeps its semaphore in the table.
        let host = of_host.acquire_owned().await.ok();
        (host, Arc::clone(&self.requests).acquire_owned().await.ok())
    }
}

/// All that an error says: the reason is in its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(&format!(": {error}"));
        next = error.source();
    }
    text
}

/// Seconds or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER_HEADER)?.to_str().ok()?.trim();
    match text.parse::<u32>() {
        Ok(seconds) => Some(Duration::from_secs(seconds.into())),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok(),
    }
}

/// The request that wakes a device; `authorization` makes that for an origin. `None`: the operator has forbidden it since
/// the device subscribed.
pub(super) fn outgoing(
    rules: &Rules,
    subscription: &Subscription,
    random: &SystemRandom,
    authorization: impl FnOnce(String) -> Option<String>,
) -> Option<Outgoing> {
    let user_agent = concat!("coralmux-relay/", env!("CARGO_PKG_VERSION"));
    let request = Request::builder().method(Method::POST).header(USER_AGENT, user_agent);
    match subscription {
        Subscription::WebPush(to) | Subscription::UnifiedPush(to) => {
            subscription.check(&rules.kinds(), &rules.hosts, random).ok()?;
            let body = encrypt(&rules.notification, to, random).ok()?;
            let mut request = request
                .uri(to.endpoint.uri())
                .header("TTL", TTL_SECONDS)
                .header("Urgency", "high")
                .header("Topic", "cm")
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_ENCODING, "aes128gcm");
            if let Some(value) = authorization(to.endpoint.origin()) {
                request = request.header(AUTHORIZATION, value);
            }
            let request = request.body(Full::from(body)).ok()?;
            Some(Outgoing { request, host: to.endpoint.host().into(), is_hook: false })
        }
        Subscription::Hook(handle) => {
            let hook = rules.hook.as_ref()?;
            let body = hook_body(handle);
            let signature = hook_signature(&hook.secret, unix_now().as_secs(), &body);
            let request = request
                .uri(hook.url.uri())
                .header(CONTENT_TYPE, "application/json")
                .header("X-CoralMux-Signature", signature)
                .body(Full::from(body))
                .ok()?;
            let host = hook.url.uri().host().unwrap_or_default().into();
            Some(Outgoing { request, host, is_hook: true })
        }
    }
}
