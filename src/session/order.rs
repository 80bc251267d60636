//! The messages of the extension that are for the relay itself: types that begin with `relay.`.

use crate::effect::Refusal;
use crate::message::ErrorCode;
use crate::proto::device::{DeviceId, InviteHash};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::time::Duration;

/// The longest such message.
const ORDER_BYTES_MAX: usize = 4 << 10;
/// The longest time that an invite may be open, unless it is until it is used.
const INVITE_TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// The longest label, in characters.
const LABEL_CHARACTERS_MAX: usize = 64;

/// What a client wants of the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// `relay.bind`: from now on the token admits its agent's key and whom that admits.
    Bind {
        /// A phone without a device's key may go on.
        legacy_phone: bool,
    },
    /// `relay.invite`: who shows this may come in to enrol.
    Invite {
        /// What the invite is known by.
        invite: InviteHash,
        /// How long it is open, at most a day; not at all if that is nothing. `None`: until it is used.
        ttl: Option<Duration>,
    },
    /// `relay.admit`: the device is one of the token's.
    Admit {
        /// Which.
        device: DeviceId,
        /// For the operator.
        label: Option<String>,
    },
    /// `relay.revoke`: the device is none any more.
    Revoke {
        /// Which.
        device: DeviceId,
    },
    /// `relay.park`: the device does not answer.
    Park {
        /// Which.
        device: DeviceId,
    },
    /// `relay.sleep`: the device that says so will not look at anything for a while.
    Sleep,
    /// `relay.awake`: it does again.
    Awake,
    /// `relay.mail.ack`: who says so has stored what it was handed.
    MailAck {
        /// Up to this page.
        upto: u64,
    },
    /// `relay.push`: how the device that says so is to be woken; its payload, for whoever sends notifications.
    Push(Box<str>),
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct BindPayload {
    legacy_phone: bool,
}

#[derive(Deserialize)]
struct InvitePayload<'a> {
    #[serde(borrow)]
    invite: Cow<'a, str>,
    #[serde(default)]
    ttl_sec: Option<u64>,
}

#[derive(Deserialize)]
struct DevicePayload<'a> {
    #[serde(borrow)]
    device: Cow<'a, str>,
    #[serde(default)]
    label: Option<String>,
}

#[derive(Deserialize)]
struct MailAckPayload {
    upto: u64,
}

impl Order {
    /// Whether it is not answered: it only says how its sender is.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Sleep | Self::Awake | Self::MailAck { .. })
    }

    /// Reads a whole message whose type begins with `relay.`.
    ///
    /// # Errors
    /// It is too long, its type is not known, or its payload is not what the type takes.
    pub fn parse(message: &[u8]) -> Result<Self, Refusal> {
        if message.len() > ORDER_BYTES_MAX {
            return Err(invalid("a message for the relay itself can have 4096 bytes at the most"));
        }
        let Message { kind, payload } =
            serde_json::from_slice(message).map_err(|_| invalid("the relay cannot read this message"))?;
        let payload = payload.map_or("{}", RawValue::get);
        Ok(match kind.as_ref() {
            "relay.bind" => {
                let text = "relay.bind takes legacy_phone, true or false";
                let BindPayload { legacy_phone } = read(payload, text)?;
                Self::Bind { legacy_phone }
            }
            "relay.invite" => {
                let text = "relay.invite takes invite, the base64 of a SHA-256, and ttl_sec, at most 86400, or none";
                let InvitePayload { invite, ttl_sec } = read(payload, text)?;
                let hash = STANDARD.decode(invite.as_bytes()).ok().and_then(|hash| hash.try_into().ok());
                let ttl = ttl_sec.map(Duration::from_secs);
                match hash {
                    Some(hash) if ttl.is_none_or(|ttl| ttl <= INVITE_TTL_MAX) => {
                        Self::Invite { invite: InviteHash(hash), ttl }
                    }
                    _ => return Err(invalid(text)),
                }
            }
            "relay.admit" => {
                let text = "relay.admit takes device, 16 hex digits, and label: at most 64 characters, no control \
                            characters, or null";
                let (device, label) = device(payload, text)?;
                Self::Admit { device, label }
            }
            "relay.revoke" => {
                let (device, _) = device(payload, "relay.revoke takes device, 16 hex digits")?;
                Self::Revoke { device }
            }
            "relay.park" => {
                let (device, _) = device(payload, "relay.park takes device, 16 hex digits")?;
                Self::Park { device }
            }
            "relay.sleep" => Self::Sleep,
            "relay.awake" => Self::Awake,
            "relay.mail.ack" => {
                let MailAckPayload { upto } = read(payload, "relay.mail.ack takes upto, a whole number")?;
                Self::MailAck { upto }
            }
            "relay.push" => Self::Push(payload.into()),
            _ => return Err(invalid("the relay does not know this type")),
        })
    }
}

fn read<'a, T: Deserialize<'a>>(payload: &'a str, text: &'static str) -> Result<T, Refusal> {
    // An array would be read as the fields in their order.
    let object = Some(payload).filter(|payload| payload.starts_with('{'));
    object.and_then(|payload| serde_json::from_str(payload).ok()).ok_or_else(|| invalid(text))
}

fn device(payload: &str, text: &'static str) -> Result<(DeviceId, Option<String>), Refusal> {
    let DevicePayload { device, label } = read(payload, text)?;
    let is_bad = |label: &String| label.chars().count() > LABEL_CHARACTERS_MAX || label.chars().any(char::is_control);
    match DeviceId::parse(&device) {
        Some(device) if !label.as_ref().is_some_and(is_bad) => Ok((device, label)),
        _ => Err(invalid(text)),
    }
}

fn invalid(text: &'static str) -> Refusal {
    Refusal::new(ErrorCode::InvalidMessage, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Order, &'static str> {
        Order::parse(text.as_bytes()).map_err(|refusal| {
            assert_eq!((refusal.code, refusal.retry_after_ms), (ErrorCode::InvalidMessage, None));
            refusal.message
        })
    }

    #[test]
    fn each_type_is_read_with_its_payload() {
        let device = DeviceId(0x9f2c);
        let hash = STANDARD.encode([7; 32]);
        for (kind, payload, order) in [
            ("relay.bind", r#"{"legacy_phone":false}"#.to_owned(), Order::Bind { legacy_phone: false }),
            ("relay.bind", r#"{"legacy_phone":true,"new":[1]}"#.to_owned(), Order::Bind { legacy_phone: true }),
            (
                "relay.invite",
                format!(r#"{{"invite":"{hash}","ttl_sec":600}}"#),
                Order::Invite { invite: InviteHash([7; 32]), ttl: Some(Duration::from_secs(600)) },
            ),
            (
                "relay.invite",
                format!(r#"{{"invite":"{hash}","ttl_sec":0}}"#),
                Order::Invite { invite: InviteHash([7; 32]), ttl: Some(Duration::ZERO) },
            ),
            (
                "relay.invite",
                format!(r#"{{"invite":"{hash}"}}"#),
                Order::Invite { invite: InviteHash([7; 32]), ttl: None },
            ),
            ("relay.admit", r#"{"device":"0000000000009f2c"}"#.to_owned(), Order::Admit { device, label: None }),
            (
                "relay.admit",
                r#"{"label":"K\u00fcche","device":"0000000000009f2c"}"#.to_owned(),
                Order::Admit { device, label: Some("Küche".to_owned()) },
            ),
            ("relay.revoke", r#"{"device":"0000000000009f2c"}"#.to_owned(), Order::Revoke { device }),
            ("relay.park", r#"{"device":"0000000000009f2c"}"#.to_owned(), Order::Park { device }),
            ("relay.sleep", "{}".to_owned(), Order::Sleep),
            ("relay.awake", "null".to_owned(), Order::Awake),
            ("relay.mail.ack", r#"{"upto":0}"#.to_owned(), Order::MailAck { upto: 0 }),
            ("relay.mail.ack", r#"{"x":{},"upto":18446744073709551615}"#.to_owned(), Order::MailAck { upto: u64::MAX }),
            ("relay.push", r#"{"kind":null}"#.to_owned(), Order::Push(r#"{"kind":null}"#.into())),
        ] {
            let text = format!(r#"{{"id":"1","type":"{kind}","payload":{payload},"more":1}}"#);
            assert_eq!(parse(&text), Ok(order), "{text}");
        }
        assert_eq!(parse(r#"{"type":"r\u0065lay.sleep"}"#), Ok(Order::Sleep), "no payload, and an escape");
    }

    #[test]
    fn what_is_not_of_its_form_is_refused_by_what_would_be() {
        let hash = STANDARD.encode([7; 32]);
        let long = "ä".repeat(LABEL_CHARACTERS_MAX + 1);
        for (kind, payload, begins) in [
            ("relay.bind", "null".to_owned(), "relay.bind takes"),
            ("relay.bind", r#"{"legacy_phone":1}"#.to_owned(), "relay.bind takes"),
            ("relay.bind", r#"{"legacy_phone":true,"legacy_phone":false}"#.to_owned(), "relay.bind takes"),
            ("relay.bind", "[true]".to_owned(), "relay.bind takes"),
            ("relay.invite", r#"{"ttl_sec":60}"#.to_owned(), "relay.invite takes"),
            ("relay.invite", format!(r#"{{"invite":"{hash}","ttl_sec":86401}}"#), "relay.invite takes"),
            ("relay.invite", format!(r#"{{"invite":"{hash}","ttl_sec":-1}}"#), "relay.invite takes"),
            ("relay.invite", format!(r#"{{"invite":"{hash}","ttl_sec":1.5}}"#), "relay.invite takes"),
            ("relay.invite", format!(r#"{{"invite":"{}","ttl_sec":60}}"#, &hash[..43]), "relay.invite takes"),
            ("relay.invite", format!(r#"{{"invite":"{}","ttl_sec":60}}"#, STANDARD.encode([7; 31])), "relay.invite"),
            ("relay.admit", r#"{"device":"9f2c"}"#.to_owned(), "relay.admit takes"),
            ("relay.admit", format!(r#"{{"device":"0000000000009f2c","label":"{long}"}}"#), "relay.admit takes"),
            ("relay.admit", r#"{"device":"0000000000009f2c","label":"a\u0007"}"#.to_owned(), "relay.admit takes"),
            ("relay.revoke", "{}".to_owned(), "relay.revoke takes"),
            ("relay.park", r#"{"device":7}"#.to_owned(), "relay.park takes"),
            ("relay.mail.ack", "{}".to_owned(), "relay.mail.ack takes"),
            ("relay.mail.ack", r#"{"upto":-1}"#.to_owned(), "relay.mail.ack takes"),
            ("relay.mail.ack", r#"{"upto":"7"}"#.to_owned(), "relay.mail.ack takes"),
            ("relay.pull", "{}".to_owned(), "the relay does not know this type"),
            ("relay.", "{}".to_owned(), "the relay does not know this type"),
        ] {
            let text = format!(r#"{{"type":"{kind}","payload":{payload}}}"#);
            let said = parse(&text).unwrap_err();
            assert!(said.starts_with(begins), "{text}: {said}");
        }
        let room = ORDER_BYTES_MAX - br#"{"type":"relay.sleep","x":""}"#.len();
        let of = |length: usize| format!(r#"{{"type":"relay.sleep","x":"{}"}}"#, "x".repeat(length));
        assert_eq!(parse(&of(room)), Ok(Order::Sleep));
        assert!(parse(&of(room + 1)).unwrap_err().contains("4096 bytes"));
    }
}
