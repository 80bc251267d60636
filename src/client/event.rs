//! What a client hears.

use super::devices::{Info, Joined, Lane};
use coralmux_e2e::Link;
use coralmux_e2e::v3::DeviceId;
use serde_json::Value;
use std::num::NonZeroU64;
use std::time::Duration;
use thiserror::Error;

/// What happened, in the order in which it happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The relay has let this end in. Told again after each reconnect.
    Connected {
        /// The other end is online now.
        paired: bool,
        /// Bytes a UTC day; 0: no quota.
        daily_quota_bytes: u64,
        /// Of these, used.
        daily_used_bytes: u64,
    },
    /// The other end has come, or has come anew.
    PeerOnline,
    /// The other end has left.
    PeerOffline,
    /// Both ends have keys: what is sent from now on is encrypted.
    Secure {
        /// Of the encryption, 1 to 3.
        version: u8,
        /// Version 1: what both ends show so that people can compare. The others need none.
        fingerprint: Option<String>,
    },
    /// A message of the peer.
    Message(Message),
    /// An error, of the relay or of the peer.
    Error(PeerError),
    /// A message of one's own has reached the peer's process. Told where both ends resume, for what has an id.
    Delivered {
        /// Its id.
        id: String,
    },
    /// A message of one's own waits at the relay for an absent peer: told before [`Delivered`](Self::Delivered), which comes
    /// when the peer has taken it.
    Kept {
        /// Its id.
        id: String,
    },
    /// So many messages for this end have expired at the relay since it was last there.
    Expired {
        /// How many.
        count: u64,
    },
    /// So many messages of the peer were given up, and will not come. Told where both ends resume.
    Missed {
        /// How many.
        count: u64,
    },
    /// The peer's process was restarted: what it was doing has ended. Told where both ends resume, with its first message.
    PeerRestarted,
    /// The peer resumed lost connections, and does not any more: it was replaced by an older one, or the relay keeps the
    /// ends from agreeing on it. What breaks from now on may lose messages.
    ResumeLost,
    /// A message was not sent, or is not known to have arrived: no connection, no peer or no keys for as long as it could
    /// wait, too much that waited for the peer after it, refused too often, or the client is closed.
    NotSent {
        /// Its id.
        id: String,
    },
    /// The connection was lost, or did not come about.
    Disconnected {
        /// Why.
        reason: Reason,
        /// When it is tried again.
        next_try: Duration,
    },
    /// Another connection has this end's place now (4001). The last event.
    Replaced,
    /// The token was revoked (4002). The last event.
    Revoked,
    /// The relay does not accept the token (`auth.fail`). The last event.
    Refused {
        /// The relay's code: `UNAUTHORIZED`.
        code: String,
        /// The relay's words.
        message: String,
    },
    /// The client was closed by its owner. The last event.
    Closed,
    /// Agent with devices, after each [`Connected`](Self::Connected), unless the relay does not want to know the agent:
    /// whether it knows devices, and the first link, while that is good for one.
    Devices {
        /// It does, and the token is bound to this agent.
        known: bool,
        /// The link of the first start; where the relay knows no devices, that of phones that know none.
        link: Option<Box<Link>>,
    },
    /// Agent: a device has come, or has come anew, or has gone, or sleeps.
    Device {
        /// Which.
        device: DeviceId,
        /// It is there.
        online: bool,
    },
    /// Agent: somebody with the secret of a link wants to be a device. To be answered by
    /// [`Client::admit`](super::Client::admit) or [`Client::revoke`](super::Client::revoke). Told again when it comes anew.
    Joined(Box<Joined>),
    /// Agent: a device is one, and the relay lets it in.
    Admitted {
        /// Which.
        info: Box<Info>,
        /// Phones that know no devices are let in, too.
        plain_is_open: bool,
    },
    /// Agent: a device has another name, or another one is the owner.
    DevicesChanged,
    /// Agent: a device that was admitted does not know it: it is told by [`Client::welcome`](super::Client::welcome).
    WantsWelcome {
        /// Which.
        device: DeviceId,
    },
    /// Agent: a device is none any more, or was refused.
    Left(Box<Info>),
    /// Agent: the relay does not know this device any more, which it should.
    DeviceMissing(Box<Info>),
    /// Agent: a link that was asked for, which the relay knows of.
    Invited {
        /// The word that it was asked for with.
        tag: String,
        /// For whom.
        by: Lane,
        /// To be shown.
        link: Box<Link>,
        /// Until when it is good, in Unix milliseconds.
        expires_at: u64,
    },
    /// Agent: there is no link.
    NotInvited {
        /// The word that it was asked for with.
        tag: String,
        /// For whom.
        by: Lane,
        /// `INVITES_FULL`, `RELAY_BUSY` and so on (PROTOCOL.md).
        code: String,
    },
    /// Agent: phones that know no devices are not let in any more, for none has come for 7 days.
    PlainClosed,
    /// Agent: the phone in the plain slot knows devices, and could be one.
    CanBeDevice,
    /// Device: what it shows while it enrols, and the agent's end as well, so that people can compare.
    Code {
        /// Six digits.
        code: String,
    },
    /// Device: it does not become one with this link, or the relay knows no devices. The last event.
    NotEnrolled {
        /// In words.
        why: String,
    },
}

impl Event {
    /// Whether nothing follows it.
    #[must_use]
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Replaced | Self::Revoked | Self::Refused { .. } | Self::Closed | Self::NotEnrolled { .. })
    }

    /// A peer has come, or has left.
    pub(super) fn presence(lane: Lane, online: bool) -> Self {
        match (lane, online) {
            (Some(device), online) => Self::Device { device, online },
            (None, true) => Self::PeerOnline,
            (None, false) => Self::PeerOffline,
        }
    }
}

/// A forwarded message, decrypted.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Its `type`: `chat.send`, and so on.
    pub kind: String,
    /// Its `id`; empty where it had none.
    pub id: String,
    /// Its payload; `{}` where it had none.
    pub payload: Value,
    /// Version 2, where the ends do not resume: how many messages of the peer before this one never came.
    pub missed: u64,
    /// When it was sent, in Unix milliseconds by the peer's clock, where the relay would have kept it while this end was
    /// away: it may have waited for days.
    pub sent_at: Option<NonZeroU64>,
    /// Agent: which device it is from; `None`: from the phone in the plain slot.
    pub from: Lane,
}

/// A `chat.error`.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerError {
    /// `PEER_OFFLINE`, `RATE_LIMITED`, `BACKEND_ERROR` and so on (PROTOCOL.md).
    pub code: String,
    /// In words.
    pub message: String,
    /// When it makes sense to try again.
    pub retry_after: Option<Duration>,
    /// The id of the message that it is about.
    pub about: Option<String>,
    /// Who says so.
    pub by: Speaker,
    /// Whether the client sends the message again by itself.
    pub sent_again: bool,
}

/// Whose word an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The peer's: it came encrypted.
    Peer,
    /// The relay's, or anybody's on the way: it came in clear.
    Relay,
    /// This client's own.
    Client,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Reason {
    /// The relay's name is not known.
    #[error("the name {host} cannot be looked up: {text}")]
    Name {
        /// The name.
        host: String,
        /// The system's words.
        text: String,
    },
    /// Nothing accepts connections there.
    #[error("no connection to {host}: {text}")]
    Connect {
        /// The relay's host and port.
        host: String,
        /// The system's words.
        text: String,
    },
    /// TLS failed: the certificate, mostly.
    #[error("TLS: {0}")]
    Tls(String),
    /// The proxy that the environment names does not let through.
    #[error("the proxy {proxy} does not connect to {host}: {text}")]
    Proxy {
        /// Its address, and the variable that names it.
        proxy: String,
        /// The relay's host and port.
        host: String,
        /// What it said, or what is wrong with it.
        text: String,
    },
    /// It answered, but not as a WebSocket server.
    #[error("{url} answered {status} instead of opening a WebSocket: {advice}")]
    Http {
        /// The HTTP status.
        status: u16,
        /// What was asked for.
        url: String,
        /// What that means, and what to check.
        advice: String,
    },
    /// Nothing was heard for too long.
    #[error("nothing was heard for too long")]
    Silent,
    /// No `auth.ok` within the time for connecting.
    #[error("no answer within the time for connecting")]
    TimedOut,
    /// Closed by the relay with this code and reason.
    #[error("closed by the relay ({code} {text})")]
    Closed {
        /// The close code; 1012: restart, 1013: full or busy.
        code: u16,
        /// The relay's words.
        text: String,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The relay says what no relay says.
    #[error("the server does not speak as a relay does: {0}")]
    Protocol(&'static str),
}
