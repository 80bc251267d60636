//! Devices of a token: the keys by which the relay knows them and their agent, and what it keeps of those instead.

use crate::token::hex;
use sha2::{Digest, Sha256};
use std::fmt;

/// The public name of a device: the first 8 bytes of its key's hash, shown as 16 lower-case hex digits. It admits to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(pub u64);

impl DeviceId {
    /// Reads the 16 hex digits that [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (text.len() == 16 && digits).then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// SHA-256 of the 32 random bytes by which the relay knows a device or an agent; those themselves are never kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// The hash of a key.
    #[must_use]
    pub fn of(key: &[u8; 32]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Reads 64 lower-case hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let mut hash = [0; 32];
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
        if pairs.len() != hash.len() {
            return None;
        }
        for (byte, &[high, low]) in hash.iter_mut().zip(pairs) {
            *byte = digit(high)? << 4 | digit(low)?;
        }
        Some(Self(hash))
    }

    /// The public name of the device with this key.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        let (first, _) = self.0.split_first_chunk().unwrap_or((&[0; 8], &[]));
        DeviceId(u64::from_be_bytes(*first))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({})", self.device())
    }
}

/// SHA-256 of an invite, which a device shows to be let in for its enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InviteHash(pub [u8; 32]);

impl InviteHash {
    /// The hash of an invite.
    #[must_use]
    pub fn of(invite: &[u8; 16]) -> Self {
        Self(Sha256::digest(invite).into())
    }
}

/// What a client shows beside its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The hash of its key.
    pub key: KeyHash,
    /// The hash of an invite, if it has one.
    pub invite: Option<InviteHash>,
}

/// Whom a bound token admits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The key of its agent.
    pub agent: KeyHash,
    /// Whether a phone without a device's key is admitted, too.
    pub legacy_phone: bool,
    /// The keys of its devices, in the order in which they were added.
    pub devices: Vec<KeyHash>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_id_and_the_invite_the_hash_of_the_vectors() {
        // clients/vectors/e2e_v3.json
        let key = KeyHash::parse("67b3806aa4e554d439ce054fa841f848ae58997038c39b911b404738a2a61b4a").unwrap();
        assert_eq!(KeyHash::of(&key.0).device().to_string(), "16d24de1e3a063b1");
        let invite = 0x42f6_411b_b710_28d0_e491_5890_2b29_e12a_u128.to_be_bytes();
        assert_eq!(hex(&InviteHash::of(&invite).0[..4]), "cd83e7e8");
    }

    #[test]
    fn ids_and_hashes_have_one_form() {
        for text in
            ["", "16d24de1e3a063b", "16d24de1e3a063b1a", "16D24de1e3a063b1", "+6d24de1e3a063b1", "16d24de1e3a063bg"]
        {
            assert_eq!(DeviceId::parse(text), None, "{text}");
        }
        assert_eq!(DeviceId::parse("00000000000000ff"), Some(DeviceId(255)));
        let hash = KeyHash::of(&[7; 32]);
        assert_eq!(KeyHash::parse(&hash.to_string()), Some(hash));
        let text = hash.to_string();
        for bad in [&text[1..], &text[..62], &text.to_uppercase(), &format!("{text}00"), &format!("g{}", &text[1..])] {
            assert_eq!(KeyHash::parse(bad), None, "{bad}");
        }
        assert_eq!(format!("{hash:?}"), format!("KeyHash({})", hash.device()), "the log has no hash");
    }
}
