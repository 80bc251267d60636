//! The payloads that encryption puts on the wire, as JSON.

use super::error::{ExchangeError, OpenError, SealError};
use super::gcm::NONCE_BYTES;
use super::{MESSAGES_MAX, PAYLOAD_BYTES_MAX};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use std::borrow::Cow;

/// JSON of a value that has nothing in it that JSON could not have.
pub(super) fn json(value: &impl Serialize) -> Box<RawValue> {
    // Serialising fails for maps with keys that are no strings, and none of our types has one.
    to_raw_value(value).expect("structs of strings and numbers are JSON")
}

/// The text of a payload with blanks behind it, which mean nothing in JSON, up to a multiple of `step` bytes: its length
/// says less about it. Never longer than a payload may be.
pub(super) fn padded(payload: &RawValue, step: usize) -> Cow<'_, str> {
    let text = payload.get();
    let bytes = text.len().next_multiple_of(step.max(1)).min(PAYLOAD_BYTES_MAX.max(text.len()));
    if bytes == text.len() {
        return Cow::Borrowed(text);
    }
    let mut padded = String::with_capacity(bytes);
    padded.push_str(text);
    padded.extend(std::iter::repeat_n(' ', bytes - text.len()));
    Cow::Owned(padded)
}

/// Whether a key that has sealed so many payloads may seal this one.
pub(super) fn check_room(payload: &str, sealed: u64) -> Result<(), SealError> {
    let bytes = payload.len();
    match (bytes > PAYLOAD_BYTES_MAX, sealed >= MESSAGES_MAX) {
        (true, _) => Err(SealError::TooLong { bytes }),
        (false, true) => Err(SealError::Exhausted),
        (false, false) => Ok(()),
    }
}

/// What was decrypted, as the JSON that it has to be.
pub(super) fn as_json(plaintext: Vec<u8>) -> Result<Box<RawValue>, OpenError> {
    let text = String::from_utf8(plaintext).map_err(|_| OpenError::NotJson)?;
    RawValue::from_string(text).map_err(|_| OpenError::NotJson)
}

/// An encrypted payload as it leaves. Base64 needs no escapes, which serde would look for in each of its bytes.
pub(super) fn enclose(nonce: &[u8; NONCE_BYTES], ciphertext: &[u8]) -> Box<RawValue> {
    let mut text = String::with_capacity(ciphertext.len().div_ceil(3) * 4 + 64);
    text.push_str(r#"{"enc":true,"ciphertext":""#);
    STANDARD.encode_string(ciphertext, &mut text);
    text.push_str(r#"","nonce":""#);
    STANDARD.encode_string(nonce, &mut text);
    text.push_str(r#""}"#);
    RawValue::from_string(text).expect("an object of a boolean and two strings of base64 is JSON")
}

/// An encrypted payload as it comes.
pub(super) struct Sealed {
    pub(super) nonce: [u8; NONCE_BYTES],
    pub(super) ciphertext: Vec<u8>,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default)]
    enc: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ciphertext: Option<&'a RawValue>,
    #[serde(borrow, default)]
    nonce: Option<&'a RawValue>,
}

/// Reads an encrypted payload; `None` for one in clear, which is any that has no `"enc":true`.
pub(super) fn enclosed(payload: &RawValue) -> Result<Option<Sealed>, OpenError> {
    let Some(Fields { enc: Some(enc), ciphertext, nonce }) = fields(payload) else { return Ok(None) };
    if enc.get() != "true" {
        return Ok(None);
    }
    let bytes = |field: Option<&RawValue>| STANDARD.decode(text(field?)?.as_bytes()).ok();
    let nonce = bytes(nonce).and_then(|nonce| nonce.try_into().ok()).ok_or(OpenError::Malformed)?;
    let ciphertext = bytes(ciphertext).ok_or(OpenError::Malformed)?;
    Ok(Some(Sealed { nonce, ciphertext }))
}

/// An object's fields. serde would take an array for a struct, too.
fn fields<'a, T: Deserialize<'a>>(payload: &'a RawValue) -> Option<T> {
    let object = payload.get().trim_start().starts_with('{');
    object.then(|| serde_json::from_str(payload.get()).ok()).flatten()
}

/// A JSON string's text; copied only where it has escapes.
fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let borrowed = serde_json::from_str(raw.get()).map(Cow::Borrowed);
    borrowed.or_else(|_| serde_json::from_str(raw.get()).map(Cow::Owned)).ok()
}

/// A `key_exchange` as it leaves.
#[derive(Serialize)]
pub(super) struct Exchange<'a> {
    pub(super) pubkey: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) e2e: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) noise: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) re: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rs: Option<u8>,
}

impl Exchange<'_> {
    /// The least there can be: version 1, and the announcement of version 2.
    pub(super) fn announcing(pubkey: &[u8; 32], e2e: Option<u8>) -> Self {
        Self { pubkey: STANDARD.encode(pubkey), e2e, noise: None, re: None, rs: None }
    }

    pub(super) fn with_noise(self, message: &[u8]) -> Self {
        Self { noise: Some(STANDARD.encode(message)), ..self }
    }

    /// Offers or accepts resume.
    pub(super) fn with_resume(self, resume: bool) -> Self {
        Self { rs: resume.then_some(1), ..self }
    }
}

/// A `key_exchange` as it comes. Fields that are missing are `None`, or empty.
pub(super) struct Received<'a> {
    pub(super) pubkey: Vec<u8>,
    /// Whether it speaks version 2.
    pub(super) verified: bool,
    /// Message 1 or 2 of the handshake.
    pub(super) noise: Option<Vec<u8>>,
    pub(super) re: Option<Cow<'a, str>>,
    /// It offers or accepts resume.
    pub(super) resume: bool,
    /// It knows version 3, and could be a device.
    pub(super) devices: bool,
}

#[derive(Deserialize)]
struct ExchangeFields<'a> {
    #[serde(borrow, default)]
    pubkey: Option<&'a RawValue>,
    #[serde(borrow, default)]
    e2e: Option<&'a RawValue>,
    #[serde(borrow, default)]
    noise: Option<&'a RawValue>,
    #[serde(borrow, default)]
    re: Option<&'a RawValue>,
    #[serde(borrow, default)]
    rs: Option<&'a RawValue>,
    #[serde(borrow, default)]
    v3: Option<&'a RawValue>,
}

/// Reads a `key_exchange` payload.
pub(super) fn received(payload: Option<&RawValue>) -> Result<Received<'_>, ExchangeError> {
    let payload = payload.ok_or(ExchangeError::Malformed)?;
    let fields: ExchangeFields<'_> = fields(payload).ok_or(ExchangeError::Malformed)?;
    let bytes = |raw: &RawValue| text(raw).and_then(|text| STANDARD.decode(text.as_bytes()).ok());
    let given = |raw: Option<&RawValue>| match raw {
        Some(raw) => bytes(raw).map(Some).ok_or(ExchangeError::Malformed),
        None => Ok(None),
    };
    Ok(Received {
        pubkey: given(fields.pubkey)?.unwrap_or_default(),
        verified: fields.e2e.is_some_and(|e2e| e2e.get() == "2"),
        noise: given(fields.noise)?,
        re: fields.re.and_then(text),
        resume: fields.rs.is_some_and(|rs| rs.get() == "1"),
        devices: fields.v3.is_some_and(|v3| v3.get() == "1"),
    })
}
