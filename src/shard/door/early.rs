//! What a connection needs until it has authenticated.

use super::handover::Destination;
use crate::control::message::Caller;
use crate::http::Reply;
use std::net::IpAddr;
use std::time::Instant;

/// What a connection needs until it has authenticated.
pub(in crate::shard) struct Early {
    /// Unique on this shard; names the connection to other threads.
    pub(in crate::shard) serial: u64,
    /// When it was accepted, and from the upgrade on, when that was.
    pub(in crate::shard) since: Instant,
    /// Where the connection comes from: in the word of the PROXY protocol, where a trusted proxy gave one.
    pub(in crate::shard) peer: IpAddr,
    /// Whom the last request counts for: the peer, or whom it named where it is a trusted proxy.
    pub(in crate::shard) address: IpAddr,
    /// The address that the per-address count was taken for. Given back on authentication or at the end.
    pub(in crate::shard) counted: Option<IpAddr>,
    /// Whether it came in on the echo listener.
    pub(in crate::shard) echo: bool,
    /// Whether it came in on a listener that speaks TLS.
    pub(in crate::shard) tls: bool,
    /// Over the connection cap: it is only told so.
    pub(in crate::shard) turned_away: bool,
    /// The tick since which the client has been awaited: accepted, answered, upgraded.
    pub(in crate::shard) waits_since: u32,
    /// Bytes of HTTP that are not parsed yet.
    pub(in crate::shard) request: Vec<u8>,
    /// How many of them there have to be before they are worth parsing, unless a head ends before.
    pub(in crate::shard) parse_at: usize,
    /// Whether the connection goes on after the response under way.
    pub(in crate::shard) keep_alive: bool,
    /// Whether the request under way asked for the head only.
    pub(in crate::shard) head_only: bool,
    /// A request has been answered.
    pub(in crate::shard) answered: bool,
    /// What is not queued yet of the answer in [`Phase::Held`] and [`Phase::Answering`].
    pub(in crate::shard) reply: Reply,
    /// The text of a refusal that waits in [`Phase::Slowed`]; `None`: it is told to come back later.
    pub(in crate::shard) refusal: Option<&'static str>,
    /// Where to go in [`Phase::Moving`].
    pub(in crate::shard) moving: Option<Box<Destination>>,
}

impl Early {
    /// Who waits for an answer of control.
    #[must_use]
    pub(in crate::shard) fn caller(&self, shard: u16) -> Caller {
        Caller { shard, serial: self.serial }
    }
}
