//! The head of a request: its framing checked, and those of its fields that the relay looks at.

use super::response::Problem;
use super::{BODY_BYTES_MAX, FIELDS_MAX, HEAD_BYTES_MAX};
use crate::api::{ApiError, ErrorCode};

/// How the end of a body is found (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Body {
    /// The client says nothing of a body.
    #[default]
    None,
    /// It has this many bytes.
    Length(usize),
    /// It comes in chunks.
    Chunked,
}

/// A complete head. Fields are without the white space around them.
#[derive(Debug, Default)]
pub(super) struct Head<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    /// 0 or 1, of HTTP/1.x.
    pub(super) minor: u8,
    /// Length of the head with its final empty line, at most [`HEAD_BYTES_MAX`].
    pub(super) len: usize,
    /// How the body's end is found, before [`BODY_BYTES_MAX`] is looked at.
    body: Body,
    pub(super) origin: Option<&'a [u8]>,
    /// What a browser says of where the request comes from; no page can change it.
    pub(super) fetch_site: Option<&'a [u8]>,
    pub(super) admin_key: Option<&'a [u8]>,
    pub(super) authorization: Option<&'a [u8]>,
    pub(super) websocket_key: Option<&'a [u8]>,
    pub(super) websocket_version: Option<&'a [u8]>,
    pub(super) if_none_match: Option<&'a [u8]>,
    pub(super) accept_encoding: Option<&'a [u8]>,
    /// Each `X-Forwarded-For` field, in order.
    pub(super) forwarded_for: Vec<&'a [u8]>,
    pub(super) host: Option<&'a [u8]>,
    expect: Option<&'a [u8]>,
    length_field: Option<&'a [u8]>,
    transfer_encoding: Option<&'a [u8]>,
    /// What the `Connection` and `Upgrade` lists name.
    closes: bool,
    keeps_alive: bool,
    connection_upgrade: bool,
    upgrade_websocket: bool,
}

impl<'a> Head<'a> {
    /// Reads a head from the beginning of `bytes`; `None` while it is incomplete.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Option<Self>, Problem> {
        let window = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        let len = match request.parse(window) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if window.len() < HEAD_BYTES_MAX => return Ok(None),
            Ok(httparse::Status::Partial) => return Err(HEAD_TOO_LARGE),
            Err(error) => return Err(unreadable(error)),
        };
        if has_bare_newline(&window[..len]) {
            return Err(bad_request("a line of the head ends without a carriage return"));
        }
        // A complete request has all three: httparse sets them on its way to the fields.
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
            return Err(bad_request("the request line is incomplete"));
        };
        let mut head = Self { method, target, minor, len, ..Self::default() };
        for field in request.headers.iter() {
            head.handle_field(field.name, field.value)?;
        }
        head.check_framing()?;
        Ok(Some(head))
    }

    /// Whether the connection goes on after the answer (RFC 9112 section 9.3).
    pub(super) fn keep_alive(&self) -> bool {
        !self.closes && (self.minor == 1 || self.keeps_alive)
    }

    /// How the end of the body is found; a length is at most [`BODY_BYTES_MAX`].
    pub(super) fn body(&self) -> Result<Body, Problem> {
        match self.body {
            Body::Length(length) if length > BODY_BYTES_MAX => {
                Err(Problem::new(ErrorCode::BodyTooLarge, "a request body has at most 4096 bytes"))
            }
            body => Ok(body),
        }
    }

    /// Whether the client asks for a WebSocket; HTTP/1.0 has no upgrade (RFC 9110 section 7.8).
    pub(super) fn wants_websocket(&self) -> bool {
        self.minor == 1 && self.connection_upgrade && self.upgrade_websocket
    }

    fn handle_field(&mut self, name: &str, value: &'a [u8]) -> Result<(), Problem> {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        if is("host") {
            once(&mut self.host, value, "Host")
        } else if is("connection") {
            for token in list(value) {
                self.closes |= token.eq_ignore_ascii_case(b"close");
                self.keeps_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                self.connection_upgrade |= token.eq_ignore_ascii_case(b"upgrade");
            }
            Ok(())
        } else if is("upgrade") {
            self.upgrade_websocket |= list(value).any(|token| token.eq_ignore_ascii_case(b"websocket"));
            Ok(())
        } else if is("sec-websocket-key") {
            once(&mut self.websocket_key, value, "Sec-WebSocket-Key")
        } else if is("sec-websocket-version") {
            once(&mut self.websocket_version, value, "Sec-WebSocket-Version")
        } else if is("origin") {
            once(&mut self.origin, value, "Origin")
        } else if is("sec-fetch-site") {
            once(&mut self.fetch_site, value, "Sec-Fetch-Site")
        } else if is("x-admin-key") {
            once(&mut self.admin_key, value, "X-Admin-Key")
        } else if is("authorization") {
            once(&mut self.authorization, value, "Authorization")
        } else if is("x-forwarded-for") {
            self.forwarded_for.push(value);
            Ok(())
        } else if is("if-none-match") {
            self.if_none_match = Some(value);
            Ok(())
        } else if is("accept-encoding") {
            self.accept_encoding = Some(value);
            Ok(())
        } else if is("expect") {
            once(&mut self.expect, value, "Expect")
        } else if is("content-length") {
            once(&mut self.length_field, value, "Content-Length")
        } else if is("transfer-encoding") {
            once(&mut self.transfer_encoding, value, "Transfer-Encoding")
        } else {
            Ok(())
        }
    }

    fn check_framing(&mut self) -> Result<(), Problem> {
        if self.minor == 1 && self.host.is_none() {
            return Err(bad_request("the Host field is missing"));
        }
        // RFC 9112 section 3.2: only visible ASCII; a fragment is never sent.
        if !self.target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Err(bad_request("the request target has characters that belong percent-encoded"));
        }
        if let Some(digits) = self.length_field {
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return Err(bad_request("Content-Length is not a number"));
            }
            // Digits alone that do not parse are a number beyond usize.
            let length = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            self.body = Body::Length(length.unwrap_or(usize::MAX));
        }
        if let Some(coding) = self.transfer_encoding {
            self.body = match coding {
                _ if self.length_field.is_some() => {
                    return Err(bad_request("the request has both Content-Length and Transfer-Encoding"));
                }
                _ if self.minor == 0 => return Err(bad_request("HTTP/1.0 has no Transfer-Encoding")),
                coding if coding.eq_ignore_ascii_case(b"chunked") => Body::Chunked,
                _ => {
                    return Err(Problem::new(ErrorCode::NotImplemented, "the only Transfer-Encoding known is chunked"));
                }
            };
        }
        if self.expect.is_some_and(|expect| !expect.eq_ignore_ascii_case(b"100-continue")) {
            return Err(Problem::new(ErrorCode::ExpectationFailed, "the only expectation known is 100-continue"));
        }
        Ok(())
    }
}

/// The elements of a comma-separated list (RFC 9110 section 5.6.1).
pub(super) fn list(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// Takes a field that a request may have once. Repeated, two readers could each take another one.
fn once<'a>(slot: &mut Option<&'a [u8]>, value: &'a [u8], name: &str) -> Result<(), Problem> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Problem::from(ApiError::new(
            ErrorCode::BadRequest,
            format!("the {name} field is there more than once"),
        ))),
    }
}

/// httparse takes a lone LF for the end of a line; another reader may not.
pub(super) fn has_bare_newline(head: &[u8]) -> bool {
    let mut before = 0;
    head.iter().any(|&b| {
        let bare = b == b'\n' && before != b'\r';
        before = b;
        bare
    })
}

pub(super) const HEAD_TOO_LARGE: Problem =
    Problem::new(ErrorCode::HeadTooLarge, "a request head has at most 16384 bytes and 64 fields");

fn unreadable(error: httparse::Error) -> Problem {
    match error {
        httparse::Error::TooManyHeaders => HEAD_TOO_LARGE,
        httparse::Error::Version => Problem::new(ErrorCode::VersionNotSupported, "this port speaks HTTP/1.1"),
        _ => bad_request("this is not an HTTP/1.1 request"),
    }
}

pub(super) const fn bad_request(message: &'static str) -> Problem {
    Problem::new(ErrorCode::BadRequest, message)
}
