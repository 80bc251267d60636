//! The JSON that calls are answered with. Times are RFC 3339 in UTC (`2026-02-08T20:00:00Z`), `null` means never or none.

use crate::proto::limits::{Limits, LimitsOverride};
use serde::Serialize;

/// A token as `POST`, `GET` and `PATCH` show it.
#[derive(Debug, Serialize)]
pub struct TokenView<'a> {
    /// The token itself: shown once, to its creator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<&'a str>,
    /// Its public id.
    pub id: String,
    /// For people.
    pub label: Option<&'a str>,
    /// When it was made.
    pub created_at: String,
    /// From when on it admits no more.
    pub expires_at: Option<String>,
    /// When it expires unless it is used before; `None`: it has been, or the operator made it.
    pub unused_expires_at: Option<String>,
    /// SHA-256 of the key of the agent that it is bound to.
    pub agent_key: Option<String>,
    /// How many devices it has.
    pub devices: usize,
    /// Those of its own.
    pub limits: LimitsOverride,
    /// Those in force.
    pub effective: Limits,
    /// What it used.
    pub usage: UsageView,
    /// Who is online.
    pub online: RolesView<bool>,
    /// And since when.
    pub online_since: RolesView<Option<String>>,
}

/// What a token used in this UTC day and month; a quota of 0 is none.
#[derive(Debug, Serialize)]
pub struct UsageView {
    /// Payload bytes of the day.
    pub day_bytes: u64,
    /// Payload bytes of the month.
    pub month_bytes: u64,
    /// Of which a day may have that many.
    pub daily_quota_bytes: u64,
    /// And a month that many.
    pub monthly_quota_bytes: u64,
}

/// Something of each role.
#[derive(Debug, Default, Serialize)]
pub struct RolesView<T> {
    /// The phone's.
    pub phone: T,
    /// The agent's.
    pub agent: T,
}

/// What a token is bound to.
#[derive(Debug, Serialize)]
pub struct DevicesView<'a> {
    /// SHA-256 of the key of its agent; `None`: it is not bound.
    pub agent_key: Option<String>,
    /// Whether a phone without a device's key is admitted.
    pub legacy_phone: bool,
    /// In the order in which they were added.
    pub devices: Vec<DeviceView<'a>>,
}

/// A device of a token.
#[derive(Debug, Serialize)]
pub struct DeviceView<'a> {
    /// Its id.
    pub device: String,
    /// For people.
    pub label: Option<&'a str>,
    /// When its agent admitted it.
    pub added_at: String,
    /// When it connected last, to the day.
    pub seen_at: String,
    /// Whether it is connected.
    pub online: bool,
    /// And since when.
    pub online_since: Option<String>,
    /// Whether it can be woken.
    pub push: &'static str,
}

/// A page of tokens.
#[derive(Debug, Serialize)]
pub struct TokenPage<'a> {
    /// In order of creation.
    pub tokens: Vec<TokenView<'a>>,
    /// The `after` of the next page.
    pub next: Option<u64>,
}

/// A page of tokens with somebody online.
#[derive(Debug, Serialize)]
pub struct SessionPage<'a> {
    /// In order of creation.
    pub sessions: Vec<TokenView<'a>>,
    /// The `after` of the next page.
    pub next: Option<u64>,
}

/// A page of days.
#[derive(Debug, Serialize)]
pub struct DayPage {
    /// In order.
    pub days: Vec<DayView>,
    /// The `after` of the next page.
    pub next: Option<u64>,
}

/// What was forwarded on one UTC day.
#[derive(Debug, Serialize)]
pub struct DayView {
    /// `2026-02-08`.
    pub day: String,
    /// Payload bytes.
    pub bytes: u64,
    /// Tokens that used anything.
    pub tokens: u64,
}

/// What a sweep did.
#[derive(Debug, Serialize)]
pub struct SweepView {
    /// Tokens that were deleted.
    pub removed: usize,
    /// Whether there may be more: then the call is to be made again.
    pub more: bool,
}

/// The relay drains.
#[derive(Debug, Serialize)]
pub struct DrainView {
    /// Always.
    pub draining: bool,
}

/// What is logged.
#[derive(Debug, Serialize)]
pub struct LogLevelView {
    /// A level, or directives.
    pub level: String,
}

/// How far a backup has come.
#[derive(Debug, Default, Serialize)]
pub struct BackupView {
    /// `none`, `running`, `done` or `failed`.
    pub state: &'static str,
    /// Where it is.
    pub file: Option<String>,
    /// Pages copied.
    pub pages_done: u64,
    /// Pages in all.
    pub pages: u64,
    /// How long the file is, where it is done.
    pub bytes: Option<u64>,
    /// Why there is none, where it failed.
    pub error: Option<String>,
}

/// What waits in the mailbox.
#[derive(Debug, Default, Serialize)]
pub struct MailView {
    /// Messages in all.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// For whom most bytes wait, those first: at most 1,000.
    pub receivers: Vec<MailReceiverView>,
    /// Whether there are more of them.
    pub more: bool,
}

/// What waits for one receiver.
#[derive(Debug, Serialize)]
pub struct MailReceiverView {
    /// The token's public name.
    pub token: String,
    /// `agent`, or the device's id.
    pub receiver: String,
    /// Messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the oldest of them was kept.
    pub oldest_at: String,
}
