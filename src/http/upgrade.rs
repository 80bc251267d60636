//! The WebSocket opening handshake, server side (RFC 6455 section 4.2.1). Extensions and subprotocols are declined.

use super::head::Head;
use super::response::Problem;
use crate::api::ErrorCode;
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD};
use sha1::{Digest, Sha1};

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Some clients make the key of 24 random characters: the bits past its 16 bytes are not worth a refusal.
const KEY: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// Whether `origin` may open a WebSocket; a client that sends none is not a browser, and no page can be behind it.
pub(super) fn check_origin(origin: Option<&[u8]>, allowed: Option<&[String]>) -> Result<(), Problem> {
    match (origin, allowed) {
        (Some(origin), Some(allowed)) if !allowed.iter().any(|one| origin.eq_ignore_ascii_case(one.as_bytes())) => {
            Err(Problem::new(ErrorCode::OriginNotAllowed, "pages of this origin may not connect to this relay"))
        }
        _ => Ok(()),
    }
}

/// The value of `Sec-WebSocket-Accept` for a request that is a valid opening handshake.
pub(super) fn accept(head: &Head<'_>) -> Result<[u8; 28], Problem> {
    if !head.wants_websocket() {
        return Err(Problem::new(
            ErrorCode::UpgradeRequired,
            "this is a WebSocket endpoint: connect with a WebSocket client (ws:// or wss://)",
        )
        .with_header("Upgrade: websocket\r\n"));
    }
    if head.websocket_version != Some(b"13") {
        return Err(Problem::new(ErrorCode::UpgradeRequired, "the relay speaks WebSocket version 13")
            .with_header("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"));
    }
    match head.websocket_key {
        Some(key) if is_key(key) => Ok(accept_key(key)),
        _ => Err(Problem::new(ErrorCode::BadRequest, "Sec-WebSocket-Key is not 16 bytes in base64")),
    }
}

fn is_key(key: &[u8]) -> bool {
    // The decoder wants room for a whole group of three at the end.
    let mut decoded = [0; 18];
    key.len() == 24 && KEY.decode_slice(key, &mut decoded).is_ok_and(|len| len == 16)
}

fn accept_key(key: &[u8]) -> [u8; 28] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; 28];
    // 20 bytes are 28 characters, padding included: the slice is never too short.
    let written = STANDARD.encode_slice(digest, &mut accept);
    debug_assert_eq!(written, Ok(28));
    accept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_of_rfc_6455_section_1_3() {
        assert_eq!(&accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_is_16_bytes_in_base64() {
        for good in ["dGhlIHNhbXBsZSBub25jZQ==", "AAAAAAAAAAAAAAAAAAAAAA==", "AAAAAAAAAAAAAAAAAAAAAB=="] {
            assert!(is_key(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZWFi",
            "dGhl IHNhbXBsZSBub25jZ==",
        ] {
            assert!(!is_key(bad.as_bytes()), "{bad}");
        }
    }
}
