//! AES-256-GCM (NIST SP 800-38D), as both versions use it: 12-byte nonces, the 16-byte tag behind the ciphertext.

use aes_gcm::aead::AeadInPlace;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};

/// A key's length.
pub(super) const KEY_BYTES: usize = 32;
/// A nonce's length.
pub(super) const NONCE_BYTES: usize = 12;
/// A tag's length.
pub const TAG_BYTES: usize = 16;

/// A key, expanded: about 1 KiB. Wiped on drop, and boxed so that moving it leaves no copies behind.
pub(super) struct Gcm(Box<Aes256Gcm>);

impl Gcm {
    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(Box::new(Aes256Gcm::new(key.into())))
    }

    /// Ciphertext and tag. That no nonce comes twice is for the caller to see to.
    pub(super) fn seal(&self, nonce: &[u8; NONCE_BYTES], associated: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(plaintext.len() + TAG_BYTES);
        sealed.extend_from_slice(plaintext);
        let tag = self.0.encrypt_in_place_detached(Nonce::from_slice(nonce), associated, &mut sealed);
        // It fails from 2^36 bytes on, and `PAYLOAD_BYTES_MAX` is below that.
        sealed.extend_from_slice(&tag.expect("a payload is shorter than GCM's bound"));
        sealed
    }

    /// The plaintext; `None` where it does not authenticate.
    pub(super) fn open(&self, nonce: &[u8; NONCE_BYTES], associated: &[u8], mut sealed: Vec<u8>) -> Option<Vec<u8>> {
        let tag_at = sealed.len().checked_sub(TAG_BYTES)?;
        let (text, tag) = sealed.split_at_mut(tag_at);
        let tag = Tag::clone_from_slice(tag);
        self.0.decrypt_in_place_detached(Nonce::from_slice(nonce), associated, text, &tag).ok()?;
        sealed.truncate(tag_at);
        Some(sealed)
    }
}
