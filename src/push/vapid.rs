//! How a push service knows the relay (RFC 8292): a token signed by ES256, for each push service one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SecureRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde::Serialize;
use std::str::FromStr;
use std::time::Duration;

/// How long a signed token is valid; push services take at most 24 hours.
pub const JWT_VALID: Duration = Duration::from_secs(12 * 3600);

/// Whom a push service may write to about the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact(String);

/// What would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a mailto: or https: address that is yours, such as mailto:you@example.com")]
pub struct ContactError;

impl FromStr for Contact {
    type Err = ContactError;

    fn from_str(text: &str) -> Result<Self, ContactError> {
        let is_fine = match (text.strip_prefix("mailto:"), text.strip_prefix("https://")) {
            // Apple refuses tokens whose address is none (BadJwtToken).
            (Some(address), _) => address.split_once('@').is_some_and(|(user, host)| {
                !user.is_empty() && host.contains('.') && !host.starts_with('.') && !host.ends_with('.')
            }),
            (_, Some(rest)) => rest.split('/').next().is_some_and(|host| host.contains('.')),
            _ => false,
        };
        let is_fine = is_fine && text.len() <= 256 && text.bytes().all(|b| b.is_ascii_graphic());
        is_fine.then(|| Self(text.to_owned())).ok_or(ContactError)
    }
}

/// The relay's key.
pub struct VapidKey {
    pair: EcdsaKeyPair,
}

/// What is kept is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key for Web Push in the store is damaged")]
pub struct BadKey;

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    exp: u64,
    sub: &'a str,
}

impl VapidKey {
    /// Makes a key, as PKCS#8.
    ///
    /// # Errors
    /// The random source has failed.
    pub fn make(random: &dyn SecureRandom) -> Result<Vec<u8>, BadKey> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, random).map_err(|_| BadKey)?;
        Ok(document.as_ref().to_vec())
    }

    /// Reads what [`Self::make`] made.
    ///
    /// # Errors
    /// [`BadKey`].
    pub fn from_pkcs8(pkcs8: &[u8], random: &dyn SecureRandom) -> Result<Self, BadKey> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, random).map_err(|_| BadKey)?;
        Ok(Self { pair })
    }

    /// What browsers subscribe with, in base64url: 87 characters.
    #[must_use]
    pub fn public(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.pair.public_key())
    }

    /// The value of `Authorization` for push services of this origin, valid until `expires_at` (Unix seconds).
    ///
    /// # Errors
    /// The random source has failed.
    pub fn authorization(
        &self,
        origin: &str,
        expires_at: u64,
        contact: &Contact,
        random: &dyn SecureRandom,
    ) -> Result<String, BadKey> {
        let claims = Claims { aud: origin, exp: expires_at, sub: &contact.0 };
        let header = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"ES256"}"#);
        let claims = URL_SAFE_NO_PAD.encode(serde_json::to_string(&claims).map_err(|_| BadKey)?);
        let signed = format!("{header}.{claims}");
        let signature = self.pair.sign(random, signed.as_bytes()).map_err(|_| BadKey)?;
        let signature = URL_SAFE_NO_PAD.encode(signature.as_ref());
        Ok(format!("vapid t={signed}.{signature},k={}", self.public()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    #[test]
    fn a_token_is_signed_by_the_key_that_it_names() {
        let random = SystemRandom::new();
        let key = VapidKey::from_pkcs8(&VapidKey::make(&random).unwrap(), &random).unwrap();
        assert_eq!(key.public().len(), 87);
        let contact = "mailto:ops@relay.example".parse().unwrap();
        let value = key.authorization("https://push.example.com", 1_700_000_000, &contact, &random).unwrap();
        let (token, public) = value.strip_prefix("vapid t=").unwrap().split_once(",k=").unwrap();
        assert_eq!(public, key.public());
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let decode = |text| URL_SAFE_NO_PAD.decode(text).unwrap();
        let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, decode(public));
        assert!(verifier.verify(signed.as_bytes(), &decode(signature)).is_ok());
        let claims = decode(signed.split_once('.').unwrap().1);
        let expected = r#"{"aud":"https://push.example.com","exp":1700000000,"sub":"mailto:ops@relay.example"}"#;
        assert_eq!(claims, expected.as_bytes());
        assert!(VapidKey::from_pkcs8(b"nothing", &random).is_err());
    }

    #[test]
    fn a_contact_is_an_address_that_exists() {
        for good in ["mailto:ops@relay.example", "https://relay.example", "https://relay.example/contact"] {
            assert!(good.parse::<Contact>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "ops@relay.example",
            "mailto:",
            "mailto:ops",
            "mailto:ops@localhost",
            "mailto:@a.b",
            "http://a.b",
            "https://a",
        ] {
            assert!(bad.parse::<Contact>().is_err(), "{bad}");
        }
    }
}
