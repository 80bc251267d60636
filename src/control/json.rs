//! The JSON that the HTTP API answers with. Times are RFC 3339 in UTC (`2026-02-08T20:00:00Z`), `null` means never or none.

use super::message::ApiAnswer;
use crate::proto::limits::{Limits, LimitsOverride};
use crate::sys::time::write_rfc3339;
use serde::Serialize;

/// The longest label, in characters.
pub const LABEL_CHARACTERS_MAX: usize = 200;

impl ApiAnswer {
    /// An answer with a JSON body.
    #[must_use]
    pub fn json(status: u16, body: &impl Serialize) -> Self {
        // Only maps with keys that are not strings and failing `Serialize` impls have no JSON; none is used here.
        let body = serde_json::to_string(body).unwrap_or_default();
        Self { status, body, retry_after: None }
    }

    /// 204.
    #[must_use]
    pub fn no_content() -> Self {
        Self { status: 204, body: String::new(), retry_after: None }
    }

    /// `{"error":{"code":…,"message":…,"retry_after_ms":…}}`; with a time to wait also the `Retry-After` seconds.
    #[must_use]
    pub fn error(status: u16, code: &str, message: &str, retry_after_ms: Option<u64>) -> Self {
        #[derive(Serialize)]
        struct Error<'a> {
            code: &'a str,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            retry_after_ms: Option<u64>,
        }
        #[derive(Serialize)]
        struct Body<'a> {
            error: Error<'a>,
        }
        let answer = Self::json(status, &Body { error: Error { code, message, retry_after_ms } });
        Self { retry_after: retry_after_ms.map(|ms| ms.div_ceil(1000).max(1)), ..answer }
    }
}

/// A token as `POST`, `GET` and `PATCH` show it.
#[derive(Debug, Serialize)]
pub(super) struct TokenView<'a> {
    /// The token itself: shown once, to who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<&'a str>,
    pub(super) id: String,
    pub(super) label: Option<&'a str>,
    pub(super) created_at: String,
    pub(super) expires_at: Option<String>,
    /// When it expires unless it is used before; `None`: it has been, or the operator made it.
    pub(super) unused_expires_at: Option<String>,
    /// Those of its own.
    pub(super) limits: LimitsOverride,
    /// Those in force.
    pub(super) effective: LimitsView,
    pub(super) usage: UsageView,
    pub(super) online: RolesView<bool>,
    pub(super) online_since: RolesView<Option<String>>,
}

#[derive(Debug, Serialize)]
pub(super) struct LimitsView {
    message_bytes_max: u64,
    phone_per_minute: u64,
    agent_per_minute: u64,
    stream_per_second: u64,
    daily_quota_bytes: u64,
    monthly_quota_bytes: u64,
}

impl From<Limits> for LimitsView {
    fn from(limits: Limits) -> Self {
        Self {
            message_bytes_max: limits.message_bytes_max,
            phone_per_minute: limits.phone_per_minute,
            agent_per_minute: limits.agent_per_minute,
            stream_per_second: limits.stream_per_second,
            daily_quota_bytes: limits.daily_quota_bytes,
            monthly_quota_bytes: limits.monthly_quota_bytes,
        }
    }
}

/// What it used in this UTC day and month; a quota of 0 is none.
#[derive(Debug, Serialize)]
pub(super) struct UsageView {
    pub(super) day_bytes: u64,
    pub(super) month_bytes: u64,
    pub(super) daily_quota_bytes: u64,
    pub(super) monthly_quota_bytes: u64,
}

/// Something of each role.
#[derive(Debug, Default, Serialize)]
pub(super) struct RolesView<T> {
    pub(super) phone: T,
    pub(super) agent: T,
}

/// A Unix second as it is shown.
pub(super) fn time(unix: u64) -> String {
    write_rfc3339(unix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_wait_in_milliseconds_and_whole_seconds() {
        let answer = ApiAnswer::error(429, "RATE_LIMITED", "later", Some(1001));
        assert_eq!(answer.body, r#"{"error":{"code":"RATE_LIMITED","message":"later","retry_after_ms":1001}}"#);
        assert_eq!((answer.status, answer.retry_after), (429, Some(2)));
        assert_eq!(ApiAnswer::error(404, "NOT_FOUND", "x", None).retry_after, None);
    }
}
