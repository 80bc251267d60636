//! The request target: which resource it names, and its query.

use super::phone::{self, Asset};
use super::response::Problem;
use crate::api::{ErrorCode, MailReceiver, PAGE_MAX};
use crate::proto::device::DeviceId;
use crate::proto::percent::decode;
use crate::proto::token::{TokenHash, TokenId};

/// A resource of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Root,
    WebSocket,
    Health,
    Live,
    Ready,
    Register,
    Pair,
    PairToken(TokenHash),
    Tokens,
    LogLevel,
    OpenApi,
    Sweep,
    Token(TokenId),
    TokenUsage(TokenId),
    Mail,
    TokenMail(TokenId),
    TokenMailOf(TokenId, MailReceiver),
    Devices(TokenId),
    Device(TokenId, DeviceId),
    Sessions,
    Usage,
    Drain,
    Backup,
    /// A file of the phone in the browser; its page, at `/`, is [`Route::Root`].
    Phone(&'static Asset),
}

impl Route {
    /// Finds the resource that a path names.
    pub(super) fn of(path: &str) -> Result<Self, Problem> {
        // What is encoded is never decoded into a route: a proxy in front that lets some paths pass only knows them as they
        // are written here.
        Ok(match path {
            "/" => Self::Root,
            "/ws" => Self::WebSocket,
            "/health" => Self::Health,
            "/livez" => Self::Live,
            "/readyz" => Self::Ready,
            "/api/v1/register" => Self::Register,
            "/api/v1/pair" => Self::Pair,
            "/api/v1/tokens" => Self::Tokens,
            "/api/v1/tokens/sweep" => Self::Sweep,
            "/api/v1/log-level" => Self::LogLevel,
            "/api/v1/openapi.json" => Self::OpenApi,
            "/api/v1/sessions" => Self::Sessions,
            "/api/v1/usage" => Self::Usage,
            "/api/v1/mail" => Self::Mail,
            "/api/v1/drain" => Self::Drain,
            "/api/v1/backup" => Self::Backup,
            other => {
                if let Some(token) = other.strip_prefix("/api/v1/pair/").filter(|token| is_segment(token)) {
                    let token = decode(token).ok_or(BAD_ENCODING)?;
                    if !is_segment(&token) {
                        return Err(NOT_FOUND);
                    }
                    Self::PairToken(TokenHash::of(&token))
                } else if let Some(rest) = other.strip_prefix("/api/v1/tokens/")
                    && let Some(route) = of_token(rest)
                {
                    route
                } else if let Some(asset) = phone::asset(other) {
                    Self::Phone(asset)
                } else {
                    return Err(NOT_FOUND);
                }
            }
        })
    }

    /// The `Allow` line of a 405.
    pub(super) fn allow(self) -> &'static str {
        match self {
            Self::Root
            | Self::Health
            | Self::Live
            | Self::Ready
            | Self::OpenApi
            | Self::Tokens
            | Self::TokenUsage(_)
            | Self::Devices(_)
            | Self::Mail
            | Self::Sessions
            | Self::Usage
            | Self::Phone(_) => "Allow: GET, HEAD\r\n",
            Self::WebSocket => "Allow: GET\r\n",
            Self::LogLevel => "Allow: GET, HEAD, PUT\r\n",
            Self::Backup => "Allow: GET, HEAD, POST\r\n",
            Self::Register | Self::Pair | Self::Drain | Self::Sweep => "Allow: POST\r\n",
            Self::Device(..) | Self::TokenMailOf(..) => "Allow: DELETE\r\n",
            Self::PairToken(_) | Self::TokenMail(_) => "Allow: GET, HEAD, DELETE\r\n",
            Self::Token(_) => "Allow: GET, HEAD, PATCH, DELETE\r\n",
        }
    }

    /// Whether this resource takes a method: one that [`Self::allow`] names, whose case counts.
    pub(super) fn takes(self, method: &str) -> bool {
        let methods = self.allow().trim_start_matches("Allow: ").trim_end();
        methods.split(", ").any(|one| one == method)
    }
}

pub(super) const NOT_FOUND: Problem =
    Problem::new(ErrorCode::NotFound, "there is nothing here; the API is under /api/v1");
const BAD_ENCODING: Problem =
    Problem::new(ErrorCode::BadRequest, "the request target is not valid percent-encoded UTF-8");

/// What follows `/api/v1/tokens/`.
fn of_token(rest: &str) -> Option<Route> {
    let (id, rest) = rest.split_once('/').map_or((rest, None), |(id, rest)| (id, Some(rest)));
    let id = TokenId::parse(id)?;
    Some(match rest {
        None => Route::Token(id),
        Some("usage") => Route::TokenUsage(id),
        Some("devices") => Route::Devices(id),
        Some("mail") => Route::TokenMail(id),
        Some(rest) if rest.starts_with("mail/") => Route::TokenMailOf(id, MailReceiver::parse(&rest["mail/".len()..])?),
        Some(rest) => Route::Device(id, DeviceId::parse(rest.strip_prefix("devices/")?)?),
    })
}

/// Path and query of a request target in origin or absolute form (RFC 9112 section 3.2).
pub(super) fn split_target(target: &str) -> Result<(&str, &str), Problem> {
    let origin_form = match target.split_once("://") {
        Some((scheme, rest)) if ["http", "https", "ws", "wss"].iter().any(|s| scheme.eq_ignore_ascii_case(s)) => {
            rest.find(['/', '?']).map_or("/", |at| &rest[at..])
        }
        _ => target,
    };
    let (path, query) = origin_form.split_once('?').unwrap_or((origin_form, ""));
    match path {
        "" => Ok(("/", query)),
        path if path.starts_with('/') || path == "*" => Ok((path, query)),
        _ => Err(Problem::new(ErrorCode::BadRequest, "the request target is not a path")),
    }
}

/// How many tokens a page has when the request does not say.
const PAGE_TOKENS_DEFAULT: u32 = 100;

/// Reads `limit` and `after` of the token list.
pub(super) fn page(query: &str) -> Result<(u32, Option<u64>), Problem> {
    let (mut limit, mut after) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name).ok_or(BAD_ENCODING)?, decode(value).ok_or(BAD_ENCODING)?);
        match name.as_ref() {
            "limit" if limit.is_none() => {
                limit = Some(
                    whole(&value)
                        .and_then(|number| u32::try_from(number).ok())
                        .filter(|number| (1..=PAGE_MAX).contains(number))
                        .ok_or(Problem::new(ErrorCode::InvalidQuery, "limit: has to be a number from 1 to 1000"))?,
                );
            }
            "after" if after.is_none() => {
                after =
                    Some(whole(&value).ok_or(Problem::new(
                        ErrorCode::InvalidQuery,
                        "after: has to be the `next` of the page before",
                    ))?);
            }
            _ => {
                return Err(Problem::new(ErrorCode::InvalidQuery, "the query takes limit and after, each once"));
            }
        }
    }
    Ok((limit.unwrap_or(PAGE_TOKENS_DEFAULT), after))
}

/// Digits alone: no sign, no white space. At most what the store's 64-bit signed column holds.
fn whole(text: &str) -> Option<u64> {
    let number = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()?;
    i64::try_from(number).is_ok().then_some(number)
}

fn is_segment(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_resource_or_none() {
        let hash = TokenHash::of("oc_pair_00");
        for (path, route) in [
            ("/", Some(Route::Root)),
            ("/ws", Some(Route::WebSocket)),
            ("/%77%73", None),
            ("/api%2fv1%2ftokens", None),
            ("/api/v1%2Ftokens", None),
            ("/api/v1/%74okens", None),
            ("/api/v1/%2e%2e/v1/tokens", None),
            ("/%2e/ws", None),
            ("/ws%00", None),
            ("/api/v1/tokens/00112233445566f%66", None),
            ("/api/v1/tokens/00112233445566ff%2fusage", None),
            ("/api/v1/pair%2foc_pair_00", None),
            ("/api/v1/pair/%2e%2e%2ftokens", None),
            ("/health", Some(Route::Health)),
            ("/livez", Some(Route::Live)),
            ("/readyz", Some(Route::Ready)),
            ("/api/v1/pair", Some(Route::Pair)),
            ("/api/v1/pair/oc_pair_00", Some(Route::PairToken(hash))),
            ("/api/v1/pair/oc%5Fpair%5f00", Some(Route::PairToken(hash))),
            ("/api/v1/pair/", None),
            ("/api/v1/pair/a/b", None),
            ("/api/v1/pair/a%2fb", None),
            ("/api/v1/register", Some(Route::Register)),
            ("/api/v1/tokens", Some(Route::Tokens)),
            ("/api/v1/tokens/00112233445566ff", Some(Route::Token(TokenId(0x0011_2233_4455_66ff)))),
            ("/api/v1/tokens/00112233445566FF", None),
            ("/api/v1/tokens/00112233445566ff/usage", Some(Route::TokenUsage(TokenId(0x0011_2233_4455_66ff)))),
            ("/api/v1/tokens/00112233445566ff/", None),
            ("/api/v1/tokens/00112233445566ff/devices", Some(Route::Devices(TokenId(0x0011_2233_4455_66ff)))),
            (
                "/api/v1/tokens/00112233445566ff/devices/0000000000009f2c",
                Some(Route::Device(TokenId(0x0011_2233_4455_66ff), DeviceId(0x9f2c))),
            ),
            ("/api/v1/tokens/00112233445566ff/devices/", None),
            ("/api/v1/tokens/00112233445566ff/devices/9f2c", None),
            ("/api/v1/tokens/00112233445566ff/device/0000000000009f2c", None),
            ("/api/v1/tokens/00112233445566ff/0000000000009f2c", None),
            ("/api/v1/tokens/usage", None),
            ("/api/v1/tokens/sweep", Some(Route::Sweep)),
            ("/api/v1/sessions", Some(Route::Sessions)),
            ("/api/v1/usage", Some(Route::Usage)),
            ("/api/v1/drain", Some(Route::Drain)),
            ("/api/v1/backup", Some(Route::Backup)),
            ("/api/v1/tokens/1", None),
            ("/WS", None),
            ("/ws/", None),
            ("//ws", None),
            ("/api/../ws", None),
            ("*", None),
        ] {
            assert_eq!(Route::of(path).ok(), route, "{path}");
        }
    }

    #[test]
    fn a_target_in_either_form_has_a_path_and_a_query() {
        for (target, parts) in [
            ("/ws?a=b?c", Some(("/ws", "a=b?c"))),
            ("http://relay.example:80/ws?x", Some(("/ws", "x"))),
            ("HTTP://relay.example", Some(("/", ""))),
            ("http://relay.example?x=/y", Some(("/", "x=/y"))),
            ("/a://b", Some(("/a://b", ""))),
            ("*", Some(("*", ""))),
            ("ftp://relay.example/ws", None),
            ("relay.example:443", None),
        ] {
            assert_eq!(split_target(target).ok(), parts, "{target}");
        }
    }

    #[test]
    fn a_page_is_bounded() {
        for (query, page_is) in [
            ("", Some((100, None))),
            ("limit=1", Some((1, None))),
            ("limit=1000&after=7", Some((1000, Some(7)))),
            ("&after=%37&", Some((100, Some(7)))),
            ("limit=0", None),
            ("limit=1001", None),
            ("limit=+5", None),
            ("limit=", None),
            ("limit=1&limit=2", None),
            ("after=-1", None),
            ("after=9223372036854775808", None),
            ("offset=1", None),
            ("limit=%zz", None),
        ] {
            assert_eq!(page(query).ok(), page_is, "{query}");
        }
    }
}
