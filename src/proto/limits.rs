//! The limits that an operator sets for all tokens, and those that one token has of its own.

use serde::{Deserialize, Serialize};

/// A limit of this value is lifted.
pub const UNLIMITED: u64 = 0;

/// The largest message unless an operator sets another: bytes of the whole envelope, after reassembly (wire contract,
/// Transport).
pub const MESSAGE_BYTES_MAX: usize = 5 << 20;

/// The limits in force for a token. [`UNLIMITED`] lifts each but `message_bytes_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// The largest message, in payload bytes after reassembly. Never 0.
    pub message_bytes_max: u64,
    /// Messages a minute from the phone, and its burst.
    pub phone_per_minute: u64,
    /// Messages a minute from the agent, and its burst; `chat.stream` is not counted.
    pub agent_per_minute: u64,
    /// `chat.stream` messages a second from the agent; the burst is twice this.
    pub stream_per_second: u64,
    /// Forwarded payload bytes a UTC day.
    pub daily_quota_bytes: u64,
    /// Forwarded payload bytes a UTC month.
    pub monthly_quota_bytes: u64,
    /// What may wait for receivers that are not there.
    #[serde(flatten)]
    pub mailbox: MailboxLimits,
}

/// What may wait at the relay for a token's receivers that are not there. None of them can be lifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MailboxLimits {
    /// Bytes, for all receivers of the token together.
    #[serde(rename = "mailbox_bytes_max")]
    pub bytes_max: u64,
    /// Messages for one receiver.
    #[serde(rename = "mailbox_messages_max")]
    pub messages_max: u64,
    /// Messages of one device for the agent.
    #[serde(rename = "mailbox_device_messages_max")]
    pub device_messages_max: u64,
    /// The longest message.
    #[serde(rename = "mailbox_message_bytes_max")]
    pub message_bytes_max: u64,
    /// How long, in seconds.
    #[serde(rename = "mailbox_age_max_sec")]
    pub age_max_sec: u64,
}

impl MailboxLimits {
    /// Those of the wire contract.
    pub const DEFAULT: Self = Self {
        bytes_max: 4 << 20,
        messages_max: 256,
        device_messages_max: 64,
        message_bytes_max: 1 << 20,
        age_max_sec: 7 * 24 * 3600,
    };
}

impl Default for Limits {
    /// The defaults of the wire contract.
    fn default() -> Self {
        Self {
            message_bytes_max: MESSAGE_BYTES_MAX as u64,
            phone_per_minute: 30,
            agent_per_minute: 120,
            stream_per_second: 100,
            daily_quota_bytes: 500 << 20,
            monthly_quota_bytes: 10 << 30,
            mailbox: MailboxLimits::DEFAULT,
        }
    }
}

/// Limits of one token that replace the operator's; `None` means the operator's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsOverride {
    /// See [`Limits::message_bytes_max`]; can only lower the operator's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_bytes_max: Option<u64>,
    /// See [`Limits::phone_per_minute`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone_per_minute: Option<u64>,
    /// See [`Limits::agent_per_minute`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_per_minute: Option<u64>,
    /// See [`Limits::stream_per_second`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_per_second: Option<u64>,
    /// See [`Limits::daily_quota_bytes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily_quota_bytes: Option<u64>,
    /// See [`Limits::monthly_quota_bytes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monthly_quota_bytes: Option<u64>,
    /// See [`MailboxLimits::bytes_max`]; 0: nothing is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mailbox_bytes_max: Option<u64>,
    /// See [`MailboxLimits::messages_max`]; 0: nothing is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mailbox_messages_max: Option<u64>,
    /// See [`MailboxLimits::device_messages_max`]; 0: nothing is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mailbox_device_messages_max: Option<u64>,
    /// See [`MailboxLimits::message_bytes_max`]; 0: nothing is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mailbox_message_bytes_max: Option<u64>,
    /// See [`MailboxLimits::age_max_sec`]; 0: nothing is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mailbox_age_max_sec: Option<u64>,
}

impl LimitsOverride {
    /// The operator's limits with this token's own in their place.
    #[must_use]
    pub fn over(&self, general: &Limits) -> Limits {
        Limits {
            message_bytes_max: self
                .message_bytes_max
                .filter(|&own| own != 0)
                .map_or(general.message_bytes_max, |own| own.min(general.message_bytes_max)),
            phone_per_minute: self.phone_per_minute.unwrap_or(general.phone_per_minute),
            agent_per_minute: self.agent_per_minute.unwrap_or(general.agent_per_minute),
            stream_per_second: self.stream_per_second.unwrap_or(general.stream_per_second),
            daily_quota_bytes: self.daily_quota_bytes.unwrap_or(general.daily_quota_bytes),
            monthly_quota_bytes: self.monthly_quota_bytes.unwrap_or(general.monthly_quota_bytes),
            mailbox: MailboxLimits {
                bytes_max: self.mailbox_bytes_max.unwrap_or(general.mailbox.bytes_max),
                messages_max: self.mailbox_messages_max.unwrap_or(general.mailbox.messages_max),
                device_messages_max: self.mailbox_device_messages_max.unwrap_or(general.mailbox.device_messages_max),
                message_bytes_max: self.mailbox_message_bytes_max.unwrap_or(general.mailbox.message_bytes_max),
                age_max_sec: self.mailbox_age_max_sec.unwrap_or(general.mailbox.age_max_sec),
            },
        }
    }

    /// Whether nothing is overridden.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
