//! Envelopes: written, and read as far as a client needs.

use coralmux_e2e::v3::DeviceId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Serialize)]
struct Written<'a> {
    v: u8,
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<&'a str>,
    payload: &'a RawValue,
}

/// What came. The payload is not looked into.
#[derive(Deserialize)]
pub(super) struct Received<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) id: Option<Cow<'a, str>>,
    /// Which device it is from.
    #[serde(borrow, default)]
    pub(super) device: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) payload: Option<&'a RawValue>,
}

impl Received<'_> {
    /// Which device it is from, if it is from one.
    pub(super) fn device(&self) -> Option<DeviceId> {
        serde_json::from_str::<String>(self.device?.get()).ok().and_then(|device| DeviceId::parse(&device))
    }
}

/// The text of an envelope. `device`: which it is from or for, if it is.
pub(super) fn write(device: Option<DeviceId>, kind: &str, id: &str, payload: &RawValue) -> String {
    write_kept(device, None, kind, id, payload)
}

/// The same. `keep`: how the relay keeps it for an absent receiver.
pub(super) fn write_kept(
    device: Option<DeviceId>,
    keep: Option<&str>,
    kind: &str,
    id: &str,
    payload: &RawValue,
) -> String {
    let (ts, device) = (unix_ms(), device.as_ref().map(DeviceId::as_str));
    // Strings, numbers and text that is JSON already: there is nothing in it that cannot be written.
    serde_json::to_string(&Written { v: 1, kind, id, ts, device, keep, payload }).unwrap_or_default()
}

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A new id: a random UUID (RFC 9562, version 4).
pub fn new_id() -> String {
    let mut bytes = [0; 16];
    random(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = coralmux_proto::token::hex(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Fills `bytes` from the system's secure random source.
pub fn random(bytes: &mut [u8]) {
    // The source fails only where the system is broken beyond use.
    getrandom::fill(bytes).expect("the system has a random source");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_the_form_of_a_uuid() {
        let id = new_id();
        assert_eq!((id.len(), &id[14..15]), (36, "4"), "{id}");
        assert_ne!(id, new_id());
    }

    #[test]
    fn what_is_written_is_read() {
        let payload = RawValue::from_string(r#"{"text":"\"ü\""}"#.to_owned()).unwrap();
        let text = write(None, "chat.send", "x", &payload);
        assert!(!text.contains("device"));
        let read: Received<'_> = serde_json::from_str(&text).unwrap();
        assert_eq!((&*read.kind, read.id.as_deref()), ("chat.send", Some("x")));
        assert_eq!(read.payload.unwrap().get(), payload.get());
        let device = DeviceId::parse("0123456789abcdef");
        let text = write(device, "chat.send", "x", &payload);
        assert_eq!(serde_json::from_str::<Received<'_>>(&text).unwrap().device(), device);
        let bare: Received<'_> = serde_json::from_str(r#"{"type":"a\u0062","payload":null,"other":[1]}"#).unwrap();
        assert_eq!((&*bare.kind, bare.id, bare.payload.map(RawValue::get)), ("ab", None, None));
    }
}
