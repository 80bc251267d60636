//! A text that must not show itself in logs, errors or panics.

use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fmt;
use subtle::ConstantTimeEq;

/// A key of random letters and digits has some 95 bits in so many.
const CHARACTERS_MIN: usize = 16;
/// Random hexadecimal digits have more different ones nearly always.
const DIFFERENT_MIN: usize = 6;

/// What is said of an admin key that can be found by trying.
pub const WEAK_KEY: &str = "the admin key is short or repetitive: anyone who guesses it has full control; use one of \
                                   32 random bytes, such as `openssl rand -hex 32` makes";

/// The admin key, or another secret of the operator's: never blank.
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

    /// Keeps what requests to the operator's gateway are signed with; the error says what is wrong with it.
    pub(super) fn of_hook(text: &str) -> Result<Self, &'static str> {
        if text.trim() != text || text.chars().count() < CHARACTERS_MIN {
            return Err("the secret of the hook has to have at least 16 characters, and no white space at its ends");
        }
        Ok(Self(text.to_owned()))
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether so short or so monotonous a key can be found by trying.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        let different: HashSet<char> = self.0.chars().collect();
        self.0.chars().count() < CHARACTERS_MIN || different.len() < DIFFERENT_MIN
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
    fn a_short_or_monotonous_key_is_weak_and_a_random_one_is_not() {
        for (text, weak) in [
            ("my-secret", true),
            ("123456789012345", true),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", true),
            ("abababababababababab", true),
            ("b1946ac92492d234", false),
            ("correct horse battery staple", false),
        ] {
            assert_eq!(Secret::new(text).unwrap().is_weak(), weak, "{text}");
        }
    }

    #[test]
    fn a_blank_or_unsendable_key_is_refused() {
        for bad in ["", " ", "\t\n", "key\n", " key", "a\0b"] {
            assert!(Secret::new(bad).is_err(), "{bad:?}");
        }
    }
}
