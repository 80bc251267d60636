//! The JSON of the HTTP API, both ways. Times are RFC 3339 in UTC (`2026-02-08T20:00:00Z`), `null` means never or none.

use super::message::{ApiAnswer, NewToken, TokenChange};
use crate::proto::limits::{Limits, LimitsOverride};
use crate::store::calendar::{read_rfc3339, write_rfc3339};
use serde::{Deserialize, Deserializer, Serialize};

/// The longest label, in characters.
pub const LABEL_CHARACTERS_MAX: usize = 200;

/// The body of `POST /api/v1/pair`: empty, or `{"label":…,"expires_at":…,"limits":{…}}`, each of them optional.
///
/// # Errors
/// What is wrong with it, for [`ApiAnswer::error`] with status 400 and code `INVALID_REQUEST`.
pub fn read_new_token(body: &[u8]) -> Result<NewToken, String> {
    #[derive(Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Body {
        label: Option<String>,
        expires_at: Option<Time>,
        limits: Option<LimitsOverride>,
    }
    if body.trim_ascii().is_empty() {
        return Ok(NewToken::default());
    }
    let body: Body = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    Ok(NewToken {
        label: body.label,
        expires_at: body.expires_at.map(|time| time.0),
        limits: body.limits.unwrap_or_default(),
    })
}

/// The body of `PATCH /api/v1/tokens/{id}`: what is there changes, `null` clears, `limits` replaces all limits.
///
/// # Errors
/// As [`read_new_token`].
pub fn read_token_change(body: &[u8]) -> Result<TokenChange, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[serde(default, deserialize_with = "there")]
        label: Option<Option<String>>,
        #[serde(default, deserialize_with = "there")]
        expires_at: Option<Option<Time>>,
        #[serde(default, deserialize_with = "there")]
        limits: Option<Option<LimitsOverride>>,
    }
    let body: Body = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    Ok(TokenChange {
        label: body.label,
        expires_at: body.expires_at.map(|at| at.map(|time| time.0)),
        limits: body.limits.map(Option::unwrap_or_default),
    })
}

/// Tells a key with `null` from a key that is not there.
fn there<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A written time, as a Unix second.
struct Time(u64);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        read_rfc3339(&text).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format_args!("{text:?} is not an RFC 3339 time, such as 2026-12-31T23:59:59Z"))
        })
    }
}

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
    fn a_new_token_may_say_nothing_or_everything() {
        for nothing in ["", " \r\n", "{}", r#"{"label":null,"expires_at":null,"limits":null}"#] {
            assert_eq!(read_new_token(nothing.as_bytes()), Ok(NewToken::default()), "{nothing}");
        }
        let all = br#"{"label":"desk","expires_at":"2024-02-08T20:00:00Z","limits":{"phone_per_minute":0}}"#;
        let limits = LimitsOverride { phone_per_minute: Some(0), ..Default::default() };
        let new = NewToken { label: Some("desk".into()), expires_at: Some(1_707_422_400), limits };
        assert_eq!(read_new_token(all), Ok(new));
    }

    #[test]
    fn a_wrong_body_says_what_is_wrong() {
        let cases = [
            (r#"{"labell":"x"}"#, "labell"),
            (r#"{"expires_at":1707422400}"#, "string"),
            ("[", "EOF"),
            (r#"{"expires_at":"tomorrow"}"#, "\"tomorrow\" is not an RFC 3339 time"),
            (r#"{"limits":{"phone":3}}"#, "phone"),
            (r#"{"limits":{"phone_per_minute":-1}}"#, "-1"),
        ];
        for (body, named) in cases {
            let said = read_new_token(body.as_bytes()).unwrap_err();
            assert!(said.contains(named), "{body}: {said}");
        }
    }

    #[test]
    fn a_change_tells_null_from_absent() {
        assert_eq!(read_token_change(b"{}"), Ok(TokenChange::default()));
        let cleared =
            TokenChange { label: Some(None), expires_at: Some(None), limits: Some(LimitsOverride::default()) };
        assert_eq!(read_token_change(br#"{"label":null,"expires_at":null,"limits":null}"#), Ok(cleared));
        assert!(read_token_change(b"").is_err());
    }

    #[test]
    fn an_error_names_its_wait_in_milliseconds_and_whole_seconds() {
        let answer = ApiAnswer::error(429, "RATE_LIMITED", "later", Some(1001));
        assert_eq!(answer.body, r#"{"error":{"code":"RATE_LIMITED","message":"later","retry_after_ms":1001}}"#);
        assert_eq!((answer.status, answer.retry_after), (429, Some(2)));
        assert_eq!(ApiAnswer::error(404, "NOT_FOUND", "x", None).retry_after, None);
    }
}
