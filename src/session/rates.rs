//! How fast two that send each other messages may do so.

use crate::heard::Heard;
use crate::policy::{ACK_BYTES_MAX, Policy};
use crate::proto::bucket::{Bucket, Rate};
use crate::proto::envelope::Kind;
use crate::proto::token::{ByRole, Role};
use std::time::Duration;

/// What an agent and a phone, or a device, have used up of what they may send each other. It belongs to the token or the
/// device, not to a connection: a reconnect does not refill it.
#[derive(Debug, Default)]
pub(super) struct Rates {
    messages: ByRole<Bucket>,
    streams: Bucket,
    acks: ByRole<Bucket>,
}

impl Rates {
    /// Takes a message of `role` from what it may send; `ext`: it has the extension.
    ///
    /// # Errors
    /// What becomes of the message instead.
    #[inline]
    pub(super) fn try_take(
        &mut self,
        now: Duration,
        policy: &Policy,
        (role, ext): (Role, bool),
        heard: Heard,
    ) -> Result<(), Early> {
        // What is slowed down where others are refused.
        let slowed = match heard.kind {
            Kind::Stream => Some((&mut self.streams, policy.stream_rate())),
            Kind::Ack if ext && heard.bytes <= ACK_BYTES_MAX => Some((&mut self.acks[role], policy.ack_rate())),
            _ => None,
        };
        if let Some((bucket, rate)) = slowed {
            return try_take(bucket, now, rate).map_err(Early::Waits);
        }
        try_take(&mut self.messages[role], now, policy.message_rate(role)).map_err(Early::Refused)
    }
}

/// A message has come before its time, by so much.
pub(super) enum Early {
    /// It waits where others are refused.
    Waits(Duration),
    /// It is refused.
    Refused(Duration),
}

/// Takes one from a bucket, if there is a limit.
#[inline]
pub(super) fn try_take(bucket: &mut Bucket, now: Duration, rate: Option<&Rate>) -> Result<(), Duration> {
    rate.map_or(Ok(()), |rate| bucket.try_take(now, rate))
}
