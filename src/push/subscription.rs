//! How a device asks to be woken (PROTOCOL.md, "Notifications").

use crate::encrypt::is_point;
use crate::endpoint::{Endpoint, Hosts};
use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};

const ORIGIN_BYTES_MAX: usize = 200;
const HANDLE_BYTES_MAX: usize = 512;

/// What carries a notification to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The push service of a browser.
    WebPush,
    /// A UnifiedPush server.
    UnifiedPush,
    /// The operator's gateway.
    Hook,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::WebPush, Self::UnifiedPush, Self::Hook];

    /// As it is on the wire and in the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WebPush => "webpush",
            Self::UnifiedPush => "unifiedpush",
            Self::Hook => "hook",
        }
    }
}

/// Whether a device can be woken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum PushState {
    /// It has not asked to be.
    #[default]
    None,
    /// It can.
    Ok,
    /// Its push service does not know it any more, or has failed too often.
    Gone,
    /// Its push service does not take this relay's notifications.
    Refused,
}

impl PushState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Ok, Self::Gone, Self::Refused];

    /// As it is on the wire and in the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Ok => "ok",
            Self::Gone => "gone",
            Self::Refused => "refused",
        }
    }

    /// Reads what [`Self::name`] writes.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A subscription that is encrypted to (RFC 8291).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebPush {
    /// Where its push service takes notifications.
    pub endpoint: Endpoint,
    /// The device's public key, an uncompressed point of P-256.
    pub p256dh: [u8; 65],
    /// The secret that it shares with whoever may send to it.
    pub auth: [u8; 16],
    /// Where a click leads.
    pub origin: Option<Box<str>>,
}

/// How a device is woken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// By the push service of a browser.
    WebPush(WebPush),
    /// By a UnifiedPush server.
    UnifiedPush(WebPush),
    /// By the operator's gateway, which knows the device by this.
    Hook(Box<str>),
}

/// Why a subscription is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It has another form.
    #[error("{0}")]
    Form(&'static str),
    /// This relay does not send to it.
    #[error("{0}")]
    Refused(&'static str),
}

#[derive(Default, Deserialize, Serialize)]
struct Json {
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p256dh: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auth: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handle: Option<String>,
}

impl Subscription {
    /// Reads the payload of `relay.push`; `None`: the device is not to be woken any more.
    ///
    /// # Errors
    /// [`Fault`], of the form alone or because of a kind that is not known.
    pub fn parse(payload: &str) -> Result<Option<Self>, Fault> {
        let form = Fault::Form("relay.push takes kind: webpush, unifiedpush or hook with what belongs to it, or null");
        // An array would be read as the fields in their order, and without kind there is none.
        if !payload.starts_with('{') {
            return Err(form);
        }
        let json: Json = serde_json::from_str(payload).map_err(|_| form)?;
        let Some(kind) = json.kind.as_deref() else {
            return if names_kind(payload) { Ok(None) } else { Err(form) };
        };
        match kind {
            "webpush" => {
                let push = web_push(&json)?;
                if push.origin.is_none() {
                    return Err(Fault::Form("webpush takes origin, that of the page"));
                }
                Ok(Some(Self::WebPush(push)))
            }
            "unifiedpush" => Ok(Some(Self::UnifiedPush(web_push(&json)?))),
            "hook" => {
                let handle = json.handle.filter(|handle| (1..=HANDLE_BYTES_MAX).contains(&handle.len()));
                let handle = handle.ok_or(Fault::Form("hook takes handle, 1 to 512 bytes"))?;
                Ok(Some(Self::Hook(handle.into())))
            }
            _ => Err(Fault::Refused("the relay does not know this kind")),
        }
    }

    /// What carries its notifications.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::WebPush(_) => Kind::WebPush,
            Self::UnifiedPush(_) => Kind::UnifiedPush,
            Self::Hook(_) => Kind::Hook,
        }
    }

    /// Whether a relay with these kinds, and these places for push services, sends to it.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, kinds: &[Kind], hosts: &Hosts, random: &dyn SecureRandom) -> Result<(), Fault> {
        if !kinds.contains(&self.kind()) {
            return Err(Fault::Refused("this relay sends no notifications of this kind"));
        }
        let (Self::WebPush(push) | Self::UnifiedPush(push)) = self else { return Ok(()) };
        hosts.check(&push.endpoint).map_err(Fault::Refused)?;
        if !is_point(&push.p256dh, random) {
            return Err(Fault::Refused("p256dh is not a point of the curve P-256"));
        }
        Ok(())
    }

    /// As [`Self::parse`] reads it.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = Json { kind: Some(self.kind().name().to_owned()), ..Json::default() };
        match self {
            Self::WebPush(push) | Self::UnifiedPush(push) => {
                json.endpoint = Some(push.endpoint.uri().to_string());
                json.p256dh = Some(URL_SAFE_NO_PAD.encode(push.p256dh));
                json.auth = Some(URL_SAFE_NO_PAD.encode(push.auth));
                json.origin = push.origin.as_deref().map(str::to_owned);
            }
            Self::Hook(handle) => json.handle = Some(handle.to_string()),
        }
        serde_json::to_string(&json).unwrap_or_default()
    }
}

/// Whether a payload without a kind says so, rather than nothing.
fn names_kind(payload: &str) -> bool {
    let fields: Result<std::collections::HashMap<String, serde::de::IgnoredAny>, _> = serde_json::from_str(payload);
    fields.is_ok_and(|fields| fields.contains_key("kind"))
}

fn web_push(json: &Json) -> Result<WebPush, Fault> {
    let endpoint = json.endpoint.as_deref().unwrap_or_default().parse().map_err(Fault::Form)?;
    let p256dh = decode::<65>(json.p256dh.as_deref()).filter(|point| point[0] == 4);
    let p256dh = p256dh.ok_or(Fault::Form("p256dh has to be 65 bytes in base64url, an uncompressed point"))?;
    let auth = decode::<16>(json.auth.as_deref()).ok_or(Fault::Form("auth has to be 16 bytes in base64url"))?;
    let origin = json.origin.as_deref().map(origin).transpose()?;
    Ok(WebPush { endpoint, p256dh, auth, origin })
}

/// With or without the signs that fill up.
fn decode<const N: usize>(text: Option<&str>) -> Option<[u8; N]> {
    let text = text?;
    URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()?.try_into().ok()
}

fn origin(text: &str) -> Result<Box<str>, Fault> {
    let wrong = Fault::Form("origin has to be that of the page, such as https://relay.example, at most 200 bytes");
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or(wrong)?;
    let is_host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']');
    let is_fine = !host.is_empty() && text.len() <= ORIGIN_BYTES_MAX && host.bytes().all(is_host);
    is_fine.then(|| text.into()).ok_or(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;

    const P256DH: &str = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

    fn web(kind: &str, endpoint: &str, rest: &str) -> String {
        format!(r#"{{"kind":"{kind}","endpoint":"{endpoint}","p256dh":"{P256DH}","auth":"{AUTH}"{rest}}}"#)
    }

    fn origin_of(text: &str) -> String {
        format!(r#","origin":"{text}""#)
    }

    #[test]
    fn each_kind_reads_and_writes_back() {
        let endpoint = "https://push.example.com/a?b=%20c";
        let web = |kind, rest: &str| web(kind, endpoint, rest);
        for text in [
            web("webpush", &origin_of("https://relay.example")),
            web("unifiedpush", ""),
            r#"{"kind":"hook","handle":"apns:\u00e4\""}"#.to_owned(),
        ] {
            let subscription = Subscription::parse(&text).unwrap().unwrap();
            assert_eq!(Subscription::parse(&subscription.to_json()).unwrap().unwrap(), subscription, "{text}");
        }
        let padded = text_with(&web("unifiedpush", ""), AUTH, &format!("{AUTH}=="));
        assert!(Subscription::parse(&padded).is_ok());
        assert_eq!(Subscription::parse(r#"{"kind":null}"#), Ok(None));
        assert_eq!(Subscription::parse(r#"{"new":1,"kind":null}"#), Ok(None));
    }

    fn text_with(text: &str, old: &str, new: &str) -> String {
        assert!(text.contains(old));
        text.replace(old, new)
    }

    #[test]
    fn another_form_is_told_by_what_would_be_right() {
        let fine = web("webpush", "https://push.example.com/a", &origin_of("https://relay.example"));
        let long = "h".repeat(HANDLE_BYTES_MAX + 1);
        let compressed = format!("AiVx{}", &P256DH[4..48]);
        for (text, begins) in [
            ("{}".to_owned(), "relay.push takes kind"),
            ("null".to_owned(), "relay.push takes kind"),
            ("[\"webpush\"]".to_owned(), "relay.push takes kind"),
            (r#"{"kind":7}"#.to_owned(), "relay.push takes kind"),
            (r#"{"kind":null,"kind":null}"#.to_owned(), "relay.push takes kind"),
            (text_with(&fine, "https://push", "http://push"), "endpoint has"),
            (text_with(&fine, "https://push.example.com/a", ""), "endpoint has"),
            (text_with(&fine, P256DH, &compressed), "p256dh has"),
            (text_with(&fine, P256DH, &format!("C{}", &P256DH[1..])), "p256dh has"),
            (text_with(&fine, AUTH, "AAAA"), "auth has"),
            (text_with(&fine, "https://relay.example", "https://relay.example/path"), "origin has"),
            (text_with(&fine, "https://relay.example", "javascript:alert(1)"), "origin has"),
            (text_with(&fine, "https://relay.example", &format!("https://{}", "o".repeat(193))), "origin has"),
            (web("webpush", "https://push.example.com/a", ""), "webpush takes origin"),
            (r#"{"kind":"hook"}"#.to_owned(), "hook takes handle"),
            (r#"{"kind":"hook","handle":""}"#.to_owned(), "hook takes handle"),
            (format!(r#"{{"kind":"hook","handle":"{long}"}}"#), "hook takes handle"),
        ] {
            match Subscription::parse(&text) {
                Err(Fault::Form(said)) => assert!(said.starts_with(begins), "{text}: {said}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        let said = Subscription::parse(r#"{"kind":"sms"}"#);
        assert_eq!(said, Err(Fault::Refused("the relay does not know this kind")));
    }

    #[test]
    fn what_the_relay_does_not_send_to_is_refused() {
        let random = SystemRandom::new();
        let (any, all) = (Hosts::default(), &Kind::ALL[..]);
        let check = |text: &str, kinds: &[Kind]| {
            Subscription::parse(text).unwrap().unwrap().check(kinds, &any, &random).map_err(|fault| fault.to_string())
        };
        let up = web("unifiedpush", "https://push.example.com/a", "");
        assert_eq!(check(&up, all), Ok(()));
        assert!(check(&up, &[Kind::Hook]).unwrap_err().contains("no notifications of this kind"));
        assert!(check(&web("unifiedpush", "https://10.0.0.1/", ""), all).unwrap_err().contains("address"));
        assert!(check(&web("unifiedpush", "https://a.example:22/", ""), all).unwrap_err().contains("443"));
        let off_curve = text_with(&up, "IAiw4", "IAiw8");
        assert!(check(&off_curve, all).unwrap_err().contains("not a point"));
    }

    #[test]
    fn states_read_back() {
        for state in PushState::ALL {
            assert_eq!(PushState::parse(state.name()), Some(state));
        }
        assert_eq!(PushState::parse("x"), None);
    }
}
