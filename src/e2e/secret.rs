//! The pairing secret of version 2: it travels in the link, and never through the relay.

use super::{Random, draw};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// 32 bytes that phone and agent share. Wiped on drop; never shows itself in a log.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PairingSecret([u8; 32]);

impl PairingSecret {
    /// A new secret.
    pub fn generate(random: &mut (impl Random + ?Sized)) -> Self {
        Self(draw(random))
    }

    /// The secret with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads the 43 characters of base64url without padding that [`expose`](Self::expose) writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // Room for three bytes more than a secret has, so that a longer text fails and does not fit by chance.
        let mut bytes = Zeroizing::new([0; 35]);
        let written = (text.len() == 43).then(|| URL_SAFE_NO_PAD.decode_slice(text, &mut *bytes).ok())??;
        let (secret, _) = bytes[..written].split_first_chunk()?;
        Some(Self(*secret))
    }

    /// The secret as a link has it: 43 characters of base64url without padding.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE_NO_PAD.encode(self.0))
    }

    /// The bytes themselves.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PairingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairingSecret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_reads_back_and_nothing_else_does() {
        let secret = PairingSecret::from_bytes([0xfb; 32]);
        let text = secret.expose();
        assert_eq!(text.as_str(), "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s");
        assert_eq!(PairingSecret::parse(&text).unwrap().as_bytes(), secret.as_bytes());
        let standard = text.replace('-', "+").replace('_', "/");
        let padded = format!("{}=", *text);
        let loose_bits = format!("{}t", &text[..42]);
        for bad in ["", &text[1..], &padded, &standard, &loose_bits, &"é".repeat(21), &"A".repeat(44)] {
            assert!(PairingSecret::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_secret_prints_masked() {
        assert_eq!(format!("{:?}", PairingSecret::from_bytes([7; 32])), "PairingSecret(***)");
    }
}
