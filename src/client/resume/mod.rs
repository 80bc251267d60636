//! Nothing is lost, and nothing arrives twice, over lost connections: PROTOCOL.md, "Resume".
//!
//! [`Sender`] numbers what leaves and holds it until it is acknowledged, [`Receiver`] takes each number once and in
//! order, [`Acks`] says when an acknowledgement leaves, and when numbered messages may. All are pure: `now` and
//! randomness come in. [`record`] is their JSON.
//!
//! The bounds of both directions are here.

mod acks;
mod receiver;
mod record;
mod sender;

#[cfg(test)]
mod end;
#[cfg(test)]
mod mail_model;
#[cfg(test)]
mod model;
#[cfg(test)]
mod vectors;

pub(super) use acks::Acks;
pub(super) use receiver::{Message, Receiver, Stored, Taken};
pub(super) use record::{Ack, Boot, Position, Record, RecordError};
pub use sender::Keep;
pub(super) use sender::{Held, Refusal, Refused, Sender};

use coralmux_proto::token::Role;
use std::time::Duration;

/// The type of an acknowledgement that travels by itself.
pub(super) const ACK: &str = "ack";

/// What a record has beside its payload, in bytes of JSON, is not longer.
pub(super) const RECORD_BYTES: usize = 1024;

/// What is numbered and not acknowledged: messages, and bytes of their payloads (sender, rule 2). One message may
/// always leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) messages_max: usize,
    pub(super) bytes_max: usize,
}

impl Window {
    pub(super) const fn of(role: Role) -> Self {
        match role {
            Role::Agent => Self { messages_max: 256, bytes_max: 192 << 10 },
            Role::Phone => Self { messages_max: 64, bytes_max: 16 << 20 },
        }
    }
}

/// What an agent holds and lets wait for an absent phone, pieces of answers aside (sender, rule 6).
pub(super) const ABSENT: Window = Window { messages_max: 256, bytes_max: 8 << 20 };

/// Between two requests of the peer that are followed (sender, rule 3).
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);
/// The longest wait that the relay can impose: a monthly quota runs no longer (sender, rule 4).
const REFUSED_MAX: Duration = Duration::from_secs(32 * 24 * 3600);
/// Where it imposes one and does not say which.
const REFUSED_DEFAULT: Duration = Duration::from_secs(2);
/// What was not kept for a reason that is not known is put there again after this, at the earliest (sender, rule 8).
const REFUSED_UNKNOWN: Duration = Duration::from_secs(30);

/// Boots of the peer that are remembered (receiver, rule 1).
const BOOTS_MAX: usize = 4;
/// Messages that are held because one before them is missing, and their bytes (receiver, rule 5).
const EARLY_MAX: usize = 256;
const EARLY_BYTES_MAX: usize = 1 << 20;
/// Between two requests for what is missing (receiver, rule 5).
const REQUEST_INTERVAL: Duration = Duration::from_secs(2);

/// An acknowledgement is due after so many messages, so many bytes, and this long (receiver, rule 6).
const ACK_MESSAGES: usize = 64;
const ACK_BYTES: usize = 128 << 10;
const ACK_DELAY: Duration = Duration::from_secs(1);
/// Between two of them where the relay counts them as messages.
const ACK_INTERVAL_COUNTED: Duration = Duration::from_secs(10);

/// After an agreement, until the peer's first acknowledgement has come, one's own is repeated: after the first of these
/// times, then after twice as long each time, up to the last.
const REPEAT_MIN: Duration = Duration::from_secs(2);
const REPEAT_MAX: Duration = Duration::from_secs(30);
