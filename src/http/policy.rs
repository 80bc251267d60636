//! What requests are checked against, and what a request asks for.

use super::chunked::{self, Decoded};
use super::forwarded;
use super::head::{Body, Head};
use super::own::{is_own_host, is_same_host};
use super::response::{Problem, openapi, text};
use super::route::{NOT_FOUND, Route, page, split_target};
use super::{Action, Parsed, Peer, Refusal, Reply, phone, upgrade};
use crate::api::{self, ApiCall, ErrorCode};
use crate::sys::net::{Network, counted_as};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use subtle::ConstantTimeEq;

/// What a [`RequestPolicy`] is built of. Has no `Debug`, for it holds the admin key.
pub struct RequestPolicyOptions<'a> {
    /// The admin key. Empty never means open: then no key is right.
    pub admin_key: &'a str,
    /// Whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<Network>,
    /// The origins (`https://app.example.com`) whose pages may open a WebSocket; `None`: any.
    pub allowed_origins: Option<Vec<String>>,
    /// The names by which the relay is reached, in lower case.
    pub names: Vec<String>,
    /// Whether browsers that have come by TLS are told to do so from then on.
    pub transport_security: bool,
    /// Whether anybody may register a token.
    pub registration: bool,
    /// Whether the phone in the browser is served.
    pub phone: bool,
    /// Whether a WebSocket may be opened at any path, as on the echo listener.
    pub any_path: bool,
}

/// What requests are checked against; built once, shared by all shards.
pub struct RequestPolicy {
    /// SHA-256 of the admin key; `None` when there is no key.
    admin_key: Option<[u8; 32]>,
    trusted_proxies: Vec<Network>,
    /// Without a slash at the end, for an `Origin` has none.
    allowed_origins: Option<Vec<String>>,
    names: Vec<String>,
    transport_security: bool,
    registration: bool,
    phone: bool,
    any_path: bool,
}

impl fmt::Debug for RequestPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestPolicy")
            .field("trusted_proxies", &self.trusted_proxies)
            .field("allowed_origins", &self.allowed_origins)
            .field("registration", &self.registration)
            .finish_non_exhaustive()
    }
}

impl RequestPolicy {
    /// A policy; of the admin key it keeps the hash.
    #[must_use]
    pub fn new(options: RequestPolicyOptions<'_>) -> Self {
        let without_slash = |origin: String| origin.trim_end_matches('/').to_owned();
        Self {
            admin_key: (!options.admin_key.is_empty()).then(|| Sha256::digest(options.admin_key.as_bytes()).into()),
            trusted_proxies: options.trusted_proxies,
            allowed_origins: options.allowed_origins.map(|all| all.into_iter().map(without_slash).collect()),
            names: options.names,
            transport_security: options.transport_security,
            registration: options.registration,
            phone: options.phone,
            any_path: options.any_path,
        }
    }

    /// Whether what `peer` says of its client counts.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(peer))
    }

    /// The names by which the relay is reached, in lower case.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Adds to a response over TLS what keeps browsers from plain HTTP (RFC 6797), where that is wanted.
    pub fn add_transport_security(&self, response: &mut Vec<u8>) {
        let behind_status = response.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
        if let Some(at) = behind_status.filter(|_| self.transport_security) {
            response.splice(at..at, TRANSPORT_SECURITY.iter().copied());
        }
    }

    /// Reads the request at the beginning of `bytes`, sent over a connection from `peer`. `now_unix_sec` is the Unix
    /// second that `expires_in_sec` counts from.
    ///
    /// # Errors
    ///
    /// [`Refusal`] for what cannot be read or is too large: answered, then the connection is closed.
    pub fn parse(&self, now_unix_sec: u64, bytes: &[u8], peer: Peer) -> Result<Parsed, Refusal> {
        let Some(head) = Head::read(bytes)? else { return Ok(Parsed::NeedMore { bytes: None }) };
        let body = head.body()?;
        match body {
            Body::Length(1..) | Body::Chunked if head.wants_websocket() => {
                return Err(Problem::new(ErrorCode::BadRequest, "a request for an upgrade has no body").into());
            }
            Body::None if head.method == "PATCH" => {
                let message = "send the length of the body in Content-Length";
                return Err(Problem::new(ErrorCode::LengthRequired, message).into());
            }
            _ => {}
        }
        let behind = &bytes[head.len..];
        let (body, body_len) = match body {
            Body::None => (Cow::default(), 0),
            Body::Length(length) => match behind.get(..length) {
                Some(body) => (Cow::Borrowed(body), length),
                None => return Ok(Parsed::NeedMore { bytes: Some(head.len + length) }),
            },
            Body::Chunked => match chunked::decode(behind)? {
                Decoded::Whole { body, len } => (Cow::Owned(body), len),
                Decoded::NeedMore(needed) => return Ok(Parsed::NeedMore { bytes: Some(head.len + needed) }),
            },
        };
        let consumed = head.len + body_len;
        let client = forwarded::client(peer.address, &head.forwarded_for, &self.trusted_proxies);
        let (keep_alive, head_only) = (head.keep_alive(), head.method == "HEAD");
        let mut shows_key = false;
        let action = self
            .action(now_unix_sec, &head, &body, (peer, client), &mut shows_key)
            .unwrap_or_else(|problem| Action::Respond(problem.response(keep_alive, head_only).into()));
        Ok(Parsed::Request { action, consumed, keep_alive, head_only, shows_key, client })
    }

    /// What a request asks for. What is open is named here; all else that a route takes needs the admin key, and
    /// neither its query nor its body is read before that.
    fn action(
        &self,
        now_unix_sec: u64,
        head: &Head<'_>,
        body: &[u8],
        (peer, client): (Peer, IpAddr),
        shows_key: &mut bool,
    ) -> Result<Action, Problem> {
        let (path, query) = split_target(head.target)?;
        let route = match self.any_path && head.wants_websocket() {
            true => Route::WebSocket,
            false => Route::of(path)?,
        };
        let method = match head.method {
            "HEAD" if route != Route::WebSocket => "GET",
            method => method,
        };
        Ok(match (method, route) {
            ("GET", Route::Root) => Action::Respond(self.root(head)),
            (_, Route::Phone(_)) if !self.phone => return Err(NOT_FOUND),
            ("GET", Route::Phone(asset)) => Action::Respond(file(asset, head)),
            ("GET", Route::Health) => Action::Health,
            ("GET", Route::OpenApi) => Action::Respond(openapi(head.keep_alive(), head.method == "HEAD")),
            ("GET", Route::Live) => Action::Respond(text("ok\n", head.keep_alive(), head.method == "HEAD").into()),
            ("GET", Route::Ready) => Action::Ready,
            ("GET", Route::WebSocket) => {
                let accept = upgrade::accept(head)?;
                if !(self.phone && self.is_own_page(head, peer)) {
                    upgrade::check_origin(head.origin, self.allowed_origins.as_deref())?;
                }
                Action::Upgrade { accept }
            }
            ("POST", Route::Register) if !self.registration => {
                return Err(Problem::new(
                    ErrorCode::RegistrationOff,
                    "the operator of this relay hands out the tokens",
                ));
            }
            ("POST", Route::Register) if self.is_foreign_page(head, peer) => {
                let text = "pages of other sites may not register tokens; --allow-origin names those that may";
                return Err(Problem::new(ErrorCode::OriginNotAllowed, text));
            }
            ("POST", Route::Register) => Action::Call(Box::new(ApiCall::Register { address: counted_as(client) })),
            ("GET", Route::PairToken(hash)) => Action::Call(Box::new(ApiCall::Presence(hash))),
            _ if route.takes(method) => match self.admin_key_of(head) {
                AdminKey::Right => {
                    *shows_key = true;
                    Action::Call(Box::new(admin_call(now_unix_sec, method, route, query, body)?))
                }
                AdminKey::Missing => return Err(unauthorized("this needs the X-Admin-Key header")),
                AdminKey::Wrong => {
                    *shows_key = true;
                    let response = unauthorized("this is not the admin key");
                    Action::WrongKey(response.response(head.keep_alive(), head.method == "HEAD").into())
                }
            },
            _ => return Err(not_allowed(route)),
        })
    }

    /// What is served at `/`: the phone in the browser, or a word on where one is.
    fn root(&self, head: &Head<'_>) -> Reply {
        match phone::asset("/").filter(|_| self.phone) {
            Some(page) => file(page, head),
            None => text(HINT, head.keep_alive(), head.method == "HEAD").into(),
        }
    }

    /// Whether the page that asks is the relay's own. That `Origin` and `Host` are the same alone does not say so: a
    /// stranger's name can lead to the relay's address. It does where the name cannot be a stranger's, where the client
    /// has seen the relay's certificate, and where a trusted proxy has sorted by names.
    fn is_own_page(&self, head: &Head<'_>, peer: Peer) -> bool {
        let is_own = |host| peer.tls || self.trusts(peer.address) || is_own_host(host, &self.names);
        head.host.is_some_and(is_own) && is_same_host(head)
    }

    /// Whether a page of another site asks that the operator has not named. Programs say nothing of a page.
    fn is_foreign_page(&self, head: &Head<'_>, peer: Peer) -> bool {
        let is_named = || self.allowed_origins.is_some() && self.admits(head.origin);
        let is_page = head.origin.is_some() || head.fetch_site.is_some_and(|site| site != b"none");
        is_page && !self.is_own_page(head, peer) && !is_named()
    }

    fn admits(&self, origin: Option<&[u8]>) -> bool {
        upgrade::check_origin(origin, self.allowed_origins.as_deref()).is_ok()
    }

    /// The key comes in `X-Admin-Key` or as a bearer token. Hashes are compared, so that the time taken tells neither
    /// how much of a key is right nor how long the right one is.
    fn admin_key_of(&self, head: &Head<'_>) -> AdminKey {
        match (shown_key(head), &self.admin_key) {
            (None, _) => AdminKey::Missing,
            (Some(given), Some(key)) if bool::from(Sha256::digest(given).as_slice().ct_eq(key)) => AdminKey::Right,
            _ => AdminKey::Wrong,
        }
    }
}

fn shown_key<'a>(head: &Head<'a>) -> Option<&'a [u8]> {
    head.admin_key.or_else(|| head.authorization.and_then(bearer))
}

/// What a request showed for the admin key.
enum AdminKey {
    Right,
    Wrong,
    Missing,
}

fn unauthorized(message: &'static str) -> Problem {
    Problem::new(ErrorCode::Unauthorized, message).with_header("WWW-Authenticate: Bearer\r\n")
}

/// The call of a request that has shown the admin key.
fn admin_call(now_unix_sec: u64, method: &str, route: Route, query: &str, body: &[u8]) -> Result<ApiCall, Problem> {
    Ok(match (method, route) {
        ("POST", Route::Pair) => ApiCall::Create(api::new_token(now_unix_sec, body)?),
        ("DELETE", Route::PairToken(hash)) => ApiCall::Revoke(hash),
        ("GET", Route::LogLevel) => ApiCall::LogLevel(None),
        ("PUT", Route::LogLevel) => ApiCall::LogLevel(Some(api::log_level(body)?)),
        ("GET", Route::Tokens) => {
            let (limit, after) = page(query)?;
            ApiCall::List { limit, after }
        }
        ("POST", Route::Sweep) => ApiCall::Sweep { unused_days: api::unused_days(body)? },
        ("GET", Route::Token(id)) => ApiCall::Show(id),
        ("PATCH", Route::Token(id)) => ApiCall::Update(id, api::token_change(now_unix_sec, body)?),
        ("DELETE", Route::Token(id)) => ApiCall::RevokeId(id),
        ("GET", Route::Devices(id)) => ApiCall::Devices(id),
        ("DELETE", Route::Device(id, device)) => ApiCall::RemoveDevice(id, device),
        ("GET", Route::Mail) => ApiCall::Mail(None),
        ("GET", Route::TokenMail(id)) => ApiCall::Mail(Some(id)),
        ("DELETE", Route::TokenMail(id)) => ApiCall::EmptyMail(id, None),
        ("DELETE", Route::TokenMailOf(id, receiver)) => ApiCall::EmptyMail(id, Some(receiver)),
        ("GET", Route::TokenUsage(id)) => {
            let (limit, after) = page(query)?;
            ApiCall::Usage { of: Some(id), limit, after }
        }
        ("GET", Route::Usage) => {
            let (limit, after) = page(query)?;
            ApiCall::Usage { of: None, limit, after }
        }
        ("GET", Route::Sessions) => {
            let (limit, after) = page(query)?;
            ApiCall::Sessions { limit, after }
        }
        ("POST", Route::Drain) => ApiCall::Drain,
        ("POST", Route::Backup) => ApiCall::Backup { name: api::backup_name(body)?, mail: with_mail(query)? },
        ("GET", Route::Backup) => ApiCall::BackupState,
        _ => return Err(not_allowed(route)),
    })
}

/// Whether a backup is to have the mailbox.
fn with_mail(query: &str) -> Result<bool, Problem> {
    let named = query.split('&').filter_map(|pair| pair.strip_prefix("mail"));
    let mut values = named.filter(|rest| rest.is_empty() || rest.starts_with('='));
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        (Some("=1"), None) => Ok(true),
        _ => Err(Problem::new(ErrorCode::InvalidQuery, "mail: has to be 1, once")),
    }
}

fn not_allowed(route: Route) -> Problem {
    Problem::new(ErrorCode::MethodNotAllowed, "this resource does not take this method").with_header(route.allow())
}

fn file(asset: &'static phone::Asset, head: &Head<'_>) -> Reply {
    asset.response(head.if_none_match, head.accept_encoding, head.keep_alive(), head.method == "HEAD")
}

/// The token of `Authorization: Bearer …` (RFC 6750 section 2.1).
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// For a month from each answer on.
const TRANSPORT_SECURITY: &[u8] = b"Strict-Transport-Security: max-age=2592000\r\n";

const HINT: &str = "CoralMux Relay: joins a phone and an AI agent that both connect outbound.\n\
    WebSocket clients connect to /ws, the API is under /api/v1, /health says how it goes.\n\
    Read on: https://github.com/coralmux/coralmux-relay\n";
