//! The JSON messages that the clients send.

use anyhow::{Result, ensure};
use coralmux_test_support::frames::{PONG, TEXT, frame};
use serde_json::value::RawValue;
use std::rc::Rc;

/// Every frame of the generator is masked with this key: what a mask is for, no test relay needs.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Stands in for the id of a real message, where nobody asks for it.
pub(super) const ID: &str = "5f0c1c0e-58a4-4b7e-9d9d-0c9f2f6f7a11";

/// The two sides of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Phone,
    Agent,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Phone => "phone",
            Role::Agent => "agent",
        }
    }
}

/// The masked `auth` message.
pub(crate) fn auth_frame(token: &str, role: Role) -> Vec<u8> {
    let payload = format!(r#"{{"token":"{token}","role":"{}"}}"#, role.name());
    frame(true, TEXT, &text_of("auth", "a", &payload), KEY)
}

/// The same of a client with a key of its own, and perhaps an invite.
pub(crate) fn keyed_auth_frame(token: &str, role: Role, key: &str, invite: Option<&str>) -> Vec<u8> {
    let invite = invite.map_or(String::new(), |invite| format!(r#","invite":"{invite}""#));
    let payload = format!(r#"{{"token":"{token}","role":"{}","ext":1,"key":"{key}"{invite}}}"#, role.name());
    frame(true, TEXT, &text_of("auth", "a", &payload), KEY)
}

/// The masked pong that answers a ping with `payload`.
pub(crate) fn pong_frame(payload: &[u8]) -> Vec<u8> {
    frame(true, PONG, payload, KEY)
}

/// A message made once and sent many times: `copies` masked frames in a row, so that one call sends several.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    frames: Rc<[u8]>,
    frame_bytes: usize,
    /// The beginning of the payload, by which the receiver knows the message.
    head: Rc<[u8]>,
    payload_bytes: u64,
    /// For clients that encrypt: the type, and the payload in clear.
    kind: &'static str,
    clear: Rc<RawValue>,
}

/// The memory that one template's frames may take; a single frame may take more.
const TEMPLATE_BYTES_MAX: usize = 64 << 10;

impl Template {
    /// An envelope of exactly `bytes` bytes and of type `kind`; at most `copies_max` of it go in one call.
    ///
    /// Fails where an envelope of that type does not fit into `bytes`.
    pub(crate) fn envelope(kind: &'static str, bytes: usize, copies_max: usize) -> Result<Self> {
        let least = text_of(kind, ID, r#"{"content":""}"#).len();
        ensure!(bytes >= least, "a {kind} message takes at least {least} bytes, not {bytes}");
        let words = "The quick brown fox jumps over the lazy dog, and the relay carries every word of it. ";
        let content: String = words.chars().cycle().take(bytes - least).collect();
        let clear = format!(r#"{{"content":"{content}"}}"#);
        let payload = text_of(kind, ID, &clear);
        let frame = frame(true, TEXT, &payload, KEY);
        let copies = copies_max.clamp(1, (TEMPLATE_BYTES_MAX / frame.len()).max(1));
        Ok(Self {
            frames: frame.repeat(copies).into(),
            frame_bytes: frame.len(),
            head: payload[..payload.len().min(48)].into(),
            payload_bytes: payload.len() as u64,
            kind,
            clear: RawValue::from_string(clear)?.into(),
        })
    }

    /// The type, and the payload in clear.
    pub(super) fn clear(&self) -> (&'static str, &Rc<RawValue>) {
        (self.kind, &self.clear)
    }

    /// Whether a received message is this one.
    pub(crate) fn matches(&self, bytes: u64, head: &[u8]) -> bool {
        bytes == self.payload_bytes && head.starts_with(&self.head)
    }

    /// The frames that go in one call, and how long each is.
    pub(crate) fn frames(&self) -> (&Rc<[u8]>, usize) {
        (&self.frames, self.frame_bytes)
    }
}

/// A whole envelope. Its time stands in for that of a real one.
pub(super) fn text_of(kind: &str, id: &str, payload: &str) -> Vec<u8> {
    format!(r#"{{"v":1,"type":"{kind}","id":"{id}","ts":1707451200000,"payload":{payload}}}"#).into_bytes()
}

/// The masked frame of a whole envelope.
pub(super) fn frame_of(text: &[u8]) -> Rc<[u8]> {
    frame(true, TEXT, text, KEY).into()
}

/// The `type` of an envelope of which `head` is the beginning, and the error code if it is an error.
pub(crate) fn describe(head: &[u8]) -> String {
    let text = String::from_utf8_lossy(head);
    let value = |key: &str| text.split_once(key).and_then(|(_, rest)| rest.split('"').nth(1).map(str::to_owned));
    let kind = value("\"type\"").unwrap_or_default();
    match value("\"code\"") {
        Some(code) if kind == "chat.error" || kind == "auth.fail" => code,
        _ => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_an_envelope_of_exactly_the_size_asked_for() {
        for bytes in [128, 256, 4096, 70000] {
            let template = Template::envelope("chat.send", bytes, 16).unwrap();
            let (frames, frame_bytes) = template.frames();
            assert_eq!(frames.len() % frame_bytes, 0);
            let header = if bytes < 65536 { 4 } else { 10 };
            let payload: Vec<u8> =
                frames[header + 4..frame_bytes].iter().zip(KEY.iter().cycle()).map(|(b, k)| b ^ k).collect();
            let json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            assert_eq!((payload.len(), json["type"].as_str()), (bytes, Some("chat.send")));
            assert!(template.matches(bytes as u64, &payload[..payload.len().min(256)]));
            assert!(!template.matches(bytes as u64 - 1, &payload));
        }
        assert!(Template::envelope("chat.send", 100, 1).is_err());
    }

    #[test]
    fn errors_are_named_by_their_code() {
        let error = br#"{"v":1,"type":"chat.error","id":"1","ts":1,"payload":{"code":"RATE_LIMITED","message":"slow"#;
        assert_eq!(describe(error), "RATE_LIMITED");
        assert_eq!(describe(br#"{"type": "auth.ok","payload":{}}"#), "auth.ok");
    }
}
