//! A token as it is in NATS: one JSON document. Pure.

use crate::proto::device::KeyHash;
use crate::proto::limits::LimitsOverride;
use crate::proto::token::TokenHash;
use crate::push::PushState;
use crate::store::{BoundRow, DeviceRow, SharedToken, TokenRow};
use serde::{Deserialize, Serialize};

/// The version that this program writes.
const VERSION: u32 = 1;
/// The largest document that is read: a token with 64 devices has less than 20 KB.
const BYTES_MAX: usize = 64 << 10;

/// Why a document is passed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DocumentError {
    /// Of a version that this program does not know.
    #[error("version {0} is of a newer relay; this one knows version {VERSION}")]
    Newer(u32),
    /// It is longer than any.
    #[error("{0} bytes are more than {BYTES_MAX}")]
    TooLong(usize),
    /// It is something else.
    #[error("it is not a token's document: {0}")]
    Malformed(String),
}

#[derive(Serialize, Deserialize)]
struct Document {
    v: u32,
    /// `null`: it follows from the document's revision.
    serial: Option<u64>,
    label: Option<String>,
    created_at: u64,
    expires_at: Option<u64>,
    #[serde(default, skip_serializing_if = "LimitsOverride::is_empty")]
    limits: LimitsOverride,
    /// Registered by a client, and not known to have been used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unused: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    binding: Option<Binding>,
}

#[derive(Serialize, Deserialize)]
struct Binding {
    agent: Hex,
    legacy_phone: bool,
    devices: Vec<Device>,
}

#[derive(Serialize, Deserialize)]
struct Device {
    key: Hex,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    added_at: u64,
    seen_at: u64,
}

#[derive(Clone, Copy)]
struct Hex(KeyHash);

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        KeyHash::parse(&text).map(Self).ok_or_else(|| serde::de::Error::custom("64 hex digits are expected"))
    }
}

/// Writes a token. `is_new`: it has no serial yet, which will follow from the document's revision.
#[must_use]
pub(super) fn write(token: &SharedToken, is_new: bool) -> Vec<u8> {
    let SharedToken { row, bound } = token;
    let device = |device: &DeviceRow| {
        let DeviceRow { key, label, added_at, seen_at, push: _ } = device;
        Device { key: Hex(*key), label: label.clone(), added_at: *added_at, seen_at: *seen_at }
    };
    let binding = bound.as_ref().map(|bound| Binding {
        agent: Hex(bound.agent),
        legacy_phone: bound.legacy_phone,
        devices: bound.devices.iter().map(device).collect(),
    });
    let document = Document {
        v: VERSION,
        serial: (!is_new).then_some(row.serial),
        label: row.label.clone(),
        created_at: row.created_at,
        expires_at: row.expires_at,
        limits: row.limits,
        unused: row.unused_from.is_some(),
        binding,
    };
    // Numbers, texts and lists always have a JSON text.
    serde_json::to_vec(&document).unwrap_or_default()
}

/// Reads the token of that hash from a document of this revision.
///
/// # Errors
/// [`DocumentError`].
pub(super) fn read(
    hash: TokenHash,
    json: &[u8],
    revision: u64,
    serial_base: u64,
) -> Result<SharedToken, DocumentError> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    if json.len() > BYTES_MAX {
        return Err(DocumentError::TooLong(json.len()));
    }
    let malformed = |error: serde_json::Error| DocumentError::Malformed(error.to_string());
    let Version { v } = serde_json::from_slice(json).map_err(malformed)?;
    if v != VERSION {
        return Err(DocumentError::Newer(v));
    }
    let document: Document = serde_json::from_slice(json).map_err(malformed)?;
    let row = TokenRow {
        serial: document.serial.unwrap_or_else(|| serial_base.saturating_add(revision)),
        hash,
        label: document.label,
        created_at: document.created_at,
        expires_at: document.expires_at,
        limits: document.limits,
        // At which age of its store is each relay's own.
        unused_from: document.unused.then_some(0),
    };
    let bound = document.binding.map(|binding| {
        let devices = binding.devices.into_iter().map(|device| {
            let Device { key: Hex(key), label, added_at, seen_at } = device;
            DeviceRow { key, label, added_at, seen_at, push: PushState::None }
        });
        BoundRow { agent: binding.agent.0, legacy_phone: binding.legacy_phone, devices: devices.collect() }
    });
    Ok(SharedToken { row, bound })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> SharedToken {
        let limits = LimitsOverride { phone_per_minute: Some(7), ..LimitsOverride::default() };
        let device = |n: u8, label: Option<&str>| DeviceRow {
            key: KeyHash([n; 32]),
            label: label.map(str::to_owned),
            added_at: 3,
            seen_at: 4,
            push: PushState::None,
        };
        let row = TokenRow {
            serial: 12,
            hash: TokenHash::of("a"),
            label: Some("Ä \"desk\"".to_owned()),
            created_at: 1,
            expires_at: Some(2),
            limits,
            unused_from: Some(0),
        };
        let devices = vec![device(1, Some("phone")), device(2, None)];
        SharedToken { row, bound: Some(BoundRow { agent: KeyHash([9; 32]), legacy_phone: true, devices }) }
    }

    #[test]
    fn a_token_reads_back_and_a_new_one_has_its_serial_from_its_revision() {
        let (token, hash) = (token(), TokenHash::of("a"));
        assert_eq!(read(hash, &write(&token, false), 100, 1000), Ok(token.clone()));
        let new = read(hash, &write(&token, true), 100, 1000).unwrap();
        assert_eq!(new, SharedToken { row: TokenRow { serial: 1100, ..token.row.clone() }, ..token });
        let bare = SharedToken {
            row: TokenRow {
                label: None,
                expires_at: None,
                limits: LimitsOverride::default(),
                unused_from: None,
                ..new.row
            },
            bound: None,
        };
        let json = write(&bare, false);
        assert_eq!(
            String::from_utf8(json.clone()).unwrap(),
            r#"{"v":1,"serial":1100,"label":null,"created_at":1,"expires_at":null}"#
        );
        assert_eq!(read(hash, &json, 1, 1), Ok(bare));
    }

    #[test]
    fn what_is_no_document_is_refused_in_words() {
        let of = |json: &str| read(TokenHash::of("a"), json.as_bytes(), 1, 1).unwrap_err();
        assert_eq!(of(r#"{"v":2,"all":"different"}"#), DocumentError::Newer(2));
        assert_eq!(of(&"x".repeat(BYTES_MAX + 1)), DocumentError::TooLong(BYTES_MAX + 1));
        for json in [
            "",
            "[]",
            "{}",
            "null",
            r#"{"v":1}"#,
            r#"{"v":-1}"#,
            r#"{"v":1,"serial":1,"label":null,"created_at":1,"expires_at":null,"limits":{"unheard_of":1}}"#,
            r#"{"v":1,"serial":1,"label":null,"created_at":1,"expires_at":null,"binding":{"agent":"xx","legacy_phone":true,"devices":[]}}"#,
            r#"{"v":1,"serial":-1,"label":null,"created_at":1,"expires_at":null}"#,
        ] {
            assert!(matches!(of(json), DocumentError::Malformed(_)), "{json}");
        }
    }

    #[test]
    fn a_document_of_the_largest_token_fits() {
        let mut token = token();
        let bound = token.bound.as_mut().unwrap();
        let device = bound.devices[0].clone();
        bound.devices = vec![DeviceRow { label: Some("\u{1}".repeat(64)), ..device }; 64];
        token.row.label = Some("\u{1}".repeat(256));
        assert!(write(&token, false).len() < BYTES_MAX, "{}", write(&token, false).len());
    }
}
