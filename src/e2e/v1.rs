//! Version 1: X25519, HKDF-SHA256, AES-256-GCM with random nonces, for clients that know nothing else.
//!
//! Nobody vouches for the public keys: it protects against a relay that listens, not against one that interferes.

use super::error::{KeyError, OpenError, SealError};
use super::gcm::{Gcm, KEY_BYTES, NONCE_BYTES};
use super::payload::{Sealed, as_json, check_room, enclose, enclosed};
use super::{Random, draw};
use hkdf::Hkdf;
use serde_json::value::RawValue;
use sha2::Sha256;
use std::fmt;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::Zeroizing;

const SALT: &[u8] = b"openclaw-relay-e2e-v1";
const INFO: &[u8] = b"chat-encryption";

/// An X25519 key pair (RFC 7748). The private half is wiped on drop.
pub struct KeyPair {
    private: StaticSecret,
    public: [u8; 32],
}

impl KeyPair {
    /// A new pair.
    pub fn generate(random: &mut (impl Random + ?Sized)) -> Self {
        Self::from_private(draw(random))
    }

    /// The pair of a private key: 32 random bytes.
    #[must_use]
    pub fn from_private(private: [u8; 32]) -> Self {
        let private = StaticSecret::from(private);
        Self { public: PublicKey::from(&private).to_bytes(), private }
    }

    /// The raw public key.
    #[must_use]
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The key that is shared with the owner of another public key.
    ///
    /// # Errors
    /// The public key is not 32 bytes, or a point of low order.
    pub fn agree(&self, theirs: &[u8]) -> Result<Key, KeyError> {
        let key = derive(self.shared(theirs)?.as_bytes());
        Ok(Key { gcm: Gcm::new(&key), sealed: 0, newest: None })
    }

    pub(super) fn shared(&self, theirs: &[u8]) -> Result<SharedSecret, KeyError> {
        let theirs: [u8; 32] = theirs.try_into().map_err(|_| KeyError::Length(theirs.len()))?;
        let shared = self.private.diffie_hellman(&PublicKey::from(theirs));
        if shared.was_contributory() { Ok(shared) } else { Err(KeyError::LowOrder) }
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair(***)")
    }
}

/// The key of a pair, for both directions. Wiped on drop.
pub struct Key {
    gcm: Gcm,
    /// Messages sealed: at most [`super::MESSAGES_MAX`].
    sealed: u64,
    /// The nonce of the newest of them, against a source of randomness that repeats itself.
    newest: Option<[u8; NONCE_BYTES]>,
}

impl Key {
    /// Encrypts a payload; the result replaces it.
    ///
    /// # Errors
    /// The payload is too long, the key has sealed enough, or the randomness repeats itself.
    pub fn seal(
        &mut self,
        random: &mut (impl Random + ?Sized),
        payload: &RawValue,
    ) -> Result<Box<RawValue>, SealError> {
        self.seal_text(random, payload.get())
    }

    /// The same, of a payload's text.
    pub(super) fn seal_text(
        &mut self,
        random: &mut (impl Random + ?Sized),
        payload: &str,
    ) -> Result<Box<RawValue>, SealError> {
        check_room(payload, self.sealed)?;
        let nonce = draw(random);
        if self.newest == Some(nonce) {
            return Err(SealError::RepeatedNonce);
        }
        self.newest = Some(nonce);
        self.sealed += 1;
        Ok(enclose(&nonce, &self.gcm.seal(&nonce, b"", payload.as_bytes())))
    }

    /// Decrypts a payload; `None` for one in clear.
    ///
    /// # Errors
    /// The payload is malformed, does not authenticate, or was no JSON.
    pub fn open(&self, payload: &RawValue) -> Result<Option<Box<RawValue>>, OpenError> {
        enclosed(payload)?.map(|sealed| self.open_sealed(sealed)).transpose()
    }

    pub(super) fn open_sealed(&self, sealed: Sealed) -> Result<Box<RawValue>, OpenError> {
        let plaintext = self.gcm.open(&sealed.nonce, b"", sealed.ciphertext).ok_or(OpenError::Forged)?;
        as_json(plaintext)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

/// HKDF-SHA256 of a shared secret (RFC 5869).
pub(super) fn derive(shared: &[u8; 32]) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    // It fails from 255 times the hash's 32 bytes on.
    Hkdf::<Sha256>::new(Some(SALT), shared).expand(INFO, &mut *key).expect("32 bytes are within HKDF's bound");
    key
}
