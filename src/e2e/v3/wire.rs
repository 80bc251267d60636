//! The payloads of version 3 on the wire, as JSON.

use super::chain::NUMBER_MAX;
use super::error::{EnrolError, OpenError};
use super::keys::Sid;
use crate::gcm::NONCE_BYTES;
use crate::payload::{self, json};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fmt::Write;

/// An encrypted payload as it comes.
pub(super) struct Sealed {
    pub(super) sid: Sid,
    /// At most [`NUMBER_MAX`].
    pub(super) number: u64,
    pub(super) nonce: [u8; NONCE_BYTES],
    pub(super) ciphertext: Vec<u8>,
}

#[derive(Deserialize)]
struct Place<'a> {
    #[serde(borrow)]
    v: &'a RawValue,
    s: String,
    #[serde(borrow)]
    i: &'a RawValue,
}

/// Reads the encrypted payload of a message of this type.
pub(super) fn sealed(kind: &str, payload: Option<&RawValue>) -> Result<Sealed, OpenError> {
    let payload = payload.ok_or(OpenError::InClear)?;
    let inner = payload::enclosed(payload).map_err(|_| OpenError::Malformed)?.ok_or(OpenError::InClear)?;
    let place: Place<'_> = serde_json::from_str(payload.get()).map_err(|_| OpenError::Malformed)?;
    let number = place.i.get().parse().ok().filter(|number| *number <= NUMBER_MAX);
    let sid = URL_SAFE_NO_PAD.decode(place.s).ok().and_then(|sid| sid.try_into().ok());
    match (place.v.get(), sid, number) {
        _ if kind.contains('\0') => Err(OpenError::Malformed),
        ("3", Some(sid), Some(number)) => Ok(Sealed { sid, number, nonce: inner.nonce, ciphertext: inner.ciphertext }),
        _ => Err(OpenError::Malformed),
    }
}

/// An encrypted payload as it leaves.
pub(super) fn enclose(sid: Sid, number: u64, nonce: &[u8; NONCE_BYTES], ciphertext: &[u8]) -> Box<RawValue> {
    let mut text = String::with_capacity(ciphertext.len().div_ceil(3) * 4 + 128);
    text.push_str(r#"{"enc":true,"v":3,"s":""#);
    URL_SAFE_NO_PAD.encode_string(sid, &mut text);
    let _ = write!(text, r#"","i":{number},"ciphertext":""#); // a String takes all
    STANDARD.encode_string(ciphertext, &mut text);
    text.push_str(r#"","nonce":""#);
    STANDARD.encode_string(nonce, &mut text);
    text.push_str(r#""}"#);
    RawValue::from_string(text).expect("an object of booleans, numbers and strings of base64 is JSON")
}

/// A `key_exchange` of version 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyExchange {
    /// Which message of an enrolment it is: 1, 2 or 3. `None`: a session's opening or answer.
    pub enrol: Option<u8>,
    /// The Noise message.
    pub noise: Vec<u8>,
    /// The `id` of the message that it answers.
    pub re: Option<String>,
}

#[derive(Deserialize)]
struct Fields {
    e2e: Option<u64>,
    enrol: Option<u8>,
    noise: String,
    re: Option<String>,
}

impl KeyExchange {
    /// Reads a `key_exchange` payload. `None`: it is not one of version 3.
    #[must_use]
    pub fn parse(payload: &RawValue) -> Option<Self> {
        if !payload.get().trim_start().starts_with('{') {
            return None; // serde would take an array for a struct, too
        }
        let Fields { e2e, enrol, noise, re } = serde_json::from_str(payload.get()).ok()?;
        let known = e2e == Some(3) && enrol.is_none_or(|enrol| (1..=3).contains(&enrol));
        known.then(|| STANDARD.decode(noise).ok()).flatten().map(|noise| Self { enrol, noise, re })
    }

    /// The Noise message of this step of an enrolment.
    pub(super) fn enrolling(&self, step: u8) -> Result<&[u8], EnrolError> {
        if self.enrol == Some(step) { Ok(&self.noise) } else { Err(EnrolError::Malformed) }
    }
}

/// A `key_exchange` as it leaves.
pub(super) fn key_exchange(enrol: Option<u8>, noise: &[u8], re: Option<&str>) -> Box<RawValue> {
    #[derive(Serialize)]
    struct Fields<'a> {
        e2e: u8,
        #[serde(skip_serializing_if = "Option::is_none")]
        enrol: Option<u8>,
        noise: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        re: Option<&'a str>,
    }
    json(&Fields { e2e: 3, enrol, noise: STANDARD.encode(noise), re })
}
