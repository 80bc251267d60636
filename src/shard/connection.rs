//! A connection: one socket, and what the shard keeps of it. An idle one is a slab entry, a wheel link and no more.

use super::inbox::Inbox;
use crate::control::message::Caller;
use crate::proto::token::Role;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

/// No session, no outbox, or no TLS.
pub(super) const NONE: u32 = u32::MAX;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The PROXY protocol's header is read.
    Header,
    /// The TLS handshake is under way.
    Handshake,
    /// HTTP requests are read.
    Http,
    /// An HTTP call is with the control thread.
    Call,
    /// Upgraded; the first message is read.
    Auth,
    /// A refused authentication waits before it is answered.
    Slowed,
    /// To be moved to the shard that owns its token, when nothing is being sent.
    Moving,
    /// Authenticated: messages are forwarded.
    Open,
    /// Upgraded on the echo listener.
    Echo,
    /// Our close frame or last response is queued; what still comes is thrown away.
    Closing,
    /// Over; the entry stays until the ring has let go of it.
    Dead,
}

/// The receive operation that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    /// None.
    Idle,
    /// Into slices, until cancelled.
    Multishot,
    /// Into one slice.
    Once,
    /// None yet: it is to fill the message under way, and waits for its turn.
    Queued,
    /// Straight into the message under way.
    Filling,
    /// A cancelled one whose last completion is still to come.
    Cancelling,
}

/// Why reading is paused; a connection is read while none applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pauses(u8);

impl Pauses {
    /// The peer's outbox is above its high-water mark.
    pub(super) const PEER: Self = Self(1);
    /// The connection's own outbox is: it asks for answers that it does not read.
    pub(super) const OWN: Self = Self(2);
    /// A stream is slowed to its rate.
    pub(super) const RATE: Self = Self(4);
    /// The memory for messages under way is used up.
    pub(super) const BUDGET: Self = Self(8);

    /// Adds a reason.
    pub(super) fn insert(&mut self, reason: Self) {
        self.0 |= reason.0;
    }

    /// Takes a reason away; whether it was there.
    pub(super) fn remove(&mut self, reason: Self) -> bool {
        let was = self.0 & reason.0 != 0;
        self.0 &= !reason.0;
        was
    }

    /// Whether any reason applies.
    #[must_use]
    pub(super) fn any(self) -> bool {
        self.0 != 0
    }
}

/// One socket.
pub(super) struct Connection {
    /// The socket.
    pub(super) socket: OwnedFd,
    /// Index of its session; [`NONE`] before authentication and after leaving.
    pub(super) session: u32,
    /// Index of its outbox; [`NONE`] while nothing is queued.
    pub(super) outbox: u32,
    /// Index of its TLS; [`NONE`] where there is none.
    pub(super) tls: u32,
    /// The tick at which something was last heard.
    pub(super) last_heard: u32,
    /// The tick at which the next ping is due, or at which the phase has taken too long.
    pub(super) due: u32,
    /// Where it is in its life.
    pub(super) phase: Phase,
    /// The receive that is under way.
    pub(super) receiving: Receiving,
    /// Why reading is paused.
    pub(super) pauses: Pauses,
    /// Its last message was received straight into an allocation, and the next one may well be.
    pub(super) bulk: bool,
    /// Its role, once authenticated.
    pub(super) role: Role,
    /// What has come and could not be passed on yet.
    pub(super) inbox: Option<Box<Inbox>>,
    /// What is needed only before authentication and for HTTP.
    pub(super) early: Option<Box<Early>>,
}

const _: () = assert!(size_of::<Connection>() <= 48, "an idle connection stays small");

/// What a connection needs until it has authenticated.
pub(super) struct Early {
    /// Unique on this shard; names the connection to other threads.
    pub(super) serial: u64,
    /// When it was accepted, and from the upgrade on, when that was.
    pub(super) since: Instant,
    /// The client's address: the proxy's word for it, where a trusted proxy gave one.
    pub(super) address: IpAddr,
    /// The address that the per-address count was taken for. Given back on authentication or at the end.
    pub(super) counted: Option<IpAddr>,
    /// Whether it came in on the echo listener.
    pub(super) echo: bool,
    /// Whether it came in on a listener that speaks TLS.
    pub(super) tls: bool,
    /// Over the connection cap: it is only told so.
    pub(super) turned_away: bool,
    /// Bytes of HTTP that are not parsed yet.
    pub(super) request: Vec<u8>,
    /// Whether the connection goes on after the response under way.
    pub(super) keep_alive: bool,
    /// Whether the request under way asked for the head only.
    pub(super) head_only: bool,
    /// The text of a refusal that waits in [`Phase::Slowed`].
    pub(super) refusal: &'static str,
    /// Where to go in [`Phase::Moving`].
    pub(super) moving: Option<Box<super::handover::Destination>>,
}

impl Early {
    /// Who waits for an answer of control.
    #[must_use]
    pub(super) fn caller(&self, shard: u16) -> Caller {
        Caller { shard, serial: self.serial }
    }
}
