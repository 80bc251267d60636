//! HTTP/1.1 on the relay's port (RFC 9112): bytes in, values out.
//!
//! [`RequestPolicy::parse`] takes what a client sent so far and says what is to be done; [`answer`], [`health`] and the others
//! write responses. Nothing here does I/O, reads a clock or keeps anything of a connection: the shard holds the bytes
//! of an unfinished request and calls again when there are more.
//!
//! What it must never do: take a request whose end two readers could see in different places. Whatever is doubtful
//! about a request's framing is refused and its connection closed ([`Refusal`]).

mod chunked;
mod forwarded;
mod head;
mod own;
mod phone;
mod policy;
mod port80;
mod response;
mod route;
#[cfg(test)]
mod tests;
mod upgrade;
mod watch;

pub use policy::{RequestPolicy, RequestPolicyOptions};
pub use port80::port80;
pub use response::{Reply, answer, health, metrics, ready, switching, text, tls_wanted, too_many_keys, try_later};
pub use watch::{Watched, watch};

use api::ApiCall;
use coralmux_api as api;
use coralmux_proto as proto;
use coralmux_sys as sys;
use std::net::IpAddr;

/// The longest request head, in bytes, its final empty line included.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The longest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 4 * 1024;
/// What the chunks of a body have around their data at most, in bytes: sizes, extensions, trailers.
pub const FRAMING_BYTES_MAX: usize = 4 * 1024;
/// The longest request, in bytes.
pub const REQUEST_BYTES_MAX: usize = HEAD_BYTES_MAX + BODY_BYTES_MAX + FRAMING_BYTES_MAX;
/// The most header fields of a request.
pub const FIELDS_MAX: usize = 64;

/// Whom a connection comes from.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Whether it speaks TLS with the relay itself: then it has seen the certificate, and means the relay.
    pub tls: bool,
}

/// What the bytes of a connection hold, read from their beginning.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a request. Never for [`REQUEST_BYTES_MAX`] bytes or more.
    NeedMore {
        /// Where the head is whole: at how many bytes there is more to see. Chunks may end before, at an empty line.
        bytes: Option<usize>,
    },
    /// A whole request, head and body.
    Request {
        /// What it asks for.
        action: Action,
        /// Its length; what follows belongs to the next request, or to the WebSocket after [`Action::Upgrade`].
        consumed: usize,
        /// Whether the connection goes on after the answer.
        keep_alive: bool,
        /// It was a `HEAD` request: the answer goes without its body.
        head_only: bool,
        /// It shows a key to what needs one, right or wrong: an address that has guessed too often must not learn which.
        shows_key: bool,
        /// The address that the request counts for: the peer, or whom a trusted proxy names.
        client: IpAddr,
    },
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// `GET /ws`, everything of RFC 6455 section 4.2.1 checked: answer with [`switching`], then speak WebSocket.
    Upgrade {
        /// The value of `Sec-WebSocket-Accept`.
        accept: [u8; 28],
    },
    /// A call for the control thread, the admin key checked where it needs one: answer with [`answer`].
    Call(Box<ApiCall>),
    /// `GET /health`: answer with [`health`].
    Health,
    /// `GET /readyz`: answer with [`ready`].
    Ready,
    /// A complete response that needs nobody, to be sent as it is.
    Respond(Reply),
    /// A call that showed a key which is not the admin key, and the response to it: its sender may be guessing.
    WrongKey(Reply),
}

/// A request that cannot be read, or whose end is in doubt: send the response, then close.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A complete response with `Connection: close`.
    pub response: Vec<u8>,
}
