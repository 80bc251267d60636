//! The pairing token, and what the relay keeps of it instead.

use sha2::{Digest, Sha256};
use std::fmt;
use std::ops::{Index, IndexMut};

/// The text that each token begins with.
pub const TOKEN_PREFIX: &str = "oc_pair_";

/// A new pairing token's text: `oc_pair_` and 32 lower-case hex digits of 16 random bytes (wire contract, HTTP API).
#[must_use]
pub fn token_text(random: [u8; 16]) -> String {
    format!("{TOKEN_PREFIX}{}", hex(&random))
}

/// Whether this is a token's text (wire contract, HTTP API). Whether it admits is for the relay to say.
#[must_use]
pub fn is_token_text(text: &str) -> bool {
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.strip_prefix(TOKEN_PREFIX).is_some_and(|rest| rest.len() == 32 && rest.bytes().all(is_hex))
}

/// SHA-256 of a token's text: what the store keeps; the text itself is never kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// The hash of a token as a client sends it. Any text has one; whether it admits is for the directory to say.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// What tables in memory are keyed by.
    #[must_use]
    pub fn key(&self) -> TokenKey {
        let (first, _) = self.0.split_first_chunk().unwrap_or((&[0; 16], &[]));
        TokenKey(u128::from_be_bytes(*first))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({})", self.key().id())
    }
}

/// The first half of a [`TokenHash`]: 128 bits are enough to tell tokens apart, and half the memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenKey(pub u128);

impl TokenKey {
    /// The public name of a token in the API and the logs: 16 hex digits that admit to nothing.
    #[must_use]
    pub fn id(self) -> TokenId {
        TokenId((self.0 >> 64) as u64)
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({})", self.id())
    }
}

/// The public name of a token: the first 8 bytes of its hash, shown as 16 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub u64);

impl TokenId {
    /// Reads the 16 hex digits that [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (text.len() == 16 && digits).then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Lower-case hex digits of `bytes`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// One of the two ends of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The person's side.
    Phone,
    /// The AI server's side.
    Agent,
}

impl Role {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Phone, Self::Agent];

    /// The other end.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Phone => Self::Agent,
            Self::Agent => Self::Phone,
        }
    }

    /// Reads the `role` of an auth message: `phone` or `agent`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "phone" => Some(Self::Phone),
            "agent" => Some(Self::Agent),
            _ => None,
        }
    }

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Phone => "phone",
            Self::Agent => "agent",
        }
    }
}

/// Something that there is for each role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByRole<T> {
    /// That of the phone.
    pub phone: T,
    /// That of the agent.
    pub agent: T,
}

impl<T> Index<Role> for ByRole<T> {
    type Output = T;

    fn index(&self, role: Role) -> &T {
        match role {
            Role::Phone => &self.phone,
            Role::Agent => &self.agent,
        }
    }
}

impl<T> IndexMut<Role> for ByRole<T> {
    fn index_mut(&mut self, role: Role) -> &mut T {
        match role {
            Role::Phone => &mut self.phone,
            Role::Agent => &mut self.agent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_text_has_the_contracts_form() {
        assert_eq!(token_text([0xab; 16]), format!("oc_pair_{}", "ab".repeat(16)));
        assert!(is_token_text(&token_text([0xab; 16])));
        for bad in ["", "WRONG", "oc_pair_00", &format!("oc_pair_{}", "AB".repeat(16)), &"ab".repeat(20)] {
            assert!(!is_token_text(bad), "{bad}");
        }
    }

    #[test]
    fn an_id_reads_back_and_nothing_else_does() {
        let id = TokenHash::of("oc_pair_00").key().id();
        assert_eq!(TokenId::parse(&id.to_string()), Some(id));
        for bad in ["", "0", "00112233445566778", "0011223344556g77", "0011223344556A77", "+011223344556677"] {
            assert_eq!(TokenId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_hash_in_the_log_does_not_show_itself() {
        let hash = TokenHash::of("oc_pair_secret");
        assert_eq!(format!("{hash:?}").len(), "TokenHash()".len() + 16);
    }
}
