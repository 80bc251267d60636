//! The JSON bodies of the admin API. Read by hand and not derived, so that each error names its field.

use super::error::{ApiError, ErrorCode, check_expiry};
use super::{LABEL_CHARACTERS_MAX, NewToken, TokenChange};
use crate::proto::device::KeyHash;
use crate::proto::limits::LimitsOverride;
use crate::sys::time::read_rfc3339;
use serde_json::{Map, Value};

/// What is wrong with a body: the field's name, then what would be right.
type BodyError = String;

/// Reads the optional body of `POST /api/v1/pair`; an empty one is a token without a name, an end or limits of its own.
pub fn new_token(now_unix_sec: u64, body: &[u8]) -> Result<NewToken, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(NewToken::default());
    }
    let change = change(now_unix_sec, body, false).map_err(invalid)?;
    let expires_at = change.expires_at.flatten();
    if let Some(second) = expires_at {
        check_expiry(second, now_unix_sec)?;
    }
    Ok(NewToken { label: change.label.flatten(), expires_at, limits: change.limits.unwrap_or_default() })
}

/// Reads the body of `PATCH /api/v1/tokens/{id}`.
pub fn token_change(now_unix_sec: u64, body: &[u8]) -> Result<TokenChange, ApiError> {
    change(now_unix_sec, body, true).map_err(invalid)
}

/// Reads the body of `PUT /api/v1/log-level`: `{"level":"debug"}`.
pub fn log_level(body: &[u8]) -> Result<String, ApiError> {
    let fields = object(body).map_err(invalid)?;
    match (fields.get("level"), fields.len()) {
        (Some(Value::String(level)), 1) => Ok(level.clone()),
        _ => Err(invalid("level: has to be there, as a string, and nothing else".to_owned())),
    }
}

/// Reads the optional body of `POST /api/v1/tokens/sweep`: `{"unused_days":30}`; a day where it does not say.
pub fn unused_days(body: &[u8]) -> Result<u64, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(1);
    }
    let mut days = None;
    for (field, value) in object(body).map_err(invalid)? {
        match field.as_str() {
            "unused_days" => days = number(&field, &value).map_err(invalid)?,
            other => return Err(invalid(unknown(other, "unused_days"))),
        }
    }
    Ok(days.unwrap_or(1))
}

/// Reads the optional body of `POST /api/v1/backup`: the name of the file to be made beside the store.
pub fn backup_name(body: &[u8]) -> Result<Option<String>, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let fields = object(body).map_err(invalid)?;
    let mut name = None;
    for (field, value) in fields {
        match (field.as_str(), value) {
            ("name", Value::String(text)) if is_backup_name(&text) => name = Some(text),
            ("name", Value::Null) => {}
            ("name", _) => return Err(invalid(BACKUP_NAME.to_owned())),
            (other, _) => return Err(invalid(unknown(other, "name"))),
        }
    }
    Ok(name)
}

const BACKUP_NAME: &str =
    "name: has to be a file name of at most 100 letters, digits, dots, dashes and underscores that ends with .backup";

/// A name that stands for a file in the store's own directory, and for none of the store's own files.
fn is_backup_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let stem = name.strip_suffix(".backup").unwrap_or_default();
    name.len() <= 100 && !stem.is_empty() && !stem.starts_with('.') && name.bytes().all(plain)
}

fn invalid(error: BodyError) -> ApiError {
    ApiError::new(ErrorCode::InvalidBody, error)
}

fn object(body: &[u8]) -> Result<Map<String, Value>, BodyError> {
    serde_json::from_slice(body).map_err(|error| format!("the body has to be a JSON object: {error}"))
}

/// `is_change`: of a token that is there.
fn change(now_unix_sec: u64, body: &[u8], is_change: bool) -> Result<TokenChange, BodyError> {
    let fields = object(body)?;
    let mut change = TokenChange::default();
    for (name, value) in fields {
        match name.as_str() {
            "label" => change.label = Some(label(value)?),
            "expires_at" | "expires_in_sec" if change.expires_at.is_some() => {
                return Err("expires_at, expires_in_sec: give one of the two".to_owned());
            }
            "expires_at" => change.expires_at = Some(time(&value)?),
            "expires_in_sec" => {
                let seconds = number(&name, &value)?;
                // The sum, too, has to fit the store's column.
                let ends = |seconds: u64| now_unix_sec.saturating_add(seconds).min(i64::MAX as u64);
                change.expires_at = Some(seconds.map(ends));
            }
            "limits" => change.limits = Some(limits(value)?),
            "agent_key" if is_change => change.agent_key = Some(agent_key(&value)?),
            _ if is_change => return Err(unknown(&name, "label, expires_at, expires_in_sec, limits, agent_key")),
            _ => return Err(unknown(&name, "label, expires_at, expires_in_sec, limits")),
        }
    }
    Ok(change)
}

fn label(value: Value) -> Result<Option<String>, BodyError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.chars().count() > LABEL_CHARACTERS_MAX => {
            Err(format!("label: at most {LABEL_CHARACTERS_MAX} characters"))
        }
        Value::String(text) if text.chars().any(char::is_control) => Err("label: no control characters".to_owned()),
        Value::String(text) => Ok(Some(text)),
        _ => Err("label: has to be a string or null".to_owned()),
    }
}

fn agent_key(value: &Value) -> Result<Option<KeyHash>, BodyError> {
    let key = match value {
        Value::Null => return Ok(None),
        Value::String(text) => KeyHash::parse(text),
        _ => None,
    };
    let text = "agent_key: has to be the SHA-256 that the agent shows, as 64 lower-case hex digits, or null";
    key.map(Some).ok_or_else(|| text.to_owned())
}

fn limits(value: Value) -> Result<LimitsOverride, BodyError> {
    let fields = match value {
        Value::Null => return Ok(LimitsOverride::default()),
        Value::Object(fields) => fields,
        _ => return Err("limits: has to be an object or null".to_owned()),
    };
    let mut limits = LimitsOverride::default();
    for (name, value) in &fields {
        let slot = match name.as_str() {
            "message_bytes_max" => &mut limits.message_bytes_max,
            "phone_per_minute" => &mut limits.phone_per_minute,
            "agent_per_minute" => &mut limits.agent_per_minute,
            "stream_per_second" => &mut limits.stream_per_second,
            "daily_quota_bytes" => &mut limits.daily_quota_bytes,
            "monthly_quota_bytes" => &mut limits.monthly_quota_bytes,
            "mailbox_bytes_max" => &mut limits.mailbox_bytes_max,
            "mailbox_messages_max" => &mut limits.mailbox_messages_max,
            "mailbox_device_messages_max" => &mut limits.mailbox_device_messages_max,
            "mailbox_message_bytes_max" => &mut limits.mailbox_message_bytes_max,
            "mailbox_age_max_sec" => &mut limits.mailbox_age_max_sec,
            _ => return Err(unknown(&format!("limits.{name}"), LIMIT_NAMES)),
        };
        *slot = number(&format!("limits.{name}"), value)?;
    }
    Ok(limits)
}

const LIMIT_NAMES: &str = "message_bytes_max, phone_per_minute, agent_per_minute, stream_per_second, daily_quota_bytes, monthly_quota_bytes, \
     mailbox_bytes_max, mailbox_messages_max, mailbox_device_messages_max, \
     mailbox_message_bytes_max, mailbox_age_max_sec";

/// A whole number that the store's 64-bit signed column holds, or null.
fn number(name: &str, value: &Value) -> Result<Option<u64>, BodyError> {
    match value {
        Value::Null => Ok(None),
        value => match value.as_u64().filter(|&number| i64::try_from(number).is_ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(format!("{name}: has to be a whole number from 0 to {}, or null", i64::MAX)),
        },
    }
}

/// A time as the API shows it, or as a Unix second.
fn time(value: &Value) -> Result<Option<u64>, BodyError> {
    let Value::String(text) = value else {
        return number("expires_at", value).map_err(|_| EXPIRES_AT.to_owned());
    };
    read_rfc3339(text).map(Some).ok_or_else(|| EXPIRES_AT.to_owned())
}

const EXPIRES_AT: &str = "expires_at: has to be an RFC 3339 time such as 2026-12-31T23:59:59Z, a Unix second, or null";

fn unknown(name: &str, known: &str) -> BodyError {
    // The name comes from the client and goes back to it: short enough to be read.
    let shown: String = name.chars().take(64).collect();
    format!("{shown}: no such field; there are {known}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::time::LAST_SECOND;

    const NOW: u64 = 1000;

    #[test]
    fn days_without_use_are_a_whole_number() {
        for (body, days) in
            [("", Ok(1)), ("{}", Ok(1)), (r#"{"unused_days":0}"#, Ok(0)), (r#"{"unused_days":null}"#, Ok(1))]
        {
            assert_eq!(unused_days(body.as_bytes()), days, "{body}");
        }
        for wrong in ["[]", "x", r#"{"unused_days":-1}"#, r#"{"unused_days":1.5}"#, r#"{"days":1}"#] {
            assert!(unused_days(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    fn read(body: &str) -> Result<TokenChange, BodyError> {
        change(NOW, body.as_bytes(), true)
    }

    #[test]
    fn a_backup_is_a_plain_file_beside_the_store() {
        let name = |body: &str| backup_name(body.as_bytes()).ok();
        assert_eq!(name(""), Some(None));
        assert_eq!(name(r#"{"name":"monday-1_a.backup"}"#), Some(Some("monday-1_a.backup".to_owned())));
        for bad in [
            "relay.db",
            "relay.db-wal",
            ".backup",
            "..backup",
            "../x.backup",
            "a/b.backup",
            "/x.backup",
            "a b.backup",
            "x.backup.part",
            "",
        ] {
            assert_eq!(name(&format!(r#"{{"name":"{bad}"}}"#)), None, "{bad}");
        }
        assert_eq!(name(&format!(r#"{{"name":"{}.backup"}}"#, "x".repeat(94))), None);
        assert_eq!((name(r#"{"file":"x.backup"}"#), name("[]"), name(r#"{"name":1}"#)), (None, None, None));
    }

    #[test]
    fn every_limit_has_its_name_here() {
        let all = LimitsOverride {
            message_bytes_max: Some(1),
            phone_per_minute: Some(2),
            agent_per_minute: Some(3),
            stream_per_second: Some(4),
            daily_quota_bytes: Some(5),
            monthly_quota_bytes: Some(6),
            mailbox_bytes_max: Some(7),
            mailbox_messages_max: Some(8),
            mailbox_device_messages_max: Some(9),
            mailbox_message_bytes_max: Some(10),
            mailbox_age_max_sec: Some(11),
        };
        let json = serde_json::to_string(&all).unwrap();
        assert_eq!(read(&format!(r#"{{"limits":{json}}}"#)).unwrap().limits, Some(all));
        for name in serde_json::from_str::<Map<String, Value>>(&json).unwrap().keys() {
            assert!(LIMIT_NAMES.contains(name), "{name}");
        }
    }

    #[test]
    fn what_is_there_changes_and_null_clears() {
        assert_eq!(read("{}"), Ok(TokenChange::default()));
        let cleared = TokenChange {
            label: Some(None),
            expires_at: Some(None),
            limits: Some(LimitsOverride::default()),
            agent_key: Some(None),
        };
        assert_eq!(read(r#"{"label":null,"expires_at":null,"limits":null,"agent_key":null}"#), Ok(cleared));
        let key = KeyHash::of(&[7; 32]);
        assert_eq!(read(&format!(r#"{{"agent_key":"{key}"}}"#)).unwrap().agent_key, Some(Some(key)));
        assert_eq!(read(r#"{"label":"Büro \u00e4"}"#).unwrap().label, Some(Some("Büro ä".to_owned())));
        assert_eq!(read(r#"{"expires_in_sec":60}"#).unwrap().expires_at, Some(Some(1060)));
        assert_eq!(read(r#"{"expires_at":60}"#).unwrap().expires_at, Some(Some(60)));
    }

    #[test]
    fn an_error_names_its_field() {
        for (body, begins) in [
            ("", "the body"),
            ("[]", "the body"),
            ("{\"label\":\"a\"} x", "the body"),
            ("{", "the body"),
            (r#"{"lable":"x"}"#, "lable: no such field"),
            (r#"{"label":5}"#, "label: has to be a string"),
            (r#"{"label":"a\u0000"}"#, "label: no control"),
            (r#"{"expires_at":-1}"#, "expires_at: has to be"),
            (r#"{"expires_at":1.5}"#, "expires_at: has to be"),
            (r#"{"expires_in_sec":"1h"}"#, "expires_in_sec: has to be"),
            (r#"{"expires_in_sec":18446744073709551615}"#, "expires_in_sec: has to be"),
            (r#"{"expires_at":2000,"expires_in_sec":1}"#, "expires_at, expires_in_sec: give one"),
            (r#"{"limits":[]}"#, "limits: has to be"),
            (r#"{"agent_key":"9f2c"}"#, "agent_key: has to be"),
            (r#"{"agent_key":7}"#, "agent_key: has to be"),
            (r#"{"limits":{"phone":1}}"#, "limits.phone: no such field"),
            (r#"{"limits":{"phone_per_minute":"1"}}"#, "limits.phone_per_minute: has to be"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.starts_with(begins), "{body}: {error}");
        }
        let long = "ä".repeat(LABEL_CHARACTERS_MAX);
        assert!(read(&format!(r#"{{"label":"{long}"}}"#)).is_ok());
        assert!(read(&format!(r#"{{"label":"{long}a"}}"#)).unwrap_err().starts_with("label: at most"));
    }

    #[test]
    fn a_new_token_needs_no_body_and_cannot_have_expired() {
        assert_eq!(new_token(NOW, b" \r\n").unwrap(), NewToken::default());
        for body in [&br#"{"expires_at":1000}"#[..], br#"{"expires_in_sec":0}"#] {
            assert_eq!(new_token(NOW, body).unwrap_err(), check_expiry(NOW, NOW).unwrap_err());
        }
        assert_eq!(new_token(NOW, br#"{"expires_at":1001}"#).unwrap().expires_at, Some(1001));
    }

    #[test]
    fn what_a_new_token_may_not_say_of_itself_is_an_error_with_a_code() {
        assert!(new_token(NOW, br#"{"agent_key":null}"#).unwrap_err().message.starts_with("agent_key: no such field"));
        let code = |body: &str| new_token(NOW, body.as_bytes()).unwrap_err().code;
        assert_eq!(code(&format!(r#"{{"label":"{}"}}"#, "é".repeat(201))), ErrorCode::InvalidBody);
        assert_eq!(code(r#"{"expires_at":1000}"#), ErrorCode::InvalidRequest);
        assert_eq!(code(&format!(r#"{{"expires_at":{}}}"#, LAST_SECOND + 1)), ErrorCode::InvalidRequest);
        assert!(new_token(NOW, format!(r#"{{"expires_at":{LAST_SECOND}}}"#).as_bytes()).is_ok());
    }
}
