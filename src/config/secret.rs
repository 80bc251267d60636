//! A text that must not show itself in logs, errors or panics.

use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;

/// The admin key: never blank.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text; the error says what is wrong with it.
    pub(super) fn new(text: &str) -> Result<Self, &'static str> {
        if text.trim().is_empty() {
            return Err("the admin key is empty, which never means open; give one, or leave it out to have one made");
        }
        if text.trim() != text || text.chars().any(char::is_control) {
            return Err(
                "the admin key begins or ends with white space or has control characters, which no HTTP header \
                        can carry; give one without",
            );
        }
        Ok(Self(text.to_owned()))
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether a client presented this very text; takes as long whether it is nearly right or not at all.
    #[must_use]
    pub fn matches(&self, presented: &[u8]) -> bool {
        // Over hashes, so that the length does not show either.
        let (own, other) = (Sha256::digest(self.0.as_bytes()), Sha256::digest(presented));
        own.as_slice().ct_eq(other.as_slice()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_matches_itself_alone_and_prints_masked() {
        let secret = Secret::new("my-secret").unwrap();
        assert!(secret.matches(b"my-secret"));
        for other in [&b""[..], b"my-secre", b"my-secret ", b"My-secret"] {
            assert!(!secret.matches(other));
        }
        assert_eq!(format!("{secret:?}"), "Secret(***)");
    }

    #[test]
    fn a_blank_or_unsendable_key_is_refused() {
        for bad in ["", " ", "\t\n", "key\n", " key", "a\0b"] {
            assert!(Secret::new(bad).is_err(), "{bad:?}");
        }
    }
}
