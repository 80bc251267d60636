//! What a session wants done. It does nothing itself: the layer that owns the connections carries its effects out, in order.

use crate::message::{ErrorCode, RelayMessage};
use std::time::Duration;

/// One thing to be done. `C` names a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<C> {
    /// The message goes to this connection as it is; it has been counted.
    Forward(C),
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
}
