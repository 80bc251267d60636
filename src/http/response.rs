//! Responses, written whole into one allocation.

use super::Refusal;
use crate::api::{ApiAnswer, ApiError, ErrorCode, HealthReport, OPENAPI, Unready, error_body};
use std::borrow::Cow;
use std::io::Write;

/// A response: bytes, and behind them a body that is part of the program and need not be copied as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Its head, and a body that was made for it.
    pub head: Vec<u8>,
    /// A body that is part of the program.
    pub body: &'static [u8],
}

impl From<Vec<u8>> for Reply {
    fn from(head: Vec<u8>) -> Self {
        Self { head, body: &[] }
    }
}

/// The 101 that makes a WebSocket of the connection (RFC 6455 section 4.2.2); `accept` is that of
/// [`super::Action::Upgrade`].
#[must_use]
pub fn switching(accept: &[u8; 28]) -> Vec<u8> {
    const BEFORE: &[u8] =
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
    [BEFORE, accept, b"\r\n\r\n"].concat()
}

/// The response to a call that the control thread answered.
#[must_use]
pub fn answer(answer: &ApiAnswer, keep_alive: bool, head_only: bool) -> Vec<u8> {
    let retry_after = answer.retry_after;
    let body = answer.body.as_bytes();
    Response { retry_after, ..Response::new(answer.status, body, keep_alive, head_only) }.bytes()
}

/// The response to `GET /health`: 200, also while degraded, for the relay then still forwards.
#[must_use]
pub fn health(report: &HealthReport, keep_alive: bool, head_only: bool) -> Vec<u8> {
    let body = report.json();
    Response::new(200, body.as_bytes(), keep_alive, head_only).bytes()
}

/// The response to `GET /readyz`: 200, or 503 with the reason.
#[must_use]
pub fn ready(unready: Option<Unready>, keep_alive: bool, head_only: bool) -> Vec<u8> {
    match unready {
        None => text("ok\n", keep_alive, head_only),
        Some(unready) => {
            answer(&ApiAnswer::error(ErrorCode::NotReady, &unready.to_string(), Some(1000)), keep_alive, head_only)
        }
    }
}

/// The response to a request that can be tried again later: `Retry-After`, a JSON error.
#[must_use]
pub fn try_later(code: ErrorCode, message: &str, retry_after_sec: u64, keep_alive: bool) -> Vec<u8> {
    let body = error_body(code, message, Some(retry_after_sec.saturating_mul(1000)));
    let retry_after = Some(retry_after_sec);
    Response { retry_after, ..Response::new(code.status(), body.as_bytes(), keep_alive, false) }.bytes()
}

/// The response to an address that has tried too many admin keys.
#[must_use]
pub fn too_many_keys(retry_after_sec: u64, keep_alive: bool) -> Vec<u8> {
    let message = "too many wrong admin keys came from this address: none is looked at for now";
    try_later(ErrorCode::RateLimited, message, retry_after_sec, keep_alive)
}

/// The response to a client that speaks HTTP without TLS on a TLS port; the connection closes.
#[must_use]
pub fn tls_wanted() -> Vec<u8> {
    Problem::new(ErrorCode::TlsRequired, "this port speaks TLS: connect with https:// or wss://").response(false, false)
}

/// A plain text for people.
#[must_use]
pub fn text(body: &str, keep_alive: bool, head_only: bool) -> Vec<u8> {
    let content_type = "text/plain; charset=utf-8";
    Response { content_type, ..Response::new(200, body.as_bytes(), keep_alive, head_only) }.bytes()
}

/// The description of the HTTP API (OpenAPI 3.1).
pub(super) fn openapi(keep_alive: bool, head_only: bool) -> Reply {
    Response::new(200, OPENAPI.as_bytes(), keep_alive, head_only).reply(OPENAPI.as_bytes())
}

/// The metrics (Prometheus, text format 0.0.4); the connection is closed behind them.
#[must_use]
pub fn metrics(text: &str, head_only: bool) -> Vec<u8> {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    Response { content_type, ..Response::new(200, text.as_bytes(), false, head_only) }.bytes()
}

/// What is wrong with a request, and the response to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    code: ErrorCode,
    message: Cow<'static, str>,
    /// Further header lines, each with its CRLF.
    headers: &'static str,
}

impl Problem {
    pub(super) const fn new(code: ErrorCode, message: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(message), headers: "" }
    }

    pub(super) fn with_header(self, headers: &'static str) -> Self {
        Self { headers, ..self }
    }

    pub(super) fn response(&self, keep_alive: bool, head_only: bool) -> Vec<u8> {
        let body = error_body(self.code, &self.message, None);
        let headers = self.headers;
        Response { headers, ..Response::new(self.code.status(), body.as_bytes(), keep_alive, head_only) }.bytes()
    }
}

impl From<ApiError> for Problem {
    fn from(ApiError { code, message }: ApiError) -> Self {
        Self { code, message, headers: "" }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { response: problem.response(false, false) }
    }
}

pub(super) struct Response<'a> {
    pub(super) status: u16,
    pub(super) content_type: &'a str,
    pub(super) body: &'a [u8],
    /// Further header lines, each with its CRLF.
    pub(super) headers: &'a str,
    /// `headers` say how long it may be kept; otherwise it is not kept at all.
    pub(super) cached: bool,
    pub(super) retry_after: Option<u64>,
    pub(super) keep_alive: bool,
    pub(super) head_only: bool,
}

impl<'a> Response<'a> {
    pub(super) fn new(status: u16, body: &'a [u8], keep_alive: bool, head_only: bool) -> Self {
        let content_type = "application/json";
        Self { status, content_type, body, headers: "", cached: false, retry_after: None, keep_alive, head_only }
    }

    /// The whole response.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let written = if self.sends_body() { self.body } else { &[] };
        let mut out = self.head(written.len());
        out.extend_from_slice(written);
        out
    }

    /// The whole response, where `body`, the one that it has, is part of the program.
    pub(super) fn reply(&self, body: &'static [u8]) -> Reply {
        Reply { head: self.head(0), body: if self.sends_body() { body } else { &[] } }
    }

    /// A 204 and a 304 have no body, and say nothing about one (RFC 9110 section 8.6).
    fn has_body(&self) -> bool {
        !matches!(self.status, 204 | 304)
    }

    fn sends_body(&self) -> bool {
        self.has_body() && !self.head_only
    }

    /// The head, with room for a body of `written` bytes behind it.
    fn head(&self, written: usize) -> Vec<u8> {
        let has_body = self.has_body();
        let mut out = Vec::with_capacity(256 + self.headers.len() + written);
        // Writing to a Vec cannot fail.
        let _ = write!(out, "HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        if has_body {
            if !self.body.is_empty() {
                let _ = write!(out, "Content-Type: {}\r\n", self.content_type);
            }
            let _ = write!(out, "Content-Length: {}\r\n", self.body.len());
        }
        if let Some(seconds) = self.retry_after {
            let _ = write!(out, "Retry-After: {seconds}\r\n");
        }
        if !self.cached {
            out.extend_from_slice(b"Cache-Control: no-store\r\n");
        }
        out.extend_from_slice(if self.keep_alive { b"Connection: keep-alive\r\n" } else { b"Connection: close\r\n" });
        out.extend_from_slice(b"X-Content-Type-Options: nosniff\r\n");
        out.extend_from_slice(self.headers.as_bytes());
        out.extend_from_slice(b"\r\n");
        out
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        421 => "Misdirected Request",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        // The phrase may be empty; the number is what counts (RFC 9112 section 4).
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Driver;

    fn shown(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_answer_says_its_length_and_whether_the_connection_goes_on() {
        let api = ApiAnswer { status: 201, body: r#"{"token":"x"}"#.to_owned(), retry_after: None };
        let head = "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\
                    Cache-Control: no-store\r\nConnection: ";
        let last = "X-Content-Type-Options: nosniff\r\n\r\n";
        assert_eq!(shown(answer(&api, true, false)), format!("{head}keep-alive\r\n{last}{}", api.body));
        assert_eq!(shown(answer(&api, false, false)), format!("{head}close\r\n{last}{}", api.body));
        assert_eq!(shown(answer(&api, true, true)), format!("{head}keep-alive\r\n{last}"));
    }

    #[test]
    fn a_204_says_nothing_of_a_body() {
        let api = ApiAnswer { status: 204, body: String::new(), retry_after: None };
        let text = "HTTP/1.1 204 No Content\r\nCache-Control: no-store\r\nConnection: keep-alive\r\n\
                    X-Content-Type-Options: nosniff\r\n\r\n";
        assert_eq!(shown(answer(&api, true, false)), text);
    }

    #[test]
    fn a_body_that_does_not_go_out_takes_no_room() {
        let body = [b'a'; 10_000];
        for (status, head_only, goes_out) in [(200, false, true), (200, true, false), (304, false, false)] {
            let bytes = Response::new(status, &body, true, head_only).bytes();
            assert_eq!(bytes.ends_with(b"aa"), goes_out, "{status}");
            assert_eq!(bytes.capacity() > body.len(), goes_out, "{status}");
        }
    }

    #[test]
    fn too_many_requests_say_when_to_come_back() {
        let body = error_body(ErrorCode::RateLimited, "later", Some(90_000));
        assert_eq!(body, r#"{"error":{"code":"RATE_LIMITED","message":"later","retry_after_ms":90000}}"#);
        let text = shown(answer(&ApiAnswer { status: 429, body, retry_after: Some(90) }, true, false));
        assert!(text.contains("\r\nRetry-After: 90\r\n"), "{text}");
        let text = shown(try_later(ErrorCode::Full, "no room", 5, false));
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
        assert!(text.contains("\r\nRetry-After: 5\r\n") && text.contains("\r\nConnection: close\r\n"), "{text}");
        assert!(text.ends_with(r#"{"error":{"code":"FULL","message":"no room","retry_after_ms":5000}}"#), "{text}");
    }

    #[test]
    fn health_names_the_stores_fault_and_what_keeps_the_relay_from_being_ready() {
        let mut report = HealthReport {
            connections: 3,
            sessions: 1,
            uptime_sec: 60,
            shards: 2,
            driver: Driver { name: "epoll", reason: None },
            beat_ages_ms: vec![7, 90],
            ..HealthReport::default()
        };
        let begins =
            r#"{"status":"ok","connections":3,"sessions":1,"uptime_sec":60,"shards":2,"io":"epoll","version":""#;
        let text = shown(health(&report, true, false));
        assert!(text.contains(begins), "{text}");
        let ends = r#","ready":true,"draining":false,"beat_ages_ms":[7,90],"store":"ok"}"#;
        assert!(text.ends_with(ends), "{text}");
        report.driver.reason = Some("forbidden".to_owned());
        let text = shown(health(&report, true, false));
        assert!(
            text.contains(r#""status":"ok""#) && text.contains(r#","io":"epoll","io_reason":"forbidden","#),
            "{text}"
        );
        report.store_fault = Some("disk full".to_owned());
        let text = shown(health(&report, true, false));
        assert!(text.contains(r#"{"status":"degraded""#) && text.ends_with(r#","store":"disk full"}"#), "{text}");
        report.store_fault = None;
        report.tls = true;
        let text = shown(health(&report, true, false));
        assert!(text.contains(r#""status":"ok""#) && text.ends_with(r#","certificates":"ok"}"#), "{text}");
        report.certificate_fault = Some("none yet".to_owned());
        let text = shown(health(&report, true, false));
        assert!(text.contains(r#""degraded""#) && text.ends_with(r#","certificates":"none yet"}"#), "{text}");
        report.certificate_fault = None;
        report.push = Some("refused".to_owned());
        let text = shown(health(&report, true, false));
        assert!(
            text.contains(r#""status":"ok""#) && text.ends_with(r#","certificates":"ok","push":"refused"}"#),
            "{text}"
        );
        report.unready = Some(Unready::ShardStuck(1));
        let text = shown(health(&report, true, false));
        assert!(text.contains(r#"{"status":"stuck""#) && text.contains(r#""ready":false"#), "{text}");
    }

    #[test]
    fn not_ready_is_503_with_the_reason() {
        assert!(shown(ready(None, true, false)).starts_with("HTTP/1.1 200 OK\r\n"));
        let text = shown(ready(Some(Unready::Draining), true, false));
        assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("\r\nRetry-After: 1\r\n"), "{text}");
        assert!(text.contains(r#""code":"NOT_READY","message":"the relay is draining""#), "{text}");
    }

    #[test]
    fn the_101_is_small_and_complete() {
        let text = shown(switching(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(
            text,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }
}
