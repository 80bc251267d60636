//! What a session wants done. It does nothing itself: the layer that owns the connections carries its effects out, in order.

use crate::message::{ErrorCode, RelayMessage};
use crate::proto::device::{DeviceId, KeyHash};
use crate::shelf::Confirmed;
use std::time::Duration;

/// One thing to be done. `C` names a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<C> {
    /// The message goes to this connection as it is; it has been counted.
    Forward(C),
    /// The same, and its sender was asleep. That connection is told first that this device is there, unless something waits
    /// for it.
    Wake(C, Option<DeviceId>),
    /// Whom the message is for is not there. It is to be read, and handed to [`crate::Session::keep`] if it is to be kept;
    /// else its sender is to be told this.
    Keep(Refusal),
    /// The message is for the relay itself: it is to be read, and handed to [`crate::Session::handle_order`].
    Order,
    /// The relay says this to a connection.
    Tell(C, RelayMessage<'static>),
    /// A connection is to be closed, behind whatever was queued for it.
    Close(C, Farewell),
    /// The message is not delivered; its sender is to be told.
    Refuse(Refusal),
    /// Not now: the message is to be handed in again after that long, before anything that came after it. Nothing was
    /// counted.
    Later(Duration),
    /// Nothing: the message was a sign of life.
    Nothing,
}

/// Why a connection is sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// A newer one has its place (wire contract: 4001).
    Replaced,
    /// The token admits no more (wire contract: 4002).
    Revoked,
    /// Who could let it in is away; it may come again (wire contract: 1013).
    NotNow,
}

/// Why a message was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code on the wire.
    pub code: ErrorCode,
    /// In plain words.
    pub message: &'static str,
    /// When the same message can pass.
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, message: &'static str) -> Self {
        Self { code, message, retry_after_ms: None }
    }

    /// One that a try after `wait` does not meet.
    pub(super) fn later(code: ErrorCode, message: &'static str, wait: Duration) -> Self {
        let millis = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1);
        Self { code, message, retry_after_ms: Some(millis) }
    }
}

/// Why a bound token does not admit a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// It is an agent without the key that the token is bound to.
    OtherAgent,
    /// Its key is no device's, and it has no invite that is open.
    LinkUsed,
    /// It has no key, and the plain phone is not admitted.
    NoPlainPhone,
    /// Its key has the id of another device.
    IdTaken,
    /// Its invite may be an open one, but the agent that could say so is away, or has just come: it may try again.
    AgentAway,
}

impl NotAdmitted {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::OtherAgent, Self::LinkUsed, Self::NoPlainPhone, Self::IdTaken, Self::AgentAway];

    /// The label of the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OtherAgent => "other_agent",
            Self::LinkUsed => "link_used",
            Self::NoPlainPhone => "no_plain_phone",
            Self::IdTaken => "id_taken",
            Self::AgentAway => "agent_away",
        }
    }

    /// In plain words; `None`: it is not refused for good.
    #[must_use]
    pub const fn text(self) -> Option<&'static str> {
        Some(match self {
            Self::OtherAgent => "the token is bound to the key of another agent",
            Self::LinkUsed => "this link was used: show a new one",
            Self::NoPlainPhone => "the token admits only devices that its agent has admitted: show a new link",
            Self::IdTaken => "the token has a device of this id already: make another key",
            Self::AgentAway => return None,
        })
    }
}

/// What becomes of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ordered<C> {
    /// It has been carried out, but for these effects.
    Done(Vec<Effect<C>>),
    /// It has to be written down first.
    Store(Change),
    /// So much of what has waited for who asks is to be deleted.
    Confirmed(Confirmed),
    /// It is not carried out.
    Refused(Refusal),
}

/// A change to whom a token admits, which has to outlast the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// To this agent's key, and to whom that admits.
    Bind {
        /// The key.
        agent: KeyHash,
        /// A phone without a device's key may go on.
        legacy_phone: bool,
    },
    /// A device more.
    Admit {
        /// Its key.
        key: KeyHash,
        /// For the operator.
        label: Option<String>,
    },
    /// A device less.
    Revoke(DeviceId),
    /// How a device is woken.
    Push {
        /// Which.
        device: DeviceId,
        /// What it has sent.
        payload: Box<str>,
    },
}

/// The message by which a client has asked for something.
#[derive(Debug)]
pub struct Asked {
    /// The connection's serial number on its shard.
    pub serial: u64,
    /// The message's `id`, as JSON text with its quotes.
    pub reference: Option<Box<str>>,
    /// The device that it named.
    pub device: Option<DeviceId>,
}
