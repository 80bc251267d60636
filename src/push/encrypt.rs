//! Message encryption for Web Push (RFC 8291), in the coding `aes128gcm` (RFC 8188), of a notification that is always of the
//! same length.

use crate::subscription::WebPush;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::rand::SecureRandom;
use serde::Serialize;

/// What is encrypted: the notification, the delimiter, and zeros.
const PLAINTEXT_BYTES: usize = 512;
/// The record size that the header names; there is one record, and it is shorter.
const RECORD_SIZE: u32 = 4096;
const TAG_BYTES: usize = 16;
/// The delimiter of the last record (RFC 8188, section 2).
const LAST_RECORD: u8 = 2;

/// What the operator has notifications say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notification {
    text: String,
}

#[derive(Serialize)]
struct Declarative<'a> {
    web_push: u16,
    notification: Shown<'a>,
}

#[derive(Serialize)]
struct Shown<'a> {
    title: &'a str,
    body: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    navigate: Option<String>,
    tag: &'a str,
}

impl Notification {
    /// The longest text, in bytes of JSON.
    const TEXT_BYTES_MAX: usize = 160;

    /// With this text under the title.
    ///
    /// # Errors
    /// What would be right.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let json = serde_json::to_string(text).unwrap_or_default();
        let is_fine = !text.trim().is_empty() && !text.chars().any(char::is_control);
        if !is_fine || json.len() > Self::TEXT_BYTES_MAX + 2 {
            return Err("a line of text, at most 160 bytes long");
        }
        Ok(Self { text: text.to_owned() })
    }

    /// What a browser shows (declarative Web Push), for the page of an origin.
    #[must_use]
    pub fn json(&self, origin: Option<&str>) -> String {
        let navigate = origin.map(|origin| format!("{origin}/"));
        let notification = Shown { title: "CoralMux", body: &self.text, navigate, tag: "coralmux" };
        serde_json::to_string(&Declarative { web_push: 8030, notification }).unwrap_or_default()
    }

    fn padded(&self, origin: Option<&str>) -> [u8; PLAINTEXT_BYTES] {
        let json = self.json(origin);
        let mut plaintext = [0; PLAINTEXT_BYTES];
        // It fits: the text and the origin are bounded, and a test fills both.
        let length = json.len().min(PLAINTEXT_BYTES - 1);
        plaintext[..length].copy_from_slice(&json.as_bytes()[..length]);
        plaintext[length] = LAST_RECORD;
        plaintext
    }
}

/// The random source has failed, or the subscription's key is not a point of the curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the notification cannot be encrypted to this key")]
pub struct Unencrypted;

impl From<ring::error::Unspecified> for Unencrypted {
    fn from(_: ring::error::Unspecified) -> Self {
        Self
    }
}

/// The body of a request to a push service: always the same length, and nothing of it is the same twice.
///
/// # Errors
/// [`Unencrypted`].
pub fn encrypt(notification: &Notification, to: &WebPush, random: &dyn SecureRandom) -> Result<Vec<u8>, Unencrypted> {
    let own = EphemeralPrivateKey::generate(&ECDH_P256, random)?;
    let own_public = own.compute_public_key()?;
    let mut salt = [0; 16];
    random.fill(&mut salt)?;
    let receiver = UnparsedPublicKey::new(&ECDH_P256, &to.p256dh);
    let plaintext = notification.padded(to.origin.as_deref());
    agree_ephemeral(own, &receiver, |shared| seal(shared, to, own_public.as_ref(), salt, &plaintext))?
}

/// Whether a key is a point of the curve: one that is not is refused when a device subscribes, not when it is to be woken.
pub(crate) fn is_point(p256dh: &[u8; 65], random: &dyn SecureRandom) -> bool {
    let own = EphemeralPrivateKey::generate(&ECDH_P256, random);
    own.and_then(|own| agree_ephemeral(own, &UnparsedPublicKey::new(&ECDH_P256, p256dh), |_| ())).is_ok()
}

/// RFC 8291, section 3.4, and RFC 8188, section 2. `plaintext` ends with its delimiter and padding.
fn seal(
    shared: &[u8],
    to: &WebPush,
    own_public: &[u8],
    salt: [u8; 16],
    plaintext: &[u8],
) -> Result<Vec<u8>, Unencrypted> {
    let input: [u8; 32] =
        derive(&Salt::new(HKDF_SHA256, &to.auth), shared, &[b"WebPush: info\0", &to.p256dh, own_public])?;
    let salted = Salt::new(HKDF_SHA256, &salt);
    let key: [u8; 16] = derive(&salted, &input, &[b"Content-Encoding: aes128gcm\0"])?;
    let nonce: [u8; 12] = derive(&salted, &input, &[b"Content-Encoding: nonce\0"])?;
    let mut record = Vec::with_capacity(plaintext.len() + TAG_BYTES);
    record.extend_from_slice(plaintext);
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key)?);
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut record)?;
    let key_length = u8::try_from(own_public.len()).map_err(|_| Unencrypted)?;
    Ok([&salt[..], &RECORD_SIZE.to_be_bytes(), &[key_length], own_public, &record].concat())
}

fn derive<const N: usize>(salt: &Salt, secret: &[u8], info: &[&[u8]]) -> Result<[u8; N], Unencrypted> {
    struct Bytes(usize);
    impl KeyType for Bytes {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut derived = [0; N];
    salt.extract(secret).expand(info, Bytes(N))?.fill(&mut derived)?;
    Ok(derived)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ring::rand::SystemRandom;

    fn bytes(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    fn receiver() -> WebPush {
        let p256dh = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
        WebPush {
            endpoint: "https://push.example.net/push/JzLQ3raZJfFBR0aqvOMsLrt54w4rJUsV".parse().unwrap(),
            p256dh: bytes(p256dh).try_into().unwrap(),
            auth: bytes("BTBZMqHH6r4Tts7J_aSIgg").try_into().unwrap(),
            origin: None,
        }
    }

    /// RFC 8291, section 5 and appendix A.
    #[test]
    fn the_example_of_the_rfc_is_sealed_byte_for_byte() {
        let own_public =
            bytes("BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8");
        let shared = bytes("kyrL1jIIOHEzg3sM2ZWRHDRB62YACZhhSlknJ672kSs");
        let salt = bytes("DGv6ra1nlYgDCS1FRnbzlw").try_into().unwrap();
        let sealed = seal(&shared, &receiver(), &own_public, salt, b"When I grow up, I want to be a watermelon\x02");
        let expected = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6Tlz\
                        AC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";
        assert_eq!(URL_SAFE_NO_PAD.encode(sealed.unwrap()), expected);
    }

    #[test]
    fn the_length_is_the_same_whatever_the_text_and_the_origin_are() {
        let random = SystemRandom::new();
        let origin = format!("https://{}", "o".repeat(192));
        let long = "\u{e4}".repeat(80);
        for (text, origin) in [("a", None), (long.as_str(), Some(origin.as_str()))] {
            let notification = Notification::new(text).unwrap();
            assert!(notification.json(origin).len() < PLAINTEXT_BYTES);
            let to = WebPush { origin: origin.map(Into::into), ..receiver() };
            let body = encrypt(&notification, &to, &random).unwrap();
            assert_eq!(body.len(), 16 + 4 + 1 + 65 + PLAINTEXT_BYTES + TAG_BYTES);
            assert_eq!(body[16..21], [0, 0, 16, 0, 65]);
        }
        for bad in ["", "  ", "two\nlines", &"x".repeat(161), &"\"".repeat(81)] {
            assert!(Notification::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_key_that_is_not_a_point_is_told() {
        let random = SystemRandom::new();
        let mut to = receiver();
        assert!(is_point(&to.p256dh, &random));
        to.p256dh[64] ^= 1;
        assert!(!is_point(&to.p256dh, &random));
        let notification = Notification::new("x").unwrap();
        assert_eq!(encrypt(&notification, &to, &random), Err(Unencrypted));
    }

    #[test]
    fn the_notification_is_what_browsers_read() {
        let notification = Notification::new("Your agent has answered").unwrap();
        assert_eq!(
            notification.json(Some("https://relay.example")),
            r#"{"web_push":8030,"notification":{"title":"CoralMux","body":"Your agent has answered","navigate":"https://relay.example/","tag":"coralmux"}}"#
        );
        assert!(!notification.json(None).contains("navigate"));
    }
}
