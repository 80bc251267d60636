//! The limits of a token in the form that each message is checked against.

use crate::proto::bucket::Rate;
use crate::proto::limits::Limits;
use crate::proto::token::{ByRole, Role};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// What a connection can make the relay answer each second, beside messages that are forwarded: pings, and messages that
/// are refused. Further ones are read more slowly.
const ANSWERS_PER_SECOND: u64 = 100;
/// The same at once.
const ANSWERS_BURST: u64 = 200;

/// Acknowledgements a second of each role, on connections with the extension. Further ones are read more slowly.
const ACKS_PER_SECOND: u64 = 4;
/// The same at once.
const ACKS_BURST: u64 = 16;
/// A longer one, counted as all of a message is, counts as a message.
pub const ACK_BYTES_MAX: u64 = 2 << 10;
/// Messages a minute that are for the relay itself, of the agent and of each device, and as many at once.
const ORDERS_PER_MINUTE: u64 = 60;

/// A token's limits, with the rates worked out. Most tokens of a shard share one.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The limits that this was made from.
    pub limits: Limits,
    /// `None`: no limit.
    message_rates: ByRole<Option<Rate>>,
    stream_rate: Option<Rate>,
    answer_rate: Option<Rate>,
    ack_rate: Option<Rate>,
    order_rate: Option<Rate>,
}

impl Policy {
    /// Works the rates out. The burst of a role is a minute's messages, that of a stream two seconds' (wire contract,
    /// Limits).
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let Limits { phone_per_minute, agent_per_minute, stream_per_second, .. } = limits;
        Self {
            limits,
            message_rates: ByRole {
                phone: Rate::per(phone_per_minute, MINUTE, phone_per_minute),
                agent: Rate::per(agent_per_minute, MINUTE, agent_per_minute),
            },
            stream_rate: Rate::per(stream_per_second, SECOND, stream_per_second.saturating_mul(2)),
            answer_rate: Rate::per(ANSWERS_PER_SECOND, SECOND, ANSWERS_BURST),
            ack_rate: Rate::per(ACKS_PER_SECOND, SECOND, ACKS_BURST),
            order_rate: Rate::per(ORDERS_PER_MINUTE, MINUTE, ORDERS_PER_MINUTE),
        }
    }

    /// What `role` may send.
    #[must_use]
    pub fn message_rate(&self, role: Role) -> Option<&Rate> {
        self.message_rates[role].as_ref()
    }

    /// What either role can make the relay answer at full speed.
    #[must_use]
    pub fn answer_rate(&self) -> Option<&Rate> {
        self.answer_rate.as_ref()
    }

    /// What an agent may stream.
    #[must_use]
    pub fn stream_rate(&self) -> Option<&Rate> {
        self.stream_rate.as_ref()
    }

    /// What either role may acknowledge, on connections with the extension.
    #[must_use]
    pub fn ack_rate(&self) -> Option<&Rate> {
        self.ack_rate.as_ref()
    }

    /// What the agent, and each device, may ask of the relay itself.
    #[must_use]
    pub fn order_rate(&self) -> Option<&Rate> {
        self.order_rate.as_ref()
    }
}
