//! What every Noise handshake here has in common: snow's primitives, and randomness that the caller gave.

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash};
use zeroize::Zeroizing;

/// snow's primitives, with randomness that was drawn beforehand.
pub(super) struct Drawn(Zeroizing<[u8; 32]>);

impl Drawn {
    /// With the ephemeral key of one handshake: 32 random bytes, used for nothing else.
    pub(super) fn boxed(ephemeral: [u8; 32]) -> Box<dyn CryptoResolver + Send> {
        Box::new(Self(Zeroizing::new(ephemeral)))
    }
}

impl CryptoResolver for Drawn {
    fn resolve_rng(&self) -> Option<Box<dyn snow::types::Random>> {
        Some(Box::new(Once(Some(self.0.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// 32 bytes, given out once: each pattern of ours draws one ephemeral key at either end.
struct Once(Option<Zeroizing<[u8; 32]>>);

impl snow::types::Random for Once {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), snow::Error> {
        let bytes = self.0.take().filter(|bytes| bytes.len() == out.len()).ok_or(snow::Error::Rng)?;
        out.copy_from_slice(&*bytes);
        Ok(())
    }
}
